//! How everything is, in the specification's words.

use coredinator_http::api::Readiness;
use serde_json::{Value, json};

use crate::support::Plant;

#[tokio::test]
async fn the_whole_has_the_shape_of_the_specification() {
    let plant = Plant::new().await;
    plant.external("corerl").await;
    plant.external("coreio").await;
    plant.managed("idle").await;
    let answer = plant.get("/api/coredinator/health").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    let health = answer.json();
    assert_eq!(health["status"], "degraded", "nothing is known of some services yet");
    for name in ["corerl", "coreio", "idle"] {
        let service = health["services"][name].as_object().unwrap();
        assert_eq!(service.keys().collect::<Vec<_>>(), ["last_check", "response_time", "status"]);
    }
    assert_eq!(health["services"]["corerl"], json!({"status": "unknown", "last_check": null, "response_time": null}));
    let metrics = health["system_metrics"].as_object().unwrap();
    assert_eq!(metrics.keys().collect::<Vec<_>>(), ["active_agents", "cpu_usage", "memory_usage"]);
    for share in ["cpu_usage", "memory_usage"] {
        let share = metrics[share].as_str().and_then(|share| share.strip_suffix('%')).unwrap();
        assert!(share.parse::<u8>().unwrap() <= 100);
    }
    assert_eq!(metrics["active_agents"], 0);
}

#[tokio::test]
async fn times_are_told_as_the_specification_does() {
    let plant = Plant::new().await;
    // A server that accepts and says nothing suffices for a check that only connects.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let document = json!({"name": "a", "host": "127.0.0.1", "port": port});
    let answer = plant.ask("POST", "/api/coredinator/services/register", Some(document)).await;
    assert_eq!(answer.status, 201, "{}", answer.text());

    let fresh = plant.get("/api/coredinator/services/a/health?fresh=true").await.json();
    assert_eq!((&fresh["status"], &fresh["service"]), (&json!("healthy"), &json!("a")));
    let check = &fresh["checks"][0];
    for (key, expected) in
        [("kind", json!("health")), ("probe", json!("tcp")), ("status", json!("healthy")), ("replica", Value::Null)]
    {
        assert_eq!(check[key], expected, "{key}");
    }
    let last = check["history"].as_array().unwrap().last().unwrap();
    assert_eq!(last["outcome"], "pass");
    assert!(last["response_time_ms"].as_f64().unwrap() >= 0.0);

    let short = plant.get("/api/coredinator/health").await.json()["services"]["a"].clone();
    assert!(short["last_check"].as_str().unwrap().parse::<coredinator_core::Timestamp>().is_ok());
    let time = short["response_time"].as_str().and_then(|time| time.strip_suffix("ms")).unwrap();
    assert!(time.parse::<u32>().is_ok(), "{time}");
    plant.get("/api/coredinator/services/b/health").await.problem(404, "NotFound");
}

#[tokio::test]
async fn a_sick_service_is_no_reason_to_restart_coredinator() {
    let plant = Plant::new().await;
    let document = json!({"name": "a", "health_check": {"ttl": 600, "retries": 1}});
    plant.ask("POST", "/api/coredinator/services/register", Some(document)).await;
    plant.ask("POST", "/api/coredinator/services/a/heartbeat", None).await;
    let well = plant.get("/api/coredinator/services/a?index=1&wait=20s").await.json();
    assert_eq!(well["status"], "healthy");
    let sick = json!({"status": "fail", "message": "no pressure"});
    assert_eq!(plant.ask("POST", "/api/coredinator/services/a/heartbeat", Some(sick)).await.status, 204);
    let service = plant.get(&format!("/api/coredinator/services/a?index={}&wait=20s", well["index"])).await.json();
    assert_eq!((&service["status"], &service["reason"]), (&json!("unhealthy"), &json!("no pressure")));
    let whole = plant.get("/api/coredinator/health").await;
    assert_eq!((whole.status.as_u16(), whole.json()["status"].clone()), (200, json!("unhealthy")));
    assert_eq!(plant.get("/health").await.json(), json!({"status": "degraded"}));
}

#[tokio::test]
async fn readiness_is_coredinators_own() {
    let plant = Plant::new().await;
    for path in ["/health", "/api/coredinator/health", "/readyz", "/livez", "/version"] {
        assert_eq!(plant.get(path).await.status, 200, "{path}");
        let head = plant.ask("HEAD", path, None).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (200, 0), "{path}");
    }
    assert_eq!(plant.get("/readyz?verbose").await.text(), "[+]registry ok: 0 services\n[+]server ready\n");
    let version = plant.get("/version").await.json();
    assert_eq!((&version["name"], &version["version"]), (&json!("coredinator"), &json!("1.2.3")));
    for (readiness, word) in [(Readiness::Starting, "starting\n"), (Readiness::Draining, "draining\n")] {
        plant.ready.send_replace(readiness);
        assert_eq!(plant.get("/livez").await.status, 200);
        let ready = plant.get("/readyz").await;
        assert_eq!((ready.status.as_u16(), ready.text().as_str()), (503, word));
        assert_eq!(plant.get("/readyz?verbose").await.status, 503);
        for path in ["/health", "/api/coredinator/health"] {
            let answer = plant.get(path).await;
            assert_eq!((answer.status.as_u16(), answer.json()["status"].clone()), (503, json!("unhealthy")), "{path}");
            assert_eq!(answer.header("content-type"), "application/json");
        }
    }
}

#[tokio::test]
async fn heartbeats_are_for_those_who_declare_them() {
    let plant = Plant::new().await;
    let register = |document: Value| plant.ask("POST", "/api/coredinator/services/register", Some(document));
    assert_eq!(register(json!({"name": "tcp", "host": "127.0.0.1", "port": 1})).await.status, 201);
    plant.managed("idle").await;
    let beat = async |name: &str| {
        let path = format!("/api/coredinator/services/{name}/heartbeat");
        plant.ask("POST", &path, Some(json!({}))).await
    };
    beat("tcp").await.problem(409, "NoHeartbeat");
    beat("idle").await.problem(409, "NoHeartbeat");
    beat("nobody").await.problem(404, "NotFound");
}

#[tokio::test]
async fn numbers_for_prometheus() {
    let plant = Plant::new().await;
    plant.external("a").await;
    let answer = plant.get("/metrics").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (200, "text/plain; version=0.0.4; charset=utf-8")
    );
    let text = answer.text();
    for line in [
        "coredinator_build_info{version=\"1.2.3\"} 1",
        "coredinator_ready 1",
        "coredinator_services{status=\"unknown\"} 1",
        "coredinator_services{status=\"healthy\"} 0",
        "# TYPE coredinator_services gauge",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    plant.get("/metrics?x=1").await.problem(400, "InvalidParameter");
}
