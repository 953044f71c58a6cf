//! A submission: one line of JSON, then the message, taken in as it comes and never held whole unless it is small.
//!
//! ```text
//!  body ─▶ line ─▶ Submit, checked
//!       └▶ rest ─▶ line ends ─▶ up to BODY_INLINE_BYTES_MAX in memory ─▶ beyond that: an upload, chunk by chunk, one at a time
//!                                       ─▶ Request::Submit ─▶ answered after the commit is synced
//! ```
//!
//! A sender that goes away, stalls or turns out to send rubbish leaves nothing behind.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Extension;
use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::State;
use axum::http::StatusCode;
use http_body_util::BodyExt;
use spooler_protocol::control::{ApiError, Submit, Submitted};
use spooler_protocol::limits::{BODY_CHUNK_BYTES_MAX, BODY_INLINE_BYTES_MAX, ENVELOPE_LINE_BYTES_MAX};
use tokio::time::{Instant, timeout, timeout_at};

use super::access::{Operation, Peer};
use super::desk::Desk;
use super::refusal::Refusal;
use super::{Bridge, Request, SubmitContent};
use crate::admission::{Admission, stamp};
use crate::line_ends::LineEnds;
use crate::supervisor::mail::message_id;

/// How long a sender may be silent in mid-message.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long a whole submission may take, so that trickling does not hold a connection for ever.
const SUBMISSION_MAX: Duration = Duration::from_secs(900);
/// How much of a refused message is read to its end, so that the sender gets to read why.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long that may take.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// `POST /v1/messages`
pub(super) async fn submit(
    State(desk): State<Arc<Desk>>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Result<Json<Submitted>, Refusal> {
    let mut sender = Sender { body, deadline: Instant::now() + SUBMISSION_MAX };
    let result = take_in(&desk, peer, &mut sender).await;
    if result.is_err() {
        let _ = timeout(DRAIN_MAX, sender.drain()).await;
    }
    result
}

async fn take_in(desk: &Arc<Desk>, peer: Peer, sender: &mut Sender) -> Result<Json<Submitted>, Refusal> {
    desk.may(peer, Operation::Submit)?;
    if sender.body.size_hint().lower() > desk.message_bytes_max.saturating_add(ENVELOPE_LINE_BYTES_MAX as u64) {
        return Err(too_large(desk));
    }
    let (submit, first) = envelope_line(sender).await?;
    submit.envelope.check().map_err(|error| Refusal::malformed(error.to_string()))?;
    let mut content = Content::new(desk, Admission::local(desk.bridge.addressing(), &submit, peer.uid, stamp));
    content.take(&first).await?;
    while let Some(data) = sender.next().await? {
        content.take(&data).await?;
    }
    let content = content.finish().await?;
    let answer = desk.ask(|answer| Request::Submit {
        envelope: submit.envelope,
        submission: !submit.as_is,
        origin: format!("uid {}", peer.uid),
        owner_uid: peer.uid,
        content,
        answer,
    });
    Ok(Json(Submitted { id: answer.await?? }))
}

fn too_large(desk: &Desk) -> Refusal {
    Refusal::too_large(format!("The message is larger than {} bytes, the most that is allowed", desk.message_bytes_max))
}

/// Reads up to the end of the first line; what came behind it belongs to the message.
async fn envelope_line(sender: &mut Sender) -> Result<(Submit, Bytes), Refusal> {
    let mut line = Vec::new();
    while let Some(data) = sender.next().await? {
        let end = memchr::memchr(b'\n', &data);
        let (head, tail) = data.split_at(end.unwrap_or(data.len()));
        if line.len() + head.len() > ENVELOPE_LINE_BYTES_MAX {
            return Err(Refusal::too_large(format!(
                "The envelope line is longer than {ENVELOPE_LINE_BYTES_MAX} bytes"
            )));
        }
        line.extend_from_slice(head);
        if end.is_some() {
            let submit = serde_json::from_slice(&line)
                .map_err(|error| Refusal::malformed(format!("The first line is not an envelope: {error}")))?;
            return Ok((submit, data.slice_ref(tail.get(1..).unwrap_or_default())));
        }
    }
    Err(Refusal::malformed("The envelope line has no end; it is one line of JSON, and the message follows behind it"))
}

/// Who sends, with patience counted.
struct Sender {
    body: Body,
    deadline: Instant,
}

impl Sender {
    /// The next piece; `None` at the proper end.
    async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        let slow =
            |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "The message did not come in time; nothing was queued");
        let deadline = self.deadline.min(Instant::now() + SILENCE_MAX);
        loop {
            match timeout_at(deadline, self.body.frame()).await.map_err(slow)? {
                None => return Ok(None),
                Some(Err(error)) => return Err(Refusal::malformed(format!("The message broke off: {error}"))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    _ => continue,
                },
            }
        }
    }

    /// Reads on and forgets what comes.
    async fn drain(&mut self) {
        let mut left = DRAIN_BYTES_MAX;
        while let Some(Ok(frame)) = self.body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(less) => left = less,
                None => return,
            }
        }
    }
}

/// The message, as far as it has come.
struct Content<'a> {
    desk: &'a Desk,
    ends: LineEnds,
    /// What is not in the upload.
    held: Vec<u8>,
    size: u64,
    admission: Admission,
    upload: Option<Upload>,
}

impl<'a> Content<'a> {
    fn new(desk: &'a Desk, admission: Admission) -> Self {
        Self { desk, ends: LineEnds::default(), held: Vec::new(), size: 0, admission, upload: None }
    }

    async fn take(&mut self, data: &[u8]) -> Result<(), Refusal> {
        let before = self.held.len();
        self.ends.feed(data, &mut self.held).map_err(|error| Refusal::malformed(error.to_string()))?;
        self.count(before).await
    }

    async fn count(&mut self, before: usize) -> Result<(), Refusal> {
        self.size += self.held.len().saturating_sub(before) as u64;
        if self.size > self.desk.message_bytes_max {
            return Err(too_large(self.desk));
        }
        if self.upload.is_some() || self.held.len() > BODY_INLINE_BYTES_MAX {
            self.pass_on(BODY_CHUNK_BYTES_MAX).await?;
        }
        Ok(())
    }

    /// Hands what is held on to the upload, as long as a whole chunk of it is there.
    async fn pass_on(&mut self, least: usize) -> Result<(), Refusal> {
        let upload = self.upload.get_or_insert_with(|| Upload::begin(self.desk));
        let mut rest = Bytes::from(std::mem::take(&mut self.held));
        while !rest.is_empty() && rest.len() >= least {
            let piece = rest.split_to(rest.len().min(BODY_CHUNK_BYTES_MAX));
            upload.write(self.admission.feed(piece).map_err(ApiError::from)?).await?;
        }
        self.held.extend_from_slice(&rest);
        Ok(())
    }

    async fn finish(mut self) -> Result<SubmitContent, Refusal> {
        let before = self.held.len();
        self.ends.finish(&mut self.held);
        self.count(before).await?;
        if self.upload.is_some() {
            self.pass_on(1).await?;
        }
        let Some(mut upload) = self.upload else {
            let message = self.admission.whole(Bytes::from(self.held)).map_err(ApiError::from)?;
            if message.len() <= BODY_INLINE_BYTES_MAX {
                return Ok(SubmitContent::Inline(message));
            }
            // It has grown too large on its way.
            let mut upload = Upload::begin(self.desk);
            let message_id = message_id(&message);
            upload.write(message).await?;
            return Ok(upload.complete(message_id));
        };
        upload.write(self.admission.finish().map_err(ApiError::from)?).await?;
        Ok(upload.complete(self.admission.message_id()))
    }
}

/// An upload that is forgotten again unless it is completed.
struct Upload {
    bridge: Arc<dyn Bridge>,
    key: u64,
    /// Bytes written.
    size: u64,
    complete: bool,
}

impl Upload {
    fn begin(desk: &Desk) -> Self {
        let key = desk.next_upload.fetch_add(1, Ordering::Relaxed);
        Self { bridge: Arc::clone(&desk.bridge), key, size: 0, complete: false }
    }

    async fn write(&mut self, chunk: Bytes) -> Result<(), Refusal> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.size += chunk.len() as u64;
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.bridge.upload(self.key, chunk, answer);
        Ok(answered.await.map_err(|_| Refusal::stopping())??)
    }

    /// It belongs to the loop from now on.
    fn complete(mut self, message_id: Option<String>) -> SubmitContent {
        self.complete = true;
        SubmitContent::Uploaded { upload: self.key, size: self.size, message_id }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.complete {
            self.bridge.abandon_upload(self.key);
        }
    }
}
