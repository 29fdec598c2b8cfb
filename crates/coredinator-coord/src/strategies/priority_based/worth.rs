//! In which order a class too large for a search is served: by what is gained for what it takes.

use coredinator_core::coordination::Problem;

/// How many times prices are set anew by what would be taken at them.
const ROUNDS: u32 = 8;

/// Those to be served.
#[derive(Debug, Default)]
pub(super) struct Queue {
    has: Vec<Has>,
    /// Where each party's offers end.
    ends: Vec<usize>,
    offers: Vec<Offer>,
}

/// What a party has, as a candidate and a fraction, and what that is worth.
#[derive(Debug, Clone, Copy)]
struct Has {
    chosen: Option<(usize, f64)>,
    worth: f64,
}

/// What is worth more to a party than what it has.
#[derive(Debug, Clone, Copy)]
struct Offer {
    candidate: usize,
    worth: f64,
}

impl Queue {
    /// Adds a party with what it has (`None`: nothing), what that is worth, and what it could have instead.
    pub(super) fn add(&mut self, has: Option<(usize, f64)>, worth: f64, offers: impl Iterator<Item = (usize, f64)>) {
        let offers = offers.map(|(candidate, worth)| Offer { candidate, worth });
        self.offers.extend(offers.filter(|offer| offer.worth > worth));
        self.has.push(Has { chosen: has, worth });
        self.ends.push(self.offers.len());
    }

    fn parties(&self) -> impl Iterator<Item = (Has, &[Offer])> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).zip(&self.has).map(|((start, &end), &has)| (has, &self.offers[start..end]))
    }

    /// The candidates in the order in which they should be tried, of which each is worth more to its party than those of its
    /// own before it: greedy by what is gained for each unit of money, at prices that bring what is taken near to what there
    /// is, `left` over from what everybody has.
    ///
    /// For one resource that is the greedy rule of the multiple-choice knapsack (Sinha and Zoltners 1979). Takes
    /// O(n log n) for n candidates.
    pub(super) fn order(&self, problem: &Problem, left: &[f64]) -> Vec<usize> {
        let prices = self.prices(problem, left);
        let cost = |candidate: usize, fraction: f64| -> f64 {
            let demands = problem.demands(candidate).iter();
            demands.map(|demand| prices[demand.resource] * demand.amount).sum::<f64>() * fraction
        };
        let mut steps: Vec<(f64, usize)> = Vec::with_capacity(self.offers.len());
        let mut open: Vec<(usize, f64, f64)> = Vec::new();
        for (has, offers) in self.parties() {
            let mut at = (has.chosen.map_or(0.0, |(candidate, fraction)| cost(candidate, fraction)), has.worth);
            open.clear();
            open.extend(offers.iter().map(|offer| (offer.candidate, cost(offer.candidate, 1.0), offer.worth)));
            // Along the upper hull of what can be had for how much.
            loop {
                open.retain(|&(.., worth)| worth > at.1);
                let gain = |&(_, cost, worth): &(usize, f64, f64)| {
                    if cost > at.0 { (worth - at.1) / (cost - at.0) } else { f64::INFINITY }
                };
                let steepest = |a: &&(usize, f64, f64), b: &&(usize, f64, f64)| {
                    gain(a).total_cmp(&gain(b)).then(a.2.total_cmp(&b.2)).then(b.0.cmp(&a.0))
                };
                let Some(&next) = open.iter().max_by(steepest) else { break };
                steps.push((gain(&next), next.0));
                at = (next.1, next.2);
            }
        }
        steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        steps.into_iter().map(|(_, candidate)| candidate).collect()
    }

    /// What a unit of each resource costs; 0 where there is enough for the best of everything.
    fn prices(&self, problem: &Problem, left: &[f64]) -> Vec<f64> {
        let mut there = left.to_vec();
        for (candidate, fraction) in self.has.iter().filter_map(|has| has.chosen) {
            problem.demands(candidate).iter().for_each(|demand| there[demand.resource] += demand.amount * fraction);
        }
        let taken = |prices: &[f64]| {
            let mut taken = vec![0.0; there.len()];
            let gain = |candidate: usize, fraction: f64, worth: f64| {
                let demands = problem.demands(candidate).iter();
                worth - demands.map(|demand| prices[demand.resource] * demand.amount).sum::<f64>() * fraction
            };
            for (has, offers) in self.parties() {
                let kept = has.chosen.map_or(has.worth, |(candidate, fraction)| gain(candidate, fraction, has.worth));
                let mut best = (has.chosen, kept);
                for &Offer { candidate, worth } in offers {
                    let gain = gain(candidate, 1.0, worth);
                    if gain > best.1 {
                        best = (Some((candidate, 1.0)), gain);
                    }
                }
                if let Some((candidate, fraction)) = best.0 {
                    let demands = problem.demands(candidate).iter();
                    demands.for_each(|demand| taken[demand.resource] += demand.amount * fraction);
                }
            }
            taken
        };
        let wanted = taken(&vec![0.0; there.len()]);
        let is_scarce = |resource: usize| wanted[resource] > there[resource];
        let scarce = (0..there.len()).filter(|&resource| is_scarce(resource)).count().max(1) as f64;
        let gained = |(has, offers): (Has, &[Offer])| {
            let worth = has.worth.max(0.0);
            offers.iter().map(|offer| offer.worth - worth).fold(0.0, f64::max)
        };
        let all: f64 = self.parties().map(gained).sum();
        let first = |resource: usize| if is_scarce(resource) { all / scarce / wanted[resource] } else { 0.0 };
        let mut prices: Vec<f64> = (0..there.len()).map(first).collect();
        for round in 0..ROUNDS {
            let pace = 1.0 / (1.0 + f64::from(round) / 4.0);
            let taken = taken(&prices);
            for ((price, taken), there) in prices.iter_mut().zip(taken).zip(&there) {
                *price *= (taken / there.max(f64::MIN_POSITIVE)).clamp(0.5, 2.0).powf(pace);
            }
        }
        prices
    }
}
