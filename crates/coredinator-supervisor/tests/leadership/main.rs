//! Replicas on one store, with real processes: who looks after what, and what happens to it when one of them goes.

#[path = "../kit/away.rs"]
mod away;
mod behind;
mod overtaken;
mod site;

use std::{collections::BTreeSet, sync::atomic::Ordering};

use coredinator_core::{InstanceState, LeaseOperation, NodeName, Store};
use coredinator_registry::{
    Command, ServiceView,
    leadership::{JoinError, Leadership, Post, Role},
};
use serde_json::json;
use site::{Replica, Site, kill, options, sleeper, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_node_looks_after_its_own_and_whoever_leads_after_the_rest() {
    let site = Site::new();
    let a = site.join("a").await;
    a.until_it_leads().await;
    let b = site.join("b").await;
    b.declare(sleeper("of-b", "process")).await;
    b.declare(sleeper("of-all", "anywhere")).await;
    let mut named = sleeper("named", "process");
    named["node"] = "a".into();
    b.declare(named).await;
    let (of_b, of_all, named) = (a.pids("of-b", 1).await, a.pids("of-all", 1).await, a.pids("named", 1).await);
    let node = |replica: &Replica, name: &str| {
        let view = replica.registry.service(name).unwrap();
        (
            view.record.node.as_ref().map(ToString::to_string),
            view.instances[0].record.node.as_ref().map(ToString::to_string),
        )
    };
    assert_eq!(node(&a, "of-b"), (Some("b".into()), Some("b".into())));
    assert_eq!(node(&a, "of-all"), (Some("b".into()), None));
    assert_eq!(node(&a, "named"), (Some("a".into()), Some("a".into())));
    let (standing_a, standing_b) = (a.registry.place().standing(), b.registry.place().standing());
    assert_eq!((standing_a.role, standing_b.role), (Role::Leader, Role::Follower));
    assert_eq!(standing_b.leader, Some(NodeName::new("a").unwrap()));

    // The leader goes: what it looked after goes on, and is restarted by the next; what is of its node waits for it.
    a.leave().await;
    b.until_it_leads().await;
    b.sees("of-all", "adopted", |view| view.instances[0].record.reason.message.contains("found running")).await;
    assert_eq!(b.pids("of-all", 1).await, of_all);
    kill(of_all[0]);
    b.sees("of-all", "restarted", |view| {
        let record = &view.instances[0].record;
        record.state == InstanceState::Running && record.pid != Some(of_all[0])
    })
    .await;
    kill(named[0]);
    b.registry.command("named", Command::Stop).await.unwrap();
    assert_eq!(b.pids("named", 1).await, named, "nobody looks after a service of a node that is away");

    // It comes back, finds out what has happened, and follows what was asked.
    let a = site.join("a").await;
    a.sees("named", "stopped", |view| view.instances[0].record.state == InstanceState::Stopped).await;
    assert!(!a.leads());
    assert_eq!(a.pids("of-b", 1).await, of_b);
    assert_eq!(site.alive().len(), 2);
    a.leave().await;
    b.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_cut_off_stops_acting_before_another_acts_and_touches_nothing() {
    let site = Site::new();
    let a = site.join("a").await;
    a.until_it_leads().await;
    let b = site.join("b").await;
    a.declare(sleeper("one", "anywhere")).await;
    a.declare(json!({
        "name": "tired", "runtime": "anywhere", "command": ["false"], "restart_policy": "on-failure",
        "backoff": {"initial": 30, "max": 30, "jitter": 0}, "restart_budget": {"attempts": 9, "window": 3600},
    }))
    .await;
    a.declare(sleeper("idle", "anywhere")).await;
    a.pids("idle", 1).await;
    a.registry.command("idle", Command::Stop).await.unwrap();
    b.sees("idle", "stopped", |view| view.instances[0].record.state == InstanceState::Stopped).await;
    let waiting = |view: &ServiceView| view.instances.first().is_some_and(|i| i.record.state == InstanceState::Backoff);
    let tired = b.sees("tired", "waiting", waiting).await.instances[0].record.clone();
    assert!(tired.attempts > 0 && !tired.restart_times.is_empty());
    let pids = b.pids("one", 1).await;

    a.line.cut.store(true, Ordering::Relaxed);
    let epoch = a.registry.place().standing().epoch;
    until("another leads", || {
        // Each knows of its own time alone, and yet they are never two.
        let (first, second) = (a.leads(), b.leads());
        assert!(!(first && second && a.leads()), "two lead");
        second
    })
    .await;
    assert!(b.registry.place().standing().epoch > epoch);
    b.sees("one", "adopted", |view| view.instances[0].record.reason.message.contains("found running")).await;
    // What was counted, waited for and asked holds on.
    let same = b.registry.service("tired").unwrap().instances[0].record.clone();
    assert_eq!(
        (same.attempts, &same.restart_times, same.next_restart_at),
        (tired.attempts, &tired.restart_times, tired.next_restart_at)
    );
    b.registry.command("one", Command::Scale(2)).await.unwrap();
    let scaled = b.pids("one", 2).await;
    assert_eq!(scaled[0], pids[0]);

    // It comes back: it follows, sees what has happened, and leaves it alone.
    a.line.cut.store(false, Ordering::Relaxed);
    let seen = a.pids("one", 2).await;
    assert_eq!(seen, scaled);
    until("it acts for its node again", || a.registry.place().tenure(Post::Node).grant().is_some()).await;
    assert!(!a.leads() && b.leads());
    assert_eq!(site.alive(), BTreeSet::from_iter(scaled.iter().copied()).into_iter().collect::<Vec<_>>());
    let idle = a.registry.service("idle").unwrap();
    assert!(idle.intent.stopped && idle.instances[0].record.state == InstanceState::Stopped);
    a.leave().await;
    b.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_moves_is_stopped_before_it_is_started_elsewhere() {
    let site = Site::new();
    let a = site.join("a").await;
    a.until_it_leads().await;
    let b = site.join("b").await;
    b.declare(sleeper("x", "process")).await;
    let first = a.pids("x", 1).await;
    // From node to node, to wherever, and back.
    for (runtime, node) in [("process", Some("a")), ("anywhere", None), ("process", Some("b"))] {
        let mut document = sleeper("x", runtime);
        document["node"] = node.into();
        let before = a.registry.service("x").unwrap().instances[0].record.id.clone();
        a.declare(document).await;
        a.sees("x", "moved", |view| {
            assert!(site.alive().len() <= 1, "it runs twice: {view:#?}");
            view.instances.iter().any(|i| {
                i.record.state == InstanceState::Running
                    && i.record.id != before
                    && i.record.node.as_ref().map(NodeName::as_str) == node
            })
        })
        .await;
        // It is told to run as soon as its program is being loaded, a moment before its mark is there.
        until("it is there", || site.alive().len() == 1).await;
    }
    assert_ne!(site.alive(), first);
    b.registry.deregister("x").await.unwrap();
    until("nothing is left", || a.registry.service("x").is_err() && site.alive().is_empty()).await;
    a.leave().await;
    b.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_of_one_name_refuse_each_other_and_a_restart_is_no_other() {
    let site = Site::new();
    let line = site.line();
    let first = Leadership::join(options(&line, "a", "one", true)).await.unwrap();
    let refused = Leadership::join(options(&line, "a", "two", true)).await;
    let Err(JoinError::NodeTaken { node, holder }) = refused else { panic!("{refused:?}") };
    assert_eq!((node.as_str(), holder.as_str()), ("a", "a/one"));
    // Where nobody chose the name, another is found.
    let second = Leadership::join(options(&line, "a", "two222222", false)).await.unwrap();
    assert_eq!(second.node().as_str(), "a-two222");
    second.leave().await;
    // The same after a kill: at once, and under a new epoch.
    let before = line.store.lease("node/a", "test", LeaseOperation::Inspect).await.unwrap();
    let again = Leadership::join(options(&line, "a", "one", true)).await.unwrap();
    let after = line.store.lease("node/a", "test", LeaseOperation::Inspect).await.unwrap();
    assert!(after.epoch > before.epoch);
    drop(first);
    again.leave().await;
    // What is given back is free at once.
    let third = Leadership::join(options(&line, "a", "three", true)).await.unwrap();
    third.leave().await;
}
