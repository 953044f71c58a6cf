//! What a provider may ask of the spooler (IMAPISupport).
//!
//! | part | what |
//! |---|---|
//! | here | the provider's side: tokens, critical sections, rows, prompts, news |
//! | `answers` | what it waits for, and the supervisor's answers |
//! | `directions` | what the spooler has begun and called off: inbound, outbound, flushes |
//! | `telling` | when the supervisor hears of rows and of how far deliveries are |
//! | `rows` | when words about status rows leave |

mod answers;
mod directions;
mod rows;
mod telling;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use spooler_protocol::calls::{EndMessage, FlushFlags, LogonFlags, Prompt, SpoolerNotify};
use spooler_protocol::claims::Claims;
use spooler_protocol::from_worker::{FromWorker, LogonError, RowUpdate};
use spooler_protocol::ids::{AcceptId, DeliveryId};
use spooler_protocol::limits::PROMPTS_MAX;
use spooler_protocol::message::Address;
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::SubmitResult;
use spooler_protocol::plain::plain;
use spooler_protocol::to_worker::Welcome;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use self::answers::Waiting;
pub(crate) use self::directions::Directions;
pub use self::rows::RowError;
use self::rows::Rows;
use crate::confine::Prepared;
use crate::critical::Sections;
use crate::delivery::DeliveryState;
use crate::filter::Filters;
use crate::inbound::{Inbound, InboundCall};
use crate::link::LinkSender;
use crate::scratch::Scratch;
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
    started: Instant,
    claims: RefCell<Claims>,
    session: RefCell<Session>,
    next: Cell<u64>,
    waiting: Waiting,
    deliveries: RefCell<HashMap<DeliveryId, Rc<DeliveryState>>>,
    news: RefCell<Vec<DeliveryId>>,
    /// When to tell how far deliveries are.
    progress_due: Cell<Option<Instant>>,
    directions: Directions,
    rows: RefCell<Rows>,
    prompts: RefCell<Vec<Prompt>>,
    critical: RefCell<Sections>,
    granted: Notify,
    cancelled: RefCell<Vec<DeliveryId>>,
    /// The message of the `start_message` that runs, or of the last one.
    receiving: RefCell<Rc<InboundCall>>,
    lost: Cell<bool>,
    filters: OnceCell<Filters>,
    prepared: Prepared,
    leaving: Cell<bool>,
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

impl Support {
    pub(crate) fn new(link: LinkSender, welcome: Welcome, prepared: Prepared) -> Self {
        let inner = Inner {
            link,
            started: Instant::now(),
            claims: RefCell::new(welcome.claims.clone()),
            session: RefCell::default(),
            next: Cell::new(1),
            waiting: Waiting::default(),
            deliveries: RefCell::default(),
            news: RefCell::default(),
            progress_due: Cell::new(None),
            directions: Directions::new(welcome.flags),
            rows: RefCell::new(Rows::new()),
            prompts: RefCell::default(),
            granted: Notify::new(),
            cancelled: RefCell::default(),
            receiving: RefCell::default(),
            lost: Cell::new(false),
            critical: RefCell::default(),
            filters: OnceCell::new(),
            prepared,
            leaving: Cell::new(false),
            welcome,
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

    /// The filters that the provider's table names; none before the logon.
    pub(crate) fn filters(&self) -> &Filters {
        self.inner.filters.get_or_init(Filters::default)
    }

    pub(crate) fn set_filters(&self, filters: Filters) {
        let _ = self.inner.filters.set(filters);
    }

    /// The content of a file that the provider named in [`crate::Needs::files`]; of another one as the system gives it.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn file(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.inner.prepared.files.get(path)
    }

    /// Where programs have their temporary files.
    pub(crate) fn scratch(&self) -> &Scratch {
        &self.inner.prepared.scratch
    }

    /// Begins anew if the folder of temporary files was removed: the sandbox knows no other one.
    pub(crate) fn look_at_scratch(&self) {
        if self.scratch().is_gone() {
            self.begin_anew("its folder for temporary files was removed");
        }
    }

    /// Ends this session as if the spooler had asked for it, so that another worker begins a new one: for a provider around which
    /// something has changed that its sandbox was closed for.
    pub fn begin_anew(&self, why: &str) {
        if !self.inner.leaving.replace(true) {
            tracing::warn!("logging off, for a new worker: {why}");
        }
    }

    /// Whether [`Support::begin_anew`] was called.
    pub(crate) fn is_leaving(&self) -> bool {
        self.inner.leaving.get()
    }

    /// Whether some provider may serve an address, so that a message for it would be accepted.
    #[must_use]
    pub fn may_serve(&self, address: &Address) -> bool {
        self.inner.claims.borrow().may_serve(address)
    }

    /// How this session began: whether there is a person to ask, whether connections may be made.
    #[must_use]
    pub fn logon_flags(&self) -> LogonFlags {
        self.inner.welcome.flags
    }

    /// Asks a person something at logon: the answer that was given, or else the error to return from
    /// [`crate::Provider::logon`]. It carries all questions asked so far, so that a provider that needs several answers asks them all
    /// before it returns. Somebody is then asked where there is somebody, and the session begins again with the answers.
    ///
    /// `key` names the setting that is missing; `secret` answers are not shown while they are typed.
    ///
    /// # Errors
    /// [`LogonError::Unanswered`] if there is no answer yet.
    pub fn prompt(&self, key: &str, label: &str, secret: bool) -> Result<String, LogonError> {
        let answers = &self.inner.welcome.answers;
        if let Some((_, answer)) = answers.iter().find(|(answered, _)| answered == key) {
            return Ok(answer.clone());
        }
        let mut prompts = self.inner.prompts.borrow_mut();
        if prompts.len() < PROMPTS_MAX && !prompts.iter().any(|prompt| prompt.key == key) {
            prompts.push(Prompt { key: key.to_owned(), label: label.to_owned(), secret });
        }
        Err(LogonError::Unanswered(prompts.clone()))
    }

    /// Runs a future beside the others: like them only while there is a token.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        tokio::task::spawn_local(future)
    }

    /// Begins a message on its way in, for a provider that listens. One that is asked by `start_message` gets its message there.
    #[must_use]
    pub fn inbound(&self) -> Inbound {
        Inbound::new(self.clone(), AcceptId(self.next_number()))
    }

    /// Waits until inbound may begin: at once, unless the session began with [`LogonFlags::NO_INBOUND`] or inbound has ended.
    pub async fn inbound_begun(&self) {
        self.inner.directions.until_inbound(true).await;
    }

    /// Waits until inbound has to stop. Messages being received are finished.
    pub async fn inbound_ended(&self) {
        self.inner.directions.until_inbound(false).await;
    }

    /// Whether outbound has begun and not ended. Deliveries come only then; it matters to a provider that prepares for them.
    #[must_use]
    pub fn outbound_begun(&self) -> bool {
        self.inner.directions.outbound()
    }

    /// What is being flushed, as far as the spooler has said so: [`FlushFlags::INBOUND`], [`FlushFlags::OUTBOUND`], both or nothing.
    /// In a flush a provider need not yield.
    #[must_use]
    pub fn flushing(&self) -> FlushFlags {
        self.inner.directions.flushing()
    }

    /// Gives the token back and waits for the next one: for a provider that computes for long (IMAPISupport::SpoolerYield). In a
    /// flush the token stays, and only this worker's other work has its turn.
    pub async fn spooler_yield(&self) -> Yielded {
        let said = self.inner.session.borrow_mut().on_explicit_yield();
        match said {
            Some(said) => self.say(said),
            None => tokio::task::yield_now().await,
        }
        loop {
            let granted = self.inner.granted.notified();
            if self.may_run() {
                break;
            }
            granted.await;
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

    /// Changes columns of the provider's own status row (IMAPISupport::ModifyStatusRow). May be called as often as one likes: changes
    /// are put together and leave about every 50 ms, the last state always; flush bits and `offline` leave at once.
    pub fn modify_status_row(&self, update: RowUpdate) {
        // The own row is always there.
        let _ = self.modify_row("", update);
    }

    /// Adds one more row to the status table, such as for one queue among several (ModifyStatusRow without STATUSROW_UPDATE).
    ///
    /// # Errors
    /// If the name cannot be one, or if there are enough rows.
    pub fn add_status_row(&self, name: &str) -> Result<(), RowError> {
        self.inner.rows.borrow_mut().add(name)
    }

    /// Changes columns of a row that was added, like [`Support::modify_status_row`].
    ///
    /// # Errors
    /// If it was not added.
    pub fn modify_row(&self, name: &str, update: RowUpdate) -> Result<(), RowError> {
        let update = RowUpdate { text: update.text.map(plain), ..update };
        let urgent = self.inner.rows.borrow_mut().modify(name, update, self.now_us())?;
        if let Some(update) = urgent {
            self.send_row(name.to_owned(), update);
        }
        Ok(())
    }

    /// Tells the spooler something (IMAPISupport::SpoolerNotify).
    pub fn spooler_notify(&self, news: SpoolerNotify) {
        if matches!(news, SpoolerNotify::CriticalError(_)) {
            // Nobody tells one that cannot go on of the end of its flush.
            [Notification::EndOutboundFlush, Notification::EndInboundFlush].iter().for_each(|end| self.hear(end));
        }
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
}

/// The runtime's side.
impl Support {
    fn next_number(&self) -> u64 {
        let number = self.inner.next.get();
        self.inner.next.set(number + 1);
        number
    }

    /// Microseconds since the session began.
    pub(crate) fn now_us(&self) -> u64 {
        u64::try_from(self.inner.started.elapsed().as_micros()).unwrap_or(u64::MAX)
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

    /// Whether a critical section is open.
    pub(crate) fn is_critical(&self) -> bool {
        self.inner.session.borrow().is_critical()
    }

    /// What the spooler has begun and not ended.
    pub(crate) fn directions(&self) -> &Directions {
        &self.inner.directions
    }

    pub(crate) fn begin_delivery(&self, delivery: DeliveryId) -> Rc<DeliveryState> {
        let state = Rc::new(DeliveryState::default());
        self.inner.deliveries.borrow_mut().insert(delivery, Rc::clone(&state));
        state
    }

    pub(crate) fn delivery_has_news(&self, delivery: DeliveryId) {
        self.inner.news.borrow_mut().push(delivery);
    }

    pub(crate) fn delivery_is_over(&self, delivery: DeliveryId, result: SubmitResult, end: EndMessage) {
        let Some(state) = self.inner.deliveries.borrow_mut().remove(&delivery) else { return };
        let outcomes = state.tell_all_but_the_last(delivery, |said| self.send(said));
        self.send(&FromWorker::Finished { delivery, result, end, outcomes });
    }

    /// Tells what was settled and reported in deliveries that go on. Called after provider code ran, so that a delivery that settles
    /// and ends in one go needs one message only.
    pub(crate) fn tell_news(&self) {
        let news = self.inner.news.take();
        for delivery in news {
            let state = self.inner.deliveries.borrow().get(&delivery).cloned();
            if let Some(state) = state {
                state.tell(delivery, |said| self.send(said));
            }
        }
    }

    fn send_row(&self, row: String, update: RowUpdate) {
        let sequence = self.next_number();
        self.send(&FromWorker::Row { sequence, row, update: Box::new(update) });
    }

    /// Says everything that has not been said yet: the session ends.
    pub(crate) fn tell_everything(&self) {
        self.tell_news();
        loop {
            let pending = self.inner.rows.borrow_mut().take_pending();
            match pending {
                Some((row, update)) => self.send_row(row, update),
                None => break,
            }
        }
    }

    /// The message for a call of `start_message`.
    pub(crate) fn begin_inbound(&self) -> Inbound {
        let message = self.inbound();
        *self.inner.receiving.borrow_mut() = message.call();
        message
    }
}
