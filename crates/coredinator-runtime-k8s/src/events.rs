//! The watch on our pods, one for each namespace: what is seen is kept, and who listens is told where to look again.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coredinator_core::{Exit, InstanceId, Timestamp};
use futures_util::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::{
    sync::broadcast,
    task::JoinHandle,
    time::{self, Instant},
};
use tracing::{debug, info, warn};

use crate::{
    engine::{Engine, Trouble, judge},
    labels,
    rbac::Call,
    state::{self, Found, State},
};

/// The pause after a watch that broke, and the longest one.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long one watch lasts before the next takes over where it ended, in seconds; a connection that is dead without a word is
/// found out soon after.
const WATCH_SECONDS: u32 = 60;
/// How many hints whoever listens may be late by. One that is later looks at everything.
const BACKLOG: usize = 1024;
/// How many ends are remembered of pods that are no more.
const REMEMBERED: usize = 4096;

/// Where something happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Anywhere: the watch was broken, or has just begun.
    Everywhere,
    /// With one instance.
    Instance { id: String, service: String },
}

/// What is known of an instance.
#[derive(Debug, Clone)]
pub(crate) enum Look {
    /// Its pod, as it was seen last; to be looked at again at `due` in any case.
    Seen { found: Box<Found>, due: Option<Instant> },
    /// Its pod is no more, and this is how it ended.
    Gone(Exit),
    /// Nothing was seen of it.
    Unseen,
}

/// A pod, and since when it has been seen to be ending.
#[derive(Debug)]
struct Seen {
    found: Found,
    ending_since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Kept {
    pods: HashMap<InstanceId, Seen>,
    gone: HashMap<InstanceId, Exit>,
    /// Those whose end coredinator has asked for.
    asked: HashSet<InstanceId>,
    order: VecDeque<InstanceId>,
}

/// Watches from the first who wants to hear to the end of the runtime.
#[derive(Debug)]
pub(crate) struct Events {
    seen: Arc<Sight>,
    tasks: Mutex<HashMap<String, JoinHandle<()>>>,
}

/// What the watches fill and everybody looks at.
#[derive(Debug)]
struct Sight {
    engine: Engine,
    hints: broadcast::Sender<Hint>,
    kept: Mutex<Kept>,
}

impl Events {
    pub(crate) fn new(engine: Engine) -> Self {
        let seen = Sight { engine, hints: broadcast::Sender::new(BACKLOG), kept: Mutex::default() };
        Self { seen: Arc::new(seen), tasks: Mutex::default() }
    }

    /// Hints from now on.
    pub(crate) fn hints(&self) -> Hints {
        Hints(self.seen.hints.subscribe())
    }

    /// Sees to it that a namespace is watched.
    pub(crate) fn cover(&self, namespace: &str) {
        self.seen.engine.learn(namespace);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if tasks.get(namespace).is_none_or(JoinHandle::is_finished) {
            let task = tokio::spawn(listen(Arc::clone(&self.seen), namespace.to_owned()));
            tasks.insert(namespace.to_owned(), task);
        }
    }

    /// What is known of an instance.
    pub(crate) fn look(&self, id: &InstanceId) -> Look {
        self.seen.look(id)
    }

    /// Takes note of what a call answered, where the watch has told nothing yet: what it tells is newer.
    pub(crate) fn note(&self, found: Found) {
        let mut kept = self.seen.kept();
        let id = &found.tags.id;
        if !kept.pods.contains_key(id) && !kept.gone.contains_key(id) {
            kept.put(found);
        }
    }

    /// Takes note that coredinator itself ends an instance: that its pod is deleted is no news then.
    pub(crate) fn note_asked(&self, id: &InstanceId) {
        self.seen.kept().asked.insert(id.clone());
    }

    /// All pods that are seen.
    pub(crate) fn all(&self) -> Vec<Found> {
        self.seen.kept().pods.values().map(|seen| seen.found.clone()).collect()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        for task in tasks.values() {
            task.abort();
        }
    }
}

impl Sight {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, id: &InstanceId) -> Look {
        let kept = self.kept();
        let asked = kept.asked.contains(id);
        let Some(seen) = kept.pods.get(id) else {
            return kept.gone.get(id).map_or(Look::Unseen, |exit| Look::Gone(as_asked(exit.clone(), asked)));
        };
        let mut found = seen.found.clone();
        if let State::Ended(exit) = found.state {
            found.state = State::Ended(as_asked(exit, asked));
        }
        let due = seen.ending_since.and_then(|since| overdue(&found, since, self.engine.options().lost_after));
        match due {
            Some(due) if due <= Instant::now() => {
                Look::Seen { found: Box::new(found.lost(self.engine.clock())), due: None }
            }
            due => Look::Seen { found: Box::new(found), due },
        }
    }

    /// Nobody may be listening.
    fn hint(&self, hint: Hint) {
        let _ = self.hints.send(hint);
    }

    /// Takes note of what the watch told.
    fn take(&self, event: Event<Pod>, listed: &mut BTreeMap<InstanceId, Found>, namespace: &str) {
        match event {
            Event::Init => listed.clear(),
            Event::InitApply(pod) => {
                if let Some(found) = self.engine.read(&pod) {
                    listed.insert(found.tags.id.clone(), found);
                }
            }
            Event::InitDone => {
                self.relist(std::mem::take(listed), namespace);
                // Whatever happened until now is seen by those who look now; whatever comes after is in the watch.
                self.hint(Hint::Everywhere);
            }
            Event::Apply(pod) => {
                let Some(found) = self.engine.read(&pod) else { return };
                let hint = hint(&found);
                self.kept().put(found);
                self.hint(hint);
            }
            Event::Delete(pod) => {
                let Some(found) = self.engine.read(&pod) else { return };
                let hint = hint(&found);
                let at = self.engine.clock().now();
                {
                    let mut kept = self.kept();
                    let id = found.tags.id.clone();
                    kept.put(found);
                    kept.remove(&id, at);
                }
                self.hint(hint);
            }
        }
    }

    fn relist(&self, listed: BTreeMap<InstanceId, Found>, namespace: &str) {
        let mut kept = self.kept();
        let absent: Vec<InstanceId> = kept
            .pods
            .iter()
            .filter(|(id, seen)| seen.found.namespace == namespace && !listed.contains_key(*id))
            .map(|(id, _)| id.clone())
            .collect();
        for id in absent {
            // It may have been made after the list was: whoever needs to know asks for it.
            let ended = kept.pods.remove(&id).map(|seen| seen.found.state);
            if let Some(State::Ended(exit)) = ended {
                kept.remember(id, exit);
            }
        }
        for found in listed.into_values() {
            kept.put(found);
        }
    }
}

impl Kept {
    fn put(&mut self, found: Found) {
        let id = found.tags.id.clone();
        self.gone.remove(&id);
        let since = self.pods.get(&id).and_then(|seen| seen.ending_since);
        let ending_since = found.ending.map(|_| since.unwrap_or_else(Instant::now));
        self.pods.insert(id, Seen { found, ending_since });
    }

    /// Forgets a pod, and remembers how it ended.
    fn remove(&mut self, id: &InstanceId, at: Timestamp) {
        let Some(seen) = self.pods.remove(id) else { return };
        let exit = match seen.found.state {
            State::Ended(exit) => exit,
            State::Waiting(_) | State::Running => {
                Exit { code: None, signal: None, oom_killed: false, why: Some(state::deleted()), at }
            }
        };
        self.remember(id.clone(), exit);
    }

    fn remember(&mut self, id: InstanceId, exit: Exit) {
        self.gone.insert(id.clone(), exit);
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.gone.remove(&oldest);
            self.asked.remove(&oldest);
        }
    }
}

/// An end, without the reason that coredinator itself deleted the pod.
fn as_asked(exit: Exit, asked: bool) -> Exit {
    let why = exit.why.filter(|why| !asked || *why != state::deleted());
    Exit { why, ..exit }
}

/// When a pod that has been ending since then is held to be lost; `None`: it is none that could be.
fn overdue(found: &Found, since: Instant, lost_after: Duration) -> Option<Instant> {
    let grace = Duration::from_secs(u64::try_from(found.ending?).unwrap_or(0));
    let alive = !matches!(found.state, State::Ended(_));
    // A node that answers says so.
    (alive && !found.ready).then(|| since.checked_add(grace.saturating_add(lost_after)))?
}

fn hint(found: &Found) -> Hint {
    Hint::Instance { id: found.tags.id.to_string(), service: found.tags.service.to_string() }
}

/// What one listener hears.
#[derive(Debug)]
pub(crate) struct Hints(broadcast::Receiver<Hint>);

impl Hints {
    /// Waits until something happened that `concerns` the listener, or may have.
    pub(crate) async fn next(&mut self, concerns: impl Fn(&str, &str) -> bool) {
        loop {
            match self.0.recv().await {
                Ok(Hint::Instance { id, service }) if !concerns(&id, &service) => {}
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The runtime is gone; nobody will look again.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

async fn listen(sight: Arc<Sight>, namespace: String) {
    let mut pause = PAUSE;
    let mut away = false;
    loop {
        let trouble = match sight.engine.api::<Pod>(&namespace).await {
            Ok(api) => {
                let config =
                    watcher::Config::default().labels(&labels::of_owner(sight.engine.owner())).timeout(WATCH_SECONDS);
                let mut events = std::pin::pin!(watcher(api, config));
                let mut listed = BTreeMap::new();
                // It goes on where it broke by itself, and lists anew where that is too long ago; it never ends.
                loop {
                    match events.next().await {
                        Some(Ok(event)) => {
                            if std::mem::take(&mut away) {
                                info!(namespace, "pods are watched again");
                            }
                            pause = PAUSE;
                            sight.take(event, &mut listed, &namespace);
                        }
                        Some(Err(error)) => {
                            tell(&namespace, &trouble(&namespace, &error), &mut away);
                            time::sleep(pause).await;
                            pause = (pause * 2).min(LONGEST_PAUSE);
                            if is_too_old(&error) {
                                break;
                            }
                        }
                        None => break,
                    }
                }
                continue;
            }
            Err(trouble) => trouble,
        };
        tell(&namespace, &trouble, &mut away);
        time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether a watch was refused because it would begin too long ago. Told within a watch the watcher sees to it by itself; told
/// instead of one it would ask for the same again, for ever.
fn is_too_old(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

fn trouble(namespace: &str, error: &watcher::Error) -> Trouble {
    match error {
        watcher::Error::InitialListFailed(error) => judge(Call::LIST_PODS, namespace, "pods", error),
        watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            judge(Call::WATCH_PODS, namespace, "pods", error)
        }
        watcher::Error::WatchError(status) => {
            judge(Call::WATCH_PODS, namespace, "pods", &kube::Error::Api(status.clone()))
        }
        watcher::Error::NoResourceVersion => Trouble::Away("the API server told no version of its pods".to_owned()),
    }
}

/// Says once that the watch is broken. That the past is no longer kept is no news: it is listed anew.
fn tell(namespace: &str, trouble: &Trouble, away: &mut bool) {
    let (Trouble::NotFound(message)
    | Trouble::Conflict(message)
    | Trouble::Refused(_, message)
    | Trouble::Away(message)) = trouble;
    if *away || message.contains(" 410 ") {
        debug!(namespace, message, "the watch on pods is broken");
    } else {
        warn!(namespace, message, "the watch on pods is broken");
        *away = true;
    }
}

#[cfg(test)]
mod tests;
