//! Files that hold services alone.

use std::collections::BTreeMap;

use coredinator_core::{FieldError, ServiceSpec, SpecDefaults};
use serde_json::Value;

use super::{Checks, Input, LoadError, Loader, Problem, reading::place, schema_file, text::Text};

/// What one file says of the configuration: some services, and the sections that it mentions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// The services.
    pub services: Vec<ServiceSpec>,
    /// The sections, written out.
    pub sections: BTreeMap<String, Value>,
}

/// Reads a file that may be one of several: what it depends on may stand in another.
///
/// # Errors
/// As [`Loader::load`].
pub fn load_part(input: Input, environment: Vec<(String, String)>, checks: Checks<'_>) -> Result<Part, LoadError> {
    let Some(text) = Text::read(&input)? else { return Ok(Part::default()) };
    let root = text.parse(&environment)?.value();
    if !["coredinator", "alerts"].iter().any(|key| root.get(key).is_some()) {
        return Ok(Part { services: load_services(input, environment, checks)?, sections: BTreeMap::new() });
    }
    // Of the environment only the variables in the file: settings are not asked for here.
    let variables = environment.into_iter().filter(|(name, _)| !name.starts_with("COREDINATOR_"));
    let loaded = Loader::new().input(input).environment(variables).checks(checks).part().load()?;
    let said = |section: &str| match section {
        "alerts" => loaded.says("/alerts"),
        other => loaded.says(&format!("/coredinator/{other}")),
    };
    let mut live = loaded.config.live();
    live.sections.retain(|section, _| said(section));
    Ok(Part { services: loaded.config.services, sections: live.sections })
}

/// Reads the services of a file: of a whole configuration, or one service with its `name`, or a list of such.
///
/// # Errors
/// As [`Loader::load`].
pub fn load_services(
    input: Input,
    environment: Vec<(String, String)>,
    checks: Checks<'_>,
) -> Result<Vec<ServiceSpec>, LoadError> {
    let Some(text) = Text::read(&input)? else { return Ok(Vec::new()) };
    let document = text.parse(&environment)?;
    let root = document.value();
    if root.get("coredinator").is_some() {
        return Ok(Loader::new().input(input).environment(environment).checks(checks).load()?.config.services);
    }
    let documents: Vec<(String, Value)> = match root {
        Value::Array(list) => list.into_iter().enumerate().map(|(i, value)| (format!("/{i}"), value)).collect(),
        one => vec![(String::new(), one)],
    };
    let (mut services, mut errors) = (Vec::new(), Vec::new());
    for (pointer, mut value) in documents {
        if value.is_null() {
            let error = FieldError::new(pointer, "the file is empty");
            errors.push(error.with_hint("a service has at least a name, and a port or a command"));
            continue;
        }
        errors.extend(schema_file::read_in_place(&pointer, &mut value, text.folder()));
        match ServiceSpec::parse(&pointer, None, value, &SpecDefaults::default()) {
            Ok(mut spec) => {
                errors.extend(checks.of(&pointer, &spec));
                place(&mut spec, text.folder());
                services.push(spec);
            }
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() {
        return Ok(services);
    }
    let problem = |error: FieldError| -> Problem { text.problem(&document, error) };
    Err(LoadError::Invalid(errors.into_iter().map(problem).collect()))
}
