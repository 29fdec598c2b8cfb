//! From a scope to a solution.

use coredinator_core::coordination::{Budget, Pick};

use super::{
    model::{Model, NOTHING},
    scope::{Scope, Solution},
    search::Search,
    start,
    state::State,
};

/// How many groups are searched at once.
const WINDOW: usize = 64;

/// Finds the best choice within a scope, or the best that so many steps lead to; `None`: as many as fit its size.
///
/// Parties without a fallback get one of their options, and parties with one theirs or it, as long as that fits at all;
/// where it does not, the lowest priority is shed first. Once the budget is over, it returns within milliseconds.
#[must_use]
pub fn solve(scope: &Scope<'_>, steps: Option<u64>, budget: &Budget) -> Solution {
    let model = Model::of(scope);
    let mut picks: Vec<(usize, Pick)> = scope.parties.iter().map(|&party| (party, scope.idle(party))).collect();
    let (model, choice) = start::feasible(scope, model, budget);
    let mut state = State::of(&model, &choice);
    let groups: Vec<u32> = (0..model.groups() as u32).collect();
    let mut search = Search::default();
    let steps = steps.unwrap_or(1_000_000);
    let mut outcome = search.window(&mut state, &groups[..groups.len().min(WINDOW)], &[], 0.0, steps, budget);
    if groups.len() > WINDOW || !model.curves.is_empty() {
        let most = |group: u32| {
            model.columns(group as usize).map(|column| model.value[column]).fold(f64::NEG_INFINITY, f64::max)
        };
        outcome.bound = groups.iter().map(|&group| most(group)).sum();
        outcome.complete = false;
        for window in groups.chunks(WINDOW).skip(1) {
            outcome.steps += search.window(&mut state, window, &[], 0.0, steps / WINDOW as u64, budget).steps;
        }
    }
    for (group, &column) in state.choice.iter().enumerate() {
        let party = model.party[group] as usize;
        if let Ok(at) = scope.parties.binary_search(&party) {
            picks[at].1 = pick(scope, party, &model, column as usize);
        }
    }
    // Penalties have steered who is shed; they are no loss of value.
    let paid = model.paid(&state.choice);
    let kept = |&&column: &&u32| model.candidate[column as usize] != NOTHING;
    let value = state.choice.iter().filter(kept).map(|&column| model.value[column as usize]).sum();
    Solution {
        picks,
        value,
        bound: (outcome.bound + paid).max(value),
        optimal: outcome.complete && model.curves.is_empty(),
        prices: vec![0.0; scope.problem.resources().len()],
        steps: outcome.steps,
        cut_short: budget.is_over(),
    }
}

fn pick(scope: &Scope<'_>, party: usize, model: &Model, column: usize) -> Pick {
    let candidate = model.candidate[column];
    if candidate == NOTHING {
        Pick::Nothing
    } else if scope.problem.parties()[party].fallback() == Some(candidate as usize) {
        Pick::Fallback
    } else {
        Pick::Option { candidate: candidate as usize, fraction: model.fraction[column] }
    }
}
