//! End to end: the real programs, real workers, real sockets, a spool of its own for each scenario. One scenario group per file.
//!
//! | file | what is shown |
//! |---|---|
//! | `addresses` | addresses get a domain, are rewritten and expanded, headers are completed, by every entrance |
//! | `calls` | providers are polled, keep messages, ask persons at logon, see the recipients of others, want senders told |
//! | `cases` | mail that other servers lose or send astray reaches its good addresses |
//! | `check` | `spooler check` sees what the service's user will see, and its advice works |
//! | `clients` | real mail programs, by `sendmail` and by SMTP |
//! | `corpus` | real messages come out as they went in |
//! | `crash` | workers die with messages in their hands: nothing is lost, nobody waits, poison is set aside |
//! | `critical` | critical sections end in time, with the worker, with the spooler, and say what is refused |
//! | `delivery` | messages go through, by each provider, and the queue survives a restart |
//! | `filters` | programs look at messages on their way in and out |
//! | `final_delivery` | a maildir and a program get one Return-Path, that of the envelope |
//! | `floods` | clients that trickle, stall and come in thousands keep nobody out |
//! | `bombs` | messages that are too large, too deep, or for too many |
//! | `init` | `spooler init` writes a configuration that works, and overwrites nothing |
//! | `install` | `scripts/install` puts the programs in place, beside another mail server, and takes them away again |
//! | `homes` | maildirs in home folders are those of system users |
//! | `lifecycle` | stop, hurry, reload, restart, and a second supervisor on the same spool |
//! | `machine` | power fails, links and devices come and go, the machine sleeps and wakes up |
//! | `overrun` | a worker that hangs or computes without end is found, demoted, ended and replaced |
//! | `peers` | other people's servers and programs at the far end |
//! | `places` | programs get their messages wherever the spool lies, on kernels old and new |
//! | `poison` | a message that kills its workers, among thousands that do not |
//! | `politeness` | background work waits for the idle gate, and whoever somebody waits for does not |
//! | `programs` | what programs compute is their provider's, and nobody is blamed for it |
//! | `reports` | senders are told what became of their messages |
//! | `rights` | other users send, and have to do with their own messages only |
//! | `rogue` | a worker that misbehaves costs the others nothing, and its row says what is wrong |
//! | `sandbox` | what workers cannot do, tried from inside; hogs and bombs cost their message only |
//! | `service` | readiness, watchdog, what of root's power is left, and the unit for systemd |
//! | `smtp_safety` | no look-alike of an end of message comes in or leaves, by any entrance |
//! | `stopped` | a worker that is stopped in the middle of a large message holds up nobody but itself |
//! | `supervisor_crash` | the supervisor is killed under load: what was acknowledged arrives |
//! | `tokens` | tokens are fair and bounded, overdraft is visible, critical sections raise and put back |
//! | `tools` | what operators and programs do with the client tools |
//! | `unprivileged` | an ordinary user runs the spooler, and the unit's user does |
//!
//! The rest is what they are built from: `world` (a spooler with its surroundings), `control` (a client of its socket), `smtp` (a
//! client), `sink` and `gate` (a server that can be held in any phase), `fault_worker` (a program of its own, with the kind `fault`), `dovecot` (a
//! private one), `data` (messages).

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod bombs;
#[cfg(test)]
mod calls;
#[cfg(test)]
mod cases;
#[cfg(test)]
mod check;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod control;
#[cfg(test)]
mod corpus;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod critical;
#[cfg(test)]
#[path = "../data/mod.rs"]
mod data;
#[cfg(test)]
mod delivery;
#[cfg(test)]
#[path = "../dovecot/mod.rs"]
mod dovecot;
#[cfg(test)]
mod filters;
#[cfg(test)]
mod final_delivery;
#[cfg(test)]
mod floods;
#[cfg(test)]
mod gate;
#[cfg(test)]
mod homes;
#[cfg(test)]
mod init;
#[cfg(test)]
mod install;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod machine;
#[cfg(test)]
mod mail_log;
#[cfg(test)]
mod overrun;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod places;
#[cfg(test)]
mod poison;
#[cfg(test)]
mod politeness;
#[cfg(test)]
mod programs;
#[cfg(test)]
mod reports;
#[cfg(test)]
mod rights;
#[cfg(test)]
mod rogue;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod service;
#[cfg(test)]
mod sink;
#[cfg(test)]
mod smtp;
#[cfg(test)]
mod smtp_safety;
#[cfg(test)]
mod stopped;
#[cfg(test)]
mod supervisor_crash;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod tools;
#[cfg(test)]
mod transports;
#[cfg(test)]
mod unprivileged;
#[cfg(test)]
mod world;

/// A provider that most scenarios have: it listens.
#[cfg(test)]
const IN: &str = "[provider.submission]\nkind = \"smtp-in\"\nlisten = [\"127.0.0.1:0\"]\n";

/// Another one: it relays to a port here.
#[cfg(test)]
fn relay(port: u16) -> String {
    format!(
        "[provider.relay]\nkind = \"smtp\"\nhost = \"127.0.0.1:{port}\"\ntls = \"none\"\naddress_types = [\"SMTP\"]\n"
    )
}
