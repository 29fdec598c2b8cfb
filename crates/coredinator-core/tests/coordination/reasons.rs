//! What agents are told is true.

use coredinator_core::coordination::{DecisionReason, Draft, Pick, Problem, Resolution, verify};
use serde_json::{Value, json};

use super::{greedy, problem, written};

/// Why the first agent gets what it does.
fn told(problem: &Problem, resolution: &Resolution) -> DecisionReason {
    let plan = written(problem, resolution);
    verify(problem, &plan).unwrap();
    plan.decisions[0].reason.clone()
}

fn told_greedily(document: Value) -> String {
    let problem = problem(document);
    told(&problem, &greedy(&problem)).text
}

/// What is safe for everyone but these, who get these of their options.
fn but(problem: &Problem, picks: &[(usize, usize)]) -> Resolution {
    let mut draft = Draft::new(problem);
    for &(party, option) in picks {
        let candidate = problem.parties()[party].options().start + option;
        assert!(draft.set(party, Pick::Option { candidate, fraction: 1.0 }));
    }
    draft.finish()
}

/// Two agents that would like 6 of 10, or 1.
fn steam() -> Problem {
    let wish = |id: &str| {
        json!({"agent_id": id, "options": [
            {"id": "much", "utility": 6, "demands": {"steam": 6}}, {"id": "bit", "utility": 7, "demands": {"steam": 1}},
            {"id": "least", "utility": 1}, {"id": "bad", "utility": -1, "demands": {"steam": 1}}]})
    };
    problem(json!({
        "resources": [{"name": "steam", "capacity": 10, "unit": "t/h"}],
        "agents": [{"agent_id": "a", "fallback": "release"}, {"agent_id": "b", "fallback": "release"}],
        "intentions": [wish("a"), wish("b")],
    }))
}

#[test]
fn that_something_does_not_fit_is_told_only_where_it_does_not() {
    let problem = steam();
    let of = |picks: &[(usize, usize)]| told(&problem, &but(&problem, picks));
    let taken = of(&[(1, 0), (0, 1)]);
    assert_eq!(taken.text, "its first choice does not fit: steam: 2 agents want 12 t/h, 10 t/h is available");
    let better = of(&[(1, 1), (0, 1)]);
    assert_eq!(better.text, "another of its options is worth more to it than its first choice, as far as that fits");
    let other = of(&[(1, 1), (0, 2)]);
    assert_eq!(other.text, "its first choice would fit, but another of its options was chosen");
    assert_eq!((taken.code.as_str(), better.code.as_str()), ("second_choice", "second_choice"));
    assert_eq!(of(&[(1, 0)]).code, "not_chosen");
}

#[test]
fn an_option_that_is_worth_less_than_being_denied_is_not_said_not_to_fit() {
    let bad = json!({"agent_id": "a", "options": [{"id": "x", "utility": -1, "demands": {"steam": 1}}]});
    let split = json!({"agent_id": "a", "options": [
        {"id": "x", "utility": -1, "demands": {"steam": 1}}, {"id": "y", "utility": 9, "demands": {"steam": 9}}]});
    let much = |id: &str| json!({"agent_id": id, "options": [{"id": "x", "utility": 1, "demands": {"steam": 6}}]});
    let wanted = |of: &Value| {
        problem(json!({
            "resources": [{"name": "steam", "capacity": 10}],
            "agents": [{"agent_id": "a", "fallback": "release"}, {"agent_id": "b", "fallback": "release"},
                {"agent_id": "c", "fallback": "release"}],
            "intentions": [of, much("b"), much("c")],
        }))
    };
    let problem = wanted(&split);
    let reason = told(&problem, &but(&problem, &[(1, 0)]));
    assert_eq!(reason.text, "no option that fits is worth more to it than being denied");
    let problem = wanted(&bad);
    let reason = told(&problem, &but(&problem, &[(1, 0)]));
    assert_eq!(reason.code, "worth_less");
    assert_eq!(reason.text, "none of its options is worth as much to it as being denied");
}

#[test]
fn where_only_the_rate_is_in_the_way_the_rate_is_told() {
    let wish = |id: &str, claim: Value| {
        json!({"agent_id": id, "options": [
            {"id": "x", "utility": 1, "demands": {"steam": 6}, "claims": claim, "elastic": {"min_fraction": 0.1}}]})
    };
    let document = |claim: Value| {
        json!({
            "resources": [{"name": "steam", "capacity": 10}],
            "variables": [{"name": "v", "min": 0, "max": 100, "current": 20, "max_rate": 5}],
            "agents": [{"agent_id": "a", "priority": 1, "fallback": "release"}, {"agent_id": "b", "fallback": "release"}],
            "intentions": [wish("a", claim), wish("b", json!({}))],
        })
    };
    let limits = "v: it can be 15 to 25 in this cycle";
    assert_eq!(told_greedily(document(json!({"v": {"value": 60}}))), format!("its first choice in part: {limits}"));
    // One that wants what cannot be reached wants nothing different from anybody.
    let unreachable = document(json!({"v": {"value": 60, "min": 50, "max": 70}}));
    assert_eq!(told_greedily(unreachable), format!("none of its options fits: {limits}"));
}

#[test]
fn a_value_that_a_silent_agent_holds_is_told_as_that() {
    let text = told_greedily(json!({
        "variables": [{"name": "v", "min": 0, "max": 100}],
        "agents": [{"agent_id": "a", "fallback": "release"}, {"agent_id": "b"}],
        "intentions": [{"agent_id": "a", "options": [{"id": "x", "utility": 1, "claims": {"v": {"value": 60}}}]}],
        "holdings": [{"agent_id": "b", "cycle": 0, "reserved": true, "values": {"v": 40}}],
    }));
    assert_eq!(text, "none of its options fits: v: a silent agent holds it at 40");
}

#[test]
fn one_agent_wants_and_several_want() {
    let text = told_greedily(json!({
        "resources": [{"name": "steam", "capacity": 1}],
        "agents": [{"agent_id": "a", "fallback": "release"}],
        "intentions": [{"agent_id": "a", "options": [{"id": "x", "utility": 1, "demands": {"steam": 2}}]}],
    }));
    assert_eq!(text, "none of its options fits: steam: 1 agent wants 2, 1 is available");
}

#[test]
fn what_a_silent_agent_still_has_is_told() {
    let of = |fallback: Value, reserved: bool| {
        told_greedily(json!({
            "resources": [{"name": "r", "capacity": 4}],
            "agents": [{"agent_id": "a", "fallback": fallback}],
            "holdings": [{"agent_id": "a", "cycle": 1, "reserved": reserved, "grant": {"r": 2}}],
        }))
    };
    assert_eq!(of(json!("hold"), true), "it is silent; what it was granted stays reserved");
    assert_eq!(of(json!("hold"), false), "it is silent; it goes on with what it was granted, which is its fallback");
    assert_eq!(
        of(json!({"id": "safe", "utility": 0, "demands": {"r": 1}}), false),
        "it is silent; it has its fallback"
    );
    assert_eq!(of(json!("release"), false), "it is silent; it has nothing reserved any more");
    let nothing = told_greedily(json!({
        "agents": [{"agent_id": "a", "fallback": "release"}],
        "holdings": [{"agent_id": "a", "cycle": 1, "reserved": true}],
    }));
    assert_eq!(nothing, "it is silent; it was granted nothing that could stay reserved");
    let mut reason = DecisionReason { code: "silent".to_owned(), text: of(json!("hold"), true), ..<_>::default() };
    reason.silent_because("it answered HTTP 500");
    assert_eq!(reason.text, "it answered HTTP 500; what it was granted stays reserved");
}

#[test]
fn a_reason_names_a_few_of_many_things_in_the_way() {
    let names: Vec<String> = (0..50).map(|at| format!("r{at:02}")).collect();
    let resources: Vec<Value> = names.iter().map(|name| json!({"name": name, "capacity": 1})).collect();
    let options: Vec<Value> = (0..50)
        .map(|at| {
            let demands: serde_json::Map<String, Value> =
                names.iter().map(|name| (name.clone(), json!(2.0 + f64::from(at)))).collect();
            json!({"id": format!("o{at}"), "utility": 1, "demands": demands})
        })
        .collect();
    let text = told_greedily(json!({
        "resources": resources,
        "agents": [{"agent_id": "a", "fallback": "release"}],
        "intentions": [{"agent_id": "a", "options": options}],
    }));
    assert!(text.starts_with("none of its options fits: r00: ") && text.len() < 500, "{text}");
    assert!(text.ends_with(" more"), "{text}");
}
