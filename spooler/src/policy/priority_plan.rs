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
    /// For a worker that overran: it runs when nobody else wants the processor (SCHED_IDLE).
    Demoted {
        /// Beside other sessions: 19.
        nice: i32,
    },
    /// While a critical section runs.
    Critical {
        /// -20 (most urgent) to 19.
        nice: i32,
    },
}

impl Level {
    /// The nice value.
    #[must_use]
    pub fn nice(self) -> i32 {
        match self {
            Self::Base { nice } | Self::Demoted { nice } | Self::Critical { nice } => nice,
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
        if let Some(refused) = &self.refused {
            write!(f, "; {refused}")?;
        }
        Ok(())
    }
}
