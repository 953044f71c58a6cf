//! What a worker's priority is to be. How it is brought about is another room's business.

use std::fmt;

/// The kernel's class for a thread. It counts among the threads that share a session, or a cgroup; beside others it is the nice value of
/// the session that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sched {
    /// SCHED_OTHER: it runs soon after it wakes up.
    #[default]
    Other,
    /// SCHED_BATCH: it does not interrupt others when it wakes up.
    Batch,
    /// SCHED_IDLE: it runs when hardly anybody else wants to.
    Idle,
}

impl Sched {
    /// As in the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Batch => "batch",
            Self::Idle => "idle",
        }
    }
}

/// How urgent reading and writing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// 0 (most urgent) to 7.
    BestEffort(u8),
    /// When nobody else does.
    Idle,
}

impl Io {
    /// Reads `idle` or `best-effort:N`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "idle" {
            return Some(Self::Idle);
        }
        let level = text.strip_prefix("best-effort:")?.parse().ok()?;
        (level <= 7).then_some(Self::BestEffort(level))
    }
}

impl fmt::Display for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BestEffort(level) => write!(f, "best-effort:{level}"),
            Self::Idle => f.write_str("idle"),
        }
    }
}

/// How urgent a worker is to the kernel: a nice value for its process group and for its autogroup, a class, and what its files get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As configured, for all the time outside critical sections.
    Base {
        /// -20 (most urgent) to 19.
        nice: i32,
        /// The class of its threads.
        sched: Sched,
        /// Reading and writing.
        io: Io,
    },
    /// For a worker that overran: it runs when nobody else wants the processor.
    Demoted {
        /// Beside other sessions: 19.
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
            Self::Base { nice, .. } | Self::Demoted { nice } | Self::Critical { nice, .. } => nice,
        }
    }

    /// The class of its threads.
    #[must_use]
    pub fn sched(self) -> Sched {
        match self {
            Self::Base { sched, .. } => sched,
            Self::Demoted { .. } => Sched::Idle,
            Self::Critical { .. } => Sched::Other,
        }
    }

    /// Reading and writing.
    #[must_use]
    pub fn io(self) -> Io {
        match self {
            Self::Base { io, .. } => io,
            Self::Demoted { .. } => Io::Idle,
            Self::Critical { .. } => Io::BestEffort(0),
        }
    }
}

/// What was read back after a change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Nice value of the least urgent thread.
    pub nice: Option<i32>,
    /// Nice value of the autogroup; `None` where there is none.
    pub autogroup: Option<i32>,
    /// The class of the least urgent thread; `None` if it is none of ours.
    pub sched: Option<Sched>,
    /// Reading and writing of the main thread.
    pub io: Option<Io>,
    /// What its cgroup has, such as `weight 15`; `None` where the spooler has none of its own to divide.
    pub cgroup: Option<String>,
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
        if let Some(sched) = self.sched {
            write!(f, ", {}", sched.word())?;
        }
        if self.realtime {
            f.write_str(", real time")?;
        }
        if let Some(io) = self.io {
            write!(f, ", io {io}")?;
        }
        if let Some(cgroup) = &self.cgroup {
            write!(f, ", cgroup {cgroup}")?;
        }
        for refused in [&self.instead, &self.refused].into_iter().flatten() {
            write!(f, "; {refused}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn io_is_read_as_it_is_shown() {
        for text in ["idle", "best-effort:0", "best-effort:7"] {
            assert_eq!(Io::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "best-effort", "best-effort:8", "best-effort:-1", "real-time:1"] {
            assert_eq!(Io::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_section_leaves_every_lower_class() {
        let base = Level::Base { nice: 10, sched: Sched::Idle, io: Io::Idle };
        assert_eq!((base.nice(), base.sched(), base.io()), (10, Sched::Idle, Io::Idle));
        let critical = Level::Critical { nice: -10, realtime: false };
        assert_eq!((critical.nice(), critical.sched(), critical.io()), (-10, Sched::Other, Io::BestEffort(0)));
        assert_eq!(Level::Demoted { nice: 19 }.sched(), Sched::Idle);
    }
}
