//! Requests to the control socket, one connection each: HTTP over a Unix socket.

use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use spooler_protocol::control::{ApiError, FlushCommand, Submit, Submitted};
use tokio::net::UnixStream;

use super::failure::Failure;

/// Where the supervisor listens if nobody says otherwise.
pub(crate) const SOCKET: &str = "/run/spooler/control.sock";
/// Bytes of an answer that is taken in whole.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Bytes of one line of an answer that goes on.
const LINE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The control socket.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    socket: PathBuf,
}

/// Runs a client's future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Temporary(format!("Nothing can be started: {error}")))?.block_on(future)
}

impl Control {
    pub(crate) fn new(socket: Option<PathBuf>) -> Self {
        let named =
            socket.or_else(|| std::env::var_os("SPOOLER_SOCKET").filter(|path| !path.is_empty()).map(PathBuf::from));
        Self { socket: named.unwrap_or_else(|| PathBuf::from(SOCKET)) }
    }

    /// Hands a message over; it is on disk when this returns.
    pub(crate) async fn submit(&self, submit: &Submit, content: &[u8]) -> Result<Submitted, Failure> {
        let mut body = serde_json::to_vec(submit).map_err(io::Error::from)?;
        body.push(b'\n');
        body.extend_from_slice(content);
        whole(self.send(Method::POST, "/v1/messages", Bytes::from(body)).await?).await
    }

    /// Begins a flush; the lines tell how far it is.
    pub(crate) async fn flush(&self, command: &FlushCommand) -> Result<Lines, Failure> {
        let body = serde_json::to_vec(command).map_err(io::Error::from)?;
        Ok(Lines::new(self.send(Method::POST, "/v1/flush", Bytes::from(body)).await?))
    }

    /// Asks for one JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        whole(self.send(Method::GET, path, Bytes::new()).await?).await
    }

    /// Gives a command and takes one JSON document.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, command: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_vec(command).map_err(io::Error::from)?;
        whole(self.send(Method::POST, path, Bytes::from(body)).await?).await
    }

    /// Asks for JSON documents, one a line.
    pub(crate) async fn lines(&self, path: &str) -> Result<Lines, Failure> {
        Ok(Lines::new(self.send(Method::GET, path, Bytes::new()).await?))
    }

    /// Asks for bytes and hands each piece on.
    pub(crate) async fn bytes(&self, path: &str, out: &mut dyn io::Write) -> Result<(), Failure> {
        let mut body = self.send(Method::GET, path, Bytes::new()).await?.into_body();
        while let Some(frame) = body.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                out.write_all(&data)?;
            }
        }
        Ok(())
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header(HOST, "spooler").body(Full::new(body));
        let request = request.map_err(|error| Failure::Usage(format!("{path} is not a path: {error}")))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        if response.status().is_success() { Ok(response) } else { Err(refusal(response).await) }
    }

    fn unreachable(&self, error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::Absent(self.socket.clone()),
            io::ErrorKind::PermissionDenied => Failure::Denied(self.socket.clone()),
            _ => Failure::Temporary(format!("The spooler at {} cannot be reached: {error}", self.socket.display())),
        }
    }
}

async fn refusal(response: Response<Incoming>) -> Failure {
    let status = response.status();
    let plain = || ApiError { error: format!("The spooler answered {status}"), temporary: status.is_server_error() };
    let error = whole(response).await.unwrap_or_else(|_| plain());
    Failure::Refused { status: status.as_u16(), error }
}

async fn whole<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Failure> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(broken)?;
    serde_json::from_slice(&body.to_bytes()).map_err(broken)
}

fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::Broken(error.to_string())
}

/// JSON documents, one a line, as they come.
pub(crate) struct Lines {
    body: Incoming,
    held: Vec<u8>,
}

impl Lines {
    fn new(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), held: Vec::new() }
    }

    /// The next document; `None` at the proper end.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Failure> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', self.held.get(searched..).unwrap_or_default()) {
                let line: Vec<u8> = self.held.drain(..=searched + end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(broken);
            }
            searched = self.held.len();
            match self.body.frame().await {
                None if self.held.is_empty() => return Ok(None),
                None => return Err(broken("the answer ends in the middle of a line")),
                Some(frame) => {
                    if let Ok(data) = frame.map_err(broken)?.into_data() {
                        self.held.extend_from_slice(&data);
                    }
                }
            }
            if self.held.len() > LINE_BYTES_MAX {
                return Err(broken("a line of the answer has no end"));
            }
        }
    }
}
