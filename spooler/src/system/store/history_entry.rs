//! How the history keeps a message: as a JSON array without names, which would be more than half of it.

use serde::{Deserialize, Serialize};
use spooler_protocol::history::{End, Fate, Finished, FinishedRecipient};
use spooler_protocol::ids::MessageId;
use spooler_protocol::outcome::{Cause, Hop, Reply};

/// End, by whom, sender, size, when it was accepted, when it ended, origin, recipients.
#[derive(Serialize, Deserialize)]
struct Entry(End, Option<u32>, String, u64, i64, i64, String, Vec<EntryRecipient>);

/// Address, ORCPT, fate, attempts, when it was settled, provider, reply.
#[derive(Serialize, Deserialize)]
struct EntryRecipient(String, Option<String>, Fate, u32, i64, Option<String>, Option<EntryReply>);

/// Cause, code, enhanced code, text, remote, hop.
#[derive(Serialize, Deserialize)]
struct EntryReply(Cause, u16, String, String, String, Option<EntryHop>);

/// Peer, version of TLS, cipher, milliseconds of connecting and of transfer.
#[derive(Serialize, Deserialize)]
struct EntryHop(String, String, String, u64, u64);

/// The entry of a message.
pub(super) fn write(finished: Finished) -> rusqlite::Result<String> {
    let Finished { place: _, id: _, end, by_uid, sender, size, submitted_ms, ended_ms, origin, recipients } = finished;
    let recipients = recipients.into_iter().map(|recipient| {
        let FinishedRecipient { address, orcpt, fate, attempts, at_ms, provider, reply } = recipient;
        let reply = reply.map(|Reply { cause, code, enhanced, text, remote, hop }| {
            let hop = hop.map(|hop| EntryHop(hop.peer, hop.tls, hop.cipher, hop.connecting_ms, hop.transfer_ms));
            EntryReply(cause, code, enhanced, text, remote, hop)
        });
        EntryRecipient(address, orcpt, fate, attempts, at_ms, provider, reply)
    });
    super::changes::json(&Entry(end, by_uid, sender, size, submitted_ms, ended_ms, origin, recipients.collect()))
}

/// The message of an entry; `None` if it cannot be read.
pub(super) fn read(place: u64, id: MessageId, entry: &[u8]) -> Option<Finished> {
    let Entry(end, by_uid, sender, size, submitted_ms, ended_ms, origin, recipients) =
        serde_json::from_slice(entry).ok()?;
    let recipients = recipients.into_iter().map(|recipient| {
        let EntryRecipient(address, orcpt, fate, attempts, at_ms, provider, reply) = recipient;
        let reply = reply.map(|EntryReply(cause, code, enhanced, text, remote, hop)| {
            let hop = hop.map(|EntryHop(peer, tls, cipher, connecting_ms, transfer_ms)| {
                Box::new(Hop { peer, tls, cipher, connecting_ms, transfer_ms })
            });
            Reply { cause, code, enhanced, text, remote, hop }
        });
        FinishedRecipient { address, orcpt, fate, attempts, at_ms, provider, reply }
    });
    let recipients = recipients.collect();
    Some(Finished { place, id, end, by_uid, sender, size, submitted_ms, ended_ms, origin, recipients })
}
