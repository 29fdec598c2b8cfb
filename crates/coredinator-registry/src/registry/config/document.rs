//! The configuration as it is kept: what was declared through it, and how it came to be that.

use std::collections::BTreeMap;

use coredinator_core::{Origin, Revision, ServiceName, ServiceSpec, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The section on which every service's own document is laid.
pub(in crate::registry) const BASE: &str = "config";

/// The configuration that can be changed while coredinator runs: services, and the sections beside them, whose meaning is
/// the business of whoever reads them (but for `config`, the base of the services' documents).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ConfigDocument {
    /// The declared services.
    pub services: BTreeMap<ServiceName, ServiceSpec>,
    /// The sections by their names; one that is absent is as one that is `null`.
    pub sections: BTreeMap<String, Value>,
}

impl ConfigDocument {
    /// Services alone.
    #[must_use]
    pub fn of(services: impl IntoIterator<Item = ServiceSpec>) -> Self {
        let services = services.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        Self { services, sections: BTreeMap::new() }
    }
}

/// A section, `null` where there is none.
pub(in crate::registry) fn section<'a>(sections: &'a BTreeMap<String, Value>, name: &str) -> &'a Value {
    sections.get(name).unwrap_or(&Value::Null)
}

/// The base of the services' documents.
pub(in crate::registry) fn base(sections: &BTreeMap<String, Value>) -> Map<String, Value> {
    section(sections, BASE).as_object().cloned().unwrap_or_default()
}

/// Who brought a revision about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "source")]
pub enum ConfigSource {
    /// The configuration file, at the start or when it was read anew.
    File,
    /// An update of the whole.
    Update,
    /// A return to an earlier revision.
    Rollback {
        /// Which.
        to: u64,
    },
    /// The registration or deregistration of a service that the configuration declares.
    Service,
}

/// A declared service, and where it was declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// What was declared.
    pub spec: ServiceSpec,
    /// Where.
    pub origin: Origin,
}

/// What something was, and what it became.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Was<T> {
    /// `None`: it is new.
    pub before: Option<T>,
    /// `None`: it was taken away.
    pub after: Option<T>,
}

/// What a revision changed, complete: from it the revision before can be made again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ConfigDiff {
    /// Services.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, Was<Placed>>,
    /// Sections.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sections: BTreeMap<String, Was<Value>>,
}

impl ConfigDiff {
    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.sections.is_empty()
    }

    /// Makes of the document after the change the one before it.
    pub(super) fn undo(&self, document: &mut ConfigDocument) {
        for (name, was) in &self.services {
            match &was.before {
                Some(before) => drop(document.services.insert(name.clone(), before.spec.clone())),
                None => drop(document.services.remove(name)),
            }
        }
        for (name, was) in &self.sections {
            match &was.before {
                Some(before) => drop(document.sections.insert(name.clone(), before.clone())),
                None => drop(document.sections.remove(name)),
            }
        }
    }
}

/// One revision of the configuration. Never changed once it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigRevision {
    /// Its number, from 1, without gaps.
    pub revision: u64,
    /// When it came into force.
    pub at: Timestamp,
    /// Who made it, in their own words.
    pub author: String,
    /// Why, in their own words; may be empty.
    #[serde(default)]
    pub message: String,
    /// What brought it about.
    #[serde(flatten)]
    pub source: ConfigSource,
    /// What it changed.
    pub diff: ConfigDiff,
}

/// The newest revision, as far as readers need it at any time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ConfigHead {
    /// Its number; 0: there is none yet.
    pub revision: u64,
    /// The sections as they are.
    #[serde(default)]
    pub sections: BTreeMap<String, Value>,
    /// The store's revision of this record, where there is one.
    #[serde(skip)]
    pub(in crate::registry) stored: Option<Revision>,
}
