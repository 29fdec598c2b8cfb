//! The driver: what is asked of the API server for one instance, in order.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex as Lock, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use coredinator_core::{
    InstanceId, InstanceRef, RuntimeError, ServiceName, Signal, StartRequest, Started, StopRequest,
};
use k8s_openapi::api::core::v1::{Pod, Service};
use tokio::{
    sync::{Mutex, RwLock},
    task::JoinHandle,
    time::{self, Instant},
};
use tracing::{debug, warn};

use crate::{
    KubernetesRuntimeOptions, container,
    engine::{Engine, Trouble},
    events::{Events, Hints, Look},
    exec::{self, Hanging},
    labels,
    logs::Archive,
    options::KubernetesOptions,
    rbac::Call,
    state::{self, Found, State},
};

mod beside;
mod files;

/// How much longer than its grace a pod may take to be gone.
const KILLED: Duration = Duration::from_secs(30);
/// How much longer than its grace a pod may take until its program is killed from inside.
const HEARD: Duration = Duration::from_secs(5);
/// How long to wait before an API server that failed is asked again, where no event wakes earlier.
const RETRY: Duration = Duration::from_secs(1);

/// A lock for each name; a few names share one.
#[derive(Debug)]
struct Locks(Vec<Mutex<()>>);

impl Default for Locks {
    fn default() -> Self {
        Self((0..256).map(|_| Mutex::default()).collect())
    }
}

impl Locks {
    fn of(&self, name: &impl Hash) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let slot = hasher.finish() % self.0.len() as u64;
        &self.0[usize::try_from(slot).unwrap_or(0)]
    }
}

/// The runtime's state, shared by its handles.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) events: Events,
    pub(crate) archive: Archive,
    pub(crate) hanging: Hanging,
    /// One instance is started by one caller at a time.
    starts: Locks,
    /// What stands beside one service's pods is written by one at a time; who starts an instance waits for these, too, so
    /// they are locks of their own.
    companions: Locks,
    /// Held by who brings a file and makes its pod, and, as a whole, by who looks for files without one.
    gate: RwLock<()>,
    /// Whether it has been told that such files cannot be looked for.
    blind: AtomicBool,
    /// What fits a service's budget to what is left of it, after a while.
    settling: Lock<HashMap<ServiceName, JoinHandle<()>>>,
}

impl Shared {
    pub(crate) fn new(engine: Engine) -> Self {
        Self {
            events: Events::new(engine.clone()),
            engine,
            archive: Archive::default(),
            hanging: Hanging::default(),
            starts: Locks::default(),
            companions: Locks::default(),
            gate: RwLock::default(),
            blind: AtomicBool::default(),
            settling: Lock::default(),
        }
    }

    fn options(&self) -> &KubernetesRuntimeOptions {
        self.engine.options()
    }

    async fn start(self: &Arc<Self>, request: &StartRequest) -> Result<Started, RuntimeError> {
        let invalid = |errors: Vec<coredinator_core::FieldError>| {
            let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
            RuntimeError::not_started("InvalidOptions", told.join("; "))
        };
        let options = KubernetesOptions::parse(&request.spec).map_err(invalid)?;
        let namespace = match &options.namespace {
            Some(namespace) => namespace.clone(),
            None => self.engine.namespace().await.map_err(Trouble::unknown)?,
        };
        let _one_at_a_time = self.starts.of(&request.id).lock().await;
        let mut hints = self.events.hints();
        self.events.cover(&namespace);
        let there: Option<Pod> =
            self.engine.get(Call::GET_POD, &namespace, request.id.as_str()).await.map_err(Trouble::not_started)?;
        let found = match there {
            Some(pod) => self.engine.read(&pod).filter(|found| found.tags.id == request.id).ok_or_else(|| {
                let message = format!("the name {} in namespace {namespace} is another pod's", request.id);
                RuntimeError::not_started("NameTaken", message)
            })?,
            None => self.make(request, &options, &namespace).await?,
        };
        if let State::Ended(exit) = &found.state {
            return Err(RuntimeError::not_started("AlreadyEnded", exit.to_string()));
        }
        self.events.note(found.clone());
        let started = self.taken_on(found, &mut hints).await?;
        self.tidy(&request.spec.name, request.replica, &request.id).await;
        self.protect(&request.spec, request.replica, &namespace).await;
        Ok(started)
    }

    /// Makes the pod, and before it what others find it by.
    async fn make(
        &self,
        request: &StartRequest,
        options: &KubernetesOptions,
        namespace: &str,
    ) -> Result<Found, RuntimeError> {
        self.expose(request, options, namespace).await?;
        let _gate = self.gate.read().await;
        let file = self.bring(request, namespace, None).await?;
        let made = self.make_pod(request, options, namespace).await;
        match &made {
            Ok(found) if file => {
                self.bring(request, namespace, Some(found)).await?;
            }
            Err(RuntimeError::NotStarted { .. }) if file => self.take_back(request, namespace).await?,
            _ => {}
        }
        made
    }

    async fn make_pod(
        &self,
        request: &StartRequest,
        options: &KubernetesOptions,
        namespace: &str,
    ) -> Result<Found, RuntimeError> {
        let refused = |message: String| RuntimeError::not_started("InvalidOptions", message);
        let pod = container::pod(request, options, self.engine.owner(), namespace).map_err(refused)?;
        let made = self.engine.apply(Call::APPLY_POD, namespace, &pod, false).await.map_err(Trouble::not_started)?;
        let strange = || RuntimeError::not_started("NameTaken", format!("{} is another pod's name", request.id));
        let found = self.engine.read(&made).ok_or_else(strange)?;
        if let Err(dropped) = container::is_kept(&pod, &made) {
            self.undo(&found).await?;
            return Err(RuntimeError::not_started("StopSignalUnsupported", dropped));
        }
        Ok(found)
    }

    /// Waits until a pod runs, or will not, or takes so long that the caller had better be told why.
    async fn taken_on(&self, made: Found, hints: &mut Hints) -> Result<Started, RuntimeError> {
        let id = made.tags.id.clone();
        let deadline = Instant::now() + self.options().taken_on_after;
        let mut latest = made;
        loop {
            match self.events.look(&id) {
                Look::Seen { found, .. } => latest = *found,
                Look::Gone(exit) => return Err(RuntimeError::not_started("PodDeleted", exit.to_string())),
                Look::Unseen => {}
            }
            if let Some(reason) = latest.will_not_run() {
                let reason = reason.clone();
                self.undo(&latest).await?;
                return Err(RuntimeError::NotStarted { reason });
            }
            match &latest.state {
                State::Running if !latest.host.is_empty() => return Ok(latest.to_started(latest.restarts)),
                State::Ended(_) => return Ok(latest.to_started(latest.restarts)),
                State::Waiting(_) | State::Running => {}
            }
            if time::timeout_at(deadline, self.news(hints, &id)).await.is_err() {
                return Ok(Started { running: false, ..latest.to_started(latest.restarts) });
            }
        }
    }

    /// Takes away a pod whose start failed, until nothing of it is left.
    pub(crate) async fn undo(&self, found: &Found) -> Result<(), RuntimeError> {
        let id = &found.tags.id;
        let mut hints = self.events.hints();
        self.events.note_asked(id);
        let deleted = self.engine.delete::<Pod>(Call::DELETE_POD, &found.namespace, id.as_str(), &found.uid, Some(1));
        deleted.await.map_err(Trouble::failed)?;
        self.is_gone_within(found, KILLED, true, &mut hints).await.map(drop)
    }

    /// Everything of ours that lives. What others have in `known` is not asked for: labels tell all that a handle could.
    pub(crate) async fn list(self: &Arc<Self>, known: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError> {
        let handles: HashMap<&InstanceId, state::Handle> =
            known.iter().filter_map(|it| Some((&it.id, state::Handle::read(it)?))).collect();
        for handle in handles.values() {
            self.engine.learn(&handle.namespace);
        }
        let mut all = Vec::new();
        for namespace in self.engine.namespaces().await.map_err(Trouble::unknown)? {
            let pods = self.engine.pods(&namespace).await;
            // Where a record says that something runs it is not passed over.
            let pods = if handles.values().any(|handle| handle.namespace == namespace) {
                pods.map(Some)
            } else {
                self.engine.where_allowed(&namespace, pods).await
            };
            let Some(pods) = pods.map_err(Trouble::unknown)? else {
                warn!(namespace, "coredinator may not look for pods there, where a service is declared to run");
                continue;
            };
            for found in pods {
                let found = self.as_seen(found);
                if matches!(found.state, State::Ended(_)) {
                    continue;
                }
                let counted = handles.get(&found.tags.id).map_or(found.restarts, |handle| handle.counted);
                self.settle(&found.tags.service);
                all.push(found.to_started(counted));
            }
            if let Err(trouble) = self.tidy_files(&namespace, None).await {
                debug!(namespace, ?trouble, "cannot look for files that were left behind");
            }
        }
        all.sort_by(|a, b| a.instance.id.cmp(&b.instance.id));
        Ok(all)
    }

    /// A pod that was just read, unless it is known to be lost.
    fn as_seen(&self, found: Found) -> Found {
        match self.events.look(&found.tags.id) {
            Look::Seen { found: seen, .. } if seen.uid == found.uid && found.ending.is_some() => {
                if matches!(seen.state, State::Ended(_)) { *seen } else { found }
            }
            _ => found,
        }
    }

    pub(crate) async fn stop(self: &Arc<Self>, instance: &InstanceRef, how: StopRequest) -> Result<(), RuntimeError> {
        let Some(found) = self.engine.find(instance).await.map_err(Trouble::failed)? else { return Ok(()) };
        if found.is_over() {
            // Kept for its output.
            return Ok(());
        }
        let at_once = how.signal == Signal::Kill || how.grace.is_zero();
        let grace = if at_once { Duration::from_secs(1) } else { how.grace };
        self.end(&found, grace).await?;
        self.settle(&instance.service);
        Ok(())
    }

    /// Ends a pod and waits until nothing of it is left. What it printed is read first, for it goes with the pod.
    pub(crate) async fn end(self: &Arc<Self>, found: &Found, grace: Duration) -> Result<(), RuntimeError> {
        let mut hints = self.events.hints();
        self.events.cover(&found.namespace);
        self.events.note(found.clone());
        self.events.note_asked(&found.tags.id);
        let kept = self.archive.keep(self, found).await;
        let seconds = u32::try_from(container::grace_seconds(grace)).unwrap_or(u32::MAX);
        let name = found.tags.id.as_str();
        let deleted = self.engine.delete::<Pod>(Call::DELETE_POD, &found.namespace, name, &found.uid, Some(seconds));
        deleted.await.map_err(Trouble::failed)?;
        let grace = Duration::from_secs(u64::from(seconds));
        let mut gone = self.is_gone_within(found, grace.saturating_add(HEARD), false, &mut hints).await?;
        if !gone {
            exec::kill(self, found).await;
            gone = self.is_gone_within(found, KILLED, false, &mut hints).await?;
        }
        self.hanging.forget(&found.uid);
        kept.await;
        if gone {
            return Ok(());
        }
        let message = format!(
            "the pod {name} is still there {} s after its grace; its node may be lost",
            (HEARD + KILLED).as_secs()
        );
        Err(RuntimeError::Internal { message, source: None })
    }

    /// Waits until a pod's program has ended (or `wholly`: until there is no such pod); whether that was in time.
    async fn is_gone_within(
        &self,
        pod: &Found,
        limit: Duration,
        wholly: bool,
        hints: &mut Hints,
    ) -> Result<bool, RuntimeError> {
        let id = &pod.tags.id;
        let deadline = Instant::now() + limit;
        loop {
            match self.events.look(id) {
                Look::Gone(_) => return Ok(true),
                Look::Seen { found, .. } if found.uid != pod.uid => return Ok(true),
                Look::Seen { found, .. } if !wholly && found.is_over() => return Ok(true),
                Look::Seen { .. } => {}
                Look::Unseen => match self.engine.find(&found_as(pod)).await {
                    Ok(None) => return Ok(true),
                    Ok(Some(found)) if found.uid != pod.uid => return Ok(true),
                    Ok(Some(found)) => self.events.note(found),
                    Err(trouble) => debug!(%id, ?trouble, "cannot look for a pod that is to end"),
                },
            }
            if time::timeout_at(deadline, self.news_or_retry(hints, id)).await.is_err() {
                return Ok(false);
            }
        }
    }

    /// Removes all that has ended of a replica but its newest life, whose output may be wanted.
    async fn tidy(&self, service: &ServiceName, replica: u32, running: &InstanceId) {
        let mut ended: Vec<Found> = self
            .events
            .all()
            .into_iter()
            .filter(|it| it.tags.service == *service && it.tags.replica == replica && it.tags.id != *running)
            .filter(|it| matches!(it.state, State::Ended(_)) && it.ending.is_none())
            .collect();
        ended.sort_by_key(|it| std::cmp::Reverse(it.created_at));
        let keep = usize::from(!self.archive.has(service, replica));
        for old in ended.into_iter().skip(keep) {
            if let Err(trouble) = self.remove(&old).await {
                debug!(pod = %old.tags.id, ?trouble, "cannot remove an earlier pod");
            }
        }
    }

    /// Removes a pod that has ended.
    async fn remove(&self, found: &Found) -> Result<(), Trouble> {
        self.engine.delete::<Pod>(Call::DELETE_POD, &found.namespace, found.tags.id.as_str(), &found.uid, None).await
    }

    /// Takes away what is kept of a service that is no more.
    pub(crate) async fn forget(&self, service: &ServiceName) -> Result<(), RuntimeError> {
        if let Some(task) = self.settling.lock().unwrap_or_else(PoisonError::into_inner).remove(service) {
            task.abort();
        }
        for namespace in self.engine.namespaces().await.map_err(Trouble::unknown)? {
            let pods = self.engine.pods(&namespace).await;
            let Some(pods) = self.engine.where_allowed(&namespace, pods).await.map_err(Trouble::failed)? else {
                continue;
            };
            for found in pods {
                if found.tags.service == *service && matches!(found.state, State::Ended(_)) {
                    self.remove(&found).await.map_err(Trouble::failed)?;
                }
            }
            self.tidy_files(&namespace, Some(service)).await.map_err(Trouble::failed)?;
            self.budget(service, &namespace, 0).await.map_err(Trouble::failed)?;
            let there: Option<Service> =
                self.engine.get(Call::GET_SERVICE, &namespace, service.as_str()).await.map_err(Trouble::failed)?;
            if let Some(there) = there.filter(|there| labels::is_ours(&there.metadata, self.engine.owner())) {
                self.delete_service(&there).await.map_err(Trouble::failed)?;
            }
        }
        self.archive.forget(service);
        Ok(())
    }

    /// The services of which something is kept: pods, output, what stands beside them.
    pub(crate) async fn kept(&self) -> Result<Vec<ServiceName>, RuntimeError> {
        let mut kept: BTreeSet<ServiceName> = self.archive.services().into_iter().collect();
        for namespace in self.engine.namespaces().await.map_err(Trouble::unknown)? {
            let pods = self.engine.pods(&namespace).await;
            let Some(pods) = self.engine.where_allowed(&namespace, pods).await.map_err(Trouble::failed)? else {
                continue;
            };
            // What has ended and is asked to go is on its way.
            let stays = |found: &Found| found.ending.is_none() || !found.is_over();
            kept.extend(pods.into_iter().filter(stays).map(|found| found.tags.service));
            kept.extend(self.engine.exposed(&namespace).await.map_err(Trouble::failed)?);
            kept.extend(self.loose_files(&namespace).await.map_err(Trouble::failed)?.into_iter().map(|it| it.service));
        }
        Ok(kept.into_iter().collect())
    }

    /// Waits for news of an instance.
    pub(crate) async fn news(&self, hints: &mut Hints, id: &InstanceId) {
        hints.next(|instance, _| instance == id.as_str()).await;
    }

    /// Waits for news of an instance, or a while, after which an API server that failed is asked again.
    pub(crate) async fn news_or_retry(&self, hints: &mut Hints, id: &InstanceId) {
        let _ = time::timeout(RETRY, self.news(hints, id)).await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let settling = self.settling.get_mut().unwrap_or_else(PoisonError::into_inner);
        for task in settling.values() {
            task.abort();
        }
    }
}

/// A pod as an instance that can be looked for.
fn found_as(pod: &Found) -> InstanceRef {
    pod.to_started(pod.restarts).instance
}

/// Keeps `start` going to its end even if the caller goes away.
pub(crate) async fn start(shared: Arc<Shared>, request: StartRequest) -> Result<Started, RuntimeError> {
    let failed = |error| RuntimeError::internal("the runtime is shutting down", error);
    tokio::spawn(async move { shared.start(&request).await }).await.map_err(failed)?
}
