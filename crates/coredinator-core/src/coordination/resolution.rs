//! What a strategy answers, and a draft that keeps it within the limits.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    intention::Intention,
    plan::DecisionReason,
    problem::{PlacedClaim, Presence, Problem, TOLERANCE},
};

/// What is chosen for a party.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pick {
    /// It is silent and keeps what it holds; for those [`Presence::Holding`], and only for them.
    Held,
    /// One of its options, as a place among [`Problem::candidates`], in this fraction (1 unless it is elastic).
    Option {
        /// The option.
        candidate: usize,
        /// How much of it.
        fraction: f64,
    },
    /// Its fallback.
    Fallback,
    /// Nothing at all. For a party that is absent and has no fallback that is as it should be; any other is shed.
    Nothing,
}

/// What a strategy answers: what is chosen for each party, and what it knows about how good that is.
#[derive(Debug, Clone, Default)]
pub struct Resolution {
    /// What is chosen for each party, in their order.
    pub picks: Vec<Pick>,
    /// The final value of a variable (by its place) where it is not to be settled by the rule: what silent agents hold on to,
    /// else the highest priority's wish (`exclusive`) or the weighted mean (`blend`), within all bounds.
    pub values: BTreeMap<usize, f64>,
    /// No plan's objective (the sum of weight times utility) is above this, as far as the strategy knows.
    pub bound: Option<f64>,
    /// What a unit of each resource is worth at the margin, by its place.
    pub prices: Option<Vec<f64>>,
    /// What each party pays.
    pub payments: Option<Vec<f64>>,
    /// How many rounds it took.
    pub rounds: u32,
    /// Whether the rounds came to rest.
    pub converged: bool,
    /// Whether this is proven to be the best by the strategy's own measure.
    pub optimal: bool,
    /// Whether time was up before it was done.
    pub cut_short: bool,
    /// Better reasons than the general ones, by party.
    pub notes: BTreeMap<usize, Note>,
    /// What agents revised in negotiations, as far as the choices refer to it: the picks are places in
    /// [`Problem::revised`] by these.
    pub revisions: Vec<Arc<Intention>>,
}

/// What a strategy has to say about its choice for one party.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Note {
    /// The party is denied because it has to give up what it holds.
    pub preempted: bool,
    /// Why; conflict ids are added where there are none.
    pub reason: DecisionReason,
}

impl Resolution {
    /// Everyone's first choice, if nothing conflicts; the answer of every strategy then.
    #[must_use]
    pub fn first_choices(problem: &Problem) -> Option<Self> {
        let possible = |candidate: usize| problem.candidates()[candidate].possible;
        if !problem.conflicts().is_empty() {
            return None;
        }
        let pick = |party: &super::problem::Party| match (party.presence, party.fallback()) {
            (Presence::Active, _) => {
                let candidate = party.options().start;
                possible(candidate).then_some(Pick::Option { candidate, fraction: 1.0 })
            }
            (Presence::Holding, _) => Some(Pick::Held),
            (Presence::Absent, Some(fallback)) => possible(fallback).then_some(Pick::Fallback),
            (Presence::Absent, None) => Some(Pick::Nothing),
        };
        let picks = problem.parties().iter().map(pick).collect::<Option<Vec<_>>>()?;
        Some(Self { picks, converged: true, ..Self::default() })
    }

    /// What is chosen for a party, as a candidate and a fraction.
    #[must_use]
    pub fn chosen(&self, problem: &Problem, party: usize) -> Option<(usize, f64)> {
        match self.picks[party] {
            Pick::Held | Pick::Nothing => None,
            Pick::Option { candidate, fraction } => Some((candidate, fraction)),
            Pick::Fallback => problem.parties()[party].fallback().map(|fallback| (fallback, 1.0)),
        }
    }

    /// The sum of weight times utility over all parties; a party that has nothing, or only holds, counts 0.
    #[must_use]
    pub fn objective(&self, problem: &Problem) -> f64 {
        let worth = |party: usize| {
            let (candidate, fraction) = self.chosen(problem, party)?;
            Some(problem.parties()[party].agent.weight * problem.candidates()[candidate].utility_at(fraction))
        };
        (0..problem.parties().len()).filter_map(worth).sum()
    }
}

/// Choices under way, which never leave the limits: what a strategy that goes party by party builds on.
///
/// It begins with the safe side: those that are silent keep what they hold, and everyone else has its fallback, or, without
/// one, its most modest option; by priority, where not all of that fits. [`grant`](Self::grant) then moves parties to
/// options as far as these fit.
#[derive(Debug, Clone)]
pub struct Draft<'p> {
    problem: &'p Problem,
    picks: Vec<Pick>,
    left: Vec<f64>,
    /// Of each variable, who claims it, as candidates; and who pushes it.
    claimants: Vec<Vec<usize>>,
    pushers: Vec<Vec<usize>>,
}

impl<'p> Draft<'p> {
    /// The safe side.
    #[must_use]
    pub fn new(problem: &'p Problem) -> Self {
        let mut draft = Self {
            problem,
            picks: Vec::with_capacity(problem.parties().len()),
            left: problem.available().to_vec(),
            claimants: vec![Vec::new(); problem.variables().len()],
            pushers: vec![Vec::new(); problem.variables().len()],
        };
        draft.picks.extend(problem.parties().iter().map(|party| match party.presence {
            Presence::Holding => Pick::Held,
            _ => Pick::Nothing,
        }));
        for party in by_priority(problem) {
            draft.settle(party);
        }
        draft
    }

    /// Gives a party that has nothing its fallback, or its most modest option if it has none.
    fn settle(&mut self, party: usize) {
        let of = &self.problem.parties()[party];
        if of.fallback().is_some() {
            self.set(party, Pick::Fallback);
        } else {
            let mut options: Vec<(f64, usize)> = of.options().map(|at| (self.modesty(at), at)).collect();
            options.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for (_, candidate) in options {
                let fraction = self.problem.candidates()[candidate].min_fraction();
                if self.set(party, Pick::Option { candidate, fraction }) {
                    break;
                }
            }
        }
    }

    /// The largest share that a candidate takes of anything, at least.
    fn modesty(&self, candidate: usize) -> f64 {
        let least = self.problem.candidates()[candidate].min_fraction();
        let share = |demand: &super::problem::Demand| {
            let available = self.problem.available()[demand.resource];
            if available > 0.0 { demand.amount * least / available } else { f64::INFINITY }
        };
        self.problem.demands(candidate).iter().map(share).fold(0.0, f64::max)
    }

    /// The problem.
    #[must_use]
    pub fn problem(&self) -> &'p Problem {
        self.problem
    }

    /// What is chosen for a party now.
    #[must_use]
    pub fn pick(&self, party: usize) -> Pick {
        self.picks[party]
    }

    /// How much of each resource is left.
    #[must_use]
    pub fn left(&self) -> &[f64] {
        &self.left
    }

    /// The largest fraction in which a party could have one of its options, if what it has now were given back. `None`: not
    /// at all.
    #[must_use]
    pub fn largest_fraction(&self, candidate: usize) -> Option<f64> {
        let wanted = &self.problem.candidates()[candidate];
        let back = self.taken(wanted.party);
        if !wanted.possible || !self.agrees(candidate, back.map(|(at, _)| at)) {
            return None;
        }
        let mut fraction: f64 = 1.0;
        for demand in self.problem.demands(candidate) {
            let slack = self.problem.resources()[demand.resource].capacity * TOLERANCE * 0.1;
            let left = self.left[demand.resource] + self.given_back(back, demand.resource);
            if demand.amount > left + slack {
                wanted.elastic?;
                fraction = fraction.min((left.max(0.0)) / demand.amount);
            }
        }
        (fraction >= wanted.min_fraction()).then_some(fraction)
    }

    /// Moves a party to one of its options, in the largest fraction that fits; whether it did.
    pub fn grant(&mut self, candidate: usize) -> bool {
        let party = self.problem.candidates()[candidate].party;
        match self.largest_fraction(candidate) {
            Some(fraction) => {
                self.release(party);
                self.take(party, Pick::Option { candidate, fraction });
                true
            }
            None => false,
        }
    }

    /// Sets what is chosen for a party, if it fits; whether it did. A party that only holds cannot be set.
    pub fn set(&mut self, party: usize, pick: Pick) -> bool {
        let of = &self.problem.parties()[party];
        let fits = match pick {
            _ if of.presence == Presence::Holding => false,
            Pick::Held => false,
            Pick::Nothing => true,
            Pick::Fallback => of.fallback().is_some_and(|candidate| self.largest_fraction(candidate).is_some()),
            Pick::Option { candidate, fraction } => {
                of.options().contains(&candidate)
                    && fraction >= self.problem.candidates()[candidate].min_fraction()
                    && self.largest_fraction(candidate).is_some_and(|largest| fraction <= largest)
            }
        };
        if fits {
            self.release(party);
            self.take(party, pick);
        }
        fits
    }

    /// The choices as they stand; whoever was shed at first, and fits now that others have moved, is let in again.
    #[must_use]
    pub fn finish(mut self) -> Resolution {
        for party in by_priority(self.problem) {
            if self.picks[party] == Pick::Nothing {
                self.settle(party);
            }
        }
        Resolution { picks: self.picks, converged: true, ..Resolution::default() }
    }

    fn taken(&self, party: usize) -> Option<(usize, f64)> {
        match self.picks[party] {
            Pick::Held | Pick::Nothing => None,
            Pick::Option { candidate, fraction } => Some((candidate, fraction)),
            Pick::Fallback => self.problem.parties()[party].fallback().map(|fallback| (fallback, 1.0)),
        }
    }

    fn given_back(&self, back: Option<(usize, f64)>, resource: usize) -> f64 {
        let Some((candidate, fraction)) = back else { return 0.0 };
        let demands = self.problem.demands(candidate).iter();
        demands.filter(|demand| demand.resource == resource).map(|demand| demand.amount * fraction).sum()
    }

    fn take(&mut self, party: usize, pick: Pick) {
        self.picks[party] = pick;
        let Some((candidate, fraction)) = self.taken(party) else { return };
        for demand in self.problem.demands(candidate) {
            self.left[demand.resource] -= demand.amount * fraction;
        }
        for claim in self.problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            self.claimants[claim.variable].push(candidate);
        }
        for push in self.problem.pushes(candidate) {
            self.pushers[push.variable].push(candidate);
        }
    }

    fn release(&mut self, party: usize) {
        let Some((candidate, fraction)) = self.taken(party) else { return };
        for demand in self.problem.demands(candidate) {
            self.left[demand.resource] += demand.amount * fraction;
        }
        for claim in self.problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            self.claimants[claim.variable].retain(|&other| other != candidate);
        }
        for push in self.problem.pushes(candidate) {
            self.pushers[push.variable].retain(|&other| other != candidate);
        }
        self.picks[party] = Pick::Nothing;
    }

    /// Whether a candidate's claims and pushes agree with all others but `without`.
    fn agrees(&self, candidate: usize, without: Option<usize>) -> bool {
        let others =
            |list: &'_ [usize]| list.iter().copied().filter(|&other| Some(other) != without).collect::<Vec<_>>();
        let claims = self.problem.claims(candidate).iter().filter(|claim| !claim.soft);
        let meets = |claim: &PlacedClaim| {
            let mut common = claim.bounds;
            for other in others(&self.claimants[claim.variable]) {
                let bounds =
                    self.problem.claims(other).iter().filter(|known| known.variable == claim.variable && !known.soft);
                for known in bounds {
                    common = (common.0.max(known.bounds.0), common.1.min(known.bounds.1));
                }
            }
            common.0 <= common.1
        };
        let same_way = |push: &super::problem::Push| {
            let opposed = |other: usize| {
                let pushes = self.problem.pushes(other).iter().filter(|known| known.variable == push.variable);
                pushes.into_iter().any(|known| known.strength.signum() != push.strength.signum())
            };
            !others(&self.pushers[push.variable]).into_iter().any(opposed)
        };
        claims.into_iter().all(meets) && self.problem.pushes(candidate).iter().all(same_way)
    }
}

/// The parties about whom something is to be decided, the highest priority first, then by name.
#[must_use]
pub fn by_priority(problem: &Problem) -> Vec<usize> {
    let parties = problem.parties();
    let mut order: Vec<usize> =
        (0..parties.len()).filter(|&party| parties[party].presence != Presence::Holding).collect();
    order.sort_by_key(|&party| (std::cmp::Reverse(parties[party].agent.priority), party));
    order
}
