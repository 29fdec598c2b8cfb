//! Better choices by exchanging the columns of several groups at once.
//!
//! What a choice lacks to the bound is what its columns gain less than the best at the prices, plus what the room left is
//! worth at them. So an exchange can only be better if the gains that it gives up are less than what the room is worth:
//! few columns remain, and all pairs of those can be tried (the exchange neighbourhoods of Hifi, Michrafy and Sbihi, 2004,
//! cut off by reduced costs). The second of a pair is not looked for one by one: a sieve tells which could fit. Where no pair
//! is better any more, the pairs that take and give least of anything become changes themselves, so that pairs of those are
//! exchanges of four, and once more of eight: what is short goes together with more (as short vectors of a lattice are found
//! from short ones; Ajtai, Kumar, Sivakumar, 2001).

mod compose;
mod sieve;

use coredinator_core::coordination::Budget;
use sieve::Sieve;

use super::{search::Guide, state::State};

/// With more possible changes than this, those that give up the most are not tried: better small exchanges of few than half
/// of the large ones of many.
const MOST_CHANGES: usize = 1024;

/// How often pairs become changes, and how many moves a change has at most then.
const LEVELS: usize = 2;
const MOST_MOVES: usize = 1 << LEVELS;

/// A step is a look at so many lanes of the sieve, or at so many words of them.
const LANES_AT_ONCE: usize = 4;
const WORDS_AT_ONCE: usize = 64;

/// How often the budget is looked at: after so many scans.
const BETWEEN_LOOKS: u32 = 256;

/// Another column for each of a few groups.
#[derive(Debug, Clone, Copy)]
struct Change {
    /// What it gives up in gains.
    loss: f64,
    /// What it is worth.
    value: f64,
    /// The groups and their columns.
    moves: [(u32, u32); MOST_MOVES],
    count: usize,
}

impl Change {
    fn of(group: usize, column: usize, loss: f64, value: f64) -> Self {
        let mut moves = [(0, 0); MOST_MOVES];
        moves[0] = (group as u32, column as u32);
        Self { loss, value, moves, count: 1 }
    }

    fn moves(&self) -> &[(u32, u32)] {
        &self.moves[..self.count]
    }

    /// Whether both are about the same group.
    fn meets(&self, other: &Self) -> bool {
        self.moves().iter().any(|one| other.moves().iter().any(|two| one.0 == two.0))
    }
}

/// The changes that are possible, and what each takes.
#[derive(Debug, Default)]
struct Exchange {
    changes: Vec<Change>,
    /// Of each change, what it takes of each row.
    takes: Vec<f64>,
    /// The changes by what they are worth, and by what they take of the rows of the highest price.
    sieve: Sieve,
    /// The rows, the highest price first.
    rows: Vec<usize>,
    /// How much is left of each row, and what all of it is worth at the prices.
    room: Vec<f64>,
    worth: f64,
    steps: u64,
    looks: u32,
}

/// Improves a state with about so many steps, until no exchange is better; nothing where columns exclude each other.
pub(super) fn improve(state: &mut State<'_>, guide: &Guide<'_>, limit: u64, budget: &Budget) -> u64 {
    if !state.model.accord.is_empty() {
        return 0;
    }
    let mut exchange = Exchange::default();
    exchange.rank(state, guide);
    exchange.gather(state, guide);
    let mut level = 0;
    while exchange.steps < limit && !budget.is_over() {
        if let Some((first, second)) = exchange.find(limit, budget) {
            exchange.make(state, first);
            second.iter().for_each(|&second| exchange.make(state, second));
            exchange.gather(state, guide);
            level = 0;
        } else if level < LEVELS {
            exchange.compose(guide.prices);
            level += 1;
        } else {
            break;
        }
    }
    exchange.steps
}

impl Exchange {
    /// Orders the rows.
    fn rank(&mut self, state: &State<'_>, guide: &Guide<'_>) {
        let weight = |&row: &usize| guide.prices[row] * state.model.capacity[row];
        self.rows = (0..state.model.rows()).collect();
        self.rows.sort_by(|a, b| weight(b).total_cmp(&weight(a)).then(a.cmp(b)));
    }

    fn make(&self, state: &mut State<'_>, change: usize) {
        for &(group, column) in self.changes[change].moves() {
            let _ = state.lift(group as usize);
            state.put(group as usize, column as usize);
        }
    }

    /// Gathers what could be part of something better.
    fn gather(&mut self, state: &State<'_>, guide: &Guide<'_>) {
        let (model, rows) = (state.model, state.model.rows());
        self.room.clear();
        self.room.extend(model.capacity.iter().zip(&state.used).map(|(capacity, used)| capacity - used));
        self.worth = self.room.iter().zip(guide.prices).map(|(room, price)| room * price).sum();
        self.changes.clear();
        for group in 0..model.groups() {
            let now = state.choice[group] as usize;
            for column in model.columns(group).filter(|&column| column != now) {
                let loss = guide.gains[now] - guide.gains[column];
                if loss < self.worth {
                    let value = model.value[column] - model.value[now];
                    self.changes.push(Change::of(group, column, loss, value));
                }
            }
        }
        self.changes.sort_unstable_by(|a, b| a.loss.total_cmp(&b.loss).then(a.moves.cmp(&b.moves)));
        self.changes.truncate(MOST_CHANGES);
        self.takes.clear();
        self.takes.resize(self.changes.len() * rows, 0.0);
        for (change, takes) in self.changes.iter().zip(self.takes.chunks_mut(rows.max(1))) {
            let (group, column) = change.moves[0];
            for entry in model.entries(column as usize) {
                takes[model.row[entry] as usize] += model.amount[entry];
            }
            for entry in model.entries(state.choice[group as usize] as usize) {
                takes[model.row[entry] as usize] -= model.amount[entry];
            }
        }
        self.steps += (model.candidate.len() / 4) as u64;
        self.sift();
    }

    /// Fills the sieve with the changes as they are.
    fn sift(&mut self) {
        let (changes, takes, order) = (&self.changes, &self.takes, &self.rows);
        let rows = order.len();
        self.sieve.fill(changes.len(), 1 + rows, |lane, at| match lane {
            0 => -changes[at].value,
            _ => takes[at * rows + order[lane - 1]],
        });
        self.steps += (self.changes.len() * (2 + rows / 8)) as u64;
    }

    /// Looks for one change or two that are better together.
    fn find(&mut self, limit: u64, budget: &Budget) -> Option<(usize, Option<usize>)> {
        let mut room = self.room.clone();
        if let Some(only) = self.scan(&room, None, self.changes.len()) {
            return Some((only, None));
        }
        let rows = room.len();
        for first in 0..self.changes.len() {
            if self.is_over(limit, budget) {
                return None;
            }
            for (at, room) in room.iter_mut().enumerate() {
                *room = self.room[at] - self.takes[first * rows + at];
            }
            if let Some(second) = self.scan(&room, Some(first), first) {
                return Some((first, Some(second)));
            }
        }
        None
    }

    /// The best change, of those before `end`, that together with one is better than nothing, in this room.
    fn scan(&mut self, room: &[f64], with: Option<usize>, end: usize) -> Option<usize> {
        let with = with.map(|at| &self.changes[at]);
        let value = with.map_or(0.0, |with| with.value);
        // What is no gain but for rounding is none.
        let bar = 1e-9 * (1.0 + value.abs());
        let order = &self.rows;
        let looked = self.sieve.pass(end, |lane| match lane {
            0 => value - bar,
            _ => room[order[lane - 1]],
        });
        self.steps += (1 + looked / LANES_AT_ONCE + looked * end / 64 / WORDS_AT_ONCE) as u64;
        let mut best: Option<(f64, usize)> = None;
        for at in self.sieve.passed() {
            let change = &self.changes[at];
            let takes = &self.takes[at * room.len()..(at + 1) * room.len()];
            if value + change.value > best.map_or(bar, |best| best.0)
                && takes.iter().zip(room).all(|(takes, room)| takes <= room)
                && !with.is_some_and(|with| with.meets(change))
            {
                best = Some((value + change.value, at));
            }
        }
        best.map(|(_, at)| at)
    }

    fn is_over(&mut self, limit: u64, budget: &Budget) -> bool {
        self.looks += 1;
        self.steps >= limit || (self.looks.is_multiple_of(BETWEEN_LOOKS) && budget.is_over())
    }
}
