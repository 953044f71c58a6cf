//! End to end: the real programs, real workers, real sockets, a spool of its own for each scenario. One scenario group per file.
//!
//! | file | what is shown |
//! |---|---|
//! | `corpus` | real messages come out as they went in |
//! | `delivery` | messages go through, by each provider, and the queue survives a restart |

mod corpus;
#[path = "../data/mod.rs"]
mod data;
mod delivery;
mod sink;
mod smtp;
mod world;
