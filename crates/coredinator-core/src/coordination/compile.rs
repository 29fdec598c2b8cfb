//! From names to places: the flat tables behind a [`Problem`](super::Problem).

use std::{collections::BTreeMap, sync::Arc};

use super::{
    agent::{Agent, Fallback},
    document::{Holding, ProblemDocument},
    intention::{ActionOption, Claim, Elastic, Intention, Known, Limits},
    problem::{Candidate, Demand, Party, PlacedClaim, Presence, Push, TOLERANCE},
    resource::{OnConflict, Variable},
};
use crate::FieldError;

/// Parties and what can be decided for them, by place.
#[derive(Debug, Clone, Default)]
pub(super) struct Tables {
    pub(super) held: Vec<f64>,
    pub(super) ranges: Vec<(f64, f64)>,
    pub(super) fixed: Vec<Option<f64>>,
    pub(super) parties: Vec<Party>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) demands: Vec<Demand>,
    pub(super) claims: Vec<PlacedClaim>,
    pub(super) pushes: Vec<Push>,
}

/// The places of what has names.
struct Places<'d> {
    resources: BTreeMap<&'d str, usize>,
    variables: BTreeMap<&'d str, usize>,
    document: &'d ProblemDocument,
}

impl Tables {
    /// The tables of a document whose lists are in canonical order.
    pub(super) fn of(document: &ProblemDocument, limits: &Limits) -> Self {
        let places = Places {
            resources: document.resources.iter().enumerate().map(|(at, known)| (known.name.as_str(), at)).collect(),
            variables: document.variables.iter().enumerate().map(|(at, known)| (known.name.as_str(), at)).collect(),
            document,
        };
        let mut tables = Self {
            held: vec![0.0; document.resources.len()],
            ranges: document.variables.iter().map(Variable::range).collect(),
            fixed: vec![None; document.variables.len()],
            ..Self::default()
        };
        let mut intentions = document.intentions.iter().peekable();
        let mut holdings = document.holdings.iter().peekable();
        for agent in &document.agents {
            let id = &agent.agent_id;
            let intention = intentions.next_if(|intention| intention.agent_id == *id);
            let holding = holdings.next_if(|holding| holding.agent_id == *id);
            tables.add(&places, agent, intention, holding, limits);
        }
        tables
    }

    fn add(
        &mut self,
        places: &Places<'_>,
        agent: &Arc<Agent>,
        intention: Option<&Arc<Intention>>,
        holding: Option<&Arc<Holding>>,
        limits: &Limits,
    ) {
        let document = places.document;
        let known = Known { resources: &document.resources, variables: &document.variables };
        let fresh = intention.filter(|known| known.valid_until_cycle.is_none_or(|last| last >= document.cycle));
        let mut faults = match (fresh, intention) {
            (Some(intention), _) => agent.check_intention(intention, known, limits),
            (None, Some(past)) => {
                let last = past.valid_until_cycle.unwrap_or_default();
                let detail = format!("it stood until cycle {last}, and this is cycle {}", document.cycle);
                vec![FieldError::new("/valid_until_cycle", detail)]
            }
            (None, None) => Vec::new(),
        };
        let usable = fresh.filter(|_| faults.is_empty());
        let presence = match (usable, holding) {
            (Some(_), _) => Presence::Active,
            (None, Some(holding)) if holding.reserved => Presence::Holding,
            _ => Presence::Absent,
        };
        let party = self.parties.len();
        let first = self.candidates.len();
        if let Some(intention) = usable {
            for option in &intention.options {
                self.push_option(places, party, option, option.utility);
            }
        }
        let options = self.candidates.len() - first;
        let mut fallback = None;
        if presence == Presence::Holding {
            self.reserve(places, holding);
        } else if let Some(rule) = &agent.fallback {
            fallback = Some(self.candidates.len());
            let said = usable.and_then(|intention| intention.disagreement);
            let denied = said.unwrap_or(0.0);
            match rule {
                Fallback::Option(option) => {
                    let wrong = option.check("/fallback", Some(known), limits);
                    if wrong.is_empty() {
                        self.push_option(places, party, option, said.unwrap_or(option.utility));
                        // A safe action is taken wholly.
                        if let Some(pushed) = self.candidates.last_mut() {
                            pushed.elastic = None;
                        }
                    } else {
                        // What asks for something that there is not cannot be had, whatever is left out of it.
                        faults.extend(wrong);
                        self.push(party, denied, None, |_| {});
                        if let Some(pushed) = self.candidates.last_mut() {
                            pushed.possible = false;
                        }
                    }
                }
                Fallback::Hold => self.push(party, denied, None, |tables| tables.place_holding(places, holding)),
                Fallback::Default => self.push(party, denied, None, |tables| {
                    let names =
                        usable.iter().flat_map(|intention| &intention.options).flat_map(|option| option.claims.keys());
                    let held = holding.iter().flat_map(|holding| holding.values.keys());
                    let names: std::collections::BTreeSet<&String> = names.chain(held).collect();
                    for variable in names.into_iter().filter_map(|name| places.variables.get(name.as_str())) {
                        if let Some(value) = document.variables[*variable].default {
                            tables.place_soft(*variable, value);
                        }
                    }
                }),
                Fallback::Release => self.push(party, denied, None, |_| {}),
            }
        }
        self.parties.push(Party {
            agent: Arc::clone(agent),
            presence,
            intention: usable.cloned(),
            holding: holding.cloned(),
            faults,
            first,
            options,
            fallback,
        });
    }

    /// What a silent agent was granted stays its own.
    fn reserve(&mut self, places: &Places<'_>, holding: Option<&Arc<Holding>>) {
        let Some(holding) = holding else { return };
        for (name, amount) in &holding.grant {
            if let Some(&resource) = places.resources.get(name.as_str()) {
                self.held[resource] += amount;
            }
        }
        for (name, value) in &holding.values {
            // Nobody is held to a value that is not allowed any more.
            if let Some(&variable) = places.variables.get(name.as_str())
                && places.document.variables[variable].allows(*value)
            {
                self.fixed[variable].get_or_insert(*value);
            }
        }
    }

    fn place_holding(&mut self, places: &Places<'_>, holding: Option<&Arc<Holding>>) {
        let Some(holding) = holding else { return };
        for (name, &amount) in holding.grant.iter().filter(|&(_, &amount)| amount > 0.0) {
            if let Some(&resource) = places.resources.get(name.as_str()) {
                self.demands.push(Demand { resource, amount });
            }
        }
        for (name, &value) in &holding.values {
            if let Some(&variable) = places.variables.get(name.as_str()) {
                self.place_soft(variable, value);
            }
        }
    }

    fn place_soft(&mut self, variable: usize, value: f64) {
        let (low, high) = self.ranges[variable];
        let value = value.clamp(low, high);
        let everything = (low, high);
        self.claims.push(PlacedClaim {
            variable,
            value,
            weight: 1.0,
            bounds: everything,
            agrees: everything,
            soft: true,
        });
    }

    fn push_option(&mut self, places: &Places<'_>, party: usize, option: &ActionOption, utility: f64) {
        self.push(party, utility, option.elastic, |tables| {
            let demanded = option.demands.iter().filter(|&(_, &amount)| amount > 0.0);
            for (name, &amount) in demanded {
                if let Some(&resource) = places.resources.get(name.as_str()) {
                    tables.demands.push(Demand { resource, amount });
                }
            }
            for (name, claim) in &option.claims {
                if let Some(&variable) = places.variables.get(name.as_str()) {
                    let placed = place(variable, claim, &places.document.variables[variable], tables.ranges[variable]);
                    tables.claims.push(placed);
                }
            }
            for (name, &strength) in &option.effects {
                if let Some(&variable) = places.variables.get(name.as_str())
                    && strength.abs() > places.document.variables[variable].tolerance
                {
                    tables.pushes.push(Push { variable, strength });
                }
            }
        });
    }

    /// Adds a candidate whose demands, claims and pushes `fill` appends.
    fn push(&mut self, party: usize, utility: f64, elastic: Option<Elastic>, fill: impl FnOnce(&mut Self)) {
        let from = (self.demands.len(), self.claims.len(), self.pushes.len());
        fill(self);
        let to = (self.demands.len(), self.claims.len(), self.pushes.len());
        self.candidates.push(Candidate {
            party,
            utility,
            elastic,
            possible: true,
            demands: (from.0, to.0),
            claims: (from.1, to.1),
            pushes: (from.2, to.2),
        });
    }

    /// Marks what could not be had even alone.
    pub(super) fn mark_impossible(&mut self, available: &[f64], capacity: impl Fn(usize) -> f64) {
        for candidate in &mut self.candidates {
            let least = candidate.min_fraction();
            let (from, to) = candidate.demands;
            let fits = |demand: &Demand| {
                demand.amount * least <= available[demand.resource] + capacity(demand.resource) * TOLERANCE * 0.1
            };
            let (first, last) = candidate.claims;
            let agrees = |claim: &PlacedClaim| {
                let fixed = self.fixed[claim.variable];
                let (low, high) = claim.bounds;
                low <= high && fixed.is_none_or(|fixed| claim.soft || (low..=high).contains(&fixed))
            };
            candidate.possible = candidate.possible
                && self.demands[from..to].iter().all(fits)
                && self.claims[first..last].iter().all(agrees);
        }
    }
}

/// A claim within what the variable may be given this cycle.
fn place(variable: usize, claim: &Claim, of: &Variable, (low, high): (f64, f64)) -> PlacedClaim {
    let value = claim.value.clamp(low, high);
    let slack = of.tolerance / 2.0;
    let agrees = (claim.min.unwrap_or(value - slack).max(low), claim.max.unwrap_or(value + slack).min(high));
    let bounds = match of.on_conflict {
        OnConflict::Exclusive => agrees,
        OnConflict::Blend => {
            (claim.min.unwrap_or(f64::NEG_INFINITY).max(low), claim.max.unwrap_or(f64::INFINITY).min(high))
        }
    };
    PlacedClaim { variable, value, weight: claim.weight, bounds, agrees, soft: false }
}
