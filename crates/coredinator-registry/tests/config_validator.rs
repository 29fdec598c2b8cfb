//! Documents judged before they come into force: who is asked about what, and what follows from the answers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use coredinator_core::{
    ConfigCandidate, ConfigValidator, ConfigValidatorError, ConfigVerdict, FieldError, Origin, ServiceSpec,
    SpecDefaults, Store, SystemClock,
};
use coredinator_registry::{
    Command, ConfigDocument, ConfigEdit, ConfigOutcome, ConfigSource, ConfigValidation, OnUnreachable, Registry,
    RegistryError, RegistryOptions, health::ProbeRegistry, store::MemoryStore,
};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Refuses documents that say `bad`, and does to others what they say.
struct Judge {
    asked: Mutex<Vec<(String, Value)>>,
    /// Who waits for a permit before it answers, where the document says so.
    gate: Semaphore,
}

#[async_trait]
impl ConfigValidator for Judge {
    async fn validate(&self, candidate: &ConfigCandidate) -> Result<ConfigVerdict, ConfigValidatorError> {
        let document = Value::Object(candidate.document.clone());
        let who = candidate.replica.map_or(candidate.service.to_string(), |n| format!("{}-{n}", candidate.service));
        self.asked.lock().unwrap().push((who, document.clone()));
        match document["do"].as_str() {
            Some("hang") => std::future::pending().await,
            Some("panic") => panic!("told to"),
            Some("fail") => Err(ConfigValidatorError::new("no idea\u{7}")),
            Some("wait") => {
                self.gate.acquire().await.unwrap().forget();
                Ok(ConfigVerdict::default())
            }
            _ => {
                let say = |key: &str| {
                    let pointers = document[key].as_array().cloned().unwrap_or_default();
                    let said =
                        pointers.iter().map(|at| FieldError::new(at.as_str().unwrap(), format!("a {key} value")));
                    said.collect()
                };
                Ok(ConfigVerdict { errors: say("bad"), warnings: say("odd") })
            }
        }
    }
}

struct Kit {
    registry: Registry,
    judge: Arc<Judge>,
}

impl Kit {
    async fn new(on_unreachable: OnUnreachable) -> Self {
        let judge = Arc::new(Judge { asked: Mutex::default(), gate: Semaphore::new(0) });
        let registry = Registry::open(RegistryOptions {
            store: Arc::new(MemoryStore::new()) as Arc<dyn Store>,
            clock: Arc::new(SystemClock),
            probes: ProbeRegistry::builtin(),
            check_concurrency: 16,
            seed: 1,
        })
        .await
        .unwrap();
        let validator = Arc::clone(&judge) as Arc<dyn ConfigValidator>;
        let validation = ConfigValidation { validator, timeout: Duration::from_secs(3), on_unreachable };
        Self { registry: registry.with_validation(Some(validation)), judge }
    }

    async fn update(&self, base: Value, services: &[(&str, Value)]) -> Result<ConfigOutcome, RegistryError> {
        self.edit(base, services, ConfigEdit::new(ConfigSource::Update, "tester", "")).await
    }

    async fn edit(
        &self,
        base: Value,
        services: &[(&str, Value)],
        edit: ConfigEdit,
    ) -> Result<ConfigOutcome, RegistryError> {
        let mut wanted = ConfigDocument::of(services.iter().map(|(name, more)| spec(name, more)));
        wanted.sections.insert("config".to_owned(), base);
        self.registry.change_config(&wanted, edit).await
    }

    /// About which documents it was asked since this was asked last, in the order of their names.
    fn asked(&self) -> Vec<String> {
        let mut asked: Vec<String> = self.judge.asked.lock().unwrap().drain(..).map(|(who, _)| who).collect();
        asked.sort();
        asked
    }
}

fn spec(name: &str, more: &Value) -> ServiceSpec {
    let mut document = json!({"runtime": "process", "command": "x"});
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ServiceSpec::parse("", Some(name), document, &SpecDefaults::default()).unwrap()
}

fn pointers(result: Result<impl std::fmt::Debug, RegistryError>) -> Vec<String> {
    match result {
        Err(RegistryError::Invalid(errors)) => errors.into_iter().map(|error| error.pointer).collect(),
        other => panic!("not refused as invalid: {other:?}"),
    }
}

#[tokio::test]
async fn it_is_asked_about_what_changes_and_nothing_else() {
    let kit = Kit::new(OnUnreachable::Refuse).await;
    let with = |rate: u32| json!({"config": {"rate": rate}, "config_overrides": {"1": {"seed": 1}}});
    let rest = || [("b", json!({"config": {"rate": 1}})), ("plain", json!({}))];
    let all = |rate: u32| [vec![("a", with(rate))], rest().to_vec()].concat();
    kit.update(json!({}), &all(1)).await.unwrap();
    assert_eq!(kit.asked(), ["a", "a-1", "b"]);
    kit.update(json!({}), &all(1)).await.unwrap();
    assert_eq!(kit.asked(), [] as [&str; 0]);
    kit.update(json!({}), &all(2)).await.unwrap();
    assert_eq!(kit.asked(), ["a", "a-1"]);
    // A new base reaches what registered itself, too; not what says the same key itself.
    kit.registry.declare(spec("self", &json!({"config": {}})), Origin::Api, false).await.unwrap();
    assert_eq!(kit.asked(), ["self"]);
    kit.update(json!({"rate": 9}), &all(2)).await.unwrap();
    assert_eq!(kit.asked(), ["self"]);
    // What is only tried is judged as well, a return too.
    let tried = ConfigEdit { dry_run: true, ..ConfigEdit::new(ConfigSource::Update, "tester", "") };
    kit.edit(json!({"rate": 9}), &all(3), tried).await.unwrap();
    assert_eq!(kit.asked(), ["a", "a-1"]);
    kit.registry.rollback_config(1, ConfigEdit::new(ConfigSource::Update, "tester", "")).await.unwrap();
    assert_eq!(kit.asked(), ["a", "a-1", "self"]);
}

#[tokio::test]
async fn what_it_refuses_is_refused_where_it_was_written() {
    let kit = Kit::new(OnUnreachable::Refuse).await;
    kit.registry.declare(spec("self", &json!({"config": {}})), Origin::Api, false).await.unwrap();
    let services = [
        ("a", json!({"config": {"x": 1, "bad": ["/x", "/base", ""]}})),
        ("b", json!({"config": {}, "config_overrides": {"2": {"y": 1, "bad": ["/y", "/gone/far", "y"]}}})),
    ];
    let refused = kit.update(json!({"base": 1}), &services).await;
    assert_eq!(
        pointers(refused),
        [
            "/services/a/config/x",
            "/config/base",
            "/services/a/config",
            "/services/b/config_overrides/2/y",
            "/services/b/config",
            "/services/b/config",
        ]
    );
    assert_eq!((kit.registry.config().revision, kit.registry.services().len()), (0, 1), "nothing was changed");
    let registered = spec("c", &json!({"config": {"bad": ["/bad/0"]}}));
    assert_eq!(pointers(kit.registry.declare(registered, Origin::Api, false).await), ["/config/bad/0"]);
    assert!(kit.registry.service("c").is_err());
    // By its schema and by the validator at once.
    let both =
        [("a", json!({"config": {"x": 1, "bad": ["/x"]}, "config_schema": {"properties": {"x": {"type": "string"}}}}))];
    let expected: &[&str] = if cfg!(feature = "json-schema") {
        &["/services/a/config/x", "/services/a/config/x"]
    } else {
        &["/services/a/config_schema", "/services/a/config/x"]
    };
    assert_eq!(pointers(kit.update(json!({}), &both).await), expected);
    let odd = kit.update(json!({}), &[("a", json!({"config": {"odd": ["/odd"]}}))]).await.unwrap();
    assert_eq!(odd.warnings, [FieldError::new("/services/a/config/odd", "a odd value")]);
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_panics_or_fails_has_its_outcome_in_time() {
    for (does, expected) in [("hang", "within 3s"), ("panic", "panicked"), ("fail", "no idea ")] {
        let services = [("a", json!({"config": {"do": does}})), ("b", json!({"config": {}}))];
        let kit = Kit::new(OnUnreachable::Refuse).await;
        let began = tokio::time::Instant::now();
        match kit.update(json!({}), &services).await {
            Err(error @ RegistryError::Unjudged { .. }) => {
                assert!(error.to_string().contains(expected.trim()), "{error}");
                assert!(error.is_retryable());
            }
            other => panic!("{does}: {other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        assert!(kit.registry.services().is_empty(), "nothing was changed");
        let declared = kit.registry.declare(spec("a", &json!({"config": {"do": does}})), Origin::Api, false).await;
        assert!(matches!(declared, Err(RegistryError::Unjudged { .. })), "{declared:?}");

        let kit = Kit::new(OnUnreachable::Accept).await;
        let taken = kit.update(json!({}), &services).await.unwrap();
        assert_eq!(taken.warnings.len(), 1, "{:?}", taken.warnings);
        assert!(taken.warnings[0].detail.contains(expected.trim()), "{:?}", taken.warnings);
        assert_eq!(kit.registry.services().len(), 2);
        // What is known to be wrong is refused all the same.
        let wrong = [("a", json!({"config": {"do": does}})), ("b", json!({"config": {"bad": ["/bad"]}}))];
        assert_eq!(pointers(kit.update(json!({"other": 1}), &wrong).await), ["/services/b/config/bad"]);
    }
}

/// While it is asked nothing is held up, and what changes meanwhile is judged as it then is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_go_on_while_it_thinks_and_what_they_change_is_judged_anew() {
    let kit = Arc::new(Kit::new(OnUnreachable::Refuse).await);
    kit.registry.declare(spec("self", &json!({"config": {"v": 1}})), Origin::Api, false).await.unwrap();
    kit.asked();
    let slow = Arc::clone(&kit);
    let updating =
        tokio::spawn(async move { slow.update(json!({"new": 1}), &[("a", json!({"config": {"do": "wait"}}))]).await });
    while kit.judge.asked.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    kit.registry.command("self", Command::Stop).await.unwrap();
    kit.registry.declare(spec("self", &json!({"config": {"v": 2}})), Origin::Api, true).await.unwrap();
    kit.registry.declare(spec("late", &json!({"config": {"v": 3}})), Origin::Api, false).await.unwrap();
    assert_eq!(kit.asked(), ["a", "late", "self", "self"]);
    kit.judge.gate.add_permits(1);
    let outcome = updating.await.unwrap().unwrap();
    assert_eq!(outcome.revision, 1);
    assert_eq!(kit.asked(), ["late", "self"], "on the new base, as they are by now");
    let late = kit.registry.service("late").unwrap();
    assert_eq!(late.record.config.as_ref().unwrap()["new"], 1);
}
