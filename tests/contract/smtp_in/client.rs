//! A client that says exactly what a test wants said, and nothing else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use spooler_protocol::from_worker::LoggedOn;

use crate::peer::Peer;

/// How long a client waits for a reply before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starts a server with these settings behind `listen` on a free port. The worker gets a token that lasts: what it does under short
/// ones is tested elsewhere, and here nobody has to watch it while a client talks to it.
pub(crate) fn serving(settings: &str) -> (Peer, SocketAddr) {
    let (mut peer, LoggedOn { identity, .. }) =
        Peer::logged_on("smtp-in", &format!("listen = ['127.0.0.1:0']\n{settings}"));
    peer.grant(u32::MAX);
    (peer, identity.parse().unwrap())
}

/// Runs a client's script beside the supervisor, until so many messages came in since the start and the script is over.
pub(crate) fn while_serving<T: Send + 'static>(
    peer: &mut Peer,
    messages: usize,
    script: impl FnOnce() -> T + Send + 'static,
) -> T {
    let client = thread::spawn(script);
    peer.wait_received(messages);
    client.join().unwrap()
}

/// A connection.
pub(crate) struct Client<S: Read + Write = TcpStream> {
    stream: BufReader<S>,
}

impl Client {
    /// Connects and says nothing.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::on(socket)
    }

    /// Connects, is greeted and says EHLO.
    pub(crate) fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        assert!(client.reply().starts_with("220 spooler.test ESMTP"));
        assert!(client.say("EHLO client.test").starts_with("250-spooler.test\r\n"));
        client
    }

    /// The socket, with nothing read ahead.
    pub(crate) fn into_socket(self) -> TcpStream {
        assert!(self.stream.buffer().is_empty());
        self.stream.into_inner()
    }
}

impl<S: Read + Write> Client<S> {
    /// A client on a stream that is open.
    pub(crate) fn on(stream: S) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    /// Sends bytes in one write.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
        self.stream.get_mut().flush().unwrap();
    }

    /// The next reply, all its lines.
    pub(crate) fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let start = reply.len();
            let bytes = self.stream.read_line(&mut reply).unwrap();
            assert!(bytes > 0, "the server closed; so far: {reply:?}");
            assert!(reply.ends_with("\r\n") && bytes <= 512, "{reply:?}");
            if reply.as_bytes()[start + 3] != b'-' {
                return reply;
            }
        }
    }

    /// Says a line and waits for its reply.
    pub(crate) fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n"));
        self.reply()
    }

    /// Says lines one by one; each reply must begin as told.
    pub(crate) fn expect(&mut self, talk: &[(&str, &str)]) {
        for (line, expected) in talk {
            let reply = self.say(line);
            assert!(reply.starts_with(expected), "{line:?}: {reply:?}");
        }
    }

    /// Opens a transaction up to 354.
    pub(crate) fn begin_data(&mut self) {
        self.expect(&[("MAIL FROM:<a@b.test>", "250 2.1.0"), ("RCPT TO:<c@d.test>", "250 2.1.5"), ("DATA", "354 ")]);
    }

    /// Whether the server has closed, with nothing more said.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).map_or(true, |_| rest.is_empty())
    }
}

/// Splits the trace header off a message that was handed over.
pub(crate) fn without_trace(content: &[u8]) -> (&str, &[u8]) {
    let end = (0..content.len())
        .find(|&at| content[at..].starts_with(b"\r\n") && content.get(at + 2) != Some(&b'\t'))
        .unwrap();
    (std::str::from_utf8(&content[..end]).unwrap(), &content[end + 2..])
}
