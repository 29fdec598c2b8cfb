//! What outlives a kill, a lease that is lost, and a store that refuses.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use coredinator_coord::{Amount, CoordError, CycleOutcome};
use coredinator_core::{
    Batch, ChangeStream, Epoch, Key, Lease, LeaseOperation, Listing, Record, Revision, Store, StoreCapabilities,
    StoreError, StoreStatus,
};
use coredinator_registry::store::MemoryStore;
use serde_json::json;

use crate::support::{PATIENCE, Plant, agent, steam, wants};

/// Waits until this coredinator leads under an epoch above `above`.
async fn leads(engine: &coredinator_coord::Coordinator, above: u64) -> u64 {
    let wait = async {
        loop {
            let status = engine.status();
            if status.leading && status.epoch > above {
                return status.epoch;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap()
}

#[test]
fn after_a_kill_everything_goes_on_under_a_new_epoch() {
    let plant = Plant::new(json!({"collect": 0.0001}));
    let life = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let first = life();
    first.block_on(async {
        let engine = plant.start().await;
        assert_eq!(engine.status().epoch, 1);
        engine.register(agent(json!({"agent_id": "a_1", "priority": 2}))).await.unwrap();
        engine.register(agent(json!({"agent_id": "b"}))).await.unwrap();
        engine.register(agent(json!({"agent_id": "gone"}))).await.unwrap();
        engine.deregister("gone").await.unwrap();
        engine.intend(wants("a_1", 9, &[("run", 6.0, 1.0)])).unwrap();
        engine.set_strategy("default", json!({"priority_based": {}})).await.unwrap();
        engine
            .set_resources("default", [("steam".to_owned(), Amount { capacity: 8.0, reserve: None })].into())
            .await
            .unwrap();
        assert_eq!(steam(&engine.step("default").await.unwrap())["a_1"], 6.0);
        assert_eq!(engine.step("default").await.unwrap().cycle, 2);
    });
    // Nothing is given back, nothing is said: the lease is still held.
    first.shutdown_background();

    life().block_on(async {
        let engine = plant.start().await;
        let status = engine.status();
        assert_eq!((status.leading, status.epoch, status.groups[0].cycle), (true, 2, 2));
        assert_eq!(status.groups[0].strategy, json!({"priority_based": {}}));
        assert_eq!(status.groups[0].resources[0].capacity, 8.0);
        let agents = engine.agents(None).unwrap();
        let names: Vec<&str> = agents.iter().map(|view| view.agent.agent_id.as_str()).collect();
        assert_eq!(names, ["a_1", "b"]);
        assert_eq!((agents[0].agent.priority, agents[0].holding.as_ref().unwrap().grant["steam"]), (2, 6.0));
        // What was told then is acknowledged still; what nobody can have been told is not.
        assert!(engine.cycle("default", 2).unwrap().is_none(), "records do not outlive the process");
        engine.acknowledge("a_1", 2, 1).unwrap();
        for (cycle, epoch) in [(3, 1), (2, 2), (2, 3)] {
            let refused = engine.acknowledge("a_1", cycle, epoch);
            assert!(
                matches!(refused, Err(CoordError::NoSuchDecision { last: None, .. })),
                "{cycle} {epoch} {refused:?}"
            );
        }
        // Silent so far, it keeps what it holds; the other gets what is left.
        engine.intend(wants("b", 1, &[("run", 6.0, 1.0), ("less", 2.0, 0.5)])).unwrap();
        let record = engine.step("default").await.unwrap();
        assert_eq!((record.cycle, record.epoch), (3, 2));
        assert_eq!(steam(&record), [("a_1".into(), 6.0), ("b".into(), 2.0)].into());
        engine.shutdown().await;
    });
}

#[tokio::test]
async fn a_lease_that_is_lost_during_a_cycle_keeps_it_from_the_agents() {
    let plant = Plant::new(json!({"collect": 1.0}));
    let engine = plant.start().await;
    engine.register(agent(json!({"agent_id": "a"}))).await.unwrap();
    engine.register(agent(json!({"agent_id": "b"}))).await.unwrap();
    engine.intend(wants("a", 1, &[("run", 6.0, 1.0)])).unwrap();
    // The cycle waits for b.
    let cycle = tokio::spawn({
        let engine = engine.clone();
        async move { engine.step("default").await }
    });
    while engine.status().groups[0].cycle == 0 {
        tokio::task::yield_now().await;
    }
    plant.store.lease("leader", "one", LeaseOperation::Release { epoch: Epoch(1) }).await.unwrap();
    let ttl = Duration::from_secs(3600);
    let other = plant.store.lease("leader", "two", LeaseOperation::Acquire { ttl }).await.unwrap();
    engine.intend(wants("b", 1, &[("run", 3.0, 1.0)])).unwrap();
    let record = cycle.await.unwrap().unwrap();
    assert_eq!((record.outcome, record.success), (CycleOutcome::Withheld, Some(false)));
    assert!(record.trouble.is_some());
    for name in ["a", "b"] {
        assert_eq!(engine.decision(name, None, Duration::ZERO).await.unwrap(), None);
    }
    assert!(matches!(engine.step("default").await, Err(CoordError::NotLeading(_))));
    assert!(matches!(engine.register(agent(json!({"agent_id": "c"}))).await, Err(CoordError::NotLeading(_))));
    assert!(engine.agent("c").is_err(), "a write that was refused does not happen");

    plant.lead.take(plant.store.as_ref()).await;
    let epoch = leads(&engine, other.epoch.0).await;
    let record = engine.step("default").await.unwrap();
    assert_eq!((record.outcome, record.epoch, record.cycle), (CycleOutcome::Distributed, epoch, 2));
    assert_eq!(steam(&record), [("a".into(), 6.0), ("b".into(), 3.0)].into());
    engine.shutdown().await;
}

/// A store that refuses to write when it is told to.
#[derive(Debug, Default)]
struct Moody {
    store: MemoryStore,
    refuses: AtomicBool,
}

#[async_trait]
impl Store for Moody {
    fn capabilities(&self) -> StoreCapabilities {
        self.store.capabilities()
    }
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.store.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.store.list(prefix).await
    }
    async fn write(&self, batch: Batch) -> Result<Revision, StoreError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable { message: "the disk is full".to_owned(), source: None });
        }
        self.store.write(batch).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<ChangeStream, StoreError> {
        self.store.watch(prefix, after).await
    }
    async fn lease(&self, name: &str, holder: &str, operation: LeaseOperation) -> Result<Lease, StoreError> {
        self.store.lease(name, holder, operation).await
    }
    async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.store.compact(up_to).await
    }
    async fn check(&self) -> Result<StoreStatus, StoreError> {
        self.store.check().await
    }
}

#[tokio::test]
async fn what_cannot_be_written_down_is_told_to_nobody_and_does_not_happen() {
    let mut plant = Plant::new(json!({"collect": 0.0001}));
    let store = Arc::new(Moody::default());
    plant.options.store = Arc::clone(&store) as _;
    let engine = plant.start().await;
    engine.register(agent(json!({"agent_id": "a"}))).await.unwrap();
    engine.intend(wants("a", 1, &[("run", 6.0, 1.0)])).unwrap();
    store.refuses.store(true, Ordering::Relaxed);
    let record = engine.step("default").await.unwrap();
    assert_eq!(record.outcome, CycleOutcome::Withheld);
    assert!(record.trouble.as_deref().is_some_and(|why| why.contains("the disk is full")), "{record:?}");
    assert_eq!(engine.decision("a", None, Duration::ZERO).await.unwrap(), None);
    assert!(engine.agent("a").unwrap().holding.is_none());
    assert!(matches!(engine.deregister("a").await, Err(CoordError::Store(_))));
    assert!(matches!(engine.register(agent(json!({"agent_id": "b"}))).await, Err(CoordError::Store(_))));
    let half = [("steam".to_owned(), Amount { capacity: 5.0, reserve: None })];
    assert!(matches!(engine.set_resources("default", half.into()).await, Err(CoordError::Store(_))));
    assert!(matches!(engine.set_strategy("default", json!({"priority_based": {}})).await, Err(CoordError::Store(_))));
    assert!(engine.agent("a").is_ok() && engine.agent("b").is_err());
    let status = engine.status();
    assert_eq!((status.groups[0].resources[0].capacity, status.groups[0].stats.withheld), (10.0, 1));
    assert_eq!(status.groups[0].strategy, json!("priority_based"));

    store.refuses.store(false, Ordering::Relaxed);
    let record = engine.step("default").await.unwrap();
    assert_eq!((record.cycle, record.outcome), (2, CycleOutcome::Distributed));
    assert_eq!(steam(&record)["a"], 6.0);
    engine.shutdown().await;
}

#[tokio::test]
async fn capacity_that_falls_counts_from_the_next_cycle_on() {
    let plant = Plant::new(json!({"collect": 1.0}));
    let engine = plant.start().await;
    for name in ["a", "late"] {
        engine.register(agent(json!({"agent_id": name}))).await.unwrap();
    }
    engine.intend(wants("a", 1, &[("run", 8.0, 1.0), ("less", 4.0, 0.5)])).unwrap();
    let cycle = tokio::spawn({
        let engine = engine.clone();
        async move { engine.step("default").await }
    });
    while engine.status().groups[0].cycle == 0 {
        tokio::task::yield_now().await;
    }
    // While agents are asked, it is known in time.
    let amounts = |capacity| [("steam".to_owned(), Amount { capacity, reserve: Some(0.0) })].into();
    engine.set_resources("default", amounts(5.0)).await.unwrap();
    engine.intend(wants("late", 1, &[("run", 1.0, 1.0)])).unwrap();
    let record = cycle.await.unwrap().unwrap();
    assert_eq!(record.problem.resources[0].capacity, 5.0);
    assert_eq!(steam(&record), [("a".into(), 4.0), ("late".into(), 1.0)].into());
    for wrong in [f64::NAN, -1.0, f64::INFINITY] {
        assert!(matches!(engine.set_resources("default", amounts(wrong)).await, Err(CoordError::Invalid(_))));
    }
    let unknown = [("dreams".to_owned(), Amount { capacity: 1.0, reserve: None })].into();
    assert!(matches!(engine.set_resources("default", unknown).await, Err(CoordError::Invalid(_))));
    // Below what is held: nobody gets more, and nothing breaks.
    engine.set_resources("default", amounts(2.0)).await.unwrap();
    let record = engine.step("default").await.unwrap();
    assert!(steam(&record).values().sum::<f64>() <= 2.0);
    engine.shutdown().await;
}
