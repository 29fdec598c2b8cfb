//! What a cycle ends in: one decision for each agent.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{agent::AgentId, conflict::Conflict, intention::Intention};

/// What is decided for one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// For whom.
    pub agent_id: AgentId,
    /// What became of its wish.
    pub outcome: DecisionOutcome,
    /// The option that it got: one of its own, or its fallback's; absent: none.
    pub option_id: Option<String>,
    /// The fraction of the option's demands; 0 where there is no option.
    pub fraction: f64,
    /// The final values of the variables that it takes part in.
    pub values: BTreeMap<String, f64>,
    /// How much of which resource it may use until its next decision.
    pub grant: BTreeMap<String, f64>,
    /// The option's action, as the agent wrote it.
    pub action: Value,
    /// What the decision is worth to the agent, by its own account.
    pub utility: f64,
    /// Why.
    pub reason: DecisionReason,
}

/// What became of an agent's wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionOutcome {
    /// Its first choice, in full.
    Granted,
    /// Its first choice in part, or at another value than it wanted.
    Scaled,
    /// Another of its options.
    Substituted,
    /// None of its options: its fallback, or nothing.
    Denied,
    /// It has to give up what it holds for one of higher priority.
    Preempted,
    /// It said nothing (usable): what it holds, its fallback, or nothing.
    Defaulted,
}

impl DecisionOutcome {
    /// All of them, in the order of this page.
    pub const ALL: [Self; 6] =
        [Self::Granted, Self::Scaled, Self::Substituted, Self::Denied, Self::Preempted, Self::Defaulted];

    /// The word for it, as JSON has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Scaled => "scaled",
            Self::Substituted => "substituted",
            Self::Denied => "denied",
            Self::Preempted => "preempted",
            Self::Defaulted => "defaulted",
        }
    }
}

/// Why a decision is what it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DecisionReason {
    /// For programs. Coredinator's own: `first_choice`, `revised`, `limited`, `second_choice`, `no_room`, `worth_less`,
    /// `not_chosen`, `shed`, `silent`, `invalid_intention`, `outranked`, `saved_up`, `waiting_for_grace`, `grace`; a strategy
    /// may have others.
    pub code: String,
    /// For people.
    pub text: String,
    /// The conflicts that the agent is a party to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflict_ids: Vec<String>,
}

/// How good a plan is known to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanStatus {
    /// Proven to be the best by the strategy's own measure.
    Optimal,
    /// Within all limits.
    Feasible,
    /// The strategy failed or ran out of time: within all limits, by whatever was at hand.
    Fallback,
}

/// How much of a resource is used.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Utilization {
    /// How much there is.
    pub capacity: f64,
    /// How much is never handed out.
    pub reserve: f64,
    /// How much silent agents hold.
    pub held: f64,
    /// How much the plan grants to the others.
    pub granted: f64,
}

/// One decision for each agent of a group, feasible as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The group.
    pub group: String,
    /// The cycle.
    pub cycle: u64,
    /// The epoch of the coredinator that made it: of two plans for one cycle, that of the higher epoch counts.
    pub epoch: u64,
    /// The strategy that made it.
    pub strategy: String,
    /// How good it is known to be.
    pub status: PlanStatus,
    /// One for each agent, by name.
    pub decisions: Vec<Decision>,
    /// What collided in the first choices of what agents asked for first. Where some of them revised that in negotiation: and
    /// then what collides in what they want since, as far as it did not before.
    pub conflicts: Vec<Conflict>,
    /// What agents wanted in the end of a negotiation, where that is something else than they asked for first: the options
    /// that their decisions are about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<Arc<Intention>>,
    /// The final value of each variable that has one.
    pub values: BTreeMap<String, f64>,
    /// How much of each resource is used.
    pub utilization: BTreeMap<String, Utilization>,
    /// What a unit of each resource is worth at the margin, where the strategy reckons in prices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<BTreeMap<String, f64>>,
    /// What each agent pays, where the strategy has it pay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payments: Option<BTreeMap<AgentId, f64>>,
    /// The sum of weight times utility over all agents.
    pub objective: f64,
    /// No plan's objective is above this.
    pub bound: f64,
    /// (bound - objective) / the larger of their magnitudes; 0: the best there is.
    pub gap: f64,
    /// The strategy's rounds.
    pub rounds: u32,
    /// Whether the strategy's rounds came to rest.
    pub converged: bool,
    /// Agents that got nothing although that is not safe for them: not even the fallbacks fit. An alert.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shed: Vec<AgentId>,
    /// How long resolving took, in milliseconds.
    pub elapsed_ms: f64,
    /// Whether it was found to keep every invariant; what leaves coredinator always was.
    pub verified: bool,
}

impl Plan {
    /// The decision for an agent.
    #[must_use]
    pub fn decision(&self, agent: &str) -> Option<&Decision> {
        let at = self.decisions.binary_search_by(|decision| decision.agent_id.as_str().cmp(agent)).ok()?;
        Some(&self.decisions[at])
    }
}
