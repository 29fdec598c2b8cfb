//! What is to be decided, and what was.

use coredinator_core::coordination::{Draft, Pick, Presence, Problem, TOLERANCE};

/// Some parties of a problem, about whom is to be decided, and what all others leave them.
///
/// Whoever is not among them stands still: it takes what [`take`](Self::take) says, and nothing where nothing is said. What
/// silent agents hold is always taken.
#[derive(Debug, Clone)]
pub struct Scope<'p> {
    pub(super) problem: &'p Problem,
    pub(super) parties: Vec<usize>,
    pub(super) left: Vec<f64>,
    /// Of each variable, the values that suit all others.
    pub(super) spans: Vec<(f64, f64)>,
    /// Of each variable, whether others push it up, and down.
    pub(super) ways: Vec<(bool, bool)>,
    /// Of each candidate, what it is worth in full.
    pub(super) values: Vec<f64>,
    pub(super) forbidden: Vec<bool>,
}

/// The best that was found for a [`Scope`].
#[derive(Debug, Clone)]
pub struct Solution {
    /// What is chosen, by party, in the order of the scope's parties. [`Pick::Nothing`] for one that has something to choose
    /// from: it is shed, because not even the safe side of all fits; the lowest priority first.
    pub picks: Vec<(usize, Pick)>,
    /// What the choices are worth together.
    pub value: f64,
    /// No choice that sheds nobody else is worth more than this; never below [`value`](Self::value).
    pub bound: f64,
    /// Whether nothing better exists (to a billionth where options are elastic).
    pub optimal: bool,
    /// What a unit of each resource is worth at the margin, by its place among the problem's; 0 where it does not run short.
    pub prices: Vec<f64>,
    /// The steps that it took.
    pub steps: u64,
    /// Whether the budget was over before the steps were.
    pub cut_short: bool,
}

impl<'p> Scope<'p> {
    /// All parties about whom something is to be decided.
    #[must_use]
    pub fn whole(problem: &'p Problem) -> Self {
        let parties = problem.parties().iter().enumerate();
        Self::of(problem, parties.filter(|(_, party)| party.presence != Presence::Holding).map(|(at, _)| at))
    }

    /// These parties, as if no others (but the silent ones that hold something) were there. Their order and repetitions
    /// do not matter.
    #[must_use]
    pub fn of(problem: &'p Problem, parties: impl IntoIterator<Item = usize>) -> Self {
        let mut parties: Vec<usize> = parties.into_iter().collect();
        parties.sort_unstable();
        parties.dedup();
        let weight = |party: usize| problem.parties()[party].agent.weight;
        Self {
            problem,
            parties,
            left: problem.available().to_vec(),
            spans: vec![(f64::NEG_INFINITY, f64::INFINITY); problem.variables().len()],
            ways: vec![(false, false); problem.variables().len()],
            values: problem.candidates().iter().map(|known| weight(known.party) * known.utility).collect(),
            forbidden: vec![false; problem.candidates().len()],
        }
    }

    /// These parties, with everyone else as it is in a draft.
    #[must_use]
    pub fn around(draft: &Draft<'p>, parties: impl IntoIterator<Item = usize>) -> Self {
        let problem = draft.problem();
        let mut scope = Self::of(problem, parties);
        for party in 0..problem.parties().len() {
            if scope.parties.binary_search(&party).is_err() {
                scope.take_pick(party, draft.pick(party));
            }
        }
        scope
    }

    /// The problem.
    #[must_use]
    pub fn problem(&self) -> &'p Problem {
        self.problem
    }

    /// About whom is to be decided: places among the problem's parties, ascending.
    #[must_use]
    pub fn parties(&self) -> &[usize] {
        &self.parties
    }

    /// Somebody who is not in the scope has this candidate in this fraction.
    pub fn take(&mut self, candidate: usize, fraction: f64) {
        for demand in self.problem.demands(candidate) {
            self.left[demand.resource] -= demand.amount * fraction;
        }
        for claim in self.problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            let (low, high) = &mut self.spans[claim.variable];
            *low = low.max(claim.bounds.0);
            *high = high.min(claim.bounds.1);
        }
        for push in self.problem.pushes(candidate) {
            let ways = &mut self.ways[push.variable];
            *ways = (ways.0 || push.strength > 0.0, ways.1 || push.strength < 0.0);
        }
    }

    /// As [`take`](Self::take), for what is picked for a party.
    pub fn take_pick(&mut self, party: usize, pick: Pick) {
        match pick {
            Pick::Held | Pick::Nothing => {}
            Pick::Option { candidate, fraction } => self.take(candidate, fraction),
            Pick::Fallback => {
                if let Some(fallback) = self.problem.parties()[party].fallback() {
                    self.take(fallback, 1.0);
                }
            }
        }
    }

    /// Counts a candidate as worth this much in full, instead of its party's weight times its utility; at least 0 where it
    /// is elastic.
    pub fn revalue(&mut self, candidate: usize, value: f64) {
        self.values[candidate] = value;
    }

    /// Leaves a candidate out.
    pub fn forbid(&mut self, candidate: usize) {
        self.forbidden[candidate] = true;
    }

    /// What a party has that has nothing to choose from.
    pub(super) fn idle(&self, party: usize) -> Pick {
        match self.problem.parties()[party].presence {
            Presence::Holding => Pick::Held,
            Presence::Active | Presence::Absent => Pick::Nothing,
        }
    }

    /// How much of a resource may be used, rounding included.
    pub(super) fn capacity(&self, resource: usize) -> f64 {
        let rounding = self.problem.resources()[resource].capacity * TOLERANCE * 0.1;
        self.left[resource].max(0.0) + rounding
    }

    /// Whether a candidate agrees with what others claim and push, and the least of it fits into what they leave.
    pub(super) fn admits(&self, candidate: usize) -> bool {
        let problem = self.problem;
        let of = &problem.candidates()[candidate];
        let least = of.min_fraction();
        let agrees = |claim: &coredinator_core::coordination::PlacedClaim| {
            let span = self.spans[claim.variable];
            claim.soft || claim.bounds.0.max(span.0) <= claim.bounds.1.min(span.1)
        };
        of.possible
            && !self.forbidden[candidate]
            && problem.demands(candidate).iter().all(|d| d.amount * least <= self.capacity(d.resource))
            && problem.claims(candidate).iter().all(agrees)
            && problem.pushes(candidate).iter().all(|push| {
                let (up, down) = self.ways[push.variable];
                if push.strength > 0.0 { !down } else { !up }
            })
    }
}
