//! From texts, variables and flags to a configuration.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use coredinator_coord::{CoordinationConfig, Strategies};
use coredinator_core::{
    CheckTiming, FieldError, HealthCheck, ProbeSpec, Runtime, ServiceSpec, SpecDefaults,
    config::read_layer,
    duration::Seconds,
    field::{FieldReader, join, kind, nearest},
    validate_spec,
};
use coredinator_registry::{Schemas, leadership::LeaseTiming};
use serde_json::{Map, Value};

use super::{
    Config, DatabaseUrl, LoadError, Origin, Problem, ValidatorConfig, across,
    document::{Document, Fault, Position},
    redact, schema_file,
    settings::{self, Layer, Merged},
    validator,
};

/// The runtime whose programs and directories lie on this machine, beside the file.
const LOCAL_RUNTIME: &str = "process";

/// Where the file's text comes from.
#[derive(Debug, Clone, Default)]
pub enum Input {
    /// There is no file.
    #[default]
    None,
    /// A file.
    Path(PathBuf),
    /// A text that is there already, such as what came by standard input.
    Text {
        /// What it is called in messages.
        name: String,
        /// The text.
        text: Vec<u8>,
        /// The folder to which its paths are relative.
        folder: PathBuf,
    },
}

/// What the flags of the command line say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the setting of the same name")]
pub struct Overrides {
    pub host: Option<String>,
    pub port: Option<u16>,
    pub data_dir: Option<PathBuf>,
    pub database_url: Option<String>,
    pub detach: Option<bool>,
    pub node: Option<String>,
}

impl Overrides {
    fn layers(&self) -> Vec<Layer> {
        let data_dir = self.data_dir.as_deref().map(|dir| dir.to_string_lossy().into_owned());
        let flags = [
            ("--host", "host", self.host.clone().map(Value::from)),
            ("--port", "port", self.port.map(Value::from)),
            ("--data-dir", "data_dir", data_dir.map(Value::from)),
            ("--database-url", "database_url", self.database_url.clone().map(Value::from)),
            ("--detach", "detach", self.detach.map(Value::from)),
            ("--node", "node", self.node.clone().map(Value::from)),
        ];
        flags
            .into_iter()
            .filter_map(|(flag, key, value)| {
                value.map(|value| Layer::one(Origin::Flag(flag.to_owned()), &[key], value))
            })
            .collect()
    }
}

/// Checks what a service asks of its runtime; pointers are relative to the spec.
type RuntimeCheck<'a> = dyn Fn(&ServiceSpec) -> Vec<FieldError> + 'a;
/// Checks what a health check asks of its probe; pointers are relative to the `health_check` section.
type ProbeCheck<'a> = dyn Fn(&HealthCheck) -> Vec<FieldError> + 'a;

/// What only the runtimes, probes and strategies at hand can judge.
pub struct Checks<'a> {
    runtime: Box<RuntimeCheck<'a>>,
    probe: Box<ProbeCheck<'a>>,
    strategies: Strategies,
}

impl fmt::Debug for Checks<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

impl Default for Checks<'_> {
    /// Any runtime and any probe will do, and the strategies that come with coredinator.
    fn default() -> Self {
        Self { runtime: Box::new(|_| Vec::new()), probe: Box::new(|_| Vec::new()), strategies: Strategies::builtin() }
    }
}

impl<'a> Checks<'a> {
    /// Services are checked by these runtimes; another runtime is an error.
    #[must_use]
    pub fn with_runtimes(self, runtimes: &'a [Arc<dyn Runtime>]) -> Self {
        self.with_runtime_check(move |spec| {
            let Some(wanted) = &spec.runtime else { return Vec::new() };
            if let Some(runtime) = runtimes.iter().find(|runtime| runtime.name() == *wanted) {
                return validate_spec(runtime.as_ref(), spec);
            }
            let known: Vec<String> = runtimes.iter().map(|runtime| runtime.name().to_string()).collect();
            vec![unknown_runtime(wanted.as_str(), &known)]
        })
    }

    /// Services are checked by `check`, whose pointers are relative to the spec.
    #[must_use]
    pub fn with_runtime_check(mut self, check: impl Fn(&ServiceSpec) -> Vec<FieldError> + 'a) -> Self {
        self.runtime = Box::new(check);
        self
    }

    /// Health checks are checked by `check`, whose pointers are relative to their section.
    #[must_use]
    pub fn with_probe_check(mut self, check: impl Fn(&HealthCheck) -> Vec<FieldError> + 'a) -> Self {
        self.probe = Box::new(check);
        self
    }

    /// Conflicts of agents are resolved by one of these strategies; another is an error.
    #[must_use]
    pub fn with_strategies(mut self, strategies: Strategies) -> Self {
        self.strategies = strategies;
        self
    }

    pub(super) fn of(&self, pointer: &str, spec: &ServiceSpec) -> Vec<FieldError> {
        let mut errors: Vec<FieldError> = (self.runtime)(spec);
        for (key, check) in [("health_check", &spec.health_check), ("readiness_check", &spec.readiness_check)] {
            let found = check.iter().flat_map(|check| (self.probe)(check));
            errors.extend(found.map(|error| error.under(&format!("/{key}"))));
        }
        errors.into_iter().map(|error| error.under(pointer)).collect()
    }
}

/// A runtime that nobody registered.
fn unknown_runtime(wanted: &str, known: &[String]) -> FieldError {
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let error = FieldError::new("/runtime", format!("unknown runtime {wanted:?}"));
    match nearest(wanted, &known) {
        Some(near) => error.with_hint(format!("did you mean {near:?}?")),
        None => error.with_hint(format!("known runtimes: {}", known.join(", "))),
    }
}

/// Loads a configuration from its layers.
#[derive(Debug, Default)]
pub struct Loader<'a> {
    input: Input,
    environment: Vec<(String, String)>,
    overrides: Overrides,
    checks: Checks<'a>,
    kept: Option<&'a Value>,
    as_is: bool,
    part: bool,
}

impl<'a> Loader<'a> {
    /// Defaults alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a file.
    #[must_use]
    pub fn input(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// With these environment variables, for settings and for the variables in the file.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment = variables.into_iter().collect();
        self
    }

    /// With the variables of this process; those that are not UTF-8 are left out.
    #[must_use]
    pub fn process_environment(self) -> Self {
        let texts =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        self.environment(texts)
    }

    /// With flags.
    #[must_use]
    pub fn overrides(mut self, overrides: Overrides) -> Self {
        self.overrides = overrides;
        self
    }

    /// With what runtimes and probes have to say.
    #[must_use]
    pub fn checks(mut self, checks: Checks<'a>) -> Self {
        self.checks = checks;
        self
    }

    /// With the values that were left out of the document because they are secrets, in a document of the same form.
    #[must_use]
    pub fn kept(mut self, kept: &'a Value) -> Self {
        self.kept = Some(kept);
        self
    }

    /// With dependencies on services that are declared elsewhere.
    #[must_use]
    pub fn part(mut self) -> Self {
        self.part = true;
        self
    }

    /// With paths as they are: the document comes from somewhere else, and is relative to nothing here.
    #[must_use]
    pub fn as_is(mut self) -> Self {
        self.as_is = true;
        self
    }

    /// Loads.
    ///
    /// # Errors
    /// [`LoadError::Read`]; else [`LoadError::Invalid`] with everything that is wrong.
    pub fn load(self) -> Result<Loaded, LoadError> {
        let text = Text::read(&self.input)?;
        let document = match &text {
            Some(text) => Some(text.parse(&self.environment)?),
            None => None,
        };
        let folder = text.as_ref().map_or_else(PathBuf::new, |text| text.folder.clone());
        let folder = (!self.as_is).then_some(folder.as_path());
        let mut reading = Reading { errors: Vec::new(), warnings: Vec::new(), part: self.part };
        let mut root = document.as_ref().map(|document| document.value());
        if let (Some(root), Some(kept)) = (&mut root, self.kept) {
            redact::restore(root, kept);
        }
        let (section, alerts) = reading.top(root);
        let (of_file, others): (Map<_, _>, Map<_, _>) =
            section.into_iter().partition(|(key, _)| settings::KEYS.contains(&key.as_str()));

        let file =
            Origin::File { file: text.as_ref().map(|text| text.name.clone()).unwrap_or_default(), position: None };
        let (of_environment, mut warnings) = settings::from_environment(&self.environment);
        let mut layers = vec![Layer::new(file, of_file)];
        layers.extend(of_environment);
        layers.extend(self.overrides.layers());
        let origins = Origins { merged: Merged::new(layers), document, text };
        let mut merged = origins.merged.values().unwrap_or_else(|error| {
            reading.errors.push(FieldError::new(SECTION, error.to_string()));
            Map::new()
        });
        merged.extend(others);
        let config = reading.section(merged, alerts, &self.checks, folder, &origins);
        warnings.extend(reading.warnings.into_iter().map(|warning| origins.problem(warning)));
        match config {
            Some(config) if reading.errors.is_empty() => Ok(Loaded { config, warnings, origins }),
            _ => Err(LoadError::Invalid(reading.errors.into_iter().map(|error| origins.problem(error)).collect())),
        }
    }
}

/// Where coredinator's section stands in the document.
const SECTION: &str = "/coredinator";

/// A configuration, and where each of its values came from.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is doubtful, but no error.
    pub warnings: Vec<Problem>,
    origins: Origins,
}

impl Loaded {
    /// Whether the file says anything at a JSON pointer.
    #[must_use]
    pub fn says(&self, pointer: &str) -> bool {
        self.origins.document.as_ref().is_some_and(|document| document.says(pointer))
    }

    /// What the file says at a JSON pointer, as it stands there.
    #[must_use]
    pub fn said(&self, pointer: &str) -> Option<Value> {
        self.origins.document.as_ref().and_then(|document| document.value().pointer(pointer).cloned())
    }

    /// An error that somebody else found in the configuration, with its place in the file.
    #[must_use]
    pub fn problem(&self, error: FieldError) -> Problem {
        Problem { origin: self.origins.in_file(&error.pointer), ..self.origins.problem(error) }
    }

    /// Where the value at a JSON pointer of [`Config::to_document`] came from.
    #[must_use]
    pub fn origin(&self, pointer: &str) -> Origin {
        self.origins.of(pointer)
    }
}

#[derive(Debug)]
struct Origins {
    merged: Merged,
    document: Option<Document>,
    text: Option<Text>,
}

impl Origins {
    fn of(&self, pointer: &str) -> Origin {
        let relative = pointer.strip_prefix(SECTION).and_then(|rest| rest.strip_prefix('/'));
        let first = relative.and_then(|relative| relative.split('/').next()).unwrap_or_default();
        if settings::KEYS.contains(&first) {
            return match self.merged.origin(relative.unwrap_or_default()) {
                Origin::File { .. } => self.in_file(pointer),
                other => other,
            };
        }
        if self.document.as_ref().is_some_and(|document| document.says(pointer)) {
            return self.in_file(pointer);
        }
        // What a service leaves open in its health check is as the global section says.
        match pointer.split("/health_check/").nth(1).filter(|_| first == "services") {
            Some(key) => self.of(&format!("{SECTION}/health_check/{key}")),
            None => Origin::Default,
        }
    }

    fn in_file(&self, pointer: &str) -> Origin {
        Origin::File {
            file: self.text.as_ref().map(|text| text.name.clone()).unwrap_or_default(),
            position: self.document.as_ref().and_then(|document| document.position(pointer)),
        }
    }

    /// An error with the place where its cause stands: the value's own origin, or the file for what is missing in it.
    fn problem(&self, error: FieldError) -> Problem {
        let origin = match self.of(&error.pointer) {
            Origin::Default if self.text.is_some() => self.in_file(&error.pointer),
            origin => origin,
        };
        let secret = error.pointer.ends_with("/database_url");
        let mut problem = Problem::new(origin, error.pointer, error.detail, error.hint);
        if let (Origin::File { position: Some(at), .. }, Some(text), false) = (&problem.origin, &self.text, secret) {
            problem.excerpt = text.line(*at);
        }
        problem
    }
}

/// The text of a file.
#[derive(Debug)]
pub(super) struct Text {
    name: String,
    text: String,
    folder: PathBuf,
}

impl Text {
    pub(super) fn read(input: &Input) -> Result<Option<Self>, LoadError> {
        let (name, bytes, folder) = match input {
            Input::None => return Ok(None),
            Input::Text { name, text, folder } => (name.clone(), text.clone(), folder.clone()),
            Input::Path(path) => {
                let bytes = read_bounded(path).map_err(|source| LoadError::Read { path: path.clone(), source })?;
                (path.display().to_string(), bytes, path.parent().map(Path::to_owned).unwrap_or_default())
            }
        };
        let current = || LoadError::Read {
            path: folder.clone(),
            source: std::io::Error::other("the current directory is not known"),
        };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        let folder = std::path::absolute(folder).map_err(|_| current())?;
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(Self { name, text, folder })),
            Err(error) => {
                let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
                let column = 1 + String::from_utf8_lossy(good).chars().rev().take_while(|&c| c != '\n').count();
                let origin = Origin::File { file: name, position: Some(Position { line, column }) };
                let hint = Some("save the file as UTF-8".to_owned());
                Err(LoadError::Invalid(vec![Problem::new(origin, "", "this byte is not UTF-8", hint)]))
            }
        }
    }

    pub(super) fn parse(&self, environment: &[(String, String)]) -> Result<Document, LoadError> {
        let lookup = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        Document::parse(&self.text, &lookup)
            .map_err(|faults| LoadError::Invalid(faults.into_iter().map(|fault| self.fault(fault)).collect()))
    }

    fn fault(&self, fault: Fault) -> Problem {
        let origin = Origin::File { file: self.name.clone(), position: Some(fault.position) };
        let mut problem = Problem::new(origin, "", fault.detail, fault.hint);
        problem.excerpt = self.line(fault.position);
        problem
    }

    /// The folder to which its paths are relative; absolute.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// An error about a value of `document`, which this text is, with its place.
    pub(super) fn problem(&self, document: &Document, error: FieldError) -> Problem {
        let position = document.position(&error.pointer);
        let origin = Origin::File { file: self.name.clone(), position };
        let mut problem = Problem::new(origin, error.pointer, error.detail, error.hint);
        problem.excerpt = position.and_then(|at| self.line(at));
        problem
    }

    /// A line, if it is short enough for the mark under it to be of use.
    fn line(&self, at: Position) -> Option<String> {
        let line = self.text.lines().nth(at.line.checked_sub(1)?)?;
        let shown: String = line.chars().take(160).map(|c| if c.is_control() { ' ' } else { c }).collect();
        (at.column <= 160).then_some(shown)
    }
}

/// Reads no more than what is refused for its size anyway.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let limit = super::document::MAX_BYTES as u64 + 1;
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The errors and warnings gathered on the way.
struct Reading {
    errors: Vec<FieldError>,
    warnings: Vec<FieldError>,
    /// What is depended on may be declared elsewhere.
    part: bool,
}

impl Reading {
    /// Takes the document apart into coredinator's section and the alerts.
    fn top(&mut self, root: Option<Value>) -> (Map<String, Value>, Option<Value>) {
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

    fn section(
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
