//! What is kept of a cycle: all that decided it, and all that came of it.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::{
    Timestamp,
    coordination::{AgentId, DecisionOutcome, Intention, Plan, PlanStatus, ProblemDocument},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How long the steps of a cycle took, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// Asking agents for intentions, to the close of the round.
    pub collect_ms: f64,
    /// Checking, indexing and finding conflicts.
    pub detect_ms: f64,
    /// The strategy, and what stepped in for it.
    pub resolve_ms: f64,
    /// Writing the choices out as a plan, and checking it.
    pub verify_ms: f64,
    /// Writing what must not be lost to the store.
    pub store_ms: f64,
    /// Telling the agents, to the last acknowledgement that was waited for.
    pub distribute_ms: f64,
    /// From the first to the last.
    pub total_ms: f64,
}

/// Who made the plan of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecidedBy {
    /// The strategy that is configured.
    Strategy,
    /// `priority_based`, because the strategy failed.
    PriorityBased,
    /// Nobody gets more than is safe, because `priority_based` failed as well.
    SafeSide,
}

/// How a strategy failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// It panicked.
    Panicked,
    /// It did not answer in time, and not when time was called either.
    Hung,
    /// It was not asked, because it still hangs in an earlier cycle.
    Busy,
    /// It said that it cannot.
    Failed,
    /// Its answer does not refer to the problem.
    IllFormed,
    /// Its plan breaks a rule.
    Infeasible,
}

impl FaultKind {
    /// The word for it, as JSON has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Panicked => "panicked",
            Self::Hung => "hung",
            Self::Busy => "busy",
            Self::Failed => "failed",
            Self::IllFormed => "ill_formed",
            Self::Infeasible => "infeasible",
        }
    }
}

/// What a strategy did wrong in a cycle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StrategyFault {
    /// The strategy.
    pub strategy: String,
    /// How it failed.
    pub kind: FaultKind,
    /// For people: what it said, or which rules its plan breaks.
    pub details: Vec<String>,
}

/// One question to agents during a negotiation, with what they said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NegotiationRound {
    /// The round, counted by the strategy.
    pub round: u32,
    /// The price of each resource; empty: the strategy does not reckon in prices.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prices: BTreeMap<String, f64>,
    /// What those said who were asked.
    pub answers: BTreeMap<AgentId, NegotiationWord>,
}

/// What an agent said to an offer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NegotiationWord {
    /// It is content.
    Accepts,
    /// It would rather have one of these.
    Revises(Arc<Intention>),
    /// Nothing in time, or nothing of use.
    Silent,
}

/// What became of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CycleOutcome {
    /// Its plan was verified, written down, and told to the agents.
    Distributed,
    /// Its plan could not be written down, or this coredinator no longer leads: no agent was told anything.
    Withheld,
    /// There was no plan.
    Failed,
}

/// A cycle, so that it can be explained and replayed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CycleRecord {
    /// The group.
    pub group: String,
    /// The cycle's number.
    pub cycle: u64,
    /// The epoch of the coredinator that made it.
    pub epoch: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// The strategy, as it is configured.
    pub strategy: Value,
    /// All that the plan depends on.
    pub problem: Arc<ProblemDocument>,
    /// What was decided; absent where there was no plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Arc<Plan>>,
    /// Who made the plan.
    pub decided_by: DecidedBy,
    /// What became of it.
    pub outcome: CycleOutcome,
    /// Why it was withheld or failed, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// What the strategy, and whoever stepped in for it, did wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<StrategyFault>,
    /// Agents that gave nothing of use, or whose fallback cannot be had: why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agent_faults: BTreeMap<AgentId, String>,
    /// What was said in negotiation, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub negotiation: Vec<NegotiationRound>,
    /// How long it took.
    pub timings: Timings,
    /// Who took part and has not acknowledged its decision (yet).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unacknowledged: Vec<AgentId>,
    /// Whether everybody who took part acknowledged a verified plan; `false` where nobody did although there are agents.
    /// Absent: that is not settled yet, which it is when the next cycle of the group begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub success: Option<bool>,
}

/// A cycle in a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CycleSummary {
    /// The cycle's number.
    pub cycle: u64,
    /// The epoch of the coredinator that made it.
    pub epoch: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// The strategy that made the plan; of one without a plan, empty.
    pub strategy: String,
    /// What became of it.
    pub outcome: CycleOutcome,
    /// How good the plan is known to be.
    pub status: Option<PlanStatus>,
    /// How many agents there were.
    pub agents: usize,
    /// How many of them took part.
    pub active: usize,
    /// How many conflicts the plan tells of: those of their first choices.
    pub conflicts: usize,
    /// The sum of weight times utility.
    pub objective: f64,
    /// How far the plan is from the best there is, at most; relative.
    pub gap: f64,
    /// How many agents got nothing although that is not safe for them.
    pub shed: usize,
    /// How many faults strategies had.
    pub faults: usize,
    /// How long it took, in milliseconds.
    pub total_ms: f64,
    /// How many who took part have not acknowledged their decision.
    pub unacknowledged: usize,
    /// Whether all went well; absent: not settled yet.
    pub success: Option<bool>,
}

impl CycleRecord {
    /// It in a line.
    #[must_use]
    pub fn summary(&self) -> CycleSummary {
        let plan = self.plan.as_deref();
        CycleSummary {
            cycle: self.cycle,
            epoch: self.epoch,
            started_at: self.started_at,
            strategy: plan.map(|plan| plan.strategy.clone()).unwrap_or_default(),
            outcome: self.outcome,
            status: plan.map(|plan| plan.status),
            agents: self.problem.agents.len(),
            active: self.took_part(),
            conflicts: plan.map_or(0, |plan| plan.conflicts.len()),
            objective: plan.map_or(0.0, |plan| plan.objective),
            gap: plan.map_or(0.0, |plan| plan.gap),
            shed: plan.map_or(0, |plan| plan.shed.len()),
            faults: self.faults.len(),
            total_ms: self.timings.total_ms,
            unacknowledged: self.unacknowledged.len(),
            success: self.success,
        }
    }

    /// How many agents said something that counts.
    pub(crate) fn took_part(&self) -> usize {
        let Some(plan) = &self.plan else { return self.problem.intentions.len() };
        plan.decisions.iter().filter(|decision| decision.outcome != DecisionOutcome::Defaulted).count()
    }

    /// About how many bytes it keeps in memory.
    pub(crate) fn weight(&self) -> usize {
        let option = 200;
        let revised = self.plan.iter().flat_map(|plan| &plan.revisions);
        let intentions = self.problem.intentions.iter().chain(revised);
        let options: usize = intentions.map(|intention| intention.options.len()).sum();
        let said: usize = self.negotiation.iter().map(|round| round.answers.len()).sum();
        let conflicts: usize =
            self.plan.iter().flat_map(|plan| &plan.conflicts).map(|conflict| 200 + 48 * conflict.parties.len()).sum();
        let reasons: usize =
            self.plan.iter().flat_map(|plan| &plan.decisions).map(|decision| decision.reason.text.len()).sum();
        1000 + self.problem.agents.len() * 700 + (options + said) * option + conflicts + reasons
    }
}
