//! `spooler check` sees what the service's user will see, and every piece of advice that it prints works word by word.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{User, getuid};

/// A user that every machine has and that owns nothing.
const USER: &str = "nobody";

/// Repairs that one configuration may need, one after another.
const REPAIRS_MAX: usize = 6;

const RELAY: &str = "[mail]\nhostname = \"mail.example.test\"\n[provider.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1:9\"\n\
                     username = \"me\"\npassword_file = \"{dir}/spooler/password\"\n";

/// A folder that stands for the machine: programs that everybody may run, and `spooler` with the configuration in it.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(config: &str) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        set_mode(place.folder.path(), 0o755);
        fs::create_dir(place.path("spooler")).unwrap();
        let built = Path::new(env!("CARGO_BIN_EXE_spooler"));
        for name in ["spooler", "spooler-worker"] {
            fs::copy(built.with_file_name(name), place.path(&format!("bin-{name}"))).unwrap();
        }
        place.configure(config);
        place
    }

    fn configure(&self, config: &str) {
        let head = "[spool]\npath = \"{dir}/spool\"\n[control]\nsocket = \"{dir}/control.sock\"\n\
                    [worker]\nprogram = \"{dir}/bin-spooler-worker\"\n";
        let text = format!("{head}{config}").replace("{dir}", self.folder.path().to_str().unwrap());
        fs::write(self.config(), text).unwrap();
    }

    fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }

    fn config(&self) -> PathBuf {
        self.path("spooler/spooler.toml")
    }

    /// Exit code, and what it says.
    fn check(&self, options: &[&str]) -> (i32, String) {
        let mut command = Command::new(self.path("bin-spooler"));
        command.arg("check").arg("--config").arg(self.config()).args(options).env_remove("SPOOLER_WORKER");
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(said).unwrap())
    }

    /// Checks, does as it is told word by word, and checks again until it has nothing more to say. Gives what was said first.
    fn follow_advice(&self, options: &[&str]) -> String {
        let (_, first) = self.check(options);
        let mut said = first.clone();
        for _ in 0..REPAIRS_MAX {
            let Some(command) = said.split('`').nth(1) else { break };
            let status = Command::new("/bin/sh").args(["-c", command]).status().unwrap();
            assert!(status.success(), "{command}: {said}");
            said = self.check(options).1;
        }
        assert!(said.contains(": no mistakes, 1 provider"), "still not well: {said}\nfirst was: {first}");
        first
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn root_only(test: &str) -> bool {
    let root = getuid().is_root();
    if !root {
        eprintln!("{test}: skipped, it needs root");
    }
    root
}

/// The number of combinations of the states below that need a repair.
const ADVISED: usize = 64;

/// Owner, group and mode of what an administrator may have left behind, for the folder, the configuration and the password.
const STATES: [(u32, bool, u32); 6] =
    [(0, true, 0o640), (0, false, 0o600), (0, false, 0o644), (0, false, 0o640), (1, true, 0o600), (1, true, 0o644)];

#[test]
fn packaged_modes_are_right() {
    if !root_only("packaged_modes_are_right") {
        return;
    }
    let group = User::from_name(USER).unwrap().unwrap().gid.as_raw();
    let place = Place::new(&format!(
        "{RELAY}[provider.in]\nkind = \"smtp-in\"\ntls_certificate = \"{{dir}}/spooler/c\"\ntls_key = \"{{dir}}/spooler/k\"\n"
    ));
    fs::write(place.path("spooler/password"), "sesame\n").unwrap();
    for name in ["spooler", "spooler/spooler.toml", "spooler/password", "spooler/c", "spooler/k"] {
        let path = place.path(name);
        if !path.exists() {
            fs::write(&path, "").unwrap();
        }
        chown(&path, Some(0), Some(group)).unwrap();
        set_mode(&path, if path.is_dir() { 0o750 } else { 0o640 });
    }
    let expected = format!("{}: no mistakes, 2 providers; checked as user {USER}\n", place.config().display());
    assert_eq!(place.check(&["--user", USER]), (0, expected));
}

#[test]
fn advice_of_check_works_word_by_word() {
    if !root_only("advice_of_check_works_word_by_word") {
        return;
    }
    let user = User::from_name(USER).unwrap().unwrap();
    let owners = [0, user.uid.as_raw()];
    let mut advised = 0;
    for folder_is_open in [true, false] {
        for (config_owner, config_in_group, config_mode) in STATES {
            for (owner, in_group, mode) in STATES {
                let place = Place::new(RELAY);
                fs::write(place.path("spooler/password"), "sesame\n").unwrap();
                let group = |in_group: bool| Some(if in_group { user.gid.as_raw() } else { 0 });
                let files = [
                    (place.config(), config_owner, config_in_group, config_mode),
                    (place.path("spooler/password"), owner, in_group, mode),
                ];
                for (path, owner, in_group, mode) in &files {
                    chown(path, Some(owners[usize::try_from(*owner).unwrap()]), group(*in_group)).unwrap();
                    set_mode(path, *mode);
                }
                set_mode(&place.path("spooler"), if folder_is_open { 0o755 } else { 0o700 });
                let first = place.follow_advice(&["--user", USER]);
                advised += usize::from(first.contains('`'));
                // Others can read no password: its mode or the folder keeps them out.
                let mode = |below: &str| fs::metadata(place.path(below)).unwrap().permissions().mode();
                assert!(mode("spooler/password") & 0o004 == 0 || mode("spooler") & 0o001 == 0, "{first}");
            }
        }
    }
    assert_eq!(advised, ADVISED, "so many of all states need a repair");
}

#[test]
fn unreadable_configuration_is_a_mistake_even_for_root() {
    if !root_only("unreadable_configuration_is_a_mistake_even_for_root") {
        return;
    }
    let place = Place::new(RELAY);
    set_mode(&place.config(), 0o600);
    let (code, said) = place.check(&["--user", USER]);
    assert_eq!(code, 78);
    assert!(
        said.contains(&format!("cannot be read: user {USER} cannot read"))
            && said.contains("1 mistake; checked as user"),
        "{said}"
    );
    let (code, said) = place.check(&["--user", "no-such-user"]);
    assert!(code == 64 && said.contains("there is no user \"no-such-user\""), "{said}");
}

/// A command that gives a file to another user would take it away from the service.
#[test]
fn other_users_are_given_no_command() {
    if !crate::unprivileged::can_become_others("other_users_are_given_no_command") {
        return;
    }
    let place = Place::new(RELAY);
    fs::write(place.path("spooler/password"), "sesame\n").unwrap();
    for (config_mode, password_mode) in [(0o640, 0o640), (0o644, 0o640), (0o644, 0o644)] {
        set_mode(&place.config(), config_mode);
        set_mode(&place.path("spooler/password"), password_mode);
        let mut words = crate::unprivileged::as_somebody(&[]);
        let command = [place.path("bin-spooler"), "check".into(), "--config".into(), place.config()];
        words.extend(command.map(|word| word.display().to_string()));
        let output = Command::new(&words[0]).args(&words[1..]).env_remove("SPOOLER_WORKER").output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(!said.contains("chgrp") && !said.contains("chmod"), "{said}");
        let closed = config_mode == 0o640 || password_mode == 0o640;
        let expected = if closed { "cannot read" } else { "everybody can read it; `sudo spooler check`" };
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn owner_of_spool_is_checked_for() {
    if !root_only("owner_of_spool_is_checked_for") || Path::new("/etc/systemd/system/spooler.service").exists() {
        return;
    }
    let place = Place::new("[mail]\nhostname = \"a.test\"\n[provider.relay]\nkind = \"smtp\"\n");
    set_mode(&place.config(), 0o644);
    let (code, said) = place.check(&[]);
    assert!(code == 0 && said.ends_with(": no mistakes, 1 provider\n"), "{said}");
    fs::create_dir(place.path("spool")).unwrap();
    chown(place.path("spool"), Some(User::from_name(USER).unwrap().unwrap().uid.as_raw()), None).unwrap();
    let (_, said) = place.check(&[]);
    assert!(said.contains(&format!("; checked as user {USER}")), "{said}");
    // Root's spool is not that user's.
    chown(place.path("spool"), Some(0), None).unwrap();
    let (code, said) = place.check(&["--user", USER]);
    assert!(code == 78 && said.contains("belongs to user root, and this spooler runs as nobody"), "{said}");
    assert!(!said.contains("chown"), "{said}");
}

/// The mistakes that only show when mail goes astray.
#[test]
fn silent_mistakes_are_found() {
    let place = Place::new(
        r#"[mail]
hostname = "vm"
[provider.one]
kind = "smtp-in"
listen = ["0.0.0.0:2525"]
relay_from = ["0.0.0.0/0", "192.0.2.0/24"]
[provider.two]
kind = "smtp-in"
listen = ["127.0.0.1:2525"]
tls_certificate = "{dir}/no-certificate"
tls_key = "{dir}/no-key"
[provider.local]
kind = "pipe"
claims = ["@example.org"]
command = ["{dir}/no-program"]
[provider.tickets]
kind = "smtp"
claims = ["tickets@example.org"]
host = "127.0.0.1:9"
tls = "required"
tls_ca_file = "{dir}/no-authorities"
username = "me"
password_file = "{dir}/no-password"
[[provider.tickets.preprocess]]
command = ["{dir}/no-filter"]
"#,
    );
    let (code, said) = place.check(&[]);
    assert_eq!(code, 0, "{said}");
    for expected in [
        "mail.hostname: \"vm\" has no dot",
        "provider.one.relay_from: 0.0.0.0/0 lets everybody in it send mail to anywhere",
        "provider.two.listen has 127.0.0.1:2525, but provider.one listens on 0.0.0.0:2525 already",
        "no-certificate does not exist",
        "no-key does not exist",
        "provider.local.command: ",
        "no-program does not exist",
        "provider.tickets.claims has \"tickets@example.org\", which provider.local claims before with \"@example.org\"",
        "no-authorities does not exist",
        "no-password does not exist",
        "no-filter does not exist",
        "no provider serves mail that is not claimed",
    ] {
        assert!(said.contains(expected), "{expected} in: {said}");
    }
    assert!(!said.contains("192.0.2.0"), "{said}");
    assert!(said.contains(": no mistakes, 11 warnings, 4 providers"), "{said}");
    place.configure(
        "[mail]\nhostname = \"a.test\"\n[provider.relay]\nkind = \"smtp\"\nhosts = \"h\"\nsmarthost = \"h\"\n",
    );
    let (code, said) = place.check(&[]);
    assert!(code == 78 && said.contains("provider.relay.hosts is not known here; did you mean `host`?"), "{said}");
    assert!(said.contains("provider.relay.smarthost is not known here; allowed are\n    "), "{said}");
    assert!(said.lines().all(|line| line.len() < 200), "{said}");
}
