//! What a provider may ask of the spooler (IMAPISupport).

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use spooler_protocol::calls::{EndMessage, FlushFlags, LogonFlags, SpoolerNotify};
use spooler_protocol::claims::Claims;
use spooler_protocol::from_worker::{FromWorker, RowUpdate};
use spooler_protocol::ids::{AcceptId, DeliveryId, MessageId, RequestId};
use spooler_protocol::message::Address;
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::{Refusal, ToWorker, Welcome};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;

use crate::critical::Sections;
use crate::delivery::DeliveryState;
use crate::inbound::Inbound;
use crate::link::LinkSender;
use crate::session::{Say, Session};

/// A provider's handle to the spooler. Cheap to clone; stays on its thread.
#[derive(Clone, Debug)]
pub struct Support {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    link: LinkSender,
    welcome: Welcome,
    claims: RefCell<Claims>,
    session: RefCell<Session>,
    next: Cell<u64>,
    accepts: RefCell<HashMap<AcceptId, oneshot::Sender<Result<MessageId, Refusal>>>>,
    uploads: RefCell<HashMap<AcceptId, Rc<Upload>>>,
    reads: RefCell<HashMap<RequestId, oneshot::Sender<Result<Bytes, String>>>>,
    deliveries: RefCell<HashMap<DeliveryId, Rc<DeliveryState>>>,
    news: RefCell<Vec<DeliveryId>>,
    critical: RefCell<Sections>,
    inbound_ended: Cell<bool>,
    inbound_end: Notify,
    granted: Notify,
    yields: Cell<u64>,
    cancelled: RefCell<Vec<DeliveryId>>,
    lost: Cell<bool>,
}

#[derive(Debug, Default)]
struct Upload {
    acknowledged: Cell<u32>,
    refused: RefCell<Option<Refusal>>,
    changed: Notify,
}

/// What an explicit yield brings back (IMAPISupport::SpoolerYield).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Yielded {
    /// Go on.
    Continue,
    /// These deliveries were cancelled meanwhile: serve nobody further in them.
    Cancel(Vec<DeliveryId>),
}

/// A critical section that runs; it ends when this is dropped (NOTIFY_CRITSEC … NOTIFY_NONCRIT).
#[derive(Debug)]
pub struct CriticalSection {
    support: Support,
    section: u64,
    ended: watch::Receiver<u64>,
    raised: Result<(), String>,
}

impl CriticalSection {
    /// Whether the priority was raised; if not, why. Withholding tokens from the others gives the section what meaning it can have.
    pub fn raised(&self) -> Result<(), &str> {
        self.raised.as_ref().map_err(String::as_str).copied()
    }

    /// Whether it is still in force: the supervisor ends a section whose time is up (`critical_max`).
    #[must_use]
    pub fn is_in_force(&self) -> bool {
        *self.ended.borrow() < self.section
    }

    /// Waits until the supervisor ends it.
    pub async fn ended(&mut self) {
        // Who tells of the end lives as long as the provider.
        let _ = self.ended.wait_for(|ended| *ended >= self.section).await;
    }
}

impl Drop for CriticalSection {
    fn drop(&mut self) {
        if self.support.inner.critical.borrow_mut().end(self.section) {
            self.support.inner.session.borrow_mut().on_critical(false);
            self.support.send(&FromWorker::CriticalEnd { section: self.section });
        }
    }
}

fn gone() -> Refusal {
    Refusal { temporary: true, enhanced: "4.3.0".to_owned(), text: "The spooler is shutting down".to_owned() }
}

impl Support {
    pub(crate) fn new(link: LinkSender, welcome: Welcome) -> Self {
        let claims = RefCell::new(welcome.claims.clone());
        let inner = Inner {
            link,
            welcome,
            claims,
            session: RefCell::default(),
            next: Cell::new(1),
            accepts: RefCell::default(),
            uploads: RefCell::default(),
            reads: RefCell::default(),
            deliveries: RefCell::default(),
            news: RefCell::default(),
            critical: RefCell::default(),
            inbound_ended: Cell::new(false),
            inbound_end: Notify::new(),
            granted: Notify::new(),
            yields: Cell::new(0),
            cancelled: RefCell::default(),
            lost: Cell::new(false),
        };
        Self { inner: Rc::new(inner) }
    }

    /// The provider's name in the configuration.
    #[must_use]
    pub fn provider_name(&self) -> &str {
        &self.inner.welcome.provider
    }

    /// This machine's name in mail.
    #[must_use]
    pub fn hostname(&self) -> &str {
        &self.inner.welcome.hostname
    }

    /// Largest message that is accepted, bytes.
    #[must_use]
    pub fn message_bytes_max(&self) -> u64 {
        self.inner.welcome.message_bytes_max
    }

    /// Whether some provider may serve an address, so that a message for it would be accepted.
    #[must_use]
    pub fn may_serve(&self, address: &Address) -> bool {
        self.inner.claims.borrow().may_serve(address)
    }

    /// Runs a future beside the others: like them only while there is a token.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        tokio::task::spawn_local(future)
    }

    /// Begins a message on its way in.
    #[must_use]
    pub fn inbound(&self) -> Inbound {
        Inbound::new(self.clone(), AcceptId(self.next_number()))
    }

    /// Waits until inbound has to stop. Messages being received are finished.
    pub async fn inbound_ended(&self) {
        loop {
            let notified = self.inner.inbound_end.notified();
            if self.inner.inbound_ended.get() {
                return;
            }
            notified.await;
        }
    }

    /// Gives the token back and waits for the next one: for a provider that computes for long (IMAPISupport::SpoolerYield).
    pub async fn spooler_yield(&self) -> Yielded {
        let said = self.inner.session.borrow_mut().on_explicit_yield();
        if let Some(said) = said {
            let before = self.inner.yields.get();
            self.say(said);
            while self.inner.yields.get() == before {
                self.inner.granted.notified().await;
            }
        }
        let cancelled = self.inner.cancelled.take();
        if cancelled.is_empty() { Yielded::Continue } else { Yielded::Cancel(cancelled) }
    }

    /// Begins a critical section: until it is dropped the token is not taken away, and this worker has the highest priority that the
    /// supervisor can give it. For real-time control of something outside, and no longer than needed.
    pub async fn critical_section(&self, reason: &str) -> CriticalSection {
        let section = self.next_number();
        let granted = self.inner.critical.borrow_mut().begin(section);
        let ended = self.inner.critical.borrow().watch();
        self.inner.session.borrow_mut().on_critical(true);
        // From here on it is ended even if nobody waits for it any more.
        let mut guard = CriticalSection { support: self.clone(), section, ended, raised: Ok(()) };
        self.send(&FromWorker::CriticalBegin { section, reason: reason.to_owned() });
        guard.raised = granted.await.unwrap_or_else(|_| Err("The supervisor is gone".to_owned()));
        guard
    }

    /// Changes columns of the provider's status row (IMAPISupport::ModifyStatusRow).
    pub fn modify_status_row(&self, update: RowUpdate) {
        let sequence = self.next_number();
        self.send(&FromWorker::Row { sequence, row: String::new(), update: Box::new(update) });
    }

    /// How this session began: whether there is a person to ask, whether connections may be made.
    #[must_use]
    pub fn logon_flags(&self) -> LogonFlags {
        self.inner.welcome.flags
    }

    /// Tells the spooler something (IMAPISupport::SpoolerNotify).
    pub fn spooler_notify(&self, news: SpoolerNotify) {
        self.send(&FromWorker::Notify(news));
    }

    /// What the provider says of itself has changed: the spooler asks for it again (NOTIFY_CONFIG_CHANGE).
    pub fn configuration_changed(&self) {
        self.spooler_notify(SpoolerNotify::ConfigChange);
    }

    /// Sets the flush bits of the row that stand for `flags`, as a flush demands.
    pub fn set_flush_bits(&self, flags: FlushFlags) {
        let on = |flag| flags.contains(flag).then_some(true);
        let (inbound_flush, outbound_flush) = (on(FlushFlags::INBOUND), on(FlushFlags::OUTBOUND));
        self.modify_status_row(RowUpdate { inbound_flush, outbound_flush, ..RowUpdate::default() });
    }

    fn next_number(&self) -> u64 {
        let number = self.inner.next.get();
        self.inner.next.set(number + 1);
        number
    }

    pub(crate) fn send(&self, message: &FromWorker) {
        if let Err(error) = self.inner.link.send(message)
            && !self.inner.lost.replace(true)
        {
            tracing::error!(%error, "cannot tell the supervisor");
        }
    }

    /// Whether sending has failed: the supervisor is gone, or cannot be talked to.
    pub(crate) fn is_lost(&self) -> bool {
        self.inner.lost.get()
    }

    fn say(&self, said: Say) {
        self.send(&match said {
            Say::Want => FromWorker::Want,
            Say::Yield { token, more } => FromWorker::Yield { token, more },
        });
    }

    pub(crate) fn with_session(&self, step: impl FnOnce(&mut Session) -> Option<Say>) {
        let said = step(&mut self.inner.session.borrow_mut());
        if let Some(said) = said {
            self.say(said);
        }
    }

    pub(crate) fn may_run(&self) -> bool {
        self.inner.session.borrow().may_run()
    }

    pub(crate) async fn accepted(&self, accept: AcceptId, message: FromWorker) -> Result<MessageId, Refusal> {
        let (sender, receiver) = oneshot::channel();
        self.inner.accepts.borrow_mut().insert(accept, sender);
        self.send(&message);
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Waits until one more chunk of an upload is on disk.
    pub(crate) async fn upload_credit(&self, accept: AcceptId) -> Result<(), Refusal> {
        let upload = Rc::clone(self.inner.uploads.borrow_mut().entry(accept).or_default());
        loop {
            let changed = upload.changed.notified();
            if let Some(refusal) = upload.refused.borrow().clone() {
                return Err(refusal);
            }
            if upload.acknowledged.get() > 0 {
                upload.acknowledged.set(upload.acknowledged.get() - 1);
                return Ok(());
            }
            changed.await;
        }
    }

    pub(crate) fn forget_upload(&self, accept: AcceptId) {
        self.inner.uploads.borrow_mut().remove(&accept);
    }

    pub(crate) async fn read_body(&self, delivery: DeliveryId, offset: u64) -> Result<Bytes, String> {
        let request = RequestId(self.next_number());
        let (sender, receiver) = oneshot::channel();
        self.inner.reads.borrow_mut().insert(request, sender);
        self.send(&FromWorker::ReadBody { request, delivery, offset });
        receiver.await.unwrap_or_else(|_| Err("the supervisor is gone".to_owned()))
    }

    pub(crate) fn begin_delivery(&self, delivery: DeliveryId) -> Rc<DeliveryState> {
        let state = Rc::new(DeliveryState::default());
        self.inner.deliveries.borrow_mut().insert(delivery, Rc::clone(&state));
        state
    }

    pub(crate) fn delivery_has_news(&self, delivery: DeliveryId) {
        self.inner.news.borrow_mut().push(delivery);
    }

    pub(crate) fn delivery_is_over(&self, delivery: DeliveryId, result: SubmitResult, outcomes: Vec<(u32, Outcome)>) {
        self.inner.deliveries.borrow_mut().remove(&delivery);
        self.send(&FromWorker::Finished { delivery, result, end: EndMessage::Done, outcomes });
    }

    pub(crate) fn deliveries_in_flight(&self) -> usize {
        self.inner.deliveries.borrow().len()
    }

    /// Tells what was settled in deliveries that go on. Called after provider code ran, so that a delivery that settles and ends in
    /// one go needs one message only.
    pub(crate) fn tell_news(&self) {
        let news = self.inner.news.take();
        for delivery in news {
            let state = self.inner.deliveries.borrow().get(&delivery).cloned();
            let outcomes = state.map(|state| state.take_outcomes()).unwrap_or_default();
            if !outcomes.is_empty() {
                self.send(&FromWorker::Settled { delivery, outcomes });
            }
        }
    }

    /// Takes the supervisor's answers. What starts or ends work comes back to the runtime.
    pub(crate) fn take_answer(&self, message: ToWorker) -> Option<ToWorker> {
        match message {
            ToWorker::Grant { token, slice_ms } => {
                self.inner.session.borrow_mut().on_grant(token, slice_ms);
                self.inner.yields.set(self.inner.yields.get() + 1);
                self.inner.granted.notify_waiters();
            }
            ToWorker::Body { request, data } => {
                if let Some(waiting) = self.inner.reads.borrow_mut().remove(&request) {
                    let _ = waiting.send(data);
                }
            }
            ToWorker::UploadCredit { accept } => {
                let upload = Rc::clone(self.inner.uploads.borrow_mut().entry(accept).or_default());
                upload.acknowledged.set(upload.acknowledged.get() + 1);
                upload.changed.notify_waiters();
            }
            ToWorker::Accepted { accept, result } => self.take_accepted(accept, result),
            ToWorker::Claims(claims) => *self.inner.claims.borrow_mut() = claims,
            ToWorker::CriticalGranted { section, raised } => {
                self.inner.critical.borrow_mut().granted(section, raised);
            }
            ToWorker::CriticalEnded { up_to, why } => {
                let over = self.inner.critical.borrow_mut().ended(up_to, &why);
                let mut session = self.inner.session.borrow_mut();
                (0..over).for_each(|_| session.on_critical(false));
                tracing::warn!("a critical section is over: {why}");
            }
            other @ (ToWorker::Welcome(_)
            | ToWorker::Recall { .. }
            | ToWorker::Submit(_)
            | ToWorker::Notify(_)
            | ToWorker::Announce
            | ToWorker::Poll
            | ToWorker::StartMessage
            | ToWorker::Idle
            | ToWorker::FlushQueues(_)
            | ToWorker::ValidateState { .. }
            | ToWorker::Logoff { .. }) => return Some(other),
        }
        None
    }

    fn take_accepted(&self, accept: AcceptId, result: Result<MessageId, Refusal>) {
        let waiting = self.inner.accepts.borrow_mut().remove(&accept);
        match (waiting, result) {
            (Some(waiting), result) => {
                let _ = waiting.send(result);
            }
            (None, Err(refusal)) => {
                let upload = Rc::clone(self.inner.uploads.borrow_mut().entry(accept).or_default());
                *upload.refused.borrow_mut() = Some(refusal);
                upload.changed.notify_waiters();
            }
            (None, Ok(_)) => {}
        }
    }

    pub(crate) fn end_inbound(&self, ended: bool) {
        self.inner.inbound_ended.set(ended);
        if ended {
            self.inner.inbound_end.notify_waiters();
        }
    }

    pub(crate) fn cancel(&self, delivery: DeliveryId) {
        if let Some(state) = self.inner.deliveries.borrow().get(&delivery) {
            state.cancel();
            self.inner.cancelled.borrow_mut().push(delivery);
        }
    }
}
