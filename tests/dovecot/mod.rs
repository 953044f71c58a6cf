//! A Dovecot of our own that takes mail by LMTP, where there is one and we are root: in a temporary folder, gone with this value.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running Dovecot.
pub(crate) struct Dovecot {
    process: Child,
    folder: TempDir,
    port: u16,
}

impl Dovecot {
    /// `None` and a word on standard error if it cannot be run here.
    pub(crate) fn start(test: &str) -> Option<Self> {
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
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        std::fs::write(root.join("dovecot.conf"), configuration(root, port)).unwrap();
        let process =
            Command::new("/usr/sbin/dovecot").arg("-F").arg("-c").arg(root.join("dovecot.conf")).spawn().unwrap();
        let dovecot = Self { process, folder, port };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(dovecot.socket()).is_err() {
            assert!(Instant::now() < deadline, "Dovecot does not listen");
            std::thread::yield_now();
        }
        Some(dovecot)
    }

    /// The Unix socket where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("run/lmtp")
    }

    /// The port of 127.0.0.1 where it listens too.
    #[allow(dead_code, reason = "not every test program asks")]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Whether a user has ever got anything.
    #[allow(dead_code, reason = "not every test program asks")]
    pub(crate) fn knows(&self, user: &str) -> bool {
        self.folder.path().join("mail").join(user).exists()
    }

    /// What a user has, without the header lines that Dovecot puts on top.
    pub(crate) fn messages(&self, user: &str) -> Vec<Vec<u8>> {
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

fn configuration(root: &Path, port: u16) -> String {
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
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
}}
"
    )
}
