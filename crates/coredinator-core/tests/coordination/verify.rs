//! Whatever is changed in a plan that holds is found, and named.

use coredinator_core::{
    conformance::strategy::random_problem,
    coordination::{
        AgentId, Decision, DecisionOutcome as Outcome, Fallback, Party, Pick, Plan, Presence, Problem, Resolution,
        Variable, verify,
    },
};
use serde_json::{Value, json};

use super::{greedy, problem, written};

/// What is changed: its name, how (whether there was anything to change), and what is to be said of it.
type Mutation = (&'static str, fn(&Problem, &mut Plan) -> bool, &'static str);

/// Changes the first decision that passes, if there is one.
fn first(
    problem: &Problem,
    plan: &mut Plan,
    passes: impl Fn(&Party, &Decision) -> bool,
    change: impl FnOnce(&mut Decision),
) -> bool {
    let found = problem.parties().iter().zip(&mut plan.decisions).find(|(party, decision)| passes(party, decision));
    found.map(|(_, decision)| change(decision)).is_some()
}

fn has_option(_: &Party, decision: &Decision) -> bool {
    matches!(decision.outcome, Outcome::Granted | Outcome::Scaled | Outcome::Substituted)
}

fn has_grant(party: &Party, decision: &Decision) -> bool {
    has_option(party, decision) && !decision.grant.is_empty()
}

fn has_values(party: &Party, decision: &Decision) -> bool {
    has_option(party, decision) && !decision.values.is_empty()
}

fn is_silent(party: &Party, _: &Decision) -> bool {
    party.presence == Presence::Holding
}

fn denied(party: &Party, decision: &Decision) -> bool {
    party.presence == Presence::Active && decision.outcome == Outcome::Denied
}

/// Changes the first number of a list.
fn number(numbers: &mut std::collections::BTreeMap<String, f64>, change: impl Fn(f64) -> f64) {
    let number = numbers.values_mut().next().expect("a number");
    *number = change(*number);
}

/// Leaves an agent with nothing at all.
fn nothing(decision: &mut Decision) {
    (decision.outcome, decision.option_id, decision.fraction) = (Outcome::Denied, None, 0.0);
    (decision.utility, decision.action) = (0.0, Value::Null);
    decision.grant.clear();
    decision.values.clear();
}

const MUTATIONS: [Mutation; 46] = [
    (
        "another cycle",
        |_, plan| {
            plan.cycle += 1;
            true
        },
        "it is for cycle",
    ),
    (
        "another group",
        |_, plan| {
            plan.group.push('x');
            true
        },
        "it is for cycle",
    ),
    ("a decision is missing", |_, plan| plan.decisions.pop().is_some(), "not one for each agent"),
    (
        "a decision too many",
        |_, plan| plan.decisions.last().cloned().map(|last| plan.decisions.push(last)).is_some(),
        "not one for each agent",
    ),
    (
        "a decision for nobody who is there",
        |of, plan| first(of, plan, |_, _| true, |d| d.agent_id = AgentId::new("nobody").unwrap()),
        "not one for each agent",
    ),
    (
        "the decisions in another order",
        |_, plan| {
            plan.decisions.reverse();
            plan.decisions.len() > 1
        },
        "not one for each agent",
    ),
    (
        "more than there is",
        |of, plan| {
            let capacity: f64 = of.resources().iter().map(|resource| resource.capacity).sum();
            first(of, plan, has_grant, |d| number(&mut d.grant, |amount| amount + capacity + 1.0))
        },
        "is available",
    ),
    (
        "more than was asked",
        |of, plan| first(of, plan, has_grant, |d| number(&mut d.grant, |a| a * 1.01)),
        "instead of",
    ),
    (
        "less than was asked",
        |of, plan| first(of, plan, has_grant, |d| number(&mut d.grant, |a| a * 0.99)),
        "instead of",
    ),
    ("nothing of what was asked", |of, plan| first(of, plan, has_grant, |d| d.grant.clear()), "instead of"),
    (
        "what was not asked",
        |of, plan| first(of, plan, has_option, |d| _ = d.grant.insert("gold".to_owned(), 0.0)),
        "did not ask for",
    ),
    ("less than nothing", |of, plan| first(of, plan, has_grant, |d| number(&mut d.grant, |a| -a)), "is granted"),
    (
        "an amount that is no number",
        |of, plan| first(of, plan, has_grant, |d| number(&mut d.grant, |_| f64::NAN)),
        "a number is none",
    ),
    ("a fraction that is none", |of, plan| first(of, plan, has_option, |d| d.fraction = f64::NAN), "a number is none"),
    (
        "a negative fraction",
        |of, plan| first(of, plan, has_option, |d| d.fraction = -0.5),
        "its fraction is -0.5, but must be",
    ),
    (
        "more than all of it",
        |of, plan| first(of, plan, has_option, |d| d.fraction = 1.5),
        "its fraction is 1.5, but must be",
    ),
    (
        "next to nothing of it",
        |of, plan| first(of, plan, has_option, |d| d.fraction = 1e-3),
        "its fraction is 0.001, but must be",
    ),
    (
        "an option of nobody's",
        |of, plan| first(of, plan, has_option, |d| d.option_id = Some("gift".to_owned())),
        "is none of its own",
    ),
    (
        "no option where there is one",
        |of, plan| first(of, plan, has_option, |d| d.option_id = None),
        "is none of its own",
    ),
    (
        "another option's name",
        |of, plan| {
            let other = |party: &Party, d: &Decision| d.option_id.as_deref() == Some("o0") && party.options().len() > 1;
            let wanted = |party: &Party, d: &Decision| d.outcome == Outcome::Granted && other(party, d);
            first(of, plan, wanted, |d| d.option_id = Some("o1".to_owned()))
        },
        "of option",
    ),
    ("another action", |of, plan| first(of, plan, has_option, |d| d.action = json!("open")), "belongs together"),
    (
        "an action for one who falls back",
        |of, plan| first(of, plan, denied, |d| d.action = json!("open")),
        "something is granted | belongs together",
    ),
    ("another utility", |of, plan| first(of, plan, has_option, |d| d.utility += 1.0), "it is worth"),
    (
        "a utility that is none",
        |of, plan| first(of, plan, has_option, |d| d.utility = f64::INFINITY),
        "a number is none",
    ),
    ("no reason", |of, plan| first(of, plan, |_, _| true, |d| d.reason.code.clear()), "not told why"),
    (
        "a first choice called second",
        |of, plan| first(of, plan, |_, d| d.outcome == Outcome::Granted, |d| d.outcome = Outcome::Substituted),
        "is not substituted",
    ),
    (
        "a second choice called first",
        |of, plan| first(of, plan, |_, d| d.outcome == Outcome::Substituted, |d| d.outcome = Outcome::Scaled),
        "is not scaled",
    ),
    (
        "a part called all",
        |of, plan| {
            first(of, plan, |_, d| d.outcome == Outcome::Scaled && d.fraction < 1.0, |d| d.outcome = Outcome::Granted)
        },
        "is not granted",
    ),
    (
        "one who spoke called silent",
        |of, plan| first(of, plan, denied, |d| d.outcome = Outcome::Defaulted),
        "takes part, but is",
    ),
    (
        "one who is silent called denied",
        |of, plan| first(of, plan, |p, _| p.presence == Presence::Absent, |d| d.outcome = Outcome::Denied),
        "is silent, but is",
    ),
    (
        "a silent agent is granted something",
        |of, plan| first(of, plan, is_silent, |d| _ = d.grant.insert("gold".to_owned(), 1.0)),
        "is not left as it is",
    ),
    (
        "a silent agent loses what it holds",
        |of, plan| first(of, plan, |p, d| is_silent(p, d) && !d.grant.is_empty(), |d| d.grant.clear()),
        "is not left as it is",
    ),
    (
        "a silent agent is told another value",
        |of, plan| {
            let holds = |p: &Party, d: &Decision| is_silent(p, d) && !d.values.is_empty();
            first(of, plan, holds, |d| number(&mut d.values, |value| value + 1.0))
        },
        "is not left as it is",
    ),
    ("a silent agent is told to act", |of, plan| first(of, plan, is_silent, |d| d.action = json!(1)), "is not left as"),
    (
        "two values of one variable",
        |of, plan| first(of, plan, has_values, |d| number(&mut d.values, |value| value + 1.0)),
        "its final value is another",
    ),
    ("a value is not told", |of, plan| first(of, plan, has_values, |d| d.values.clear()), "its values are not those"),
    (
        "a value of what is not there",
        |_, plan| {
            plan.values.insert("mood".to_owned(), 1.0);
            true
        },
        "there is no such variable",
    ),
    (
        "another objective",
        |_, plan| {
            (plan.objective, plan.bound) = (plan.objective + 1.0, plan.bound + 1.0);
            true
        },
        "are worth",
    ),
    (
        "an objective that is none",
        |_, plan| {
            plan.objective = f64::NAN;
            true
        },
        "contradict each other",
    ),
    (
        "a bound below the objective",
        |_, plan| {
            plan.bound = plan.objective - 1.0;
            true
        },
        "contradict each other",
    ),
    (
        "a gap that is too small",
        |_, plan| {
            plan.gap /= 2.0;
            plan.gap > 0.0
        },
        "contradict each other",
    ),
    ("a conflict is kept quiet", |_, plan| plan.conflicts.pop().is_some(), "its conflicts are not"),
    (
        "the use of a resource is told wrong",
        |_, plan| plan.utilization.values_mut().next().map(|used| used.granted += used.capacity + 1.0).is_some(),
        "the use of resources",
    ),
    (
        "a price that is none",
        |_, plan| {
            plan.prices = Some([("gold".to_owned(), 1.0)].into());
            true
        },
        "its prices",
    ),
    (
        "somebody pays who is not there",
        |_, plan| {
            plan.payments = Some([(AgentId::new("nobody").unwrap(), 1.0)].into());
            true
        },
        "its payments",
    ),
    (
        "somebody is called shed who is not there",
        |_, plan| {
            plan.shed.push(AgentId::new("nobody").unwrap());
            true
        },
        "nothing to lose",
    ),
];

#[test]
fn every_change_to_a_plan_that_holds_is_refused_by_name() {
    let mut tried = [0; MUTATIONS.len()];
    for seed in 0..400 {
        let problem = Problem::new(random_problem(seed, 8)).unwrap();
        let plan = written(&problem, &greedy(&problem));
        verify(&problem, &plan).unwrap_or_else(|wrong| panic!("problem {seed}: {wrong:?}"));
        for (at, (name, mutate, expected)) in MUTATIONS.iter().enumerate() {
            let mut changed = plan.clone();
            if !mutate(&problem, &mut changed) {
                continue;
            }
            tried[at] += 1;
            let wrong = verify(&problem, &changed).expect_err(&format!("problem {seed}: {name} is not found"));
            let named = wrong.iter().any(|wrong| expected.split(" | ").any(|expected| wrong.contains(expected)));
            assert!(named, "problem {seed}: {name} is called {wrong:?}");
            // People read this, who need not know how it is kept.
            let odd =
                wrong.iter().find(|wrong| ["Some(", "None", "is not in 1 to 1"].iter().any(|odd| wrong.contains(odd)));
            assert_eq!(odd, None, "problem {seed}: {name}");
        }
    }
    for ((name, ..), tried) in MUTATIONS.iter().zip(tried) {
        assert!(tried >= 5, "{name} was only tried {tried} times");
    }
}

#[test]
fn what_is_wrong_is_said_for_people() {
    let document = json!({"resources": [{"name": "steam", "capacity": 10}], "agents": [{"agent_id": "p1", "fallback": "release"}],
        "intentions": [{"agent_id": "p1", "options": [{"id": "run", "demands": {"steam": 6}, "utility": 1}]}]});
    let problem = Problem::new(serde_json::from_value(document).unwrap()).unwrap();
    let plan = written(&problem, &greedy(&problem));
    let said = |change: &dyn Fn(&mut Decision)| {
        let mut changed = plan.clone();
        change(&mut changed.decisions[0]);
        verify(&problem, &changed).unwrap_err().join("; ")
    };
    let turned = said(&|decision| {
        decision.fraction = -1.0;
        decision.grant.insert("steam".to_owned(), -6.0);
    });
    assert!(turned.contains("p1: its fraction is -1, but must be 1, as this is had wholly or not at all"), "{turned}");
    assert!(!turned.contains("instead of"), "that much belongs to that fraction: {turned}");
    let empty = said(&|decision| decision.grant.clear());
    assert!(empty.contains("p1: nothing of steam is granted instead of 6"), "{empty}");
    let strange = said(&|decision| decision.option_id = Some("walk".to_owned()));
    assert!(strange.contains("p1: option \"walk\" is none of its own"), "{strange}");
}

#[test]
fn who_never_had_anything_is_not_told_that_it_has_nothing_any_more() {
    let why = |holdings: Value| {
        let document = json!({"resources": [{"name": "steam", "capacity": 10}], "holdings": holdings,
            "agents": [{"agent_id": "a", "fallback": "release"}]});
        let problem = Problem::new(serde_json::from_value(document).unwrap()).unwrap();
        written(&problem, &greedy(&problem)).decisions[0].reason.text.clone()
    };
    let held =
        |grant: Value| json!([{"agent_id": "a", "cycle": 1, "reserved": false, "fraction": 1.0, "grant": grant}]);
    assert_eq!(why(json!([])), "it is silent; nothing is reserved for it");
    assert_eq!(why(held(json!({}))), "it is silent; nothing is reserved for it");
    assert_eq!(why(held(json!({"steam": 2.0}))), "it is silent; it has nothing reserved any more");
}

#[test]
fn a_value_that_somebody_cannot_live_with_is_refused() {
    let mut tried = 0;
    for seed in 0..400 {
        let problem = Problem::new(random_problem(seed, 8)).unwrap();
        let resolution = greedy(&problem);
        for party in 0..problem.parties().len() {
            let Some((candidate, _)) = resolution.chosen(&problem, party) else { continue };
            for claim in problem.claims(candidate).iter().filter(|claim| !claim.soft) {
                let (low, high) = problem.ranges()[claim.variable];
                let beyond = [(low, "claim"), (high, "claim"), (low - 1.0, "outside"), (high + 1.0, "outside")];
                for (value, expected) in beyond {
                    let agrees = claim.bounds.0 - 1e-6 <= value && value <= claim.bounds.1 + 1e-6;
                    if agrees || problem.fixed()[claim.variable].is_some() {
                        continue;
                    }
                    tried += 1;
                    let mut moved = resolution.clone();
                    moved.values.insert(claim.variable, value);
                    let wrong = verify(&problem, &written(&problem, &moved)).unwrap_err();
                    assert!(wrong.iter().any(|wrong| wrong.contains(expected)), "problem {seed}: {wrong:?}");
                }
            }
        }
    }
    assert!(tried > 100, "only {tried} values");
}

/// What is said of choices that were made for a problem.
fn refused(problem: &Problem, picks: Vec<Pick>) -> String {
    let plan = written(problem, &Resolution { picks, ..Resolution::default() });
    verify(problem, &plan).expect_err("it holds").join("; ")
}

fn option(problem: &Problem, party: usize, at: usize) -> Pick {
    Pick::Option { candidate: problem.parties()[party].options().start + at, fraction: 1.0 }
}

#[test]
fn choices_that_do_not_go_together_are_refused() {
    let both = |option: Value, resources: Value, variables: Value| {
        problem(json!({
            "resources": resources, "variables": variables,
            "agents": [{"agent_id": "a", "fallback": "release"}, {"agent_id": "b", "fallback": "release"}],
            "intentions": [{"agent_id": "a", "options": [option]}, {"agent_id": "b", "options": [{
                "id": "o", "utility": 1, "demands": {"steam": 6}, "claims": {"t": {"value": 80}}, "effects": {"l": -1}
            }]}],
        }))
    };
    let steam = json!([{"name": "steam", "capacity": 10}]);
    let plenty = json!([{"name": "steam", "capacity": 12}]);
    let variables = json!([{"name": "t", "min": 0, "max": 100}, {"name": "l", "min": 0, "max": 1}]);
    for (wanted, resources, expected) in [
        (
            json!({"id": "o", "utility": 1, "demands": {"steam": 6}}),
            steam,
            "12 of steam is granted, but 10 is available",
        ),
        (
            json!({"id": "o", "utility": 1, "claims": {"t": {"value": 20}}}),
            plenty.clone(),
            "does not agree with its claim",
        ),
        (json!({"id": "o", "utility": 1, "effects": {"l": 1}}), plenty, "l is pushed up and down"),
    ] {
        let problem = both(wanted, resources, variables.clone());
        let wrong = refused(&problem, vec![option(&problem, 0, 0), option(&problem, 1, 0)]);
        assert!(wrong.contains(expected), "{wrong}");
        let one = Resolution { picks: vec![option(&problem, 0, 0), Pick::Fallback], ..Resolution::default() };
        verify(&problem, &written(&problem, &one)).unwrap();
    }
}

#[test]
fn who_could_have_what_is_safe_is_not_shed() {
    let one = |fallback: Value, wanted: Value| {
        problem(json!({
            "resources": [{"name": "steam", "capacity": 10}], "variables": [{"name": "t", "min": 0, "max": 100}],
            "agents": [{"agent_id": "a", "fallback": fallback}],
            "intentions": [{"agent_id": "a", "options": [wanted]}],
        }))
    };
    let big = json!({"id": "o", "utility": 1, "demands": {"steam": 20}});
    let small = json!({"id": "o", "utility": 1, "demands": {"steam": 5}, "claims": {"t": {"value": 5}}});
    assert!(refused(&one(json!("release"), big.clone()), vec![Pick::Nothing]).contains("what is safe for it fits"));
    // Nobody has claimed t, so nothing is in the way of a claim on it.
    assert!(refused(&one(Value::Null, small), vec![Pick::Nothing]).contains("what is safe for it fits"));
    let shed = one(Value::Null, big);
    let plan = written(&shed, &Resolution { picks: vec![Pick::Nothing], ..Resolution::default() });
    assert_eq!((plan.shed.len(), plan.decisions[0].reason.code.as_str()), (1, "shed"));
    verify(&shed, &plan).unwrap();
    let mut quiet = plan;
    quiet.shed.clear();
    assert!(verify(&shed, &quiet).unwrap_err().join("; ").contains("not told of as shed"));
}

#[test]
fn who_is_shed_has_nothing() {
    let mut tried = 0;
    for seed in 0..200 {
        let problem = Problem::new(random_problem(seed, 8)).unwrap();
        let plan = written(&problem, &greedy(&problem));
        for (party, decision) in problem.parties().iter().zip(&plan.decisions) {
            let released = matches!(party.agent.fallback, Some(Fallback::Release));
            let mut changed = plan.clone();
            if plan.shed.contains(party.id()) || !released {
                continue;
            }
            let place = changed.shed.partition_point(|shed| shed < party.id());
            changed.shed.insert(place, party.id().clone());
            let expected = match party.presence {
                Presence::Holding => "nothing to lose",
                _ if has_option(party, decision) => "but has an option",
                _ => "what is safe for it fits",
            };
            let wrong = verify(&problem, &changed).unwrap_err().join("; ");
            assert!(wrong.contains(expected), "problem {seed}: {wrong}");
            tried += 1;
            let at = problem.party(party.id().as_str()).unwrap();
            nothing(&mut changed.decisions[at]);
            assert!(verify(&problem, &changed).is_err(), "problem {seed}: {} is shed without need", party.id());
        }
    }
    assert!(tried > 100, "only {tried} agents");
}

#[test]
fn where_nothing_conflicts_a_second_choice_is_refused() {
    let problem = problem(json!({
        "agents": [{"agent_id": "a", "fallback": "release"}],
        "intentions": [{"agent_id": "a", "options": [{"id": "o", "utility": 2}, {"id": "p", "utility": 1}]}],
    }));
    for pick in [option(&problem, 0, 1), Pick::Fallback] {
        assert!(refused(&problem, vec![pick]).contains("does not get its first choice"));
    }
}

#[test]
fn a_fallback_that_asks_for_what_there_is_not_is_never_given() {
    for safe in [
        json!({"id": "safe", "utility": 0, "demands": {"gone": 1}, "action": {"valve": 1}}),
        json!({"id": "safe", "utility": 0, "claims": {"gone": {"value": 1}}, "action": {"valve": 1}}),
    ] {
        let problem = problem(json!({
            "resources": [{"name": "steam", "capacity": 5}],
            "agents": [{"agent_id": "a", "fallback": safe}, {"agent_id": "b", "fallback": "release"}],
            "intentions": [{"agent_id": "b", "options": [{"id": "x", "utility": 1}]}],
        }));
        // It costs nobody else anything.
        let resolution = Resolution::first_choices(&problem).unwrap();
        let plan = written(&problem, &resolution);
        verify(&problem, &plan).unwrap();
        let decision = &plan.decisions[0];
        assert_eq!((&decision.option_id, &decision.action), (&None, &Value::Null));
        assert_eq!((plan.shed.len(), decision.reason.code.as_str()), (1, "shed"));
        assert!(decision.reason.text.contains("\"gone\""), "{}", decision.reason.text);
        let picks = vec![Pick::Fallback, resolution.picks[1]];
        assert!(refused(&problem, picks).contains("cannot be had"));
    }
}

#[test]
fn what_a_silent_agent_holds_outside_of_the_limits_binds_nobody() {
    let problem = problem(json!({
        "variables": [{"name": "v", "min": 0, "max": 100}],
        "agents": [{"agent_id": "a"}, {"agent_id": "b", "fallback": "release"}],
        "intentions": [{"agent_id": "b", "options": [{"id": "x", "utility": 1, "claims": {"v": {"value": 60}}}]}],
        "holdings": [{"agent_id": "a", "cycle": 0, "reserved": true, "values": {"v": 200}}],
    }));
    let mut plan = written(&problem, &greedy(&problem));
    verify(&problem, &plan).unwrap();
    assert_eq!(plan.values["v"], 60.0);
    plan.values.insert("v".to_owned(), 200.0);
    plan.decisions[1].values.insert("v".to_owned(), 200.0);
    assert!(verify(&problem, &plan).unwrap_err().join("; ").contains("v is set to 200, outside 0 to 100"));
}

#[test]
fn the_limits_of_a_variable_stand_above_its_rate() {
    for (current, range) in [(50.0, (45.0, 55.0)), (98.0, (93.0, 100.0)), (200.0, (95.0, 100.0)), (-7.0, (0.0, 5.0))] {
        let variable = json!({"name": "v", "min": 0, "max": 100, "current": current, "max_rate": 5});
        assert_eq!(serde_json::from_value::<Variable>(variable).unwrap().range(), range);
    }
}
