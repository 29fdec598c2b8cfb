//! What a controller may take of what it shares: what it was told, for as long as that counts, and the safe side without a
//! word. Pure and synchronous.

use std::time::Duration;

use coredinator_core::coordination::Decision;
use serde::Deserialize;
use tokio::time::Instant;

use crate::wish::{FEED, STEAM};

/// A decision as it is told.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Told {
    /// Of the coredinator that made it.
    pub epoch: u64,
    /// Of which it is.
    pub cycle: u64,
    /// What was decided.
    #[serde(flatten)]
    pub decision: Decision,
}

/// How it stands with coredinator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does what it was told.
    Told,
    /// What it was told counts no more, or it was never told anything.
    Alone,
}

/// What a controller may take.
///
/// - A decision counts until the agent's time to live has passed since its last sign of life that was heard, reckoned from
///   when that was sent: coredinator, who reckons from when it came, keeps the grant reserved for longer.
/// - Of a decision that grants less, the less holds at once; one that grants more holds a cycle later. Until then others may
///   not have let go of it.
/// - Without a word it takes the safe steam, or what it was last granted if that is less: more only after another time to
///   live, when coredinator reserves the safe steam for it, or is gone and all the others are on the safe side, too.
#[derive(Debug, Clone, PartialEq)]
pub struct Mandate {
    safe_steam: f64,
    ttl: Duration,
    told: Option<Told>,
    /// What it might take when it was told that.
    before: f64,
    counts_until: Option<Instant>,
}

impl Mandate {
    /// Of one that was told nothing yet: it takes `safe_steam`, in t/h.
    #[must_use]
    pub fn new(safe_steam: f64, ttl: Duration) -> Self {
        Self { safe_steam, ttl, told: None, before: safe_steam, counts_until: None }
    }

    /// A sign of life that was sent at `sent` has been heard.
    pub fn heard(&mut self, sent: Instant) {
        // Far in the future is never.
        self.counts_until = self.counts_until.max(sent.checked_add(self.ttl));
    }

    /// Takes what was answered at `now` to what was sent at `sent`. `false`: it is no newer than the last, and is not
    /// acted upon.
    pub fn hear(&mut self, told: Told, sent: Instant, now: Instant) -> bool {
        if self.told.as_ref().is_some_and(|last| (told.epoch, told.cycle) <= (last.epoch, last.cycle)) {
            return false;
        }
        self.before = match self.standing(now) {
            Standing::Told => self.granted(),
            Standing::Alone => self.steam(now),
        };
        self.told = Some(told);
        self.heard(sent);
        true
    }

    /// How it stands with coredinator.
    #[must_use]
    pub fn standing(&self, now: Instant) -> Standing {
        match (&self.told, self.counts_until) {
            (Some(_), Some(until)) if now < until => Standing::Told,
            _ => Standing::Alone,
        }
    }

    /// The most steam that it may take, in t/h.
    #[must_use]
    pub fn steam(&self, now: Instant) -> f64 {
        if self.told.is_none() {
            return self.safe_steam;
        }
        let reserved = self.counts_until.and_then(|until| until.checked_add(self.ttl));
        match self.standing(now) {
            Standing::Told => self.granted().min(self.before),
            Standing::Alone if reserved.is_some_and(|until| now < until) => self.granted().min(self.safe_steam),
            Standing::Alone => self.safe_steam,
        }
    }

    /// The feed that was decided on, in t/h, as long as it counts.
    #[must_use]
    pub fn feed(&self, now: Instant) -> Option<f64> {
        let told = self.last().filter(|_| self.standing(now) == Standing::Told)?;
        told.decision.values.get(FEED).copied()
    }

    /// What it was last told.
    #[must_use]
    pub fn last(&self) -> Option<&Told> {
        self.told.as_ref()
    }

    fn granted(&self) -> f64 {
        self.last().and_then(|told| told.decision.grant.get(STEAM)).copied().unwrap_or(0.0)
    }
}
