//! Who was overtaken begins anew.

use std::sync::atomic::Ordering;

use coredinator_core::{Batch, Event, InstanceState, Key, Precondition, Revision, Store};
use coredinator_registry::Command;
use futures_util::StreamExt;
use serde_json::Value;

use crate::site::{Breaks, PATIENCE, Site, kill, sleeper, until};

/// Has the record of the first replica of `x` written again as it is: what its actor knows of it is old then.
async fn write_again(site: &Site) -> Revision {
    let record = site.store.get(&Key::new("instances/x/000000").unwrap()).await.unwrap().unwrap();
    site.store.write(Batch::new().put(record.key, record.value, Precondition::At(record.revision))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_overtaken_writes_nothing_and_begins_anew() {
    let site = Site::new();
    let a = site.join("a").await;
    a.until_it_leads().await;
    a.declare(sleeper("x", "anywhere")).await;
    let pids = a.pids("x", 1).await;
    let record = site.store.get(&Key::new("instances/x/000000").unwrap()).await.unwrap().unwrap();
    let mut document: Value = serde_json::from_slice(&record.value).unwrap();
    document["id"] = "x-0-another".into();
    let value = serde_json::to_vec(&document).unwrap();
    let at = site.store.write(Batch::new().put(record.key, value, Precondition::At(record.revision))).await.unwrap();
    let mut changes = site.store.watch("instances/x/", at).await.unwrap();

    // How that one ended says nothing of the other.
    kill(pids[0]);
    let change = tokio::time::timeout(PATIENCE, changes.next()).await.expect("it is written of").unwrap().unwrap();
    let written: Value = serde_json::from_slice(change.entries[0].1.as_ref().unwrap()).unwrap();
    assert_eq!(written["last_exit"]["signal"], Value::Null, "what another wrote is gone: {written:#}");
    a.sees("x", "running anew", |view| {
        let record = &view.instances[0].record;
        record.state == InstanceState::Running && record.id.as_ref().is_some_and(|id| id.as_str() != "x-0-another")
    })
    .await;
    until("one runs", || site.alive().len() == 1).await;
    a.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_overtaken_while_it_ends_stops_what_runs() {
    let site = Site::new();
    let a = site.join("a").await;
    a.declare(sleeper("x", "process")).await;
    a.pids("x", 1).await;
    until("it is there", || site.alive().len() == 1).await;
    write_again(&site).await;
    // The first that is written of it is that it is being stopped.
    a.end().await;
    assert!(site.alive().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ends_before_it_has_begun_anew_stops_what_runs() {
    let site = Site::new();
    let a = site.join("a").await;
    a.declare(sleeper("x", "process")).await;
    let pids = a.pids("x", 1).await;
    until("it is there", || site.alive() == pids).await;
    write_again(&site).await;
    a.registry.command("x", Command::Restart).await.unwrap();
    until("it was overtaken", || a.line.refused.load(Ordering::Relaxed) > 0).await;
    assert_eq!(site.alive(), pids);
    a.end().await;
    assert!(site.alive().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_overtaken_by_himself() {
    let site = Site::new();
    let a = site.join("a").await;
    a.declare(sleeper("x", "process")).await;
    for (turn, breaks) in (1..).zip([Breaks::After, Breaks::Before]) {
        let pids = a.pids("x", 1).await;
        until("it is there", || site.alive() == pids).await;
        *a.line.breaks.lock().unwrap() = Some(breaks);
        kill(pids[0]);
        let view = a
            .sees("x", "running again", |view| {
                let record = &view.instances[0].record;
                record.state == InstanceState::Running && record.pid != Some(pids[0])
            })
            .await;
        assert!(a.line.breaks.lock().unwrap().is_none(), "it broke off");
        let record = &view.instances[0].record;
        assert_eq!((record.restarts, record.last_exit.as_ref().unwrap().signal), (turn, Some(9)), "{record:#?}");
        let told = site.store.list("events/").await.unwrap().records;
        let codes = told.iter().map(|record| serde_json::from_slice::<Event>(&record.value).unwrap().reason.code);
        let codes: Vec<String> = codes.collect();
        assert_eq!(codes.iter().filter(|code| *code == "BackOff").count() as u64, turn, "{codes:?}");
    }
    assert_eq!(a.line.refused.load(Ordering::Relaxed), 0, "it took its own write for another's");
    a.end().await;
}
