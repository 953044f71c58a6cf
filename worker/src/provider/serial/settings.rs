//! What the configuration says.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Group;
use spooler_protocol::limits::RECIPIENTS_MAX;
use spooler_protocol::message::Address;
use spooler_protocol::settings::Settings as Reader;

use super::framing::Framing;
use super::port::{LineRule, Parity};
use crate::sandbox::Needs;

/// A frame is never longer, whatever is configured: it is held in memory.
const FRAME_BYTES_MAX: u64 = 64 << 20;

/// To whom serial lines belong.
const LINE_GROUPS: [&str; 2] = ["dialout", "uucp"];

/// When the line has a critical section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CriticalRule {
    /// From the first byte of a frame until the line is silent again.
    WhileReceiving,
    /// As long as the device is open.
    Always,
    /// Never.
    Never,
}

/// The bytes that answer a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AckRule {
    pub(super) ack: u8,
    pub(super) nak: u8,
    pub(super) timeout: Duration,
}

/// The settings of a serial line.
#[derive(Clone, Debug)]
pub struct SerialSettings {
    pub(super) device: PathBuf,
    pub(super) line: LineRule,
    pub(super) framing: Framing,
    pub(super) frame_max: usize,
    pub(super) gap: Duration,
    pub(super) critical: CriticalRule,
    pub(super) to: Vec<Address>,
    pub(super) from: String,
    pub(super) subject: String,
    pub(super) text: bool,
    pub(super) whole_message: bool,
    pub(super) ack: Option<AckRule>,
}

impl SerialSettings {
    /// The device, and the groups that may open it: that which it has now, and those that lines have on most systems.
    pub(super) fn needs(&self) -> Needs {
        let present = std::fs::metadata(&self.device).ok().map(|device| device.gid());
        let usual = LINE_GROUPS.iter().filter_map(|name| Some(Group::from_name(name).ok()??.gid.as_raw()));
        // A device that belongs to root alone stays root's.
        let groups = present.into_iter().chain(usual).filter(|group| *group != 0).collect();
        Needs { devices: vec![self.device.clone()], groups, ..Needs::default() }
    }
}

pub(super) fn read(settings: &mut Reader) -> SerialSettings {
    let device = PathBuf::from(settings.required_string("device", "the line, such as \"/dev/ttyS0\""));
    let line = read_line(settings);
    let framings =
        [("line", Framing::Line), ("stx-etx", Framing::StxEtx), ("length", Framing::Length), ("idle", Framing::Idle)];
    let framing = settings.choice("framing", "line", &framings).unwrap_or(Framing::Line);
    let frame_max = settings.size("frame_max", "1M");
    if !(1..=FRAME_BYTES_MAX).contains(&frame_max) {
        settings.mistake("frame_max", "is out of range; allowed is 1 byte to 64M");
    }
    let rules = [
        ("while-receiving", CriticalRule::WhileReceiving),
        ("always", CriticalRule::Always),
        ("never", CriticalRule::Never),
    ];
    let gap = if framing == Framing::Idle { "100ms" } else { "2s" };
    SerialSettings {
        device,
        line,
        framing,
        frame_max: usize::try_from(frame_max.clamp(1, FRAME_BYTES_MAX)).unwrap_or(usize::MAX),
        gap: settings.duration("gap", gap, Duration::from_millis(1)..=Duration::from_secs(3600)),
        critical: settings.choice("critical", "while-receiving", &rules).unwrap_or(CriticalRule::WhileReceiving),
        to: read_recipients(settings),
        from: read_sender(settings),
        subject: read_subject(settings),
        text: settings.choice("content", "binary", &[("binary", false), ("text", true)]).unwrap_or(false),
        whole_message: settings.choice("send", "body", &[("body", false), ("message", true)]).unwrap_or(false),
        ack: read_ack(settings),
    }
}

fn read_line(settings: &mut Reader) -> LineRule {
    let parities = [("none", Parity::None), ("even", Parity::Even), ("odd", Parity::Odd)];
    LineRule {
        baud: settings.integer("baud", 115_200, 50..=4_000_000),
        data_bits: settings.integer("data_bits", 8, 5..=8),
        parity: settings.choice("parity", "none", &parities).unwrap_or(Parity::None),
        stop_bits: settings.integer("stop_bits", 1, 1..=2),
    }
}

fn read_recipients(settings: &mut Reader) -> Vec<Address> {
    let texts = settings.strings("to", &[]);
    if texts.len() > RECIPIENTS_MAX {
        settings.mistake("to", format!("has {} recipients; allowed are up to {RECIPIENTS_MAX}", texts.len()));
    }
    let mut addresses = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(address) => addresses.push(address),
            Err(error) => settings.mistake("to", format!("has {text:?}: {error}")),
        }
    }
    addresses
}

fn read_sender(settings: &mut Reader) -> String {
    let from = settings.string("from", "");
    if let Some(error) = from.parse::<Address>().err().filter(|_| !from.is_empty()) {
        settings.mistake("from", error.to_string());
    }
    from
}

fn read_subject(settings: &mut Reader) -> String {
    let subject = settings.string("subject", "Received by {provider}");
    if !subject.chars().all(|c| c.is_ascii() && !c.is_control()) || subject.len() > 200 {
        settings.mistake("subject", "must be up to 200 ASCII characters on one line");
    }
    subject
}

fn read_ack(settings: &mut Reader) -> Option<AckRule> {
    let wanted = settings.boolean("ack", false);
    let mut byte = |key: &str, default| u8::try_from(settings.integer(key, default, 0..=255)).unwrap_or_default();
    let (ack, nak) = (byte("ack_byte", 0x06), byte("nak_byte", 0x15));
    let timeout = settings.silence("ack_timeout", "5s", Duration::from_millis(1)..=Duration::from_secs(3600));
    if ack == nak {
        settings.mistake("nak_byte", "is the same as ack_byte");
    }
    wanted.then_some(AckRule { ack, nak, timeout })
}
