//! Which failure of several is reported, and what is shown while nothing happens.

use std::net::TcpListener;

use spooler_protocol::from_worker::FromWorker;
use spooler_protocol::outcome::{Cause, Reply, SubmitResult};

use super::authority::Authority;
use super::fake::{Act, Fake, Setup, say};
use super::start;

const MESSAGE: &[u8] = b"Subject: x\r\n\r\nhello\r\n";

/// A port on which nobody listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn failure(settings: &str) -> Reply {
    match start(settings).deliver("s@x", &["a@y"], MESSAGE) {
        (SubmitResult::Error(reply), _) => reply,
        other => panic!("{other:?}"),
    }
}

#[test]
fn refused_connection_is_said_in_one_breath() {
    let port = closed_port();
    let reply = failure(&format!("host = '127.0.0.1:{port}'"));
    assert_eq!(reply.to_string(), format!("4.4.1 Cannot connect to 127.0.0.1:{port}: Connection refused"));
    assert_eq!(reply.remote, "127.0.0.1");
}

#[test]
fn telling_failure_is_reported_whatever_the_order() {
    let Some(authority) = Authority::new("telling_failure_is_reported_whatever_the_order") else { return };
    let fake = Fake::start(Setup { offers: vec!["STARTTLS"], tls: Some(authority.server()), ..Setup::default() });
    let closed = format!("127.0.0.1:{}", closed_port());
    let name = format!("localhost:{}", fake.address.port());
    for hosts in [[&name, &closed], [&closed, &name]] {
        let (ca, [first, second]) = (authority.path("ca.pem"), hosts);
        let reply =
            failure(&format!("host = ['{first}', '{second}']\ntls = 'required'\ntls_ca_file = '{}'", ca.display()));
        let text = reply.to_string();
        // The certificate is for another name; `localhost` may have an IPv6 address on which nobody listens.
        assert!(text.starts_with(&format!("4.7.5 No TLS with localhost[127.0.0.1]:{}", fake.address.port())), "{text}");
        assert!(text.contains("; also tried ") && text.contains(&format!("{closed} (Connection refused)")), "{text}");
        assert!(!text.contains("os error"), "{text}");
    }
}

#[test]
fn refusal_of_server_beats_unreachable_address() {
    let script =
        |_: usize, command: &str| if command == "CONNECT" { say("554 5.3.2 no service for you") } else { None };
    let fake = Fake::scripted(script);
    let closed = closed_port();
    for hosts in
        [format!("['{}', '127.0.0.1:{closed}']", fake.address), format!("['127.0.0.1:{closed}', '{}']", fake.address)]
    {
        let reply = failure(&format!("host = {hosts}"));
        assert_eq!(
            (reply.cause, reply.to_string().as_str()),
            (Cause::Remote, "554 5.3.2 no service for you (127.0.0.1)")
        );
    }
}

#[test]
fn each_silent_step_is_shown() {
    for (step, phase) in [
        ("CONNECT", "waiting for the greeting of {address}"),
        ("EHLO", "waiting for the reply of {address} to EHLO"),
        ("MAIL", "waiting for the reply to MAIL"),
        ("RCPT", "waiting for the reply to RCPT"),
        ("DATA", "waiting for the reply to DATA"),
        (".", "waiting for the reply to the whole message"),
    ] {
        let script = move |_: usize, command: &str| command.starts_with(step).then_some(Act::Stall);
        let fake = Fake::start(Setup { offers: Vec::new(), script: Box::new(script), ..Setup::default() });
        let mut peer = start(&fake.settings(""));
        peer.submit(1, "s@x", &["a@y"], MESSAGE);
        let expected = phase.replace("{address}", &fake.address.to_string());
        peer.wait_for(|said| match said {
            FromWorker::Progress { progress, .. } if progress.phase == expected => Ok(()),
            other => Err(other),
        });
    }
}
