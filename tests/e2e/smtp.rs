//! A plain SMTP client: one reply for each command, bytes exactly as given.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use crate::world::PATIENCE;

/// A connection to a server.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects and greets; `None` if the server is not there or does not want to.
    pub(crate) fn connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.reply().filter(|reply| reply.starts_with("220"))?;
        client.command("EHLO test").filter(|reply| reply.starts_with("250"))?;
        Some(client)
    }

    /// The last line of the next reply.
    pub(crate) fn reply(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Some(line.trim_end().to_owned());
            }
        }
    }

    /// The same connection, for another thread.
    pub(crate) fn share(&self) -> TcpStream {
        self.stream.get_ref().try_clone().unwrap()
    }

    /// Sends bytes as they are.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.get_mut().write_all(bytes).ok()
    }

    pub(crate) fn command(&mut self, line: &str) -> Option<String> {
        self.write(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// Sends a message with CRLF line ends; the reply to its end. `None` if the connection broke: nobody knows then.
    pub(crate) fn send(&mut self, from: &str, to: &[&str], content: &[u8]) -> Option<String> {
        for line in std::iter::once(format!("MAIL FROM:<{from}>")).chain(to.iter().map(|to| format!("RCPT TO:<{to}>")))
        {
            let reply = self.command(&line)?;
            if !reply.starts_with("250") {
                return Some(reply);
            }
        }
        let reply = self.command("DATA")?;
        if !reply.starts_with("354") {
            return Some(reply);
        }
        let mut data = Vec::with_capacity(content.len() + 64);
        for line in content.split_inclusive(|&byte| byte == b'\n') {
            if line.starts_with(b".") {
                data.push(b'.');
            }
            data.extend_from_slice(line);
        }
        if !data.ends_with(b"\r\n") {
            data.extend_from_slice(b"\r\n");
        }
        data.extend_from_slice(b".\r\n");
        self.write(&data)?;
        self.reply()
    }
}

/// Sends one message over a connection of its own; it must be accepted.
pub(crate) fn send(port: u16, from: &str, to: &[&str], content: &[u8]) {
    let mut client = Client::connect(port).expect("no SMTP server");
    let reply = client.send(from, to, content).expect("the connection broke");
    assert!(reply.starts_with("250"), "{reply}");
    client.command("QUIT");
}
