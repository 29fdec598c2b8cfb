//! How one candidate comes to hold a lease, keeps it, and knows in time that it no longer does. Pure.
//!
//! What counts is the monotonic clock of whoever judges, as nobody can set it: a holder has had its time when its record in
//! the store has not changed for a whole lease *since it was first seen so*, and a holder stops acting `renew_deadline`
//! (which is shorter) after it *asked* for its last renewal. So whatever the wall clocks of stores and machines do, one has
//! stopped before another begins.

use std::time::{Duration, Instant};

use coredinator_core::{Epoch, Lease, StoreError};

use super::LeaseTiming;

/// What the store is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// How the lease stands.
    Inspect,
    /// To be given the lease, if it stands as it was seen.
    Take(Lease),
    /// To prolong it.
    Renew(Epoch),
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Ask the store; the answer is waited for until then at most.
    Ask(Ask, Instant),
    /// Wait until then, unless something happens; for ever, if there is no then.
    Wait(Option<Instant>),
}

/// What an answer, or time, changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// The lease is held from now on.
    Gained(Epoch),
    /// It no longer is, and this is why.
    Lost(String),
}

/// The lease as it was seen, and since when it has stood so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) lease: Lease,
    pub(super) since: Instant,
    /// It changed under the same holder while it was watched: that one lives.
    pub(super) lives: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Somebody else holds it, or nobody does.
    Watching { seen: Option<Seen>, look_at: Instant },
    /// It is held here.
    Holding { epoch: Epoch, until: Option<Instant>, renew_at: Option<Instant> },
    /// Not wanted any more.
    Retired,
}

/// One candidate for one lease.
#[derive(Debug, Clone)]
pub(super) struct Election {
    me: String,
    timing: LeaseTiming,
    /// Nobody else can use the store: what stands there is an earlier life's, and nobody takes the lease away.
    sole: bool,
    above: Epoch,
    state: State,
}

impl Election {
    /// A candidate called `me`, whose epochs are above `above`.
    pub(super) fn new(me: impl Into<String>, timing: LeaseTiming, sole: bool, above: Epoch, now: Instant) -> Self {
        Self { me: me.into(), timing, sole, above, state: State::Watching { seen: None, look_at: now } }
    }

    /// What new epochs are above.
    pub(super) fn above(&self) -> Epoch {
        self.above
    }

    /// Until when the lease is held for certain; the inner `None`: for ever.
    pub(super) fn held(&self) -> Option<(Epoch, Option<Instant>)> {
        match &self.state {
            State::Holding { epoch, until, .. } => Some((*epoch, *until)),
            State::Watching { .. } | State::Retired => None,
        }
    }

    /// The lease as it was seen last, while it is not held here.
    pub(super) fn seen(&self) -> Option<&Seen> {
        match &self.state {
            State::Watching { seen, .. } => seen.as_ref(),
            State::Holding { .. } | State::Retired => None,
        }
    }

    /// What to do at `now`. A lease that has run out meanwhile has to be noted by [`lapse`](Self::lapse) before.
    pub(super) fn next(&self, now: Instant) -> Next {
        let patience = now + self.timing.renew_deadline / 2;
        match &self.state {
            State::Retired => Next::Wait(None),
            State::Holding { epoch, until, renew_at: Some(at) } if *at <= now => {
                Next::Ask(Ask::Renew(*epoch), until.map_or(patience, |until| until.min(patience)))
            }
            State::Holding { until, renew_at, .. } => Next::Wait((*until).into_iter().chain(*renew_at).min()),
            State::Watching { look_at, .. } if *look_at > now => Next::Wait(Some(*look_at)),
            State::Watching { seen: Some(seen), .. } if self.may_take(seen, now) => {
                Next::Ask(Ask::Take(seen.lease.clone()), patience)
            }
            State::Watching { .. } => Next::Ask(Ask::Inspect, patience),
        }
    }

    fn may_take(&self, seen: &Seen, now: Instant) -> bool {
        let lease = &seen.lease;
        let mine = lease.holder.as_deref() == Some(&self.me);
        lease.holder.is_none() || mine || self.sole || now.saturating_duration_since(seen.since) >= self.timing.lease
    }

    /// Takes in what the store answered at `now` to what it was asked at `asked`.
    pub(super) fn answered(
        &mut self,
        ask: &Ask,
        asked: Instant,
        answer: Result<Lease, StoreError>,
        now: Instant,
    ) -> Option<Turn> {
        match (ask, &self.state) {
            (Ask::Inspect, State::Watching { .. }) => {
                match answer {
                    Ok(lease) => self.saw(lease, now),
                    Err(_) => self.look_again(now),
                }
                None
            }
            (Ask::Take(_), State::Watching { .. }) => match answer {
                // It came so late that its time is over already: another may have taken it since.
                Ok(_) if !self.sole && now.saturating_duration_since(asked) >= self.timing.renew_deadline => {
                    self.state = State::Watching { seen: None, look_at: now };
                    None
                }
                Ok(lease) => Some(self.hold(lease.epoch, asked)),
                Err(StoreError::LeaseHeld(lease)) => {
                    self.saw(lease, now);
                    None
                }
                // Whether it was given is not known: a look will tell.
                Err(_) => {
                    self.look_again(now);
                    None
                }
            },
            (Ask::Renew(renewed), State::Holding { epoch, until, .. }) if renewed == epoch => {
                let (epoch, until) = (*epoch, *until);
                match answer {
                    Ok(_) => {
                        self.hold(epoch, asked);
                        None
                    }
                    Err(StoreError::Fenced { .. } | StoreError::LeaseHeld(_)) => {
                        Some(self.lose("another has taken it over".to_owned(), now))
                    }
                    Err(_) => {
                        let renew_at = now.checked_add(self.timing.retry);
                        self.state = State::Holding { epoch, until, renew_at };
                        None
                    }
                }
            }
            _ => None,
        }
    }

    /// Notes that the lease has run out, if it has.
    pub(super) fn lapse(&mut self, now: Instant) -> Option<Turn> {
        match self.state {
            State::Holding { until: Some(until), .. } if until <= now => {
                Some(self.lose("it could not be renewed in time".to_owned(), now))
            }
            _ => None,
        }
    }

    /// The store has refused a write under the lease.
    pub(super) fn doubt(&mut self, now: Instant) -> Option<Turn> {
        match &mut self.state {
            State::Holding { .. } if self.sole => Some(self.lose("another coredinator uses the store".to_owned(), now)),
            State::Holding { renew_at, .. } => {
                *renew_at = Some(now);
                None
            }
            State::Watching { look_at, .. } => {
                *look_at = now;
                None
            }
            State::Retired => None,
        }
    }

    /// Somebody has said that the lease may stand differently now.
    pub(super) fn wake(&mut self, now: Instant) {
        if let State::Watching { look_at, .. } = &mut self.state {
            *look_at = now;
        }
    }

    /// Gives up: the epoch to be given back, if the lease is held.
    pub(super) fn retire(&mut self) -> Option<Epoch> {
        let held = self.held().map(|(epoch, _)| epoch);
        self.state = State::Retired;
        held
    }

    fn hold(&mut self, epoch: Epoch, asked: Instant) -> Turn {
        let after = |time: Duration| if self.sole { None } else { asked.checked_add(time) };
        let (until, renew_at) = (after(self.timing.renew_deadline), after(self.timing.retry));
        self.state = State::Holding { epoch, until, renew_at };
        Turn::Gained(epoch)
    }

    fn lose(&mut self, why: String, now: Instant) -> Turn {
        // Who is alone on a store and finds another there does not fight over it.
        self.state = if self.sole { State::Retired } else { State::Watching { seen: None, look_at: now } };
        Turn::Lost(why)
    }

    fn saw(&mut self, lease: Lease, now: Instant) {
        let before = self.seen().cloned();
        let seen = match before {
            Some(before) if before.lease == lease => before,
            Some(before) => {
                let same = before.lease.epoch == lease.epoch && before.lease.holder == lease.holder;
                Seen { lives: same && lease.holder.is_some(), lease, since: now }
            }
            None => Seen { lease, since: now, lives: false },
        };
        let look_at = if self.may_take(&seen, now) {
            now
        } else {
            // `None` is beyond all time: then the next look is soon enough.
            let ends = seen.since.checked_add(self.timing.lease).unwrap_or(now);
            (now + self.timing.retry).min(ends.max(now))
        };
        self.state = State::Watching { seen: Some(seen), look_at };
    }

    fn look_again(&mut self, now: Instant) {
        let again = now + self.timing.retry;
        if let State::Watching { look_at, .. } = &mut self.state {
            *look_at = again;
        }
    }
}
