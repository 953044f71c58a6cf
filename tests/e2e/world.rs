//! A spooler in a world of its own: a temporary folder, a configuration, a supervisor with real workers.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::control::Control;

/// How long a test waits for a fact before it fails. Generous: the machine may be slow, and no test depends on it being fast.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A spooler and its surroundings. Everything of it is gone when this is dropped.
pub(crate) struct World {
    folder: TempDir,
    child: Option<Child>,
    control: Control,
    /// What the supervisor is started with in front: a program that takes rights away, for example.
    wrap: Vec<String>,
    /// The supervisor's program.
    spooler: PathBuf,
}

impl World {
    /// A world whose configuration is this text; `{dir}` stands for its folder. `[spool]` and `[control]` are given.
    pub(crate) fn new(config: &str) -> Self {
        Self::below(&std::env::temp_dir(), config)
    }

    /// The same in a folder below another one.
    pub(crate) fn below(above: &Path, config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("spooler-e2e").tempdir_in(above).unwrap();
        let control = Control::new(folder.path().join("control.sock"));
        let spooler = PathBuf::from(env!("CARGO_BIN_EXE_spooler"));
        let world = Self { folder, child: None, control, wrap: Vec::new(), spooler };
        symlink(built("spooler-worker"), world.worker_program()).unwrap();
        fs::create_dir(world.path("mail")).unwrap();
        // Workers have users of their own if the supervisor is root.
        fs::set_permissions(world.folder.path(), Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(world.path("mail"), Permissions::from_mode(0o777)).unwrap();
        world.configure(config);
        world
    }

    /// A world with a running, ready spooler.
    pub(crate) fn running(config: &str) -> Self {
        let mut world = Self::new(config);
        world.start();
        world
    }

    /// A world whose workers are those of `fault_worker/main.rs`.
    pub(crate) fn rogue(config: &str) -> Self {
        Self::rogue_under(&[], config)
    }

    /// The same with a program in front of the supervisor.
    pub(crate) fn rogue_under(wrap: &[&str], config: &str) -> Self {
        let mut world = Self::with_rogues(wrap, config);
        world.start();
        world
    }

    /// The same whose providers need not become ready.
    pub(crate) fn rogue_unready(config: &str) -> Self {
        let mut world = Self::with_rogues(&[], config);
        world.start_unready();
        world
    }

    /// The same; nothing runs yet.
    pub(crate) fn with_rogues(wrap: &[&str], config: &str) -> Self {
        let mut world = Self::new(config);
        world.run_under(wrap.iter().copied());
        fs::remove_file(world.worker_program()).unwrap();
        symlink(built("examples/fault-worker"), world.worker_program()).unwrap();
        world
    }

    /// Puts a program in front of the supervisor at its next start.
    pub(crate) fn run_under<W: Into<String>>(&mut self, wrap: impl IntoIterator<Item = W>) {
        self.wrap = wrap.into_iter().map(W::into).collect();
    }

    /// Gives the folder to a user, with copies of the programs: where they were built may be closed to that user. Nothing runs yet.
    pub(crate) fn give_to(&mut self, uid: u32) {
        self.spooler = self.path("spooler");
        fs::copy(env!("CARGO_BIN_EXE_spooler"), &self.spooler).unwrap();
        let worker = self.worker_program().canonicalize().unwrap();
        fs::remove_file(self.worker_program()).unwrap();
        fs::copy(worker, self.worker_program()).unwrap();
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            chown(entry.unwrap().path(), Some(uid), Some(uid)).unwrap();
        }
        chown(self.folder.path(), Some(uid), Some(uid)).unwrap();
    }

    /// A world whose workers are those of the contract tests (`tests/contract/contract_worker.rs`); nothing runs yet.
    pub(crate) fn scripted(config: &str) -> Self {
        let world = Self::new(config);
        fs::remove_file(world.worker_program()).unwrap();
        symlink(built("examples/contract-worker"), world.worker_program()).unwrap();
        world
    }

    /// Writes another configuration.
    pub(crate) fn configure(&self, config: &str) {
        let head = "[spool]\npath = \"{dir}/spool\"\nmin_free = \"0\"\n[control]\nsocket = \"{dir}/control.sock\"\n[mail]\nhostname = \"spooler.test\"\norigin = \"spooler.test\"\n";
        // What else runs on this machine is no concern of a test, unless it says so.
        let gate = if config.contains("[scheduler]") { "" } else { "[scheduler]\ngate = \"off\"\n" };
        let text = format!("{head}{gate}{config}").replace("{dir}", self.folder.path().to_str().unwrap());
        fs::write(self.path("spooler.toml"), text).unwrap();
        // Some hold passwords.
        fs::set_permissions(self.path("spooler.toml"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// The worker program; what the rogue worker is to do before its hello stands beside it.
    fn worker_program(&self) -> PathBuf {
        self.path("worker")
    }

    /// What talks to the control socket, for another thread.
    pub(crate) fn control(&self) -> Control {
        self.control.clone()
    }

    /// Starts the supervisor and waits until it answers and every worker is ready that is not switched off.
    pub(crate) fn start(&mut self) {
        self.start_unready();
        self.wait_for("every provider to be ready", |world| {
            let status = world.status()?;
            let ready =
                status["providers"].as_array()?.iter().all(|row| row["state"] == "ready" || row["state"] == "paused");
            (ready && status["supervisor"]["text"] == "running").then_some(())
        });
    }

    /// Starts the supervisor and waits until it answers.
    pub(crate) fn start_unready(&mut self) {
        self.spawn();
        self.wait_for("the control socket to answer", |world| world.status().map(|_| ()));
    }

    /// Starts the supervisor and waits for nothing.
    pub(crate) fn spawn(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let mut words = self.wrap.iter().map(OsStr::new).chain([self.spooler.as_os_str()]);
        let child = Command::new(words.next().unwrap())
            .args(words)
            .args(["run", "--config"])
            .arg(self.path("spooler.toml"))
            .env("SPOOLER_WORKER", self.worker_program())
            // Not this machine's: a bus is there only if the test starts one.
            .env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}", self.path("bus").display()))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// How the supervisor ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().unwrap()
    }

    /// Waits until the supervisor has ended.
    pub(crate) fn wait_end(&mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    /// Stops the supervisor as an administrator would; it must end well.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let status = self.wait_end();
        assert!(status.success(), "{status}; log:\n{}", self.log());
    }

    /// Kills the supervisor without warning; it must have run until then.
    pub(crate) fn crash(&mut self) {
        let ended = self.ended();
        assert!(ended.is_none(), "{ended:?}; log:\n{}", self.log());
        self.signal(Signal::SIGKILL);
        let status = self.wait_end();
        assert_eq!(status.signal(), Some(9), "{status}; log:\n{}", self.log());
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// The status table, if the spooler answers.
    pub(crate) fn status(&self) -> Option<Value> {
        self.control.status()
    }

    /// The row of a provider.
    pub(crate) fn provider(&self, name: &str) -> Option<Value> {
        self.control.provider(name)
    }

    /// The process of a provider's worker.
    pub(crate) fn worker_pid(&self, name: &str) -> Option<Pid> {
        let pid = self.provider(name)?["pid"].as_i64()?;
        Some(Pid::from_raw(i32::try_from(pid).unwrap()))
    }

    /// Messages in the queue, as the status table counts them.
    pub(crate) fn queued(&self) -> Option<u64> {
        self.status()?["supervisor"]["queued"].as_u64()
    }

    /// The port on which a provider of kind `smtp-in` listens.
    pub(crate) fn port(&self, provider: &str) -> u16 {
        self.control.port(provider).unwrap_or_else(|| panic!("no port of {provider}; log:\n{}", self.log()))
    }

    /// Starts a provider's worker anew, as an administrator would.
    pub(crate) fn restart(&self, provider: &str) {
        self.post(&format!("/v1/providers/{provider}/do"), &json!({ "action": "restart" }));
    }

    /// Has the configuration read again, and waits until this provider has a new worker.
    pub(crate) fn reload(&self, provider: &str) {
        let before = self.provider(provider).unwrap()["generation"].clone();
        self.signal(Signal::SIGHUP);
        self.wait_for("the new worker", |world| {
            let row = world.provider(provider)?;
            (row["generation"] != before && row["state"] == "ready").then_some(())
        });
    }

    /// The body of an answer to `POST`; it must have status 200.
    pub(crate) fn post(&self, path: &str, body: &Value) -> String {
        let (status, answer) = self.control.post(path, body.to_string().as_bytes()).expect("no answer");
        assert_eq!(status, 200, "{path} {body}: {answer}");
        answer
    }

    /// Runs `spooler` once more, with this world's configuration.
    pub(crate) fn spooler(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spooler"));
        command.args(arguments).arg("--config").arg(self.path("spooler.toml"));
        command.env("SPOOLER_WORKER", self.worker_program()).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs `spoolctl`.
    pub(crate) fn spoolctl(&self, arguments: &[&str]) -> Output {
        self.client("spoolctl", arguments, b"")
    }

    /// Runs a client program under one of its names, with something on standard input.
    pub(crate) fn client(&self, name: &str, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .command(self.tool(name))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A client that refuses early does not read to the end.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// The client program under one of its names.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        let program = self.path(name);
        if !program.exists() {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_spoolctl"), &program).unwrap();
        }
        program
    }

    /// A program whose client programs talk to this spooler.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("SPOOLER_SOCKET", self.path("control.sock")).env("SPOOLER_PICKUP", self.path("spool/pickup"));
        command
    }

    /// Waits until a fact is there.
    pub(crate) fn wait_for<T>(&self, what: &str, mut fact: impl FnMut(&Self) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(found) = fact(self) {
                return found;
            }
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}; log:\n{}", self.log());
            std::thread::yield_now();
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Waits until nothing is queued any more.
    pub(crate) fn wait_empty(&self) {
        self.wait_for("the queue to be empty", |world| (world.queued()? == 0).then_some(()));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("log of the spooler:\n{}", self.log());
        }
    }
}

/// A program of another package, built beside ours by `cargo test --workspace`.
fn built(name: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_spooler")).with_file_name(name);
    assert!(program.exists(), "{} is missing: run scripts/check, or cargo test --workspace", program.display());
    program
}
