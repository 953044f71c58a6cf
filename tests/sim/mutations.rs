//! Teeth: faults that are put between the supervisor and the world, to see that the rules find them. None of this is near production
//! code: what the supervisor hears and wants is changed on its way.

use std::collections::BTreeSet;

use spooler::policy::priority_plan::Level;
use spooler::record::Change;
use spooler::supervisor::event::{
    Action, Answer, Ask, AskId, Event, ReportKind, SubmitOrder, Ticket, WorkerId, WorkerNews,
};
use spooler_protocol::calls::{EndMessage, SpoolerNotify};
use spooler_protocol::control::RecipientState;
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::{DeliveryId, MessageId, Token};
use spooler_protocol::notification::{Notification, SystemMessage};
use spooler_protocol::outcome::SubmitResult;
use spooler_protocol::to_worker::ToWorker;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A message is reported as kept and never gets to the disk.
    AcceptIsLost,
    /// A sender is told before the commit.
    AcceptedTooEarly,
    /// A worker that has a token gets another.
    TokenTwice,
    /// A worker gets a token beside the slots.
    SlotIgnored,
    /// A worker never gets its token.
    OneStarves,
    /// The priority of a critical section stays.
    PriorityStays,
    /// A recipient that was served is handed out again.
    ServedAgain,
    /// Nobody hears of a worker's death: what it had in its hands is not offered again.
    DeathUnheard,
    /// A message that is through stays on disk.
    RemoveIsLost,
    /// What became of a recipient does not get to the disk.
    OutcomeIsLost,
    /// Nobody is told of a failure.
    ReportIsLost,
    /// A message that is held goes out.
    HoldIgnored,
    /// A question is not answered.
    AnswerIsLost,
    /// A message is removed when its first recipient is served.
    RemovedTooEarly,
    /// What a worker that died had in its hands is not handed out again, and the supervisor believes it is.
    FlightsForgotten,
    /// Nobody tells the supervisor what others use of the machine.
    GateUnseen,
    /// Nobody looks at the machine.
    NobodyLooks,
    /// The supervisor does not see that nothing is left unused.
    FullUnseen,
    /// Tokens are not asked back.
    RecallIsLost,
    /// Clocks of workers are not read: who is silent is not looked after.
    ClockUnread,
    /// The same, and who computes is not, either.
    ComputingUnseen,
    /// Nobody hears that nothing comes to disk.
    StuckUnheard,
    /// A critical section is asked for and not heard.
    SectionUnheard,
    /// A device that is not there is not missed.
    DeviceUnseen,
    /// The machine sleeps without a word.
    SleepUnheard,
    /// Workers that hang are not killed.
    KillIsLost,
    /// A call is made twice.
    CalledTwice,
    /// A critical error is not heard.
    ErrorUnheard,
    /// A message that a provider keeps is given to it again.
    KeptIsForgotten,
    /// Whoever wants a message again at once gets it without end.
    ResentForEver,
    /// Nobody is told what a provider wants told.
    AskedReportIsLost,
    /// A success is told twice.
    ToldTwice,
    /// A report that was built is lost on its way to the supervisor.
    BuiltIsLost,
    /// What a report quotes is removed before it is built.
    RemovedUnread,
    /// That the machine is about to sleep is told to one that has no token, and gets none.
    ToldIsKeptWaiting,
}

/// All of them.
pub(crate) const ALL: [Mutation; 35] = [
    Mutation::AcceptIsLost,
    Mutation::AcceptedTooEarly,
    Mutation::TokenTwice,
    Mutation::SlotIgnored,
    Mutation::OneStarves,
    Mutation::PriorityStays,
    Mutation::ServedAgain,
    Mutation::DeathUnheard,
    Mutation::RemoveIsLost,
    Mutation::OutcomeIsLost,
    Mutation::ReportIsLost,
    Mutation::HoldIgnored,
    Mutation::AnswerIsLost,
    Mutation::RemovedTooEarly,
    Mutation::FlightsForgotten,
    Mutation::GateUnseen,
    Mutation::NobodyLooks,
    Mutation::FullUnseen,
    Mutation::RecallIsLost,
    Mutation::ClockUnread,
    Mutation::ComputingUnseen,
    Mutation::StuckUnheard,
    Mutation::SectionUnheard,
    Mutation::DeviceUnseen,
    Mutation::SleepUnheard,
    Mutation::KillIsLost,
    Mutation::CalledTwice,
    Mutation::ErrorUnheard,
    Mutation::KeptIsForgotten,
    Mutation::ResentForEver,
    Mutation::AskedReportIsLost,
    Mutation::ToldTwice,
    Mutation::BuiltIsLost,
    Mutation::RemovedUnread,
    Mutation::ToldIsKeptWaiting,
];

impl Mutation {
    /// The rule that has to find it.
    pub(crate) fn rule(self) -> &'static str {
        match self {
            Self::AcceptIsLost | Self::AcceptedTooEarly => "accepted means on disk",
            Self::TokenTwice => "one token each, for those that want one",
            Self::SlotIgnored => "tokens out do not exceed the slots",
            Self::OneStarves => "nobody waits past the bound",
            Self::PriorityStays => "priority is put back",
            Self::ServedAgain => "the settled are not served again",
            Self::DeathUnheard | Self::AnswerIsLost => "everything comes to its end",
            Self::RemoveIsLost => "what is on disk is scheduled",
            Self::OutcomeIsLost => "the pending on disk are the scheduled ones",
            Self::ReportIsLost => "failure is told",
            Self::HoldIgnored => "the held stay where they are",
            Self::RemovedTooEarly => "no accepted message is lost",
            Self::FlightsForgotten => "every message in flight has a row",
            Self::GateUnseen => "a closed gate lets only a trickle through",
            Self::FullUnseen => "in a pause nobody begins",
            Self::ClockUnread => "who is silent is made to go",
            Self::ComputingUnseen => "who computes without end is made to go",
            Self::StuckUnheard => "while nothing comes to disk nothing goes out",
            Self::RecallIsLost => "for a pause tokens are asked back",
            Self::NobodyLooks => "somebody looks while background work waits",
            Self::SectionUnheard => "who is urgent waits for nobody",
            Self::DeviceUnseen => "who lacks a device gets no delivery",
            Self::SleepUnheard => "before sleep nothing begins",
            Self::KillIsLost => "who hangs is made to go",
            Self::CalledTwice => "one call at a time",
            Self::ErrorUnheard => "after a critical error nothing is called",
            Self::KeptIsForgotten => "who keeps a message is not given it",
            Self::ResentForEver => "again at once is not for ever",
            Self::AskedReportIsLost => "what a provider wants told is told",
            Self::ToldTwice => "success is told once",
            Self::BuiltIsLost => "a report that is built is kept",
            Self::RemovedUnread => "what is settled waits for its reports",
            Self::ToldIsKeptWaiting => "who is urgent waits for nobody",
        }
    }
}

/// The faulty wire; without a mutation it changes nothing.
#[derive(Debug)]
pub(crate) struct Mutant {
    mutation: Option<Mutation>,
    orders: Vec<SubmitOrder>,
    /// What the supervisor hears besides.
    extra: Vec<Event>,
    /// What is wanted besides.
    besides: Vec<Action>,
    asked: Option<AskId>,
    wanting: Option<WorkerId>,
    /// Messages that workers had when they died.
    lost: BTreeSet<MessageId>,
    /// Workers that were told that the machine is about to go.
    deaf: BTreeSet<WorkerId>,
    count: u64,
}

impl Mutant {
    /// A wire with this fault.
    pub(crate) fn new(mutation: Option<Mutation>) -> Self {
        Self {
            mutation,
            orders: Vec::new(),
            extra: Vec::new(),
            besides: Vec::new(),
            asked: None,
            wanting: None,
            lost: BTreeSet::new(),
            deaf: BTreeSet::new(),
            count: 0,
        }
    }

    /// Whether the wire changes what the supervisor cannot see: its status rows are not compared then, for they would tell at once.
    pub(crate) fn is_faulty(&self) -> bool {
        self.mutation.is_some_and(|mutation| mutation != Mutation::FlightsForgotten)
    }

    /// What the supervisor hears after this step besides.
    pub(crate) fn extra(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.extra)
    }

    /// The supervisor hears something. False if it does not get to hear it.
    pub(crate) fn hears(&mut self, event: &mut Event) -> bool {
        let Some(mutation) = self.mutation else { return true };
        if is_hidden(mutation, event) {
            return false;
        }
        self.twist(mutation, event);
        match (self.mutation, &*event) {
            (None, _) => {}
            (Some(Mutation::AcceptedTooEarly), Event::Asked(ask, Ask::Submit { .. })) => self.asked = Some(*ask),
            (Some(Mutation::SlotIgnored), Event::Worker(worker, WorkerNews::Said { said: FromWorker::Want, .. })) => {
                self.wanting = Some(*worker);
            }
            (Some(Mutation::DeathUnheard), Event::Worker(_, WorkerNews::Died(_))) => return false,
            (
                Some(Mutation::ServedAgain),
                Event::Worker(_, WorkerNews::Said { said: FromWorker::Finished { delivery, outcomes, .. }, .. }),
            ) if outcomes.iter().any(|(place, outcome)| *place == 0 && outcome.settles()) => {
                let order = self.orders.iter().find(|order| order.delivery == *delivery).cloned();
                let again =
                    order.map(|order| SubmitOrder { delivery: DeliveryId(order.delivery.0 + 500_000), ..order });
                self.besides.extend(again.map(Action::Submit));
            }
            (
                Some(Mutation::ResentForEver),
                Event::Worker(_, WorkerNews::Said { said: FromWorker::Finished { delivery, result, end, .. }, .. }),
            ) if (result, *end) == (&SubmitResult::Done, EndMessage::ResendNow) => {
                let order = self.orders.iter().find(|order| order.delivery == *delivery).cloned();
                let Some(order) = order else { return true };
                let again = SubmitOrder { delivery: DeliveryId(order.delivery.0 + 500_000), ..order };
                self.orders.push(again.clone());
                self.besides.extend([Action::Forget(*delivery), Action::Submit(again)]);
                return false;
            }
            (
                Some(Mutation::HoldIgnored),
                Event::Asked(ask, Ask::Queue(spooler_protocol::control::QueueAction::Hold, ..)),
            ) => {
                let done = spooler_protocol::control::QueueDone { done: 1, ..Default::default() };
                self.besides.push(Action::Answer(*ask, Answer::Queue(Ok(done))));
                return false;
            }
            _ => {}
        }
        true
    }

    /// The supervisor hears something else than what was said.
    fn twist(&mut self, mutation: Mutation, event: &mut Event) {
        if let (Mutation::FullUnseen, Event::Observed(seen)) = (mutation, &mut *event) {
            seen.unused = seen.capacity;
        }
        if let (Mutation::BuiltIsLost, Event::ReportBuilt(_, report)) = (mutation, &mut *event) {
            *report = None;
        }
        let Event::Worker(worker, news) = event else { return };
        match (mutation, news) {
            (Mutation::FlightsForgotten, WorkerNews::Died(_)) => {
                let had = self.orders.iter().filter(|order| order.worker == *worker).map(|order| order.id);
                self.lost.extend(had);
            }
            (
                Mutation::KeptIsForgotten,
                WorkerNews::Said { said: FromWorker::Finished { end: end @ EndMessage::Deferred, .. }, .. },
            ) => *end = EndMessage::ResendNow,
            _ => {}
        }
    }

    /// Changes what is wanted.
    pub(crate) fn corrupt(&mut self, actions: &mut Vec<Action>) {
        let Some(mutation) = self.mutation else { return };
        for action in std::mem::take(actions) {
            if let Action::Submit(order) = &action {
                self.orders.push(order.clone());
            }
            self.count += 1;
            self.corrupt_one(mutation, action, actions);
        }
        actions.append(&mut self.besides);
        self.grant_anyway(actions);
    }

    fn corrupt_one(&mut self, mutation: Mutation, action: Action, actions: &mut Vec<Action>) {
        match (mutation, action) {
            (Mutation::AcceptIsLost, Action::Commit(ticket, unit))
                if accepted(&unit).is_some() && self.count.is_multiple_of(3) =>
            {
                self.extra.push(Event::Committed(ticket, Ok(())));
            }
            (Mutation::AcceptedTooEarly, Action::Commit(ticket, unit)) => self.accept_early(ticket, unit, actions),
            (Mutation::TokenTwice, Action::Send(worker, ToWorker::Grant { token, slice_ms, recalled })) => {
                actions.push(Action::Send(worker, ToWorker::Grant { token, slice_ms, recalled }));
                let twice = ToWorker::Grant { token: Token(token.0 + 1), slice_ms, recalled };
                actions.push(Action::Send(worker, twice));
            }
            (Mutation::OneStarves, Action::Send(worker, ToWorker::Grant { .. })) if worker.provider.0 == 1 => {}
            (Mutation::PriorityStays, Action::SetPriority(_, Level::Base { .. })) => {}
            (Mutation::RemoveIsLost, Action::Commit(ticket, mut unit)) => {
                unit.retain(|change| !matches!(change, Change::Remove { .. }));
                actions.push(Action::Commit(ticket, unit));
            }
            (Mutation::OutcomeIsLost, Action::Commit(ticket, mut unit)) => {
                for change in &mut unit {
                    if let Change::Recipients { updates, .. } = change {
                        updates.retain(|update| update.state == RecipientState::Pending);
                    }
                }
                actions.push(Action::Commit(ticket, unit));
            }
            (Mutation::ReportIsLost, Action::Report(order)) if order.kind == ReportKind::Failed => {}
            (Mutation::AnswerIsLost, Action::Answer(_, Answer::Queue(_))) if self.count.is_multiple_of(2) => {}
            (Mutation::RemovedTooEarly, Action::Commit(ticket, mut unit)) => {
                for change in &mut unit {
                    if let Change::Recipients { id, .. } = change {
                        *change = Change::Remove { id: *id, ending: None };
                    }
                }
                actions.push(Action::Commit(ticket, unit));
            }
            (Mutation::FlightsForgotten, Action::Submit(order)) if self.lost.contains(&order.id) => {}
            (Mutation::NobodyLooks, Action::Look { .. }) | (Mutation::KillIsLost, Action::Kill(_)) => {}
            (Mutation::CalledTwice, Action::Send(worker, word @ (ToWorker::Poll | ToWorker::Idle))) => {
                actions.push(Action::Send(worker, word.clone()));
                actions.push(Action::Send(worker, word));
            }
            (Mutation::RecallIsLost, Action::Send(_, ToWorker::Recall { .. })) => {}
            (Mutation::RemovedUnread, Action::Report(order)) => {
                let id = order.id;
                actions.push(Action::Report(order));
                actions.push(Action::Commit(Ticket(1 << 50), vec![Change::Remove { id, ending: None }]));
            }
            (Mutation::ToldIsKeptWaiting, Action::Send(worker, ToWorker::Notify(Notification::System(message)))) => {
                let goes = matches!(message, SystemMessage::Suspend | SystemMessage::Shutdown);
                self.deaf.extend(goes.then_some(worker));
                actions.push(Action::Send(worker, ToWorker::Notify(Notification::System(message))));
            }
            (Mutation::ToldIsKeptWaiting, Action::Send(worker, ToWorker::Grant { .. }))
                if self.deaf.contains(&worker) => {}
            (Mutation::AskedReportIsLost, Action::Report(order)) if order.kind == ReportKind::SentAsAsked => {}
            (Mutation::ToldTwice, Action::Report(order)) if order.kind == ReportKind::SentAsAsked => {
                actions.push(Action::Report(order.clone()));
                actions.push(Action::Report(order));
            }
            (_, action) => actions.push(action),
        }
    }

    fn accept_early(&mut self, ticket: Ticket, unit: Vec<Change>, actions: &mut Vec<Action>) {
        let answer = self.asked.take().zip(accepted(&unit));
        actions.extend(answer.map(|(ask, id)| Action::Answer(ask, Answer::Submitted(Ok(id)))));
        actions.push(Action::Commit(ticket, unit));
    }

    /// The last worker to want a token gets one, if it got none in this step.
    fn grant_anyway(&mut self, actions: &mut Vec<Action>) {
        let Some(wanting) = self.wanting.take() else { return };
        let gets =
            |action: &Action| matches!(action, Action::Send(worker, ToWorker::Grant { .. }) if *worker == wanting);
        if !actions.iter().any(gets) {
            actions
                .push(Action::Send(wanting, ToWorker::Grant { token: Token(1 << 50), slice_ms: 100, recalled: false }));
        }
    }
}

/// What the supervisor does not get to hear.
fn is_hidden(mutation: Mutation, event: &Event) -> bool {
    let said = match event {
        Event::Worker(_, WorkerNews::Said { said, .. }) => Some(said),
        _ => None,
    };
    match (mutation, event) {
        (Mutation::GateUnseen, Event::Observed(_)) | (Mutation::DeviceUnseen, Event::DevicePresent(_, false)) => true,
        (Mutation::SleepUnheard, Event::System(SystemMessage::Suspend)) => true,
        (Mutation::ClockUnread | Mutation::ComputingUnseen, Event::Worker(_, WorkerNews::Cpu(_)))
        | (Mutation::StuckUnheard, Event::StoreStuck(Some(_))) => true,
        (Mutation::SectionUnheard, _) => matches!(said, Some(FromWorker::CriticalBegin { .. })),
        (Mutation::ErrorUnheard, _) => {
            matches!(said, Some(FromWorker::Notify(SpoolerNotify::CriticalError(_))))
        }
        _ => false,
    }
}

fn accepted(unit: &[Change]) -> Option<MessageId> {
    unit.iter().find_map(|change| match change {
        Change::Accept(message) => Some(message.id),
        _ => None,
    })
}
