//! The JSON Schema that a service declares for its document, evaluated. Pure.
//!
//! A schema comes from outside: it may not name anything outside of itself, and what it costs to evaluate is known before it is
//! evaluated.

mod cost;
mod refs;

use std::collections::HashMap;

use coredinator_core::{FieldError, ServiceSpec, config::without_secrets};
use jsonschema::{PatternOptions, ValidationError, Validator, error::ValidationErrorKind};
use serde_json::{Map, Value};

use super::finding::{Finding, Place, told_once};

/// How often a pattern may go back before it counts as not matched.
const BACKTRACKS: usize = 100_000;
/// The largest compiled pattern, in bytes.
const PATTERN: usize = 1 << 20;

/// Evaluates the schemas of services. The same schema is prepared once.
#[derive(Debug, Default)]
pub struct Schemas {
    prepared: HashMap<String, Result<Validator, Vec<FieldError>>>,
}

impl Schemas {
    /// None prepared yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All that `spec`'s schema has to say about its documents, or that is wrong with the schema, with pointers into the
    /// whole configuration, where services stand under `/services`. Empty, where it declares no schema.
    #[must_use]
    pub fn in_configuration(&mut self, spec: &ServiceSpec, base: &Map<String, Value>) -> Vec<FieldError> {
        let findings = self.findings(spec, base);
        findings.into_iter().map(|finding| finding.in_configuration(&spec.name)).collect()
    }

    /// The same with pointers into the service's own document.
    #[must_use]
    pub fn in_service(&mut self, spec: &ServiceSpec, base: &Map<String, Value>) -> Vec<FieldError> {
        self.findings(spec, base).into_iter().map(Finding::in_service).collect()
    }

    fn findings(&mut self, spec: &ServiceSpec, base: &Map<String, Value>) -> Vec<Finding> {
        let Some(schema) = &spec.config.schema else { return Vec::new() };
        let prepared = self.prepared.entry(schema.to_string()).or_insert_with(|| prepare(schema));
        let validator = match prepared {
            Ok(validator) => validator,
            Err(errors) => {
                let wrong = errors.iter().map(|error| Finding { place: Place::Schema, error: error.clone() });
                return told_once(wrong.collect());
            }
        };
        let mut findings = Vec::new();
        for effective in spec.config.effective(base) {
            let (document, secrets) = without_secrets(&effective.document);
            if !cost::is_affordable(schema, &document) {
                let error = FieldError::new("", "takes too many steps to evaluate with this document");
                let error = error.with_hint("let fewer references lead to the same part of the document");
                findings.push(Finding { place: Place::Schema, error });
                break;
            }
            let errors = validator.iter_errors(&document).flat_map(|error| told(&error, &secrets));
            findings.extend(errors.map(|error| Finding::of(&spec.config, base, effective.replica, error)));
        }
        told_once(findings)
    }
}

/// Makes a schema ready.
///
/// # Errors
/// All that is wrong with it, with pointers into it.
fn prepare(schema: &Value) -> Result<Validator, Vec<FieldError>> {
    let outside = refs::check(schema);
    if !outside.is_empty() {
        return Err(outside);
    }
    let wrong = |error: &ValidationError<'_>| {
        FieldError::new(error.instance_path().as_str(), format!("is no JSON Schema: {error}"))
    };
    // An unknown `$schema` is told when the schema is built.
    let errors: Vec<FieldError> = jsonschema::meta::validator_for(schema)
        .map(|meta| meta.iter_errors(schema).map(|error| wrong(&error)).collect())
        .unwrap_or_default();
    if !errors.is_empty() {
        return Err(errors);
    }
    let patterns = PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS).size_limit(PATTERN);
    let options = jsonschema::options().offline().should_validate_formats(true).with_pattern_options(patterns);
    options.build(schema).map_err(|error| vec![wrong(&error)])
}

/// What the schema has to say, place by place. Of a secret only the type can be told, and values are not repeated: they may be
/// secrets, too, or long.
fn told(error: &ValidationError<'_>, secrets: &[String]) -> Vec<FieldError> {
    let pointer = error.instance_path().as_str();
    if secrets.iter().any(|secret| secret == pointer) && !matches!(error.kind(), ValidationErrorKind::Type { .. }) {
        return Vec::new();
    }
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            let at = |key: &String| coredinator_core::field::join(pointer, key);
            unexpected.iter().map(|key| FieldError::new(at(key), "the service's schema knows no such key")).collect()
        }
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().map_or_else(|| property.to_string(), str::to_owned);
            vec![FieldError::new(pointer, format!("{name:?} is missing, which the service's schema requires"))]
        }
        _ => {
            let text = error.masked_with("the value").to_string();
            vec![FieldError::new(pointer, format!("{text} (the service's schema: {})", error.schema_path().as_str()))]
        }
    }
}

#[cfg(test)]
mod tests;
