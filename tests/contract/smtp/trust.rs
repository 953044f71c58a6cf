//! Certificates that are not believed: the reason says what helps, and that helps.

use std::process::Command;

use spooler_protocol::outcome::{Cause, Outcome, Reply, SubmitResult};

use super::authority::Authority;
use super::fake::{Fake, Setup};
use super::start;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// A new key and a certificate that it has signed itself; `more` are options of `openssl req`.
fn self_signed(authority: &Authority, name: &str, more: &str) {
    authority.openssl(&format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}{more}"
    ));
}

fn server(authority: &Authority, name: &str, implicit_tls: bool) -> (Fake, String) {
    let tls = Some(authority.server_with(name));
    let fake = Fake::start(Setup { offers: vec!["STARTTLS"], tls, implicit_tls, ..Setup::default() });
    let settings = fake.settings(if implicit_tls { "tls = 'implicit'" } else { "tls = 'required'" });
    (fake, settings)
}

fn delivered(settings: &str) -> Result<(), Reply> {
    match start(settings).deliver("s@x", &["a@y"], MESSAGE) {
        (SubmitResult::Done, outcomes) if matches!(outcomes[&0], Outcome::Relayed { .. }) => Ok(()),
        (SubmitResult::Error(reply), _) => Err(reply),
        other => panic!("{other:?}"),
    }
}

fn refusal(settings: &str) -> String {
    let reply = delivered(settings).unwrap_err();
    assert_eq!((reply.cause, reply.enhanced.as_str()), (Cause::Connect, "4.7.5"), "{reply}");
    reply.text
}

/// The settings with one more file of believed certificates.
fn believing(settings: &str, authority: &Authority, file: &str) -> String {
    format!("{settings}\ntls_ca_file = '{}'", authority.path(file).display())
}

#[test]
fn advice_for_self_signed_certificate_works() {
    let Some(authority) = Authority::new("advice_for_self_signed_certificate_works") else { return };
    // As `openssl req -x509` makes it, marked as an authority; and as an appliance has it.
    for (name, more) in [("marked", ""), ("unmarked", " -addext basicConstraints=critical,CA:FALSE")] {
        self_signed(&authority, name, more);
        for implicit in [false, true] {
            let (_fake, settings) = server(&authority, name, implicit);
            let text = refusal(&believing(&settings, &authority, "ca.pem"));
            assert!(text.contains("its certificate is self-signed; to trust exactly this one"), "{name}: {text}");
            let command = text.split('`').nth(1).unwrap().replace("FILE", "seen.pem");
            let status = Command::new("sh").args(["-c", &command]).current_dir(authority.path("")).output().unwrap();
            assert!(status.status.success(), "{command}: {status:?}");
            delivered(&believing(&settings, &authority, "seen.pem")).unwrap();
        }
    }
}

#[test]
fn pinned_certificate_is_the_only_one() {
    let Some(authority) = Authority::new("pinned_certificate_is_the_only_one") else { return };
    self_signed(&authority, "first", "");
    // The same name, another key.
    self_signed(&authority, "second", " -subj /CN=first");
    let (_fake, settings) = server(&authority, "second", true);
    let text = refusal(&believing(&settings, &authority, "first.pem"));
    assert!(text.contains("self-signed"), "{text}");
    delivered(&believing(&settings, &authority, "second.pem")).unwrap();
}

#[test]
fn other_mistrust_says_what_helps() {
    let test = "other_mistrust_says_what_helps";
    let (Some(authority), Some(stranger)) = (Authority::new(test), Authority::new(test)) else { return };
    let (fake, settings) = server(&authority, "server", false);
    let text = refusal(&believing(&settings, &stranger, "ca.pem"));
    assert!(
        text.starts_with(&format!("No TLS with {}: its certificate was issued by an authority", fake.address)),
        "{text}"
    );
    assert!(text.contains("set tls_ca_file"), "{text}");
    delivered(&believing(&settings, &authority, "ca.pem")).unwrap();

    let other = format!("{settings}\ntls_server_name = 'other.test'");
    let text = refusal(&believing(&other, &authority, "ca.pem"));
    assert!(
        text.contains("its certificate is for mx.test, 127.0.0.1, not for other.test; set host or tls_server_name"),
        "{text}"
    );
    delivered(&believing(&format!("{settings}\ntls_server_name = 'mx.test'"), &authority, "ca.pem")).unwrap();

    authority.openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out old.pem -days -1 -extfile server.cnf",
    );
    std::fs::copy(authority.path("server.key"), authority.path("old.key")).unwrap();
    let (_fake, settings) = server(&authority, "old", false);
    let text = refusal(&believing(&settings, &authority, "ca.pem"));
    assert!(text.contains("its certificate has expired; renew it"), "{text}");

    let plain = Fake::obliging();
    let text = refusal(&plain.settings("tls = 'implicit'"));
    assert!(text.contains("does not begin with TLS there; for STARTTLS set tls = \"required\""), "{text}");
}
