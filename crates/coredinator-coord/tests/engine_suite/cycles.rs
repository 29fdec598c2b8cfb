//! Cycles in which all goes well.

use std::time::Duration;

use coredinator_coord::CycleOutcome;
use serde_json::json;

use crate::support::{PATIENCE, Plant, agent, steam, wants};

#[tokio::test]
async fn pushed_intentions_become_decisions() {
    let plant = Plant::new(json!({"collect": 0.001}));
    let engine = plant.start().await;
    for (name, priority) in [("a", 3), ("b", 2), ("c", 1)] {
        let registered = engine.register(agent(json!({"agent_id": name, "priority": priority}))).await.unwrap();
        assert!(registered.created && registered.notes.is_empty());
    }
    for (name, steam) in [("a", 6.0), ("b", 6.0), ("c", 3.0)] {
        let accepted = engine.intend(wants(name, 1, &[("run", steam, 1.0)])).unwrap();
        assert_eq!((accepted.cycle, accepted.epoch), (1, 1));
    }
    let record = engine.step("default").await.unwrap();
    assert_eq!((record.cycle, record.epoch, record.outcome), (1, 1, CycleOutcome::Distributed));
    assert_eq!(steam(&record), [("a".into(), 6.0), ("b".into(), 0.0), ("c".into(), 3.0)].into());
    assert_eq!(record.success, None);
    for name in ["a", "b", "c"] {
        let told = engine.decision(name, Some(1), Duration::ZERO).await.unwrap().unwrap();
        assert_eq!((told.cycle, told.decision.agent_id.as_str()), (1, name));
    }
    let waits = tokio::spawn({
        let engine = engine.clone();
        async move { engine.decision("b", Some(2), PATIENCE).await }
    });
    let second = engine.step("default").await.unwrap();
    assert_eq!(second.cycle, 2);
    assert_eq!(waits.await.unwrap().unwrap().unwrap().cycle, 2);
    assert_eq!(engine.cycle("default", 1).unwrap().unwrap().success, Some(true));
    assert_eq!(engine.status().groups[0].success_rate, Some(1.0));
    engine.shutdown().await;
}
