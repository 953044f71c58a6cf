//! The channel to the supervisor; the only file of this crate that knows ipc-channel.
//!
//! What the supervisor says is read on the runtime's own thread, token or not, whenever provider code is not in the middle of
//! computing: a thread for it would cost a switch for each word, and nothing could be done with the word meanwhile anyway. Sending
//! happens there too: it blocks while the supervisor does not read, which is where a flooding worker is held back. Each frame is one
//! packet on the socket that was standard input; see [`spooler_protocol::handshake`].

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

use ipc_channel::TryRecvError;
use ipc_channel::ipc::{self, IpcBytesReceiver, IpcOneShotServer};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::rand::{GetRandomFlags, getrandom};
use spooler_protocol::codec::{self, Assembler, CodecError};
use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::handshake::{Bootstrap, Hello, NONCE_BYTES, PROTOCOL_VERSION};
use spooler_protocol::to_worker::ToWorker;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::sandbox::descriptors;

/// Why the supervisor cannot be talked to (any more).
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Standard input is not what the supervisor makes it.
    #[error("No supervisor on standard input; a worker is started by the supervisor, not by hand")]
    Start(#[source] io::Error),
    /// The channel could not be made.
    #[error("Cannot get a channel from the supervisor")]
    Connect(#[source] io::Error),
    /// Who came to the one-shot server did not know the nonce.
    #[error("Somebody else came instead of the supervisor")]
    Stranger,
    /// The supervisor is gone.
    #[error("The supervisor is gone")]
    Gone,
    /// A message cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// The sending end.
#[derive(Debug)]
pub struct LinkSender {
    way: Way,
}

/// Where words go.
#[derive(Debug)]
enum Way {
    Supervisor(OwnedFd),
    /// A fuzz target plays the supervisor.
    #[cfg(feature = "fuzzing")]
    Ear(mpsc::UnboundedSender<FromWorker>),
}

impl LinkSender {
    /// A link to a supervisor that is played by who reads the other end.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn to_ear() -> (Self, mpsc::UnboundedReceiver<FromWorker>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { way: Way::Ear(sender) }, receiver)
    }

    /// Sends a message; blocks while the supervisor does not read.
    ///
    /// # Errors
    /// If the supervisor is gone.
    pub fn send(&self, message: &FromWorker) -> Result<(), LinkError> {
        match &self.way {
            Way::Supervisor(socket) => {
                codec::encode(message, |frame| send_packet(socket, frame).map_err(|_| LinkError::Gone))
            }
            #[cfg(feature = "fuzzing")]
            Way::Ear(ear) => {
                codec::encode(message, |_| Ok::<(), LinkError>(()))?;
                ear.send(message.clone()).map_err(|_| LinkError::Gone)
            }
        }
    }
}

fn send_packet(socket: &OwnedFd, packet: &[u8]) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| rustix::net::send(socket, packet, SendFlags::NOSIGNAL)).map(drop)
}

/// Says hello to the supervisor, whose socket is standard input, and gets the channel on which it speaks. Standard input is empty from
/// then on.
///
/// The receiving end closes when the supervisor is gone or talks garbage. To be called on the runtime, before there is another thread,
/// and while nobody else may enter new folders.
///
/// # Errors
/// If there is no supervisor.
pub fn connect() -> Result<(LinkSender, mpsc::UnboundedReceiver<ToWorker>), LinkError> {
    let socket = take_stdin().map_err(LinkError::Start)?;
    if is_dead_at_the_other_end(&socket) {
        return Err(LinkError::Gone);
    }
    measure_send_buffer().map_err(LinkError::Connect)?;
    let (server, name) = IpcOneShotServer::new().map_err(LinkError::Connect)?;
    let mut nonce = [0; NONCE_BYTES];
    getrandom(&mut nonce, GetRandomFlags::empty()).map_err(|error| LinkError::Connect(error.into()))?;
    let folder = Path::new(&name).parent().and_then(Path::file_name).unwrap_or_default();
    let folder = folder.to_string_lossy().into_owned();
    let hello = Hello { version: PROTOCOL_VERSION, pid: std::process::id(), nonce, folder };
    send_packet(&socket, &hello.encode()).map_err(|error| LinkError::Start(error.into()))?;
    let (bootstrap, watch) = accept(server, &socket).map_err(LinkError::Connect)?;
    if bootstrap.nonce != nonce {
        return Err(LinkError::Stranger);
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    drop(tokio::spawn(read_all(bootstrap.inbox, watch, sender)));
    Ok((LinkSender { way: Way::Supervisor(socket) }, receiver))
}

/// Whether the supervisor died before this worker had asked for a signal at its death: none would come, and nobody to the one-shot server.
/// Its end of the socket says nothing of that yet, while other threads of it are still about to end.
fn is_dead_at_the_other_end(socket: &OwnedFd) -> bool {
    let Ok(peer) = rustix::net::sockopt::socket_peercred(socket) else { return false };
    let process = match pidfd_open(peer.pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(error) => return error == Errno::SRCH,
    };
    let mut ended = [PollFd::new(&process, PollFlags::IN)];
    rustix::event::poll(&mut ended, Some(&Timespec::default())).is_ok_and(|count| count > 0)
}

/// ipc-channel measures the system's send buffer when it needs to know it, and panics if it gets no descriptors for that. Without them, a
/// worker ends here, with a sentence.
fn measure_send_buffer() -> io::Result<()> {
    let (sender, _receiver) = ipc::bytes_channel()?;
    drop(ipc::bytes_channel()?);
    sender.send(&[]).map_err(io::Error::other)
}

/// The socket moves to a number that programs started later do not inherit.
fn take_stdin() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    let socket = stdin.as_fd().try_clone_to_owned()?;
    // Says no if it is anything but a socket.
    rustix::net::sockopt::socket_type(&socket)?;
    let nothing = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    nix::unistd::dup2_stdin(nothing)?;
    Ok(socket)
}

/// Takes the inbox that the supervisor sends, with a second descriptor of it for the reactor to watch. ipc-channel does not tell its
/// number; but a new descriptor has the lowest one that is free, and there is no other thread to take it: the connection gets the first
/// one, and the inbox the next.
fn accept(server: IpcOneShotServer<Bootstrap>, any: &OwnedFd) -> io::Result<(Bootstrap, UnixStream)> {
    let number = second_free_number(any)?;
    let (connection, bootstrap) = server.accept().map_err(io::Error::other)?;
    // Programs started later would inherit it.
    drop(connection);
    let second = descriptors::second_of(number)?;
    // Not a stream, but all that is asked of it is whether there is something to read.
    let watch = std::os::unix::net::UnixStream::from(second);
    watch.set_nonblocking(true)?;
    Ok((bootstrap, UnixStream::from_std(watch)?))
}

fn second_free_number(any: &OwnedFd) -> io::Result<RawFd> {
    let _first = any.try_clone()?;
    Ok(any.try_clone()?.as_raw_fd())
}

async fn read_all(inbox: IpcBytesReceiver, watch: UnixStream, sender: mpsc::UnboundedSender<ToWorker>) {
    let mut assembler = Assembler::default();
    while watch.readable().await.is_ok() {
        let frame = watch.try_io(Interest::READABLE, || {
            inbox.try_recv().map_err(|error| match error {
                TryRecvError::Empty => io::ErrorKind::WouldBlock.into(),
                TryRecvError::IpcError(error) => io::Error::other(error),
            })
        });
        match frame {
            Ok(frame) => {
                if !pass_on(&mut assembler, &frame, &sender) {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// False if there is nobody to go on for.
fn pass_on(assembler: &mut Assembler, frame: &[u8], sender: &mpsc::UnboundedSender<ToWorker>) -> bool {
    match assembler.push(frame) {
        Ok(Some(message)) => sender.send(message).is_ok(),
        Ok(None) => true,
        Err(error) => {
            tracing::error!(%error, "the supervisor's frame cannot be understood");
            false
        }
    }
}
