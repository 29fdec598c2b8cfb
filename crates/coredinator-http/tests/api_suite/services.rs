//! Services: registered, listed, told, waited for, deregistered.

use serde_json::{Value, json};

use crate::support::{Plant, is_waiting, pointers, request};

const SERVICES: &str = "/api/coredinator/services";
const REGISTER: &str = "/api/coredinator/services/register";

fn names(list: &Value) -> Vec<&str> {
    list["services"].as_array().unwrap().iter().map(|service| service["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_four_fields_of_the_specification_suffice() {
    let plant = Plant::new().await;
    let document = json!({"name": "corerl", "host": "localhost", "port": 1, "health_endpoint": "/api/corerl/health"});
    let answer = plant.ask("POST", REGISTER, Some(document.clone())).await;
    assert_eq!((answer.status.as_u16(), answer.header("location")), (201, "/api/coredinator/services/corerl"));
    let service = answer.json();
    for (key, expected) in [
        ("name", json!("corerl")),
        ("host", json!("localhost")),
        ("port", json!(1)),
        ("health_endpoint", json!("/api/corerl/health")),
        ("runtime", Value::Null),
        ("replicas", json!(1)),
        ("labels", json!({})),
        ("version", Value::Null),
        ("desired", json!("running")),
        ("next_restart_at", Value::Null),
        ("instances", json!([])),
    ] {
        assert_eq!(service[key], expected, "{key}");
    }
    for key in ["status", "reason", "restart_policy", "last_health_check", "response_time_ms"] {
        assert!(service.get(key).is_some(), "{key}");
    }
    assert_eq!(plant.ask("POST", REGISTER, Some(document.clone())).await.status, 200);

    let mut whole = document.clone();
    whole["status"] = json!("healthy");
    whole["last_health_check"] = json!("2025-08-22T10:30:00Z");
    assert_eq!(plant.ask("POST", REGISTER, Some(whole)).await.status, 200, "what is coredinator's is passed over");

    let mut other = document;
    other["port"] = json!(2);
    plant.ask("POST", REGISTER, Some(other.clone())).await.problem(409, "AlreadyExists");
    let replaced = plant.ask("POST", &format!("{REGISTER}?replace=true"), Some(other)).await;
    assert_eq!((replaced.status.as_u16(), replaced.json()["port"].clone()), (200, json!(2)));
}

#[tokio::test]
async fn all_that_is_wrong_with_a_registration_is_told_at_once() {
    let plant = Plant::new().await;
    let document = json!({"name": "A", "prot": 1, "port": 70000, "replicas": -1, "health_endpoint": "h"});
    let problem = plant.ask("POST", REGISTER, Some(document)).await.problem(422, "Invalid");
    let found = pointers(&problem);
    for pointer in ["/name", "/prot", "/port", "/replicas", "/health_endpoint"] {
        assert!(found.contains_key(pointer), "{pointer} in {found:?}");
    }
    assert_eq!(found["/prot"], "did you mean \"port\"?");

    let unknown = json!({"name": "a", "runtime": "papr", "command": "x"});
    let problem = plant.ask("POST", REGISTER, Some(unknown)).await.problem(422, "Invalid");
    assert_eq!(pointers(&problem)["/runtime"], "did you mean \"paper\"?");
    let odd = json!({"name": "a", "runtime": "paper", "command": "x", "imgae": "y"});
    let problem = plant.ask("POST", REGISTER, Some(odd)).await.problem(422, "Invalid");
    assert!(pointers(&problem).contains_key("/imgae"));
    let probe = json!({"name": "a", "port": 1, "health_check": {"kind": "htpp"}});
    plant.ask("POST", REGISTER, Some(probe)).await.problem(422, "Invalid");
    assert_eq!(names(&plant.get(SERVICES).await.json()), Vec::<&str>::new());
}

#[tokio::test]
async fn lists_are_filtered_and_paged() {
    let plant = Plant::new().await;
    for (name, line) in [("b", "x"), ("a", "x"), ("c", "y"), ("d", "x")] {
        let document = json!({"name": name, "health_check": {"ttl": 600}, "labels": {"line": line, "tier": "1"}});
        assert_eq!(plant.ask("POST", REGISTER, Some(document)).await.status, 201);
    }
    let list = async |query: &str| plant.get(&format!("{SERVICES}{query}")).await.json();
    assert_eq!(names(&list("").await), ["a", "b", "c", "d"]);
    assert_eq!(list("").await["next_page_token"], "");
    assert_eq!(names(&list("?label=line=x").await), ["a", "b", "d"]);
    assert_eq!(names(&list("?label=line%3Dx&label=tier").await), ["a", "b", "d"]);
    assert_eq!(names(&list("?selector=line=y,tier=1").await), ["c"]);
    assert_eq!(names(&list("?label=line=x&label=line=y").await), Vec::<&str>::new());
    assert_eq!(names(&list("?q=C").await), ["c"]);
    assert_eq!(names(&list("?status=unknown,healthy").await), ["a", "b", "c", "d"]);
    assert_eq!(names(&list("?status=healthy").await), Vec::<&str>::new());

    let first = plant.get(&format!("{SERVICES}?label=line=x&limit=2")).await;
    assert_eq!(names(&first.json()), ["a", "b"]);
    let token = first.json()["next_page_token"].as_str().unwrap().to_owned();
    let next = format!("{SERVICES}?label=line=x&limit=2&page_token={token}");
    assert_eq!(first.header("link"), format!("<{next}>; rel=\"next\""));
    let last = plant.get(&next).await.json();
    assert_eq!((names(&last), &last["next_page_token"]), (vec!["d"], &json!("")));

    let problem = plant.get(&format!("{SERVICES}?limit=2&page_token={token}")).await.problem(400, "InvalidParameter");
    assert!(pointers(&problem).contains_key("?page_token"));
    let bad = format!("{SERVICES}?lable=x&limit=0&status=well&wait=3&index=x");
    let found = pointers(&plant.get(&bad).await.problem(400, "InvalidParameter"));
    assert_eq!(found.keys().collect::<Vec<_>>(), ["?index", "?lable", "?limit", "?status", "?wait"]);
    assert_eq!(found["?lable"], "did you mean \"label\"?");
}

#[tokio::test]
async fn one_service_is_told_unless_it_is_known_already() {
    let plant = Plant::new().await;
    plant.external("corerl").await;
    let answer = plant.get("/api/coredinator/services/corerl").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-coredinator-index"), answer.json()["index"].to_string());
    let ask = |path: &str, tag: &str| {
        let mut request = request("GET", path, None);
        request.headers_mut().insert("if-none-match", tag.parse().unwrap());
        plant.send(request)
    };
    let known = ask("/api/coredinator/services/corerl", answer.header("etag")).await;
    assert_eq!((known.status.as_u16(), known.body.len()), (304, 0));
    assert_eq!(ask("/api/coredinator/services/corerl", "W/\"x\"").await.status, 200);
    let list = plant.get(SERVICES).await;
    assert_eq!(ask(SERVICES, list.header("etag")).await.status, 304);
    plant.external("coreio").await;
    assert_eq!(ask(SERVICES, list.header("etag")).await.status, 200);

    let missing = plant.get("/api/coredinator/services/coerrl").await.problem(404, "NotFound");
    assert!(missing["detail"].as_str().unwrap().contains("did you mean \"corerl\"?"), "{missing}");
    plant.get(&format!("/api/coredinator/services/{}", "x".repeat(5000))).await.problem(404, "NotFound");
}

#[tokio::test]
async fn a_long_poll_wakes_by_a_change() {
    let plant = Plant::new().await;
    plant.external("a").await;
    let index = plant.get("/api/coredinator/services/a").await.json()["index"].as_u64().unwrap();
    let of_all = plant.get(SERVICES).await.header("x-coredinator-index").to_owned();
    let path = format!("/api/coredinator/services/a?index={index}&wait=10m");
    let mut one = std::pin::pin!(plant.get(&path));
    let path = format!("{SERVICES}?index={of_all}");
    let mut all = std::pin::pin!(plant.get(&path));
    assert!(is_waiting(&mut one).await && is_waiting(&mut all).await);
    plant.external("b").await;
    assert_eq!(names(&all.await.json()), ["a", "b"]);
    assert!(is_waiting(&mut one).await, "another service's change does not wake it");
    let beat = plant.ask("POST", "/api/coredinator/services/a/heartbeat", None).await;
    assert_eq!(beat.status, 204, "{}", beat.text());
    assert_eq!(one.await.json()["status"], "healthy");
    // An index of the past or of another server's time is answered at once.
    assert_eq!(plant.get("/api/coredinator/services/a?index=999999&wait=10m").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_with_its_time_or_with_the_server() {
    let plant = Plant::new().await;
    let index = plant.external("a").await["index"].as_u64().unwrap();
    assert_eq!(plant.get(&format!("/api/coredinator/services/a?index={index}&wait=5s")).await.status, 200);
    let path = format!("/api/coredinator/services/a?index={index}");
    let mut waiting = std::pin::pin!(plant.get(&path));
    assert!(is_waiting(&mut waiting).await);
    plant.shutdown.cancel();
    assert_eq!(waiting.await.status, 200);
}

#[tokio::test]
async fn a_long_poll_for_a_service_that_goes_is_told_so() {
    let plant = Plant::new().await;
    let index = plant.external("a").await["index"].as_u64().unwrap();
    let path = format!("/api/coredinator/services/a?index={index}&wait=10m");
    let mut waiting = std::pin::pin!(plant.get(&path));
    assert!(is_waiting(&mut waiting).await);
    assert_eq!(plant.ask("DELETE", "/api/coredinator/services/a", None).await.status, 204);
    waiting.await.problem(404, "NotFound");
}

#[tokio::test]
async fn an_external_service_is_gone_at_once() {
    let plant = Plant::new().await;
    plant.external("a").await;
    let answer = plant.ask("DELETE", "/api/coredinator/services/a", None).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    plant.get("/api/coredinator/services/a").await.problem(404, "NotFound");
    plant.ask("DELETE", "/api/coredinator/services/a", None).await.problem(404, "NotFound");
    assert_eq!(names(&plant.get(SERVICES).await.json()), Vec::<&str>::new());
}

#[tokio::test]
async fn places_are_told_of_services_that_are_up() {
    let plant = Plant::new().await;
    let document =
        json!({"name": "a", "host": "::1", "port": 7, "health_check": {"ttl": 600}, "labels": {"li-ne": "x"}});
    assert_eq!(plant.ask("POST", REGISTER, Some(document)).await.status, 201);
    assert_eq!(plant.get("/sd/prometheus").await.json(), json!([]));
    let down = plant.get("/api/coredinator/services/a/endpoints").await.json();
    assert_eq!(down, json!({"service": "a", "endpoints": []}));
    plant.ask("POST", "/api/coredinator/services/a/heartbeat", None).await;
    let index = plant.get("/api/coredinator/services/a?index=1&wait=10s").await;
    assert_eq!(index.json()["status"], "healthy");
    let up = plant.get("/api/coredinator/services/a/endpoints").await.json();
    let place = json!({"instance_id": null, "host": "::1", "port": 7, "url": "http://[::1]:7"});
    assert_eq!(up["endpoints"], json!([place]));
    let labels = json!({"service": "a", "__meta_coredinator_label_li_ne": "x"});
    assert_eq!(plant.get("/sd/prometheus").await.json(), json!([{"targets": ["[::1]:7"], "labels": labels}]));
    plant.get("/api/coredinator/services/b/endpoints").await.problem(404, "NotFound");
}

#[tokio::test]
async fn a_service_may_be_named_register() {
    let plant = Plant::new().await;
    plant.get("/api/coredinator/services/register").await.problem(404, "NotFound");
    plant.external("register").await;
    for path in ["", "/health", "/endpoints"] {
        assert_eq!(plant.get(&format!("/api/coredinator/services/register{path}")).await.status, 200, "{path}");
    }
    assert_eq!(plant.ask("DELETE", "/api/coredinator/services/register", None).await.status, 204);
    plant.get("/api/coredinator/services/register").await.problem(404, "NotFound");
    plant.ask("PUT", "/api/coredinator/services/register", None).await.problem(405, "MethodNotAllowed");
}

#[tokio::test]
async fn what_became_of_a_declaration_is_told() {
    let plant = Plant::new().await;
    for (query, port, status, became) in [
        ("", 1, 201, "created"),
        ("", 1, 200, "unchanged"),
        ("?replace=true", 1, 200, "unchanged"),
        ("?replace=true", 2, 200, "replaced"),
    ] {
        let path = format!("/api/coredinator/services/register{query}");
        let document = json!({"name": "a", "host": "localhost", "port": port, "health_check": {"disable": true}});
        let answer = plant.ask("POST", &path, Some(document)).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-coredinator-declared")), (status, became));
    }
}
