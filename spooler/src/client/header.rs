//! The header of a message as a program wrote it: LF or CRLF line ends, folded fields, and whatever else programs do.

/// One header field with its folded lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    /// As it was written.
    pub(crate) name: &'a str,
    /// Everything behind the colon, line ends included.
    pub(crate) value: &'a [u8],
    /// The whole field, its last line end included if it has one.
    pub(crate) raw: &'a [u8],
}

impl Field<'_> {
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// Splits a message into the fields of its header and what follows: its body, without the empty line between.
///
/// A line that is no field ends the header and begins the body. A first line `From …` or `>From …` of an mbox is dropped.
pub(crate) fn split(message: &[u8]) -> (Vec<Field<'_>>, &[u8]) {
    let mut rest = message;
    if rest.starts_with(b"From ") || rest.starts_with(b">From ") {
        rest = next_line(rest).1;
    }
    let mut fields = Vec::new();
    loop {
        let (line, behind) = next_line(rest);
        match trim_end(line) {
            // An empty line, or the end.
            [] => return (fields, behind),
            _ => match field(rest) {
                Some((found, behind)) => {
                    fields.push(found);
                    rest = behind;
                }
                None => return (fields, rest),
            },
        }
    }
}

/// The field at the start of `text`, and what is behind it.
fn field(text: &[u8]) -> Option<(Field<'_>, &[u8])> {
    let colon = memchr::memchr2(b':', b'\n', text).filter(|at| text.get(*at) == Some(&b':'))?;
    let name = std::str::from_utf8(text.get(..colon)?).ok()?.trim_end_matches([' ', '\t']);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return None;
    }
    let mut rest = next_line(text).1;
    while matches!(rest.first(), Some(b' ' | b'\t')) {
        rest = next_line(rest).1;
    }
    let raw = text.get(..text.len() - rest.len())?;
    Some((Field { name, value: raw.get(colon + 1..)?, raw }, rest))
}

/// A line with its line end, and what is behind it.
fn next_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1);
    text.split_at(end)
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_and_body(message: &str) -> (Vec<String>, String) {
        let (fields, body) = split(message.as_bytes());
        let names = fields.iter().map(|field| field.name.to_owned()).collect();
        (names, String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn headers_end_where_they_end() {
        for (message, names, body) in [
            ("", &[][..], ""),
            ("A: 1\nB: 2\n\nbody\n", &["A", "B"], "body\n"),
            ("A: 1\r\nB: 2\r\n\r\nbody\r\n", &["A", "B"], "body\r\n"),
            ("A: 1\n folded\n\tagain\nB:\n\n", &["A", "B"], ""),
            ("A: 1", &["A"], ""),
            ("no header at all\n", &[], "no header at all\n"),
            ("\nbody", &[], "body"),
            ("A: 1\nnot a field\nB: 2\n", &["A"], "not a field\nB: 2\n"),
            ("From x Mon Jan\nA: 1\n\nFrom y\n", &["A"], "From y\n"),
            ("A : 1\n\n", &["A"], ""),
            // A line of blanks alone is folding too (RFC 5322 4.2).
            ("A: 1\n \n\nbody", &["A"], "body"),
            (": 1\n", &[], ": 1\n"),
        ] {
            let (found, rest) = names_and_body(message);
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!((found, rest.as_str()), (names, body), "{message:?}");
        }
    }

    #[test]
    fn values_keep_their_bytes() {
        let (fields, _) = split(b"To: a@b,\n c@d\nX: \xe4\n\n");
        assert_eq!(fields[0].value, b" a@b,\n c@d\n");
        assert_eq!(fields[1].raw, b"X: \xe4\n");
        assert!(fields[0].is("TO"));
    }
}
