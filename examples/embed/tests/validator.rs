//! A judge of configuration documents of one's own, inside the program that coredinator runs in.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use coredinator_core::{
    ConfigCandidate, ConfigValidator, ConfigValidatorError, ConfigVerdict, FieldError, Origin, ServiceSpec,
    SpecDefaults,
};
use coredinator_http::{
    ConfigValidation, Coredinator, OnUnreachable, Shutdown,
    config::{Loader, Overrides},
};
use serde_json::json;

/// Takes documents that name a plant.
struct Named;

#[async_trait]
impl ConfigValidator for Named {
    async fn validate(&self, candidate: &ConfigCandidate) -> Result<ConfigVerdict, ConfigValidatorError> {
        let named = candidate.document.get("plant").is_some_and(|plant| plant.is_string());
        let errors = if named { Vec::new() } else { vec![FieldError::new("/plant", "which plant is it?")] };
        Ok(ConfigVerdict { errors, warnings: Vec::new() })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_asked_about_what_is_declared() {
    let folder = tempfile::tempdir().unwrap();
    let flags = Overrides { port: Some(0), data_dir: Some(folder.path().to_owned()), ..Overrides::default() };
    let config = Loader::new().overrides(flags).load().unwrap().config;
    let validator = Arc::new(Named);
    let validation =
        ConfigValidation { validator, timeout: Duration::from_secs(30), on_unreachable: OnUnreachable::Refuse };
    let running = Coredinator::new(config).config_validation(validation).start().await.unwrap();
    let declare = async |document: serde_json::Value| {
        let service = json!({"name": "rl", "port": 1, "config": document});
        let spec = ServiceSpec::parse("", None, service, &SpecDefaults::default()).unwrap();
        running.registry().declare(spec, Origin::Api, true).await.map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(declare(json!({})).await, Err("invalid: /config/plant: which plant is it?".to_owned()));
    assert_eq!(declare(json!({"plant": "north"})).await, Ok(()));
    running.stop(Shutdown::StopServices, tokio_util::sync::CancellationToken::new()).await;
}
