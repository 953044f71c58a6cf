//! The command line of a program, with what an address may and may not put into it: pure.
//!
//! A value fills its place in one argument and is never split, quoted or read by a shell. An argument with `{recipient}`, `{local}`
//! or `{domain}` stands once for each recipient. A value that would turn an argument into an option is refused.

use spooler_protocol::message::Recipient;

use crate::provider::local::parts::Parts;
use crate::provider::local::template::{Template, TemplateError};

/// What may stand in braces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Sender,
    Recipient,
    Local,
    Domain,
    Id,
    Size,
}

const NAMES: &[(&str, Name)] = &[
    ("sender", Name::Sender),
    ("recipient", Name::Recipient),
    ("local", Name::Local),
    ("domain", Name::Domain),
    ("id", Name::Id),
    ("size", Name::Size),
];

/// The setting `command`, read.
#[derive(Clone, Debug)]
pub(super) struct CommandLine {
    program: String,
    arguments: Arguments,
}

#[derive(Clone, Debug)]
enum Arguments {
    Fixed(Vec<String>),
    Filled(Vec<Template<Name>>),
}

/// Why the setting `command` is no command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CommandError {
    #[error("names no program; give a list such as [\"/usr/bin/program\", \"{{recipient}}\"]")]
    Empty,
    #[error("begins with {0:?}; give the program with its absolute path and without placeholders")]
    Program(String),
    #[error("is one text; give a list of the program and its arguments, or set shell = true")]
    OneText,
    #[error("must be one text for the shell, not a list")]
    ShellList,
    #[error("holds a NUL character")]
    Nul,
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Whom a run of the program is for.
#[derive(Clone, Debug)]
pub(super) struct Values {
    /// Return path; what stands for the null sender is up to the caller.
    pub(super) sender: String,
    /// The number of the message in the queue.
    pub(super) id: String,
    /// Bytes of the content as spooled.
    pub(super) size: String,
}

/// Why an address cannot be put on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ValueError {
    #[error("The address would begin an argument with \"-\", like an option")]
    Option,
    #[error("The address lacks a part that the command line needs")]
    Missing,
}

impl CommandLine {
    /// Reads the setting; with `shell` it is one text for `/bin/sh -c`, in which nothing is filled in.
    pub(super) fn parse(words: &[String], shell: bool) -> Result<Self, CommandError> {
        if words.iter().any(|word| word.contains('\0')) {
            return Err(CommandError::Nul);
        }
        let (program, arguments) = words.split_first().ok_or(CommandError::Empty)?;
        if program.is_empty() {
            return Err(CommandError::Empty);
        }
        if shell {
            if !arguments.is_empty() {
                return Err(CommandError::ShellList);
            }
            let arguments = Arguments::Fixed(vec!["-c".to_owned(), program.clone()]);
            return Ok(Self { program: "/bin/sh".to_owned(), arguments });
        }
        if arguments.is_empty() && program.contains(char::is_whitespace) {
            return Err(CommandError::OneText);
        }
        if !program.starts_with('/') || program.contains(['{', '}']) {
            return Err(CommandError::Program(program.clone()));
        }
        let templates = arguments.iter().map(|word| Template::parse(word, NAMES)).collect::<Result<_, _>>()?;
        Ok(Self { program: program.clone(), arguments: Arguments::Filled(templates) })
    }

    /// The path of the program.
    pub(super) fn program(&self) -> &str {
        &self.program
    }

    /// Whether a recipient can be put on the command line.
    pub(super) fn check(&self, values: &Values, recipient: &Recipient) -> Result<(), ValueError> {
        let parts = Parts::of(&recipient.address);
        for template in self.templates().iter().filter(|template| is_per_recipient(template)) {
            let missing = |name| match name {
                Name::Local => parts.local.is_empty(),
                Name::Domain => parts.domain.is_empty(),
                Name::Sender | Name::Recipient | Name::Id | Name::Size => false,
            };
            if template.names().any(missing) {
                return Err(ValueError::Missing);
            }
            no_option(template, &fill(template, values, Some((recipient, &parts))))?;
        }
        Ok(())
    }

    /// Whether the sender can be put on the command line.
    pub(super) fn check_sender(&self, values: &Values) -> Result<(), ValueError> {
        let mut common = self.templates().iter().filter(|template| !is_per_recipient(template));
        common.try_for_each(|template| no_option(template, &fill(template, values, None)))
    }

    /// The arguments for a run for these recipients.
    pub(super) fn arguments(&self, values: &Values, recipients: &[&Recipient]) -> Vec<String> {
        let templates = match &self.arguments {
            Arguments::Fixed(arguments) => return arguments.clone(),
            Arguments::Filled(templates) => templates,
        };
        let mut arguments = Vec::with_capacity(templates.len());
        for template in templates {
            if is_per_recipient(template) {
                let each = recipients
                    .iter()
                    .map(|recipient| fill(template, values, Some((recipient, &Parts::of(&recipient.address)))));
                arguments.extend(each);
            } else {
                arguments.push(fill(template, values, None));
            }
        }
        arguments
    }

    fn templates(&self) -> &[Template<Name>] {
        match &self.arguments {
            Arguments::Fixed(_) => &[],
            Arguments::Filled(templates) => templates,
        }
    }
}

fn is_per_recipient(template: &Template<Name>) -> bool {
    template.names().any(|name| matches!(name, Name::Recipient | Name::Local | Name::Domain))
}

fn no_option(template: &Template<Name>, filled: &str) -> Result<(), ValueError> {
    if template.first().is_some() && filled.starts_with('-') { Err(ValueError::Option) } else { Ok(()) }
}

fn fill(template: &Template<Name>, values: &Values, recipient: Option<(&Recipient, &Parts)>) -> String {
    template.fill(|name| match name {
        Name::Sender => values.sender.as_str(),
        Name::Id => values.id.as_str(),
        Name::Size => values.size.as_str(),
        Name::Recipient => recipient.map_or("", |(recipient, _)| recipient.address.text()),
        Name::Local => recipient.map_or("", |(_, parts)| parts.local.as_str()),
        Name::Domain => recipient.map_or("", |(_, parts)| parts.domain.as_str()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(words: &[&str]) -> CommandLine {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        CommandLine::parse(&words, false).unwrap()
    }

    fn values(sender: &str) -> Values {
        Values { sender: sender.to_owned(), id: "7".to_owned(), size: "12".to_owned() }
    }

    fn recipient(address: &str) -> Recipient {
        Recipient::new(address.parse().unwrap())
    }

    #[test]
    fn an_argument_with_a_recipient_stands_once_for_each() {
        let line = line(&["/bin/x", "-f{sender}", "{id}/{size}", "--to={recipient}", "{local}", "end"]);
        let (bob, ann) = (recipient("bob@b"), recipient("\"a n\"@a"));
        let arguments = line.arguments(&values("s@s"), &[&bob, &ann]);
        assert_eq!(arguments, ["-fs@s", "7/12", "--to=bob@b", "--to=\"a n\"@a", "bob", "a n", "end"]);
    }

    #[test]
    fn no_address_becomes_an_option() {
        let (open, closed) = (line(&["/bin/x", "{recipient}"]), line(&["/bin/x", "--to={recipient}"]));
        let hostile = recipient("-oQ/tmp");
        assert_eq!(open.check(&values("s"), &hostile), Err(ValueError::Option));
        assert_eq!(closed.check(&values("s"), &hostile), Ok(()));
        assert_eq!(line(&["/bin/x", "{domain}"]).check(&values("s"), &recipient("a@-d")), Err(ValueError::Option));
        assert_eq!(line(&["/bin/x", "{sender}"]).check_sender(&values("-s")), Err(ValueError::Option));
        assert_eq!(line(&["/bin/x", "-f", "{sender}"]).check_sender(&values("s@-")), Ok(()));
        assert_eq!(line(&["/bin/x", "{sender}{local}"]).check(&values(""), &hostile), Err(ValueError::Option));
    }

    #[test]
    fn a_part_that_is_needed_must_be_there() {
        let line = line(&["/bin/x", "{local}@{domain}"]);
        assert_eq!(line.check(&values("s"), &recipient("bob")), Err(ValueError::Missing));
        assert_eq!(line.check(&values("s"), &recipient("@d")), Err(ValueError::Missing));
    }

    #[test]
    fn a_shell_gets_its_text_as_it_is() {
        let text = "cat >\"$HOME/${RECIPIENT}\" {x}".to_owned();
        let line = CommandLine::parse(std::slice::from_ref(&text), true).unwrap();
        assert_eq!(line.program(), "/bin/sh");
        assert_eq!(line.arguments(&values("s"), &[&recipient("$(id)@d")]), ["-c", &text]);
    }

    #[test]
    fn a_bad_command_is_refused() {
        let parse = |words: &[&str], shell| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            CommandLine::parse(&words, shell).map(|_| ())
        };
        assert_eq!(parse(&[], false), Err(CommandError::Empty));
        assert_eq!(parse(&["/bin/x y"], false), Err(CommandError::OneText));
        assert_eq!(parse(&["x", "y"], false), Err(CommandError::Program("x".to_owned())));
        assert!(parse(&["/bin/{local}", "y"], false).is_err());
        assert!(parse(&["/bin/x", "{user}"], false).is_err());
        assert_eq!(parse(&["/bin/x", "y"], true), Err(CommandError::ShellList));
        assert_eq!(parse(&["/bin/x", "\0"], false), Err(CommandError::Nul));
    }
}
