//! Progressive filling, from event to event.

use std::{cmp::Reverse, collections::BinaryHeap, ops::Range};

use coredinator_core::coordination::{Budget, Demand, Draft, Pick, Presence, Problem, Resolution, TOLERANCE};

use super::supply::Supply;

/// How often all are asked again when something was given back.
const PASSES: usize = 4;

/// After how many events the clock is looked at.
const BETWEEN_LOOKS: usize = 256;

/// Shares below this are none: what takes no more is of no weight to anybody.
const NO_SHARE: f64 = 1e-300;

/// All shares under way.
///
/// The draft holds what has been chosen, elastic options in the fraction in which they began; how far these have grown is
/// in `takers`, and what is left in `supplies`.
pub(super) struct Filling<'p> {
    problem: &'p Problem,
    draft: Draft<'p>,
    /// Of each candidate, what is asked again and again.
    wanted: Vec<Wanted>,
    takers: Vec<Taker>,
    /// The options of all takers in turn, the most modest of each first.
    turns: Vec<u32>,
    supplies: Vec<Supply>,
    /// Of each resource, what may be missing by rounding.
    slack: Vec<f64>,
    /// Of each resource, who has grown on it, in this pass.
    growers: Vec<Vec<usize>>,
    events: BinaryHeap<Reverse<Event>>,
    /// The weighted dominant share that all that grow have.
    level: f64,
    given_back: bool,
}

/// A candidate, as far as shares go.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    /// The largest share that it takes of anything, in full.
    share: f64,
    /// The smallest fraction of it that can be had.
    least: f64,
}

/// How far a party has come.
#[derive(Debug, Default)]
struct Taker {
    chosen: Option<usize>,
    fraction: f64,
    /// The fraction that it gains for each unit of the level; 0: it does not grow.
    rate: f64,
    weight: f64,
    priority: i32,
    /// Where its turns are, and how many of them it has had.
    turns: Range<usize>,
    tried: usize,
}

/// Something that happens at a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    /// The level, rounded so that ties are ties in whatever units.
    at: u64,
    what: What,
    /// The exact level, as bits.
    level: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A party has all of its option.
    Whole(u32),
    /// Nothing is left of a resource, if it is still as in this version.
    UsedUp(u32, u64),
    /// A party begins to grow.
    Grow(u32),
    /// It is a party's turn; the higher priority first.
    Turn(Reverse<i32>, u32),
}

impl Event {
    fn new(level: f64, what: What) -> Self {
        Self { at: rank(level), what, level: level.to_bits() }
    }
}

impl<'p> Filling<'p> {
    pub(super) fn new(problem: &'p Problem) -> Self {
        let draft = Draft::new(problem);
        let mut filling = Self {
            problem,
            wanted: (0..problem.candidates().len()).map(|candidate| Wanted::new(problem, candidate)).collect(),
            turns: Vec::with_capacity(problem.candidates().len()),
            slack: problem.resources().iter().map(|resource| resource.capacity * TOLERANCE * 0.1).collect(),
            supplies: draft.left().iter().map(|&left| Supply::new(left)).collect(),
            growers: vec![Vec::new(); problem.resources().len()],
            takers: Vec::with_capacity(problem.parties().len()),
            events: BinaryHeap::new(),
            level: 0.0,
            given_back: false,
            draft,
        };
        let mut options: Vec<(u64, u32)> = Vec::new();
        for (party, of) in problem.parties().iter().enumerate() {
            let (chosen, fraction) = match filling.draft.pick(party) {
                Pick::Option { candidate, fraction } => (Some(candidate), fraction),
                Pick::Fallback => (of.fallback(), 1.0),
                Pick::Held | Pick::Nothing => (None, 1.0),
            };
            options.clear();
            let possible = of.options().filter(|&at| problem.candidates()[at].possible);
            let modesty = |at: usize| rank(filling.wanted[at].share * filling.wanted[at].least);
            options.extend(possible.map(|at| (modesty(at), at as u32)));
            options.sort_unstable();
            let from = filling.turns.len();
            filling.turns.extend(options.iter().map(|&(_, at)| at));
            let (weight, priority, turns) = (of.agent.weight, of.agent.priority, from..filling.turns.len());
            filling.takers.push(Taker { chosen, fraction, weight, priority, turns, ..Taker::default() });
        }
        filling
    }

    pub(super) fn run(mut self, budget: &Budget) -> Resolution {
        for _ in 0..PASSES {
            self.given_back = false;
            self.begin();
            let mut events = 0_usize;
            while let Some(Reverse(event)) = self.events.pop() {
                if events.is_multiple_of(BETWEEN_LOOKS) && budget.is_over() {
                    self.events.clear();
                    break;
                }
                events += 1;
                self.happen(event);
            }
            for party in 0..self.takers.len() {
                self.stop(party);
            }
            if !self.given_back || budget.is_over() {
                break;
            }
        }
        self.finish()
    }

    /// Everyone gets its turn from where it stands.
    fn begin(&mut self) {
        // Where nothing grows, what is left is the same at each level.
        self.supplies.iter_mut().for_each(|supply| *supply = Supply::new(supply.left(self.level)));
        self.growers.iter_mut().for_each(Vec::clear);
        self.level = 0.0;
        let mut events = Vec::with_capacity(self.takers.len());
        for party in 0..self.takers.len() {
            if self.problem.parties()[party].presence == Presence::Active {
                self.takers[party].tried = 0;
                let what = if self.is_growable(party) { What::Grow(party as u32) } else { self.turn(party) };
                events.push(Reverse(Event::new(self.standing(party), what)));
            }
        }
        self.events = events.into();
    }

    fn happen(&mut self, event: Event) {
        self.level = self.level.max(f64::from_bits(event.level));
        match event.what {
            What::Whole(party) => {
                let party = party as usize;
                if self.takers[party].rate > 0.0 && f64::from_bits(event.level) >= self.whole_at(party) {
                    self.stop(party);
                    self.takers[party].fraction = 1.0;
                    self.schedule(self.level, self.turn(party));
                }
            }
            What::UsedUp(resource, version) => {
                let resource = resource as usize;
                if self.supplies[resource].version() == version {
                    for party in std::mem::take(&mut self.growers[resource]) {
                        if self.takers[party].rate > 0.0 && self.demand(party, resource) > 0.0 {
                            self.stop(party);
                            self.schedule(self.level, self.turn(party));
                        }
                    }
                }
            }
            What::Grow(party) => self.grow(party as usize),
            What::Turn(_, party) => self.move_on(party as usize),
        }
    }

    /// Moves a party to the next of its options that fits.
    fn move_on(&mut self, party: usize) {
        let own = self.problem.parties()[party].options();
        let Taker { chosen, fraction: grown, ref turns, tried, .. } = self.takers[party];
        let has = chosen.filter(|has| own.contains(has));
        for at in turns.start + tried..turns.end {
            self.takers[party].tried += 1;
            let candidate = self.turns[at] as usize;
            if has.is_some_and(|has| has <= candidate) {
                continue;
            }
            if let Some(fraction) = self.fitting(party, candidate)
                && self.draft.set(party, Pick::Option { candidate, fraction })
            {
                self.exchange(party, (candidate, fraction), grown);
                let level = self.standing(party).max(self.level);
                self.schedule(level, if self.is_growable(party) { What::Grow(party as u32) } else { self.turn(party) });
                return;
            }
        }
    }

    /// The fraction in which a party begins with an option, if there is room for it: as much as its share is now, or as
    /// near to that as it can have.
    fn fitting(&self, party: usize, candidate: usize) -> Option<f64> {
        let problem = self.problem;
        let Wanted { share, least } = self.wanted[candidate];
        let level = self.level * self.takers[party].weight;
        let mut fraction = if share * least >= level || share <= NO_SHARE { least } else { (level / share).min(1.0) };
        if share <= NO_SHARE {
            fraction = 1.0;
        }
        let Taker { chosen, fraction: grown, .. } = self.takers[party];
        let mut own = Beside::new(chosen.map_or(&[], |chosen| problem.demands(chosen)));
        for demand in problem.demands(candidate) {
            let left = self.supplies[demand.resource].left(self.level) + own.amount(demand.resource) * grown;
            if demand.amount * fraction > left + self.slack[demand.resource] {
                fraction = left.max(0.0) / demand.amount;
                if fraction < least {
                    return None;
                }
            }
        }
        (fraction >= least && self.draft.agrees(candidate)).then_some(fraction)
    }

    /// Books a party's move from what it has grown to to a fraction of a candidate.
    fn exchange(&mut self, party: usize, (candidate, fraction): (usize, f64), grown: f64) {
        let problem = self.problem;
        let before = self.takers[party].chosen;
        for demand in before.into_iter().flat_map(|before| problem.demands(before)) {
            self.supplies[demand.resource].take(self.level, -demand.amount * grown);
        }
        for demand in problem.demands(candidate) {
            self.supplies[demand.resource].take(self.level, demand.amount * fraction);
        }
        let less = |before: usize| {
            let mut kept = Beside::new(problem.demands(candidate));
            !problem.pushes(before).is_empty()
                || problem.claims(before).iter().any(|claim| !claim.soft)
                || problem
                    .demands(before)
                    .iter()
                    .any(|demand| kept.amount(demand.resource) * fraction < demand.amount * grown)
        };
        self.given_back |= before.is_some_and(less);
        self.takers[party].chosen = Some(candidate);
        self.takers[party].fraction = fraction;
        for demand in before.into_iter().chain([candidate]).flat_map(|at| problem.demands(at)) {
            self.foresee(demand.resource);
        }
    }

    /// Lets a party grow.
    fn grow(&mut self, party: usize) {
        if rank(self.standing(party)) < rank(self.level) {
            // There was not even room for as much as the others have: what it needs is used up.
            self.schedule(self.level, self.turn(party));
            return;
        }
        let Some(candidate) = self.takers[party].chosen else { return };
        // What it stands at and the level may differ by rounding: it grows from here to where it would be.
        let rate = self.takers[party].weight / self.wanted[candidate].share;
        self.takers[party].rate = rate;
        for demand in self.problem.demands(candidate) {
            let behind = (rate * self.level - self.takers[party].fraction) * demand.amount;
            self.supplies[demand.resource].take(self.level, behind);
            self.supplies[demand.resource].grow(self.level, rate * demand.amount);
            self.growers[demand.resource].push(party);
            self.foresee(demand.resource);
        }
        self.schedule(self.whole_at(party), What::Whole(party as u32));
    }

    /// Ends a party's growing, at the level of now.
    fn stop(&mut self, party: usize) {
        let Taker { chosen: Some(candidate), rate, .. } = self.takers[party] else { return };
        if rate > 0.0 {
            let fraction = (rate * self.level).min(1.0);
            self.takers[party].fraction = fraction;
            self.takers[party].rate = 0.0;
            for demand in self.problem.demands(candidate) {
                self.supplies[demand.resource].stop(self.level, rate * demand.amount);
                self.foresee(demand.resource);
            }
        }
    }

    /// Tells when a resource will be used up, as things stand.
    fn foresee(&mut self, resource: usize) {
        if let Some((level, version)) = self.supplies[resource].ends_at() {
            self.schedule(level, What::UsedUp(resource as u32, version));
        }
    }

    fn schedule(&mut self, level: f64, what: What) {
        self.events.push(Reverse(Event::new(level, what)));
    }

    fn turn(&self, party: usize) -> What {
        What::Turn(Reverse(self.takers[party].priority), party as u32)
    }

    /// Whether a party has an elastic option that is not whole.
    fn is_growable(&self, party: usize) -> bool {
        let Taker { chosen: Some(candidate), fraction, .. } = self.takers[party] else { return false };
        let of = &self.problem.candidates()[candidate];
        of.elastic.is_some() && fraction < 1.0 && self.wanted[candidate].share > NO_SHARE
    }

    /// The level at which a party that grows has all of its option.
    fn whole_at(&self, party: usize) -> f64 {
        1.0 / self.takers[party].rate
    }

    /// A party's weighted dominant share.
    fn standing(&self, party: usize) -> f64 {
        let taker = &self.takers[party];
        let share = taker.chosen.map_or(0.0, |candidate| self.wanted[candidate].share * taker.fraction);
        share / taker.weight
    }

    /// How much a party takes of a resource in full.
    fn demand(&self, party: usize, resource: usize) -> f64 {
        let demands = self.takers[party].chosen.into_iter().flat_map(|candidate| self.problem.demands(candidate));
        demands.filter(|demand| demand.resource == resource).map(|demand| demand.amount).sum()
    }

    /// Writes down how far what is elastic has grown.
    fn finish(mut self) -> Resolution {
        for party in 0..self.takers.len() {
            let Taker { chosen: Some(candidate), fraction, .. } = self.takers[party] else { continue };
            // What takes nothing costs nobody anything.
            let fraction = if self.wanted[candidate].share <= NO_SHARE { 1.0 } else { fraction };
            if let (Pick::Option { fraction: begun, .. }, Some(largest)) =
                (self.draft.pick(party), self.draft.largest_fraction(candidate))
                && fraction.min(largest) > begun
            {
                self.draft.set(party, Pick::Option { candidate, fraction: fraction.min(largest) });
            }
        }
        self.draft.finish()
    }
}

/// What somebody demands, looked up by one resource after the other, in their order.
struct Beside<'p>(&'p [Demand]);

impl<'p> Beside<'p> {
    fn new(demands: &'p [Demand]) -> Self {
        Self(demands)
    }

    /// How much of a resource, which comes after all asked about before; 0: nothing.
    fn amount(&mut self, resource: usize) -> f64 {
        while let [first, rest @ ..] = self.0 {
            if first.resource > resource {
                break;
            }
            self.0 = rest;
            if first.resource == resource {
                return first.amount;
            }
        }
        0.0
    }
}

impl Wanted {
    fn new(problem: &Problem, candidate: usize) -> Self {
        let share = |demand: &Demand| demand.amount / problem.available()[demand.resource].max(demand.amount * 1e-15);
        let share = problem.demands(candidate).iter().map(share).fold(0.0, f64::max);
        Self { share, least: problem.candidates()[candidate].min_fraction() }
    }
}

/// A level (0 or more) in the order of numbers, to forty binary digits: what differs by rounding alone is the same.
fn rank(level: f64) -> u64 {
    (level.to_bits() + (1 << 11)) >> 12
}
