//! The best for all together.

use async_trait::async_trait;
use coredinator_core::{
    FieldError,
    coordination::{
        Budget, CoordinationStrategy, Negotiator, Party, Pick, Presence, Problem, Resolution, StrategyError,
    },
    field::FieldReader,
};
use serde_json::Value;

use super::reconsider::{Known, make_best};
use crate::solver::{Scope, solve};

/// Maximises the sum of weight times utility.
///
/// Rule: of all plans that fit, one with the largest objective. Where nothing conflicts, every agent whose own utilities
/// agree with the order of its options has its first choice, and only the others are optimised around them. Which option is
/// chosen from a few fractions of each that is elastic; then all that is elastic is divided anew, with other options, too,
/// where agents are few.
///
/// Guarantee: the objective is within the plan's `gap` of the best there is, and `optimal` where that is proven; more
/// capacity never lowers a proven optimum. It is anytime: cut short, it answers with the best so far.
///
/// Complexity: the problem is a multiple-choice knapsack in several dimensions, which is NP-hard; what it spends is linear in
/// the number of agents, and a step of its [`Budget`] is about one look at one option. What is found in how much time is
/// in the `resolve` benchmark.
///
/// References: Khan, Li, Manning, Akbar, 2002 (the problem, and its test instances); Everett, 1963, and Geoffrion, 1974 (prices
/// as bound); [`solver`](crate::solver) names the rest.
#[derive(Debug, Clone, Default)]
pub struct Centralized {}

impl Centralized {
    /// Its name.
    pub const NAME: &str = "centralized";

    /// Reads its options: it has none.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(pointer: &str, options: Value) -> Result<Self, Vec<FieldError>> {
        FieldReader::new(pointer, options).finish(Self::default)
    }
}

#[async_trait]
impl CoordinationStrategy for Centralized {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn resolve(
        &self,
        problem: &Problem,
        budget: &Budget,
        _: &dyn Negotiator,
    ) -> Result<Resolution, StrategyError> {
        let mut picks: Vec<Pick> = problem.parties().iter().map(idle).collect();
        // Where nothing conflicts, a first choice is not up for discussion.
        let mut open = Vec::new();
        let mut settled = Vec::new();
        for (at, party) in problem.parties().iter().enumerate() {
            match party.presence {
                Presence::Holding => {}
                Presence::Active if problem.conflicts().is_empty() && has_its_way(problem, party) => {
                    picks[at] = Pick::Option { candidate: party.options().start, fraction: 1.0 };
                    settled.push(party.options().start);
                }
                Presence::Active | Presence::Absent => open.push(at),
            }
        }
        let mut scope = Scope::of(problem, open);
        for &candidate in &settled {
            scope.take(candidate, 1.0);
        }
        let solution = solve(&scope, budget.iterations(), budget);
        for &(party, pick) in &solution.picks {
            picks[party] = pick;
        }
        let mut optimal = solution.optimal;
        if !budget.is_over() {
            let open: Vec<usize> = solution.picks.iter().map(|&(party, _)| party).collect();
            let value = |candidate: usize| {
                let of = &problem.candidates()[candidate];
                problem.parties()[of.party].agent.weight * of.utility
            };
            let steps = budget.iterations().map(|steps| steps.saturating_sub(solution.steps));
            let known = Known { optimal, parties: open.len(), steps, budget };
            optimal = make_best(problem, &mut picks, &open, known, value);
        }
        let cut_short = solution.cut_short || budget.is_over();
        let mut resolution = Resolution {
            picks,
            prices: Some(solution.prices),
            rounds: 1,
            converged: !cut_short,
            optimal,
            cut_short,
            ..Resolution::default()
        };
        // Summed in another order, the same numbers make another sum.
        let objective = resolution.objective(problem);
        let bound = if resolution.optimal { objective } else { solution.bound.max(objective) };
        if settled.is_empty() {
            resolution.bound = Some(bound);
        } else {
            // What is not up for discussion may stand in the way of something better.
            let ceiling = ceiling(problem);
            resolution.optimal = objective >= ceiling;
            resolution.bound = Some(ceiling.max(objective));
        }
        Ok(resolution)
    }
}

fn idle(party: &Party) -> Pick {
    match party.presence {
        Presence::Holding => Pick::Held,
        Presence::Active | Presence::Absent => Pick::Nothing,
    }
}

/// The sum of what is worth most to each.
fn ceiling(problem: &Problem) -> f64 {
    let best = |party: &Party| {
        let candidates = party.options().chain(party.fallback());
        let best = candidates.map(|at| problem.candidates()[at].utility).fold(0.0, f64::max);
        party.agent.weight * best
    };
    problem.parties().iter().map(best).sum()
}

/// Whether a party's first choice can be had, and is none the less worth to it than any other.
fn has_its_way(problem: &Problem, party: &Party) -> bool {
    let utility = |candidate: usize| problem.candidates()[candidate].utility;
    let first = party.options().start;
    problem.candidates()[first].possible && party.options().all(|candidate| utility(candidate) <= utility(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        coredinator_core::conformance::strategy::run(Centralized::default);
    }
}
