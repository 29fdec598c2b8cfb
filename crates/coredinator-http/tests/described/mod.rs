//! Whether an answer is one that the API's description promises: every test that asks the API asks this, too, so that the
//! description is true of all that the tests ever see.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
};

use coredinator_http::api::openapi;
use jsonschema::Validator;
use serde_json::{Value, json};

static DESCRIPTION: LazyLock<Value> = LazyLock::new(|| serde_json::to_value(openapi()).unwrap());

/// By the schema's text. Making one takes longer than most tests.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Panics if a described operation gives an answer that is not described: another status, another kind of content, or a
/// document that its schema refuses. What is asked of no described operation is not looked at.
#[track_caller]
pub(crate) fn assert_described(method: &str, path: &str, status: u16, content_type: &str, body: &[u8]) {
    let path = path.split('?').next().unwrap_or_default();
    let Some(operation) = operation(method, path) else { return };
    let asked = format!("{method} {path}, answered with {status}");
    let answers = &operation["responses"];
    let answer = answers.get(status.to_string()).unwrap_or_else(|| panic!("{asked}, is not described"));
    let kind = content_type.split(';').next().unwrap_or_default();
    let Some(described) = answer["content"].get(kind) else {
        assert!(body.is_empty() && answer.get("content").is_none(), "{asked}: {content_type:?} is not described");
        return;
    };
    let documents = match kind {
        "application/json" | "application/problem+json" => vec![serde_json::from_slice(body).unwrap()],
        // What an event is not of the described kind has a name of its own.
        "text/event-stream" => messages(body),
        _ => return,
    };
    let validator = validator(&described["schema"]);
    for document in &documents {
        let faults: Vec<String> = validator
            .iter_errors(document)
            .map(|fault| format!("{} at {:?}", fault, fault.instance_path().as_str()))
            .collect();
        assert!(faults.is_empty(), "{asked}: {}\n{document:#}", faults.join("\n"));
    }
}

/// The described operation that is asked for: the one whose path has the fewest parameters.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let fits = |described: &str| {
        described.split('/').count() == path.split('/').count()
            && described.split('/').zip(path.split('/')).all(|(one, other)| one == other || one.starts_with('{'))
    };
    let paths = DESCRIPTION["paths"].as_object().unwrap();
    let (_, operations) = paths
        .iter()
        .filter(|(described, _)| fits(described))
        .min_by_key(|(described, _)| described.matches('{').count())?;
    operations.get(method.to_ascii_lowercase())
}

/// The JSON documents in a stream of events.
fn messages(body: &[u8]) -> Vec<Value> {
    let text = String::from_utf8_lossy(body);
    text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data:")?).ok()).collect()
}

fn validator(schema: &Value) -> Arc<Validator> {
    let mut validators = VALIDATORS.lock().unwrap();
    let made = validators.entry(schema.to_string()).or_insert_with(|| {
        // References are into the whole description.
        let whole = json!({"allOf": [schema], "components": DESCRIPTION["components"]});
        Arc::new(jsonschema::draft202012::new(&whole).unwrap())
    });
    Arc::clone(made)
}
