use coredinator_core::SpecDefaults;
use serde_json::json;

use super::*;

fn spec(more: &Value) -> ServiceSpec {
    let mut document = json!({"runtime": "process", "command": "x"});
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ServiceSpec::parse("", Some("a"), document, &SpecDefaults::default()).unwrap()
}

fn said(more: &Value, base: &Value) -> Vec<(String, String)> {
    let errors = Schemas::new().in_configuration(&spec(more), base.as_object().unwrap());
    let mut said: Vec<_> = errors.into_iter().map(|error| (error.pointer, error.detail)).collect();
    said.sort();
    said
}

fn pointers(more: &Value, base: &Value) -> Vec<String> {
    said(more, base).into_iter().map(|(pointer, _)| pointer).collect()
}

#[test]
fn all_that_is_wrong_is_told_where_it_was_written() {
    let schema = json!({
        "type": "object",
        "required": ["rate", "plant", "seed"],
        "additionalProperties": false,
        "properties": {
            "rate": {"type": "number", "exclusiveMinimum": 0},
            "plant": {"enum": ["north", "south"]},
            "net": {"properties": {"layers": {"items": {"type": "integer"}}}, "minProperties": 2},
        },
    });
    let document = json!({
        "config_schema": schema,
        "config": {"rate": 0.1, "net": {"layers": [1, "two", 3.5]}},
        "config_overrides": {"1": {"rate": -1}, "2": {"rate": "fast", "net": {"layers": []}}},
    });
    let base = json!({"plant": "west", "histroian": 1});
    let told = said(&document, &base);
    let pointers: Vec<&str> = told.iter().map(|(pointer, _)| pointer.as_str()).collect();
    assert_eq!(
        pointers,
        [
            "/config/histroian",
            "/config/plant",
            "/services/a/config",
            "/services/a/config/net",
            "/services/a/config/net/layers/1",
            "/services/a/config/net/layers/2",
            "/services/a/config_overrides/1/rate",
            "/services/a/config_overrides/2/net",
            "/services/a/config_overrides/2/rate",
        ],
        "{told:#?}"
    );
    assert_eq!(told[0].1, "the service's schema knows no such key, in the document of service a");
    assert!(told[2].1.starts_with("\"seed\" is missing"), "{told:#?}");
    assert!(told.iter().all(|(_, detail)| !detail.contains("fast") && !detail.contains("west")), "{told:#?}");
}

#[test]
fn what_keeps_to_its_schema_is_not_talked_about() {
    let schema = json!({"properties": {"rate": {"type": "number"}}, "required": ["rate"]});
    assert_eq!(said(&json!({"config": {}, "config_schema": schema}), &json!({"rate": 1})), []);
    assert_eq!(said(&json!({"config": {}, "config_schema": true}), &json!({})), []);
    assert_eq!(pointers(&json!({"config": {}, "config_schema": false}), &json!({})), ["/services/a/config"]);
    assert_eq!(said(&json!({"config": {"rate": "x"}}), &json!({})), []);
}

#[test]
fn of_a_secret_only_the_type_can_be_told() {
    let schema = |of: Value| json!({"properties": {"password": of}});
    let secret = json!({"password": {"secret_env": "P"}});
    let with = |of: Value| pointers(&json!({"config": secret, "config_schema": schema(of)}), &json!({}));
    assert_eq!(with(json!({"type": "string", "minLength": 12, "pattern": "^x", "enum": ["y"]})), [] as [&str; 0]);
    assert_eq!(with(json!({"type": "integer"})), ["/services/a/config/password"]);
    assert_eq!(with(json!({"type": "object"})), ["/services/a/config/password"]);
}

#[test]
fn what_is_no_schema_is_told_with_its_place() {
    for (schema, at) in [
        (json!({"type": "nonsense"}), "/type"),
        (json!({"properties": {"a": {"minimum": "x"}}}), "/properties/a/minimum"),
        (json!({"properties": {"a": {"pattern": "("}}}), "/properties/a/pattern"),
        (json!({"$schema": "http://example.org/mine"}), ""),
        (json!({"$ref": "http://example.org/schema.json"}), "/$ref"),
        (json!({"items": {"$ref": "file:///etc/passwd"}}), "/items/$ref"),
        (json!({"properties": {"$ref": {"$ref": "other.json"}}}), "/properties/$ref/$ref"),
        (json!({"allOf": [{"$ref": "#/$defs/none"}]}), "/allOf/0/$ref"),
        (json!({"allOf": [{"$ref": "#none"}]}), "/allOf/0/$ref"),
        (json!({"$defs": {"x": {"$id": "http://example.org/x"}}}), "/$defs/x/$id"),
        (json!({"required": "x"}), "/required"),
    ] {
        let told = pointers(&json!({"config": {}, "config_schema": schema.clone()}), &json!({}));
        assert_eq!(told, [format!("/services/a/config_schema{at}")], "{schema}");
    }
    let two = json!({"type": 7, "properties": {"a": {"minimum": "x"}}});
    assert_eq!(said(&json!({"config": {}, "config_schema": two}), &json!({})).len(), 2);
}

#[test]
fn references_inside_of_a_schema_are_followed() {
    let schema = json!({
        "$defs": {"rate": {"type": "number"}, "a/b": {"$anchor": "text", "type": "string"}},
        "properties": {"x": {"$ref": "#/$defs/rate"}, "y": {"$ref": "#text"}, "z": {"$ref": "#/$defs/a~1b"}, "next": {"$ref": "#"}},
    });
    let document =
        json!({"config": {"x": "1", "y": 1, "z": 1, "next": {"next": {"x": false}}}, "config_schema": schema});
    let at = |key: &str| format!("/services/a/config/{key}");
    assert_eq!(pointers(&document, &json!({})), [at("next/next/x"), at("x"), at("y"), at("z")]);
}

/// What would take for ever, or more stack than there is, is refused in no time; what only looks like it is not.
#[test]
fn what_cannot_be_afforded_is_refused() {
    let began = tokio::time::Instant::now();
    let deep = (0..60).fold(json!(1), |inner, _| json!({"a": inner}));
    let chain = |length: usize, times: usize| {
        let part = |i: usize| json!({"allOf": vec![json!({"$ref": format!("#/$defs/d{}", i + 1)}); times]});
        let mut defs: Map<String, Value> = (0..length).map(|i| (format!("d{i}"), part(i))).collect();
        defs.insert(format!("d{length}"), json!({"type": "object"}));
        json!({"$defs": defs, "$ref": "#/$defs/d0"})
    };
    let below = |times: usize| json!({"allOf": vec![json!({"properties": {"a": {"$ref": "#"}}}); times]});
    for (schema, refused) in [
        (chain(40, 2), true),
        (chain(10, 2), false),
        (chain(60, 1), false),
        (chain(20_000, 1), true),
        (below(2), true),
        (below(1), false),
        (json!({"$ref": "#"}), false),
        (json!({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}), false),
        (json!({"not": {"not": {"$ref": "#"}}}), false),
        (json!({"additionalProperties": {"$ref": "#"}, "maxProperties": 3}), false),
    ] {
        let told = pointers(&json!({"config": deep, "config_schema": schema.clone()}), &json!({}));
        let shown: String = schema.to_string().chars().take(120).collect();
        let wanted: &[&str] = if refused { &["/services/a/config_schema"] } else { &[] };
        assert_eq!(told, wanted, "{shown}");
    }
    // A pattern that goes back for ever.
    let evil = json!({"properties": {"s": {"pattern": "^(a|aa)+\\1$"}}});
    let document = json!({"config": {"s": "a".repeat(60) + "b"}, "config_schema": evil});
    assert_eq!(pointers(&document, &json!({})), ["/services/a/config/s"]);
    assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
}
