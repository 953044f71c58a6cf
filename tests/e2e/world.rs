//! A spooler in a world of its own: a temporary folder, a configuration, a supervisor with real workers.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// How long a test waits for a fact before it fails. Generous: the machine may be slow, and no test depends on it being fast.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A spooler and its surroundings. Everything of it is gone when this is dropped.
pub(crate) struct World {
    folder: TempDir,
    child: Option<Child>,
}

impl World {
    /// A world whose configuration is this text; `{dir}` stands for its folder. `[spool]` and `[control]` are given.
    pub(crate) fn new(config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("spooler-e2e").tempdir().unwrap();
        let world = Self { folder, child: None };
        fs::create_dir(world.path("mail")).unwrap();
        world.configure(config);
        world
    }

    /// A world with a running, ready spooler.
    pub(crate) fn running(config: &str) -> Self {
        let mut world = Self::new(config);
        world.start();
        world
    }

    /// Writes another configuration.
    pub(crate) fn configure(&self, config: &str) {
        let head = "[spool]\npath = \"{dir}/spool\"\nmin_free = \"0\"\n[control]\nsocket = \"{dir}/control.sock\"\n[mail]\nhostname = \"spooler.test\"\n";
        let text = format!("{head}{config}").replace("{dir}", self.folder.path().to_str().unwrap());
        fs::write(self.path("spooler.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    /// Starts the supervisor and waits until it answers and every worker is ready.
    pub(crate) fn start(&mut self) {
        self.start_unready();
        self.wait_for("every provider to be ready", |world| {
            let status = world.status()?;
            let ready = status["providers"].as_array()?.iter().all(|row| row["state"] == "ready");
            (ready && status["supervisor"]["text"] == "running").then_some(())
        });
    }

    /// Starts the supervisor and waits until it answers.
    pub(crate) fn start_unready(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_spooler"))
            .args(["run", "--config"])
            .arg(self.path("spooler.toml"))
            .env("SPOOLER_WORKER", worker_program())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.wait_for("the control socket to answer", |world| world.status().map(|_| ()));
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.as_ref().unwrap().id()).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
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

    /// Kills the supervisor without warning.
    pub(crate) fn crash(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait_end();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
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
        let row = self.provider(provider).unwrap();
        let identity = row["identity"].as_str().unwrap().to_owned();
        identity
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .unwrap_or_else(|| panic!("no port in {identity:?}"))
    }

    /// The body of an answer of the control socket with status 200.
    pub(crate) fn get(&self, path: &str) -> Option<String> {
        let mut stream = UnixStream::connect(self.path("control.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: spooler\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.split(' ').nth(1).is_some_and(|status| status == "200").then(|| body.to_owned())
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

/// The worker program, built beside ours by `cargo test --workspace`.
pub(crate) fn worker_program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_spooler")).with_file_name("spooler-worker");
    assert!(program.exists(), "{} is missing: run scripts/check, or cargo test --workspace", program.display());
    program
}
