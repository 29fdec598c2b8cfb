//! Exact search of many groups at once by two lists.
//!
//! At good prices a choice falls short of the bound by its loss (what its columns gain less than the best of their groups)
//! and by what the room that it leaves is worth. So whatever is better than the best known loses less than the gap, and few
//! columns and few combinations of them do. The groups are dealt into two halves; of each, all combinations within the loss
//! are listed; and each of the one list is joined with those of the other that fill up what it leaves, which a grid finds
//! (Horowitz and Sahni, 1974, on two lists, over the core of Balas and Zemel, 1980). Where lists would be too long, they
//! are of the smallest losses, and the bound says so.

mod grid;
mod half;

use std::ops::Range;

use coredinator_core::coordination::Budget;
use grid::{Grid, Window};
use half::{Change, Half};

use super::{
    model::Model,
    search::{Guide, Outcome},
    state::State,
};

/// How many numbers are compared at once: what a combination is worth, and what it takes of the most telling rows.
const LANES: usize = 8;

/// How many comparisons are one step.
const SCANNED_AT_ONCE: usize = 8;

/// How often the budget is looked at: after so many of a list.
const BETWEEN_LOOKS: usize = 64;

/// Numbers of half the length differ from the true ones by less than this, relative to the largest of their row.
const ROUNDING: f64 = 1e-6;

/// The lane of a row that has none.
const NO_LANE: u8 = u8::MAX;

/// A group that has changes.
#[derive(Debug, Clone)]
struct Open {
    /// The smallest of their losses.
    loss: f64,
    /// Where they begin and end.
    changes: Range<usize>,
}

/// What came of joining two lists.
#[derive(Debug, Clone, Copy)]
struct Joined {
    /// The best two, if they are better than what was known.
    best: Option<(usize, usize)>,
    /// The loss of the first list's combinations that were not joined any more.
    reach: f64,
    steps: u64,
}

/// The tables of a search, kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Join {
    /// Of each group of the window, its column of the highest gain.
    base: Vec<u32>,
    /// Of each row, what the base leaves of it; below 0 where it takes too much.
    left: Vec<f64>,
    /// Of each row, how much it tells apart.
    spread: Vec<f64>,
    /// Of each row, its lane, and what its amounts are multiplied by there.
    lane_of: Vec<u8>,
    scale: [f64; LANES],
    /// Of each lane, whether its row has a price.
    priced: [bool; LANES],
    /// The rows, those first in which columns differ most.
    rows: Vec<usize>,
    open: Vec<Open>,
    changes: Vec<Change>,
    halves: [Half; 2],
    grid: Grid,
    room: Vec<f64>,
}

/// What is known while two lists are joined.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// What the base is worth.
    base: f64,
    /// What has to be exceeded: the best known and a margin for rounding.
    bar: f64,
    margin: f64,
    /// What the base and all that it leaves are worth at the prices, which nothing exceeds.
    ceiling: f64,
}

impl Known {
    /// What a choice that is better loses less than.
    fn gap(&self) -> f64 {
        self.ceiling - self.bar
    }
}

impl Join {
    /// Looks for a better choice for some groups of a state that all have a column, where no column excludes another, with
    /// lists of about `size` at most and about so many steps.
    pub(super) fn window(
        &mut self,
        state: &mut State<'_>,
        groups: &[u32],
        guide: &Guide<'_>,
        (size, limit): (usize, u64),
        budget: &Budget,
    ) -> Outcome {
        let model = state.model;
        let floor: f64 = groups.iter().map(|&group| model.value[state.choice[group as usize] as usize]).sum();
        let mut known = self.set_out(state, groups, guide);
        known.margin = (1e-12 * floor.abs()).max(guide.quantum);
        known.bar = floor + known.margin;
        let mut outcome = Outcome { improved: false, bound: floor, complete: true, steps: groups.len() as u64 };
        let gap = known.gap();
        if gap <= 0.0 {
            return outcome;
        }
        self.choose_lanes(model, guide);
        outcome.steps += self.gather(model, groups, guide, gap);
        // Whatever loses less than this is among the combinations.
        let mut reach = f64::INFINITY;
        for (half, odd) in self.halves.iter_mut().zip([false, true]) {
            // Dealt as 0, 1, 1, 0, so that both have as many that are open as wide.
            let dealt = self.open.iter().enumerate().filter(|(at, _)| matches!(at % 4, 1 | 2) == odd);
            let (steps, within) = half.list(dealt.map(|(_, open)| open.changes.clone()), &self.changes, gap, size);
            outcome.steps += steps;
            reach = reach.min(within);
        }
        if self.halves[0].len() > self.halves[1].len() {
            self.halves.swap(0, 1);
        }
        let joined = self.pair(model, &mut known, limit.saturating_sub(outcome.steps), budget);
        outcome.steps += joined.steps;
        reach = reach.min(joined.reach);
        if let Some(pair) = joined.best {
            self.adopt(state, groups, pair);
            outcome.improved = true;
        }
        let best = known.bar - known.margin;
        outcome.complete = reach >= known.gap();
        outcome.bound = if outcome.complete { best } else { best.max(known.ceiling - reach) };
        outcome
    }

    /// Finds the base, and what it leaves.
    fn set_out(&mut self, state: &State<'_>, groups: &[u32], guide: &Guide<'_>) -> Known {
        let model = state.model;
        self.base.clear();
        self.left.clear();
        self.left.extend(model.capacity.iter().zip(&state.used).map(|(capacity, used)| capacity - used));
        let mut value = 0.0;
        for &group in groups {
            let group = group as usize;
            let columns = model.columns(group);
            let first = columns.start;
            let base = columns.fold(first, |best, at| if guide.gains[at] > guide.gains[best] { at } else { best });
            let now = state.choice[group] as usize;
            if base != now {
                model.entries(now).for_each(|at| self.left[model.row[at] as usize] += model.amount[at]);
                model.entries(base).for_each(|at| self.left[model.row[at] as usize] -= model.amount[at]);
            }
            value += model.value[base];
            self.base.push(base as u32);
        }
        let worth: f64 = self.left.iter().zip(guide.prices).map(|(left, price)| left * price).sum();
        Known { base: value, bar: f64::INFINITY, margin: 0.0, ceiling: value + worth }
    }

    /// The rows in which columns differ most, at the prices, get a lane: by the base's amounts, which vary as much.
    fn choose_lanes(&mut self, model: &Model, guide: &Guide<'_>) {
        self.spread.clear();
        self.spread.resize(model.rows(), 0.0);
        for &base in &self.base {
            for at in model.entries(base as usize) {
                self.spread[model.row[at] as usize] += model.amount[at] * model.amount[at];
            }
        }
        let weight = |row: usize| self.spread[row].sqrt() * guide.prices[row];
        self.rows.clear();
        self.rows.extend(0..model.rows());
        self.rows.sort_unstable_by(|&a, &b| weight(b).total_cmp(&weight(a)).then(a.cmp(&b)));
        self.lane_of.clear();
        self.lane_of.resize(model.rows(), NO_LANE);
        (self.scale, self.priced) = ([0.0; LANES], [false; LANES]);
        for (lane, &row) in (1..LANES).zip(&self.rows) {
            self.lane_of[row] = lane as u8;
            self.priced[lane] = guide.prices[row] > 0.0;
            let free = 1.0 / model.capacity[row].max(f64::MIN_POSITIVE);
            self.scale[lane] = if self.priced[lane] { guide.prices[row] } else { free };
        }
    }

    /// Gathers all changes that lose less than the gap, by group, the group with the smallest loss first.
    fn gather(&mut self, model: &Model, groups: &[u32], guide: &Guide<'_>, gap: f64) -> u64 {
        self.changes.clear();
        self.open.clear();
        let mut looks = 0;
        for (place, (&group, &base)) in groups.iter().zip(&self.base).enumerate() {
            let (base, from) = (base as usize, self.changes.len());
            let columns = model.columns(group as usize);
            looks += columns.len();
            for column in columns.filter(|&column| column != base) {
                let loss = (guide.gains[base] - guide.gains[column]).max(0.0);
                if loss >= gap {
                    continue;
                }
                let mut takes = [0.0; LANES];
                takes[0] = model.value[base] - model.value[column];
                let mut add = |column: usize, sign: f64| {
                    for at in model.entries(column) {
                        let lane = self.lane_of[model.row[at] as usize];
                        if lane != NO_LANE {
                            takes[lane as usize] += sign * model.amount[at] * self.scale[lane as usize];
                        }
                    }
                };
                add(column, 1.0);
                add(base, -1.0);
                self.changes.push(Change { loss, place: place as u32, column: column as u32, takes });
            }
            if self.changes.len() > from {
                self.changes[from..].sort_unstable_by(|a, b| a.loss.total_cmp(&b.loss).then(a.column.cmp(&b.column)));
                self.open.push(Open { loss: self.changes[from].loss, changes: from..self.changes.len() });
            }
        }
        self.open.sort_unstable_by(|a, b| a.loss.total_cmp(&b.loss).then(a.changes.start.cmp(&b.changes.start)));
        (looks + self.changes.len() * 4) as u64
    }

    /// Joins each of the first list with those of the second that fit, and leave less than what the gap allows.
    fn pair(&mut self, model: &Model, known: &mut Known, limit: u64, budget: &Budget) -> Joined {
        let [one, other] = &self.halves;
        self.grid.fill(other, known.gap(), &self.priced);
        let mut joined = Joined { best: None, reach: f64::INFINITY, steps: 2 * other.len() as u64 };
        let mut left = [0.0; LANES];
        for (row, &lane) in self.lane_of.iter().enumerate().filter(|&(_, &lane)| lane != NO_LANE) {
            left[lane as usize] = self.left[row] * self.scale[lane as usize];
        }
        let mut rounding = [0.0; LANES];
        for (lane, rounding) in rounding.iter_mut().enumerate() {
            *rounding = ROUNDING * (left[lane].abs() + one.largest[lane] + other.largest[lane]);
        }
        for (turn, &at) in one.order.iter().enumerate() {
            let at = at as usize;
            let (loss, takes) = (one.loss(at), one.lanes[at].map(f64::from));
            let spare = known.gap() - loss;
            if spare <= 0.0 {
                break;
            }
            if joined.steps >= limit || (turn % BETWEEN_LOOKS == BETWEEN_LOOKS - 1 && budget.is_over()) {
                joined.reach = loss;
                break;
            }
            // What the other may take at most: of each lane; and minus what it has to be worth.
            let mut limits: [f64; LANES] = std::array::from_fn(|lane| left[lane] - takes[lane]);
            let needed = |known: &Known| known.base - takes[0] - known.bar;
            limits[0] = needed(known);
            // The first lane is minus what is worth more, and a loss what is worth less than it takes at the prices.
            let priced = known.ceiling - known.base - (loss - takes[0]);
            let window = Window { limits, rounding, priced, spare };
            let (room, base) = (&mut self.room, &self.base);
            let (all, changes) = (&self.left, &self.changes);
            let looked = self.grid.visit(&window, |candidate| {
                // Numbers of full length decide.
                room.clear();
                room.extend_from_slice(all);
                let mut value = known.base;
                for change in one.chain(at).chain(other.chain(candidate)) {
                    let Change { place, column, .. } = changes[change as usize];
                    let (old, new) = (base[place as usize] as usize, column as usize);
                    model.entries(old).for_each(|at| room[model.row[at] as usize] += model.amount[at]);
                    model.entries(new).for_each(|at| room[model.row[at] as usize] -= model.amount[at]);
                    value += model.value[new] - model.value[old];
                }
                if value > known.bar && room.iter().all(|&room| room >= 0.0) {
                    known.bar = value + known.margin;
                    joined.best = Some((at, candidate));
                }
                needed(known)
            });
            joined.steps += (2 + looked / SCANNED_AT_ONCE) as u64;
        }
        joined
    }

    /// Gives all groups of the window the columns of the base, changed by two combinations.
    fn adopt(&self, state: &mut State<'_>, groups: &[u32], (one, other): (usize, usize)) {
        let mut give = |place: usize, column: u32| {
            let group = groups[place] as usize;
            let _ = state.lift(group);
            state.put(group, column as usize);
        };
        for (place, &column) in self.base.iter().enumerate() {
            give(place, column);
        }
        for change in self.halves[0].chain(one).chain(self.halves[1].chain(other)) {
            let Change { place, column, .. } = self.changes[change as usize];
            give(place as usize, column);
        }
    }
}
