//! The one task that keeps a lease: asks the store what the election says, and tells those who act by the lease.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use coredinator_core::{Epoch, Lease, LeaseOperation, Store, StoreError};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    LeaseTiming,
    election::{Ask, Election, Next, Turn},
    tenure::Tenure,
};

/// How long giving a lease back may take; it runs out by itself otherwise.
const GIVING_BACK: Duration = Duration::from_secs(2);

/// A lease as it was heard of last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sight {
    /// `None`: nothing was heard yet.
    pub(super) lease: Option<Lease>,
    /// When the store answered last.
    pub(super) heard: Option<Instant>,
    /// Somebody else holds it, and was seen to prolong it.
    pub(super) lives: bool,
    /// Why the store did not answer when it was asked last.
    pub(super) trouble: Option<String>,
}

pub(super) struct KeeperOptions {
    pub(super) store: Arc<dyn Store>,
    pub(super) lease: String,
    /// Who this is: the same after a restart, and nobody else's.
    pub(super) holder: String,
    pub(super) timing: LeaseTiming,
    pub(super) sole: bool,
    /// Epochs are above this.
    pub(super) above: Epoch,
}

/// The handle of the task.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) tenure: Tenure,
    pub(super) sight: watch::Receiver<Sight>,
    wake: Arc<Notify>,
    retire: CancellationToken,
    task: tokio::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Keeper {
    /// Starts to run for the lease, on the current tokio runtime.
    pub(super) fn start(options: KeeperOptions) -> Self {
        let tenure = Tenure::of(&options.lease);
        let (sender, sight) = watch::channel(Sight::default());
        let (wake, retire) = (Arc::new(Notify::new()), CancellationToken::new());
        let KeeperOptions { store, lease, holder, timing, sole, above } = options;
        let election = Election::new(holder.clone(), timing, sole, above, now());
        let task = Task {
            store,
            lease,
            holder,
            timing,
            election,
            tenure: tenure.clone(),
            sight: sender,
            wake: Arc::clone(&wake),
            retire: retire.clone(),
        };
        let task = tokio::sync::Mutex::new(Some(tokio::spawn(task.run())));
        Self { tenure, sight, wake, retire, task }
    }

    /// The lease may stand differently now: has it looked at at once.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Runs for the lease no longer, and gives it back if it is held.
    pub(super) async fn retire(&self) {
        self.retire.cancel();
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            tracing::error!(%error, "keeping a lease ended badly");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.retire.cancel();
    }
}

struct Task {
    store: Arc<dyn Store>,
    lease: String,
    holder: String,
    timing: LeaseTiming,
    election: Election,
    tenure: Tenure,
    sight: watch::Sender<Sight>,
    wake: Arc<Notify>,
    retire: CancellationToken,
}

impl Task {
    async fn run(mut self) {
        while !self.retire.is_cancelled() {
            let lapsed = self.election.lapse(now());
            self.turned(lapsed);
            match self.election.next(now()) {
                Next::Wait(until) => tokio::select! {
                    () = self.retire.cancelled() => {}
                    () = self.wake.notified() => self.election.wake(now()),
                    () = self.tenure.doubted() => {
                        let turn = self.election.doubt(now());
                        self.turned(turn);
                    }
                    () = sleep_until(until) => {}
                },
                Next::Ask(ask, until) => self.ask(&ask, until).await,
            }
        }
        if let Some(epoch) = self.election.retire() {
            // First of all nobody acts by it any more.
            self.tenure.lost("it was given back");
            let release = self.store.lease(&self.lease, &self.holder, LeaseOperation::Release { epoch });
            match tokio::time::timeout(GIVING_BACK, release).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(lease = self.lease, %error, "it could not be given back"),
                Err(_) => tracing::warn!(lease = self.lease, "it could not be given back in time"),
            }
        }
    }

    async fn ask(&mut self, ask: &Ask, until: Instant) {
        let ttl = self.timing.lease;
        let operation = match ask {
            Ask::Inspect => LeaseOperation::Inspect,
            Ask::Take(seen) => LeaseOperation::Take {
                epoch: seen.epoch,
                expires_at: seen.expires_at,
                above: self.election.above(),
                ttl,
            },
            Ask::Renew(epoch) => LeaseOperation::Renew { epoch: *epoch, ttl },
        };
        let asked = now();
        let answer = self.store.lease(&self.lease, &self.holder, operation);
        let answer = tokio::time::timeout_at(until.into(), answer).await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable { message: "it did not answer in time".to_owned(), source: None })
        });
        if let Err(error) = &answer {
            tracing::debug!(lease = self.lease, ?ask, %error, "the store did not do as it was asked");
        }
        let heard = now();
        let told = match &answer {
            Ok(lease) | Err(StoreError::LeaseHeld(lease)) => Ok(lease.clone()),
            Err(error) => Err(error.to_string()),
        };
        let turn = self.election.answered(ask, asked, answer, heard);
        let lives = self.election.seen().is_some_and(|seen| seen.lives);
        // Those who act by it first: who looks at this may ask whether it is held.
        self.turned(turn);
        match told {
            Ok(lease) => {
                self.sight.send_replace(Sight { lease: Some(lease), heard: Some(heard), lives, trouble: None });
            }
            Err(trouble) => self.sight.send_modify(|sight| sight.trouble = Some(trouble)),
        }
    }

    /// Tells what has changed, if anything has.
    fn turned(&self, turn: Option<Turn>) {
        match (turn, self.election.held()) {
            (Some(Turn::Gained(epoch)), held) => self.tenure.gained(epoch, held.and_then(|(_, until)| until)),
            (Some(Turn::Lost(why)), _) => self.tenure.lost(&why),
            (None, Some((_, until))) => self.tenure.prolonged(until),
            (None, None) => {}
        }
    }
}

/// The monotonic clock.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(then: Option<Instant>) {
    match then {
        Some(then) => tokio::time::sleep_until(then.into()).await,
        None => std::future::pending().await,
    }
}
