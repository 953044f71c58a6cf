//! A server that does what a test says: everything goes well unless the test's script has another answer. It keeps all it hears.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a server does when it hears something.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// One reply or several, with their CRLFs.
    Say(String),
    /// A reply, and the end of the connection.
    SayAndClose(String),
    /// The end of the connection.
    Close,
    /// Nothing, for ever.
    Stall,
}

pub(super) fn say(reply: &str) -> Option<Act> {
    Some(Act::Say(format!("{reply}\r\n")))
}

/// What a server heard on one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Heard {
    /// Commands, without CRLF.
    pub(super) commands: Vec<String>,
    /// What came in one piece each.
    pub(super) pieces: Vec<Vec<u8>>,
    /// Contents as they came: with stuffed dots and the last dot, or the bytes of all BDAT chunks.
    pub(super) contents: Vec<Vec<u8>>,
    /// Whether the connection is over.
    pub(super) over: bool,
}

impl Heard {
    /// How often a command was heard.
    pub(super) fn count(&self, verb: &str) -> usize {
        self.commands.iter().filter(|command| command.starts_with(verb)).count()
    }
}

type Script = Box<dyn Fn(usize, &str) -> Option<Act> + Send + Sync>;

/// How a server is set up.
pub(super) struct Setup {
    /// What EHLO or LHLO offers.
    pub(super) offers: Vec<&'static str>,
    /// Answers by connection (from 0) and command; `CONNECT` asks for the greeting, `.` for the end of a message.
    pub(super) script: Script,
    /// For STARTTLS, or for all of the connection.
    pub(super) tls: Option<Arc<ServerConfig>>,
    pub(super) implicit_tls: bool,
    /// One reply for each accepted recipient.
    pub(super) lmtp: bool,
}

impl Default for Setup {
    fn default() -> Self {
        let offers = vec!["PIPELINING", "SIZE 10000000", "8BITMIME", "ENHANCEDSTATUSCODES"];
        Self { offers, script: Box::new(|_, _| None), tls: None, implicit_tls: false, lmtp: false }
    }
}

struct Shared {
    setup: Setup,
    heard: Mutex<Vec<Heard>>,
    news: Condvar,
}

/// A running server.
pub(super) struct Fake {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
}

trait Io: Read + Write + Send {}
impl<T: Read + Write + Send> Io for T {}

impl Fake {
    /// A server with which everything goes well.
    pub(super) fn obliging() -> Self {
        Self::start(Setup::default())
    }

    /// A server with the usual offers and a script.
    pub(super) fn scripted(script: impl Fn(usize, &str) -> Option<Act> + Send + Sync + 'static) -> Self {
        Self::start(Setup { script: Box::new(script), ..Setup::default() })
    }

    pub(super) fn start(setup: Setup) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), setup)
    }

    pub(super) fn listen(listener: TcpListener, setup: Setup) -> Self {
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { setup, heard: Mutex::default(), news: Condvar::new() });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            serving.accept(listener.incoming().map(|stream| {
                let stream = stream.unwrap();
                // Each reply is a write of its own here.
                stream.set_nodelay(true).unwrap();
                stream
            }));
        });
        Self { address, shared }
    }

    /// The same on a Unix socket.
    pub(super) fn on_socket(path: &Path, setup: Setup) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let shared = Arc::new(Shared { setup, heard: Mutex::default(), news: Condvar::new() });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || serving.accept(listener.incoming().map(Result::unwrap)));
        Self { address: ([127, 0, 0, 1], 0).into(), shared }
    }

    /// Settings of a provider for this server, with more of them.
    pub(super) fn settings(&self, more: &str) -> String {
        format!("host = '{}'\n{more}", self.address)
    }

    /// What was heard so far, by connection.
    pub(super) fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().unwrap().clone()
    }

    /// What was heard on the only connection.
    pub(super) fn only(&self) -> Heard {
        let mut all = self.heard();
        assert_eq!(all.len(), 1, "connections: {all:?}");
        all.remove(0)
    }

    /// Waits until what was heard is so.
    pub(super) fn wait(&self, mut fact: impl FnMut(&[Heard]) -> bool) {
        let heard = self.shared.heard.lock().unwrap();
        let (heard, waited) = self.shared.news.wait_timeout_while(heard, PATIENCE, |heard| !fact(heard)).unwrap();
        assert!(!waited.timed_out(), "never heard; but {heard:?}");
    }
}

impl Shared {
    fn accept<S: Io + 'static>(self: &Arc<Self>, incoming: impl Iterator<Item = S>) {
        for (number, stream) in incoming.enumerate() {
            self.heard.lock().unwrap().push(Heard::default());
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                Conversation::new(&shared, number, Box::new(stream)).run();
                shared.note(number, |heard| heard.over = true);
            });
        }
    }

    fn note(&self, number: usize, change: impl FnOnce(&mut Heard)) {
        change(&mut self.heard.lock().unwrap()[number]);
        self.news.notify_all();
    }
}

struct Conversation<'a> {
    shared: &'a Shared,
    number: usize,
    stream: Option<Box<dyn Io>>,
    buffer: BytesMut,
    accepted: usize,
}

impl<'a> Conversation<'a> {
    fn new(shared: &'a Shared, number: usize, stream: Box<dyn Io>) -> Self {
        Self { shared, number, stream: Some(stream), buffer: BytesMut::new(), accepted: 0 }
    }

    /// Ends with nothing when the connection does.
    fn run(mut self) -> Option<()> {
        if self.shared.setup.implicit_tls {
            self.start_tls();
        }
        self.answer("CONNECT")?;
        loop {
            let command = String::from_utf8(self.line()?.to_vec()).unwrap();
            self.shared.note(self.number, |heard| heard.commands.push(command.clone()));
            if command.starts_with("BDAT ") {
                let mut words = command.split(' ').skip(1);
                let bytes = self.take(words.next().unwrap().parse().unwrap())?;
                self.shared.note(self.number, |heard| match heard.contents.last_mut() {
                    Some(last) if heard.commands.iter().rev().nth(1).is_some_and(|c| c.starts_with("BDAT")) => {
                        last.extend(bytes);
                    }
                    _ => heard.contents.push(bytes),
                });
            }
            let reply = self.answer(&command)?;
            match command.get(..4) {
                Some("MAIL" | "RSET") => self.accepted = 0,
                Some("RCPT") if reply.starts_with('2') => self.accepted += 1,
                Some("DATA") if reply.starts_with("354") => self.content()?,
                Some("STAR") if reply.starts_with("220") => self.start_tls(),
                Some("QUIT") => return None,
                _ => {}
            }
        }
    }

    fn content(&mut self) -> Option<()> {
        let mut content = Vec::new();
        loop {
            let line = self.line()?;
            content.extend_from_slice(&line);
            content.extend_from_slice(b"\r\n");
            if line == "." {
                self.shared.note(self.number, |heard| heard.contents.push(content));
                return self.answer(".").map(|_| ());
            }
        }
    }

    /// The next line that ends with CRLF; nothing else ends one.
    fn line(&mut self) -> Option<BytesMut> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n") {
                let mut line = self.buffer.split_to(end + 2);
                line.truncate(end);
                return Some(line);
            }
            self.read()?;
        }
    }

    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < count {
            self.read()?;
        }
        Some(self.buffer.split_to(count).to_vec())
    }

    fn read(&mut self) -> Option<()> {
        let mut piece = vec![0; 256 * 1024];
        let count = self.stream.as_mut().unwrap().read(&mut piece).ok().filter(|count| *count > 0)?;
        piece.truncate(count);
        self.buffer.extend_from_slice(&piece);
        self.shared.note(self.number, |heard| heard.pieces.push(piece));
        Some(())
    }

    fn answer(&mut self, to: &str) -> Option<String> {
        let act = (self.shared.setup.script)(self.number, to).unwrap_or_else(|| Act::Say(self.usual(to)));
        let stream = self.stream.as_mut().unwrap();
        let (Act::Say(reply) | Act::SayAndClose(reply)) = &act else {
            if matches!(act, Act::Stall) {
                while stream.read(&mut [0; 1024]).is_ok_and(|count| count > 0) {}
            }
            return None;
        };
        stream.write_all(reply.as_bytes()).and_then(|()| stream.flush()).ok()?;
        matches!(act, Act::Say(_)).then(|| reply.clone())
    }

    fn usual(&self, to: &str) -> String {
        let verb = to.split([' ', ':']).next().unwrap_or_default();
        match verb {
            "CONNECT" => "220 fake.test ESMTP\r\n".to_owned(),
            "EHLO" | "LHLO" => {
                let offers: String = self.shared.setup.offers.iter().map(|offer| format!("250-{offer}\r\n")).collect();
                format!("250-fake.test\r\n{offers}250 HELP\r\n")
            }
            "DATA" => "354 go on\r\n".to_owned(),
            "STARTTLS" => "220 ready\r\n".to_owned(),
            "QUIT" => "221 bye\r\n".to_owned(),
            "RSET" => "250 2.0.0 reset\r\n".to_owned(),
            "." if self.shared.setup.lmtp => "250 2.0.0 stored\r\n".repeat(self.accepted),
            "BDAT" if self.shared.setup.lmtp && to.ends_with("LAST") => "250 2.0.0 stored\r\n".repeat(self.accepted),
            _ => format!("250 2.0.0 {} ok\r\n", if verb == "." { "message" } else { verb }),
        }
    }

    fn start_tls(&mut self) {
        let config = self.shared.setup.tls.clone().expect("a server with TLS");
        let tls = ServerConnection::new(config).unwrap();
        let plain = self.stream.take().unwrap();
        self.stream = Some(Box::new(StreamOwned::new(tls, plain)));
    }
}

/// The content that a server understands from what came behind DATA.
pub(super) fn unstuffed(wire: &[u8]) -> Vec<u8> {
    let body = wire.strip_suffix(b".\r\n").expect("a dot at the end");
    let mut content = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let end = memchr::memmem::find(rest, b"\r\n").map_or(rest.len(), |at| at + 2);
        let (line, tail) = rest.split_at(end);
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        rest = tail;
    }
    content
}
