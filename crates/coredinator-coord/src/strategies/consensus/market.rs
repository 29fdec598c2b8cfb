//! Prices on resources, and what everyone would choose at them.

use coredinator_core::coordination::{Budget, Elastic, Presence, Problem};

/// How exactly a price is found, relative to itself.
const PRECISION: f64 = 1e-13;
/// How many evaluations one price may cost in one round.
const MAX_TRIALS: usize = 90;

/// What a party chooses at some prices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Response {
    /// Which candidate.
    pub(super) candidate: usize,
    /// In which fraction.
    pub(super) fraction: f64,
    /// Weight times utility, less what it costs.
    pub(super) surplus: f64,
}

/// Resources with prices, and parties that answer to them by what is best for each alone.
///
/// The prices are the variables of the Lagrangian dual: the sum of everyone's surplus plus prices times supply, which is
/// never below any plan's objective, and convex. A [round](Self::round) minimises it along each resource in turn.
#[derive(Debug)]
pub(super) struct Market<'p> {
    problem: &'p Problem,
    prices: Vec<f64>,
    /// Of each party, the candidates that it may choose among.
    wishes: Vec<Vec<usize>>,
    /// Of each resource that can be short at all, the parties that could demand it.
    bidders: Vec<Vec<usize>>,
}

/// A candidate as seen from one resource: everything else about it is one number.
struct Line {
    worth: f64,
    elastic: Option<Elastic>,
    /// What a whole one costs of other resources.
    other_cost: f64,
    amount: f64,
}

/// A party as seen from one resource.
struct Bidder {
    /// The best surplus without the resource.
    idle: f64,
    lines: std::ops::Range<usize>,
}

impl<'p> Market<'p> {
    /// A market that begins at these prices, or at none.
    pub(super) fn new(problem: &'p Problem, prices: Option<&[f64]>) -> Self {
        let resources = problem.resources().len();
        let candidates = problem.candidates();
        let wishes: Vec<Vec<usize>> = problem
            .parties()
            .iter()
            .map(|party| {
                if party.presence == Presence::Holding {
                    return Vec::new();
                }
                let all = party.options().chain(party.fallback());
                all.filter(|&candidate| candidates[candidate].possible).collect()
            })
            .collect();
        let mut bidders = vec![Vec::new(); resources];
        let mut peak = vec![0.0; resources];
        for (party, wishes) in wishes.iter().enumerate() {
            let mut most: Vec<(usize, f64)> =
                wishes.iter().flat_map(|&wish| problem.demands(wish)).map(|d| (d.resource, d.amount)).collect();
            most.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)));
            most.dedup_by_key(|(resource, _)| *resource);
            for (resource, amount) in most {
                bidders[resource].push(party);
                peak[resource] += amount;
            }
        }
        for (resource, bidders) in bidders.iter_mut().enumerate() {
            if peak[resource] <= problem.available()[resource] {
                bidders.clear();
            }
        }
        let mut market = Self { problem, prices: vec![0.0; resources], wishes, bidders };
        for (resource, &price) in prices.unwrap_or_default().iter().enumerate() {
            if !market.bidders[resource].is_empty() {
                market.prices[resource] = price;
            }
        }
        market
    }

    /// The prices now.
    pub(super) fn prices(&self) -> &[f64] {
        &self.prices
    }

    /// Whether more than one resource can be short.
    pub(super) fn is_coupled(&self) -> bool {
        self.bidders.iter().filter(|bidders| !bidders.is_empty()).count() > 1
    }

    /// What a party would choose; `None`: there is nothing that it could have.
    pub(super) fn respond(&self, party: usize) -> Option<Response> {
        let weight = self.problem.parties()[party].agent.weight;
        let mut best: Option<Response> = None;
        for &candidate in &self.wishes[party] {
            let of = &self.problem.candidates()[candidate];
            let cost = self.cost(candidate);
            let worth = weight * of.utility;
            let fraction = best_fraction(worth, cost, of.elastic);
            let surplus = weight * of.utility_at(fraction) - cost * fraction;
            if best.is_none_or(|best| surplus > best.surplus) {
                best = Some(Response { candidate, fraction, surplus });
            }
        }
        best
    }

    /// The fraction of a candidate that its party would take, if it had to take this one.
    pub(super) fn best_fraction(&self, candidate: usize) -> f64 {
        let of = &self.problem.candidates()[candidate];
        let weight = self.problem.parties()[of.party].agent.weight;
        best_fraction(weight * of.utility, self.cost(candidate), of.elastic)
    }

    /// What a whole one of a candidate costs.
    fn cost(&self, candidate: usize) -> f64 {
        self.problem.demands(candidate).iter().map(|demand| demand.amount * self.prices[demand.resource]).sum()
    }

    /// The dual: no plan that leaves nobody without anything is worth more.
    pub(super) fn bound(&self) -> f64 {
        let surplus = (0..self.wishes.len()).filter_map(|party| self.respond(party)).map(|best| best.surplus);
        let supply = self.prices.iter().zip(self.problem.available()).map(|(price, supply)| price * supply);
        surplus.sum::<f64>() + supply.sum::<f64>()
    }

    /// How much of each resource everyone together would take.
    fn load(&self) -> Vec<f64> {
        let mut load = vec![0.0; self.prices.len()];
        for response in (0..self.wishes.len()).filter_map(|party| self.respond(party)) {
            for demand in self.problem.demands(response.candidate) {
                load[demand.resource] += demand.amount * response.fraction;
            }
        }
        load
    }

    /// Sets the price of each resource in turn to where demand meets supply (the lowest at which it does not exceed it),
    /// the others staying as they are. Returns the largest relative change of a price; stops early where time is up.
    pub(super) fn round(&mut self, budget: &Budget) -> f64 {
        let mut change: f64 = 0.0;
        for resource in 0..self.prices.len() {
            if self.bidders[resource].is_empty() {
                continue;
            }
            if budget.is_over() {
                return change;
            }
            let before = self.prices[resource];
            let after = self.clearing_price(resource);
            self.prices[resource] = after;
            let scale = before.abs().max(after.abs());
            if scale > 0.0 {
                change = change.max((after - before).abs() / scale);
            }
        }
        change
    }

    /// One step of all prices at once along the excess of demand over supply, as far as a plan worth `target` says that
    /// the dual can still fall (Polyak 1969), times `relaxation`.
    pub(super) fn step(&mut self, target: f64, relaxation: f64) {
        let load = self.load();
        let available = self.problem.available();
        let pull = |at: usize| {
            let excess = load[at] - available[at];
            if self.bidders[at].is_empty() || (excess < 0.0 && self.prices[at] <= 0.0) { 0.0 } else { excess }
        };
        let pulls: Vec<f64> = (0..load.len()).map(pull).collect();
        let length: f64 = pulls.iter().map(|pull| pull * pull).sum();
        let fall = (self.bound() - target).max(0.0);
        if length > 0.0 && fall > 0.0 {
            for (price, pull) in self.prices.iter_mut().zip(pulls) {
                *price = (*price + relaxation * fall / length * pull).max(0.0);
            }
        }
    }

    /// Replaces the prices.
    pub(super) fn set(&mut self, prices: &[f64]) {
        self.prices.copy_from_slice(prices);
    }

    fn clearing_price(&self, resource: usize) -> f64 {
        let supply = self.problem.available()[resource];
        let (lines, bidders) = self.seen_from(resource);
        let excess = |price: f64| demand(&lines, &bidders, price) - supply;
        let now = self.prices[resource];
        let (mut low, mut high) = if now > 0.0 { (now / 2.0, now) } else { (0.0, 0.0) };
        let (mut over, mut under) = (excess(low), excess(high));
        if over <= 0.0 {
            (low, over) = (0.0, excess(0.0));
            if over <= 0.0 {
                return 0.0;
            }
        }
        if under > 0.0 {
            (low, over) = (high, under);
            let dearest = lines.iter().map(|line| line.worth.abs() * steepest(line.elastic) / line.amount);
            let dearest = dearest.fold(0.0, f64::max);
            let mut step = if now > 0.0 { now } else { (dearest / 64.0).max(f64::MIN_POSITIVE) };
            let mut tries = 0;
            while under > 0.0 {
                if tries > 60 {
                    // It is short at any price: those that must have some of it want more than there is.
                    return dearest.max(now);
                }
                high += step;
                step *= 2.0;
                tries += 1;
                under = excess(high);
                if under > 0.0 {
                    (low, over) = (high, under);
                }
            }
        }
        for trial in 0..MAX_TRIALS {
            if high - low <= PRECISION * high || under >= -1e-13 * supply {
                break;
            }
            let middle = low + (high - low) / 2.0;
            let chord = low + (high - low) * over / (over - under);
            let price = if trial % 3 != 2 && chord > low && chord < high { chord } else { middle };
            let found = excess(price);
            if found > 0.0 {
                (low, over) = (price, found);
            } else {
                (high, under) = (price, found);
            }
        }
        high
    }

    /// Everything that a resource needs to know of those that could demand it.
    fn seen_from(&self, resource: usize) -> (Vec<Line>, Vec<Bidder>) {
        let mut lines = Vec::new();
        let mut bidders = Vec::with_capacity(self.bidders[resource].len());
        for &party in &self.bidders[resource] {
            let weight = self.problem.parties()[party].agent.weight;
            let first = lines.len();
            let mut idle = f64::NEG_INFINITY;
            for &candidate in &self.wishes[party] {
                let of = &self.problem.candidates()[candidate];
                let demands = self.problem.demands(candidate).iter();
                let amount: f64 = demands.filter(|demand| demand.resource == resource).map(|d| d.amount).sum();
                let other_cost = self.cost(candidate) - amount * self.prices[resource];
                let worth = weight * of.utility;
                if amount > 0.0 {
                    lines.push(Line { worth, elastic: of.elastic, other_cost, amount });
                } else {
                    let fraction = best_fraction(worth, other_cost, of.elastic);
                    idle = idle.max(value(worth, of.elastic, fraction) - other_cost * fraction);
                }
            }
            bidders.push(Bidder { idle, lines: first..lines.len() });
        }
        (lines, bidders)
    }
}

/// How much of a resource its bidders take at a price.
fn demand(lines: &[Line], bidders: &[Bidder], price: f64) -> f64 {
    let taken = |bidder: &Bidder| {
        let mut best = (bidder.idle, 0.0);
        for line in &lines[bidder.lines.clone()] {
            let cost = line.other_cost + line.amount * price;
            let fraction = best_fraction(line.worth, cost, line.elastic);
            let surplus = value(line.worth, line.elastic, fraction) - cost * fraction;
            if surplus > best.0 {
                best = (surplus, line.amount * fraction);
            }
        }
        best.1
    };
    bidders.iter().map(taken).sum()
}

fn value(worth: f64, elastic: Option<Elastic>, fraction: f64) -> f64 {
    elastic.map_or(worth, |elastic| worth * elastic.shape.worth(fraction))
}

/// The fraction in which something is best had that is worth so much and costs so much in full.
fn best_fraction(worth: f64, cost: f64, elastic: Option<Elastic>) -> f64 {
    match elastic {
        None => 1.0,
        Some(_) if cost <= 0.0 => 1.0,
        Some(elastic) if worth <= 0.0 => elastic.min_fraction,
        Some(elastic) => elastic.shape.best_fraction(cost / worth, elastic.min_fraction),
    }
}

fn steepest(elastic: Option<Elastic>) -> f64 {
    elastic.map_or(1.0, |elastic| elastic.shape.slope(elastic.min_fraction))
}
