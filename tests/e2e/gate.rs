//! A gate that holds whoever comes to it until it is opened: what a scripted sink blocks on.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};

/// The side that opens.
pub(crate) struct Gate {
    door: Arc<Door>,
    comers: Receiver<()>,
}

/// The side that waits. May be cloned and shared.
#[derive(Clone)]
pub(crate) struct Passage {
    door: Arc<Door>,
    coming: Sender<()>,
}

#[derive(Default)]
struct Door {
    open: Mutex<bool>,
    opened: Condvar,
}

/// A closed gate.
pub(crate) fn gate() -> (Gate, Passage) {
    let door = Arc::<Door>::default();
    let (coming, comers) = channel();
    (Gate { door: Arc::clone(&door), comers }, Passage { door, coming })
}

impl Gate {
    /// Waits until somebody stands before the gate.
    pub(crate) fn wait(&self) {
        self.comers.recv_timeout(crate::world::PATIENCE).expect("nobody came to the gate");
    }

    /// Lets everybody through, now and later.
    pub(crate) fn open(&self) {
        *self.door.open.lock().unwrap() = true;
        self.door.opened.notify_all();
    }
}

impl Passage {
    /// Waits until the gate is open.
    pub(crate) fn pass(&self) {
        let _ = self.coming.send(());
        let mut open = self.door.open.lock().unwrap();
        while !*open {
            open = self.door.opened.wait(open).unwrap();
        }
    }
}
