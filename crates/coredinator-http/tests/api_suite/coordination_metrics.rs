//! What is counted of cycles, as Prometheus gets it. The recorder is the process's: each test has a group of its own.

use std::{sync::Arc, time::Duration};

use coredinator_coord::{CoordinationConfig, Strategies};
use coredinator_http::api::ApiOptions;
use coredinator_registry::store::MemoryStore;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Plant, coordination};

/// The section of the configuration with a group of this name, with 10 of steam.
fn with_group(group: &str) -> Value {
    let mut section = coordination();
    section["groups"][group] = json!({"resources": {"steam": {"capacity": 10}}});
    section
}

impl Plant {
    /// One that coordinates a group of this name, whose metrics are kept.
    async fn counting(group: &str) -> Self {
        let plant = Self::coordinating(Arc::new(MemoryStore::new()), ApiOptions::default(), &with_group(group)).await;
        // This plant is put together by hand: who asks first has the recorder set up.
        plant.get("/metrics").await;
        plant
    }

    /// Registers an agent.
    async fn comes(&self, group: &str, id: &str) {
        let document = json!({"agent_id": id, "group": group, "ttl_seconds": 600, "fallback": "release"});
        let answer = self.ask("POST", "/api/coredinator/agents/register", Some(document)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }

    async fn asks_for_steam(&self, id: &str, steam: f64) {
        let wish = json!({"options": [{"id": "run", "demands": {"steam": steam}, "utility": 1}]});
        let answer = self.ask("POST", &format!("/api/coredinator/agents/{id}/intention"), Some(wish)).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }

    async fn cycle_of(&self, group: &str) -> Value {
        let answer = self.ask("POST", &format!("/api/coredinator/coordination/step?group={group}"), None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// The value of a series, by its name and labels.
    async fn series(&self, series: &str) -> Option<f64> {
        let text = self.get("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
        Some(line.parse().unwrap())
    }

    async fn gauge(&self, name: &str, group: &str) -> Option<f64> {
        self.series(&format!("coredinator_coordination_{name}{{group=\"{group}\"}}")).await
    }
}

#[tokio::test]
async fn cycles_are_counted_for_prometheus() {
    let plant = Plant::counting("counted").await;
    plant.comes("counted", "a").await;
    plant.asks_for_steam("a", 1.0).await;
    plant.cycle_of("counted").await;
    let text = plant.get("/metrics").await.text();
    for start in [
        "coredinator_coordination_cycles_total{group=\"counted\",outcome=\"distributed\"} ",
        "coredinator_coordination_decisions_total{group=\"counted\",outcome=\"granted\"} ",
        "coredinator_coordination_resolve_seconds_bucket{group=\"counted\",le=\"0.001\"} ",
    ] {
        assert!(text.lines().any(|line| line.starts_with(start)), "{start}\n{text}");
    }
    plant.coordinator.shutdown().await;
}

#[tokio::test]
async fn what_is_told_of_the_last_cycle_ends_with_the_agents_and_with_the_group() {
    let plant = Plant::counting("passing").await;
    for id in ["a", "b"] {
        plant.comes("passing", id).await;
    }
    plant.asks_for_steam("a", 1.0).await;
    plant.cycle_of("passing").await;
    assert_eq!(plant.gauge("agents", "passing").await, Some(2.0));
    assert_eq!(plant.gauge("silent_agents", "passing").await, Some(1.0));
    for id in ["a", "b"] {
        assert_eq!(plant.ask("DELETE", &format!("/api/coredinator/agents/{id}"), None).await.status, 204);
    }
    for name in ["agents", "silent_agents", "gap"] {
        assert_eq!(plant.gauge(name, "passing").await, Some(0.0), "{name}");
    }

    plant.comes("passing", "a").await;
    plant.cycle_of("passing").await;
    assert_eq!(plant.gauge("agents", "passing").await, Some(1.0));
    let without = CoordinationConfig::parse("", &coordination(), &Strategies::builtin()).unwrap();
    plant.coordinator.reconfigure(without).await.unwrap();
    let gone = async {
        while plant.gauge("agents", "passing").await != Some(0.0) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("nothing is told of a group that is gone");
    plant.coordinator.shutdown().await;
}

#[tokio::test]
async fn conflicts_are_counted_by_type_and_subtype() {
    let plant = Plant::counting("crowded").await;
    for id in ["a", "b"] {
        plant.comes("crowded", id).await;
        plant.asks_for_steam(id, 6.0).await;
    }
    plant.cycle_of("crowded").await;
    let labels = "group=\"crowded\",type=\"resource_contention\",subtype=\"capacity\"";
    assert_eq!(plant.series(&format!("coredinator_coordination_conflicts_total{{{labels}}}")).await, Some(1.0));
    plant.coordinator.shutdown().await;
}

#[tokio::test]
async fn a_cycle_in_which_all_are_silent_is_not_well() {
    let plant = Plant::counting("quiet").await;
    let empty = plant.cycle_of("quiet").await;
    assert_eq!(empty["success"], true, "there is nobody to be silent: {empty}");
    plant.comes("quiet", "a").await;
    let silent = plant.cycle_of("quiet").await;
    assert_eq!((&silent["outcome"], &silent["success"]), (&json!("distributed"), &json!(false)), "{silent}");
    assert_eq!(plant.gauge("cycles_settled_total", "quiet").await, Some(2.0));
    assert_eq!(plant.gauge("cycles_succeeded_total", "quiet").await, Some(1.0));
    let listed = plant.get("/api/coredinator/coordination/cycles?group=quiet&limit=1").await.json();
    assert_eq!((&listed["cycles"][0]["active"], &listed["cycles"][0]["success"]), (&json!(0), &json!(false)));
    plant.coordinator.shutdown().await;
}
