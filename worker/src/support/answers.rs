//! What a provider waits for from the supervisor, and the supervisor's answers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::ids::{AcceptId, DeliveryId, MessageId, RequestId};
use spooler_protocol::to_worker::{Refusal, ToWorker};
use tokio::sync::{Notify, oneshot};

use super::Support;

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    accepts: RefCell<HashMap<AcceptId, oneshot::Sender<Result<MessageId, Refusal>>>>,
    uploads: RefCell<HashMap<AcceptId, Rc<Upload>>>,
    reads: RefCell<HashMap<RequestId, oneshot::Sender<Result<Bytes, String>>>>,
}

#[derive(Debug, Default)]
struct Upload {
    acknowledged: Cell<u32>,
    refused: RefCell<Option<Refusal>>,
    changed: Notify,
}

fn gone() -> Refusal {
    Refusal { temporary: true, enhanced: "4.3.0".to_owned(), text: "The spooler is shutting down".to_owned() }
}

impl Support {
    pub(crate) async fn accepted(&self, accept: AcceptId, message: FromWorker) -> Result<MessageId, Refusal> {
        let (sender, receiver) = oneshot::channel();
        self.inner.waiting.accepts.borrow_mut().insert(accept, sender);
        self.send(&message);
        receiver.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Waits until one more chunk of an upload is on disk.
    pub(crate) async fn upload_credit(&self, accept: AcceptId) -> Result<(), Refusal> {
        let upload = self.upload(accept);
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
        self.inner.waiting.uploads.borrow_mut().remove(&accept);
    }

    pub(crate) async fn read_body(&self, delivery: DeliveryId, offset: u64) -> Result<Bytes, String> {
        let request = RequestId(self.next_number());
        let (sender, receiver) = oneshot::channel();
        self.inner.waiting.reads.borrow_mut().insert(request, sender);
        self.send(&FromWorker::ReadBody { request, delivery, offset });
        receiver.await.unwrap_or_else(|_| Err("the supervisor is gone".to_owned()))
    }

    /// Takes the supervisor's answers. What starts or ends work comes back to the runtime.
    pub(crate) fn take_answer(&self, message: ToWorker) -> Option<ToWorker> {
        match message {
            ToWorker::Grant { token, slice_ms, recalled } => {
                self.inner.session.borrow_mut().on_grant(token, slice_ms);
                self.inner.granted.notify_waiters();
                return recalled.then_some(ToWorker::Recall { token });
            }
            ToWorker::Body { request, data } => {
                if let Some(waiting) = self.inner.waiting.reads.borrow_mut().remove(&request) {
                    let _ = waiting.send(data);
                }
            }
            ToWorker::UploadCredit { accept } => {
                let upload = self.upload(accept);
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
        let waiting = self.inner.waiting.accepts.borrow_mut().remove(&accept);
        match (waiting, result) {
            (Some(waiting), result) => {
                let _ = waiting.send(result);
            }
            (None, Err(refusal)) => {
                let upload = self.upload(accept);
                *upload.refused.borrow_mut() = Some(refusal);
                upload.changed.notify_waiters();
            }
            (None, Ok(_)) => {}
        }
    }

    fn upload(&self, accept: AcceptId) -> Rc<Upload> {
        Rc::clone(self.inner.waiting.uploads.borrow_mut().entry(accept).or_default())
    }
}
