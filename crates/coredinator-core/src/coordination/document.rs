//! A problem on paper: what a file, a request or the record of a cycle holds.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    agent::{Agent, AgentId, DEFAULT_GROUP},
    intention::Intention,
    plan::DecisionOutcome,
    resource::{Resource, Variable},
};

/// Everything that decides a cycle: the same document gives the same plan, bit for bit, in whatever order its lists are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProblemDocument {
    /// The group.
    #[serde(default = "default_group")]
    pub group: String,
    /// The cycle's number; rises by one with each cycle of a group, across restarts too.
    #[serde(default)]
    pub cycle: u64,
    /// How long a strategy may work on it.
    #[serde(default)]
    pub budget: BudgetDocument,
    /// Where chance begins, for strategies that use any.
    #[serde(default)]
    pub seed: u64,
    /// What is shared.
    #[serde(default)]
    pub resources: Vec<Resource>,
    /// What has one value for all.
    #[serde(default)]
    pub variables: Vec<Variable>,
    /// Who takes part; every registered agent of the group.
    pub agents: Vec<Arc<Agent>>,
    /// What they want. An agent without one is silent.
    #[serde(default)]
    pub intentions: Vec<Arc<Intention>>,
    /// What agents were granted before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holdings: Vec<Arc<Holding>>,
    /// How earlier cycles ended, the newest first, as far back as the strategy has asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Arc<PastCycle>>,
}

fn default_group() -> String {
    DEFAULT_GROUP.to_owned()
}

/// How long a strategy may work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetDocument {
    /// In steps of the strategy's own kind, which make the same plan on every machine; absent: as the strategy thinks fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iterations: Option<u64>,
    /// In milliseconds, after which the plan is made by whatever is at hand, with status `fallback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// What an agent's last decision granted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// Whose.
    pub agent_id: AgentId,
    /// The cycle of the decision.
    pub cycle: u64,
    /// Whether it stays the agent's while it is silent: its time to live has not ended.
    #[serde(default)]
    pub reserved: bool,
    /// The option that was granted; absent: none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option_id: Option<String>,
    /// The fraction of it.
    #[serde(default)]
    pub fraction: f64,
    /// How much of what.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub grant: BTreeMap<String, f64>,
    /// The values of the variables that it takes part in.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, f64>,
    /// The option's action.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub action: Value,
}

/// How an earlier cycle ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastCycle {
    /// Its number.
    pub cycle: u64,
    /// How it ended for each agent.
    pub agents: BTreeMap<AgentId, PastDecision>,
}

/// How an earlier cycle ended for one agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PastDecision {
    /// What became of its wish.
    pub outcome: DecisionOutcome,
    /// The option that it got.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub option_id: Option<String>,
    /// The fraction of it.
    #[serde(default)]
    pub fraction: f64,
    /// What that was worth to it.
    #[serde(default)]
    pub utility: f64,
    /// The reason's code.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub code: String,
}
