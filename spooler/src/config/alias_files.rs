//! Files of aliases, in the syntax of Sendmail and Postfix: `name: address, address`.
//!
//! | written | is |
//! |---|---|
//! | `# …` at the begin of a line, an empty line | passed over |
//! | a line that begins with a blank | more of the line before |
//! | `"a name": …` | a name with any characters |
//! | `:include:/path` | every address of that file, one or several a line |
//! | `\|program`, `/file` | refused: `pipe` and `maildir` do that, in their sandboxes |
//! | `\\name` | `name` |
//!
//! What is wrong in an entry is said with its line, and left out; the rest counts. A file that others than root and the spooler's user can
//! change is not read at all, because it says where root's mail goes.

use std::borrow::Cow;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;
use spooler_protocol::aliases::{AliasFile, AliasMistake};
use spooler_protocol::message::Address;

use crate::policy::addressing::aliases::{Aliases, Spot};
use crate::system::trust;

/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Addresses that one alias may name, with those of the files that it includes.
const TARGETS_MAX: usize = 10_000;
/// Mistakes of one file that are told one by one.
const MISTAKES_MAX: usize = 20;

/// Where aliases come from: the configuration itself, and files in its order. The first to name an alias counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AliasSources {
    /// Those in the configuration.
    pub(super) own: Aliases,
    /// Files.
    pub(super) files: Vec<PathBuf>,
    /// Gets the mail of `postmaster` (RFC 5321 4.5.1) unless there is an alias of this name.
    pub(super) postmaster: Option<Address>,
}

impl AliasSources {
    /// Reads the files. The aliases, and how each file was.
    #[must_use]
    pub fn read(&self) -> (Aliases, Vec<AliasFile>) {
        let mut aliases = self.own.clone();
        let files = self.files.iter().map(|path| read_file(path, &mut aliases)).collect();
        self.imply(&mut aliases);
        (aliases, files)
    }

    /// Those that need no file.
    pub(super) fn without_files(&self) -> Aliases {
        let mut aliases = self.own.clone();
        self.imply(&mut aliases);
        aliases
    }

    fn imply(&self, aliases: &mut Aliases) {
        if let Some(postmaster) = &self.postmaster {
            let source = aliases.add_source("mail.postmaster".to_owned(), 1);
            aliases.add("postmaster", std::slice::from_ref(postmaster), Spot { source, line: 0 });
        }
    }
}

fn read_file(path: &Path, aliases: &mut Aliases) -> AliasFile {
    let shown = path.display().to_string();
    let mut found = AliasFile {
        path: shown.clone(),
        count: 0,
        failure: None,
        missing: false,
        mistakes: Vec::new(),
        more_mistakes: 0,
    };
    let text = match text_of(path) {
        Ok(text) => text,
        Err(Unusable::Missing) => {
            found.missing = true;
            return found;
        }
        Err(why) => {
            found.failure = Some(why.to_string());
            return found;
        }
    };
    let mut mistake = |line: u32, message: String| {
        if found.mistakes.len() < MISTAKES_MAX {
            found.mistakes.push(AliasMistake { line, message });
        } else {
            found.more_mistakes += 1;
        }
    };
    let source = aliases.add_source(shown, text.len() / 32);
    for (line, entry) in entries(&text) {
        let Some((name, values)) = name_and_values(&entry) else {
            mistake(line, "has no colon; write \"name: address\"".to_owned());
            continue;
        };
        if name.is_empty() || name.contains('@') {
            mistake(line, format!("names {name:?}; an alias is a local name, without a domain"));
            continue;
        }
        let mut targets = Vec::new();
        add_targets(&values, true, &mut targets, &mut |message| mistake(line, message));
        if targets.is_empty() {
            mistake(line, format!("leaves {name:?} without any address; the alias is left out"));
        } else if aliases.add(&name, &targets, Spot { source, line }) {
            found.count += 1;
        } else {
            mistake(line, format!("names {name:?} again; the first one counts"));
        }
    }
    found
}

/// Why a file is of no use.
enum Unusable {
    Missing,
    Untrusted(trust::Untrusted),
    TooLarge,
    Io(io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it does not exist"),
            Self::Untrusted(why) => write!(f, "it is not safe to use: {why}"),
            Self::TooLarge => write!(f, "it is larger than {FILE_BYTES_MAX} bytes"),
            Self::Io(error) => write!(f, "it cannot be read: {}", error.kind()),
        }
    }
}

/// The text of a file, if nobody can have changed it who is not trusted. What is not UTF-8 is replaced, and makes no address.
fn text_of(path: &Path) -> Result<String, Unusable> {
    let io = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Unusable::Missing,
        _ => Unusable::Io(error),
    };
    // A FIFO would wait for its writer.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(Unusable::Io(io::ErrorKind::InvalidInput.into()));
    }
    trust::check_way(path).and_then(|()| trust::check(path, &metadata)).map_err(Unusable::Untrusted)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(Unusable::TooLarge);
    }
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The entries with the numbers of their first lines, each with the lines that continue it.
fn entries(text: &str) -> impl Iterator<Item = (u32, Cow<'_, str>)> {
    let is_entry = |line: &str| !line.trim().is_empty() && !line.starts_with('#');
    let mut lines = (1..).zip(text.lines()).filter(move |(_, line)| is_entry(line)).peekable();
    std::iter::from_fn(move || {
        let (number, line) = lines.next()?;
        let mut entry = Cow::Borrowed(line);
        while let Some((_, more)) = lines.next_if(|(_, line)| line.starts_with([' ', '\t'])) {
            entry.to_mut().push_str(more);
        }
        Some((number, entry))
    })
}

/// The two sides of the colon; the name without quotes.
fn name_and_values(entry: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    let entry = entry.trim();
    if let Some(rest) = entry.strip_prefix('"') {
        let end = closing_quote(rest)?;
        let values = rest.get(end + 1..)?.trim_start().strip_prefix(':')?;
        return Some((unescaped(rest.get(..end)?), Cow::Borrowed(values)));
    }
    let (name, values) = entry.split_once(':')?;
    Some((Cow::Borrowed(name.trim()), Cow::Borrowed(values)))
}

/// Where the quote ends that was opened before `rest`.
fn closing_quote(rest: &str) -> Option<usize> {
    let mut escaped = false;
    rest.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        out.push(if c == '\\' { rest.next().unwrap_or(c) } else { c });
    }
    Cow::Owned(out)
}

/// Adds the addresses of a list. `may_include`: files may be included, which may not include further ones.
fn add_targets(list: &str, may_include: bool, targets: &mut Vec<Address>, mistake: &mut dyn FnMut(String)) {
    for member in members(list) {
        if targets.len() >= TARGETS_MAX {
            return mistake(format!("names more than {TARGETS_MAX} addresses; the rest is left out"));
        }
        match target(member) {
            Ok(Target::Nothing) => {}
            Ok(Target::Address(address)) => targets.push(address),
            Ok(Target::Include(path)) if may_include => include(&path, targets, mistake),
            Ok(Target::Include(path)) => {
                mistake(format!("includes {path:?} from an included file; name it in the alias itself"))
            }
            Err(message) => mistake(message),
        }
    }
}

fn include(path: &str, targets: &mut Vec<Address>, mistake: &mut dyn FnMut(String)) {
    match text_of(Path::new(path)) {
        Ok(text) => {
            for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.starts_with('#')) {
                add_targets(line, false, targets, &mut |message| {
                    mistake(format!("includes {path}, whose line {number} {message}"))
                });
            }
        }
        Err(why) => mistake(format!("includes {path}, but {why}")),
    }
}

/// What one member of a list is.
enum Target {
    Nothing,
    Address(Address),
    Include(String),
}

fn target(member: &str) -> Result<Target, String> {
    let member = member.trim();
    let inside = member.strip_prefix('"').filter(|rest| closing_quote(rest) == Some(rest.len().saturating_sub(1)));
    let text = match inside {
        // A quoted string as a whole: a program, a file, an include. As a local part it keeps its quotes.
        Some(rest) if rest.starts_with(['|', '/', ':']) => unescaped(rest.strip_suffix('"').unwrap_or(rest)),
        _ => Cow::Borrowed(member.strip_prefix('\\').unwrap_or(member)),
    };
    if text.is_empty() {
        return Ok(Target::Nothing);
    }
    if let Some(path) = text.get(..9).filter(|word| word.eq_ignore_ascii_case(":include:")).and_then(|_| text.get(9..))
    {
        let path = path.trim();
        return if path.starts_with('/') {
            Ok(Target::Include(path.to_owned()))
        } else {
            Err(format!("includes {path:?}, which is no path that starts with /"))
        };
    }
    if text.starts_with('|') {
        return Err(format!(
            "has the program {text:?}, which aliases do not run; let a provider of kind \"pipe\" claim the address"
        ));
    }
    if text.starts_with('/') {
        return Err(format!(
            "has the file {text:?}, which aliases do not write; let a provider of kind \"maildir\" claim the address"
        ));
    }
    let bare = match (text.rfind('<'), text.ends_with('>')) {
        (Some(open), true) => text.get(open + 1..text.len() - 1).unwrap_or_default(),
        _ => text.as_ref(),
    };
    let quoted = bare.starts_with('"');
    let odd = |c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER || "<>()".contains(c);
    let parsed = bare.parse::<Address>().map_err(|error| error.to_string());
    match parsed {
        Ok(address) if quoted || !bare.contains(odd) => Ok(Target::Address(address)),
        Ok(_) => Err(format!("has {text:?}, which is no address")),
        Err(why) => Err(format!("has {text:?}, which is no address: {why}")),
    }
}

/// The members of a list: parted by commas outside quotes and comments. A comment in front of or behind a member is no part of it.
fn members(list: &str) -> Vec<&str> {
    if !list.contains(['"', '(', '\\']) {
        return list.split(',').collect();
    }
    let (mut quoted, mut escaped, mut depth, mut begin) = (false, false, 0_usize, 0);
    let mut found = Vec::new();
    let mut end = None;
    for (at, c) in list.char_indices() {
        let escapes = !escaped && c == '\\';
        match c {
            _ if escaped => {}
            '"' if depth == 0 => quoted = !quoted,
            '(' if !quoted => {
                depth += 1;
                end = end.or(Some(at));
            }
            ')' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                found.push(list.get(begin..end.take().unwrap_or(at)).unwrap_or_default());
                begin = at + 1;
            }
            _ => {}
        }
        escaped = escapes;
    }
    found.push(list.get(begin..end.unwrap_or(list.len())).unwrap_or_default());
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::policy::addressing::Addressing;

    /// What a file makes of a name, and what is wrong with it.
    fn read(text: &str, names: &[&str]) -> (Vec<Vec<String>>, AliasFile) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aliases");
        fs::write(&path, text.replace("{dir}", folder.path().to_str().unwrap())).unwrap();
        fs::write(folder.path().join("list"), "# members\nm1@x, m2@x\n\nbad one\n:include:/etc/passwd\n").unwrap();
        let sources = AliasSources { files: vec![path], ..AliasSources::default() };
        let (aliases, files) = sources.read();
        let addressing = Addressing { origin: "o".to_owned(), aliases, ..Addressing::default() };
        let finals = |name: &&str| {
            let steps = addressing.aliases.trace(name, &addressing).into_iter();
            steps.filter(|step| step.written.is_none()).map(|step| step.address).collect()
        };
        (names.iter().map(finals).collect(), files.into_iter().next().unwrap())
    }

    #[test]
    fn the_usual_syntax_is_understood() {
        let text = "# comment\nroot: ann,\n# between\n\tadmin@x.test ,FAX:+1\n\n\"odd name\": Bob <bob@x> (friend, old)\nPostmaster:root\n\
                    esc: \\esc, c@x\n\"a:b\" : d@x\nquoted: \"two words\"@x\n";
        let (finals, file) = read(text, &["root", "\"odd name\"", "POSTMASTER", "esc", "\"a:b\"", "quoted"]);
        let root = ["ann@o", "admin@x.test", "FAX:+1"];
        assert_eq!(finals, [&root[..], &["bob@x"], &root, &["esc@o", "c@x"], &["d@x"], &["\"two words\"@x"]]);
        assert_eq!((file.count, file.mistakes.as_slice()), (6, &[][..]));
    }

    #[test]
    fn programs_and_files_are_left_out() {
        let text =
            "a: |/bin/prog, a@x\nb: \"|/bin/prog -x\"\nc: /var/mail/c\nd d@x\ne@x: f@x\nf: two words\ng:\na: again@x\n";
        let (finals, file) = read(text, &["a", "b"]);
        assert_eq!(finals, [["a@x"], ["b@o"]]);
        let said: Vec<String> =
            file.mistakes.iter().map(|mistake| format!("{} {}", mistake.line, mistake.message)).collect();
        let parts = [
            "1 has the program \"|/bin/prog\"",
            "2 has the program \"|/bin/prog -x\"",
            "2 leaves \"b\"",
            "3 has the file \"/var/mail/c\"",
            "3 leaves",
            "4 has no colon",
            "5 names \"e@x\"",
            "6 has \"two words\"",
            "6 leaves",
            "7 leaves \"g\"",
            "8 names \"a\" again",
        ];
        assert_eq!(said.len(), parts.len(), "{said:#?}");
        assert!(said.iter().zip(parts).all(|(said, part)| said.starts_with(part)), "{said:#?}");
        assert!(said[0].contains("\"pipe\"") && said[3].contains("\"maildir\""));
    }

    #[test]
    fn lists_are_included_once() {
        let (finals, file) =
            read("list: :include:{dir}/list, \":include:{dir}/none\"\nrel: :include:list\n", &["list"]);
        assert_eq!(finals, [["m1@x", "m2@x"]]);
        let said: Vec<&str> = file.mistakes.iter().map(|mistake| mistake.message.as_str()).collect();
        assert!(said[0].contains("whose line 4 has \"bad one\""), "{said:#?}");
        assert!(said[1].contains("whose line 5 includes \"/etc/passwd\" from an included file"), "{said:#?}");
        assert!(said[2].contains("none, but it does not exist") && said[3].contains("no path"), "{said:#?}");
    }

    #[test]
    fn file_of_others_is_not_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aliases");
        fs::write(&path, "root: evil@x\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let sources = AliasSources { files: vec![path.clone(), folder.path().join("none")], ..AliasSources::default() };
        let (aliases, files) = sources.read();
        assert!(aliases.is_empty() && files[0].failure.as_ref().unwrap().contains("chmod go-w"), "{files:?}");
        assert!(files[1].missing && files[1].failure.is_none());
    }

    #[test]
    fn many_mistakes_are_counted() {
        let (_, file) = read(&"no colon\n".repeat(30), &[]);
        assert_eq!((file.mistakes.len(), file.more_mistakes), (20, 10));
    }
}
