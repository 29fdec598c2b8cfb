//! What a container was really asked to be, as people read it.

use bollard::models::{ContainerInspectResponse, HealthStatusEnum};
use coredinator_core::{ProbeReport, redacted, without_nothing};
use serde_json::{Map, Value, json};

/// Parts of a host's configuration that are the engine's constants.
const CONSTANT: [&str; 3] = ["ConsoleSize", "MaskedPaths", "ReadonlyPaths"];

/// An inspected container in the words in which the engine is asked to make one, without what says nothing.
pub(crate) fn asked(inspected: &ContainerInspectResponse) -> Value {
    let config = inspected.config.as_ref().map(|config| json!(config)).unwrap_or_default();
    let Value::Object(mut shown) = config else { return json!({}) };
    if let Some(Value::Array(variables)) = shown.get_mut("Env") {
        for variable in variables {
            let Some((name, value)) = variable.as_str().and_then(|text| text.split_once('=')) else { continue };
            *variable = format!("{name}={}", redacted(name, value)).into();
        }
    }
    if let Some(Value::Object(labels)) = shown.get_mut("Labels") {
        for (name, value) in labels {
            *value = redacted(name, value.as_str().unwrap_or_default()).into();
        }
    }
    let mut host = inspected.host_config.as_ref().map(|host| json!(host)).unwrap_or_default();
    if let Value::Object(host) = &mut host {
        host.retain(|key, _| !CONSTANT.contains(&key.as_str()));
    }
    let networks = inspected.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
    let networks: Vec<&String> = networks.into_iter().flatten().map(|(name, _)| name).collect();
    shown.insert("HostConfig".to_owned(), host);
    shown.insert("Networks".to_owned(), json!(networks));
    shown.insert("Name".to_owned(), json!(inspected.name.as_deref().map(|name| name.trim_start_matches('/'))));
    shown.insert("Id".to_owned(), json!(inspected.id));
    without_nothing(Value::Object(shown)).unwrap_or_else(|| Value::Object(Map::new()))
}

/// What the engine's own checks say; `None`: nothing yet, or there are none.
pub(crate) fn health(inspected: &ContainerInspectResponse) -> Option<ProbeReport> {
    let health = inspected.state.as_ref()?.health.as_ref()?;
    let last = health.log.as_ref().and_then(|log| log.last());
    let said = last.and_then(|check| check.output.as_deref()).map(str::trim).filter(|said| !said.is_empty());
    match health.status? {
        HealthStatusEnum::HEALTHY => Some(ProbeReport::pass(said.unwrap_or("healthy"))),
        HealthStatusEnum::UNHEALTHY => Some(ProbeReport::fail(said.unwrap_or("unhealthy"))),
        HealthStatusEnum::STARTING | HealthStatusEnum::NONE | HealthStatusEnum::EMPTY => None,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerConfig, ContainerState, Health, HealthcheckResult, HostConfig};
    use coredinator_core::Outcome;

    use super::*;

    #[test]
    fn what_was_asked_is_shown_without_secrets_and_constants() {
        let texts = |texts: &[&str]| Some(texts.iter().map(|&text| text.to_owned()).collect());
        let config = ContainerConfig {
            image: Some("a:1".into()),
            env: texts(&["A=b", "API_TOKEN=x", "DB=postgres://me:x@db/x"]),
            tty: Some(false),
            ..ContainerConfig::default()
        };
        let host = HostConfig { masked_paths: texts(&["/proc/x"]), memory: Some(5), ..HostConfig::default() };
        let inspected = ContainerInspectResponse {
            name: Some("/n".into()),
            config: Some(config),
            host_config: Some(host),
            ..ContainerInspectResponse::default()
        };
        let shown = json!({
            "Image": "a:1", "Name": "n", "HostConfig": {"Memory": 5},
            "Env": ["A=b", "API_TOKEN=***", "DB=postgres://me:***@db/x"],
        });
        assert_eq!(asked(&inspected), shown);
        assert_eq!(asked(&ContainerInspectResponse::default()), json!({}));
    }

    #[test]
    fn the_engine_is_believed() {
        let told = |status, output: &str| {
            let log = HealthcheckResult { output: Some(output.into()), ..HealthcheckResult::default() };
            let health = Health { status: Some(status), failing_streak: None, log: Some(vec![log]) };
            let state = ContainerState { health: Some(health), ..ContainerState::default() };
            health_of(state).map(|report| (report.outcome, report.message))
        };
        fn health_of(state: ContainerState) -> Option<ProbeReport> {
            health(&ContainerInspectResponse { state: Some(state), ..ContainerInspectResponse::default() })
        }
        assert_eq!(told(HealthStatusEnum::HEALTHY, "fine\n"), Some((Outcome::Pass, "fine".into())));
        assert_eq!(told(HealthStatusEnum::HEALTHY, ""), Some((Outcome::Pass, "healthy".into())));
        assert_eq!(told(HealthStatusEnum::UNHEALTHY, " no "), Some((Outcome::Fail, "no".into())));
        assert_eq!(told(HealthStatusEnum::STARTING, "no"), None);
        assert_eq!(health_of(ContainerState::default()), None);
    }
}
