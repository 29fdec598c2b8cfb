//! Both services' HTTP, by their routers alone.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use quickstart::{
    coreio, corerl,
    learner::{Learner, LearnerConfig, Observation},
    plant::Plant,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

fn plant() -> (Router, coreio::Shared) {
    let shared = coreio::Shared::new(Plant::new(1), 18.0);
    (coreio::router(shared.clone()), shared)
}

async fn send(router: &Router, method: &str, path: &str, body: impl Into<Body>) -> (StatusCode, String, Value) {
    let request = Request::builder().method(method).uri(path).body(body.into()).expect("a request");
    let response = router.clone().oneshot(request).await.expect("an answer");
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE).map_or("", |kind| kind.to_str().unwrap_or("")).to_owned();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
    (status, kind, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

#[tokio::test]
async fn the_plant_tells_and_obeys() {
    let (router, shared) = plant();
    let (status, _, health) = send(&router, "GET", "/api/coreio/health", "").await;
    assert_eq!(
        (status, &health["status"], &health["boiler_tripped"]),
        (StatusCode::OK, &json!("healthy"), &json!(false))
    );

    let action = json!({ "unit": "tank-a", "steam": 12.5 }).to_string();
    let (status, _, _) = send(&router, "POST", "/api/coreio/actions", action).await;
    assert_eq!(status, StatusCode::OK);
    shared.plant().advance(60.0, 18.0);
    let (_, _, state) = send(&router, "GET", "/api/coreio/state", "").await;
    assert_eq!(state["simulated_seconds"], json!(60.0));
    assert_eq!(state["tags"]["tank-a.steam_wanted"], json!({ "value": 12.5, "unit": "t/h" }));
    assert!(state["tags"]["tank-a.steam"]["value"].as_f64().is_some_and(|steam| steam > 11.0), "{state}");
    let tags = state["tags"].as_object().expect("tags");
    assert!(tags.values().all(|tag| tag["value"].is_f64() && tag["unit"].is_string()), "{state}");

    let (status, _, metrics) = send(&router, "GET", "/api/coreio/metrics", "").await;
    assert_eq!(status, StatusCode::OK);
    assert!(metrics["production"]["product_t"].as_f64().is_some_and(|product| product > 1.0), "{metrics}");
}

#[tokio::test]
async fn garbage_is_refused_with_a_problem_and_changes_nothing() {
    let (router, shared) = plant();
    let before = shared.plant().clone();
    let large = "x".repeat(1 << 20);
    for (method, path, body, expected) in [
        ("POST", "/api/coreio/actions", "", StatusCode::BAD_REQUEST),
        ("POST", "/api/coreio/actions", "{", StatusCode::BAD_REQUEST),
        ("POST", "/api/coreio/actions", "\u{0}\u{1}", StatusCode::BAD_REQUEST),
        ("POST", "/api/coreio/actions", "[]", StatusCode::UNPROCESSABLE_ENTITY),
        ("POST", "/api/coreio/actions", r#"{"unit":"tank-z","steam":1}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("POST", "/api/coreio/actions", r#"{"unit":"tank-a","steam":1e9}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("POST", "/api/coreio/actions", r#"{"unit":"tank-a","steam":1,"x":1}"#, StatusCode::UNPROCESSABLE_ENTITY),
        ("POST", "/api/coreio/actions", &large, StatusCode::PAYLOAD_TOO_LARGE),
        ("GET", "/api/coreio/actions", "", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/api/coreio/nothing", "", StatusCode::NOT_FOUND),
    ] {
        let (status, kind, problem) = send(&router, method, path, body.to_owned()).await;
        let shown = &body[..body.len().min(40)];
        assert_eq!(status, expected, "{method} {path} {shown:?}");
        assert_eq!(kind, "application/problem+json", "{method} {path} {shown:?}");
        assert_eq!(problem["status"], json!(expected.as_u16()), "{problem}");
    }
    assert_eq!(*shared.plant(), before);
}

#[tokio::test(start_paused = true)]
async fn a_controller_is_alive_without_its_plant_but_not_ready() {
    let config = LearnerConfig { setpoint: 62.0, max_steam: 12.0, episode_steps: 2 };
    let shared = corerl::Shared::new("tank-a".to_owned(), Learner::new(1), config);
    let router = corerl::router(shared.clone());
    let ask = |path: &'static str| {
        let router = router.clone();
        async move { send(&router, "GET", path, "").await }
    };
    let (status, _, health) = ask("/api/corerl/health").await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &json!("degraded")));
    assert_eq!(ask("/api/corerl/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);

    for step in 0..4 {
        let time_s = f64::from(step) * 5.0;
        shared.step(Observation { time_s, temperature: 50.0, inlet_temperature: 20.0, steam: 6.0 });
    }
    assert_eq!(ask("/api/corerl/health").await.2["status"], json!("healthy"));
    assert_eq!(ask("/api/corerl/ready").await.0, StatusCode::OK);
    let (_, _, status) = ask("/api/corerl/status").await;
    assert_eq!(
        (&status["unit"], &status["episode"], &status["mean_error"]),
        (&json!("tank-a"), &json!(2), &json!(12.0))
    );
    assert!(status["demand"]["steam"].as_f64().is_some_and(|steam| (0.0..=12.0).contains(&steam)), "{status}");

    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    assert_eq!(ask("/api/corerl/health").await.2["status"], json!("degraded"));
    let (status, kind, _) = ask("/api/corerl/ready").await;
    assert_eq!((status, kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "application/problem+json"));
}
