//! How an orderly end stops what runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use coredinator_core::{DependencyGraph, ServiceName};
use coredinator_registry::{ServiceView, leadership::Post};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    dispatcher::{Dispatcher, concerns},
    listing::Listed,
};
use crate::{
    actor::{ActorHandle, Input},
    machine::Mode,
};

/// How long a shutdown waits for runtimes that have not told yet what runs.
const LISTING: Duration = Duration::from_secs(10);
/// How long a shutdown that kills waits for runtimes that do not answer.
const LAST_RESORT: Duration = Duration::from_secs(10);
/// How often a service is taken up anew whose actor ends badly while it stops it.
const TRIES: u32 = 3;

/// What a shutdown goes on hearing of.
pub(super) struct News<'a> {
    pub(super) changes: &'a mut mpsc::UnboundedReceiver<ServiceName>,
    pub(super) listed: &'a mut mpsc::UnboundedReceiver<Listed>,
    pub(super) force: CancellationToken,
}

/// How far an end has come.
#[derive(Default)]
struct Stopping {
    mode: Mode,
    /// When to give up. Once for all waves: who asked twice does not want to wait for each of them.
    give_up: Option<Instant>,
    /// Which services of the wave may still run.
    open: BTreeSet<ServiceName>,
    /// Tell which service of the wave is quiet; `None`: its actor has ended, which is told elsewhere.
    quiet: FuturesUnordered<BoxFuture<'static, Option<ServiceName>>>,
    /// How often each was taken up anew.
    tries: BTreeMap<ServiceName, u32>,
}

impl Stopping {
    /// Has an actor stop its service, and hears when it has.
    fn stop(&mut self, name: &ServiceName, actor: &ActorHandle) {
        actor.tell(Input::Mode(self.mode));
        let (mut quiet, name) = (actor.quiet.clone(), name.clone());
        self.quiet.push(Box::pin(async move {
            let is_quiet = quiet.wait_for(|mode| mode.is_some_and(|mode| mode > Mode::Run)).await.is_ok();
            is_quiet.then_some(name)
        }));
    }
}

impl Dispatcher {
    /// Waits until every runtime has told what runs: what an earlier coredinator left running is to be stopped too.
    pub(super) async fn hear_all(&mut self, news: &mut News<'_>) {
        let deadline = Instant::now() + LISTING;
        while self.is_waiting() {
            tokio::select! {
                Some(found) = news.listed.recv() => self.hear(found),
                () = news.force.cancelled() => return,
                () = tokio::time::sleep_until(deadline) => {
                    tracing::warn!("a runtime does not tell what runs; what it runs is left to the next coredinator");
                    return;
                }
            }
        }
    }

    /// Stops all services, dependents first, those of one wave side by side.
    pub(super) async fn stop_services(&mut self, mut news: News<'_>) {
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
        let waves = DependencyGraph::new(edges).waves().unwrap_or_else(|_| vec![names.iter().cloned().collect()]);
        let mut stopping = Stopping { mode: Mode::ShutDown, ..Stopping::default() };
        for wave in waves.into_iter().rev() {
            if !self.stop_wave(wave, &mut stopping, &mut news).await {
                tracing::error!("a runtime does not end what it runs; that is left to the next coredinator");
                break;
            }
        }
        let why = match place.tenure(Post::Node).grant() {
            Some(_) => "it could not be stopped, and is left to the next coredinator",
            None => "nothing is stopped while this replica may not act",
        };
        for name in names.iter().filter(|name| !self.is_stopped(name) && self.is_live(name)) {
            tracing::warn!(service = %name, "it goes on: {why}");
        }
    }

    /// Answers when nothing of a wave runs any more, or nothing can be done about it; `false`: in haste, and too late.
    async fn stop_wave(&mut self, wave: Vec<ServiceName>, stopping: &mut Stopping, news: &mut News<'_>) -> bool {
        stopping.open = wave.iter().cloned().collect();
        stopping.quiet.clear();
        for name in &wave {
            self.stop_service(name, stopping);
        }
        while !stopping.open.is_empty() {
            let recovering =
                stopping.open.iter().filter_map(|name| self.recovering.get(name)?.since.checked_add(LISTING));
            let recovered = recovering.min();
            tokio::select! {
                Some(quiet) = stopping.quiet.next() => {
                    if let Some(name) = quiet {
                        stopping.open.remove(&name);
                    }
                }
                // What lives of it is not stopped by that.
                Some(ended) = self.tasks.join_next_with_id() => {
                    let Some((name, anew)) = self.take_off(ended) else { continue };
                    let tries = stopping.tries.entry(name.clone()).or_default();
                    *tries += u32::from(anew);
                    // Of a later wave, too: it may not begin with less than all that runs of it.
                    if anew && *tries <= TRIES {
                        self.take_up_anew(&name);
                    }
                    if !self.recovering.contains_key(&name) {
                        stopping.open.remove(&name);
                    }
                }
                Some(found) = news.listed.recv() => {
                    self.hear(found);
                    for name in &wave {
                        if stopping.open.contains(name) && !self.actors.contains_key(name) {
                            self.stop_service(name, stopping);
                        }
                    }
                }
                () = sleep_until(recovered) => {
                    let late = |name: &ServiceName| {
                        self.recovering.get(name).is_some_and(|recovery| recovery.since.elapsed() >= LISTING)
                    };
                    stopping.open.retain(|name| !late(name));
                }
                () = news.force.cancelled(), if stopping.give_up.is_none() => {
                    stopping.give_up = Some(Instant::now() + LAST_RESORT);
                    stopping.mode = Mode::Kill;
                    let place = self.place();
                    let ending = self.actors.values().filter(|actor| place.is_sole() || actor.post == Post::Node);
                    ending.for_each(|actor| actor.tell(Input::Mode(Mode::Kill)));
                }
                () = sleep_until(stopping.give_up) => return false,
                // Nothing new begins; what changes is told to those who still stop.
                Some(name) = news.changes.recv() => {
                    if let Some(actor) = self.actors.get(&name) {
                        actor.tell(Input::Look);
                    }
                }
            }
        }
        true
    }

    /// Has a service of the wave stopped, by an actor that is made for it if it has none; it stays open as long as that may come
    /// to be.
    fn stop_service(&mut self, name: &ServiceName, stopping: &mut Stopping) {
        if !self.actors.contains_key(name) {
            self.begin(name, stopping.mode);
        }
        if let Some(actor) = self.actors.get(name) {
            stopping.stop(name, actor);
        } else if !self.recovering.contains_key(name) {
            stopping.open.remove(name);
        }
    }

    /// Whether its actor says that nothing of it runs.
    fn is_stopped(&self, name: &ServiceName) -> bool {
        self.actors.get(name).is_some_and(|actor| actor.quiet.borrow().is_some_and(|mode| mode > Mode::Run))
    }

    /// Whether something of it runs, by the records.
    fn is_live(&self, name: &ServiceName) -> bool {
        let view = self.context.registry.service(name.as_str());
        view.is_ok_and(|view| view.instances.iter().any(|instance| instance.record.state.is_live()))
    }
}

/// Waits until then; for ever, if there is no then.
async fn sleep_until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then).await,
        None => std::future::pending().await,
    }
}
