//! STARTTLS and AUTH, with a certificate made for the occasion.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::client::{Client, serving, while_serving, without_trace};

const OPENSSL_CONFIG: &str = "[req]\ndistinguished_name=dn\nx509_extensions=v3\nprompt=no\n[dn]\nCN=localhost\n\
                              [v3]\nbasicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost\n";

/// A folder with `cert.pem` and `key.pem`, or `None` with a word if there is no openssl.
fn certificate(test: &str) -> Option<TempDir> {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config"), OPENSSL_CONFIG).unwrap();
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -config config -keyout key.pem \
                     -out cert.pem";
    let made = Command::new("openssl").args(arguments.split_whitespace()).current_dir(&folder).output();
    match made {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Some(folder)
        }
        Err(error) => {
            eprintln!("skipped: {test} needs openssl: {error}");
            None
        }
    }
}

fn settings(folder: &TempDir, more: &str) -> String {
    let path = folder.path().display();
    format!(
        "tls_certificate = '{path}/cert.pem'\ntls_key = '{path}/key.pem'\nusers = {{ ann = 'sesame', bob = 'x' }}\n{more}"
    )
}

type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

/// Shakes hands on a connection whose STARTTLS was answered.
fn handshake(client: Client, folder: &std::path::Path) -> TlsClient {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    Client::on(StreamOwned::new(tls, client.into_socket()))
}

#[test]
fn a_password_inside_tls_lets_a_stranger_submit() {
    let Some(folder) = certificate("a_password_inside_tls_lets_a_stranger_submit") else { return };
    let (mut peer, address) = serving(&settings(&folder, "relay_from = []"));
    let path = folder.path().to_owned();
    while_serving(&mut peer, 1, move || {
        let mut client = Client::greeted(address);
        let greeting = client.say("EHLO client.test");
        assert!(greeting.contains("250-STARTTLS\r\n") && !greeting.contains("AUTH"), "{greeting}");
        client.expect(&[
            ("AUTH PLAIN AGFubgBzZXNhbWU=", "538 5.7.11"),
            ("MAIL FROM:<a@b.test>", "250 "),
            ("RCPT TO:<c@d.test>", "550 5.7.1"),
            ("STARTTLS", "220 2.0.0"),
        ]);
        let mut client = handshake(client, &path);
        client.expect(&[("MAIL FROM:<a@b.test>", "503 5.5.1")]);
        let greeting = client.say("EHLO client.test");
        assert!(greeting.contains("250-AUTH PLAIN LOGIN\r\n") && !greeting.contains("STARTTLS"), "{greeting}");
        client.expect(&[
            ("AUTH PLAIN AGFubgBzZXNhbWUx", "535 5.7.8"),
            ("AUTH CRAM-MD5", "504 5.5.4"),
            ("AUTH LOGIN", "334 VXNlcm5hbWU6"),
            ("*", "501 5.7.0"),
            ("AUTH PLAIN", "334 "),
            ("AGFubgBzZXNhbWU=", "235 2.7.0"),
            ("AUTH PLAIN AGFubgBzZXNhbWU=", "503 5.5.1"),
        ]);
        client.begin_data();
        client.send("Subject: t\r\n\r\nhello\r\n.\r\n");
        assert!(client.reply().starts_with("250 2.0.0"));
        client.expect(&[("QUIT", "221 2.0.0")]);
        assert!(client.is_closed());
    });
    let (trace, content) = without_trace(&peer.received[0].content);
    assert!(trace.contains(" with ESMTPSA\r\n"), "{trace}");
    assert_eq!(content, b"Subject: t\r\n\r\nhello\r\n");
}

#[test]
fn without_a_password_nobody_submits_where_one_is_required() {
    let Some(folder) = certificate("without_a_password_nobody_submits_where_one_is_required") else { return };
    let (_peer, address) = serving(&settings(&folder, "require_auth = true"));
    let mut client = Client::greeted(address);
    client.expect(&[("MAIL FROM:<a@b.test>", "530 5.7.0")]);
}

#[test]
fn commands_behind_starttls_are_not_carried_into_tls() {
    let Some(folder) = certificate("commands_behind_starttls_are_not_carried_into_tls") else { return };
    let (_peer, address) = serving(&settings(&folder, ""));
    for injected in ["NOOP\r\n", "RSET\r\n", "MAIL FROM:<evil@b.test>\r\n", "x"] {
        let mut client = Client::greeted(address);
        client.send(format!("STARTTLS\r\n{injected}"));
        assert!(client.reply().starts_with("554 5.5.0"), "{injected:?}");
        assert!(client.is_closed(), "{injected:?}");
    }
    // Behind the reply but before the handshake, it is garbage to TLS.
    let mut client = Client::greeted(address);
    client.expect(&[("STARTTLS", "220 2.0.0")]);
    client.send("NOOP\r\n");
    let mut socket = client.into_socket();
    let mut answer = Vec::new();
    let _ = std::io::Read::read_to_end(&mut socket, &mut answer);
    assert!(!answer.windows(3).any(|bytes| bytes == b"250"), "{answer:?}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_named() {
    let mut peer = crate::peer::Peer::start(
        "smtp-in",
        "listen = ['127.0.0.1:0']\ntls_certificate = '/nonexistent/cert.pem'\ntls_key = '/nonexistent/key.pem'",
    );
    let said = peer.next();
    let text = format!("{said:?}");
    assert!(text.contains("LogonFailed") && text.contains("/nonexistent/cert.pem"), "{text}");
}
