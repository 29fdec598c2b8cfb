//! Both services' HTTP, by their routers alone.

use std::time::Duration;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use coredinator_core::coordination::AgentId;
use quickstart::{
    controller, coreio, corerl,
    learner::{Learner, Observation},
    mandate::{Mandate, Told},
    plant::Plant,
    wish::{Interest, Outlook},
};
use serde_json::{Value, json};
use tokio::time::Instant;
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

const INTEREST: Interest = Interest { setpoint: 62.0, max_steam: 12.0, paid_up_to: 160.0, safe_steam: 4.0 };

fn sight(time_s: f64) -> Outlook {
    let tank = Observation { time_s, temperature: 50.0, inlet_temperature: 20.0, steam: 6.0 };
    Outlook { tank, inflow: 120.0, feed: 120.0, delivered: 1.0 }
}

#[tokio::test(start_paused = true)]
async fn a_controller_does_what_it_is_told_and_takes_the_safe_steam_without_a_word() {
    let mandate = Mandate::new(INTEREST.safe_steam, Duration::from_secs(5));
    let shared = controller::Shared::new("tank-a".to_owned(), Learner::new(1), INTEREST, Some(mandate), true);
    let router = corerl::router(shared.clone());
    let id = || AgentId::new("tank-a").expect("a name");
    assert!(shared.intend(id(), 0).is_none(), "it has not seen its plant");
    // Untrained it asks for about half of its 12 t/h.
    let (orders, _) = shared.step(sight(0.0));
    assert_eq!((orders.steam, orders.feed), (4.0, None));
    let wish = shared.intend(id(), 7).expect("it sees its plant");
    assert!(wish.seq == 7 && wish.options.len() == 3, "{wish:?}");

    let told = |cycle: u64, steam: f64, feed: f64| -> Told {
        serde_json::from_value(json!({
            "group": "default", "cycle": cycle, "epoch": 1, "strategy": "centralized", "status": "optimal",
            "agent_id": "tank-a", "outcome": "granted", "option_id": "some", "fraction": 1.0, "values": { "feed": feed },
            "grant": { "steam": steam }, "action": null, "utility": 1.0, "reason": { "code": "first_choice", "text": "" },
        }))
        .expect("a decision")
    };
    for cycle in [1, 2] {
        shared.hear(Some(told(cycle, 2.0, 125.0)), Instant::now());
    }
    let (orders, _) = shared.step(sight(5.0));
    assert_eq!((orders.steam, orders.feed), (2.0, Some(125.0)));
    let (_, _, status) = send(&router, "GET", "/api/corerl/status", "").await;
    assert_eq!((&status["coordination"]["standing"], &status["coordination"]["cycle"]), (&json!("told"), &json!(2)));

    tokio::time::advance(Duration::from_secs(11)).await;
    let (orders, _) = shared.step(sight(10.0));
    assert_eq!((orders.steam, orders.feed), (4.0, None));
    let (_, _, status) = send(&router, "GET", "/api/corerl/status", "").await;
    assert_eq!(status["coordination"]["standing"], json!("alone"));
}

#[tokio::test(start_paused = true)]
async fn a_controller_is_alive_without_its_plant_but_not_ready() {
    let shared = controller::Shared::new("tank-a".to_owned(), Learner::new(1), INTEREST, None, false);
    let router = corerl::router(shared.clone());
    let ask = |path: &'static str| {
        let router = router.clone();
        async move { send(&router, "GET", path, "").await }
    };
    let (status, _, health) = ask("/api/corerl/health").await;
    assert_eq!((status, &health["status"]), (StatusCode::OK, &json!("degraded")));
    assert_eq!(ask("/api/corerl/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);

    for step in 0..40 {
        shared.step(sight(f64::from(step) * 5.0));
    }
    assert_eq!(ask("/api/corerl/health").await.2["status"], json!("healthy"));
    assert_eq!(ask("/api/corerl/ready").await.0, StatusCode::OK);
    let (_, _, status) = ask("/api/corerl/status").await;
    assert_eq!(
        (&status["unit"], &status["episode"], &status["mean_error"]),
        (&json!("tank-a"), &json!(2), &json!(12.0))
    );
    assert!(status["orders"]["steam"].as_f64().is_some_and(|steam| (0.0..=12.0).contains(&steam)), "{status}");

    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(ask("/api/corerl/health").await.2["status"], json!("degraded"));
    let (status, kind, _) = ask("/api/corerl/ready").await;
    assert_eq!((status, kind.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "application/problem+json"));
}
