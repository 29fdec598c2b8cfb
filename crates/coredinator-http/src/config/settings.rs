//! coredinator's own settings, and the layers from which they come: defaults, file, environment, flags.

use figment::{
    Figment, Metadata, Profile, Provider, Source,
    value::{Dict, Map as FigmentMap, Value as FigmentValue},
};
use serde_json::{Map, Value};

use coredinator_core::field::nearest;

use super::{
    problem::{Origin, Problem},
    validator,
};

/// How an environment variable's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Flag,
}

/// The settings that can be given in every layer: the path below `coredinator`, and its kind.
const SETTINGS: &[(&[&str], Kind)] = &[
    (&["host"], Kind::Text),
    (&["port"], Kind::Number),
    (&["data_dir"], Kind::Text),
    (&["database_url"], Kind::Text),
    (&["detach"], Kind::Flag),
    (&["node"], Kind::Text),
    (&["advertise"], Kind::Text),
    (&["leadership", "lease"], Kind::Text),
    (&["leadership", "renew_deadline"], Kind::Text),
    (&["leadership", "retry"], Kind::Text),
    (&["health_check", "interval"], Kind::Text),
    (&["health_check", "timeout"], Kind::Text),
    (&["health_check", "retries"], Kind::Number),
    (&["health_check", "success_threshold"], Kind::Number),
    (&["health_check", "start_period"], Kind::Text),
    (&["health_check", "start_interval"], Kind::Text),
    (&["health_check", "jitter"], Kind::Number),
    (&[validator::KEY, "url"], Kind::Text),
    (&[validator::KEY, "timeout"], Kind::Text),
    (&[validator::KEY, "on_unreachable"], Kind::Text),
];

/// The keys below `coredinator` that are settings; the other keys belong to the file alone.
pub(super) const KEYS: [&str; 10] = [
    "host",
    "port",
    "data_dir",
    "database_url",
    "detach",
    "node",
    "advertise",
    "leadership",
    "health_check",
    validator::KEY,
];

/// What starts the names of coredinator's variables.
const PREFIX: &str = "COREDINATOR_";
/// The words after [`PREFIX`] of the command line's own variables, and of those that services are given.
const NOT_SETTINGS: &[&str] = &[
    "ADDR",
    "TOKEN",
    "TOKEN_FILE",
    "NAMESPACE",
    "CONTEXT",
    "CONFIG",
    "CACERT",
    "CLIENT_CERT",
    "CLIENT_KEY",
    "OUTPUT",
    "LOG",
    "LOG_FORMAT",
    "SERVICE",
    "INSTANCE_ID",
    "REPLICA",
    "REVISION",
    "CONFIG_FILE",
    "URL",
];

/// The variable that sets a setting: `COREDINATOR_HEALTH_CHECK__INTERVAL`.
fn variable(path: &[&str]) -> String {
    format!("{PREFIX}{}", path.join("__").to_uppercase())
}

/// Values of one origin.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    origin: Origin,
    values: Map<String, Value>,
}

impl Layer {
    pub(super) fn new(origin: Origin, values: Map<String, Value>) -> Self {
        Self { origin, values }
    }

    /// A layer of a single value.
    pub(super) fn one(origin: Origin, path: &[&str], value: Value) -> Self {
        let nested = path
            .iter()
            .skip(1)
            .rev()
            .fold(value, |value, key| Value::Object([((*key).to_owned(), value)].into_iter().collect()));
        let values = path.iter().take(1).map(|key| ((*key).to_owned(), nested.clone())).collect();
        Self { origin, values }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let (kind, name) = match &self.origin {
            Origin::Default => ("default", String::new()),
            Origin::File { file, .. } => ("file", file.clone()),
            Origin::Environment(name) => ("environment", name.clone()),
            Origin::Flag(name) => ("flag", name.clone()),
        };
        Metadata::from(kind, Source::Custom(name))
    }

    fn data(&self) -> Result<FigmentMap<Profile, Dict>, figment::Error> {
        let dict = match FigmentValue::serialize(&self.values)? {
            FigmentValue::Dict(_, dict) => dict,
            _ => Dict::new(),
        };
        Ok(FigmentMap::from([(Profile::Default, dict)]))
    }
}

/// The settings of the environment, as layers in rising precedence, and what is doubtful about it.
pub(super) fn from_environment(variables: &[(String, String)]) -> (Vec<Layer>, Vec<Problem>) {
    let mut layers = Vec::new();
    let mut warnings = Vec::new();
    let known: Vec<String> = SETTINGS.iter().map(|(path, _)| variable(path)).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    if let Some((name, url)) = variables.iter().find(|(name, value)| name == "DATABASE_URL" && !value.is_empty()) {
        layers.push(Layer::one(Origin::Environment(name.clone()), &["database_url"], url.clone().into()));
    }
    for (name, text) in variables.iter().filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty()) {
        let origin = Origin::Environment(name.clone());
        if name == "COREDINATOR_PORT" && text.contains("://") {
            // Kubernetes gives this to every container beside a Kubernetes service that is called coredinator.
            let detail = format!("{text:?} is an address of Kubernetes' making, not a port: passed over");
            warnings.push(Problem::new(
                origin,
                "",
                detail,
                Some("set enableServiceLinks: false in the pod".to_owned()),
            ));
        } else if let Some((path, kind)) = SETTINGS.iter().find(|(path, _)| variable(path) == *name) {
            layers.push(Layer::one(origin, path, read(*kind, text)));
        } else if let Some(near) = nearest(name, &known).filter(|_| !NOT_SETTINGS.contains(&&name[PREFIX.len()..])) {
            warnings.push(Problem::new(
                origin,
                "",
                "unknown variable: passed over",
                Some(format!("did you mean {near}?")),
            ));
        }
    }
    (layers, warnings)
}

/// A variable's text as the value it means; text that is not of its kind stays text, which the reader then refuses.
fn read(kind: Kind, text: &str) -> Value {
    let parsed = match kind {
        Kind::Text => None,
        Kind::Number | Kind::Flag => serde_json::from_str(text.trim()).ok(),
    };
    parsed.filter(|value: &Value| value.is_number() || value.is_boolean()).unwrap_or_else(|| text.into())
}

/// The layers, merged.
#[derive(Debug)]
pub(super) struct Merged {
    figment: Figment,
}

impl Merged {
    /// Merges layers of rising precedence.
    pub(super) fn new(layers: Vec<Layer>) -> Self {
        Self { figment: layers.into_iter().fold(Figment::new(), Figment::merge) }
    }

    /// The merged settings.
    ///
    /// # Errors
    /// Figment's, where a layer could not be read.
    pub(super) fn values(&self) -> Result<Map<String, Value>, Box<figment::Error>> {
        self.figment.extract().map_err(Box::new)
    }

    /// Where the setting at `pointer`, which is relative to the settings, was set last. Of a file the position is not known
    /// here.
    pub(super) fn origin(&self, pointer: &str) -> Origin {
        let wanted = pointer.trim_start_matches('/').replace('/', ".");
        let mut path = wanted.clone();
        loop {
            match self.figment.find_value(&path) {
                // A section that is silent on the key.
                Ok(FigmentValue::Dict(..)) if path != wanted => return Origin::Default,
                Ok(value) => return self.figment.get_metadata(value.tag()).map_or(Origin::Default, origin),
                // A value that is no section, and so answers for all that is asked below it.
                Err(_) => match path.rfind('.') {
                    Some(dot) => path.truncate(dot),
                    None => return Origin::Default,
                },
            }
        }
    }
}

fn origin(metadata: &Metadata) -> Origin {
    let name = metadata.source.as_ref().and_then(Source::custom).unwrap_or_default().to_owned();
    match metadata.name.as_ref() {
        "file" => Origin::File { file: name, position: None },
        "environment" => Origin::Environment(name),
        "flag" => Origin::Flag(name),
        _ => Origin::Default,
    }
}
