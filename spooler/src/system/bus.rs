//! The few words of D-Bus that [`super::logind`] needs: calls whose arguments are texts, their answers, and signals. Private, and no more
//! than that: a whole D-Bus library is tens of packages for four calls.
//!
//! ```text
//!   connect ─▶ AUTH EXTERNAL ─▶ NEGOTIATE_UNIX_FD ─▶ BEGIN ─▶ call, next, call, next, …
//! ```
//!
//! What comes in is checked at every step (D-Bus specification 0.43, "Marshaling" and "Message Protocol"): lengths before they are
//! used, texts for UTF-8. A peer that breaks the rules is an error, which ends the connection.

use std::io::{Error, ErrorKind, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// Bytes of a message that is read. What logind says is far shorter.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a line while the connection is being authenticated.
const LINE_BYTES_MAX: usize = 1024;
/// Descriptors that may come with a message.
const DESCRIPTORS_MAX: usize = 4;
const FIXED_HEADER_BYTES: usize = 16;

const METHOD_CALL: u8 = 1;
const FIELD_PATH: u8 = 1;
const FIELD_INTERFACE: u8 = 2;
const FIELD_MEMBER: u8 = 3;
const FIELD_REPLY_SERIAL: u8 = 5;
const FIELD_DESTINATION: u8 = 6;
const FIELD_SENDER: u8 = 7;
const FIELD_SIGNATURE: u8 = 8;
const FIELD_DESCRIPTORS: u8 = 9;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The answer to a call.
    Answer,
    /// A call went wrong.
    Failed,
    /// A signal.
    Signal,
    /// Something else, such as a call from somebody: not answered.
    Other,
}

/// A message that came.
#[derive(Debug)]
pub(super) struct Word {
    pub(super) kind: Kind,
    /// For an answer: the number of the call.
    pub(super) reply_to: u32,
    pub(super) sender: String,
    pub(super) interface: String,
    pub(super) member: String,
    signature: String,
    body: Vec<u8>,
    big_endian: bool,
    /// So many descriptors came with it. They may be here before it is read, with what was sent before it.
    descriptors: u32,
    /// The first of them.
    pub(super) descriptor: Option<OwnedFd>,
}

impl Word {
    /// The first value of the body if it is a truth value, also one inside a variant.
    pub(super) fn truth(&self) -> Option<bool> {
        let mut reader = Reader { bytes: &self.body, at: 0, big_endian: self.big_endian };
        let signature = match self.signature.as_str() {
            "v" => reader.signature().ok()?,
            _ => self.signature.clone(),
        };
        match signature.starts_with('b').then(|| reader.u32()) {
            Some(Ok(value @ (0 | 1))) => Some(value == 1),
            _ => None,
        }
    }

    /// The first value of the body if it is a text.
    pub(super) fn text(&self) -> Option<String> {
        let mut reader = Reader { bytes: &self.body, at: 0, big_endian: self.big_endian };
        self.signature.starts_with('s').then(|| reader.text().ok()).flatten()
    }
}

/// Whose method is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'a> {
    pub(super) destination: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
}

/// A connection to a message bus.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    unread: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Bus {
    /// Connects and authenticates as the user of this process. The first call has to be `Hello`.
    ///
    /// # Errors
    /// If there is no bus, or it does not want us.
    pub(super) fn connect(socket: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        let mut bus = Self { stream, serial: 0, unread: Vec::new(), descriptors: Vec::new() };
        let uid: String =
            rustix::process::geteuid().as_raw().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
        bus.stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes())?;
        bus.expect("OK ")?;
        bus.stream.write_all(b"NEGOTIATE_UNIX_FD\r\n")?;
        bus.expect("AGREE_UNIX_FD")?;
        bus.stream.write_all(b"BEGIN\r\n")?;
        Ok(bus)
    }

    /// Nothing is waited for longer than this; `None` is for ever.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn set_patience(&self, patience: Option<std::time::Duration>) -> std::io::Result<()> {
        self.stream.set_read_timeout(patience)
    }

    /// Calls a method with texts as arguments. Gives the number that its answer will name.
    ///
    /// # Errors
    /// If the bus is gone.
    pub(super) fn call(&mut self, target: Target<'_>, member: &str, arguments: &[&str]) -> std::io::Result<u32> {
        self.serial += 1;
        self.stream.write_all(&call_message(self.serial, target, member, arguments))?;
        Ok(self.serial)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// If the bus is gone, says what cannot be understood, or is silent for longer than the patience.
    pub(super) fn next(&mut self) -> std::io::Result<Word> {
        self.fill(FIXED_HEADER_BYTES)?;
        let (big_endian, whole) = whole_length(&self.unread)?;
        self.fill(whole)?;
        let message: Vec<u8> = self.unread.drain(..whole).collect();
        let mut word = read_message(&message, big_endian)?;
        let own = usize::try_from(word.descriptors).unwrap_or(usize::MAX).min(self.descriptors.len());
        word.descriptor = self.descriptors.drain(..own).next();
        Ok(word)
    }

    /// Reads until so many bytes are there.
    fn fill(&mut self, wanted: usize) -> std::io::Result<()> {
        while self.unread.len() < wanted {
            self.receive()?;
        }
        Ok(())
    }

    fn receive(&mut self) -> std::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut buffer = [0; 4096];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg(&self.stream, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        self.descriptors.truncate(DESCRIPTORS_MAX);
        if received.bytes == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.unread.extend_from_slice(buffer.get(..received.bytes).unwrap_or_default());
        Ok(())
    }

    /// Reads one line and wants it to begin like this.
    fn expect(&mut self, beginning: &str) -> std::io::Result<()> {
        let end = loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                break end;
            }
            if self.unread.len() > LINE_BYTES_MAX {
                return Err(odd("a line without end"));
            }
            self.receive()?;
        };
        let line: Vec<u8> = self.unread.drain(..end + 2).collect();
        if line.starts_with(beginning.as_bytes()) { Ok(()) } else { Err(odd("the bus refuses this user")) }
    }
}

fn odd(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("D-Bus: {what}"))
}

/// The byte order and the length of the message that begins here.
fn whole_length(start: &[u8]) -> std::io::Result<(bool, usize)> {
    let big_endian = match start.first() {
        Some(b'l') => false,
        Some(b'B') => true,
        _ => return Err(odd("a message in no byte order")),
    };
    let mut reader = Reader { bytes: start, at: 4, big_endian };
    let body = reader.length()?;
    reader.u32()?;
    let fields = reader.length()?;
    let whole = (FIXED_HEADER_BYTES + fields).next_multiple_of(8) + body;
    if whole > MESSAGE_BYTES_MAX {
        return Err(odd("a message that is too long"));
    }
    Ok((big_endian, whole))
}

fn read_message(message: &[u8], big_endian: bool) -> std::io::Result<Word> {
    let mut reader = Reader { bytes: message, at: 1, big_endian };
    let kind = match reader.byte()? {
        2 => Kind::Answer,
        3 => Kind::Failed,
        4 => Kind::Signal,
        _ => Kind::Other,
    };
    reader.at = 12;
    let end = FIXED_HEADER_BYTES + reader.length()?;
    let mut word = Word {
        kind,
        reply_to: 0,
        sender: String::new(),
        interface: String::new(),
        member: String::new(),
        signature: String::new(),
        body: message.get(end.next_multiple_of(8)..).unwrap_or_default().to_vec(),
        big_endian,
        descriptors: 0,
        descriptor: None,
    };
    while reader.at < end {
        reader.align(8);
        let field = reader.byte()?;
        let signature = reader.signature()?;
        match (field, signature.as_str()) {
            (FIELD_REPLY_SERIAL, "u") => word.reply_to = reader.u32()?,
            (FIELD_INTERFACE, "s") => word.interface = reader.text()?,
            (FIELD_MEMBER, "s") => word.member = reader.text()?,
            (FIELD_SENDER, "s") => word.sender = reader.text()?,
            (FIELD_DESCRIPTORS, "u") => word.descriptors = reader.u32()?,
            (FIELD_SIGNATURE, "g") => word.signature = reader.signature()?,
            (_, "s" | "o") => drop(reader.text()?),
            (_, "u") => drop(reader.u32()?),
            (_, "g") => drop(reader.signature()?),
            _ => return Err(odd("a header field of a type that no header has")),
        }
    }
    Ok(word)
}

/// Values in a message, at their alignment.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl Reader<'_> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> std::io::Result<&[u8]> {
        let end = self.at.saturating_add(length);
        let bytes = self.bytes.get(self.at..end).ok_or_else(|| odd("a value beyond the end of its message"))?;
        self.at = end;
        Ok(bytes)
    }

    fn byte(&mut self) -> std::io::Result<u8> {
        self.take(1)?.first().copied().ok_or_else(|| odd("a missing byte"))
    }

    fn u32(&mut self) -> std::io::Result<u32> {
        self.align(4);
        let big_endian = self.big_endian;
        let bytes = self.take(4)?.first_chunk().copied().unwrap_or_default();
        Ok(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    /// A length that a message can have.
    fn length(&mut self) -> std::io::Result<usize> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if length <= MESSAGE_BYTES_MAX { Ok(length) } else { Err(odd("a length that is too long")) }
    }

    fn text(&mut self) -> std::io::Result<String> {
        let length = self.length()?;
        self.string(length)
    }

    fn signature(&mut self) -> std::io::Result<String> {
        let length = usize::from(self.byte()?);
        self.string(length)
    }

    fn string(&mut self, length: usize) -> std::io::Result<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).map_err(|_| odd("a text that is not UTF-8"))?;
        if self.byte()? == 0 { Ok(text) } else { Err(odd("a text without its NUL")) }
    }
}

/// A method call, in little endian.
fn call_message(serial: u32, target: Target<'_>, member: &str, arguments: &[&str]) -> Vec<u8> {
    let mut body = Vec::new();
    arguments.iter().for_each(|argument| put_text(&mut body, argument));
    let mut fields = Vec::new();
    for (field, kind, value) in [
        (FIELD_PATH, b'o', target.path),
        (FIELD_INTERFACE, b's', target.interface),
        (FIELD_MEMBER, b's', member),
        (FIELD_DESTINATION, b's', target.destination),
    ] {
        pad(&mut fields, 8);
        fields.extend_from_slice(&[field, 1, kind, 0]);
        put_text(&mut fields, value);
    }
    if !arguments.is_empty() {
        pad(&mut fields, 8);
        fields.extend_from_slice(&[FIELD_SIGNATURE, 1, b'g', 0]);
        fields.push(u8::try_from(arguments.len()).unwrap_or(u8::MAX));
        fields.resize(fields.len() + arguments.len(), b's');
        fields.push(0);
    }
    let mut message = vec![b'l', METHOD_CALL, 0, 1];
    message.extend_from_slice(&length_of(&body));
    message.extend_from_slice(&serial.to_le_bytes());
    message.extend_from_slice(&length_of(&fields));
    message.extend(fields);
    pad(&mut message, 8);
    message.extend(body);
    message
}

fn length_of(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes()
}

fn pad(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    pad(bytes, 4);
    bytes.extend_from_slice(&length_of(text.as_bytes()));
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANAGER: Target<'_> =
        Target { destination: "org.freedesktop.login1", path: "/org/freedesktop/login1", interface: "a.b.Manager" };

    /// A call, read back as if it had come: its marks are those of a signal, which has the same layout.
    fn signal(arguments: &[&str]) -> Vec<u8> {
        let mut message = call_message(7, MANAGER, "PrepareForSleep", arguments);
        message[1] = 4;
        message
    }

    #[test]
    fn what_is_written_can_be_read() {
        for arguments in [[].as_slice(), &["one"], &["", "longer than eight bytes", "ü"]] {
            let message = signal(arguments);
            let (big_endian, whole) = whole_length(&message).unwrap();
            assert_eq!((big_endian, whole), (false, message.len()));
            let word = read_message(&message, big_endian).unwrap();
            assert_eq!(
                (word.kind, word.interface.as_str(), word.member.as_str()),
                (Kind::Signal, "a.b.Manager", "PrepareForSleep")
            );
            assert_eq!(word.text().as_deref(), arguments.first().copied());
            assert_eq!(word.truth(), None);
        }
    }

    #[test]
    fn a_truth_value_is_read_in_both_byte_orders_and_in_a_variant() {
        let word = |signature: &str, body: &[u8], big_endian| Word {
            kind: Kind::Signal,
            reply_to: 0,
            sender: String::new(),
            interface: String::new(),
            member: String::new(),
            signature: signature.to_owned(),
            body: body.to_vec(),
            big_endian,
            descriptors: 0,
            descriptor: None,
        };
        assert_eq!(word("b", &[1, 0, 0, 0], false).truth(), Some(true));
        assert_eq!(word("b", &[0, 0, 0, 1], true).truth(), Some(true));
        assert_eq!(word("v", &[1, b'b', 0, 0, 0, 0, 0, 0], false).truth(), Some(false));
        assert_eq!(word("v", &[1, b'u', 0, 0, 0, 0, 0, 0], false).truth(), None);
        assert_eq!(word("b", &[2, 0, 0, 0], false).truth(), None);
        assert_eq!(word("b", &[1, 0], false).truth(), None);
    }

    #[test]
    fn every_beginning_and_every_changed_byte_is_harmless() {
        let whole = signal(&["some text", "more"]);
        for end in 0..whole.len() {
            let _ = whole_length(&whole[..end]).and_then(|(big, _)| read_message(&whole[..end], big));
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 7, 0x7f, 0x80, 0xff] {
                let mut odd = whole.clone();
                odd[at] = byte;
                if let Ok((big_endian, length)) = whole_length(&odd) {
                    assert!(length <= MESSAGE_BYTES_MAX);
                    if let Ok(word) = read_message(&odd, big_endian) {
                        let _ = (word.truth(), word.text());
                    }
                }
            }
        }
    }

    #[test]
    fn a_descriptor_belongs_to_the_message_that_says_so() {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        use std::io::{IoSlice, Read};
        use std::os::fd::AsFd;

        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut bus = Bus { stream: ours, serial: 0, unread: Vec::new(), descriptors: Vec::new() };
        let plain = signal(&[]);
        let mut with_descriptor = plain.clone();
        with_descriptor.extend_from_slice(&[FIELD_DESCRIPTORS, 1, b'u', 0, 1, 0, 0, 0]);
        let fields = length_of(&with_descriptor[FIXED_HEADER_BYTES..]);
        with_descriptor[12..16].copy_from_slice(&fields);
        let (mut reading, writing) = std::io::pipe().unwrap();
        // Both are there before the first is read.
        (&theirs).write_all(&plain).unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let sent = [writing.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&sent)));
        sendmsg(&theirs, &[IoSlice::new(&with_descriptor)], &mut ancillary, SendFlags::empty()).unwrap();
        drop(writing);
        assert!(bus.next().unwrap().descriptor.is_none());
        let word = bus.next().unwrap();
        std::fs::File::from(word.descriptor.unwrap()).write_all(b"open").unwrap();
        let mut read = String::new();
        reading.read_to_string(&mut read).unwrap();
        assert_eq!(read, "open");
    }
}
