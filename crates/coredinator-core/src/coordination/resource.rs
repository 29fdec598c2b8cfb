//! What agents share: resources with a capacity, variables with one value.

use serde::{Deserialize, Serialize};

use super::number::{LARGEST, is_amount, is_number, no_amount, no_number, shown};
use crate::FieldError;

/// How much of something there is to share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Its name, unique among the resources of its group: `steam`.
    pub name: String,
    /// How much there is; at least 0.
    pub capacity: f64,
    /// The unit of its amounts, for people: `t/h`.
    #[serde(default)]
    pub unit: String,
    /// How much is never handed out; at least 0.
    #[serde(default)]
    pub reserve: f64,
    /// Whether it can be shared in parts.
    #[serde(default)]
    pub kind: ResourceKind,
}

/// Whether a resource can be shared in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    /// Any amount: steam, CPU time.
    #[default]
    Divisible,
    /// Whole ones only: pumps. An option that demands it is not elastic, and demands a whole number.
    Unit,
}

/// Something that has one value for all: a setpoint, a valve.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    /// Its name, unique among the variables of its group.
    pub name: String,
    /// The unit of its values, for people: `°C`.
    #[serde(default)]
    pub unit: String,
    /// The smallest value it may be given.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// By how much it may be moved in one cycle, from [`current`](Self::current); absent: at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rate: Option<f64>,
    /// The value it has now, where that is known; within its limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<f64>,
    /// The value it gets when nobody who may claims it and somebody falls back to the default; within its limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<f64>,
    /// Values this far apart still agree, and pushes up to this strong are none; at least 0.
    #[serde(default)]
    pub tolerance: f64,
    /// What becomes of claims that disagree.
    #[serde(default)]
    pub on_conflict: OnConflict,
}

/// What becomes of claims on one variable that disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnConflict {
    /// One wins; the others do without. For what is discrete or a matter of safety.
    #[default]
    Exclusive,
    /// The value that minimises the weighted squared distance from what was wanted, within all limits.
    Blend,
}

impl Resource {
    /// Everything wrong with it, with pointers below `pointer`.
    #[must_use]
    pub fn check(&self, pointer: &str) -> Vec<FieldError> {
        let amounts = [("capacity", self.capacity), ("reserve", self.reserve)];
        let wrong = amounts
            .into_iter()
            .filter(|&(_, amount)| !is_amount(amount))
            .map(|(field, amount)| FieldError::new(format!("{pointer}/{field}"), no_amount(amount)));
        super::agent::check_label(pointer, "name", &self.name).into_iter().chain(wrong).collect()
    }

    /// Says so where more is never to be handed out than there is: nobody who writes both at once means that. That less comes
    /// to be there than was to be kept back is another matter, and no mistake.
    #[must_use]
    pub fn check_reserve(&self, pointer: &str) -> Option<FieldError> {
        (is_amount(self.capacity) && self.reserve > self.capacity).then(|| {
            let detail =
                format!("must be at most the capacity, {}, but is {}", shown(self.capacity), shown(self.reserve));
            FieldError::new(format!("{pointer}/reserve"), detail)
        })
    }
}

impl Variable {
    /// Everything wrong with it, with pointers below `pointer`.
    #[must_use]
    pub fn check(&self, pointer: &str) -> Vec<FieldError> {
        let mut errors = super::agent::check_label(pointer, "name", &self.name);
        let mut error =
            |field: &str, detail: String| errors.push(FieldError::new(format!("{pointer}/{field}"), detail));
        if !is_number(self.min) || !is_number(self.max) || self.min > self.max {
            let ([min, max], most) = ([self.min, self.max].map(shown), shown(LARGEST));
            error(
                "min",
                format!("min must be a number not above max, and both at most {most}, but they are {min} and {max}"),
            );
        }
        if let Some(rate) = self.max_rate.filter(|&rate| !is_amount(rate)) {
            error("max_rate", no_amount(rate));
        }
        if !is_amount(self.tolerance) {
            error("tolerance", no_amount(self.tolerance));
        }
        for (field, value) in [("current", self.current), ("default", self.default)] {
            let Some(value) = value else { continue };
            if !is_number(value) {
                error(field, no_number(value));
            } else if self.min <= self.max && !self.allows(value) {
                error(field, format!("must be within its limits, {} to {}, but is {value}", self.min, self.max));
            }
        }
        errors
    }

    /// Whether a value is within its limits.
    #[must_use]
    pub fn allows(&self, value: f64) -> bool {
        (self.min..=self.max).contains(&value)
    }

    /// The values it may be given this cycle: what the rate allows from where it is, within its limits. The limits stand above
    /// the rate: where it is outside of them, it is brought back at once.
    #[must_use]
    pub fn range(&self) -> (f64, f64) {
        let (Some(rate), Some(current)) = (self.max_rate, self.current) else {
            return (self.min, self.max);
        };
        let current = current.max(self.min).min(self.max);
        ((current - rate).max(self.min), (current + rate).min(self.max))
    }
}
