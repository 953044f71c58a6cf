//! Address lists as they stand in header fields and on command lines (RFC 5322 3.4), down to the bare addresses.
//!
//! Understands display names, comments (nested), quoted strings, domain literals, groups, source routes (obsolete, dropped) and
//! UTF-8 (RFC 6532). Goes beyond the RFC where programs do: a list may have empty places, and `;` separates like `,`. Any words may
//! stand before `<`: they are a name, whatever they are made of. `Undisclosed Recipients`, `name <>` and `<name:;>` are no address.
//! Does not decide whether an address exists or what an unqualified one means.

/// Why a text is not a list of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListError {
    /// A quote, comment, bracket or angle that never ends.
    #[error("{0:?} is not closed")]
    Open(char),
    /// A character that cannot stand where it stands.
    #[error("{0:?} is out of place")]
    OutOfPlace(String),
    /// Two words in a row.
    #[error("there is no comma between {0:?} and {1:?}")]
    NoComma(String, String),
    /// Nothing in front of or behind the `@`, or nothing at all.
    #[error("{0:?} is incomplete")]
    Incomplete(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// An atom, or a quoted string with its quotes.
    Word(String),
    /// A domain literal with its brackets.
    Literal(String),
    /// One of `< > @ , ; : .`
    Mark(char),
    /// A character that only a display name may hold.
    Odd(char),
}

impl Token {
    fn text(&self) -> String {
        match self {
            Self::Word(text) | Self::Literal(text) => text.clone(),
            Self::Mark(c) | Self::Odd(c) => c.to_string(),
        }
    }
}

/// The parts of a list between its commas, for a list of which some part cannot be read. A comma inside quotes, a comment or angle brackets
/// separates nothing, unless they are never closed.
pub(crate) fn parts(text: &str) -> Vec<&str> {
    let (mut quoted, mut escaped, mut comments, mut angle, mut from) = (false, false, 0_u32, false, 0);
    let mut parts = Vec::new();
    for (at, c) in text.char_indices() {
        let inside = quoted || comments > 0 || angle;
        match c {
            _ if escaped => {}
            '"' if comments == 0 => quoted = !quoted,
            '(' if !quoted => comments += 1,
            ')' if !quoted => comments = comments.saturating_sub(1),
            '<' if !quoted && comments == 0 => angle = true,
            '>' if !quoted && comments == 0 => angle = false,
            ',' if !inside => {
                parts.push(text.get(from..at).unwrap_or_default());
                from = at + 1;
            }
            _ => {}
        }
        escaped = c == '\\' && !escaped;
    }
    if quoted || comments > 0 || angle {
        return text.split(',').collect();
    }
    parts.push(text.get(from..).unwrap_or_default());
    parts
}

/// The addresses of a list, in order, without names and comments. An unqualified address stays unqualified.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn parse(text: &str) -> Result<Vec<String>, ListError> {
    let mut parser = Parser { tokens: tokens(text)?.into_iter(), found: Vec::new() };
    parser.list()?;
    Ok(parser.found)
}

struct Parser {
    tokens: std::vec::IntoIter<Token>,
    found: Vec<String>,
}

impl Parser {
    fn list(&mut self) -> Result<(), ListError> {
        let mut words = Vec::new();
        // The first half of a name with a comma that nobody quoted, as in `Pat Brien, Jr. <pat@example.org>`.
        let mut half_name: Option<Vec<Token>> = None;
        while let Some(token) = self.tokens.next() {
            match token {
                Token::Mark(',' | ';') => {
                    if let Some(half) = half_name.take() {
                        address(&half)?;
                    }
                    if is_phrase(&words) {
                        half_name = Some(std::mem::take(&mut words));
                    } else {
                        self.bare(&mut words)?;
                    }
                }
                Token::Mark('<') => {
                    half_name = None;
                    words.clear();
                    self.angle()?;
                }
                Token::Mark(':') if words.is_empty() || words.contains(&Token::Mark('@')) => {
                    return Err(ListError::OutOfPlace(":".to_owned()));
                }
                // The words before are the name of a group; its members follow.
                Token::Mark(':') => words.clear(),
                Token::Mark('>') => return Err(ListError::OutOfPlace(">".to_owned())),
                word => words.push(word),
            }
        }
        if let Some(half) = half_name {
            address(&half)?;
        }
        self.bare(&mut words)
    }

    fn bare(&mut self, words: &mut Vec<Token>) -> Result<(), ListError> {
        if !words.is_empty() && !is_undisclosed(words) {
            self.found.push(address(words)?);
        }
        words.clear();
        Ok(())
    }

    fn angle(&mut self) -> Result<(), ListError> {
        let mut inside = Vec::new();
        let mut empty_group = false;
        loop {
            match self.tokens.next().ok_or(ListError::Open('<'))? {
                Token::Mark('>') => break,
                // A source route ends here.
                Token::Mark(':') if inside.first() == Some(&Token::Mark('@')) => inside.clear(),
                Token::Mark(':') if !inside.is_empty() && !inside.contains(&Token::Mark('@')) => {
                    inside.clear();
                    empty_group = true;
                }
                Token::Mark(';') if empty_group && inside.is_empty() => {}
                Token::Mark(mark @ ('<' | ';')) => return Err(ListError::OutOfPlace(mark.to_string())),
                _ if empty_group => return Err(ListError::OutOfPlace(":".to_owned())),
                token => inside.push(token),
            }
        }
        if !inside.is_empty() {
            self.found.push(address(&inside)?);
        }
        match self.tokens.next() {
            None | Some(Token::Mark(',' | ';')) => Ok(()),
            Some(other) => Err(ListError::NoComma(">".to_owned(), other.text())),
        }
    }
}

/// Several words without an `@`: no address, but perhaps a name.
fn is_phrase(words: &[Token]) -> bool {
    let plain = words.iter().filter(|token| matches!(token, Token::Word(_))).count();
    plain > 1 && !words.contains(&Token::Mark('@')) && !is_undisclosed(words) && address(words).is_err()
}

/// The placeholder of programs that hide the recipients, in its spellings.
fn is_undisclosed(words: &[Token]) -> bool {
    let text: String = words.iter().map(Token::text).collect::<String>().to_lowercase();
    matches!(text.replace('-', "").as_str(), "undisclosedrecipients" | "undisclosedrecipient")
}

/// `local`, or `local@domain`.
fn address(tokens: &[Token]) -> Result<String, ListError> {
    let mut out = String::new();
    let mut in_domain = false;
    let mut last_word: Option<&str> = None;
    for token in tokens {
        match token {
            Token::Word(word) | Token::Literal(word) => {
                if let Some(last) = last_word {
                    return Err(ListError::NoComma(last.to_owned(), word.clone()));
                }
                let fits = match token {
                    Token::Literal(_) => in_domain && out.ends_with('@'),
                    _ => !in_domain || !word.starts_with('"'),
                };
                if !fits {
                    return Err(ListError::OutOfPlace(word.clone()));
                }
                last_word = Some(word);
                out.push_str(word);
            }
            Token::Mark('@') if !in_domain && !out.is_empty() => {
                in_domain = true;
                last_word = None;
                out.push('@');
            }
            Token::Mark('.') => {
                last_word = None;
                out.push('.');
            }
            Token::Mark(c) | Token::Odd(c) => return Err(ListError::OutOfPlace(c.to_string())),
        }
    }
    let domain_ok = |domain: &str| !domain.is_empty() && !domain.starts_with('.') && !domain.contains("..");
    if out.contains(char::REPLACEMENT_CHARACTER) {
        return Err(ListError::OutOfPlace(char::REPLACEMENT_CHARACTER.to_string()));
    }
    let complete =
        if in_domain { out.rsplit_once('@').is_some_and(|(_, domain)| domain_ok(domain)) } else { !out.is_empty() };
    if complete { Ok(out) } else { Err(ListError::Incomplete(out)) }
}

fn tokens(text: &str) -> Result<Vec<Token>, ListError> {
    let mut found = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            '(' => comment(&mut rest)?,
            '"' => found.push(Token::Word(enclosed('"', '"', &mut rest)?)),
            '[' => found.push(Token::Literal(enclosed('[', ']', &mut rest)?)),
            '<' | '>' | '@' | ',' | ';' | ':' | '.' => found.push(Token::Mark(c)),
            c if c.is_control() => return Err(ListError::OutOfPlace(c.to_string())),
            c if !is_atom(c) => found.push(Token::Odd(c)),
            c => {
                let mut atom = String::from(c);
                while let Some(c) = rest.next_if(|c| is_atom(*c)) {
                    atom.push(c);
                }
                found.push(Token::Word(atom));
            }
        }
    }
    Ok(found)
}

fn is_atom(c: char) -> bool {
    !c.is_control() && !c.is_whitespace() && !"()<>[]:;@\\,.\"".contains(c)
}

fn comment(rest: &mut impl Iterator<Item = char>) -> Result<(), ListError> {
    let mut depth = 1;
    while depth > 0 {
        match rest.next().ok_or(ListError::Open('('))? {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => {
                rest.next();
            }
            _ => {}
        }
    }
    Ok(())
}

/// A quoted string or domain literal, with its marks. Control characters of any kind are refused inside, folding excepted.
fn enclosed(open: char, close: char, rest: &mut impl Iterator<Item = char>) -> Result<String, ListError> {
    let mut out = String::from(open);
    loop {
        match rest.next().ok_or(ListError::Open(open))? {
            '\r' | '\n' => {}
            '\t' => out.push(' '),
            '\\' => {
                let escaped = rest.next().filter(|c| !c.is_control()).ok_or(ListError::Open(open))?;
                out.push('\\');
                out.push(escaped);
            }
            c if c.is_control() => return Err(ListError::OutOfPlace(c.to_string())),
            c => {
                out.push(c);
                if c == close {
                    return Ok(out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_separated_by_outer_commas() {
        assert_eq!(parts("a@x, b@"), ["a@x", " b@"]);
        assert_eq!(parts("\"a, b\" <a@x>, (c, d) e@x, <f,g@x>"), ["\"a, b\" <a@x>", " (c, d) e@x", " <f,g@x>"]);
        assert_eq!(parts("a@x, \"open, b@x"), ["a@x", " \"open", " b@x"]);
        assert_eq!(parts(""), [""]);
    }

    #[test]
    fn lists_come_down_to_addresses() {
        for (given, expected) in [
            ("", &[][..]),
            (" , ,", &[]),
            ("a@b", &["a@b"]),
            ("root", &["root"]),
            ("a@b, c@d;e@f", &["a@b", "c@d", "e@f"]),
            ("Joe Q. Public <john.q.public@example.com>", &["john.q.public@example.com"]),
            ("\"Doe, John\" <j@x>, Mary <m@x>", &["j@x", "m@x"]),
            ("a@b (work (really) \\) yes), c@d", &["a@b", "c@d"]),
            ("A Group:Ed <ed@x>,joe@where.test,John <jdoe@one.test>;", &["ed@x", "joe@where.test", "jdoe@one.test"]),
            ("Undisclosed recipients:;", &[]),
            ("Undisclosed recipients:;, a@b", &["a@b"]),
            ("\"john doe\"@x", &["\"john doe\"@x"]),
            ("\"a\\\"b\"@x", &["\"a\\\"b\"@x"]),
            ("john . doe @ x . org", &["john.doe@x.org"]),
            ("<@hop1,@hop2:a@b>", &["a@b"]),
            ("a@[192.0.2.1]", &["a@[192.0.2.1]"]),
            ("a@b,\r\n\tc@d", &["a@b", "c@d"]),
            ("p\u{e4}ul@ex\u{e4}mple.org", &["p\u{e4}ul@ex\u{e4}mple.org"]),
            ("J\u{fffd}rg <j@x>", &["j@x"]),
            ("a..b.@docomo.test", &["a..b.@docomo.test"]),
            ("a=b+c_d!e@x", &["a=b+c_d!e@x"]),
            ("a@b.", &["a@b."]),
            ("\u{5c71}\u{7530}\u{3000}\u{592a}\u{90ce} <a@x>", &["a@x"]),
            ("Pat\u{a0}B <a@x>", &["a@x"]),
            ("Pat O\\'Brien <a@x>", &["a@x"]),
            ("Pat :) <a@x>", &["a@x"]),
            ("Pat Brien, Jr. <a@x>, b@x", &["a@x", "b@x"]),
            ("Undisclosed Recipients, b@x", &["b@x"]),
            ("undisclosed-recipients", &[]),
            ("Undisclosed recipients <>, b@x", &["b@x"]),
            ("<undisclosed-recipients:;>, b@x", &["b@x"]),
        ] {
            assert_eq!(parse(given).unwrap(), expected, "{given:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (given, error) in [
            ("a@b c@d", ListError::NoComma("b".to_owned(), "c".to_owned())),
            ("John Doe", ListError::NoComma("John".to_owned(), "Doe".to_owned())),
            ("a@b (x", ListError::Open('(')),
            ("\"a", ListError::Open('"')),
            ("<a@b", ListError::Open('<')),
            ("a@[1", ListError::Open('[')),
            ("a@", ListError::Incomplete("a@".to_owned())),
            ("Pat Brien, b@x", ListError::NoComma("Pat".to_owned(), "Brien".to_owned())),
            ("<a:b@c>", ListError::OutOfPlace(":".to_owned())),
            ("a\u{3000}b@x", ListError::OutOfPlace("\u{3000}".to_owned())),
            ("@b", ListError::OutOfPlace("@".to_owned())),
            ("a@b@c", ListError::OutOfPlace("@".to_owned())),
            ("J\u{fffd}rg@x", ListError::OutOfPlace("\u{fffd}".to_owned())),
            ("a>b", ListError::OutOfPlace(">".to_owned())),
            ("a\\b", ListError::OutOfPlace("\\".to_owned())),
            ("a\u{1}b@c", ListError::OutOfPlace("\u{1}".to_owned())),
            ("a@b..c", ListError::Incomplete("a@b..c".to_owned())),
            ("a@\"b\"", ListError::OutOfPlace("\"b\"".to_owned())),
            ("<a@b> c", ListError::NoComma(">".to_owned(), "c".to_owned())),
        ] {
            assert_eq!(parse(given), Err(error), "{given:?}");
        }
    }

    #[test]
    fn no_text_makes_it_panic_or_lets_a_control_character_through() {
        let mut random = fastrand::Rng::with_seed(11);
        let alphabet: Vec<char> = "ab@.,;:<>()[]\"\\ \t\r\n\0\u{e4}".chars().collect();
        for _ in 0..20_000 {
            let text: String = (0..random.usize(0..16)).map(|_| *random.choice(&alphabet).unwrap()).collect();
            for address in parse(&text).unwrap_or_default() {
                assert!(!address.chars().any(char::is_control), "{text:?} gave {address:?}");
            }
        }
    }
}
