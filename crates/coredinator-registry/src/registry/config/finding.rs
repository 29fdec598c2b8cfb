//! What is to be said of a service's document, and where that stands for whoever wrote its layers.

use coredinator_core::{FieldError, ServiceConfig, ServiceName, config::Layer, field::join};
use serde_json::{Map, Value};

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::registry) enum Place {
    /// The schema itself.
    #[cfg_attr(not(feature = "json-schema"), expect(dead_code, reason = "without it no schema is read"))]
    Schema,
    /// A layer of the document.
    Layer(Layer),
}

/// Something that is to be said of a service's document; the pointer is into what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::registry) struct Finding {
    pub(in crate::registry) place: Place,
    pub(in crate::registry) error: FieldError,
}

/// The most findings that are told of one service.
const MOST: usize = 100;

impl Finding {
    /// A finding about a place of the document of `replica`.
    pub(in crate::registry) fn of(
        config: &ServiceConfig,
        base: &Map<String, Value>,
        replica: Option<u32>,
        error: FieldError,
    ) -> Self {
        Self { place: Place::Layer(config.layer_at(base, replica, &error.pointer)), error }
    }

    /// The same seen from the whole configuration, where services stand under `/services`.
    pub(in crate::registry) fn in_configuration(self, service: &ServiceName) -> FieldError {
        let Self { place, mut error } = self;
        if place == Place::Layer(Layer::Base) {
            error.detail = format!("{}, in the document of service {service}", error.detail);
            return error.under("/config");
        }
        let service = join("/services", service.as_str());
        Self { place, error }.in_service().under(&service)
    }

    /// The same seen from the service's own document. What the base says is not in it; the service's layer stands for it.
    pub(in crate::registry) fn in_service(self) -> FieldError {
        match self.place {
            Place::Schema => self.error.under("/config_schema"),
            Place::Layer(Layer::Service) => self.error.under("/config"),
            Place::Layer(Layer::Replica(replica)) => self.error.under(&format!("/config_overrides/{replica}")),
            Place::Layer(Layer::Base) => {
                let mut error = self.error.under("/config");
                error.hint.get_or_insert_with(|| "the base, coredinator.config, says it".to_owned());
                error
            }
        }
    }
}

/// Takes out what is said twice (of several replicas whose documents share a layer), and what is too much.
pub(in crate::registry) fn told_once(findings: Vec<Finding>) -> Vec<Finding> {
    let mut told: Vec<Finding> = Vec::new();
    for finding in findings {
        if told.len() < MOST && !told.contains(&finding) {
            told.push(finding);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_finding_is_told_where_it_was_written() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let base = object(json!({"plant": "north"}));
        let config = ServiceConfig {
            layer: Some(object(json!({"rate": 1}))),
            overrides: [(1, object(json!({"rate": 2})))].into(),
            ..ServiceConfig::default()
        };
        let name = ServiceName::new("a").unwrap();
        for (replica, pointer, whole, own) in [
            (None, "/rate", "/services/a/config/rate", "/config/rate"),
            (Some(1), "/rate", "/services/a/config_overrides/1/rate", "/config_overrides/1/rate"),
            (None, "/plant", "/config/plant", "/config/plant"),
            (None, "", "/services/a/config", "/config"),
        ] {
            let finding = Finding::of(&config, &base, replica, FieldError::new(pointer, "is wrong"));
            assert_eq!(finding.clone().in_configuration(&name).pointer, whole);
            assert_eq!(finding.in_service().pointer, own);
        }
        let of_base = Finding::of(&config, &base, None, FieldError::new("/plant", "is wrong"));
        assert_eq!(of_base.clone().in_configuration(&name).detail, "is wrong, in the document of service a");
        assert_eq!(told_once(vec![of_base.clone(), of_base]).len(), 1);
    }
}
