//! A supervisor made of a few lines: starts the real worker program, shakes hands, and says what a test wants said.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use ipc_channel::ipc::{self, IpcBytesSender, IpcSender};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use spooler_protocol::calls::LogonFlags;
use spooler_protocol::claims::Claims;
use spooler_protocol::codec::{self, Assembler, CodecError};
use spooler_protocol::confinement::Confined;
use spooler_protocol::from_worker::{Arrival, Content, FromWorker, LoggedOn};
use spooler_protocol::handshake::{Bootstrap, Hello, SOCKET_NAME, TEMPORARY_FOLDER};
use spooler_protocol::ids::{AcceptId, DeliveryId, Generation, MessageId, Token};
use spooler_protocol::limits::{BODY_CHUNK_BYTES_MAX, BODY_INLINE_BYTES_MAX, FRAME_BYTES_MAX};
use spooler_protocol::message::{BodyType, Envelope, Priority, Recipient};
use spooler_protocol::notification::Notification;
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::{Refusal, Submission, ToWorker, Welcome};
use tempfile::TempDir;

/// How long a test waits for a fact before it fails. Generous: the machine may be slow, and no test depends on it being fast.
const PATIENCE: Duration = Duration::from_secs(60);

/// A message that the worker handed over.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) envelope: Envelope,
    pub(crate) arrival: Arrival,
    pub(crate) content: Vec<u8>,
}

/// The worker under test and our end of its channels.
pub(crate) struct Peer {
    pub(crate) child: Child,
    to: IpcBytesSender,
    from: mpsc::Receiver<FromWorker>,
    next_token: u64,
    next_message: u64,
    uploads: HashMap<AcceptId, Vec<u8>>,
    contents: HashMap<DeliveryId, Bytes>,
    /// Whether a worker that wants a token gets one at once.
    pub(crate) grants: bool,
    /// What every message that the worker hands over is refused with, if it is.
    pub(crate) refusal: Option<Refusal>,
    /// What the worker handed over, in order.
    pub(crate) received: Vec<Received>,
    /// What the worker said of its sandbox.
    pub(crate) confined: Option<Confined>,
    /// Where its programs have their temporary files.
    pub(crate) temporary: TempDir,
}

impl Peer {
    /// Starts a worker of a kind with settings as TOML, up to its welcome.
    pub(crate) fn start(kind: &str, settings: &str) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_spooler-worker")), welcome(kind, settings))
    }

    /// Starts a worker program, up to its welcome.
    pub(crate) fn start_program(program: &Path, welcome: Welcome) -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let temporary = TempDir::new().unwrap();
        let child = Command::new(program)
            .arg("--connect")
            .env(TEMPORARY_FOLDER, temporary.path())
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        let hello = Hello::decode(&packet(&ours).expect("a hello")).unwrap();
        assert_eq!(hello.pid, child.id());
        let server = std::env::temp_dir().join(hello.folder).join(SOCKET_NAME);
        let bootstrap = IpcSender::connect(server.to_str().unwrap().to_owned()).unwrap();
        let (to, inbox) = ipc::bytes_channel().unwrap();
        bootstrap.send(Bootstrap { nonce: hello.nonce, inbox }).unwrap();
        let mut peer = Self {
            child,
            to,
            from: read_all(ours),
            next_token: 1,
            next_message: 1,
            uploads: HashMap::new(),
            contents: HashMap::new(),
            grants: true,
            refusal: None,
            received: Vec::new(),
            confined: None,
            temporary,
        };
        peer.say(&ToWorker::Welcome(welcome));
        peer
    }

    /// Starts a worker, waits until it has logged on, and begins both directions.
    pub(crate) fn logged_on(kind: &str, settings: &str) -> (Self, LoggedOn) {
        let mut peer = Self::start(kind, settings);
        let logged_on = peer.wait_logged_on();
        peer.say(&ToWorker::Notify(Notification::BeginOutbound));
        peer.say(&ToWorker::Notify(Notification::BeginInbound));
        (peer, logged_on)
    }

    /// Waits until the provider has logged on.
    pub(crate) fn wait_logged_on(&mut self) -> LoggedOn {
        self.wait_for(|said| match said {
            FromWorker::LoggedOn(logged_on) => Ok(logged_on),
            FromWorker::LogonFailed(error) => panic!("logon failed: {error:?}"),
            other => Err(other),
        })
    }

    pub(crate) fn say(&mut self, message: &ToWorker) {
        codec::encode::<_, CodecError>(message, |frame| {
            self.to.send(frame).unwrap();
            Ok(())
        })
        .unwrap();
    }

    /// Hands out a token.
    pub(crate) fn grant(&mut self, slice_ms: u32) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.say(&ToWorker::Grant { token, slice_ms, recalled: false });
        token
    }

    /// The next thing that the worker says, after what a supervisor answers by itself: tokens (if `grants`), accepted messages
    /// and pieces of bodies. Fails the test if the worker says nothing for a minute or dies.
    pub(crate) fn next(&mut self) -> FromWorker {
        loop {
            let said = self.from.recv_timeout(PATIENCE).expect("the worker says nothing or died");
            if let Some(said) = self.answer(said) {
                return said;
            }
        }
    }

    fn answer(&mut self, said: FromWorker) -> Option<FromWorker> {
        match said {
            FromWorker::Want | FromWorker::Yield { more: true, .. } if self.grants => {
                self.grant(200);
            }
            FromWorker::Yield { more: false, .. } if self.grants => {}
            FromWorker::Confined(confined) => self.confined = Some(confined),
            FromWorker::Upload { accept, data } => {
                self.uploads.entry(accept).or_default().extend_from_slice(&data);
                self.say(&ToWorker::UploadCredit { accept });
            }
            FromWorker::UploadAbandoned { accept } => {
                self.uploads.remove(&accept);
            }
            FromWorker::UploadBegins { accept, .. } => {
                self.uploads.insert(accept, Vec::new());
            }
            FromWorker::Accept { accept, envelope, arrival, content } => {
                let content = match content {
                    Content::Inline(bytes) => bytes.to_vec(),
                    Content::Uploaded { size } => {
                        let content = self.uploads.remove(&accept).unwrap();
                        assert_eq!(content.len() as u64, size);
                        content
                    }
                };
                self.received.push(Received { envelope, arrival, content });
                let id = MessageId(self.next_message);
                self.next_message += 1;
                let result = self.refusal.clone().map_or(Ok(id), Err);
                self.say(&ToWorker::Accepted { accept, result });
            }
            FromWorker::ReadBody { request, delivery, offset } => {
                let content = &self.contents[&delivery];
                let at = usize::try_from(offset).unwrap();
                let data = content.slice(at..content.len().min(at + BODY_CHUNK_BYTES_MAX));
                self.say(&ToWorker::Body { request, data: Ok(data) });
            }
            FromWorker::CriticalBegin { section, reason } => {
                self.say(&ToWorker::CriticalGranted { section, raised: Ok(()) });
                return Some(FromWorker::CriticalBegin { section, reason });
            }
            other => return Some(other),
        }
        None
    }

    /// Waits for a fact: `pick` takes what the worker says or hands it back to be ignored.
    pub(crate) fn wait_for<T>(&mut self, mut pick: impl FnMut(FromWorker) -> Result<T, FromWorker>) -> T {
        loop {
            if let Ok(found) = pick(self.next()) {
                return found;
            }
        }
    }

    /// Answers the worker until `done` says that it has seen enough of what it handed over.
    pub(crate) fn wait_received(&mut self, count: usize) -> &[Received] {
        while self.received.len() < count {
            let said = self.from.recv_timeout(PATIENCE).expect("the worker says nothing or died");
            self.answer(said);
        }
        &self.received
    }

    /// Gives the worker a message to deliver, as the supervisor would: inline if it is small.
    pub(crate) fn submit(&mut self, delivery: u64, sender: &str, recipients: &[&str], content: &[u8]) {
        let mut submission = submission(delivery, sender, recipients, content);
        if content.len() > BODY_INLINE_BYTES_MAX {
            self.contents.insert(submission.delivery, submission.content.take().unwrap());
        }
        self.say(&ToWorker::Submit(Box::new(submission)));
    }

    /// Waits until a delivery is over: its result, and the outcome of each recipient that was mentioned.
    pub(crate) fn finished(&mut self, delivery: u64) -> (SubmitResult, HashMap<u32, Outcome>) {
        let mut all = HashMap::new();
        let result = self.wait_for(|said| match said {
            FromWorker::Settled { delivery: of, outcomes } if of.0 == delivery => {
                all.extend(outcomes.clone());
                Err(FromWorker::Settled { delivery: of, outcomes })
            }
            FromWorker::Finished { delivery: of, result, outcomes, .. } if of.0 == delivery => {
                all.extend(outcomes);
                Ok(result)
            }
            other => Err(other),
        });
        (result, all)
    }

    /// Delivers a message from start to end.
    pub(crate) fn deliver(
        &mut self,
        sender: &str,
        recipients: &[&str],
        content: &[u8],
    ) -> (SubmitResult, HashMap<u32, Outcome>) {
        let delivery = 1_000_000 + self.next_message;
        self.next_message += 1;
        self.submit(delivery, sender, recipients, content);
        self.finished(delivery)
    }

    /// Asks the worker to log off and waits until its process has ended well.
    pub(crate) fn log_off(mut self) {
        self.say(&ToWorker::Logoff { hurry: false });
        self.wait_for(|said| if said == FromWorker::LoggedOff { Ok(()) } else { Err(said) });
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the worker sent; nothing at the end.
fn packet(from: &OwnedFd) -> Option<Vec<u8>> {
    let mut packet = vec![0; FRAME_BYTES_MAX];
    let (_, length) = recv(from, packet.as_mut_slice(), RecvFlags::TRUNC).ok()?;
    assert!(length <= FRAME_BYTES_MAX, "a packet of {length} bytes");
    packet.truncate(length);
    (length > 0).then_some(packet)
}

fn read_all(from: OwnedFd) -> mpsc::Receiver<FromWorker> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut assembler = Assembler::default();
        while let Some(frame) = packet(&from) {
            if let Some(said) = assembler.push(&frame).unwrap()
                && sender.send(said).is_err()
            {
                break;
            }
        }
    });
    receiver
}

/// An outcome in words: `failed 5.1.1 no such user`.
pub(crate) fn shown(outcome: &Outcome) -> String {
    let kind = match outcome {
        Outcome::Delivered(_) => "delivered",
        Outcome::Relayed { .. } => "relayed",
        Outcome::Failed(_) => "failed",
        Outcome::Deferred(_) => "deferred",
    };
    format!("{kind} {} {}", outcome.reply().enhanced, outcome.reply().text)
}

/// What a worker is told first: nobody is there to answer questions, and no direction has begun.
pub(crate) fn welcome(kind: &str, settings: &str) -> Welcome {
    Welcome {
        provider: "under-test".to_owned(),
        kind: kind.to_owned(),
        generation: Generation(1),
        settings: settings.to_owned(),
        hostname: "spooler.test".to_owned(),
        message_bytes_max: 10 << 20,
        claims: Claims { address_types: vec!["SMTP".to_owned()], ..Claims::default() },
        flags: LogonFlags::NO_DIALOG | LogonFlags::NO_INBOUND | LogonFlags::NO_OUTBOUND,
        answers: Vec::new(),
        // As whoever runs the test; e2e tests give workers users of their own.
        confinement: Some(Box::default()),
    }
}

/// A submission with its content inline.
pub(crate) fn submission(delivery: u64, sender: &str, recipients: &[&str], content: &[u8]) -> Submission {
    Submission {
        delivery: DeliveryId(delivery),
        message: MessageId(delivery),
        sender: sender.to_owned(),
        recipients: recipients.iter().map(|address| Recipient::new(address.parse().unwrap())).collect(),
        body: BodyType::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
        priority: Priority::Normal,
        attempt: 1,
        others: Vec::new(),
        deferred_before: false,
        size: content.len() as u64,
        content: Some(Bytes::copy_from_slice(content)),
    }
}
