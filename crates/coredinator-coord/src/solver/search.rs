//! Exact search of a window: some groups free, all others fixed.
//!
//! Depth first, group by group, with the Lagrangian bound of several price vectors at once: a partial choice is left as soon
//! as what it is worth, plus what the room left is worth at the prices, plus the most that each free group could gain at
//! them, is not above the best known. The prices stay, so a node costs a few additions (the core idea of Pisinger's work on
//! knapsack problems, 1997; for several dimensions Mansini and Speranza, 2012).

use coredinator_core::coordination::Budget;

use super::{
    model::Model,
    state::{NONE, State},
};

/// How many looks at columns there are between two looks at the budget.
const BETWEEN_LOOKS: u64 = 4096;

/// What came of a search.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outcome {
    /// Whether something better was found (and is in the state now).
    pub(super) improved: bool,
    /// Nothing that the window could be given is worth more than this.
    pub(super) bound: f64,
    /// Whether everything was looked at.
    pub(super) complete: bool,
    /// The looks at columns.
    pub(super) steps: u64,
}

/// The tables of a search, kept for the next one.
#[derive(Debug, Default)]
pub(super) struct Search {
    order: Vec<u32>,
    /// Of each depth, where its columns begin.
    first: Vec<usize>,
    columns: Vec<u32>,
    /// Of each column in turn, what it gains at each price vector.
    gains: Vec<f64>,
    /// Of each depth in turn, what all groups from there on gain at most at each price vector.
    ahead: Vec<f64>,
    /// Of each depth in turn, what all groups from there on need of each row at least.
    needs: Vec<f64>,
    room: Vec<f64>,
    chosen: Vec<u32>,
    best: Vec<u32>,
    sums: Vec<f64>,
    vectors: usize,
    floor: f64,
    /// By how much the next better is better.
    quantum: f64,
    open: f64,
    steps: u64,
    limit: u64,
    found: bool,
    stopped: bool,
}

impl Search {
    /// Looks for a better choice for some groups of a state, with at most so many steps. Prices are one vector after the
    /// other, each with a price for each row. Better is by at least about a `quantum`.
    pub(super) fn window(
        &mut self,
        state: &mut State<'_>,
        groups: &[u32],
        prices: &[f64],
        quantum: f64,
        limit: u64,
        budget: &Budget,
    ) -> Outcome {
        let model = state.model;
        let before: Vec<u32> = groups.iter().map(|&group| state.choice[group as usize]).collect();
        let known: f64 = before
            .iter()
            .map(|&column| if column == NONE { f64::NEG_INFINITY } else { model.value[column as usize] })
            .sum();
        for &group in groups {
            let _ = state.lift(group as usize);
        }
        self.prepare(state, groups, prices);
        self.floor = known;
        self.quantum = quantum;
        self.open = f64::NEG_INFINITY;
        (self.steps, self.limit) = (0, limit);
        (self.found, self.stopped) = (false, false);
        self.descend(state, 0, 0.0, budget);
        if self.found {
            for (depth, &column) in self.best.iter().enumerate() {
                state.put(self.order[depth] as usize, column as usize);
            }
        } else {
            for (&group, &column) in groups.iter().zip(&before) {
                if column != NONE {
                    state.put(group as usize, column as usize);
                }
            }
        }
        Outcome {
            improved: self.found,
            bound: if self.stopped { self.floor.max(self.open) } else { self.floor },
            complete: !self.stopped,
            steps: self.steps,
        }
    }

    fn prepare(&mut self, state: &State<'_>, groups: &[u32], prices: &[f64]) {
        let model = state.model;
        let rows = model.rows();
        self.vectors = prices.len().checked_div(rows).unwrap_or(1).max(1);
        let vectors = self.vectors;
        let price = |k: usize| prices.get(k * rows..(k + 1) * rows).unwrap_or(&[]);
        let gain = |column: usize, k: usize| {
            model.value[column] - if price(k).is_empty() { 0.0 } else { model.cost(column, price(k)) }
        };
        // Those whose choice is clearest come first: what is left to try is at the end, where it costs least.
        let mut keyed: Vec<(f64, u32)> = groups
            .iter()
            .map(|&group| {
                let (mut best, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
                for column in model.columns(group as usize) {
                    let gain = gain(column, 0);
                    if gain > best {
                        (best, second) = (gain, best);
                    } else if gain > second {
                        second = gain;
                    }
                }
                (best - second, group)
            })
            .collect();
        keyed.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.order.clear();
        self.order.extend(keyed.iter().map(|&(_, group)| group));
        self.first.clear();
        self.columns.clear();
        self.gains.clear();
        self.first.push(0);
        let mut sorted: Vec<(f64, u32)> = Vec::new();
        for &group in &self.order {
            sorted.clear();
            let open = model.columns(group as usize).filter(|&column| state.fits(column));
            sorted.extend(open.map(|column| (gain(column, 0), column as u32)));
            sorted.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            for &(_, column) in &sorted {
                self.columns.push(column);
                self.gains.extend((0..vectors).map(|k| gain(column as usize, k)));
            }
            self.first.push(self.columns.len());
        }
        let depth = self.order.len();
        self.ahead.clear();
        self.ahead.resize((depth + 1) * vectors, 0.0);
        self.needs.clear();
        self.needs.resize((depth + 1) * rows, 0.0);
        let mut least = vec![0.0; rows];
        let mut seen = vec![0_usize; rows];
        for at in (0..depth).rev() {
            let span = self.first[at]..self.first[at + 1];
            for k in 0..vectors {
                let most = span.clone().map(|place| self.gains[place * vectors + k]).fold(f64::NEG_INFINITY, f64::max);
                self.ahead[at * vectors + k] = self.ahead[(at + 1) * vectors + k] + most;
            }
            let (now, next) = self.needs.split_at_mut((at + 1) * rows);
            let now = &mut now[at * rows..];
            now.copy_from_slice(&next[..rows]);
            for place in span.clone() {
                for entry in model.entries(self.columns[place] as usize) {
                    let row = model.row[entry] as usize;
                    least[row] = if seen[row] == 0 { model.amount[entry] } else { model.amount[entry].min(least[row]) };
                    seen[row] += 1;
                }
            }
            for place in span.clone() {
                for entry in model.entries(self.columns[place] as usize) {
                    let row = model.row[entry] as usize;
                    if seen[row] == span.len() {
                        now[row] += least[row];
                    }
                    seen[row] = 0;
                }
            }
        }
        self.room.clear();
        self.room.extend((0..rows).map(|row| model.capacity[row] - state.used[row]));
        self.sums.clear();
        self.sums.resize((depth + 1) * vectors, 0.0);
        for k in 0..vectors {
            self.sums[k] = self.room.iter().zip(price(k)).map(|(room, price)| room * price).sum();
        }
        self.chosen.clear();
        self.chosen.resize(depth, NONE);
        self.best.clear();
    }

    fn bar(&self) -> f64 {
        if self.floor == f64::NEG_INFINITY {
            return self.floor;
        }
        self.floor + (1e-12 * self.floor.abs()).max(self.quantum)
    }

    fn descend(&mut self, state: &mut State<'_>, depth: usize, value: f64, budget: &Budget) {
        if depth == self.order.len() {
            if value > self.floor {
                self.floor = value;
                self.found = true;
                self.best.clone_from(&self.chosen);
            }
            return;
        }
        let (model, vectors, rows) = (state.model, self.vectors, state.model.rows());
        for place in self.first[depth]..self.first[depth + 1] {
            let mut bound = f64::INFINITY;
            for k in 0..vectors {
                let sum = self.sums[depth * vectors + k] + self.gains[place * vectors + k];
                self.sums[(depth + 1) * vectors + k] = sum;
                let limit = sum + self.ahead[(depth + 1) * vectors + k];
                if k == 0 && limit <= self.bar() {
                    return;
                }
                bound = bound.min(limit);
            }
            self.steps += 1;
            if self.stopped || bound <= self.bar() {
                if self.stopped {
                    self.open = self.open.max(bound);
                }
                continue;
            }
            if self.steps >= self.limit || (self.steps.is_multiple_of(BETWEEN_LOOKS) && budget.is_over()) {
                self.stopped = true;
                self.open = self.open.max(bound);
                continue;
            }
            let column = self.columns[place] as usize;
            let needs = &self.needs[(depth + 1) * rows..(depth + 2) * rows];
            let fits = model.entries(column).all(|at| {
                let row = model.row[at] as usize;
                needs[row] + model.amount[at] <= self.room[row]
            });
            if !fits || !state.tally.admits(&model.accord, column) {
                continue;
            }
            self.enter(model, column, -1.0);
            state.tally.enter(&model.accord, column);
            self.chosen[depth] = column as u32;
            self.descend(state, depth + 1, value + model.value[column], budget);
            state.tally.leave(&model.accord, column);
            self.enter(model, column, 1.0);
        }
    }

    fn enter(&mut self, model: &Model, column: usize, sign: f64) {
        for at in model.entries(column) {
            self.room[model.row[at] as usize] += sign * model.amount[at];
        }
    }
}
