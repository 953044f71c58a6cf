//! The transport that the README shows: a program of its own, with the built-in kinds and one more.

use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use spooler_protocol::outcome::{Outcome, SubmitResult};

use crate::peer::{Peer, welcome};

fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_spooler-worker")).with_file_name("examples").join("printer");
    assert!(program.exists(), "there is no {}; cargo build -p spooler-worker --examples", program.display());
    program
}

#[test]
fn the_transport_of_the_readme_prints_and_defers() {
    let printer = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = printer.local_addr().unwrap();
    let mut peer = Peer::start_program(&program(), welcome("printer", &format!("host = '{address}'")));
    let logged_on = peer.wait_logged_on();
    assert_eq!(
        (logged_on.address_types, logged_on.identity, logged_on.credit),
        (vec!["PRINT".to_owned()], address.to_string(), 1)
    );
    let paper = thread::spawn(move || {
        let mut paper = Vec::new();
        printer.accept().unwrap().0.read_to_end(&mut paper).unwrap();
        paper
    });
    let letter = b"Subject: x\r\n\r\nletter\r\n".repeat(10_000);
    let (result, outcomes) = peer.deliver("a@b", &["PRINT:office"], &letter);
    assert!(result == SubmitResult::Done && matches!(outcomes[&0], Outcome::Delivered(_)), "{outcomes:?}");
    assert!(paper.join().unwrap() == letter, "the letter came out whole");
    // The printer is switched off.
    let (_, outcomes) = peer.deliver("a@b", &["PRINT:office"], b"x\r\n");
    assert!(matches!(outcomes[&0], Outcome::Deferred(_)), "{outcomes:?}");
    peer.log_off();
}

#[test]
fn a_program_with_a_kind_of_its_own_has_the_others_too() {
    let kinds = Command::new(program()).arg("--kinds").output().unwrap().stdout;
    let kinds = String::from_utf8(kinds).unwrap();
    let kinds: Vec<&str> = kinds.lines().collect();
    assert!(kinds.contains(&"smtp") && kinds.last() == Some(&"printer"), "{kinds:?}");
    let mut peer = Peer::start_program(&program(), welcome("pipe", "command = ['/bin/cat']"));
    peer.wait_logged_on();
    peer.log_off();
}
