//! Who sends, who receives, and the books of both: what was acknowledged and what arrived, and how long the trace was by then.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::control::Control;
use crate::sink::Sink;
use crate::smtp;

pub(crate) const CLIENTS: usize = 4;
/// Every so many messages there is one that is too large for the database.
const LARGE_EVERY: u64 = 10;
const LARGE_BYTES: usize = 150 << 10;
/// And one of many pages.
const LONG_EVERY: u64 = 4;
const LONG_BYTES: usize = 24 << 10;

/// A configuration with an entrance and a relay to this port.
pub(crate) fn config(port: u16) -> String {
    format!(
        "[retry]\nfirst = \"1s\"\nmax = \"2s\"\n\
         [provider.submission]\nkind = \"smtp-in\"\nlisten = [\"127.0.0.1:0\"]\n\
         [provider.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1:{port}\"\ntls = \"none\"\naddress_types = [\"SMTP\"]\n"
    )
}

/// The content of a message. Its header is complete: nothing is added to it on its way.
pub(crate) fn mail(id: u64) -> Vec<u8> {
    let header = "Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nFrom: a@b.test\r\n";
    let mut content = format!("{header}Message-ID: <{id}@b.test>\r\nSubject: {id}\r\n\r\nthe body of {id}\r\n");
    let bytes = match id {
        _ if id.is_multiple_of(LARGE_EVERY) => LARGE_BYTES,
        _ if id.is_multiple_of(LONG_EVERY) => LONG_BYTES,
        _ => 0,
    };
    while content.len() < bytes {
        content.push_str("and a line more\r\n");
    }
    content.into_bytes()
}

/// To whom a message goes.
pub(crate) fn recipients(id: u64) -> Vec<String> {
    let second = id.is_multiple_of(3).then(|| format!("n{id}@remote.test"));
    std::iter::once(format!("m{id}@remote.test")).chain(second).collect()
}

/// Whether a content that arrived for this recipient is the one that was sent.
pub(crate) fn is_whole(recipient: &str, content: &[u8]) -> bool {
    let number = recipient.split_once('@').and_then(|(local, _)| local.get(1..)?.parse().ok());
    number.is_some_and(|id| content.ends_with(&mail(id)))
}

/// The books.
#[derive(Default)]
pub(crate) struct Books {
    next: AtomicU64,
    /// Message, and how long the trace was when the client knew.
    pub(crate) acknowledged: Mutex<Vec<(u64, u64)>>,
    /// Replies that were not acknowledgements.
    pub(crate) refused: Mutex<Vec<String>>,
    /// Recipient, and how long the trace was when the message was there.
    pub(crate) arrived: Mutex<BTreeMap<String, u64>>,
    over: AtomicBool,
    /// Grows whenever something is recorded; nowhere without a trace.
    trace: Option<PathBuf>,
}

impl Books {
    pub(crate) fn new(trace: Option<&Path>) -> Arc<Self> {
        Arc::new(Self { next: AtomicU64::new(1), trace: trace.map(Path::to_owned), ..Self::default() })
    }

    fn now(&self) -> u64 {
        self.trace.as_ref().map_or(0, |trace| trace.metadata().unwrap().len())
    }

    pub(crate) fn count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Sends messages until it is over, to whoever listens.
    pub(crate) fn send(&self, control: &Control) {
        while !self.over.load(Ordering::SeqCst) {
            match control.port("submission").and_then(smtp::Client::connect) {
                Some(mut client) => while self.send_one(&mut client).is_some() {},
                None => thread::park_timeout(Duration::from_millis(5)),
            }
        }
    }

    /// Sends one message; `None` if this connection is of no more use. Without an answer nobody knows, and nobody counts on it.
    pub(crate) fn send_one(&self, client: &mut smtp::Client) -> Option<()> {
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let to = recipients(id);
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let reply = client.send("a@b.test", &to, &mail(id))?;
        if reply.starts_with("250") {
            let now = self.now();
            self.acknowledged.lock().unwrap().push((id, now));
        } else {
            self.refused.lock().unwrap().push(reply);
            // Whoever is refused comes again a little later.
            thread::park_timeout(Duration::from_millis(5));
            client.command("RSET")?;
        }
        (!self.over.load(Ordering::SeqCst)).then_some(())
    }

    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    /// What is owed at a moment of the trace: acknowledged, and not arrived.
    pub(crate) fn owed(&self, at: u64) -> BTreeSet<String> {
        let arrived = self.arrived.lock().unwrap();
        let acknowledged = self.acknowledged.lock().unwrap();
        let owed = acknowledged.iter().filter(|(_, when)| *when <= at).flat_map(|(id, _)| recipients(*id));
        owed.filter(|recipient| arrived.get(recipient).is_none_or(|when| *when > at)).collect()
    }

    /// A sink that keeps its side of the books; the first attempt of every fifth message is put off.
    pub(crate) fn sink(self: &Arc<Self>) -> Sink {
        thread_local! {
            static RECIPIENTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
        }
        let books = Arc::clone(self);
        let put_off = Mutex::new(BTreeSet::new());
        Sink::scripted(move |line| {
            if line.starts_with("MAIL FROM:") {
                RECIPIENTS.with_borrow_mut(Vec::clear);
            } else if let Some(recipient) = line.strip_prefix("RCPT TO:<").and_then(|rest| rest.split('>').next()) {
                if recipient.starts_with('m')
                    && recipient.contains("1@")
                    && put_off.lock().unwrap().insert(recipient.to_owned())
                {
                    return Some("450 4.2.1 later".to_owned());
                }
                RECIPIENTS.with_borrow_mut(|all| all.push(recipient.to_owned()));
            } else if line == "." {
                // Before the reply: what was recorded so far knows nothing of it.
                let now = books.now();
                let mut arrived = books.arrived.lock().unwrap();
                RECIPIENTS.with_borrow(|all| {
                    for recipient in all {
                        arrived.entry(recipient.clone()).or_insert(now);
                    }
                });
            }
            None
        })
    }
}

/// Ends the load, whatever happens.
pub(crate) struct Over<'a>(pub(crate) &'a Books);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
