//! Scenarios of the `smtp` provider.

// A certificate authority of our own.
mod authority;
// Sessions: made, kept, lost and replaced.
mod connections;
// What becomes of the bytes of a message.
mod content;
// Real servers, where there are any.
mod dovecot;
// Which failure of several is reported, and what is shown meanwhile.
mod failures;
// A server that does what a test says.
mod fake;
// Addresses and headers that are not ASCII.
mod international;
// LMTP, over TCP and Unix sockets.
mod lmtp;
// Delivery by MX, with a name server of a few lines.
mod mx;
// A server is tried without a message.
mod probe;
// What replies mean for whom.
mod replies;
// TLS and AUTH.
mod secure;
// Postfix's smtp-sink, where there is one.
mod sink;
// Certificates that are not believed, and the advice.
mod trust;

use crate::peer::Peer;

/// A worker that has logged on and may run as long as it likes, also while a test waits for something else than its word.
fn start(settings: &str) -> Peer {
    let (mut peer, _) = Peer::logged_on("smtp", settings);
    peer.grant(3_600_000);
    peer
}
