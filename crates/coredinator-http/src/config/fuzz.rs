//! Ten thousand documents of all kinds: none panics, and what loads is written out so that it loads as the same.

use serde_json::{Map, Value, json};

use super::{Input, Loader, redact, yaml};

/// Texts that are something to somebody: YAML, variables, durations, names, keys.
const TEXTS: [&str; 26] = [
    "",
    " ",
    "a",
    "A b",
    "no",
    "~",
    "<<",
    "*a",
    "&a",
    "- a",
    "a: b",
    "#",
    "'",
    "\"",
    "\n",
    "\t",
    "$",
    "$$",
    "${A:-b}",
    "$${A}",
    "1m30s",
    "0x1f",
    "1e3",
    "/health",
    "é\u{200b}",
    "always",
];

fn text(rng: &mut fastrand::Rng) -> String {
    let mut text = String::new();
    for _ in 0..=rng.usize(0..2) {
        text.push_str(TEXTS[rng.usize(..TEXTS.len())]);
    }
    text
}

fn garbage(rng: &mut fastrand::Rng, depth: u32) -> Value {
    match rng.u32(0..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => rng.bool().into(),
        2 => rng.i64(..).into(),
        3 => (rng.f64() * 1e9 - 5e8).into(),
        4 => rng.u32(0..100).into(),
        5 => text(rng).into(),
        6 => (0..rng.usize(0..4)).map(|_| garbage(rng, depth - 1)).collect(),
        _ => Value::Object((0..rng.usize(0..4)).map(|_| (text(rng), garbage(rng, depth - 1))).collect()),
    }
}

/// A document for an object in `config`: what is a reference to a secret is one.
fn layer(rng: &mut fastrand::Rng) -> Value {
    let mut layer: Map<String, Value> = (0..rng.usize(0..4)).map(|_| (text(rng), garbage(rng, 3))).collect();
    if rng.bool() {
        layer.insert("key".to_owned(), json!({"secret_env": "KEY"}));
    }
    Value::Object(layer)
}

/// A schema that is mostly one, and takes most documents.
fn schema(rng: &mut fastrand::Rng) -> Value {
    let kept = json!({"description": text(rng), "properties": {(text(rng)): true, "password": {"type": "string"}}});
    match rng.u32(0..6) {
        0 => rng.bool().into(),
        1 => json!({"$defs": {(text(rng)): {}}, "$ref": "#", "examples": [garbage(rng, 2)]}),
        2 => json!({(text(rng)): garbage(rng, 3)}),
        _ => kept,
    }
}

fn texts(rng: &mut fastrand::Rng) -> Value {
    let pairs = (0..rng.usize(0..3)).map(|n| (format!("k{n}{}", text(rng).replace(['=', '\0'], "")), text(rng).into()));
    Value::Object(pairs.collect())
}

fn check(rng: &mut fastrand::Rng) -> Value {
    let mut check = match rng.u32(0..5) {
        0 => json!({"disable": true}),
        1 => json!({"path": "/h", "headers": texts(rng), "expected_status": [200, "300-301"]}),
        2 => json!({"kind": "tcp"}),
        3 => json!({"ttl": rng.u32(1..100)}),
        _ => json!({"command": ["true", text(rng)], "beside": rng.bool()}),
    };
    if rng.bool() {
        check["interval"] = json!(rng.u32(1..10_000) as f64 / 1000.0);
        check["jitter"] = json!(rng.f64());
    }
    check
}

/// A service that is mostly right.
fn service(rng: &mut fastrand::Rng) -> Value {
    let managed = rng.u32(0..4) > 0;
    let mut service = if managed {
        json!({"runtime": "process", "command": ["./x", text(rng), "{port}"]})
    } else {
        json!({"port": rng.u16(1..8000), "host": "h"})
    };
    let mut set = |key: &str, value: Value| drop(service.as_object_mut().map(|map| map.insert(key.to_owned(), value)));
    for _ in 0..rng.usize(0..6) {
        match rng.u32(0..15) {
            0 => set("labels", texts(rng)),
            1 => set("health_check", check(rng)),
            2 if managed => set("readiness_check", check(rng)),
            3 if managed => set("environment", texts(rng)),
            4 => set("restart_policy", json!(["no", "always", "on-failure:3", "unless-stopped"][rng.usize(0..4)])),
            5 => set("backoff", json!({"initial": rng.f64(), "max": 100.0 + rng.f64(), "factor": 1.0 + rng.f64()})),
            6 if managed => set("replicas", rng.u32(0..5).into()),
            7 => set("version", text(rng).into()),
            8 => set("x-mine", garbage(rng, 3)),
            9 => set("config", layer(rng)),
            10 if managed => {
                set("config", layer(rng));
                set("config_overrides", json!({"0": layer(rng)}));
                let action = ["none", "signal", "http", "restart"][rng.usize(0..4)];
                set("config_change", json!({"action": action, "settle": rng.f64(), "acknowledge": rng.bool()}));
            }
            14 => {
                set("config", layer(rng));
                set("config_schema", schema(rng));
            }
            11 => set("stop_grace_period", json!(rng.f64() * 100.0)),
            12 if rng.u32(0..8) == 0 => set(&text(rng), garbage(rng, 3)),
            13 if rng.u32(0..8) == 0 => set("port", garbage(rng, 2)),
            _ => {}
        }
    }
    service
}

fn document(rng: &mut fastrand::Rng) -> Value {
    if rng.u32(0..20) == 0 {
        return garbage(rng, 5);
    }
    let services: Map<String, Value> = (0..rng.usize(0..4)).map(|n| (format!("s{n}"), service(rng))).collect();
    let mut section = json!({"services": services});
    let mut set = |key: &str, value: Value| drop(section.as_object_mut().map(|map| map.insert(key.to_owned(), value)));
    if rng.bool() {
        set("config", layer(rng));
    }
    if rng.bool() {
        set("health_check", json!({"interval": rng.u32(1..100), "retries": rng.u32(1..9)}));
    }
    if rng.bool() {
        set("coordination", json!({"sync_interval": 1.0 + rng.f64(), "resources": {"steam": {"capacity": rng.f64()}}}));
    }
    if rng.u32(0..30) == 0 {
        set(&text(rng), garbage(rng, 3));
    }
    let mut whole = json!({ "coredinator": section });
    if rng.bool() {
        whole["alerts"] = garbage(rng, 4);
    }
    whole
}

fn load(text: String) -> Result<super::Config, Vec<String>> {
    let input = Input::Text { name: "c.yaml".into(), text: text.into_bytes(), folder: "/etc/plant".into() };
    let loaded = Loader::new().input(input).load();
    loaded.map(|loaded| loaded.config).map_err(|error| error.problems().iter().map(ToString::to_string).collect())
}

/// What is written out of a configuration, its secrets included.
fn written(config: &super::Config) -> String {
    let mut document = config.whole_document();
    redact::escape(&mut document);
    yaml::write(&document)
}

#[test]
fn ten_thousand_documents() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut loaded, mut refused) = (0, 0);
    for n in 0..10_000 {
        let mut text = yaml::write(&document(&mut rng));
        if rng.u32(0..10) == 0 {
            // Damaged somewhere.
            let at = rng.usize(0..=text.chars().count());
            let at = text.char_indices().nth(at).map_or(text.len(), |(at, _)| at);
            text.insert_str(at, TEXTS[rng.usize(..TEXTS.len())]);
        }
        match load(text.clone()) {
            Err(problems) => {
                refused += 1;
                assert!(!problems.is_empty(), "seed {seed}, document {n}: refused without a reason\n{text}");
            }
            Ok(config) => {
                loaded += 1;
                let first = written(&config);
                let again = load(first.clone());
                let again = again.unwrap_or_else(|e| panic!("seed {seed}, document {n}: {e:?}\n{text}\n---\n{first}"));
                assert_eq!(written(&again), first, "seed {seed}, document {n}:\n{text}");
                assert_eq!(again.live(), config.live(), "seed {seed}, document {n}:\n{text}");
            }
        }
    }
    println!("{loaded} loaded, {refused} refused");
    assert!(loaded > 1000 && refused > 1000, "seed {seed}: {loaded} loaded, {refused} refused");
}
