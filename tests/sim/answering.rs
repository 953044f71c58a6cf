//! How a simulated provider answers what it is asked: as it should, or not, or never.

use spooler_protocol::calls::{CallError, FlushFlags, Methods, Prompt, SpoolerNotify, StartResult, Wishes};
use spooler_protocol::from_worker::{FromWorker, LoggedOn, LogonError, RowUpdate};
use spooler_protocol::ids::MessageId;
use spooler_protocol::to_worker::{ToWorker, Welcome};

use crate::lies;
use crate::plan::ProviderPlan;
use crate::script::{Act, ENDLESS_MS, Script};
use crate::stage::Stage;
use crate::worker::Worker;

/// What a provider asks a person.
pub(crate) const QUESTION: &str = "password";
/// What it wants to hear.
pub(crate) const ANSWER: &str = "right";

/// What a provider is.
pub(crate) fn announcement(plan: &ProviderPlan) -> LoggedOn {
    LoggedOn {
        address_types: plan.kind.map(str::to_owned).into_iter().collect(),
        credit: plan.credit,
        destinations: plan.destinations,
        identity: plan.name.clone(),
        wishes: plan.wishes,
        methods: if plan.flushable { Methods::FLUSH_QUEUES } else { Methods::default() },
        ..LoggedOn::default()
    }
}

/// What a provider that needs a person says to what the person has answered.
pub(crate) fn ask_person(plan: &ProviderPlan, welcome: &Welcome) -> Result<(), LogonError> {
    if !plan.asks {
        return Ok(());
    }
    match welcome.answers.iter().find(|(key, _)| key == QUESTION) {
        Some((_, answer)) if answer == ANSWER => Ok(()),
        Some(_) => Err(LogonError::Failed("the password is wrong".to_owned())),
        None => {
            let prompt = Prompt { key: QUESTION.to_owned(), label: "Password".to_owned(), secret: true };
            Err(LogonError::Unanswered(vec![prompt]))
        }
    }
}

/// Wishes of some providers.
pub(crate) const WISHES: [Wishes; 4] =
    [Wishes(0), Wishes::IDLE, Wishes::POLL, Wishes(Wishes::IDLE.0 | Wishes::POLL.0 | Wishes::RESOLVE.0)];

impl Worker {
    /// A call of the spooler that provider code answers, so with a token.
    pub(crate) fn be_called(&mut self, call: &ToWorker, stage: &mut Stage) {
        let answer = self.right_answer(call, stage);
        let mut script = Script::from([Act::Compute(1)]);
        if stage.rng.chance(200) {
            script.push_back(Act::Sleep(stage.rng.between(0, 500)));
        }
        if answer == FromWorker::StartEnded(StartResult::Saved) {
            script.extend([Act::Upload, Act::HandIn]);
        }
        if stage.mishap(stage.plan.troubles.answer) {
            match stage.rng.below(3) {
                0 => script.push_back(Act::Answer(Box::new(lies::answer(stage)))),
                1 => script.push_back(Act::Sleep(ENDLESS_MS)),
                _ => script.push_back(Act::Die),
            }
        }
        script.push_back(Act::Answer(Box::new(answer)));
        self.spawn(script);
    }

    fn right_answer(&mut self, call: &ToWorker, stage: &mut Stage) -> FromWorker {
        let unwilling = stage.mishap(stage.plan.troubles.answer);
        let inbound = if stage.healed { 0 } else { self.plan.inbound.max(200) };
        match call {
            ToWorker::Announce => FromWorker::Announced(announcement(&self.plan)),
            ToWorker::Poll => FromWorker::Polled { waiting: stage.rng.chance(inbound) },
            ToWorker::StartMessage if unwilling => FromWorker::StartEnded(StartResult::Failed("busy".to_owned())),
            ToWorker::StartMessage if stage.rng.chance(inbound) => FromWorker::StartEnded(StartResult::Saved),
            ToWorker::StartMessage => FromWorker::StartEnded(StartResult::NotSaved),
            ToWorker::FlushQueues(_) if unwilling => FromWorker::FlushAnswered(Err(CallError::NoSupport)),
            ToWorker::FlushQueues(flags) => {
                self.set_flush_bits(*flags, stage);
                FromWorker::FlushAnswered(Ok(()))
            }
            ToWorker::ValidateState { request, .. } => {
                let result = if unwilling { Err(CallError::Failed("no line".to_owned())) } else { Ok(()) };
                FromWorker::Validated { request: *request, result }
            }
            _ => FromWorker::Idled,
        }
    }

    /// The way that the provider wants to be flushed is said by the bits of its row.
    fn set_flush_bits(&mut self, flags: FlushFlags, stage: &mut Stage) {
        let update = RowUpdate {
            outbound_flush: flags.contains(FlushFlags::OUTBOUND).then_some(true),
            inbound_flush: flags.contains(FlushFlags::INBOUND).then_some(true),
            ..RowUpdate::default()
        };
        self.say_row(update, stage);
    }

    /// The provider keeps a message, and asks for it after a while; or not, as long as there is trouble.
    pub(crate) fn keep(&mut self, message: MessageId, stage: &mut Stage) {
        if stage.mishap(200) {
            return;
        }
        let wait_ms = stage.rng.between(50, 5000);
        let asks = FromWorker::Notify(SpoolerNotify::SentDeferred(message));
        self.spawn(Script::from([Act::Sleep(wait_ms), Act::Answer(Box::new(asks))]));
    }
}
