//! TLS and AUTH.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use spooler_protocol::from_worker::{FromWorker, LogonError};
use spooler_protocol::outcome::{Cause, Outcome, Reply, SubmitResult};

use super::authority::Authority;
use super::fake::{Act, Fake, Setup, say};
use super::start;
use crate::peer::Peer;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

fn server(authority: &Authority, offers: Vec<&'static str>) -> Fake {
    Fake::start(Setup { offers, tls: Some(authority.server()), ..Setup::default() })
}

fn delivered(settings: &str) -> Result<(), Reply> {
    match start(settings).deliver("s@x", &["a@y"], MESSAGE) {
        (SubmitResult::Done, outcomes) if matches!(outcomes[&0], Outcome::Relayed { .. }) => Ok(()),
        (SubmitResult::Error(reply), _) => Err(reply),
        other => panic!("{other:?}"),
    }
}

fn believing(authority: &Authority, more: &str) -> String {
    format!("tls_ca_file = '{}'\n{more}", authority.path("ca.pem").display())
}

#[test]
fn starttls_protects_the_envelope_and_the_message() {
    let Some(authority) = Authority::new("starttls_protects_the_envelope_and_the_message") else { return };
    for tls in ["required", "opportunistic"] {
        // SIZE is offered under TLS too, so what was offered before must have been forgotten and asked for again.
        let fake = server(&authority, vec!["STARTTLS", "SIZE 1000"]);
        delivered(&fake.settings(&believing(&authority, &format!("tls = '{tls}'")))).unwrap();
        let heard = fake.only();
        let expected = ["EHLO spooler.test", "STARTTLS", "EHLO spooler.test", "MAIL FROM:<s@x> SIZE=21"];
        assert_eq!((heard.commands[..4].to_vec(), heard.contents.len()), (expected.map(str::to_owned).to_vec(), 1));
    }
}

#[test]
fn hop_tells_peer_tls_and_time() {
    let Some(authority) = Authority::new("hop_tells_peer_tls_and_time") else { return };
    let fake = server(&authority, vec!["STARTTLS"]);
    let mut peer = start(&fake.settings(&believing(&authority, "tls = 'required'\nconnection_idle = '1m'")));
    let mut hop = || *peer.deliver("s@x", &["a@y"], MESSAGE).1[&0].reply().hop.clone().unwrap();
    let (first, second) = (hop(), hop());
    assert!(first.peer.starts_with("127.0.0.1:"), "{first:?}");
    assert!(first.tls.starts_with("TLSv1.") && first.cipher.starts_with("TLS_"), "{first:?}");
    assert_eq!((&second.tls, second.connecting_ms), (&first.tls, 0), "the session was there already");
    let none = delivered("host = '127.0.0.1:1'\nconnect_timeout = '5s'").unwrap_err().hop.unwrap();
    assert_eq!((none.peer.as_str(), none.tls.as_str()), ("127.0.0.1:1", ""));
}

#[test]
fn implicit_tls_starts_with_the_first_byte() {
    let Some(authority) = Authority::new("implicit_tls_starts_with_the_first_byte") else { return };
    let fake = Fake::start(Setup { tls: Some(authority.server()), implicit_tls: true, ..Setup::default() });
    let mut peer = start(&fake.settings(&believing(&authority, "tls = 'implicit'\nconnection_idle = '1m'")));
    let large = b"0123456789\r\n".repeat(20_000);
    for content in [MESSAGE, &large, MESSAGE] {
        let (_, outcomes) = peer.deliver("s@x", &["a@y"], content);
        assert!(matches!(outcomes[&0], Outcome::Relayed { .. }), "{outcomes:?}");
    }
    assert_eq!(fake.only().contents.iter().map(Vec::len).collect::<Vec<_>>(), [24, large.len() + 3, 24]);
}

#[test]
fn a_certificate_has_to_be_believed_and_for_the_host_where_tls_is_required() {
    let test = "a_certificate_has_to_be_believed_and_for_the_host_where_tls_is_required";
    let (Some(authority), Some(stranger)) = (Authority::new(test), Authority::new(test)) else { return };
    let fake = server(&authority, vec!["STARTTLS"]);
    let refused = |settings: &str| {
        let reply = delivered(&fake.settings(settings)).unwrap_err();
        assert_eq!((reply.cause, reply.enhanced.as_str()), (Cause::Connect, "4.7.5"), "{reply}");
    };
    refused(&believing(&stranger, "tls = 'required'"));
    refused(&believing(&authority, "tls = 'required'\ntls_server_name = 'other.test'"));
    let heard = fake.heard();
    assert!(heard.len() == 2 && heard.iter().all(|heard| heard.count("STARTTLS") == 1 && heard.count("MAIL") == 0));
    delivered(&fake.settings(&believing(&authority, "tls = 'required'\ntls_server_name = 'mx.test'"))).unwrap();
    delivered(&fake.settings("tls = 'required'\ntls_verify = false")).unwrap();
}

#[test]
fn without_starttls_required_means_no_and_opportunistic_means_plain() {
    let fake = Fake::obliging();
    let reply = delivered(&fake.settings("tls = 'required'")).unwrap_err();
    assert!(reply.text.contains("does not offer STARTTLS"), "{reply}");
    assert_eq!(fake.only().count("MAIL"), 0);
    delivered(&fake.settings("")).unwrap();
}

#[test]
fn opportunistic_tls_that_fails_is_done_without() {
    // Instead of a handshake the server closes.
    let script = |_, command: &str| (command == "STARTTLS").then(|| Act::SayAndClose("220 ready\r\n".to_owned()));
    let fake = Fake::start(Setup { offers: vec!["STARTTLS"], script: Box::new(script), ..Setup::default() });
    delivered(&fake.settings("")).unwrap();
    let heard = fake.heard();
    assert_eq!((heard.len(), heard[0].count("STARTTLS"), heard[1].count("STARTTLS")), (2, 1, 0));
    assert_eq!(delivered(&fake.settings("tls = 'required'\ntls_verify = false")).unwrap_err().cause, Cause::Connect);
    // A refusal by reply needs no new connection.
    let script = |_, command: &str| if command == "STARTTLS" { say("454 not now") } else { None };
    let fake = Fake::start(Setup { offers: vec!["STARTTLS"], script: Box::new(script), ..Setup::default() });
    delivered(&fake.settings("")).unwrap();
    assert_eq!(fake.only().count("MAIL"), 1);
    assert_eq!(delivered(&fake.settings("tls = 'required'\ntls_verify = false")).unwrap_err().code, 454);
}

#[test]
fn words_behind_the_reply_to_starttls_end_the_connection() {
    let Some(authority) = Authority::new("words_behind_the_reply_to_starttls_end_the_connection") else { return };
    for tls in ["required", "opportunistic"] {
        // CVE-2021-38371: what a man in the middle puts there would be taken for the server's word under TLS.
        let script = |_, command: &str| {
            if command == "STARTTLS" { say("220 ready\r\n250-evil\r\n250 AUTH PLAIN") } else { None }
        };
        let setup = Setup {
            offers: vec!["STARTTLS"],
            tls: Some(authority.server()),
            script: Box::new(script),
            ..Setup::default()
        };
        let fake = Fake::start(setup);
        let settings =
            believing(&authority, &format!("tls = '{tls}'\nauth_without_tls = true\nusername = 'u'\npassword = 'p'"));
        let reply = delivered(&fake.settings(&settings)).unwrap_err();
        assert!(reply.text.contains("behind its reply to STARTTLS"), "{reply}");
        assert_eq!(fake.only().commands, ["EHLO spooler.test", "STARTTLS"]);
    }
}

#[test]
fn auth_plain_and_login_run_under_tls() {
    let Some(authority) = Authority::new("auth_plain_and_login_run_under_tls") else { return };
    let password = authority.path("password");
    std::fs::write(&password, "sésame\n").unwrap();
    let settings = believing(&authority, &format!("username = 'user'\npassword_file = '{}'", password.display()));
    let plain = format!("AUTH PLAIN {}", STANDARD.encode("\0user\0sésame"));
    let login = ["AUTH LOGIN".to_owned(), STANDARD.encode("user"), STANDARD.encode("sésame")];
    for (offer, dialogue) in [("AUTH LOGIN PLAIN", vec![plain]), ("AUTH LOGIN", login.to_vec())] {
        let last = dialogue.last().cloned().unwrap();
        let known = dialogue.clone();
        let script = move |_: usize, command: &str| {
            let place = known.iter().position(|line| line == command)?;
            say(if known[place] == last { "235 2.7.0 in" } else { "334 VXNlcm5hbWU6" })
        };
        let setup = Setup {
            offers: vec!["STARTTLS", offer],
            tls: Some(authority.server()),
            script: Box::new(script),
            ..Setup::default()
        };
        let fake = Fake::start(setup);
        delivered(&fake.settings(&settings)).unwrap();
        assert_eq!(fake.only().commands[3..3 + dialogue.len()], dialogue);
    }
}

#[test]
fn a_password_does_not_travel_in_the_clear_unless_it_may() {
    let fake = Fake::start(Setup { offers: vec!["AUTH PLAIN"], ..Setup::default() });
    let login = "username = 'u'\npassword = 'p'";
    // The default with a password is to require TLS; asked for opportunistic TLS, the session stays plain and the password home.
    delivered(&fake.settings(login)).unwrap_err();
    let reply = delivered(&fake.settings(&format!("{login}\ntls = 'opportunistic'"))).unwrap_err();
    assert!(reply.text.contains("the password is not sent"), "{reply}");
    let heard = fake.heard();
    assert!(heard.len() == 2 && heard.iter().all(|heard| heard.count("EHLO") > 0 && heard.count("AUTH") == 0));
    delivered(&fake.settings(&format!("{login}\nauth_without_tls = true"))).unwrap();
}

#[test]
fn a_refused_password_is_an_error_of_the_provider_and_tried_with_no_other_host() {
    let script = |_, command: &str| if command.starts_with("AUTH") { say("535 5.7.8 wrong") } else { None };
    let fake = Fake::start(Setup { offers: vec!["AUTH PLAIN"], script: Box::new(script), ..Setup::default() });
    let other = Fake::obliging();
    let hosts = format!("host = ['{}', '{}']", fake.address, other.address);
    let mut peer = start(&format!("{hosts}\nusername = 'u'\npassword = 'p'\nauth_without_tls = true"));
    peer.submit(1, "s@x", &["a@y"], MESSAGE);
    let update = peer.wait_for(|said| match said {
        FromWorker::Row { update, .. } => Ok(*update),
        other => Err(other),
    });
    assert_eq!(update.offline, Some(true));
    assert!(update.text.unwrap().starts_with("535 5.7.8 wrong"));
    let (result, outcomes) = peer.finished(1);
    assert!(matches!(&result, SubmitResult::Error(reply) if reply.code == 535), "{result:?}");
    assert!(outcomes.is_empty() && other.heard().is_empty());
}

/// A server that takes AUTH LOGIN and answers AUTH PLAIN with `refusal`.
fn login_only(refusal: &'static str) -> Fake {
    let script = move |_: usize, command: &str| match command {
        _ if command.starts_with("AUTH PLAIN") => say(refusal),
        "AUTH LOGIN" | "dQ==" => say("334 go on"),
        "cA==" => say("235 2.7.0 in"),
        _ => None,
    };
    Fake::start(Setup { offers: vec!["AUTH PLAIN LOGIN"], script: Box::new(script), ..Setup::default() })
}

const LOGIN: &str = "username = 'u'\npassword = 'p'\nauth_without_tls = true";

#[test]
fn other_mechanism_is_tried_after_a_refusal() {
    for refusal in ["504 5.7.4 Unrecognized authentication type", "502 no", "501 no", "534 5.7.9 too weak"] {
        let fake = login_only(refusal);
        delivered(&fake.settings(LOGIN)).unwrap();
        assert_eq!((fake.only().count("AUTH PLAIN"), fake.only().count("AUTH LOGIN")), (1, 1), "{refusal}");
    }
    // These are about the account, which a second try could lock.
    for refusal in ["535 5.7.8 wrong", "454 4.7.0 later"] {
        let fake = login_only(refusal);
        assert_eq!(delivered(&fake.settings(LOGIN)).unwrap_err().text, refusal.split_at(10).1, "{refusal}");
        assert_eq!(fake.heard().iter().map(|heard| heard.count("AUTH LOGIN")).sum::<usize>(), 0);
        delivered(&fake.settings(&format!("{LOGIN}\nauth = 'login'"))).unwrap();
    }
}

#[test]
fn refusal_stays_the_reason_when_server_hangs_up() {
    let script = |_: usize, command: &str| match command {
        _ if command.starts_with("AUTH PLAIN") => say("504 5.7.4 no PLAIN here"),
        "AUTH LOGIN" => Some(Act::Close),
        _ => None,
    };
    let fake = Fake::start(Setup { offers: vec!["AUTH PLAIN LOGIN"], script: Box::new(script), ..Setup::default() });
    assert_eq!(delivered(&fake.settings(LOGIN)).unwrap_err().text, "no PLAIN here");
}

#[test]
fn initial_response_is_repeated_when_asked_for() {
    let script = |_: usize, command: &str| match command {
        _ if command.starts_with("AUTH PLAIN") => say("334 "),
        "AHUAcA==" => say("235 2.7.0 in"),
        _ => None,
    };
    let fake = Fake::start(Setup { offers: vec!["AUTH PLAIN"], script: Box::new(script), ..Setup::default() });
    delivered(&fake.settings(LOGIN)).unwrap();
    assert_eq!(fake.only().commands[1..3], ["AUTH PLAIN AHUAcA==", "AHUAcA=="]);
}

#[test]
fn a_file_of_certificates_or_a_password_that_is_not_there_is_a_matter_of_settings() {
    for wrong in ["tls = 'required'\ntls_ca_file = '/nowhere'", "username = 'u'\npassword_file = '/nowhere'"] {
        let mut peer = Peer::start("smtp", &format!("host = '127.0.0.1:9'\n{wrong}"));
        let error = peer.wait_for(|said| match said {
            FromWorker::LogonFailed(error) => Ok(error),
            other => Err(other),
        });
        assert!(matches!(&error, LogonError::Unconfigured(text) if text.contains("/nowhere")), "{error:?}");
    }
}
