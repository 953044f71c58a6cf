//! What happens when. Things of the same moment happen in an order that is drawn; where an order must be kept (the words of a channel,
//! the reports of the disk), the agenda only says that *the next* of them happens.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use spooler::supervisor::event::{Event, WorkerId};

/// Something that is going to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The supervisor hears this.
    Hear(Box<Event>),
    /// The supervisor hears the next report of the disk.
    DiskReport,
    /// The disk does the next commit.
    DiskTurn,
    /// The next word of a worker reaches the supervisor.
    Mail(WorkerId),
    /// The next word of the supervisor reaches a worker.
    Word(WorkerId),
    /// A delivery that was read from the store reaches a worker.
    Handed(WorkerId, Box<spooler_protocol::to_worker::ToWorker>),
    /// A worker has said hello.
    Hello(WorkerId),
    /// The provider code of a worker has run until its next wait.
    Ran(WorkerId),
    /// A task of a worker has waited long enough.
    Wake(WorkerId, u64),
    /// A worker's process dies.
    Dies(WorkerId, &'static str),
    /// A worker's process is stopped.
    Hangs(WorkerId),
    /// A worker's process goes on.
    GoesOn(WorkerId),
    /// The supervisor hears of a worker's death.
    Buried(WorkerId, &'static str),
    /// A reader thread reads the store, up to a message or only that one.
    Scan(spooler_protocol::ids::MessageId),
    /// A reader thread reads one message.
    Lookup(spooler_protocol::ids::MessageId),
    /// A reader thread builds a report.
    Report(Box<spooler::supervisor::event::ReportOrder>),
    /// A client sends a message, and so on.
    Load,
    /// A person commands something.
    Command,
    /// Somebody looks at the status table.
    Look,
    /// A client asks how far its flush is.
    FlushLook(u64),
    /// Others use more of the machine, or less.
    Foreground,
    /// Somebody looks at the machine, as this order says.
    Probe(u64),
    /// Something goes wrong.
    Mishap,
    /// The supervisor is started.
    Start,
    /// Nothing goes wrong from now on.
    Heal,
}

#[derive(Debug)]
struct Entry {
    at_ms: i64,
    tie: u64,
    number: u64,
    /// Which run of the supervisor it belongs to; `None` if to none.
    life: Option<u64>,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_ms, self.tie, self.number).cmp(&(other.at_ms, other.tie, other.number))
    }
}

/// Everything that is going to happen.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<Entry>>,
    next: u64,
}

impl Agenda {
    /// Notes something; `tie` decides among things of the same moment.
    pub(crate) fn put(&mut self, at_ms: i64, tie: u64, life: Option<u64>, what: Happening) {
        self.next += 1;
        self.heap.push(Reverse(Entry { at_ms, tie, number: self.next, life, what }));
    }

    /// How much there is to come.
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// When the next thing happens.
    pub(crate) fn next_ms(&self) -> Option<i64> {
        self.heap.peek().map(|Reverse(entry)| entry.at_ms)
    }

    /// The next thing, with its time and the run of the supervisor that it belongs to.
    pub(crate) fn take(&mut self) -> Option<(i64, Option<u64>, Happening)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at_ms, entry.life, entry.what))
    }
}
