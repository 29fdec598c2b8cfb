//! The configuration over a store in memory: its sources, its revisions, and the way back through them.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::{Origin, ServiceName, ServiceSpec, SpecDefaults, Store, SystemClock};
use coredinator_registry::{
    ConfigDocument, ConfigEdit, ConfigOutcome, ConfigSource, PlanAction, Registry, RegistryError, RegistryOptions,
    health::ProbeRegistry, store::MemoryStore,
};
use proptest::prelude::*;
use serde_json::{Value, json};

async fn open(store: &Arc<MemoryStore>) -> Registry {
    Registry::open(RegistryOptions {
        store: Arc::clone(store) as Arc<dyn Store>,
        clock: Arc::new(SystemClock),
        probes: ProbeRegistry::builtin(),
        check_concurrency: 16,
        seed: 1,
    })
    .await
    .unwrap()
}

fn spec(name: &str, document: Value) -> ServiceSpec {
    ServiceSpec::parse("", Some(name), document, &SpecDefaults::default()).unwrap()
}

fn managed(name: &str, command: &str) -> ServiceSpec {
    spec(name, json!({"runtime": "process", "command": command}))
}

fn document(services: &[(&str, &str)]) -> ConfigDocument {
    ConfigDocument::of(services.iter().map(|(name, command)| managed(name, command)))
}

fn edit(source: ConfigSource) -> ConfigEdit {
    ConfigEdit::new(source, "tester", "why not")
}

async fn file(registry: &Registry, services: &[(&str, &str)]) -> ConfigOutcome {
    registry.change_config(&document(services), edit(ConfigSource::File)).await.unwrap()
}

async fn update(registry: &Registry, wanted: &ConfigDocument) -> ConfigOutcome {
    registry.change_config(wanted, edit(ConfigSource::Update)).await.unwrap()
}

/// The commands of all services that are not on their way out.
fn commands(registry: &Registry) -> BTreeMap<String, String> {
    let services = registry.services();
    let there = services.iter().filter(|view| !view.record.deleting);
    there.map(|view| (view.name().to_string(), view.record.spec.command.join(" "))).collect()
}

fn told(of: &[(&str, &str)]) -> BTreeMap<String, String> {
    of.iter().map(|(name, command)| ((*name).to_owned(), (*command).to_owned())).collect()
}

#[tokio::test(start_paused = true)]
async fn the_file_is_applied_when_its_content_changes_and_what_was_updated_since_stays_until_then() {
    let store = Arc::new(MemoryStore::new());
    let registry = open(&store).await;
    let first = file(&registry, &[("a", "1"), ("b", "1")]).await;
    assert_eq!((first.revision, first.skipped), (1, false));
    let mut wanted = registry.config_document();
    wanted.services.insert(ServiceName::new("a").unwrap(), managed("a", "2"));
    wanted.services.insert(ServiceName::new("c").unwrap(), managed("c", "2"));
    assert_eq!(update(&registry, &wanted).await.revision, 2);
    registry.declare(managed("self", "3"), Origin::Api, false).await.unwrap();

    // Started anew, with the same file.
    drop(registry);
    let registry = open(&store).await;
    let again = file(&registry, &[("a", "1"), ("b", "1")]).await;
    assert!(again.skipped && again.revision == 2, "{again:?}");
    assert_eq!(commands(&registry), told(&[("a", "2"), ("b", "1"), ("c", "2"), ("self", "3")]));

    // The file wins where it speaks, takes away what was its own, and touches nothing else.
    let changed = file(&registry, &[("a", "1")]).await;
    assert_eq!((changed.revision, changed.skipped), (3, false));
    assert_eq!(commands(&registry), told(&[("a", "1"), ("c", "2"), ("self", "3")]));
    let origins: Vec<Origin> =
        registry.services().iter().filter(|v| !v.record.deleting).map(|v| v.record.origin).collect();
    assert_eq!(origins, [Origin::File, Origin::Config, Origin::Api]);
    let history = registry.config_history(None, 10).await.unwrap();
    assert_eq!(
        history.iter().map(|one| one.source).collect::<Vec<_>>(),
        [ConfigSource::File, ConfigSource::Update, ConfigSource::File]
    );
}

#[tokio::test(start_paused = true)]
async fn an_update_is_the_whole_but_for_what_registered_itself() {
    let registry = open(&Arc::new(MemoryStore::new())).await;
    registry.declare(managed("self", "3"), Origin::Api, false).await.unwrap();
    file(&registry, &[("a", "1"), ("b", "1")]).await;
    let outcome = update(&registry, &document(&[("b", "1"), ("c", "1")])).await;
    let names = |action| outcome.plan.of(action).map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((names(PlanAction::Create), names(PlanAction::Delete)), (vec!["c".to_owned()], vec!["a".to_owned()]));
    assert_eq!(commands(&registry), told(&[("b", "1"), ("c", "1"), ("self", "3")]));
    // Nothing to change, nothing written.
    let same = update(&registry, &document(&[("b", "1"), ("c", "1")])).await;
    assert!(same.plan.is_empty() && same.revision == outcome.revision, "{same:?}");
}

#[tokio::test(start_paused = true)]
async fn who_decided_on_an_older_revision_is_told_the_newest() {
    let registry = open(&Arc::new(MemoryStore::new())).await;
    let conditional = |revision| ConfigEdit { if_revision: Some(revision), ..edit(ConfigSource::Update) };
    registry.change_config(&document(&[("a", "1")]), conditional(0)).await.unwrap();
    let stale = registry.change_config(&document(&[("a", "2")]), conditional(0)).await;
    assert!(matches!(stale, Err(RegistryError::Stale { current: 1 })), "{stale:?}");
    assert_eq!(commands(&registry), told(&[("a", "1")]));
    let dry = ConfigEdit { dry_run: true, ..conditional(1) };
    let dry = registry.change_config(&document(&[("a", "2")]), dry).await.unwrap();
    assert_eq!((dry.revision, dry.plan.is_empty()), (1, false));
    assert_eq!(commands(&registry), told(&[("a", "1")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_one_wins_on_two_coredinators_of_one_store_too() {
    let store = Arc::new(MemoryStore::new());
    let (one, two) = (open(&store).await, open(&store).await);
    for round in 0..20_u64 {
        let revision = one.config().revision.max(two.config().revision);
        let attempts = (0..16).map(|n| {
            let registry = if n % 2 == 0 { one.clone() } else { two.clone() };
            let wanted = document(&[("a", &format!("{round}-{n}"))]);
            tokio::spawn(async move {
                let edit = ConfigEdit { if_revision: Some(revision), ..edit(ConfigSource::Update) };
                registry.change_config(&wanted, edit).await
            })
        });
        let results: Vec<_> = futures_util::future::join_all(attempts).await.into_iter().map(Result::unwrap).collect();
        let won = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(won, 1, "round {round}: {results:?}");
        let lost = results.iter().filter(|result| matches!(result, Err(RegistryError::Stale { .. }))).count();
        assert_eq!(lost, 15, "round {round}: {results:?}");
        for registry in [&one, &two] {
            registry.config_changes().wait_for(|head| head.revision == revision + 1).await.unwrap();
        }
    }
    assert_eq!(one.config_history(None, 100).await.unwrap().len(), 20);
}

#[tokio::test(start_paused = true)]
async fn history_is_read_page_by_page_and_a_revision_tells_all() {
    let registry = open(&Arc::new(MemoryStore::new())).await;
    for n in 1..=5 {
        let mut wanted = document(&[("a", &n.to_string())]);
        wanted.sections.insert("alerts".to_owned(), json!([n / 3]));
        update(&registry, &wanted).await;
    }
    let numbers =
        |page: Vec<coredinator_registry::ConfigRevision>| page.iter().map(|one| one.revision).collect::<Vec<_>>();
    assert_eq!(numbers(registry.config_history(None, 2).await.unwrap()), [5, 4]);
    assert_eq!(numbers(registry.config_history(Some(4), 9).await.unwrap()), [3, 2, 1]);
    let third = registry.config_revision(3).await.unwrap();
    assert_eq!((third.author.as_str(), third.message.as_str()), ("tester", "why not"));
    let a = &third.diff.services["a".parse::<ServiceName>().as_ref().unwrap()];
    assert_eq!(a.before.as_ref().unwrap().spec.command, ["2"]);
    assert_eq!(a.after.as_ref().unwrap().spec.command, ["3"]);
    assert_eq!(third.diff.sections["alerts"].after, Some(json!([1])));
    for (call, missing) in [(registry.config_revision(6).await.err(), 6), (registry.config_at(9).await.err(), 9)] {
        let Some(RegistryError::NoRevision { revision, newest: 5, .. }) = call else { panic!("{call:?}") };
        assert_eq!(revision, missing);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_of_the_configuration_that_changes_by_itself_makes_a_revision() {
    let registry = open(&Arc::new(MemoryStore::new())).await;
    update(&registry, &document(&[("a", "1"), ("b", "1")])).await;
    registry.declare(managed("a", "2"), Origin::Api, true).await.unwrap();
    registry.deregister("b").await.unwrap();
    registry.declare(managed("self", "1"), Origin::Api, false).await.unwrap();
    registry.deregister("self").await.unwrap();
    let history = registry.config_history(None, 10).await.unwrap();
    let sources: Vec<_> = history.iter().map(|one| (one.source, one.message.as_str())).collect();
    let service = ConfigSource::Service;
    assert_eq!(
        sources,
        [(service, "b deregistered"), (service, "a registered anew"), (ConfigSource::Update, "why not")]
    );
    registry.rollback_config(1, edit(ConfigSource::Update)).await.unwrap();
    assert_eq!(commands(&registry), told(&[("a", "1"), ("b", "1")]));
}

#[tokio::test(start_paused = true)]
async fn a_base_reaches_all_documents_and_its_number_rises_with_each_change() {
    let registry = open(&Arc::new(MemoryStore::new())).await;
    let own = |layer: Value| spec("a", json!({"runtime": "process", "command": "x", "config": layer}));
    let mut wanted = ConfigDocument::of([own(json!({"lr": 1})), managed("b", "x")]);
    wanted.sections.insert("config".to_owned(), json!({"lr": 0, "plant": "north"}));
    update(&registry, &wanted).await;
    let a = |registry: &Registry| registry.service("a").unwrap();
    let view = a(&registry);
    assert_eq!(json!(view.record.config), json!({"lr": 1, "plant": "north"}));
    assert_eq!((view.record.config_revision, view.record.generation), (1, 1));
    assert_eq!(registry.service("b").unwrap().record.config_revision, 0);
    let registered = spec("self", json!({"runtime": "process", "command": "x", "config": {}}));
    registry.declare(registered, Origin::Api, false).await.unwrap();
    wanted.sections.insert("config".to_owned(), json!({"lr": 0, "plant": "south"}));
    update(&registry, &wanted).await;
    let view = a(&registry);
    assert_eq!(json!(view.record.config), json!({"lr": 1, "plant": "south"}));
    assert_eq!((view.record.config_revision, view.record.generation, view.record.runs_since), (2, 1, 1));
    assert_eq!(json!(registry.service("self").unwrap().record.config), json!({"lr": 0, "plant": "south"}));
}

/// What a person or a program may do to the configuration.
#[derive(Debug, Clone)]
enum Deed {
    File(BTreeMap<u8, u8>),
    Update(BTreeMap<u8, u8>),
    Register(u8, u8),
    Deregister(u8),
    Rollback(usize),
    Restart,
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let document = || prop::collection::btree_map(0..4_u8, 0..3_u8, 0..4);
    let deed = prop_oneof![
        document().prop_map(Deed::File),
        document().prop_map(Deed::Update),
        (0..4_u8, 0..3_u8).prop_map(|(name, command)| Deed::Register(name, command)),
        (0..4_u8).prop_map(Deed::Deregister),
        any::<prop::sample::Index>().prop_map(|index| Deed::Rollback(index.index(100))),
        Just(Deed::Restart),
    ];
    prop::collection::vec(deed, 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever is done, every revision that ever was the newest is made again exactly, also by a coredinator that was
    /// started later; and numbers have no gaps.
    #[test]
    fn every_revision_can_be_had_again(deeds in deeds()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = Arc::new(MemoryStore::new());
            let mut registry = open(&store).await;
            let name = |n: u8| format!("s{n}");
            let make = |services: &BTreeMap<u8, u8>| {
                ConfigDocument::of(services.iter().map(|(n, command)| managed(&name(*n), &command.to_string())))
            };
            let mut seen = vec![registry.config_document()];
            for deed in deeds {
                match &deed {
                    Deed::File(services) => {
                        registry.change_config(&make(services), edit(ConfigSource::File)).await.unwrap();
                    }
                    Deed::Update(services) => drop(update(&registry, &make(services)).await),
                    Deed::Register(n, command) => {
                        registry.declare(managed(&name(*n), &command.to_string()), Origin::Api, true).await.unwrap();
                    }
                    Deed::Deregister(n) => drop(registry.deregister(&name(*n)).await),
                    Deed::Rollback(to) => {
                        let to = to % seen.len();
                        registry.rollback_config(to as u64, edit(ConfigSource::Update)).await.unwrap();
                        assert_eq!(registry.config_document(), seen[to], "after {deed:?}");
                    }
                    Deed::Restart => {
                        registry.close();
                        registry = open(&store).await;
                    }
                }
                let revision = registry.config().revision as usize;
                assert!(revision == seen.len() || revision + 1 == seen.len(), "{deed:?} made revision {revision}");
                if revision == seen.len() {
                    seen.push(registry.config_document());
                }
                assert_eq!(registry.config_document(), seen[revision], "the newest revision tells all, after {deed:?}");
            }
            for (revision, document) in seen.iter().enumerate() {
                assert_eq!(&registry.config_at(revision as u64).await.unwrap(), document);
            }
        });
    }
}
