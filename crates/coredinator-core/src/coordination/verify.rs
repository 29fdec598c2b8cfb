//! Is a plan what it has to be? Checked on the plan as it is written, whoever made it.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    agent::Fallback,
    number::shown,
    plan::{Decision, DecisionOutcome, Plan},
    problem::{Party, Presence, Problem, TOLERANCE},
    resource::OnConflict,
};

/// How many violations are told; a plan with more is bad enough.
const MAX_VIOLATIONS: usize = 20;

/// Checks a plan against the problem that it solves.
///
/// - exactly one decision for each agent, in the order of their names, with a reason and an outcome that is true; what a
///   silent agent holds is left as it is;
/// - the option is one of the agent's own that could be had, with the action that belongs to it, its fraction 0 or one that
///   the option allows;
///   the grant is demand times fraction, and the utility what that is worth;
/// - what is granted fits into what is available, to 1e-9 of the capacity;
/// - each variable has at most one final value, the same in all decisions, within its limits and everyone's bounds; nobody
///   pushes it up while somebody pushes it down;
/// - whoever has nothing although that is not safe for it is told of as shed, and nobody is shed whose fallback (or, without
///   one, any of its options) fits into what is left;
/// - where nothing conflicts, everyone has its first choice (unless its own utilities contradict the order of its options);
/// - conflicts are those of the problem; the objective is the sum of weight times utility, the bound not below it, the gap
///   the distance between them; use, prices and payments are of what there is; and every number is one.
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
        self.measures(plan);
        self.shed(plan);
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
        self.utilization(plan);
        for name in plan.values.keys().filter(|name| !problem.variables().iter().any(|known| known.name == **name)) {
            self.wrong.push(format!("{name} is set, but there is no such variable"));
        }
        for (at, variable) in problem.variables().iter().enumerate() {
            if self.ways[at] == (true, true) {
                self.wrong.push(format!("{} is pushed up and down", variable.name));
            }
            if let Some(&value) = plan.values.get(&variable.name) {
                // What a silent agent holds need not be within reach, but within the limits.
                let held = problem.fixed()[at].is_some();
                let (low, high) = if held { (variable.min, variable.max) } else { problem.ranges()[at] };
                let slack = TOLERANCE * (1.0 + low.abs().max(high.abs()));
                if !(low - slack..=high + slack).contains(&value) {
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

    /// What the plan says of itself as a whole.
    fn measures(&mut self, plan: &Plan) {
        let problem = self.problem;
        let [objective, bound, gap] = [plan.objective, plan.bound, plan.gap];
        let scale = bound.abs().max(objective.abs());
        let distance = if scale > 0.0 { (bound - objective) / scale } else { 0.0 };
        let finite = [objective, bound, gap, plan.elapsed_ms].iter().all(|number| number.is_finite());
        if !finite || bound < objective || (gap - distance).abs() > TOLERANCE {
            self.wrong.push(format!("objective {objective}, bound {bound} and gap {gap} contradict each other"));
        }
        let worth = |(party, decision): (&Party, &Decision)| party.agent.weight * decision.utility;
        let worths = || problem.parties().iter().zip(&plan.decisions).map(worth);
        let (sum, size) = (worths().sum::<f64>(), worths().map(f64::abs).sum::<f64>());
        if sum.is_finite() && (sum - objective).abs() > size * TOLERANCE {
            self.wrong.push(format!("its objective is {objective}, but its decisions are worth {sum}"));
        }
        if plan.conflicts != problem.conflicts() {
            self.wrong.push("its conflicts are not those of the problem".to_owned());
        }
        let prices = plan.prices.iter().flatten();
        if !prices.into_iter().all(|(name, price)| self.resources.contains_key(name.as_str()) && price.is_finite()) {
            self.wrong.push("its prices are not numbers, or not of the resources".to_owned());
        }
        let payments = plan.payments.iter().flatten();
        if !payments.into_iter().all(|(id, paid)| problem.party(id.as_str()).is_some() && paid.is_finite()) {
            self.wrong.push("its payments are not numbers, or not by the agents".to_owned());
        }
    }

    /// Whether only those are told of as shed who can be, once each and by name.
    fn shed(&mut self, plan: &Plan) {
        if !plan.shed.is_sorted_by(|one, next| one < next) {
            self.wrong.push("those who are shed are not told once each, by name".to_owned());
        }
        for id in &plan.shed {
            let party = self.problem.party(id.as_str()).map(|at| &self.problem.parties()[at]);
            if !party.is_some_and(|party| party.is_required() || party.fallback().is_some()) {
                self.wrong.push(format!("{id}: it is told of as shed, but had nothing to lose"));
            }
        }
    }

    fn utilization(&mut self, plan: &Plan) {
        let problem = self.problem;
        let right = problem.resources().iter().enumerate().all(|(at, resource)| {
            plan.utilization.get(&resource.name).is_some_and(|used| {
                (used.capacity, used.reserve, used.held) == (resource.capacity, resource.reserve, problem.held()[at])
                    && (used.granted - self.granted[at]).abs() <= resource.capacity * TOLERANCE
            })
        });
        if !right || plan.utilization.len() != problem.resources().len() {
            self.wrong.push("the use of resources that it tells of is not that of its decisions".to_owned());
        }
    }

    fn decision(&mut self, plan: &Plan, party: &Party, decision: &Decision) {
        let problem = self.problem;
        let numbers = decision.grant.values().chain(decision.values.values());
        if !numbers.chain([&decision.fraction, &decision.utility]).all(|number| number.is_finite()) {
            self.wrong.push(format!("{}: a number is none", party.id()));
            return;
        }
        if decision.reason.code.is_empty() {
            self.wrong.push(format!("{}: it is not told why", party.id()));
        }
        if party.presence == Presence::Holding {
            let held = party.holding.as_ref().is_some_and(|holding| {
                holding.grant == decision.grant
                    && holding.values == decision.values
                    && (&holding.option_id, holding.fraction) == (&decision.option_id, decision.fraction)
                    && holding.action == decision.action
            });
            if !held || decision.outcome != DecisionOutcome::Defaulted || decision.utility != 0.0 {
                self.wrong.push(format!("{}: it is silent, but what it holds is not left as it is", party.id()));
            }
            return;
        }
        for (name, value) in &decision.values {
            if plan.values.get(name) != Some(value) {
                self.wrong.push(format!("{}: {name} is {value}, but its final value is another", party.id()));
            }
        }
        let shed = plan.shed.contains(party.id());
        let on_option = matches!(
            decision.outcome,
            DecisionOutcome::Granted | DecisionOutcome::Scaled | DecisionOutcome::Substituted
        );
        if on_option {
            let named = |candidate: &usize| {
                problem.option(*candidate).is_some_and(|option| Some(&option.id) == decision.option_id.as_ref())
            };
            match party.options().find(named) {
                Some(_) if shed => {
                    self.wrong.push(format!("{}: it is told of as shed, but has an option", party.id()));
                }
                Some(candidate) => self.has(plan, party, decision, candidate),
                None => {
                    self.wrong.push(format!("{}: {} is none of its own", party.id(), option_told(decision)));
                }
            }
            return;
        }
        if (decision.outcome == DecisionOutcome::Defaulted) != (party.presence == Presence::Absent) {
            let takes_part = if party.presence == Presence::Absent { "is silent" } else { "takes part" };
            self.wrong.push(format!("{}: it {takes_part}, but is {}", party.id(), decision.outcome.as_str()));
        }
        match party.fallback().filter(|_| !shed) {
            Some(fallback) => self.has(plan, party, decision, fallback),
            None => {
                if party.is_required() && !shed {
                    self.wrong.push(format!("{}: it has none of its options, and is not told of as shed", party.id()));
                }
                let nothing = decision.option_id.is_none()
                    && decision.grant.is_empty()
                    && decision.values.is_empty()
                    && decision.action.is_null()
                    && (decision.fraction, decision.utility) == (0.0, 0.0);
                if !nothing {
                    let detail = format!("{}: it has nothing to fall back to, but something is granted", party.id());
                    self.wrong.push(detail);
                }
            }
        }
    }

    /// Checks the decision for one who has a candidate: one of its options, or its fallback.
    fn has(&mut self, plan: &Plan, party: &Party, decision: &Decision, candidate: usize) {
        let problem = self.problem;
        let of = &problem.candidates()[candidate];
        if !of.possible {
            self.wrong.push(format!("{}: it has what cannot be had even alone", party.id()));
        }
        let on_option = party.options().contains(&candidate);
        let fraction = if on_option { decision.fraction } else { 1.0 };
        if !(of.min_fraction()..=1.0).contains(&fraction) {
            let allowed = match of.elastic {
                Some(elastic) => format!("{} to 1", shown(elastic.min_fraction)),
                None => "1, as this is had wholly or not at all".to_owned(),
            };
            self.wrong.push(format!("{}: its fraction is {}, but must be {allowed}", party.id(), shown(fraction)));
        }
        let first = party.options().start;
        let outcome_is_true = match decision.outcome {
            DecisionOutcome::Granted => candidate == first && fraction == 1.0,
            DecisionOutcome::Scaled => candidate == first,
            DecisionOutcome::Substituted => candidate != first,
            DecisionOutcome::Denied | DecisionOutcome::Preempted | DecisionOutcome::Defaulted => true,
        };
        if !outcome_is_true {
            let (outcome, option) = (decision.outcome.as_str(), option_told(decision));
            self.wrong.push(format!("{}: {} of {option} is not {outcome}", party.id(), shown(fraction)));
        }
        let held = party.holding.as_ref().filter(|_| matches!(party.agent.fallback, Some(Fallback::Hold)));
        let (option_id, told, action) = match (problem.option(candidate), held) {
            (Some(option), _) => (Some(option.id.as_str()), fraction, &option.action),
            (None, Some(held)) => (held.option_id.as_deref(), held.fraction, &held.action),
            (None, None) => (None, 0.0, &Value::Null),
        };
        if (decision.option_id.as_deref(), &decision.action) != (option_id, action) || decision.fraction != told {
            self.wrong.push(format!("{}: option, fraction or action are not what belongs together", party.id()));
        }
        let worth = of.utility_at(fraction);
        if (decision.utility - worth).abs() > worth.abs() * TOLERANCE {
            self.wrong.push(format!("{}: it is worth {worth}, not {}", party.id(), decision.utility));
        }
        self.grant(party, decision, candidate, fraction);
        self.interference(party, plan, candidate);
        let claims = problem.claims(candidate);
        let told = |variable: usize| decision.values.contains_key(&problem.variables()[variable].name);
        if decision.values.len() != claims.len() || !claims.iter().all(|claim| told(claim.variable)) {
            self.wrong.push(format!("{}: its values are not those of the variables that it claims", party.id()));
        }
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
            if found.is_none_or(|found| (found - expected).abs() > expected.abs() * TOLERANCE) {
                let found = found.map_or_else(|| "nothing".to_owned(), shown);
                let (name, expected) = (&resource.name, shown(expected));
                self.wrong.push(format!("{}: {found} of {name} is granted instead of {expected}", party.id()));
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
                // Without a value nobody has claimed it yet.
                let value = plan.values.get(&problem.variables()[claim.variable].name);
                value.is_none_or(|value| (claim.bounds.0..=claim.bounds.1).contains(value))
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
                let value = value.map_or_else(|| "no value".to_owned(), |&value| shown(value));
                self.wrong.push(format!("{}: {} is set to {value}, {what}", party.id(), variable.name));
            }
        }
    }
}

/// The option of a decision, for people.
fn option_told(decision: &Decision) -> String {
    decision.option_id.as_ref().map_or_else(|| "no option".to_owned(), |id| format!("option {id:?}"))
}
