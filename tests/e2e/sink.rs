//! A place where mail arrives: a strict SMTP server that keeps every byte, and that can be told what to reply.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use crate::gate::{Gate, gate};
use crate::world::PATIENCE;

/// A message that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// Un-stuffed, CRLF line ends as they came, without the final dot.
    pub(crate) content: Vec<u8>,
}

/// What a sink replies: given a line (`MAIL FROM:<…>`, `RCPT TO:<…>`, `DATA`, `.` for the end of data, …), a reply without CRLF, or
/// nothing for the usual one. An empty reply closes the connection. It may block, to hold a delivery in that phase. It also hears `+`
/// for every [`PIECE_BYTES`] of content, where a reply is not heard.
type Script = dyn Fn(&str) -> Option<String> + Send + Sync;

/// Content is reported to the script in pieces of about so many bytes.
const PIECE_BYTES: usize = 256 << 10;

/// A running sink. Its threads end with the test program.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) port: u16,
    arrived: Arc<(Mutex<Vec<Arrived>>, Condvar)>,
}

impl Sink {
    /// A sink that takes everything.
    pub(crate) fn start() -> Self {
        Self::scripted(|_| None)
    }

    /// A sink that holds the first that comes to this phase (the beginning of a line), and lets all others through.
    pub(crate) fn holding(phase: &'static str) -> (Self, Gate) {
        let (gate, passage) = gate();
        let held = AtomicBool::new(false);
        let sink = Self::scripted(move |line| {
            if line.starts_with(phase) && !held.swap(true, Ordering::SeqCst) {
                passage.pass();
            }
            None
        });
        (sink, gate)
    }

    /// A sink that replies by a script.
    pub(crate) fn scripted(script: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    /// A sink that takes everything, on a port that was free a moment ago.
    pub(crate) fn on_port(port: u16) -> Self {
        Self::listen(TcpListener::bind(("127.0.0.1", port)).unwrap(), |_| None)
    }

    fn listen(listener: TcpListener, script: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let sink = Self { port: listener.local_addr().unwrap().port(), arrived: Arc::default() };
        let (handle, script) = (sink.clone(), Arc::new(script) as Arc<Script>);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handle, script) = (handle.clone(), Arc::clone(&script));
                std::thread::spawn(move || handle.serve(stream, &*script));
            }
        });
        sink
    }

    fn serve(&self, stream: TcpStream, script: &Script) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(stream);
        let mut envelope = (String::new(), Vec::new());
        say(&mut reader, "220 sink.test ESMTP")?;
        loop {
            let line = String::from_utf8(line(&mut reader)?).ok()?;
            let upper = line.to_ascii_uppercase();
            let scripted = script(&line);
            if scripted.as_deref() == Some("") {
                return None;
            }
            if let Some(reply) = scripted {
                say(&mut reader, &reply)?;
                continue;
            }
            if upper.starts_with("EHLO") {
                say(
                    &mut reader,
                    "250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250 ENHANCEDSTATUSCODES",
                )?;
            } else if upper.starts_with("MAIL FROM:") {
                envelope = (address(&line), Vec::new());
                say(&mut reader, "250 2.1.0 ok")?;
            } else if upper.starts_with("RCPT TO:") {
                envelope.1.push(address(&line));
                say(&mut reader, "250 2.1.5 ok")?;
            } else if upper == "DATA" && !envelope.1.is_empty() {
                say(&mut reader, "354 go on")?;
                let content = content(&mut reader, script)?;
                match script(".") {
                    Some(reply) if reply.is_empty() => return None,
                    Some(reply) => say(&mut reader, &reply)?,
                    None => {
                        let (from, to) = std::mem::take(&mut envelope);
                        self.arrived.0.lock().unwrap().push(Arrived { from, to, content });
                        self.arrived.1.notify_all();
                        say(&mut reader, "250 2.0.0 kept")?;
                    }
                }
            } else if upper == "QUIT" {
                return say(&mut reader, "221 2.0.0 bye");
            } else if upper == "RSET" || upper == "NOOP" {
                say(&mut reader, "250 2.0.0 ok")?;
            } else {
                say(&mut reader, "503 5.5.1 what?")?;
            }
        }
    }

    /// What has arrived so far.
    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.arrived.0.lock().unwrap().clone()
    }

    /// Takes out what has arrived so far.
    pub(crate) fn take(&self) -> Vec<Arrived> {
        std::mem::take(&mut self.arrived.0.lock().unwrap())
    }

    /// Waits until so many messages have arrived.
    pub(crate) fn wait(&self, count: usize) -> Vec<Arrived> {
        let start = Instant::now();
        let mut arrived = self.arrived.0.lock().unwrap();
        while arrived.len() < count {
            let left = PATIENCE.saturating_sub(start.elapsed());
            assert!(!left.is_zero(), "{} of {count} messages arrived", arrived.len());
            arrived = self.arrived.1.wait_timeout(arrived, left).unwrap().0;
        }
        arrived.clone()
    }
}

fn say(reader: &mut BufReader<TcpStream>, line: &str) -> Option<()> {
    reader.get_mut().write_all(format!("{line}\r\n").as_bytes()).ok()
}

fn address(line: &str) -> String {
    line.split_once('<')
        .and_then(|(_, rest)| rest.split_once('>'))
        .map_or(String::new(), |(address, _)| address.to_owned())
}

/// One line without its CRLF; anything but CRLF at its end is kept as it came.
fn line(reader: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        if reader.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
            return Some(line);
        }
    }
}

fn content(reader: &mut BufReader<TcpStream>, script: &Script) -> Option<Vec<u8>> {
    let (mut content, mut told) = (Vec::new(), 0);
    loop {
        let line = line(reader)?;
        if line == b"." {
            return Some(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        content.extend_from_slice(b"\r\n");
        if content.len() - told >= PIECE_BYTES {
            told = content.len();
            script("+");
        }
    }
}
