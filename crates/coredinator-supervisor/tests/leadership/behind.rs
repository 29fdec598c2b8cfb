//! What a replica decides that has not read yet what others have written.

use std::{sync::atomic::Ordering, time::Duration};

use coredinator_core::{Batch, InstanceState, Key, NodeName, Origin, Precondition, ServiceSpec, SpecDefaults, Store};
use coredinator_registry::{Command, ConfigEdit, ConfigSource, RegistryError};
use serde_json::{Value, json};

use crate::site::{Site, sleeper, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_nothing_is_to_be_done_is_not_told_by_one_that_is_behind() {
    let site = Site::new();
    let a = site.join("a").await;
    a.until_it_leads().await;
    let b = site.join("b").await;
    let spec = |document: Value| ServiceSpec::parse("", None, document, &SpecDefaults::default()).unwrap();
    let changed = |seconds: &str| {
        let mut document = sleeper("x", "anywhere");
        document["command"][1] = seconds.into();
        document
    };
    a.declare(changed("1000")).await;
    b.pids("x", 1).await;
    b.registry.command("x", Command::Stop).await.unwrap();
    b.registry.declare(spec(sleeper("gone", "anywhere")), Origin::Api, true).await.unwrap();
    a.sees("x", "stopped", |view| view.intent.stopped && view.instances[0].record.state == InstanceState::Stopped)
        .await;
    b.registry.deregister("gone").await.unwrap();
    until("it is gone", || a.registry.service("gone").is_err() && b.registry.service("gone").is_err()).await;

    a.line.behind.store(true, Ordering::Relaxed);
    b.registry.command("x", Command::Start).await.unwrap();
    b.declare(changed("2000")).await;
    b.declare(sleeper("gone", "anywhere")).await;
    let edit = |revision| ConfigEdit {
        if_revision: Some(revision),
        ..ConfigEdit::new(ConfigSource::Update, "tester", "for a test")
    };
    let (read, mut other) = (a.registry.config().revision, a.registry.config_document());
    let known = other.clone();
    other.sections.insert("config".to_owned(), json!({"of": "b"}));
    b.registry.change_config(&other, edit(read)).await.unwrap();
    // As `a` knows it, x is stopped and declared so, and there is no other.
    assert!(a.registry.service("x").unwrap().intent.stopped && a.registry.service("gone").is_err());
    let again = spec(changed("1000"));
    let asked = async {
        tokio::join!(
            a.registry.command("x", Command::Stop),
            a.registry.declare(again, Origin::Api, true),
            a.registry.deregister("gone"),
            a.registry.change_config(&known, edit(read)),
        )
    };
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        a.line.behind.store(false, Ordering::Relaxed);
    };
    let ((stopped, declared, deregistered, updated), ()) = tokio::join!(asked, later);
    assert!(stopped.unwrap().intent.stopped);
    assert_eq!(declared.unwrap().0, coredinator_registry::Declared::Replaced);
    deregistered.unwrap();
    assert!(matches!(updated, Err(RegistryError::Stale { .. })), "{updated:?}");
    b.sees("x", "stopped", |view| view.intent.stopped && view.record.spec.command[1] == "1000").await;
    until("it is gone", || b.registry.service("gone").is_err()).await;
    a.leave().await;
    b.leave().await;
}

/// Writes the record of a service as it was before nodes were told apart.
async fn unplace(site: &Site, name: &str) {
    let record = site.store.get(&Key::new(format!("services/{name}")).unwrap()).await.unwrap().unwrap();
    let mut document: Value = serde_json::from_slice(&record.value).unwrap();
    document["node"] = Value::Null;
    let value = serde_json::to_vec(&document).unwrap();
    site.store.write(Batch::new().put(record.key, value, Precondition::At(record.revision))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_placed_nowhere_is_taken_up_although_one_of_it_has_changed_meanwhile() {
    let site = Site::new();
    let a = site.join("a").await;
    let names = ["x", "y"];
    for name in names {
        a.declare(sleeper(name, "away")).await;
        unplace(&site, name).await;
        a.sees(name, "nowhere", |view| view.record.node.is_none()).await;
    }
    a.line.behind.store(true, Ordering::Relaxed);
    unplace(&site, "y").await;
    let later = async {
        until("it is refused", || a.line.refused.load(Ordering::Relaxed) > 0).await;
        a.line.behind.store(false, Ordering::Relaxed);
    };
    let (taken, ()) = tokio::join!(a.registry.take_up_unplaced(), later);
    taken.unwrap();
    for name in names {
        let view = a.registry.service(name).unwrap();
        assert_eq!(view.record.node.as_ref().map(NodeName::as_str), Some("a"), "{name}");
    }
    a.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_refused_by_what_is_old() {
    let site = Site::new();
    let b = site.join("b").await;
    b.until_it_leads().await;
    let a = site.join("a").await;
    let mut configured = sleeper("configured", "anywhere");
    configured["config"] = json!({"x": 1});
    b.declare(configured).await;
    b.pids("configured", 1).await;
    let mut fixed = sleeper("fixed", "away");
    fixed["port"] = 1.into();
    b.declare(fixed).await;
    b.declare(sleeper("first", "away")).await;
    let mut second = sleeper("second", "away");
    second["depends_on"] = json!(["first"]);
    b.declare(second.clone()).await;
    a.sees("second", "there", |view| !view.record.spec.depends_on.is_empty()).await;
    let known = a.pids("configured", 1).await;

    a.line.behind.store(true, Ordering::Relaxed);
    b.declare(sleeper("fixed", "away")).await;
    b.declare(sleeper("second", "away")).await;
    let mut document = b.registry.config_document();
    document.sections.insert("config".to_owned(), json!({"of": "b"}));
    let edit = ConfigEdit::new(ConfigSource::Update, "tester", "for a test");
    let newest = b.registry.change_config(&document, edit).await.unwrap().revision;
    b.registry.command("configured", Command::Restart).await.unwrap();
    let view = b
        .sees("configured", "restarted", |view| {
            let record = &view.instances[0].record;
            record.state == InstanceState::Running && record.pid != Some(known[0])
        })
        .await;
    let id = view.instances[0].record.id.clone().unwrap();
    // As `a` knows them: of a fixed port, one that depends on the other, a configuration that is not there yet, another
    // instance.
    let mut first = sleeper("first", "away");
    first["depends_on"] = json!(["second"]);
    let first = ServiceSpec::parse("", None, first, &SpecDefaults::default()).unwrap();
    let asked = async {
        tokio::join!(
            a.registry.command("fixed", Command::Scale(2)),
            a.registry.declare(first, Origin::Api, true),
            a.registry.config_at(newest),
            a.registry.acknowledge_config("configured", &id, 1),
        )
    };
    let later = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        a.line.behind.store(false, Ordering::Relaxed);
    };
    let ((scaled, declared, configuration, acknowledged), ()) = tokio::join!(asked, later);
    assert_eq!(scaled.unwrap().intent.replicas, Some(2));
    assert!(declared.unwrap().1.record.spec.depends_on.contains_key("second"));
    assert_eq!(configuration.unwrap().sections["config"], json!({"of": "b"}));
    assert_eq!(acknowledged.unwrap().instance, id);
    a.leave().await;
    b.leave().await;
}
