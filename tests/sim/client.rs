//! Those who use the spooler: programs that send, persons who command and watch.

use std::collections::BTreeMap;

use bytes::Bytes;
use spooler::supervisor::event::{Answer, Ask, AskId, Event, Incoming, UploadKey};
use spooler_protocol::calls::ValidateFlags;
use spooler_protocol::control::{FlushCommand, LogonCommand, ProviderAction, ProviderCommand, QueueAction};
use spooler_protocol::ids::MessageId;
use spooler_protocol::message::{Address, Envelope, Notify, Priority, Recipient};
use spooler_protocol::status::{StatusCode, WorkerState};

use crate::agenda::Happening;
use crate::answering::{ANSWER, QUESTION};
use crate::checker::{Verdict, demand};
use crate::stage::Stage;
use crate::world::World;

/// What a client waits for.
#[derive(Clone, Copy, Debug)]
enum Wish {
    Flush,
    FlushProgress(u64),
    Other,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    next_ask: u64,
    next_address: u64,
    wishes: BTreeMap<AskId, Wish>,
    /// Messages that were handed in: for commands to choose from.
    last_id: MessageId,
    /// Submissions so far.
    pub(crate) submitted: u64,
}

impl Clients {
    /// A message that somebody hands in.
    pub(crate) fn message(&mut self, stage: &mut Stage) -> (Envelope, Bytes) {
        let most = stage.plan.recipients_max;
        let count = if stage.rng.chance(500) { 1 } else { stage.rng.count(1, most) };
        let mut envelope = Envelope { sender: self.address(stage), ..Envelope::default() };
        if stage.rng.chance(100) {
            envelope.sender.clear();
        }
        for _ in 0..count {
            let text = self.address(stage);
            let Ok(address) = Address::smtp(&text) else { continue };
            let mut recipient = Recipient::new(address);
            recipient.notify = match stage.rng.below(20) {
                0 => Some(Notify::NEVER),
                1 | 2 => Some(Notify { success: true, failure: true, delay: false }),
                _ => None,
            };
            envelope.recipients.push(recipient);
        }
        envelope.priority = match stage.rng.below(10) {
            0 => Priority::Urgent,
            1 => Priority::NonUrgent,
            _ => Priority::Normal,
        };
        self.submitted += 1;
        (envelope, Bytes::from_static(b"Subject: simulated\r\n\r\n"))
    }

    fn address(&mut self, stage: &mut Stage) -> String {
        self.next_address += 1;
        let domain = stage.plan.domain(&mut stage.rng);
        format!("u{}@{domain}", self.next_address)
    }

    fn ask(&mut self, wish: Wish) -> AskId {
        self.next_ask += 1;
        let ask = AskId(self.next_ask);
        self.wishes.insert(ask, wish);
        ask
    }

    /// Nobody is answered any more.
    pub(crate) fn supervisor_gone(&mut self) {
        self.wishes.clear();
    }
}

impl World {
    /// Everybody begins.
    pub(crate) fn begin_load(&mut self) {
        self.stage.always_after(5, Happening::Load);
        self.stage.always_after(700, Happening::Look);
        self.stage.always_after(300, Happening::Mishap);
        self.begin_foreground();
        if let Some(ms) = self.stage.plan.command_ms {
            self.stage.always_after(ms, Happening::Command);
        }
    }

    fn asks(&mut self, wish: Wish, ask: Ask) -> Verdict {
        if self.supervisor.is_none() {
            return Ok(());
        }
        let id = self.clients.ask(wish);
        self.hear(Event::Asked(id, ask))
    }

    /// A program sends a message; the next one follows, as long as there is trouble.
    pub(crate) fn load(&mut self) -> Verdict {
        let ms = self.stage.plan.load_ms;
        if !self.stage.healed {
            let wait_ms = if self.stage.rng.chance(200) { 0 } else { self.stage.rng.between(1, 2 * ms) };
            self.stage.always_after(wait_ms, Happening::Load);
        }
        let (envelope, content) = self.clients.message(&mut self.stage);
        let content = if self.stage.rng.chance(100) {
            Incoming::Upload { key: UploadKey(self.clients.submitted), size: 2000, message_id: None }
        } else {
            Incoming::Inline(content)
        };
        self.asks(
            Wish::Other,
            Ask::Submit { envelope, submission: true, origin: "uid 1".to_owned(), owner_uid: 1, content },
        )
    }

    /// A person commands something.
    pub(crate) fn command(&mut self) -> Verdict {
        let Some(ms) = self.stage.plan.command_ms.filter(|_| !self.stage.healed) else { return Ok(()) };
        let wait_ms = self.stage.rng.between(1, 2 * ms);
        self.stage.always_after(wait_ms, Happening::Command);
        match self.stage.rng.below(10) {
            0..=5 => self.command_message(),
            6 | 7 => self.command_provider(),
            _ => {
                let provider = self.stage.rng.pick(&self.stage.plan.providers).map(|provider| provider.name.clone());
                let provider = provider.filter(|_| self.stage.rng.chance(700));
                self.asks(Wish::Flush, Ask::FlushBegin(FlushCommand { provider, ..FlushCommand::default() }))
            }
        }
    }

    fn command_message(&mut self) -> Verdict {
        const ACTIONS: [QueueAction; 7] = [
            QueueAction::Hold,
            QueueAction::Hold,
            QueueAction::Release,
            QueueAction::Release,
            QueueAction::Retry,
            QueueAction::Delete,
            QueueAction::Cancel,
        ];
        let Some(supervisor) = &self.supervisor else { return Ok(()) };
        let mut known: Vec<MessageId> = supervisor.queue().iter().map(|(id, _)| id).collect();
        known.sort();
        let action = *self.stage.rng.pick(&ACTIONS).unwrap_or(&QueueAction::Retry);
        let id = self.stage.rng.pick(&known).copied().unwrap_or(self.clients.last_id);
        self.asks(Wish::Other, Ask::Queue(action, vec![id], 0))
    }

    fn command_provider(&mut self) -> Verdict {
        const ACTIONS: [ProviderAction; 4] =
            [ProviderAction::Restart, ProviderAction::Pause, ProviderAction::Resume, ProviderAction::Validate];
        let Some(provider) = self.stage.rng.pick(&self.stage.plan.providers) else { return Ok(()) };
        let name = provider.name.clone();
        match self.stage.rng.below(9) {
            2 => return self.asks(Wish::Other, Ask::ProviderDetail(name)),
            0 => return self.asks(Wish::Other, Ask::ValidateAll(ValidateFlags::CONFIG_CHANGED)),
            1 => {
                let answer = *self.stage.rng.pick(&["right", "wrong"]).unwrap_or(&"wrong");
                let cancel = self.stage.rng.chance(100);
                return self.log_on(name, answer, cancel);
            }
            _ => {}
        }
        let action = *self.stage.rng.pick(&ACTIONS).unwrap_or(&ProviderAction::Resume);
        self.asks(Wish::Other, Ask::Provider(name, ProviderCommand { action, flags: ValidateFlags::default() }))
    }

    /// A person answers what a provider asks at logon.
    fn log_on(&mut self, name: String, answer: &str, cancel: bool) -> Verdict {
        let answers = std::collections::BTreeMap::from([(QUESTION.to_owned(), answer.to_owned())]);
        self.asks(Wish::Other, Ask::Logon(name, LogonCommand { answers, cancel }))
    }

    /// A person lifts what was done to providers.
    pub(crate) fn mend_providers(&mut self) -> Verdict {
        let names: Vec<String> = self.stage.plan.providers.iter().map(|provider| provider.name.clone()).collect();
        for name in names {
            self.asks(
                Wish::Other,
                Ask::Provider(
                    name,
                    ProviderCommand { action: ProviderAction::Resume, flags: ValidateFlags::default() },
                ),
            )?;
        }
        Ok(())
    }

    /// The configuration is read again.
    pub(crate) fn reload(&mut self) -> Verdict {
        let config = self.stage.plan.config();
        let stopping = self.checker.is_stopping();
        if !stopping {
            self.checker.tokens.configure(&self.stage.plan);
        }
        self.hear(Event::Reload(Box::new(config)))
    }

    /// Somebody looks at the table: what it says is compared with what is known.
    pub(crate) fn look(&mut self) -> Verdict {
        let wait_ms = self.stage.rng.between(200, 2000);
        self.stage.always_after(wait_ms, Happening::Look);
        if self.supervisor.is_none() {
            return Ok(());
        }
        let now_ms = self.stage.mono_ms;
        let clocks: Vec<_> = self.workers.values().map(|worker| (worker.id, worker.clock_us(now_ms))).collect();
        for (id, cpu_us) in clocks {
            if self.checker.is_alive(id) {
                self.hear(Event::Worker(id, spooler::supervisor::event::WorkerNews::Cpu(Some(cpu_us))))?;
            }
        }
        self.asks(Wish::Other, Ask::Status)?;
        if self.mutant.is_faulty() {
            return Ok(());
        }
        let (out, flights) = (self.checker.tokens.out(), self.checker.mail.flights());
        self.checker.table.compare(out, flights)?;
        let lacking = self.names.iter().rev().filter(|(id, _)| self.checker.machine.is_lacking(**id));
        let lacking: Vec<String> = lacking.map(|(_, name)| name.clone()).collect();
        self.checker.table.demand_offline(&lacking)?;
        if self.stage.healed { self.lift_bars() } else { Ok(()) }
    }

    /// A person sees that a provider is barred for what was wrong before, or has failed: and restarts it, or logs it on.
    fn lift_bars(&mut self) -> Verdict {
        let rows: Vec<_> = self.checker.table.latest.iter().flat_map(|table| table.providers.clone()).collect();
        for row in rows {
            let asks = self.stage.plan.providers.iter().any(|provider| provider.name == row.name && provider.asks);
            let action = match row.state {
                WorkerState::Failed if asks => {
                    self.log_on(row.name, ANSWER, false)?;
                    continue;
                }
                WorkerState::Failed => ProviderAction::Restart,
                WorkerState::Ready if row.code.contains(StatusCode::FAILURE) => ProviderAction::Validate,
                _ => continue,
            };
            let command = ProviderCommand { action, flags: ValidateFlags::default() };
            self.asks(Wish::Other, Ask::Provider(row.name, command))?;
        }
        Ok(())
    }

    /// A client is answered.
    pub(crate) fn answered(&mut self, ask: AskId, answer: &Answer) {
        let wish = self.clients.wishes.remove(&ask);
        match (wish, answer) {
            (Some(Wish::Flush), Answer::Flush(Ok(number))) => {
                let wait_ms = self.stage.rng.between(50, 500);
                self.stage.after(wait_ms, Happening::FlushLook(*number));
            }
            (Some(Wish::FlushProgress(number)), Answer::FlushProgress(progress)) => {
                let done = progress.as_ref().is_none_or(|progress| progress.done);
                if done || self.stage.rng.chance(30) {
                    let event = Event::Asked(AskId(0), Ask::FlushEnd(number));
                    self.stage.after(1, Happening::Hear(Box::new(event)));
                } else {
                    self.stage.after(500, Happening::FlushLook(number));
                }
            }
            (_, Answer::Submitted(Ok(id))) => self.clients.last_id = *id,
            _ => {}
        }
    }

    /// A client asks how far its flush is.
    pub(crate) fn flush_look(&mut self, number: u64) -> Verdict {
        self.asks(Wish::FlushProgress(number), Ask::FlushProgress(number))
    }

    /// Everything has come to its end: whatever is left is left for a reason.
    pub(crate) fn check_end(&mut self) -> Verdict {
        use spooler::system::store::StoreReader;
        for id in self.checker.mail.owed_messages() {
            let kept = matches!(self.disk.store.get(id), Ok(Some(_)));
            demand(kept, "no accepted message is lost", || format!("message {id} is neither served nor on disk"))?;
        }
        Ok(())
    }
}
