//! Whatever is written into a problem, it is refused with the place of what is wrong, or solved; nothing panics.

use coredinator_core::coordination::{Presence, Problem, ProblemDocument, verify};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{greedy, written};

/// A problem with everything in it.
fn whole() -> Value {
    json!({
        "group": "plant", "cycle": 7, "seed": 1, "budget": {"iterations": 9, "deadline_ms": 100},
        "resources": [{"name": "steam", "capacity": 10, "reserve": 1}, {"name": "pump", "capacity": 2, "kind": "unit"}],
        "variables": [
            {"name": "t", "min": 0, "max": 100, "tolerance": 1, "current": 50, "max_rate": 60, "default": 20},
            {"name": "u", "min": 0, "max": 1, "on_conflict": "blend"}],
        "agents": [
            {"agent_id": "a", "weight": 2, "priority": 1, "fallback": {"id": "safe", "utility": 0, "demands": {"steam": 1}}},
            {"agent_id": "b", "fallback": "hold"}, {"agent_id": "c"}],
        "intentions": [
            {"agent_id": "a", "seq": 1, "disagreement": 1, "options": [
                {"id": "o", "utility": 5, "demands": {"steam": 8}, "claims": {"t": {"value": 60, "min": 50, "weight": 2}},
                 "elastic": {"min_fraction": 0.5, "shape": "log"}},
                {"id": "p", "utility": 1, "demands": {"pump": 1}, "effects": {"u": 1}}]},
            {"agent_id": "b", "options": [{"id": "o", "utility": 2, "demands": {"steam": 4}, "claims": {"u": {"value": 0.5}}}]}],
        "holdings": [{"agent_id": "c", "cycle": 6, "reserved": true, "fraction": 1, "grant": {"steam": 1}, "values": {"t": 55}}],
        "history": [{"cycle": 6, "agents": {"a": {"outcome": "denied"}}}],
    })
}

/// What is said of the whole problem with something else at a place: nothing parsed, or the places of what is wrong with
/// the problem or with an agent's intention.
fn places(at: &str, value: Value) -> Vec<String> {
    let mut document = whole();
    let (parent, key) = at.rsplit_once('/').unwrap();
    match document.pointer_mut(parent).unwrap() {
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        Value::Object(fields) => _ = fields.insert(key.to_owned(), value),
        other => panic!("{other} has no {key}"),
    }
    let Ok(document) = serde_json::from_value::<ProblemDocument>(document) else {
        return vec!["no document".to_owned()];
    };
    match Problem::new(document) {
        Err(errors) => errors.into_iter().map(|error| error.pointer).collect(),
        Ok(problem) => {
            let faults = problem.parties().iter().flat_map(|party| &party.faults);
            faults.map(|fault| fault.pointer.clone()).collect()
        }
    }
}

#[test]
fn the_whole_problem_is_one() {
    assert_eq!(places("/cycle", json!(7)), [""; 0]);
}

#[test]
fn every_field_that_is_wrong_is_told_by_its_place() {
    let long = "x".repeat(129);
    for (at, values, place) in [
        ("/group", vec![json!(""), json!(long), json!("a\u{0}b")], "/group"),
        ("/resources/0/name", vec![json!(""), json!("\n")], "/resources/0/name"),
        ("/resources/1/name", vec![json!("steam")], "/resources/1/name"),
        ("/resources/0/capacity", vec![json!(-1), json!(1e16), json!(1e308)], "/resources/0/capacity"),
        ("/resources/0/reserve", vec![json!(-0.1), json!(1e300)], "/resources/0/reserve"),
        ("/variables/1/name", vec![json!("t")], "/variables/1/name"),
        ("/variables/0/min", vec![json!(101), json!(-1e16)], "/variables/0/min"),
        ("/variables/0/max", vec![json!(-1), json!(1e16)], "/variables/0/min"),
        ("/variables/0/max_rate", vec![json!(-1)], "/variables/0/max_rate"),
        ("/variables/0/tolerance", vec![json!(-1), json!(1e99)], "/variables/0/tolerance"),
        ("/variables/0/current", vec![json!(1e99), json!(101)], "/variables/0/current"),
        ("/variables/0/default", vec![json!(-1e99), json!(-1)], "/variables/0/default"),
        ("/agents/1/agent_id", vec![json!("a")], "/agents/1/agent_id"),
        ("/agents/0/weight", vec![json!(0), json!(-1), json!(1e99)], "/agents/0/weight"),
        ("/agents/0/ttl_seconds", vec![json!(0), json!(-1)], "/agents/0/ttl_seconds"),
        ("/agents/0/group", vec![json!(""), json!("other")], "/agents/0/group"),
        ("/agents/0/negotiates", vec![json!(true)], "/agents/0/negotiates"),
        ("/agents/0/fallback/demands/steam", vec![json!(-1)], "/agents/0/fallback/demands/steam"),
        ("/agents/0/fallback/utility", vec![json!(1e99)], "/agents/0/fallback/utility"),
        ("/intentions/0/agent_id", vec![json!("d")], "/intentions/0/agent_id"),
        ("/intentions/-", vec![json!({"agent_id": "a", "seq": 1, "options": []})], "/intentions/2/seq"),
        ("/holdings/0/agent_id", vec![json!("d")], "/holdings/0/agent_id"),
        ("/holdings/-", vec![json!({"agent_id": "c", "cycle": 6})], "/holdings/1/agent_id"),
        (
            "/holdings/0/grant",
            vec![json!({"gold": 1}), json!({"steam": -1}), json!({"steam": 1e99})],
            "/holdings/0/grant",
        ),
        ("/holdings/0/values", vec![json!({"t": 1e99})], "/holdings/0/values"),
        ("/holdings/0/fraction", vec![json!(-0.5), json!(2)], "/holdings/0/fraction"),
        ("/history/-", vec![json!({"cycle": 6, "agents": {}})], "/history/1/cycle"),
        ("/intentions/0/valid_until_cycle", vec![json!(6)], "/valid_until_cycle"),
        ("/intentions/0/options/0/id", vec![json!("safe")], "/options/0/id"),
        // What is wrong with one agent's wishes costs only that agent, and is told from the root of its intention.
        ("/intentions/0/disagreement", vec![json!(1e99)], "/disagreement"),
        ("/intentions/0/options", vec![json!([])], "/options"),
        ("/intentions/0/options/1/id", vec![json!("o"), json!("")], "/options/1/id"),
        ("/intentions/0/options/0/utility", vec![json!(1e99), json!(-1)], "/options/0/utility"),
        ("/intentions/0/options/0/demands/steam", vec![json!(-1), json!(1e16)], "/options/0/demands/steam"),
        ("/intentions/0/options/0/demands/gold", vec![json!(1)], "/options/0/demands/gold"),
        ("/intentions/0/options/0/demands/a~1b", vec![json!(1)], "/options/0/demands/a~01b"),
        ("/intentions/0/options/0/demands/pump", vec![json!(1)], "/options/0/demands/pump"),
        ("/intentions/0/options/1/demands/pump", vec![json!(0.5)], "/options/1/demands/pump"),
        ("/intentions/0/options/0/claims/t/value", vec![json!(1e99), json!(49)], "/options/0/claims/t"),
        ("/intentions/0/options/0/claims/t/min", vec![json!(61)], "/options/0/claims/t"),
        ("/intentions/0/options/0/claims/t/max", vec![json!(59)], "/options/0/claims/t"),
        ("/intentions/0/options/0/claims/t/weight", vec![json!(0), json!(-1)], "/options/0/claims/t/weight"),
        ("/intentions/0/options/0/claims/x", vec![json!({"value": 1})], "/options/0/claims/x"),
        ("/intentions/0/options/0/effects", vec![json!({"x": 1})], "/options/0/effects/x"),
        ("/intentions/0/options/1/effects/u", vec![json!(1e99)], "/options/1/effects/u"),
        (
            "/intentions/0/options/0/elastic/min_fraction",
            vec![json!(0), json!(-1), json!(1.1)],
            "/options/0/elastic/min_fraction",
        ),
        ("/agents/0/fallback/demands/gold", vec![json!(1)], "/fallback/demands/gold"),
    ] {
        for value in values {
            let told = places(at, value.clone());
            assert!(told.iter().any(|told| told == place), "{at} {value}: {told:?}");
        }
    }
}

#[test]
fn of_a_number_that_is_too_large_the_limit_is_told_in_few_digits() {
    for (at, value, expected) in [
        ("/agents/0/weight", 1e308, "must be above 0 and at most 1e15, but is 1e308"),
        ("/agents/0/fallback/utility", 1e308, "must be a number from -1e15 to 1e15, but is 1e308"),
        ("/resources/0/capacity", 1.5e16, "must be an amount of 0 or more, at most 1e15, but is 1.5e16"),
    ] {
        let mut document = whole();
        *document.pointer_mut(at).unwrap() = json!(value);
        let errors = Problem::new(serde_json::from_value(document).unwrap()).unwrap_err();
        assert_eq!((errors[0].pointer.as_str(), errors[0].detail.as_str()), (at, expected));
    }
}

#[test]
fn what_is_of_another_kind_is_no_document() {
    for at in [
        "/cycle",
        "/budget",
        "/resources",
        "/resources/0",
        "/resources/0/capacity",
        "/resources/0/kind",
        "/variables/0/min",
        "/variables/0/on_conflict",
        "/agents",
        "/agents/0/agent_id",
        "/agents/0/priority",
        "/agents/0/fallback",
        "/intentions/0/options",
        "/intentions/0/options/0/utility",
        "/intentions/0/options/0/demands/steam",
        "/intentions/0/options/0/claims/t",
        "/intentions/0/options/0/elastic/shape",
        "/holdings/0/grant",
        "/history/0/agents",
    ] {
        for value in [json!("too many"), json!([[]]), json!(true)] {
            assert_eq!(places(at, value.clone()), ["no document"], "{at} {value}");
        }
    }
    for at in [
        "",
        "/budget",
        "/resources/0",
        "/variables/0",
        "/agents/0",
        "/intentions/0",
        "/intentions/0/options/0",
        "/holdings/0",
    ] {
        assert_eq!(places(&format!("{at}/capcity"), json!(1)), ["no document"], "an unknown key in {at:?}");
    }
    for text in [
        "",
        "{",
        "[]",
        "null",
        r#"{"agents": 1e999}"#,
        r#"{"agents": [], "resources": [{"name": "r", "capacity": 1e999}]}"#,
    ] {
        assert!(serde_json::from_str::<ProblemDocument>(text).is_err(), "{text}");
    }
    assert!(serde_json::from_str::<ProblemDocument>(&"[".repeat(100_000)).is_err());
}

#[test]
fn a_bad_intention_costs_only_its_own_agent() {
    let mut document = whole();
    document["intentions"][0]["options"][0]["utility"] = json!(1e99);
    let problem = super::problem(document);
    assert_eq!(
        problem.parties().iter().map(|party| party.presence).collect::<Vec<_>>(),
        [Presence::Absent, Presence::Active, Presence::Holding]
    );
    let plan = written(&problem, &greedy(&problem));
    verify(&problem, &plan).unwrap();
    let told = &plan.decisions[0];
    assert_eq!((told.reason.code.as_str(), told.option_id.as_deref()), ("invalid_intention", Some("safe")));
    assert!(told.reason.text.contains("/options/0/utility"), "{}", told.reason.text);
}

/// The places of all values in a document.
fn pointers(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Array(list) => list.iter().enumerate().for_each(|(n, value)| pointers(value, &format!("{at}/{n}"), all)),
        Value::Object(fields) => fields.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), all)),
        _ => {}
    }
}

/// Values from the edge, half of them numbers.
fn edge() -> impl Strategy<Value = Value> {
    let numbers = [0.0, -0.0, 1e-320, 1e-300, 1e-9, 0.5, 1.0, -1.0, 2.0, 99.9, 1e15, -1e15, 1e308];
    let number = prop::sample::select(numbers.to_vec()).prop_map(|number| json!(number));
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::sample::select(vec!["", "a", "b", "steam", "t", "hold", "unit", "blend", "\u{1f600}", "~/"])
            .prop_map(Value::from),
    ];
    let names = prop::sample::select(vec!["steam", "pump", "t", "u", "id", "agent_id", "value", ""]);
    let nested = leaf.prop_recursive(3, 16, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone().prop_map(String::from), inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    });
    prop_oneof![2 => number, 1 => nested]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_a_problem_has_a_plan_and_nothing_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), edge()), 1..5)) {
        let mut document = whole();
        for (at, value) in changes {
            let mut all = Vec::new();
            pointers(&document, "", &mut all);
            let place = document.pointer_mut(&all[at.index(all.len())]).unwrap();
            *place = value;
        }
        let text = document.to_string();
        if let Ok(Ok(problem)) = serde_json::from_str(&text).map(Problem::new) {
            let plan = written(&problem, &greedy(&problem));
            prop_assert_eq!(verify(&problem, &plan), Ok(()), "{}", text);
            let read: Result<coredinator_core::coordination::Plan, _> = serde_json::from_value(json!(plan));
            prop_assert!(read.is_ok(), "{:?} {}", read, text);
        }
    }
}
