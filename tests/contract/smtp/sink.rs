//! Postfix's smtp-sink, where there is one: a server that somebody else wrote.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use spooler_protocol::outcome::{Cause, Outcome, SubmitResult};
use tempfile::TempDir;

use super::content::normalised;
use super::replies::brief;
use super::start;

const PROGRAM: &str = "/usr/sbin/smtp-sink";
const MESSAGE: &[u8] = b"Subject: x\n\n.hello\n.\n..\nend\r\rof message";

struct Sink {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Sink {
    /// `None` and a word on standard error if there is no such program.
    fn start(test: &str, options: &[&str]) -> Option<Self> {
        if !std::path::Path::new(PROGRAM).exists() {
            eprintln!("skipped: {test} (no {PROGRAM})");
            return None;
        }
        let folder = TempDir::new().unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(PROGRAM);
        if nix::unistd::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        command.args(options).arg(format!("127.0.0.1:{port}")).arg("100");
        let process = command.current_dir(folder.path()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "smtp-sink does not listen");
            std::thread::yield_now();
        }
        Some(Self { process, port, folder })
    }

    fn settings(&self, more: &str) -> String {
        format!("host = '127.0.0.1:{}'\n{more}", self.port)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn smtp_sink_gets_the_message_as_it_was() {
    for options in [vec![], vec!["-p"], vec!["-e"], vec!["-8", "-E", "-N"]] {
        let options = [options, vec!["-d", "dump."]].concat();
        let Some(sink) = Sink::start("smtp_sink_gets_the_message_as_it_was", &options) else { return };
        let (result, outcomes) = start(&sink.settings("")).deliver("s@x", &["a@y", "b@y"], MESSAGE);
        assert_eq!(result, SubmitResult::Done);
        assert_eq!([0, 1].map(|index| brief(&outcomes[&index])), ["R250", "R250"], "{options:?}");
        let files: Vec<_> = std::fs::read_dir(sink.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        let [file] = files.as_slice() else { panic!("{files:?}") };
        let dump = std::fs::read(file).unwrap();
        let expected = String::from_utf8(normalised(MESSAGE)).unwrap().replace("\r\n", "\n");
        let found = String::from_utf8_lossy(&dump);
        assert!(found.trim_end().ends_with(expected.trim_end()), "{options:?}: {found}");
    }
}

#[test]
fn smtp_sink_refuses_at_each_step() {
    for (step, letter) in [("-f", 'F'), ("-r", 'W')] {
        for command in ["MAIL", "RCPT", "DATA", "."] {
            let Some(sink) = Sink::start("smtp_sink_refuses_at_each_step", &[step, command]) else { return };
            let (_, outcomes) = start(&sink.settings("")).deliver("s@x", &["a@y"], MESSAGE);
            assert!(brief(&outcomes[&0]).starts_with(letter), "{step} {command}: {outcomes:?}");
        }
    }
}

#[test]
fn smtp_sink_hangs_up_at_each_step() {
    for command in ["MAIL", "RCPT", "DATA", "."] {
        let Some(sink) = Sink::start("smtp_sink_hangs_up_at_each_step", &["-q", command]) else { return };
        let (_, outcomes) = start(&sink.settings("")).deliver("s@x", &["a@y"], MESSAGE);
        let lost = matches!(&outcomes[&0], Outcome::Deferred(reply) if reply.cause == Cause::Lost);
        assert!(lost, "{command}: {outcomes:?}");
    }
}

#[test]
fn smtp_sink_speaks_lmtp() {
    let Some(sink) = Sink::start("smtp_sink_speaks_lmtp", &["-L"]) else { return };
    let (_, outcomes) = start(&sink.settings("protocol = 'lmtp'")).deliver("s@x", &["a@y", "b@y"], MESSAGE);
    assert_eq!([0, 1].map(|index| brief(&outcomes[&index])), ["D250", "D250"]);
}
