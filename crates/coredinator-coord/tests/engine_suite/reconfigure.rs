//! Another configuration while cycles take place.

use std::time::Duration;

use coredinator_coord::{
    Amount, CoordError, CoordinationConfig, Coordinator, CycleOutcome, CycleRecord, EventKind, Strategies,
};
use serde_json::{Value, json};

use crate::support::{PATIENCE, Plant, agent, steam, wants};

#[expect(clippy::needless_pass_by_value, reason = "a literal at every call")]
fn config(section: Value) -> CoordinationConfig {
    let mut fields = json!({"sync_interval": 3600, "resources": {"steam": {"capacity": 10}}});
    fields.as_object_mut().unwrap().extend(section.as_object().unwrap().clone());
    CoordinationConfig::parse("", &fields, &Strategies::builtin()).unwrap()
}

async fn crowd(engine: &Coordinator, group: &str) {
    for (name, priority) in [("a", 1), ("b", 2)] {
        let name = format!("{group}-{name}");
        engine.register(agent(json!({"agent_id": name, "group": group, "priority": priority}))).await.unwrap();
        engine.intend(wants(&name, 1, &[("run", 6.0, 1.0), ("less", 4.0, 0.5)])).unwrap();
    }
}

#[tokio::test]
async fn what_is_shared_and_who_decides_changes_between_two_cycles_and_nobody_has_to_say_anything_again() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    crowd(&engine, "default").await;
    let mut events = engine.events(None);
    let first = engine.step("default").await.unwrap();
    assert_eq!(steam(&first), [("default-a".into(), 4.0), ("default-b".into(), 6.0)].into());

    let changed = json!({"resources": {"steam": {"capacity": 6}, "air": {"capacity": 1}}, "conflict_resolution": "resource_based"});
    engine.reconfigure(config(changed.clone())).await.unwrap();
    let second = engine.step("default").await.unwrap();
    assert_eq!((second.cycle, second.outcome), (first.cycle + 1, CycleOutcome::Distributed));
    assert_eq!(second.strategy, json!("resource_based"));
    assert!(steam(&second).values().sum::<f64>() <= 6.0, "{:?}", steam(&second));
    assert!(steam(&second).values().any(|amount| *amount > 0.0), "their wishes stand");
    let (mut resources, mut strategy) = (None, None);
    while resources.is_none() || strategy.is_none() {
        match &tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap().kind {
            EventKind::ResourcesChanged { resources: told } => resources = Some(told.clone()),
            EventKind::StrategyChanged { strategy: told } => strategy = Some(told.clone()),
            _ => {}
        }
    }
    assert_eq!(
        (resources.unwrap(), strategy.unwrap()),
        (vec!["air".to_owned(), "steam".to_owned()], json!("resource_based"))
    );

    // What was changed at run time stays as long as the configuration says what it said then.
    let amounts = serde_json::from_value(json!({"steam": {"capacity": 8}})).unwrap();
    engine.set_resources("default", amounts).await.unwrap();
    engine.set_strategy("default", json!("priority_based")).await.unwrap();
    let mut other = changed.clone();
    other["seed"] = json!(7);
    engine.reconfigure(config(other.clone())).await.unwrap();
    let third = engine.step("default").await.unwrap();
    assert_eq!((&third.strategy, third.problem.resources[1].capacity), (&json!("priority_based"), 8.0));
    assert_eq!(third.problem.seed, 7 + third.cycle);
    other["resources"]["steam"]["capacity"] = json!(5);
    other["conflict_resolution"] = json!("centralized");
    engine.reconfigure(config(other)).await.unwrap();
    let fourth = engine.step("default").await.unwrap();
    assert_eq!((&fourth.strategy, fourth.problem.resources[1].capacity), (&json!("centralized"), 5.0));
    // A resource that is gone costs those alone who want it.
    engine.reconfigure(config(json!({"resources": {"air": {"capacity": 1}}}))).await.unwrap();
    let fifth = engine.step("default").await.unwrap();
    assert_eq!((fifth.outcome, fifth.problem.resources.len()), (CycleOutcome::Distributed, 1));
    engine.shutdown().await;
}

#[tokio::test]
async fn a_shorter_interval_is_not_waited_for_by_the_longer_one_and_disabled_is_disabled() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    crowd(&engine, "default").await;
    assert_eq!(engine.status().groups[0].cycle, 0, "the next cycle is an hour away");
    engine.reconfigure(config(json!({"sync_interval": 0.02}))).await.unwrap();
    let until = async |cycle: u64| {
        let reached = async {
            while engine.status().groups[0].cycle < cycle {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("cycles take place");
    };
    until(3).await;
    assert_eq!(engine.status().groups[0].sync_interval_seconds, 0.02);
    engine.reconfigure(config(json!({"sync_interval": 0.02, "enabled": false}))).await.unwrap();
    assert!(!engine.config().enabled && !engine.status().enabled);
    // One may be under way.
    let step = engine.step("default").await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(engine.status().groups[0].cycle, step.cycle, "no cycle takes place by itself");
    engine.reconfigure(config(json!({"sync_interval": 0.02}))).await.unwrap();
    until(step.cycle + 2).await;
    engine.shutdown().await;
}

#[tokio::test]
async fn groups_come_and_go_with_their_numbers_and_agents() {
    let two = || json!({"groups": {"other": {"resources": {"steam": {"capacity": 10}}}}});
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    crowd(&engine, "default").await;
    assert!(matches!(engine.step("other").await, Err(CoordError::UnknownGroup { .. })));
    engine.reconfigure(config(two())).await.unwrap();
    crowd(&engine, "other").await;
    for cycle in 1..=3 {
        assert_eq!(engine.step("other").await.unwrap().cycle, cycle);
    }
    let mut decisions = engine.decisions("other-a").unwrap();
    assert!(decisions.next().await.is_some());
    // It goes: its agents are in the default group, who follows decisions of it is told, and what they held is free.
    engine.reconfigure(config(json!({}))).await.unwrap();
    assert!(matches!(engine.step("other").await, Err(CoordError::UnknownGroup { .. })));
    assert!(tokio::time::timeout(PATIENCE, decisions.next()).await.unwrap().is_none());
    assert_eq!(engine.agent("other-a").unwrap().agent.group, "default");
    // Those who have moved begin anew: they are waited for until they have said what they want.
    let say = |engine: &Coordinator, seq| {
        for name in ["other-a", "other-b"] {
            engine.intend(wants(name, seq, &[("run", 4.0, 9.0)])).unwrap();
        }
    };
    say(&engine, 2);
    let cycle = engine.step("default").await.unwrap();
    assert_eq!(cycle.plan.as_ref().unwrap().decisions.len(), 4);
    // It comes again, and its numbers go on where they were: no agent hears the same one twice.
    engine.reconfigure(config(two())).await.unwrap();
    assert_eq!(engine.agent("other-a").unwrap().agent.group, "other", "as it asked");
    say(&engine, 3);
    let again = engine.step("other").await.unwrap();
    assert_eq!((again.cycle, steam(&again)["other-a"]), (4, 4.0));
    // As a later leader has it, too.
    engine.shutdown().await;
    let mut options = plant.options.clone();
    options.config = config(two());
    plant.lead.take(plant.store.as_ref()).await;
    let engine = Coordinator::start(options).await.unwrap();
    say(&engine, 4);
    assert_eq!(engine.step("other").await.unwrap().cycle, 5);
    engine.shutdown().await;
}

#[tokio::test]
async fn the_operators_word_reaches_who_is_there_already_and_is_taken_back() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    crowd(&engine, "default").await;
    let priority = |name: &str| engine.agent(name).unwrap().agent.priority;
    engine.reconfigure(config(json!({"agents": {"default-a": {"priority": 9}}, "max_agents": 2}))).await.unwrap();
    assert_eq!((priority("default-a"), priority("default-b")), (9, 2));
    let full = engine.register(agent(json!({"agent_id": "third"}))).await;
    assert!(matches!(full, Err(CoordError::Full(2))), "{full:?}");
    // Whose place has changed says again what it wants; nobody else has to.
    engine.intend(wants("default-a", 2, &[("run", 6.0, 1.0)])).unwrap();
    let record = engine.step("default").await.unwrap();
    assert_eq!(steam(&record), [("default-a".into(), 6.0), ("default-b".into(), 4.0)].into());
    engine.reconfigure(config(json!({"max_priority": 1}))).await.unwrap();
    assert_eq!((priority("default-a"), priority("default-b")), (1, 1), "as they asked, and no higher than they may");
    engine.reconfigure(config(json!({}))).await.unwrap();
    assert_eq!((priority("default-a"), priority("default-b")), (1, 2));
    engine.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_made_changes_nothing() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    let before = engine.config();
    let mut broken = config(json!({"agents": {"x": {"priority": 1}}, "resources": {}}));
    broken.groups.get_mut("default").unwrap().conflict_resolution = json!("of nobody");
    let refused = engine.reconfigure(broken).await;
    assert!(matches!(refused, Err(CoordError::Invalid(_))), "{refused:?}");
    assert_eq!(engine.config(), before);
    assert_eq!(engine.status().groups[0].resources.len(), 1);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_names_what_there_is_not_is_refused_and_later_told() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    let safe = |resource: &str| json!({"id": "safe", "demands": {resource: 1}, "utility": 0, "action": {"valve": 1}});
    let CoordError::Invalid(errors) =
        engine.register(agent(json!({"agent_id": "b", "fallback": safe("gold")}))).await.unwrap_err()
    else {
        panic!("another error")
    };
    assert_eq!(errors[0].pointer, "/fallback/demands/gold");

    engine.register(agent(json!({"agent_id": "a", "fallback": safe("steam")}))).await.unwrap();
    assert_eq!(steam(&engine.step("default").await.unwrap())["a"], 1.0);
    engine.reconfigure(config(json!({"resources": {"air": {"capacity": 1}}}))).await.unwrap();
    let nothing_to_do = |record: &CycleRecord| {
        let plan = record.plan.as_ref().unwrap();
        assert!(plan.decisions[0].option_id.is_none() && plan.decisions[0].action.is_null(), "{plan:?}");
    };
    // It is silent and holds what is not there any more; then its fallback would be due.
    nothing_to_do(&engine.step("default").await.unwrap());
    tokio::time::advance(Duration::from_secs(1000)).await;
    let record = engine.step("default").await.unwrap();
    nothing_to_do(&record);
    let plan = record.plan.as_ref().unwrap();
    assert_eq!(plan.shed, [crate::support::id("a")]);
    let fault = &record.agent_faults[&crate::support::id("a")];
    assert!(fault.contains("/fallback/demands/steam"), "{fault}");
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_held_to_a_value_beyond_limits_that_came_closer() {
    let section = |max: f64| json!({"variables": {"t": {"min": 0, "max": max}}});
    let plant = Plant::new(section(200.0));
    let engine = plant.start().await;
    let wants = |id: &str, value: f64| json!({"agent_id": id, "options": [{"id": "run", "utility": 1, "claims": {"t": {"value": value}}}]});
    engine.register(agent(json!({"agent_id": "a", "ttl_seconds": 100_000}))).await.unwrap();
    let mut first = wants("a", 150.0);
    first["valid_until_cycle"] = json!(1);
    engine.intend(serde_json::from_value(first).unwrap()).unwrap();
    let record = engine.step("default").await.unwrap();
    assert_eq!(record.plan.as_ref().unwrap().decisions[0].values["t"], 150.0);
    engine.reconfigure(config(section(100.0))).await.unwrap();
    engine.register(agent(json!({"agent_id": "b", "ttl_seconds": 100_000}))).await.unwrap();
    engine.intend(serde_json::from_value(wants("b", 80.0)).unwrap()).unwrap();
    let record = engine.step("default").await.unwrap();
    let plan = record.plan.as_ref().unwrap();
    assert!(plan.decisions[0].values.is_empty(), "{plan:?}");
    assert_eq!(plan.decisions[1].values["t"], 80.0);
    engine.shutdown().await;
}

#[test]
fn a_fallback_of_the_operators_is_checked_as_one_of_an_agent_is() {
    let parse = |section: Value| CoordinationConfig::parse("/c", &section, &Strategies::builtin());
    let safe = json!({"id": "safe", "demands": {"steam": 1}, "utility": 0});
    parse(json!({"resources": {"steam": {"capacity": 1}}, "on_silence": safe})).unwrap();
    let errors = parse(json!({"groups": {"g": {"on_silence": safe}}})).unwrap_err();
    assert_eq!(errors[0].pointer, "/c/groups/g/on_silence/demands/steam");
    // A group has it from above, but not what it asks for.
    let steam = json!({"steam": {"capacity": 1}});
    let errors = parse(json!({"resources": steam, "on_silence": safe, "groups": {"g": {}}})).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0].pointer, "/c/groups/g/on_silence/demands/steam");
    assert!(errors[0].detail.contains("above all groups"), "{errors:?}");
    parse(json!({"resources": steam, "on_silence": safe, "groups": {"g": {"on_silence": "release"}}})).unwrap();
    // What is said above all groups may be for these alone.
    parse(json!({"on_silence": safe, "groups": {"g": {"resources": steam}}})).unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_brings_no_fallback_is_told_where_the_operators_cannot_be_had() {
    let safe = json!({"id": "safe", "demands": {"steam": 1}, "utility": 0});
    let groups = json!({"g": {"resources": {"steam": {"capacity": 1}}}});
    let plant = Plant::new(json!({"resources": {}, "on_silence": safe, "groups": groups}));
    let engine = plant.start().await;
    let agent = |group: &str| serde_json::from_value(json!({"agent_id": "a", "group": group})).unwrap();
    let CoordError::Invalid(errors) = engine.register(agent("default")).await.unwrap_err() else { panic!() };
    assert_eq!(errors[0].pointer, "/fallback/demands/steam");
    engine.register(agent("g")).await.unwrap();
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn limits_that_come_closer_hold_at_once_whatever_the_rate() {
    let section =
        |max: f64, current: f64| json!({"variables": {"v": {"min": 0, "max": max, "max_rate": 5, "current": current}}});
    let plant = Plant::new(section(300.0, 100.0));
    let engine = plant.start().await;
    engine.register(agent(json!({"agent_id": "a"}))).await.unwrap();
    let wish = json!({"agent_id": "a", "options": [{"id": "x", "utility": 1, "claims": {"v": {"value": 200}}}]});
    engine.intend(serde_json::from_value(wish).unwrap()).unwrap();
    let value = |record: &CycleRecord| record.plan.as_ref().unwrap().values["v"];
    for expected in [105.0, 110.0] {
        assert_eq!(value(&engine.step("default").await.unwrap()), expected);
    }
    engine.reconfigure(config(section(50.0, 50.0))).await.unwrap();
    assert_eq!(value(&engine.step("default").await.unwrap()), 50.0);
    engine.shutdown().await;
}

#[test]
fn a_weight_of_the_operators_is_one_that_an_agent_could_have() {
    let parse = |section: Value| CoordinationConfig::parse("/c", &section, &Strategies::builtin()).unwrap_err();
    let errors = parse(json!({"agents": {"a": {"weight": 1e308}}, "max_weight": 1e16}));
    let told: Vec<&str> = errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(told, ["/c/agents/a/weight", "/c/max_weight"]);
}

#[tokio::test]
async fn no_more_is_kept_back_than_is_said_to_be_there() {
    let parse =
        |resources: Value| CoordinationConfig::parse("/c", &json!({"resources": resources}), &Strategies::builtin());
    let errors = parse(json!({"steam": {"capacity": 5, "reserve": 9}})).unwrap_err();
    assert_eq!((errors.len(), errors[0].pointer.as_str()), (1, "/c/resources/steam/reserve"));
    assert_eq!(errors[0].detail, "must be at most the capacity, 5, but is 9");
    // What the machine has is not known yet.
    parse(json!({"system.memory": {"reserve": 9}})).unwrap();

    let plant = Plant::new(json!({"resources": {"steam": {"capacity": 10, "reserve": 4}}}));
    let engine = plant.start().await;
    let change = |reserve| [("steam".to_owned(), Amount { capacity: 3.0, reserve })].into();
    let Err(CoordError::Invalid(errors)) = engine.set_resources("default", change(Some(4.0))).await else {
        panic!("it is taken")
    };
    assert_eq!(errors[0].pointer, "/steam/reserve");
    // That a boiler trips is no mistake.
    engine.set_resources("default", change(None)).await.unwrap();
    engine.shutdown().await;
}
