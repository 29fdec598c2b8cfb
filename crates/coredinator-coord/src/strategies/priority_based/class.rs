//! Class by class.

use std::{cmp::Reverse, collections::BTreeMap};

use coredinator_core::coordination::{Budget, Draft, OnConflict, Pick, Presence, Problem, Resolution};

use super::{
    incumbents::{Incumbents, denied_for},
    rules::{PriorityBased, WhenItDoesNotFit},
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

/// One passage through all classes.
struct Passage<'a> {
    classes: &'a Classes<'a>,
    draft: Draft<'a>,
    /// The resources of which somebody could not get enough.
    blocked: Vec<bool>,
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

    /// Goes through all classes; those that are pinned keep what they are pinned to, come what may.
    pub(super) fn run(&self, pins: &BTreeMap<usize, Pick>, budget: &Budget) -> Resolution {
        let draft = Draft::new(self.problem);
        let mut passage = Passage { classes: self, draft, blocked: vec![false; self.problem.resources().len()] };
        passage.lean();
        passage.keep(pins);
        for class in &self.order {
            if budget.is_over() {
                break;
            }
            passage.serve(class, pins);
        }
        passage.draft.finish()
    }

    /// What a candidate is worth among those of its class.
    fn worth(&self, candidate: usize, fraction: f64) -> f64 {
        let of = &self.problem.candidates()[candidate];
        let worth = of.utility_at(fraction);
        let bonus = if self.incumbents.is_held(self.problem, candidate) { self.rules.hysteresis } else { 0.0 };
        self.problem.parties()[of.party].agent.weight * (worth + bonus * worth.abs())
    }
}

impl Passage<'_> {
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
    fn serve(&mut self, class: &[usize], pins: &BTreeMap<usize, Pick>) {
        let mut order: Vec<(f64, usize)> =
            class.iter().filter(|party| !pins.contains_key(party)).map(|&party| (self.density(party), party)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, party) in order {
            self.serve_one(party);
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

    /// Gives a party the best that fits.
    fn serve_one(&mut self, party: usize) {
        let problem = self.classes.problem;
        let of = &problem.parties()[party];
        let has = taken(problem, party, self.draft.pick(party));
        let mut best = has.map(|(candidate, fraction)| (self.classes.worth(candidate, fraction), candidate, fraction));
        for candidate in of.options() {
            if self.is_blocked(candidate, has) {
                continue;
            }
            let Some(fraction) = self.draft.largest_fraction(candidate) else { continue };
            let worth = self.classes.worth(candidate, fraction);
            let is_option = |at: usize| Some(at) != of.fallback();
            let better = best.is_none_or(|(known, at, part)| {
                worth > known || (worth == known && (!is_option(at) || (at == candidate && part < fraction)))
            });
            if better {
                best = Some((worth, candidate, fraction));
            }
        }
        match best {
            Some((_, candidate, fraction)) if Some((candidate, fraction)) != has => {
                self.draft.set(party, Pick::Option { candidate, fraction });
            }
            _ => {}
        }
    }

    /// Whether a candidate takes of what is saved up for somebody above, beyond what its party has anyway.
    fn is_blocked(&self, candidate: usize, has: Option<(usize, f64)>) -> bool {
        let problem = self.classes.problem;
        problem.demands(candidate).iter().any(|demand| {
            self.blocked[demand.resource] && has.is_none_or(|has| amount(problem, has, demand.resource) < demand.amount)
        })
    }

    /// What this class has agreed on is settled for those below.
    fn fix_values(&mut self, class: &[usize]) {
        let problem = self.classes.problem;
        let mut wishes: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
        for &party in class {
            let Some((candidate, _)) = taken(problem, party, self.draft.pick(party)) else { continue };
            for claim in problem.claims(candidate).iter().filter(|claim| !claim.soft) {
                let weight = problem.parties()[party].agent.weight * claim.weight;
                let exclusive = problem.variables()[claim.variable].on_conflict == OnConflict::Exclusive;
                let (sum, total) = wishes.entry(claim.variable).or_default();
                if !exclusive || *total == 0.0 {
                    (*sum, *total) = (*sum + weight * problem.wish(candidate, claim), *total + weight);
                }
            }
        }
        for (variable, (sum, total)) in wishes {
            if problem.fixed()[variable].is_none() {
                let (low, high) = self.draft.common(variable);
                let (low, high) = (low.max(problem.ranges()[variable].0), high.min(problem.ranges()[variable].1));
                if low <= high {
                    self.draft.fix(variable, (sum / total).clamp(low, high));
                }
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
                        self.blocked[demand.resource] = true;
                    }
                }
            }
        }
    }
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
