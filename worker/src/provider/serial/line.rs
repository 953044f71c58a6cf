//! What the reader, the sender and the hand-over share: the open port, the frames that wait, and the critical section.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use spooler_protocol::from_worker::RowUpdate;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::task::JoinHandle;

use super::framing::Frame;
use super::port::Port;
use super::settings::{CriticalRule, SerialSettings};
use crate::support::Support;

/// Bytes of frames that wait for the spooler. What comes beyond is lost, and said to be.
const BACKLOG_BYTES_MAX: usize = 64 << 20;
/// Frames are handed over while the line is silent; with so many waiting, or so many bytes, at any time.
const HURRY_FRAMES: usize = 256;
const HURRY_BYTES: usize = 8 << 20;
/// After the supervisor has ended a section that is always wanted, others have so long.
const SECTION_PAUSE: Duration = Duration::from_secs(1);

/// A line and all that waits on it.
pub(super) struct Line {
    pub(super) support: Support,
    pub(super) settings: SerialSettings,
    pub(super) port: RefCell<Option<Rc<Port>>>,
    /// One message goes out at a time.
    pub(super) sending: Mutex<()>,
    /// Who waits for the answer to what was sent.
    pub(super) answer: RefCell<Option<oneshot::Sender<bool>>>,
    /// Something happened that the reader may wait for: inbound begins, an answer is expected, a device appeared.
    pub(super) nudge: Notify,
    backlog: RefCell<VecDeque<Frame>>,
    backlog_bytes: Cell<usize>,
    /// The reader is in a frame, or just behind one.
    busy: Cell<bool>,
    changed: Notify,
    section: RefCell<Option<JoinHandle<()>>>,
    /// Bytes lost for want of memory.
    lost: Cell<u64>,
}

impl Line {
    pub(super) fn new(support: Support, settings: SerialSettings) -> Self {
        Self {
            support,
            settings,
            port: RefCell::default(),
            sending: Mutex::default(),
            answer: RefCell::default(),
            nudge: Notify::new(),
            backlog: RefCell::default(),
            backlog_bytes: Cell::new(0),
            busy: Cell::new(false),
            changed: Notify::new(),
            section: RefCell::default(),
            lost: Cell::new(0),
        }
    }

    /// Whether inbound has to stop.
    pub(super) fn inbound_has_ended(&self) -> bool {
        self.support.inbound_ended().now_or_never().is_some()
    }

    /// Shows whether the line can be used, and if not, why.
    pub(super) fn show(&self, trouble: Option<String>) {
        let offline = Some(trouble.is_some());
        let text = Some(trouble.unwrap_or_default());
        self.support.modify_status_row(RowUpdate { text, offline, ..RowUpdate::default() });
    }

    /// A frame has come.
    pub(super) fn keep(&self, frame: Frame) {
        if self.settings.to.is_empty() {
            return;
        }
        if self.backlog_bytes.get() + frame.bytes.len() > BACKLOG_BYTES_MAX {
            self.lost.set(self.lost.get() + frame.bytes.len() as u64);
            tracing::error!("{} bytes of frames are lost: the spooler does not take them", self.lost.get());
            return;
        }
        self.backlog_bytes.set(self.backlog_bytes.get() + frame.bytes.len());
        self.backlog.borrow_mut().push_back(frame);
        if self.may_hand_over() {
            self.changed.notify_waiters();
        }
    }

    fn may_hand_over(&self) -> bool {
        let waiting = self.backlog.borrow().len();
        waiting > 0 && (!self.busy.get() || waiting >= HURRY_FRAMES || self.backlog_bytes.get() >= HURRY_BYTES)
    }

    /// The next frame that may be handed over.
    pub(super) async fn next_frame(&self) -> Frame {
        loop {
            let changed = self.changed.notified();
            if self.may_hand_over()
                && let Some(frame) = self.backlog.borrow_mut().pop_front()
            {
                return frame;
            }
            changed.await;
        }
    }

    /// A frame is with the spooler.
    pub(super) fn handed_over(&self, bytes: usize) {
        self.backlog_bytes.set(self.backlog_bytes.get().saturating_sub(bytes));
        self.changed.notify_waiters();
    }

    /// The reader is in a frame now, or the line is silent again.
    pub(super) fn set_busy(&self, busy: bool) {
        if self.busy.replace(busy) == busy {
            return;
        }
        self.changed.notify_waiters();
        if self.settings.critical == CriticalRule::WhileReceiving {
            if busy { self.begin_section() } else { self.end_section() }
        }
    }

    /// Waits until nothing is being received and nothing waits to be handed over.
    pub(super) async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.busy.get() && self.backlog_bytes.get() == 0 && self.backlog.borrow().is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// Begins the section beside the reader, which does not wait for it: bytes go on arriving meanwhile.
    pub(super) fn begin_section(&self) {
        let (support, rule) = (self.support.clone(), self.settings.critical);
        if rule == CriticalRule::Never || self.section.borrow().is_some() {
            return;
        }
        let reason = format!("receiving from {}", self.settings.device.display());
        let hold = async move {
            loop {
                let mut section = support.critical_section(&reason).await;
                section.ended().await;
                drop(section);
                if rule != CriticalRule::Always {
                    return;
                }
                tokio::time::sleep(SECTION_PAUSE).await;
            }
        };
        *self.section.borrow_mut() = Some(self.support.spawn(hold));
    }

    /// Ends it.
    pub(super) fn end_section(&self) {
        if let Some(section) = self.section.take() {
            section.abort();
        }
    }
}
