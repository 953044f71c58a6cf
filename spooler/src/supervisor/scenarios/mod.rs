//! The supervisor's duties in the provider contract, each shown by a short story: workers that say what the story wants, a clock that
//! moves only when told to, and what the supervisor then says to whom. No processes, no disk, no time.
//!
//! | file | stories about |
//! |---|---|
//! | `bench` | the stage: fake workers, a disk in memory, a clock |
//! | `flushes` | who begins and ends a flush, in which order, and who holds a resource |
//! | `rows` | status rows, and those who watch them |
//! | `sessions` | how a session begins, changes and ends |

// The stage.
pub(super) mod bench;
mod flushes;
mod rows;
mod sessions;
