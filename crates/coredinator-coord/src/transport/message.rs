//! What goes between the engine and agents, as JSON.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::coordination::{Conflict, Decision, Intention, PlanStatus};
use serde::{Deserialize, Serialize};

/// For which cycle an intention is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The agent's group.
    pub group: Arc<str>,
    /// The cycle.
    pub cycle: u64,
    /// The epoch of the coredinator that asks.
    pub epoch: u64,
}

/// A decision as its agent gets it. Of two, the one of the higher epoch counts, then the one of the later cycle; an agent
/// must not act on one that is older, in this sense, than the last it got.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionMessage {
    /// The agent's group.
    pub group: Arc<str>,
    /// The cycle.
    pub cycle: u64,
    /// The epoch of the coredinator that made it.
    pub epoch: u64,
    /// The strategy that made it.
    pub strategy: Arc<str>,
    /// How good the plan is known to be.
    pub status: PlanStatus,
    /// What was decided.
    #[serde(flatten)]
    pub decision: Decision,
    /// What was wrong with what the agent said or did not say, or with its fallback; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// An offer, in one round of negotiation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NegotiationRequest {
    /// The agent's group.
    pub group: Arc<str>,
    /// The cycle.
    pub cycle: u64,
    /// The epoch of the coredinator that asks.
    pub epoch: u64,
    /// The round, counted by the strategy.
    pub round: u32,
    /// What a unit of each resource costs at the moment, where the strategy reckons in prices.
    pub prices: BTreeMap<String, f64>,
    /// What the agent would get.
    pub proposed: Decision,
    /// The conflicts that it is a party to.
    pub conflicts: Vec<Conflict>,
}

/// What an agent says to an offer: `{"accept": true}`, or `{"accept": false, "intention": {…}}` with what it would rather
/// have. One that neither accepts nor says what it wants is silent in this round.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NegotiationAnswer {
    /// Whether it is content.
    #[serde(default)]
    pub accept: bool,
    /// What it wants instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intention: Option<Intention>,
}
