//! Which messages a filter means, and what a listing says of them: pure, the same for every store.
//!
//! A store knows `Ready`, `Held` and `Quarantined`. A ready message of which every unsettled recipient has its next try still to
//! come is shown as `Deferred`; a damaged one as `Quarantined`; `InFlight` only the schedule knows.

use spooler_protocol::control::{
    Death, Filter, MessageDetail, MessageState, MessageSummary, RecipientDetail, RecipientState,
};
use spooler_protocol::ids::MessageId;

use super::{RecipientUpdate, Scanned, ScannedMessage};

/// Recipients that a listing names per message.
const SUMMARY_RECIPIENTS_MAX: usize = 10;

/// A message as stores keep it.
#[derive(Clone, Debug)]
pub(super) struct StoredMessage {
    pub(super) scanned: ScannedMessage,
    /// Why it is held or set aside.
    pub(super) why: String,
    pub(super) origin: String,
    pub(super) owner_uid: Option<u32>,
    /// Workers that died while they had it.
    pub(super) died: Vec<Death>,
}

/// What is left of a message that cannot be read.
#[derive(Clone, Debug)]
pub(super) struct DamagedMessage {
    pub(super) id: MessageId,
    /// What is wrong with it.
    pub(super) why: String,
    pub(super) sender: String,
    pub(super) origin: String,
    pub(super) owner_uid: Option<u32>,
    pub(super) submitted_ms: i64,
    pub(super) size: u64,
}

/// What a store finds under a number.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    Message(Box<StoredMessage>),
    Damaged(Box<DamagedMessage>),
}

/// Reads a list of message numbers, separated by commas; gives each once, in ascending order.
///
/// # Errors
/// A sentence for a person if the text is anything else.
pub fn parse_ids(text: &str) -> Result<Vec<MessageId>, String> {
    let number = |word: &str| {
        let word = word.trim();
        let all_digits = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = if all_digits { word.parse().ok() } else { None };
        parsed.map(MessageId).ok_or_else(|| {
            format!("{word:?} is not a message number; write numbers separated by commas, such as \"12,15\"")
        })
    };
    let mut ids = text.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// A [`Filter`] made ready to be asked many times.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub(super) ids: Option<Vec<MessageId>>,
    pub(super) owner_uid: Option<u32>,
    /// Submitted before this time.
    pub(super) before_ms: Option<i64>,
    pub(super) limit: Option<u64>,
    provider: Option<String>,
    to: Option<String>,
    from: Option<String>,
    state: Option<MessageState>,
    now_ms: i64,
}

impl Selection {
    pub(super) fn new(filter: &Filter, now_ms: i64, owner_uid: Option<u32>) -> Result<Self, String> {
        let age_ms = |seconds: u64| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
        Ok(Self {
            ids: filter.ids.as_deref().map(parse_ids).transpose()?,
            owner_uid,
            before_ms: filter.older_s.map(|seconds| now_ms.saturating_sub(age_ms(seconds))),
            limit: filter.limit,
            provider: filter.provider.clone(),
            to: filter.to.as_deref().map(str::to_lowercase),
            from: filter.from.as_deref().map(str::to_lowercase),
            state: filter.state,
            now_ms,
        })
    }

    /// Whether all conditions hold, apart from the limit.
    pub(super) fn matches(&self, stored: &Stored) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.binary_search(&stored.id()).is_ok())
            && self.owner_uid.is_none_or(|uid| stored.owner_uid() == Some(uid))
            && self.before_ms.is_none_or(|before_ms| stored.submitted_ms() < before_ms)
            && self.state.is_none_or(|state| stored.state(self.now_ms) == state)
            && self.from.as_deref().is_none_or(|from| is_from(stored.sender(), from))
            && self.to.as_deref().is_none_or(|to| stored.is_to(to))
            && self.provider.as_deref().is_none_or(|provider| stored.waits_for(provider))
    }
}

fn is_from(sender: &str, wanted: &str) -> bool {
    if wanted == "<>" { sender.is_empty() } else { sender.to_lowercase().contains(wanted) }
}

impl Stored {
    pub(super) fn id(&self) -> MessageId {
        match self {
            Self::Message(message) => message.scanned.id,
            Self::Damaged(damaged) => damaged.id,
        }
    }

    pub(super) fn owner_uid(&self) -> Option<u32> {
        match self {
            Self::Message(message) => message.owner_uid,
            Self::Damaged(damaged) => damaged.owner_uid,
        }
    }

    fn submitted_ms(&self) -> i64 {
        match self {
            Self::Message(message) => message.scanned.submitted_ms,
            Self::Damaged(damaged) => damaged.submitted_ms,
        }
    }

    fn sender(&self) -> &str {
        match self {
            Self::Message(message) => &message.scanned.envelope.sender,
            Self::Damaged(damaged) => &damaged.sender,
        }
    }

    fn state(&self, now_ms: i64) -> MessageState {
        match self {
            Self::Message(message) => message.state(now_ms),
            Self::Damaged(_) => MessageState::Quarantined,
        }
    }

    fn is_to(&self, wanted: &str) -> bool {
        match self {
            Self::Message(message) => {
                let recipients = &message.scanned.envelope.recipients;
                recipients.iter().any(|recipient| recipient.address.to_string().to_lowercase().contains(wanted))
            }
            Self::Damaged(_) => false,
        }
    }

    fn waits_for(&self, provider: &str) -> bool {
        match self {
            Self::Message(message) => {
                message.pending().any(|recipient| recipient.provider.as_deref() == Some(provider))
            }
            Self::Damaged(_) => false,
        }
    }

    pub(super) fn into_scanned(self) -> Scanned {
        match self {
            Self::Message(message) => Scanned::Message(Box::new(message.scanned)),
            Self::Damaged(damaged) => Scanned::Damaged { id: damaged.id, why: damaged.why },
        }
    }

    pub(super) fn summary(&self, now_ms: i64) -> MessageSummary {
        match self {
            Self::Message(message) => message.summary(now_ms),
            Self::Damaged(damaged) => damaged.summary(),
        }
    }

    pub(super) fn detail(&self, now_ms: i64) -> MessageDetail {
        let summary = self.summary(now_ms);
        match self {
            Self::Message(message) => MessageDetail {
                summary,
                envid: message.scanned.envelope.envid.clone(),
                origin: message.origin.clone(),
                recipient_details: message.recipient_details(now_ms),
                deaths: message.died.clone(),
            },
            Self::Damaged(damaged) => MessageDetail {
                summary,
                envid: None,
                origin: damaged.origin.clone(),
                recipient_details: Vec::new(),
                deaths: Vec::new(),
            },
        }
    }
}

impl StoredMessage {
    fn pending(&self) -> impl Iterator<Item = &RecipientUpdate> {
        self.scanned.recipients.iter().filter(|recipient| recipient.state == RecipientState::Pending)
    }

    fn state(&self, now_ms: i64) -> MessageState {
        match self.scanned.state {
            MessageState::Held => MessageState::Held,
            MessageState::Quarantined => MessageState::Quarantined,
            MessageState::Ready | MessageState::InFlight | MessageState::Deferred => {
                let mut pending = self.pending().peekable();
                let waits = pending.peek().is_some() && pending.all(|recipient| recipient.next_try_ms > now_ms);
                if waits { MessageState::Deferred } else { MessageState::Ready }
            }
        }
    }

    /// Of the recipient that is tried next: that is what the message waits for.
    fn why_deferred(&self) -> String {
        let replied = self.pending().filter(|recipient| recipient.reply.is_some());
        let next = replied.min_by_key(|recipient| recipient.next_try_ms);
        next.and_then(|recipient| recipient.reply.as_ref()).map(ToString::to_string).unwrap_or_default()
    }

    fn summary(&self, now_ms: i64) -> MessageSummary {
        let state = self.state(now_ms);
        let addresses = |pending: bool| {
            let both = self.scanned.envelope.recipients.iter().zip(&self.scanned.recipients);
            let chosen = both.filter(move |(_, update)| (update.state == RecipientState::Pending) == pending);
            chosen.map(|(recipient, _)| recipient.address.to_string())
        };
        MessageSummary {
            id: self.scanned.id,
            state,
            why: if state == MessageState::Deferred { self.why_deferred() } else { self.why.clone() },
            sender: self.scanned.envelope.sender.clone(),
            recipients: addresses(true).chain(addresses(false)).take(SUMMARY_RECIPIENTS_MAX).collect(),
            pending: self.pending().fold(0, |count, _| count + 1),
            size: self.scanned.size,
            submitted_ms: self.scanned.submitted_ms,
            next_try_ms: self.pending().map(|recipient| recipient.next_try_ms).filter(|at_ms| *at_ms > now_ms).min(),
            attempts: self.scanned.recipients.iter().map(|recipient| recipient.attempts).max().unwrap_or(0),
        }
    }

    fn recipient_details(&self, now_ms: i64) -> Vec<RecipientDetail> {
        let both = self.scanned.envelope.recipients.iter().zip(&self.scanned.recipients);
        both.map(|(recipient, update)| {
            let waits = update.state == RecipientState::Pending && update.next_try_ms > now_ms;
            RecipientDetail {
                address: recipient.address.to_string(),
                state: update.state,
                attempts: update.attempts,
                next_try_ms: waits.then_some(update.next_try_ms),
                provider: update.provider.clone(),
                reply: update.reply.clone(),
                notify: recipient.notify,
            }
        })
        .collect()
    }

    /// What to say of it if something of it turns out to be damaged.
    pub(super) fn remains(&self, why: String) -> DamagedMessage {
        DamagedMessage {
            id: self.scanned.id,
            why,
            sender: self.scanned.envelope.sender.clone(),
            origin: self.origin.clone(),
            owner_uid: self.owner_uid,
            submitted_ms: self.scanned.submitted_ms,
            size: self.scanned.size,
        }
    }
}

impl DamagedMessage {
    fn summary(&self) -> MessageSummary {
        MessageSummary {
            id: self.id,
            state: MessageState::Quarantined,
            why: format!("damaged: {}", self.why),
            sender: self.sender.clone(),
            recipients: Vec::new(),
            pending: 0,
            size: self.size,
            submitted_ms: self.submitted_ms,
            next_try_ms: None,
            attempts: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_order_and_once() {
        assert_eq!(parse_ids("7, 3,7"), Ok(vec![MessageId(3), MessageId(7)]));
        for bad in ["", "1,", "x", "-1", "+1", "1 2", "99999999999999999999"] {
            let said = parse_ids(bad).unwrap_err();
            assert!(said.contains("separated by commas"), "{said}");
        }
    }
}
