//! A draft never leaves the limits, and never loses count.

use coredinator_core::{
    conformance::strategy::random_problem,
    coordination::{Draft, Pick, Problem, by_priority, verify},
};
use fastrand::Rng;
use serde_json::{Value, json};

use super::{problem, written};

const STEPS: usize = 3000;

/// What is chosen, as candidate and fraction.
fn chosen<'p>(problem: &'p Problem, draft: &'p Draft<'_>) -> impl Iterator<Item = (usize, f64)> + 'p {
    problem.parties().iter().enumerate().filter_map(|(at, party)| match draft.pick(at) {
        Pick::Held | Pick::Nothing => None,
        Pick::Option { candidate, fraction } => Some((candidate, fraction)),
        Pick::Fallback => party.fallback().map(|fallback| (fallback, 1.0)),
    })
}

/// Whether the books are what adding everything up again gives.
fn audit(problem: &Problem, draft: &Draft<'_>, fixed: &[Option<f64>], at: &str) {
    let mut left = problem.available().to_vec();
    let mut common = vec![(f64::NEG_INFINITY, f64::INFINITY); problem.variables().len()];
    let mut ways = vec![(false, false); problem.variables().len()];
    for (candidate, fraction) in chosen(problem, draft) {
        for demand in problem.demands(candidate) {
            left[demand.resource] -= demand.amount * fraction;
        }
        for claim in problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            let (low, high) = &mut common[claim.variable];
            (*low, *high) = (low.max(claim.bounds.0), high.min(claim.bounds.1));
        }
        for push in problem.pushes(candidate) {
            let (up, down) = &mut ways[push.variable];
            (*up, *down) = (*up || push.strength > 0.0, *down || push.strength < 0.0);
        }
    }
    for (place, resource) in problem.resources().iter().enumerate() {
        let (kept, counted) = (draft.left()[place], left[place]);
        assert!((kept - counted).abs() <= 1e-11 * (1.0 + resource.capacity), "{at}: {kept} is left, not {counted}");
        assert!(counted >= -1e-9 * resource.capacity, "{at}: {counted} is left");
    }
    for (place, fixed) in fixed.iter().enumerate() {
        assert!(common[place].0 <= common[place].1, "{at}: nothing agrees with all");
        let expected = fixed.map_or(common[place], |fixed| (fixed, fixed));
        assert_eq!(draft.common(place), expected, "{at}: variable {place}");
        assert!(fixed.is_none_or(|fixed| common[place].0 <= fixed && fixed <= common[place].1), "{at}: {place}");
        assert_ne!(ways[place], (true, true), "{at}: variable {place} is pushed both ways");
    }
}

#[test]
fn whatever_is_tried_the_books_are_right() {
    let mut changed = 0;
    for seed in 0..40 {
        let problem = Problem::new(random_problem(seed, 8)).unwrap();
        let (parties, candidates) = (problem.parties().len(), problem.candidates().len());
        let mut rng = Rng::with_seed(seed);
        let mut draft = Draft::new(&problem);
        let mut fixed = vec![None; problem.variables().len()];
        audit(&problem, &draft, &fixed, "at first");
        for step in 0..if candidates == 0 { 0 } else { STEPS } {
            let candidate = rng.usize(0..candidates);
            let fraction = [f64::NAN, -1.0, 0.0, 0.1, 0.25, rng.f64(), 1.0, 2.0][rng.usize(0..8)];
            let before: Vec<Pick> = (0..parties).map(|party| draft.pick(party)).collect();
            let largest = draft.largest_fraction(candidate);
            let party = rng.usize(0..parties);
            let (moved, who) = match rng.u8(0..20) {
                0..=7 => {
                    let granted = draft.grant(candidate);
                    assert_eq!(granted, largest.is_some(), "problem {seed} step {step}");
                    (granted, Some(problem.candidates()[candidate].party))
                }
                8..=12 => (draft.set(party, Pick::Option { candidate, fraction }), Some(party)),
                13..=15 => (draft.set(party, Pick::Fallback), Some(party)),
                16 | 17 => (draft.set(party, Pick::Nothing), Some(party)),
                18 => (draft.set(party, Pick::Held), None),
                _ if step > STEPS / 2 && !fixed.is_empty() => {
                    let variable = rng.usize(0..fixed.len());
                    let value = f64::from(rng.u8(0..=120));
                    if draft.fix(variable, value) {
                        assert!(fixed[variable].is_none_or(|known| known == value));
                        fixed[variable] = Some(value);
                    }
                    (false, None)
                }
                _ => (false, None),
            };
            changed += usize::from(moved);
            for (at, before) in before.iter().enumerate().filter(|(at, _)| !moved || Some(*at) != who) {
                assert_eq!(draft.pick(at), *before, "problem {seed} step {step}: {at} has been moved");
            }
            if step % 10 == 0 {
                audit(&problem, &draft, &fixed, &format!("problem {seed} step {step}"));
            }
        }
        audit(&problem, &draft, &fixed, &format!("problem {seed} in the end"));
        if !problem.conflicts().is_empty() {
            let plan = written(&problem, &draft.finish());
            verify(&problem, &plan).unwrap_or_else(|wrong| panic!("problem {seed}: {wrong:?}"));
        }
    }
    assert!(changed > 10_000, "only {changed} moves");
}

#[test]
fn a_value_is_fixed_within_what_the_variable_may_be_given() {
    let of = problem(json!({
        "variables": [{"name": "t", "min": 0, "max": 100, "max_rate": 10, "current": 50}, {"name": "u", "min": 0, "max": 1}],
        "agents": [{"agent_id": "quiet"}],
        "holdings": [{"agent_id": "quiet", "cycle": 1, "reserved": true, "values": {"u": 0.5}}],
    }));
    let mut draft = Draft::new(&of);
    assert!(!draft.fix(0, 61.0) && !draft.fix(0, 39.0) && !draft.fix(0, f64::NAN));
    assert!(draft.fix(0, 60.0) && draft.fix(0, 60.0) && !draft.fix(0, 55.0));
    // A silent agent holds on to the other.
    assert!(!draft.fix(1, 0.6) && draft.fix(1, 0.5));
}

#[test]
fn being_denied_is_worth_what_is_said_of_it() {
    for (said, expected) in [(Value::Null, 50.0), (json!(0), 0.0), (json!(2.5), 2.5)] {
        let mut document = json!({
            "agents": [{"agent_id": "a", "fallback": {"id": "safe", "utility": 50}}],
            "intentions": [{"agent_id": "a", "options": [{"id": "o", "utility": 6}]}],
        });
        if !said.is_null() {
            document["intentions"][0]["disagreement"] = said;
        }
        let of = problem(document);
        assert_eq!(of.candidates()[of.parties()[0].fallback().unwrap()].utility, expected);
    }
}

#[test]
fn granting_a_fallback_is_falling_back() {
    let of = problem(json!({
        "resources": [{"name": "steam", "capacity": 1}],
        "agents": [{"agent_id": "a", "fallback": {"id": "safe", "utility": 0, "demands": {"steam": 1}}}],
        "intentions": [{"agent_id": "a", "options": [{"id": "o", "utility": 1, "demands": {"steam": 2}}]}],
    }));
    let mut draft = Draft::new(&of);
    assert!(draft.set(0, Pick::Nothing) && draft.grant(of.parties()[0].fallback().unwrap()));
    assert_eq!((draft.pick(0), draft.left()), (Pick::Fallback, &[0.0][..]));
}

#[test]
fn the_safe_side_goes_by_priority_and_lets_in_whom_it_can() {
    let agent = |id: &str, priority: i32| json!({"agent_id": id, "priority": priority});
    let wants = |id: &str, amount: f64| {
        json!({"agent_id": id, "options": [
            {"id": "big", "utility": 2, "demands": {"steam": 9}}, {"id": "least", "utility": 1, "demands": {"steam": amount}}]})
    };
    let of = problem(json!({
        "resources": [{"name": "steam", "capacity": 10}],
        "agents": [agent("a", 1), agent("b", 3), agent("c", 2)],
        "intentions": [wants("a", 5.0), wants("b", 6.0), wants("c", 4.0)],
    }));
    assert_eq!(by_priority(&of), [1, 2, 0]);
    let mut draft = Draft::new(&of);
    assert_eq!((draft.pick(0), draft.left()), (Pick::Nothing, &[0.0][..]));
    assert!(draft.set(1, Pick::Nothing));
    assert_eq!(draft.left(), [6.0]);
    let plan = written(&of, &draft.finish());
    assert_eq!(plan.shed.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(plan.decisions[1].grant["steam"], 6.0);
}

/// Whether those from `party` on can all have one of their options beside what the others have.
fn have_room(problem: &Problem, left: &mut [f64], party: usize) -> bool {
    let Some(of) = problem.parties().get(party) else { return true };
    of.options().any(|candidate| {
        let demands = problem.demands(candidate);
        let fits = demands.iter().all(|demand| demand.amount <= left[demand.resource] + 1e-9);
        demands.iter().for_each(|demand| left[demand.resource] -= demand.amount);
        let found = fits && have_room(problem, left, party + 1);
        demands.iter().for_each(|demand| left[demand.resource] += demand.amount);
        found
    })
}

#[test]
fn nobody_is_shed_while_others_could_make_room() {
    let (mut tight, mut hopeless) = (0, 0);
    for seed in 0..400 {
        let mut rng = Rng::with_seed(seed);
        let agents: Vec<Value> =
            (0..6).map(|at| json!({"agent_id": format!("a{at}"), "priority": rng.i32(0..3)})).collect();
        let mut option = |at: usize| {
            json!({"id": format!("o{at}"), "utility": 1, "demands": {
            "r": rng.u8(0..10), "s": rng.u8(0..10), "t": rng.u8(0..10)}})
        };
        let intentions: Vec<Value> = (0..6)
            .map(|at| json!({"agent_id": format!("a{at}"), "options": (0..4).map(&mut option).collect::<Vec<_>>()}))
            .collect();
        let resources = ["r", "s", "t"].map(|name| json!({"name": name, "capacity": 20}));
        let of = problem(json!({"resources": resources, "agents": agents, "intentions": intentions}));
        let draft = Draft::new(&of);
        let shed = (0..6).filter(|&party| draft.pick(party) == Pick::Nothing).count();
        if have_room(&of, &mut of.available().to_vec(), 0) {
            assert_eq!(shed, 0, "problem {seed}");
            tight += 1;
        } else {
            assert!(shed > 0, "problem {seed}");
            hopeless += 1;
        }
    }
    assert!(tight > 100 && hopeless > 100, "{tight} can be served, {hopeless} cannot");
}
