//! The supervisor: one actor per managed service, made when it is declared, told when something changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use coredinator_core::{
    DependencyGraph, InstanceRecord, InstanceRef, Runtime, RuntimeName, ServiceName, Started, StopRequest, StoreError,
};
use coredinator_registry::{
    Registry, ServiceView,
    leadership::{Grant, Place, Post},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    actor::{Actor, ActorHandle, Beginning, Ended, Input, chain},
    adopt,
    context::{Context, SupervisorOptions},
    machine::Mode,
    sweep,
};

/// How long a shutdown waits for runtimes that have not told yet what runs.
const LISTING: Duration = Duration::from_secs(10);
/// How long a shutdown that kills waits for runtimes that do not answer.
const LAST_RESORT: Duration = Duration::from_secs(10);
/// How long an actor that failed stays away.
const RECOVERY: Duration = Duration::from_secs(1);

/// How the supervisor ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Services are stopped, dependents before what they depend on.
    StopServices,
    /// Services go on; the next supervisor adopts them.
    Detach,
}

/// What the dispatcher is told from outside.
enum Command {
    /// No longer do what the leader does.
    StepDown(oneshot::Sender<()>),
    End(Shutdown, CancellationToken, oneshot::Sender<()>),
}

/// Keeps the managed services of a registry as they are declared: those that are its replica's to look after
/// ([`Registry::place`]).
///
/// Dropping it is as [`Shutdown::Detach`], but for what is being written at that moment.
pub struct Supervisor {
    commands: mpsc::Sender<Command>,
    adopted: watch::Receiver<bool>,
}

impl Supervisor {
    /// Starts it on the current tokio runtime: finds the instances that run already, then acts.
    #[must_use]
    pub fn start(options: SupervisorOptions) -> Self {
        let changes = options.registry.changes();
        let context = Arc::new(Context::new(options));
        let (sender, commands) = mpsc::channel(1);
        let (adopted_sender, adopted) = watch::channel(false);
        let (listed_sender, listed) = mpsc::unbounded_channel();
        let sweeping = CancellationToken::new();
        let dispatcher = Dispatcher {
            context,
            actors: BTreeMap::new(),
            tasks: JoinSet::new(),
            recovering: BTreeMap::new(),
            listed_sender,
            grants: BTreeMap::new(),
            stepped_down: false,
            listed: BTreeMap::new(),
            away: BTreeSet::new(),
            running: BTreeMap::new(),
            dependents: BTreeMap::new(),
            depends: BTreeMap::new(),
            adopted: adopted_sender,
            sweeping: sweeping.clone(),
            _sweeping: sweeping.drop_guard(),
        };
        tokio::spawn(dispatcher.run(changes, listed, commands));
        Self { commands: sender, adopted }
    }

    /// Turns true when every runtime has told what runs already: from then on nothing is found any more, only started.
    #[must_use]
    pub fn adopted(&self) -> watch::Receiver<bool> {
        self.adopted.clone()
    }

    /// No longer does what the leader does, and answers when nothing of that is under way any more: what it looked after goes
    /// on, for the next leader to adopt.
    pub async fn step_down(&self) {
        let (done, stepped_down) = oneshot::channel();
        if self.commands.send(Command::StepDown(done)).await.is_ok() {
            // An error says that it has ended, which is all that was wanted.
            let _ = stepped_down.await;
        }
    }

    /// Ends it, and answers when it has ended. Services that another replica can look after are left running; so a leader
    /// that shares the store [steps down](Self::step_down) first. Cancelling `force` turns an orderly stop into one that kills; what has not
    /// ended ten seconds later, because its runtime does not answer, is left to the next coredinator.
    pub async fn shutdown(self, how: Shutdown, force: CancellationToken) {
        let (done, ended) = oneshot::channel();
        if self.commands.send(Command::End(how, force, done)).await.is_ok() {
            // An error says that it has ended without answering, which is all that was wanted.
            let _ = ended.await;
        }
    }
}

/// What a runtime found when this replica came to look after what it runs, or when the actor of one service had to be made
/// anew.
struct Listed {
    runtime: RuntimeName,
    /// What it was asked by.
    grant: Grant,
    /// The one service that it was asked about; `None`: all.
    of: Option<ServiceName>,
    /// `None`: it cannot tell yet; it is asked again.
    running: Option<BTreeMap<(ServiceName, u32), Started>>,
}

/// Asks a runtime for what runs already (of one service, or of all), until it answers, or until this replica no longer looks
/// after what it runs.
async fn list(
    context: Arc<Context>,
    runtime: Arc<dyn Runtime>,
    of: Option<ServiceName>,
    grant: Grant,
    listed: mpsc::UnboundedSender<Listed>,
) {
    let meant = |service: &ServiceName| of.as_ref().is_none_or(|of| of == service);
    let name = runtime.name();
    let place = context.registry.place();
    let post = place.post_of(&name);
    let tenure = place.tenure(post);
    let mut pause = Duration::from_millis(100);
    let mut told = false;
    while tenure.holds(&grant) {
        // What whoever looked after it before has written last is seen before anything is concluded from records.
        let settled = context.registry.confirm(&grant).await;
        let mut records = records_of(&context.registry, &name);
        records.retain(|(service, _), _| meant(service));
        let known = known(&context.registry, &records, post);
        for view in context.registry.services() {
            if view.record.spec.runtime.as_ref() == Some(&name) {
                runtime.declared(&view.record.spec);
            }
        }
        match settled {
            Ok(()) => match runtime.list(&known).await {
                Ok(mut found) => {
                    found.retain(|started| meant(&started.instance.service));
                    let plan = adopt::plan(found, &records);
                    let ending = plan
                        .end
                        .into_iter()
                        .map(|instance| end(Arc::clone(&context), Arc::clone(&runtime), instance, grant.clone(), post));
                    ending.for_each(|ending| drop(tokio::spawn(ending)));
                    let _ = listed.send(Listed { runtime: name, grant, of, running: Some(plan.adopt) });
                    return;
                }
                Err(error) if is_used(&context.registry, &name) => {
                    tracing::warn!(runtime = %name, error = chain(&error), "cannot tell what runs; its services wait");
                }
                // Such as a Docker engine on a machine that has none, and needs none.
                Err(error) => tracing::debug!(runtime = %name, error = chain(&error), "cannot tell what runs"),
            },
            Err(error) => {
                tracing::debug!(runtime = %name, error = chain(&error), "what runs is not asked before the store answers");
                if matches!(error, StoreError::Fenced { .. }) {
                    tenure.doubt();
                }
            }
        }
        if !std::mem::replace(&mut told, true) {
            let (runtime, grant, of) = (name.clone(), grant.clone(), of.clone());
            let _ = listed.send(Listed { runtime, grant, of, running: None });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

/// What of a runtime the records say lives, and is this replica's.
fn known(registry: &Registry, records: &BTreeMap<(ServiceName, u32), InstanceRecord>, post: Post) -> Vec<InstanceRef> {
    let place = registry.place();
    let ours = |record: &&InstanceRecord| {
        let view = registry.service(record.service.as_str());
        view.is_ok_and(|view| place.at(&place.seat_of_instance(&view.record, record)) == Some(post))
    };
    records
        .values()
        .filter(|record| record.state.is_live())
        .filter(ours)
        .filter_map(InstanceRecord::reference)
        .collect()
}

/// Ends an instance that is in no record, if the store confirms that nobody else can have recorded it.
async fn end(context: Arc<Context>, runtime: Arc<dyn Runtime>, instance: InstanceRef, grant: Grant, post: Post) {
    let confirmed = context.registry.confirm(&grant).await;
    let recorded = context.registry.recorded(&instance.service, instance.replica).await;
    let unknown = match recorded {
        Ok(record) => record.is_none_or(|record| record.id.as_ref() != Some(&instance.id)),
        Err(_) => false,
    };
    if confirmed.is_err() || !unknown || !context.registry.place().tenure(post).holds(&grant) {
        tracing::warn!(id = %instance.id, "an instance of no declared service is left to who lists next");
        return;
    }
    let how = StopRequest { grace: Duration::from_secs(10), ..StopRequest::KILL };
    tracing::warn!(id = %instance.id, "an instance of no declared service is being ended");
    if let Err(error) = runtime.stop(&instance, how).await {
        tracing::error!(id = %instance.id, %error, "it could not be ended");
    }
    context.note_leftovers();
}

fn records_of(registry: &Registry, runtime: &RuntimeName) -> BTreeMap<(ServiceName, u32), InstanceRecord> {
    let services = registry.services();
    let instances = services.iter().flat_map(|view| view.instances.iter().map(|i| i.record.as_ref().clone()));
    instances.filter(|r| r.runtime == *runtime).map(|r| ((r.service.clone(), r.replica), r)).collect()
}

/// Whether a service is declared to run there, or has run there.
fn is_used(registry: &Registry, runtime: &RuntimeName) -> bool {
    let runs = |view: &ServiceView| {
        view.record.spec.runtime.as_ref() == Some(runtime)
            || view.instances.iter().any(|i| i.record.runtime == *runtime)
    };
    registry.services().iter().any(|view| runs(view))
}

/// Waits until then; for ever, if there is no then.
async fn sleep_until(then: Option<tokio::time::Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}

/// Whether there is anything to supervise: a managed service, or what is left of one that is external by now.
fn concerns(view: &ServiceView) -> bool {
    view.record.spec.is_managed() || !view.instances.is_empty()
}

/// The one task that makes actors and tells them when to look.
struct Dispatcher {
    context: Arc<Context>,
    actors: BTreeMap<ServiceName, ActorHandle>,
    /// The tasks of the actors.
    tasks: JoinSet<Ended>,
    /// Services whose actor ended badly, and the runtimes that have yet to tell what they run of it.
    recovering: BTreeMap<ServiceName, BTreeSet<RuntimeName>>,
    listed_sender: mpsc::UnboundedSender<Listed>,
    /// What each post is held by, as far as that has been acted on.
    grants: BTreeMap<Post, Grant>,
    /// What the leader does is no longer done.
    stepped_down: bool,
    /// Which runtimes have told what runs, and what they were asked by.
    listed: BTreeMap<RuntimeName, Grant>,
    /// Which of the others could not, when they were asked first.
    away: BTreeSet<RuntimeName>,
    /// What they told, until an actor takes it up.
    running: BTreeMap<RuntimeName, BTreeMap<(ServiceName, u32), Started>>,
    /// Who is to look when a service changes.
    dependents: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    depends: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    adopted: watch::Sender<bool>,
    /// Ends those who look for what is left behind.
    sweeping: CancellationToken,
    _sweeping: DropGuard,
}

impl Dispatcher {
    async fn run(
        mut self,
        mut changes: mpsc::UnboundedReceiver<ServiceName>,
        mut listed: mpsc::UnboundedReceiver<Listed>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut places = self.place().changes();
        self.take_posts();
        loop {
            tokio::select! {
                Some(name) = changes.recv() => self.look_at(&name),
                Some(ended) = self.tasks.join_next_with_id() => self.actor_ended(ended),
                Some(found) = listed.recv() => {
                    self.hear(found);
                    self.look_at_all();
                }
                () = places.changed() => self.take_posts(),
                command = commands.recv() => {
                    let (how, force, done) = match command {
                        Some(Command::End(how, force, done)) => (how, force, done),
                        Some(Command::StepDown(done)) => {
                            self.step_down().await;
                            let _ = done.send(());
                            continue;
                        }
                        None => {
                            // Dropped: actors hold their own inboxes open, so they have to be told.
                            self.end_actors().await;
                            return;
                        }
                    };
                    if how == Shutdown::StopServices {
                        self.hear_all(&mut listed, &force).await;
                        self.stop_services(force, &mut changes).await;
                    }
                    self.end_actors().await;
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    fn place(&self) -> Place {
        self.context.registry.place().clone()
    }

    /// What is acted by for what a runtime runs; `None`: it is not this replica's to look after.
    fn grant_for(&self, runtime: &RuntimeName) -> Option<&Grant> {
        self.grants.get(&self.context.registry.place().post_of(runtime))
    }

    /// Looks which posts are held. At one that was lost nothing is touched any more; for one that was gained, its runtimes are
    /// asked what runs, as when coredinator starts.
    fn take_posts(&mut self) {
        let place = self.place();
        for post in Post::ALL {
            let grant = place.tenure(post).grant().filter(|_| post != Post::Leader || !self.stepped_down);
            if grant.as_ref() == self.grants.get(&post) {
                continue;
            }
            match &grant {
                Some(grant) => drop(self.grants.insert(post, grant.clone())),
                None => drop(self.grants.remove(&post)),
            }
            let runtimes: Vec<_> = self.context.runtimes.iter().map(Arc::clone).collect();
            for runtime in runtimes.into_iter().filter(|runtime| place.post_of(&runtime.name()) == post) {
                let name = runtime.name();
                self.listed.remove(&name);
                self.running.remove(&name);
                self.away.remove(&name);
                self.no_longer_waits_for(&name);
                if let Some(grant) = &grant {
                    let (context, listed) = (Arc::clone(&self.context), self.listed_sender.clone());
                    let (grant, end) = (grant.clone(), self.sweeping.clone());
                    tokio::spawn(async move {
                        list(Arc::clone(&context), Arc::clone(&runtime), None, grant.clone(), listed).await;
                        sweep::run(context, runtime, grant, end).await;
                    });
                }
            }
        }
        // Those who may not act any more end.
        self.actors.values().for_each(|actor| actor.tell(Input::Look));
        self.look_at_all();
    }

    /// Of services that wait for that runtime's word: what it tells of all covers them.
    fn no_longer_waits_for(&mut self, runtime: &RuntimeName) {
        self.recovering.retain(|_, waited_for| {
            waited_for.remove(runtime);
            !waited_for.is_empty()
        });
    }

    async fn step_down(&mut self) {
        self.stepped_down = true;
        // Nothing of it begins anew from here on.
        self.take_posts();
        let leads = |actor: &&ActorHandle| actor.post == Post::Leader;
        self.actors.values().filter(leads).for_each(|actor| actor.tell(Input::Detach));
        while self.actors.values().any(|actor| actor.post == Post::Leader) {
            let Some(ended) = self.tasks.join_next_with_id().await else { break };
            self.actor_ended(ended);
        }
    }

    fn hear(&mut self, found: Listed) {
        if self.grant_for(&found.runtime) != Some(&found.grant) {
            return;
        }
        let Some(running) = found.running else {
            if found.of.is_none() {
                self.away.insert(found.runtime);
            }
            return;
        };
        match found.of {
            None => drop(self.listed.insert(found.runtime.clone(), found.grant)),
            Some(service) => {
                if let Some(waited_for) = self.recovering.get_mut(&service) {
                    waited_for.remove(&found.runtime);
                    if waited_for.is_empty() {
                        self.recovering.remove(&service);
                    }
                }
            }
        }
        self.running.entry(found.runtime).or_default().extend(running);
    }

    /// An actor is no more: because nothing is left to do, which may have changed meanwhile, because it may not act any more,
    /// or because it panicked.
    fn actor_ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, Ok(ended)),
            Err(error) => (error.id(), Err(error)),
        };
        let Some(name) = self.actors.iter().find(|(_, actor)| actor.task.id() == id).map(|(name, _)| name.clone())
        else {
            return;
        };
        self.actors.remove(&name);
        match ended {
            // With the post, what was told of running instances is gone: nothing begins with less than all of it.
            Ok(Ended::Done | Ended::Deposed) => self.look_at(&name),
            Ok(Ended::Reseated) => self.take_up_anew(&name),
            Err(error) => {
                tracing::error!(service = %name, %error, "its supervision failed, which is a defect; taking it up anew");
                self.take_up_anew(&name);
            }
        }
    }

    /// Makes an actor anew once its runtimes have told what they run of its service, as when coredinator starts.
    fn take_up_anew(&mut self, name: &ServiceName) {
        let runtimes: Vec<_> = self.context.runtimes.iter().map(Arc::clone).collect();
        let asked: Vec<_> = runtimes
            .into_iter()
            .filter_map(|runtime| Some((self.grant_for(&runtime.name())?.clone(), runtime)))
            .collect();
        self.recovering.insert(name.clone(), asked.iter().map(|(_, runtime)| runtime.name()).collect());
        for (grant, runtime) in asked {
            let (context, listed, name) = (Arc::clone(&self.context), self.listed_sender.clone(), name.clone());
            tokio::spawn(async move {
                // What was being written and started at that moment comes to its end first.
                tokio::time::sleep(RECOVERY).await;
                list(context, runtime, Some(name), grant, listed).await;
            });
        }
    }

    /// Whether some runtime has yet to tell what runs. One that is away counts only where a service needs it, and one whose
    /// instances others look after does not.
    fn is_waiting(&self) -> bool {
        self.context.runtimes.iter().map(|runtime| runtime.name()).any(|name| {
            self.grant_for(&name).is_some()
                && !self.listed.contains_key(&name)
                && (!self.away.contains(&name) || is_used(&self.context.registry, &name))
        })
    }

    /// Waits until every runtime has told what runs: what an earlier coredinator left running is to be stopped too.
    async fn hear_all(&mut self, listed: &mut mpsc::UnboundedReceiver<Listed>, force: &CancellationToken) {
        let deadline = tokio::time::Instant::now() + LISTING;
        while self.is_waiting() {
            tokio::select! {
                Some(found) = listed.recv() => self.hear(found),
                () = force.cancelled() => return,
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!("a runtime does not tell what runs; what it runs is left to the next coredinator");
                    return;
                }
            }
        }
    }

    fn look_at_all(&mut self) {
        for view in self.context.registry.services() {
            self.look_at(view.name());
        }
        let all = !self.is_waiting();
        self.adopted.send_if_modified(|adopted| std::mem::replace(adopted, all) != all);
    }

    /// Something about a service has changed: its actor looks again, and those of its dependents.
    fn look_at(&mut self, name: &ServiceName) {
        self.note_dependencies(name);
        if !self.actors.contains_key(name) {
            self.begin(name, Mode::Run);
        }
        let dependents = self.dependents.get(name).into_iter().flatten();
        for looking in dependents.chain([name]) {
            if let Some(actor) = self.actors.get(looking) {
                actor.tell(Input::Look);
            }
        }
    }

    /// Makes the actor of a service that is managed, or was when something of it was started, and is this replica's to look
    /// after, once every runtime that may run something of it has told what runs.
    fn begin(&mut self, name: &ServiceName, mode: Mode) {
        let Ok(view) = self.context.registry.service(name.as_str()) else { return };
        if self.recovering.contains_key(name) || !concerns(&view) {
            return;
        }
        let Some(duty) = self.context.registry.place().duty(&view) else { return };
        let Some(grant) = self.grants.get(&duty.post).cloned() else { return };
        let told = |runtime: &RuntimeName| match self.grant_for(runtime) {
            Some(grant) => self.listed.get(runtime) == Some(grant) || self.context.runtimes.get(runtime).is_none(),
            // Nothing of it that lives is this replica's.
            None => true,
        };
        let mut runtimes = view.instances.iter().map(|i| &i.record.runtime).chain(&view.record.spec.runtime);
        if !runtimes.all(told) {
            return;
        }
        let records: Vec<InstanceRecord> = view.instances.iter().map(|i| i.record.as_ref().clone()).collect();
        let found = |record: &InstanceRecord| {
            let of_runtime = self.running.get_mut(&record.runtime)?;
            Some((record.replica, of_runtime.remove(&(name.clone(), record.replica))?))
        };
        let running = records.iter().filter_map(found).collect();
        let beginning = Beginning { records, running, mode, duty, grant };
        let actor = Actor::spawn(Arc::clone(&self.context), name.clone(), beginning, &mut self.tasks);
        self.actors.insert(name.clone(), actor);
    }

    fn note_dependencies(&mut self, name: &ServiceName) {
        let view = self.context.registry.service(name.as_str()).ok();
        let now: BTreeSet<ServiceName> =
            view.map(|view| view.record.spec.depends_on.keys().cloned().collect()).unwrap_or_default();
        let before = self.depends.get(name).cloned().unwrap_or_default();
        for gone in before.difference(&now) {
            if let Some(of) = self.dependents.get_mut(gone) {
                of.remove(name);
            }
        }
        for new in now.difference(&before) {
            self.dependents.entry(new.clone()).or_default().insert(name.clone());
        }
        if now.is_empty() {
            self.depends.remove(name)
        } else {
            self.depends.insert(name.clone(), now)
        };
    }

    /// Stops all services, dependents first, those of one wave side by side.
    async fn stop_services(&mut self, force: CancellationToken, changes: &mut mpsc::UnboundedReceiver<ServiceName>) {
        let services = self.context.registry.services();
        // What another replica can look after goes on.
        let place = self.place();
        let ends = |post: Post| place.is_sole() || post == Post::Node;
        let of_here = |view: &ServiceView| concerns(view) && place.duty(view).is_some_and(|duty| ends(duty.post));
        let declared = services.iter().filter(|view| of_here(view)).map(|view| view.name().clone());
        let acting = self.actors.iter().filter(|(_, actor)| ends(actor.post)).map(|(name, _)| name.clone());
        let names: BTreeSet<ServiceName> = acting.chain(declared).collect();
        let edges = names.iter().map(|name| (name.clone(), self.depends.get(name).cloned().unwrap_or_default()));
        // Cycles are refused at registration; without an order everything stops at once.
        let waves = DependencyGraph::new(edges).waves().unwrap_or_else(|_| vec![names.into_iter().collect()]);
        // Once for all waves: who asked twice does not want to wait for each of them.
        let mut give_up = None;
        for wave in waves.into_iter().rev() {
            for name in &wave {
                if !self.actors.contains_key(name) {
                    self.begin(name, Mode::ShutDown);
                }
            }
            let actors: Vec<&ActorHandle> = wave.iter().filter_map(|name| self.actors.get(name)).collect();
            for actor in &actors {
                actor.tell(Input::Mode(Mode::ShutDown));
            }
            let quiet = futures_util::future::join_all(actors.iter().map(|actor| {
                let mut quiet = actor.quiet.clone();
                async move {
                    // An error says that the actor has ended, and with it everything of its service.
                    let _ = quiet.wait_for(|mode| mode.is_some_and(|mode| mode > Mode::Run)).await;
                }
            }));
            tokio::pin!(quiet);
            loop {
                tokio::select! {
                    _ = &mut quiet => break,
                    () = force.cancelled(), if give_up.is_none() => {
                        give_up = Some(tokio::time::Instant::now() + LAST_RESORT);
                        let ending = self.actors.values().filter(|actor| ends(actor.post));
                        ending.for_each(|actor| actor.tell(Input::Mode(Mode::Kill)));
                    }
                    () = sleep_until(give_up) => {
                        tracing::error!("a runtime does not end what it runs; that is left to the next coredinator");
                        return;
                    }
                    // Nothing new begins; what changes is told to those who still stop.
                    Some(name) = changes.recv() => {
                        if let Some(actor) = self.actors.get(&name) {
                            actor.tell(Input::Look);
                        }
                    }
                }
            }
        }
    }

    async fn end_actors(&mut self) {
        let actors = std::mem::take(&mut self.actors);
        actors.values().for_each(|actor| actor.tell(Input::Detach));
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "the supervision of a service ended badly");
            }
        }
    }
}
