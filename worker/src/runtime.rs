//! The executor that runs futures only while there is a token.
//!
//! All provider futures live in one `LocalSet`. It is polled only while the worker holds a token; tokio's reactor runs beside it
//! all the time, so that a socket or a timer that becomes ready wakes the set, which without a token becomes a `Want`.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use futures_util::task::AtomicWaker;
use spooler_protocol::from_worker::{FromWorker, LoggedOn, LogonError};
use spooler_protocol::notification::Notification;
use spooler_protocol::settings::Settings;
use spooler_protocol::to_worker::{Submission, ToWorker, Welcome};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use crate::contract::Provider;
use crate::delivery::Delivery;
use crate::filter::Filters;
use crate::link::LinkSender;
use crate::support::Support;

/// How the session of a provider ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The provider logged off as it was asked to.
    LoggedOff,
    /// The provider could not log on; the supervisor knows why.
    LogonFailed,
    /// The supervisor is gone.
    SupervisorGone,
}

/// Wakes the executor and remembers that provider code can go on.
#[derive(Default)]
struct Ready {
    flag: AtomicBool,
    outer: AtomicWaker,
}

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.flag.store(true, Ordering::Release);
        self.outer.wake();
    }
}

/// What the supervisor asked for that is not an answer: read by the provider's own loop, under its token.
#[derive(Default)]
struct Orders {
    queue: RefCell<Vec<ToWorker>>,
    arrived: Notify,
    ended: Cell<Option<Ended>>,
}

/// Runs one provider's session from welcome to logoff.
pub async fn run<P: Provider>(
    link: LinkSender,
    mut inbox: mpsc::UnboundedReceiver<ToWorker>,
    welcome: Welcome,
) -> Ended {
    let support = Support::new(link, welcome.clone());
    let orders = Rc::new(Orders::default());
    let ready = Arc::new(Ready::default());
    let waker = Waker::from(Arc::clone(&ready));
    let local = LocalSet::new();
    local.spawn_local(session::<P>(support.clone(), welcome, Rc::clone(&orders)));
    let mut local = pin!(local);
    let started = Instant::now();
    ready.flag.store(true, Ordering::Release);
    std::future::poll_fn(|cx| {
        ready.outer.register(cx.waker());
        loop {
            match inbox.poll_recv(cx) {
                Poll::Ready(Some(message)) => take(&support, &orders, &ready, message),
                Poll::Ready(None) => return Poll::Ready(Ended::SupervisorGone),
                Poll::Pending => break,
            }
        }
        if support.is_lost() {
            return Poll::Ready(Ended::SupervisorGone);
        }
        if !ready.flag.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        if !support.may_run() {
            support.with_session(|session| session.on_work());
            return Poll::Pending;
        }
        ready.flag.store(false, Ordering::Release);
        let now_us = || u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        support.with_session(|session| {
            session.on_run(now_us());
            None
        });
        let _ = local.as_mut().poll(&mut Context::from_waker(&waker));
        support.tell_news();
        let more = ready.flag.load(Ordering::Acquire);
        support.with_session(|session| session.on_ran(now_us(), more));
        if let Some(ended) = orders.ended.get() {
            return Poll::Ready(ended);
        }
        if more && support.may_run() {
            // Let the reactor look at its sockets in between.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

/// Takes one word of the supervisor. Answers reach the futures that wait for them; everything else waits for the provider's loop.
fn take(support: &Support, orders: &Orders, ready: &Ready, message: ToWorker) {
    match support.take_answer(message) {
        None => {}
        Some(ToWorker::Recall { token }) => {
            let idle = !ready.flag.load(Ordering::Acquire);
            support.with_session(|session| session.on_recall(token, idle));
        }
        Some(ToWorker::Notify(Notification::CancelMessage(delivery))) => support.cancel(delivery),
        Some(order) => {
            orders.queue.borrow_mut().push(order);
            orders.arrived.notify_one();
        }
    }
}

/// The provider's own loop: logs on, takes orders, logs off.
async fn session<P: Provider>(support: Support, welcome: Welcome, orders: Rc<Orders>) {
    let provider = match logon::<P>(&support, &welcome).await {
        Ok(provider) => Rc::new(provider),
        Err(error) => {
            support.send(&FromWorker::LogonFailed(error));
            orders.ended.set(Some(Ended::LogonFailed));
            return;
        }
    };
    support.send(&FromWorker::LoggedOn(announcement(&*provider)));
    let idle = Rc::new(Notify::new());
    loop {
        let batch = orders.queue.take();
        for order in batch {
            match order {
                ToWorker::Submit(submission) => submit(&provider, &support, *submission, &idle),
                ToWorker::Notify(notification) => notify(&provider, &support, notification),
                ToWorker::Logoff { hurry } => {
                    support.end_inbound(true);
                    // News that came before this, such as the shutdown itself, are heard before it.
                    tokio::task::yield_now().await;
                    while !hurry && support.deliveries_in_flight() > 0 {
                        idle.notified().await;
                    }
                    provider.logoff(hurry).await;
                    support.tell_news();
                    support.send(&FromWorker::LoggedOff);
                    orders.ended.set(Some(Ended::LoggedOff));
                    return;
                }
                ToWorker::Announce => support.send(&FromWorker::Announced(announcement(&*provider))),
                _ => tracing::warn!("the supervisor said something out of turn"),
            }
        }
        orders.arrived.notified().await;
    }
}

async fn logon<P: Provider>(support: &Support, welcome: &Welcome) -> Result<P, LogonError> {
    let table =
        welcome.settings.parse().map_err(|error: toml::de::Error| LogonError::Unconfigured(error.to_string()))?;
    let mut reader = Settings::new(table);
    let settings = P::settings(&mut reader);
    support.set_filters(Filters::read(&mut reader));
    let mistakes = reader.finish().mistakes;
    if !mistakes.is_empty() {
        let lines: Vec<String> = mistakes.into_iter().map(|wrong| format!("{} {}", wrong.key, wrong.message)).collect();
        return Err(LogonError::Unconfigured(lines.join("; ")));
    }
    P::logon(support.clone(), settings).await
}

/// What the provider says of itself.
fn announcement<P: Provider>(provider: &P) -> LoggedOn {
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

fn submit<P: Provider>(provider: &Rc<P>, support: &Support, submission: Submission, idle: &Rc<Notify>) {
    let state = support.begin_delivery(submission.delivery);
    let delivery = Delivery::new(submission, support.clone(), state);
    let (provider, idle) = (Rc::clone(provider), Rc::clone(idle));
    support.spawn(async move {
        let filters = delivery.support().filters().clone();
        let submit = async |delivery: &Delivery| provider.submit_message(delivery).await;
        let (delivery, result) = filters.deliver(delivery, submit).await;
        delivery.finish(result);
        idle.notify_one();
    });
}

fn notify<P: Provider>(provider: &Rc<P>, support: &Support, notification: Notification) {
    match notification {
        Notification::BeginInbound => support.end_inbound(false),
        Notification::EndInbound => support.end_inbound(true),
        _ => {}
    }
    let provider = Rc::clone(provider);
    support.spawn(async move { provider.notify(&notification).await });
}
