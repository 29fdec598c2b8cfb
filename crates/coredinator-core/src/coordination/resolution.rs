//! What a strategy answers.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    intention::Intention,
    plan::DecisionReason,
    problem::{Presence, Problem},
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
    /// Everyone's first choice, if nothing conflicts; the answer of every strategy then. It is `optimal` where that is also what is
    /// worth most to everyone: whatever a strategy aims at, there is nothing better.
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
            // One that cannot be had costs nobody else anything.
            (Presence::Absent, Some(fallback)) if possible(fallback) => Some(Pick::Fallback),
            (Presence::Absent, Some(_)) => Some(Pick::Nothing),
            (Presence::Absent, None) => Some(Pick::Nothing),
        };
        let picks = problem.parties().iter().map(pick).collect::<Option<Vec<_>>>()?;
        let utility = |candidate: usize| problem.candidates()[candidate].utility;
        let is_best = |party: &super::problem::Party| {
            party.presence != Presence::Active
                || party.options().chain(party.fallback()).all(|other| utility(other) <= utility(party.options().start))
        };
        let optimal = problem.parties().iter().all(is_best);
        Some(Self { picks, converged: true, optimal, ..Self::default() })
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

/// The parties about whom something is to be decided, the highest priority first, then by name.
#[must_use]
pub fn by_priority(problem: &Problem) -> Vec<usize> {
    let parties = problem.parties();
    let mut order: Vec<usize> =
        (0..parties.len()).filter(|&party| parties[party].presence != Presence::Holding).collect();
    order.sort_by_key(|&party| (std::cmp::Reverse(parties[party].agent.priority), party));
    order
}
