//! What a user declares: a service, and how it should run or be watched.

use std::{collections::BTreeMap, fmt, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::{Map, Value};

use crate::{
    Backoff, CheckTiming, Dependency, FieldError, FieldErrors, HealthCheck, NodeName, ProbeSpec, RestartBudget,
    RestartPolicy, RuntimeName, ServiceConfig, ServiceName,
    duration::Seconds,
    field::{FieldReader, kind},
    health::Fallback,
    text,
};

/// A signal that asks a process to do something, above all to end, by its POSIX name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[expect(missing_docs, reason = "the names are POSIX's own")]
pub enum Signal {
    Hup,
    Int,
    Quit,
    Kill,
    Usr1,
    Usr2,
    #[default]
    Term,
    Winch,
}

impl Signal {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Hup, "SIGHUP"),
        (Self::Int, "SIGINT"),
        (Self::Quit, "SIGQUIT"),
        (Self::Kill, "SIGKILL"),
        (Self::Usr1, "SIGUSR1"),
        (Self::Usr2, "SIGUSR2"),
        (Self::Term, "SIGTERM"),
        (Self::Winch, "SIGWINCH"),
    ];
}

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let wanted = upper.strip_prefix("SIG").unwrap_or(&upper);
        Self::ALL.iter().find(|(_, name)| name[3..] == *wanted).map(|(signal, _)| *signal).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("unknown signal {text:?} (one of {})", known.join(", "))
        })
    }
}

impl TryFrom<String> for Signal {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Self::ALL.iter().find(|(signal, _)| signal == self).map_or("", |(_, name)| name))
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> Self {
        signal.to_string()
    }
}

/// How much of an instance's output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LogRetention {
    /// A file is rotated when it has grown to this many bytes; at least 4096.
    pub max_size: u64,
    /// How many files are kept of each stream, the one being written included; 1 to 1000.
    pub max_files: u32,
}

impl Default for LogRetention {
    /// Five files of 10 MiB.
    fn default() -> Self {
        Self { max_size: 10 * 1024 * 1024, max_files: 5 }
    }
}

impl LogRetention {
    fn parse(pointer: &str, value: Value) -> Result<Self, Vec<FieldError>> {
        let default = Self::default();
        let mut reader = FieldReader::new(pointer, value);
        let read = Self {
            max_size: reader.or("max_size", default.max_size),
            max_files: reader.or("max_files", default.max_files),
        };
        if read.max_size < 4096 {
            reader.error("max_size", format!("must be at least 4096 bytes, but is {}", read.max_size));
        }
        if !(1..=1000).contains(&read.max_files) {
            reader.error("max_files", format!("must be between 1 and 1000, but is {}", read.max_files));
        }
        reader.finish(|| read)
    }
}

/// A declared service: what should run or be watched, and how.
///
/// Made by [`ServiceSpec::parse`] alone, so that one which exists is valid in itself; what spans services (cycles,
/// clashing ports) and what a runtime asks is checked where those are known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// What starts its instances. `None`: an external service, which is watched and never started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeName>,
    /// The node on which it runs, where its runtime is one of a single machine. `None`: where it is declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The program and its arguments; `{port}` is expanded when an instance starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Variables added to an instance's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Where an instance runs. `None`: where coredinator does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<PathBuf>,
    /// The host name or address at which it is reached.
    pub host: String,
    /// The port at which it is reached. 0: a free one is allocated for each instance. External services need one.
    pub port: u16,
    /// The path of its HTTP health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health_endpoint: Option<String>,
    /// What says that it is alive and ready. `None`: an instance that runs counts as healthy.
    #[serde(serialize_with = "write_check")]
    pub health_check: Option<HealthCheck>,
    /// A further check that decides only whether it is in discovery, never whether it is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_check: Option<HealthCheck>,
    /// What happens when an instance ends by itself.
    pub restart_policy: RestartPolicy,
    /// The pauses between restarts.
    pub backoff: Backoff,
    /// How many restarts are too many.
    pub restart_budget: RestartBudget,
    /// Exit codes that count as success.
    pub success_exit_codes: Vec<i32>,
    /// How many instances should run. 0: none.
    pub replicas: u32,
    /// What must hold of other services before an instance starts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<ServiceName, Dependency>,
    /// How an instance is asked to end.
    pub stop_signal: Signal,
    /// How long it may take over that before it is killed.
    #[serde(with = "crate::duration")]
    pub stop_grace_period: Duration,
    /// The user's labels, for selecting.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The user's word for what version this is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How much of its output is kept.
    pub logs: LogRetention,
    /// Its configuration document, and what is done when that changes.
    #[serde(flatten)]
    pub config: ServiceConfig,
    /// Keys that its runtime understands, checked by [`Runtime::validate`](crate::Runtime::validate), and the user's own
    /// `x-…` keys.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

/// What holds of every service where its own document is silent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SpecDefaults {
    /// The specification's global `health_check` section.
    pub health_check: CheckTiming,
}

impl ServiceSpec {
    /// The keys of a service's document that mean the same whatever the runtime.
    pub const KEYS: &[&str] = &[
        "name",
        "runtime",
        "node",
        "command",
        "environment",
        "working_dir",
        "host",
        "port",
        "health_endpoint",
        "health_check",
        "readiness_check",
        "restart_policy",
        "backoff",
        "restart_budget",
        "success_exit_codes",
        "replicas",
        "depends_on",
        "stop_signal",
        "stop_grace_period",
        "labels",
        "version",
        "logs",
        "config",
        "config_schema",
        "config_overrides",
        "config_change",
    ];

    /// More replicas than any one machine can start by mistake.
    pub const MAX_REPLICAS: u32 = 10_000;

    /// Reads a service's document: a map of the keys above. `name` is given where the document is the value of a map of
    /// services; otherwise it is a key of the document.
    ///
    /// # Errors
    /// All that is wrong with it, each under `pointer`.
    pub fn parse(
        pointer: &str,
        name: Option<&str>,
        value: Value,
        defaults: &SpecDefaults,
    ) -> Result<Self, Vec<FieldError>> {
        let mut reader = FieldReader::new(pointer, value);
        let name = read_name(&mut reader, name);
        let runtime = reader.optional("runtime");
        let health_endpoint: Option<String> = reader.optional("health_endpoint");
        if let Some(Err(error)) = health_endpoint.as_deref().map(text::check_path) {
            reader.error("health_endpoint", error);
        }
        let fallback = match (health_endpoint.as_deref(), &runtime) {
            (Some(path), _) => Fallback::Endpoint(path),
            // There is nothing else by which to know whether an external service is there.
            (None, None::<RuntimeName>) => Fallback::Tcp,
            (None, Some(_)) => Fallback::Nothing,
        };
        let health_check = read_check(&mut reader, "health_check", &fallback, defaults);
        let readiness_check = read_check(&mut reader, "readiness_check", &Fallback::Nothing, defaults);
        let base_grace = Seconds(Duration::from_secs(10));
        let mut spec = Self {
            // A placeholder where the name is missing: the reader then ends in an error.
            name: name.unwrap_or_else(|| ServiceName::new("unnamed").unwrap_or_else(|_| unreachable!("a DNS label"))),
            node: reader.optional("node"),
            command: reader.parsed("command", text::command).unwrap_or_default(),
            environment: reader.parsed("environment", parse_environment).unwrap_or_default(),
            working_dir: reader.optional("working_dir"),
            host: reader.or("host", "localhost".to_owned()),
            port: reader.or("port", 0),
            restart_policy: reader.or("restart_policy", RestartPolicy::default()),
            backoff: reader.parsed("backoff", Backoff::parse).unwrap_or_default(),
            restart_budget: reader.parsed("restart_budget", RestartBudget::parse).unwrap_or_default(),
            success_exit_codes: reader.or("success_exit_codes", vec![0]),
            replicas: reader.or("replicas", 1),
            depends_on: reader.parsed("depends_on", Dependency::parse_all).unwrap_or_default(),
            stop_signal: reader.or("stop_signal", Signal::default()),
            stop_grace_period: reader.or("stop_grace_period", base_grace).0,
            labels: reader.parsed("labels", parse_environment).unwrap_or_default(),
            version: reader.optional("version"),
            logs: reader.parsed("logs", LogRetention::parse).unwrap_or_default(),
            config: ServiceConfig::read(&mut reader, runtime.is_some()),
            options: Map::new(),
            runtime,
            health_endpoint,
            health_check,
            readiness_check,
        };
        spec.check(&mut reader);
        if spec.runtime.is_some() {
            spec.options = reader.rest();
        }
        reader.finish(|| spec)
    }

    /// What no single key can say.
    fn check(&self, reader: &mut FieldReader) {
        if self.host.is_empty()
            || self.host.len() > 253
            || self.host.chars().any(|c| c.is_whitespace() || c.is_control() || "/?#@".contains(c))
        {
            reader.error("host", format!("must be a host name or an address, but is {:?}", self.host));
        }
        if self.replicas > Self::MAX_REPLICAS {
            reader.error("replicas", format!("must be at most {}, but is {}", Self::MAX_REPLICAS, self.replicas));
        }
        if self.depends_on.contains_key(&self.name) {
            reader.error("depends_on", "a service cannot depend on itself");
        }
        if self.runtime.is_some() {
            if self.replicas > 1 && self.port != 0 {
                let pointer = crate::field::join(reader.pointer(), "port");
                let detail = format!("{} replicas cannot share port {}", self.replicas, self.port);
                reader.push(FieldError::new(pointer, detail).with_hint("use port: 0, which allocates one for each"));
            }
            return;
        }
        // An external service: nothing of how to run it makes sense, and it is found at a fixed place.
        if !self.command.is_empty() {
            let pointer = crate::field::join(reader.pointer(), "command");
            reader.push(
                FieldError::new(pointer, "a service with a command needs a runtime").with_hint("add runtime: process"),
            );
        }
        for (key, check) in [("health_check", &self.health_check), ("readiness_check", &self.readiness_check)] {
            if check.as_ref().is_some_and(|check| check.probe == ProbeSpec::Native) {
                reader.error(key, "nothing here runs an external service, so nothing can tell its health: kind native needs a runtime");
            }
        }
        let pushed = matches!(self.health_check, Some(HealthCheck { probe: ProbeSpec::Heartbeat { .. }, .. }));
        if self.port == 0 && !pushed && reader.is_clean() {
            reader.error("port", "an external service needs the port at which it is reached");
        }
    }

    /// Whether coredinator starts its instances.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        self.runtime.is_some()
    }

    /// Whether it leaves its health checks to what runs its instances: `probe_by` among its options names anybody but
    /// coredinator.
    #[must_use]
    pub fn is_probed_elsewhere(&self) -> bool {
        self.options.get("probe_by").is_some_and(|by| by != "coredinator")
    }

    /// Whether an instance's exit with `code` is a success.
    #[must_use]
    pub fn is_success(&self, code: Option<i32>) -> bool {
        code.is_some_and(|code| self.success_exit_codes.contains(&code))
    }
}

impl<'de> Deserialize<'de> for ServiceSpec {
    /// Reads what [`Serialize`] wrote, or any document with a `name`, by [`ServiceSpec::parse`].
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::parse("", None, value, &SpecDefaults::default()).map_err(|errors| D::Error::custom(FieldErrors(errors)))
    }
}

fn read_name(reader: &mut FieldReader, given: Option<&str>) -> Option<ServiceName> {
    let inside: Option<String> = reader.optional("name");
    let text = match (given, &inside) {
        (Some(given), Some(inside)) if given != inside => {
            reader.error("name", format!("differs from the key {given:?} under which the service stands"));
            return None;
        }
        (Some(given), _) => given,
        (None, Some(inside)) => inside,
        (None, None) => {
            if reader.is_clean() {
                reader.error("name", "a service needs a name");
            }
            return None;
        }
    };
    ServiceName::new(text).map_err(|error| reader.error("name", format!("a service's name {error}"))).ok()
}

fn read_check(
    reader: &mut FieldReader,
    key: &'static str,
    fallback: &Fallback<'_>,
    defaults: &SpecDefaults,
) -> Option<HealthCheck> {
    let parse = |pointer: &str, value| HealthCheck::parse(pointer, value, fallback, &defaults.health_check);
    // An absent section reads as an empty one. Where it is wrong, which is told, the outcome does not matter.
    reader.parsed(key, parse).unwrap_or_else(|| parse("", Value::Object(Map::new())).unwrap_or_default())
}

/// A check that is off has to be written down where an endpoint would otherwise turn it on again.
fn write_check<S: Serializer>(check: &Option<HealthCheck>, serializer: S) -> Result<S::Ok, S::Error> {
    match check {
        Some(check) => check.serialize(serializer),
        None => serde_json::json!({ "disable": true }).serialize(serializer),
    }
}

/// Reads a map of texts (numbers and booleans are written out), or Compose's list of `KEY=VALUE`.
fn parse_environment(pointer: &str, value: Value) -> Result<BTreeMap<String, String>, Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut read = BTreeMap::new();
    let pairs: Vec<(String, Option<String>)> = match value {
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, text::scalar(&value))).collect(),
        Value::Array(list) => list
            .iter()
            .map(|entry| match entry.as_str().and_then(|entry| entry.split_once('=')) {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (entry.to_string(), None),
            })
            .collect(),
        other => {
            return Err(vec![FieldError::new(
                pointer,
                format!("expected a map or a list of KEY=VALUE, but found {}", kind(&other)),
            )]);
        }
    };
    for (key, value) in pairs {
        let at = crate::field::join(pointer, &key);
        match value {
            _ if key.is_empty() || key.contains(['=', '\0']) => {
                errors.push(FieldError::new(at, "a key must not be empty or hold '=' or a NUL byte"));
            }
            None => errors.push(FieldError::new(at, "expected a text, a number or a boolean")),
            Some(value) if value.contains('\0') => errors.push(FieldError::new(at, "must not hold a NUL byte")),
            Some(value) => drop(read.insert(key, value)),
        }
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value) -> Result<ServiceSpec, Vec<FieldError>> {
        ServiceSpec::parse("", None, value, &SpecDefaults::default())
    }

    fn pointers(value: Value) -> Vec<String> {
        parse(value).unwrap_err().into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn the_four_fields_of_the_specification_make_an_external_service() {
        let spec = parse(
            json!({"name": "corerl", "host": "localhost", "port": 8000, "health_endpoint": "/api/corerl/health"}),
        )
        .unwrap();
        assert!(!spec.is_managed());
        let check = spec.health_check.unwrap();
        assert_eq!((check.probe.kind(), check.timing), ("http", CheckTiming::default()));
    }

    #[test]
    fn a_managed_service_with_every_key() {
        let spec = parse(json!({
            "name": "corerl", "runtime": "process", "command": "./corerl --port {port} 'a b'", "environment": {"LOG": "info", "N": 3, "B": true},
            "working_dir": ".", "host": "localhost", "port": 0, "health_endpoint": "/h",
            "health_check": {"interval": 1, "timeout": 0.5, "retries": 3, "start_period": 5}, "restart_policy": "on-failure:2",
            "backoff": {"initial": 0.1, "max": 30, "factor": 2, "jitter": 0.1, "reset_after": 60}, "replicas": 2,
            "depends_on": {"coreio": {"condition": "service_healthy"}}, "stop_signal": "int", "stop_grace_period": "10s",
            "labels": {"line": "a"}, "x-note": [1]
        }))
        .unwrap();
        assert_eq!(spec.command, ["./corerl", "--port", "{port}", "a b"]);
        assert_eq!(spec.environment["N"], "3");
        assert_eq!(spec.stop_signal, Signal::Int);
        assert_eq!(spec.health_check.as_ref().unwrap().timing.start_period, Duration::from_secs(5));
        let back: ServiceSpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(back, spec);
    }

    #[test]
    fn every_error_is_told_at_once() {
        assert_eq!(
            pointers(
                json!({"name": "A", "hots": "x", "port": 70000, "restart_policy": "sometimes", "stop_signal": "SIGFOO", "replicas": -1})
            ),
            ["/name", "/port", "/restart_policy", "/replicas", "/stop_signal", "/hots"]
        );
        assert_eq!(pointers(json!([])), [""]);
        assert_eq!(pointers(json!({})), ["/name"]);
        assert_eq!(pointers(json!({"name": "a"})), ["/port"]);
        assert_eq!(pointers(json!({"name": "a", "port": 1, "command": "x"})), ["/command"]);
        assert_eq!(
            pointers(json!({"name": "a", "runtime": "process", "command": [], "port": 80, "replicas": 2})),
            ["/command", "/port"]
        );
        assert_eq!(pointers(json!({"name": "a", "host": "a b", "port": 1, "command": "'x"})), ["/command", "/host"]);
    }

    #[test]
    fn runtime_options_are_kept_for_the_runtime_and_refused_without_one() {
        assert_eq!(parse(json!({"name": "a", "runtime": "docker", "image": "x"})).unwrap().options["image"], "x");
        assert_eq!(pointers(json!({"name": "a", "port": 1, "image": "x"})), ["/image"]);
    }
}
