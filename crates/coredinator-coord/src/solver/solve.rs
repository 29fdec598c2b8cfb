//! From a scope to a solution.

use std::sync::atomic::{AtomicUsize, Ordering};

use coredinator_core::coordination::{Budget, Pick};

use super::{
    components,
    join::Join,
    model::{Model, NOTHING},
    part::{self, Effort, Part},
    scope::{Scope, Solution},
    start,
};

/// How many looks at columns a component may cost where nobody says: so many for each group (fewer where there are few
/// groups), up to so many, or its share of a pool, if that is more.
const STEPS_PER_GROUP: u64 = 1_200;
const STEPS_PER_GROUP_OF_FEW: u64 = 600;
const FEW_GROUPS: u64 = 60;
const MOST_STEPS: u64 = 700_000;
const POOL: u64 = 80_000;

/// Where most columns take of most rows, no part is easy, and it may cost this and so much for each group at least; with many
/// rows, that.
const DENSE: (u64, u64) = (3_000_000, 1_000);
const DENSE_WITH_MANY_ROWS: (u64, u64) = (4_100_000, 500);

/// On how many threads components are solved, or a single one is; with no more groups than that, on one.
const THREADS: usize = 2;
const ALONE: u64 = 64;

/// Finds the best choice within a scope, or the best that so many steps lead to; `None`: as many as fit its size.
///
/// Parties without a fallback get one of their options, and parties with one theirs or it, as long as that fits at all;
/// where it does not, the lowest priority is shed first. Once the budget is over, it returns within milliseconds.
#[must_use]
pub fn solve(scope: &Scope<'_>, steps: Option<u64>, budget: &Budget) -> Solution {
    solve_on(THREADS, scope, steps, budget)
}

/// As [`solve`], on so many threads: the answer is the same.
pub(super) fn solve_on(threads: usize, scope: &Scope<'_>, steps: Option<u64>, budget: &Budget) -> Solution {
    let model = Model::of(scope);
    let models = components::split(&model);
    let groups = model.groups() as u64;
    let limit = |part: &Model| {
        let own = part.groups() as u64;
        match steps {
            Some(steps) => share(steps, own, groups),
            None => {
                let each = if own <= FEW_GROUPS { STEPS_PER_GROUP_OF_FEW } else { STEPS_PER_GROUP };
                let (pool, per_group) = match part.is_dense() {
                    false => (POOL, 0),
                    true if part.rows() > part::MANY_ROWS => DENSE_WITH_MANY_ROWS,
                    true => DENSE,
                };
                let pool = pool + groups * per_group;
                (own * each).min(MOST_STEPS).max(share(pool, own, groups))
            }
        }
    };
    let threads = if groups > ALONE { threads.max(1) } else { 1 };
    let inside = if models.len() == 1 { threads } else { 1 };
    let work = |model: &Model, join: &mut Join| {
        let (model, start) = start::feasible(scope, model.clone(), budget);
        let effort = Effort { limit: limit(&model), threads: inside, seed: scope.problem.seed() };
        let part = part::solve(&model, &start, join, effort, budget);
        (model, part)
    };
    let threads = threads.min(models.len().max(1));
    let next = AtomicUsize::new(0);
    // Each component is solved for itself, so that it does not matter where, and when.
    let take = || -> Vec<(usize, (Model, Part))> {
        let mut join = Join::default();
        std::iter::from_fn(|| {
            let at = next.fetch_add(1, Ordering::Relaxed);
            models.get(at).map(|model| (at, work(model, &mut join)))
        })
        .collect()
    };
    let mut parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        let mut all = take();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    parts.sort_unstable_by_key(|&(at, _)| at);
    let parts: Vec<(Model, Part)> = parts.into_iter().map(|(_, part)| part).collect();
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
