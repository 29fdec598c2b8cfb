//! The paths about the database, on the store in memory.

use std::{sync::Arc, time::Duration};

use coredinator_core::{LeaseOperation, Store};
use coredinator_http::api::ApiOptions;
use coredinator_registry::store::MemoryStore;
use serde_json::{Value, json};

use crate::support::Plant;

#[tokio::test]
async fn the_status_tells_what_the_store_tells() {
    let store = Arc::new(MemoryStore::new());
    let plant = Plant::with(Arc::clone(&store) as _, ApiOptions::default()).await;
    store.lease("leader", "a", LeaseOperation::Acquire { ttl: Duration::from_secs(60) }).await.unwrap();
    let status = plant.get("/api/coredinator/database/status").await.json();
    assert_eq!(
        (&status["reachable"], &status["error"], &status["stale_for_ms"]),
        (&json!(true), &Value::Null, &Value::Null)
    );
    let store = &status["store"];
    assert_eq!((&store["backend"], &store["location"]), (&json!("memory"), &json!("memory")));
    let leases = store["leases"].as_array().unwrap();
    assert_eq!((leases.len(), &leases[0]["name"], &leases[0]["holder"]), (1, &json!("leader"), &json!("a")), "{store}");
    assert_eq!(plant.get("/api/coredinator/database/status?x=1").await.status, 400);
}

#[tokio::test]
async fn a_verification_is_of_the_store_in_use_or_of_a_candidate() {
    let plant = Plant::new().await;
    let path = "/api/coredinator/database/verify";
    let outcomes = |found: &Value| {
        let checks = found["checks"].as_array().unwrap().iter();
        checks.map(|check| (check["name"].clone(), check["outcome"].clone())).collect::<Vec<_>>()
    };
    let own = plant.ask("POST", path, None).await.json();
    assert_eq!((&own["ok"], &own["candidate"]), (&json!(true), &json!(false)));
    assert!(outcomes(&own).contains(&(json!("round_trip"), json!("ok"))), "{own}");
    assert!(outcomes(&own).contains(&(json!("replication"), json!("skipped"))), "{own}");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new.sqlite");
    let candidate = json!({"database_url": format!("sqlite:{}", file.display())});
    let found = plant.ask("POST", path, Some(candidate)).await.json();
    assert_eq!((&found["ok"], &found["candidate"]), (&json!(true), &json!(true)));
    assert!(!file.exists(), "a candidate is not made");
    std::fs::write(&file, "no database").unwrap();
    let candidate = json!({"database_url": format!("sqlite:{}", file.display())});
    let found = plant.ask("POST", path, Some(candidate)).await.json();
    assert_eq!(found["ok"], false, "{found}");
    assert!(found["checks"][0]["hint"].is_string(), "{found}");
}

#[tokio::test]
async fn what_is_no_candidate_is_refused_in_words_without_secrets() {
    let plant = Plant::new().await;
    let path = "/api/coredinator/database/verify";
    for (body, pointer) in [
        (json!({"database_url": "mysql://u:sesame@h/d"}), "/database_url"),
        (json!({"database_url": "postgresql://u:sesame@h:port/d"}), "/database_url"),
        (json!({"database_url": "postgresql://u:sesame@h/d?sslmod=x"}), "/database_url"),
        (json!({"database_url": 7}), "/database_url"),
        (json!({"url": "x"}), "/url"),
        (json!([]), ""),
    ] {
        let answer = plant.ask("POST", path, Some(body)).await;
        assert_eq!(answer.status, 422);
        let problem = answer.json();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(!problem.to_string().contains("sesame"), "{problem}");
    }
}
