//! `scripts/install`, below a folder that stands for `/`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder that stands for `/`, and the programs to install.
struct Machine {
    root: tempfile::TempDir,
    programs: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let spooler = Path::new(env!("CARGO_BIN_EXE_spooler"));
        Self { root: tempfile::tempdir().unwrap(), programs: spooler.parent().unwrap().to_owned() }
    }

    fn run(&self, options: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/install");
        Command::new(script).arg("--root").arg(self.root.path()).args(options).output().expect("the script runs")
    }

    fn install(&self, options: &[&str]) -> Output {
        let output = self.run(options);
        assert!(output.status.success(), "{output:?}");
        output
    }

    fn install_programs(&self, options: &[&str]) -> Output {
        self.install(&[&["--programs", self.programs.to_str().unwrap()], options].concat())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Every file and link below the root, in order.
    fn files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() { folders.push(entry.path()) } else { found.push(entry.path()) }
            }
        }
        found.sort();
        found
    }
}

#[test]
fn install_puts_everything_in_place() {
    let machine = Machine::new();
    machine.install_programs(&[]);
    for (path, mode) in [
        ("usr/local/bin/spooler", 0o755),
        ("usr/local/bin/spooler-worker", 0o755),
        ("usr/local/bin/spoolctl", 0o755),
        ("etc/systemd/system/spooler.service", 0o644),
        ("usr/lib/sysusers.d/spooler.conf", 0o644),
        ("usr/lib/tmpfiles.d/spooler.conf", 0o644),
    ] {
        let found = fs::metadata(machine.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(found.len() > 0 && found.permissions().mode() & 0o777 == mode, "{path}");
    }
    let starts = Command::new(machine.path("usr/local/bin/spooler")).arg("--version").output().unwrap();
    assert!(starts.status.success(), "{starts:?}");
    for page in ["spooler.1", "spoolctl.1", "spoolctl-queue-list.1"] {
        let text = fs::read_to_string(machine.path("usr/local/share/man/man1").join(page)).unwrap();
        assert!(text.contains(".SH NAME"), "{page}");
    }
    assert!(!machine.path("usr/sbin/sendmail").exists(), "the names of a mail server were not asked for");
}

#[test]
fn install_again_changes_nothing() {
    let machine = Machine::new();
    machine.install_programs(&["--mta"]);
    let before = machine.files();
    machine.install_programs(&["--mta"]);
    assert_eq!(machine.files(), before);
}

#[test]
fn uninstall_restores_the_other_mail_server() {
    let machine = Machine::new();
    for (path, text) in [
        ("usr/sbin/sendmail", "theirs"),
        ("etc/spooler/spooler.toml", "ours to keep"),
        ("var/spool/spooler/spool.db", "mail"),
    ] {
        fs::create_dir_all(machine.path(path).parent().unwrap()).unwrap();
        fs::write(machine.path(path), text).unwrap();
    }
    let before = machine.files();
    let said = machine.install_programs(&["--mta"]);
    assert!(String::from_utf8_lossy(&said.stderr).contains("Diverted to NAME.distrib: /usr/sbin/sendmail"), "{said:?}");
    for name in ["usr/sbin/sendmail", "usr/lib/sendmail", "usr/bin/mailq", "usr/bin/newaliases"] {
        assert_eq!(fs::read_link(machine.path(name)).unwrap(), Path::new("/usr/local/bin/spoolctl"), "{name}");
    }
    assert_eq!(fs::read_to_string(machine.path("usr/sbin/sendmail.distrib")).unwrap(), "theirs");
    machine.install(&["--uninstall"]);
    assert_eq!(machine.files(), before);
    assert_eq!(fs::read_to_string(machine.path("usr/sbin/sendmail")).unwrap(), "theirs");
}

#[test]
fn install_refuses_a_folder_without_programs() {
    let machine = Machine::new();
    let output = machine.run(&["--programs", machine.root.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(66), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cargo build --release"), "{output:?}");
    assert_eq!(machine.files(), Vec::<PathBuf>::new());
}

#[test]
fn uninstall_refuses_while_a_spooler_runs() {
    let machine = Machine::new();
    machine.install_programs(&[]);
    let before = machine.files();
    // Stands for a spooler that was started by hand.
    fs::copy("/bin/sleep", machine.path("usr/local/bin/spooler")).unwrap();
    let mut running = Command::new(machine.path("usr/local/bin/spooler")).arg("600").spawn().unwrap();
    let output = machine.run(&["--uninstall"]);
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("kill {}", running.id())), "{output:?}");
    assert_eq!(machine.files(), before);
    machine.install(&["--uninstall"]);
    assert_eq!(machine.files(), Vec::<PathBuf>::new());
}
