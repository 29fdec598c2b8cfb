//! The Vickrey-Clarke-Groves mechanism.

use coredinator_core::coordination::{Budget, Pick, Presence, Problem, Resolution};

use super::{
    super::{reconsider::make_best, refine::adopt},
    Credit,
};
use crate::{
    solver::{Scope, solve},
    union::Union,
};

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
    if !budget.is_over() {
        let known = (solution.optimal, budget);
        make_best(problem, &mut plan.picks, whole.parties(), known, |candidate| values[candidate]);
    }
    let worth = |party: usize| {
        let (candidate, fraction) = plan.chosen(problem, party)?;
        let of = &problem.candidates()[candidate];
        Some(of.elastic.map_or(values[candidate], |elastic| values[candidate] * elastic.shape.worth(fraction)))
    };
    let parties = problem.parties().len();
    let now: Vec<f64> = (0..parties).map(|party| worth(party).unwrap_or(0.0)).collect();
    let mut payments = vec![0.0; parties];
    let mut exact = solution.optimal;
    let mut left = budget.iterations().unwrap_or(STEPS);
    let groups = groups(problem);
    let mut winners: u64 = groups.iter().map(|group| group.len() as u64).sum();
    for group in groups {
        let candidates: usize = group.iter().map(|&party| problem.parties()[party].options().len() + 1).sum();
        let total: f64 = group.iter().map(|&party| now[party]).sum();
        for &party in &group {
            let allowed = left / winners.max(1);
            winners -= 1;
            let Pick::Option { candidate, fraction } = plan.picks[party] else { continue };
            let denied = denied(problem, party, &values);
            let gain = (now[party] - denied).max(0.0);
            let others = if budget.is_over() || allowed < ENOUGH * candidates as u64 {
                exact = false;
                None
            } else {
                let rest = group.iter().copied().filter(|&other| other != party);
                let mut without = valued(Scope::of(problem, rest), &values);
                without.take_pick(party, without_option(problem, party));
                let found = solve(&without, Some(allowed), budget);
                left = left.saturating_sub(found.steps);
                exact &= found.optimal;
                // Divided as the plan is, or somebody would pay for how well that was done.
                let mut picks = plan.picks.clone();
                picks[party] = without_option(problem, party);
                found.picks.iter().for_each(|&(other, pick)| picks[other] = pick);
                let (open, known) = (without.parties(), (found.optimal, budget));
                Some(found.value + make_best(problem, &mut picks, open, known, |candidate| values[candidate]))
            };
            let harm = match others {
                Some(others) => others - (total - now[party]),
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
    Resolution {
        bound: matches!(credit, Credit::Unlimited).then_some(solution.bound.max(plan.objective(problem))),
        prices: Some(solution.prices),
        payments: Some(payments),
        rounds: 1,
        optimal: exact && !cut_short,
        cut_short,
        ..plan
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

/// Parties that can be in each other's way: those that could demand what could run short, or claim or push one variable.
/// Groups of one are left out.
fn groups(problem: &Problem) -> Vec<Vec<usize>> {
    let resources = problem.resources().len();
    let mut peak = vec![0.0; resources];
    let mut touched: Vec<Vec<usize>> = Vec::with_capacity(problem.parties().len());
    for party in problem.parties() {
        let mut most: std::collections::BTreeMap<usize, f64> = std::collections::BTreeMap::new();
        if party.presence != Presence::Holding {
            for candidate in party.options().chain(party.fallback()) {
                for demand in problem.demands(candidate) {
                    let known = most.entry(demand.resource).or_default();
                    *known = known.max(demand.amount);
                }
                let claimed = problem.claims(candidate).iter().filter(|claim| !claim.soft).map(|claim| claim.variable);
                let pushed = problem.pushes(candidate).iter().map(|push| push.variable);
                most.extend(claimed.chain(pushed).map(|variable| (resources + variable, 0.0)));
            }
        }
        most.range(..resources).for_each(|(&resource, amount)| peak[resource] += amount);
        touched.push(most.into_keys().collect());
    }
    let matters = |at: usize| at >= resources || peak[at] > problem.available()[at];
    let mut union = Union::new(resources + problem.variables().len());
    for touched in &mut touched {
        touched.retain(|&at| matters(at));
        touched.windows(2).for_each(|pair| union.join(pair[0], pair[1]));
    }
    let mut groups: std::collections::BTreeMap<usize, Vec<usize>> = std::collections::BTreeMap::new();
    for (party, touched) in touched.iter().enumerate() {
        if let Some(&first) = touched.first() {
            groups.entry(union.name(first)).or_default().push(party);
        }
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}
