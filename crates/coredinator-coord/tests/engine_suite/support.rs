//! An engine, and agents that do as they are told, or not.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use coredinator_coord::{
    AgentTransport, CoordinationConfig, Coordinator, CoordinatorOptions, EveryService, LeadView, Strategies,
    UnknownHost,
    transport::{Ask, DecisionMessage, NegotiationAnswer, NegotiationRequest, TransportError},
};
use coredinator_core::{
    Epoch, LeaseOperation, Store, SystemClock,
    coordination::{Agent, AgentId, Intention},
};
use coredinator_registry::store::MemoryStore;
use futures_util::stream::{self, BoxStream};
use serde_json::{Value, json};
use tokio::sync::watch;

/// Longer than anything takes on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn id(name: &str) -> AgentId {
    AgentId::new(name).unwrap()
}

/// An intention with options `(id, demand of steam, utility)`.
pub(crate) fn wants(agent: &str, seq: u64, options: &[(&str, f64, f64)]) -> Intention {
    let options: Vec<Value> = options
        .iter()
        .map(|(id, steam, utility)| json!({"id": id, "demands": {"steam": steam}, "utility": utility, "action": {"do": id}}))
        .collect();
    serde_json::from_value(json!({"agent_id": agent, "seq": seq, "options": options})).unwrap()
}

/// An agent that falls back to nothing.
#[expect(clippy::needless_pass_by_value, reason = "a literal at every call")]
pub(crate) fn agent(document: Value) -> Agent {
    let mut fields = json!({"fallback": "release", "ttl_seconds": 1000});
    fields.as_object_mut().unwrap().extend(document.as_object().unwrap().clone());
    serde_json::from_value(fields).unwrap()
}

/// How an agent behind the fake transport behaves.
#[derive(Debug, Clone)]
pub(crate) enum Manner {
    /// It answers with this, and acknowledges.
    Answers(Intention),
    /// It never answers anything.
    Silent,
    /// It answers with what is no answer.
    Garbage,
    /// It answers with this, but is never heard of again.
    Dies(Intention),
    /// It answers with this, and offers with what is no answer.
    Babbles(Intention),
    /// Wants the first, and answers every offer with the second.
    Revises(Intention, Intention),
    /// Wants this, and answers offers with nothing that is an answer.
    Mumbles(Intention),
}

/// Agents in this process.
#[derive(Debug, Default)]
pub(crate) struct Fakes {
    pub(crate) manners: Mutex<HashMap<String, Manner>>,
    /// Who was told what, in the order of telling.
    pub(crate) told: Mutex<Vec<DecisionMessage>>,
}

impl Fakes {
    pub(crate) fn set(&self, agent: &str, manner: Manner) {
        self.manners.lock().unwrap().insert(agent.to_owned(), manner);
    }

    fn manner(&self, agent: &Agent) -> Manner {
        self.manners.lock().unwrap().get(agent.agent_id.as_str()).cloned().unwrap_or(Manner::Silent)
    }
}

#[async_trait]
impl AgentTransport for Fakes {
    async fn intention(&self, agent: &Agent, _: &Ask) -> Result<Intention, TransportError> {
        match self.manner(agent) {
            Manner::Answers(intention)
            | Manner::Dies(intention)
            | Manner::Babbles(intention)
            | Manner::Mumbles(intention)
            | Manner::Revises(intention, _) => Ok(intention),
            Manner::Silent => std::future::pending().await,
            Manner::Garbage => Err(TransportError::Garbage("NaN".to_owned())),
        }
    }

    async fn decision(&self, agent: &Agent, message: &DecisionMessage) -> Result<(), TransportError> {
        match self.manner(agent) {
            Manner::Answers(_) | Manner::Babbles(_) | Manner::Mumbles(_) | Manner::Revises(..) | Manner::Garbage => {
                self.told.lock().unwrap().push(message.clone());
                Ok(())
            }
            Manner::Silent | Manner::Dies(_) => std::future::pending().await,
        }
    }

    async fn negotiate(&self, agent: &Agent, _: &NegotiationRequest) -> Result<NegotiationAnswer, TransportError> {
        match self.manner(agent) {
            Manner::Answers(_) => Ok(NegotiationAnswer { accept: true, intention: None }),
            Manner::Mumbles(_) => Ok(NegotiationAnswer::default()),
            Manner::Revises(_, revised) => Ok(NegotiationAnswer { accept: false, intention: Some(revised) }),
            Manner::Babbles(_) | Manner::Garbage => Err(TransportError::Garbage("NaN".to_owned())),
            Manner::Silent | Manner::Dies(_) => std::future::pending().await,
        }
    }
}

/// A lease that tests take, and lose.
#[derive(Debug)]
pub(crate) struct Lead(watch::Sender<Option<Epoch>>);

impl Lead {
    pub(crate) fn nobody() -> Arc<Self> {
        Arc::new(Self(watch::Sender::new(None)))
    }

    /// Takes the lease from whoever has it.
    pub(crate) async fn take(&self, store: &dyn Store) {
        let seen = store.lease("leader", "one", LeaseOperation::Inspect).await.unwrap();
        let ttl = Duration::from_secs(3600);
        let take = LeaseOperation::Take { epoch: seen.epoch, expires_at: seen.expires_at, above: Epoch::ZERO, ttl };
        let taken = store.lease("leader", "one", take).await.unwrap();
        self.0.send_replace(Some(taken.epoch));
    }
}

impl LeadView for Lead {
    fn lease(&self) -> Option<&str> {
        Some("leader")
    }

    fn leading(&self) -> Result<Epoch, String> {
        self.0.borrow().ok_or_else(|| "nobody leads".to_owned())
    }

    fn doubt(&self) {
        self.0.send_replace(None);
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        let told = stream::unfold(self.0.subscribe(), |mut changes| async {
            changes.changed().await.ok()?;
            Some(((), changes))
        });
        Box::pin(told)
    }
}

/// What an engine in a test is made of.
pub(crate) struct Plant {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) fakes: Arc<Fakes>,
    pub(crate) lead: Arc<Lead>,
    pub(crate) options: CoordinatorOptions,
}

impl Plant {
    /// One group that shares 10 of steam, whose cycles are an hour apart; `section` is put over that.
    pub(crate) fn new(section: Value) -> Self {
        Self::with(section, Strategies::builtin())
    }

    #[expect(clippy::needless_pass_by_value, reason = "a literal at every call")]
    pub(crate) fn with(section: Value, strategies: Strategies) -> Self {
        let mut fields = json!({"sync_interval": 3600, "resources": {"steam": {"capacity": 10}}});
        fields.as_object_mut().unwrap().extend(section.as_object().unwrap().clone());
        let config = CoordinationConfig::parse("/coordination", &fields, &strategies).unwrap();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let fakes = Arc::new(Fakes::default());
        let lead = Lead::nobody();
        let options = CoordinatorOptions {
            store: Arc::clone(&store),
            clock: Arc::new(SystemClock),
            strategies,
            config,
            services: Arc::new(EveryService),
            host: Arc::new(UnknownHost),
            transport: Arc::clone(&fakes) as _,
            lead: Arc::clone(&lead) as _,
        };
        Self { store, fakes, lead, options }
    }

    /// An engine that leads.
    pub(crate) async fn start(&self) -> Coordinator {
        self.lead.take(self.options.store.as_ref()).await;
        Coordinator::start(self.options.clone()).await.unwrap()
    }
}

/// What everyone was granted of steam.
pub(crate) fn steam(record: &coredinator_coord::CycleRecord) -> BTreeMap<String, f64> {
    let plan = record.plan.as_ref().unwrap();
    let granted = |decision: &coredinator_core::coordination::Decision| {
        (decision.agent_id.to_string(), decision.grant.get("steam").copied().unwrap_or(0.0))
    };
    plan.decisions.iter().map(granted).collect()
}
