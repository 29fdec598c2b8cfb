//! Agents and cycles as the engine tells of them.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use super::paper::{
    CoordinationProblem, DecisionOutcome, DecisionReason, Fallback, Holding, Intention, Plan, PlanStatus, Resource,
    Variable,
};

/// An agent as it was accepted.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct RegisteredAgent {
    agent_id: String,
    group: String,
    priority: i32,
    weight: f64,
    preemptible: bool,
    #[schema(nullable = false)]
    endpoint: Option<String>,
    negotiates: bool,
    ttl_seconds: f64,
    #[schema(nullable = false)]
    fallback: Option<Fallback>,
    #[schema(nullable = false)]
    service: Option<String>,
    /// What is not as it asked, for people.
    #[schema(nullable = false)]
    notes: Option<Vec<String>>,
}

/// An agent as it stands.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct AgentView {
    agent_id: String,
    group: String,
    priority: i32,
    weight: f64,
    preemptible: bool,
    #[schema(nullable = false)]
    endpoint: Option<String>,
    negotiates: bool,
    ttl_seconds: f64,
    #[schema(nullable = false)]
    fallback: Option<Fallback>,
    #[schema(nullable = false)]
    service: Option<String>,
    state: AgentState,
    /// When it registered, or this process began.
    #[schema(value_type = String, format = DateTime)]
    registered_at: String,
    /// Its last sign of life.
    #[schema(value_type = String, format = DateTime)]
    last_seen_at: String,
    #[schema(value_type = Option<String>, format = DateTime, nullable = false)]
    silent_since: Option<String>,
    /// The number of the intention that counts.
    #[schema(nullable = false)]
    intention_seq: Option<u64>,
    /// What it was last told.
    #[schema(nullable = false)]
    decision: Option<DecisionMessage>,
    /// The last cycle whose decision it acknowledged.
    #[schema(nullable = false)]
    acknowledged_cycle: Option<u64>,
    /// What it was granted, and whether that stays its own while it is silent.
    #[schema(nullable = false)]
    holding: Option<Holding>,
}

/// What an agent is doing.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum AgentState {
    /// No cycle has ended since it came.
    New,
    /// It took part in the last cycle.
    Active,
    /// It said nothing of use in the last cycle.
    Silent,
}

/// Agents, by name.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct AgentList {
    agents: Vec<AgentView>,
}

/// Where a group is when an agent has given a sign of life.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct Accepted {
    group: String,
    /// The next cycle that will be decided: the first for which what was said counts.
    cycle: u64,
    /// The epoch of this coredinator's decisions; 0: it does not lead.
    epoch: u64,
}

/// Which decision an agent knows.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Acknowledgement {
    #[schema(minimum = 0, maximum = 18446744073709551615_u64)]
    cycle: u64,
    #[schema(minimum = 0, maximum = 18446744073709551615_u64)]
    epoch: u64,
}

/// A decision as its agent gets it. Of two, the one of the higher epoch counts, then the one of the later cycle.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct DecisionMessage {
    group: String,
    cycle: u64,
    epoch: u64,
    /// The strategy that made it.
    strategy: String,
    status: PlanStatus,
    agent_id: String,
    outcome: DecisionOutcome,
    /// `null`: none of its options.
    option_id: Option<String>,
    /// The fraction of the option's demands.
    fraction: f64,
    /// The final values of the variables that it takes part in.
    values: BTreeMap<String, f64>,
    /// How much of which resource it may use until its next decision.
    grant: BTreeMap<String, f64>,
    /// The option's action, as the agent wrote it.
    action: Option<serde_json::Value>,
    utility: f64,
    reason: DecisionReason,
    /// What was wrong with what the agent said or did not say, or with its fallback.
    #[schema(nullable = false)]
    fault: Option<String>,
}

/// Coordination as it stands.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct CoordinationStatus {
    /// Whether agents are coordinated at all.
    enabled: bool,
    /// Whether this coredinator leads them.
    leading: bool,
    /// Why it does not.
    #[schema(nullable = false)]
    trouble: Option<String>,
    /// The epoch of its decisions; 0: it does not lead.
    epoch: u64,
    active_agents: usize,
    groups: Vec<GroupStatus>,
}

/// A group as it stands.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct GroupStatus {
    group: String,
    /// The last cycle that began.
    cycle: u64,
    /// A name, or an object with the name as its one key and options as its value.
    strategy: serde_json::Value,
    sync_interval_seconds: f64,
    agents: usize,
    active: usize,
    silent: usize,
    resources: Vec<Resource>,
    variables: Vec<Variable>,
    /// Successes of all settled cycles.
    #[schema(nullable = false)]
    success_rate: Option<f64>,
    #[schema(nullable = false)]
    last: Option<CycleSummary>,
    stats: GroupStats,
}

/// What was counted of a group since this process began.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct GroupStats {
    cycles: u64,
    successes: u64,
    /// Cycles of which it is known whether they were a success.
    settled: u64,
    withheld: u64,
    failed: u64,
    fallbacks: u64,
    overruns: u64,
    /// By `capacity`, `direct` and `indirect`.
    conflicts: BTreeMap<String, u64>,
    /// By outcome.
    decisions: BTreeMap<String, u64>,
    /// Of strategies, by kind.
    faults: BTreeMap<String, u64>,
    agent_faults: u64,
    shed: u64,
    unacknowledged: u64,
    collect: Latency,
    resolve: Latency,
    distribute: Latency,
    total: Latency,
    /// How far the last plan is from the best there is, at most; relative.
    last_gap: f64,
}

/// How long something took, in milliseconds; the quantiles are of the last thousand times.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct Latency {
    count: u64,
    sum_ms: f64,
    last_ms: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// Cycles in short, the newest first.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct CycleList {
    group: String,
    cycles: Vec<CycleSummary>,
}

/// A cycle in short.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct CycleSummary {
    cycle: u64,
    epoch: u64,
    #[schema(value_type = String, format = DateTime)]
    started_at: String,
    /// The strategy that made the plan; of a cycle without one, empty.
    strategy: String,
    outcome: CycleOutcome,
    status: Option<PlanStatus>,
    agents: usize,
    /// How many of them took part.
    active: usize,
    conflicts: usize,
    objective: f64,
    gap: f64,
    shed: usize,
    /// Of strategies.
    faults: usize,
    total_ms: f64,
    unacknowledged: usize,
    /// Whether all went well: all who took part acknowledged a verified plan; `false` where nobody took part although there are
    /// agents; `null`: not settled yet.
    success: Option<bool>,
}

/// What became of a cycle.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum CycleOutcome {
    /// Its plan was verified, written down, and told to the agents.
    Distributed,
    /// Its plan could not be written down, or this coredinator no longer leads: no agent was told anything.
    Withheld,
    /// There was no plan.
    Failed,
}

/// A cycle, so that it can be explained and solved again.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct CycleRecord {
    group: String,
    cycle: u64,
    epoch: u64,
    #[schema(value_type = String, format = DateTime)]
    started_at: String,
    /// The strategy, as it is configured.
    strategy: serde_json::Value,
    problem: CoordinationProblem,
    #[schema(nullable = false)]
    plan: Option<Plan>,
    decided_by: DecidedBy,
    outcome: CycleOutcome,
    /// Why it was withheld or failed, for people.
    #[schema(nullable = false)]
    trouble: Option<String>,
    /// What the strategy, and whoever stepped in for it, did wrong.
    #[schema(nullable = false)]
    faults: Option<Vec<StrategyFault>>,
    /// Agents that gave nothing of use, or whose fallback cannot be had: why.
    #[schema(nullable = false)]
    agent_faults: Option<BTreeMap<String, String>>,
    #[schema(nullable = false)]
    negotiation: Option<Vec<NegotiationRound>>,
    timings: Timings,
    /// Who took part and has not acknowledged its decision (yet).
    #[schema(nullable = false)]
    unacknowledged: Option<Vec<String>>,
    /// Whether all who took part acknowledged a verified plan; `false` where nobody took part although there are agents.
    /// Absent: not settled yet.
    #[schema(nullable = false)]
    success: Option<bool>,
}

/// Who made the plan of a cycle.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum DecidedBy {
    Strategy,
    /// Because the strategy failed.
    PriorityBased,
    /// Because `priority_based` failed as well.
    SafeSide,
}

/// What a strategy did wrong in a cycle.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct StrategyFault {
    strategy: String,
    kind: FaultKind,
    details: Vec<String>,
}

/// How a strategy failed.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum FaultKind {
    Panicked,
    Hung,
    Busy,
    Failed,
    IllFormed,
    Infeasible,
}

/// One question to agents during a negotiation, with what they said.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct NegotiationRound {
    round: u32,
    /// The price of each resource, where the strategy reckons in prices.
    #[schema(nullable = false)]
    prices: Option<BTreeMap<String, f64>>,
    answers: BTreeMap<String, NegotiationWord>,
}

/// What an agent said to an offer.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum NegotiationWord {
    Accepts,
    Revises(Intention),
    Silent,
}

/// How long the steps of a cycle took.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct Timings {
    collect_ms: f64,
    detect_ms: f64,
    resolve_ms: f64,
    verify_ms: f64,
    store_ms: f64,
    distribute_ms: f64,
    total_ms: f64,
}

/// What became of a step: a cycle, or of a dry run the plan.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(in crate::api) enum Stepped {
    Cycle(Box<CycleRecord>),
    Plan(Box<Plan>),
}

/// Which strategy is to resolve conflicts.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"group": "default", "conflict_resolution": {"game_theoretic": {"rule": "nash"}}}))]
pub(in crate::api) struct StrategyChoice {
    /// Of which group; absent: of all.
    group: Option<String>,
    conflict_resolution: StrategyWords,
}

/// How much there is of resources of a group from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"group": "default", "resources": {"steam": 8, "pumps": {"capacity": 3, "reserve": 1}}}))]
pub(in crate::api) struct ResourceAmounts {
    /// Of which group; absent: of `default`.
    group: Option<String>,
    /// By name, one at least; those that are not named stay as they are.
    resources: BTreeMap<String, ResourceAmount>,
}

/// How much there is of a resource: a number of at least 0, or an object.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(in crate::api) enum ResourceAmount {
    Capacity(f64),
    WithReserve(CapacityAndReserve),
}

/// How much there is of a resource, and how much of that is never handed out (absent: as the configuration says).
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct CapacityAndReserve {
    #[schema(minimum = 0)]
    capacity: f64,
    #[schema(minimum = 0, nullable = false)]
    reserve: Option<f64>,
}

/// A strategy: its name, or an object with the name as its one key and options as its value.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(in crate::api) enum StrategyWords {
    Name(String),
    WithOptions(BTreeMap<String, serde_json::Value>),
}

/// Something that happened. Beside these it has what its `type` tells of, such as `agent_id`, `cycle` or `detail`.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct CoordinationEvent {
    /// Rises by one with each event, from 1 with each start of coredinator.
    id: u64,
    #[schema(value_type = String, format = DateTime)]
    at: String,
    /// The group it is about; absent: all.
    #[schema(nullable = false)]
    group: Option<String>,
    /// What happened.
    #[schema(example = "cycle")]
    r#type: String,
}

/// The newest events, oldest first.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct CoordinationEventList {
    events: Vec<CoordinationEvent>,
}
