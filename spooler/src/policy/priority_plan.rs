//! What a worker's priority is to be. How it is brought about is another room's business.

use std::fmt;

/// How urgent a worker is to the kernel: a nice value for its process group and for its autogroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As configured, for all the time outside critical sections.
    Base {
        /// -20 (most urgent) to 19.
        nice: i32,
    },
    /// While a critical section runs.
    Critical {
        /// -20 (most urgent) to 19.
        nice: i32,
        /// Whether it runs before everything that has no real-time class (SCHED_RR), if that is permitted.
        realtime: bool,
    },
}

impl Level {
    /// The nice value.
    #[must_use]
    pub fn nice(self) -> i32 {
        match self {
            Self::Base { nice } | Self::Critical { nice, .. } => nice,
        }
    }
}

/// What was read back after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Nice value of the least urgent thread.
    pub nice: Option<i32>,
    /// Nice value of the autogroup; `None` where there is none.
    pub autogroup: Option<i32>,
    /// Whether every thread has a real-time class.
    pub realtime: bool,
    /// What was refused and has something else in its place, with what to do about it.
    pub instead: Option<String>,
    /// What was refused, with what to do about it.
    pub refused: Option<String>,
}

impl fmt::Display for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.nice {
            Some(nice) => write!(f, "nice {nice}")?,
            None => f.write_str("nice unknown")?,
        }
        if let Some(autogroup) = self.autogroup {
            write!(f, ", autogroup {autogroup}")?;
        }
        if self.realtime {
            f.write_str(", real time")?;
        }
        for refused in [&self.instead, &self.refused].into_iter().flatten() {
            write!(f, "; {refused}")?;
        }
        Ok(())
    }
}
