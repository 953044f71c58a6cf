//! Programs that people send mail with, where they are installed.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::client::{serving, while_serving, without_trace};

/// A message file with LF line ends and lines that begin with dots.
const LF_FILE: &str = "Subject: from a file\n\nhello\n.\n.dot\nend\n";

/// What `LF_FILE` is in mail.
const LF_FILE_AS_MAIL: &[u8] = b"Subject: from a file\r\n\r\nhello\r\n.\r\n.dot\r\nend\r\n";

/// Runs a program, or says by name that it is not there.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: {program}: {error}");
            None
        }
    }
}

fn is_there(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(program).exists()));
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

fn lf_file() -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("m.txt");
    fs::write(&path, LF_FILE).unwrap();
    (folder, path.display().to_string())
}

fn curl(address: SocketAddr, file: &str, more: &[&str]) -> Option<Output> {
    let url = format!("smtp://{address}");
    let fixed = ["-sS", "--mail-from", "a@b.test", "--mail-rcpt", "c@d.test", "-T", file, url.as_str()];
    run("curl", &[&fixed, more].concat())
}

#[test]
fn curl_is_served_with_crlf_and_told_about_it_without() {
    if !is_there("curl") {
        return;
    }
    let (mut peer, address) = serving("");
    let (_folder, file) = lf_file();
    while_serving(&mut peer, 1, move || {
        let refused = curl(address, &file, &["-v"]).unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("550 5.5.2 bare LF"), "{said}");
        let taken = curl(address, &file, &["--crlf"]).unwrap();
        assert!(taken.status.success(), "{taken:?}");
    });
    assert_eq!(peer.received.len(), 1);
    assert_eq!(without_trace(&peer.received[0].content).1, LF_FILE_AS_MAIL);
}

#[test]
fn python_is_served_with_text_and_told_about_bare_line_feeds() {
    if !is_there("python3") {
        return;
    }
    let script = "
import smtplib, sys
from email.message import EmailMessage
host, port = sys.argv[1].split(':')
text = open(sys.argv[2]).read()
with smtplib.SMTP(host, int(port)) as server:
    try:
        server.sendmail('a@b.test', ['c@d.test'], text.encode())
        sys.exit('bare LF was taken')
    except smtplib.SMTPDataError as error:
        assert error.smtp_code == 550 and b'python: pass str' in error.smtp_error, error
    server.sendmail('a@b.test', ['c@d.test'], text)
    message = EmailMessage()
    message['Subject'], message['From'], message['To'] = 'grüße', 'ä@exämple.org', 'c@d.test'
    message.set_content('hello')
    server.send_message(message)
";
    let (mut peer, address) = serving("");
    let (_folder, file) = lf_file();
    while_serving(&mut peer, 2, move || {
        let ran = run("python3", &["-c", script, &address.to_string(), &file]).unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    });
    assert_eq!(without_trace(&peer.received[0].content).1, LF_FILE_AS_MAIL);
    assert_eq!(
        (peer.received[1].envelope.sender.as_str(), peer.received[1].envelope.smtputf8),
        ("ä@exämple.org", true)
    );
}

#[test]
fn swaks_is_served_also_pipelining() {
    if !is_there("swaks") {
        return;
    }
    let (mut peer, address) = serving("");
    while_serving(&mut peer, 2, move || {
        let server = address.to_string();
        for more in [&[][..], &["--pipeline"]] {
            let arguments = ["--server", &server, "--from", "a@b.test", "--to", "c@d.test,e@f.test", "--body", "hello"];
            let ran = run("swaks", &[&arguments, more].concat()).unwrap();
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
        }
    });
    assert_eq!(peer.received.len(), 2);
    assert!(peer.received.iter().all(|message| message.envelope.recipients.len() == 2));
}

#[test]
fn smtp_source_is_served_with_and_without_kept_connections() {
    if !is_there("smtp-source") {
        return;
    }
    const MESSAGES: usize = 100;
    let (mut peer, address) = serving("");
    for (round, more) in [&[][..], &["-d"]].into_iter().enumerate() {
        let server = format!("inet:{address}");
        while_serving(&mut peer, MESSAGES * (round + 1), move || {
            let count = MESSAGES.to_string();
            let fixed = ["-s", "10", "-m", &count, "-l", "4096", "-f", "a@b.test", "-t", "c@d.test", &server];
            let ran = run("smtp-source", &[more, &fixed].concat()).unwrap();
            assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
        });
    }
    assert_eq!(peer.received.len(), 2 * MESSAGES);
    assert!(peer.received.iter().all(|message| without_trace(&message.content).1.len() >= 4096));
}
