//! The supervisor's duties in the provider contract, each shown by a short story: workers that say what the story wants, a clock that
//! moves only when told to, and what the supervisor then says to whom. No processes, no disk, no time.
//!
//! | file | stories about |
//! |---|---|
//! | `bench` | the stage: fake workers, a disk in memory, a clock |
//! | `sessions` | how a session begins, changes, fails and ends |
//! | `logons` | logging on with a person present |
//! | `inbound` | polling, receiving, idling |
//! | `outbound` | every answer to a delivery, and what comes after |
//! | `deferred` | messages that their provider keeps |
//! | `disk_trouble` | the disk fails |
//! | `order` | who is tried first, and which message goes first |
//! | `flushes` | who begins and ends a flush, in which order, and who holds a resource |
//! | `rows` | status rows, and those who watch them |
//! | `unserved` | recipients that no provider serves any more |
//! | `reports` | who is told, once |
//! | `telling` | what waits for a report that is being made |
//! | `sleep` | who hears of sleep in time |
//! | `quarantine` | messages whose workers die, and the postmaster |
//! | `gating` | what the idle gate has done |
//! | `resources` | receiving and failing where providers share a resource, or a call is out |
//! | `validation` | providers look after their state |

// The stage.
pub(super) mod bench;
mod deferred;
mod disk_trouble;
mod flushes;
mod gating;
mod inbound;
mod logons;
mod mail_log;
mod order;
mod outbound;
mod quarantine;
mod reports;
mod resources;
mod rows;
mod sessions;
mod sleep;
mod telling;
mod unserved;
mod validation;
