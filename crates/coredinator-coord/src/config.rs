//! The `coordination:` section of the configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use coredinator_core::{
    FieldError,
    coordination::{Agent, AgentId, BudgetDocument, DEFAULT_GROUP, Fallback, Known, Resource, Variable, not_positive},
    duration::Seconds,
    field::{FieldReader, join, kind},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Strategies, inadmissible};

/// Resources whose capacity is that of the machine where none is given, in CPUs and in bytes.
pub const HOST_RESOURCES: [&str; 2] = ["system.cpu", "system.memory"];

/// How agents are coordinated.
///
/// What is said at the top is the group `default`; groups under `groups` inherit from it all but resources and variables.
/// The word of the operator on single agents is under `agents`, and stands above what an agent asks for itself.
#[derive(Debug, Clone, PartialEq)]
pub struct CoordinationConfig {
    /// Whether agents are coordinated at all.
    pub enabled: bool,
    /// The groups, by name; `default` is always there.
    pub groups: BTreeMap<String, GroupConfig>,
    /// The operator's word on single agents.
    pub agents: BTreeMap<AgentId, AgentRule>,
    /// The highest priority that an agent may give itself; `None`: any.
    pub max_priority: Option<i32>,
    /// The largest weight that an agent may give itself; `None`: any.
    pub max_weight: Option<f64>,
    /// How many agents there may be, in all groups together.
    pub max_agents: usize,
    /// How many cycles of each group are kept in memory.
    pub history: usize,
    /// How many bytes of cycles are kept of each group, about; the newest cycle is always kept.
    pub history_bytes: usize,
}

/// How the agents of one group are coordinated.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupConfig {
    /// From the beginning of one cycle to the beginning of the next.
    pub sync_interval: Duration,
    /// The strategy: a name, or an object with the name as its one key and options as its value.
    pub conflict_resolution: Value,
    /// What is shared.
    pub resources: Vec<Resource>,
    /// Which of the resources have the machine's capacity.
    pub from_host: BTreeSet<String>,
    /// What has one value for all.
    pub variables: Vec<Variable>,
    /// The fallback of agents that come without one; `None`: they must get one of their options.
    pub on_silence: Option<Fallback>,
    /// The time to live of agents that come without one.
    pub ttl: Option<Duration>,
    /// How long a strategy may work; without a deadline, [`resolve`](Self::RESOLVE) of the interval.
    pub budget: BudgetDocument,
    /// How long intentions are waited for, as a part of the interval.
    pub collect: f64,
    /// How long acknowledgements are waited for, as a part of the interval.
    pub distribute: f64,
    /// How long the answers to one round of negotiation are waited for, as a part of the interval.
    pub negotiate: f64,
    /// Where chance begins; each cycle adds its number.
    pub seed: u64,
}

/// The operator's word on one agent.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct AgentRule {
    /// Its priority.
    pub priority: Option<i32>,
    /// Its weight.
    pub weight: Option<f64>,
    /// Whether what it holds may be taken from it.
    pub preemptible: Option<bool>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            sync_interval: Duration::from_secs(1),
            conflict_resolution: Value::String(crate::strategies::PriorityBased::NAME.to_owned()),
            resources: Vec::new(),
            from_host: BTreeSet::new(),
            variables: Vec::new(),
            on_silence: None,
            ttl: None,
            budget: BudgetDocument::default(),
            collect: 0.4,
            distribute: 0.25,
            negotiate: 0.05,
            seed: 0,
        }
    }
}

impl GroupConfig {
    /// The part of the interval that a strategy has where no deadline is given.
    pub const RESOLVE: f64 = 0.3;

    /// How long intentions are waited for.
    #[must_use]
    pub fn collect_time(&self) -> Duration {
        self.sync_interval.mul_f64(self.collect)
    }

    /// How long acknowledgements are waited for.
    #[must_use]
    pub fn distribute_time(&self) -> Duration {
        self.sync_interval.mul_f64(self.distribute)
    }

    /// How long the answers to one round of negotiation are waited for.
    #[must_use]
    pub fn negotiate_time(&self) -> Duration {
        self.sync_interval.mul_f64(self.negotiate)
    }

    /// How long a strategy has.
    #[must_use]
    pub fn resolve_time(&self) -> Duration {
        self.budget.deadline_ms.map_or_else(|| self.sync_interval.mul_f64(Self::RESOLVE), Duration::from_millis)
    }
}

impl Default for CoordinationConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            groups: BTreeMap::from([(DEFAULT_GROUP.to_owned(), GroupConfig::default())]),
            agents: BTreeMap::new(),
            max_priority: None,
            max_weight: None,
            max_agents: 100_000,
            history: 1000,
            history_bytes: 64 << 20,
        }
    }
}

impl CoordinationConfig {
    /// The shortest interval between cycles.
    pub const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
    /// The longest time to live of an agent: a year. What a dead one holds is nobody else's for no longer.
    pub const LONGEST_TTL: Duration = Duration::from_hours(365 * 24);

    /// How many cycles, and bytes of them, are kept of each group.
    pub(crate) fn kept(&self) -> (usize, usize) {
        (self.history, self.history_bytes)
    }

    /// Reads the section found at `pointer` of a document; `null` is the default.
    ///
    /// # Errors
    /// Everything that is wrong, with its place.
    pub fn parse(pointer: &str, section: &Value, strategies: &Strategies) -> Result<Self, Vec<FieldError>> {
        let section = if section.is_null() { Value::Object(Map::new()) } else { section.clone() };
        let mut reader = FieldReader::new(pointer, section);
        let defaults = Self::default();
        let enabled = reader.or("enabled", defaults.enabled);
        let top = read_group(&mut reader, None, strategies);
        let mut groups = BTreeMap::new();
        let read = reader.parsed("groups", |pointer, value| {
            each(pointer, value, |name, pointer, value| {
                if name.is_empty() || name.len() > 128 || name.chars().any(char::is_control) {
                    return Err(vec![FieldError::new(pointer, "must be 1 to 128 bytes without control characters")]);
                }
                if name == DEFAULT_GROUP {
                    return Err(vec![FieldError::new(pointer, "what is said above all groups is this group")]);
                }
                let mut reader = FieldReader::new(pointer, value);
                let group = read_group(&mut reader, Some(&top), strategies);
                reader.finish(|| (name.to_owned(), group))
            })
        });
        groups.extend(read.unwrap_or_default());
        groups.insert(DEFAULT_GROUP.to_owned(), top);
        let agents = reader.parsed("agents", |pointer, value| {
            each(pointer, value, |name, pointer, value| {
                let id = AgentId::new(name).map_err(|error| vec![FieldError::new(pointer, error.to_string())])?;
                let mut reader = FieldReader::new(pointer, value);
                let rule = AgentRule {
                    priority: reader.optional("priority"),
                    weight: positive(&mut reader, "weight"),
                    preemptible: reader.optional("preemptible"),
                };
                reader.finish(|| (id, rule))
            })
        });
        let config = Self {
            enabled,
            groups,
            agents: agents.unwrap_or_default().into_iter().collect(),
            max_priority: reader.optional("max_priority"),
            max_weight: positive(&mut reader, "max_weight"),
            max_agents: reader.or("max_agents", defaults.max_agents),
            history: reader.or("history", defaults.history),
            history_bytes: reader.or("history_bytes", defaults.history_bytes),
        };
        reader.finish(|| config)
    }

    /// Reads an agent as it registers itself, found at `pointer` of a document: what it leaves out is as the operator says
    /// for its group.
    ///
    /// # Errors
    /// Everything that is wrong with it, as far as it can be told without the agents there are.
    pub fn parse_agent(&self, pointer: &str, document: &Value) -> Result<Agent, Vec<FieldError>> {
        let Value::Object(fields) = document else {
            return Err(vec![FieldError::new(pointer, format!("expected an object, but found {}", kind(document)))]);
        };
        let mut fields = fields.clone();
        let group = fields.get("group").and_then(Value::as_str).unwrap_or(DEFAULT_GROUP);
        if let Some(ttl) = self.groups.get(group).and_then(|group| group.ttl) {
            fields.entry("ttl_seconds").or_insert_with(|| Value::from(ttl.as_secs_f64()));
        }
        let agent: Agent = serde_json::from_value(Value::Object(fields))
            .map_err(|error| vec![FieldError::unread(pointer, &error.to_string())])?;
        let mut errors = agent.check(pointer);
        errors.extend(inadmissible(pointer, &agent));
        if !self.groups.contains_key(&agent.group) {
            let known: Vec<&str> = self.groups.keys().map(String::as_str).collect();
            let shown: String = agent.group.chars().take(128).collect();
            let detail = format!("there is no group {shown:?} (there are {})", known.join(", "));
            let error = FieldError::new(format!("{pointer}/group"), detail);
            errors.push(error.with_nearest(&shown, &known));
        }
        if errors.is_empty() { Ok(agent) } else { Err(errors) }
    }

    /// An agent as it is accepted: the operator's word above its own wishes; and what was changed, for people.
    #[must_use]
    pub fn accept(&self, mut agent: Agent) -> (Agent, Vec<String>) {
        let mut notes = Vec::new();
        let rule = self.agents.get(&agent.agent_id).copied().unwrap_or_default();
        match (rule.priority, self.max_priority) {
            (Some(priority), _) if priority != agent.priority => {
                notes.push(format!("priority {} instead of {}: the operator's word", priority, agent.priority));
                agent.priority = priority;
            }
            (None, Some(most)) if agent.priority > most => {
                notes.push(format!(
                    "priority {most} instead of {}: the highest that an agent may give itself",
                    agent.priority
                ));
                agent.priority = most;
            }
            _ => {}
        }
        match (rule.weight, self.max_weight) {
            (Some(weight), _) if weight != agent.weight => {
                notes.push(format!("weight {} instead of {}: the operator's word", weight, agent.weight));
                agent.weight = weight;
            }
            (None, Some(most)) if agent.weight > most => {
                notes.push(format!(
                    "weight {most} instead of {}: the largest that an agent may give itself",
                    agent.weight
                ));
                agent.weight = most;
            }
            _ => {}
        }
        if let Some(preemptible) = rule.preemptible.filter(|&preemptible| preemptible != agent.preemptible) {
            notes.push(format!("preemptible {preemptible}: the operator's word"));
            agent.preemptible = preemptible;
        }
        if agent.fallback.is_none() {
            agent.fallback = self.groups.get(&agent.group).and_then(|group| group.on_silence.clone());
        }
        (agent, notes)
    }
}

/// Reads what is said of a group, or (without a parent) above all groups.
fn read_group(reader: &mut FieldReader, parent: Option<&GroupConfig>, strategies: &Strategies) -> GroupConfig {
    let defaults = GroupConfig::default();
    let is_above_all = parent.is_none();
    let parent = parent.unwrap_or(&defaults);
    let sync_interval =
        reader.optional::<Seconds>("sync_interval").map_or(parent.sync_interval, |Seconds(interval)| interval);
    if sync_interval < CoordinationConfig::SHORTEST_INTERVAL {
        let seconds = sync_interval.as_secs_f64();
        reader.error("sync_interval", format!("must be at least 10 ms, but is {seconds} s"));
    }
    let conflict_resolution = reader
        .parsed("conflict_resolution", |pointer, value| strategies.make(pointer, &value).map(|_| value))
        .unwrap_or_else(|| parent.conflict_resolution.clone());
    let mut from_host = BTreeSet::new();
    let resources: Vec<Resource> = reader
        .parsed("resources", |pointer, value| {
            named(pointer, value, |name, fields| {
                if HOST_RESOURCES.contains(&name) && !fields.contains_key("capacity") {
                    from_host.insert(name.to_owned());
                    fields.insert("capacity".to_owned(), Value::from(0.0));
                }
            })
        })
        .map(|read| {
            let wrong = |resource: &Resource, at: &str| {
                let mut errors = resource.check(at);
                if !from_host.contains(&resource.name) {
                    errors.extend(resource.check_reserve(at));
                }
                errors
            };
            check(reader, read, wrong)
        })
        .unwrap_or_default();
    let variables: Vec<Variable> = reader
        .parsed("variables", |pointer, value| named(pointer, value, |_, _| ()))
        .map(|read| check(reader, read, Variable::check))
        .unwrap_or_default();
    let mut part = |key: &'static str, inherited: f64| {
        let part = reader.or(key, inherited);
        if !(part > 0.0 && part <= 1.0) {
            reader.error(key, format!("must be a part of the interval, above 0 and at most 1, but is {part}"));
        }
        if part > 0.0 && part <= 1.0 { part } else { inherited }
    };
    let (collect, distribute, negotiate) =
        (part("collect", parent.collect), part("distribute", parent.distribute), part("negotiate", parent.negotiate));
    let budget = reader.or("budget", parent.budget);
    if budget.deadline_ms == Some(0) {
        reader.error("budget", "deadline_ms must be at least 1");
    }
    let ttl = reader.optional::<Seconds>("ttl").map(|Seconds(ttl)| ttl).or(parent.ttl);
    if ttl.is_some_and(|ttl| ttl.is_zero()) {
        reader.error("ttl", "must be above 0");
    }
    if ttl.is_some_and(|ttl| ttl > CoordinationConfig::LONGEST_TTL) {
        reader.error("ttl", "must be at most a year (365d)");
    }
    let own: Option<Fallback> = reader.optional("on_silence");
    let on_silence = own.clone().or_else(|| parent.on_silence.clone());
    // Above all groups it may be meant for these alone: then there is nothing there that it could ask for.
    let is_for_others = is_above_all && resources.is_empty() && variables.is_empty();
    if let Some(fallback) = on_silence.as_ref().filter(|_| !is_for_others) {
        let (mut resources, mut variables) = (resources.clone(), variables.clone());
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        let known = Known { resources: &resources, variables: &variables };
        for mut error in fallback.check(&join(reader.pointer(), "on_silence"), Some(known)) {
            if own.is_none() {
                error.detail.push_str(" (what is said above all groups holds here, too: say otherwise for this one)");
            }
            reader.push(error);
        }
    }
    GroupConfig {
        sync_interval,
        conflict_resolution,
        resources,
        from_host,
        variables,
        on_silence,
        ttl,
        budget,
        collect,
        distribute,
        negotiate,
        seed: reader.or("seed", parent.seed),
    }
}

/// A number above 0.
fn positive(reader: &mut FieldReader, key: &'static str) -> Option<f64> {
    let number: Option<f64> = reader.optional(key);
    if let Some(detail) = number.and_then(not_positive) {
        reader.error(key, detail);
    }
    number
}

/// Reads every entry of a map.
fn each<T>(
    pointer: &str,
    value: Value,
    mut read: impl FnMut(&str, &str, Value) -> Result<T, Vec<FieldError>>,
) -> Result<Vec<T>, Vec<FieldError>> {
    let Value::Object(fields) = value else {
        return Err(vec![FieldError::new(pointer, format!("expected an object, but found {}", kind(&value)))]);
    };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for (name, value) in fields {
        match read(&name, &join(pointer, &name), value) {
            Ok(entry) => found.push(entry),
            Err(wrong) => errors.extend(wrong),
        }
    }
    if errors.is_empty() { Ok(found) } else { Err(errors) }
}

/// Reads a list of what has a `name`, or a map by name; with where each stands.
fn named<T: DeserializeOwned>(
    pointer: &str,
    value: Value,
    mut complete: impl FnMut(&str, &mut Map<String, Value>),
) -> Result<Vec<(String, T)>, Vec<FieldError>> {
    let entries: Vec<(String, Value)> = match value {
        Value::Array(list) => {
            list.into_iter().enumerate().map(|(at, entry)| (format!("{pointer}/{at}"), entry)).collect()
        }
        Value::Object(map) => map
            .into_iter()
            .map(|(name, mut entry)| {
                let at = join(pointer, &name);
                if entry.is_null() {
                    entry = Value::Object(Map::new());
                }
                if let Value::Object(fields) = &mut entry {
                    fields.entry("name").or_insert(Value::String(name));
                }
                (at, entry)
            })
            .collect(),
        other => {
            let detail = format!("expected a list, or an object by name, but found {}", kind(&other));
            return Err(vec![FieldError::new(pointer, detail)]);
        }
    };
    let (mut read, mut errors, mut names) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (at, mut entry) in entries {
        if let Value::Object(fields) = &mut entry {
            let name = fields.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            complete(&name, fields);
            if !name.is_empty() && !names.insert(name.clone()) {
                errors.push(FieldError::new(format!("{at}/name"), format!("{name:?} is there twice")));
            }
        }
        match T::deserialize(entry) {
            Ok(entry) => read.push((at, entry)),
            Err(error) => errors.push(FieldError::unread(at, &error.to_string())),
        }
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

fn check<T>(reader: &mut FieldReader, read: Vec<(String, T)>, check: impl Fn(&T, &str) -> Vec<FieldError>) -> Vec<T> {
    let mut checked = Vec::with_capacity(read.len());
    for (at, entry) in read {
        check(&entry, &at).into_iter().for_each(|error| reader.push(error));
        checked.push(entry);
    }
    checked
}
