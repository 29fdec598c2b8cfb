//! What `centralized` is measured against: prices, repair and swaps, as textbooks have them for knapsacks in several
//! dimensions, of the whole problem at once. Prices by subgradients (Held, Wolfe, Crowder, 1974), the choice at them made
//! to fit by the cheapest changes and filled up, and exchanges of one and two until none is better.

use std::ops::Range;

use async_trait::async_trait;
use coredinator_core::coordination::{
    Budget, CoordinationStrategy, Draft, Negotiator, Pick, Presence, Problem, Resolution, StrategyError,
};

/// How often prices are moved, and after how many times without a better bound by half as much.
const ROUNDS: usize = 500;
const PATIENCE: usize = 10;

/// By how much rounding may make it look as if too much were taken, relative to what there is.
const TOLERANCE: f64 = 1e-12;

/// Among how many of a row, of the smallest losses, the second of an exchange is looked for.
const AMONG: usize = 250;

/// How often all exchanges are looked through at most.
const PASSES: usize = 50;

/// For problems without claims and elastic options in which everybody can have nothing: those that are generated.
pub(crate) struct PricesRepairSwap;

#[async_trait]
impl CoordinationStrategy for PricesRepairSwap {
    fn name(&self) -> &str {
        "baseline"
    }

    async fn resolve(&self, problem: &Problem, _: &Budget, _: &dyn Negotiator) -> Result<Resolution, StrategyError> {
        let mut search = Search::new(problem);
        let bound = search.find_prices();
        search.repair();
        search.fill();
        search.swap();
        let mut resolution = Draft::new(problem).finish();
        for (group, &choice) in search.groups.iter().zip(&search.choice) {
            let candidate = search.candidates[choice];
            resolution.picks[group.party] = Pick::Option { candidate, fraction: 1.0 };
        }
        Ok(Resolution { bound: Some(bound), ..resolution })
    }
}

struct Group {
    party: usize,
    columns: Range<usize>,
    /// The rows that any of its columns takes of.
    rows: Vec<usize>,
}

/// Another column for a group, what it gains less, and what the room in the group's rows is worth.
#[derive(Clone, Copy)]
struct Change {
    loss: f64,
    group: usize,
    column: usize,
    worth: f64,
}

struct Search {
    groups: Vec<Group>,
    /// By column: which candidate it is, what it is worth, what it takes, and what it gains at the prices.
    candidates: Vec<usize>,
    values: Vec<f64>,
    takes: Vec<Vec<(usize, f64)>>,
    gains: Vec<f64>,
    /// By row: how much there is, how much is taken, what a unit costs, and which groups take of it.
    capacity: Vec<f64>,
    used: Vec<f64>,
    prices: Vec<f64>,
    takers: Vec<Vec<usize>>,
    choice: Vec<usize>,
}

impl Search {
    fn new(problem: &Problem) -> Self {
        let rows = problem.available().len();
        let mut search = Self {
            groups: Vec::new(),
            candidates: Vec::new(),
            values: Vec::new(),
            takes: Vec::new(),
            gains: Vec::new(),
            capacity: problem.available().to_vec(),
            used: vec![0.0; rows],
            prices: vec![0.0; rows],
            takers: vec![Vec::new(); rows],
            choice: Vec::new(),
        };
        for (at, party) in problem.parties().iter().enumerate().filter(|(_, party)| party.presence == Presence::Active)
        {
            let first = search.candidates.len();
            let mut touched = Vec::new();
            for candidate in party.options() {
                search.candidates.push(candidate);
                search.values.push(party.agent.weight * problem.candidates()[candidate].utility);
                let takes: Vec<_> =
                    problem.demands(candidate).iter().map(|take| (take.resource, take.amount)).collect();
                touched.extend(takes.iter().map(|&(row, _)| row));
                search.takes.push(takes);
            }
            touched.sort_unstable();
            touched.dedup();
            touched.iter().for_each(|&row| search.takers[row].push(search.groups.len()));
            search.groups.push(Group { party: at, columns: first..search.candidates.len(), rows: touched });
        }
        search
    }

    /// Gives everybody what it gains most by at the prices; what all of it is worth at them is a bound.
    fn choose(&mut self) -> f64 {
        self.gains.clear();
        self.gains.extend(
            self.values.iter().zip(&self.takes).map(|(value, takes)| {
                value - takes.iter().map(|&(row, amount)| amount * self.prices[row]).sum::<f64>()
            }),
        );
        let best = |columns: Range<usize>| columns.max_by(|&a, &b| self.gains[a].total_cmp(&self.gains[b]));
        self.choice = self.groups.iter().filter_map(|group| best(group.columns.clone())).collect();
        self.used.fill(0.0);
        for &column in &self.choice {
            self.takes[column].iter().for_each(|&(row, amount)| self.used[row] += amount);
        }
        let gained: f64 = self.choice.iter().map(|&column| self.gains[column]).sum();
        gained + self.capacity.iter().zip(&self.prices).map(|(capacity, price)| capacity * price).sum::<f64>()
    }

    fn find_prices(&mut self) -> f64 {
        let mut bound = self.choose();
        let (mut best, mut length, mut waited) = (self.prices.clone(), 1.0, 0);
        for _ in 0..ROUNDS {
            let over: Vec<f64> = self.used.iter().zip(&self.capacity).map(|(used, capacity)| used - capacity).collect();
            let active =
                |(row, over): (usize, &f64)| if *over > 0.0 || self.prices[row] > 0.0 { over * over } else { 0.0 };
            let square: f64 = over.iter().enumerate().map(active).sum();
            if square == 0.0 {
                break;
            }
            // A twentieth of the bound is about what there is to gain.
            let step = length * 0.05 * bound / square;
            self.prices.iter_mut().zip(&over).for_each(|(price, over)| *price = (*price + step * over).max(0.0));
            let now = self.choose();
            if now < bound {
                (bound, waited) = (now, 0);
                best.copy_from_slice(&self.prices);
            } else {
                waited += 1;
                if waited == PATIENCE {
                    (length, waited) = (length / 2.0, 0);
                    self.prices.copy_from_slice(&best);
                    self.choose();
                }
            }
        }
        self.prices = best;
        self.choose();
        bound
    }

    fn give(&mut self, group: usize, column: usize) {
        self.takes[self.choice[group]].iter().for_each(|&(row, amount)| self.used[row] -= amount);
        self.takes[column].iter().for_each(|&(row, amount)| self.used[row] += amount);
        self.choice[group] = column;
    }

    /// What a column gains less than the one that its group has.
    fn loss(&self, group: usize, column: usize) -> f64 {
        self.gains[self.choice[group]] - self.gains[column]
    }

    /// How much more of each row would be taken if a group had this column; by row, if demands are.
    fn more(&self, group: usize, column: usize) -> impl Iterator<Item = (usize, f64)> + '_ {
        let (mut old, mut new) = (self.takes[self.choice[group]].as_slice(), self.takes[column].as_slice());
        std::iter::from_fn(move || {
            let row = old.first().into_iter().chain(new.first()).map(|take| take.0).min()?;
            let amount = |takes: &mut &[(usize, f64)]| match takes.split_first() {
                Some((&(at, amount), rest)) if at == row => {
                    *takes = rest;
                    amount
                }
                _ => 0.0,
            };
            let more = amount(&mut new);
            Some((row, more - amount(&mut old)))
        })
    }

    /// What is left of a row; nothing where only rounding has taken too much.
    fn room(&self, row: usize) -> f64 {
        (self.capacity[row] - self.used[row]).max(0.0)
    }

    /// Has groups change, for as little as it gets, until nothing is taken twice.
    fn repair(&mut self) {
        while let Some(row) = (0..self.used.len()).find(|&row| self.used[row] > self.capacity[row] * (1.0 + TOLERANCE))
        {
            let over =
                |row: usize, more: f64| ((self.used[row] + more - self.capacity[row]) / self.capacity[row]).max(0.0);
            let mut best: Option<(f64, usize, usize)> = None;
            for &group in &self.takers[row] {
                for column in self.groups[group].columns.clone() {
                    let less: f64 = self.more(group, column).map(|(row, more)| over(row, 0.0) - over(row, more)).sum();
                    let cost = self.loss(group, column).max(0.0) / less;
                    if less > 1e-15 && best.is_none_or(|(known, ..)| cost < known) {
                        best = Some((cost, group, column));
                    }
                }
            }
            let (_, group, column) = best.expect("everybody can have nothing");
            self.give(group, column);
        }
    }

    /// Gives what is left to those who lose least by it for what it is worth.
    fn fill(&mut self) {
        let mut moves: Vec<(f64, usize, usize)> = Vec::new();
        for (group, of) in self.groups.iter().enumerate() {
            let more = |column: usize| self.values[column] - self.values[self.choice[group]];
            let better = of.columns.clone().filter(|&column| more(column) > 0.0);
            moves.extend(better.map(|column| (self.loss(group, column) / more(column), group, column)));
        }
        moves.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
        for (_, group, column) in moves {
            if self.values[column] > self.values[self.choice[group]]
                && self.more(group, column).all(|(row, more)| more <= self.room(row))
            {
                self.give(group, column);
            }
        }
    }

    /// Exchanges one and two until none is better.
    fn swap(&mut self) {
        for _ in 0..PASSES {
            let near = Neighbourhood::of(self);
            let mut room: Vec<f64> = (0..self.used.len()).map(|row| self.room(row)).collect();
            let mut moved = vec![false; self.groups.len()];
            for one in &near.changes {
                if moved[one.group] || self.values[one.column] <= self.values[self.choice[one.group]] {
                    continue;
                }
                self.more(one.group, one.column).for_each(|(row, more)| room[row] -= more);
                let rows = &self.groups[one.group].rows;
                let short: Vec<usize> = rows.iter().copied().filter(|&row| room[row] < 0.0).collect();
                let other = near.partner(self, one, &short, &room, &moved);
                let made: Vec<Change> = match other {
                    None if !short.is_empty() => Vec::new(),
                    other => [*one].into_iter().chain(other).collect(),
                };
                for change in &made {
                    self.give(change.group, change.column);
                    moved[change.group] = true;
                }
                for change in made.iter().chain([one]) {
                    self.groups[change.group].rows.iter().for_each(|&row| room[row] = self.room(row));
                }
            }
            if !moved.contains(&true) {
                break;
            }
        }
    }
}

/// What could be part of an exchange that is better: its loss is below what the room in the rows that it is about is worth.
struct Neighbourhood {
    /// The smallest loss first.
    changes: Vec<Change>,
    /// By row, those of the groups that take of it.
    by_row: Vec<Vec<Change>>,
    /// What the room is worth, in the rows of one group at most and in all.
    most: f64,
    all: f64,
}

impl Neighbourhood {
    fn of(search: &Search) -> Self {
        let worth = |row: usize| search.prices[row] * search.room(row);
        let all: f64 = (0..search.used.len()).map(worth).sum();
        let worths: Vec<f64> =
            search.groups.iter().map(|group| group.rows.iter().map(|&row| worth(row)).sum()).collect();
        let most = worths.iter().copied().fold(0.0, f64::max);
        let mut near = Self { changes: Vec::new(), by_row: vec![Vec::new(); search.takers.len()], most, all };
        for (group, (of, &worth)) in search.groups.iter().zip(&worths).enumerate() {
            for column in of.columns.clone().filter(|&column| column != search.choice[group]) {
                let change = Change { loss: search.loss(group, column), group, column, worth };
                if change.loss < near.limit(&change) {
                    near.changes.push(change);
                }
            }
        }
        near.changes.sort_unstable_by(|a, b| a.loss.total_cmp(&b.loss).then(a.column.cmp(&b.column)));
        for change in &near.changes {
            search.groups[change.group].rows.iter().for_each(|&row| near.by_row[row].push(*change));
        }
        near
    }

    /// What the loss of an exchange with this change is below, if it is better.
    fn limit(&self, change: &Change) -> f64 {
        (change.worth + self.most).min(self.all)
    }

    /// A change that gives back what another is short of, and is better together with it.
    fn partner(&self, search: &Search, one: &Change, short: &[usize], room: &[f64], moved: &[bool]) -> Option<Change> {
        let more = |change: &Change| search.values[change.column] - search.values[search.choice[change.group]];
        let gives_back = |other: &Change| {
            let mut lacking = short.len();
            let fits = search.more(other.group, other.column).all(|(row, more)| {
                lacking -= usize::from(room[row] < 0.0);
                more <= room[row]
            });
            fits && lacking == 0
        };
        let changes = self.by_row[*short.first()?].iter().take(AMONG);
        changes.take_while(|other| one.loss + other.loss < self.limit(one)).copied().find(|other| {
            !moved[other.group]
                && other.group != one.group
                && more(one) + more(other) > 1e-9
                && one.loss + other.loss < one.worth + other.worth
                && gives_back(other)
        })
    }
}
