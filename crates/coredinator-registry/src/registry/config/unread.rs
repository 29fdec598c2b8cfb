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

#[cfg(test)]
mod tests {
    use coredinator_core::SpecDefaults;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_schema_is_refused_with_its_place_and_nothing_else_is() {
        let spec = |more: Value| {
            let mut document = json!({"port": 1, "config": {}});
            document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            ServiceSpec::parse("", Some("a"), document, &SpecDefaults::default()).unwrap()
        };
        let none = Map::new();
        assert_eq!(Schemas::new().in_configuration(&spec(json!({})), &none), []);
        for schema in [json!(true), json!({})] {
            let spec = spec(json!({"config_schema": schema}));
            let told = Schemas::new().in_configuration(&spec, &none);
            assert_eq!(told[0].pointer, "/services/a/config_schema");
            assert!(told[0].hint.as_deref().is_some_and(|hint| hint.contains("json-schema")), "{told:?}");
            assert_eq!(Schemas::new().in_service(&spec, &none)[0].pointer, "/config_schema");
        }
    }
}
