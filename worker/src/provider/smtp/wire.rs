//! One byte stream to a server: plain, TLS or a Unix socket, with a buffer each way and a limit on every wait.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::ServerName;
use spooler_protocol::outcome::{Cause, Reply};
use spooler_protocol::plain::plain;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::reply::{Garbled, ServerReply};

const READ_BYTES: usize = 4096;

/// How long a server that takes no more bytes may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a connection broke.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// Closed or reset.
    #[error("Lost the connection")]
    Lost(#[source] Option<io::Error>),
    /// Silence, or no room for our bytes, for longer than is set.
    #[error("The server did not answer")]
    Stalled,
    /// What came is no SMTP.
    #[error(transparent)]
    Garbled(#[from] Garbled),
    /// A reply that cannot stand where it stood.
    #[error("The server answered out of turn, with {0}")]
    OutOfTurn(u16),
    /// The server said goodbye (421), or refused further bytes and said why.
    #[error("The server closed the session")]
    Closing(ServerReply),
}

impl Broken {
    /// The same in the words of the spooler; `phase` says at what, such as `while waiting for the reply to MAIL`.
    pub(super) fn into_reply(self, remote: &str, phase: &str) -> Reply {
        let (cause, enhanced) = match self {
            Self::Closing(said) => return said.from(remote),
            Self::Lost(_) => (Cause::Lost, "4.4.2"),
            Self::Stalled => (Cause::Stalled, "4.4.2"),
            Self::Garbled(_) | Self::OutOfTurn(_) => (Cause::Lost, "4.5.0"),
        };
        let mut text = format!("{self} {phase}");
        if let Self::Lost(Some(error)) = &self {
            text = format!("{text}: {}", plain(error));
        }
        Reply { cause, remote: remote.to_owned(), ..Reply::local(0, enhanced, text) }
    }
}

/// What the bytes travel on.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    /// What a fuzz target says and hears.
    #[cfg(feature = "fuzzing")]
    Memory(crate::fuzzing::MemoryStream),
}

impl Stream {
    async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read_buf(into).await,
            Self::Tls(stream) => stream.read_buf(into).await,
            Self::Unix(stream) => stream.read_buf(into).await,
            #[cfg(feature = "fuzzing")]
            Self::Memory(stream) => stream.read_buf(into).await,
        }
    }

    async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
            Self::Unix(stream) => stream.write_all(bytes).await,
            #[cfg(feature = "fuzzing")]
            Self::Memory(stream) => stream.write_all(bytes).await,
        }
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
            Self::Unix(stream) => stream.shutdown().await,
            #[cfg(feature = "fuzzing")]
            Self::Memory(stream) => stream.shutdown().await,
        }
    }
}

/// A stream with its buffers.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    /// What came and is not yet taken.
    input: BytesMut,
    /// What goes out with the next [`Wire::send`].
    pub(super) output: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new(), output: Vec::new() }
    }

    /// Sends what is in `output`, all of it in one go if the kernel takes it.
    ///
    /// # Errors
    /// If that fails or takes longer than `patience`. A server that says why it takes no more is heard.
    pub(super) async fn send(&mut self, patience: Duration) -> Result<(), Broken> {
        let sent = timeout(patience, self.stream.write_all(&self.output)).await;
        self.output.clear();
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => match self.reply(LAST_WORDS).await {
                Ok(reply) if reply.is_negative() => Err(Broken::Closing(reply)),
                _ => Err(Broken::Lost(Some(error))),
            },
            Err(_) => Err(Broken::Stalled),
        }
    }

    /// Waits for the next reply.
    ///
    /// # Errors
    /// If there is none within `patience`, or ever.
    pub(super) async fn reply(&mut self, patience: Duration) -> Result<ServerReply, Broken> {
        if let Some(reply) = ServerReply::take(&mut self.input)? {
            return Ok(reply);
        }
        timeout(patience, self.read_reply()).await.unwrap_or(Err(Broken::Stalled))
    }

    async fn read_reply(&mut self) -> Result<ServerReply, Broken> {
        loop {
            self.input.reserve(READ_BYTES);
            match self.stream.read(&mut self.input).await {
                Ok(0) => return Err(Broken::Lost(None)),
                Ok(_) => {}
                Err(error) => return Err(Broken::Lost(Some(error))),
            }
            if let Some(reply) = ServerReply::take(&mut self.input)? {
                return Ok(reply);
            }
        }
    }

    /// Sends a command and waits for its reply.
    ///
    /// # Errors
    /// As [`Wire::send`] and [`Wire::reply`], and if the server says goodbye.
    pub(super) async fn command(&mut self, line: &[u8], patience: Duration) -> Result<ServerReply, Broken> {
        self.output.extend_from_slice(line);
        self.output.extend_from_slice(b"\r\n");
        self.send(patience).await?;
        let reply = self.reply(patience).await?;
        if reply.is_closing() { Err(Broken::Closing(reply)) } else { Ok(reply) }
    }

    /// Whether bytes came that nothing has asked for.
    pub(super) fn has_input(&self) -> bool {
        !self.input.is_empty()
    }

    /// Whether TLS protects it.
    pub(super) fn is_secure(&self) -> bool {
        matches!(self.stream, Stream::Tls(_))
    }

    /// Version and cipher suite of TLS, as the field writes them (`TLSv1.3`, `TLS_AES_256_GCM_SHA384`); both empty without TLS.
    pub(super) fn tls(&self) -> (String, String) {
        let Stream::Tls(stream) = &self.stream else { return Default::default() };
        let (_, session) = stream.get_ref();
        let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or_default();
        let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
        (version.replace("TLSv1_", "TLSv1."), suite.replace("TLS13_", "TLS_"))
    }

    /// Whether it can be used again after a pause: the server has neither closed it nor said anything, as far as one can tell without
    /// waiting. Under TLS what came can only be told apart by reading a whole record, so there the next command will find out.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match &self.stream {
            Stream::Tcp(stream) => stream.try_read(&mut byte),
            Stream::Unix(stream) => stream.try_read(&mut byte),
            Stream::Tls(_) => return !self.has_input(),
            #[cfg(feature = "fuzzing")]
            Stream::Memory(_) => return !self.has_input(),
        };
        !self.has_input() && matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Puts TLS over the stream. Whatever was known of the server before is void (RFC 3207 4.2).
    ///
    /// # Errors
    /// If the handshake fails.
    pub(super) async fn secure(self, connector: &TlsConnector, name: ServerName<'static>) -> io::Result<Self> {
        let Stream::Tcp(stream) = self.stream else {
            return Err(io::Error::other("TLS goes over TCP only, and only once"));
        };
        let stream = connector.connect(name, stream).await?;
        Ok(Self::new(Stream::Tls(Box::new(stream))))
    }

    /// Ends the session politely, without insisting.
    pub(super) async fn quit(mut self, patience: Duration) {
        let goodbye = async {
            if self.command(b"QUIT", patience).await.is_ok() {
                let _ = self.stream.shutdown().await;
            }
        };
        let _ = timeout(patience, goodbye).await;
    }
}
