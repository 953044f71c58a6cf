//! The command line of `sendmail`, as forty years of programs call it.
//!
//! Options stand before the recipients, may be bundled (`-ti`), and carry their value glued or apart (`-fx`, `-f x`). Options that
//! only a Sendmail daemon has a use for are taken and ignored; an option that nobody ever had is an error.

use spooler_protocol::limits::DSN_PARAMETER_BYTES_MAX;
use spooler_protocol::message::{Notify, Ret};

use crate::client::failure::Failure;

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// `-bm`: take a message from standard input.
    #[default]
    Deliver,
    /// `-bs`: speak SMTP on standard input and output.
    Smtp,
    /// `-bp`: print the queue.
    Queue,
    /// `-bv`: look at the addresses only.
    Verify,
    /// `-bi`: there is no alias database to build.
    Aliases,
    /// `-q`: ask for a flush.
    Flush,
}

/// What the command line says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    /// `-t`
    pub(crate) read_recipients: bool,
    /// `-i`, `-oi`: a line with a dot alone is text.
    pub(crate) ignore_dots: bool,
    /// `-f`, `-r`
    pub(crate) sender: Option<String>,
    /// `-F`
    pub(crate) full_name: Option<String>,
    /// `-N`
    pub(crate) notify: Option<Notify>,
    /// `-R`
    pub(crate) ret: Option<Ret>,
    /// `-V`, in xtext.
    pub(crate) envid: Option<String>,
    /// `-B8BITMIME`
    pub(crate) eight_bit: bool,
    /// `-v`
    pub(crate) verbose: bool,
    pub(crate) recipients: Vec<String>,
}

/// Options whose value may stand apart.
const WITH_VALUE: &str = "ABCDFLMNORVXbefhopr";
/// Options whose value, if they have one, is glued.
const MAYBE_GLUED: &str = "dqQ";
/// Options without a value.
const ALONE: &str = "EGIJTUcimnstvx";

/// Reads the arguments behind the program's name.
pub(crate) fn parse(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.strip_prefix('-') {
            Some("-") => break,
            Some(letters) if !letters.is_empty() => bundle(&mut options, letters, &mut rest)?,
            _ => {
                options.recipients.push(argument.clone());
                break;
            }
        }
    }
    options.recipients.extend(rest.cloned());
    options.check()?;
    Ok(options)
}

fn bundle(options: &mut Options, letters: &str, rest: &mut std::slice::Iter<'_, String>) -> Result<(), Failure> {
    let mut letters = letters;
    while let Some(letter) = letters.chars().next() {
        letters = letters.get(letter.len_utf8()..).unwrap_or_default();
        if ALONE.contains(letter) {
            options.alone(letter);
        } else if MAYBE_GLUED.contains(letter) {
            return options.valued(letter, letters);
        } else if WITH_VALUE.contains(letter) {
            if !letters.is_empty() {
                return options.valued(letter, letters);
            }
            let value = rest.next().ok_or_else(|| usage(format!("-{letter} needs a value behind it")))?;
            return options.valued(letter, value);
        } else {
            return Err(usage(format!("-{letter} is not an option of sendmail")));
        }
    }
    Ok(())
}

fn usage(text: impl Into<String>) -> Failure {
    Failure::Usage(text.into())
}

impl Options {
    /// A mode that takes no message must not swallow one.
    fn check(&self) -> Result<(), Failure> {
        let mode = match self.mode {
            Mode::Deliver | Mode::Verify => return Ok(()),
            Mode::Smtp => "-bs (SMTP on standard input)",
            Mode::Queue => "-bp (list the queue)",
            Mode::Aliases => "-bi (check the aliases)",
            Mode::Flush => "-q (flush the queue)",
        };
        if self.read_recipients {
            return Err(usage(format!("{mode} takes no message, so it cannot be used with -t; nothing was sent")));
        }
        match self.recipients.first() {
            Some(first) => Err(usage(format!("{mode} takes no recipient such as {first:?}; nothing was sent"))),
            None => Ok(()),
        }
    }

    fn alone(&mut self, letter: char) {
        match letter {
            't' => self.read_recipients = true,
            'i' => self.ignore_dots = true,
            'v' => self.verbose = true,
            'I' => self.mode = Mode::Aliases,
            // -n no aliases, -m me too, -s header check, -G gateway, -U user, -c, -E, -J, -T, -x: nothing to do.
            _ => {}
        }
    }

    fn valued(&mut self, letter: char, value: &str) -> Result<(), Failure> {
        match letter {
            'b' => self.mode = mode(value)?,
            'q' => self.mode = Mode::Flush,
            'f' | 'r' => self.sender = Some(value.to_owned()),
            'F' => self.full_name = Some(value.to_owned()),
            'o' if value == "i" => self.ignore_dots = true,
            'O' => self.ignore_dots |= value.replace(' ', "").eq_ignore_ascii_case("IgnoreDots=true"),
            'B' => self.eight_bit = value.eq_ignore_ascii_case("8BITMIME"),
            'N' => self.notify = Some(value.parse().map_err(|error| usage(format!("-N {value}: {error}")))?),
            'R' => self.ret = Some(ret(value)?),
            'V' => self.envid = Some(envid(value)?),
            // -A, -C configurations, -d debugging, -e, -oe how to report errors, -h hops, -L, -p, -Q, -X, other -O: nothing to do.
            _ => {}
        }
        Ok(())
    }
}

fn mode(value: &str) -> Result<Mode, Failure> {
    match value {
        "m" | "a" => Ok(Mode::Deliver),
        "s" => Ok(Mode::Smtp),
        "p" => Ok(Mode::Queue),
        "v" => Ok(Mode::Verify),
        "i" => Ok(Mode::Aliases),
        "d" | "D" => Err(usage(
            "-bd: this sendmail is not a daemon; start the spooler with `systemctl start spooler`, or with `spooler run`",
        )),
        other => Err(usage(format!("-b{other} is not supported; -bm, -bp, -bs, -bv and -bi are"))),
    }
}

fn ret(value: &str) -> Result<Ret, Failure> {
    match value.to_ascii_lowercase().as_str() {
        "full" => Ok(Ret::Full),
        "hdrs" | "headers" => Ok(Ret::Headers),
        _ => Err(usage(format!("-R {value}: write full or hdrs"))),
    }
}

/// An envelope identifier in xtext (RFC 3461 4).
fn envid(value: &str) -> Result<String, Failure> {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'+' | b'=' => out.push_str(&format!("+{byte:02X}")),
            b'!'..=b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("+{byte:02X}")),
        }
    }
    if out.is_empty() || out.len() > DSN_PARAMETER_BYTES_MAX {
        return Err(usage(format!("-V takes 1 to {DSN_PARAMETER_BYTES_MAX} bytes")));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Options {
        parse(&line.split('|').map(str::to_owned).collect::<Vec<_>>()).unwrap()
    }

    fn recipients(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// What real programs were seen to call.
    #[test]
    fn real_clients_are_understood() {
        let dotted = Options { ignore_dots: true, ..Options::default() };
        let by_header = Options { read_recipients: true, ..dotted.clone() };
        let from = |sender: &str, options: &Options| Options { sender: Some(sender.to_owned()), ..options.clone() };
        let mutt = Options {
            notify: Some(Notify { failure: true, delay: true, success: false }),
            ret: Some(Ret::Headers),
            recipients: recipients(&["rcpt@x", "bcc@x"]),
            ..from("env@x", &dotted)
        };
        for (client, line, expected) in [
            ("bsd-mailx", "-i|-t", by_header.clone()),
            ("bsd-mailx -r x", "-i|-t|-f|x", from("x", &by_header)),
            ("mailutils", "-oi|-f|root@host|-t", from("root@host", &by_header)),
            ("s-nail", "-i|--|a@x|b@x", Options { recipients: recipients(&["a@x", "b@x"]), ..dotted.clone() }),
            (
                "s-nail -r",
                "-i|-f|env@x|--|-odd@x",
                Options { recipients: recipients(&["-odd@x"]), ..from("env@x", &dotted) },
            ),
            ("mutt", "-oem|-oi|-f|env@x|-N|failure,delay|-R|hdrs|--|rcpt@x|bcc@x", mutt),
            ("neomutt", "-oem|-oi|--|a@x", Options { recipients: recipients(&["a@x"]), ..dotted.clone() }),
            (
                "git-email",
                "-f|me@x|-i|to@x|cc@x|bcc@x",
                Options { recipients: recipients(&["to@x", "cc@x", "bcc@x"]), ..from("me@x", &dotted) },
            ),
            (
                "cron",
                "-FCronDaemon|-i|-B8BITMIME|-oem|root",
                Options {
                    full_name: Some("CronDaemon".to_owned()),
                    eight_bit: true,
                    recipients: recipients(&["root"]),
                    ..dotted.clone()
                },
            ),
            ("php", "-t|-i", by_header.clone()),
            ("php -f", "-t|-i|-fwww@x", from("www@x", &by_header)),
            ("nmh", "-bs", Options { mode: Mode::Smtp, ..Options::default() }),
        ] {
            assert_eq!(read(line), expected, "{client}");
        }
    }

    #[test]
    fn options_bundle_and_values_glue() {
        assert_eq!(
            read("-tiv"),
            Options { read_recipients: true, ignore_dots: true, verbose: true, ..Options::default() }
        );
        assert_eq!(read("-tfa@b").sender.as_deref(), Some("a@b"));
        assert_eq!(read("-f|").sender.as_deref(), Some(""));
        assert_eq!(read("-f|<>|x").sender.as_deref(), Some("<>"));
        assert_eq!(read("-o|i").ignore_dots, read("-oi").ignore_dots);
        assert_eq!(read("-bp").mode, Mode::Queue);
        assert_eq!(read("-e|m|-i|a@b"), Options { recipients: recipients(&["a@b"]), ..read("-i") });
        assert!(read("-OIgnoreDots=true|a@b").ignore_dots && read("-O|ignoredots = True").ignore_dots);
        assert!(!read("-OIgnoreDots=false|a@b").ignore_dots);
        assert_eq!(read("-q15m").mode, Mode::Flush);
        assert_eq!(read("-q|-v"), Options { mode: Mode::Flush, verbose: true, ..Options::default() });
        assert_eq!(read("-Vid+x y").envid.as_deref(), Some("id+2Bx+20y"));
        assert_eq!(read("-Ac|-C/etc/x|-O|Timeout=3|-h3|-X|log|-odb|-d0.1|-n|-G|-x|-Ltag|a@b").recipients, ["a@b"]);
        assert_eq!(read("a@b|-t"), Options { recipients: recipients(&["a@b", "-t"]), ..Options::default() });
        assert_eq!(read("-").recipients, ["-"]);
    }

    #[test]
    fn values_are_taken_glued_or_apart() {
        for (letter, value) in [
            ("B", "7BIT"),
            ("C", "/etc/x"),
            ("e", "m"),
            ("F", "Name"),
            ("f", "me@x"),
            ("h", "3"),
            ("L", "tag"),
            ("N", "never"),
            ("O", "Timeout=3"),
            ("o", "em"),
            ("p", "ESMTP:host"),
            ("R", "hdrs"),
            ("r", "me@x"),
            ("V", "id"),
            ("X", "log"),
        ] {
            let glued = read(&format!("-{letter}{value}|a@b"));
            assert_eq!(glued, read(&format!("-{letter}|{value}|a@b")), "-{letter}");
            assert_eq!(glued.recipients, ["a@b"], "-{letter}");
        }
    }

    #[test]
    fn nonsense_is_a_usage_error() {
        for line in [
            "-q|a@b",
            "-qf|-t",
            "-bp|-t",
            "-bs|a@b",
            "-bi|-t",
            "-e",
            "-Z",
            "-f",
            "-N|sometimes",
            "-R|half",
            "-V|",
            "-bd",
            "-bx",
            "-i\u{e4}",
        ] {
            let arguments: Vec<String> = line.split('|').map(str::to_owned).collect();
            assert_eq!(parse(&arguments).unwrap_err().code(), 64, "{line}");
        }
    }
}
