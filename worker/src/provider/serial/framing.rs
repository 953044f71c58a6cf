//! Where a frame begins and ends in the bytes of a line. Pure.
//!
//! | framing | a frame is | escaped |
//! |---|---|---|
//! | `line` | what stands before a CR, an LF or both; empty lines are none | nothing: CR and LF cannot be in a frame |
//! | `stx-etx` | what stands between STX (02) and ETX (03) | STX, ETX and DLE (10) inside have a DLE in front |
//! | `length` | as many bytes as four bytes in front say, the first the highest | nothing |
//! | `idle` | what comes without a pause | nothing |
//!
//! A pause ends a frame of any kind. In `idle` that is its end; in the others the frame is incomplete. What came is not thrown away: the
//! line cannot send it again. A frame that grows beyond the limit is cut, and the rest of it is counted.

/// Begins a frame of `stx-etx`.
const STX: u8 = 0x02;
/// Ends it.
const ETX: u8 = 0x03;
/// Stands before a byte that is to be taken as it is.
const DLE: u8 = 0x10;
/// Bytes in front of a frame of `length`.
const LENGTH_BYTES: usize = 4;

/// How frames are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Line,
    StxEtx,
    Length,
    Idle,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    /// The line fell silent, or the next frame began, before its end.
    Incomplete,
    /// It was longer than the limit; so many bytes are missing.
    Cut(u64),
}

/// What came between two borders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    pub(super) damage: Option<Damage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between frames.
    Outside,
    /// In the length in front of a frame.
    Length { value: u32, have: usize },
    /// In a frame; for `length`, so many bytes are still to come.
    Inside { missing: u32 },
    /// Behind a DLE.
    Escaped,
}

/// Takes bytes and finds frames.
#[derive(Debug)]
pub(super) struct Deframer {
    framing: Framing,
    bytes_max: usize,
    state: State,
    bytes: Vec<u8>,
    lost: u64,
}

impl Deframer {
    pub(super) fn new(framing: Framing, bytes_max: usize) -> Self {
        Self { framing, bytes_max, state: State::Outside, bytes: Vec::new(), lost: 0 }
    }

    /// Whether a frame has begun.
    pub(super) fn is_inside(&self) -> bool {
        self.state != State::Outside
    }

    /// Takes one byte; a frame, if it ends with it.
    pub(super) fn push(&mut self, byte: u8) -> Option<Frame> {
        match self.framing {
            Framing::Line => match byte {
                b'\r' | b'\n' if self.state == State::Outside => None,
                b'\r' | b'\n' => Some(self.end(None)),
                byte => self.keep(byte),
            },
            Framing::StxEtx => self.push_escaped(byte),
            Framing::Length => self.push_counted(byte),
            Framing::Idle => self.keep(byte),
        }
    }

    fn push_escaped(&mut self, byte: u8) -> Option<Frame> {
        match (self.state, byte) {
            (State::Outside, STX) => {
                self.state = State::Inside { missing: 0 };
                None
            }
            // Noise between frames.
            (State::Outside, _) => None,
            (State::Escaped, byte) => self.keep(byte),
            (State::Inside { .. } | State::Length { .. }, DLE) => {
                self.state = State::Escaped;
                None
            }
            (State::Inside { .. } | State::Length { .. }, ETX) => Some(self.end(None)),
            (State::Inside { .. } | State::Length { .. }, STX) => {
                let frame = self.end(Some(Damage::Incomplete));
                self.state = State::Inside { missing: 0 };
                Some(frame)
            }
            (State::Inside { .. } | State::Length { .. }, byte) => self.keep(byte),
        }
    }

    fn push_counted(&mut self, byte: u8) -> Option<Frame> {
        let (value, have) = match self.state {
            State::Inside { missing } => {
                self.keep(byte);
                self.state = State::Inside { missing: missing.saturating_sub(1) };
                return (missing <= 1).then(|| self.end(None));
            }
            State::Length { value, have } => (value, have),
            State::Outside | State::Escaped => (0, 0),
        };
        let (value, have) = (value << 8 | u32::from(byte), have + 1);
        self.state = match (have, value) {
            (LENGTH_BYTES, 0) => State::Outside,
            (LENGTH_BYTES, missing) => State::Inside { missing },
            _ => State::Length { value, have },
        };
        None
    }

    fn keep(&mut self, byte: u8) -> Option<Frame> {
        if self.bytes.len() < self.bytes_max {
            self.bytes.push(byte);
        } else {
            self.lost += 1;
        }
        self.state = State::Inside { missing: 0 };
        None
    }

    /// The line has fallen silent: what has begun ends here.
    pub(super) fn pause(&mut self) -> Option<Frame> {
        if !self.is_inside() {
            return None;
        }
        let damage = if self.framing == Framing::Idle { None } else { Some(Damage::Incomplete) };
        let frame = self.end(damage);
        (!frame.bytes.is_empty()).then_some(frame)
    }

    fn end(&mut self, damage: Option<Damage>) -> Frame {
        self.state = State::Outside;
        let lost = std::mem::take(&mut self.lost);
        let damage = if lost > 0 { Some(Damage::Cut(lost)) } else { damage };
        Frame { bytes: std::mem::take(&mut self.bytes), damage }
    }
}

/// A frame as it goes out.
pub(super) fn framed(framing: Framing, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + LENGTH_BYTES);
    match framing {
        Framing::Line => {
            for line in content.split(|byte| *byte == b'\n') {
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                if !line.is_empty() {
                    out.extend_from_slice(line);
                    out.extend_from_slice(b"\r\n");
                }
            }
        }
        Framing::StxEtx => {
            out.push(STX);
            for &byte in content {
                if matches!(byte, STX | ETX | DLE) {
                    out.push(DLE);
                }
                out.push(byte);
            }
            out.push(ETX);
        }
        Framing::Length => {
            out.extend_from_slice(&u32::try_from(content.len()).unwrap_or(u32::MAX).to_be_bytes());
            out.extend_from_slice(content);
        }
        Framing::Idle => out.extend_from_slice(content),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(deframer: &mut Deframer, bytes: &[u8]) -> Vec<Frame> {
        bytes.iter().filter_map(|byte| deframer.push(*byte)).collect()
    }

    fn whole(bytes: &[u8]) -> Frame {
        Frame { bytes: bytes.to_vec(), damage: None }
    }

    #[test]
    fn lines_end_with_any_line_end_and_empty_ones_are_none() {
        let mut deframer = Deframer::new(Framing::Line, 100);
        assert_eq!(
            frames(&mut deframer, b"\r\none\r\ntwo\n\nthree\rfo"),
            [whole(b"one"), whole(b"two"), whole(b"three")]
        );
        assert!(deframer.is_inside());
        let partial = Frame { bytes: b"fo".to_vec(), damage: Some(Damage::Incomplete) };
        assert_eq!((deframer.pause(), deframer.pause()), (Some(partial), None));
    }

    #[test]
    fn every_byte_survives_every_framing_that_can_carry_it() {
        let content: Vec<u8> = (0..=255).chain([STX, ETX, DLE, DLE]).collect();
        for framing in [Framing::StxEtx, Framing::Length, Framing::Idle] {
            let mut deframer = Deframer::new(framing, 1000);
            let mut found = frames(&mut deframer, &framed(framing, &content));
            found.extend(deframer.pause());
            assert_eq!(found, [whole(&content)], "{framing:?}");
        }
        let mut deframer = Deframer::new(Framing::Line, 1000);
        assert_eq!(frames(&mut deframer, &framed(Framing::Line, b"a\nb\r\n")), [whole(b"a"), whole(b"b")]);
    }

    #[test]
    fn noise_between_frames_is_nothing_and_a_new_frame_ends_an_old_one() {
        let mut deframer = Deframer::new(Framing::StxEtx, 100);
        let found = frames(&mut deframer, b"noise\x02half\x02whole\x03more noise");
        let half = Frame { bytes: b"half".to_vec(), damage: Some(Damage::Incomplete) };
        assert_eq!(found, [half, whole(b"whole")]);
        assert!(!deframer.is_inside());
    }

    #[test]
    fn a_frame_beyond_the_limit_is_cut_and_the_next_one_is_whole() {
        let mut deframer = Deframer::new(Framing::Length, 3);
        let found = frames(&mut deframer, b"\0\0\0\x05hello\0\0\0\0\0\0\0\x02ok");
        assert_eq!(found, [Frame { bytes: b"hel".to_vec(), damage: Some(Damage::Cut(2)) }, whole(b"ok")]);
        // An absurd length costs no memory, and the next pause ends it.
        assert_eq!(frames(&mut deframer, b"\xff\xff\xff\xff12345"), []);
        assert_eq!(deframer.pause(), Some(Frame { bytes: b"123".to_vec(), damage: Some(Damage::Cut(2)) }));
        assert_eq!(frames(&mut deframer, b"\0\0\0\x02ok"), [whole(b"ok")]);
    }
}
