//! Which wishes collide, and which do not by a hair.

use coredinator_core::coordination::{Conflict, ConflictSubtype, ConflictType};
use serde_json::{Value, json};

use super::problem;

/// The conflicts of agents `a`, `b`, ... that want one option each.
fn conflicts(resources: &Value, variables: &Value, wanted: &[Value]) -> Vec<Conflict> {
    let ids = ["a", "b", "c", "d"];
    let agents: Vec<Value> = wanted.iter().zip(ids).map(|(_, id)| json!({"agent_id": id})).collect();
    let intention = |(option, id): (&Value, &str)| {
        let mut option = option.clone();
        option["id"] = json!("o");
        option["utility"] = json!(1);
        json!({"agent_id": id, "options": [option]})
    };
    let intentions: Vec<Value> = wanted.iter().zip(ids).map(intention).collect();
    let document = json!({"resources": resources, "variables": variables, "agents": agents, "intentions": intentions});
    problem(document).conflicts().to_vec()
}

fn demands(amounts: &[f64]) -> Vec<Value> {
    amounts.iter().map(|amount| json!({"demands": {"steam": amount}})).collect()
}

#[test]
fn contention_begins_beyond_what_is_available() {
    let of = |resource: Value, amounts: &[f64]| conflicts(&json!([resource]), &json!([]), &demands(amounts));
    let steam = |capacity: f64, reserve: f64| json!({"name": "steam", "capacity": capacity, "reserve": reserve});
    for (capacity, reserve, amounts, overload) in [
        (10.0, 0.0, &[6.0, 4.0][..], None),
        (10.0, 0.0, &[6.0, 4.1], Some(0.1)),
        (10.0, 2.0, &[6.0, 2.0], None),
        (10.0, 2.0, &[6.0, 4.0], Some(2.0)),
        (10.0, 12.0, &[1.0], Some(1.0)),
        (0.0, 0.0, &[0.0, 0.0], None),
        // What rounding makes of sums is no conflict.
        (0.3, 0.0, &[0.1, 0.2], None),
        (0.6, 0.0, &[0.1, 0.2, 0.3], None),
        (1e12, 0.0, &[5e11, 5e11 + 100.0], None),
        (1e12, 0.0, &[5e11, 5e11 + 10_000.0], Some(10_000.0)),
    ] {
        let found = of(steam(capacity, reserve), amounts);
        let Some(overload) = overload else {
            assert_eq!(found, [], "{capacity} for {amounts:?}");
            continue;
        };
        let [conflict] = &found[..] else { panic!("{capacity} for {amounts:?}: {found:?}") };
        assert_eq!((conflict.kind, conflict.subtype), (ConflictType::ResourceContention, ConflictSubtype::Capacity));
        assert_eq!((conflict.id.as_str(), conflict.subject.as_str()), ("capacity:steam", "steam"));
        assert_eq!(conflict.parties.len(), amounts.len());
        assert_eq!(conflict.demanded, Some(amounts.iter().sum()));
        assert_eq!(conflict.available, Some((capacity - reserve).max(0.0)));
        assert!((conflict.severity - overload / capacity).abs() < 1e-12, "{}", conflict.severity);
    }
}

#[test]
fn only_those_who_want_something_of_it_are_parties() {
    let steam = json!([{"name": "steam", "capacity": 1}, {"name": "air", "capacity": 9}]);
    let wanted =
        [json!({"demands": {"steam": 1}}), json!({"demands": {"air": 9}}), json!({"demands": {"steam": 1, "air": 0}})];
    let found = conflicts(&steam, &json!([]), &wanted);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].parties.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["a", "c"]);
}

#[test]
fn severity_is_a_number_however_little_there_is() {
    for (resources, variables, option) in [
        (json!([{"name": "steam", "capacity": 0}]), json!([]), json!({"demands": {"steam": 1e15}})),
        (json!([{"name": "steam", "capacity": 1e-300}]), json!([]), json!({"demands": {"steam": 1e15}})),
    ] {
        let found = conflicts(&resources, &variables, &[option]);
        assert!(found[0].severity.is_finite() && found[0].severity > 0.0, "{found:?}");
    }
    let tiny = json!([{"name": "t", "min": 0, "max": 1e-300}]);
    let found = conflicts(&json!([]), &tiny, &[json!({"effects": {"t": 1e15}}), json!({"effects": {"t": -1e15}})]);
    assert!(found[0].severity.is_finite(), "{found:?}");
}

#[test]
fn claims_collide_where_no_value_agrees_with_all() {
    let at = |value: f64| json!({"claims": {"t": {"value": value}}});
    let within = |value: f64, min: f64, max: f64| json!({"claims": {"t": {"value": value, "min": min, "max": max}}});
    for (on_conflict, tolerance, wanted, distance) in [
        ("exclusive", 0.0, vec![at(50.0), at(50.0)], None),
        ("exclusive", 0.0, vec![at(50.0), at(51.0)], Some(1.0)),
        ("blend", 0.0, vec![at(50.0), at(51.0)], Some(1.0)),
        // Each gives way by half of the tolerance.
        ("exclusive", 4.0, vec![at(50.0), at(54.0)], None),
        ("exclusive", 4.0, vec![at(50.0), at(54.5)], Some(0.5)),
        ("exclusive", 4.0, vec![at(50.0), at(52.0), at(55.0)], Some(1.0)),
        ("blend", 4.0, vec![at(50.0), at(54.0)], None),
        // Bounds that are told stand above the tolerance.
        ("exclusive", 4.0, vec![within(50.0, 50.0, 50.0), at(53.0)], Some(1.0)),
        ("exclusive", 0.0, vec![within(50.0, 40.0, 60.0), within(70.0, 60.0, 80.0)], None),
        ("exclusive", 0.0, vec![within(50.0, 40.0, 60.0), within(70.0, 61.0, 80.0)], Some(1.0)),
        ("blend", 0.0, vec![within(50.0, 40.0, 60.0), within(70.0, 61.0, 80.0)], Some(1.0)),
        // From beyond the limits, all want the limit.
        ("exclusive", 0.0, vec![at(150.0), at(100.0)], None),
        ("exclusive", 0.0, vec![at(0.1 + 0.2), at(0.3)], None),
    ] {
        let variable = json!([{"name": "t", "min": 0, "max": 100, "tolerance": tolerance, "on_conflict": on_conflict}]);
        let found = conflicts(&json!([]), &variable, &wanted);
        let Some(distance) = distance else {
            assert_eq!(found, [], "{on_conflict} {tolerance} {wanted:?}");
            continue;
        };
        let [conflict] = &found[..] else { panic!("{on_conflict} {tolerance} {wanted:?}: {found:?}") };
        assert_eq!((conflict.kind, conflict.subtype), (ConflictType::GoalInterference, ConflictSubtype::Direct));
        assert_eq!((conflict.id.as_str(), conflict.claims.len()), ("direct:t", wanted.len()));
        assert!((conflict.severity - distance / 100.0).abs() < 1e-7, "{wanted:?}: {}", conflict.severity);
    }
}

#[test]
fn pushes_collide_beyond_the_dead_band() {
    let push = |strength: f64| json!({"effects": {"t": strength}});
    for (tolerance, wanted, found) in [
        (0.0, vec![push(1.0), push(2.0)], false),
        (0.0, vec![push(1.0), push(-2.0)], true),
        (0.0, vec![push(1.0), push(0.0), push(-0.0)], false),
        (2.0, vec![push(5.0), push(-2.0)], false),
        (2.0, vec![push(5.0), push(-2.1)], true),
        // One who sets it is not in the way of one who pushes it.
        (0.0, vec![push(5.0), json!({"claims": {"t": {"value": 10}}})], false),
    ] {
        let variable = json!([{"name": "t", "min": 0, "max": 100, "tolerance": tolerance}]);
        let conflicts = conflicts(&json!([]), &variable, &wanted);
        assert_eq!(conflicts.len(), usize::from(found), "{tolerance} {wanted:?}");
        for conflict in conflicts {
            assert_eq!((conflict.id.as_str(), conflict.subtype), ("indirect:t", ConflictSubtype::Indirect));
            assert!(conflict.severity > 0.0 && conflict.effects.len() == wanted.len());
        }
    }
}

#[test]
fn what_a_silent_agent_holds_is_out_of_reach_and_what_another_falls_back_to_is_soft() {
    let with = |fallback: &str, reserved: bool, value: f64| {
        let document = json!({
            "resources": [{"name": "steam", "capacity": 10}], "variables": [{"name": "t", "min": 0, "max": 100}],
            "agents": [{"agent_id": "a"}, {"agent_id": "quiet", "fallback": fallback}],
            "intentions": [{"agent_id": "a", "options": [
                {"id": "o", "utility": 1, "demands": {"steam": 6}, "claims": {"t": {"value": value}}}]}],
            "holdings": [{"agent_id": "quiet", "cycle": 1, "reserved": reserved, "grant": {"steam": 5}, "values": {"t": 50}}],
        });
        problem(document).conflicts().iter().map(|conflict| conflict.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(with("release", true, 50.0), ["capacity:steam"]);
    assert_eq!(with("release", true, 60.0), ["capacity:steam", "direct:t"]);
    // Its time is over: going on takes steam, but nobody need keep to its value.
    assert_eq!(with("hold", false, 60.0), ["capacity:steam"]);
    assert_eq!(with("release", false, 60.0), [""; 0]);
}
