//! The registry over a store in memory: what declarations, commands and a failing store come to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use coredinator_core::{
    Batch, ChangeStream, Clock, ConfigRollout, InstanceId, InstanceRecord, InstanceState, Key, Lease, LeaseOperation,
    Listing, Origin, Outcome, Reason, Record, Revision, ServiceName, ServiceSpec, ServiceStatus, SpecDefaults, Store,
    StoreCapabilities, StoreError, StoreStatus, SystemClock,
};
use coredinator_registry::{
    Command, ConfigDocument, ConfigEdit, ConfigOutcome, ConfigSource, Declared, EventItem, NewEvent, PlanAction,
    Recording, Registry, RegistryError, RegistryOptions, ServiceView, Written, health::ProbeRegistry,
    store::MemoryStore,
};
use futures_util::StreamExt;
use serde_json::{Value, json};

/// A store in memory that fails on demand.
#[derive(Debug, Clone, Default)]
struct Brittle {
    inner: MemoryStore,
    away: Arc<AtomicBool>,
    /// Writes are taken, but nothing can be read.
    unreadable: Arc<AtomicBool>,
    /// How many more watches end at their next change, as if it had been compacted.
    broken_watches: Arc<AtomicU32>,
}

impl Brittle {
    fn reach(&self) -> Result<(), StoreError> {
        let away = self.away.load(Ordering::SeqCst);
        if away { Err(StoreError::Unavailable { message: "away".into(), source: None }) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Brittle {
    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }
    async fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        self.reach()?;
        self.inner.get(key).await
    }
    async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        self.reach()?;
        if self.unreadable.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable { message: "unreadable".into(), source: None });
        }
        self.inner.list(prefix).await
    }
    async fn write(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.reach()?;
        self.inner.write(batch).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<ChangeStream, StoreError> {
        self.reach()?;
        let broken = Arc::clone(&self.broken_watches);
        let changes = self.inner.watch(prefix, after).await?;
        Ok(changes
            .map(move |change| {
                let one_less = |left: u32| left.checked_sub(1);
                match broken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less) {
                    Ok(_) => Err(StoreError::Compacted(after)),
                    Err(_) => change,
                }
            })
            .boxed())
    }
    async fn lease(&self, name: &str, holder: &str, operation: LeaseOperation) -> Result<Lease, StoreError> {
        self.inner.lease(name, holder, operation).await
    }
    async fn compact(&self, up_to: Revision) -> Result<(), StoreError> {
        self.inner.compact(up_to).await
    }
    async fn check(&self) -> Result<StoreStatus, StoreError> {
        self.reach()?;
        self.inner.check().await
    }
}

async fn open(store: &Brittle) -> Registry {
    Registry::open(RegistryOptions {
        store: Arc::new(store.clone()),
        clock: Arc::new(SystemClock),
        probes: ProbeRegistry::builtin(),
        check_concurrency: 8,
        seed: 1,
    })
    .await
    .unwrap()
}

fn spec(document: Value) -> ServiceSpec {
    ServiceSpec::parse("", None, document, &SpecDefaults::default()).unwrap()
}

fn managed(name: &str) -> Value {
    json!({"name": name, "runtime": "process", "command": "x"})
}

fn with(mut document: Value, key: &str, value: Value) -> Value {
    document[key] = value;
    document
}

async fn declare(registry: &Registry, document: Value) -> Result<(Declared, Arc<ServiceView>), RegistryError> {
    registry.declare(spec(document), Origin::Api, false).await
}

/// Applies a file that declares these.
async fn apply(
    registry: &Registry,
    documents: impl IntoIterator<Item = Value>,
) -> Result<ConfigOutcome, RegistryError> {
    let wanted = ConfigDocument::of(documents.into_iter().map(spec));
    registry.change_config(&wanted, ConfigEdit::new(ConfigSource::File, "file", "")).await
}

fn planned(outcome: &ConfigOutcome, action: PlanAction) -> Vec<String> {
    outcome.plan.of(action).map(ToString::to_string).collect()
}

fn code(result: &Result<impl Sized, RegistryError>) -> &'static str {
    match result {
        Ok(_) => "Ok",
        Err(RegistryError::NotFound { .. }) => "NotFound",
        Err(RegistryError::Conflict { code, .. }) => code,
        Err(RegistryError::Invalid(_)) => "Invalid",
        Err(RegistryError::Store(_)) => "Store",
        Err(_) => "?",
    }
}

fn running(service: &str, replica: u32) -> InstanceRecord {
    let service = ServiceName::new(service).unwrap();
    InstanceRecord {
        id: Some(InstanceId::coin(&service, replica, 1)),
        service,
        replica,
        state: InstanceState::Running,
        reason: Reason::new("Running", "running"),
        since: SystemClock.now(),
        generation: 1,
        runtime: coredinator_core::RuntimeName::new("process").unwrap(),
        node: None,
        handle: None,
        pid: None,
        host: "localhost".into(),
        port: 1,
        started_at: Some(SystemClock.now()),
        restarts: 0,
        attempts: 0,
        restart_times: vec![],
        last_exit: None,
        next_restart_at: None,
        followed: 0,
        config_revision: 0,
        config_at: None,
    }
}

async fn store_instance(registry: &Registry, record: InstanceRecord) {
    let mut index = registry.index();
    let (service, replica) = (record.service.clone(), record.replica);
    let recording = Recording { instances: vec![record], ..Recording::default() };
    registry.record(&service, recording, None).await.unwrap();
    let seen = || registry.service(service.as_str()).unwrap().instances.iter().any(|i| i.record.replica == replica);
    while !seen() {
        index.changed().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn declaring_is_idempotent_and_replacing_is_asked_for() {
    let registry = open(&Brittle::default()).await;
    assert_eq!(declare(&registry, managed("a")).await.unwrap().0, Declared::Created);
    assert_eq!(declare(&registry, managed("a")).await.unwrap().0, Declared::Unchanged);
    let labelled = with(managed("a"), "labels", json!({"k": "v"}));
    assert_eq!(code(&declare(&registry, labelled.clone()).await), "AlreadyExists");
    let (declared, view) = registry.declare(spec(labelled.clone()), Origin::Api, true).await.unwrap();
    assert_eq!((declared, view.record.generation, view.record.runs_since), (Declared::Replaced, 2, 1));
    let other = with(labelled, "command", json!("y"));
    let (_, view) = registry.declare(spec(other), Origin::Api, true).await.unwrap();
    assert_eq!((view.record.generation, view.record.runs_since), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_service_of_the_file_that_registers_itself_stays_the_files() {
    let registry = open(&Brittle::default()).await;
    apply(&registry, [managed("a")]).await.unwrap();
    assert_eq!(declare(&registry, managed("a")).await.unwrap().0, Declared::Unchanged);
    let other = with(managed("a"), "labels", json!({"k": "v"}));
    let (_, view) = registry.declare(spec(other), Origin::Api, true).await.unwrap();
    assert_eq!(view.record.origin, Origin::File);
    assert_eq!(registry.config().revision, 2, "what the configuration declares changes by a revision");
    assert_eq!(planned(&apply(&registry, []).await.unwrap(), PlanAction::Delete), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn declared_again_while_it_goes_it_is_a_new_service() {
    let registry = open(&Brittle::default()).await;
    declare(&registry, managed("a")).await.unwrap();
    registry.command("a", Command::Scale(3)).await.unwrap();
    registry.command("a", Command::Stop).await.unwrap();
    registry.deregister("a").await.unwrap();
    assert_eq!(code(&registry.command("a", Command::Start).await), "Deleting");
    let (declared, view) = declare(&registry, managed("a")).await.unwrap();
    assert_eq!((declared, view.wanted_replicas()), (Declared::Created, 1));
    // It is not the one that was deregistered: to forget that one touches nothing.
    registry.forget_service(view.name(), None).await.unwrap();
    assert!(registry.service("a").is_ok());
}

#[tokio::test(start_paused = true)]
async fn deregistering_ends_an_external_service_at_once_and_a_managed_one_when_it_has_stopped() {
    let registry = open(&Brittle::default()).await;
    declare(&registry, json!({"name": "ext", "port": 1})).await.unwrap();
    declare(&registry, managed("a")).await.unwrap();
    for name in ["ext", "a", "a"] {
        registry.deregister(name).await.unwrap();
    }
    assert_eq!(code(&registry.service("ext")), "NotFound");
    let view = registry.service("a").unwrap();
    assert!(view.record.deleting && view.wanted_replicas() == 0);
    registry.forget_service(view.name(), None).await.unwrap();
    assert_eq!(code(&registry.deregister("a").await), "NotFound");
}

#[tokio::test(start_paused = true)]
async fn loading_a_file_touches_only_what_changed() {
    let registry = open(&Brittle::default()).await;
    declare(&registry, managed("api")).await.unwrap();
    apply(&registry, ["a", "b", "c"].map(managed)).await.unwrap();
    let before = registry.service("a").unwrap();
    let changed = with(managed("b"), "command", json!("y"));
    let outcome = apply(&registry, [managed("a"), changed, managed("d")]).await.unwrap();
    assert_eq!(planned(&outcome, PlanAction::Create), ["d"]);
    assert_eq!(planned(&outcome, PlanAction::Update), ["b"]);
    assert_eq!(planned(&outcome, PlanAction::Delete), ["c"]);
    assert_eq!(planned(&outcome, PlanAction::Unchanged), ["a"]);
    let after = registry.service("a").unwrap();
    assert_eq!((after.revision, after.index), (before.revision, before.index));
    assert!(!registry.service("api").unwrap().record.deleting, "what the API registered is not the file's to remove");
}

#[tokio::test(start_paused = true)]
async fn the_table_of_commands() {
    let registry = open(&Brittle::default()).await;
    declare(&registry, json!({"name": "ext", "port": 1})).await.unwrap();
    declare(&registry, managed("a")).await.unwrap();
    declare(&registry, with(managed("fixed"), "port", json!(9))).await.unwrap();
    for (name, command, expected) in [
        ("nobody", Command::Start, "NotFound"),
        ("ext", Command::Stop, "External"),
        ("fixed", Command::Scale(2), "Invalid"),
        ("fixed", Command::Scale(0), "Ok"),
        ("a", Command::Scale(ServiceSpec::MAX_REPLICAS + 1), "Invalid"),
        ("a", Command::Scale(3), "Ok"),
        ("a", Command::Stop, "Ok"),
    ] {
        assert_eq!(code(&registry.command(name, command).await), expected, "{name} {command:?}");
    }
    let view = registry.service("a").unwrap();
    assert_eq!((view.wanted_replicas(), view.declared_replicas(), view.status), (0, 3, ServiceStatus::Stopped));
    let view = registry.command("a", Command::Restart).await.unwrap();
    assert_eq!((view.wanted_replicas(), view.intent.command, view.intent.restart), (3, 1, 1));
    let view = registry.command("a", Command::Start).await.unwrap();
    assert_eq!((view.intent.command, view.intent.restart), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_scaling_ends_where_the_spec_no_longer_allows_it() {
    let registry = open(&Brittle::default()).await;
    declare(&registry, managed("a")).await.unwrap();
    registry.command("a", Command::Scale(3)).await.unwrap();
    let labelled = with(managed("a"), "labels", json!({"k": "v"}));
    let (_, view) = registry.declare(spec(labelled), Origin::Api, true).await.unwrap();
    assert_eq!(view.wanted_replicas(), 3, "a label is nothing to a scaling");
    let fixed = with(managed("a"), "port", json!(9));
    let (_, view) = registry.declare(spec(fixed), Origin::Api, true).await.unwrap();
    assert_eq!(view.wanted_replicas(), 1, "three replicas cannot share one port");
}

#[tokio::test(start_paused = true)]
async fn a_cycle_is_refused_with_its_path_and_changes_nothing() {
    let registry = open(&Brittle::default()).await;
    declare(&registry, with(managed("a"), "depends_on", json!({"b": {}}))).await.unwrap();
    let closing = with(managed("b"), "depends_on", json!({"a": {}}));
    let Err(RegistryError::Invalid(errors)) = declare(&registry, closing.clone()).await else { panic!("taken") };
    assert_eq!(errors[0].pointer, "/depends_on");
    assert!(errors[0].detail.contains('a') && errors[0].detail.contains('b'), "{errors:?}");
    let Err(RegistryError::Invalid(errors)) = apply(&registry, [closing]).await else { panic!("taken") };
    assert_eq!(errors[0].pointer, "/services/b/depends_on");
    assert_eq!(code(&registry.service("b")), "NotFound");
}

#[tokio::test(start_paused = true)]
async fn stops_by_hand_outlive_coredinator_unless_the_policy_is_always() {
    let store = Brittle::default();
    let registry = open(&store).await;
    for policy in ["always", "unless-stopped"] {
        declare(&registry, with(managed(policy), "restart_policy", json!(policy))).await.unwrap();
        registry.command(policy, Command::Stop).await.unwrap();
    }
    drop(registry);
    let registry = open(&store).await;
    registry.release_stops(registry.followed()).await.unwrap();
    assert_eq!(registry.service("always").unwrap().wanted_replicas(), 1);
    assert_eq!(registry.service("unless-stopped").unwrap().wanted_replicas(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_a_replica_only_who_knows_its_record_writes() {
    let registry = open(&Brittle::default()).await;
    declare(&registry, managed("a")).await.unwrap();
    let name = ServiceName::new("a").unwrap();
    let first = InstanceRecord { state: InstanceState::Starting, ..running("a", 0) };
    store_instance(&registry, first).await;
    let known = registry.service("a").unwrap().written.as_ref().clone();
    assert_eq!(known.instances.len(), 1);
    let recording = |gone: &[u32], written: &Written| Recording {
        instances: if gone.is_empty() { vec![running("a", 0)] } else { vec![] },
        gone: gone.to_vec(),
        written: Some(written.clone()),
        ..Recording::default()
    };
    let revision = registry.record(&name, recording(&[], &known), None).await.unwrap();
    for gone in [&[][..], &[0]] {
        for old in [&known, &Written::default()] {
            let refused = registry.record(&name, recording(gone, old), None).await.unwrap_err();
            assert!(matches!(refused, StoreError::Conflict { .. }), "{refused:?}");
        }
    }
    registry.seen(revision).await;
    let view = registry.service("a").unwrap();
    assert_eq!(
        (view.written.instances.get(&0), view.instances[0].record.state),
        (Some(&revision), InstanceState::Running)
    );
    registry.record(&name, recording(&[0], &view.written), None).await.unwrap();
    assert_eq!(registry.recorded(&name, 0).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn how_far_a_document_has_come_is_written_only_by_who_knows_it() {
    let registry = open(&Brittle::default()).await;
    declare(&registry, managed("a")).await.unwrap();
    let name = ServiceName::new("a").unwrap();
    let known = || registry.service("a").unwrap().written.as_ref().clone();
    let come_to = |stable, written: &Written| Recording {
        rollout: Some(ConfigRollout { stable, ..ConfigRollout::default() }),
        written: Some(written.clone()),
        ..Recording::default()
    };
    let nothing = known();
    let first = registry.record(&name, come_to(1, &nothing), None).await.unwrap();
    registry.seen(first).await;
    let second = registry.record(&name, come_to(2, &known()), None).await.unwrap();
    for old in [&nothing, &Written { rollout: Some(first), ..Written::default() }] {
        let refused = registry.record(&name, come_to(3, old), None).await.unwrap_err();
        assert!(matches!(refused, StoreError::Conflict { .. }), "{refused:?}");
    }
    registry.seen(second).await;
    assert_eq!((known().rollout, registry.service("a").unwrap().rollout.stable), (Some(second), 2));
}

#[tokio::test(start_paused = true)]
async fn of_how_far_the_document_of_a_service_that_is_gone_had_come_nothing_stays() {
    let store = Brittle::default();
    let registry = open(&store).await;
    declare(&registry, managed("a")).await.unwrap();
    let name = ServiceName::new("a").unwrap();
    let rollout = Some(ConfigRollout { stable: 1, ..ConfigRollout::default() });
    registry.record(&name, Recording { rollout, ..Recording::default() }, None).await.unwrap();
    registry.declare(spec(json!({"name": "a", "host": "127.0.0.1", "port": 1})), Origin::Api, true).await.unwrap();
    registry.deregister("a").await.unwrap();
    declare(&registry, managed("a")).await.unwrap();
    let view = registry.service("a").unwrap();
    assert_eq!((view.written.rollout, view.rollout.stable), (None, 0));
    assert!(store.list("rollouts/").await.unwrap().records.is_empty());
}

#[tokio::test(start_paused = true)]
async fn events_come_in_order_and_keep_their_numbers_over_a_restart() {
    let store = Brittle::default();
    let registry = open(&store).await;
    let mut cursor = registry.events(None);
    declare(&registry, managed("a")).await.unwrap();
    let name = ServiceName::new("a").unwrap();
    let two = ["One", "Two"].map(|code| NewEvent::normal(&name, code, "happened"));
    let recording = Recording { events: two.into(), ..Recording::default() };
    registry.record(&name, recording, None).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let EventItem::Event(event) = cursor.next().await else { panic!("reset") };
        seen.push((event.id, event.reason.code.clone()));
    }
    assert_eq!(seen.iter().map(|(_, code)| code.as_str()).collect::<Vec<_>>(), ["Registered", "One", "Two"]);
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "{seen:?}");
    drop(registry);
    let registry = open(&store).await;
    let again: Vec<_> = registry.recent_events(10, None).iter().map(|e| (e.id, e.reason.code.clone())).collect();
    assert_eq!(again, seen);
    let EventItem::Event(next) = registry.events(Some(seen[0].0)).next().await else { panic!("reset") };
    assert_eq!(next.id, seen[1].0, "a reader resumes where it was");
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_is_of_the_one_that_runs() {
    let registry = open(&Brittle::default()).await;
    declare(&registry, with(managed("a"), "health_check", json!({"ttl": 10}))).await.unwrap();
    let beat = || registry.heartbeat("a", None, Outcome::Pass, "well");
    assert_eq!(code(&beat()), "NoHeartbeat");
    store_instance(&registry, running("a", 0)).await;
    // What has ended does not make it doubtful whose heartbeat this is.
    store_instance(&registry, InstanceRecord { state: InstanceState::Failed, ..running("a", 1) }).await;
    beat().unwrap();
    let view = registry.check_now("a").await.unwrap();
    assert!(view.instances[0].ready && !view.instances[1].ready);
    store_instance(&registry, running("a", 2)).await;
    assert_eq!(code(&beat()), "NoHeartbeat", "of two that run it has to be said which");
}

#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_take_is_told_and_works_later() {
    let store = Brittle::default();
    let registry = open(&store).await;
    declare(&registry, managed("a")).await.unwrap();
    store.away.store(true, Ordering::SeqCst);
    let refused = declare(&registry, managed("b")).await;
    assert!(matches!(&refused, Err(error) if error.is_retryable()), "{refused:?}");
    assert!(registry.command("a", Command::Stop).await.is_err());
    assert_eq!(registry.service("a").unwrap().wanted_replicas(), 1, "readers are served, and see no half of it");
    store.away.store(false, Ordering::SeqCst);
    assert_eq!(declare(&registry, managed("b")).await.unwrap().0, Declared::Created);
}

#[tokio::test(start_paused = true)]
async fn a_broken_watch_loses_nothing() {
    let store = Brittle::default();
    let registry = open(&store).await;
    declare(&registry, managed("a")).await.unwrap();
    store.broken_watches.store(3, Ordering::SeqCst);
    for name in ["b", "c", "d"] {
        assert_eq!(declare(&registry, managed(name)).await.unwrap().0, Declared::Created);
    }
    registry.deregister("a").await.unwrap();
    assert_eq!(registry.services().len(), 4);
    let mut cursor = registry.events(Some(0));
    for expected in ["a", "b", "c", "d", "a"] {
        let EventItem::Event(event) = cursor.next().await else { panic!("reset") };
        assert_eq!(event.service.as_str(), expected, "each event once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_taken_and_never_told_of_is_an_error() {
    let store = Brittle::default();
    let registry = open(&store).await;
    store.broken_watches.store(1, Ordering::SeqCst);
    store.unreadable.store(true, Ordering::SeqCst);
    let declared = declare(&registry, managed("a")).await;
    assert!(matches!(&declared, Err(error) if error.is_retryable()), "{declared:?}");
    store.unreadable.store(false, Ordering::SeqCst);
    let again = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            match declare(&registry, managed("a")).await {
                Ok((declared, _)) => return declared,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    assert_eq!(again.await.unwrap(), Declared::Unchanged, "what was taken is there");
}

#[tokio::test(start_paused = true)]
async fn two_on_one_store_do_not_undo_each_others_commands() {
    let store = Brittle::default();
    let (one, two) = (open(&store).await, open(&store).await);
    declare(&one, managed("a")).await.unwrap();
    let mut taken = 0;
    while taken < 20 {
        // Both decide on what they see before either writes.
        let both = tokio::join!(one.command("a", Command::Start), two.command("a", Command::Start));
        for result in [both.0, both.1] {
            match result {
                Ok(_) => taken += 1,
                Err(error) => assert!(error.is_retryable() || code(&Err::<(), _>(error)) == "NotFound"),
            }
        }
    }
    let view = open(&store).await.service("a").unwrap();
    assert_eq!(view.intent.command, taken, "a command that was answered was lost");
}
