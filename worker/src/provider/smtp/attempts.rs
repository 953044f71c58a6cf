//! Which of several failed addresses is reported: the one that tells most, with the others listed behind it. Pure.
//!
//! An IPv6 address that no route leads to says nothing about the certificate that the IPv4 address of the same host has shown.

use spooler_protocol::outcome::{Cause, Reply};

/// Failures that are named behind the reported one; of the rest only the number.
const NAMED_MAX: usize = 3;

/// How far an address was reached; the farthest tells most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reached {
    /// The host has no known address.
    NoAddress,
    /// No network leads there, or the connection failed in another way on this side.
    Nothing,
    /// The connection was refused.
    Machine,
    /// No answer came in time.
    Silence,
    /// A connection was made, and was lost or fell silent.
    Connection,
    /// The server answered: a refusal, or a TLS handshake that failed.
    Server,
}

/// One address that gave no session.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    /// Host, address and port.
    pub(super) place: String,
    pub(super) reached: Reached,
    /// Why, in a few words.
    pub(super) why: String,
    /// The whole reason.
    pub(super) reply: Reply,
}

/// Those of one destination, in the order in which they were tried.
#[derive(Debug, Default)]
pub(super) struct Attempts(Vec<Attempt>);

impl Attempts {
    pub(super) fn push(&mut self, attempt: Attempt) {
        self.0.push(attempt);
    }

    /// The most telling reason; of equal ones the first. The others are named behind it, unless it is a server's own reply, which
    /// stays as it was said. `None` if nothing was tried.
    pub(super) fn into_reply(mut self) -> Option<Reply> {
        let best = (0..self.0.len()).rev().max_by_key(|&at| self.0.get(at).map(|attempt| attempt.reached))?;
        let told = self.0.remove(best);
        let mut reply = told.reply;
        if self.0.is_empty() {
            return Some(reply);
        }
        let named: Vec<String> =
            self.0.iter().take(NAMED_MAX).map(|other| format!("{} ({})", other.place, other.why)).collect();
        let rest = match self.0.len().saturating_sub(NAMED_MAX) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let others = format!("also tried {}{rest}", named.join(", "));
        if reply.cause == Cause::Remote {
            tracing::info!(reason = %reply, "no session; {others}");
        } else {
            reply.text = format!("{}; {others}", reply.text);
        }
        Some(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(place: &str, reached: Reached, cause: Cause) -> Attempt {
        let why = format!("{reached:?}").to_lowercase();
        let reply = Reply { cause, ..Reply::local(0, "4.4.1", format!("{place}: {why}")) };
        Attempt { place: place.to_owned(), reached, why, reply }
    }

    fn told(attempts: &[(&str, Reached, Cause)]) -> Option<String> {
        let mut all = Attempts::default();
        attempts.iter().for_each(|(place, reached, cause)| all.push(attempt(place, *reached, *cause)));
        all.into_reply().map(|reply| reply.text)
    }

    #[test]
    fn farthest_attempt_is_told_and_others_named() {
        let connect = |place, reached| (place, reached, Cause::Connect);
        let told = |attempts: &[_]| told(attempts).unwrap();
        assert_eq!(told(&[connect("a", Reached::Machine)]), "a: machine");
        let (server, nothing) = (connect("a", Reached::Server), connect("b", Reached::Nothing));
        for order in [[server, nothing], [nothing, server]] {
            assert_eq!(told(&order), "a: server; also tried b (nothing)");
        }
        let equals = ["a", "b", "c", "d", "e", "f"].map(|place| connect(place, Reached::Machine));
        assert_eq!(told(&equals), "a: machine; also tried b (machine), c (machine), d (machine) and 2 more");
    }

    #[test]
    fn reply_of_server_stays_verbatim() {
        let attempts = [("a", Reached::Nothing, Cause::Connect), ("b", Reached::Server, Cause::Remote)];
        assert_eq!(told(&attempts).unwrap(), "b: server");
        assert_eq!(told(&[]), None);
    }
}
