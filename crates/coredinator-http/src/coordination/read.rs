//! From JSON to the types of coordination.
//!
//! What is right goes through their own `Deserialize`. What that refuses, which stops at the first error, is held against
//! the [shape](super::shape) of the type, so that all errors are told.

use coredinator_coord::inadmissible;
use coredinator_core::{
    FieldError,
    coordination::{Agent, Intention, Problem, ProblemDocument},
    field::join,
};
use serde::{Deserialize as _, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::shape::{self, Shape};

/// How many errors are told: what has more is garbage, and its first ones say so.
const MAX_ERRORS: usize = 100;

/// Reads a problem on paper. Whether it can be solved is for
/// [`Problem::new`](coredinator_core::coordination::Problem::new) to say.
///
/// # Errors
/// Everything that is wrong with its form, with pointers into it.
pub fn problem(value: &Value) -> Result<ProblemDocument, Vec<FieldError>> {
    read(value, &shape::PROBLEM).and_then(admitted)
}

/// A problem whose agents could register; else all that is wrong with it.
fn admitted(document: ProblemDocument) -> Result<ProblemDocument, Vec<FieldError>> {
    let agents = document.agents.iter().enumerate();
    let mut errors: Vec<FieldError> =
        agents.flat_map(|(at, agent)| inadmissible(&format!("/agents/{at}"), agent)).collect();
    if errors.is_empty() {
        return Ok(document);
    }
    errors.extend(Problem::new(document).err().unwrap_or_default());
    Err(errors)
}

/// Reads a problem on paper from the text of a file.
///
/// # Errors
/// As [`problem`]; of a text that is no JSON, the line and column.
pub fn problem_from_json(text: &[u8]) -> Result<ProblemDocument, Vec<FieldError>> {
    // Straight to the types: a problem of ten thousand agents is several megabytes.
    if let Ok(document) = serde_json::from_slice(text) {
        return admitted(document);
    }
    match serde_json::from_slice::<Value>(text) {
        Ok(value) => problem(&value),
        Err(error) => Err(vec![FieldError::new("", format!("not JSON: {error}"))]),
    }
}

/// Reads an agent by `possible`, which says whether what it says can be.
///
/// # Errors
/// Everything that is wrong with its form, and with what is said by those of its fields that can be read.
pub fn agent(
    value: &Value,
    possible: impl Fn(&Value) -> Result<Agent, Vec<FieldError>>,
) -> Result<Agent, Vec<FieldError>> {
    let mut errors = match read::<Agent>(value, &shape::AGENT) {
        Ok(_) => return possible(value),
        Err(errors) => errors,
    };
    let Value::Object(fields) = value else { return Err(errors) };
    let is_wrong = |key: &str| {
        let pointer = join("", key);
        let within = |error: &FieldError| error.pointer.strip_prefix(&pointer).map(|rest| rest.chars().next());
        errors.iter().filter_map(within).any(|next| matches!(next, None | Some('/')))
    };
    let mut rest = fields.clone();
    rest.retain(|key, _| !is_wrong(key));
    // What is left must not be wrong for want of what was left out.
    rest.entry("agent_id").or_insert_with(|| "unnamed".into());
    if !rest.contains_key("endpoint") && fields.contains_key("endpoint") {
        rest.remove("negotiates");
    }
    errors.extend(possible(&Value::Object(rest)).err().unwrap_or_default());
    Err(errors)
}

/// Reads an intention. Whether what it names exists is not asked of one that can be read.
///
/// # Errors
/// Everything that is wrong with its form, and what `check` finds in the rest of it: who mends one should not have to learn of the
/// other afterwards.
pub fn intention(
    value: &Value,
    check: impl FnOnce(&Intention) -> Vec<FieldError>,
) -> Result<Intention, Vec<FieldError>> {
    let mut errors = match read(value, &shape::INTENTION) {
        Ok(intention) => return Ok(intention),
        Err(errors) => errors,
    };
    if let Ok(rest) = Intention::deserialize(without(value.clone(), &errors)) {
        let within = |pointer: &str, of: &str| {
            pointer.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mut found = check(&rest);
        found.retain(|found| !errors.iter().any(|known| within(&found.pointer, &known.pointer)));
        errors.append(&mut found);
        errors.truncate(MAX_ERRORS);
    }
    Err(errors)
}

/// An intention without what is wrong with its form, as far as that leaves one; something stands where something must.
fn without(mut value: Value, errors: &[FieldError]) -> Value {
    for error in errors {
        let Some((parent, key)) = error.pointer.rsplit_once('/') else { continue };
        // A claim without its value, or a fraction without its least, is none.
        let of_more = [("/claims/", "value"), ("/elastic", "min_fraction")];
        let needed = of_more.iter().any(|&(of, field)| parent.contains(of) && key == field);
        let (parent, key) = if needed { parent.rsplit_once('/').unwrap_or((parent, key)) } else { (parent, key) };
        match value.pointer_mut(parent) {
            Some(Value::Object(fields)) => drop(fields.remove(&key.replace("~1", "/").replace("~0", "~"))),
            Some(Value::Array(list)) => {
                let at = key.parse().ok().and_then(|at: usize| list.get_mut(at));
                at.into_iter().for_each(|entry| *entry = Value::Object(Map::new()));
            }
            _ => {}
        }
    }
    let options = value.get_mut("options").and_then(Value::as_array_mut).into_iter().flatten();
    for (at, option) in options.enumerate().filter_map(|(at, option)| Some((at, option.as_object_mut()?))) {
        option.entry("id").or_insert_with(|| format!("unnamed option {at}").into());
        option.entry("utility").or_insert_with(|| 0.into());
    }
    value
}

fn read<T: DeserializeOwned>(value: &Value, shape: &Shape) -> Result<T, Vec<FieldError>> {
    let error = match T::deserialize(value) {
        Ok(read) => return Ok(read),
        Err(error) => error,
    };
    let mut errors = Vec::new();
    shape.errors("", value, &mut errors);
    errors.truncate(MAX_ERRORS);
    if errors.is_empty() {
        errors.push(FieldError::unread("", &error.to_string()));
    }
    Err(errors)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A problem in which every key of every type stands.
    fn full() -> Value {
        let option = json!({
            "id": "run", "action": {"any": [1, null]}, "demands": {"steam": 1.5},
            "claims": {"level": {"value": 2, "min": 1, "max": 3, "weight": 2}}, "effects": {"level": -1}, "utility": 3,
            "elastic": {"min_fraction": 0.5, "shape": "log"},
        });
        json!({
            "group": "g", "cycle": 3, "budget": {"iterations": 10, "deadline_ms": 5}, "seed": 1,
            "resources": [{"name": "steam", "capacity": 1, "unit": "t/h", "reserve": 0, "kind": "unit"}],
            "variables": [{"name": "level", "unit": "m", "min": 0, "max": 1, "max_rate": 1, "current": 0, "default": 0,
                "tolerance": 0, "on_conflict": "blend"}],
            "agents": [{"agent_id": "a", "group": "g", "priority": 1, "weight": 1, "preemptible": false,
                "endpoint": "http://localhost:1", "negotiates": true, "ttl_seconds": 1, "fallback": option, "service": "s"},
                {"agent_id": "b", "fallback": "hold"}],
            "intentions": [{"agent_id": "a", "seq": 1, "valid_until_cycle": 9, "disagreement": 0, "options": [option]}],
            "holdings": [{"agent_id": "a", "cycle": 2, "reserved": true, "option_id": "run", "fraction": 1, "grant": {"steam": 1},
                "values": {"level": 1}, "action": 1}],
            "history": [{"cycle": 2, "agents": {"a": {"outcome": "granted", "option_id": "run", "fraction": 1, "utility": 1,
                "code": "first_choice"}}}],
        })
    }

    fn told(value: &Value) -> Vec<String> {
        problem(value).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_right_is_right_to_both() {
        let mut errors = Vec::new();
        shape::PROBLEM.errors("", &full(), &mut errors);
        assert_eq!(errors, []);
        let read = problem(&full()).unwrap();
        assert_eq!(problem_from_json(full().to_string().as_bytes()).unwrap(), read);
        let written = serde_json::to_value(&read).unwrap();
        shape::PROBLEM.errors("", &written, &mut errors);
        assert_eq!((errors, problem(&written).unwrap()), (vec![], read));
    }

    #[test]
    fn everything_wrong_is_told_with_its_place() {
        let mut wrong = full();
        wrong["sead"] = 1.into();
        wrong["resources"][0]["capacity"] = "much".into();
        wrong["agents"][0]["fallback"]["utility"] = Value::Null;
        wrong["agents"][1]["fallback"] = "holt".into();
        wrong["agents"][1].as_object_mut().unwrap().remove("agent_id");
        wrong["intentions"][0]["options"][0]["claims"]["level"]["valu"] = 1.into();
        wrong["intentions"][0]["options"][0]["elastic"]["shape"] = "cubic".into();
        wrong["holdings"] = json!({});
        assert_eq!(
            told(&wrong),
            [
                "/resources/0/capacity: expected a number, but found \"much\"",
                "/agents/0/fallback/utility: expected a number, but found nothing",
                "/agents/1/agent_id: is missing",
                "/agents/1/fallback: a fallback is \"hold\", \"default\", \"release\" or an option, but this is \"holt\" (did you mean \"hold\"?)",
                "/intentions/0/options/0/claims/level/valu: unknown field \"valu\" (did you mean \"value\"?)",
                "/intentions/0/options/0/elastic/shape: must be one of \"linear\", \"quadratic\", \"log\", but is \"cubic\"",
                "/holdings: expected a list, but found an object",
                "/sead: unknown field \"sead\" (did you mean \"seed\"?)",
            ]
        );
        assert_eq!(told(&json!(3)), ["/: expected an object, but found a number"]);
        let text = problem_from_json(b"{\"agents\": [}").unwrap_err();
        assert_eq!(text[0].to_string(), "/: not JSON: expected value at line 1 column 13");
    }

    #[test]
    fn agents_that_could_not_register_are_none_on_paper_either() {
        let mut wrong = full();
        wrong["agents"][0]["endpoint"] = "nowhere".into();
        wrong["agents"][1]["ttl_seconds"] = 1e12.into();
        wrong["resources"][0]["capacity"] = (-1).into();
        let errors = problem(&wrong).unwrap_err();
        assert_eq!(errors, problem_from_json(wrong.to_string().as_bytes()).unwrap_err());
        let pointers: Vec<&str> = errors.iter().map(|error| error.pointer.as_str()).collect();
        for pointer in ["/agents/0/endpoint", "/agents/1/ttl_seconds", "/resources/0/capacity"] {
            assert!(pointers.contains(&pointer), "{pointer} in {pointers:?}");
        }
    }

    #[test]
    fn one_thing_wrong_is_one_error_wherever_it_is() {
        let mut places = Vec::new();
        collect("", &full(), &mut places);
        assert!(places.len() > 60, "{}", places.len());
        for place in places {
            // What an action is, is the agent's affair.
            if place.contains("/action") {
                continue;
            }
            for wrong in [json!([[]]), json!({"": {"": []}})] {
                let mut spoiled = full();
                *spoiled.pointer_mut(&place).unwrap() = wrong;
                let errors = problem(&spoiled).unwrap_err();
                assert!(
                    !errors.is_empty() && errors.iter().all(|e| e.pointer.starts_with(&place)),
                    "{place}: {errors:?}"
                );
            }
        }
    }

    fn collect(pointer: &str, value: &Value, places: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (key, value) in fields {
                    let at = coredinator_core::field::join(pointer, key);
                    collect(&at, value, places);
                    places.push(at);
                }
            }
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(at, item)| collect(&format!("{pointer}/{at}"), item, places));
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}", cut in 0usize..400) {
            let mut json = full().to_string();
            let at = json.floor_char_boundary(cut.min(json.len()));
            json.insert_str(at, &text);
            let _ = problem_from_json(json.as_bytes());
        }
    }
}
