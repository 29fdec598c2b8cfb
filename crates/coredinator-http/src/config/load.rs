//! From texts, variables and flags to a configuration.

use std::path::PathBuf;

use coredinator_core::FieldError;
use serde_json::{Map, Value};

use super::{
    Config, LoadError, Origin, Problem,
    checks::Checks,
    origins::{Origins, SECTION},
    reading::Reading,
    redact,
    settings::{self, Layer, Merged},
    text::{Input, Text},
};

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
        let folder = text.as_ref().map_or_else(PathBuf::new, |text| text.folder().to_owned());
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
