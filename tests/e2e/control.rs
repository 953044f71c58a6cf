//! A client of the control socket: plain HTTP, one request a connection.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::Value;

use crate::world::PATIENCE;

/// What talks to one control socket. Nothing of it lives longer than a request.
#[derive(Clone, Debug)]
pub(crate) struct Control {
    socket: PathBuf,
}

impl Control {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// The status table, if the spooler answers.
    pub(crate) fn status(&self) -> Option<Value> {
        self.get("/v1/status").and_then(|body| serde_json::from_str(&body).ok())
    }

    /// The row of a provider.
    pub(crate) fn provider(&self, name: &str) -> Option<Value> {
        let status = self.status()?;
        status["providers"].as_array()?.iter().find(|row| row["name"] == name).cloned()
    }

    /// The port on which a provider of kind `smtp-in` listens, if it does.
    pub(crate) fn port(&self, provider: &str) -> Option<u16> {
        let row = self.provider(provider)?;
        row["identity"].as_str()?.rsplit_once(':')?.1.parse().ok()
    }

    /// The body of an answer with status 200.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        self.request(&format!("GET {path} HTTP/1.0\r\n"), b"")
            .filter(|(status, _)| *status == 200)
            .map(|(_, body)| body)
    }

    /// Status and body of an answer.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Option<(u16, String)> {
        let head =
            format!("POST {path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        self.request(&head, body)
    }

    fn request(&self, head: &str, body: &[u8]) -> Option<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(format!("{head}Host: spooler\r\n\r\n").as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }
}
