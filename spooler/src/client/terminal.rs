//! The terminal: how wide it is, whether it shows colours; and asking a person there, and not showing what they type where it is a secret.
//!
//! The question goes to standard error, the answer comes from standard input. If that is no terminal, answers are its lines, so that
//! a program can answer as well.

use std::env::var_os;
use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use super::layout::Page;

/// Bytes of one answer that are taken.
const ANSWER_BYTES_MAX: usize = 4096;
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const BACKSPACE: [u8; 2] = [8, 127];
const CTRL_U: u8 = 21;

/// The page that standard output is: as wide as its terminal, coloured unless `NO_COLOR` or `TERM` speak against it. Files and pipes
/// are never wrapped.
pub(super) fn page() -> Page {
    let out = io::stdout();
    if !out.is_terminal() {
        return Page::PLAIN;
    }
    // Some terminals do not know their size and say 0.
    let columns = tcgetwinsize(&out).map_or(0, |window| usize::from(window.ws_col));
    let is_dumb = var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let colour = !is_dumb && var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    Page { columns: if columns == 0 { 80 } else { columns.max(20) }, colour }
}

/// A terminal that does not show what is typed; as before when dropped.
struct Silent(Termios);

impl Silent {
    /// Nothing is echoed, and every key comes at once: Ctrl-C is ours to deal with, or the echo would stay off.
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Asks; `None` if the person gives up (Ctrl-D, or Ctrl-C where the answer is a secret).
pub(crate) fn ask(question: &str, secret: bool) -> io::Result<Option<String>> {
    let mut err = io::stderr().lock();
    write!(err, "{question}: ")?;
    err.flush()?;
    let input = io::stdin();
    let answer = if secret && input.is_terminal() {
        let _silent = Silent::begin()?;
        let answer = typed(&mut input.lock())?;
        writeln!(err)?;
        answer
    } else {
        line(&mut input.lock())?
    };
    if answer.is_none() {
        writeln!(err)?;
    }
    answer.map(|bytes| String::from_utf8(bytes).map_err(io::Error::other)).transpose()
}

/// One line without its end; `None` at the end of everything. Reads byte by byte, so that the next line stays where it is.
fn line(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut answer = Vec::new();
    let mut byte = [0];
    loop {
        match (input.read(&mut byte)?, byte) {
            (0, _) if answer.is_empty() => return Ok(None),
            (0, _) | (_, [b'\n']) => break,
            (_, [byte]) if answer.len() < ANSWER_BYTES_MAX => answer.push(byte),
            _ => {}
        }
    }
    if answer.last() == Some(&b'\r') {
        answer.pop();
    }
    Ok(Some(answer))
}

/// One line as it is typed key by key.
fn typed(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut answer: Vec<u8> = Vec::new();
    let mut byte = [0];
    loop {
        if input.read(&mut byte)? == 0 {
            return Ok(None);
        }
        match byte {
            [b'\n' | b'\r'] => return Ok(Some(answer)),
            [CTRL_C] => return Ok(None),
            [CTRL_D] if answer.is_empty() => return Ok(None),
            [CTRL_U] => answer.clear(),
            // A character may have several bytes.
            [key] if BACKSPACE.contains(&key) => while answer.pop().is_some_and(|byte| byte & 0xC0 == 0x80) {},
            [byte] if byte >= b' ' && answer.len() < ANSWER_BYTES_MAX => answer.push(byte),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_can_be_mended() {
        let typed = |keys: &str| typed(&mut keys.as_bytes()).unwrap().map(|answer| String::from_utf8(answer).unwrap());
        assert_eq!(typed("abc\r").as_deref(), Some("abc"));
        assert_eq!(typed("abcü\u{7f}\u{8}d\n").as_deref(), Some("abd"));
        assert_eq!(typed("wrong\u{15}right\n").as_deref(), Some("right"));
        assert_eq!(typed("x\u{4}y\n").as_deref(), Some("xy"), "in the middle of a line, Ctrl-D is nothing");
        assert_eq!((typed("\u{4}"), typed("x\u{3}"), typed("x")), (None, None, None));
    }

    #[test]
    fn lines_are_answers_one_by_one() {
        let mut input = "one\r\n\ntwo".as_bytes();
        let mut next = || line(&mut input).unwrap().map(|answer| String::from_utf8(answer).unwrap());
        assert_eq!(
            [next(), next(), next(), next()],
            [Some("one".into()), Some(String::new()), Some("two".into()), None]
        );
    }
}
