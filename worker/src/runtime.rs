//! The executor that runs futures only while there is a token.
//!
//! All provider futures live in one `LocalSet`. It is polled only while the worker holds a token; tokio's reactor runs beside it
//! all the time, so that a socket or a timer that becomes ready wakes the set, which without a token becomes a `Want`. What needs no
//! provider code needs no token: answers are taken, cancellations heard and words about rows sent at any time.
//!
//! | room | what |
//! |---|---|
//! | here | when futures run |
//! | [`crate::session`] | who holds the token: pure |
//! | `session_loop` | the provider's own loop: logs on, takes orders, logs off |
//! | `orders`, `calls`, `running` | what the supervisor wants, from there to calls, the calls under way |

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use spooler_protocol::from_worker::{FromWorker, LogonError};
use spooler_protocol::to_worker::{ToWorker, Welcome};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::{Instant, Sleep};

use crate::confine::confine;
use crate::contract::Provider;
use crate::link::LinkSender;
use crate::orders::Orders;
use crate::session_loop::session;
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

/// Runs one provider's session from welcome to logoff, in a sandbox of its own. To be called while the process has one thread.
pub async fn run<P: Provider>(link: LinkSender, inbox: mpsc::UnboundedReceiver<ToWorker>, welcome: Welcome) -> Ended {
    let prepared = match confine::<P>(&welcome) {
        Ok(mut prepared) => {
            if let Some(confined) = prepared.confined.take() {
                // If the supervisor is gone, the inbox says so as well.
                let _ = link.send(&FromWorker::Confined(confined));
            }
            prepared
        }
        Err(error) => {
            let _ = link.send(&FromWorker::LogonFailed(LogonError::Failed(error.to_string())));
            return Ended::LogonFailed;
        }
    };
    let support = Support::new(link, welcome.clone(), prepared);
    let orders = Rc::new(Orders::default());
    let ended = Rc::new(Cell::new(None));
    let local = LocalSet::new();
    local.spawn_local({
        let (support, orders, ended) = (support.clone(), Rc::clone(&orders), Rc::clone(&ended));
        async move { ended.set(Some(session::<P>(support, welcome, orders).await)) }
    });
    let ready = Arc::new(Ready::default());
    ready.flag.store(true, Ordering::Release);
    let waker = Waker::from(Arc::clone(&ready));
    let telling_timer = Box::pin(tokio::time::sleep(Duration::ZERO));
    let mut executor = Executor { support, orders, ended, inbox, local: Box::pin(local), ready, waker, telling_timer };
    std::future::poll_fn(|cx| executor.poll(cx)).await
}

struct Executor {
    support: Support,
    orders: Rc<Orders>,
    ended: Rc<Cell<Option<Ended>>>,
    inbox: mpsc::UnboundedReceiver<ToWorker>,
    local: Pin<Box<LocalSet>>,
    ready: Arc<Ready>,
    waker: Waker,
    telling_timer: Pin<Box<Sleep>>,
}

impl Executor {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        self.ready.outer.register(cx.waker());
        loop {
            match self.inbox.poll_recv(cx) {
                Poll::Ready(Some(message)) => self.take(message),
                Poll::Ready(None) => return Poll::Ready(Ended::SupervisorGone),
                Poll::Pending => break,
            }
        }
        if self.is_ready() {
            if self.support.may_run() {
                self.run_provider();
            } else {
                self.support.with_session(|session| session.on_work());
            }
        }
        if let Some(ended) = self.ended.get() {
            return Poll::Ready(ended);
        }
        self.tell_what_is_due(cx);
        if self.support.is_lost() {
            return Poll::Ready(Ended::SupervisorGone);
        }
        if self.is_ready() && self.support.may_run() {
            // Let the reactor look at its sockets in between.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn is_ready(&self) -> bool {
        self.ready.flag.load(Ordering::Acquire)
    }

    /// Takes one word of the supervisor. Answers reach the futures that wait for them; everything else waits for the provider's loop.
    fn take(&self, message: ToWorker) {
        match self.support.take_answer(message) {
            None => {}
            Some(ToWorker::Recall { token }) => {
                let idle = !self.is_ready();
                self.support.with_session(|session| session.on_recall(token, idle));
            }
            Some(order) => {
                if let ToWorker::Notify(notification) = &order {
                    self.support.hear_cancellation(notification);
                }
                self.orders.push(order);
            }
        }
    }

    /// A bounded piece of provider code.
    fn run_provider(&mut self) {
        self.ready.flag.store(false, Ordering::Release);
        let now_us = self.support.now_us();
        self.support.with_session(|session| {
            session.on_run(now_us);
            None
        });
        let _ = self.local.as_mut().poll(&mut Context::from_waker(&self.waker));
        self.support.tell_news();
        if self.support.is_leaving() && self.orders.leave().is_none() {
            self.orders.push(ToWorker::Logoff { hurry: false });
        }
        let (now_us, more) = (self.support.now_us(), self.is_ready());
        self.support.with_session(|session| session.on_ran(now_us, more));
    }

    /// Words about rows and deliveries that are due leave, and the executor is woken for the next ones.
    fn tell_what_is_due(&mut self, cx: &mut Context<'_>) {
        let Some(next) = self.support.tell_progress().into_iter().chain(self.support.tell_rows()).min() else { return };
        self.telling_timer.as_mut().reset(Instant::now() + next);
        if self.telling_timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}
