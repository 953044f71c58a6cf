//! From the supervisor's orders to calls of the provider's methods, and their answers.
//!
//! Every order is answered, whatever the state:
//!
//! | order | called | otherwise the answer is |
//! |---|---|---|
//! | `Submit` | side by side, as many as come | *closing*: BUSY |
//! | `Poll` | one at a time, while inbound has begun, outside critical sections | nothing waits |
//! | `StartMessage` | one at a time, while inbound has begun | nothing was saved |
//! | `Idle` | one at a time, outside critical sections | it is over |
//! | `FlushQueues` | one at a time | BUSY |
//! | `ValidateState` | side by side, outside critical sections, known flags only | BUSY, or UNKNOWN_FLAGS |
//! | `Announce`, `Notify` | always; news one after another, in their order | |
//!
//! *Closing* stands for a session that was asked to end: then nothing new begins but news.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use spooler_protocol::calls::{CallError, EndMessage, FlushFlags, StartResult, ValidateFlags};
use spooler_protocol::from_worker::{FromWorker, LoggedOn, RowUpdate};
use spooler_protocol::ids::RequestId;
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::SubmitResult;
use spooler_protocol::to_worker::{Submission, ToWorker};

use crate::contract::Provider;
use crate::delivery::Delivery;
use crate::running::{Kind, Running};
use crate::support::Support;

/// Calls a provider that has logged on.
pub(crate) struct Calls<P> {
    provider: Rc<P>,
    support: Support,
    running: Rc<Running>,
    news: Rc<RefCell<VecDeque<Notification>>>,
    closing: Cell<bool>,
}

impl<P: Provider> Calls<P> {
    /// Nothing is called yet.
    pub(crate) fn new(provider: Rc<P>, support: Support) -> Self {
        Self { provider, support, running: Rc::default(), news: Rc::default(), closing: Cell::new(false) }
    }

    /// The calls under way.
    pub(crate) fn running(&self) -> &Running {
        &self.running
    }

    /// From now on nothing new begins.
    pub(crate) fn close(&self) {
        self.closing.set(true);
    }

    /// Acts on an order.
    pub(crate) fn take(&self, order: ToWorker) {
        match order {
            ToWorker::Submit(submission) => self.submit(*submission),
            ToWorker::Notify(notification) => self.notify(notification),
            ToWorker::Announce => self.support.send(&FromWorker::Announced(announcement(&*self.provider))),
            ToWorker::Poll => self.poll(),
            ToWorker::StartMessage => self.start_message(),
            ToWorker::Idle => self.idle(),
            ToWorker::FlushQueues(flags) => self.flush_queues(flags),
            ToWorker::ValidateState { request, flags } => self.validate_state(request, flags),
            // Answers, and the order to leave, are taken before they come here.
            ToWorker::Welcome(_)
            | ToWorker::Grant { .. }
            | ToWorker::Recall { .. }
            | ToWorker::Body { .. }
            | ToWorker::UploadCredit { .. }
            | ToWorker::Accepted { .. }
            | ToWorker::Claims(_)
            | ToWorker::CriticalGranted { .. }
            | ToWorker::CriticalEnded { .. }
            | ToWorker::Logoff { .. } => tracing::warn!("the supervisor said something out of turn"),
        }
    }

    fn submit(&self, submission: Submission) {
        let state = self.support.begin_delivery(submission.delivery);
        let delivery = Delivery::new(submission, self.support.clone(), state);
        if self.closing.get() {
            return delivery.finish(SubmitResult::Busy, EndMessage::Done);
        }
        let provider = Rc::clone(&self.provider);
        self.running.spawn(Kind::Delivery, async move {
            let filters = delivery.support().filters().clone();
            let (delivery, result, end) =
                filters.deliver(delivery, async |delivery: &Delivery| deliver(&*provider, delivery).await).await;
            delivery.finish(result, end);
        });
    }

    fn poll(&self) {
        if !self.may_begin(Kind::Poll) || self.support.is_critical() || !self.support.directions().inbound() {
            return self.support.send(&FromWorker::Polled { waiting: false });
        }
        let (provider, support) = (Rc::clone(&self.provider), self.support.clone());
        self.running.spawn(Kind::Poll, async move {
            let waiting = provider.poll().await;
            support.send(&FromWorker::Polled { waiting });
        });
    }

    fn start_message(&self) {
        if !self.may_begin(Kind::Start) || !self.support.directions().inbound() {
            return self.support.send(&FromWorker::StartEnded(StartResult::NotSaved));
        }
        let (provider, support) = (Rc::clone(&self.provider), self.support.clone());
        let message = support.begin_inbound();
        let call = message.call();
        self.running.spawn(Kind::Start, async move {
            support.modify_status_row(RowUpdate { inbound_active: Some(true), ..RowUpdate::default() });
            let result = provider.start_message(message).await;
            support.modify_status_row(RowUpdate { inbound_active: Some(false), ..RowUpdate::default() });
            let result = match (call.end(), result) {
                (true, result) => {
                    if let Err(why) = result {
                        tracing::warn!(why, "start_message failed after its message was saved");
                    }
                    StartResult::Saved
                }
                (false, Ok(())) => StartResult::NotSaved,
                (false, Err(why)) => StartResult::Failed(why),
            };
            support.send(&FromWorker::StartEnded(result));
        });
    }

    fn idle(&self) {
        if !self.may_begin(Kind::Idle) || self.support.is_critical() {
            return self.support.send(&FromWorker::Idled);
        }
        let (provider, support) = (Rc::clone(&self.provider), self.support.clone());
        self.running.spawn(Kind::Idle, async move {
            provider.idle().await;
            support.send(&FromWorker::Idled);
        });
    }

    fn flush_queues(&self, flags: FlushFlags) {
        if !self.may_begin(Kind::Flush) {
            return self.support.send(&FromWorker::FlushAnswered(Err(CallError::Busy)));
        }
        let (provider, support) = (Rc::clone(&self.provider), self.support.clone());
        self.running.spawn(Kind::Flush, async move {
            let result = provider.flush_queues(&support, flags).await;
            support.send(&FromWorker::FlushAnswered(result));
        });
    }

    fn validate_state(&self, request: RequestId, flags: ValidateFlags) {
        let refusal = if !ValidateFlags::ALL.contains(flags) {
            Some(CallError::UnknownFlags)
        } else if self.closing.get() || self.support.is_critical() {
            Some(CallError::Busy)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.support.send(&FromWorker::Validated { request, result: Err(refusal) });
        }
        let (provider, support) = (Rc::clone(&self.provider), self.support.clone());
        self.running.spawn(Kind::Validate, async move {
            let result = provider.validate_state(&support, flags).await;
            support.send(&FromWorker::Validated { request, result });
        });
    }

    /// News reaches the provider in its order: one call after another.
    fn notify(&self, notification: Notification) {
        self.support.hear(&notification);
        self.news.borrow_mut().push_back(notification);
        if self.running.has(Kind::News) {
            return;
        }
        let (provider, support, news) = (Rc::clone(&self.provider), self.support.clone(), Rc::clone(&self.news));
        self.running.spawn(Kind::News, async move {
            loop {
                let next = news.borrow_mut().pop_front();
                let Some(notification) = next else { return };
                provider.notify(&notification).await;
                match notification {
                    Notification::EndInboundFlush => support.clear_flush_bits(FlushFlags::INBOUND),
                    Notification::EndOutboundFlush => support.clear_flush_bits(FlushFlags::OUTBOUND),
                    _ => {}
                }
            }
        });
    }

    fn may_begin(&self, kind: Kind) -> bool {
        !self.closing.get() && !self.running.has(kind)
    }
}

/// What the provider says of itself.
pub(crate) fn announcement<P: Provider>(provider: &P) -> LoggedOn {
    let capacity = provider.capacity();
    LoggedOn {
        address_types: provider.address_types(),
        credit: capacity.credit,
        destinations: capacity.destinations,
        identity: provider.identity(),
        wishes: provider.wishes(),
        methods: provider.methods(),
        prefer_last: provider.prefer_last(),
    }
}

/// Submits a delivery, and ends it if all went well.
async fn deliver<P: Provider>(provider: &P, delivery: &Delivery) -> (SubmitResult, EndMessage) {
    let result = provider.submit_message(delivery).await;
    let end = match result {
        SubmitResult::Done => provider.end_message(delivery.submission().delivery).await,
        SubmitResult::Busy
        | SubmitResult::NotMe
        | SubmitResult::Wait { .. }
        | SubmitResult::Cancelled
        | SubmitResult::Error(_)
        | SubmitResult::NetworkError { .. }
        | SubmitResult::NotWanted => EndMessage::Done,
    };
    (result, end)
}
