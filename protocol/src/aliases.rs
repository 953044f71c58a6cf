//! What the control socket says about aliases (JSON).

use serde::{Deserialize, Serialize};

/// A mistake in a file of aliases; what it concerns is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasMistake {
    /// The line, from 1.
    pub line: u32,
    /// What is wrong there; goes on from the place.
    pub message: String,
}

/// How a file of aliases was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasFile {
    /// The file.
    pub path: String,
    /// Aliases in it that count.
    pub count: usize,
    /// Whether there is no such file.
    pub missing: bool,
    /// Why nothing of it could be read.
    pub failure: Option<String>,
    /// The first mistakes.
    pub mistakes: Vec<AliasMistake>,
    /// Further ones.
    pub more_mistakes: usize,
}

impl AliasFile {
    /// What is wrong, a line for each.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let path = &self.path;
        let mut lines: Vec<String> =
            self.mistakes.iter().map(|mistake| format!("{path}:{}: {}", mistake.line, mistake.message)).collect();
        if self.more_mistakes > 0 {
            lines.push(format!("{path}: {} more mistakes", self.more_mistakes));
        }
        if let Some(failure) = &self.failure {
            lines.push(format!("{path}: {failure}"));
        }
        if self.missing {
            lines.push(format!("{path}: there is no such file"));
        }
        lines
    }

    /// How it is, in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let aliases = if self.count == 1 { "1 alias".to_owned() } else { format!("{} aliases", self.count) };
        let mistakes = match self.mistakes.len() + self.more_mistakes {
            0 => "no mistakes".to_owned(),
            1 => "1 mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        format!("{}: {aliases}, {mistakes}", self.path)
    }
}

/// The aliases were read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasesRead {
    /// Each file.
    pub files: Vec<AliasFile>,
    /// Whether the aliases are in effect now. They are not if a file could not be read: those before stay.
    pub in_effect: bool,
}

/// One step on the way of an address over aliases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasStep {
    /// How many aliases led here.
    pub depth: usize,
    /// The address.
    pub address: String,
    /// Where its alias is written; `None` for an address where the way ends.
    pub written: Option<String>,
    /// It led here already, and is kept as the local address that it is.
    pub circle: bool,
}

/// Which address is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AliasQuestion {
    /// A name or an address.
    pub name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(mistakes: usize) -> AliasFile {
        let mistake = AliasMistake { line: 7, message: "has no colon".to_owned() };
        AliasFile {
            path: "/etc/aliases".to_owned(),
            count: 12,
            missing: false,
            failure: None,
            mistakes: vec![mistake; mistakes],
            more_mistakes: 0,
        }
    }

    #[test]
    fn a_file_is_told_of_in_sentences() {
        assert_eq!(file(0).summary(), "/etc/aliases: 12 aliases, no mistakes");
        assert!(file(0).problems().is_empty());
        let one = AliasFile { count: 1, ..file(1) };
        assert_eq!(one.summary(), "/etc/aliases: 1 alias, 1 mistake");
        assert_eq!(one.problems(), ["/etc/aliases:7: has no colon"]);
        let missing = AliasFile { missing: true, more_mistakes: 3, ..file(0) };
        assert_eq!(missing.problems(), ["/etc/aliases: 3 more mistakes", "/etc/aliases: there is no such file"]);
    }
}
