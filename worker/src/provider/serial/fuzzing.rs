//! Bytes of a line of any kind: what becomes frames and messages, and back.

use spooler_protocol::fuzzing::{assert_clean, sections};
use spooler_protocol::settings::Settings as Reader;

use super::framing::{Damage, Deframer, Frame, Framing, framed};
use super::letter::{self, Occasion};
use super::settings::{SerialSettings, read};

const OCCASION: Occasion<'_> = Occasion {
    provider: "scales",
    hostname: "spooler.test",
    date: "Tue, 3 Nov 2026 10:00:00 +0100",
    unique: "serial.1.2",
};

/// Input: the framing (`l` line, `s` STX and ETX, `n` length, `i` idle), `t` for text, and `frame_max` in digits; then the bytes, in
/// which `FF` is a pause.
pub(crate) fn line(input: &[u8]) {
    let [how, bytes] = sections(input);
    let framing = match how.first() {
        Some(b's') => Framing::StxEtx,
        Some(b'n') => Framing::Length,
        Some(b'i') => Framing::Idle,
        _ => Framing::Line,
    };
    let digits: String = how.iter().map(|byte| char::from(*byte)).filter(char::is_ascii_digit).take(4).collect();
    let frame_max = digits.parse().unwrap_or(64).clamp(1, 10_000);
    let frames = take_in(framing, frame_max, bytes);
    let content = if how.contains(&b't') { "text" } else { "binary" };
    let table = format!("device = '/dev/ttyS0'\nto = ['a@b.test', 'FAX:+1']\ncontent = '{content}'");
    let settings = read(&mut Reader::new(table.parse().expect("a table")));
    for frame in &frames {
        assert!(frame.bytes.len() <= frame_max);
        carry(frame, &settings, framing);
    }
    // The way back takes any message: it gives bytes, or says why not.
    for whole in [true, false] {
        if let Ok(content) = letter::content(bytes, whole) {
            assert!(content.len() <= bytes.len());
        }
    }
}

fn take_in(framing: Framing, frame_max: usize, bytes: &[u8]) -> Vec<Frame> {
    let (mut deframer, mut frames, mut pushed) = (Deframer::new(framing, frame_max), Vec::new(), 0);
    for &byte in bytes {
        if byte == 0xff {
            frames.extend(deframer.pause());
            assert!(!deframer.is_inside());
        } else {
            pushed += 1;
            frames.extend(deframer.push(byte));
        }
    }
    frames.extend(deframer.pause());
    let kept: u64 = frames.iter().map(|frame| frame.bytes.len() as u64).sum();
    let cut: u64 = frames.iter().map(|frame| if let Some(Damage::Cut(lost)) = frame.damage { lost } else { 0 }).sum();
    assert!(kept + cut <= pushed, "more came out than went in");
    frames
}

/// A frame as a message, as a frame again, and back.
fn carry(frame: &Frame, settings: &SerialSettings, framing: Framing) {
    let (message, _) = letter::message(frame, settings, &OCCASION);
    assert_clean("a message of a frame", &message);
    assert!(message.ends_with(b"\r\n") && message.split(|byte| *byte == b'\n').all(|line| line.len() <= 999));
    let damaged = memchr::memmem::find(&message, b"\r\nX-Serial-Damage: ").is_some();
    assert_eq!(damaged, frame.damage.is_some());
    let content = letter::content(&message, false).expect("what we make we can read");
    let head = memchr::memmem::find(&message, b"\r\n\r\n").and_then(|end| message.get(..end));
    if head.is_some_and(|head| head.ends_with(b"base64")) {
        assert_eq!(content, frame.bytes);
    }
    if framing == Framing::Line || content.is_empty() {
        return;
    }
    let mut deframer = Deframer::new(framing, content.len());
    let mut found: Vec<Frame> = framed(framing, &content).iter().filter_map(|byte| deframer.push(*byte)).collect();
    found.extend(deframer.pause());
    assert_eq!(found, [Frame { bytes: content, damage: None }]);
}
