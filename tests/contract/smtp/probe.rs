//! A server is tried without a message: every step is said, and what fails comes with a remedy.

use std::io::Write;
use std::process::{Command, Stdio};

use super::authority::Authority;
use super::fake::{Act, Fake, Setup, say};

/// Exit code, and what the worker program says.
fn probe(kind: &str, settings: &str) -> (i32, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_spooler-worker"))
        .args(["--probe", kind, "spooler.test"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(settings.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

/// The names of the steps.
fn steps(said: &str) -> Vec<&str> {
    let lines = said.lines().filter_map(|line| line.strip_prefix("  "));
    lines.map(|line| line.split_whitespace().next().unwrap()).collect()
}

fn secure(authority: &Authority, script: impl Fn(&str) -> Option<Act> + Send + Sync + 'static) -> (Fake, String) {
    let fake = Fake::start(Setup {
        offers: vec!["STARTTLS", "AUTH PLAIN"],
        tls: Some(authority.server()),
        script: Box::new(move |_, line| script(line)),
        ..Setup::default()
    });
    let trust = format!("tls_ca_file = '{}'\nusername = 'me'\n", authority.path("ca.pem").display());
    let settings = fake.settings(&trust);
    (fake, settings)
}

#[test]
fn probe_says_each_step_and_sends_nothing() {
    let Some(authority) = Authority::new("probe_says_each_step_and_sends_nothing") else { return };
    let (fake, settings) =
        secure(&authority, |line| line.starts_with("AUTH").then(|| say("235 2.7.0 welcome")).flatten());
    std::fs::write(authority.path("password"), "sesame\n").unwrap();
    let settings = format!("{settings}password_file = '{}'\n", authority.path("password").display());
    let (code, said) = probe("smtp", &settings);
    assert_eq!(
        (code, steps(&said)),
        (0, vec!["resolve", "connect", "greeting", "EHLO", "TLS", "EHLO", "AUTH", "QUIT"]),
        "{said}"
    );
    assert!(said.contains("TLSv1.3 with TLS_AES_") && said.contains("certificate checked for 127.0.0.1"), "{said}");
    assert!(said.contains("accepted as me (") && said.ends_with("It works; no mail was sent.\n"), "{said}");
    assert!(!said.contains("sesame"), "{said}");
    let heard = fake.only();
    assert_eq!((heard.count("MAIL"), heard.count("AUTH PLAIN"), heard.count("QUIT")), (0, 1, 1));
}

#[test]
fn refused_password_comes_with_a_remedy() {
    let Some(authority) = Authority::new("refused_password_comes_with_a_remedy") else { return };
    let (_fake, settings) = secure(&authority, |line| line.starts_with("AUTH").then(|| say("535 5.7.8 no")).flatten());
    let (code, said) = probe("smtp", &format!("{settings}password = 'wrong'\n"));
    assert_eq!(code, 69);
    assert!(said.contains("It fails: 535 5.7.8 no") && said.contains("To do: check username and password"), "{said}");
    assert!(!said.contains("wrong"), "{said}");
}

#[test]
fn strange_certificate_comes_with_a_remedy() {
    let test = "strange_certificate_comes_with_a_remedy";
    let (Some(authority), Some(stranger)) = (Authority::new(test), Authority::new(test)) else { return };
    let (fake, _) = secure(&authority, |_| None);
    let settings = fake.settings(&format!("tls = 'required'\ntls_ca_file = '{}'\n", stranger.path("ca.pem").display()));
    let (code, said) = probe("smtp", &settings);
    assert_eq!(code, 69);
    assert!(
        said.contains("It fails: ") && said.contains("To do: check host against the names in the certificate"),
        "{said}"
    );
}

#[test]
fn unreachable_server_comes_with_a_remedy() {
    let (code, said) = probe("smtp", "host = '127.0.0.1:1'\n");
    assert_eq!((code, steps(&said)), (69, vec!["resolve", "failed"]), "{said}");
    assert!(said.contains("Connection refused") && said.contains("To do: check host and port"), "{said}");
    let (code, said) = probe("smtp", "host = 'h'\nusername = 'me'\npassword_file = '/nowhere/password'\n");
    assert!(code == 69 && said.contains("/nowhere/password") && said.contains("To do: write the password"), "{said}");
}

#[test]
fn other_kinds_try_what_they_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    assert_eq!(
        probe("smtp", "").1.lines().next().unwrap_or_default().find("Nothing to probe: it delivers to the mail"),
        Some(0)
    );
    let (code, said) = probe("maildir", &format!("path = '{path}/{{local}}'\n"));
    assert!(code == 0 && said.contains("can be used"), "{said}");
    let (code, said) = probe("pipe", "command = ['/bin/sh', '-c', 'exit 1']\n");
    assert!(code == 0 && said.contains("/bin/sh can be run"), "{said}");
    let (code, said) = probe("pipe", &format!("command = ['{path}/missing']\n"));
    assert!(code == 69 && said.contains("missing: No such file") && said.contains("To do: install it"), "{said}");
    let (code, said) = probe("smtp-in", "listen = ['127.0.0.1:0']\n");
    assert!(code == 0 && said.contains("is free"), "{said}");
}

#[test]
fn busy_port_is_told_from_our_own() {
    let fake = Fake::obliging();
    let (code, said) = probe("smtp-in", &format!("listen = ['{}']\n", fake.address));
    assert!(code == 0 && said.contains("answers: 220 "), "{said}");
    let silent = Fake::scripted(|_, line| (line == "CONNECT").then(|| Act::SayAndClose("hello\r\n".to_owned())));
    let (code, said) = probe("smtp-in", &format!("listen = ['{}']\n", silent.address));
    assert!(code == 69 && said.contains("another server listens there") && said.contains("`ss -ltnp"), "{said}");
}
