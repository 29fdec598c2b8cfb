//! The configuration over HTTP: written out, judged, updated, gone back on.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use crate::support::{Answer, Plant, request};

const UPDATE: &str = "/api/coredinator/config/update";
const VALIDATE: &str = "/api/coredinator/config/validate";
const GENERATE: &str = "/api/coredinator/config/generate";

async fn send(plant: &Plant, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = request(method, path, None);
    for (name, value) in headers {
        request.headers_mut().append(axum::http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    *request.body_mut() = Body::from(body.to_owned());
    plant.send(request).await
}

async fn update(plant: &Plant, tag: &str, body: &str) -> Answer {
    send(plant, "PUT", UPDATE, &[("content-type", "application/yaml"), ("if-match", tag)], body).await
}

async fn validate(plant: &Plant, body: &str) -> Value {
    let answer = send(plant, "POST", VALIDATE, &[("content-type", "application/yaml")], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn generated(plant: &Plant) -> (Value, String) {
    let answer = send(plant, "GET", GENERATE, &[("accept", "application/json")], "").await;
    (answer.json(), answer.header("etag").to_owned())
}

const TWO: &str = "coredinator:
  services:
    io: {port: 8001}
    rl: {runtime: paper, command: [x], labels: {line: a}}
";

#[tokio::test]
async fn an_update_needs_its_condition_and_is_refused_when_somebody_was_faster() {
    let plant = Plant::new().await;
    let bare = send(&plant, "PUT", UPDATE, &[("content-type", "application/yaml")], TWO).await;
    bare.problem(428, "IfMatchRequired");
    let first = update(&plant, "\"0\"", TWO).await;
    assert_eq!((first.status.as_u16(), first.header("etag")), (200, "\"1\""), "{}", first.text());
    let told = first.json();
    assert_eq!((&told["changed"], &told["revision"]), (&json!(true), &json!(1)));
    assert_eq!(
        told["plan"]["services"][1],
        json!({"service": "rl", "action": "create", "fields": [], "effect": "start"})
    );
    let stale = update(&plant, "\"0\"", "coredinator: {services: {}}").await;
    stale.problem(412, "Stale");
    assert_eq!(stale.header("etag"), "\"1\"", "the current tag is told");
    let (_, tag) = generated(&plant).await;
    let same = update(&plant, &tag, TWO).await.json();
    assert_eq!((&same["changed"], &same["revision"]), (&json!(false), &json!(1)), "nothing changed, no revision");
    update(&plant, "what", TWO).await.problem(400, "InvalidHeader");
    let any = update(&plant, "*", "coredinator: {services: {io: {port: 8001}}}").await.json();
    assert_eq!((&any["revision"], &any["plan"]["services"][1]["action"]), (&json!(2), &json!("delete")));
}

#[tokio::test]
async fn of_concurrent_updates_one_wins() {
    let plant = Plant::new().await;
    for revision in 0..5 {
        let tag = format!("\"{revision}\"");
        let bodies: Vec<String> = (0..8)
            .map(|n| format!("coredinator: {{services: {{io: {{port: {}}}}}}}", 1000 + 10 * revision + n))
            .collect();
        let answers = futures_util::future::join_all(bodies.iter().map(|body| update(&plant, &tag, body))).await;
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 412).count(), 7, "{statuses:?}");
    }
}

#[tokio::test]
async fn everything_wrong_is_told_at_once_with_line_and_column() {
    let plant = Plant::new().await;
    let bad = "coredinator:
  prot: 1
  services:
    a: {runtime: papre, command: x}
    b:
      port: 70000
      depends_on: [nobody]
";
    let told = validate(&plant, bad).await;
    assert_eq!((&told["valid"], &told["plan"]), (&json!(false), &Value::Null));
    let errors: Vec<(String, u64, u64)> = told["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| {
            (e["pointer"].as_str().unwrap().to_owned(), e["line"].as_u64().unwrap(), e["column"].as_u64().unwrap())
        })
        .collect();
    let at = |pointer: &str, line, column| (format!("/coredinator/{pointer}"), line, column);
    assert_eq!(errors, [at("prot", 2, 3), at("services/a/runtime", 4, 9), at("services/b/port", 6, 7)]);
    assert_eq!(told["errors"][0]["hint"], "did you mean \"port\"?");
    let refused = update(&plant, "*", bad).await;
    let problem = refused.problem(422, "Invalid");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 3);
    assert_eq!((&problem["errors"][1]["line"], &problem["errors"][1]["column"]), (&json!(4), &json!(9)));
    for garbage in ["a: [", "", "{}: {}", "\u{0}", "coredinator: 7", "- 1"] {
        let told = validate(&plant, garbage).await;
        assert_eq!(told["valid"], false, "{garbage:?}");
        assert!(told["errors"][0]["message"].is_string());
        update(&plant, "*", garbage).await.problem(422, "Invalid");
    }
    send(&plant, "POST", VALIDATE, &[("content-type", "text/plain")], TWO).await.problem(415, "UnsupportedMediaType");
    send(&plant, "POST", VALIDATE, &[("content-type", "application/json")], "{").await.problem(400, "MalformedJson");
    let tabs = "{\n\t\"coredinator\": {\n\t\t\"services\": {\"a\": {\"port\": 1}}\n\t}\n}";
    let json = send(&plant, "POST", VALIDATE, &[("content-type", "application/json")], tabs).await;
    assert_eq!(json.json()["valid"], true, "{}", json.text());
    let large = "#".repeat(17 << 20);
    send(&plant, "POST", VALIDATE, &[("content-type", "application/yaml")], &large).await.problem(413, "TooLarge");
}

#[tokio::test]
async fn what_is_generated_is_no_change_and_makes_the_same_elsewhere() {
    let plant = Plant::new().await;
    plant.external("self").await;
    plant.managed("self-run").await;
    let odd = r#"
coredinator:
  health_check: {interval: 7}
  config: {plant: north, "<<": {"a": "$HOME"}}
  services:
    io: {port: 8001, labels: {"<<": "$$${NONE:-x}", note: "100$"}}
    rl:
      runtime: paper
      command: [x, "$$HOME", "{port}"]
      config: {lr: 0.5, token: {secret_env: T}}
      config_overrides: {"1": {seed: 2}}
      config_change: {action: http, path: /again}
      replicas: 3
  coordination: {sync_interval: 2, resources: {steam: {capacity: 3}}}
alerts: [{name: ServiceDown}]
"#;
    let first = update(&plant, "\"0\"", odd).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let (document, tag) = generated(&plant).await;
    let names: Vec<&String> = document["coredinator"]["services"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["io", "rl", "self", "self-run"]);
    let back = update(&plant, &tag, &document.to_string()).await;
    assert_eq!((back.status.as_u16(), &back.json()["changed"]), (200, &json!(false)), "{}", back.text());
    // As YAML, into an empty one.
    let yaml = send(&plant, "GET", GENERATE, &[("accept", "application/yaml")], "").await;
    assert_eq!(yaml.header("content-type"), "application/yaml");
    let other = Plant::new().await;
    let taken = update(&other, "\"0\"", &yaml.text()).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    let (again, _) = generated(&other).await;
    assert_eq!(again, document);
    let one = plant.get(&format!("{GENERATE}?service=rl")).await;
    assert!(one.text().contains("lr: 0.5"), "{}", one.text());
    plant.get(&format!("{GENERATE}?service=nobody")).await.problem(404, "NotFound");
    let known = send(&plant, "GET", GENERATE, &[("accept", "application/json"), ("if-none-match", &tag)], "").await;
    assert_eq!(known.status, 304);
    let schema = plant.get(&format!("{GENERATE}?schema=true")).await;
    assert!(schema.text().contains("config_change"), "{}", schema.text());
    plant.get(&format!("{GENERATE}?schema=true&service=rl")).await.problem(422, "Invalid");
}

#[tokio::test]
async fn secrets_are_left_out_and_stay_as_they_are_when_that_is_handed_back() {
    let plant = Plant::new().await;
    let secret = "coredinator: {config: {db: {password: p4ss}}, services: {rl: {runtime: paper, command: [x], environment: {API_TOKEN: t0k3n}, config: {}}}}";
    update(&plant, "*", secret).await;
    let (document, tag) = generated(&plant).await;
    let history = plant.get("/api/coredinator/config/history").await.text();
    let validated = validate(&plant, "coredinator: {services: {}}").await.to_string();
    for shown in [&document.to_string(), &history, &validated] {
        assert!(!shown.contains("t0k3n") && !shown.contains("p4ss") && shown.contains("***"), "{shown}");
    }
    let mut edited = document.clone();
    edited["coredinator"]["services"]["rl"]["labels"] = json!({"a": "b"});
    let told = update(&plant, &tag, &edited.to_string()).await.json();
    assert_eq!(told["plan"]["services"][0]["fields"], json!(["labels"]), "{told}");
    assert_eq!(plant.registry.service("rl").unwrap().record.spec.environment["API_TOKEN"], "t0k3n");
    // Where there is nothing to put back, that is told.
    let problem = update(&Plant::new().await, "*", &document.to_string()).await.problem(422, "Invalid");
    let pointers: Vec<&str> =
        problem["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/coredinator/config/db/password", "/coredinator/services/rl/environment/API_TOKEN"]);
}

#[tokio::test]
async fn history_and_the_way_back() {
    let plant = Plant::new().await;
    let path = |author: &str| format!("{UPDATE}?author={author}&message=because%20of%20it");
    for (n, author) in ["ann", "bob", "cid"].into_iter().enumerate() {
        let body = format!("coredinator: {{services: {{io: {{port: {}}}}}}}", n + 1);
        let headers = [("content-type", "application/yaml"), ("if-match", "*")];
        assert_eq!(send(&plant, "PUT", &path(author), &headers, &body).await.status, 200);
    }
    let page = plant.get("/api/coredinator/config/history?limit=2").await.json();
    assert_eq!((&page["revisions"][0]["author"], &page["revisions"][1]["revision"]), (&json!("cid"), &json!(2)));
    assert_eq!(page["next_page_token"], "2");
    let rest = plant.get("/api/coredinator/config/history?limit=2&page_token=2").await.json();
    assert_eq!((&rest["revisions"][0]["revision"], &rest["next_page_token"]), (&json!(1), &json!("")));
    let second = plant.get("/api/coredinator/config/history/2").await.json();
    assert_eq!(second["differences"], json!([{"pointer": "/coredinator/services/io/port", "before": 1, "after": 2}]));
    assert_eq!((&second["message"], &second["source"]), (&json!("because of it"), &json!("update")));

    let rollback = |body: Value| plant.ask("POST", "/api/coredinator/config/rollback", Some(body));
    let back = rollback(json!({"revision": 1})).await;
    assert_eq!((back.status.as_u16(), back.header("etag")), (200, "\"4\""), "{}", back.text());
    assert_eq!(plant.registry.service("io").unwrap().record.spec.port, 1);
    let fourth = plant.get("/api/coredinator/config/history/4").await.json();
    assert_eq!((&fourth["source"], &fourth["to"]), (&json!("rollback"), &json!(1)));
    let dry = plant.ask("POST", "/api/coredinator/config/rollback?dry_run", Some(json!({"revision": 0}))).await.json();
    assert_eq!((&dry["changed"], &dry["plan"]["services"][0]["action"]), (&json!(false), &json!("delete")));
    rollback(json!({"revision": 9})).await.problem(404, "NotFound");
    rollback(json!({"revision": -1})).await.problem(422, "Invalid");
    rollback(json!({"to": 1})).await.problem(422, "Invalid");
    plant.get("/api/coredinator/config/history/9").await.problem(404, "NotFound");
    plant.get("/api/coredinator/config/history/x").await.problem(404, "NotFound");
    plant.get("/api/coredinator/config/history?page_token=x").await.problem(400, "InvalidParameter");
    plant.get("/api/coredinator/config/history?limit=0").await.problem(400, "InvalidParameter");
}

#[tokio::test]
async fn from_elsewhere_nothing_is_declared_that_runs_here() {
    let plant = Plant::new().await;
    let remote = async |path: &str, method: &str, body: &str| {
        let request = Request::builder().method(method).uri(path).header("host", "h:1").header("if-match", "*");
        plant.send(request.header("content-type", "application/yaml").body(Body::from(body.to_owned())).unwrap()).await
    };
    remote(UPDATE, "PUT", TWO).await.problem(403, "RemoteCommand");
    let external = remote(UPDATE, "PUT", "coredinator: {services: {io: {port: 1}}}").await;
    assert_eq!(external.status, 200, "{}", external.text());
    assert_eq!(update(&plant, "*", TWO).await.status, 200);
    // What runs already may be handed back as it is.
    let (document, _) = generated(&plant).await;
    assert_eq!(remote(UPDATE, "PUT", &document.to_string()).await.status, 200);
    update(&plant, "*", "coredinator: {services: {}}").await;
    let back = Request::builder().method("POST").uri("/api/coredinator/config/rollback").header("host", "h:1");
    let back = back.header("content-type", "application/json").body(Body::from(r#"{"revision": 2}"#)).unwrap();
    plant.send(back).await.problem(403, "RemoteCommand");
}

#[tokio::test]
async fn what_only_a_start_can_change_is_passed_over_with_a_warning_and_variables_are_not_the_servers() {
    let plant = Plant::new().await;
    let body =
        "coredinator: {port: 9, coordination: {sync_interval: 3}, leadership: {lease: 99}, node: x, services: {}}";
    let told = validate(&plant, body).await;
    assert_eq!(told["valid"], true, "{told}");
    let at_start = json!(["/coredinator/port", "/coredinator/node", "/coredinator/leadership"]);
    assert_eq!(told["plan"]["needs_restart"], at_start, "{told}");
    let sections: Vec<&str> =
        told["plan"]["sections"].as_array().unwrap().iter().map(|s| s["section"].as_str().unwrap()).collect();
    assert!(sections.contains(&"coordination"), "{told}");
    let updated = update(&plant, "*", body).await.json();
    assert_eq!(updated["plan"]["needs_restart"], at_start, "{updated}");
    let warned: Vec<&str> =
        told["warnings"].as_array().unwrap().iter().map(|w| w["pointer"].as_str().unwrap()).collect();
    assert_eq!(warned, ["/coredinator/port", "/coredinator/node", "/coredinator/leadership"]);
    let told = validate(&plant, "coredinator: {services: {a: {port: 1, labels: {home: '${HOME}'}}}}").await;
    assert_eq!(told["errors"][0]["message"], "variable HOME is not set");
    let told = validate(&plant, "coredinator: {services: {a: {port: 1, labels: {home: '${HOME:-x}'}}}}").await;
    assert_eq!(told["valid"], true, "{told}");
}
