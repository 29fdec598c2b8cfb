use coredinator_core::coordination::{Plan, PlanHeader, ProblemDocument, assemble, verify};
use serde_json::json;

use super::*;

fn plan(document: &Value) -> Plan {
    let document: ProblemDocument = serde_json::from_value(document.clone()).unwrap();
    let problem = Problem::new(document).unwrap();
    let resolution =
        Resolution::first_choices(&problem).unwrap_or_else(|| ResourceBased::decide(&problem, &Budget::default()));
    let header = PlanHeader { strategy: "resource_based".into(), epoch: 0, fallback: false, elapsed_ms: 0.0 };
    let plan = assemble(&problem, &resolution, &header).unwrap();
    verify(&problem, &plan).unwrap();
    plan
}

fn granted(plan: &Plan, resource: &str) -> Vec<f64> {
    plan.decisions.iter().map(|decision| decision.grant.get(resource).copied().unwrap_or(0.0)).collect()
}

fn near(got: &[f64], expected: &[f64]) {
    let near = got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() <= 1e-9 * expected.abs().max(1.0));
    assert!(got.len() == expected.len() && near, "{got:?} instead of {expected:?}");
}

/// Agents a, b, … that each want one elastic amount of one resource.
fn shared(capacity: f64, wishes: &[f64], weights: &[f64], least: f64) -> Value {
    let name = |at: usize| format!("a{at}");
    let agents = weights.iter().enumerate();
    let agents = agents.map(|(at, weight)| json!({"agent_id": name(at), "weight": weight, "fallback": "release"}));
    let intentions = wishes.iter().enumerate().map(|(at, amount)| {
        json!({"agent_id": name(at), "options": [
            {"id": "x", "demands": {"r": amount}, "utility": 1, "elastic": {"min_fraction": least}}]})
    });
    json!({
        "resources": [{"name": "r", "capacity": capacity}],
        "agents": agents.collect::<Vec<_>>(), "intentions": intentions.collect::<Vec<_>>()
    })
}

/// 9 processors and 18 GB for two that run tasks of (1, 4) and (3, 1), in units of each.
fn cluster(options: impl Fn(&str, f64, f64) -> Value, weights: [f64; 2], units: [f64; 2]) -> Value {
    let agents = |at: usize| json!({"agent_id": (["a", "b"][at]), "weight": weights[at], "fallback": "release"});
    json!({
        "resources": [
            {"name": "system.cpu", "capacity": 9.0 * units[0]}, {"name": "system.memory", "capacity": 18.0 * units[1]}],
        "agents": [agents(0), agents(1)],
        "intentions": [
            {"agent_id": "a", "options": options("a", units[0], 4.0 * units[1])},
            {"agent_id": "b", "options": options("b", 3.0 * units[0], units[1])}]
    })
}

fn tasks(_: &str, cpu: f64, memory: f64) -> Value {
    let some = |count: u32| {
        let (cpu, memory) = (f64::from(count) * cpu, f64::from(count) * memory);
        json!({"id": format!("{count} tasks"), "demands": {"system.cpu": cpu, "system.memory": memory}, "utility": count})
    };
    (1..=8).rev().map(some).collect()
}

/// Any number of tasks, up to ten; so ten times the fraction is how many.
fn any(_: &str, cpu: f64, memory: f64) -> Value {
    json!([{"id": "tasks", "demands": {"system.cpu": 10.0 * cpu, "system.memory": 10.0 * memory}, "utility": 1,
        "elastic": {"min_fraction": 0.001}}])
}

#[test]
fn conforms() {
    coredinator_core::conformance::strategy::run(ResourceBased::default);
}

#[test]
fn whole_tasks_by_dominant_share() {
    let plan = plan(&cluster(tasks, [1.0, 1.0], [1.0, 1.0]));
    let chosen: Vec<_> = plan.decisions.iter().map(|decision| decision.option_id.as_deref().unwrap()).collect();
    assert_eq!(chosen, ["3 tasks", "2 tasks"]);
    assert_eq!(granted(&plan, "system.cpu").iter().sum::<f64>(), 9.0);
    assert_eq!(granted(&plan, "system.memory").iter().sum::<f64>(), 14.0);
    assert_eq!(granted(&plan, "system.memory")[0] / 18.0, 2.0 / 3.0);
    assert_eq!(granted(&plan, "system.cpu")[1] / 9.0, 2.0 / 3.0);
}

#[test]
fn any_number_of_tasks_by_dominant_share() {
    let number = |weights| {
        plan(&cluster(any, weights, [1.0, 1.0])).decisions.iter().map(|d| d.fraction * 10.0).collect::<Vec<_>>()
    };
    near(&number([1.0, 1.0]), &[3.0, 2.0]);
    near(&number([2.0, 1.0]), &[54.0 / 13.0, 18.0 / 13.0]);
}

#[test]
fn units_do_not_matter() {
    for units in [[1000.0, 1.0 / 3.0], [0.1, 1.1e9], [7e-6, 3.3]] {
        for options in [tasks, any] {
            let fractions = |units| {
                let plan = plan(&cluster(options, [2.0, 1.0], units));
                plan.decisions.into_iter().map(|d| (d.option_id, d.fraction)).unzip::<_, _, Vec<_>, Vec<_>>()
            };
            let (known, expected) = fractions([1.0, 1.0]);
            let (chosen, got) = fractions(units);
            assert_eq!(chosen, known, "{units:?}");
            near(&got, &expected);
        }
    }
}

#[test]
fn max_min_shares_of_one_resource() {
    let shares =
        |capacity, wishes: &[f64], weights: &[f64]| granted(&plan(&shared(capacity, wishes, weights, 0.001)), "r");
    near(&shares(10.0, &[2.0, 2.6, 4.0, 5.0], &[1.0; 4]), &[2.0, 2.6, 2.7, 2.7]);
    near(&shares(16.0, &[4.0, 2.0, 10.0, 4.0], &[2.5, 4.0, 0.5, 1.0]), &[4.0, 2.0, 6.0, 4.0]);
    near(&shares(1.0, &[5.0, 5.0, 5.0], &[1.0; 3]), &[1.0 / 3.0; 3]);
}

#[test]
fn who_needs_a_minimum_has_it_or_is_skipped() {
    // 4 of 8 is the least for each: two have room for that, and share the rest.
    near(&granted(&plan(&shared(10.0, &[8.0, 8.0, 8.0], &[1.0; 3], 0.5)), "r"), &[5.0, 5.0, 0.0]);
    // Of 3 and 8 with a minimum of half each, the first is as large as it can be before the other grows.
    near(&granted(&plan(&shared(6.0, &[3.0, 8.0], &[1.0; 2], 0.5)), "r"), &[2.0, 4.0]);
}

#[test]
fn agents_move_to_smaller_options_and_on_to_more_wanted_ones() {
    let wish = |id: &str| {
        json!({"agent_id": id, "options": [
            {"id": "large", "demands": {"r": 6}, "utility": 3}, {"id": "other", "demands": {"s": 1}, "utility": 2},
            {"id": "small", "demands": {"r": 2}, "utility": 1}]})
    };
    let agent = |id: &str| json!({"agent_id": id, "fallback": "release"});
    let document = json!({
        "resources": [{"name": "r", "capacity": 10}, {"name": "s", "capacity": 1}],
        "agents": [agent("a"), agent("b"), agent("c")], "intentions": [wish("a"), wish("b"), wish("c")]
    });
    let plan = plan(&document);
    let chosen: Vec<_> = plan.decisions.iter().map(|decision| decision.option_id.as_deref().unwrap()).collect();
    // All have the small one first; then a the large one; b the other, for which it wants no r; c keeps the small one.
    assert_eq!(chosen, ["large", "other", "small"]);
}

#[test]
fn it_has_no_options() {
    assert!(ResourceBased::parse("", json!({})).is_ok());
    assert!(ResourceBased::parse("", json!({"steps": 3})).is_err());
}

#[test]
fn what_takes_nothing_is_had_in_full() {
    let claim = |value: f64| json!({"v": {"value": value, "min": value, "max": value}});
    let plan = plan(&json!({
        "resources": [{"name": "r", "capacity": 10}],
        "variables": [{"name": "v", "min": 0, "max": 10, "on_conflict": "exclusive"}],
        "agents": [{"agent_id": "a", "fallback": "release"}, {"agent_id": "b"}],
        "intentions": [
            {"agent_id": "a", "options": [{"id": "x", "utility": 12, "demands": {"r": 5}, "claims": claim(3.0)}]},
            {"agent_id": "b", "options": [
                {"id": "y", "utility": 11, "claims": claim(5.0), "elastic": {"min_fraction": 0.1}}]},
        ],
    }));
    assert_eq!(plan.decisions[1].fraction, 1.0, "{:?}", plan.decisions[1].reason);
}
