//! Fuzz targets of this crate, and the world that they play in. Only with the feature `fuzzing`; nothing that is shipped has it.
//!
//! ```text
//!   input ─▶ MemoryStream ─▶ the real session ─▶ MemoryStream ─▶ what was said: checked
//!                                 │  ▲
//!                         FromWorker │ ToWorker: a supervisor of a few lines, played by the target
//! ```
//!
//! Each target stands beside the code that it tries, in a `fuzzing` room, and is listed here. What all targets have in common is in
//! [`spooler_protocol::fuzzing`]. Nothing here decides what is right: that is with the targets.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use spooler_protocol::claims::Claims;
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::fuzzing::Target;
use spooler_protocol::ids::Generation;
use spooler_protocol::to_worker::{ToWorker, Welcome};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::confine::Prepared;
use crate::filter::fuzzing as filter;
use crate::link::LinkSender;
use crate::provider::{local, maildir, pipe, serial, smtp, smtp_in};
use crate::support::Support;

/// The targets of this crate.
pub const TARGETS: &[Target] = &[
    ("smtp_server", smtp_in::fuzzing::session),
    ("smtp_client", smtp::fuzzing::transaction),
    ("smtp_replies", smtp::fuzzing::replies),
    ("smtp_content", smtp::fuzzing::content),
    ("pipe_program", pipe::fuzzing::program),
    ("pipe_command", pipe::fuzzing::command),
    ("filter_output", filter::output),
    ("local_form", local::fuzzing::form),
    ("maildir_place", maildir::fuzzing::place),
    ("serial_line", serial::fuzzing::line),
    ("provider_settings", crate::provider::fuzzing::settings),
];

/// How long a target may wait: everything it waits for is there or comes at once.
const PATIENCE: Duration = Duration::from_secs(5);

/// A peer in memory: says its pieces one after another, then ends; keeps what it hears.
#[derive(Debug)]
pub(crate) struct MemoryStream {
    says: VecDeque<Vec<u8>>,
    heard: Rc<RefCell<Vec<u8>>>,
}

impl MemoryStream {
    /// A peer that says these pieces, each as one read; and what it hears.
    pub(crate) fn new<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Self, Rc<RefCell<Vec<u8>>>) {
        let heard = Rc::default();
        (Self { says: pieces.map(<[u8]>::to_vec).collect(), heard: Rc::clone(&heard) }, heard)
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(mut piece) = self.says.pop_front() {
            let rest = piece.split_off(piece.len().min(buf.remaining()));
            buf.put_slice(&piece);
            if !rest.is_empty() {
                self.says.push_front(rest);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.borrow_mut().extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A supervisor that believes everything: what it is told comes out of the receiver.
pub(crate) fn supervisor(message_bytes_max: u64) -> (Support, UnboundedReceiver<FromWorker>) {
    let (link, ear) = LinkSender::to_ear();
    let welcome = Welcome {
        provider: "fuzzed".to_owned(),
        kind: "fuzzed".to_owned(),
        generation: Generation(1),
        settings: String::new(),
        hostname: "spooler.test".to_owned(),
        message_bytes_max,
        claims: Claims { incomplete: true, ..Claims::default() },
        flags: spooler_protocol::calls::LogonFlags::default(),
        answers: Vec::new(),
        confinement: None,
    };
    (Support::new(link, welcome, Prepared::default()), ear)
}

/// Runs provider code to its end; `answer` is what the supervisor says to each word.
///
/// # Panics
/// If the end does not come.
pub(crate) fn run<T>(
    support: &Support,
    ear: &mut UnboundedReceiver<FromWorker>,
    work: impl Future<Output = T>,
    mut answer: impl FnMut(FromWorker) -> Option<ToWorker>,
) -> T {
    thread_local! {
        static RUNTIME: Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
    }
    let mut work = pin!(work);
    let both = poll_fn(|cx| {
        loop {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(done);
            }
            let mut answered = false;
            while let Ok(word) = ear.try_recv() {
                if let Some(answer) = answer(word) {
                    support.take_answer(answer);
                    answered = true;
                }
            }
            if !answered {
                return Poll::Pending;
            }
        }
    });
    let done = RUNTIME.with(|runtime| runtime.block_on(async { tokio::time::timeout(PATIENCE, both).await }));
    done.expect("it waits for something that never comes")
}
