//! The API's description: the one in the repository is the one that the code makes, and it is true.

use std::collections::BTreeSet;

use coredinator_core::{
    Event, InstanceState, Reason, Revision, ServiceName, ServiceSpec, ServiceStatus, Severity, Timestamp,
};
use coredinator_http::api::openapi;
use serde_json::Value;

use crate::support::Plant;

fn description() -> Value {
    serde_json::to_value(openapi()).unwrap()
}

fn words(schema: &Value) -> BTreeSet<String> {
    schema["enum"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

fn keys(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn the_description_in_the_repository_is_that_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let made = openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(kept == made, "openapi.json is not what the code makes; UPDATE_GOLDEN=1 writes it anew");
}

#[test]
fn what_is_described_for_the_contracts_types_is_theirs() {
    let schemas = &description()["components"]["schemas"];
    let document: BTreeSet<String> = ServiceSpec::KEYS.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(keys(&schemas["ServiceDocument"]), document);
    let statuses = ServiceStatus::ALL.iter().map(|status| status.as_str().to_owned()).collect();
    assert_eq!(words(&schemas["ServiceStatus"]), statuses);
    for word in words(&schemas["InstanceState"]) {
        assert!(serde_json::from_value::<InstanceState>(word.into()).is_ok());
    }
    let event = Event {
        id: 1,
        at: Timestamp::UNIX_EPOCH,
        service: ServiceName::new("a").unwrap(),
        replica: Some(0),
        instance: coredinator_core::InstanceId::new("a-0").ok(),
        severity: Severity::Normal,
        reason: Reason::new("Code", "message"),
        revision: Revision(1),
    };
    let event = serde_json::to_value(event).unwrap();
    assert_eq!(keys(&schemas["Event"]), event.as_object().unwrap().keys().cloned().collect());
}

#[test]
fn a_service_has_every_key_that_is_promised() {
    let schemas = &description()["components"]["schemas"];
    let all = |schema: &str, promised: &[&str]| {
        let described = keys(&schemas[schema]);
        for key in promised {
            assert!(described.contains(*key), "{schema} lacks {key}");
        }
    };
    let service = "name status reason host port health_endpoint restart_policy runtime replicas labels version \
                   last_health_check response_time_ms next_restart_at instances";
    all("Service", &service.split_whitespace().collect::<Vec<_>>());
    all("Instance", &["id", "state", "pid", "host", "port", "started_at", "uptime_seconds", "restarts", "last_exit"]);
    all("LastExit", &["code", "signal", "at"]);
}

#[tokio::test]
async fn every_path_that_is_described_is_there_and_no_other_method() {
    let plant = Plant::new().await;
    let description = description();
    for (path, methods) in description["paths"].as_object().unwrap() {
        let asked = path.replace("{service_id}", "nobody");
        let described: BTreeSet<&str> = methods.as_object().unwrap().keys().map(String::as_str).collect();
        for method in ["get", "post", "put", "delete", "patch"] {
            // A stream would not end by itself.
            let asked = if path.ends_with("/events") { format!("{asked}?limit=0") } else { asked.clone() };
            let answer = plant.ask(&method.to_uppercase(), &asked, None).await;
            if described.contains(method) {
                let status = answer.status.as_u16().to_string();
                assert!(methods[method]["responses"].get(&status).is_some(), "{method} {path} answered {status}");
            } else if path.ends_with("/register") && ["get", "delete"].contains(&method) {
                // The same path, taken for a service's name.
                answer.problem(404, "NotFound");
            } else {
                answer.problem(405, "MethodNotAllowed");
                assert!(!answer.header("allow").is_empty(), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_description_and_its_page_are_served() {
    let plant = Plant::new().await;
    let served = plant.get("/openapi.json").await;
    assert_eq!((served.status.as_u16(), served.json()), (200, description()));
    assert!(served.json()["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(plant.get("/docs/").await.status, 200);
    assert!(plant.get("/docs").await.status.is_redirection());
}
