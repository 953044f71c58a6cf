//! One client's connection: moves bytes between the socket, the session and the message on its way in. Decides nothing about SMTP.
//!
//! Replies are collected and written when there is no whole command left to answer, so that a pipelined group gets one write. Every
//! read and write has a time limit. While a command is waited for, the end of inbound ends the connection; content is read to its end.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};

use super::data::ContentReader;
use super::incoming::{Incoming, OVERRUN_BYTES_MAX};
use super::input::Input;
use super::lines::{Line, LineReader};
use super::reply::Reply;
use super::service::{Service, Slot};
use super::session::{Next, Session};
use super::stream::Stream;
use super::transaction::TOO_LARGE;

/// How long a client that we have hung up on may take to notice, and how many bytes it may still send. Closing a socket with unread
/// input would make the kernel throw away our last reply.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 1 << 20;
/// As good as no limit: a year.
const NO_LIMIT_S: u64 = 31_536_000;

/// Content of so many bytes is progress: a client that sends less in a second is as good as silent when others wait.
const PROGRESS_BYTES: u64 = 4096;

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// The client has gone.
    Gone,
    /// The client said nothing for too long, or does not read.
    Silent,
    /// Inbound has ended.
    Ended,
    /// Others need its place more.
    Displaced,
    /// It goes on and on although its message is refused.
    TooMuch,
}

/// A message that comes in chunks.
struct Chunked {
    incoming: Incoming,
    reader: ContentReader,
}

/// How much time content has: the longer it is, the more.
struct Pace {
    begun: Instant,
    timeout: Duration,
    rate_min: u64,
    bytes: u64,
    /// Bytes when there was progress last.
    told: u64,
}

impl Pace {
    fn deadline(&self) -> Instant {
        let earned_s = self.bytes.checked_div(self.rate_min).unwrap_or(NO_LIMIT_S).min(NO_LIMIT_S);
        self.begun + self.timeout + Duration::from_secs(earned_s)
    }
}

/// One connection.
pub(super) struct Connection {
    slot: Slot,
    peer: IpAddr,
    stream: Stream,
    input: Input,
    out: Vec<u8>,
    lines: LineReader,
    session: Session,
    chunked: Option<Chunked>,
    inbound_ended: Pin<Box<dyn Future<Output = ()>>>,
    displaced: Pin<Box<dyn Future<Output = ()>>>,
}

impl Connection {
    /// A client has connected.
    pub(super) fn new(slot: Slot, stream: Stream, peer: IpAddr) -> Self {
        let service = slot.service();
        let session = Session::new(service.rules.clone(), peer, service.may_relay(peer));
        let support = service.support.clone();
        let input = service.spare.borrow_mut().take();
        Self {
            peer,
            stream,
            input,
            out: Vec::with_capacity(256),
            lines: LineReader::default(),
            session,
            chunked: None,
            inbound_ended: Box::pin(async move { support.inbound_ended().await }),
            displaced: Box::pin(slot.lost()),
            slot,
        }
    }

    fn service(&self) -> &Service {
        self.slot.service()
    }

    /// Serves the client until it goes, or has to.
    pub(super) async fn serve(mut self) {
        match self.talk().await {
            Ok(Next::Quit) => self.say_goodbye(None, false).await,
            Ok(_) => self.say_goodbye(None, true).await,
            Err(Lost::Silent) => {
                self.say_goodbye(Some(Reply::new(421, "4.4.2", "Idle timeout; closing the connection")), true).await;
            }
            Err(Lost::Ended) => {
                self.say_goodbye(Some(Reply::new(421, "4.3.2", "The server is shutting down")), true).await;
            }
            Err(Lost::Displaced) => {
                self.say_goodbye(Some(Reply::new(421, "4.7.0", "Too many connections; try again later")), true).await;
            }
            Err(Lost::TooMuch) => self.say_goodbye(Some(TOO_LARGE), true).await,
            Err(Lost::Gone) => tracing::debug!(peer = %self.peer, "the client has gone"),
        }
        self.chunked = None;
        self.slot.service().spare.borrow_mut().give_back(self.input);
    }

    async fn talk(&mut self) -> Result<Next, Lost> {
        let mut next = self.session.greet(self.stream.has_input(), &mut self.out);
        loop {
            next = match next {
                Next::Command => self.command().await?,
                Next::Data => self.data().await?,
                Next::Chunk { size, last } => self.chunk(size, last).await?,
                Next::Discard(size) => self.discard(size).await?,
                Next::StartTls => self.start_tls().await?,
                Next::Quit | Next::Close => return Ok(next),
            };
            if !self.session.takes_chunks() {
                self.chunked = None;
            }
        }
    }

    /// Reads and answers one command.
    async fn command(&mut self) -> Result<Next, Lost> {
        self.slot.progress();
        let deadline = Instant::now() + self.service().timeout;
        loop {
            let input = self.input.bytes();
            match self.lines.next(input) {
                Line::Complete(length) => {
                    let line = input.get(..length).unwrap_or_default();
                    let behind = input.len() > length + 2;
                    let support = &self.slot.service().support;
                    let may_serve = |address: &_| support.may_serve(address);
                    let next = self.session.on_line(line, behind, may_serve, &mut self.out);
                    self.input.consume(length + 2);
                    return Ok(next);
                }
                Line::Drained(bytes) => self.input.consume(bytes),
                Line::Refused(bytes, reply) => {
                    self.input.consume(bytes);
                    return Ok(self.session.answer(&reply, &mut self.out));
                }
                Line::Incomplete => {
                    self.flush().await?;
                    self.fill(true, deadline).await?;
                }
            }
        }
    }

    async fn begin_message(&self) -> Incoming {
        let service = self.service();
        let header = self.session.trace(service.dates.borrow_mut().now());
        let inbound = service.support.inbound().arrived(self.session.arrival(&header));
        Incoming::begin(inbound, service.rules.message_bytes_max, &header).await
    }

    /// Reads content up to its dot.
    async fn data(&mut self) -> Result<Next, Lost> {
        self.flush().await?;
        let mut incoming = self.begin_message().await;
        let mut reader = ContentReader::dotted();
        let mut pace = self.pace();
        loop {
            if self.input.bytes().is_empty() {
                self.fill(false, pace.deadline()).await?;
            }
            let input = self.input.bytes();
            let piece = reader.next(input);
            if let Some(fault) = reader.fault() {
                incoming.refuse(fault.reply());
            }
            incoming.add(input.get(piece.text).unwrap_or_default()).await;
            self.input.consume(piece.taken);
            self.keep_pace(&mut pace, piece.taken);
            if incoming.is_hopeless() {
                return Err(Lost::TooMuch);
            }
            if piece.ended {
                return Ok(self.end_message(incoming).await);
            }
        }
    }

    /// Reads a chunk.
    async fn chunk(&mut self, size: u64, last: bool) -> Result<Next, Lost> {
        let mut chunked = match self.chunked.take() {
            Some(chunked) => chunked,
            None => Chunked { incoming: self.begin_message().await, reader: ContentReader::chunked() },
        };
        let (mut left, mut pace) = (size, self.pace());
        while left > 0 {
            if self.input.bytes().is_empty() {
                self.flush().await?;
                self.fill(false, pace.deadline()).await?;
            }
            let input = front(self.input.bytes(), left);
            chunked.reader.next(input);
            chunked.incoming.add(input).await;
            let taken = input.len();
            left -= taken as u64;
            self.input.consume(taken);
            self.keep_pace(&mut pace, taken);
        }
        if last {
            chunked.reader.finish();
        }
        if let Some(fault) = chunked.reader.fault() {
            chunked.incoming.refuse(fault.reply());
        }
        if last {
            return Ok(self.end_message(chunked.incoming).await);
        }
        let next = self.session.on_chunk(size, chunked.incoming.refusal(), &mut self.out);
        self.chunked = Some(chunked);
        Ok(next)
    }

    /// Reads bytes that belong to no message. Their command is answered already, but not yet told.
    async fn discard(&mut self, size: u64) -> Result<Next, Lost> {
        if size > self.service().rules.message_bytes_max.saturating_add(OVERRUN_BYTES_MAX) {
            return Err(Lost::TooMuch);
        }
        let (mut left, mut pace) = (size, self.pace());
        while left > 0 {
            if self.input.bytes().is_empty() {
                self.fill(false, pace.deadline()).await?;
            }
            let taken = front(self.input.bytes(), left).len();
            left -= taken as u64;
            self.input.consume(taken);
            self.keep_pace(&mut pace, taken);
        }
        Ok(Next::Command)
    }

    async fn end_message(&mut self, incoming: Incoming) -> Next {
        let envelope = self.session.end_transaction();
        self.slot.busy();
        let reply = incoming.accept(envelope).await;
        if reply.code == 250 {
            tracing::debug!(peer = %self.peer, text = %reply.text, "message accepted");
        } else {
            tracing::info!(peer = %self.peer, code = reply.code, text = %reply.text, "message refused");
        }
        self.session.answer(&reply, &mut self.out)
    }

    /// Shakes hands. Whatever the client sent in the clear behind STARTTLS would be taken for TLS here, and fail.
    async fn start_tls(&mut self) -> Result<Next, Lost> {
        self.flush().await?;
        let (Stream::Plain(socket), Some(tls)) =
            (std::mem::replace(&mut self.stream, Stream::Gone), self.service().tls.clone())
        else {
            return Err(Lost::Gone);
        };
        match timeout(self.service().timeout, tls.accept(socket)).await {
            Ok(Ok(stream)) => self.stream = Stream::Tls(Box::new(stream)),
            Ok(Err(error)) => {
                tracing::info!(peer = %self.peer, %error, "TLS handshake failed");
                return Err(Lost::Gone);
            }
            Err(_) => return Err(Lost::Gone),
        }
        self.session.on_tls();
        Ok(Next::Command)
    }

    /// How much time content has.
    fn pace(&self) -> Pace {
        Pace {
            begun: Instant::now(),
            timeout: self.service().timeout,
            rate_min: self.service().rate_min,
            bytes: 0,
            told: 0,
        }
    }

    /// Content came.
    fn keep_pace(&self, pace: &mut Pace, bytes: usize) {
        pace.bytes += bytes as u64;
        if pace.bytes - pace.told >= PROGRESS_BYTES {
            pace.told = pace.bytes;
            self.slot.progress();
        }
    }

    /// Reads more input, by a deadline. `may_end`: the end of inbound ends the wait.
    async fn fill(&mut self, may_end: bool, deadline: Instant) -> Result<(), Lost> {
        let deadline = deadline.min(Instant::now() + self.service().timeout);
        let (input, stream) = (&mut self.input, &mut self.stream);
        let (inbound_ended, displaced) = (&mut self.inbound_ended, &mut self.displaced);
        let read = poll_fn(|cx| match input.poll_fill(Pin::new(&mut *stream), cx) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(Err(Lost::Gone)),
            Poll::Ready(Ok(_)) => Poll::Ready(Ok(())),
            Poll::Pending if displaced.as_mut().poll(cx).is_ready() => Poll::Ready(Err(Lost::Displaced)),
            Poll::Pending if may_end => inbound_ended.as_mut().poll(cx).map(|()| Err(Lost::Ended)),
            Poll::Pending => Poll::Pending,
        });
        timeout_at(deadline, read).await.unwrap_or(Err(Lost::Silent))
    }

    /// Writes the replies that are due.
    async fn flush(&mut self) -> Result<(), Lost> {
        if self.out.is_empty() {
            return Ok(());
        }
        let limit = self.service().timeout;
        let (stream, out) = (&mut self.stream, &self.out);
        let write = async {
            stream.write_all(out).await?;
            stream.flush().await
        };
        let written = timeout(limit, write).await;
        self.out.clear();
        match written {
            Ok(Ok(())) => Ok(()),
            _ => Err(Lost::Gone),
        }
    }

    /// Writes what is left to say and closes. `linger`: the client may still be sending.
    async fn say_goodbye(&mut self, last: Option<Reply>, linger: bool) {
        if let Some(reply) = last {
            reply.write(&mut self.out);
        }
        if self.flush().await.is_err() {
            return;
        }
        if linger {
            let _ = timeout(LINGER, self.linger()).await;
        } else if let Stream::Tls(stream) = &mut self.stream {
            let _ = timeout(LINGER, stream.shutdown()).await;
        }
    }

    async fn linger(&mut self) {
        if self.stream.shutdown().await.is_err() {
            return;
        }
        let mut discarded = 0;
        let mut scratch = [0; 1024];
        while discarded < LINGER_BYTES_MAX {
            match self.stream.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(bytes) => discarded += bytes,
            }
        }
    }
}

/// At most so many bytes from the front.
fn front(input: &[u8], most: u64) -> &[u8] {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    input.get(..most).unwrap_or(input)
}
