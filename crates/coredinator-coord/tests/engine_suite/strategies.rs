//! Strategies that fail, and groups that do not mind.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use coredinator_coord::{
    CoordError, Coordinator, CycleOutcome, CycleRecord, DecidedBy, EventKind, FaultKind, Replayed, Strategies, replay,
};
use coredinator_core::coordination::{
    Budget, CoordinationStrategy, Negotiator, Pick, PlanStatus, Problem, Resolution, StrategyError,
};
use serde_json::{Value, json};

use crate::support::{Manner, PATIENCE, Plant, agent, steam, wants};

/// A strategy that fails as it is told.
#[derive(Debug, Clone)]
struct Fails {
    how: &'static str,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

#[async_trait]
impl CoordinationStrategy for Fails {
    fn name(&self) -> &str {
        self.how
    }

    async fn resolve(&self, problem: &Problem, _: &Budget, _: &dyn Negotiator) -> Result<Resolution, StrategyError> {
        let greedy = || Resolution {
            picks: problem
                .parties()
                .iter()
                .map(|party| Pick::Option { candidate: party.options().start, fraction: 1.0 })
                .collect(),
            ..Resolution::default()
        };
        match self.how {
            "panics" => panic!("no idea"),
            "fails" => Err(StrategyError::new("no idea")),
            "hangs" => {
                let (open, bell) = &*self.gate;
                drop(bell.wait_while(open.lock().unwrap(), |open| !*open).unwrap());
                Ok(greedy())
            }
            "greedy" => Ok(greedy()),
            "short" => Ok(Resolution::default()),
            // With this everything would fit, but nobody said so.
            "lies" => {
                Ok(Resolution { revisions: vec![Arc::new(wants("default-a", 2, &[("run", 1.0, 1.0)]))], ..greedy() })
            }
            _ => Ok(Resolution { bound: Some(f64::NAN), ..greedy() }),
        }
    }
}

fn failing() -> (Strategies, Arc<(Mutex<bool>, Condvar)>) {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let all = ["panics", "fails", "hangs", "greedy", "short", "lies", "nan"];
    let add = |strategies: Strategies, how| strategies.with(Fails { how, gate: Arc::clone(&gate) });
    (all.into_iter().fold(Strategies::builtin(), add), gate)
}

fn open(gate: &(Mutex<bool>, Condvar)) {
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
}

/// Two agents that want more than there is.
async fn crowd(engine: &Coordinator, group: &str) {
    for (name, priority) in [("a", 1), ("b", 2)] {
        let name = format!("{group}-{name}");
        engine.register(agent(json!({"agent_id": name, "group": group, "priority": priority}))).await.unwrap();
        engine.intend(wants(&name, 1, &[("run", 6.0, 1.0)])).unwrap();
    }
}

fn assert_stepped_in(record: &CycleRecord, kind: FaultKind) {
    let plan = record.plan.as_ref().unwrap();
    assert_eq!((record.outcome, record.decided_by), (CycleOutcome::Distributed, DecidedBy::PriorityBased));
    assert_eq!((plan.status, plan.strategy.as_str()), (PlanStatus::Fallback, "priority_based"));
    assert_eq!(record.faults.iter().map(|fault| fault.kind).collect::<Vec<_>>(), [kind], "{:?}", record.faults);
    assert_eq!(steam(record), [("default-a".into(), 0.0), ("default-b".into(), 6.0)].into());
}

#[tokio::test]
async fn whatever_a_strategy_does_the_cycle_ends_by_priority_and_the_fault_is_told() {
    let (strategies, _) = failing();
    let plant = Plant::with(json!({"budget": {"deadline_ms": 20_000}}), strategies.clone());
    let engine = plant.start().await;
    crowd(&engine, "default").await;
    let mut events = engine.events(None);
    for (how, kind) in [
        ("panics", FaultKind::Panicked),
        ("fails", FaultKind::Failed),
        ("greedy", FaultKind::Infeasible),
        ("short", FaultKind::IllFormed),
        ("lies", FaultKind::IllFormed),
        ("nan", FaultKind::IllFormed),
    ] {
        engine.set_strategy("default", Value::from(how)).await.unwrap();
        let record = engine.step("default").await.unwrap();
        assert_stepped_in(&record, kind);
        assert_eq!(replay(&record, &strategies).await.unwrap(), Replayed::Same, "{how}");
        let told = loop {
            if let EventKind::StrategyFault { fault, strategy, .. } = &events.next().await.unwrap().kind {
                break (*fault, strategy.clone());
            }
        };
        assert_eq!(told, (kind, how.to_owned()));
    }
    assert_eq!(engine.status().groups[0].stats.faults.values().sum::<u64>(), 6);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_strategy_that_hangs_is_left_behind_and_not_asked_again_while_it_does() {
    let (strategies, gate) = failing();
    let section = json!({"budget": {"deadline_ms": 50}, "conflict_resolution": "hangs",
        "groups": {"other": {"conflict_resolution": "priority_based", "resources": {"steam": {"capacity": 10}},
                             "budget": {"deadline_ms": 20_000}}}});
    let plant = Plant::with(section, strategies);
    let engine = plant.start().await;
    crowd(&engine, "default").await;
    crowd(&engine, "other").await;
    assert_stepped_in(&engine.step("default").await.unwrap(), FaultKind::Hung);
    assert_stepped_in(&engine.step("default").await.unwrap(), FaultKind::Busy);
    // Another group does not notice.
    let other = engine.step("other").await.unwrap();
    assert_eq!((other.decided_by, other.faults.len()), (DecidedBy::Strategy, 0));
    open(&gate);
    // It comes back, and is asked again: what it answers is no plan, but it answers.
    tokio::time::timeout(PATIENCE, async {
        loop {
            let record = engine.step("default").await.unwrap();
            match record.faults[0].kind {
                FaultKind::Infeasible => break,
                kind => assert!(matches!(kind, FaultKind::Busy | FaultKind::Hung), "{kind:?}"),
            }
        }
    })
    .await
    .unwrap();
    engine.shutdown().await;
}

#[tokio::test]
async fn a_group_that_hangs_does_not_delay_another() {
    let (strategies, gate) = failing();
    let section = json!({"budget": {"deadline_ms": 60_000}, "conflict_resolution": "hangs",
        "groups": {"other": {"conflict_resolution": "priority_based", "resources": {"steam": {"capacity": 10}}}}});
    let plant = Plant::with(section, strategies);
    let engine = plant.start().await;
    crowd(&engine, "default").await;
    crowd(&engine, "other").await;
    let hanging = tokio::spawn({
        let engine = engine.clone();
        async move { engine.step("default").await }
    });
    let other = tokio::time::timeout(PATIENCE, engine.step("other")).await.unwrap().unwrap();
    assert_eq!(other.outcome, CycleOutcome::Distributed);
    assert!(!hanging.is_finished());
    open(&gate);
    assert_stepped_in(&hanging.await.unwrap().unwrap(), FaultKind::Infeasible);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_cycle_that_overruns_does_not_pile_up() {
    let (strategies, gate) = failing();
    let section = json!({"sync_interval": 0.02, "budget": {"deadline_ms": 200}, "conflict_resolution": "hangs"});
    let plant = Plant::with(section, strategies);
    let engine = plant.start().await;
    crowd(&engine, "default").await;
    let mut events = engine.events(None);
    let missed = tokio::time::timeout(PATIENCE, async {
        loop {
            if let EventKind::Overrun { missed, .. } = events.next().await.unwrap().kind {
                break missed;
            }
        }
    });
    assert!(missed.await.unwrap() > 0);
    assert!(engine.status().groups[0].stats.overruns > 0);
    open(&gate);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_strategy_that_cannot_be_had_changes_nothing() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    let refused = engine.set_strategy("default", json!("priority_bassed")).await;
    let Err(CoordError::Invalid(errors)) = refused else { panic!("{refused:?}") };
    assert!(errors[0].hint.as_deref().is_some_and(|hint| hint.contains("priority_based")));
    assert_eq!(engine.status().groups[0].strategy, json!("priority_based"));
    assert!(matches!(
        engine.set_strategy("nowhere", json!("priority_based")).await,
        Err(CoordError::UnknownGroup { .. })
    ));
    engine.shutdown().await;
}

#[tokio::test]
async fn every_strategy_replays_its_cycles_bit_for_bit() {
    let strategies = Strategies::builtin();
    let plant = Plant::new(json!({"budget": {"deadline_ms": 20_000}, "negotiate": 0.00001, "distribute": 0.0001}));
    let engine = plant.start().await;
    for (at, name) in ["a", "b", "c", "d"].into_iter().enumerate() {
        let document =
            json!({"agent_id": name, "endpoint": format!("http://{name}:1"), "negotiates": at < 3, "weight": at + 1});
        engine.register(agent(document)).await.unwrap();
        let mut wish = wants(name, 1, &[("run", 4.0, 8.0), ("less", 2.0, 5.0)]);
        for option in &mut wish.options {
            option.elastic = serde_json::from_value(json!({"min_fraction": 0.2, "shape": "quadratic"})).unwrap();
        }
        plant.fakes.set(name, if name == "c" { Manner::Dies(wish) } else { Manner::Answers(wish) });
    }
    let names: Vec<String> = strategies.names().map(str::to_owned).collect();
    for name in names {
        // Those that need options are not for this test.
        if engine.set_strategy("default", Value::from(name.as_str())).await.is_err() {
            continue;
        }
        for _ in 0..2 {
            let record = engine.step("default").await.unwrap();
            assert_eq!(record.faults, [], "{name}");
            assert_eq!(record.outcome, CycleOutcome::Distributed);
            assert!(steam(&record).values().sum::<f64>() <= 10.0 + 1e-7, "{name}");
            // By the record as it is written down, too.
            let written: CycleRecord = serde_json::from_str(&serde_json::to_string(&*record).unwrap()).unwrap();
            assert_eq!(replay(&written, &strategies).await.unwrap(), Replayed::Same, "{name}");
        }
    }
    engine.shutdown().await;
}

#[tokio::test]
async fn a_dry_run_tells_and_keeps_nothing() {
    let plant = Plant::new(json!({}));
    let engine = plant.start().await;
    let problem = json!({"resources": [{"name": "steam", "capacity": 10}],
        "agents": [{"agent_id": "x", "fallback": "release"}], "intentions": [wants("x", 1, &[("run", 4.0, 1.0)])]});
    let problem = serde_json::from_value(problem).unwrap();
    let resolved = engine.dry_run(problem, Some(&json!("priority_based"))).await.unwrap();
    assert_eq!(resolved.plan.unwrap().decisions[0].grant["steam"], 4.0);
    assert_eq!(engine.cycles("default", 10).unwrap(), []);
    assert!(engine.decision("x", None, Duration::ZERO).await.is_err());
    engine.shutdown().await;
}
