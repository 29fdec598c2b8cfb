//! What documents of coordination look like, as tables; a test holds them against the types themselves.

use coredinator_core::{
    FieldError, ServiceName,
    coordination::{AgentId, DecisionOutcome, OnConflict, ResourceKind, Shape as UtilityShape},
    field::{join, kind},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// How a value has to look.
pub(super) enum Shape {
    /// One that this accepts.
    Leaf(fn(&Value) -> Result<(), String>),
    /// An object of these fields.
    Object(&'static [Field]),
    /// A list of these.
    List(&'static Self),
    /// A map from names to these.
    Map(&'static Self),
    /// A word, or an option.
    Fallback,
    /// Anything.
    Any,
}

/// A field of an object.
pub(super) struct Field {
    name: &'static str,
    required: bool,
    /// Whether `null` says the same as leaving it out.
    nullable: bool,
    shape: Shape,
}

const fn must(name: &'static str, shape: Shape) -> Field {
    Field { name, required: true, nullable: false, shape }
}

const fn may(name: &'static str, shape: Shape) -> Field {
    Field { name, required: false, nullable: false, shape }
}

const fn option(name: &'static str, shape: Shape) -> Field {
    Field { name, required: false, nullable: true, shape }
}

const fn leaf<T: DeserializeOwned>() -> Shape {
    Shape::Leaf(|value| T::deserialize(value).map(drop).map_err(|error| error.to_string()))
}

const WORDS: [&str; 3] = ["hold", "default", "release"];

const CLAIM: Shape = Shape::Object(&[
    must("value", leaf::<f64>()),
    option("min", leaf::<f64>()),
    option("max", leaf::<f64>()),
    may("weight", leaf::<f64>()),
]);

const OPTION: Shape = Shape::Object(&[
    must("id", leaf::<String>()),
    may("action", Shape::Any),
    may("demands", Shape::Map(&leaf::<f64>())),
    may("claims", Shape::Map(&CLAIM)),
    may("effects", Shape::Map(&leaf::<f64>())),
    must("utility", leaf::<f64>()),
    option("elastic", Shape::Object(&[must("min_fraction", leaf::<f64>()), may("shape", leaf::<UtilityShape>())])),
]);

pub(super) static AGENT: Shape = Shape::Object(AGENT_FIELDS);

const AGENT_FIELDS: &[Field] = &[
    must("agent_id", leaf::<AgentId>()),
    may("group", leaf::<String>()),
    may("priority", leaf::<i32>()),
    may("weight", leaf::<f64>()),
    may("preemptible", leaf::<bool>()),
    option("endpoint", leaf::<String>()),
    may("negotiates", leaf::<bool>()),
    may("ttl_seconds", leaf::<f64>()),
    option("fallback", Shape::Fallback),
    option("service", leaf::<ServiceName>()),
];

pub(super) static INTENTION: Shape = Shape::Object(INTENTION_FIELDS);

const INTENTION_FIELDS: &[Field] = &[
    must("agent_id", leaf::<AgentId>()),
    may("seq", leaf::<u64>()),
    option("valid_until_cycle", leaf::<u64>()),
    option("disagreement", leaf::<f64>()),
    must("options", Shape::List(&OPTION)),
];

pub(super) static PROBLEM: Shape = Shape::Object(&[
    may("group", leaf::<String>()),
    may("cycle", leaf::<u64>()),
    may("budget", Shape::Object(&[option("iterations", leaf::<u64>()), option("deadline_ms", leaf::<u64>())])),
    may("seed", leaf::<u64>()),
    may(
        "resources",
        Shape::List(&Shape::Object(&[
            must("name", leaf::<String>()),
            must("capacity", leaf::<f64>()),
            may("unit", leaf::<String>()),
            may("reserve", leaf::<f64>()),
            may("kind", leaf::<ResourceKind>()),
        ])),
    ),
    may(
        "variables",
        Shape::List(&Shape::Object(&[
            must("name", leaf::<String>()),
            may("unit", leaf::<String>()),
            must("min", leaf::<f64>()),
            must("max", leaf::<f64>()),
            option("max_rate", leaf::<f64>()),
            option("current", leaf::<f64>()),
            option("default", leaf::<f64>()),
            may("tolerance", leaf::<f64>()),
            may("on_conflict", leaf::<OnConflict>()),
        ])),
    ),
    must("agents", Shape::List(&Shape::Object(AGENT_FIELDS))),
    may("intentions", Shape::List(&Shape::Object(INTENTION_FIELDS))),
    may(
        "holdings",
        Shape::List(&Shape::Object(&[
            must("agent_id", leaf::<AgentId>()),
            must("cycle", leaf::<u64>()),
            may("reserved", leaf::<bool>()),
            option("option_id", leaf::<String>()),
            may("fraction", leaf::<f64>()),
            may("grant", Shape::Map(&leaf::<f64>())),
            may("values", Shape::Map(&leaf::<f64>())),
            may("action", Shape::Any),
        ])),
    ),
    may(
        "history",
        Shape::List(&Shape::Object(&[
            must("cycle", leaf::<u64>()),
            must(
                "agents",
                Shape::Map(&Shape::Object(&[
                    must("outcome", leaf::<DecisionOutcome>()),
                    option("option_id", leaf::<String>()),
                    may("fraction", leaf::<f64>()),
                    may("utility", leaf::<f64>()),
                    may("code", leaf::<String>()),
                ])),
            ),
        ])),
    ),
]);

impl Shape {
    /// Gathers everything in which `value`, found at `pointer`, is not of this shape.
    pub(super) fn errors(&self, pointer: &str, value: &Value, errors: &mut Vec<FieldError>) {
        let expected = |what: &str| FieldError::new(pointer, format!("expected {what}, but found {}", kind(value)));
        match (self, value) {
            (Self::Any, _) => {}
            (Self::Leaf(read), _) => errors.extend(read(value).err().map(|told| FieldError::unread(pointer, &told))),
            (Self::Object(fields), Value::Object(found)) => {
                for field in *fields {
                    match found.get(field.name) {
                        None if field.required => errors.push(FieldError::new(join(pointer, field.name), "is missing")),
                        None => {}
                        Some(Value::Null) if field.nullable => {}
                        Some(value) => field.shape.errors(&join(pointer, field.name), value, errors),
                    }
                }
                let known: Vec<&str> = fields.iter().map(|field| field.name).collect();
                let unknown = found.keys().filter(|key| !known.contains(&key.as_str()));
                errors.extend(unknown.map(|key| FieldError::unknown(pointer, key, &known)));
            }
            (Self::Object(_), _) => errors.push(expected("an object")),
            (Self::List(shape), Value::Array(items)) => {
                items.iter().enumerate().for_each(|(at, item)| shape.errors(&format!("{pointer}/{at}"), item, errors));
            }
            (Self::List(_), _) => errors.push(expected("a list")),
            (Self::Map(shape), Value::Object(found)) => {
                found.iter().for_each(|(key, value)| shape.errors(&join(pointer, key), value, errors));
            }
            (Self::Map(_), _) => errors.push(expected("an object")),
            (Self::Fallback, Value::String(word)) if WORDS.contains(&word.as_str()) => {}
            (Self::Fallback, Value::String(word)) => {
                let shown: String = word.chars().take(64).collect();
                let detail =
                    format!("a fallback is \"hold\", \"default\", \"release\" or an option, but this is {shown:?}");
                let error = FieldError::new(pointer, detail);
                errors.push(error.with_nearest(&shown, &WORDS));
            }
            (Self::Fallback, _) => OPTION.errors(pointer, value, errors),
        }
    }
}
