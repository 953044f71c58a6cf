//! A message from standard input.

use std::io::{BufRead, Read};

use crate::client::failure::Failure;

/// Bytes that are taken from standard input; what the supervisor takes is less.
const INPUT_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Reads to the end, or to a line with a dot alone (`.` LF or `.` CRLF) unless `ignore_dots` is set.
pub(crate) fn read(input: &mut dyn BufRead, ignore_dots: bool) -> Result<Vec<u8>, Failure> {
    let mut message = Vec::new();
    let failed = |error| Failure::Input("The message on standard input".to_owned(), error);
    if ignore_dots {
        input.take(INPUT_BYTES_MAX as u64 + 1).read_to_end(&mut message).map_err(failed)?;
    } else {
        while message.len() <= INPUT_BYTES_MAX {
            let begin = message.len();
            let room = (INPUT_BYTES_MAX + 1 - begin) as u64;
            let count = input.take(room).read_until(b'\n', &mut message).map_err(failed)?;
            let dot = matches!(message.get(begin..), Some(b".\n" | b".\r\n"));
            if dot {
                message.truncate(begin);
            }
            if dot || count == 0 {
                break;
            }
        }
    }
    if message.len() > INPUT_BYTES_MAX {
        return Err(Failure::Data(format!("The message is larger than {INPUT_BYTES_MAX} bytes")));
    }
    Ok(message)
}

/// Removes NUL bytes, which no mail format allows (RFC 5321 4.5.2), and counts them. Cron and at cannot encode what a job prints.
pub(crate) fn remove_nul(message: &mut Vec<u8>) -> usize {
    let before = message.len();
    if memchr::memchr(0, message).is_some() {
        message.retain(|byte| *byte != 0);
    }
    before - message.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_bytes_are_removed_and_counted() {
        let mut message = b"Subject: a\0\n\n\0b\n".to_vec();
        assert_eq!((remove_nul(&mut message), message.as_slice()), (2, &b"Subject: a\n\nb\n"[..]));
        assert_eq!(remove_nul(&mut message), 0);
    }

    #[test]
    fn a_dot_alone_ends_the_message_unless_it_is_ignored() {
        for (text, expected) in [
            ("a\n.\nb\n", "a\n"),
            ("a\r\n.\r\nb", "a\r\n"),
            ("a\n..\n.b\n. \n", "a\n..\n.b\n. \n"),
            ("a\n.", "a\n."),
            (".\n", ""),
            ("", ""),
        ] {
            assert_eq!(read(&mut text.as_bytes(), false).unwrap(), expected.as_bytes(), "{text:?}");
            assert_eq!(read(&mut text.as_bytes(), true).unwrap(), text.as_bytes());
        }
    }
}
