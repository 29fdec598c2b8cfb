//! From a scope to a solution.

use coredinator_core::coordination::{Budget, Pick};

use super::{
    components,
    model::{Model, NOTHING},
    part::{self, Part},
    scope::{Scope, Solution},
    start,
};

/// How many looks at columns a component may cost where nobody says: so many for each group, up to so many, or its share of
/// a pool, if that is more. Where most columns take of most rows, no part is easy, and the pool is a larger one.
const STEPS_PER_GROUP: u64 = 1_500;
const MOST_STEPS: u64 = 500_000;
const POOL: u64 = 100_000;
const DENSE_POOL: u64 = 4_000_000;

/// Finds the best choice within a scope, or the best that so many steps lead to; `None`: as many as fit its size.
///
/// Parties without a fallback get one of their options, and parties with one theirs or it, as long as that fits at all;
/// where it does not, the lowest priority is shed first. Once the budget is over, it returns within milliseconds.
#[must_use]
pub fn solve(scope: &Scope<'_>, steps: Option<u64>, budget: &Budget) -> Solution {
    let model = Model::of(scope);
    let models = components::split(&model);
    let groups = model.groups() as u64;
    let limit = |part: &Model| {
        let own = part.groups() as u64;
        match steps {
            Some(steps) => share(steps, own, groups),
            None => {
                let pool = if part.is_dense() { DENSE_POOL } else { POOL };
                (own * STEPS_PER_GROUP).min(MOST_STEPS).max(share(pool, own, groups))
            }
        }
    };
    let work = |model: &Model| {
        let (model, start) = start::feasible(scope, model.clone(), budget);
        let part = part::solve(&model, &start, limit(&model), scope.problem.seed(), budget);
        (model, part)
    };
    let halves = models.len() / 2;
    let parts: Vec<(Model, Part)> = if models.len() > 1 && groups > 64 {
        std::thread::scope(|threads| {
            let other = threads.spawn(|| models[..halves].iter().map(work).collect::<Vec<_>>());
            let second: Vec<_> = models[halves..].iter().map(work).collect();
            let mut all = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            all.extend(second);
            all
        })
    } else {
        models.iter().map(work).collect()
    };
    gather(scope, &parts, budget)
}

/// What `own` of `all` get of so many.
fn share(steps: u64, own: u64, all: u64) -> u64 {
    (u128::from(steps) * u128::from(own) / u128::from(all.max(1))) as u64
}

fn gather(scope: &Scope<'_>, parts: &[(Model, Part)], budget: &Budget) -> Solution {
    let mut solution = Solution {
        picks: scope.parties.iter().map(|&party| (party, scope.idle(party))).collect(),
        value: 0.0,
        bound: 0.0,
        optimal: true,
        prices: vec![0.0; scope.problem.resources().len()],
        steps: 0,
        cut_short: budget.is_over(),
    };
    for (model, part) in parts {
        for (group, &column) in part.choice.iter().enumerate() {
            let party = model.party[group] as usize;
            let column = column as usize;
            if model.candidate[column] != NOTHING {
                solution.value += model.value[column];
            }
            if let Ok(at) = scope.parties.binary_search(&party) {
                solution.picks[at].1 = pick(scope, party, model, column);
            }
        }
        // Penalties have steered who is shed; they are no loss of value.
        solution.bound += part.bound + model.paid(&part.choice);
        solution.optimal &= part.proven;
        solution.steps += part.steps;
        for (&resource, &price) in model.resource.iter().zip(&part.prices) {
            solution.prices[resource as usize] = price;
        }
    }
    if solution.optimal {
        solution.bound = solution.value;
    }
    solution.bound = solution.bound.max(solution.value);
    solution
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
