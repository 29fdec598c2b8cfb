//! The one task that makes actors, tells them when to look, and ends them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use coredinator_core::{InstanceRecord, RuntimeName, ServiceName, Started};
use coredinator_registry::{
    ServiceView,
    leadership::{Grant, Place, Post},
};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Command, Shutdown,
    listing::{Asked, Listed, is_used, list, runtimes_of},
    stopping::News,
};
use crate::{
    actor::{Actor, ActorHandle, Beginning, Ended, Input},
    context::Context,
    machine::Mode,
    sweep,
};

/// How long an actor that failed stays away.
const RECOVERY: Duration = Duration::from_secs(1);

/// The one task that makes actors and tells them when to look.
pub(super) struct Dispatcher {
    pub(super) context: Arc<Context>,
    pub(super) actors: BTreeMap<ServiceName, ActorHandle>,
    /// The tasks of the actors.
    pub(super) tasks: JoinSet<Ended>,
    /// Services whose actor ended badly, until they have another.
    pub(super) recovering: BTreeMap<ServiceName, Recovery>,
    pub(super) listed_sender: mpsc::UnboundedSender<Listed>,
    /// What each post is held by, as far as that has been acted on.
    pub(super) grants: BTreeMap<Post, Grant>,
    /// What the leader does is no longer done.
    pub(super) stepped_down: bool,
    /// Which runtimes have told what runs, and what they were asked by.
    pub(super) listed: BTreeMap<RuntimeName, Grant>,
    /// Which of the others could not, when they were asked first.
    pub(super) away: BTreeSet<RuntimeName>,
    /// What they told, until an actor takes it up.
    pub(super) running: BTreeMap<RuntimeName, BTreeMap<(ServiceName, u32), Started>>,
    /// Who is to look when a service changes.
    pub(super) dependents: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    pub(super) depends: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    pub(super) adopted: watch::Sender<bool>,
    /// Ends those who look for what is left behind.
    pub(super) sweeping: CancellationToken,
    pub(super) _sweeping: DropGuard,
}

/// A service whose actor ended badly: its runtimes are asked what they run of it.
pub(super) struct Recovery {
    /// Which have yet to tell.
    waited_for: BTreeSet<RuntimeName>,
    /// Some runtime has told, or said that it cannot. What was under way when the actor ended has come to its end by then.
    heard: bool,
    pub(super) since: Instant,
    /// Ends the asking.
    _asking: DropGuard,
}

impl Recovery {
    /// Whether an actor would begin with less than all there is. A runtime that is away counts only where the service needs it,
    /// as when coredinator starts; which that are is asked each time, as what overtook the actor may have changed it.
    fn is_open(&self, view: &ServiceView) -> bool {
        !self.heard || runtimes_of(view).any(|runtime| self.waited_for.contains(runtime))
    }
}

impl Dispatcher {
    pub(super) async fn run(
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
                        let mut news = News { changes: &mut changes, listed: &mut listed, force };
                        self.hear_all(&mut news).await;
                        self.stop_services(news).await;
                    }
                    self.end_actors().await;
                    let _ = done.send(());
                    return;
                }
            }
        }
    }

    pub(super) fn place(&self) -> Place {
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
                        list(Arc::clone(&context), Arc::clone(&runtime), Asked::All, grant.clone(), listed).await;
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
        self.recovering.retain(|_, recovery| {
            recovery.waited_for.remove(runtime);
            !recovery.waited_for.is_empty()
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

    pub(super) fn hear(&mut self, found: Listed) {
        if self.grant_for(&found.runtime) != Some(&found.grant) {
            return;
        }
        match (&found.of, found.running) {
            (Asked::All, None) => drop(self.away.insert(found.runtime)),
            (Asked::All, Some(running)) => {
                self.listed.insert(found.runtime.clone(), found.grant);
                self.running.entry(found.runtime).or_default().extend(running);
            }
            // It was taken up without this runtime's word, and what it said is older than what has happened since.
            (Asked::Of { end, .. }, _) if end.is_cancelled() => {}
            (Asked::Of { service, .. }, running) => {
                let Some(recovery) = self.recovering.get_mut(service) else { return };
                recovery.heard = true;
                if let Some(running) = running {
                    recovery.waited_for.remove(&found.runtime);
                    if recovery.waited_for.is_empty() {
                        self.recovering.remove(service);
                    }
                    self.running.entry(found.runtime).or_default().extend(running);
                }
            }
        }
    }

    /// An actor is no more: because nothing is left to do, which may have changed meanwhile, because it may not act any more,
    /// or because it panicked.
    fn actor_ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        match self.take_off(ended) {
            Some((name, true)) => self.take_up_anew(&name),
            // With the post, what was told of running instances is gone: nothing begins with less than all of it.
            Some((name, false)) => self.look_at(&name),
            None => {}
        }
    }

    /// Strikes off an actor that has ended, and answers whose it was, and whether something of the service may be left that
    /// nobody looks after now.
    pub(super) fn take_off(&mut self, ended: Result<(Id, Ended), JoinError>) -> Option<(ServiceName, bool)> {
        let (id, ended) = match ended {
            Ok((id, ended)) => (id, Ok(ended)),
            Err(error) => (error.id(), Err(error)),
        };
        let name = self.actors.iter().find(|(_, actor)| actor.task.id() == id).map(|(name, _)| name.clone())?;
        self.actors.remove(&name);
        let anew = match ended {
            Ok(Ended::Done | Ended::Deposed) => false,
            Ok(Ended::Reseated | Ended::Overtaken) => true,
            Err(error) => {
                tracing::error!(service = %name, %error, "its supervision failed, which is a defect; taking it up anew");
                true
            }
        };
        Some((name, anew))
    }

    /// Makes an actor anew once its runtimes have told what they run of its service, as when coredinator starts.
    pub(super) fn take_up_anew(&mut self, name: &ServiceName) {
        let runtimes: Vec<_> = self.context.runtimes.iter().map(Arc::clone).collect();
        let asked: Vec<_> = runtimes
            .into_iter()
            .filter_map(|runtime| Some((self.grant_for(&runtime.name())?.clone(), runtime)))
            .collect();
        if asked.is_empty() {
            // Nothing is this replica's to look after. With a post, all runtimes of it are asked.
            return;
        }
        let end = CancellationToken::new();
        let waited_for = asked.iter().map(|(_, runtime)| runtime.name()).collect();
        let (since, asking) = (Instant::now(), end.clone().drop_guard());
        let recovery = Recovery { waited_for, heard: false, since, _asking: asking };
        self.recovering.insert(name.clone(), recovery);
        for (grant, runtime) in asked {
            let (context, listed) = (Arc::clone(&self.context), self.listed_sender.clone());
            let (of, end) = (Asked::Of { service: name.clone(), end: end.clone() }, end.clone());
            tokio::spawn(end.run_until_cancelled_owned(async move {
                // What was being written and started at that moment comes to its end first.
                tokio::time::sleep(RECOVERY).await;
                list(context, runtime, of, grant, listed).await;
            }));
        }
    }

    /// Whether some runtime has yet to tell what runs. One that is away counts only where a service needs it, and one whose
    /// instances others look after does not.
    pub(super) fn is_waiting(&self) -> bool {
        self.context.runtimes.iter().map(|runtime| runtime.name()).any(|name| {
            self.grant_for(&name).is_some()
                && !self.listed.contains_key(&name)
                && (!self.away.contains(&name) || is_used(&self.context.registry, &name))
        })
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
    pub(super) fn begin(&mut self, name: &ServiceName, mode: Mode) {
        let Ok(view) = self.context.registry.service(name.as_str()) else { return };
        if self.recovering.get(name).is_some_and(|recovery| recovery.is_open(&view)) || !concerns(&view) {
            return;
        }
        let Some(duty) = self.context.registry.place().duty(&view) else { return };
        let Some(grant) = self.grants.get(&duty.post).cloned() else { return };
        let told = |runtime: &RuntimeName| match self.grant_for(runtime) {
            Some(grant) => self.listed.get(runtime) == Some(grant) || self.context.runtimes.get(runtime).is_none(),
            // Nothing of it that lives is this replica's.
            None => true,
        };
        if !runtimes_of(&view).all(told) {
            return;
        }
        self.recovering.remove(name);
        let records: Vec<InstanceRecord> = view.instances.iter().map(|i| i.record.as_ref().clone()).collect();
        let found = |record: &InstanceRecord| {
            let of_runtime = self.running.get_mut(&record.runtime)?;
            Some((record.replica, of_runtime.remove(&(name.clone(), record.replica))?))
        };
        let running = records.iter().filter_map(found).collect();
        let stored = view.written.as_ref().clone();
        let rollout = view.rollout.as_ref().clone();
        let beginning = Beginning { records, rollout, stored, running, mode, duty, grant };
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

/// Whether there is anything to supervise: a managed service, or what is left of one that is external by now.
pub(super) fn concerns(view: &ServiceView) -> bool {
    view.record.spec.is_managed() || !view.instances.is_empty()
}
