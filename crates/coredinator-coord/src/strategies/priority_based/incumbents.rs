//! Who holds what, who loses it, and how long it keeps it all the same.

use std::collections::BTreeMap;

use coredinator_core::coordination::{
    DecisionOutcome, DecisionReason, Note, Party, PastDecision, Pick, Presence, Problem, Resolution, TOLERANCE,
};

use super::{class::Classes, rules::PriorityBased};

/// Those that hold one of the options that they offer, by party.
#[derive(Debug)]
pub(super) struct Incumbents {
    /// The option, and the fraction of it, that is covered by what is held.
    held: Vec<Option<(usize, f64)>>,
    /// Whether it would be given grace before it loses that.
    grace: Vec<bool>,
}

impl Incumbents {
    pub(super) fn of(problem: &Problem, rules: &PriorityBased) -> Self {
        let parties = problem.parties().iter();
        let held: Vec<_> = parties.map(|party| held(problem, party)).collect();
        let grace = problem.parties().iter().zip(&held).map(|(party, held)| {
            let used = past(problem, party).take_while(|past| past.code == GRACE).count();
            held.is_some() && party.agent.preemptible && used < rules.grace as usize
        });
        Self { grace: grace.collect(), held }
    }

    /// What a party holds, as a choice.
    pub(super) fn held(&self, party: usize) -> Option<Pick> {
        self.held[party].map(|(candidate, fraction)| Pick::Option { candidate, fraction })
    }

    /// Whether a party that is to lose what it holds keeps it for this cycle.
    pub(super) fn has_grace(&self, party: usize) -> bool {
        self.grace[party]
    }

    /// Whether a candidate is what its party holds.
    pub(super) fn is_held(&self, problem: &Problem, candidate: usize) -> bool {
        self.held[problem.candidates()[candidate].party].is_some_and(|(held, _)| held == candidate)
    }

    /// Who gets less than it holds because somebody of a higher class needs it, by party.
    pub(super) fn outranked(&self, problem: &Problem, run: &Resolution, classes: &Classes<'_>) -> Vec<usize> {
        if self.held.iter().all(Option::is_none) {
            return Vec::new();
        }
        let users = Users::of(problem, run, classes);
        let loses = |&party: &usize| {
            let Some((candidate, fraction)) = self.held[party] else { return false };
            let worth = |(candidate, fraction): (usize, f64)| problem.candidates()[candidate].utility_at(fraction);
            problem.parties()[party].agent.preemptible
                && run.chosen(problem, party).is_none_or(|chosen| {
                    chosen != (candidate, fraction) && worth(chosen) < worth((candidate, fraction))
                })
                && users.outrank(problem, run, party, (candidate, fraction), classes.priority(party))
        };
        (0..problem.parties().len()).filter(loses).collect()
    }

    /// Who would get more but for those that are given grace.
    pub(super) fn waiting(
        problem: &Problem,
        wanted: &Resolution,
        run: &Resolution,
        classes: &Classes<'_>,
        pins: &BTreeMap<usize, Pick>,
    ) -> Vec<usize> {
        let lowest = pins.keys().map(|&party| classes.priority(party)).min();
        let worth = |run: &Resolution, party: usize| {
            run.chosen(problem, party)
                .map_or(f64::NEG_INFINITY, |(candidate, fraction)| problem.candidates()[candidate].utility_at(fraction))
        };
        let waits = |&party: &usize| {
            Some(classes.priority(party)) > lowest
                && !pins.contains_key(&party)
                && worth(run, party) < worth(wanted, party)
        };
        (0..problem.parties().len()).filter(waits).collect()
    }

    pub(super) fn outranked_note(&self, problem: &Problem, party: usize, run: &Resolution) -> Note {
        let preempted = !matches!(run.picks[party], Pick::Option { .. });
        let text = format!("it has to give up {} for one of higher priority", self.name(problem, party));
        Note { preempted, reason: reason("outranked", text) }
    }

    pub(super) fn grace_note(&self, problem: &Problem, party: usize) -> Note {
        let text = format!(
            "one of higher priority needs what it holds; it keeps {} for now, and has to give it up soon",
            self.name(problem, party)
        );
        Note { preempted: false, reason: reason(GRACE, text) }
    }

    pub(super) fn waiting_note(party: usize, pins: &BTreeMap<usize, Pick>, problem: &Problem) -> Note {
        let holders = pins.keys().filter(|&&other| other != party).map(|&other| problem.parties()[other].id().as_str());
        let holders: Vec<&str> = holders.take(3).collect();
        let text = format!("what it wants is still held by one that is given time to let go: {}", holders.join(", "));
        Note { preempted: false, reason: reason("waiting_for_grace", text) }
    }

    fn name(&self, problem: &Problem, party: usize) -> String {
        let option = self.held[party].and_then(|(candidate, _)| problem.option(candidate));
        option.map_or_else(|| "what it holds".to_owned(), |option| format!("{:?}", option.id))
    }
}

/// The code of the reason for keeping what is to be lost.
const GRACE: &str = "grace";

pub(super) fn reason(code: &str, text: String) -> DecisionReason {
    DecisionReason { code: code.to_owned(), text, conflict_ids: Vec::new() }
}

/// How the last cycles ended for a party, the newest first, as long as it took part.
fn past<'p>(problem: &'p Problem, party: &'p Party) -> impl Iterator<Item = &'p PastDecision> {
    problem.history().iter().map_while(|past| past.agents.get(party.id()))
}

/// For how many cycles a party has been denied without a break.
pub(super) fn denied_for(problem: &Problem, party: &Party) -> usize {
    let denied = |past: &&PastDecision| matches!(past.outcome, DecisionOutcome::Denied | DecisionOutcome::Preempted);
    past(problem, party).take_while(denied).count()
}

/// The option of its own that a party holds, and how much of it is covered by that.
fn held(problem: &Problem, party: &Party) -> Option<(usize, f64)> {
    let holding = party.holding.as_ref().filter(|_| party.presence == Presence::Active)?;
    let id = holding.option_id.as_ref()?;
    let candidate = party.options().find(|&at| problem.option(at).is_some_and(|option| option.id == *id))?;
    let mut fraction = holding.fraction.min(1.0);
    for demand in problem.demands(candidate) {
        let granted = holding.grant.get(&problem.resources()[demand.resource].name).copied().unwrap_or(0.0);
        if granted < demand.amount * fraction * (1.0 - TOLERANCE) {
            fraction = granted / demand.amount;
        }
    }
    (fraction >= problem.candidates()[candidate].min_fraction()).then_some((candidate, fraction))
}

/// The highest priority among those that use a resource, claim a variable, push it up, and push it down.
struct Users {
    resources: Vec<Option<i64>>,
    left: Vec<f64>,
    variables: Vec<[Option<i64>; 3]>,
}

impl Users {
    fn of(problem: &Problem, run: &Resolution, classes: &Classes<'_>) -> Self {
        let mut users = Self {
            resources: vec![None; problem.resources().len()],
            left: problem.available().to_vec(),
            variables: vec![[None; 3]; problem.variables().len()],
        };
        for party in 0..problem.parties().len() {
            let Some((candidate, fraction)) = run.chosen(problem, party) else { continue };
            let priority = Some(classes.priority(party));
            for demand in problem.demands(candidate) {
                users.left[demand.resource] -= demand.amount * fraction;
                let highest = &mut users.resources[demand.resource];
                *highest = priority.max(*highest);
            }
            for claim in problem.claims(candidate).iter().filter(|claim| !claim.soft) {
                let highest = &mut users.variables[claim.variable][0];
                *highest = priority.max(*highest);
            }
            for push in problem.pushes(candidate) {
                let highest = &mut users.variables[push.variable][if push.strength > 0.0 { 1 } else { 2 }];
                *highest = priority.max(*highest);
            }
        }
        users
    }

    /// Whether somebody above `priority` uses what a party lacks for this fraction of a candidate.
    fn outrank(
        &self,
        problem: &Problem,
        run: &Resolution,
        party: usize,
        (candidate, fraction): (usize, f64),
        priority: i64,
    ) -> bool {
        let own = run.chosen(problem, party);
        let back = |resource: usize| {
            let own = own.iter().flat_map(|&(candidate, fraction)| {
                problem.demands(candidate).iter().map(move |demand| (demand.resource, demand.amount * fraction))
            });
            own.filter(|(at, _)| *at == resource).map(|(_, amount)| amount).sum::<f64>()
        };
        let above = |highest: Option<i64>| highest > Some(priority);
        let short = problem.demands(candidate).iter().any(|demand| {
            let slack = problem.resources()[demand.resource].capacity * TOLERANCE;
            above(self.resources[demand.resource])
                && demand.amount * fraction > self.left[demand.resource] + back(demand.resource) + slack
        });
        let claims = problem.claims(candidate).iter().filter(|claim| !claim.soft);
        let taken = claims.into_iter().any(|claim| {
            let value = run.values.get(&claim.variable);
            let agrees = value.is_none_or(|value| (claim.bounds.0..=claim.bounds.1).contains(value));
            above(self.variables[claim.variable][0]) && !agrees
        });
        let pushed = problem
            .pushes(candidate)
            .iter()
            .any(|push| above(self.variables[push.variable][if push.strength > 0.0 { 2 } else { 1 }]));
        short || taken || pushed
    }
}
