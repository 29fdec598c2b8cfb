//! Why a decision is what it is: pure, from what there is beside all that was chosen.

use super::{
    agent::Fallback,
    conflict::{Conflict, ConflictType},
    draft::Draft,
    plan::{Decision, DecisionOutcome, DecisionReason},
    problem::{Party, PlacedClaim, Presence, Problem},
    resolution::{Note, Pick, Resolution},
};

/// How every text about a silent agent begins.
const SILENT: &str = "it is silent";

/// Explains the decisions of one plan.
pub(super) struct Explainer<'p> {
    problem: &'p Problem,
    resolution: &'p Resolution,
    /// The final value of each variable.
    values: &'p [Option<f64>],
    /// All that was chosen; absent where everyone has its first choice, which nobody needs to have explained.
    draft: Option<Draft<'p>>,
}

impl<'p> Explainer<'p> {
    pub(super) fn new(problem: &'p Problem, resolution: &'p Resolution, values: &'p [Option<f64>]) -> Self {
        let first = |(party, pick): (&Party, &Pick)| match *pick {
            Pick::Option { candidate, fraction } => candidate == party.options().start && fraction == 1.0,
            Pick::Held => true,
            Pick::Fallback | Pick::Nothing => false,
        };
        let easy = problem.conflicts().is_empty() && problem.parties().iter().zip(&resolution.picks).all(first);
        let draft = (!easy).then(|| Draft::of(problem, resolution));
        Self { problem, resolution, values, draft }
    }

    /// Why a party gets what is decided for it.
    pub(super) fn reason(
        &self,
        at: usize,
        decision: &Decision,
        note: Option<&Note>,
        conflicts: &[&Conflict],
    ) -> DecisionReason {
        let conflict_ids = if decision.outcome == DecisionOutcome::Granted {
            Vec::new()
        } else {
            conflicts.iter().map(|conflict| conflict.id.clone()).collect()
        };
        if let Some(Note { reason, .. }) = note.filter(|note| !note.reason.code.is_empty()) {
            let mut reason = reason.clone();
            if reason.conflict_ids.is_empty() {
                reason.conflict_ids = conflict_ids;
            }
            return reason;
        }
        let party = &self.problem.parties()[at];
        let (code, text) = match decision.outcome {
            _ if is_shed(party, self.resolution.picks[at]) => ("shed", self.shed(party, conflicts)),
            DecisionOutcome::Granted => ("first_choice", "its first choice, in full".to_owned()),
            DecisionOutcome::Scaled => ("limited", self.scaled(party, decision, conflicts)),
            DecisionOutcome::Substituted => ("second_choice", self.substituted(at, decision, conflicts)),
            DecisionOutcome::Denied | DecisionOutcome::Preempted => self.denied(party, decision, conflicts),
            DecisionOutcome::Defaulted if !party.faults.is_empty() => {
                let first = party.faults.first().map(ToString::to_string).unwrap_or_default();
                ("invalid_intention", format!("its intention cannot be used: {first}"))
            }
            DecisionOutcome::Defaulted => ("silent", format!("{SILENT}; {}", silent(party, decision))),
        };
        DecisionReason { code: code.to_owned(), text, conflict_ids }
    }

    fn shed(&self, party: &Party, conflicts: &[&Conflict]) -> String {
        if let Some(fault) = party.faults.iter().find(|fault| fault.pointer.starts_with("/fallback")) {
            return format!("its fallback cannot be had: {fault}");
        }
        let safe = party.fallback().map_or(party.options(), |fallback| fallback..fallback + 1);
        let ways = safe.flat_map(|candidate| self.in_the_way(candidate, self.least(candidate), conflicts)).collect();
        let what = "not even what is safe for everyone fits, and this is among the lowest priority";
        join(what, ways, "what is left does not suffice")
    }

    fn scaled(&self, party: &Party, decision: &Decision, conflicts: &[&Conflict]) -> String {
        let first = party.options().start;
        let mut ways = Vec::new();
        if decision.fraction < 1.0 {
            ways.extend(self.short(first, 1.0, conflicts));
        }
        for claim in self.problem.claims(first) {
            let value = self.values[claim.variable];
            let met = value.is_none_or(|value| (claim.agrees.0..=claim.agrees.1).contains(&value));
            let name = &self.problem.variables()[claim.variable].name;
            let written = self.problem.option(first).and_then(|option| option.claims.get(name));
            let exact = written.filter(|written| written.min.is_none() && written.max.is_none());
            let clamped = exact.is_some_and(|written| written.value != claim.value);
            if !met || clamped {
                ways.push(self.value_told(claim, clamped && value == Some(claim.value), conflicts));
            }
        }
        join("its first choice in part", ways, "so much of it was chosen")
    }

    fn substituted(&self, at: usize, decision: &Decision, conflicts: &[&Conflict]) -> String {
        let first = self.problem.parties()[at].options().start;
        let ways = self.in_the_way(first, self.least(first), conflicts);
        if !ways.is_empty() {
            return join("its first choice does not fit", ways, "");
        }
        match self.worth(first) {
            Some(worth) if worth <= decision.utility => {
                "another of its options is worth more to it than its first choice, as far as that fits".to_owned()
            }
            _ => "its first choice would fit, but another of its options was chosen".to_owned(),
        }
    }

    fn denied(&self, party: &Party, decision: &Decision, conflicts: &[&Conflict]) -> (&'static str, String) {
        let mut ways = Vec::new();
        let mut best: Option<f64> = None;
        for candidate in party.options() {
            match self.worth(candidate) {
                Some(worth) => best = Some(best.map_or(worth, |best| best.max(worth))),
                None => ways.extend(self.in_the_way(candidate, self.least(candidate), conflicts)),
            }
        }
        match best {
            None => ("no_room", join("none of its options fits", ways, "what is left does not suffice")),
            Some(best) if best <= decision.utility => {
                ("worth_less", "no option that fits is worth more to it than being denied".to_owned())
            }
            Some(_) => ("not_chosen", "one of its options would fit, but none was chosen".to_owned()),
        }
    }

    fn least(&self, candidate: usize) -> f64 {
        self.problem.candidates()[candidate].min_fraction()
    }

    /// What a candidate would be worth to its party beside what all others have, if it fits.
    fn worth(&self, candidate: usize) -> Option<f64> {
        let fraction = self.draft.as_ref()?.largest_fraction(candidate)?;
        Some(self.problem.candidates()[candidate].utility_at(fraction))
    }

    /// What keeps a party from having a fraction of a candidate beside what all others have.
    fn in_the_way(&self, candidate: usize, fraction: f64, conflicts: &[&Conflict]) -> Vec<String> {
        let Some(draft) = &self.draft else { return Vec::new() };
        let mut ways = self.short(candidate, fraction, conflicts);
        for claim in self.problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            let reachable = claim.bounds.0 <= claim.bounds.1;
            let held = self.problem.fixed()[claim.variable];
            let agrees = held.is_none_or(|held| (claim.bounds.0..=claim.bounds.1).contains(&held));
            if !reachable || !agrees || !draft.meets(candidate, claim) {
                ways.push(self.value_told(claim, !reachable, conflicts));
            }
        }
        for push in self.problem.pushes(candidate).iter().filter(|push| !draft.goes_with_others(candidate, push)) {
            let name = &self.problem.variables()[push.variable].name;
            ways.push(differing(name, conflicts).unwrap_or_else(|| format!("{name}: others push it the other way")));
        }
        ways
    }

    /// The resources of which too little is left for a fraction of a candidate.
    fn short(&self, candidate: usize, fraction: f64, conflicts: &[&Conflict]) -> Vec<String> {
        let missing = self.draft.iter().flat_map(|draft| draft.missing(candidate, fraction));
        let told = missing.map(|(demand, left)| {
            let resource = &self.problem.resources()[demand.resource];
            let unit = if resource.unit.is_empty() { String::new() } else { format!(" {}", resource.unit) };
            let of = |conflict: &&&Conflict| {
                conflict.kind == ConflictType::ResourceContention && conflict.subject == resource.name
            };
            let (who, wanted, there, what) = match conflicts.iter().find(of) {
                Some(conflict) => {
                    let (wanted, available) = (conflict.demanded.unwrap_or(0.0), conflict.available.unwrap_or(0.0));
                    (agents(conflict), wanted, available, "available")
                }
                None => ("it wants".to_owned(), demand.amount * fraction, left.max(0.0), "left"),
            };
            let (wanted, there) = (rounded(wanted), rounded(there));
            format!("{}: {who} {wanted}{unit}, {there}{unit} is {what}", resource.name)
        });
        told.collect()
    }

    /// Why a variable has not the value that is claimed.
    fn value_told(&self, claim: &PlacedClaim, by_limits: bool, conflicts: &[&Conflict]) -> String {
        let at = claim.variable;
        let name = &self.problem.variables()[at].name;
        if let Some(held) = self.problem.fixed()[at] {
            return format!("{name}: a silent agent holds it at {}", rounded(held));
        }
        let (low, high) = self.problem.ranges()[at];
        let limits = || format!("{name}: it can be {} to {} in this cycle", rounded(low), rounded(high));
        if by_limits {
            return limits();
        }
        differing(name, conflicts).unwrap_or_else(|| match self.values[at] {
            Some(value) => format!("{name}: it is {} for the others", rounded(value)),
            None => limits(),
        })
    }
}

impl DecisionReason {
    /// Says why an agent is silent, where this is about one that is, and that is known: a clause about it.
    pub fn silent_because(&mut self, why: &str) {
        if let ("silent", Some(rest)) = (self.code.as_str(), self.text.strip_prefix(SILENT)) {
            self.text = format!("{why}{rest}");
        }
    }
}

pub(super) fn is_shed(party: &Party, pick: Pick) -> bool {
    pick == Pick::Nothing && (party.presence == Presence::Active || party.fallback().is_some())
}

/// What a silent agent has.
fn silent(party: &Party, decision: &Decision) -> &'static str {
    let has = !decision.grant.is_empty() || !decision.values.is_empty() || decision.option_id.is_some();
    match &party.agent.fallback {
        _ if party.presence == Presence::Holding => "what it was granted stays reserved",
        Some(Fallback::Hold) if has => "it goes on with what it was granted, which is its fallback",
        Some(Fallback::Option(_)) => "it has its fallback",
        _ => "it has nothing reserved any more",
    }
}

/// What several agents want of a variable, if this is one of them.
fn differing(name: &str, conflicts: &[&Conflict]) -> Option<String> {
    let about = |conflict: &&&Conflict| {
        conflict.kind == ConflictType::GoalInterference && conflict.subject == name && conflict.parties.len() > 1
    };
    conflicts.iter().find(about).map(|conflict| format!("{name}: {} it to go different ways", agents(conflict)))
}

fn agents(conflict: &Conflict) -> String {
    match conflict.parties.len() {
        1 => "1 agent wants".to_owned(),
        several => format!("{several} agents want"),
    }
}

/// What happened, and what each of these has to do with it, once; `or`: where there is none.
fn join(what: &str, ways: Vec<String>, or: &str) -> String {
    let mut told: Vec<String> = Vec::new();
    for way in ways {
        if !told.contains(&way) {
            told.push(way);
        }
    }
    if told.is_empty() { format!("{what}: {or}") } else { format!("{what}: {}", told.join("; ")) }
}

/// A number with as many digits as people read.
fn rounded(number: f64) -> f64 {
    let scaled = (number * 1000.0).round() / 1000.0;
    if scaled.is_finite() { scaled } else { number }
}
