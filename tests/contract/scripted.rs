//! The real worker runtime with a provider that writes down each call and does what a test wants: `contract_worker.rs` has its steps.

use std::fs::{self, File};
use std::ops::{Deref, DerefMut};
use std::path::Path;

use spooler_protocol::calls::ValidateFlags;
use spooler_protocol::from_worker::{FromWorker, RowUpdate};
use spooler_protocol::ids::RequestId;
use spooler_protocol::notification::Notification;
use spooler_protocol::to_worker::{ToWorker, Welcome};
use tempfile::TempDir;

use crate::peer::{Peer, welcome};

/// A scripted worker and its folder.
pub(crate) struct Scripted {
    peer: Peer,
    folder: TempDir,
    requests: u64,
}

impl Deref for Scripted {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl DerefMut for Scripted {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}

impl Scripted {
    /// Starts one with these scripts, up to its welcome, which the test may change.
    pub(crate) fn start(settings: &str, change: impl FnOnce(&mut Welcome)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut welcome = welcome("scripted", &format!("folder = '{}'\n{settings}", folder.path().display()));
        change(&mut welcome);
        let program =
            Path::new(env!("CARGO_BIN_EXE_spooler-worker")).with_file_name("examples").join("contract-worker");
        assert!(program.exists(), "there is no {}; cargo build -p spooler-worker --examples", program.display());
        Self { peer: Peer::start_program(&program, welcome), folder, requests: 0 }
    }

    /// Starts one, logs it on and begins both directions.
    pub(crate) fn new(settings: &str) -> Self {
        let mut scripted = Self::start(settings, |_| {});
        scripted.wait_logged_on();
        scripted.tell(Notification::BeginOutbound);
        scripted.tell(Notification::BeginInbound);
        scripted.calm();
        fs::remove_file(scripted.folder.path().join("calls")).unwrap();
        scripted
    }

    /// What the provider wrote down since it was logged on by [`Scripted::new`].
    pub(crate) fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Lets a script go on that waits for this name.
    pub(crate) fn go(&self, name: &str) {
        File::create(self.folder.path().join(name)).unwrap();
    }

    pub(crate) fn tell(&mut self, news: Notification) {
        self.say(&ToWorker::Notify(news));
    }

    /// Gives the provider a message with these steps.
    pub(crate) fn deliver_script(&mut self, delivery: u64, recipients: &[&str], script: &str) {
        self.submit(delivery, "s@d", recipients, script.as_bytes());
    }

    /// Waits until a script says a text; what the worker said before, without it.
    pub(crate) fn wait_said(&mut self, text: &str) -> Vec<FromWorker> {
        self.collect(|said| row(said).is_some_and(|update| update.text.as_deref() == Some(text)))
    }

    /// What the worker says up to a word, which comes last.
    pub(crate) fn collect(&mut self, mut until: impl FnMut(&FromWorker) -> bool) -> Vec<FromWorker> {
        let mut words = Vec::new();
        loop {
            words.push(self.next());
            if words.last().is_some_and(&mut until) {
                return words;
            }
        }
    }

    /// Has the provider's state validated, which is done after what was asked for before has begun: what the worker says until then.
    pub(crate) fn calm(&mut self) -> Vec<FromWorker> {
        let request = self.validate(ValidateFlags::SUPPRESS_UI);
        self.collect(|said| matches!(said, FromWorker::Validated { request: of, .. } if *of == request))
    }

    /// Has it log off and waits until its process has ended well; what it had written down.
    pub(crate) fn log_off_well(mut self) -> Vec<String> {
        self.say(&ToWorker::Logoff { hurry: false });
        self.wait_gone();
        self.calls()
    }

    /// Waits until it has logged off and its process has ended well.
    pub(crate) fn wait_gone(&mut self) {
        self.collect(|said| *said == FromWorker::LoggedOff);
        assert!(self.child.wait().unwrap().success());
    }

    pub(crate) fn validate(&mut self, flags: ValidateFlags) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.say(&ToWorker::ValidateState { request, flags });
        request
    }
}

/// The words about the provider's own row.
pub(crate) fn row(said: &FromWorker) -> Option<&RowUpdate> {
    match said {
        FromWorker::Row { row, update, .. } if row.is_empty() => Some(update),
        _ => None,
    }
}
