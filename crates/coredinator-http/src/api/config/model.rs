//! What the configuration's paths say and hear.

use coredinator_core::{InstanceId, ServiceName, Timestamp};
use coredinator_registry::{
    ConfigDiff, ConfigPlan, ConfigRevision, ConfigSource, Placed, PlanAction, PlanEffect, SectionPlan, ServicePlan, Was,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::config::{Problem, live::shown, redact};

/// One thing that is wrong with a configuration (an error), or doubtful (a warning).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConfigProblem {
    /// JSON pointer of the value; empty where it is about the document as a whole.
    pub pointer: String,
    /// The line in the document, from 1; `null` where it has no one place.
    pub line: Option<usize>,
    /// The column in characters, from 1.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that can be guessed.
    pub hint: Option<String>,
}

impl From<&Problem> for ConfigProblem {
    fn from(problem: &Problem) -> Self {
        let position = problem.position();
        Self {
            pointer: problem.pointer.clone(),
            line: position.map(|at| at.line),
            column: position.map(|at| at.column),
            message: problem.detail.clone(),
            hint: problem.hint.clone(),
        }
    }
}

/// What would become of a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlannedAction {
    /// It is new.
    Create,
    /// It is declared differently.
    Update,
    /// It is no longer declared.
    Delete,
    /// It is declared as it is.
    Unchanged,
}

impl From<PlanAction> for PlannedAction {
    fn from(action: PlanAction) -> Self {
        match action {
            PlanAction::Create => Self::Create,
            PlanAction::Update => Self::Update,
            PlanAction::Delete => Self::Delete,
            PlanAction::Unchanged => Self::Unchanged,
        }
    }
}

/// What would become of a service's instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlannedEffect {
    /// They run on, or there are none.
    None,
    /// They are started.
    Start,
    /// They are told of their new document, by a signal or over HTTP.
    Reload,
    /// They are replaced, one at a time.
    Restart,
    /// They are stopped.
    Stop,
}

/// What would become of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedService {
    /// The service.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// What would become of its declaration.
    pub action: PlannedAction,
    /// The keys of its document that differ.
    pub fields: Vec<String>,
    /// What would become of its instances.
    pub effect: PlannedEffect,
}

impl From<&ServicePlan> for PlannedService {
    fn from(plan: &ServicePlan) -> Self {
        let effect = match plan.effect {
            PlanEffect::None => PlannedEffect::None,
            PlanEffect::Start => PlannedEffect::Start,
            PlanEffect::Reload => PlannedEffect::Reload,
            PlanEffect::Restart => PlannedEffect::Restart,
            PlanEffect::Stop => PlannedEffect::Stop,
        };
        Self { service: plan.service.clone(), action: plan.action.into(), fields: plan.fields.clone(), effect }
    }
}

/// What would become of a section beside the services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedSection {
    /// The section.
    #[schema(example = "coordination")]
    pub section: String,
    /// What would become of it.
    pub action: PlannedAction,
}

impl From<&SectionPlan> for PlannedSection {
    fn from(plan: &SectionPlan) -> Self {
        Self { section: plan.section.clone(), action: plan.action.into() }
    }
}

/// What a configuration would change, and what follows from that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ConfigPlan)]
pub struct Plan {
    /// Every service that the configuration declares, before or after, in the order of their names.
    pub services: Vec<PlannedService>,
    /// The sections that differ. All of them are taken up while coredinator runs.
    pub sections: Vec<PlannedSection>,
    /// JSON pointers of what the document says otherwise than coredinator was started with, and only its next start can heed:
    /// it is passed over.
    pub needs_restart: Vec<String>,
}

impl From<&ConfigPlan> for Plan {
    fn from(plan: &ConfigPlan) -> Self {
        Self {
            services: plan.services.iter().map(PlannedService::from).collect(),
            sections: plan.sections.iter().map(PlannedSection::from).collect(),
            needs_restart: Vec::new(),
        }
    }
}

/// A value that was another before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// JSON pointer of the value in the configuration.
    #[schema(example = "/coredinator/services/corerl/command")]
    pub pointer: String,
    /// What it was; `null`: it was not there. Secrets are left out.
    pub before: Option<Value>,
    /// What it became; `null`: it is not there any more.
    pub after: Option<Value>,
}

/// The differences of a change, value by value.
pub(super) fn differences(diff: &ConfigDiff) -> Vec<Difference> {
    let mut all = Vec::new();
    for (name, was) in &diff.services {
        let pointer = format!("/coredinator/services/{name}");
        let whole = |placed: &Placed| crate::config::service(&placed.spec);
        let safe = |placed: &Placed| shown(&placed.spec);
        match (&was.before, &was.after) {
            (Some(before), Some(after)) => {
                let (a, b) = (whole(before), whole(after));
                let keys = a.as_object().into_iter().chain(b.as_object()).flat_map(|map| map.keys());
                let keys: std::collections::BTreeSet<&String> = keys.filter(|key| a.get(*key) != b.get(*key)).collect();
                let (shown_before, shown_after) = (safe(before), safe(after));
                all.extend(keys.into_iter().map(|key| Difference {
                    pointer: coredinator_core::field::join(&pointer, key),
                    before: shown_before.get(key).cloned(),
                    after: shown_after.get(key).cloned(),
                }));
            }
            (before, after) => {
                all.push(Difference { pointer, before: before.as_ref().map(safe), after: after.as_ref().map(safe) });
            }
        }
    }
    for (name, Was { before, after }) in &diff.sections {
        let pointer = if name == "alerts" { "/alerts".to_owned() } else { format!("/coredinator/{name}") };
        let safe = |value: &Option<Value>| {
            let mut value = value.clone();
            value.iter_mut().for_each(redact::redact);
            value
        };
        all.push(Difference { pointer, before: safe(before), after: safe(after) });
    }
    all
}

/// What is to be said about a document without changing anything.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Validation {
    /// Whether an update would take it.
    pub valid: bool,
    /// All that is wrong with it.
    pub errors: Vec<ConfigProblem>,
    /// What is doubtful.
    pub warnings: Vec<ConfigProblem>,
    /// The newest revision, against which it was compared.
    pub revision: u64,
    /// What an update would change; `null` where the document is not valid.
    pub plan: Option<Plan>,
    /// The same value by value.
    pub differences: Vec<Difference>,
}

/// What an update or a rollback came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Updated {
    /// The newest revision now; as it was, if nothing changed or it was only tried.
    pub revision: u64,
    /// Whether a revision was made.
    pub changed: bool,
    /// Whether it was only tried.
    pub dry_run: bool,
    /// What is doubtful.
    pub warnings: Vec<ConfigProblem>,
    /// What was (or would be) changed.
    pub plan: Plan,
}

/// What brought a revision about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The configuration file, at a start or when it was read anew.
    File,
    /// An update.
    Update,
    /// A return to an earlier revision.
    Rollback,
    /// A service that the configuration declares was registered anew or deregistered.
    Service,
}

/// A revision of the configuration, in short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Revision {
    /// Its number, from 1, without gaps.
    pub revision: u64,
    /// When it came into force.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// Who made it, in their own words; nobody has checked them.
    pub author: String,
    /// Why, in their own words.
    pub message: String,
    /// What brought it about.
    pub source: Source,
    /// To which revision a rollback went; `null` for all others.
    pub to: Option<u64>,
    /// What it changed, value by value.
    pub differences: Vec<Difference>,
}

impl From<&ConfigRevision> for Revision {
    fn from(of: &ConfigRevision) -> Self {
        let (source, to) = match of.source {
            ConfigSource::File => (Source::File, None),
            ConfigSource::Update => (Source::Update, None),
            ConfigSource::Rollback { to } => (Source::Rollback, Some(to)),
            ConfigSource::Service => (Source::Service, None),
        };
        Self {
            revision: of.revision,
            at: super::super::render::millis(of.at),
            author: of.author.clone(),
            message: of.message.clone(),
            source,
            to,
            differences: differences(&of.diff),
        }
    }
}

/// Revisions, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// Those of this page.
    pub revisions: Vec<Revision>,
    /// Hand it back as `page_token` for the next page; empty: this was the last.
    pub next_page_token: String,
}

/// Where to go back to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// The revision whose configuration is wanted again. 0: that before the first.
    pub revision: u64,
}

/// A service's configuration document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfigOfService {
    /// The service.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// The replica that it is for; `null`: what is laid over it for single replicas is left out.
    pub replica: Option<u32>,
    /// Its revision, which rises with every change.
    pub revision: u64,
    /// The document. References to secrets are references.
    #[schema(value_type = Object)]
    pub document: Value,
}

/// What an instance says of its configuration document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Acknowledgement {
    /// Which instance speaks: the value of `COREDINATOR_INSTANCE_ID`.
    #[schema(value_type = String)]
    pub instance_id: InstanceId,
    /// The revision that is in force in it.
    pub revision: u64,
}

/// What was noted of an instance's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Acknowledged {
    /// The instance.
    #[schema(value_type = String)]
    pub instance_id: InstanceId,
    /// The revision.
    pub revision: u64,
    /// When it said so first.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}
