//! Mail loops: a message that has come through too many hosts goes round in circles.

use memchr::memchr;
use spooler_protocol::to_worker::Refusal;

/// `Received:` fields of a message that are still believed (RFC 5321 6.3 asks for at least 100 to be allowed).
const HOPS_MAX: usize = 100;

/// Refuses a message whose header has too many `Received:` fields. A header that goes on behind `start` is not looked at further.
///
/// # Errors
/// The refusal, for good.
pub(crate) fn check(start: &[u8]) -> Result<(), Refusal> {
    let hops = header_lines(start).filter(|line| is_received(line)).count();
    if hops <= HOPS_MAX {
        return Ok(());
    }
    Err(refusal())
}

/// What the sender of such a message is told.
pub(crate) fn refusal() -> Refusal {
    let text = format!("The message has come through more than {HOPS_MAX} hosts: it goes round in circles");
    Refusal { temporary: false, enhanced: "5.4.6".to_owned(), text }
}

fn header_lines(start: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = start;
    std::iter::from_fn(move || {
        let end = memchr(b'\n', rest)?;
        let (line, tail) = rest.split_at(end + 1);
        rest = tail;
        (!matches!(line, b"\n" | b"\r\n")).then_some(line)
    })
}

fn is_received(line: &[u8]) -> bool {
    line.get(..9).is_some_and(|name| name.eq_ignore_ascii_case(b"received:"))
}

/// A fuzz target: a header of any kind has as many hops as lines that begin so, wherever it ends.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(input: &[u8]) {
    let head = memchr::memmem::find(input, b"\n\n").map_or(input, |end| input.get(..end).unwrap_or_default());
    let lines = head.split(|byte| *byte == b'\n').take_while(|line| !matches!(*line, b"" | b"\r"));
    let whole = lines.filter(|line| line.len() >= 9 && line.to_ascii_lowercase().starts_with(b"received:")).count();
    match check(input) {
        // The last line may lack its end; it is not looked at then.
        Err(refusal) => assert!(whole > HOPS_MAX && !refusal.temporary),
        Ok(()) => assert!(whole <= HOPS_MAX + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_broken_and_a_long_way_is_not() {
        let hops =
            |count: usize| format!("{}\r\nReceived: in the body\r\n", "received: by x\r\n\tfolded\r\n".repeat(count));
        assert!(check(hops(100).as_bytes()).is_ok());
        assert_eq!(check(hops(101).as_bytes()).unwrap_err().enhanced, "5.4.6");
        assert!(check(b"").is_ok());
    }
}
