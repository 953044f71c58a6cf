//! What became of messages that have left the queue: the protocol's words for it.

use serde::{Deserialize, Serialize};

use crate::ids::MessageId;
use crate::outcome::Reply;

/// How a message left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// All of its recipients are settled.
    Settled,
    /// A person removed it.
    Deleted,
    /// A person gave up on what was left of it.
    Cancelled,
}

/// What became of a recipient, or of a message as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It is where it belongs.
    Delivered,
    /// A next hop took it.
    Relayed,
    /// It could not be delivered; the sender was told, unless it wanted no report.
    Failed,
    /// A person gave up on it.
    Cancelled,
    /// A person removed its message.
    Discarded,
}

impl Fate {
    /// The word for it, as in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Discarded => "discarded",
        }
    }
}

/// One recipient of a [`Finished`] message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedRecipient {
    /// Where to.
    pub address: String,
    /// To whom the sender had addressed it, as an ORCPT parameter (RFC 3461 4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orcpt: Option<String>,
    /// What became of it.
    pub fate: Fate,
    /// Attempts that were made.
    pub attempts: u32,
    /// When it was settled, milliseconds since 1970.
    pub at_ms: i64,
    /// The provider that served it, or tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The last word about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<Reply>,
}

/// A message that has left the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    /// Its place in the history; grows with each message that ends.
    #[serde(default)]
    pub place: u64,
    /// Its number.
    pub id: MessageId,
    /// How it left the queue.
    pub end: End,
    /// The user who wanted that, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_uid: Option<u32>,
    /// Return path; empty is the null sender.
    pub sender: String,
    /// Bytes of the content.
    pub size: u64,
    /// When it was accepted, milliseconds since 1970.
    pub submitted_ms: i64,
    /// When it left the queue, milliseconds since 1970.
    pub ended_ms: i64,
    /// How it came in: `uid 1000`, `provider submission`, `report`.
    pub origin: String,
    /// Each recipient.
    pub recipients: Vec<FinishedRecipient>,
}

impl Finished {
    /// What became of the message as a whole: the worst of its recipients.
    #[must_use]
    pub fn fate(&self) -> Fate {
        let any = |fate| self.recipients.iter().any(|recipient| recipient.fate == fate);
        [Fate::Discarded, Fate::Cancelled, Fate::Failed, Fate::Relayed]
            .into_iter()
            .find(|fate| any(*fate))
            .unwrap_or(Fate::Delivered)
    }
}

/// Which messages of the history; all given conditions hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryFilter {
    /// This number.
    pub id: Option<u64>,
    /// A recipient contains this text, case ignored; also as the sender had addressed it.
    pub to: Option<String>,
    /// The sender contains this text, case ignored; `<>` is the null sender.
    pub from: Option<String>,
    /// This became of a recipient.
    pub state: Option<Fate>,
    /// A recipient was served, or tried last, by this provider.
    pub provider: Option<String>,
    /// Ended at this time or later, milliseconds since 1970.
    pub since_ms: Option<i64>,
    /// Only what ended behind this place.
    pub after: Option<u64>,
    /// At most so many, newest first.
    pub limit: Option<u64>,
}

impl HistoryFilter {
    /// Whether a message meets all conditions but those of time and number.
    #[must_use]
    pub fn matches(&self, finished: &Finished) -> bool {
        let holds = |text: &str, wanted: &str| text.to_lowercase().contains(wanted);
        let wanted = |text: &Option<String>| text.as_deref().map(str::to_lowercase);
        let (to, from) = (wanted(&self.to), wanted(&self.from));
        let is_from =
            |from: &str| if from == "<>" { finished.sender.is_empty() } else { holds(&finished.sender, from) };
        let is_to = |recipient: &FinishedRecipient| {
            to.as_deref().is_none_or(|to| {
                holds(&recipient.address, to) || recipient.orcpt.as_deref().is_some_and(|orcpt| holds(orcpt, to))
            })
        };
        let of_recipient = |recipient: &FinishedRecipient| {
            is_to(recipient)
                && self.state.is_none_or(|state| recipient.fate == state)
                && self.provider.as_ref().is_none_or(|provider| recipient.provider.as_ref() == Some(provider))
        };
        from.as_deref().is_none_or(is_from) && finished.recipients.iter().any(of_recipient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished() -> Finished {
        let recipient = |address: &str, fate, provider: &str| FinishedRecipient {
            address: address.to_owned(),
            orcpt: None,
            fate,
            attempts: 1,
            at_ms: 2,
            provider: Some(provider.to_owned()),
            reply: None,
        };
        Finished {
            place: 1,
            id: MessageId(7),
            end: End::Settled,
            by_uid: None,
            sender: String::new(),
            size: 3,
            submitted_ms: 1,
            ended_ms: 2,
            origin: "uid 0".to_owned(),
            recipients: vec![recipient("Ann@x", Fate::Delivered, "local"), recipient("bob@y", Fate::Failed, "relay")],
        }
    }

    #[test]
    fn conditions_hold_for_one_recipient_together() {
        let filter = |to: &str, state, provider: Option<&str>| HistoryFilter {
            to: Some(to.to_owned()),
            state,
            provider: provider.map(str::to_owned),
            from: Some("<>".to_owned()),
            ..HistoryFilter::default()
        };
        assert!(filter("ann@", Some(Fate::Delivered), Some("local")).matches(&finished()));
        assert!(filter("BOB", Some(Fate::Failed), None).matches(&finished()));
        assert!(!filter("bob", Some(Fate::Delivered), None).matches(&finished()), "that was another recipient");
        assert!(!filter("ann", None, Some("relay")).matches(&finished()));
        assert!(!HistoryFilter { from: Some("x".to_owned()), ..HistoryFilter::default() }.matches(&finished()));
        assert_eq!(finished().fate(), Fate::Failed);
    }
}
