use coredinator_core::coordination::{NoNegotiator, Plan, PlanHeader, ProblemDocument, assemble, verify};
use serde_json::json;

use super::{super::Centralized, *};

fn strategy(options: Value) -> PriorityBased {
    PriorityBased::parse("", options).unwrap()
}

fn plan(strategy: &PriorityBased, document: &Value) -> Plan {
    let document: ProblemDocument = serde_json::from_value(document.clone()).unwrap();
    let problem = Problem::new(document).unwrap();
    let resolution = strategy.decide(&problem, &Budget::default());
    let header = PlanHeader { strategy: "priority_based".into(), epoch: 0, fallback: false, elapsed_ms: 0.0 };
    let plan = assemble(&problem, &resolution, &header).unwrap();
    verify(&problem, &plan).unwrap();
    plan
}

fn granted(plan: &Plan, resource: &str) -> Vec<f64> {
    plan.decisions.iter().map(|decision| decision.grant.get(resource).copied().unwrap_or(0.0)).collect()
}

fn outcomes(plan: &Plan) -> Vec<&'static str> {
    plan.decisions.iter().map(|decision| decision.outcome.as_str()).collect()
}

fn codes(plan: &Plan) -> Vec<&str> {
    plan.decisions.iter().map(|decision| decision.reason.code.as_str()).collect()
}

/// Agents a, b, c… with a priority and a wish for steam each, of which there is 10; elastic from a minimum on, if one is given.
fn steam(wishes: &[(i32, f64, Option<f64>)]) -> Value {
    let names = ["a", "b", "c", "d", "e", "f"];
    let agents: Vec<Value> = wishes
        .iter()
        .zip(names)
        .map(|(&(priority, ..), name)| json!({"agent_id": name, "priority": priority, "fallback": "release"}))
        .collect();
    let intentions: Vec<Value> = wishes
        .iter()
        .zip(names)
        .map(|(&(_, amount, least), name)| {
            let elastic = least.map(|least| json!({"min_fraction": least / amount}));
            json!({"agent_id": name, "options": [
                {"id": "run", "demands": {"steam": amount}, "utility": amount, "elastic": elastic}]})
        })
        .collect();
    json!({
        "cycle": 7, "resources": [{"name": "steam", "capacity": 10}], "agents": agents, "intentions": intentions
    })
}

#[test]
fn conforms() {
    coredinator_core::conformance::strategy::run(PriorityBased::default);
    let everything = json!({"when_it_does_not_fit": "block", "ageing": {"cycles": 2}, "hysteresis": 0.5, "grace": 2});
    coredinator_core::conformance::strategy::run(|| strategy(everything.clone()));
}

#[test]
fn a_lower_one_may_or_may_not_use_what_a_higher_one_could_not() {
    let wishes = steam(&[(3, 6.0, None), (2, 6.0, None), (1, 3.0, None)]);
    assert_eq!(granted(&plan(&PriorityBased::default(), &wishes), "steam"), [6.0, 0.0, 3.0]);
    let block = strategy(json!({"when_it_does_not_fit": "block"}));
    let blocked = plan(&block, &wishes);
    assert_eq!(granted(&blocked, "steam"), [6.0, 0.0, 0.0]);
    assert_eq!(codes(&blocked), ["first_choice", "no_room", "saved_up"]);
    let told = &blocked.decisions[2].reason.text;
    assert_eq!(told, "what is left of steam is saved up for b, which is of higher priority");
}

#[test]
fn one_class_is_resolved_together() {
    let mut wishes = steam(&[(1, 6.0, None), (1, 5.0, None), (1, 5.0, None), (0, 4.0, None)]);
    // Worth most for what it takes, but less than the other two together.
    wishes["intentions"][0]["options"][0]["utility"] = json!(7);
    assert_eq!(granted(&plan(&PriorityBased::default(), &wishes), "steam"), [0.0, 5.0, 5.0, 0.0]);
    wishes["intentions"][0]["options"][0]["utility"] = json!(11);
    assert_eq!(granted(&plan(&PriorityBased::default(), &wishes), "steam"), [6.0, 0.0, 0.0, 4.0]);
}

#[test]
fn who_is_left_with_nothing_is_shed_and_not_preempted() {
    let plan = plan(
        &PriorityBased::default(),
        &json!({
            "cycle": 7, "resources": [{"name": "steam", "capacity": 0}], "variables": [{"name": "v", "min": 0, "max": 10}],
            "agents": [
                {"agent_id": "a", "priority": 2, "fallback": "release"}, {"agent_id": "b", "priority": 1, "fallback": "hold"}],
            "intentions": [
                {"agent_id": "a", "options": [{"id": "run", "claims": {"v": {"value": 3}}, "utility": 1}]},
                {"agent_id": "b", "options": [
                    {"id": "run", "claims": {"v": {"value": 8}}, "demands": {"steam": 2}, "utility": 1}]},
            ],
            "holdings": [{"agent_id": "b", "cycle": 6, "option_id": "run", "fraction": 1, "grant": {"steam": 2}}],
        }),
    );
    assert_eq!((outcomes(&plan), codes(&plan)), (vec!["granted", "denied"], vec!["first_choice", "shed"]));
    assert_eq!(plan.shed.len(), 1);
}

#[test]
fn what_is_elastic_is_divided_to_the_last_within_a_class() {
    // On a grid of fractions b would be left with something less than the half that there is for it.
    let mut wishes = steam(&[(1, 9.0, None), (1, 2.0, Some(0.2)), (1, 3.0, None)]);
    wishes["intentions"][1]["options"][0]["elastic"]["shape"] = json!("quadratic");
    let plan = plan(&PriorityBased::default(), &wishes);
    assert_eq!(granted(&plan, "steam"), [9.0, 1.0, 0.0]);
    let block = strategy(json!({"when_it_does_not_fit": "block"}));
    wishes["agents"][2]["priority"] = json!(2);
    wishes["intentions"][2]["options"][0]["demands"]["steam"] = json!(11);
    assert_eq!(granted(&self::plan(&block, &wishes), "steam"), [0.0, 0.0, 0.0], "saved up");
}

/// The sum of utilities where so many agents of one priority with four options each share two resources that run short.
async fn sum_of_many(strategy: &dyn CoordinationStrategy, agents: usize) -> f64 {
    let mut rng = fastrand::Rng::with_seed(7);
    let intentions: Vec<Value> = (0..agents)
        .map(|at| {
            let mut options: Vec<(u8, Value)> = (0..4)
                .map(|option| {
                    let utility = rng.u8(1..=20);
                    let demands = json!({"s": rng.u8(1..=6), "t": rng.u8(1..=6)});
                    (utility, json!({"id": format!("o{option}"), "utility": utility, "demands": demands}))
                })
                .collect();
            options.sort_by_key(|&(utility, _)| std::cmp::Reverse(utility));
            let options: Vec<Value> = options.into_iter().map(|(_, option)| option).collect();
            json!({"agent_id": format!("a{at:03}"), "options": options})
        })
        .collect();
    let agents: Vec<Value> =
        (0..agents).map(|at| json!({"agent_id": format!("a{at:03}"), "fallback": "release"})).collect();
    let capacity = 1.5 * agents.len() as f64;
    let resources = ["s", "t"].map(|name| json!({"name": name, "capacity": capacity}));
    let document = json!({"resources": resources, "agents": agents, "intentions": intentions});
    let problem = Problem::new(serde_json::from_value(document).unwrap()).unwrap();
    let resolution = strategy.resolve(&problem, &Budget::default(), &NoNegotiator).await.unwrap();
    resolution.objective(&problem)
}

#[tokio::test]
async fn a_class_too_large_for_a_search_is_served_nearly_as_well() {
    for agents in [300, 512, 513, 900] {
        let best = sum_of_many(&Centralized::default(), agents).await;
        let found = sum_of_many(&PriorityBased::default(), agents).await;
        assert!(found > 0.99 * best, "{agents} agents: {found} of {best}");
    }
}

#[test]
fn a_share_is_taken_where_it_is_of_use() {
    let cases = [([2.0, 5.0, 1.0], [6.0, 0.0, 3.0]), ([2.0, 4.0, 1.0], [6.0, 4.0, 0.0])];
    for (least, expected) in cases {
        let wishes = [(3, 6.0, Some(least[0])), (2, 6.0, Some(least[1])), (1, 3.0, Some(least[2]))];
        let got = granted(&plan(&PriorityBased::default(), &steam(&wishes)), "steam");
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-9), "{least:?}: {got:?}");
    }
}

/// Sixteen slots command one point, the lowest that does wins; a slot that lets go leaves it to the next.
#[test]
fn the_lowest_slot_commands_the_point() {
    let command = |slots: &[(i32, f64)]| {
        let agents = slots
            .iter()
            .map(|(slot, _)| json!({"agent_id": format!("slot{slot:02}"), "priority": -slot, "fallback": "release"}));
        let intentions = slots.iter().map(|(slot, value)| {
            json!({"agent_id": format!("slot{slot:02}"), "options": [
                {"id": "write", "claims": {"point": {"value": value}}, "utility": 1}]})
        });
        json!({
            "variables": [{"name": "point", "min": 0, "max": 100}],
            "agents": agents.collect::<Vec<_>>(), "intentions": intentions.collect::<Vec<_>>()
        })
    };
    let value = |slots: &[(i32, f64)]| plan(&PriorityBased::default(), &command(slots)).values["point"];
    assert_eq!(value(&[(2, 10.0), (6, 15.0), (13, 20.0)]), 10.0);
    assert_eq!(value(&[(6, 15.0), (13, 20.0)]), 15.0);
}

#[test]
fn what_a_higher_class_blended_stays() {
    let wishes = |lower: f64| {
        json!({
            "variables": [{"name": "setpoint", "min": 0, "max": 100, "on_conflict": "blend"}],
            "agents": [
                {"agent_id": "a", "priority": 1, "fallback": "release"}, {"agent_id": "b", "priority": 1, "weight": 3, "fallback": "release"},
                {"agent_id": "c", "fallback": "release"}],
            "intentions": [
                {"agent_id": "a", "options": [{"id": "x", "claims": {"setpoint": {"value": 60}}, "utility": 1}]},
                {"agent_id": "b", "options": [{"id": "x", "claims": {"setpoint": {"value": 80}}, "utility": 1}]},
                {"agent_id": "c", "options": [{"id": "x", "claims": {"setpoint": {"value": lower, "max": 70}}, "utility": 1}]}]
        })
    };
    let plan = plan(&PriorityBased::default(), &wishes(0.0));
    assert_eq!(plan.values["setpoint"], 75.0);
    assert_eq!(outcomes(&plan), ["scaled", "scaled", "denied"]);
}

#[test]
fn where_all_agree_the_highest_comes_nearest_to_its_wish() {
    let document = json!({
        "variables": [{"name": "setpoint", "min": 0, "max": 100, "on_conflict": "blend"}],
        "agents": [{"agent_id": "a", "priority": 1, "fallback": "release"}, {"agent_id": "b", "fallback": "release"}],
        "intentions": [
            {"agent_id": "a", "options": [{"id": "x", "claims": {"setpoint": {"value": 60, "min": 50, "max": 80}}, "utility": 1}]},
            {"agent_id": "b", "options": [{"id": "x", "claims": {"setpoint": {"value": 80, "min": 65}}, "utility": 1}]}]
    });
    let plan = plan(&PriorityBased::default(), &document);
    assert_eq!(plan.values["setpoint"], 65.0);
    assert_eq!(outcomes(&plan), ["granted", "granted"]);
}

/// Two of which one fits: a holds it, b is of higher priority.
fn contended(preemptible: bool, history: &Value) -> Value {
    json!({
        "cycle": 7, "resources": [{"name": "steam", "capacity": 10}],
        "agents": [
            {"agent_id": "a", "preemptible": preemptible, "fallback": "release"},
            {"agent_id": "b", "priority": 1, "fallback": "release"}],
        "intentions": [
            {"agent_id": "a", "options": [{"id": "run", "demands": {"steam": 8}, "utility": 1}]},
            {"agent_id": "b", "options": [{"id": "run", "demands": {"steam": 8}, "utility": 1}]}],
        "holdings": [{"agent_id": "a", "cycle": 6, "option_id": "run", "fraction": 1, "grant": {"steam": 8}}],
        "history": history
    })
}

#[test]
fn only_the_preemptible_are_preempted() {
    let preempted = plan(&PriorityBased::default(), &contended(true, &json!([])));
    assert_eq!(outcomes(&preempted), ["preempted", "granted"]);
    assert_eq!(codes(&preempted), ["outranked", "first_choice"]);
    assert_eq!(preempted.decisions[0].reason.conflict_ids, ["capacity:steam"]);
    let kept = plan(&PriorityBased::default(), &contended(false, &json!([])));
    assert_eq!(outcomes(&kept), ["granted", "denied"]);
}

#[test]
fn the_loser_keeps_what_it_holds_during_its_grace_and_the_winner_waits() {
    let past = |code: &str, cycle: u64| json!({"cycle": cycle, "agents": {"a": {"outcome": "granted", "code": code}}});
    let strategy = strategy(json!({"grace": 2}));
    assert_eq!(strategy.needs().history, 2);
    for history in
        [json!([]), json!([past("grace", 6)]), json!([past("first_choice", 6), past("grace", 5), past("grace", 4)])]
    {
        let waits = plan(&strategy, &contended(true, &history));
        assert_eq!(outcomes(&waits), ["granted", "denied"], "{history}");
        assert_eq!(codes(&waits), ["grace", "waiting_for_grace"], "{history}");
    }
    let over = plan(&strategy, &contended(true, &json!([past("grace", 6), past("grace", 5)])));
    assert_eq!(outcomes(&over), ["preempted", "granted"]);
    assert_eq!(codes(&over), ["outranked", "first_choice"]);
}

#[test]
fn who_was_denied_long_enough_is_raised() {
    let mut document = steam(&[(1, 8.0, None), (0, 8.0, None)]);
    let denied = |cycle: u64| json!({"cycle": cycle, "agents": {"b": {"outcome": "denied"}}});
    let ageing = strategy(json!({"ageing": {"cycles": 2}}));
    assert_eq!(ageing.needs().history, 20);
    for (cycles, expected) in [(0, [8.0, 0.0]), (3, [8.0, 0.0]), (4, [0.0, 8.0])] {
        document["history"] = (0..cycles).map(|at| denied(6 - at)).collect();
        assert_eq!(granted(&plan(&ageing, &document), "steam"), expected, "{cycles}");
        assert_eq!(granted(&plan(&PriorityBased::default(), &document), "steam"), [8.0, 0.0]);
    }
}

#[test]
fn who_holds_something_keeps_it_unless_the_challenger_is_worth_more_by_a_margin() {
    let mut document = steam(&[(0, 8.0, None), (0, 8.0, None)]);
    document["holdings"] =
        json!([{"agent_id": "b", "cycle": 6, "option_id": "run", "fraction": 1, "grant": {"steam": 8}}]);
    let hysteresis = strategy(json!({"hysteresis": 0.2}));
    for (challenger, expected) in [(8.0, [0.0, 8.0]), (9.0, [0.0, 8.0]), (10.0, [8.0, 0.0])] {
        document["intentions"][0]["options"][0]["utility"] = json!(challenger);
        assert_eq!(granted(&plan(&hysteresis, &document), "steam"), expected, "{challenger}");
    }
    document["intentions"][0]["options"][0]["utility"] = json!(9);
    assert_eq!(granted(&plan(&PriorityBased::default(), &document), "steam"), [8.0, 0.0]);
}

#[test]
fn who_wants_less_than_it_holds_makes_room_for_a_higher_one() {
    let document = json!({
        "resources": [{"name": "steam", "capacity": 10}],
        "agents": [
            {"agent_id": "a", "priority": 2, "fallback": "release"}, {"agent_id": "b", "priority": 1, "fallback": "release"},
            {"agent_id": "c", "fallback": "hold"}],
        "intentions": [
            {"agent_id": "a", "options": [{"id": "run", "demands": {"steam": 7}, "utility": 1}]},
            {"agent_id": "b", "options": [{"id": "run", "demands": {"steam": 3}, "utility": 1}]},
            {"agent_id": "c", "options": [{"id": "less", "demands": {"steam": 1}, "utility": 1}]}],
        "holdings": [{"agent_id": "c", "cycle": 6, "option_id": "more", "fraction": 1, "grant": {"steam": 5}}]
    });
    assert_eq!(granted(&plan(&PriorityBased::default(), &document), "steam"), [7.0, 0.0, 1.0]);
}

#[test]
fn options_are_read_and_wrong_ones_told() {
    assert_eq!(strategy(json!({})), PriorityBased::default());
    let full =
        strategy(json!({"when_it_does_not_fit": "block", "ageing": {"cycles": 3}, "hysteresis": 0.1, "grace": 1}));
    let ageing = Some(Ageing { cycles: 3, at_most: 10 });
    let expected = PriorityBased { when_it_does_not_fit: WhenItDoesNotFit::Block, ageing, hysteresis: 0.1, grace: 1 };
    assert_eq!(full, expected);
    for wrong in [
        json!({"when_it_does_not_fit": "wait"}),
        json!({"ageing": {"cycles": 0}}),
        json!({"ageing": {"cycle": 1}}),
        json!({"ageing": {"cycles": 1, "at_most": 0}}),
        json!({"hysteresis": -0.1}),
        json!({"hysteresis": "much"}),
        json!({"grace": 1001}),
        json!({"grace": -1}),
        json!({"garce": 1}),
        json!([]),
    ] {
        assert!(PriorityBased::parse("/s", wrong.clone()).is_err(), "{wrong}");
    }
}
