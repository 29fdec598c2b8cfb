//! Exact search of a window: some groups free, all others fixed.
//!
//! Depth first, group by group, with the Lagrangian bound: a partial choice is left as soon as what it is worth, plus what
//! the room left is worth at the prices, plus the most that each free group could gain at them, is not above the best
//! known. Near the end, what stays unused even if all that are left take the most counts against it. The prices stay, so a node costs a few additions (the core idea of Pisinger's work on knapsack problems, 1997; for
//! several dimensions Mansini and Speranza, 2012).

use coredinator_core::coordination::Budget;

use super::state::{NONE, State};

/// How many looks at columns there are between two looks at the budget.
const BETWEEN_LOOKS: u64 = 4096;

/// How many rows are compared before it is seen whether one is short.
const AT_ONCE: usize = 8;

/// With more rows than this, few of which a column takes of, what stays unused is not reckoned with.
const FEW_ROWS: usize = 16;

/// How far from the end it is.
const LAST: usize = 8;

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
    /// The groups, by depth, with the distance between their two best gains.
    order: Vec<(f64, u32)>,
    /// Of each depth, where its columns begin.
    first: Vec<usize>,
    /// The columns in turn, with what each gains at the prices.
    columns: Vec<(f64, u32)>,
    /// Of each column in turn, where its entries begin.
    start: Vec<usize>,
    entries: Vec<(u32, f64)>,
    /// Of each depth in turn, what all groups from there on gain at most.
    ahead: Vec<f64>,
    /// Of each depth in turn, what all groups from there on need of each row at least.
    needs: Vec<f64>,
    least: Vec<(f64, f64, usize)>,
    /// Of each depth in turn, what all groups from there on could take of each row at most.
    most: Vec<f64>,
    /// The prices; none where what stays unused is not reckoned with.
    prices: Vec<f64>,
    /// How much is left of each row.
    room: Vec<f64>,
    rows: usize,
    /// Whether most columns have an entry for most rows: then `amounts` has all rows of each column in turn, and `room` a
    /// line for each depth; else `room` is as it is where the search stands.
    dense: bool,
    amounts: Vec<f64>,
    /// Whether no column excludes another.
    free: bool,
    before: Vec<u32>,
    chosen: Vec<u32>,
    best: Vec<u32>,
    floor: f64,
    /// What has to be exceeded.
    bar: f64,
    /// By how much the next better is better.
    quantum: f64,
    open: f64,
    steps: u64,
    limit: u64,
    found: bool,
    stopped: bool,
}

/// What a search goes by: a price for each row (none: all are 0), what every column gains at them, and by how much two
/// choices differ at least, if they do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guide<'a> {
    pub(super) prices: &'a [f64],
    pub(super) gains: &'a [f64],
    pub(super) quantum: f64,
}

impl Search {
    /// Looks for a better choice for some groups of a state, with at most so many steps.
    pub(super) fn window(
        &mut self,
        state: &mut State<'_>,
        groups: &[u32],
        guide: &Guide<'_>,
        limit: u64,
        budget: &Budget,
    ) -> Outcome {
        let model = state.model;
        self.before.clear();
        self.before.extend(groups.iter().map(|&group| state.choice[group as usize]));
        let worth = |&column: &u32| if column == NONE { f64::NEG_INFINITY } else { model.value[column as usize] };
        self.floor = self.before.iter().map(worth).sum();
        self.quantum = guide.quantum;
        self.raise_bar();
        for &group in groups {
            let _ = state.lift(group as usize);
        }
        self.prepare(state, groups, guide);
        self.open = f64::NEG_INFINITY;
        (self.steps, self.limit) = (0, limit);
        (self.found, self.stopped) = (false, false);
        let room = self.room.iter().zip(guide.prices).map(|(room, price)| room * price).sum();
        self.descend(state, 0, room, 0.0, budget);
        if self.found {
            for (&(_, group), &column) in self.order.iter().zip(&self.best) {
                state.put(group as usize, column as usize);
            }
        } else {
            for (&group, &column) in groups.iter().zip(&self.before) {
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

    fn prepare(&mut self, state: &State<'_>, groups: &[u32], guide: &Guide<'_>) {
        let (model, gains) = (state.model, guide.gains);
        self.rows = model.rows();
        self.free = model.accord.is_empty();
        // Those whose choice is clearest come first: what is left to try is at the end, where it costs least.
        self.order.clear();
        self.order.extend(groups.iter().map(|&group| {
            let (mut best, mut second) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
            for &gain in &gains[model.columns(group as usize)] {
                if gain > best {
                    (best, second) = (gain, best);
                } else if gain > second {
                    second = gain;
                }
            }
            (best - second, group)
        }));
        self.order.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        self.first.clear();
        self.columns.clear();
        self.first.push(0);
        for &(_, group) in &self.order {
            let from = self.columns.len();
            let open = model.columns(group as usize).filter(|&column| state.fits(column));
            self.columns.extend(open.map(|column| (gains[column], column as u32)));
            self.columns[from..].sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            self.first.push(self.columns.len());
        }
        self.start.clear();
        self.entries.clear();
        self.start.push(0);
        for &(_, column) in &self.columns {
            self.entries.extend(model.entries(column as usize).map(|at| (model.row[at], model.amount[at])));
            self.start.push(self.entries.len());
        }
        self.room.clear();
        self.room.extend(model.capacity.iter().zip(&state.used).map(|(capacity, used)| capacity - used));
        self.dense = 2 * self.entries.len() >= self.columns.len() * self.rows;
        if self.dense {
            self.room.resize((self.order.len() + 1) * self.rows, 0.0);
            self.amounts.clear();
            self.amounts.resize(self.columns.len() * self.rows, 0.0);
            for (place, span) in self.start.windows(2).enumerate() {
                for &(row, amount) in &self.entries[span[0]..span[1]] {
                    self.amounts[place * self.rows + row as usize] = amount;
                }
            }
        }
        self.prices.clear();
        if self.dense || self.rows <= FEW_ROWS {
            self.prices.extend_from_slice(guide.prices);
        }
        self.look_ahead();
        self.chosen.clear();
        self.chosen.resize(self.order.len(), NONE);
        self.best.clear();
    }

    /// What the groups from each depth on gain at most, and need at least.
    fn look_ahead(&mut self) {
        let (depth, rows) = (self.order.len(), self.rows);
        self.ahead.clear();
        self.ahead.resize(depth + 1, 0.0);
        self.needs.clear();
        self.needs.resize((depth + 1) * rows, 0.0);
        self.most.clear();
        self.most.resize((depth + 1) * rows, 0.0);
        self.least.clear();
        self.least.resize(rows, (0.0, 0.0, 0));
        for at in (0..depth).rev() {
            let span = self.first[at]..self.first[at + 1];
            // They are sorted.
            self.ahead[at] = self.ahead[at + 1] + self.columns[span.clone()].first().map_or(f64::NEG_INFINITY, |c| c.0);
            self.needs.copy_within((at + 1) * rows..(at + 2) * rows, at * rows);
            self.most.copy_within((at + 1) * rows..(at + 2) * rows, at * rows);
            let entries = &self.entries[self.start[span.start]..self.start[span.end]];
            for &(row, amount) in entries {
                let (least, most, seen) = &mut self.least[row as usize];
                *least = if *seen == 0 { amount } else { amount.min(*least) };
                *most = most.max(amount);
                *seen += 1;
            }
            for &(row, _) in entries {
                let (least, most, seen) = std::mem::take(&mut self.least[row as usize]);
                if seen == span.len() {
                    self.needs[at * rows + row as usize] += least;
                }
                self.most[at * rows + row as usize] += most;
            }
        }
    }

    fn raise_bar(&mut self) {
        self.bar = if self.floor == f64::NEG_INFINITY {
            self.floor
        } else {
            self.floor + (1e-12 * self.floor.abs()).max(self.quantum)
        };
    }

    /// Tries all columns at a depth, `sum` being what the room is worth at the prices plus what those above gain.
    fn descend(&mut self, state: &mut State<'_>, depth: usize, sum: f64, value: f64, budget: &Budget) {
        if depth == self.order.len() {
            if value > self.floor {
                self.floor = value;
                self.raise_bar();
                self.found = true;
                self.best.clone_from(&self.chosen);
            }
            return;
        }
        let ahead = self.ahead[depth + 1];
        for place in self.first[depth]..self.first[depth + 1] {
            let (gain, column) = self.columns[place];
            let bound = sum + gain + ahead;
            if bound <= self.bar {
                return;
            }
            if self.stopped {
                self.open = self.open.max(bound);
                return;
            }
            self.steps += 1;
            if self.steps >= self.limit || (self.steps.is_multiple_of(BETWEEN_LOOKS) && budget.is_over()) {
                self.stopped = true;
                self.open = self.open.max(bound);
                return;
            }
            if !self.fits(depth, place) {
                continue;
            }
            let column = column as usize;
            if !self.free && !state.tally.admits(&state.model.accord, column) {
                continue;
            }
            self.book(place, -1.0);
            if bound - self.unused(depth) <= self.bar {
                self.book(place, 1.0);
                continue;
            }
            if !self.free {
                state.tally.enter(&state.model.accord, column);
            }
            self.chosen[depth] = column as u32;
            self.descend(state, depth + 1, sum + gain, value + state.model.value[column], budget);
            self.book(place, 1.0);
            if !self.free {
                state.tally.leave(&state.model.accord, column);
            }
        }
    }

    /// Whether there is room for a column, and for what those further down need.
    fn fits(&mut self, depth: usize, place: usize) -> bool {
        let rows = self.rows;
        let needs = &self.needs[(depth + 1) * rows..(depth + 2) * rows];
        if !self.dense {
            let entries = &self.entries[self.start[place]..self.start[place + 1]];
            return entries.iter().all(|&(row, amount)| needs[row as usize] + amount <= self.room[row as usize]);
        }
        let (now, next) = self.room.split_at_mut((depth + 1) * rows);
        let now = now[depth * rows..].chunks(AT_ONCE);
        let amounts = self.amounts[place * rows..(place + 1) * rows].chunks(AT_ONCE);
        let next = next[..rows].chunks_mut(AT_ONCE);
        now.zip(amounts).zip(next).zip(needs.chunks(AT_ONCE)).all(|(((now, amounts), next), needs)| {
            let mut short = false;
            for (((now, amount), next), need) in now.iter().zip(amounts).zip(next).zip(needs) {
                *next = now - amount;
                short |= *next < *need;
            }
            !short
        })
    }

    /// What stays unused, at the prices, even if all further down than this depth take the most.
    fn unused(&self, depth: usize) -> f64 {
        if self.prices.is_empty() || depth + LAST < self.order.len() {
            return 0.0;
        }
        let from = (depth + 1) * self.rows;
        let most = &self.most[from..from + self.rows];
        let room = if self.dense { &self.room[from..from + self.rows] } else { &self.room[..] };
        let unused = room.iter().zip(most).map(|(room, most)| if room > most { room - most } else { 0.0 });
        unused.zip(&self.prices).map(|(unused, price)| unused * price).sum()
    }

    /// Books what a column takes (or gives back), where that is not done by the line.
    fn book(&mut self, place: usize, sign: f64) {
        if !self.dense {
            for &(row, amount) in &self.entries[self.start[place]..self.start[place + 1]] {
                self.room[row as usize] += sign * amount;
            }
        }
    }
}
