//! The Vickrey-Clarke-Groves mechanism.

use coredinator_core::coordination::{Budget, Pick, Problem, Resolution};

use super::{
    super::{
        groups::groups,
        reconsider::{Known, make_best, worth},
        refine::adopt,
    },
    Credit,
};
use crate::solver::{Scope, solve};

/// How many steps of the solver all payments together may take, where the budget says nothing.
const STEPS: u64 = 30_000_000;
/// How many steps for each candidate make it worth while to ask what the others would have without somebody.
const ENOUGH: u64 = 8;

/// The plan with the largest weighted utility, and what everyone pays for it.
pub(super) fn vcg(problem: &Problem, credit: &Credit, budget: &Budget) -> Resolution {
    let values = values(problem, credit);
    let whole = valued(Scope::whole(problem), &values);
    let solution = solve(&whole, budget.iterations(), budget);
    let mut plan = adopt(problem, &solution.picks).finish();
    let mut best = solution.optimal;
    if !budget.is_over() {
        let known = Known { optimal: best, parties: whole.parties().len(), steps: None, budget };
        best = make_best(problem, &mut plan.picks, whole.parties(), known, |at| values[at]);
    }
    let groups: Vec<Vec<usize>> = groups(problem).into_iter().filter(|group| group.len() > 1).collect();
    let mut inquiry = Inquiry {
        problem,
        values: &values,
        budget,
        left: budget.iterations().unwrap_or(STEPS),
        asked: groups.iter().map(|group| group.len() as u64 + 1).sum(),
    };
    if !best {
        best = true;
        for group in &groups {
            // Looked at as closely as what the others would have without somebody, or that one would pay for the difference.
            let before = inquiry.worth(group, &plan.picks);
            let found = inquiry.best(group, Scope::of(problem, group.iter().copied()), &plan.picks);
            let Some(found) = found else {
                best = false;
                continue;
            };
            best &= found.optimal;
            let shed = |picks: &[Pick]| group.iter().filter(|&&party| picks[party] == Pick::Nothing).count();
            if found.worth > before && shed(&found.picks) <= shed(&plan.picks) {
                plan.picks = found.picks;
            }
        }
    }
    let mut payments = vec![0.0; problem.parties().len()];
    let mut exact = best;
    for group in groups {
        let total = inquiry.worth(&group, &plan.picks);
        for &party in &group {
            let Pick::Option { candidate, fraction } = plan.picks[party] else {
                inquiry.asked -= 1;
                continue;
            };
            let own = inquiry.worth(&[party], &plan.picks);
            let gain = (own - denied(problem, party, &values)).max(0.0);
            let rest = group.iter().copied().filter(|&other| other != party);
            let mut without = Scope::of(problem, rest);
            without.take_pick(party, without_option(problem, party));
            let mut picks = plan.picks.clone();
            picks[party] = without_option(problem, party);
            let found = inquiry.best(&group, without, &picks);
            exact &= found.as_ref().is_some_and(|found| found.optimal);
            let harm = match found {
                Some(found) => found.worth - (total - own),
                // Too many to ask about each: what it takes, at the margin.
                None => problem
                    .demands(candidate)
                    .iter()
                    .map(|demand| demand.amount * fraction * solution.prices[demand.resource])
                    .sum(),
            };
            payments[party] = harm.clamp(0.0, gain);
        }
    }
    let cut_short = solution.cut_short || budget.is_over();
    let objective = plan.objective(problem);
    let bound = if best { objective } else { solution.bound.max(objective) };
    Resolution {
        bound: matches!(credit, Credit::Unlimited).then_some(bound),
        prices: Some(solution.prices),
        payments: Some(payments),
        rounds: 1,
        optimal: exact && !cut_short,
        cut_short,
        ..plan
    }
}

/// Asks what is best for groups, one by one.
struct Inquiry<'v> {
    problem: &'v Problem,
    values: &'v [f64],
    budget: &'v Budget,
    /// The steps that are left, and how many questions.
    left: u64,
    asked: u64,
}

/// The best that was found for a group.
struct Found {
    picks: Vec<Pick>,
    worth: f64,
    optimal: bool,
}

impl Inquiry<'_> {
    /// The best for those of a group who are in the scope, everyone else as in `picks`; `None`: that would take too long.
    fn best(&mut self, group: &[usize], scope: Scope<'_>, picks: &[Pick]) -> Option<Found> {
        let candidates: usize = group.iter().map(|&party| self.problem.parties()[party].options().len() + 1).sum();
        let allowed = self.left / self.asked.max(1);
        self.asked = self.asked.saturating_sub(1);
        if self.budget.is_over() || allowed < ENOUGH * candidates as u64 {
            return None;
        }
        let scope = valued(scope, self.values);
        let found = solve(&scope, Some(allowed), self.budget);
        self.left = self.left.saturating_sub(found.steps);
        let mut picks = picks.to_vec();
        found.picks.iter().for_each(|&(party, pick)| picks[party] = pick);
        let known = Known { optimal: found.optimal, parties: group.len(), steps: None, budget: self.budget };
        let optimal = make_best(self.problem, &mut picks, scope.parties(), known, |at| self.values[at]);
        let worth = self.worth(scope.parties(), &picks);
        Some(Found { picks, worth, optimal })
    }

    /// What some have is worth together.
    fn worth(&self, parties: &[usize], picks: &[Pick]) -> f64 {
        worth(self.problem, picks, parties, &|candidate| self.values[candidate])
    }
}

/// What a party has that is denied.
fn without_option(problem: &Problem, party: usize) -> Pick {
    match problem.parties()[party].fallback() {
        Some(at) if problem.candidates()[at].possible => Pick::Fallback,
        _ => Pick::Nothing,
    }
}

/// What each candidate counts: weight times utility; what it gains over being denied at most as far as the credit goes.
fn values(problem: &Problem, credit: &Credit) -> Vec<f64> {
    let weighted = |candidate: usize| {
        problem.parties()[problem.candidates()[candidate].party].agent.weight * problem.candidates()[candidate].utility
    };
    let mut values: Vec<f64> = (0..problem.candidates().len()).map(weighted).collect();
    for (at, party) in problem.parties().iter().enumerate() {
        if let Some(credit) = credit.of(party.id()) {
            let most = denied(problem, at, &values) + credit;
            values[party.options()].iter_mut().for_each(|value| *value = value.min(most));
            // What is elastic counts at least 0.
            for option in party.options().filter(|&option| problem.candidates()[option].elastic.is_some()) {
                values[option] = values[option].max(0.0);
            }
        }
    }
    values
}

/// What being denied counts for a party.
fn denied(problem: &Problem, party: usize, values: &[f64]) -> f64 {
    let of = &problem.parties()[party];
    match (of.fallback(), &of.intention) {
        (Some(fallback), _) => values[fallback],
        (None, Some(intention)) => of.agent.weight * intention.disagreement.unwrap_or(0.0),
        (None, None) => 0.0,
    }
}

fn valued<'p>(mut scope: Scope<'p>, values: &[f64]) -> Scope<'p> {
    values.iter().enumerate().for_each(|(candidate, &value)| scope.revalue(candidate, value));
    scope
}
