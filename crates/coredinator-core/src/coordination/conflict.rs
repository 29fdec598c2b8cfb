//! How wishes collide.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{agent::AgentId, intention::Claim};

/// Wishes that cannot all be met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// Unique in its cycle: `capacity:steam`, `direct:setpoint`, `indirect:level`.
    pub id: String,
    /// What kind.
    #[serde(rename = "type")]
    pub kind: ConflictType,
    /// What kind, more closely.
    pub subtype: ConflictSubtype,
    /// The resource or variable.
    pub subject: String,
    /// Who collides, by name.
    pub parties: Vec<AgentId>,
    /// The sum of what is demanded, where it is about a resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demanded: Option<f64>,
    /// What there is for them, where it is about a resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<f64>,
    /// What each claims, where it is a direct collision on a variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<AgentId, Claim>,
    /// How strongly each pushes, where it is an indirect one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub effects: BTreeMap<AgentId, f64>,
    /// How bad: overload by capacity, or distance by the variable's range; above 0.
    pub severity: f64,
}

/// What kind of conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictType {
    /// More of a resource is demanded than there is.
    ResourceContention,
    /// Agents want a variable at different values, or push it in opposite directions.
    GoalInterference,
}

/// What kind of conflict, more closely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictSubtype {
    /// Contention for a capacity.
    Capacity,
    /// Claims on one variable that no value meets.
    Direct,
    /// Pushes of one variable, up and down.
    Indirect,
}

impl ConflictSubtype {
    /// The word for it, as JSON has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Direct => "direct",
            Self::Indirect => "indirect",
        }
    }
}
