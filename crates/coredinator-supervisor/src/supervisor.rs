//! The supervisor: one actor per managed service, made when it is declared, told when something changes.

mod dispatcher;
mod listing;
mod stopping;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dispatcher::Dispatcher;
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::context::{Context, SupervisorOptions};

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
/// ([`Registry::place`](coredinator_registry::Registry::place)).
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
