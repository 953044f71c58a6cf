//! One message in the hands of a provider.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use spooler_protocol::from_worker::{FromWorker, Progress};
use spooler_protocol::limits::BODY_CHUNK_BYTES_MAX;
use spooler_protocol::message::Recipient;
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::Submission;
use tokio::sync::Notify;

use crate::filter::Content;
use crate::support::Support;

/// Progress of one delivery is told at most this often.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

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
    progress_at: Cell<Option<Instant>>,
    served: RefCell<BTreeSet<usize>>,
}

impl DeliveryState {
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
        self.cancel.notify_waiters();
    }

    pub(crate) fn take_outcomes(&self) -> Vec<(u32, Outcome)> {
        self.outcomes.take()
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

    /// Shows how far it is. Cheap; most calls tell nobody.
    pub fn progress(&self, phase: &str, bytes: u64) {
        let now = Instant::now();
        let due = self.state.progress_at.get().is_none_or(|at| now.duration_since(at) >= PROGRESS_INTERVAL);
        if due {
            let first = self.state.progress_at.replace(Some(now)).is_none();
            // The first word is held back: most deliveries are over before anybody could look.
            if !first {
                let progress = Progress { phase: phase.to_owned(), bytes };
                self.support.send(&FromWorker::Progress { delivery: self.submission.delivery, progress });
            }
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

    pub(crate) fn finish(self, result: SubmitResult) {
        let outcomes = self.state.take_outcomes();
        self.support.delivery_is_over(self.submission.delivery, result, outcomes);
    }
}
