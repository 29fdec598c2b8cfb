//! From prices to a choice that fits.

use coredinator_core::coordination::Budget;

use super::{
    model::Model,
    state::{NONE, State},
};

/// What every column gains at some prices.
pub(super) fn gains(model: &Model, prices: &[f64]) -> Vec<f64> {
    (0..model.candidate.len()).map(|column| model.value[column] - model.cost(column, prices)).collect()
}

/// Everybody's best at the prices, made to fit by the cheapest changes; `None`: that did not lead anywhere in time.
pub(super) fn round<'m>(model: &'m Model, gains: &[f64], steps: &mut u64, budget: &Budget) -> Option<State<'m>> {
    let mut state = State::new(model);
    for group in 0..model.groups() {
        let admitted = model.columns(group).filter(|&column| state.tally.admits(&model.accord, column));
        let best = admitted.max_by(|&a, &b| gains[a].total_cmp(&gains[b]).then(b.cmp(&a)))?;
        state.put(group, best);
    }
    mend(state, gains, steps, budget)
}

/// A choice of everybody's made to fit by the cheapest changes; `None`: that did not lead anywhere in time.
pub(super) fn mend<'m>(mut state: State<'m>, gains: &[f64], steps: &mut u64, budget: &Budget) -> Option<State<'m>> {
    let model = state.model;
    // What one change costs grows with the model, and a change takes away about one group's worth of overload.
    for _ in 0..model.groups() + 64 {
        if state.used.iter().zip(&model.capacity).all(|(used, capacity)| used <= capacity) {
            return Some(state);
        }
        if budget.is_over() {
            return None;
        }
        *steps += (model.candidate.len() / 4 + model.row.len() / 8) as u64;
        let (group, column) = cheapest_change(&mut state, gains)?;
        let _ = state.lift(group);
        state.put(group, column);
    }
    None
}

/// The change that costs least for each share of a capacity by which it lessens what is too much.
fn cheapest_change(state: &mut State<'_>, gains: &[f64]) -> Option<(usize, usize)> {
    let model = state.model;
    let over: Vec<bool> = state.used.iter().zip(&model.capacity).map(|(used, capacity)| used > capacity).collect();
    let share =
        |row: usize, used: f64| (used - model.capacity[row]).max(0.0) / model.capacity[row].max(f64::MIN_POSITIVE);
    let mut best: Option<(f64, usize, usize)> = None;
    let mut freed: Vec<f64> = vec![0.0; model.rows()];
    for group in 0..model.groups() {
        let now = state.choice[group] as usize;
        if now == NONE as usize || !model.entries(now).any(|at| over[model.row[at] as usize]) {
            continue;
        }
        let mut before = 0.0;
        for at in model.entries(now) {
            let row = model.row[at] as usize;
            let without = state.used[row] - model.amount[at];
            freed[row] = model.amount[at];
            before += share(row, state.used[row]) - share(row, without);
        }
        for column in model.columns(group).filter(|&column| column != now) {
            let mut after = 0.0;
            for at in model.entries(column) {
                let row = model.row[at] as usize;
                let without = state.used[row] - freed[row];
                after += share(row, without + model.amount[at]) - share(row, without);
            }
            let less = before - after;
            if less <= 1e-15 {
                continue;
            }
            let cost = (gains[now] - gains[column]).max(0.0) / less;
            if best.is_none_or(|(known, ..)| cost < known) && admits_instead(state, group, now, column) {
                best = Some((cost, group, column));
            }
        }
        for at in model.entries(now) {
            freed[model.row[at] as usize] = 0.0;
        }
    }
    best.map(|(_, group, column)| (group, column))
}

fn admits_instead(state: &mut State<'_>, group: usize, now: usize, column: usize) -> bool {
    if state.model.accord.is_empty() {
        return true;
    }
    let _ = state.lift(group);
    let admits = state.tally.admits(&state.model.accord, column);
    state.put(group, now);
    admits
}

/// Moves groups to columns that are worth more and fit, until none is left: those first that lose least at the prices for what
/// they are worth more, so that the room that there is fetches most.
pub(super) fn fill(state: &mut State<'_>, gains: &[f64], steps: &mut u64) {
    let model = state.model;
    for _ in 0..4 {
        let mut moves: Vec<(f64, u32, u32)> = Vec::new();
        for group in 0..model.groups() {
            let now = state.choice[group] as usize;
            let better = model.columns(group).filter(|&column| model.value[column] > model.value[now]);
            let price = |column: usize| (gains[now] - gains[column]) / (model.value[column] - model.value[now]);
            moves.extend(better.map(|column| (price(column), group as u32, column as u32)));
        }
        *steps += (model.candidate.len() / 2 + moves.len() * 4) as u64;
        moves.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        let mut moved = false;
        for (_, group, column) in moves {
            let (group, column) = (group as usize, column as usize);
            if let Some(now) = state.lift(group) {
                let better = model.value[column] > model.value[now] && state.fits(column);
                state.put(group, if better { column } else { now });
                moved |= better;
            }
        }
        if !moved {
            return;
        }
    }
}
