//! A first choice that fits; and who is shed where there is none.

use std::collections::{BTreeMap, BTreeSet};

use coredinator_core::coordination::Budget;

use super::{
    model::{Model, NOTHING},
    scope::Scope,
    search::{Guide, Search},
    state::{NONE, State},
};

/// Penalties stay below this, so that no value gets lost beside them; priorities beyond that count alike.
const LARGEST_PENALTY: f64 = 1e6;

/// How many looks at columns the question who is shed may cost.
const STEPS: u64 = 200_000;

/// Of how many groups it is asked at once.
const AT_ONCE: usize = 256;

/// A choice that fits, and the model that it is for: the same, or one in which some may have nothing at a penalty that is
/// worth more than everything else.
pub(super) fn feasible(scope: &Scope<'_>, model: Model, budget: &Budget) -> (Model, Vec<u32>) {
    let order = by_priority(scope, &model);
    if let Some(choice) = modest(&model, &order) {
        return (model, choice);
    }
    let penalties = penalties(scope, &model);
    let relaxed = model.relaxed(&penalties.iter().map(|&penalty| Some(penalty)).collect::<Vec<_>>(), 0.0);
    let mut state = State::new(&relaxed);
    for &group in &order {
        place_modestly(&mut state, group as usize);
    }
    let mut search = Search::default();
    let guide = Guide { prices: &[], gains: &relaxed.value, quantum: 1.0 - 1e-6 };
    for window in order.chunks(AT_ONCE) {
        let _ = search.window(&mut state, window, &guide, STEPS, budget);
    }
    // Only where some are shed, others of the same priority could be instead.
    let is_shed = |group: usize| relaxed.candidate[state.choice[group] as usize] == NOTHING;
    let classes: BTreeSet<i32> =
        (0..model.groups()).filter(|&group| is_shed(group)).map(|group| priority(scope, &model, group)).collect();
    let spread: f64 = (0..model.groups()).map(|group| spread(&model, group)).sum();
    let open = |group: usize| {
        classes.contains(&priority(scope, &model, group)).then(|| penalties[group] * (2.0 * spread + 1.0))
    };
    let served = model.relaxed(&(0..model.groups()).map(open).collect::<Vec<_>>(), 1.0);
    // A group's columns are in the same order in both.
    let same = |group: usize| {
        (served.columns(group).start + state.choice[group] as usize - relaxed.columns(group).start) as u32
    };
    let choice = (0..model.groups()).map(same).collect();
    (served, choice)
}

fn priority(scope: &Scope<'_>, model: &Model, group: usize) -> i32 {
    scope.problem.parties()[model.party[group] as usize].agent.priority
}

/// How far apart the most and the least that a group's columns are worth are, 0 included.
fn spread(model: &Model, group: usize) -> f64 {
    let values = &model.value[model.columns(group)];
    values.iter().fold(0.0_f64, |a, &b| a.max(b)) - values.iter().fold(0.0_f64, |a, &b| a.min(b))
}

/// The groups, the highest priority first.
fn by_priority(scope: &Scope<'_>, model: &Model) -> Vec<u32> {
    let mut order: Vec<u32> = (0..model.groups() as u32).collect();
    order.sort_by_key(|&group| (std::cmp::Reverse(priority(scope, model, group as usize)), group));
    order
}

/// Everybody's most modest column, if that fits.
fn modest(model: &Model, order: &[u32]) -> Option<Vec<u32>> {
    let mut state = State::new(model);
    order.iter().all(|&group| place_modestly(&mut state, group as usize)).then_some(state.choice)
}

/// Gives a group that column which takes the smallest share of what is there, of those that fit; of two like that, the one
/// that is worth more.
fn place_modestly(state: &mut State<'_>, group: usize) -> bool {
    let model = state.model;
    let all = vec![true; model.accord.variables()];
    let mut best: Option<(f64, f64, bool, usize)> = None;
    for column in model.columns(group).filter(|&column| state.fits(column)) {
        let share = |at: usize| model.amount[at] / model.capacity[model.row[at] as usize].max(f64::MIN_POSITIVE);
        let key = (
            model.entries(column).map(share).fold(f64::from(model.candidate[column] == NOTHING) * 1e300, f64::max),
            -model.value[column],
            model.accord.binds(column, &all),
            column,
        );
        if best.is_none_or(|known| (key.0, key.2, key.1) < (known.0, known.2, known.1)) {
            best = Some(key);
        }
    }
    if let Some((.., column)) = best {
        state.put(group, column);
    }
    state.choice[group] != NONE
}

/// What it costs to shed each group: more than to shed all of lower priority, as far as numbers go.
fn penalties(scope: &Scope<'_>, model: &Model) -> Vec<f64> {
    let mut sizes: BTreeMap<i32, f64> = BTreeMap::new();
    for group in 0..model.groups() {
        *sizes.entry(priority(scope, model, group)).or_default() += 1.0;
    }
    let (mut price, mut below) = (1.0_f64, 0.0);
    let prices: BTreeMap<i32, f64> = sizes
        .into_iter()
        .map(|(class, size)| {
            price = (below + 1.0_f64).min(LARGEST_PENALTY).max(price);
            below += price * size;
            (class, price)
        })
        .collect();
    (0..model.groups()).map(|group| prices[&priority(scope, model, group)]).collect()
}
