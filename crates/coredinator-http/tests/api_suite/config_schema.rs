//! The JSON Schema that a service declares for its document, at every path by which documents come.
#![cfg(feature = "json-schema")]

use axum::body::Body;
use serde_json::{Value, json};

use crate::support::{Answer, Plant, request};

async fn send(plant: &Plant, method: &str, path: &str, body: &str) -> Answer {
    let mut request = request(method, path, None);
    request.headers_mut().insert("content-type", "application/yaml".parse().unwrap());
    request.headers_mut().insert("if-match", "*".parse().unwrap());
    *request.body_mut() = Body::from(body.to_owned());
    plant.send(request).await
}

async fn update(plant: &Plant, body: &str) -> Answer {
    send(plant, "PUT", "/api/coredinator/config/update", body).await
}

/// Pointers, lines and columns of errors.
fn places(errors: &Value) -> Vec<(&str, Option<u64>, Option<u64>)> {
    let of = |error: &'_ Value| (error["line"].as_u64(), error["column"].as_u64());
    let errors = errors.as_array().unwrap().iter();
    errors.map(|error| (error["pointer"].as_str().unwrap(), of(error).0, of(error).1)).collect()
}

const BAD: &str = "coredinator:
  config: {plant: west}
  services:
    rl:
      runtime: paper
      command: [x]
      replicas: 2
      config:
        rate: fast
        rat: 1
      config_overrides:
        \"1\": {rate: -1}
      config_schema:
        additionalProperties: false
        required: [rate, seed]
        properties:
          rate: {type: number, minimum: 0}
          plant: {enum: [north, south]}
          seed: {}
";

#[tokio::test]
async fn everything_that_a_schema_refuses_is_told_with_line_and_column() {
    let plant = Plant::new().await;
    let expected = [
        ("/coredinator/config/plant", Some(2), Some(12)),
        ("/coredinator/services/rl/config", Some(8), Some(7)),
        ("/coredinator/services/rl/config/rat", Some(10), Some(9)),
        ("/coredinator/services/rl/config/rate", Some(9), Some(9)),
        ("/coredinator/services/rl/config_overrides/1/rate", Some(12), Some(15)),
    ];
    let sorted = |errors: &Value| {
        let mut errors = errors.as_array().unwrap().clone();
        errors.sort_by_key(|error| error["pointer"].to_string());
        Value::Array(errors)
    };
    let validated = send(&plant, "POST", "/api/coredinator/config/validate", BAD).await.json();
    assert_eq!(validated["valid"], false);
    assert_eq!(places(&sorted(&validated["errors"])), expected, "{validated:#}");
    let refused = update(&plant, BAD).await;
    let problem = refused.problem(422, "Invalid");
    assert_eq!(places(&sorted(&problem["errors"])), expected, "{problem:#}");
    assert!(plant.registry.services().is_empty());
}

#[tokio::test]
async fn a_schema_that_is_none_or_leads_elsewhere_is_told_with_its_place() {
    let plant = Plant::new().await;
    for (schema, at, says) in [
        ("{type: nonsense}", "/type", "is no JSON Schema"),
        ("{properties: {a: {$ref: 'http://example.org/a.json'}}}", "/properties/a/$ref", "nothing is fetched"),
        ("{$ref: /etc/passwd}", "/$ref", "nothing is fetched"),
        ("schema.json", "", "the schema itself is expected here"),
        ("7", "", "expected an object"),
    ] {
        let body = format!("coredinator: {{services: {{a: {{port: 1, config: {{}}, config_schema: {schema}}}}}}}");
        let problem = update(&plant, &body).await.problem(422, "Invalid");
        let pointer = format!("/coredinator/services/a/config_schema{at}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem:#}");
        assert!(problem["errors"][0]["detail"].as_str().unwrap().contains(says), "{problem:#}");
        assert!(problem["errors"][0]["line"] == 1);
    }
    let without = update(&plant, "coredinator: {services: {a: {port: 1, config_schema: {}}}}").await;
    assert!(without.problem(422, "Invalid").to_string().contains("no meaning without config"));
}

#[tokio::test]
async fn a_registration_and_a_return_are_judged_as_an_update_is() {
    let plant = Plant::new().await;
    let strict = json!({"properties": {"rate": {"maximum": 1}, "plant": {"const": "north"}}});
    let register = |rate: u32, replace: &str| {
        let path = format!("/api/coredinator/services/register{replace}");
        let body = json!({"name": "own", "port": 1, "config": {"rate": rate}, "config_schema": strict});
        let plant = &plant;
        async move { plant.ask("POST", &path, Some(body)).await }
    };
    let refused = register(2, "").await.problem(422, "Invalid");
    assert_eq!(places(&refused["errors"]), [("/config/rate", None, None)]);
    assert_eq!(register(1, "").await.status, 201);
    assert_eq!(places(&register(2, "?replace").await.problem(422, "Invalid")["errors"])[0].0, "/config/rate");
    // A new base that does not suit what registered itself.
    let refused = update(&plant, "coredinator:\n  config: {plant: south}\n").await.problem(422, "Invalid");
    assert_eq!(places(&refused["errors"]), [("/coredinator/config/plant", Some(2), Some(12))]);
    assert!(refused["errors"][0]["detail"].as_str().unwrap().ends_with("in the document of service own"));

    // What was in force once, and what has come to demand something else since.
    let old = "coredinator: {config: {plant: north}, services: {io: {port: 2, config: {}}}}";
    assert_eq!(update(&plant, old).await.status, 200);
    assert_eq!(update(&plant, "coredinator: {config: {}, services: {io: {port: 2, config: {}}}}").await.status, 200);
    let demanding = json!({"name": "late", "port": 3, "config": {}, "config_schema": {"not": {"required": ["plant"]}}});
    assert_eq!(plant.ask("POST", "/api/coredinator/services/register", Some(demanding)).await.status, 201);
    let back = plant.ask("POST", "/api/coredinator/config/rollback", Some(json!({"revision": 1}))).await;
    let refused = back.problem(422, "Invalid");
    assert_eq!(places(&refused["errors"]), [("/coredinator/services/late/config", None, None)], "{refused:#}");
    assert_eq!(plant.registry.config().revision, 2);
}

#[tokio::test]
async fn a_schema_is_written_out_as_it_was_read() {
    let plant = Plant::new().await;
    let body = r##"
coredinator:
  services:
    rl:
      runtime: paper
      command: [x]
      config: {password: {secret_env: P}}
      config_schema:
        $schema: https://json-schema.org/draft/2020-12/schema
        $defs: {name: {type: string, pattern: "^[a-z]+$", examples: ["$HOME", "$${HOME}"]}}
        properties: {name: {$ref: "#/$defs/name"}, password: {type: string, minLength: 99}}
"##;
    let first = update(&plant, body).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let generate = async |plant: &Plant| {
        let mut request = request("GET", "/api/coredinator/config/generate", None);
        request.headers_mut().insert("accept", "application/json".parse().unwrap());
        plant.send(request).await.json()
    };
    let document = generate(&plant).await;
    let schema = &document["coredinator"]["services"]["rl"]["config_schema"];
    assert_eq!(schema["$defs"]["name"]["examples"], json!(["$$HOME", "$${HOME}"]), "as a file's dollar signs are");
    let again = update(&plant, &document.to_string()).await;
    assert_eq!((again.status.as_u16(), &again.json()["changed"]), (200, &json!(false)), "{}", again.text());
    let other = Plant::new().await;
    assert_eq!(update(&other, &document.to_string()).await.status, 200);
    assert_eq!(generate(&other).await, document);
    let kept = &other.registry.service("rl").unwrap().record.spec.config.schema;
    assert_eq!(kept.as_ref().unwrap()["$defs"]["name"]["examples"], json!(["$HOME", "${HOME}"]));
}
