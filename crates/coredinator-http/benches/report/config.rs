//! How long a new revision of configuration documents takes until it is in force in a hundred instances.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Outcome, pause, row,
    server::{Server, Setup},
    until,
};

const INSTANCES: usize = 100;
/// Goes on when it is told to read its document again, as a service would.
const HEEDS: &str = "trap : HUP; while :; do sleep 1000 & wait $!; done";

/// A hundred services of one instance each, which get it side by side; one service of a hundred, which get it one after the
/// other. By a signal, which ends nothing.
pub(crate) fn all() -> Outcome<()> {
    let change = json!({"action": "signal", "settle": 0});
    let service = |replicas: usize| {
        json!({"runtime": "process", "command": ["/bin/sh", "-c", HEEDS], "replicas": replicas, "stop_grace_period": 0.5,
               "config": {}, "config_change": change})
    };
    let many: serde_json::Map<String, Value> = (0..INSTANCES).map(|n| (format!("s{n}"), service(1))).collect();
    converge("a new base in force in 100 services", &Value::Object(many), 10)?;
    converge("a new revision in force in 100 instances of one service", &json!({"s": service(INSTANCES)}), 5)
}

fn converge(what: &str, services: &Value, rounds: u64) -> Outcome<()> {
    let server = Server::start(Setup::default())?;
    let update = |revision: u64| -> Outcome<Instant> {
        let body = json!({"coredinator": {"config": {"revision": revision}, "services": services}}).to_string();
        let mut connection = server.connect()?;
        let since = Instant::now();
        let answer = connection.send_if("PUT", "/api/coredinator/config/update", "*", &body)?;
        if answer.status != 200 {
            return Err(format!("HTTP {}: {}", answer.status, String::from_utf8_lossy(&answer.body)).into());
        }
        Ok(since)
    };
    // Told as the service shows it: all instances run, and none has another revision than the newest.
    let in_force = |revision: u64| -> Outcome<bool> {
        let body = server.connect()?.get("/api/coredinator/services")?.body;
        let read: Value = serde_json::from_slice(&body)?;
        let services = read["services"].as_array().ok_or("no list")?;
        let stable = |service: &Value| service["config"]["stable"] == revision && service["config"]["drifted"] == 0;
        Ok(!services.is_empty()
            && services.iter().all(|service| stable(service) && service["ready"] == service["replicas"]))
    };
    update(1)?;
    until("the first revision", Duration::from_secs(60), || in_force(1))?;
    // The shells have to have come to their traps.
    pause(Duration::from_secs(2));
    let mut times = Vec::new();
    for revision in 2..=rounds + 1 {
        let since = update(revision)?;
        until("a new revision", Duration::from_secs(60), || in_force(revision))?;
        times.push(since.elapsed());
    }
    row(what, &mut times);
    Ok(())
}
