//! One message in the hands of a provider.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spooler_protocol::calls::{EndMessage, StatusReport};
use spooler_protocol::from_worker::{FromWorker, Progress};
use spooler_protocol::ids::DeliveryId;
use spooler_protocol::limits::{BODY_CHUNK_BYTES_MAX, ENCODED_BYTES_MAX, HOP_TEXT_BYTES_MAX, REPLY_BYTES_MAX};
use spooler_protocol::message::Recipient;
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::Submission;
use tokio::sync::Notify;

use crate::filter::Content;
use crate::support::Support;

/// Progress of one delivery is told at most this often, and a phase if it lasts this long.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// Outcomes or reports in one message: with the longest replies so many still fit into [`ENCODED_BYTES_MAX`].
const TOLD_AT_ONCE_MAX: usize = 128;

const _: () = assert!(TOLD_AT_ONCE_MAX * (3 * (REPLY_BYTES_MAX + HOP_TEXT_BYTES_MAX) + 96) < ENCODED_BYTES_MAX);

/// One message in the hands of a provider, with the recipients that it is to serve.
#[derive(Debug)]
pub struct Delivery {
    submission: Submission,
    support: Support,
    state: Rc<DeliveryState>,
    /// What preprocessors made of the content.
    filtered: Option<Rc<Content>>,
}

/// What the runtime and the provider share about a delivery.
#[derive(Debug, Default)]
pub(crate) struct DeliveryState {
    cancelled: Cell<bool>,
    cancel: Notify,
    outcomes: RefCell<Vec<(u32, Outcome)>>,
    reports: RefCell<Vec<(u32, StatusReport)>>,
    /// Who was reported as delivered, and who as failed.
    reported: RefCell<HashSet<(u32, bool)>>,
    /// Whether anything was said of a recipient before the end.
    told: Cell<bool>,
    progress_at: Cell<Option<Instant>>,
    shown: RefCell<Shown>,
    served: RefCell<BTreeSet<usize>>,
}

/// How far a delivery is.
#[derive(Debug, Default)]
struct Shown {
    phase: Cow<'static, str>,
    bytes: u64,
    /// The supervisor does not know it yet.
    untold: bool,
}

impl DeliveryState {
    /// Tells how far it is, if the supervisor does not know that yet.
    pub(crate) fn tell_progress(&self, delivery: DeliveryId, say: impl FnOnce(&FromWorker)) {
        let mut shown = self.shown.borrow_mut();
        if std::mem::take(&mut shown.untold) {
            let progress = Progress { phase: shown.phase.clone().into_owned(), bytes: shown.bytes };
            say(&FromWorker::Progress { delivery, progress });
        }
    }

    /// Nobody further is to be served; whether that is news.
    pub(crate) fn cancel(&self) -> bool {
        let news = !self.cancelled.replace(true);
        self.cancel.notify_waiters();
        news
    }

    /// Tells what is known of recipients.
    pub(crate) fn tell(&self, delivery: DeliveryId, mut say: impl FnMut(&FromWorker)) {
        let outcomes = self.tell_all_but_the_last(delivery, &mut say);
        if !outcomes.is_empty() {
            self.told.set(true);
            say(&FromWorker::Settled { delivery, outcomes });
        }
    }

    /// Tells reports and, where there are too many outcomes for one message, the first of them; gives the rest. Reports go first: a
    /// recipient is not settled on disk before what is to be told of it is there.
    pub(crate) fn tell_all_but_the_last(
        &self,
        delivery: DeliveryId,
        mut say: impl FnMut(&FromWorker),
    ) -> Vec<(u32, Outcome)> {
        for reports in self.reports.take().chunks(TOLD_AT_ONCE_MAX) {
            self.told.set(true);
            say(&FromWorker::StatusRecips { delivery, reports: reports.to_vec() });
        }
        let mut outcomes = self.outcomes.take();
        while outcomes.len() > TOLD_AT_ONCE_MAX {
            let rest = outcomes.split_off(TOLD_AT_ONCE_MAX);
            say(&FromWorker::Settled { delivery, outcomes });
            self.told.set(true);
            outcomes = rest;
        }
        outcomes
    }

    /// Forgets what was not told yet; whether the provider had said anything of a recipient.
    fn forget(&self) -> bool {
        let forgotten = self.outcomes.take().len() + self.reports.take().len();
        forgotten > 0 || self.told.get()
    }
}

impl Delivery {
    pub(crate) fn new(submission: Submission, support: Support, state: Rc<DeliveryState>) -> Self {
        Self { submission, support, state, filtered: None }
    }

    /// Everything but the content: sender, recipients, sizes, flags.
    #[must_use]
    pub fn submission(&self) -> &Submission {
        &self.submission
    }

    /// Those to serve.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        &self.submission.recipients
    }

    /// The content from `offset`: up to [`BODY_CHUNK_BYTES_MAX`] bytes, or all of it where it came along; empty at its end.
    ///
    /// # Errors
    /// If the supervisor cannot read it; the text says why.
    pub async fn content(&self, offset: u64) -> Result<Bytes, String> {
        if offset >= self.submission.size {
            return Ok(Bytes::new());
        }
        if let Some(filtered) = &self.filtered {
            return filtered.chunk(offset);
        }
        if let Some(content) = &self.submission.content {
            let at = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            return Ok(content.slice(at..));
        }
        let data = self.support.read_body(self.submission.delivery, offset).await?;
        if data.is_empty() || data.len() > BODY_CHUNK_BYTES_MAX {
            return Err(format!("the content ends at byte {offset} instead of {}", self.submission.size));
        }
        Ok(data)
    }

    /// Says what became of a recipient, by its place in [`Delivery::recipients`]. Once for each; a second word is not heard.
    pub fn settle(&self, index: usize, outcome: Outcome) {
        if matches!(outcome, Outcome::Delivered(_) | Outcome::Relayed { .. }) {
            self.state.served.borrow_mut().insert(index);
        }
        let Ok(index) = u32::try_from(index) else { return };
        self.state.outcomes.borrow_mut().push((index, outcome.capped()));
        self.support.delivery_has_news(self.submission.delivery);
    }

    /// Says the same of all recipients.
    pub fn settle_all(&self, outcome: &Outcome) {
        for index in 0..self.submission.recipients.len() {
            self.settle(index, outcome.clone());
        }
    }

    /// Has the sender told about recipients, by their places in [`Delivery::recipients`] (IMAPISupport::StatusRecips). Collect first:
    /// each call may become a report of its own. A second report of the same kind about a recipient is not heard.
    pub fn status_recips(&self, reports: &[(usize, StatusReport)]) {
        for (place, report) in reports {
            let (delivered, reply) = match report {
                StatusReport::Delivered(reply) => (true, reply),
                StatusReport::Failed(reply) => (false, reply),
            };
            let Ok(index) = u32::try_from(*place) else { continue };
            let known = *place < self.submission.recipients.len();
            if !known || !self.state.reported.borrow_mut().insert((index, delivered)) {
                tracing::warn!(delivery = %self.submission.delivery, index, "a report about nobody, or a second one, is dropped");
                continue;
            }
            let reply = reply.clone().capped();
            let report = if delivered { StatusReport::Delivered(reply) } else { StatusReport::Failed(reply) };
            self.state.reports.borrow_mut().push((index, report));
        }
        self.support.delivery_has_news(self.submission.delivery);
    }

    /// Whether this provider deferred the message before and asked for it again (BEGIN_DEFERRED).
    #[must_use]
    pub fn deferred_before(&self) -> bool {
        self.submission.deferred_before
    }

    /// Those that others serve or have served, if the provider wishes `Wishes::RESOLVE` (LOGON_SP_RESOLVE).
    #[must_use]
    pub fn others(&self) -> &[Recipient] {
        &self.submission.others
    }

    /// Shows what is being done, such as `connecting to 192.0.2.1:25`. Cheap; a phase that ends soon is shown to nobody.
    pub fn phase(&self, phase: impl Into<Cow<'static, str>>) {
        let mut shown = self.state.shown.borrow_mut();
        (shown.phase, shown.untold) = (phase.into(), true);
        self.support.tell_progress_soon();
    }

    /// Shows what is being done, and how many bytes of the message are sent. Cheap; most calls tell nobody.
    pub fn progress(&self, phase: impl Into<Cow<'static, str>>, bytes: u64) {
        self.phase(phase);
        self.state.shown.borrow_mut().bytes = bytes;
        let now = Instant::now();
        let due = self.state.progress_at.get().is_none_or(|at| now.duration_since(at) >= PROGRESS_INTERVAL);
        // The first word is held back: most deliveries are over before it could be read.
        if due && self.state.progress_at.replace(Some(now)).is_some() {
            self.state.tell_progress(self.submission.delivery, |said| self.support.send(said));
        }
    }

    /// Whether recipients not served yet should not be served any more; the provider then returns
    /// [`SubmitResult::Cancelled`].
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state.cancelled.get()
    }

    /// Waits for the cancellation.
    pub async fn cancelled(&self) {
        loop {
            let notified = self.state.cancel.notified();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }

    /// Puts another content in the place of the present one.
    pub(crate) fn replace_content(&mut self, content: Content) {
        self.submission.size = content.size();
        self.submission.content = None;
        self.filtered = Some(Rc::new(content));
    }

    /// The recipients that were settled well so far.
    pub(crate) fn served(&self) -> Vec<&Recipient> {
        let served = self.state.served.borrow();
        self.submission
            .recipients
            .iter()
            .enumerate()
            .filter(|(index, _)| served.contains(index))
            .map(|(_, to)| to)
            .collect()
    }

    pub(crate) fn support(&self) -> &Support {
        &self.support
    }

    /// The provider is through with it. BUSY and NOT_ME promise that nothing was done; what was said against that is not heard.
    pub(crate) fn finish(self, result: SubmitResult, end: EndMessage) {
        let delivery = self.submission.delivery;
        if matches!(result, SubmitResult::Busy | SubmitResult::NotMe) && self.state.forget() {
            tracing::warn!(%delivery, ?result, "the provider said what became of recipients and that nothing was done");
        }
        self.support.delivery_is_over(delivery, result, end);
    }
}
