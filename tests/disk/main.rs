//! The disk below the store fails, fills up, loses its power and rots, under the real supervisor with real workers.
//!
//! | file | what is shown |
//! |---|---|
//! | `power` | the power is cut: what was acknowledged is there, and two controls in which syncs are broken find losses |
//! | `faults` | calls fail: clients are refused for the time being, nothing acknowledged is lost, and it goes on when the disk does |
//! | `full` | a file system that is really full |
//! | `rot` | bytes change: what is damaged is named and set aside, and the rest is delivered |
//!
//! The rest is what they are built from: `layer` (between the supervisor and its files), `trace` (what it has recorded), `image` (what is on
//! the disk after a cut), `load` (who sends and who receives), and the world of `e2e`.

#[cfg(test)]
#[path = "../e2e/control.rs"]
mod control;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod full;
#[cfg(test)]
#[path = "../e2e/gate.rs"]
#[expect(dead_code, reason = "the world of `e2e` can do more than is needed here")]
mod gate;
#[cfg(test)]
mod image;
#[cfg(test)]
mod layer;
#[cfg(test)]
mod load;
#[cfg(test)]
mod power;
#[cfg(test)]
mod rot;
#[cfg(test)]
#[path = "../e2e/sink.rs"]
#[expect(dead_code, reason = "the world of `e2e` can do more than is needed here")]
mod sink;
#[cfg(test)]
#[path = "../e2e/smtp.rs"]
#[expect(dead_code, reason = "the world of `e2e` can do more than is needed here")]
mod smtp;
#[cfg(test)]
mod trace;
#[cfg(test)]
#[path = "../e2e/world.rs"]
#[expect(dead_code, reason = "the world of `e2e` can do more than is needed here")]
mod world;
