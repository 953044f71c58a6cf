//! End to end: the real programs, real workers, real sockets, a spool of its own for each scenario. One scenario group per file.
//!
//! | file | what is shown |
//! |---|---|
//! | `clients` | real mail programs, by `sendmail` and by SMTP |
//! | `corpus` | real messages come out as they went in |
//! | `delivery` | messages go through, by each provider, and the queue survives a restart |
//! | `peers` | other people's servers and programs at the far end |
//! | `reports` | senders are told what became of their messages |
//! | `rights` | other users send, and have to do with their own messages only |
//! | `tools` | what operators and programs do with the client tools |

mod clients;
mod corpus;
#[path = "../data/mod.rs"]
mod data;
mod delivery;
#[path = "../dovecot/mod.rs"]
mod dovecot;
mod peers;
mod reports;
mod rights;
mod sink;
mod smtp;
mod tools;
mod world;
