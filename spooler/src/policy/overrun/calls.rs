//! Calls that a worker was made and has not answered, each with its own patience: one that goes on well is no excuse for another one.

/// What a provider is called for, beside deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Whether a message waits (Poll).
    Poll,
    /// To receive one (StartMessage).
    Start,
    /// To do housekeeping (Idle).
    Idle,
    /// To say again what it is (AddressTypes).
    Announce,
    /// To get ready for a flush (FlushQueues).
    Flush,
}

impl Call {
    /// What it is about, as in `has said nothing of its housekeeping (Idle)`.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Poll => "whether a message waits (Poll)",
            Self::Start => "the message that it was to receive (StartMessage)",
            Self::Idle => "its housekeeping (Idle)",
            Self::Announce => "what it serves (AddressTypes)",
            Self::Flush => "the flush that it was to get ready for (FlushQueues)",
        }
    }

    /// What the provider does meanwhile, for its row.
    #[must_use]
    pub fn doing(self) -> &'static str {
        match self {
            Self::Poll => "looks whether a message waits",
            Self::Start => "receives a message",
            Self::Idle => "does its housekeeping",
            Self::Announce => "says what it serves",
            Self::Flush => "gets ready for a flush",
        }
    }
}

/// The calls that are open, and since when each is silent, milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls(Vec<(Call, i64)>);

impl Calls {
    /// One is made.
    pub(super) fn begin(&mut self, call: Call, now_ms: i64) {
        self.0.push((call, now_ms));
    }

    /// One is answered; false if it was not open. Of several of a kind it is the newest: a provider that is still at the first one
    /// refuses those that follow.
    pub(super) fn end(&mut self, call: Call) -> bool {
        let place = self.0.iter().rposition(|(open, _)| *open == call);
        place.map(|place| self.0.remove(place)).is_some()
    }

    /// The worker got on with something, and nobody can tell with which of them.
    pub(super) fn news(&mut self, now_ms: i64) {
        for (_, heard_ms) in &mut self.0 {
            *heard_ms = now_ms;
        }
    }

    /// The worker could not go on for so long, which is not its silence.
    pub(super) fn forgive(&mut self, waited_ms: i64, now_ms: i64) {
        for (_, heard_ms) in &mut self.0 {
            *heard_ms = (*heard_ms + waited_ms).min(now_ms);
        }
    }

    /// The one that is silent for longest, and since when.
    pub(super) fn quietest(&self) -> Option<(Call, i64)> {
        self.0.iter().copied().min_by_key(|(_, heard_ms)| *heard_ms)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
