//! Why a decision is what it is: pure, from what there is beside all that was chosen.

use std::{borrow::Cow, collections::HashSet};

use super::{
    agent::Fallback,
    conflict::{Conflict, ConflictType},
    draft::Draft,
    plan::{Decision, DecisionOutcome, DecisionReason},
    problem::{Party, PlacedClaim, Presence, Problem},
    resolution::{Note, Pick, Resolution},
    resource::Resource,
};

/// How every text about a silent agent begins.
const SILENT: &str = "it is silent";
/// How every text about one that cannot be understood begins.
const UNUSABLE: &str = "its intention cannot be used";

/// How many things that are in the way are named.
const MOST_TOLD: usize = 6;

/// Explains the decisions of one plan.
pub(super) struct Explainer<'p> {
    problem: &'p Problem,
    resolution: &'p Resolution,
    /// The final value of each variable.
    values: &'p [Option<f64>],
    /// All that was chosen; absent where everyone has its first choice, which nobody needs to have explained.
    draft: Option<Draft<'p>>,
    /// How first choices collide on each resource, and on each variable, in words.
    contended: Vec<Option<String>>,
    disputed: Vec<Option<String>>,
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
        let (resources, variables) = (problem.resources(), problem.variables());
        let (mut contended, mut disputed) = (vec![None; resources.len()], vec![None; variables.len()]);
        for conflict in problem.conflicts() {
            // Both are in the order of their names.
            let name = &conflict.subject;
            match (conflict.kind, conflict.demanded, conflict.available) {
                (ConflictType::ResourceContention, Some(wanted), Some(there)) => {
                    if let Ok(at) = resources.binary_search_by(|resource| resource.name.cmp(name)) {
                        contended[at] = Some(short_of(&resources[at], &agents(conflict), wanted, there, "available"));
                    }
                }
                // One that wants what cannot be reached wants nothing different from anybody.
                (ConflictType::GoalInterference, ..) if conflict.parties.len() > 1 => {
                    if let Ok(at) = variables.binary_search_by(|variable| variable.name.cmp(name)) {
                        disputed[at] = Some(format!("{name}: {} it to go different ways", agents(conflict)));
                    }
                }
                _ => {}
            }
        }
        Self { problem, resolution, values, draft, contended, disputed }
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
            _ if is_shed(party, self.resolution.picks[at]) => ("shed", self.shed(party)),
            DecisionOutcome::Granted => ("first_choice", "its first choice, in full".to_owned()),
            DecisionOutcome::Scaled => ("limited", self.scaled(party, decision)),
            DecisionOutcome::Substituted => ("second_choice", self.substituted(at, decision)),
            DecisionOutcome::Denied | DecisionOutcome::Preempted => self.denied(party, decision),
            DecisionOutcome::Defaulted if !party.faults.is_empty() => {
                let first = party.faults.first().map(ToString::to_string).unwrap_or_default();
                ("invalid_intention", format!("{UNUSABLE}: {first}"))
            }
            DecisionOutcome::Defaulted => ("silent", format!("{SILENT}; {}", silent(party, decision))),
        };
        DecisionReason { code: code.to_owned(), text, conflict_ids }
    }

    fn shed(&self, party: &Party) -> String {
        if let Some(fault) = party.faults.iter().find(|fault| fault.pointer.starts_with("/fallback")) {
            return format!("its fallback cannot be had: {fault}");
        }
        let safe = party.fallback().map_or(party.options(), |fallback| fallback..fallback + 1);
        let ways = safe.flat_map(|candidate| self.in_the_way(candidate, self.least(candidate))).collect();
        let what = "not even what is safe for everyone fits, and this is among the lowest priority";
        join(what, ways, "what is left does not suffice")
    }

    fn scaled(&self, party: &Party, decision: &Decision) -> String {
        let first = party.options().start;
        let mut ways = Vec::new();
        if decision.fraction < 1.0 {
            ways.extend(self.short(first, 1.0));
        }
        for claim in self.problem.claims(first) {
            let value = self.values[claim.variable];
            let met = value.is_none_or(|value| (claim.agrees.0..=claim.agrees.1).contains(&value));
            let name = &self.problem.variables()[claim.variable].name;
            let written = self.problem.option(first).and_then(|option| option.claims.get(name));
            let exact = written.filter(|written| written.min.is_none() && written.max.is_none());
            let clamped = exact.is_some_and(|written| written.value != claim.value);
            if !met || clamped {
                ways.push(self.value_told(claim, clamped && value == Some(claim.value)));
            }
        }
        join("its first choice in part", ways, "so much of it was chosen")
    }

    fn substituted(&self, at: usize, decision: &Decision) -> String {
        let first = self.problem.parties()[at].options().start;
        let ways = self.in_the_way(first, self.least(first));
        if !ways.is_empty() {
            return join("its first choice does not fit", ways, "");
        }
        match self.worth(first) {
            Some(worth) if worth < decision.utility => {
                "another of its options is worth more to it than its first choice, as far as that fits".to_owned()
            }
            Some(worth) if worth == decision.utility => {
                "another of its options is worth as much to it as its first choice, as far as that fits".to_owned()
            }
            _ => "its first choice would fit, but another of its options was chosen".to_owned(),
        }
    }

    fn denied(&self, party: &Party, decision: &Decision) -> (&'static str, String) {
        let full = party.options().map(|candidate| self.problem.candidates()[candidate].utility);
        if full.fold(f64::NEG_INFINITY, f64::max) < decision.utility {
            // Whether any of them fits does not matter.
            return ("worth_less", "none of its options is worth as much to it as being denied".to_owned());
        }
        let mut ways = Vec::new();
        let mut best: Option<f64> = None;
        for candidate in party.options() {
            match self.worth(candidate) {
                Some(worth) => best = Some(best.map_or(worth, |best| best.max(worth))),
                None => ways.extend(self.in_the_way(candidate, self.least(candidate))),
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
    fn in_the_way(&self, candidate: usize, fraction: f64) -> Vec<Cow<'_, str>> {
        let Some(draft) = &self.draft else { return Vec::new() };
        let mut ways = self.short(candidate, fraction);
        for claim in self.problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            let reachable = claim.bounds.0 <= claim.bounds.1;
            let held = self.problem.fixed()[claim.variable];
            let agrees = held.is_none_or(|held| (claim.bounds.0..=claim.bounds.1).contains(&held));
            if !reachable || !agrees || !draft.meets(candidate, claim) {
                ways.push(self.value_told(claim, !reachable));
            }
        }
        for push in self.problem.pushes(candidate).iter().filter(|push| !draft.goes_with_others(candidate, push)) {
            let name = &self.problem.variables()[push.variable].name;
            ways.push(match &self.disputed[push.variable] {
                Some(told) => Cow::from(told),
                None => Cow::from(format!("{name}: others push it the other way")),
            });
        }
        ways
    }

    /// The resources of which too little is left for a fraction of a candidate.
    fn short(&self, candidate: usize, fraction: f64) -> Vec<Cow<'_, str>> {
        let missing = self.draft.iter().flat_map(|draft| draft.missing(candidate, fraction));
        let told = missing.map(|(demand, left)| match &self.contended[demand.resource] {
            Some(told) => Cow::from(told),
            None => {
                let resource = &self.problem.resources()[demand.resource];
                Cow::from(short_of(resource, "it wants", demand.amount * fraction, left, "left"))
            }
        });
        told.collect()
    }

    /// Why a variable has not the value that is claimed.
    fn value_told(&self, claim: &PlacedClaim, by_limits: bool) -> Cow<'_, str> {
        let at = claim.variable;
        let name = &self.problem.variables()[at].name;
        let (low, high) = self.problem.ranges()[at];
        let told = match (self.problem.fixed()[at], &self.disputed[at], self.values[at]) {
            (Some(held), ..) => format!("{name}: a silent agent holds it at {}", rounded(held)),
            (None, Some(told), _) if !by_limits => return Cow::from(told),
            (None, None, Some(value)) if !by_limits => format!("{name}: it is {} for the others", rounded(value)),
            _ => format!("{name}: it can be {} to {} in this cycle", rounded(low), rounded(high)),
        };
        Cow::from(told)
    }
}

impl DecisionReason {
    /// Says why an agent is silent, where this is about one that is, and that is known: a clause about it. Where it is about
    /// one that cannot be understood: the error that was found in what it really sent, of which not all need have been kept.
    pub fn silent_because(&mut self, why: &str) {
        if self.code == "invalid_intention" && why.starts_with('/') {
            self.text = format!("{UNUSABLE}: {why}");
        } else if let ("silent", Some(rest)) = (self.code.as_str(), self.text.strip_prefix(SILENT)) {
            self.text = format!("{why}{rest}");
        }
    }
}

pub(super) fn is_shed(party: &Party, pick: Pick) -> bool {
    pick == Pick::Nothing && (party.presence == Presence::Active || party.fallback().is_some())
}

/// What a silent agent has.
fn silent(party: &Party, decision: &Decision) -> &'static str {
    let had = party
        .holding
        .as_ref()
        .is_some_and(|held| !held.grant.is_empty() || !held.values.is_empty() || held.option_id.is_some());
    let has = !decision.grant.is_empty() || !decision.values.is_empty() || decision.option_id.is_some();
    match &party.agent.fallback {
        _ if party.presence == Presence::Holding && has => "what it was granted stays reserved",
        _ if party.presence == Presence::Holding => "it was granted nothing that could stay reserved",
        Some(Fallback::Hold) if has => "it goes on with what it was granted, which is its fallback",
        Some(Fallback::Option(_)) => "it has its fallback",
        _ if had => "it has nothing reserved any more",
        _ => "nothing is reserved for it",
    }
}

/// That there is less of a resource than is wanted.
fn short_of(resource: &Resource, who: &str, wanted: f64, there: f64, what: &str) -> String {
    let unit = if resource.unit.is_empty() { String::new() } else { format!(" {}", resource.unit) };
    let (wanted, there) = (rounded(wanted), rounded(there.max(0.0)));
    format!("{}: {who} {wanted}{unit}, {there}{unit} is {what}", resource.name)
}

fn agents(conflict: &Conflict) -> String {
    match conflict.parties.len() {
        1 => "1 agent wants".to_owned(),
        several => format!("{several} agents want"),
    }
}

/// What happened, and what each of these has to do with it, once; `or`: where there is none.
fn join(what: &str, mut ways: Vec<Cow<'_, str>>, or: &str) -> String {
    let mut seen = HashSet::new();
    ways.retain(|way| seen.insert(way.clone()));
    if ways.is_empty() {
        return format!("{what}: {or}");
    }
    let more = ways.len().saturating_sub(MOST_TOLD);
    ways.truncate(MOST_TOLD);
    let told = ways.join("; ");
    if more == 0 { format!("{what}: {told}") } else { format!("{what}: {told}; and {more} more") }
}

/// A number with as many digits as people read.
fn rounded(number: f64) -> f64 {
    let scaled = (number * 1000.0).round() / 1000.0;
    if scaled.is_finite() { scaled } else { number }
}
