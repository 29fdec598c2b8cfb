//! The configuration: what coredinator is told at its start, from which layers, and what is wrong with it.
//!
//! [`Loader`] merges defaults < file < environment < flags into a [`Config`], and tells everything that is wrong at once,
//! each with its file, line and column. The file is YAML (or JSON, which is YAML):
//!
//! ```yaml
//! coredinator:
//!   host: 127.0.0.1
//!   port: 8002
//!   data_dir: .coredinator          # relative to this file
//!   database_url: ${DATABASE_URL:-}
//!   detach: false                   # true: services go on when coredinator ends, and are adopted at its next start
//!   node: plant-a                   # what this machine is called among those that share a database
//!   leadership: {lease: 15, renew_deadline: 10, retry: 2}
//!   health_check: {interval: 30, timeout: 10, retries: 3}
//!   services:
//!     corerl: {runtime: process, command: [./corerl, --port, "{port}"], port: 0, health_endpoint: /health}
//!   config: {plant: north}          # the base of the documents of services that have one
//!   config_validator: http://127.0.0.1:8030/   # judges those documents before they come into force
//!   coordination: {enabled: true, sync_interval: 1, conflict_resolution: priority_based}
//! alerts: []                        # kept as it is
//! ```
//!
//! - Variables: `${NAME}`, `${NAME:-default}` and `$$` in any text, with [Compose's meaning](interpolate::interpolate).
//! - Paths: a service of the process runtime runs in the folder of the file, or in its `working_dir`, which may be relative
//!   to that folder. The program of its command, where that is a relative path (`./corerl`), is relative to where it runs; a
//!   bare name (`python3`) is looked up in `PATH`. The program of a health check's command is relative to the file.
//! - Environment: `COREDINATOR_HOST`, `COREDINATOR_PORT`, `COREDINATOR_DATA_DIR`, `COREDINATOR_DETACH`,
//!   `COREDINATOR_NODE`, `COREDINATOR_ADVERTISE`, `COREDINATOR_HEALTH_CHECK__INTERVAL`, `COREDINATOR_LEADERSHIP__LEASE` and so on for its other keys, `COREDINATOR_DATABASE_URL`, or `DATABASE_URL`, over
//!   which the former wins. An empty variable counts as unset.

mod across;
mod checks;
mod coordination;
pub mod document;
#[cfg(test)]
mod fuzz;
pub mod interpolate;
pub(crate) mod live;
mod load;
mod origins;
mod problem;
mod reading;
pub(crate) mod redact;
pub mod schema;
mod schema_file;
mod secret;
mod services;
mod settings;
#[cfg(test)]
mod tests;
mod text;
mod validator;
pub mod yaml;

pub use checks::Checks;
pub use document::Position;
pub use load::{Loaded, Loader, Overrides};
pub use problem::{LoadError, Origin, Problem};
pub(crate) use reading::place;
pub use secret::DatabaseUrl;
pub use services::{Part, load_part, load_services};
pub use text::Input;
pub use validator::ValidatorConfig;

use std::path::PathBuf;

use coredinator_coord::{CoordinationConfig, Strategies};
use coredinator_core::{CheckTiming, NodeName, ServiceSpec};
use coredinator_registry::{ConfigDocument, leadership::LeaseTiming};
use serde_json::{Map, Value, json};

/// What coredinator is told at its start; valid as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The address that is listened on: a host name or an address.
    pub host: String,
    /// The port that is listened on. 0: any free one.
    pub port: u16,
    /// Where the state is kept. One coredinator per directory.
    pub data_dir: PathBuf,
    /// Another place for the state; `None` for the embedded store in `data_dir`.
    pub database_url: Option<DatabaseUrl>,
    /// Whether services go on when coredinator ends.
    pub detach: bool,
    /// What this machine is called among those that share a database; `None`: as it calls itself.
    pub node: Option<NodeName>,
    /// Where other replicas reach this one, as `http://host:port`; `None`: where it listens.
    pub advertise: Option<String>,
    /// How leases are kept, where several replicas share a database.
    pub leadership: LeaseTiming,
    /// The timing of health checks where a service does not say.
    pub health_check: CheckTiming,
    /// What the configuration documents of services are laid on.
    pub base: Map<String, Value>,
    /// Who judges the configuration documents of services; `None`: nobody but their schemas.
    pub config_validator: Option<ValidatorConfig>,
    /// The declared services, in the order of the file.
    pub services: Vec<ServiceSpec>,
    /// How agents are coordinated.
    pub coordination: CoordinationConfig,
    /// The `alerts` section, as it is.
    pub alerts: Option<Value>,
}

impl Default for Config {
    /// What holds where nothing is said.
    fn default() -> Self {
        Self {
            host: Self::DEFAULT_HOST.to_owned(),
            port: Self::DEFAULT_PORT,
            data_dir: PathBuf::from(Self::DEFAULT_DATA_DIR),
            database_url: None,
            detach: false,
            node: None,
            advertise: None,
            leadership: LeaseTiming::default(),
            health_check: CheckTiming::default(),
            base: Map::new(),
            config_validator: None,
            services: Vec::new(),
            coordination: CoordinationConfig::default(),
            alerts: None,
        }
    }
}

impl Config {
    /// The address listened on where nothing is said: this machine alone.
    pub const DEFAULT_HOST: &str = "127.0.0.1";
    /// The port listened on where nothing is said.
    pub const DEFAULT_PORT: u16 = 8002;
    /// Where the state is kept where nothing is said: beside the file, else in the current directory.
    pub const DEFAULT_DATA_DIR: &str = ".coredinator";

    /// The configuration as a document of the file's form, with every default written out and secrets left out.
    #[must_use]
    pub fn to_document(&self) -> Value {
        let mut document = self.whole_document();
        if let Some(section) = document.get_mut("coredinator") {
            for key in ["config", validator::KEY, "services"] {
                redact::redact(&mut section[key]);
            }
        }
        document
    }

    /// The same with the secrets of services.
    pub(crate) fn whole_document(&self) -> Value {
        let services: Map<String, Value> =
            self.services.iter().map(|spec| (spec.name.to_string(), service(spec))).collect();
        let section = json!({
            "host": self.host,
            "port": self.port,
            "data_dir": self.data_dir,
            "database_url": self.database_url,
            "detach": self.detach,
            "node": self.node,
            "advertise": self.advertise,
            "leadership": self.leadership,
            "health_check": self.health_check,
            "config": self.base,
            (validator::KEY): self.config_validator.as_ref().map(ValidatorConfig::document),
            "services": services,
            "coordination": coordination::document(&self.coordination),
        });
        let mut document = json!({ "coredinator": section });
        if let Some(alerts) = &self.alerts {
            document["alerts"] = alerts.clone();
        }
        document
    }

    /// What of it can be changed while coredinator runs.
    #[must_use]
    pub fn live(&self) -> ConfigDocument {
        let mut live = ConfigDocument::of(self.services.iter().cloned());
        let sections = [
            ("health_check", json!(self.health_check)),
            ("config", Value::Object(self.base.clone())),
            ("coordination", coordination::document(&self.coordination)),
            ("alerts", self.alerts.clone().unwrap_or_default()),
        ];
        live.sections = sections.map(|(name, value)| (name.to_owned(), value)).into();
        live
    }

    /// The same with what can be changed while coredinator runs as `live` has it. A section that cannot be read, which is
    /// one that another version wrote, stays as it is.
    #[must_use]
    pub fn with_live(mut self, live: &ConfigDocument, strategies: &Strategies) -> Self {
        self.services = live.services.values().cloned().collect();
        let section = |name: &str| live.sections.get(name).cloned().unwrap_or_default();
        if let Ok(timing) = CheckTiming::parse("", section("health_check"), &CheckTiming::default()) {
            self.health_check = timing;
        }
        if let Value::Object(base) = section("config") {
            self.base = base;
        }
        match CoordinationConfig::parse("", &section("coordination"), strategies) {
            Ok(coordination) => self.coordination = coordination,
            Err(errors) => {
                let error = coredinator_core::FieldErrors(errors);
                tracing::error!(%error, "the coordination section that is stored cannot be read; as the file says");
            }
        }
        self.alerts = Some(section("alerts")).filter(|alerts| !alerts.is_null());
        self
    }
}

/// A service's document without its name.
pub(crate) fn service(spec: &ServiceSpec) -> Value {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("name");
    }
    value
}
