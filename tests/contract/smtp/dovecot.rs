//! Dovecot's LMTP server, where there is one and we are root. Some versions of it take `LF.LF` for the end of a message and what
//! follows for commands, which makes it the best witness that nothing of the kind leaves this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use spooler_protocol::outcome::SubmitResult;
use tempfile::TempDir;

use super::content::normalised;
use super::replies::brief;
use super::start;
use crate::data;

struct Dovecot {
    process: Child,
    folder: TempDir,
}

impl Dovecot {
    /// `None` and a word on standard error if it cannot be run here.
    fn start(test: &str) -> Option<Self> {
        let there = ["/usr/sbin/dovecot", "/usr/lib/dovecot/lmtp"].iter().all(|program| Path::new(program).exists());
        if !there || !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: {test} (no Dovecot with LMTP, or not root)");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let root = folder.path();
        for name in ["run", "mail"] {
            std::fs::create_dir(root.join(name)).unwrap();
            std::fs::set_permissions(root.join(name), PermissionsExt::from_mode(0o777)).unwrap();
        }
        std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::write(root.join("dovecot.conf"), configuration(root)).unwrap();
        let process =
            Command::new("/usr/sbin/dovecot").arg("-F").arg("-c").arg(root.join("dovecot.conf")).spawn().unwrap();
        let dovecot = Self { process, folder };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(dovecot.socket()).is_err() {
            assert!(Instant::now() < deadline, "Dovecot does not listen");
            std::thread::yield_now();
        }
        Some(dovecot)
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/lmtp")
    }

    fn settings(&self) -> String {
        format!("protocol = 'lmtp'\nsocket = '{}'\nconnection_idle = '1m'", self.socket().display())
    }

    /// What a user has, without the header lines that Dovecot puts on top.
    fn messages(&self, user: &str) -> Vec<Vec<u8>> {
        let folder = self.folder.path().join("mail").join(user).join("new");
        let files = std::fs::read_dir(folder).unwrap();
        files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.process.id().cast_signed());
        // Its own children are its own to end.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

fn configuration(root: &Path) -> String {
    let root = root.display();
    format!(
        "base_dir = {root}/run
state_dir = {root}/run
log_path = {root}/log
protocols = lmtp
listen = 127.0.0.1
ssl = no
mail_location = maildir:{root}/mail/%u
first_valid_uid = 1
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid=nobody gid=nogroup home={root}/mail/%u allow_all_users=yes
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
}}
"
    )
}

#[test]
fn dovecot_finds_one_message_in_each_smuggling_attempt() {
    let test = "dovecot_finds_one_message_in_each_smuggling_attempt";
    let Some(dovecot) = Dovecot::start(test) else { return };
    let mut peer = start(&dovecot.settings());
    let vectors: [&[u8]; 6] = [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r\r\n", b"\r\n.\0\r\n", b"\r.\r"];
    let tail = b"MAIL FROM:<smug@x>\r\nRCPT TO:<victim@y>\r\nDATA\r\nSubject: smuggled\r\n\r\nx\r\n.\r\n";
    for vector in vectors {
        let content = [b"Subject: t\r\n\r\nline one".as_slice(), vector, tail].concat();
        let (result, outcomes) = peer.deliver("s@x", &["one@y", "two@y"], &content);
        assert_eq!(result, SubmitResult::Done);
        assert_eq!([0, 1].map(|index| brief(&outcomes[&index])), ["D250", "D250"]);
    }
    assert_eq!((dovecot.messages("one@y").len(), dovecot.messages("two@y").len()), (vectors.len(), vectors.len()));
    assert!(!dovecot.folder.path().join("mail/victim@y").exists());
}

#[test]
fn dovecot_stores_real_messages_as_they_were() {
    let test = "dovecot_stores_real_messages_as_they_were";
    let files: Vec<_> = data::corpus().into_iter().step_by(10).collect();
    if files.is_empty() {
        eprintln!("skipped: {test}");
        return;
    }
    let Some(dovecot) = Dovecot::start(test) else { return };
    let mut peer = start(&dovecot.settings());
    for (number, file) in files.iter().enumerate() {
        let content = std::fs::read(file).unwrap();
        let user = format!("user{number}@y");
        let (_, outcomes) = peer.deliver("s@x", &[&user], &content);
        assert_eq!(brief(&outcomes[&0]), "D250", "{}: {outcomes:?}", file.display());
        let messages = dovecot.messages(&user);
        let [stored] = messages.as_slice() else { panic!("{} messages", messages.len()) };
        let mut expected = normalised(&content);
        expected.retain(|&byte| byte != b'\r');
        assert!(stored.ends_with(&expected), "{}", file.display());
    }
}
