//! End to end: the real programs, real workers, real sockets, a spool of its own for each scenario. One scenario group per file.
//!
//! | file | what is shown |
//! |---|---|
//! | `delivery` | messages go through, by each provider, and the queue survives a restart |
//! | `rogue` | a worker that misbehaves costs the others nothing, and its row says what is wrong |
//!
//! The rest is what they are built from: `world` (a spooler with its surroundings), `control` (a client of its socket), `smtp` (a
//! client), `sink` and `gate` (a server that can be held in any phase), `rogue_worker` (a program of its own).

mod control;
#[path = "../data/mod.rs"]
mod data;
mod delivery;
mod gate;
mod rogue;
mod sink;
mod smtp;
mod world;

/// Providers that most scenarios have: one that listens, and a relay to a port here.
const IN: &str = "[provider.submission]\nkind = \"smtp-in\"\nlisten = [\"127.0.0.1:0\"]\n";

fn relay(port: u16) -> String {
    format!(
        "[provider.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1:{port}\"\ntls = \"none\"\naddress_types = [\"SMTP\"]\n"
    )
}
