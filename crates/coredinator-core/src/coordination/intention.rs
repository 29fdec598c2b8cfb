//! What agents want.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    agent::{AgentId, check_label},
    number::{LARGEST, is_amount, is_number, no_amount, no_number, not_positive, shown},
    resource::{Resource, ResourceKind, Variable},
};
use crate::{FieldError, field::join};

/// What an agent wants this cycle: one of some options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intention {
    /// Whose it is.
    pub agent_id: AgentId,
    /// Rises with each intention of an agent: of two, the higher counts.
    #[serde(default)]
    pub seq: u64,
    /// The last cycle for which it stands; absent: until the next, as long as the agent lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until_cycle: Option<u64>,
    /// What being denied is worth to the agent, in the unit of its utilities; absent: what its fallback says that it is
    /// worth itself, if that is an option, and else 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disagreement: Option<f64>,
    /// What it could do, the most wanted first; at least one.
    pub options: Vec<ActionOption>,
}

/// One thing that an agent could do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActionOption {
    /// Its name, unique among the options of its intention.
    pub id: String,
    /// Handed back to the agent with a decision for this option; not looked into.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub action: Value,
    /// How much of which resource it takes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub demands: BTreeMap<String, f64>,
    /// Which variable it needs at which value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, Claim>,
    /// Which variable it pushes, how strongly, up (above 0) or down.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub effects: BTreeMap<String, f64>,
    /// What it is worth to the agent, in full.
    pub utility: f64,
    /// How it can be granted in part; absent: wholly or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elastic: Option<Elastic>,
}

/// What an option needs of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The value wanted.
    pub value: f64,
    /// The lowest that will do; absent: whatever agrees with the value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// The highest that will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// How much it counts where claims are blended, times the agent's weight; above 0.
    #[serde(default = "one")]
    pub weight: f64,
}

/// How an option can be granted in part: all its demands times one fraction.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elastic {
    /// The smallest fraction that is of use; above 0, at most 1.
    pub min_fraction: f64,
    /// What a fraction is worth.
    #[serde(default)]
    pub shape: Shape,
}

/// What a fraction f of an option is worth, as a share of its utility: 0 at 0, 1 at 1, and concave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// f.
    #[default]
    Linear,
    /// 2 f - f²: of a demand b with utility b² / 2, x = f b is worth b x - x² / 2.
    Quadratic,
    /// log2(1 + f).
    Log,
}

impl Shape {
    /// The share of the utility that a fraction is worth.
    #[must_use]
    pub fn worth(self, fraction: f64) -> f64 {
        match self {
            Self::Linear => fraction,
            Self::Quadratic => fraction * (2.0 - fraction),
            Self::Log => fraction.ln_1p() / std::f64::consts::LN_2,
        }
    }

    /// The derivative of [`worth`](Self::worth).
    #[must_use]
    pub fn slope(self, fraction: f64) -> f64 {
        match self {
            Self::Linear => 1.0,
            Self::Quadratic => 2.0 - 2.0 * fraction,
            Self::Log => 1.0 / ((1.0 + fraction) * std::f64::consts::LN_2),
        }
    }

    /// The fraction in `[least, 1]` at which `worth(f) - price * f` is largest.
    #[must_use]
    pub fn best_fraction(self, price: f64, least: f64) -> f64 {
        let free = match self {
            Self::Linear => {
                if price <= 1.0 {
                    1.0
                } else {
                    least
                }
            }
            Self::Quadratic => 1.0 - price / 2.0,
            Self::Log if price <= 0.0 => 1.0,
            Self::Log => 1.0 / (price * std::f64::consts::LN_2) - 1.0,
        };
        free.clamp(least, 1.0)
    }
}

fn one() -> f64 {
    1.0
}

/// How much an agent may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Options of one intention.
    pub options: usize,
    /// Demands, claims and effects of one option, each.
    pub entries: usize,
}

impl Default for Limits {
    /// 1,000 options, 1,000 entries.
    fn default() -> Self {
        Self { options: 1000, entries: 1000 }
    }
}

/// What exists in a group, by name.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its resources, sorted by name.
    pub resources: &'a [Resource],
    /// Its variables, sorted by name.
    pub variables: &'a [Variable],
}

impl<'a> Known<'a> {
    fn resource(self, name: &str) -> Option<&'a Resource> {
        self.resources.binary_search_by(|known| known.name.as_str().cmp(name)).ok().map(|at| &self.resources[at])
    }

    /// What is not there, with the nearest that is.
    fn absent(self, (at, what, name): (String, &str, &String)) -> FieldError {
        let names: Vec<&str> = match what {
            "resource" => self.resources.iter().map(|known| known.name.as_str()).collect(),
            _ => self.variables.iter().map(|known| known.name.as_str()).collect(),
        };
        FieldError::new(at, format!("there is no {what} {name:?}")).with_nearest(name, &names)
    }

    fn has_variable(self, name: &str) -> bool {
        self.variables.binary_search_by(|known| known.name.as_str().cmp(name)).is_ok()
    }
}

/// How many errors about one intention are told; what has more is garbage, and its first ones say so.
const MAX_ERRORS: usize = 20;

impl Intention {
    /// Everything wrong with it (at most twenty errors), with pointers from its root.
    #[must_use]
    pub fn check(&self, known: Known<'_>, limits: &Limits) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if let Some(disagreement) = self.disagreement.filter(|&disagreement| !is_number(disagreement)) {
            errors.push(FieldError::new("/disagreement", no_number(disagreement)));
        }
        if self.options.is_empty() || self.options.len() > limits.options {
            let detail = format!("must be 1 to {} options, but are {}", limits.options, self.options.len());
            errors.push(FieldError::new("/options", detail));
            return errors;
        }
        let mut names = BTreeSet::new();
        for (at, option) in self.options.iter().enumerate() {
            let pointer = format!("/options/{at}");
            errors.extend(option.check(&pointer, Some(known), limits));
            if self.options.len() > 1 && !names.insert(option.id.as_str()) {
                errors.push(FieldError::new(format!("{pointer}/id"), format!("{:?} is there twice", option.id)));
            }
            if errors.len() >= MAX_ERRORS {
                break;
            }
        }
        errors.truncate(MAX_ERRORS);
        errors
    }
}

impl ActionOption {
    /// Everything wrong with it, with pointers below `pointer`; whether what it names exists only where `known` is given.
    pub(crate) fn check(&self, pointer: &str, known: Option<Known<'_>>, limits: &Limits) -> Vec<FieldError> {
        let mut errors = check_label(pointer, "id", &self.id);
        let mut error = |at: String, detail: String| errors.push(FieldError::new(at, detail));
        let mut absent = Vec::new();
        let under = |field: &str, name: &str| join(&format!("{pointer}/{field}"), name);
        if !is_number(self.utility) {
            error(format!("{pointer}/utility"), no_number(self.utility));
        }
        if let Some(elastic) = &self.elastic {
            if !(elastic.min_fraction > 0.0 && elastic.min_fraction <= 1.0) {
                let detail = format!("must be above 0 and at most 1, but is {}", shown(elastic.min_fraction));
                error(format!("{pointer}/elastic/min_fraction"), detail);
            }
            if self.utility < 0.0 {
                let detail = format!("must be 0 or more where the option is elastic, but is {}", shown(self.utility));
                error(format!("{pointer}/utility"), detail);
            }
        }
        for (field, entries) in
            [("demands", self.demands.len()), ("claims", self.claims.len()), ("effects", self.effects.len())]
        {
            if entries > limits.entries {
                error(format!("{pointer}/{field}"), format!("must be at most {}, but are {entries}", limits.entries));
                return errors;
            }
        }
        for (name, &amount) in &self.demands {
            let resource = known.map(|known| known.resource(name));
            if !is_amount(amount) {
                error(under("demands", name), no_amount(amount));
            } else if resource == Some(None) {
                absent.push((under("demands", name), "resource", name));
            } else if resource.flatten().is_some_and(|resource| resource.kind == ResourceKind::Unit) {
                if self.elastic.is_some() && amount > 0.0 {
                    error(
                        under("demands", name),
                        format!("{name} comes in whole ones, so the option cannot be elastic"),
                    );
                } else if amount.fract() != 0.0 {
                    error(under("demands", name), format!("{name} comes in whole ones, but this is {amount}"));
                }
            }
        }
        let unknown = |name: &str| known.is_some_and(|known| !known.has_variable(name));
        for (name, claim) in &self.claims {
            let Claim { value, min, max, weight } = *claim;
            let at = under("claims", name);
            let (low, high) = (min.unwrap_or(value), max.unwrap_or(value));
            if unknown(name) {
                absent.push((at, "variable", name));
            } else if !([value, low, high].into_iter().all(is_number) && low <= value && value <= high) {
                let [low, value, high] = [low, value, high].map(shown);
                let most = shown(LARGEST);
                let detail =
                    format!("min {low}, value {value} and max {high} must be numbers in this order, at most {most}");
                error(at, detail);
            } else if let Some(detail) = not_positive(weight) {
                error(format!("{at}/weight"), detail);
            }
        }
        for (name, &strength) in &self.effects {
            if unknown(name) {
                absent.push((under("effects", name), "variable", name));
            } else if !is_number(strength) {
                error(under("effects", name), no_number(strength));
            }
        }
        if let Some(known) = known {
            errors.extend(absent.into_iter().take(MAX_ERRORS).map(|told| known.absent(told)));
        }
        errors
    }
}
