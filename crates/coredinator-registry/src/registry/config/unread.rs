//! Stands for the evaluator of schemas where coredinator is built without it.

use coredinator_core::{FieldError, ServiceSpec, field::join};
use serde_json::{Map, Value};

/// Evaluates no schema: who declares one is told so.
#[derive(Debug, Default)]
pub struct Schemas {}

impl Schemas {
    /// There is nothing to prepare.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An error, where `spec` declares a schema, with a pointer into the whole configuration.
    #[must_use]
    pub fn in_configuration(&mut self, spec: &ServiceSpec, _: &Map<String, Value>) -> Vec<FieldError> {
        unread(spec).into_iter().map(|error| error.under(&join("/services", spec.name.as_str()))).collect()
    }

    /// The same with a pointer into the service's own document.
    #[must_use]
    pub fn in_service(&mut self, spec: &ServiceSpec, _: &Map<String, Value>) -> Vec<FieldError> {
        unread(spec)
    }
}

fn unread(spec: &ServiceSpec) -> Vec<FieldError> {
    if spec.config.schema.is_none() {
        return Vec::new();
    }
    let error =
        FieldError::new("/config_schema", "this program was built without JSON Schema, so nothing would be checked");
    vec![error.with_hint("build it with the feature json-schema, or leave the schema out")]
}
