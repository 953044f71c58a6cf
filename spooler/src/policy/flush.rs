//! How one provider's queues are worked off, step by step (IXPLogon::FlushQueues and what follows it).
//!
//! ```text
//!            start         Ok            empty          bit (or it was set)       empty
//!  waiting ────────▶ asked ──▶ outbound ──────▶ awaiting ──────────────▶ inbound ──────▶ closing ──▶ over
//!     ▲   worker, resource │ Err, late                                              bits cleared    │
//!     │                    └───────────────────────────────────────────────────────────────────────▶│
//!     └───────────────────── somebody asked meanwhile, or the resource is handed over ──────────────┘
//! ```
//!
//! The provider's flush bits are commands: those that it sets when it is asked say which way it wants to be flushed, and clearing one
//! ends that way. A bit that it sets by itself starts a flush; it need not be asked then, unless it has to get a resource first. What is
//! begun with the provider is ended with it, once each.
//!
//! Who asked is remembered, because not everybody can make a flush go on: see [`Asker`]. What a step means is the supervisor's business.

mod ways;
pub use ways::Ways;

use spooler_protocol::calls::{CallError, FlushFlags};

/// A provider may take so long to get ready for a flush: it may have to dial.
const ANSWER_MS: i64 = 120_000;
/// A provider may take so long from the end of outbound to its inbound bit, and to clear its bits at the end.
const BIT_MS: i64 = 10_000;

/// Who wants a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A person, by the number of the request.
    Person(u64),
    /// The provider, with the bits of its row.
    Provider,
    /// The spooler: something waits for a provider that works only while it holds its resource.
    Spooler,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For its worker, or for its resource.
    Waiting,
    Asked {
        until_ms: i64,
    },
    Outbound,
    /// For its inbound bit.
    Awaiting {
        until_ms: i64,
    },
    Inbound,
    /// For its bits to be cleared: before that its resource is not free.
    Closing {
        until_ms: i64,
    },
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Call FlushQueues.
    Call(FlushFlags),
    /// Tell the provider that outbound begins, and work its queue off; [`Flush::on_drained`] says when it is empty.
    BeginOutbound,
    /// Tell the provider that outbound is over.
    EndOutbound,
    /// Tell the provider that inbound begins, and receive everything that waits; [`Flush::on_received`] says when that is done.
    BeginInbound,
    /// Tell the provider that inbound is over.
    EndInbound,
    /// The flush is over for these; if it is not what they wanted, why.
    Over(Vec<Asker>, Option<String>),
    /// Its resource goes to the next in the line; the flush waits to be started again.
    HandOver,
}

/// What a flush has to know about its provider when something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// The flush bits of its row.
    pub bits: Ways,
    /// Whether it has a resource that others wait for until its bits are cleared.
    pub has_resource: bool,
    /// Milliseconds on the clock that never jumps.
    pub now_ms: i64,
}

/// The flush of one provider.
#[derive(Debug)]
pub struct Flush {
    phase: Phase,
    /// What is left to do.
    left: Ways,
    /// Whether the provider's bits say what it wants; otherwise it knows nothing of flushes.
    bits_count: bool,
    /// Bits that it has set since the flush began, asked or not: clearing one of these counts in any case.
    seen: Ways,
    /// Whether anything was begun.
    begun: bool,
    /// What the provider was told to be over, or has ended itself.
    ended: Ways,
    /// The provider has stopped it.
    refused: bool,
    /// To be started again when it has closed.
    again: bool,
    askers: Vec<(Asker, Ways)>,
    /// Those who asked while it ran already: they get another round.
    late: Vec<(Asker, Ways)>,
}

impl Flush {
    /// A flush that waits to be started.
    #[must_use]
    pub fn new(asker: Asker, ways: Ways) -> Self {
        Self {
            phase: Phase::Waiting,
            left: ways,
            bits_count: false,
            seen: Ways::default(),
            begun: false,
            ended: Ways::default(),
            refused: false,
            again: false,
            askers: vec![(asker, ways)],
            late: Vec::new(),
        }
    }

    /// Somebody else wants it too.
    pub fn join(&mut self, asker: Asker, ways: Ways) {
        let waits = self.phase == Phase::Waiting;
        let askers = if waits { &mut self.askers } else { &mut self.late };
        match askers.iter_mut().find(|(known, _)| *known == asker) {
            Some((_, wanted)) => *wanted = wanted.and(ways),
            None => askers.push((asker, ways)),
        }
        if waits {
            self.left = self.left.and(ways);
        }
    }

    /// Somebody does not want it any more. What nobody wants ends.
    pub fn leave(&mut self, asker: Asker, view: View) -> Vec<Step> {
        self.askers.retain(|(known, _)| *known != asker);
        self.late.retain(|(known, _)| *known != asker);
        if self.askers.is_empty() && self.late.is_empty() { self.stop(Ways::BOTH, view) } else { Vec::new() }
    }

    /// Whether somebody but the spooler wants it: then it needs no slot.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        self.askers.iter().chain(&self.late).any(|(asker, _)| *asker != Asker::Spooler)
    }

    /// Those for whom this round is.
    pub fn askers(&self) -> impl Iterator<Item = Asker> + '_ {
        self.askers.iter().map(|(asker, _)| *asker)
    }

    /// Whether it waits to be started.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.phase == Phase::Waiting
    }

    /// Whether its outbound queue is being worked off.
    #[must_use]
    pub fn is_outbound(&self) -> bool {
        self.phase == Phase::Outbound
    }

    /// Whether its inbound queue is being worked off.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        self.phase == Phase::Inbound
    }

    /// Whether nothing is left of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Waiting && self.askers.is_empty()
    }

    /// Where it stands, for people.
    #[must_use]
    pub fn words(&self) -> &'static str {
        match self.phase {
            Phase::Waiting => "waits",
            Phase::Asked { .. } => "gets ready",
            Phase::Outbound => "outbound",
            Phase::Awaiting { .. } | Phase::Inbound => "inbound",
            Phase::Closing { .. } => "ends",
        }
    }

    /// When [`Flush::on_tick`] has something to do.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<i64> {
        match self.phase {
            Phase::Asked { until_ms } | Phase::Awaiting { until_ms } | Phase::Closing { until_ms } => Some(until_ms),
            Phase::Waiting | Phase::Outbound | Phase::Inbound => None,
        }
    }

    /// Its worker runs and it has its resource. `can_be_asked`: whether the provider has the method; `watched`: whether a person waits for
    /// the end.
    pub fn start(&mut self, can_be_asked: bool, watched: bool, view: View) -> Vec<Step> {
        if self.phase != Phase::Waiting {
            return Vec::new();
        }
        (self.begun, self.refused, self.again, self.ended) = (false, false, false, Ways::default());
        self.seen = view.bits;
        let asked_itself = self.askers.iter().all(|(asker, _)| *asker == Asker::Provider);
        if can_be_asked && (!asked_itself || view.has_resource) {
            self.phase = Phase::Asked { until_ms: view.now_ms + ANSWER_MS };
            self.bits_count = true;
            let person = self.askers.iter().any(|(asker, _)| matches!(asker, Asker::Person(_)));
            return vec![Step::Call(self.left.flags(person, watched))];
        }
        self.bits_count = asked_itself;
        self.next(view)
    }

    /// The provider has answered FlushQueues.
    pub fn on_answer(&mut self, answer: Result<(), CallError>, view: View) -> Vec<Step> {
        match (self.phase, answer) {
            (Phase::Asked { .. }, Ok(())) => self.next(view),
            (Phase::Asked { .. }, Err(why)) => self.over(Some(why.to_string())),
            // Late words.
            (Phase::Waiting | Phase::Outbound | Phase::Awaiting { .. } | Phase::Inbound | Phase::Closing { .. }, _) => {
                Vec::new()
            }
        }
    }

    /// The outbound queue is empty.
    pub fn on_drained(&mut self, view: View) -> Vec<Step> {
        if self.phase != Phase::Outbound {
            return Vec::new();
        }
        self.left.outbound = false;
        let mut steps = self.end(Ways::OUTBOUND);
        steps.extend(self.next(view));
        steps
    }

    /// There is nothing more to receive.
    pub fn on_received(&mut self, view: View) -> Vec<Step> {
        if self.phase != Phase::Inbound {
            return Vec::new();
        }
        self.left.inbound = false;
        let mut steps = self.end(Ways::INBOUND);
        steps.extend(self.close(view));
        steps
    }

    /// The flush bits of the provider's row have changed; `risen` are those that it has just set.
    pub fn on_bits(&mut self, risen: Ways, view: View) -> Vec<Step> {
        self.seen = self.seen.and(view.bits);
        match self.phase {
            // It has thought better of it.
            Phase::Waiting if view.bits.is_none() => self.leave(Asker::Provider, view),
            Phase::Outbound if !self.wanted(view).outbound => {
                self.left.outbound = false;
                self.refused = true;
                let mut steps = self.end(Ways::OUTBOUND);
                steps.extend(self.next(view));
                steps
            }
            Phase::Inbound if !self.wanted(view).inbound => {
                self.left.inbound = false;
                self.refused = true;
                let mut steps = self.end(Ways::INBOUND);
                steps.extend(self.close(view));
                steps
            }
            // It wants more than was asked for.
            Phase::Outbound if risen.inbound => {
                self.left.inbound = true;
                Vec::new()
            }
            Phase::Awaiting { .. } if view.bits.inbound => self.next(view),
            Phase::Closing { .. } if risen.is_none() && view.bits.is_none() => self.closed(),
            // It only says what is so.
            Phase::Inbound if risen == Ways::INBOUND => Vec::new(),
            // What it asks for once a round has begun, it gets in another one.
            Phase::Waiting | Phase::Inbound | Phase::Closing { .. } if !risen.is_none() => {
                self.join(Asker::Provider, risen);
                Vec::new()
            }
            Phase::Waiting
            | Phase::Asked { .. }
            | Phase::Outbound
            | Phase::Awaiting { .. }
            | Phase::Inbound
            | Phase::Closing { .. } => Vec::new(),
        }
    }

    /// It cannot be started now, or go on any more; why.
    pub fn fail(&mut self, why: String) -> Vec<Step> {
        let mut steps = if self.phase == Phase::Waiting { Vec::new() } else { self.end(self.left) };
        steps.extend(self.over(Some(why)));
        steps
    }

    /// The worker cannot answer, because it gets no token.
    pub fn be_patient(&mut self, now_ms: i64) {
        if matches!(self.phase, Phase::Asked { .. }) {
            self.phase = Phase::Asked { until_ms: now_ms + ANSWER_MS };
        }
    }

    /// Whether what is left of it includes these ways.
    #[must_use]
    pub fn covers(&self, ways: Ways) -> bool {
        ways.without(self.left).is_none()
    }

    /// Time has passed.
    pub fn on_tick(&mut self, view: View) -> Vec<Step> {
        match self.phase {
            Phase::Asked { until_ms } if until_ms <= view.now_ms => {
                let mut steps = self.end(self.left);
                steps.extend(self.over(Some("it did not say whether it can be flushed".to_owned())));
                steps
            }
            Phase::Awaiting { until_ms } if until_ms <= view.now_ms => {
                self.left.inbound = false;
                self.close(view)
            }
            Phase::Closing { until_ms } if until_ms <= view.now_ms => self.closed(),
            Phase::Waiting
            | Phase::Asked { .. }
            | Phase::Outbound
            | Phase::Awaiting { .. }
            | Phase::Inbound
            | Phase::Closing { .. } => Vec::new(),
        }
    }

    /// Others have waited for the resource long enough: the present phase ends, and the rest waits for another turn.
    pub fn hand_over(&mut self, view: View) -> Vec<Step> {
        let mut steps = match self.phase {
            Phase::Outbound => self.end(Ways::OUTBOUND),
            Phase::Inbound => self.end(Ways::INBOUND),
            Phase::Waiting | Phase::Asked { .. } | Phase::Awaiting { .. } | Phase::Closing { .. } => return Vec::new(),
        };
        self.again = true;
        steps.extend(self.close(view));
        steps
    }

    /// These ways are not to be flushed any more, whoever asked.
    pub fn stop(&mut self, ways: Ways, view: View) -> Vec<Step> {
        for askers in [&mut self.askers, &mut self.late] {
            askers.iter_mut().for_each(|(_, wanted)| *wanted = wanted.without(ways));
        }
        self.late.retain(|(_, wanted)| !wanted.is_none());
        self.left = self.left.without(ways);
        self.again = self.again && !self.left.is_none();
        match self.phase {
            Phase::Waiting if self.left.is_none() => self.over(None),
            Phase::Outbound if ways.outbound => {
                let mut steps = self.end(Ways::OUTBOUND);
                steps.extend(self.next(view));
                steps
            }
            Phase::Inbound | Phase::Awaiting { .. } if ways.inbound => {
                let mut steps = self.end(Ways::INBOUND);
                steps.extend(self.close(view));
                steps
            }
            // What it has got ready is let go when its answer is there.
            Phase::Waiting
            | Phase::Asked { .. }
            | Phase::Outbound
            | Phase::Awaiting { .. }
            | Phase::Inbound
            | Phase::Closing { .. } => Vec::new(),
        }
    }

    /// The worker will be asked to log off: what it has to be told before, in this phase.
    #[must_use]
    pub fn farewell(&self) -> Vec<Step> {
        match self.phase {
            Phase::Waiting | Phase::Closing { .. } => Vec::new(),
            Phase::Asked { .. } | Phase::Outbound => ends(self.left),
            Phase::Awaiting { .. } | Phase::Inbound => vec![Step::EndInbound],
        }
    }

    /// The worker is gone. What others want waits for the next one; what it wanted itself is void.
    pub fn on_gone(&mut self) {
        let late = std::mem::take(&mut self.late);
        for (asker, ways) in late {
            match self.askers.iter_mut().find(|(known, _)| *known == asker) {
                Some((_, wanted)) => *wanted = wanted.and(ways),
                None => self.askers.push((asker, ways)),
            }
        }
        self.askers.retain(|(asker, _)| matches!(asker, Asker::Person(_)));
        self.wait();
    }

    fn wait(&mut self) {
        self.phase = Phase::Waiting;
        self.left = self.askers.iter().fold(Ways::default(), |all, (_, ways)| all.and(*ways));
    }

    /// Goes on with the first way that is left and wanted by the provider.
    fn next(&mut self, view: View) -> Vec<Step> {
        let (comes_from_outbound, wanted) = (self.phase == Phase::Outbound, self.wanted(view));
        if self.left.outbound && wanted.outbound {
            self.phase = Phase::Outbound;
            self.begun = true;
            return vec![Step::BeginOutbound];
        }
        self.left.outbound = false;
        if self.left.inbound && wanted.inbound {
            self.phase = Phase::Inbound;
            self.begun = true;
            return vec![Step::BeginInbound];
        }
        if self.left.inbound && comes_from_outbound && !self.refused {
            self.phase = Phase::Awaiting { until_ms: view.now_ms + BIT_MS };
            return Vec::new();
        }
        self.left.inbound = false;
        self.close(view)
    }

    /// The ways in which the provider wants to be flushed: all that its bits do not speak against.
    fn wanted(&self, view: View) -> Ways {
        let silent = if self.bits_count { Ways::default() } else { Ways::BOTH.without(self.seen) };
        silent.and(view.bits)
    }

    /// Waits until the provider has let go what it holds, if anybody else needs it.
    fn close(&mut self, view: View) -> Vec<Step> {
        // What it has got ready for, and what does not come, is over too.
        let mut steps = if self.bits_count { self.end(view.bits) } else { Vec::new() };
        if view.has_resource && !view.bits.is_none() {
            self.phase = Phase::Closing { until_ms: view.now_ms + BIT_MS };
        } else {
            steps.extend(self.closed());
        }
        steps
    }

    /// Tells the provider that these ways are over, once each.
    fn end(&mut self, ways: Ways) -> Vec<Step> {
        let untold = ways.without(self.ended);
        self.ended = self.ended.and(ways);
        ends(untold)
    }

    fn closed(&mut self) -> Vec<Step> {
        if self.again && !self.left.is_none() {
            let left = self.left;
            let late = std::mem::take(&mut self.late);
            self.phase = Phase::Waiting;
            late.into_iter().for_each(|(asker, ways)| self.join(asker, ways));
            self.left = self.left.and(left);
            return vec![Step::HandOver];
        }
        let why = if self.refused {
            Some("the provider has ended the flush")
        } else if !self.begun && self.askers.iter().any(|(_, ways)| !ways.is_none()) {
            Some("the provider does not want to be flushed now")
        } else {
            None
        };
        self.over(why.map(str::to_owned))
    }

    /// This round is over; those who came late get the next one.
    fn over(&mut self, why: Option<String>) -> Vec<Step> {
        let askers = std::mem::replace(&mut self.askers, std::mem::take(&mut self.late));
        self.wait();
        vec![Step::Over(askers.into_iter().map(|(asker, _)| asker).collect(), why)]
    }
}

/// What is said to a provider about ways that are over.
fn ends(ways: Ways) -> Vec<Step> {
    let outbound = ways.outbound.then_some(Step::EndOutbound);
    outbound.into_iter().chain(ways.inbound.then_some(Step::EndInbound)).collect()
}
