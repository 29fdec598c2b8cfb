//! The way of one component: start, prices, repair, search.

use coredinator_core::coordination::Budget;

use super::{
    exchange, local,
    model::Model,
    prices,
    repair::{fill, gains, round},
    search::{Guide, Search},
    state::{State, worth},
};

/// With more groups than this, a component is not searched as a whole.
const MOST_GROUPS: usize = 500;

/// With more groups than this, it is not worth keeping steps for a search of all of them.
const FEW_GROUPS: usize = 60;

/// What came of a component.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The column of each group.
    pub(super) choice: Vec<u32>,
    /// No choice is worth more than this.
    pub(super) bound: f64,
    /// Whether nothing better exists.
    pub(super) proven: bool,
    /// The price of a unit of each row.
    pub(super) prices: Vec<f64>,
    pub(super) steps: u64,
}

/// Solves a component, from a choice that fits, with about so many steps.
pub(super) fn solve(model: &Model, start: &[u32], limit: u64, seed: u64, budget: &Budget) -> Part {
    let dual = prices::find(model, limit / 2, budget);
    let mut steps = dual.steps;
    let gains = gains(model, &dual.prices);
    let mut state = State::of(model, start);
    let mut from_start = state.clone();
    fill(&mut from_start, &gains, &mut steps);
    if let Some(mut rounded) = round(model, &gains, &mut steps) {
        fill(&mut rounded, &gains, &mut steps);
        if rounded.value() > from_start.value() && rounded.is_feasible() {
            from_start = rounded;
        }
    }
    if from_start.is_feasible() {
        state = from_start;
    }
    let quantum = quantum(model);
    let mut part = Part { choice: Vec::new(), bound: dual.bound, proven: false, prices: dual.prices.clone(), steps };
    let guide = Guide { prices: &dual.prices, gains: &gains, quantum };
    let mut search = Search::default();
    let closed = |state: &State<'_>, bound: f64| bound - state.value() <= quantum.max(1e-12 * bound.abs());
    let whole = model.groups() <= MOST_GROUPS;
    let groups: Vec<u32> = (0..model.groups() as u32).collect();
    if whole && !closed(&state, part.bound) {
        // Often that is all it takes.
        let first = (limit / 8).min(limit.saturating_sub(part.steps));
        finish(&mut part, &mut state, &mut search, &groups, &guide, first, budget);
    }
    if !part.proven && !closed(&state, part.bound) && part.steps < limit {
        let left = limit - part.steps;
        let local = if model.groups() <= FEW_GROUPS { left / 2 } else { left };
        // Where most columns take of most rows, windows find little.
        let exchanged = if model.is_dense() { local } else { local / 4 };
        let first = exchange::improve(&mut state, &guide, exchanged, budget);
        part.steps += first;
        part.steps += local::improve(&mut state, &mut search, &guide, (local.saturating_sub(first), seed), budget);
        if whole && part.steps < limit {
            let left = limit - part.steps;
            finish(&mut part, &mut state, &mut search, &groups, &guide, left, budget);
        }
    }
    let value = worth(model, &state.choice);
    part.choice = state.choice;
    if model.curves.is_empty() {
        if part.bound - value <= quantum.max(1e-12 * part.bound.abs()) {
            (part.bound, part.proven) = (value, true);
        }
    } else {
        part.proven = part.bound - value <= 1e-9 * part.bound.abs();
    }
    part.bound = part.bound.max(value);
    part
}

/// Searches all of a component.
fn finish(
    part: &mut Part,
    state: &mut State<'_>,
    search: &mut Search,
    groups: &[u32],
    guide: &Guide<'_>,
    limit: u64,
    budget: &Budget,
) {
    let outcome = search.window(state, groups, guide, limit, budget);
    part.steps += outcome.steps;
    if state.model.curves.is_empty() {
        part.bound = part.bound.min(outcome.bound);
        part.proven |= outcome.complete;
    }
}

/// By how much any two choices differ at least, if they do: where all values are whole multiples of something, nearly that.
fn quantum(model: &Model) -> f64 {
    let multiple = |unit: f64| {
        model.value.iter().all(|value| {
            let times = value / unit;
            (times - times.round()).abs() < 1e-9 && times.abs() < 1e9
        })
    };
    [1.0, 0.1, 0.01].into_iter().find(|&unit| multiple(unit)).map_or(0.0, |unit| unit * (1.0 - 1e-6))
}
