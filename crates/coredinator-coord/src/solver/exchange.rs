//! Better choices by exchanging the columns of up to three groups at once.
//!
//! What a choice lacks to the bound is what its columns gain less than the best at the prices, plus what the room left is
//! worth at them. So an exchange can only be better if the gains that it gives up are less than what the room is worth:
//! few columns remain, and all pairs and triples of those can be tried (the exchange neighbourhoods of Hifi, Michrafy and
//! Sbihi, 2004, ordered and cut off by reduced costs). The last of a pair or triple is not tried one by one: a sieve tells
//! which could fit.

mod sieve;

use coredinator_core::coordination::Budget;

use sieve::Sieve;

use super::{search::Guide, state::State};

/// With more possible changes than this, those that give up the most are not tried: better small exchanges of few than half
/// of the large ones of many.
const MOST_CHANGES: usize = sieve::MOST;

/// A step is a look at so many lanes of the sieve.
const LANES_AT_ONCE: usize = 4;

/// How often the budget is looked at: after so many scans.
const BETWEEN_LOOKS: u32 = 256;

/// Another column for a group.
#[derive(Debug, Clone, Copy)]
struct Change {
    /// What it gives up in gains.
    loss: f64,
    group: u32,
    column: u32,
    /// What it is worth.
    value: f64,
}

impl Change {
    /// None at all.
    const NONE: Self = Self { loss: 0.0, group: u32::MAX, column: u32::MAX, value: 0.0 };
}

/// The changes that are possible, and what each takes.
#[derive(Debug, Default)]
struct Exchange {
    changes: Vec<Change>,
    /// The changes by what they are worth, and by what they take of the rows of the highest price.
    sieve: Sieve,
    /// Of each change, what it takes of each row.
    takes: Vec<f64>,
    /// The rows, the highest price first.
    rows: Vec<usize>,
    /// How much is left of each row, and what all of it is worth at the prices.
    room: Vec<f64>,
    worth: f64,
    /// The least that a change gives up; 0 or below.
    least: f64,
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
    let mut depth = 2;
    while exchange.steps < limit && !budget.is_over() {
        exchange.gather(state, guide);
        match exchange.find(depth, limit, budget) {
            Some((found, count)) => {
                exchange.make(state, &found[..count]);
                depth = 2;
            }
            None if depth == 2 => depth = 3,
            None => break,
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

    fn make(&self, state: &mut State<'_>, changes: &[usize]) {
        for &at in changes {
            let Change { group, column, .. } = self.changes[at];
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
                    self.changes.push(Change { loss, group: group as u32, column: column as u32, value });
                }
            }
        }
        self.changes.sort_unstable_by(|a, b| a.loss.total_cmp(&b.loss).then(a.column.cmp(&b.column)));
        self.changes.truncate(MOST_CHANGES);
        self.least = self.changes.first().map_or(0.0, |change| change.loss.min(0.0));
        self.takes.clear();
        self.takes.resize(self.changes.len() * rows, 0.0);
        for (at, change) in self.changes.iter().enumerate() {
            let takes = &mut self.takes[at * rows..(at + 1) * rows];
            for entry in model.entries(change.column as usize) {
                takes[model.row[entry] as usize] += model.amount[entry];
            }
            for entry in model.entries(state.choice[change.group as usize] as usize) {
                takes[model.row[entry] as usize] -= model.amount[entry];
            }
        }
        let (changes, takes, order) = (&self.changes, &self.takes, &self.rows);
        self.sieve.fill(changes.len(), 1 + rows, |lane, at| match lane {
            0 => -changes[at].value,
            _ => takes[at * rows + order[lane - 1]],
        });
        self.steps += (model.candidate.len() / 4 + self.changes.len() * (2 + rows / 8)) as u64;
    }

    /// Looks for an exchange of one or two (or, at depth 3, of three) that is better: by place, and how many.
    fn find(&mut self, depth: usize, limit: u64, budget: &Budget) -> Option<([usize; 3], usize)> {
        let rows = self.room.len();
        let mut room = self.room.clone();
        if depth == 2
            && let Some((_, last)) = self.scan(&room, Change::NONE, None, self.changes.len())
        {
            return Some(([last, 0, 0], 1));
        }
        let mut further = vec![0.0; rows];
        for first in 0..self.changes.len() {
            let change = self.changes[first];
            if change.loss + (depth - 1) as f64 * self.least >= self.worth || self.is_over(limit, budget) {
                return None;
            }
            for (at, room) in room.iter_mut().enumerate() {
                *room = self.room[at] - self.takes[first * rows + at];
            }
            if depth == 2 {
                if let Some((_, last)) = self.scan(&room, change, None, first) {
                    return Some(([first, last, 0], 2));
                }
                continue;
            }
            let mut best: Option<(f64, usize, usize)> = None;
            for second in 0..first {
                let other = self.changes[second];
                let loss = change.loss + other.loss;
                if loss + self.least >= self.worth || self.is_over(limit, budget) {
                    break;
                }
                if other.group == change.group {
                    continue;
                }
                for (at, further) in further.iter_mut().enumerate() {
                    *further = room[at] - self.takes[second * rows + at];
                }
                if let Some((value, last)) = self.scan(&further, change, Some(other), second)
                    && best.is_none_or(|best| value > best.0)
                {
                    best = Some((value, second, last));
                }
            }
            if let Some((_, second, last)) = best {
                return Some(([first, second, last], 3));
            }
        }
        None
    }

    /// The best change, of those before `end`, to make an exchange with one or two others better than nothing, in this room.
    fn scan(&mut self, room: &[f64], one: Change, other: Option<Change>, end: usize) -> Option<(f64, usize)> {
        let other = other.unwrap_or(Change::NONE);
        let (loss, value) = (one.loss + other.loss, one.value + other.value);
        let end = self.changes[..end].partition_point(|change| change.loss + loss < self.worth);
        // What is no gain but for rounding is none.
        let bar = 1e-9 * (1.0 + value.abs());
        let (set, looked) = self.sieve.pass(end, |lane| match lane {
            0 => value - bar,
            _ => room[self.rows[lane - 1]],
        });
        self.steps += (1 + looked / LANES_AT_ONCE) as u64;
        let mut best: Option<(f64, usize)> = None;
        for at in set.iter().flat_map(sieve::places) {
            let change = self.changes[at];
            let takes = &self.takes[at * room.len()..(at + 1) * room.len()];
            if value + change.value > best.map_or(bar, |best| best.0)
                && takes.iter().zip(room).all(|(takes, room)| takes <= room)
                && change.group != one.group
                && change.group != other.group
            {
                best = Some((value + change.value, at));
            }
        }
        best
    }

    fn is_over(&mut self, limit: u64, budget: &Budget) -> bool {
        self.looks += 1;
        self.steps >= limit || (self.looks.is_multiple_of(BETWEEN_LOOKS) && budget.is_over())
    }
}
