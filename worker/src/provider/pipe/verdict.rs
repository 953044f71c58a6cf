//! From the end of a program to the outcome of its recipients: pure.
//!
//! Exit codes follow sysexits.h and what Postfix's pipe(8) makes of them:
//!
//! | exit code | outcome |
//! |---|---|
//! | 0 | delivered |
//! | 64 usage | failed 5.3.5 |
//! | 65 data | failed 5.6.0 |
//! | 66 no input, 69 unavailable, 70 software, 72 no system file | failed 5.3.0 |
//! | 67 no user | failed 5.1.1 |
//! | 68 no host | failed 5.1.2 |
//! | 71 system, 74 input/output, 75 try again | deferred 4.3.0 |
//! | 73 cannot create | failed 5.2.0 |
//! | 76 protocol | failed 5.5.0 |
//! | 77 no permission | failed 5.7.0 |
//! | 78 configuration; 126, 127 no such program (shells) | deferred 4.3.5 |
//! | any other | failed 5.3.0 |
//!
//! A program killed by a signal, or that ran out of time, is deferred. What a failing program said is the reason; if that begins with
//! an enhanced status code (RFC 3463) of class 4 or 5, the code wins over the table.

use std::time::Duration;

use spooler_protocol::outcome::{Outcome, Reply};
use spooler_protocol::units;

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// By itself.
    Exited(i32),
    /// By a signal that we did not send.
    Killed(i32),
    /// By us, because it ran longer than this.
    TimedOut(Duration),
    /// By us, because the message could not be read to its end.
    Content(String),
    /// It never began; `lasting` problems are those of the configuration.
    NotStarted { why: String, configuration: bool },
}

/// What an ending means, given what the program said.
pub(super) fn outcome(ending: &Ending, said: &str, program: &str) -> Outcome {
    let deferred = |enhanced: &str, text: String| Outcome::Deferred(reply(451, enhanced, text, program));
    match ending {
        Ending::Exited(0) => Outcome::Delivered(reply(250, "2.0.0", or(said, "Delivered to the program"), program)),
        Ending::Exited(code) => exited(*code, said, program),
        Ending::Killed(signal) => deferred("4.3.0", or(said, &format!("The program was killed by signal {signal}"))),
        Ending::TimedOut(limit) => {
            let limit = units::show_duration(*limit);
            deferred("4.3.0", format!("The program still ran after {limit} and was stopped"))
        }
        Ending::Content(why) => deferred("4.3.0", format!("Cannot read the message: {why}")),
        Ending::NotStarted { why, configuration } => {
            let enhanced = if *configuration { "4.3.5" } else { "4.3.0" };
            deferred(enhanced, format!("Cannot start the program: {why}"))
        }
    }
}

fn exited(code: i32, said: &str, program: &str) -> Outcome {
    let (enhanced, what) = match code {
        64 => ("5.3.5", "command line usage error"),
        65 => ("5.6.0", "data format error"),
        66 => ("5.3.0", "cannot open input"),
        67 => ("5.1.1", "user unknown"),
        68 => ("5.1.2", "host name unknown"),
        69 => ("5.3.0", "service unavailable"),
        70 => ("5.3.0", "internal software error"),
        71 => ("4.3.0", "system error"),
        72 => ("5.3.0", "a system file is missing"),
        73 => ("5.2.0", "cannot create output"),
        74 => ("4.3.0", "input/output error"),
        75 => ("4.3.0", "temporary failure"),
        76 => ("5.5.0", "remote error in protocol"),
        77 => ("5.7.0", "permission denied"),
        78 => ("4.3.5", "configuration error"),
        126 | 127 => ("4.3.5", "a program was not found or cannot be run"),
        _ => ("5.3.0", "unknown failure"),
    };
    let (enhanced, said) = split_enhanced(said).unwrap_or((enhanced, said));
    let text = or(said, &format!("The program ended with exit code {code}: {what}"));
    if enhanced.starts_with('4') {
        Outcome::Deferred(reply(451, enhanced, text, program))
    } else {
        Outcome::Failed(reply(550, enhanced, text, program))
    }
}

fn reply(code: u16, enhanced: &str, text: String, program: &str) -> Reply {
    let mut reply = Reply::local(code, enhanced, text);
    program.clone_into(&mut reply.remote);
    reply
}

fn or(said: &str, otherwise: &str) -> String {
    if said.is_empty() { otherwise.to_owned() } else { said.to_owned() }
}

/// The enhanced status code of a failure that a text begins with, and the rest.
fn split_enhanced(said: &str) -> Option<(&str, &str)> {
    let end = said.find(char::is_whitespace).unwrap_or(said.len());
    let (code, rest) = said.split_at(end);
    let mut numbers = code.split('.');
    let class = numbers.next()?;
    let small = |text: &str| (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let valid =
        matches!(class, "4" | "5") && small(numbers.next()?) && small(numbers.next()?) && numbers.next().is_none();
    valid.then(|| (code, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i32, said: &str) -> (bool, String, String) {
        let outcome = outcome(&Ending::Exited(code), said, "/bin/x");
        let reply = outcome.reply().clone();
        (matches!(outcome, Outcome::Deferred(_)), reply.enhanced, reply.text)
    }

    #[test]
    fn every_exit_code_has_a_class_that_fits_its_status() {
        for code in 1..=255 {
            let (deferred, enhanced, text) = of(code, "");
            assert_eq!(deferred, enhanced.starts_with('4'), "{code}");
            assert!(text.contains(&format!("exit code {code}:")), "{text}");
        }
        let deferred: Vec<i32> = (1..=255).filter(|code| of(*code, "").0).collect();
        assert_eq!(deferred, [71, 74, 75, 78, 126, 127]);
    }

    #[test]
    fn a_status_code_in_front_of_the_reason_wins() {
        assert_eq!(of(70, "4.2.2 mailbox full\nsorry"), (true, "4.2.2".to_owned(), "mailbox full\nsorry".to_owned()));
        assert_eq!(of(75, "5.1.1"), (false, "5.1.1".to_owned(), of(75, "").2));
        for said in ["2.0.0 fine", "5.1 no", "5.1.1.1 no", "5..1 no", "5.1.1000 no", "1.2.3.4 is down", "5.x.1 no"] {
            assert_eq!(of(67, said), (false, "5.1.1".to_owned(), said.to_owned()));
        }
    }

    #[test]
    fn what_the_program_could_not_decide_is_tried_again() {
        for ending in [
            Ending::Killed(9),
            Ending::TimedOut(Duration::from_secs(1)),
            Ending::Content("gone".to_owned()),
            Ending::NotStarted { why: "no".to_owned(), configuration: true },
        ] {
            assert!(matches!(outcome(&ending, "5.1.1 no", "/bin/x"), Outcome::Deferred(_)), "{ending:?}");
        }
    }
}
