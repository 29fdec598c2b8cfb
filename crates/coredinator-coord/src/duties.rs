//! What follows from a plan for those whom it is about. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use coredinator_core::coordination::{AgentId, Decision, Holding, PastCycle, PastDecision, Plan, Presence, Problem};

/// What a plan asks of whom.
pub(crate) struct Duties {
    /// Who took part: their acknowledgement counts.
    pub(crate) active: BTreeSet<AgentId>,
    /// Who of all has to give something up.
    pub(crate) givers: BTreeSet<AgentId>,
    /// The others who took part.
    pub(crate) takers: BTreeSet<AgentId>,
    /// What everyone holds afterwards.
    pub(crate) holdings: Vec<Arc<Holding>>,
}

impl Duties {
    pub(crate) fn of(problem: &Problem, plan: &Plan) -> Self {
        let mut duties = Self {
            active: BTreeSet::new(),
            givers: BTreeSet::new(),
            takers: BTreeSet::new(),
            holdings: Vec::with_capacity(plan.decisions.len()),
        };
        for (party, decision) in problem.parties().iter().zip(&plan.decisions) {
            let id = party.id();
            let active = party.presence == Presence::Active;
            let gives = party.holding.as_ref().is_some_and(|held| gives_up(held, decision));
            if active {
                duties.active.insert(id.clone());
            }
            if gives {
                duties.givers.insert(id.clone());
            } else if active {
                duties.takers.insert(id.clone());
            }
            duties.holdings.push(match (&party.holding, party.presence) {
                (Some(held), Presence::Holding) => Arc::clone(held),
                _ => Arc::new(Holding {
                    agent_id: id.clone(),
                    cycle: plan.cycle,
                    reserved: false,
                    option_id: decision.option_id.clone(),
                    fraction: decision.fraction,
                    grant: decision.grant.clone(),
                    values: decision.values.clone(),
                    action: decision.action.clone(),
                }),
            });
        }
        duties
    }
}

/// Whether a decision takes from an agent anything that it holds.
fn gives_up(held: &Holding, decision: &Decision) -> bool {
    let less = held.grant.iter().any(|(name, &amount)| amount > decision.grant.get(name).copied().unwrap_or(0.0));
    less || held.values.iter().any(|(name, value)| decision.values.get(name) != Some(value))
}

/// Writes into the reasons of those who were silent why they were.
pub(crate) fn tell_why_silent(plan: &mut Plan, faults: &BTreeMap<AgentId, String>) {
    for decision in &mut plan.decisions {
        if let Some(fault) = faults.get(&decision.agent_id) {
            decision.reason.silent_because(fault);
        }
    }
}

/// How a cycle ended, as later ones are told.
pub(crate) fn past_of(plan: &Plan) -> PastCycle {
    let ended = |decision: &Decision| {
        let past = PastDecision {
            outcome: decision.outcome,
            option_id: decision.option_id.clone(),
            fraction: decision.fraction,
            utility: decision.utility,
            code: decision.reason.code.clone(),
        };
        (decision.agent_id.clone(), past)
    };
    PastCycle { cycle: plan.cycle, agents: plan.decisions.iter().map(ended).collect() }
}
