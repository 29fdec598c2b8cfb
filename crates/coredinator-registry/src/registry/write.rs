//! What users write. Deciding is pure ([`redeclare`], [`follow_command`]); the rest carries it out.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::{
    Batch, ConfigCandidate, DependencyGraph, FieldError, Intent, NodeName, Origin, Precondition, RestartPolicy,
    Revision, ServiceName, ServiceRecord, ServiceSpec, StoreError, Timestamp,
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    NewEvent, Registry, RegistryError, ServiceView,
    config::{self, Finding, Judged, Schemas},
    keys,
};
use crate::leadership::Post;

/// How often a write is decided on anew because another replica was quicker.
const TRIES: u32 = 10;

/// What a declaration came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Declared {
    /// The service is new.
    Created,
    /// It was declared with exactly this before.
    Unchanged,
    /// It was declared differently before.
    Replaced,
}

/// How far a declaration has been decided.
enum Step {
    /// It is done.
    Done(Declared, Arc<ServiceView>),
    /// The validator is to be asked about these first.
    ToBeJudged(Vec<ConfigCandidate>),
}

/// How far it has been decided what a write comes to.
pub(super) struct Turn {
    tries: u32,
    /// Up to where the store had been followed at first.
    known: Revision,
    /// What is known here is no older than the question.
    sure: bool,
}

/// A user's command about a managed service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Run it, also if it was stopped by hand or has ended. What runs is left alone.
    Start,
    /// Stop it until it is started by hand.
    Stop,
    /// Replace every instance by a new one; start it if it does not run.
    Restart,
    /// Run this many instances, until the declared number changes.
    Scale(u32),
}

impl Registry {
    /// Declares a service: registers a new one, or (with `replace`) changes an existing one.
    ///
    /// # Errors
    /// [`RegistryError::Invalid`] for health checks of no known kind, for dependency cycles, and for a document that its schema
    /// or the validator refuses; [`RegistryError::Unjudged`];
    /// [`RegistryError::Conflict`] (`AlreadyExists`) if it is declared differently and `replace` is not given;
    /// [`RegistryError::Store`].
    pub async fn declare(
        &self,
        spec: ServiceSpec,
        origin: Origin,
        replace: bool,
    ) -> Result<(Declared, Arc<ServiceView>), RegistryError> {
        let (mut turn, mut judged) = (self.turn(), Judged::default());
        loop {
            let done = match self.declare_once(spec.clone(), origin, replace, &judged).await {
                // Nothing is held while the validator is asked.
                Ok(Step::ToBeJudged(candidates)) => {
                    self.judge(&mut judged, candidates).await?;
                    continue;
                }
                Ok(Step::Done(declared, view)) => Ok((declared, view)),
                Err(error) => Err(error),
            };
            let wrote = done.as_ref().is_ok_and(|(declared, _)| *declared != Declared::Unchanged);
            if !self.is_overtaken(done.as_ref().err(), wrote, &mut turn).await? {
                return done;
            }
        }
    }

    async fn declare_once(
        &self,
        spec: ServiceSpec,
        origin: Origin,
        replace: bool,
        judged: &Judged,
    ) -> Result<Step, RegistryError> {
        let name = spec.name.clone();
        // Without dependencies nothing hangs on the other services, and many are declared side by side; but what the
        // configuration declares is one with all of it.
        let alone = |shared: &super::Shared| {
            spec.depends_on.is_empty() && shared.service(name.as_str()).is_none_or(|view| !is_configured(&view))
        };
        let (mut _all, mut _one) = (None, None);
        if alone(&self.shared) {
            _one = Some((self.shared.deciding.read().await, self.shared.deciding_on(&name).lock().await));
        }
        if !alone(&self.shared) {
            _one = None;
            _all = Some(self.shared.deciding.write().await);
        }
        let head = self.config();
        let existing = self.shared.service(name.as_str());
        let mut invalid = self.validate_checks(&spec);
        invalid.extend(self.cycle_with(std::slice::from_ref(&spec), &[]).map(|(_, error)| error));
        let base = config::base(&head.sections);
        invalid.extend(Schemas::new().in_service(&spec, &base));
        if !invalid.is_empty() {
            return Err(RegistryError::Invalid(invalid));
        }
        // What the configuration declares stays its own.
        let configured = existing.as_ref().filter(|view| is_configured(view));
        let origin = configured.map_or(origin, |view| view.record.origin);
        let Some(record) =
            redeclare(existing.as_deref(), spec, origin, (&base, self.shared.place.node()), self.shared.clock.now())
        else {
            return self.service(name.as_str()).map(|view| Step::Done(Declared::Unchanged, view));
        };
        // One on its way out does not stand against a new one of its name.
        let in_force = existing.as_ref().is_some_and(|view| !view.record.deleting);
        let declared = if in_force { Declared::Replaced } else { Declared::Created };
        if in_force && !replace {
            let message = format!("service {name} is registered with another spec; replace it with ?replace=true");
            return Err(RegistryError::Conflict { code: "AlreadyExists", message });
        }
        let now = existing.as_ref().filter(|_| in_force).map(|view| view.record.as_ref());
        let verdict = match judged.verdict(self.candidates(&record.spec, now, &base)) {
            Ok(verdict) => verdict,
            Err(candidates) => return Ok(Step::ToBeJudged(candidates)),
        };
        let (errors, doubts) = verdict.about(&record.spec, &base);
        if !errors.is_empty() {
            return Err(RegistryError::Invalid(errors.into_iter().map(Finding::in_service).collect()));
        }
        let unjudged = verdict.unjudged(self.on_unreachable())?;
        for warning in doubts.into_iter().map(Finding::in_service).chain(unjudged) {
            tracing::warn!(service = %name, "{warning}");
        }
        let mut batch = self.put_declaration(Batch::new(), existing.as_deref(), &record)?;
        if let Some(view) = configured {
            batch = self.put_service_revision(batch, &head, view, Some(&record))?;
        }
        self.commit(batch).await?;
        self.service(name.as_str()).map(|view| Step::Done(declared, view))
    }

    /// Deregisters a service. An external one is gone when this returns; a managed one is gone when the supervisor has
    /// stopped its instances. Deregistering again changes nothing.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Store`].
    pub async fn deregister(&self, name: &str) -> Result<(), RegistryError> {
        let mut turn = self.turn();
        loop {
            let done = self.deregister_once(name).await;
            let wrote = done.as_ref().is_ok_and(|wrote| *wrote);
            if !self.is_overtaken(done.as_ref().err(), wrote, &mut turn).await? {
                return done.map(drop);
            }
        }
    }

    /// Whether it wrote anything.
    async fn deregister_once(&self, name: &str) -> Result<bool, RegistryError> {
        let _deciding = self.shared.deciding.write().await;
        let head = self.config();
        let view = self.service(name)?;
        if view.record.deleting {
            return Ok(false);
        }
        let mut batch = self.put_removal(Batch::new(), &view)?;
        if is_configured(&view) {
            batch = self.put_service_revision(batch, &head, &view, None)?;
        }
        self.commit(batch).await.map(|()| true)
    }

    /// Carries out a user's command: writes it down for the supervisor, and answers at once.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Conflict`] (`External`) for a service that coredinator does not run,
    /// (`Deleting`) for one that is on its way out; [`RegistryError::Invalid`] for a number of replicas that its fixed
    /// port does not allow; [`RegistryError::Store`].
    pub async fn command(&self, name: &str, command: Command) -> Result<Arc<ServiceView>, RegistryError> {
        let mut turn = self.turn();
        loop {
            let done = self.command_once(name, command).await;
            let wrote = done.as_ref().is_ok_and(|wrote| *wrote);
            if !self.is_overtaken(done.as_ref().err(), wrote, &mut turn).await? {
                return done.and_then(|_| self.service(name));
            }
        }
    }

    /// Whether it wrote anything.
    async fn command_once(&self, name: &str, command: Command) -> Result<bool, RegistryError> {
        let _deciding = self.shared.deciding.write().await;
        let view = self.service(name)?;
        let intent = follow_command(&view, command)?;
        let event = match command {
            Command::Start => NewEvent::normal(view.name(), "StartRequested", "started by hand"),
            Command::Stop => NewEvent::normal(view.name(), "StopRequested", "stopped by hand"),
            Command::Restart => NewEvent::normal(view.name(), "RestartRequested", "restarted by hand"),
            Command::Scale(n) => NewEvent::normal(view.name(), "ScaleRequested", format!("scaled to {n}")),
        };
        if intent == *view.intent {
            return Ok(false);
        }
        let batch = Batch::new().put(keys::intent(view.name()), json(&intent)?, intent_as_seen(&view));
        let batch = self.put_event(batch, event)?;
        self.commit(batch).await.map(|()| true)
    }

    /// Takes up, for this node, the services that were declared before nodes were told apart. Called once, when coredinator
    /// starts: who moves from a store of its own to one that is shared is the first there.
    ///
    /// # Errors
    /// The store's; a replica that did the same meanwhile is none.
    pub async fn take_up_unplaced(&self) -> Result<(), RegistryError> {
        let mut turn = self.turn();
        loop {
            let done = self.take_up_unplaced_once().await;
            if !self.is_overtaken(done.as_ref().err(), true, &mut turn).await? {
                return done;
            }
        }
    }

    async fn take_up_unplaced_once(&self) -> Result<(), RegistryError> {
        let _deciding = self.shared.deciding.write().await;
        let Some(here) = self.shared.place.node().filter(|_| !self.shared.place.is_sole()) else { return Ok(()) };
        let mut batch = Batch::new();
        for view in self.services().iter().filter(|view| view.record.node.is_none()) {
            let node = view.record.spec.node.clone().unwrap_or_else(|| here.clone());
            let record = ServiceRecord { node: Some(node), ..(*view.record).clone() };
            batch = batch.put(keys::service(view.name()), json(&record)?, Precondition::At(view.revision));
        }
        self.commit(batch).await
    }

    /// Forgets the stops by hand that do not outlive coredinator: those of services whose policy is `always`, and which are
    /// this node's to look after. Called once, when coredinator starts; what was asked after the revision `read` stays.
    ///
    /// # Errors
    /// The store's.
    pub async fn release_stops(&self, read: Revision) -> Result<(), RegistryError> {
        let mut turn = self.turn();
        loop {
            let done = self.release_stops_once(read).await;
            if !self.is_overtaken(done.as_ref().err(), true, &mut turn).await? {
                return done;
            }
        }
    }

    async fn release_stops_once(&self, read: Revision) -> Result<(), RegistryError> {
        let _deciding = self.shared.deciding.write().await;
        let mut batch = Batch::new();
        for view in self.services() {
            let place = &self.shared.place;
            // What whoever leads looks after does not start anew with any one replica.
            let ours = place.is_sole() || place.at(&place.seat(&view.record)) == Some(Post::Node);
            let earlier = view.intent_at.is_none_or(|at| at <= read);
            if ours && earlier && view.intent.stopped && view.record.spec.restart_policy == RestartPolicy::Always {
                let intent = Intent { stopped: false, command: view.intent.command + 1, ..(*view.intent).clone() };
                batch = batch.put(keys::intent(view.name()), json(&intent)?, intent_as_seen(&view));
            }
        }
        self.commit(batch).await
    }

    pub(super) fn turn(&self) -> Turn {
        Turn { tries: 0, known: self.followed(), sure: self.shared.place.is_sole() }
    }

    /// Whether another replica has changed what was decided on, so that it has to be decided anew; answers when that is known
    /// here. What was written says so itself. That nothing is to be done, that there is no such thing, or that it is not
    /// valid beside what there is, is true only if what is known here is no older than the question.
    ///
    /// # Errors
    /// The store's: whether something is to be done cannot be told.
    pub(super) async fn is_overtaken(
        &self,
        error: Option<&RegistryError>,
        wrote: bool,
        turn: &mut Turn,
    ) -> Result<bool, StoreError> {
        turn.tries += 1;
        match error {
            Some(RegistryError::Store(StoreError::Conflict { .. })) => {
                Ok(turn.tries < TRIES && self.catch_up().await.is_ok())
            }
            None
            | Some(RegistryError::NotFound { .. } | RegistryError::Conflict { .. } | RegistryError::Invalid(_))
                if !wrote && !turn.sure =>
            {
                self.catch_up().await?;
                turn.sure = true;
                Ok(self.followed() > turn.known)
            }
            _ => Ok(false),
        }
    }

    pub(super) fn put_declaration(
        &self,
        batch: Batch,
        existing: Option<&ServiceView>,
        record: &ServiceRecord,
    ) -> Result<Batch, StoreError> {
        let name = &record.spec.name;
        let at = existing.map_or(Precondition::Absent, |view| Precondition::At(view.revision));
        let mut batch = batch.put(keys::service(name), json(record)?, at);
        if let Some(view) = existing
            && let Some(intent) = follow_declaration(view, &record.spec)
        {
            batch = batch.put(keys::intent(name), json(&intent)?, intent_as_seen(view));
        }
        let event = match existing.filter(|view| !view.record.deleting) {
            None => NewEvent::normal(name, "Registered", "registered"),
            Some(_) => NewEvent::normal(name, "Updated", format!("its spec changed; generation {}", record.generation)),
        };
        self.put_event(batch, event)
    }

    pub(super) fn put_removal(&self, batch: Batch, view: &ServiceView) -> Result<Batch, StoreError> {
        let name = view.name();
        if !view.record.spec.is_managed() {
            let batch = batch.delete(keys::service(name), Precondition::At(view.revision));
            let batch = batch.delete(keys::intent(name), Precondition::Any);
            let batch = batch.delete(keys::health(name), Precondition::Any);
            // Of the time when it was managed.
            let batch = batch.delete(keys::rollout(name), Precondition::Any);
            return self.put_event(batch, NewEvent::normal(name, "Deregistered", "deregistered"));
        }
        let record = ServiceRecord { deleting: true, ..(*view.record).clone() };
        let batch = batch.put(keys::service(name), json(&record)?, Precondition::At(view.revision));
        self.put_event(batch, NewEvent::normal(name, "Deleting", "deregistered; its instances are being stopped"))
    }

    pub(super) fn put_event(&self, batch: Batch, event: NewEvent) -> Result<Batch, StoreError> {
        let (key, event) = self.shared.stamp(event, self.shared.clock.now());
        Ok(batch.put(key, json(&event)?, Precondition::Any))
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<(), RegistryError> {
        if !batch.operations.is_empty() {
            let revision = self.shared.store.write(batch).await?;
            self.wait_for(revision).await?;
        }
        Ok(())
    }

    /// The dependency cycle that `specs`, put in place of what is registered under their names, would close, and the one of
    /// them to which it is to be told.
    pub(super) fn cycle_with(&self, specs: &[ServiceSpec], gone: &[ServiceName]) -> Option<(ServiceName, FieldError)> {
        if specs.iter().all(|spec| spec.depends_on.is_empty()) {
            return None;
        }
        let mut edges: BTreeMap<ServiceName, Vec<ServiceName>> = BTreeMap::new();
        for view in self.services().iter().filter(|view| !view.record.deleting && !gone.contains(view.name())) {
            edges.insert(view.name().clone(), view.record.spec.depends_on.keys().cloned().collect());
        }
        edges.extend(specs.iter().map(|spec| (spec.name.clone(), spec.depends_on.keys().cloned().collect())));
        let cycle = DependencyGraph::new(edges).waves().err()?;
        let told = cycle.0.iter().find(|name| specs.iter().any(|spec| spec.name == **name)).or(cycle.0.first())?;
        Some((told.clone(), FieldError::new("/depends_on", cycle.to_string())))
    }
}

/// Whether the configuration declares it, be it by the file or by an update.
fn is_configured(view: &ServiceView) -> bool {
    view.record.origin != Origin::Api && !view.record.deleting
}

/// What the record of a service becomes when it is declared as `spec`, its document on `base`; `None` if it is that already.
pub(super) fn redeclare(
    existing: Option<&ServiceView>,
    spec: ServiceSpec,
    origin: Origin,
    (base, here): (&Map<String, Value>, Option<&NodeName>),
    now: Timestamp,
) -> Option<ServiceRecord> {
    let config = spec.config.on(base);
    let Some(view) = existing else {
        let config_revision = u64::from(config.is_some());
        let node = spec.node.clone().or_else(|| here.cloned());
        return Some(ServiceRecord {
            spec,
            generation: 1,
            runs_since: 1,
            origin,
            node,
            created_at: now,
            deleting: false,
            config,
            config_revision,
        });
    };
    let old = view.record.as_ref();
    if old.spec == spec && old.origin == origin && !old.deleting && old.config == config {
        return None;
    }
    let generation = if old.spec == spec { old.generation } else { old.generation + 1 };
    let runs_since = if runs_the_same(&old.spec, &spec) { old.runs_since } else { generation };
    let created_at = if old.deleting { now } else { old.created_at };
    // Where it was declared first, it stays.
    let stays = old.node.clone().filter(|_| !old.deleting);
    let node = spec.node.clone().or(stays).or_else(|| here.cloned());
    // The number never falls while the service is there, so that what instances were given can be told by it.
    let same = old.config == config && old.spec.config.overrides == spec.config.overrides;
    let config_revision = if same { old.config_revision } else { old.config_revision + 1 };
    Some(ServiceRecord {
        spec,
        generation,
        runs_since,
        origin,
        node,
        created_at,
        deleting: false,
        config,
        config_revision,
    })
}

/// What the intent for a service becomes when it is declared as `spec`; `None` if it stays.
fn follow_declaration(view: &ServiceView, spec: &ServiceSpec) -> Option<Intent> {
    let old = view.intent.as_ref();
    if view.record.deleting {
        // A new service, of which nothing has been asked; the numbers go on, as instances of the old one may be left.
        return Some(Intent { stopped: false, replicas: None, command: old.command + 1, restart: old.restart });
    }
    let scaled = old.replicas?;
    let other = view.record.spec.replicas != spec.replicas;
    let impossible = !spec.is_managed() || check_replicas(spec, scaled).is_err();
    (other || impossible).then(|| Intent { replicas: None, ..old.clone() })
}

/// Whether a service of this spec can run that many instances.
fn check_replicas(spec: &ServiceSpec, replicas: u32) -> Result<(), FieldError> {
    let error = if replicas > ServiceSpec::MAX_REPLICAS {
        format!("must be at most {}, but is {replicas}", ServiceSpec::MAX_REPLICAS)
    } else if replicas > 1 && spec.port != 0 {
        format!("{replicas} replicas cannot share port {}", spec.port)
    } else {
        return Ok(());
    };
    Err(FieldError::new("/replicas", error))
}

/// Whether instances of `a` may go on as instances of `b`: whatever they are started from is the same.
pub(super) fn runs_the_same(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    let options = |spec: &ServiceSpec| {
        let mut options = spec.options.clone();
        options.retain(|key, _| !key.starts_with("x-"));
        options
    };
    a.runtime == b.runtime
        && a.command == b.command
        && a.environment == b.environment
        && a.working_dir == b.working_dir
        && a.host == b.host
        && a.port == b.port
        && options(a) == options(b)
}

/// That the intent is still the one that was seen: another coredinator on the same store may write it, too.
fn intent_as_seen(view: &ServiceView) -> Precondition {
    view.intent_at.map_or(Precondition::Absent, Precondition::At)
}

/// What a service's intent becomes by a command.
fn follow_command(view: &ServiceView, command: Command) -> Result<Intent, RegistryError> {
    let name = view.name();
    let spec = &view.record.spec;
    if !spec.is_managed() {
        let message = format!("{name} is external: coredinator watches it and does not run it");
        return Err(RegistryError::Conflict { code: "External", message });
    }
    if view.record.deleting {
        return Err(RegistryError::Conflict { code: "Deleting", message: format!("{name} is being deregistered") });
    }
    let intent = (*view.intent).clone();
    Ok(match command {
        Command::Start => Intent { stopped: false, command: intent.command + 1, ..intent },
        Command::Stop => Intent { stopped: true, ..intent },
        Command::Restart => {
            let number = intent.command + 1;
            Intent { stopped: false, command: number, restart: number, ..intent }
        }
        Command::Scale(replicas) => {
            check_replicas(spec, replicas).map_err(|error| RegistryError::Invalid(vec![error]))?;
            Intent { replicas: Some(replicas), ..intent }
        }
    })
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Invalid(format!("cannot be written as JSON: {error}")))
}
