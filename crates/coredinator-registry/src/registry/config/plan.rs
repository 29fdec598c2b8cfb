//! What a configuration that is wanted would change. Pure.

use std::collections::{BTreeMap, BTreeSet};

use coredinator_core::{ConfigAction, Origin, ServiceName, ServiceSpec};
use serde::Serialize;
use serde_json::{Map, Value};

use super::document::{ConfigDiff, ConfigDocument, Placed, Was, base, section};
use crate::registry::write::runs_the_same;

/// What would become of a service's declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanAction {
    /// It is new.
    Create,
    /// It is declared differently.
    Update,
    /// It is no longer declared.
    Delete,
    /// It is declared as it is.
    Unchanged,
}

/// What would become of a service's instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanEffect {
    /// Nothing: they run on, or there are none.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServicePlan {
    /// The service.
    pub service: ServiceName,
    /// What would become of its declaration.
    pub action: PlanAction,
    /// The keys of its document that differ, in order.
    pub fields: Vec<String>,
    /// What would become of its instances.
    pub effect: PlanEffect,
}

/// What would become of a section beside the services.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SectionPlan {
    /// The section.
    pub section: String,
    /// What would become of it.
    pub action: PlanAction,
}

/// What a configuration that is wanted would change.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct ConfigPlan {
    /// Every service that is declared by the configuration, before or after, in the order of their names.
    pub services: Vec<ServicePlan>,
    /// The sections that differ.
    pub sections: Vec<SectionPlan>,
}

impl ConfigPlan {
    /// Whether nothing would change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty() && self.services.iter().all(|service| service.action == PlanAction::Unchanged)
    }

    /// The services of which this would become.
    pub fn of(&self, action: PlanAction) -> impl Iterator<Item = &ServiceName> {
        self.services.iter().filter(move |plan| plan.action == action).map(|plan| &plan.service)
    }
}

/// A declared service as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current<'a> {
    pub(super) spec: &'a ServiceSpec,
    pub(super) origin: Origin,
    pub(super) config: Option<&'a Map<String, Value>>,
}

/// Who wants it, which decides what may be taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanting {
    /// The file: what it declared before and no longer names goes.
    File,
    /// An update of the whole: what the configuration declared goes if it is no longer named. What registered itself stays.
    Whole,
    /// A return to an earlier revision: as an update, but all that it names is declared by the configuration again, as it was.
    Earlier,
}

impl Wanting {
    fn removes(self, origin: Origin) -> bool {
        match self {
            Self::File => origin == Origin::File,
            Self::Whole | Self::Earlier => origin != Origin::Api,
        }
    }

    /// Where a service that is wanted is declared from then on. `now`: whether it is declared exactly so, and where.
    pub(super) fn places(self, now: Option<(bool, Origin)>) -> Origin {
        match (self, now) {
            (Self::File, _) | (_, Some((_, Origin::File))) => Origin::File,
            // What registered itself exactly so stays its own: to hand back what was generated changes nothing.
            (Self::Whole, Some((true, Origin::Api))) => Origin::Api,
            (Self::Whole | Self::Earlier, _) => Origin::Config,
        }
    }
}

/// Compares what is wanted with what is (services on their way out left out).
pub(super) fn plan(
    now: &BTreeMap<&ServiceName, Current<'_>>,
    sections: &BTreeMap<String, Value>,
    wanted: &ConfigDocument,
    wanting: Wanting,
) -> (ConfigPlan, ConfigDiff) {
    let (mut plan, mut diff) = (ConfigPlan::default(), ConfigDiff::default());
    let base = base(&wanted.sections);
    let names: BTreeSet<&ServiceName> = now.keys().copied().chain(wanted.services.keys()).collect();
    for name in names {
        let before = now.get(name);
        let Some(spec) = wanted.services.get(name) else {
            if let Some(current) = before.filter(|current| wanting.removes(current.origin)) {
                let effect = if current.spec.is_managed() { PlanEffect::Stop } else { PlanEffect::None };
                plan.services.push(ServicePlan {
                    service: name.clone(),
                    action: PlanAction::Delete,
                    fields: Vec::new(),
                    effect,
                });
                let before = Some(Placed { spec: current.spec.clone(), origin: current.origin });
                diff.services.insert(name.clone(), Was { before, after: None });
            } else if let Some(current) = before {
                // It stays; but a new base reaches it, too.
                let config = current.spec.config.on(&base);
                if config.as_ref() != current.config {
                    plan.services.push(changed(name, current, current.spec, config.as_ref()));
                }
            }
            continue;
        };
        let origin = wanting.places(before.map(|current| (current.spec == spec, current.origin)));
        let config = spec.config.on(&base);
        let planned = match before {
            None => ServicePlan {
                service: name.clone(),
                action: PlanAction::Create,
                fields: Vec::new(),
                effect: if spec.is_managed() && spec.replicas > 0 { PlanEffect::Start } else { PlanEffect::None },
            },
            Some(current) => changed(name, current, spec, config.as_ref()),
        };
        let same = before.is_some_and(|current| current.spec == spec && current.origin == origin);
        if !same {
            let before = before
                .filter(|current| current.origin != Origin::Api)
                .map(|current| Placed { spec: current.spec.clone(), origin: current.origin });
            let after = Some(Placed { spec: spec.clone(), origin });
            diff.services.insert(name.clone(), Was { before, after });
        }
        plan.services.push(planned);
    }
    let names: BTreeSet<&String> = sections.keys().chain(wanted.sections.keys()).collect();
    for name in names {
        let (before, after) = (section(sections, name), section(&wanted.sections, name));
        let action = match (before.is_null(), after.is_null()) {
            _ if before == after => continue,
            (true, _) => PlanAction::Create,
            (_, true) => PlanAction::Delete,
            _ => PlanAction::Update,
        };
        plan.sections.push(SectionPlan { section: name.clone(), action });
        let said = |value: &Value| Some(value.clone()).filter(|value| !value.is_null());
        diff.sections.insert(name.clone(), Was { before: said(before), after: said(after) });
    }
    (plan, diff)
}

/// The plan of a service that is there and goes on as `spec`, its document as `config`.
fn changed(
    service: &ServiceName,
    current: &Current<'_>,
    spec: &ServiceSpec,
    config: Option<&Map<String, Value>>,
) -> ServicePlan {
    let mut fields = fields(current.spec, spec);
    if config != current.config && !fields.iter().any(|field| field == "config") {
        // It is the base that differs.
        fields.push("config".to_owned());
    }
    let new_document = config != current.config || current.spec.config.overrides != spec.config.overrides;
    let effect = match (current.spec.is_managed(), spec.is_managed()) {
        (false, false) => PlanEffect::None,
        (false, true) => PlanEffect::Start,
        (true, false) => PlanEffect::Stop,
        (true, true) if !runs_the_same(current.spec, spec) => PlanEffect::Restart,
        (true, true) if new_document && config.is_some() => match spec.config.change.action {
            ConfigAction::None => PlanEffect::None,
            ConfigAction::Signal | ConfigAction::Http => PlanEffect::Reload,
            ConfigAction::Restart => PlanEffect::Restart,
        },
        (true, true) => PlanEffect::None,
    };
    // One that changes hands alone is as it was to whoever looks at services.
    let action = if fields.is_empty() { PlanAction::Unchanged } else { PlanAction::Update };
    ServicePlan { service: service.clone(), action, fields, effect }
}

/// The keys in which two specs differ.
fn fields(a: &ServiceSpec, b: &ServiceSpec) -> Vec<String> {
    let written = |spec: &ServiceSpec| match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    };
    let (a, b) = (written(a), written(b));
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    keys.into_iter().filter(|key| a.get(*key) != b.get(*key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use coredinator_core::SpecDefaults;
    use serde_json::json;

    use super::*;

    fn spec(name: &str, document: Value) -> ServiceSpec {
        ServiceSpec::parse("", Some(name), document, &SpecDefaults::default()).unwrap()
    }

    fn managed(more: &Value) -> Value {
        let mut document = json!({"runtime": "process", "command": "x"});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        document
    }

    fn one(
        before: Option<(Value, Origin)>,
        after: Option<Value>,
        bases: (Value, Value),
        wanting: Wanting,
    ) -> Option<ServicePlan> {
        let name = ServiceName::new("a").unwrap();
        let before = before.map(|(document, origin)| (spec("a", document), origin));
        let sections = |base: Value| BTreeMap::from([("config".to_owned(), base)]);
        let config = before.as_ref().and_then(|(spec, _)| spec.config.on(&base(&sections(bases.0.clone()))));
        let now =
            before.iter().map(|(spec, origin)| (&name, Current { spec, origin: *origin, config: config.as_ref() }));
        let services = after.map(|document| (name.clone(), spec("a", document))).into_iter().collect();
        let wanted = ConfigDocument { services, sections: sections(bases.1) };
        let (plan, _) = plan(&now.collect(), &sections(bases.0), &wanted, wanting);
        plan.services.into_iter().next()
    }

    #[test]
    fn the_table_of_what_becomes_of_a_service() {
        use {PlanAction as A, PlanEffect as E};
        let none = || (Value::Null, Value::Null);
        let m = |more: Value| managed(&more);
        let config = |action: &str, lr: f64| m(json!({"config": {"lr": lr}, "config_change": action}));
        for (before, after, wanted, fields) in [
            (None, Some(m(json!({}))), (A::Create, E::Start), ""),
            (None, Some(json!({"port": 1})), (A::Create, E::None), ""),
            (Some(m(json!({}))), None, (A::Delete, E::Stop), ""),
            (Some(m(json!({}))), Some(m(json!({}))), (A::Unchanged, E::None), ""),
            (Some(m(json!({}))), Some(m(json!({"labels": {"a": "b"}}))), (A::Update, E::None), "labels"),
            (
                Some(m(json!({}))),
                Some(m(json!({"command": "y", "replicas": 2}))),
                (A::Update, E::Restart),
                "command replicas",
            ),
            (Some(m(json!({}))), Some(json!({"port": 1})), (A::Update, E::Stop), "command health_check port runtime"),
            (Some(json!({"port": 1})), Some(json!({"port": 2})), (A::Update, E::None), "port"),
            (Some(config("signal", 1.0)), Some(config("signal", 2.0)), (A::Update, E::Reload), "config"),
            (Some(config("http", 1.0)), Some(config("http", 2.0)), (A::Update, E::Reload), "config"),
            (Some(config("restart", 1.0)), Some(config("restart", 2.0)), (A::Update, E::Restart), "config"),
            (Some(config("none", 1.0)), Some(config("none", 2.0)), (A::Update, E::None), "config"),
            (Some(config("none", 1.0)), Some(config("signal", 1.0)), (A::Update, E::None), "config_change"),
        ] {
            let shown = format!("{before:?} -> {after:?}");
            let planned = one(before.map(|before| (before, Origin::Config)), after, none(), Wanting::Whole).unwrap();
            assert_eq!((planned.action, planned.effect), wanted, "{shown}");
            assert_eq!(planned.fields.join(" "), fields, "{shown}");
        }
    }

    #[test]
    fn a_new_base_reaches_the_services_that_have_a_document_and_no_other() {
        let bases = || (json!({"a": 1}), json!({"a": 2}));
        for origin in [Origin::Api, Origin::Config] {
            let document = managed(&json!({"config": {}, "config_change": "signal"}));
            let planned = one(Some((document.clone(), origin)), Some(document), bases(), Wanting::Whole).unwrap();
            assert_eq!((planned.action, planned.effect), (PlanAction::Update, PlanEffect::Reload));
        }
        let hidden = managed(&json!({"config": {"a": 3}}));
        let planned = one(Some((hidden.clone(), Origin::Config)), Some(hidden), bases(), Wanting::Whole).unwrap();
        assert_eq!(planned.action, PlanAction::Unchanged);
        let registered = managed(&json!({"config": {}}));
        let planned = one(Some((registered, Origin::Api)), None, bases(), Wanting::Whole).unwrap();
        assert_eq!((planned.action, planned.effect), (PlanAction::Update, PlanEffect::Restart));
    }

    #[test]
    fn where_what_is_wanted_is_declared() {
        for (wanting, now, placed) in [
            (Wanting::File, Some((true, Origin::Api)), Origin::File),
            (Wanting::Whole, None, Origin::Config),
            (Wanting::Whole, Some((true, Origin::Api)), Origin::Api),
            (Wanting::Whole, Some((false, Origin::Api)), Origin::Config),
            (Wanting::Whole, Some((false, Origin::File)), Origin::File),
            (Wanting::Earlier, Some((true, Origin::Api)), Origin::Config),
            (Wanting::Earlier, Some((true, Origin::File)), Origin::File),
        ] {
            assert_eq!(wanting.places(now), placed, "{wanting:?} {now:?}");
        }
    }

    #[test]
    fn who_may_take_what_away() {
        let none = || (Value::Null, Value::Null);
        for (origin, wanting, goes) in [
            (Origin::File, Wanting::File, true),
            (Origin::Config, Wanting::File, false),
            (Origin::Api, Wanting::File, false),
            (Origin::File, Wanting::Whole, true),
            (Origin::Config, Wanting::Whole, true),
            (Origin::Api, Wanting::Whole, false),
            (Origin::Config, Wanting::Earlier, true),
            (Origin::Api, Wanting::Earlier, false),
        ] {
            let planned = one(Some((managed(&json!({})), origin)), None, none(), wanting);
            assert_eq!(planned.is_some(), goes, "{origin:?} {wanting:?}");
        }
    }
}
