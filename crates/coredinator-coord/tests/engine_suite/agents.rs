//! Agents that are silent, late, dead, lying, doubled, or come and go.

use std::time::Duration;

use coredinator_coord::{
    AgentState, CoordError, CycleOutcome, CycleRecord, EventKind, Replayed, ServiceView, Strategies, replay,
};
use coredinator_core::{ServiceName, coordination::DecisionOutcome};
use serde_json::json;

use crate::support::{Manner, Plant, agent, id, steam, wants};

#[tokio::test(start_paused = true)]
async fn a_silent_agent_keeps_what_it_holds_until_its_ttl_ends() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    // Cycles wait 1440 s for those who do not answer.
    engine.register(agent(json!({"agent_id": "a", "endpoint": "http://a:1", "ttl_seconds": 4000}))).await.unwrap();
    engine.register(agent(json!({"agent_id": "b", "endpoint": "http://b:1"}))).await.unwrap();
    plant.fakes.set("a", Manner::Answers(wants("a", 1, &[("run", 6.0, 1.0)])));
    plant.fakes.set("b", Manner::Answers(wants("b", 1, &[("idle", 0.0, 1.0)])));
    let first = engine.step("default").await.unwrap();
    assert_eq!((steam(&first)["a"], first.success), (6.0, Some(true)));

    plant.fakes.set("a", Manner::Silent);
    plant.fakes.set("b", Manner::Answers(wants("b", 2, &[("run", 6.0, 1.0), ("less", 4.0, 0.5)])));
    let second = engine.step("default").await.unwrap();
    // Its load does not vanish from the books, and the others are served.
    assert_eq!(steam(&second), [("a".into(), 6.0), ("b".into(), 4.0)].into());
    assert_eq!(second.success, Some(true), "who is silent is not waited for");
    assert_eq!(second.agent_faults.len(), 1);
    assert_eq!(engine.agent("a").unwrap().state, AgentState::Silent);
    assert_eq!(engine.active_agents(), 1);

    tokio::time::advance(Duration::from_secs(4000)).await;
    let third = engine.step("default").await.unwrap();
    assert_eq!(steam(&third), [("a".into(), 0.0), ("b".into(), 6.0)].into());

    plant.fakes.set("a", Manner::Answers(wants("a", 2, &[("run", 3.0, 1.0)])));
    let fourth = engine.step("default").await.unwrap();
    assert_eq!(steam(&fourth)["a"], 3.0);
    assert_eq!(engine.agent("a").unwrap().state, AgentState::Active);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn garbage_costs_only_who_sent_it_and_it_is_told() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    for name in ["liar", "odd", "sound"] {
        let document = json!({"agent_id": name, "endpoint": format!("http://{name}:1")});
        engine.register(agent(document)).await.unwrap();
    }
    plant.fakes.set("liar", Manner::Garbage);
    let mut odd = wants("odd", 1, &[("run", 1.0, 1.0)]);
    odd.options[0].demands.insert("dreams".to_owned(), f64::NAN);
    plant.fakes.set("odd", Manner::Answers(odd));
    plant.fakes.set("sound", Manner::Answers(wants("sound", 1, &[("run", 10.0, 1.0)])));
    let record = engine.step("default").await.unwrap();
    assert_eq!((steam(&record)["sound"], record.success), (10.0, Some(true)));
    assert_eq!(record.agent_faults.len(), 2);
    let plan = record.plan.as_ref().unwrap();
    assert_eq!(plan.decision("odd").unwrap().reason.code, "invalid_intention");
    assert_eq!(plan.decision("liar").unwrap().outcome, DecisionOutcome::Defaulted);
    let told = engine.decision("liar", None, Duration::ZERO).await.unwrap().unwrap();
    let why = &told.decision.reason.text;
    assert!(why.starts_with("it answered with what is not understood: NaN; "), "{why}");
    assert!(told.fault.as_deref().is_some_and(|fault| fault.contains("NaN")), "{told:?}");
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_never_said_anything_is_waited_for_once() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    for name in ["a", "mute"] {
        engine.register(agent(json!({"agent_id": name, "ttl_seconds": 100_000}))).await.unwrap();
    }
    engine.intend(wants("a", 1, &[("run", 6.0, 1.0)])).unwrap();
    // The cycle waits 0.4 of an hour at most.
    let mut took = Vec::new();
    for _ in 0..3 {
        let begun = tokio::time::Instant::now();
        let record = engine.step("default").await.unwrap();
        assert_eq!(steam(&record)["a"], 6.0);
        assert_eq!(record.agent_faults, [(id("mute"), "it has not said what it wants".to_owned())].into());
        took.push(begun.elapsed().as_secs() > 1000);
    }
    assert_eq!(took, [true, false, false]);
    // It is heard whenever it speaks, and waited for from then on.
    engine.intend(wants("mute", 1, &[("run", 4.0, 1.0)])).unwrap();
    let record = engine.step("default").await.unwrap();
    assert_eq!((steam(&record)["mute"], record.agent_faults.len()), (4.0, 0));
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn far_too_many_options_are_no_silence() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    engine.register(agent(json!({"agent_id": "a", "endpoint": "http://a:1"}))).await.unwrap();
    let mut many = wants("a", 1, &[("run", 1.0, 1.0)]);
    many.options = (0..30_000)
        .map(|at| coredinator_core::coordination::ActionOption { id: format!("o{at}"), ..many.options[0].clone() })
        .collect();
    plant.fakes.set("a", Manner::Answers(many));
    let record = engine.step("default").await.unwrap();
    let reason = &record.plan.as_ref().unwrap().decision("a").unwrap().reason;
    let fault = "/options: must be 1 to 1000 options, but are 30000";
    assert_eq!((reason.code.as_str(), &record.agent_faults[&id("a")]), ("invalid_intention", &fault.to_owned()));
    assert_eq!(reason.text, format!("its intention cannot be used: {fault}"));
    assert!(record.problem.intentions[0].options.len() < 1100, "not all of it is kept");
    let written: CycleRecord = serde_json::from_str(&serde_json::to_string(&*record).unwrap()).unwrap();
    assert_eq!(replay(&written, &Strategies::builtin()).await.unwrap(), Replayed::Same);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_lie_that_is_pushed_is_refused_and_what_was_said_before_stands() {
    let plant = Plant::new(json!({"collect": 0.0001}));
    let engine = plant.start().await;
    engine.register(agent(json!({"agent_id": "a"}))).await.unwrap();
    engine.intend(wants("a", 7, &[("run", 2.0, 1.0)])).unwrap();
    for (steam, utility) in [(f64::NAN, 1.0), (-1.0, 1.0), (f64::INFINITY, 1.0), (1.0, f64::NAN)] {
        let mut lie = wants("a", 8, &[("run", 1.0, 1.0)]);
        lie.options[0].demands.insert("steam".to_owned(), steam);
        lie.options[0].utility = utility;
        assert!(matches!(engine.intend(lie), Err(CoordError::Invalid(_))), "{steam} {utility}");
    }
    let mut unknown = wants("a", 8, &[("run", 1.0, 1.0)]);
    unknown.options[0].demands.insert("dreams".to_owned(), 1.0);
    assert!(matches!(engine.intend(unknown), Err(CoordError::Invalid(_))));
    let mut many = wants("a", 8, &[("run", 1.0, 1.0)]);
    many.options = vec![many.options[0].clone(); 1_000_000];
    assert!(matches!(engine.intend(many), Err(CoordError::Invalid(_))));
    assert!(matches!(
        engine.intend(wants("a", 6, &[("run", 9.0, 1.0)])),
        Err(CoordError::Stale { given: 6, known: 7 })
    ));
    let mut past = wants("a", 8, &[("run", 9.0, 1.0)]);
    past.valid_until_cycle = Some(0);
    assert!(matches!(engine.intend(past), Err(CoordError::Past { last: 0, cycle: 1 })));
    assert_eq!(steam(&engine.step("default").await.unwrap())["a"], 2.0);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_intention_that_is_past_or_named_as_the_fallback_is_refused_however_it_comes() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    let safe = json!({"id": "safe", "utility": 0});
    engine.register(agent(json!({"agent_id": "a", "fallback": safe}))).await.unwrap();
    let Err(CoordError::Invalid(errors)) = engine.intend(wants("a", 1, &[("run", 2.0, 1.0), ("safe", 1.0, 0.5)]))
    else {
        panic!("it is taken")
    };
    assert_eq!(errors[0].pointer, "/options/1/id");
    engine.deregister("a").await.unwrap();

    for (name, option) in [("b", "run"), ("c", "safe")] {
        let document = json!({"agent_id": name, "endpoint": format!("http://{name}:1"), "fallback": safe});
        engine.register(agent(document)).await.unwrap();
        let mut wish = wants(name, 1, &[(option, 2.0, 1.0)]);
        wish.valid_until_cycle = (name == "b").then_some(0);
        plant.fakes.set(name, Manner::Answers(wish));
    }
    let record = engine.step("default").await.unwrap();
    assert_eq!(steam(&record), [("b".into(), 0.0), ("c".into(), 0.0)].into());
    assert_eq!(record.agent_faults[&id("b")], "its intention stood until cycle 0, and this is cycle 1");
    assert_eq!(record.agent_faults[&id("c")], r#"/options/0/id: "safe" is the name of its fallback"#);
    engine.shutdown().await;
}

#[tokio::test]
async fn of_two_of_one_name_the_second_counts_and_what_was_granted_stays() {
    let plant = Plant::new(json!({"collect": 0.0001}));
    let engine = plant.start().await;
    assert!(engine.register(agent(json!({"agent_id": "a"}))).await.unwrap().created);
    engine.intend(wants("a", 50, &[("run", 6.0, 1.0)])).unwrap();
    engine.step("default").await.unwrap();
    let again = engine.register(agent(json!({"agent_id": "a", "priority": 2}))).await.unwrap();
    assert!(!again.created);
    let view = engine.agent("a").unwrap();
    assert_eq!((view.agent.priority, view.intention_seq), (2, None));
    assert_eq!(view.holding.as_ref().unwrap().grant["steam"], 6.0);
    assert_eq!(steam(&engine.step("default").await.unwrap())["a"], 6.0, "it is silent, and holds");
    // It counts from 1 again.
    engine.intend(wants("a", 1, &[("run", 5.0, 1.0)])).unwrap();
    assert_eq!(steam(&engine.step("default").await.unwrap())["a"], 5.0);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_malformed_name_does_not_break_the_next_request() {
    let plant = Plant::new(json!({"collect": 0.0001}));
    let engine = plant.start().await;
    engine.register(agent(json!({"agent_id": "a_b:c.d"}))).await.unwrap();
    for bad in ["", "a b", "../x", "%00", "ä", &"x".repeat(100_000)] {
        assert!(matches!(engine.agent(bad), Err(CoordError::UnknownAgent(_))));
        assert!(matches!(engine.heartbeat(bad), Err(CoordError::UnknownAgent(_))));
        assert!(matches!(engine.deregister(bad).await, Err(CoordError::UnknownAgent(_))));
        assert!(matches!(engine.step(bad).await, Err(CoordError::UnknownGroup { .. })));
    }
    let mut bad = agent(json!({"agent_id": "b", "endpoint": "http://b:1"}));
    for endpoint in ["b:1", "https://b:1", "http://", "http://b:1/?x=1", "http://b b:1"] {
        bad.endpoint = Some(endpoint.to_owned());
        assert!(matches!(engine.register(bad.clone()).await, Err(CoordError::Invalid(_))), "{endpoint}");
    }
    engine.intend(wants("a_b:c.d", 1, &[("run", 1.0, 1.0)])).unwrap();
    assert_eq!(steam(&engine.step("default").await.unwrap())["a_b:c.d"], 1.0);
    engine.shutdown().await;
}

#[derive(Debug)]
struct Stopped;

impl ServiceView for Stopped {
    fn usable(&self, service: &ServiceName) -> bool {
        service.as_str() != "stopped"
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_whose_service_cannot_act_is_silent() {
    let mut plant = Plant::new(json!({"on_silence": "release"}));
    plant.options.services = std::sync::Arc::new(Stopped);
    let engine = plant.start().await;
    for (name, service) in [("a", "runs"), ("b", "stopped")] {
        // Longer than c is waited for.
        engine.register(agent(json!({"agent_id": name, "service": service, "ttl_seconds": 4000}))).await.unwrap();
        engine.intend(wants(name, 1, &[("run", 6.0, 1.0)])).unwrap();
    }
    engine.register(agent(json!({"agent_id": "c"}))).await.unwrap();
    let record = engine.step("default").await.unwrap();
    assert_eq!(steam(&record), [("a".into(), 6.0), ("b".into(), 0.0), ("c".into(), 0.0)].into());
    let decision = |name: &str| record.plan.as_ref().unwrap().decision(name).unwrap();
    assert_eq!(decision("b").outcome, DecisionOutcome::Defaulted);
    // Each is told what is the matter with it.
    assert_eq!(decision("b").reason.text, "its service stopped cannot act; nothing is reserved for it");
    assert_eq!(record.agent_faults[&id("b")], "its service stopped cannot act");
    assert_eq!(record.agent_faults[&id("c")], "it has not said what it wants");
    let written: CycleRecord = serde_json::from_str(&serde_json::to_string(&*record).unwrap()).unwrap();
    assert_eq!(replay(&written, &Strategies::builtin()).await.unwrap(), Replayed::Same);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_no_use_to_an_offer_is_told() {
    let plant = Plant::new(json!({"conflict_resolution": "consensus"}));
    let engine = plant.start().await;
    for name in ["a", "b"] {
        let document = json!({"agent_id": name, "endpoint": format!("http://{name}:1"), "negotiates": true});
        engine.register(agent(document)).await.unwrap();
    }
    plant.fakes.set("a", Manner::Answers(wants("a", 1, &[("run", 6.0, 2.0)])));
    plant.fakes.set("b", Manner::Babbles(wants("b", 1, &[("run", 6.0, 1.0)])));
    let record = engine.step("default").await.unwrap();
    assert!(!record.negotiation.is_empty());
    assert_eq!(record.agent_faults.len(), 1);
    assert_eq!(record.agent_faults[&id("b")], "to an offer, it answered with what is not understood: NaN");
    let told = engine.decision("b", None, Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(told.fault.as_ref(), record.agent_faults.get(&id("b")));
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_gives_something_up_is_told_before_who_takes_it() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    for (name, first) in [("a", 2.0), ("b", 8.0)] {
        engine.register(agent(json!({"agent_id": name, "endpoint": format!("http://{name}:1")}))).await.unwrap();
        plant.fakes.set(name, Manner::Answers(wants(name, 1, &[("run", first, 1.0)])));
    }
    engine.step("default").await.unwrap();
    plant.fakes.told.lock().unwrap().clear();
    for (name, second) in [("a", 8.0), ("b", 2.0)] {
        plant.fakes.set(name, Manner::Answers(wants(name, 2, &[("run", second, 1.0)])));
    }
    let record = engine.step("default").await.unwrap();
    assert_eq!(steam(&record), [("a".into(), 8.0), ("b".into(), 2.0)].into());
    let told = plant.fakes.told.lock().unwrap().clone();
    let order: Vec<&str> = told.iter().map(|message| message.decision.agent_id.as_str()).collect();
    assert_eq!(order, ["b", "a"]);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_decision_that_does_not_arrive_is_counted() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    engine.register(agent(json!({"agent_id": "a", "endpoint": "http://a:1"}))).await.unwrap();
    plant.fakes.set("a", Manner::Dies(wants("a", 1, &[("run", 6.0, 1.0)])));
    let record = engine.step("default").await.unwrap();
    assert_eq!((record.outcome, record.success), (CycleOutcome::Distributed, None));
    assert_eq!(record.unacknowledged, [crate::support::id("a")]);
    engine.step("default").await.unwrap();
    assert_eq!(engine.cycle("default", 1).unwrap().unwrap().success, Some(false));
    let status = engine.status();
    assert!(status.groups[0].success_rate.is_some_and(|rate| rate < 1.0), "{status:?}");
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn fallbacks_that_do_not_fit_shed_somebody_and_raise_an_alert() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    let mut events = engine.events(None);
    for (name, priority) in [("a", 1), ("b", 2)] {
        let safe = json!({"id": "safe", "demands": {"steam": 6}, "utility": 0});
        engine.register(agent(json!({"agent_id": name, "priority": priority, "fallback": safe}))).await.unwrap();
    }
    let record = engine.step("default").await.unwrap();
    assert_eq!(steam(&record), [("a".into(), 0.0), ("b".into(), 6.0)].into());
    assert_eq!(record.plan.as_ref().unwrap().shed, [crate::support::id("a")]);
    let alert = loop {
        if let EventKind::Shed { cycle, agents } = &events.next().await.unwrap().kind {
            break (*cycle, agents.clone());
        }
    };
    assert_eq!(alert, (1, vec![crate::support::id("a")]));
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn agents_join_and_leave_between_any_two_steps() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    for _ in 0..30 {
        let running = tokio::spawn({
            let engine = engine.clone();
            async move { engine.step("default").await }
        });
        for _ in 0..random.usize(0..12) {
            let name = format!("agent-{}", random.u8(0..8));
            match random.u8(0..6) {
                0 => drop(engine.deregister(&name).await),
                1 => {
                    let endpoint = random.bool().then(|| format!("http://{name}:1"));
                    engine.register(agent(json!({"agent_id": name, "endpoint": endpoint}))).await.unwrap();
                }
                2 => plant.fakes.set(&name, Manner::Silent),
                3 => plant.fakes.set(&name, Manner::Dies(wants(&name, 1, &[("run", 4.0, 1.0)]))),
                _ => {
                    let wish = wants(&name, 1, &[("run", f64::from(random.u8(0..8)), 1.0)]);
                    let _ = engine.intend(wish.clone());
                    plant.fakes.set(&name, Manner::Answers(wish));
                }
            }
            if random.bool() {
                tokio::task::yield_now().await;
            }
        }
        let record = running.await.unwrap().unwrap();
        let plan = record.plan.as_ref().unwrap();
        assert!(plan.verified && plan.decisions.len() == record.problem.agents.len());
        let told = engine.agents(None).unwrap();
        for decision in told.iter().filter_map(|view| view.decision.as_ref()) {
            assert!(decision.cycle <= record.cycle);
        }
    }
    engine.shutdown().await;
}
