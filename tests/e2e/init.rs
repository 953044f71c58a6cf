//! `spooler init` writes a configuration that works, and overwrites nothing.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getuid};

use crate::sink::Sink;
use crate::unprivileged::SOMEBODY;
use crate::world::PATIENCE;

/// An ordinary user's home, with the programs in it.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { folder: tempfile::Builder::new().prefix("i").tempdir().unwrap() };
        let built = Path::new(env!("CARGO_BIN_EXE_spooler"));
        for name in ["spooler", "spooler-worker", "spoolctl"] {
            fs::copy(built.with_file_name(name), home.path(name)).unwrap();
        }
        std::os::unix::fs::symlink(home.path("spoolctl"), home.path("sendmail")).unwrap();
        if getuid().is_root() {
            chown(home.folder.path(), Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        }
        home
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn config(&self) -> PathBuf {
        self.path(".config/spooler/spooler.toml")
    }

    /// A program of the home, run by its user, with an environment of its own.
    fn command(&self, name: &str) -> Command {
        let mut command = if getuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--clear-groups", &format!("--reuid={SOMEBODY}"), &format!("--regid={SOMEBODY}")]);
            command.arg(self.path(name));
            command
        } else {
            Command::new(self.path(name))
        };
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path()).current_dir("/");
        command
    }

    fn init(&self, arguments: &[&str], input: &str) -> (i32, String) {
        let mut command = self.command("spooler");
        command.arg("init").args(["--hostname", "host.example.org"]).args(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A program that does not ask does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
    }

    fn mode(&self, path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }
}

/// A process that does not outlive the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

fn can_become_others(test: &str) -> bool {
    !getuid().is_root() || crate::unprivileged::can_become_others(test)
}

#[test]
fn written_configuration_delivers_mail_for_root() {
    if !can_become_others("written_configuration_delivers_mail_for_root") {
        return;
    }
    let (home, sink) = (Home::new(), Sink::start());
    let relay = format!("127.0.0.1:{}", sink.port);
    let (code, said) = home.init(&["--relay", &relay, "--root", "admin@example.org"], "");
    assert_eq!(code, 0, "{said}");
    for expected in [": no mistakes, 1 provider\n", "It works; no mail was sent.", "Next: spooler run --config "] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    assert!(!said.contains("warning"), "{said}");
    assert_eq!(home.mode(&home.config()), 0o600);

    // The next step is taken word by word.
    let next = said.lines().find_map(|line| line.strip_prefix("Next: spooler ")).unwrap();
    let log = fs::File::create(home.path("log")).unwrap();
    let _running = Running(home.command("spooler").args(next.split(' ')).stderr(log).spawn().unwrap());
    let exports = said.lines().find_map(|line| line.strip_prefix("Clients find it with: export ")).unwrap();
    let exports: Vec<(&str, &str)> = exports.split(' ').map(|export| export.split_once('=').unwrap()).collect();
    let deadline = Instant::now() + PATIENCE;
    while !Path::new(exports[0].1).exists() {
        assert!(Instant::now() < deadline, "{}", fs::read_to_string(home.path("log")).unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut client = home.command("sendmail");
    let mut client = client.arg("root").envs(exports).stdin(Stdio::piped()).spawn().unwrap();
    client.stdin.take().unwrap().write_all(b"Subject: disk\n\nfull\n").unwrap();
    assert!(client.wait().unwrap().success());
    let arrived = sink.wait(1);
    assert_eq!(arrived[0].to, ["admin@example.org"]);
}

#[test]
fn second_init_changes_nothing() {
    if !can_become_others("second_init_changes_nothing") {
        return;
    }
    let home = Home::new();
    let arguments = ["--relay", "127.0.0.1:1", "--user", "me", "--root", "admin@example.org"];
    let (code, said) = home.init(&arguments, "");
    assert!(code == 64 && said.contains("no password was given; nothing was written"), "{said}");
    assert!(!home.config().exists());

    let (code, said) = home.init(&arguments, "sesame\n");
    assert_eq!(code, 69, "its mail server is not there: {said}");
    for expected in ["Password of me at 127.0.0.1:1", "Wrote ", "It fails: ", "then run `spooler probe relay --config "]
    {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    let password = home.config().with_file_name("relay-password");
    assert_eq!((fs::read_to_string(&password).unwrap().as_str(), home.mode(&password)), ("sesame\n", 0o600));
    assert!(!fs::read_to_string(home.config()).unwrap().contains("sesame"));

    let before = fs::read(home.config()).unwrap();
    let (code, said) = home.init(&["--relay", "other.example.net"], "");
    assert!(code == 73 && said.contains("is there already, and nothing was changed"), "{said}");
    assert_eq!(fs::read(home.config()).unwrap(), before);
    // The advice, word by word, makes room for a new one; the password that is there is not overwritten either.
    let away = said.split('`').nth(3).unwrap();
    assert!(Command::new("/bin/sh").args(["-c", away]).status().unwrap().success(), "{away}");
    let (code, said) = home.init(&arguments, "other\n");
    assert!(code == 73 && said.contains("relay-password is there already"), "{said}");
    assert_eq!(fs::read_to_string(&password).unwrap(), "sesame\n");
    assert!(!home.config().exists());
}

#[test]
fn print_writes_nothing() {
    let home = Home::new();
    let (code, said) = home.init(&["--relay", "mail.example.net", "--user", "me", "--print"], "");
    assert!(code == 0 && said.contains("host = \"mail.example.net:587\"") && said.contains("[aliases]"), "{said}");
    assert!(!home.path(".config").exists());
    let (code, said) = home.init(&["--relay", "smtp://mail.example.net", "--print"], "");
    assert!(code == 64 && said.contains("such as mail.example.net:587"), "{said}");
}
