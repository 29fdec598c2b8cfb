//! The way of one component: start, prices, repair, search.

use coredinator_core::coordination::Budget;

use super::{
    dive::{DIVES, dive},
    exchange,
    join::Join,
    local::{self, Searcher},
    model::Model,
    prices,
    repair::{fill, gains, round},
    search::{Guide, Outcome, Search},
    state::{State, worth},
};

/// With more groups than this, a component is not searched depth first as a whole.
const MOST_GROUPS: usize = 500;

/// With more groups than this, it is not worth keeping steps for a search of all of them.
const FEW_GROUPS: usize = 60;

/// With more rows than this, most of which most columns take of, lists tell little apart.
pub(super) const MANY_ROWS: usize = 24;

/// How long the first lists of a whole component are, by how much the next ones are longer, and how long the last are.
const SHORTEST: usize = 32;
const LONGER: usize = 4;
const LONGEST: usize = 1 << 20;

/// About how many steps it takes to join two lists and all before them, for each of their combinations.
const STEPS_EACH: u64 = 22;

/// So few rows that lists tell all of them apart.
const LANED_ROWS: usize = 7;

/// Of how many dives the best end is a start, and how many starts there are.
const DIVES_EACH: usize = 3;
const STARTS: usize = DIVES / DIVES_EACH;

/// How long the lists of a window are.
const WINDOW_LIST: usize = 2048;

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

/// How much a component may cost, and what for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    /// About how many steps it may take.
    pub(super) limit: u64,
    /// On how many threads, which makes no difference to what comes of it.
    pub(super) threads: usize,
    pub(super) seed: u64,
}

/// Solves a component, from a choice that fits, with the tables that the last one was solved with.
pub(super) fn solve(model: &Model, start: &[u32], join: &mut Join, effort: Effort, budget: &Budget) -> Part {
    let dual = prices::find(model, effort.limit / 2, budget);
    let mut steps = dual.steps;
    let gains = gains(model, &dual.prices);
    let state = begin(model, start, &gains, &mut steps, budget);
    let part = Part { choice: Vec::new(), bound: dual.bound, proven: false, prices: dual.prices.clone(), steps };
    let guide = Guide { prices: &dual.prices, gains: &gains, quantum: quantum(model) };
    let mut way = Way { part, state, guide, join, effort, budget };
    if !way.is_closed() {
        if model.accord.is_empty() && (model.rows() <= MANY_ROWS || !model.is_dense()) {
            way.by_lists();
        } else {
            way.by_trees();
        }
    }
    way.end()
}

/// The better of two beginnings that fit: the start, and everybody's best at the prices, made to fit; both filled up.
fn begin<'m>(model: &'m Model, start: &[u32], gains: &[f64], steps: &mut u64, budget: &Budget) -> State<'m> {
    let state = State::of(model, start);
    let mut filled = state.clone();
    fill(&mut filled, gains, steps);
    if let Some(mut rounded) = round(model, gains, steps, budget) {
        fill(&mut rounded, gains, steps);
        if rounded.value() > filled.value() && rounded.is_feasible() {
            filled = rounded;
        }
    }
    if filled.is_feasible() { filled } else { state }
}

/// How far it has come.
struct Way<'w> {
    part: Part,
    state: State<'w>,
    guide: Guide<'w>,
    join: &'w mut Join,
    effort: Effort,
    budget: &'w Budget,
}

impl<'w> Way<'w> {
    /// Whether nothing better is to be found.
    fn is_closed(&self) -> bool {
        self.part.proven || self.part.bound - self.state.value() <= self.tolerance()
    }

    fn tolerance(&self) -> f64 {
        self.guide.quantum.max(1e-12 * self.part.bound.abs())
    }

    fn left(&self) -> u64 {
        self.effort.limit.saturating_sub(self.part.steps)
    }

    fn all(&self) -> Vec<u32> {
        (0..self.state.model.groups() as u32).collect()
    }

    /// Whether there is no more to be done, or no more time for it.
    fn is_over(&self) -> bool {
        self.is_closed() || self.left() == 0 || self.budget.is_over()
    }

    /// Counts what a search of all groups tells.
    fn learn(&mut self, outcome: &Outcome) {
        self.part.steps += outcome.steps;
        if self.state.model.curves.is_empty() {
            self.part.bound = self.part.bound.min(outcome.bound);
            self.part.proven |= outcome.complete;
        }
    }

    /// Longer and longer lists of all groups; or exchanges and windows between two rounds of those.
    fn by_lists(&mut self) {
        let (model, all) = (self.state.model, self.all());
        // Where rows or groups are few, nothing is better than long lists.
        let few = model.groups() <= FEW_GROUPS || model.rows() <= LANED_ROWS;
        let rounds: &[u64] = if few { &[0] } else { &[self.effort.limit / 4 * 3, 0] };
        for &kept in rounds {
            let last = (self.left().saturating_sub(kept) / STEPS_EACH) as usize;
            let last = last.clamp(SHORTEST, LONGEST);
            let mut size = last;
            while size >= SHORTEST * LONGER {
                size /= LONGER;
            }
            while !self.is_over() && size <= last && self.left() > kept {
                let effort = (size, self.left());
                let outcome = self.join.window(&mut self.state, &all, &self.guide, effort, self.budget);
                self.learn(&outcome);
                if outcome.complete {
                    return;
                }
                size *= LONGER;
            }
            if !self.is_over() && kept > 0 {
                let most = self.left() / 3;
                self.part.steps += exchange::improve(&mut self.state, &self.guide, most, self.budget);
                let limit = (self.left(), self.effort.seed);
                let searcher = Searcher::Lists(self.join, WINDOW_LIST);
                self.part.steps += local::improve(&mut self.state, searcher, &self.guide, limit, self.budget);
            }
        }
    }

    /// Exchanges from one start after the other, two at once, as long as there are steps for it: half of what the last two
    /// took would lead nowhere.
    fn by_dives(&mut self) {
        let mut last = 0;
        for first in (0..STARTS).step_by(2) {
            if self.is_over() || self.left() < last / 2 {
                break;
            }
            let before = self.part.steps;
            let limit = self.left() / 2;
            let walk = |number| self.walk(number, limit);
            let ends = if self.effort.threads > 1 {
                std::thread::scope(|scope| {
                    let other = scope.spawn(|| walk(first + 1));
                    [walk(first), other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))]
                })
            } else {
                [walk(first), walk(first + 1)]
            };
            for (end, steps) in ends {
                self.part.steps += steps;
                if let Some(end) = end.filter(|end| end.value() > self.state.value()) {
                    self.state = end;
                }
            }
            last = self.part.steps - before;
        }
    }

    /// Where exchanges lead from a start: the best end of a few dives; of the first, or from where it is, if that is better.
    fn walk(&self, number: usize, limit: u64) -> (Option<State<'w>>, u64) {
        let mut steps = 0;
        let mut start = (number == 0).then(|| self.state.clone());
        for dived in number * DIVES_EACH..(number + 1) * DIVES_EACH {
            // At least as much as for dives is for exchanges.
            if steps >= limit / 2 {
                break;
            }
            if let Some(end) = dive(self.state.model, &self.guide, dived, &mut steps, self.budget)
                && start.as_ref().is_none_or(|start| end.value() > start.value())
            {
                start = Some(end);
            }
        }
        if let Some(start) = &mut start {
            steps += exchange::improve(start, &self.guide, limit.saturating_sub(steps), self.budget);
        }
        (start, steps)
    }

    /// All groups depth first, as far as a part of the steps goes; dives, or where columns exclude each other or groups are few,
    /// exchanges and windows; and what is left for all groups again.
    fn by_trees(&mut self) {
        let model = self.state.model;
        let (whole, all) = (model.groups() <= MOST_GROUPS, self.all());
        let mut search = Search::default();
        if whole {
            // Often that is all it takes.
            let first = (self.effort.limit / 8).min(self.left());
            let outcome = search.window(&mut self.state, &all, &self.guide, first, self.budget);
            self.learn(&outcome);
        }
        if self.is_over() {
            return;
        }
        if model.accord.is_empty() && model.groups() > FEW_GROUPS {
            self.by_dives();
        } else {
            let local = if model.groups() <= FEW_GROUPS { self.left() / 2 } else { self.left() };
            let exchanged = if model.is_dense() { local } else { local / 4 };
            let first = exchange::improve(&mut self.state, &self.guide, exchanged, self.budget);
            self.part.steps += first;
            let (searcher, limit) = (Searcher::Tree(&mut search), (local.saturating_sub(first), self.effort.seed));
            self.part.steps += local::improve(&mut self.state, searcher, &self.guide, limit, self.budget);
        }
        if whole && self.left() > 0 {
            let left = self.left();
            let outcome = search.window(&mut self.state, &all, &self.guide, left, self.budget);
            self.learn(&outcome);
        }
    }

    fn end(mut self) -> Part {
        let model = self.state.model;
        let value = worth(model, &self.state.choice);
        if model.curves.is_empty() {
            if self.part.bound - value <= self.tolerance() {
                (self.part.bound, self.part.proven) = (value, true);
            }
        } else {
            self.part.proven = self.part.bound - value <= 1e-9 * self.part.bound.abs();
        }
        self.part.bound = self.part.bound.max(value);
        self.part.choice = self.state.choice;
        self.part
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
