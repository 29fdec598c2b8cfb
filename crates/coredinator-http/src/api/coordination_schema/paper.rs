//! Problems and plans.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

/// An agent as it registers itself. `priority`, `weight` and `preemptible` are wishes: the operator's configuration stands
/// above them.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"agent_id": "boiler-1", "priority": 2, "ttl_seconds": 10, "fallback": "release"}))]
pub(in crate::api) struct Agent {
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$")]
    agent_id: String,
    #[schema(default = "default", min_length = 1, max_length = 128, nullable = false)]
    group: Option<String>,
    /// The higher wins, where a strategy goes by priority.
    #[schema(default = 0, nullable = false)]
    priority: Option<i32>,
    /// How much its utility counts beside that of others; above 0.
    #[schema(default = 1, exclusive_minimum = 0, nullable = false)]
    weight: Option<f64>,
    /// Whether what it holds may be taken from it for one of higher priority; `priority_based` alone heeds it.
    #[schema(default = true, nullable = false)]
    preemptible: Option<bool>,
    /// Where it is asked for intentions and told decisions; absent: it comes by itself.
    #[schema(example = "http://localhost:9001/agent")]
    endpoint: Option<String>,
    /// Whether it answers offers made during a cycle; needs an endpoint.
    #[schema(default = false, nullable = false)]
    negotiates: Option<bool>,
    /// How long after its last sign of life what it was granted stays reserved; above 0, at most a year.
    #[schema(default = 10, exclusive_minimum = 0, maximum = 31_536_000, nullable = false)]
    ttl_seconds: Option<f64>,
    fallback: Option<Fallback>,
    /// The service that it lives in: when that is stopped or unhealthy, the agent counts as silent.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    service: Option<String>,
}

/// What an agent does when it is silent, invalid or denied. Absent: it must get one of its options.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(in crate::api) enum Fallback {
    Word(FallbackWord),
    Option(Box<ActionOption>),
}

/// `hold`: goes on with what the last decision granted; `default`: demands nothing, and variables that nobody else claims get
/// their default; `release`: nothing.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum FallbackWord {
    Hold,
    Default,
    Release,
}

/// What an agent wants: one of some options, the most wanted first.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"seq": 1, "options": [
    {"id": "full", "demands": {"steam": 6.0}, "utility": 6.0, "action": {"valve": 0.8}},
    {"id": "half", "demands": {"steam": 3.0}, "utility": 4.0, "action": {"valve": 0.4}}
]}))]
pub(in crate::api) struct Intention {
    /// Whose it is; in a path that names the agent it can be left out.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$", nullable = false)]
    agent_id: Option<String>,
    /// Rises with each intention of an agent: of two, the higher counts.
    #[schema(default = 0, nullable = false)]
    seq: Option<u64>,
    /// The last cycle for which it stands; absent: until the next, as long as the agent lives.
    valid_until_cycle: Option<u64>,
    /// What being denied is worth to the agent; absent: what its fallback says that it is worth itself, if that is an
    /// option, and else 0.
    disagreement: Option<f64>,
    #[schema(min_items = 1, max_items = 1000)]
    options: Vec<ActionOption>,
}

/// One thing that an agent could do.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ActionOption {
    /// Unique among the options of its intention.
    #[schema(min_length = 1, max_length = 128)]
    id: String,
    /// Handed back to the agent with a decision for this option; not looked into.
    action: Option<serde_json::Value>,
    /// How much of which resource it takes.
    #[schema(nullable = false)]
    demands: Option<BTreeMap<String, f64>>,
    /// Which variable it needs at which value.
    #[schema(nullable = false)]
    claims: Option<BTreeMap<String, Claim>>,
    /// Which variable it pushes, how strongly, up (above 0) or down.
    #[schema(nullable = false)]
    effects: Option<BTreeMap<String, f64>>,
    /// What it is worth to the agent, in full.
    utility: f64,
    elastic: Option<Elastic>,
}

/// What an option needs of a variable.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Claim {
    value: f64,
    min: Option<f64>,
    max: Option<f64>,
    /// How much it counts where claims are blended; above 0.
    #[schema(default = 1, exclusive_minimum = 0, nullable = false)]
    weight: Option<f64>,
}

/// How an option can be granted in part: all its demands times one fraction.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Elastic {
    /// The smallest fraction that is of use.
    #[schema(exclusive_minimum = 0, maximum = 1)]
    min_fraction: f64,
    #[schema(nullable = false)]
    shape: Option<UtilityShape>,
}

/// What a fraction is worth, as a share of the option's utility.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum UtilityShape {
    Linear,
    Quadratic,
    Log,
}

/// How much of something there is to share.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Resource {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    #[schema(minimum = 0)]
    capacity: f64,
    #[schema(nullable = false)]
    unit: Option<String>,
    /// How much is never handed out.
    #[schema(default = 0, minimum = 0, nullable = false)]
    reserve: Option<f64>,
    #[schema(nullable = false)]
    kind: Option<ResourceKind>,
}

/// Whether a resource can be shared in parts.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum ResourceKind {
    Divisible,
    Unit,
}

/// Something that has one value for all.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Variable {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    #[schema(nullable = false)]
    unit: Option<String>,
    min: f64,
    max: f64,
    /// By how much it may be moved in one cycle, from `current`.
    #[schema(minimum = 0)]
    max_rate: Option<f64>,
    current: Option<f64>,
    default: Option<f64>,
    /// Values this far apart still agree.
    #[schema(default = 0, minimum = 0, nullable = false)]
    tolerance: Option<f64>,
    #[schema(nullable = false)]
    on_conflict: Option<OnConflict>,
}

/// What becomes of claims on one variable that disagree: one wins, or the weighted mean.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum OnConflict {
    Exclusive,
    Blend,
}

/// A problem on paper: everything that decides a cycle.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "resources": [{"name": "steam", "capacity": 10, "unit": "t/h"}],
    "agents": [{"agent_id": "a", "priority": 3, "fallback": "release"}, {"agent_id": "b", "priority": 2, "fallback": "release"}],
    "intentions": [
        {"agent_id": "a", "options": [{"id": "run", "demands": {"steam": 6}, "utility": 6}]},
        {"agent_id": "b", "options": [{"id": "run", "demands": {"steam": 6}, "utility": 6}]}
    ]
}))]
pub(in crate::api) struct CoordinationProblem {
    #[schema(default = "default", min_length = 1, max_length = 128, nullable = false)]
    group: Option<String>,
    #[schema(default = 0, nullable = false)]
    cycle: Option<u64>,
    #[schema(nullable = false)]
    budget: Option<SolvingBudget>,
    #[schema(default = 0, nullable = false)]
    seed: Option<u64>,
    #[schema(nullable = false)]
    resources: Option<Vec<Resource>>,
    #[schema(nullable = false)]
    variables: Option<Vec<Variable>>,
    agents: Vec<Agent>,
    #[schema(nullable = false)]
    intentions: Option<Vec<Intention>>,
    /// What agents were granted before.
    #[schema(nullable = false)]
    holdings: Option<Vec<Holding>>,
    /// How earlier cycles ended, the newest first.
    #[schema(nullable = false)]
    history: Option<Vec<PastCycle>>,
}

/// How long a strategy may work on a problem.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct SolvingBudget {
    /// In steps of the strategy's own kind.
    iterations: Option<u64>,
    deadline_ms: Option<u64>,
}

/// What an agent's last decision granted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Holding {
    agent_id: String,
    cycle: u64,
    /// Whether it stays the agent's while it is silent.
    #[schema(nullable = false)]
    reserved: Option<bool>,
    option_id: Option<String>,
    #[schema(nullable = false)]
    fraction: Option<f64>,
    #[schema(nullable = false)]
    grant: Option<BTreeMap<String, f64>>,
    #[schema(nullable = false)]
    values: Option<BTreeMap<String, f64>>,
    action: Option<serde_json::Value>,
}

/// How an earlier cycle ended.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct PastCycle {
    cycle: u64,
    agents: BTreeMap<String, PastDecision>,
}

/// How an earlier cycle ended for one agent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct PastDecision {
    outcome: DecisionOutcome,
    option_id: Option<String>,
    #[schema(nullable = false)]
    fraction: Option<f64>,
    #[schema(nullable = false)]
    utility: Option<f64>,
    #[schema(nullable = false)]
    code: Option<String>,
}

/// What became of an agent's wish.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum DecisionOutcome {
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

/// What is decided for one agent.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct Decision {
    agent_id: String,
    outcome: DecisionOutcome,
    /// `null`: none.
    option_id: Option<String>,
    /// The fraction of the option's demands.
    fraction: f64,
    /// The final values of the variables that it takes part in.
    values: BTreeMap<String, f64>,
    /// How much of which resource it may use until its next decision.
    grant: BTreeMap<String, f64>,
    /// The option's action, as the agent wrote it.
    action: Option<serde_json::Value>,
    /// What the decision is worth to the agent, by its own account.
    utility: f64,
    reason: DecisionReason,
}

/// Why a decision is what it is.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct DecisionReason {
    /// For programs.
    #[schema(example = "no_room")]
    code: String,
    /// For people.
    text: String,
    /// The conflicts that the agent is a party to.
    #[schema(nullable = false)]
    conflict_ids: Option<Vec<String>>,
}

/// Wishes that cannot all be met.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct Conflict {
    #[schema(example = "capacity:steam")]
    id: String,
    r#type: ConflictType,
    subtype: ConflictSubtype,
    /// The resource or variable.
    subject: String,
    parties: Vec<String>,
    #[schema(nullable = false)]
    demanded: Option<f64>,
    #[schema(nullable = false)]
    available: Option<f64>,
    #[schema(nullable = false)]
    claims: Option<BTreeMap<String, Claim>>,
    #[schema(nullable = false)]
    effects: Option<BTreeMap<String, f64>>,
    /// Overload by capacity, or distance by the variable's range.
    severity: f64,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum ConflictType {
    ResourceContention,
    GoalInterference,
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum ConflictSubtype {
    Capacity,
    Direct,
    Indirect,
}

/// How good a plan is known to be.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum PlanStatus {
    /// Proven to be the best by the strategy's own measure.
    Optimal,
    /// Within all limits.
    Feasible,
    /// The strategy failed or ran out of time: within all limits, by whatever was at hand.
    Fallback,
}

/// How much of a resource is used.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct Utilization {
    capacity: f64,
    reserve: f64,
    /// How much silent agents hold.
    held: f64,
    /// How much the plan grants to the others.
    granted: f64,
}

/// One decision for each agent of a group, feasible as a whole.
#[derive(Deserialize, ToSchema)]
pub(in crate::api) struct Plan {
    group: String,
    cycle: u64,
    /// Of two plans for one cycle, that of the higher epoch counts.
    epoch: u64,
    strategy: String,
    status: PlanStatus,
    /// One for each agent, by name.
    decisions: Vec<Decision>,
    /// What collided in the first choices of what agents asked for first; where some revised that in negotiation, then what
    /// collides since.
    conflicts: Vec<Conflict>,
    /// What agents wanted in the end of a negotiation, where that is something else than they asked for first.
    #[schema(nullable = false)]
    revisions: Option<Vec<Intention>>,
    /// The final value of each variable that has one.
    values: BTreeMap<String, f64>,
    utilization: BTreeMap<String, Utilization>,
    /// What a unit of each resource is worth at the margin, where the strategy reckons in prices.
    #[schema(nullable = false)]
    prices: Option<BTreeMap<String, f64>>,
    /// What each agent pays, where the strategy has it pay.
    #[schema(nullable = false)]
    payments: Option<BTreeMap<String, f64>>,
    /// The sum of weight times utility over all agents.
    objective: f64,
    /// No plan's objective is above this.
    bound: f64,
    /// How far the objective is from the bound, relative; 0: the best there is.
    gap: f64,
    rounds: u32,
    converged: bool,
    /// Agents that got nothing although that is not safe for them: not even the fallbacks fit.
    #[schema(nullable = false)]
    shed: Option<Vec<String>>,
    elapsed_ms: f64,
    /// Whether it was found to keep every limit.
    verified: bool,
}
