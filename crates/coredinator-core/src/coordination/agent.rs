//! Who takes part.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::{
    intention::{ActionOption, Intention, Known, Limits},
    number::not_positive,
};
use crate::{FieldError, ServiceName};

/// The longest name of an agent, a group, a resource, a variable or an option, in bytes.
const MAX_LABEL: usize = 128;

/// The name of an agent: 1 to 128 of `A-Z a-z 0-9 . _ : -`, the first a letter or a digit, so that it stands in a path as
/// it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AgentId(std::sync::Arc<str>);

/// Why a text is not the name of an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 128 of A-Z, a-z, 0-9, '.', '_', ':' and '-', the first a letter or a digit, but is {0:?}")]
pub struct InvalidAgentId(String);

impl AgentId {
    /// Parses a name.
    ///
    /// # Errors
    /// A text that is none; told with at most its first 64 characters.
    pub fn new(text: &str) -> Result<Self, InvalidAgentId> {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        let fits = text.len() <= MAX_LABEL && text.bytes().all(known);
        if fits && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidAgentId(text.chars().take(64).collect()))
        }
    }

    /// The text of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AgentId {
    type Error = InvalidAgentId;
    fn try_from(text: String) -> Result<Self, InvalidAgentId> {
        Self::new(&text)
    }
}

impl std::str::FromStr for AgentId {
    type Err = InvalidAgentId;
    fn from_str(text: &str) -> Result<Self, InvalidAgentId> {
        Self::new(text)
    }
}

impl From<AgentId> for String {
    fn from(id: AgentId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl std::borrow::Borrow<str> for AgentId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The group of an agent or problem that names none.
pub const DEFAULT_GROUP: &str = "default";

/// An agent as it is registered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its name.
    pub agent_id: AgentId,
    /// The group that it belongs to.
    #[serde(default = "default_group")]
    pub group: String,
    /// The higher wins, where a strategy goes by priority. The operator's word.
    #[serde(default)]
    pub priority: i32,
    /// How much its utility counts beside that of others; above 0. The operator's word.
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Whether what it holds may be taken from it for one of higher priority. The operator's word.
    #[serde(default = "default_preemptible")]
    pub preemptible: bool,
    /// Where it is asked for intentions and told decisions: `http://host:port/path`. Absent: it comes by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Whether it answers offers made during a cycle.
    #[serde(default)]
    pub negotiates: bool,
    /// How long after its last sign of life what it was granted stays reserved, in seconds; above 0.
    #[serde(default = "default_ttl")]
    pub ttl_seconds: f64,
    /// What it does when it is silent, invalid or denied. Absent: it must get one of its options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// The service that it lives in: when that is stopped or unhealthy, the agent counts as silent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
}

fn default_group() -> String {
    DEFAULT_GROUP.to_owned()
}

fn default_weight() -> f64 {
    1.0
}

fn default_preemptible() -> bool {
    true
}

fn default_ttl() -> f64 {
    10.0
}

impl Agent {
    /// An agent with nothing said but its name.
    #[must_use]
    pub fn new(agent_id: AgentId) -> Self {
        Self {
            agent_id,
            group: default_group(),
            priority: 0,
            weight: default_weight(),
            preemptible: default_preemptible(),
            endpoint: None,
            negotiates: false,
            ttl_seconds: default_ttl(),
            fallback: None,
            service: None,
        }
    }

    /// Everything wrong with it in itself, with pointers below `pointer`. Whether its fallback names things that exist is
    /// for the problem to say.
    #[must_use]
    pub fn check(&self, pointer: &str) -> Vec<FieldError> {
        let mut errors = check_label(pointer, "group", &self.group);
        let mut error =
            |field: &str, detail: String| errors.push(FieldError::new(format!("{pointer}/{field}"), detail));
        for (field, number) in [("weight", self.weight), ("ttl_seconds", self.ttl_seconds)] {
            if let Some(detail) = not_positive(number) {
                error(field, detail);
            }
        }
        if self.negotiates && self.endpoint.is_none() {
            error("negotiates", "an agent that negotiates needs an endpoint".to_owned());
        }
        if let Some(fallback) = &self.fallback {
            errors.extend(fallback.check(&format!("{pointer}/fallback"), None));
        }
        errors
    }

    /// Everything wrong with what it wants, with pointers from the root of that: what is wrong in itself, and options that go by
    /// the name of its fallback, so that nobody could tell which of them is decided.
    #[must_use]
    pub fn check_intention(&self, intention: &Intention, known: Known<'_>, limits: &Limits) -> Vec<FieldError> {
        let mut errors = intention.check(known, limits);
        if let Some(Fallback::Option(fallback)) = &self.fallback
            && let Some(at) = intention.options.iter().position(|option| option.id == fallback.id)
        {
            let detail = format!("{:?} is the name of its fallback", fallback.id);
            errors.push(FieldError::new(format!("/options/{at}/id"), detail));
        }
        errors
    }
}

/// What an agent does when it gets none of its options.
#[derive(Debug, Clone, PartialEq)]
pub enum Fallback {
    /// This, which must fit as any other option must.
    Option(Box<ActionOption>),
    /// Goes on with what the last decision granted; with nothing if there was none.
    Hold,
    /// Demands nothing; variables that nobody else claims get their default.
    Default,
    /// Demands and claims nothing.
    Release,
}

impl Fallback {
    /// Everything wrong with it, with pointers below `pointer`; whether what it names exists only where `known` is given.
    #[must_use]
    pub fn check(&self, pointer: &str, known: Option<Known<'_>>) -> Vec<FieldError> {
        match self {
            Self::Option(option) => option.check(pointer, known, &Limits::default()),
            Self::Hold | Self::Default | Self::Release => Vec::new(),
        }
    }
}

impl Serialize for Fallback {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Option(option) => option.serialize(serializer),
            Self::Hold => serializer.serialize_str("hold"),
            Self::Default => serializer.serialize_str("default"),
            Self::Release => serializer.serialize_str("release"),
        }
    }
}

impl<'de> Deserialize<'de> for Fallback {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(word) => match word.as_str() {
                "hold" => Ok(Self::Hold),
                "default" => Ok(Self::Default),
                "release" => Ok(Self::Release),
                _ => Err(de::Error::custom(format!(
                    "a fallback is \"hold\", \"default\", \"release\" or an option, but this is {word:?}"
                ))),
            },
            value => {
                ActionOption::deserialize(value).map(|option| Self::Option(Box::new(option))).map_err(de::Error::custom)
            }
        }
    }
}

/// Checks a name that people give to something.
pub(crate) fn check_label(pointer: &str, field: &str, text: &str) -> Vec<FieldError> {
    if text.is_empty() || text.len() > MAX_LABEL || text.chars().any(char::is_control) {
        let shown: String = text.chars().take(64).collect();
        let detail = format!("must be 1 to {MAX_LABEL} bytes without control characters, but is {shown:?}");
        return vec![FieldError::new(format!("{pointer}/{field}"), detail)];
    }
    Vec::new()
}
