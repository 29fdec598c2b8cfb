//! Choices by diving.
//!
//! At the prices most groups are decided, but for about as many as there are rows, what they would take together is a
//! mixture. A dive decides them by and by: the most decided first, then new prices for what that leaves to the others, and
//! again (the diving heuristics of integer programming; Berthold, 2006). So what one takes too much of is dear for those that
//! come after it. Dives in steps of other widths end elsewhere.

use coredinator_core::coordination::Budget;

use super::{
    model::Model,
    prices,
    repair::{fill, mend},
    search::Guide,
    state::State,
};

/// Of the groups that are open, how many are decided before there are new prices.
const SHARES: [f64; 6] = [0.33, 0.2, 0.1, 0.25, 0.15, 0.4];

/// How cold it is, by the typical spread of a group's values.
const TEMPERATURES: [f64; 5] = [0.002, 0.005, 0.003, 0.01, 0.002];

/// How many groups are open at first, by the rows.
const WIDTHS: [usize; 4] = [4, 2, 8, 3];

/// So many dives differ from each other.
pub(super) const DIVES: usize = 60;

/// How often prices are improved between two decisions.
const ROUNDS: usize = 6;

/// Where a dive of such a number ends, made to fit and filled up, if that is possible.
pub(super) fn dive<'m>(
    model: &'m Model,
    guide: &Guide<'_>,
    number: usize,
    steps: &mut u64,
    budget: &Budget,
) -> Option<State<'m>> {
    let share = SHARES[number % SHARES.len()];
    let temperature = model.spread() * TEMPERATURES[number % TEMPERATURES.len()];
    let mut open = (model.rows() * WIDTHS[number % WIDTHS.len()]).min(model.groups());
    let mut state = State::new(model);
    let mut prices = guide.prices.to_vec();
    let mut ranked: Vec<Decided> = (0..model.groups()).map(|group| decided(model, group, &prices)).collect();
    *steps += looks(model);
    loop {
        ranked.sort_unstable_by(|a, b| b.by.total_cmp(&a.by).then(a.group.cmp(&b.group)));
        for decided in ranked.drain(..ranked.len() - open) {
            // Towards the end, what one gains most by may be there no more.
            let fitting = model.columns(decided.group).filter(|&column| state.fits(column));
            let column = match state.fits(decided.column) {
                true => None,
                false => best(model, fitting, &prices).map(|(column, _)| column),
            };
            state.put(decided.group, column.unwrap_or(decided.column));
        }
        if open == 0 {
            break;
        }
        if budget.is_over() {
            return None;
        }
        let mut groups: Vec<usize> = ranked.iter().map(|decided| decided.group).collect();
        groups.sort_unstable();
        let left = model.capacity.iter().zip(&state.used).map(|(capacity, used)| capacity - used);
        let rest = model.only(&groups, left.collect());
        *steps += prices::adjust(&rest, &mut prices, temperature, ROUNDS) + looks(&rest);
        ranked.clear();
        ranked.extend(groups.iter().map(|&group| decided(model, group, &prices)));
        open -= ((open as f64 * share) as usize).max(1);
    }
    let mut mended = mend(state, guide.gains, steps, budget)?;
    fill(&mut mended, guide.gains, steps);
    mended.is_feasible().then_some(mended)
}

/// How many steps it is to look at all columns once, with all that they take.
fn looks(model: &Model) -> u64 {
    (model.candidate.len() + model.row.len() / 4) as u64
}

/// The column that a group gains most by, and by how much more than by any other.
struct Decided {
    by: f64,
    group: usize,
    column: usize,
}

fn decided(model: &Model, group: usize, prices: &[f64]) -> Decided {
    let columns = model.columns(group);
    let (column, by) = best(model, columns.clone(), prices).unwrap_or((columns.start, 0.0));
    Decided { by, group, column }
}

/// The column with the highest gain, the first of equals, and how far ahead of the next one it is.
fn best(model: &Model, columns: impl Iterator<Item = usize>, prices: &[f64]) -> Option<(usize, f64)> {
    let (mut best, mut second) = (None, f64::NEG_INFINITY);
    for column in columns {
        let gain = model.value[column] - model.cost(column, prices);
        match best {
            Some((_, known)) if gain <= known => second = second.max(gain),
            _ => {
                second = best.map_or(second, |(_, known)| known);
                best = Some((column, gain));
            }
        }
    }
    best.map(|(column, gain)| (column, gain - second))
}
