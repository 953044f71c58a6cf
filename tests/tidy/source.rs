//! Just enough reading of Rust: code without its comments and strings, and the paths that are used in it.

use std::iter::Peekable;
use std::str::Chars;

/// The code with the same lines, but comments, and what is inside of strings and characters, left out.
pub(crate) fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '/' if rest.peek() == Some(&'/') => skip_line_comment(&mut rest),
            '/' if rest.peek() == Some(&'*') => skip_block_comment(&mut rest, &mut code),
            '"' => skip_string(&mut rest, &mut code),
            'r' if !ends_in_name(&code) && raw_string_hashes(&rest).is_some() => skip_raw_string(&mut rest, &mut code),
            '\'' => skip_character(&mut rest, &mut code),
            c => code.push(c),
        }
    }
    code
}

fn ends_in_name(code: &str) -> bool {
    // `br"…"` is a raw string; `bar"…"` is none.
    let name: String = code.chars().rev().take_while(|&c| is_name(c)).collect();
    !name.is_empty() && name != "b" && name != "c"
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn skip_line_comment(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|&c| c != '\n').is_some() {}
}

fn skip_block_comment(rest: &mut Peekable<Chars<'_>>, code: &mut String) {
    let mut depth = 1;
    rest.next();
    while depth > 0 {
        match (rest.next(), rest.peek()) {
            (Some('/'), Some('*')) => {
                depth += 1;
                rest.next();
            }
            (Some('*'), Some('/')) => {
                depth -= 1;
                rest.next();
            }
            (Some('\n'), _) => code.push('\n'),
            (Some(_), _) => {}
            (None, _) => return,
        }
    }
    code.push(' ');
}

fn skip_string(rest: &mut Peekable<Chars<'_>>, code: &mut String) {
    code.push('"');
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' if rest.next() == Some('\n') => code.push('\n'),
            '\n' => code.push('\n'),
            _ => {}
        }
    }
    code.push('"');
}

fn raw_string_hashes(rest: &Peekable<Chars<'_>>) -> Option<usize> {
    let mut ahead = rest.clone();
    let mut hashes = 0;
    while ahead.next_if_eq(&'#').is_some() {
        hashes += 1;
    }
    (ahead.next() == Some('"')).then_some(hashes)
}

fn skip_raw_string(rest: &mut Peekable<Chars<'_>>, code: &mut String) {
    let hashes = raw_string_hashes(rest).unwrap_or_default();
    rest.by_ref().take(hashes + 1).for_each(drop);
    code.push('"');
    while let Some(c) = rest.next() {
        if c == '"' && rest.clone().take(hashes).filter(|&c| c == '#').count() == hashes {
            rest.by_ref().take(hashes).for_each(drop);
            break;
        }
        if c == '\n' {
            code.push('\n');
        }
    }
    code.push('"');
}

/// Skips `'x'` and `'\n'`; the quote of a lifetime is left as it is.
fn skip_character(rest: &mut Peekable<Chars<'_>>, code: &mut String) {
    code.push('\'');
    let mut ahead = rest.clone();
    let is_character = match ahead.next() {
        Some('\\') => true,
        Some(_) => ahead.next() == Some('\''),
        None => false,
    };
    if is_character {
        let mut escaped = false;
        for c in rest.by_ref() {
            match c {
                '\'' if !escaped => break,
                c => escaped = c == '\\' && !escaped,
            }
        }
        code.push('\'');
    }
}

/// A word or a sign of the code, with its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// `name`, `::`, or one other character.
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

impl Token {
    fn is_word(&self) -> bool {
        self.text.starts_with(is_name)
    }
}

/// The tokens of a text of which [`code_of`] has left the code.
pub(crate) fn tokens_of(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut rest = code.chars().peekable();
    while let Some(c) = rest.next() {
        let mut text = String::from(c);
        if is_name(c) {
            text.extend(std::iter::from_fn(|| rest.next_if(|&c| is_name(c))));
        } else if c == ':' {
            text.extend(rest.next_if_eq(&':'));
        } else if c.is_whitespace() {
            line += usize::from(c == '\n');
            continue;
        }
        tokens.push(Token { text, line });
    }
    tokens
}

/// Every path in the code with its line, groups of `use` spelled out: `use a::{b, c::d}` is `a::b` and `a::c::d`.
pub(crate) fn paths_of(text: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens_of(&code_of(text));
    let mut paths = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        at = if token.is_word() { read_path(&tokens, at, &[], &mut paths) } else { at + 1 };
    }
    paths
}

/// Reads the path that starts at a token, below `prefix`; gives where it ends.
fn read_path(tokens: &[Token], start: usize, prefix: &[String], paths: &mut Vec<(usize, Vec<String>)>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let line = tokens.get(start).map_or(0, |token| token.line);
    let mut path = prefix.to_vec();
    path.push(text(start).to_owned());
    let mut at = start + 1;
    while text(at) == "::" {
        if text(at + 1) == "{" {
            return read_group(tokens, at + 2, &path, paths);
        }
        if !tokens.get(at + 1).is_some_and(Token::is_word) {
            break;
        }
        path.push(text(at + 1).to_owned());
        at += 2;
    }
    paths.push((line, path));
    at
}

fn read_group(tokens: &[Token], start: usize, prefix: &[String], paths: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut at = start;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "}" => return at + 1,
            "as" => at += 2,
            _ if token.is_word() => at = read_path(tokens, at, prefix, paths),
            _ => at += 1,
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_strings_are_no_code() {
        let text = "a // b\n/* c /* d */ e */ f \"g \\\" h\" 'i' '\\'' '\"' j<'k> r#\"l \" m\"# br\"n\" o\n";
        let words: Vec<String> =
            tokens_of(&code_of(text)).into_iter().filter(Token::is_word).map(|token| token.text).collect();
        assert_eq!(words, ["a", "f", "j", "k", "b", "o"]);
    }

    #[test]
    fn lines_stay_where_they_are() {
        let text = "\"a\nb \\\nc\"\n/* \n */\nr\"\n\"\nx";
        assert_eq!(tokens_of(&code_of(text)).last().unwrap().line, text.lines().count());
    }

    #[test]
    fn groups_of_use_are_spelled_out() {
        let paths: Vec<String> = paths_of("use a::{b as z, c::{self, d}, e::*};\nf::g::<h>(::i::j)")
            .into_iter()
            .map(|(line, path)| format!("{line} {}", path.join("::")))
            .collect();
        assert_eq!(paths, ["1 use", "1 a::b", "1 a::c::self", "1 a::c::d", "1 a::e", "2 f::g", "2 h", "2 i::j"]);
    }
}
