//! Choices under way, within the limits at every step.

mod room;

use std::collections::BTreeMap;

use super::{
    problem::{Demand, Party, PlacedClaim, Presence, Problem, Push, TOLERANCE},
    resolution::{Pick, Resolution, by_priority},
};

/// Choices under way, which never leave the limits: what a strategy that goes party by party builds on.
///
/// It begins with the safe side: those that are silent keep what they hold, and everyone else has its fallback, or, without
/// one, its most modest option. Where that does not fit for someone, the others make room with something else of their own,
/// as far as a bounded search finds it (all of them, where they are few); where it does not, the lowest priority is shed.
/// [`grant`](Self::grant) then moves parties to options as far as these fit.
#[derive(Debug, Clone)]
pub struct Draft<'p> {
    problem: &'p Problem,
    picks: Vec<Pick>,
    left: Vec<f64>,
    variables: Vec<Interest>,
}

/// What is asked of a variable by all that is chosen.
#[derive(Debug, Clone, Default)]
struct Interest {
    /// How often each lower and upper bound is asked for.
    lows: BTreeMap<Bound, usize>,
    highs: BTreeMap<Bound, usize>,
    /// How many push it up, and down.
    up: usize,
    down: usize,
    /// The value that it has been fixed to.
    fixed: Option<f64>,
}

/// A bound, in the order of numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound(f64);

impl Eq for Bound {}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Interest {
    /// The values that agree with everyone, but for one who asks for these bounds.
    fn common(&self, without: Option<(f64, f64)>) -> (f64, f64) {
        if let Some(fixed) = self.fixed {
            return (fixed, fixed);
        }
        let others =
            |&(bound, &count): &(&Bound, &usize), own: Option<f64>| own.is_none_or(|own| bound.0 != own) || count > 1;
        let low = self.lows.iter().rev().find(|entry| others(entry, without.map(|own| own.0)));
        let high = self.highs.iter().find(|entry| others(entry, without.map(|own| own.1)));
        (low.map_or(f64::NEG_INFINITY, |(bound, _)| bound.0), high.map_or(f64::INFINITY, |(bound, _)| bound.0))
    }

    fn add(&mut self, bounds: (f64, f64)) {
        *self.lows.entry(Bound(bounds.0)).or_default() += 1;
        *self.highs.entry(Bound(bounds.1)).or_default() += 1;
    }

    fn remove(&mut self, bounds: (f64, f64)) {
        for (list, bound) in [(&mut self.lows, bounds.0), (&mut self.highs, bounds.1)] {
            if let Some(count) = list.get_mut(&Bound(bound)) {
                *count -= 1;
                if *count == 0 {
                    list.remove(&Bound(bound));
                }
            }
        }
    }

    fn side(&mut self, strength: f64) -> &mut usize {
        if strength > 0.0 { &mut self.up } else { &mut self.down }
    }
}

impl<'p> Draft<'p> {
    /// The safe side.
    #[must_use]
    pub fn new(problem: &'p Problem) -> Self {
        let mut draft = Self::bare(problem);
        let mut looks = room::MOST_LOOKS;
        for party in by_priority(problem) {
            draft.settle(party);
            if draft.picks[party] == Pick::Nothing {
                room::make_room(&mut draft, party, &mut looks);
            }
        }
        draft
    }

    /// Nothing for anybody, but for what those that are silent keep.
    #[must_use]
    pub fn bare(problem: &'p Problem) -> Self {
        let idle = |party: &Party| match party.presence {
            Presence::Holding => Pick::Held,
            Presence::Active | Presence::Absent => Pick::Nothing,
        };
        Self {
            problem,
            picks: problem.parties().iter().map(idle).collect(),
            left: problem.available().to_vec(),
            variables: vec![Interest::default(); problem.variables().len()],
        }
    }

    /// What was chosen, as it stands, within the limits or not.
    pub(super) fn of(problem: &'p Problem, resolution: &Resolution) -> Self {
        let mut draft = Self {
            problem,
            picks: resolution.picks.clone(),
            left: problem.available().to_vec(),
            variables: vec![Interest::default(); problem.variables().len()],
        };
        for (party, pick) in resolution.picks.iter().enumerate() {
            draft.take(party, *pick);
        }
        for (&variable, &value) in &resolution.values {
            draft.variables[variable].fixed = Some(value);
        }
        draft
    }

    /// Of what there is too little for a fraction of a candidate, and how much there is of it, if what its party has now were
    /// given back.
    pub(super) fn missing(&self, candidate: usize, fraction: f64) -> Vec<(Demand, f64)> {
        let back = self.taken(self.problem.candidates()[candidate].party);
        let given_back = |resource: usize| {
            let (own, part) = back?;
            // They are in the order of the resources.
            let own = self.problem.demands(own);
            own.binary_search_by_key(&resource, |own| own.resource).ok().map(|at| own[at].amount * part)
        };
        let with_left = self
            .problem
            .demands(candidate)
            .iter()
            .map(|demand| (*demand, self.left[demand.resource] + given_back(demand.resource).unwrap_or(0.0)));
        let short = |(demand, left): &(Demand, f64)| {
            let slack = self.problem.resources()[demand.resource].capacity * TOLERANCE * 0.1;
            demand.amount * fraction > left + slack
        };
        with_left.filter(short).collect()
    }

    /// Gives a party that has nothing its fallback, or its most modest option if it has none.
    fn settle(&mut self, party: usize) {
        let of = &self.problem.parties()[party];
        if of.fallback().is_some() {
            self.set(party, Pick::Fallback);
        } else {
            let mut options: Vec<(f64, usize)> = of.options().map(|at| (modesty(self.problem, at), at)).collect();
            options.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            for (_, candidate) in options {
                let fraction = self.problem.candidates()[candidate].min_fraction();
                if self.set(party, Pick::Option { candidate, fraction }) {
                    break;
                }
            }
        }
    }

    /// The problem.
    #[must_use]
    #[inline]
    pub fn problem(&self) -> &'p Problem {
        self.problem
    }

    /// What is chosen for a party now.
    #[must_use]
    #[inline]
    pub fn pick(&self, party: usize) -> Pick {
        self.picks[party]
    }

    /// How much of each resource is left.
    #[must_use]
    #[inline]
    pub fn left(&self) -> &[f64] {
        &self.left
    }

    /// Whether a candidate's claims and pushes agree with what is chosen for all others, whatever it demands.
    #[must_use]
    pub fn agrees(&self, candidate: usize) -> bool {
        let own = self.taken(self.problem.candidates()[candidate].party);
        self.agrees_without(candidate, own.map(|(at, _)| at))
    }

    /// The lowest and the highest value of a variable with which everything that is chosen can be had; infinite where
    /// nothing asks for a bound.
    #[must_use]
    pub fn common(&self, variable: usize) -> (f64, f64) {
        self.variables[variable].common(None)
    }

    /// Fixes the final value of a variable: whatever is chosen from now on has to do with it. Whether that agrees with what
    /// has been chosen and with what the variable may be given; where it does not, and where another value is fixed (that
    /// of a silent agent, too), nothing changes.
    pub fn fix(&mut self, variable: usize, value: f64) -> bool {
        let (low, high) = self.common(variable);
        let (least, most) = self.problem.fixed()[variable].map_or(self.problem.ranges()[variable], |held| (held, held));
        let agrees = (low..=high).contains(&value) && (least..=most).contains(&value);
        if agrees {
            self.variables[variable].fixed = Some(value);
        }
        agrees
    }

    /// The largest fraction in which a party could have one of its options, if what it has now were given back. `None`: not
    /// at all.
    #[must_use]
    pub fn largest_fraction(&self, candidate: usize) -> Option<f64> {
        let wanted = &self.problem.candidates()[candidate];
        let back = self.taken(wanted.party);
        if !wanted.possible {
            return None;
        }
        // Both are in the order of the resources.
        let mut given_back = back.map_or(&[][..], |(own, _)| self.problem.demands(own));
        let mut fraction: f64 = 1.0;
        for demand in self.problem.demands(candidate) {
            let slack = self.problem.resources()[demand.resource].capacity * TOLERANCE * 0.1;
            let mut left = self.left[demand.resource];
            while let [own, rest @ ..] = given_back
                && own.resource <= demand.resource
            {
                if let (true, Some((_, part))) = (own.resource == demand.resource, back) {
                    left += own.amount * part;
                }
                given_back = rest;
            }
            if demand.amount > left + slack {
                wanted.elastic?;
                fraction = fraction.min((left.max(0.0)) / demand.amount);
            }
        }
        (fraction >= wanted.min_fraction() && self.agrees_without(candidate, back.map(|(own, _)| own)))
            .then_some(fraction)
    }

    /// Moves a party to one of its options, in the largest fraction that fits, or to its fallback; whether it did.
    pub fn grant(&mut self, candidate: usize) -> bool {
        let party = self.problem.candidates()[candidate].party;
        match self.largest_fraction(candidate) {
            Some(fraction) => {
                let is_fallback = self.problem.parties()[party].fallback() == Some(candidate);
                self.release(party);
                self.take(party, if is_fallback { Pick::Fallback } else { Pick::Option { candidate, fraction } });
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
        let fixed = self.variables.iter().enumerate().filter_map(|(at, interest)| Some((at, interest.fixed?)));
        Resolution { values: fixed.collect(), picks: self.picks, converged: true, ..Resolution::default() }
    }

    fn taken(&self, party: usize) -> Option<(usize, f64)> {
        match self.picks[party] {
            Pick::Held | Pick::Nothing => None,
            Pick::Option { candidate, fraction } => Some((candidate, fraction)),
            Pick::Fallback => self.problem.parties()[party].fallback().map(|fallback| (fallback, 1.0)),
        }
    }

    fn take(&mut self, party: usize, pick: Pick) {
        self.picks[party] = pick;
        let Some((candidate, fraction)) = self.taken(party) else { return };
        for demand in self.problem.demands(candidate) {
            self.left[demand.resource] -= demand.amount * fraction;
        }
        for claim in self.problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            self.variables[claim.variable].add(claim.bounds);
        }
        for push in self.problem.pushes(candidate) {
            *self.variables[push.variable].side(push.strength) += 1;
        }
    }

    fn release(&mut self, party: usize) {
        let Some((candidate, fraction)) = self.taken(party) else { return };
        for demand in self.problem.demands(candidate) {
            self.left[demand.resource] += demand.amount * fraction;
        }
        for claim in self.problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            self.variables[claim.variable].remove(claim.bounds);
        }
        for push in self.problem.pushes(candidate) {
            *self.variables[push.variable].side(push.strength) -= 1;
        }
        self.picks[party] = Pick::Nothing;
    }

    /// Whether a candidate's claims and pushes agree with all others but `without`.
    fn agrees_without(&self, candidate: usize, without: Option<usize>) -> bool {
        let mut claims = self.problem.claims(candidate).iter().filter(|claim| !claim.soft);
        claims.all(|claim| self.meets_without(claim, without))
            && self.problem.pushes(candidate).iter().all(|push| self.same_way_without(push, without))
    }

    fn meets_without(&self, claim: &PlacedClaim, without: Option<usize>) -> bool {
        let own = without.and_then(|own| {
            self.problem.claims(own).iter().find(|known| known.variable == claim.variable && !known.soft)
        });
        let (low, high) = self.variables[claim.variable].common(own.map(|own| own.bounds));
        claim.bounds.0.max(low) <= claim.bounds.1.min(high)
    }

    fn same_way_without(&self, push: &Push, without: Option<usize>) -> bool {
        let interest = &self.variables[push.variable];
        let against = |strength: f64| (strength > 0.0) != (push.strength > 0.0);
        let own = without.is_some_and(|own| {
            let mut pushes = self.problem.pushes(own).iter();
            pushes.any(|known| known.variable == push.variable && against(known.strength))
        });
        let opposed = if push.strength > 0.0 { interest.down } else { interest.up };
        opposed == usize::from(own)
    }

    /// Whether a claim of a candidate agrees with what all others have.
    pub(super) fn meets(&self, candidate: usize, claim: &PlacedClaim) -> bool {
        let own = self.taken(self.problem.candidates()[candidate].party);
        self.meets_without(claim, own.map(|(at, _)| at))
    }

    /// Whether nobody else pushes the other way than this push of a candidate.
    pub(super) fn goes_with_others(&self, candidate: usize, push: &Push) -> bool {
        let own = self.taken(self.problem.candidates()[candidate].party);
        self.same_way_without(push, own.map(|(at, _)| at))
    }
}

/// The largest share that a candidate takes of anything, at least.
fn modesty(problem: &Problem, candidate: usize) -> f64 {
    let least = problem.candidates()[candidate].min_fraction();
    let share = |demand: &Demand| {
        let available = problem.available()[demand.resource];
        if available > 0.0 { demand.amount * least / available } else { f64::INFINITY }
    };
    problem.demands(candidate).iter().map(share).fold(0.0, f64::max)
}
