//! Messages of a filter, in batches, with the schedule's word laid over the store's.
//!
//! ```text
//!  store reader ─▶ page ─▶ Request::Overlay ─▶ filter by state ─▶ batch ─▶ whoever reads
//!       ▲                                                            │
//!       └──────── a new job from the last number on ◀── the reader of the batches is slow: the job is let go
//! ```
//!
//! A store reader is never held up by a slow client for longer than [`PATIENCE`].

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use spooler_protocol::control::{Filter, MessageState, MessageSummary};
use spooler_protocol::ids::MessageId;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;

use super::Request;
use super::access::Scope;
use super::desk::{Desk, now_ms};
use super::refusal::Refusal;
use crate::system::store::{StoreError, StoreReader};

/// Messages of one batch.
const BATCH: usize = 256;
/// Batches on their way to the client.
const BATCHES_AHEAD: usize = 4;
/// How long a store reader waits for a slow client before it turns to others.
const PATIENCE: Duration = Duration::from_millis(100);

/// What a listing gives, piece by piece; its end is the end of the channel.
pub(super) type Batches = mpsc::Receiver<Result<Vec<MessageSummary>, Refusal>>;

/// What a store reader says.
enum Page {
    Messages(Vec<MessageSummary>),
    End(Result<(), StoreError>),
}

/// Begins a listing of the messages of `filter` that are in `scope`.
pub(super) fn list(desk: &Arc<Desk>, filter: Filter, scope: Scope) -> Batches {
    let (batches, received) = mpsc::channel(BATCHES_AHEAD);
    tokio::spawn(Listing::new(Arc::clone(desk), filter, scope).run(batches));
    received
}

struct Listing {
    desk: Arc<Desk>,
    /// What the store can decide.
    filter: Filter,
    /// What only the schedule can decide.
    state: Option<MessageState>,
    /// As `state`.
    provider: Option<String>,
    scope: Scope,
    left: u64,
    last: Option<MessageId>,
}

impl Listing {
    fn new(desk: Arc<Desk>, mut filter: Filter, scope: Scope) -> Self {
        let left = filter.limit.unwrap_or(u64::MAX);
        let state = filter.state.filter(|state| match state {
            MessageState::Ready | MessageState::InFlight | MessageState::Deferred => true,
            MessageState::Held | MessageState::Quarantined => false,
        });
        let provider = filter.provider.take();
        if state.is_some() {
            filter.state = None;
        }
        if state.is_some() || provider.is_some() {
            filter.limit = None;
        }
        Self { desk, filter, state, provider, scope, left, last: None }
    }

    async fn run(mut self, batches: mpsc::Sender<Result<Vec<MessageSummary>, Refusal>>) {
        while self.left > 0 {
            let mut pages = self.start_job();
            let end = loop {
                let batch = match pages.recv().await {
                    Some(Page::Messages(page)) => self.overlay(page).await,
                    Some(Page::End(Ok(()))) => break true,
                    Some(Page::End(Err(error))) => Err(error.into()),
                    None => Err(Refusal::stopping()),
                };
                let failed = batch.is_err();
                match batches.send_timeout(batch, PATIENCE).await {
                    Ok(()) if failed || self.left == 0 => break true,
                    Ok(()) => {}
                    Err(SendTimeoutError::Closed(_)) => break true,
                    Err(SendTimeoutError::Timeout(batch)) => {
                        drop(pages);
                        break batches.send(batch).await.is_err() || failed;
                    }
                }
            };
            if end {
                return;
            }
        }
    }

    /// Starts or goes on with reading. The job ends when the receiver is dropped.
    fn start_job(&self) -> mpsc::Receiver<Page> {
        let (pages, received) = mpsc::channel(1);
        let (filter, owner, last) = (self.filter.clone(), self.scope.owner(), self.last);
        self.desk.bridge.read(Box::new(move |reader| read_pages(reader, &filter, owner, last, &pages)));
        received
    }

    async fn overlay(&mut self, page: Vec<MessageSummary>) -> Result<Vec<MessageSummary>, Refusal> {
        self.last = page.last().map(|summary| summary.id).or(self.last);
        let provider = self.provider.clone();
        let mut batch = self.desk.ask(|answer| Request::Overlay { summaries: page, provider, answer }).await?;
        batch.retain(|summary| self.state.is_none_or(|state| summary.state == state));
        batch.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= batch.len() as u64;
        Ok(batch)
    }
}

fn read_pages(
    reader: &mut dyn StoreReader,
    filter: &Filter,
    owner: Option<u32>,
    last: Option<MessageId>,
    pages: &mpsc::Sender<Page>,
) {
    let mut page = Vec::new();
    let listed = reader.list(filter, now_ms(), owner, &mut |summary| {
        if last.is_some_and(|last| summary.id <= last) {
            return ControlFlow::Continue(());
        }
        page.push(summary);
        if page.len() < BATCH || pages.blocking_send(Page::Messages(std::mem::take(&mut page))).is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    if !page.is_empty() {
        let _ = pages.blocking_send(Page::Messages(page));
    }
    let _ = pages.blocking_send(Page::End(listed));
}
