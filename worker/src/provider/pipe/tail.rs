//! The last lines of what a program says, in bounded memory: pure.

/// Bytes that are kept.
const TAIL_BYTES_MAX: usize = 1024;

/// The end of a stream.
#[derive(Debug, Default)]
pub(super) struct Tail {
    bytes: Vec<u8>,
    cut: bool,
}

impl Tail {
    /// Takes the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let keep_from = piece.len().saturating_sub(TAIL_BYTES_MAX);
        self.bytes.extend_from_slice(piece.get(keep_from..).unwrap_or_default());
        let excess = self.bytes.len().saturating_sub(TAIL_BYTES_MAX);
        self.cut = self.cut || keep_from > 0 || excess > 0;
        self.bytes.drain(..excess);
    }

    /// The last lines as a text, without control characters; a line whose beginning is lost is left out if another one follows.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.bytes);
        let mut text = text.trim_end();
        if self.cut
            && let Some((_, whole)) = text.split_once('\n')
        {
            text = whole;
        }
        let clean = |line: &str| line.trim_end().replace(|c: char| c.is_control() && c != '\t', "?");
        text.trim().lines().map(clean).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_lines_are_kept() {
        let mut tail = Tail::default();
        for number in 0..10_000 {
            tail.push(format!("line {number}\r\n").as_bytes());
        }
        let text = tail.text();
        assert!(text.len() <= TAIL_BYTES_MAX && text.starts_with("line 99") && text.ends_with("line 9999"), "{text}");
    }

    #[test]
    fn a_flood_in_one_piece_is_cut_and_cleaned() {
        let mut tail = Tail::default();
        tail.push(&[b'x'; 100_000]);
        tail.push(b"\x1b[31m\xff\n");
        let text = tail.text();
        assert!(text.ends_with("x?[31m\u{fffd}"), "{text}");
        assert_eq!(Tail::default().text(), "");
    }
}
