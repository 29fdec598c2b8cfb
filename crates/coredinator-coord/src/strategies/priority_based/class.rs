//! Class by class.

use std::{cmp::Reverse, collections::BTreeMap};

use coredinator_core::coordination::{
    Budget, Draft, Note, OnConflict, Pick, PlacedClaim, Presence, Problem, Resolution, TOLERANCE,
};

use crate::solver::{self, Scope};

use super::{
    super::refine::make_most,
    incumbents::{Incumbents, denied_for, reason},
    rules::{PriorityBased, WhenItDoesNotFit},
    worth::Queue,
};

/// The parties by class, the highest first.
#[derive(Debug)]
pub(super) struct Classes<'a> {
    problem: &'a Problem,
    rules: &'a PriorityBased,
    incumbents: &'a Incumbents,
    priorities: Vec<i64>,
    order: Vec<Vec<usize>>,
}

/// The largest class that is resolved together; in a larger one, who is worth most for what it takes goes first.
const TOGETHER: usize = 512;

/// The steps of search for each agent of a class, and for all classes together.
const STEPS_EACH: u64 = 2_000;
const STEPS: u64 = 400_000;

/// How many candidates may be copied for searches, over all classes.
const COPIES: usize = 4_000_000;

/// An option that would have fit, if what it takes were not saved up.
struct Spared {
    worth: f64,
    resource: usize,
    /// For whom it is saved up.
    whom: usize,
}

/// One passage through all classes.
struct Passage<'a> {
    classes: &'a Classes<'a>,
    draft: Draft<'a>,
    /// Who could not get enough of each resource, for whom it is saved up.
    blocked: Vec<Option<usize>>,
    /// Who did without an option that would have fit, because of a resource that is saved up.
    spared: BTreeMap<usize, Spared>,
    /// The variables whose value is settled.
    settled: Vec<bool>,
    steps: u64,
    copies: usize,
}

impl<'a> Classes<'a> {
    pub(super) fn of(problem: &'a Problem, rules: &'a PriorityBased, incumbents: &'a Incumbents) -> Self {
        let raised = |party| {
            let ageing = |ageing: super::Ageing| {
                (denied_for(problem, party) / ageing.cycles as usize).min(ageing.at_most as usize) as i64
            };
            i64::from(party.agent.priority) + rules.ageing.map_or(0, ageing)
        };
        let priorities: Vec<i64> = problem.parties().iter().map(raised).collect();
        let mut order: Vec<usize> =
            (0..priorities.len()).filter(|&party| problem.parties()[party].presence == Presence::Active).collect();
        order.sort_by_key(|&party| (Reverse(priorities[party]), party));
        let order = order.chunk_by(|&a, &b| priorities[a] == priorities[b]).map(<[usize]>::to_vec).collect();
        Self { problem, rules, incumbents, priorities, order }
    }

    /// The priority by which a party counts.
    pub(super) fn priority(&self, party: usize) -> i64 {
        self.priorities[party]
    }

    /// The values of variables where everyone has its first choice, because all agree: within that, as the highest class
    /// would have them.
    pub(super) fn agreed(&self) -> BTreeMap<usize, f64> {
        let problem = self.problem;
        let mut agreed = vec![(f64::NEG_INFINITY, f64::INFINITY); problem.variables().len()];
        let firsts = |class: &'_ Vec<usize>| {
            class.iter().map(|&party| problem.parties()[party].options().start).collect::<Vec<_>>()
        };
        let all = problem.parties().iter().filter_map(|party| match party.presence {
            Presence::Active => Some(party.options().start),
            Presence::Holding => None,
            Presence::Absent => party.fallback(),
        });
        for claim in all.flat_map(|candidate| problem.claims(candidate)).filter(|claim| !claim.soft) {
            let (low, high) = &mut agreed[claim.variable];
            (*low, *high) = (low.max(claim.agrees.0), high.min(claim.agrees.1));
        }
        let mut values = BTreeMap::new();
        for class in &self.order {
            for (variable, wish) in wishes(problem, firsts(class).into_iter()) {
                let (low, high) = agreed[variable];
                if problem.fixed()[variable].is_none() && low <= high {
                    values.entry(variable).or_insert_with(|| wish.clamp(low, high));
                }
            }
        }
        values
    }

    /// Goes through all classes; those that are pinned keep what they are pinned to, come what may.
    pub(super) fn run(&self, pins: &BTreeMap<usize, Pick>, budget: &Budget) -> Resolution {
        let draft = Draft::new(self.problem);
        let mut passage = Passage {
            classes: self,
            draft,
            blocked: vec![None; self.problem.resources().len()],
            spared: BTreeMap::new(),
            settled: vec![false; self.problem.variables().len()],
            steps: budget.iterations().unwrap_or(STEPS),
            copies: COPIES,
        };
        passage.lean();
        passage.keep(pins);
        for class in &self.order {
            if budget.is_over() {
                break;
            }
            passage.serve(class, pins, budget);
        }
        let Passage { draft, spared, .. } = passage;
        let mut resolution = draft.finish();
        resolution.notes = self.saved_up(&spared, &resolution.picks);
        resolution
    }

    /// What is told to those who do without an option that would have fit, as what it takes is saved up for somebody above.
    fn saved_up(&self, spared: &BTreeMap<usize, Spared>, picks: &[Pick]) -> BTreeMap<usize, Note> {
        let problem = self.problem;
        let does_without = |&(&party, spared): &(&usize, &Spared)| {
            let first = problem.parties()[party].options().start;
            let has = taken(problem, party, picks[party]);
            has.is_some_and(|(at, fraction)| at != first && self.worth(at, fraction) < spared.worth)
        };
        let note = |(&party, spared): (&usize, &Spared)| {
            let text = format!(
                "what is left of {} is saved up for {}, which is of higher priority",
                problem.resources()[spared.resource].name,
                problem.parties()[spared.whom].id()
            );
            (party, Note { preempted: false, reason: reason("saved_up", text) })
        };
        spared.iter().filter(does_without).map(note).collect()
    }

    /// What a candidate is worth among those of its class.
    fn worth(&self, candidate: usize, fraction: f64) -> f64 {
        let of = &self.problem.candidates()[candidate];
        let worth = of.utility_at(fraction);
        let bonus = if self.incumbents.is_held(self.problem, candidate) { self.rules.hysteresis } else { 0.0 };
        self.problem.parties()[of.party].agent.weight * (worth + bonus * worth.abs())
    }
}

impl<'a> Passage<'a> {
    /// Who could do with less than it falls back to does so, until its turn comes.
    fn lean(&mut self) {
        let problem = self.classes.problem;
        for &party in self.classes.order.iter().rev().flatten() {
            let Some((safe, fraction)) = taken(problem, party, self.draft.pick(party)) else { continue };
            if is_free(problem, safe) {
                continue;
            }
            let least = |at: usize| problem.candidates()[at].min_fraction();
            let leaner = |&at: &usize| {
                at != safe
                    && problem.candidates()[at].possible
                    && takes_no_more(problem, (at, least(at)), (safe, fraction))
            };
            let mut best: Option<usize> = None;
            for at in problem.parties()[party].options().filter(leaner) {
                if best.is_none_or(|best| takes_no_more(problem, (at, least(at)), (best, least(best)))) {
                    best = Some(at);
                }
            }
            if let Some(candidate) = best {
                self.draft.set(party, Pick::Option { candidate, fraction: least(candidate) });
            }
        }
    }

    /// Who may not be made to give up what it holds has it before all classes, as has who is pinned.
    fn keep(&mut self, pins: &BTreeMap<usize, Pick>) {
        for &party in self.classes.order.iter().flatten() {
            let keeps = || {
                let of = &self.classes.problem.parties()[party];
                self.classes.incumbents.held(party).filter(|_| !of.agent.preemptible)
            };
            if let Some(pick) = pins.get(&party).copied().or_else(keeps) {
                self.draft.set(party, pick);
            }
        }
    }

    /// Serves a class.
    fn serve(&mut self, class: &[usize], pins: &BTreeMap<usize, Pick>, budget: &Budget) {
        let mut order: Vec<(f64, usize)> =
            class.iter().filter(|party| !pins.contains_key(party)).map(|&party| (self.density(party), party)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let base = (order.len() > TOGETHER).then(|| self.draft.clone());
        // Everyone is served, whoever of them is not content.
        let discontent = order.iter().filter(|&&(_, party)| !self.serve_one(party)).count();
        let content = discontent == 0;
        let copies = self.classes.problem.candidates().len();
        if !content && order.len() > 1 {
            let mut parties: Vec<usize> = order.into_iter().map(|(_, party)| party).collect();
            if let Some(base) = base {
                self.serve_by_worth(&parties, base);
            }
            parties.sort_unstable();
            if parties.len() <= TOGETHER && self.steps > 0 && self.copies >= copies {
                self.copies -= copies;
                self.serve_together(&parties, budget);
            }
            self.divide(&parties, budget);
        }
        self.fix_values(class);
        if self.classes.rules.when_it_does_not_fit == WhenItDoesNotFit::Block {
            self.block(class);
        }
    }

    /// What the first choice of a party is worth for what it takes.
    fn density(&self, party: usize) -> f64 {
        let problem = self.classes.problem;
        let first = problem.parties()[party].options().start;
        let share = |resource: usize, amount: f64| amount / problem.available()[resource].max(f64::MIN_POSITIVE);
        let taken: f64 = problem.demands(first).iter().map(|demand| share(demand.resource, demand.amount)).sum();
        self.classes.worth(first, 1.0) / taken.max(1e-12)
    }

    /// Serves a large class anew from where it was, step by step in the order of what is gained for what it takes, if that is
    /// better than what going one by one has come to.
    fn serve_by_worth(&mut self, parties: &[usize], base: Draft<'a>) {
        let problem = self.classes.problem;
        let before = self.picks(parties);
        let one_by_one = std::mem::replace(&mut self.draft, base);
        let mut queue = Queue::default();
        for &party in parties {
            let has = taken(problem, party, self.draft.pick(party));
            let worth = has.map_or(f64::NEG_INFINITY, |(candidate, part)| self.classes.worth(candidate, part));
            let can =
                |&candidate: &usize| problem.candidates()[candidate].possible && self.blocked(candidate, has).is_none();
            let offers = problem.parties()[party].options().filter(can);
            queue.add(has, worth, offers.map(|candidate| (candidate, self.worth(candidate))));
        }
        for candidate in queue.order(problem, self.draft.left()) {
            let party = problem.candidates()[candidate].party;
            if let Some(fraction) = self.draft.largest_fraction(candidate)
                && taken(problem, party, self.draft.pick(party))
                    .is_none_or(|(has, part)| self.classes.worth(has, part) < self.classes.worth(candidate, fraction))
            {
                self.draft.set(party, Pick::Option { candidate, fraction });
            }
        }
        parties.iter().for_each(|&party| _ = self.serve_one(party));
        let after = self.picks(parties);
        let (lost, gained) = (shed(&after) > shed(&before), self.value(&after) >= self.value(&before));
        if lost || shed(&after) == shed(&before) && !gained {
            self.draft = one_by_one;
        }
    }

    /// What these have now.
    fn picks(&self, parties: &[usize]) -> Vec<(usize, Pick)> {
        parties.iter().map(|&party| (party, self.draft.pick(party))).collect()
    }

    /// What some would have is worth together.
    fn value(&self, picks: &[(usize, Pick)]) -> f64 {
        let chosen = picks.iter().filter_map(|&(party, pick)| taken(self.classes.problem, party, pick));
        chosen.map(|(candidate, fraction)| self.classes.worth(candidate, fraction)).sum()
    }

    /// Divides what is elastic among these in the fractions that are worth most together, everyone keeping its option.
    fn divide(&mut self, parties: &[usize], budget: &Budget) {
        let problem = self.classes.problem;
        let is_free = |&party: &usize| {
            let keeps = !problem.parties()[party].agent.preemptible && self.classes.incumbents.held(party).is_some();
            let of = taken(problem, party, self.draft.pick(party));
            !keeps
                && of.is_some_and(|(candidate, _)| {
                    problem.candidates()[candidate].elastic.is_some()
                        && problem.demands(candidate).iter().all(|demand| self.blocked[demand.resource].is_none())
                })
        };
        let elastic: Vec<usize> = parties.iter().copied().filter(is_free).collect();
        if elastic.is_empty() || budget.is_over() {
            return;
        }
        let before = self.picks(&elastic);
        let mut picks: Vec<Pick> = (0..problem.parties().len()).map(|party| self.draft.pick(party)).collect();
        if make_most(problem, &mut picks, &elastic, |candidate| self.worth(candidate)).more > 0.0 {
            let after: Vec<(usize, Pick)> = elastic.iter().map(|&party| (party, picks[party])).collect();
            self.replace(&before, &after);
        }
    }

    /// Looks for something better for the whole class than what going one by one has come to.
    fn serve_together(&mut self, parties: &[usize], budget: &Budget) {
        let problem = self.classes.problem;
        let incumbents = self.classes.incumbents;
        let keeps = |party: usize| incumbents.held(party).filter(|_| !problem.parties()[party].agent.preemptible);
        // One that may keep a part of something elastic stays with what it has by now, which is at least that.
        let is_part = |pick: Pick| matches!(pick, Pick::Option { fraction, .. } if fraction < 1.0);
        let parties: Vec<usize> = parties.iter().copied().filter(|&party| !keeps(party).is_some_and(is_part)).collect();
        let mut scope = Scope::around(&self.draft, parties.iter().copied());
        for &party in &parties {
            let of = &problem.parties()[party];
            let has = taken(problem, party, self.draft.pick(party));
            let floor = keeps(party).and_then(|pick| taken(problem, party, pick)).filter(|_| has.is_some());
            for candidate in of.options().chain(of.fallback()) {
                // What is settled is one value; what is not is for the search to see to.
                let meets = |claim: &PlacedClaim| {
                    let (value, _) = self.draft.common(claim.variable);
                    claim.soft || !self.settled[claim.variable] || (claim.bounds.0..=claim.bounds.1).contains(&value)
                };
                let agrees = problem.claims(candidate).iter().all(meets);
                let below = floor.is_some_and(|(held, _)| self.worth(candidate) < self.worth(held));
                if has.is_none_or(|has| has.0 != candidate)
                    && (!agrees || below || self.blocked(candidate, has).is_some())
                {
                    scope.forbid(candidate);
                }
                if incumbents.is_held(problem, candidate) {
                    scope.revalue(candidate, self.worth(candidate));
                }
            }
        }
        let steps = self.steps.min(STEPS_EACH * parties.len() as u64);
        let found = solver::solve(&scope, Some(steps), budget);
        self.steps -= steps.min(found.steps.max(1));
        let before = self.picks(&parties);
        let (old, new) = (self.value(&before), self.value(&found.picks));
        if shed(&found.picks) <= shed(&before) && new > old + old.abs().max(new.abs()) * TOLERANCE {
            self.replace(&before, &found.picks);
        }
    }

    /// Puts other choices in the place of these, all at once.
    fn replace(&mut self, before: &[(usize, Pick)], after: &[(usize, Pick)]) {
        let fits = |draft: &mut Draft<'_>, &(party, pick): &(usize, Pick)| match pick {
            Pick::Option { candidate, fraction } => draft
                .largest_fraction(candidate)
                .is_some_and(|largest| draft.set(party, Pick::Option { candidate, fraction: fraction.min(largest) })),
            other => draft.set(party, other),
        };
        for picks in [after, before] {
            before.iter().for_each(|&(party, _)| _ = self.draft.set(party, Pick::Nothing));
            // Each is tried, whatever became of the one before.
            let misfits = picks.iter().filter(|pick| !fits(&mut self.draft, pick)).count();
            if misfits == 0 {
                break;
            }
        }
    }

    fn worth(&self, candidate: usize) -> f64 {
        self.classes.worth(candidate, 1.0)
    }

    /// Gives a party the best that fits; whether that is the best there is for it.
    fn serve_one(&mut self, party: usize) -> bool {
        let problem = self.classes.problem;
        let of = &problem.parties()[party];
        let has = taken(problem, party, self.draft.pick(party));
        let mut best = has.map(|(candidate, fraction)| (self.classes.worth(candidate, fraction), candidate, fraction));
        for candidate in of.options() {
            let Some(fraction) = self.draft.largest_fraction(candidate) else { continue };
            let worth = self.classes.worth(candidate, fraction);
            if let Some((resource, whom)) = self.blocked(candidate, has) {
                let better = self.spared.get(&party).is_none_or(|known| known.worth < worth);
                if better {
                    self.spared.insert(party, Spared { worth, resource, whom });
                }
                continue;
            }
            let is_option = |at: usize| Some(at) != of.fallback();
            let better = best.is_none_or(|(known, at, part)| {
                worth > known || (worth == known && (!is_option(at) || (at == candidate && part < fraction)))
            });
            if better {
                best = Some((worth, candidate, fraction));
            }
        }
        if let Some((_, candidate, fraction)) = best
            && Some((candidate, fraction)) != has
        {
            self.draft.set(party, Pick::Option { candidate, fraction });
        }
        let most = of.options().map(|candidate| self.worth(candidate)).fold(f64::NEG_INFINITY, f64::max);
        best.is_some_and(|(worth, ..)| worth >= most)
    }

    /// What a candidate takes of that is saved up for somebody above, beyond what its party has anyway, and for whom.
    fn blocked(&self, candidate: usize, has: Option<(usize, f64)>) -> Option<(usize, usize)> {
        let problem = self.classes.problem;
        problem.demands(candidate).iter().find_map(|demand| {
            let whom = self.blocked[demand.resource]?;
            let more = has.is_none_or(|has| amount(problem, has, demand.resource) < demand.amount);
            more.then_some((demand.resource, whom))
        })
    }

    /// What this class has agreed on is settled for those below.
    fn fix_values(&mut self, class: &[usize]) {
        let problem = self.classes.problem;
        let chosen = class.iter().filter_map(|&party| taken(problem, party, self.draft.pick(party)));
        for (variable, wish) in wishes(problem, chosen.map(|(candidate, _)| candidate)) {
            let (low, high) = self.draft.common(variable);
            let (low, high) = (low.max(problem.ranges()[variable].0), high.min(problem.ranges()[variable].1));
            if problem.fixed()[variable].is_none() && low <= high {
                self.settled[variable] = self.draft.fix(variable, wish.clamp(low, high));
            }
        }
    }

    /// Saves up what somebody of this class could not get enough of.
    fn block(&mut self, class: &[usize]) {
        let problem = self.classes.problem;
        for &party in class {
            if matches!(self.draft.pick(party), Pick::Option { .. }) {
                continue;
            }
            let has = taken(problem, party, self.draft.pick(party));
            for candidate in problem.parties()[party].options() {
                let least = problem.candidates()[candidate].min_fraction();
                for demand in problem.demands(candidate) {
                    let back = has.map_or(0.0, |has| amount(problem, has, demand.resource));
                    if demand.amount * least > self.draft.left()[demand.resource] + back {
                        self.blocked[demand.resource].get_or_insert(party);
                    }
                }
            }
        }
    }
}

/// The value at which one class would like each variable that it claims: its first agent's, or the weighted mean.
fn wishes(problem: &Problem, class: impl Iterator<Item = usize>) -> BTreeMap<usize, f64> {
    let mut sums: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for candidate in class {
        let party = problem.candidates()[candidate].party;
        for claim in problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            let (sum, total) = sums.entry(claim.variable).or_default();
            match problem.variables()[claim.variable].on_conflict {
                OnConflict::Blend => {
                    let weight = problem.parties()[party].agent.weight * claim.weight;
                    (*sum, *total) = (*sum + weight * problem.wish(candidate, claim), *total + weight);
                }
                OnConflict::Exclusive if *total == 0.0 => (*sum, *total) = (claim.value, 1.0),
                OnConflict::Exclusive => {}
            }
        }
    }
    sums.into_iter().map(|(variable, (sum, total))| (variable, sum / total)).collect()
}

/// How many of these would have nothing.
fn shed(picks: &[(usize, Pick)]) -> usize {
    picks.iter().filter(|(_, pick)| *pick == Pick::Nothing).count()
}

/// What a party has, as a candidate and a fraction.
fn taken(problem: &Problem, party: usize, pick: Pick) -> Option<(usize, f64)> {
    match pick {
        Pick::Held | Pick::Nothing => None,
        Pick::Option { candidate, fraction } => Some((candidate, fraction)),
        Pick::Fallback => problem.parties()[party].fallback().map(|fallback| (fallback, 1.0)),
    }
}

/// How much of a resource a fraction of a candidate takes.
fn amount(problem: &Problem, (candidate, fraction): (usize, f64), resource: usize) -> f64 {
    let demands = problem.demands(candidate).iter().filter(|demand| demand.resource == resource);
    demands.map(|demand| demand.amount * fraction).sum()
}

/// Whether a candidate is in nobody's way.
fn is_free(problem: &Problem, candidate: usize) -> bool {
    problem.demands(candidate).is_empty()
        && problem.pushes(candidate).is_empty()
        && problem.claims(candidate).iter().all(|claim| claim.soft)
}

/// Whether one is in nobody's way more than the other: it demands no more of anything, and claims and pushes nothing.
fn takes_no_more(problem: &Problem, one: (usize, f64), other: (usize, f64)) -> bool {
    problem.pushes(one.0).is_empty()
        && problem.claims(one.0).iter().all(|claim| claim.soft)
        && problem.demands(one.0).iter().all(|demand| demand.amount * one.1 <= amount(problem, other, demand.resource))
}
