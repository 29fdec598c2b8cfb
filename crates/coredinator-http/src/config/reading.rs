//! What a document says, as a configuration.

use std::path::{Path, PathBuf};

use coredinator_coord::CoordinationConfig;
use coredinator_core::{
    CheckTiming, FieldError, ProbeSpec, ServiceSpec, SpecDefaults,
    config::read_layer,
    duration::Seconds,
    field::{FieldReader, join, kind},
};
use coredinator_registry::{Schemas, leadership::LeaseTiming};
use serde_json::{Map, Value};

use super::{
    Config, DatabaseUrl, Origin, ValidatorConfig, across,
    checks::Checks,
    document::Position,
    origins::{Origins, SECTION},
    redact, schema_file, settings, validator,
};

/// The runtime whose programs and directories lie on this machine, beside the file.
const LOCAL_RUNTIME: &str = "process";

/// The errors and warnings gathered on the way.
pub(super) struct Reading {
    pub(super) errors: Vec<FieldError>,
    pub(super) warnings: Vec<FieldError>,
    /// What is depended on may be declared elsewhere.
    pub(super) part: bool,
}

impl Reading {
    /// Takes the document apart into coredinator's section and the alerts.
    pub(super) fn top(&mut self, root: Option<Value>) -> (Map<String, Value>, Option<Value>) {
        let Some(root) = root else { return (Map::new(), None) };
        if root.is_null() {
            let error = FieldError::new("", "the file is empty");
            self.errors.push(error.with_hint("a file begins with \"coredinator:\", and \"services:\" below it"));
            return (Map::new(), None);
        }
        let mut reader = FieldReader::new("", root);
        let section = reader.raw("coredinator");
        let alerts = reader.raw("alerts");
        for key in reader.rest().keys().filter(|key| !key.starts_with("x-")) {
            let inside = key == "services" || key == "coordination" || settings::KEYS.contains(&key.as_str());
            let mut error = FieldError::unknown("", key, &["coredinator", "alerts"]);
            if inside {
                error.hint = Some(format!("it belongs below \"coredinator:\", indented: coredinator.{key}"));
            }
            reader.push(error);
        }
        if let Err(errors) = reader.finish(|| ()) {
            self.errors.extend(errors);
        }
        match section {
            Some(Value::Object(section)) => (section, alerts),
            Some(other) => {
                let detail = format!("expected an object, but found {}", kind(&other));
                self.errors.push(FieldError::new(SECTION, detail));
                (Map::new(), alerts)
            }
            None => {
                if self.errors.is_empty() {
                    self.warnings
                        .push(FieldError::new("", "there is no section \"coredinator\": no service is declared"));
                }
                (Map::new(), alerts)
            }
        }
    }

    pub(super) fn section(
        &mut self,
        merged: Map<String, Value>,
        alerts: Option<Value>,
        checks: &Checks<'_>,
        folder: Option<&Path>,
        origins: &Origins,
    ) -> Option<Config> {
        let mut reader = FieldReader::new(SECTION, Value::Object(merged));
        let host: String = reader.or("host", Config::DEFAULT_HOST.to_owned());
        if host.is_empty() || host.chars().any(|c| c.is_whitespace() || c.is_control() || "/?#@".contains(c)) {
            reader.error("host", format!("must be a host name or an address, but is {host:?}"));
        }
        let port = reader.or("port", Config::DEFAULT_PORT);
        let data_dir: PathBuf = reader.or("data_dir", PathBuf::from(Config::DEFAULT_DATA_DIR));
        if data_dir.as_os_str().is_empty() {
            reader.error("data_dir", "must not be empty");
        }
        // What the file says of paths is relative to the file; what people type, to where they are.
        let beside_file = matches!(origins.merged.origin("data_dir"), Origin::Default | Origin::File { .. });
        let data_dir = match folder.filter(|_| beside_file) {
            Some(folder) => folder.join(data_dir),
            None => data_dir,
        };
        let database_url: Option<String> = reader.optional("database_url").filter(|url: &String| !url.is_empty());
        let detach = reader.or("detach", false);
        let node = reader.optional("node");
        let advertise: Option<String> = reader.optional("advertise");
        if let Some(wrong) = advertise.as_deref().and_then(wrong_address) {
            reader.error("advertise", wrong);
        }
        let leadership = reader.parsed("leadership", read_leadership).unwrap_or_default();
        let base = CheckTiming::default();
        let timing = reader.parsed("health_check", |pointer, value| CheckTiming::parse(pointer, value, &base));
        let health_check = timing.unwrap_or(base);
        if database_url.as_ref().is_some_and(|url| [":***@", "=***"].iter().any(|gone| url.contains(gone))) {
            let error = FieldError::new(join(SECTION, "database_url"), "the password was left out of it");
            reader.push(error.with_hint("write it, or ${DATABASE_URL}"));
        }
        let says_base = reader.has("config");
        let base = reader.parsed("config", |pointer, value| {
            let missing = redact::missing(pointer, &value);
            if missing.is_empty() { read_layer(pointer, value) } else { Err(missing) }
        });
        let config_validator = reader.parsed(validator::KEY, |pointer, value| {
            let missing = redact::missing(pointer, &value);
            if missing.is_empty() { ValidatorConfig::parse(pointer, value) } else { Err(missing) }
        });
        let services = reader.raw("services");
        let coordination = reader
            .parsed("coordination", |pointer, value| CoordinationConfig::parse(pointer, &value, &checks.strategies));
        let coordination = coordination.unwrap_or_default();
        self.errors.extend(reader.finish(|| ()).err().into_iter().flatten());

        let services = self.services(services, &SpecDefaults { health_check }, checks, folder, origins);
        // Of a part the base may stand elsewhere; of one that is wrong, that is told.
        if !self.part && says_base == base.is_some() {
            self.documents(&services, &base.clone().unwrap_or_default());
        }
        let database_url = database_url.map(DatabaseUrl::new);
        let config = Config {
            host,
            port,
            data_dir,
            database_url,
            detach,
            node,
            advertise,
            leadership,
            health_check,
            base: base.unwrap_or_default(),
            config_validator,
            services,
            coordination,
            alerts,
        };
        across::own_port(&config, &mut self.errors, &mut self.warnings);
        Some(config)
    }

    /// Has the schemas of services judge their documents.
    fn documents(&mut self, services: &[ServiceSpec], base: &Map<String, Value>) {
        let mut schemas = Schemas::new();
        let found = services.iter().flat_map(|spec| schemas.in_configuration(spec, base));
        self.errors.extend(found.map(|error| error.under(SECTION)));
    }

    fn services(
        &mut self,
        value: Option<Value>,
        defaults: &SpecDefaults,
        checks: &Checks<'_>,
        folder: Option<&Path>,
        origins: &Origins,
    ) -> Vec<ServiceSpec> {
        let pointer = join(SECTION, "services");
        let declared = match value {
            None => return Vec::new(),
            Some(Value::Object(declared)) => declared,
            Some(other) => {
                let detail = format!("expected a map from names to services, but found {}", kind(&other));
                self.errors.push(FieldError::new(pointer, detail));
                return Vec::new();
            }
        };
        let names: Vec<String> = declared.keys().filter(|name| !name.starts_with("x-")).cloned().collect();
        let mut services: Vec<(Option<Position>, ServiceSpec)> = Vec::new();
        for (name, mut value) in declared.into_iter().filter(|(name, _)| !name.starts_with("x-")) {
            let pointer = join(&pointer, &name);
            if let Some(folder) = folder {
                self.errors.extend(schema_file::read_in_place(&pointer, &mut value, folder));
            }
            self.errors.extend(redact::missing(&pointer, &value));
            match ServiceSpec::parse(&pointer, Some(&name), value, defaults) {
                Ok(mut spec) => {
                    self.errors.extend(checks.of(&pointer, &spec));
                    if let Some(folder) = folder {
                        place(&mut spec, folder);
                    }
                    let position = origins.document.as_ref().and_then(|document| document.position(&pointer));
                    services.push((position, spec));
                }
                Err(errors) => self.errors.extend(errors),
            }
        }
        services.sort_by(|(a, left), (b, right)| a.cmp(b).then_with(|| left.name.cmp(&right.name)));
        let services: Vec<ServiceSpec> = services.into_iter().map(|(_, spec)| spec).collect();
        let names = if self.part { None } else { Some(names.as_slice()) };
        across::check(&services, names, &mut self.errors, &mut self.warnings);
        services
    }
}

/// Reads the times of leases.
fn read_leadership(pointer: &str, value: Value) -> Result<LeaseTiming, Vec<FieldError>> {
    let base = LeaseTiming::default();
    let mut reader = FieldReader::new(pointer, value);
    let mut time = |key, base| reader.or(key, Seconds(base)).0;
    let timing = LeaseTiming {
        lease: time("lease", base.lease),
        renew_deadline: time("renew_deadline", base.renew_deadline),
        retry: time("retry", base.retry),
    };
    if reader.is_clean() {
        timing.check().into_iter().for_each(|error| reader.push(error.under(pointer)));
    }
    reader.finish(|| timing)
}

/// What is wrong with an address for other replicas, if anything is.
fn wrong_address(address: &str) -> Option<String> {
    let rest = address.strip_prefix("http://").or_else(|| address.strip_prefix("https://"));
    let fits = rest.is_some_and(|rest| {
        let host = rest.split_once(':').map_or(rest, |(host, _)| host);
        !host.is_empty() && rest.chars().all(|c| c.is_ascii_graphic() && !"/?#@".contains(c))
    });
    (!fits).then(|| format!("must be like http://host:port, but is {address:?}"))
}

/// Makes a service's paths absolute, so that they mean the same wherever coredinator is started.
pub(crate) fn place(spec: &mut ServiceSpec, folder: &Path) {
    if spec.runtime.as_ref().is_some_and(|runtime| runtime.as_str() == LOCAL_RUNTIME) {
        let working_dir = spec.working_dir.take().unwrap_or_default();
        let working_dir = normal(&folder.join(working_dir));
        place_program(&mut spec.command, &working_dir);
        spec.working_dir = Some(working_dir);
    }
    // What runs inside of a container or the like is found there.
    let local = spec.runtime.as_ref().is_none_or(|runtime| runtime.as_str() == LOCAL_RUNTIME);
    for check in [&mut spec.health_check, &mut spec.readiness_check].into_iter().flatten() {
        match &mut check.probe {
            ProbeSpec::Command { command, beside } if local || *beside => place_program(command, folder),
            _ => {}
        }
    }
}

fn place_program(command: &mut [String], folder: &Path) {
    if let Some(program) = command.first_mut().filter(|program| program.contains('/') && !program.starts_with('/')) {
        *program = normal(&folder.join(&*program)).to_string_lossy().into_owned();
    }
}

/// Without the `.` that `./program` brings.
fn normal(path: &Path) -> PathBuf {
    path.components().collect()
}
