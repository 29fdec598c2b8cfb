//! The configuration in force: written out whole, and documents that are handed in read against it.

use std::path::PathBuf;

use coredinator_coord::Strategies;
use coredinator_core::{FieldError, HealthCheck, ServiceSpec, field::join};
use coredinator_registry::{Registry, ServiceView};
use coredinator_supervisor::Runtimes;
use serde_json::Value;

use super::{Checks, Config, Input, LoadError, Loaded, Loader, Overrides, Problem, place, redact, service};

/// What stands beside the live configuration: what was set when coredinator started, and what judges documents.
pub(crate) struct Live<'a> {
    /// The configuration as coredinator was started with it.
    pub(crate) settings: &'a Config,
    pub(crate) registry: &'a Registry,
    pub(crate) runtimes: &'a Runtimes,
    pub(crate) strategies: &'a Strategies,
}

/// The settings that only a start can change, and of which only what stands in the text can be compared.
const AS_WRITTEN: [&str; 5] = ["host", "port", "data_dir", "database_url", "detach"];

impl Live<'_> {
    /// Everything that is in force, as a document of the file's form without its secrets, and the revision it is of.
    /// Loaded into an empty coredinator it makes the same services, those included that registered themselves.
    pub(crate) fn generate(&self) -> (u64, Value) {
        // Read first: what changes meanwhile makes an update on this one stale, and is not passed over.
        let head = self.registry.config();
        let mut document = self.whole().to_document();
        redact::escape(&mut document);
        (head.revision, document)
    }

    /// Everything that is in force, with its secrets.
    fn whole(&self) -> Config {
        let live = self.registry.config_document();
        let mut whole = self.settings.clone().with_live(&live, self.strategies);
        let views = self.registry.services();
        let there = views.iter().filter(|view| !view.record.deleting);
        whole.services = there.map(|view| here(view.record.spec.clone())).collect();
        whole
    }

    /// Reads a document that somebody hands in. Secrets that were left out of it are as they are; variables in it take
    /// their defaults, because the environment here is not the sender's to read; its paths are as they stand.
    pub(crate) fn read(&self, text: Vec<u8>) -> Result<Loaded, LoadError> {
        let kept = self.whole().whole_document();
        let input = Input::Text { name: "the document".to_owned(), text, folder: PathBuf::new() };
        // Where coredinator listens is not the document's to say, and services must not be there.
        let overrides = Overrides {
            host: Some(self.settings.host.clone()),
            port: Some(self.settings.port),
            ..Overrides::default()
        };
        let checks = Checks::default()
            .with_runtime_check(|spec| self.runtimes.validate(spec))
            .with_probe_check(|check| self.validate_check(check))
            .with_strategies(self.strategies.clone());
        let mut loaded = Loader::new().input(input).as_is().kept(&kept).overrides(overrides).checks(checks).load()?;
        for spec in &mut loaded.config.services {
            if let Ok(view) = self.registry.service(spec.name.as_str()) {
                as_declared(spec, &view.record.spec);
            }
        }
        let passed_over = self.needs_restart(&loaded).into_iter().map(|pointer| {
            let detail = "is set when coredinator starts, by its file, environment or flags: passed over";
            loaded.problem(FieldError::new(pointer, detail))
        });
        let passed_over: Vec<Problem> = passed_over.collect();
        loaded.warnings.extend(passed_over);
        Ok(loaded)
    }

    fn validate_check(&self, check: &HealthCheck) -> Vec<FieldError> {
        self.registry.validate_check(check)
    }

    /// What a document says and only the next start can heed, by its keys.
    fn not_now(&self, loaded: &Loaded) -> Vec<&'static str> {
        let (now, settings, wanted) = (self.settings.to_document(), self.settings, &loaded.config);
        let pointer = |key: &str| format!("/coredinator/{key}");
        let written =
            |key: &&str| loaded.said(&pointer(key)).is_some_and(|said| Some(&said) != now.pointer(&pointer(key)));
        let read = [
            ("node", wanted.node != settings.node),
            ("advertise", wanted.advertise != settings.advertise),
            ("leadership", wanted.leadership != settings.leadership),
            ("config_validator", wanted.config_validator != settings.config_validator),
        ];
        let read = read.into_iter().filter(|(key, differs)| *differs && loaded.says(&pointer(key)));
        AS_WRITTEN.into_iter().filter(written).chain(read.map(|(key, _)| key)).collect()
    }

    /// The pointers of what a document says and only the next start can heed.
    pub(crate) fn needs_restart(&self, loaded: &Loaded) -> Vec<String> {
        self.not_now(loaded).into_iter().map(|key| format!("/coredinator/{key}")).collect()
    }
}

/// One service's own document, without its secrets.
pub(crate) fn generate_one(view: &ServiceView) -> Value {
    let mut document = serde_json::to_value(here(view.record.spec.clone())).unwrap_or_default();
    redact::redact(&mut document);
    redact::escape(&mut document);
    document
}

/// A spec with its paths as they mean here, so that it means the same wherever its document is loaded.
fn here(mut spec: ServiceSpec) -> ServiceSpec {
    if let Ok(folder) = std::env::current_dir() {
        place(&mut spec, &folder);
    }
    spec
}

/// Takes back what [`here`] added to the paths of a spec that is declared: to hand back what was written out is no change.
fn as_declared(spec: &mut ServiceSpec, declared: &ServiceSpec) {
    let written = here(declared.clone());
    if spec.working_dir == written.working_dir {
        spec.working_dir.clone_from(&declared.working_dir);
    }
    if spec.command == written.command {
        spec.command.clone_from(&declared.command);
    }
    let checks = [
        (&mut spec.health_check, &written.health_check, &declared.health_check),
        (&mut spec.readiness_check, &written.readiness_check, &declared.readiness_check),
    ];
    for (check, written, declared) in checks {
        if check == written {
            check.clone_from(declared);
        }
    }
}

/// The pointer of a service in a whole document.
pub(crate) fn pointer_of(spec: &ServiceSpec) -> String {
    join("/coredinator/services", spec.name.as_str())
}

/// A service's document without its secrets and its name.
pub(crate) fn shown(spec: &ServiceSpec) -> Value {
    let mut document = service(spec);
    redact::redact(&mut document);
    document
}
