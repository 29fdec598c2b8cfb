//! A problem as strategies see it: checked, in a canonical order, and indexed.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    agent::{Agent, AgentId, DEFAULT_GROUP, Fallback},
    compile::Tables,
    conflict::Conflict,
    detect,
    document::{Holding, PastCycle, ProblemDocument},
    intention::{ActionOption, Elastic, Intention, Limits},
    resource::{Resource, Variable},
};
use crate::FieldError;

/// How much of a resource, relative to its capacity, rounding may cost.
pub const TOLERANCE: f64 = 1e-9;

/// A problem that has been checked. Parties, resources and variables are in the order of their names and are addressed by
/// their place in it; so the same problem looks the same in whatever order it was written.
#[derive(Debug, Clone)]
pub struct Problem {
    document: Arc<ProblemDocument>,
    tables: Tables,
    available: Vec<f64>,
    conflicts: Vec<Conflict>,
}

/// An agent in a problem.
#[derive(Debug, Clone)]
pub struct Party {
    /// The agent.
    pub agent: Arc<Agent>,
    /// Whether it takes part.
    pub presence: Presence,
    /// What it wants; only where it takes part.
    pub intention: Option<Arc<Intention>>,
    /// What its last decision granted.
    pub holding: Option<Arc<Holding>>,
    /// What was wrong with its intention, which counts as not there, or with its fallback, which cannot be had.
    pub faults: Vec<FieldError>,
    pub(super) first: usize,
    pub(super) options: usize,
    pub(super) fallback: Option<usize>,
}

/// Whether an agent takes part in a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It wants something.
    Active,
    /// It is silent, and what it was granted stays reserved. Nothing is to be decided.
    Holding,
    /// It is silent, or not to be understood, and holds nothing any more: its fallback, if it has one.
    Absent,
}

impl Party {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.agent.agent_id
    }

    /// The places of its options among [`Problem::candidates`], the most wanted first; empty unless it is active.
    #[must_use]
    #[inline]
    pub fn options(&self) -> std::ops::Range<usize> {
        self.first..self.first + self.options
    }

    /// The place of its fallback among the candidates. `None`: it has none, and must get one of its options.
    #[must_use]
    #[inline]
    pub fn fallback(&self) -> Option<usize> {
        self.fallback
    }

    /// Whether it must get one of its options.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.presence == Presence::Active && self.fallback.is_none()
    }
}

/// Something that can be decided for a party: one of its options, or its fallback.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// Whose, as a place among the parties.
    pub party: usize,
    /// What it is worth to the party in full, by its own account; of a fallback, what being denied is worth.
    pub utility: f64,
    /// How it can be granted in part.
    pub elastic: Option<Elastic>,
    /// Whether it could be had if nobody else wanted anything.
    pub possible: bool,
    pub(super) demands: (usize, usize),
    pub(super) claims: (usize, usize),
    pub(super) pushes: (usize, usize),
}

impl Candidate {
    /// What a fraction of it is worth to its party.
    #[must_use]
    #[inline]
    pub fn utility_at(&self, fraction: f64) -> f64 {
        self.elastic.map_or(self.utility, |elastic| self.utility * elastic.shape.worth(fraction))
    }

    /// The smallest fraction in which it can be granted.
    #[must_use]
    #[inline]
    pub fn min_fraction(&self) -> f64 {
        self.elastic.map_or(1.0, |elastic| elastic.min_fraction)
    }
}

/// What a candidate takes of a resource.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// The resource's place.
    pub resource: usize,
    /// How much, in full; above 0.
    pub amount: f64,
}

/// What a candidate needs of a variable, within what the variable may be given this cycle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PlacedClaim {
    /// The variable's place.
    pub variable: usize,
    /// The value wanted, as near as the variable can come to it.
    pub value: f64,
    /// How much it counts in a blend; times the agent's weight.
    pub weight: f64,
    /// The lowest and the highest final value with which the candidate can be granted.
    pub bounds: (f64, f64),
    /// The lowest and the highest final value that is as good as the one wanted.
    pub agrees: (f64, f64),
    /// Whether it counts only where nobody else claims the variable: what a fallback goes on with.
    pub soft: bool,
}

/// Which way a candidate pushes a variable, beyond its dead band.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Push {
    /// The variable's place.
    pub variable: usize,
    /// How strongly, up (above 0) or down.
    pub strength: f64,
}

impl Problem {
    /// Checks and indexes a document. What is wrong with one agent's intention or fallback costs only that agent (see
    /// [`Party::faults`]).
    ///
    /// # Errors
    /// What is wrong with resources, variables and agents, and intentions and holdings of agents that are not there, all
    /// at once, with pointers into the document.
    pub fn new(document: ProblemDocument) -> Result<Self, Vec<FieldError>> {
        Self::with_limits(document, &Limits::default())
    }

    /// As [`new`](Self::new), where agents may send more or less.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_limits(mut document: ProblemDocument, limits: &Limits) -> Result<Self, Vec<FieldError>> {
        let errors = check(&document);
        if !errors.is_empty() {
            return Err(errors);
        }
        document.resources.sort_by(|a, b| a.name.cmp(&b.name));
        document.variables.sort_by(|a, b| a.name.cmp(&b.name));
        document.agents.sort_by(|a, b| a.agent_id.cmp(&b.agent_id));
        document.holdings.sort_by(|a, b| a.agent_id.cmp(&b.agent_id));
        document.intentions.sort_by(|a, b| a.agent_id.cmp(&b.agent_id).then(b.seq.cmp(&a.seq)));
        document.intentions.dedup_by(|later, kept| later.agent_id == kept.agent_id);
        document.history.sort_by_key(|past| std::cmp::Reverse(past.cycle));
        let tables = Tables::of(&document, limits);
        let spare = document.resources.iter().zip(&tables.held);
        let available = spare.map(|(resource, held)| (resource.capacity - resource.reserve - held).max(0.0)).collect();
        let mut problem = Self { document: Arc::new(document), tables, available, conflicts: Vec::new() };
        let capacity = |at: usize| problem.document.resources[at].capacity;
        problem.tables.mark_impossible(&problem.available, capacity);
        problem.conflicts = detect::first_choices(&problem);
        Ok(problem)
    }

    /// The same problem with these intentions instead of what their agents wanted so far.
    ///
    /// # Errors
    /// An intention of an agent that is not there.
    pub fn revised(&self, intentions: Vec<Arc<Intention>>, limits: &Limits) -> Result<Self, Vec<FieldError>> {
        let mut document = ProblemDocument::clone(&self.document);
        for revised in intentions {
            document.intentions.retain(|known| known.agent_id != revised.agent_id);
            document.intentions.push(revised);
        }
        Self::with_limits(document, limits)
    }

    /// The document that it was made of, in canonical order.
    #[must_use]
    pub fn document(&self) -> &ProblemDocument {
        &self.document
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &str {
        &self.document.group
    }

    /// The cycle's number.
    #[must_use]
    pub fn cycle(&self) -> u64 {
        self.document.cycle
    }

    /// Where chance begins.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.document.seed
    }

    /// Who takes part, by name.
    #[must_use]
    #[inline]
    pub fn parties(&self) -> &[Party] {
        &self.tables.parties
    }

    /// What is shared, by name.
    #[must_use]
    #[inline]
    pub fn resources(&self) -> &[Resource] {
        &self.document.resources
    }

    /// How much of each resource there is for those about whom something is to be decided: capacity less reserve less what
    /// silent agents hold; never below 0.
    #[must_use]
    #[inline]
    pub fn available(&self) -> &[f64] {
        &self.available
    }

    /// How much of each resource silent agents hold.
    #[must_use]
    pub fn held(&self) -> &[f64] {
        &self.tables.held
    }

    /// What has one value for all, by name.
    #[must_use]
    pub fn variables(&self) -> &[Variable] {
        &self.document.variables
    }

    /// The lowest and the highest value that each variable may be given this cycle.
    #[must_use]
    #[inline]
    pub fn ranges(&self) -> &[(f64, f64)] {
        &self.tables.ranges
    }

    /// The value of each variable that a silent agent holds on to, as long as it is within the variable's limits.
    #[must_use]
    #[inline]
    pub fn fixed(&self) -> &[Option<f64>] {
        &self.tables.fixed
    }

    /// Everything that can be decided, grouped by party.
    #[must_use]
    #[inline]
    pub fn candidates(&self) -> &[Candidate] {
        &self.tables.candidates
    }

    /// What a candidate takes in full, by resource.
    #[must_use]
    #[inline]
    pub fn demands(&self, candidate: usize) -> &[Demand] {
        let (from, to) = self.tables.candidates[candidate].demands;
        &self.tables.demands[from..to]
    }

    /// What a candidate claims, by variable.
    #[must_use]
    #[inline]
    pub fn claims(&self, candidate: usize) -> &[PlacedClaim] {
        let (from, to) = self.tables.candidates[candidate].claims;
        &self.tables.claims[from..to]
    }

    /// The value that a candidate's claim was written with, wherever the variable can be. A blend is pulled by it from beyond
    /// the limits too.
    #[must_use]
    pub fn wish(&self, candidate: usize, claim: &PlacedClaim) -> f64 {
        let name = self.document.variables[claim.variable].name.as_str();
        let written = self.option(candidate).and_then(|option| option.claims.get(name));
        written.map_or(claim.value, |written| written.value)
    }

    /// What a candidate pushes, by variable.
    #[must_use]
    #[inline]
    pub fn pushes(&self, candidate: usize) -> &[Push] {
        let (from, to) = self.tables.candidates[candidate].pushes;
        &self.tables.pushes[from..to]
    }

    /// What collides if every active party gets its first choice.
    #[must_use]
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// Earlier cycles, the newest first.
    #[must_use]
    pub fn history(&self) -> &[Arc<PastCycle>] {
        &self.document.history
    }

    /// The place of an agent among the parties.
    #[must_use]
    pub fn party(&self, agent: &str) -> Option<usize> {
        self.tables.parties.binary_search_by(|party| party.id().as_str().cmp(agent)).ok()
    }

    /// What a candidate was written as: an option of the intention, or a fallback that is one.
    #[must_use]
    pub fn option(&self, candidate: usize) -> Option<&ActionOption> {
        let party = &self.tables.parties[self.tables.candidates[candidate].party];
        if party.fallback == Some(candidate) {
            match &party.agent.fallback {
                Some(Fallback::Option(option)) => Some(option),
                _ => None,
            }
        } else {
            party.intention.as_ref()?.options.get(candidate - party.first)
        }
    }
}

fn check(document: &ProblemDocument) -> Vec<FieldError> {
    let mut errors = super::agent::check_label("", "group", &document.group);
    let resources = document.resources.iter().enumerate();
    errors.extend(resources.flat_map(|(at, resource)| resource.check(&format!("/resources/{at}"))));
    let variables = document.variables.iter().enumerate();
    errors.extend(variables.flat_map(|(at, variable)| variable.check(&format!("/variables/{at}"))));
    let agents = document.agents.iter().enumerate();
    errors.extend(agents.flat_map(|(at, agent)| agent.check(&format!("/agents/{at}"))));
    for (at, agent) in document.agents.iter().enumerate() {
        // One that names no group is of this one.
        if agent.group != document.group && agent.group != DEFAULT_GROUP {
            let detail = format!("the problem is that of group {:?}, but this is {:?}", document.group, agent.group);
            errors.push(FieldError::new(format!("/agents/{at}/group"), detail));
        }
    }
    twice("/resources", "name", document.resources.iter().map(|resource| resource.name.as_str()), &mut errors);
    twice("/variables", "name", document.variables.iter().map(|variable| variable.name.as_str()), &mut errors);
    let agents = || document.agents.iter().map(|agent| agent.agent_id.as_str());
    twice("/agents", "agent_id", agents(), &mut errors);
    twice("/holdings", "agent_id", document.holdings.iter().map(|held| held.agent_id.as_str()), &mut errors);
    let known: HashSet<&str> = agents().collect();
    let mut unknown = |pointer: String, id: &AgentId| {
        if !known.contains(id.as_str()) {
            errors.push(FieldError::new(pointer, format!("there is no agent {:?}", id.as_str())));
        }
    };
    let mut seen = HashSet::new();
    let mut repeated = Vec::new();
    for (at, intention) in document.intentions.iter().enumerate() {
        unknown(format!("/intentions/{at}/agent_id"), &intention.agent_id);
        if !seen.insert((intention.agent_id.as_str(), intention.seq)) {
            let detail = format!("agent {:?} has another intention of the same seq", intention.agent_id.as_str());
            repeated.push(FieldError::new(format!("/intentions/{at}/seq"), detail));
        }
    }
    for (at, holding) in document.holdings.iter().enumerate() {
        unknown(format!("/holdings/{at}/agent_id"), &holding.agent_id);
    }
    errors.extend(repeated);
    let resources: HashSet<&str> = document.resources.iter().map(|resource| resource.name.as_str()).collect();
    let names = |name: &String| resources.contains(name.as_str());
    let numbers = |values: &BTreeMap<String, f64>, least: f64| {
        values.values().all(|&value| super::number::is_number(value) && value >= least)
    };
    for (at, holding) in document.holdings.iter().enumerate() {
        if !holding.grant.keys().all(names) || !numbers(&holding.grant, 0.0) {
            errors
                .push(FieldError::new(format!("/holdings/{at}/grant"), "must be amounts of resources that there are"));
        }
        if !(0.0..=1.0).contains(&holding.fraction) {
            let detail = format!("must be 0 to 1, but is {}", holding.fraction);
            errors.push(FieldError::new(format!("/holdings/{at}/fraction"), detail));
        }
        if !numbers(&holding.values, f64::NEG_INFINITY) {
            errors.push(FieldError::new(format!("/holdings/{at}/values"), "must be numbers"));
        }
    }
    let mut cycles = HashSet::new();
    for (at, past) in document.history.iter().enumerate() {
        if !cycles.insert(past.cycle) {
            errors
                .push(FieldError::new(format!("/history/{at}/cycle"), format!("cycle {} is there twice", past.cycle)));
        }
    }
    errors
}

fn twice<'a>(list: &str, field: &str, names: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) {
    let mut seen = HashSet::new();
    for (at, name) in names.enumerate() {
        if !seen.insert(name) {
            errors.push(FieldError::new(format!("{list}/{at}/{field}"), format!("{name:?} is there twice")));
        }
    }
}
