//! Is a plan what it has to be? Checked on the plan as it is written, whoever made it.

use std::collections::HashMap;

use super::{
    plan::{Decision, DecisionOutcome, Plan},
    problem::{Party, Presence, Problem, TOLERANCE},
    resource::OnConflict,
};

/// How many violations are told; a plan with more is bad enough.
const MAX_VIOLATIONS: usize = 20;

/// Checks a plan against the problem that it solves.
///
/// - exactly one decision for each agent, in the order of their names; what a silent agent holds is left as it is;
/// - the option is one of the agent's own, its fraction 0 or one that the option allows; the grant is demand times fraction;
/// - what is granted fits into what is available, to 1e-9 of the capacity;
/// - each variable has at most one final value, the same in all decisions, within its limits and everyone's bounds; nobody
///   pushes it up while somebody pushes it down;
/// - nobody is shed whose fallback (or, without one, any of its options) fits into what is left;
/// - where nothing conflicts, everyone has its first choice (unless its own utilities contradict the order of its options);
/// - the bound is not below the objective, and every number is one.
///
/// # Errors
/// What is wrong, for people; at most twenty.
pub fn verify(problem: &Problem, plan: &Plan) -> Result<(), Vec<String>> {
    let mut check = Check {
        problem,
        resources: problem.resources().iter().enumerate().map(|(at, known)| (known.name.as_str(), at)).collect(),
        granted: vec![0.0; problem.resources().len()],
        ways: vec![(false, false); problem.variables().len()],
        wrong: Vec::new(),
    };
    check.plan(plan);
    check.wrong.truncate(MAX_VIOLATIONS);
    if check.wrong.is_empty() { Ok(()) } else { Err(check.wrong) }
}

struct Check<'p> {
    problem: &'p Problem,
    resources: HashMap<&'p str, usize>,
    granted: Vec<f64>,
    ways: Vec<(bool, bool)>,
    wrong: Vec<String>,
}

impl Check<'_> {
    fn plan(&mut self, plan: &Plan) {
        let problem = self.problem;
        if plan.group != problem.group() || plan.cycle != problem.cycle() {
            self.wrong.push(format!("it is for cycle {} of {:?}", plan.cycle, plan.group));
        }
        let ids = plan.decisions.iter().map(|decision| &decision.agent_id);
        if !ids.eq(problem.parties().iter().map(Party::id)) {
            self.wrong.push("its decisions are not one for each agent".to_owned());
            return;
        }
        let [objective, bound, gap] = [plan.objective, plan.bound, plan.gap];
        if ![objective, bound, gap].iter().all(|number| number.is_finite()) || bound < objective || gap < 0.0 {
            self.wrong.push(format!("objective {objective}, bound {bound} and gap {gap} contradict each other"));
        }
        for (party, decision) in problem.parties().iter().zip(&plan.decisions) {
            if self.wrong.len() >= MAX_VIOLATIONS {
                return;
            }
            self.decision(plan, party, decision);
        }
        for (at, resource) in problem.resources().iter().enumerate() {
            let (granted, available) = (self.granted[at], problem.available()[at]);
            if granted > available + resource.capacity * TOLERANCE {
                self.wrong.push(format!("{granted} of {} is granted, but {available} is available", resource.name));
            }
        }
        for (at, variable) in problem.variables().iter().enumerate() {
            if self.ways[at] == (true, true) {
                self.wrong.push(format!("{} is pushed up and down", variable.name));
            }
            if let Some(&value) = plan.values.get(&variable.name) {
                let (low, high) = problem.ranges()[at];
                let slack = TOLERANCE * (1.0 + low.abs().max(high.abs()));
                let within = (low - slack..=high + slack).contains(&value);
                if !within && problem.fixed()[at].is_none() {
                    self.wrong.push(format!("{} is set to {value}, outside {low} to {high}", variable.name));
                }
                if problem.fixed()[at].is_some_and(|fixed| fixed != value) {
                    self.wrong.push(format!("{} is set to {value}, although a silent agent holds it", variable.name));
                }
            }
        }
        for party in problem.parties().iter().filter(|party| plan.shed.binary_search(party.id()).is_ok()) {
            let mut safe = party.fallback().map_or(party.options(), |fallback| fallback..fallback + 1);
            if safe.any(|candidate| self.fits_beside(plan, candidate)) {
                self.wrong.push(format!("{}: it is shed, but what is safe for it fits", party.id()));
            }
        }
    }

    fn decision(&mut self, plan: &Plan, party: &Party, decision: &Decision) {
        let problem = self.problem;
        let numbers = decision.grant.values().chain(decision.values.values());
        if !numbers.chain([&decision.fraction, &decision.utility]).all(|number| number.is_finite()) {
            self.wrong.push(format!("{}: a number is none", party.id()));
            return;
        }
        for (name, value) in &decision.values {
            if party.presence != Presence::Holding && plan.values.get(name) != Some(value) {
                self.wrong.push(format!("{}: {name} is {value}, but its final value is another", party.id()));
            }
        }
        if party.presence == Presence::Holding {
            let holds = party.holding.as_ref().is_some_and(|holding| holding.grant == decision.grant);
            if !holds || decision.outcome != DecisionOutcome::Defaulted {
                self.wrong.push(format!("{}: it is silent, but what it holds is not left as it is", party.id()));
            }
            return;
        }
        let on_option = matches!(
            decision.outcome,
            DecisionOutcome::Granted | DecisionOutcome::Scaled | DecisionOutcome::Substituted
        );
        let candidate = if on_option {
            let named = |candidate: &usize| {
                problem.option(*candidate).is_some_and(|option| Some(&option.id) == decision.option_id.as_ref())
            };
            let Some(candidate) = party.options().find(named) else {
                self.wrong.push(format!("{}: option {:?} is none of its own", party.id(), decision.option_id));
                return;
            };
            candidate
        } else {
            match party.fallback() {
                Some(fallback) if !plan.shed.contains(party.id()) => fallback,
                _ => {
                    if decision.option_id.is_some() || !decision.grant.is_empty() {
                        self.wrong
                            .push(format!("{}: it has nothing to fall back to, but something is granted", party.id()));
                    }
                    return;
                }
            }
        };
        let of = &problem.candidates()[candidate];
        let fraction = if on_option { decision.fraction } else { 1.0 };
        if !(of.min_fraction()..=1.0).contains(&fraction) {
            self.wrong.push(format!("{}: fraction {fraction} is not in {} to 1", party.id(), of.min_fraction()));
        }
        self.grant(party, decision, candidate, fraction);
        self.interference(party, plan, candidate);
        let first = party.options().start;
        let consistent =
            party.options().all(|at| problem.candidates()[at].utility <= problem.candidates()[first].utility);
        if problem.conflicts().is_empty()
            && party.presence == Presence::Active
            && consistent
            && problem.candidates()[first].possible
            && (candidate != first || fraction != 1.0)
        {
            self.wrong.push(format!("{}: nothing conflicts, but it does not get its first choice", party.id()));
        }
    }

    fn grant(&mut self, party: &Party, decision: &Decision, candidate: usize, fraction: f64) {
        let demands = self.problem.demands(candidate);
        let mut matched = 0;
        for demand in demands {
            let resource = &self.problem.resources()[demand.resource];
            let expected = demand.amount * fraction;
            let found = decision.grant.get(&resource.name).copied();
            matched += usize::from(found.is_some());
            if found.is_none_or(|found| (found - expected).abs() > expected * TOLERANCE) {
                let detail = format!("{}: {found:?} of {} is granted instead of {expected}", party.id(), resource.name);
                self.wrong.push(detail);
            }
        }
        if matched != decision.grant.len() {
            self.wrong.push(format!("{}: something is granted that it did not ask for", party.id()));
        }
        for (name, amount) in &decision.grant {
            match self.resources.get(name.as_str()) {
                Some(&at) if *amount >= 0.0 => self.granted[at] += amount,
                _ => self.wrong.push(format!("{}: {amount} of {name} is granted", party.id())),
            }
        }
    }

    /// Whether a candidate could be had on top of the plan, with nothing else changed.
    fn fits_beside(&self, plan: &Plan, candidate: usize) -> bool {
        let problem = self.problem;
        let least = problem.candidates()[candidate].min_fraction();
        let demands = problem.demands(candidate).iter();
        let claims = problem.claims(candidate).iter().filter(|claim| !claim.soft);
        let mut pushes = problem.pushes(candidate).iter();
        problem.candidates()[candidate].possible
            && demands.into_iter().all(|demand| {
                demand.amount * least <= problem.available()[demand.resource] - self.granted[demand.resource]
            })
            && claims.into_iter().all(|claim| {
                let value = plan.values.get(&problem.variables()[claim.variable].name);
                value.is_some_and(|value| (claim.bounds.0..=claim.bounds.1).contains(value))
            })
            && pushes.all(|push| {
                let (up, down) = self.ways[push.variable];
                if push.strength > 0.0 { !down } else { !up }
            })
    }

    fn interference(&mut self, party: &Party, plan: &Plan, candidate: usize) {
        for push in self.problem.pushes(candidate) {
            let ways = &mut self.ways[push.variable];
            *ways = (ways.0 || push.strength > 0.0, ways.1 || push.strength < 0.0);
        }
        for claim in self.problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            let variable = &self.problem.variables()[claim.variable];
            let (low, high) = claim.bounds;
            let slack = TOLERANCE * (1.0 + low.abs().max(high.abs()).min(super::number::LARGEST));
            let value = plan.values.get(&variable.name);
            if value.is_none_or(|value| !(low - slack..=high + slack).contains(value)) {
                let what = match variable.on_conflict {
                    OnConflict::Exclusive => "which does not agree with its claim",
                    OnConflict::Blend => "outside the bounds of its claim",
                };
                self.wrong.push(format!("{}: {} is set to {value:?}, {what}", party.id(), variable.name));
            }
        }
    }
}
