//! What a program says before it ends, however it ends; and what an address can do to a command line.

use std::time::Duration;

use spooler_protocol::fuzzing::{pieces, sections};
use spooler_protocol::message::{Address, Recipient};
use spooler_protocol::outcome::Outcome;

use super::command::{CommandLine, Values};
use super::tail::Tail;
use super::verdict::{Ending, outcome};

/// Bytes of a reply's text: the tail that is kept, where each byte may have become a replacement character.
const TEXT_BYTES_MAX: usize = 3 * 1024 + 200;

/// Input: the ending (`3` or any other exit code, `k9` for a signal, `t` for out of time, `c` for a content that cannot be read, `n` for
/// not started) with the cuts behind it, then what the program said.
pub(crate) fn program(input: &[u8]) {
    let [ending, cuts, said] = sections(input);
    let mut tail = Tail::default();
    pieces(said, cuts).for_each(|piece| tail.push(piece));
    let text = tail.text();
    let ending = ending_of(&String::from_utf8_lossy(ending), &text);
    let outcome = outcome(&ending, &text, "/usr/bin/program");
    let reply = outcome.reply();
    assert!(!reply.text.is_empty() && reply.text.len() <= TEXT_BYTES_MAX, "{} bytes", reply.text.len());
    assert!(!reply.text.chars().any(|c| c.is_control() && c != '\t' && c != '\n'), "{:?}", reply.text);
    let class = match &outcome {
        Outcome::Delivered(_) | Outcome::Relayed { .. } => "2",
        Outcome::Failed(_) => "5",
        Outcome::Deferred(_) => "4",
    };
    let numbers: Vec<&str> = reply.enhanced.split('.').collect();
    assert!(numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u16>().is_ok_and(|n| n < 1000)));
    assert!(numbers.first() == Some(&class) && reply.code.to_string().starts_with(class), "{outcome:?}");
    assert_eq!(class == "2", ending == Ending::Exited(0), "{ending:?}: {outcome:?}");
}

fn ending_of(text: &str, why: &str) -> Ending {
    let number = || text.trim_start_matches(char::is_alphabetic).parse().unwrap_or(1);
    match text.chars().next() {
        Some('k') => Ending::Killed(number()),
        Some('t') => Ending::TimedOut(Duration::from_secs(300)),
        Some('c') => Ending::Content(why.to_owned()),
        Some('n') => Ending::NotStarted { why: why.to_owned(), configuration: text.len() > 1 },
        _ => Ending::Exited(number()),
    }
}

/// Input: the command line (a word each line), then the sender and the recipient (a line each).
pub(crate) fn command(input: &[u8]) {
    let [words, addresses] = sections(input);
    let words: Vec<String> = String::from_utf8_lossy(words).lines().map(str::to_owned).collect();
    let Ok(line) = CommandLine::parse(&words, false) else { return };
    let addresses = String::from_utf8_lossy(addresses);
    let (sender, recipient) = addresses.split_once('\n').unwrap_or((&addresses, ""));
    let (Ok(sender), Ok(recipient)) = (sender.parse::<Address>(), recipient.parse()) else { return };
    let values = Values { sender: sender.text().to_owned(), id: "17".to_owned(), size: "1000".to_owned() };
    let recipient = Recipient::new(recipient);
    if line.check(&values, &recipient).is_err() || line.check_sender(&values).is_err() {
        return;
    }
    let arguments = line.arguments(&values, &[&recipient]);
    assert_eq!(arguments.len() + 1, words.len(), "an address is a part of one argument");
    for (word, argument) in words.iter().skip(1).zip(&arguments) {
        assert!(!argument.starts_with('-') || word.starts_with('-'), "an address became the option {argument:?}");
        assert!(!argument.contains('\0'));
    }
}
