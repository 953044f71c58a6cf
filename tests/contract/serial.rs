//! Provider kind `serial`, on pseudo-terminals: what comes in and goes out, a device that goes away, and the critical section.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use spooler_protocol::from_worker::{FromWorker, LogonError};
use spooler_protocol::outcome::{Outcome, SubmitResult};
use spooler_protocol::to_worker::{Refusal, ToWorker};

use crate::peer::Peer;

/// The far end of a line, and the path of the near one.
fn line() -> (File, String) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(ours.as_fd(), Vec::new()).unwrap().into_string().unwrap();
    (File::from(ours), name)
}

/// A worker on a line that is open.
fn on_line(settings: &str) -> (Peer, File, String) {
    let (far, device) = line();
    let settings = format!("device = '{device}'\nto = ['ops@b.test']\ncontent = 'text'\n{settings}");
    let (mut peer, logged_on) = Peer::logged_on("serial", &settings);
    assert_eq!((logged_on.address_types.as_slice(), logged_on.credit), (["SERIAL".to_owned()].as_slice(), 1));
    wait_offline(&mut peer, false);
    (peer, far, device)
}

fn wait_offline(peer: &mut Peer, offline: bool) -> String {
    peer.wait_for(|said| match said {
        FromWorker::Row { update, .. } if update.offline == Some(offline) => Ok(update.text.unwrap_or_default()),
        other => Err(other),
    })
}

/// The next section that begins; the peer grants it.
fn wait_section(peer: &mut Peer) -> u64 {
    peer.wait_for(|said| match said {
        FromWorker::CriticalBegin { section, reason } => {
            assert!(reason.starts_with("receiving from /dev/pts/"), "{reason}");
            Ok(section)
        }
        other => Err(other),
    })
}

fn wait_section_end(peer: &mut Peer, section: u64) {
    peer.wait_for(|said| if said == (FromWorker::CriticalEnd { section }) { Ok(()) } else { Err(said) });
}

#[test]
fn each_frame_becomes_a_message_when_the_section_is_over() {
    let (mut peer, mut far, _device) = on_line("from = 'scales@b.test'");
    far.write_all(b"12.5 kg\r\n13.0 kg\r\n").unwrap();
    let section = wait_section(&mut peer);
    wait_section_end(&mut peer, section);
    let received = peer.wait_received(2);
    let content = String::from_utf8(received[1].content.clone()).unwrap();
    assert!(content.contains("\r\nSubject: Received by under-test\r\n"), "{content}");
    assert!(content.ends_with("\r\n\r\n13.0 kg\r\n"), "{content}");
    let envelope = &received[0].envelope;
    assert_eq!((envelope.sender.as_str(), envelope.recipients[0].address.text()), ("scales@b.test", "ops@b.test"));
    peer.log_off();
}

#[test]
fn a_frame_without_an_end_is_kept_and_marked() {
    let (mut peer, mut far, _device) = on_line("framing = 'stx-etx'\ngap = '20ms'\ncritical = 'never'");
    far.write_all(b"\x02half").unwrap();
    let content = String::from_utf8(peer.wait_received(1)[0].content.clone()).unwrap();
    assert!(content.contains("X-Serial-Damage: incomplete") && content.ends_with("\r\n\r\nhalf\r\n"), "{content}");
}

#[test]
fn a_refused_frame_is_offered_again() {
    let (mut peer, mut far, _device) = on_line("critical = 'never'");
    let text = "Spool is full".to_owned();
    peer.refusal = Some(Refusal { temporary: true, enhanced: "4.3.1".to_owned(), text });
    far.write_all(b"only once\n").unwrap();
    peer.wait_for(|said| match said {
        FromWorker::Row { update, .. } if update.text.as_ref().is_some_and(|text| text.contains("Spool is full")) => {
            Ok(())
        }
        other => Err(other),
    });
    peer.refusal = None;
    let received = peer.wait_received(2);
    assert!(received[1].content.ends_with(b"only once\r\n"));
}

#[test]
fn a_message_goes_out_framed_and_its_acknowledgement_counts() {
    let (mut peer, mut far, device) = on_line("framing = 'stx-etx'\nack = true\nack_timeout = '30s'");
    for (answer, delivered) in [(0x06, true), (0x15, false)] {
        peer.submit(answer, "s@d", &["SERIAL:scales"], b"Subject: x\r\n\r\ntare\x02");
        let mut sent = [0; 7];
        far.read_exact(&mut sent).unwrap();
        assert_eq!(&sent, b"\x02tare\x10\x02");
        far.read_exact(&mut sent[..1]).unwrap();
        assert_eq!(sent[0], 0x03);
        far.write_all(&[u8::try_from(answer).unwrap()]).unwrap();
        let (result, outcomes) = peer.finished(answer);
        assert_eq!(result, SubmitResult::Done);
        assert_eq!(matches!(&outcomes[&0], Outcome::Delivered(_)), delivered, "{outcomes:?}");
        assert_eq!(outcomes[&0].reply().remote, device);
    }
    assert!(peer.received.is_empty(), "an answer is no message");
}

#[test]
fn without_an_answer_a_message_is_deferred() {
    let (mut peer, _far, _device) = on_line("ack = true\nack_timeout = '1ms'");
    let (_, outcomes) = peer.deliver("s@d", &["SERIAL:x"], b"\r\nhello\r\n");
    assert!(matches!(&outcomes[&0], Outcome::Deferred(reply) if reply.text.contains("No answer")), "{outcomes:?}");
}

#[test]
fn a_device_that_goes_away_makes_the_provider_offline() {
    let (mut peer, far, device) = on_line("critical = 'always'");
    let section = wait_section(&mut peer);
    drop(far);
    let text = wait_offline(&mut peer, true);
    assert!(text.contains(&device) && text.contains("cannot be used"), "{text}");
    let (_, outcomes) = peer.deliver("s@d", &["SERIAL:x"], b"\r\nhello\r\n");
    assert!(matches!(&outcomes[&0], Outcome::Deferred(reply) if reply.text.contains("not there")), "{outcomes:?}");
    assert!(section > 0);
    peer.log_off();
}

#[test]
fn what_is_no_line_is_said_to_be_none() {
    let (mut peer, _) = Peer::logged_on("serial", "device = '/dev/null'");
    assert!(wait_offline(&mut peer, true).contains("no serial line"));
}

#[test]
fn a_section_that_is_always_wanted_begins_again_after_its_time() {
    let (mut peer, _far, _device) = on_line("critical = 'always'");
    let first = wait_section(&mut peer);
    peer.say(&ToWorker::CriticalEnded { up_to: first, why: "its time is up".to_owned() });
    let second = wait_section(&mut peer);
    assert!(second > first);
    // Only the second one is ended by the worker: the first one was over.
    peer.say(&ToWorker::Logoff { hurry: false });
    wait_section_end(&mut peer, second);
}

#[test]
fn wrong_settings_are_named() {
    let mut peer = Peer::start("serial", "device = '/dev/ttyS0'\nframing = 'morse'\nbaud = 1\nack_byte = 21");
    let error = peer.wait_for(|said| match said {
        FromWorker::LogonFailed(LogonError::Unconfigured(error)) => Ok(error),
        other => Err(other),
    });
    assert!(["framing", "baud", "nak_byte"].iter().all(|key| error.contains(key)), "{error}");
}
