//! Health: what is checked, how often, and what the answers mean.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    FieldError,
    duration::Seconds,
    field::{FieldReader, join, kind},
    text,
};

/// What the probes of one instance, through hysteresis, say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// It passes.
    Healthy,
    /// It passes with a warning, or failed fewer times in a row than make it unhealthy. Still in discovery.
    Degraded,
    /// Not (or not yet) known: never checked, or the check could not be carried out. Not in discovery.
    #[default]
    Unknown,
    /// It failed `retries` times in a row. Not in discovery; with a restart policy it is restarted.
    Unhealthy,
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unknown => "unknown",
            Self::Unhealthy => "unhealthy",
        })
    }
}

/// When a check is made and how many answers it takes to change one's mind.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CheckTiming {
    /// From the start of one check to the start of the next.
    #[serde(with = "crate::duration")]
    pub interval: Duration,
    /// A check that has not answered by then has failed.
    #[serde(with = "crate::duration")]
    pub timeout: Duration,
    /// Failures in a row that make an instance unhealthy; at least 1.
    pub retries: u32,
    /// Passes in a row that make an unhealthy instance healthy again; at least 1. One is enough for a new one.
    pub success_threshold: u32,
    /// After the start of an instance, failures do not count for this long (or until the first pass).
    #[serde(with = "crate::duration")]
    pub start_period: Duration,
    /// The interval during the start period.
    #[serde(with = "crate::duration")]
    pub start_interval: Duration,
    /// The share of the interval by which checks are spread at random, 0 to 1. 0 is none.
    pub jitter: f64,
}

impl Default for CheckTiming {
    /// Every 30 s, 10 s for an answer, 3 failures, as the specification's `health_check` section; 1 pass, no start
    /// period, 1 s while starting, 10 % jitter.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
            retries: 3,
            success_threshold: 1,
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(1),
            jitter: 0.1,
        }
    }
}

impl CheckTiming {
    /// Takes the timing keys out of `reader`; absent ones are as in `base`.
    fn read(reader: &mut FieldReader, base: &Self) -> Self {
        let seconds = |reader: &mut FieldReader, key, base| reader.or(key, Seconds(base)).0;
        let interval = seconds(reader, "interval", base.interval);
        let read = Self {
            interval,
            timeout: seconds(reader, "timeout", base.timeout),
            retries: reader.or("retries", base.retries),
            success_threshold: reader.or("success_threshold", base.success_threshold),
            start_period: seconds(reader, "start_period", base.start_period),
            start_interval: seconds(reader, "start_interval", base.start_interval.min(interval)),
            jitter: reader.or("jitter", base.jitter),
        };
        for (key, value) in
            [("interval", read.interval), ("timeout", read.timeout), ("start_interval", read.start_interval)]
        {
            if value < Duration::from_millis(1) {
                reader.error(key, format!("must be at least 1 ms, but is {value:?}"));
            }
        }
        for (key, value) in [("retries", read.retries), ("success_threshold", read.success_threshold)] {
            if value == 0 {
                reader.error(key, "must be at least 1, but is 0");
            }
        }
        if !(0.0..=1.0).contains(&read.jitter) {
            reader.error("jitter", format!("must be between 0 and 1, but is {}", read.jitter));
        }
        read
    }

    /// Reads a `health_check` section that holds timing alone, as the specification's global one.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(pointer: &str, value: Value, base: &Self) -> Result<Self, Vec<FieldError>> {
        let mut reader = FieldReader::new(pointer, value);
        let read = Self::read(&mut reader, base);
        reader.finish(|| read)
    }
}

/// An inclusive range of HTTP status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "String")]
pub struct StatusRange {
    /// The lowest code that passes.
    pub from: u16,
    /// The highest code that passes.
    pub to: u16,
}

impl StatusRange {
    /// 2xx and 3xx: what passes unless something else is expected.
    pub const DEFAULT: Self = Self { from: 200, to: 399 };

    /// Whether `status` lies in it.
    #[must_use]
    pub fn contains(self, status: u16) -> bool {
        (self.from..=self.to).contains(&status)
    }
}

impl TryFrom<Value> for StatusRange {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let text = match &value {
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.clone(),
            other => return Err(format!("expected a status such as 204 or \"200-299\", but found {}", kind(other))),
        };
        let (from, to) = text.split_once('-').unwrap_or((&text, &text));
        match (from.trim().parse(), to.trim().parse()) {
            (Ok(from), Ok(to)) if 100 <= from && from <= to && to <= 599 => Ok(Self { from, to }),
            _ => Err(format!("expected a status such as 204 or \"200-299\", but found {text:?}")),
        }
    }
}

impl From<StatusRange> for String {
    fn from(range: StatusRange) -> Self {
        if range.from == range.to { range.from.to_string() } else { format!("{}-{}", range.from, range.to) }
    }
}

/// How an HTTP check asks and what it expects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HttpCheck {
    /// The path (with query) asked for; starts with `/`.
    pub path: String,
    /// Headers sent with the request.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The status codes that pass; 429 warns unless it is among them.
    pub expected_status: Vec<StatusRange>,
    /// Headers that the answer must have, with exactly these values (names without case).
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub expected_headers: BTreeMap<String, String>,
    /// A text that the first 64 KiB of the answer's body must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_body: Option<String>,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(into = "WrittenProbe")]
pub enum ProbeSpec {
    /// Asks `http://host:port/path`.
    Http(HttpCheck),
    /// Connects to `host:port`.
    Tcp,
    /// Runs a command: exit 0 passes, 1 warns, anything else fails.
    Command {
        /// The program and its arguments; `{host}` and `{port}` are expanded.
        command: Vec<String>,
        /// Whether it runs beside coredinator. `false`: inside the instance, with what the service's own program finds there.
        /// That of an external service, or one whose runtime cannot run commands inside, runs beside coredinator in any case.
        beside: bool,
    },
    /// Nothing is asked: what runs the instance checks it by itself, such as Docker by a `HEALTHCHECK`, and that is believed.
    Native,
    /// Nothing is asked: the service itself says that it lives.
    Heartbeat {
        /// Silence for longer than this is a failure.
        ttl: Duration,
    },
    /// A probe that a plugin registered under `kind`.
    Custom {
        /// The plugin's name for it.
        kind: String,
        /// What the plugin's probe is told.
        options: Map<String, Value>,
    },
}

/// A probe as a section spells it.
#[derive(Serialize)]
struct WrittenProbe {
    kind: String,
    #[serde(flatten)]
    http: Option<HttpCheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    beside: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<Seconds>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    options: Map<String, Value>,
}

impl From<ProbeSpec> for WrittenProbe {
    fn from(spec: ProbeSpec) -> Self {
        let kind = spec.kind().to_owned();
        let mut written = Self { kind, http: None, command: None, beside: false, ttl: None, options: Map::new() };
        match spec {
            ProbeSpec::Http(check) => written.http = Some(check),
            ProbeSpec::Tcp | ProbeSpec::Native => {}
            ProbeSpec::Command { command, beside } => {
                (written.command, written.beside) = (Some(command), beside);
            }
            ProbeSpec::Heartbeat { ttl } => written.ttl = Some(Seconds(ttl)),
            ProbeSpec::Custom { options, .. } => written.options = options,
        }
        written
    }
}

impl ProbeSpec {
    /// The name under which the [`HealthProbe`](crate::HealthProbe) for this is registered.
    #[must_use]
    pub fn kind(&self) -> &str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp => "tcp",
            Self::Command { .. } => "command",
            Self::Native => "native",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Custom { kind, .. } => kind,
        }
    }
}

/// A check of a service's instances: what is asked, and when.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HealthCheck {
    /// What is asked.
    #[serde(flatten)]
    pub probe: ProbeSpec,
    /// When, and what it takes to change one's mind.
    #[serde(flatten)]
    pub timing: CheckTiming,
}

impl HealthCheck {
    /// Reads a `health_check` section: `base` is the timing and `fallback` the probe where the section is silent.
    ///
    /// The kind of probe follows from what is there: `command`, `ttl`, or `path`; `kind` says it outright, and is needed
    /// for `tcp`, `native` and for a plugin's probe alone. A `native` one is believed at once: its `retries` are 1, not those
    /// of `base`.
    ///
    /// # Errors
    /// All that is wrong with it. `Ok(None)`: it disables checking, or there is nothing to ask.
    pub fn parse(
        pointer: &str,
        value: Value,
        fallback: &Fallback<'_>,
        base: &CheckTiming,
    ) -> Result<Option<Self>, Vec<FieldError>> {
        let mut reader = FieldReader::new(pointer, value);
        let written = reader.has("retries");
        let mut timing = CheckTiming::read(&mut reader, base);
        let disabled = reader.or("disable", false);
        let probe = read_probe(&mut reader, fallback);
        if probe == Some(ProbeSpec::Native) && !written {
            // Whoever checks has counted failures already.
            timing.retries = 1;
        }
        reader.finish(|| probe.filter(|_| !disabled).map(|probe| Self { probe, timing }))
    }
}

/// What is asked where a section does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fallback<'a> {
    /// The service's `health_endpoint`.
    Endpoint(&'a str),
    /// Whether it accepts connections.
    Tcp,
    /// Nothing.
    Nothing,
}

fn read_probe(reader: &mut FieldReader, fallback: &Fallback<'_>) -> Option<ProbeSpec> {
    let kind_given: Option<String> = reader.optional("kind");
    let path: Option<String> = reader.optional("path").or_else(|| match fallback {
        Fallback::Endpoint(path) => Some((*path).to_owned()),
        Fallback::Tcp | Fallback::Nothing => None,
    });
    let command = reader.parsed("command", text::command);
    let beside = reader.or("beside", false);
    let ttl: Option<Seconds> = reader.optional("ttl");
    let http = read_http(reader, path.clone());
    let kind = kind_given.unwrap_or_else(|| {
        match (&command, ttl, &path) {
            (Some(_), ..) => "command",
            (None, Some(_), _) => "heartbeat",
            (None, None, Some(_)) => "http",
            (None, None, None) if *fallback == Fallback::Tcp => "tcp",
            (None, None, None) => "none",
        }
        .to_owned()
    });
    match kind.as_str() {
        "none" => None,
        "http" => {
            if path.is_none() {
                reader.error("path", "an http check needs a path (or the service a health_endpoint)");
            }
            Some(ProbeSpec::Http(http))
        }
        "tcp" => Some(ProbeSpec::Tcp),
        "command" => {
            if command.is_none() {
                reader.error("command", "a command check needs a command");
            }
            command.map(|command| ProbeSpec::Command { command, beside })
        }
        "native" => Some(ProbeSpec::Native),
        "heartbeat" => {
            let ttl = ttl.map_or(Duration::from_secs(30), |s| s.0);
            if ttl < Duration::from_millis(10) {
                reader.error("ttl", format!("must be at least 10 ms, but is {} s", ttl.as_secs_f64()));
            }
            Some(ProbeSpec::Heartbeat { ttl })
        }
        _ => {
            let options = reader.or("options", Map::new());
            Some(ProbeSpec::Custom { kind, options })
        }
    }
}

fn read_http(reader: &mut FieldReader, path: Option<String>) -> HttpCheck {
    let path = path.unwrap_or_else(|| "/".to_owned());
    if let Err(error) = text::check_path(&path) {
        reader.error("path", error);
    }
    let expected_status = reader.parsed("expected_status", |pointer, value| {
        let list = match value {
            Value::Array(list) => list,
            one => vec![one],
        };
        let read = list.into_iter().enumerate().map(|(i, value)| {
            StatusRange::try_from(value).map_err(|detail| FieldError::new(join(pointer, &i.to_string()), detail))
        });
        let (good, bad): (Vec<_>, Vec<_>) = read.partition(Result::is_ok);
        if bad.is_empty() {
            Ok(good.into_iter().flatten().collect())
        } else {
            Err(bad.into_iter().filter_map(Result::err).collect())
        }
    });
    HttpCheck {
        path,
        headers: reader.or("headers", BTreeMap::new()),
        expected_status: expected_status
            .filter(|list: &Vec<_>| !list.is_empty())
            .unwrap_or_else(|| vec![StatusRange::DEFAULT]),
        expected_headers: reader.or("expected_headers", BTreeMap::new()),
        expected_body: reader.optional("expected_body"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: Value, endpoint: Option<&str>) -> Result<Option<HealthCheck>, Vec<FieldError>> {
        let fallback = endpoint.map_or(Fallback::Nothing, Fallback::Endpoint);
        HealthCheck::parse("/health_check", value, &fallback, &CheckTiming::default())
    }

    #[test]
    fn the_kind_follows_from_what_is_there() {
        let kind = |value, endpoint| parse(value, endpoint).unwrap().map(|check| check.probe.kind().to_owned());
        assert_eq!(kind(json!({}), None), None);
        assert_eq!(kind(json!({}), Some("/health")).as_deref(), Some("http"));
        assert_eq!(kind(json!({"path": "/x"}), None).as_deref(), Some("http"));
        assert_eq!(kind(json!({"command": "true"}), Some("/h")).as_deref(), Some("command"));
        assert_eq!(kind(json!({"ttl": 5}), None).as_deref(), Some("heartbeat"));
        assert_eq!(kind(json!({"kind": "tcp"}), Some("/h")).as_deref(), Some("tcp"));
        assert_eq!(kind(json!({"kind": "opcua", "options": {"node": 1}}), None).as_deref(), Some("opcua"));
        assert_eq!(kind(json!({"disable": true}), Some("/h")), None);
    }

    #[test]
    fn nonsense_is_refused_field_by_field() {
        let bad = json!({"interval": 0, "timeout": "x", "retries": 0, "jitter": 7, "path": "h", "expected_status": [99, "2-1"], "intervall": 1});
        let mut pointers: Vec<_> = parse(bad, None).unwrap_err().into_iter().map(|e| e.pointer).collect();
        pointers.sort();
        assert_eq!(
            pointers,
            [
                "expected_status/0",
                "expected_status/1",
                "interval",
                "intervall",
                "jitter",
                "path",
                "retries",
                "start_interval",
                "timeout"
            ]
            .map(|key| format!("/health_check/{key}"))
        );
    }

    #[test]
    fn a_written_check_reads_back_as_itself() {
        for value in [
            json!({"path": "/h", "expected_status": ["200-299", 404], "expected_headers": {"a": "b"}, "expected_body": "ok"}),
            json!({"kind": "tcp"}),
            json!({"command": ["a", "b c"], "interval": "250ms"}),
            json!({"command": ["a"], "beside": true}),
            json!({"kind": "native"}),
            json!({"kind": "native", "retries": 2}),
            json!({"ttl": 2.5}),
            json!({"kind": "own", "options": {"a": [1]}}),
        ] {
            let check = parse(value, None).unwrap().unwrap();
            assert_eq!(parse(serde_json::to_value(&check).unwrap(), None).unwrap(), Some(check));
        }
    }
}
