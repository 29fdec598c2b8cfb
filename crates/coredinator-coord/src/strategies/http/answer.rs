//! What comes back.

use std::collections::BTreeMap;

use coredinator_core::coordination::{AgentId, DecisionReason, Draft, Note, Pick, Presence, Problem, Resolution};
use serde::Deserialize;

/// The longest reason that is handed on, in characters.
const MAX_REASON: usize = 500;

/// What a program elsewhere decided.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Answer {
    decisions: Vec<Choice>,
    #[serde(default)]
    values: BTreeMap<String, f64>,
    prices: Option<BTreeMap<String, f64>>,
    payments: Option<BTreeMap<AgentId, f64>>,
    bound: Option<f64>,
    #[serde(default)]
    rounds: u32,
    #[serde(default = "yes")]
    converged: bool,
    #[serde(default)]
    optimal: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    agent_id: AgentId,
    option_id: Option<String>,
    fraction: Option<f64>,
    reason: Option<String>,
}

fn yes() -> bool {
    true
}

impl Answer {
    /// The same as places in the problem. Whether all that fits is not looked at.
    ///
    /// # Errors
    /// The first thing that it decides and that is none: agents, options, resources or variables that are not there, or an
    /// agent twice.
    pub(super) fn resolution(self, problem: &Problem) -> Result<Resolution, String> {
        let mut resolution = Draft::new(problem).finish();
        let mut named = vec![false; problem.parties().len()];
        for choice in self.decisions {
            let id = choice.agent_id.as_str();
            let at = problem.party(id).ok_or_else(|| format!("there is no agent {id:?}"))?;
            let party = &problem.parties()[at];
            if party.presence != Presence::Active {
                return Err(format!("{id}: nothing is to be decided about it"));
            }
            if std::mem::replace(&mut named[at], true) {
                return Err(format!("{id}: it is decided twice"));
            }
            match choice.option_id {
                Some(wanted) => {
                    let offered =
                        |candidate: &usize| problem.option(*candidate).is_some_and(|option| option.id == wanted);
                    let candidate = party.options().find(offered);
                    let candidate = candidate.ok_or_else(|| {
                        let shown: String = wanted.chars().take(64).collect();
                        format!("{id}: option {shown:?} is none of its own")
                    })?;
                    resolution.picks[at] = Pick::Option { candidate, fraction: choice.fraction.unwrap_or(1.0) };
                }
                None if choice.fraction.is_some() => return Err(format!("{id}: it gets a fraction of no option")),
                None => {}
            }
            if let Some(text) = choice.reason {
                let text = text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect();
                let reason = DecisionReason { code: "external".to_owned(), text, conflict_ids: Vec::new() };
                resolution.notes.insert(at, Note { preempted: false, reason });
            }
        }
        for (name, value) in self.values {
            let at = problem.variables().iter().position(|known| known.name == name);
            resolution.values.insert(at.ok_or_else(|| format!("there is no variable {name:?}"))?, value);
        }
        let resource = |name: &String| problem.resources().iter().position(|known| known.name == *name);
        resolution.prices = by_place(self.prices, problem.resources().len(), resource)?;
        let party = |id: &AgentId| problem.party(id.as_str());
        resolution.payments = by_place(self.payments, problem.parties().len(), party)?;
        resolution.bound = self.bound;
        resolution.rounds = self.rounds;
        resolution.converged = self.converged;
        resolution.optimal = self.optimal;
        Ok(resolution)
    }
}

/// Numbers by name as numbers by place; 0 where nothing is said.
fn by_place<K: std::fmt::Debug>(
    told: Option<BTreeMap<K, f64>>,
    length: usize,
    place: impl Fn(&K) -> Option<usize>,
) -> Result<Option<Vec<f64>>, String> {
    let Some(told) = told else { return Ok(None) };
    let mut numbers = vec![0.0; length];
    for (name, number) in told {
        numbers[place(&name).ok_or_else(|| format!("there is no {name:?}"))?] = number;
    }
    Ok(Some(numbers))
}
