//! A lease, as those see it who act by it.

use std::{fmt, sync::Arc, time::Instant};

use coredinator_core::{Epoch, Fence};
use tokio::sync::{Notify, watch};

/// What somebody acts by: a lease held under one epoch, or nothing where nobody else could act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant(Option<Fence>);

impl Grant {
    /// Written with everything that is stored by it, so that the store refuses what comes too late.
    #[must_use]
    pub fn fence(&self) -> Option<&Fence> {
        self.0.as_ref()
    }

    /// The epoch; 0 without a lease.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.0.as_ref().map_or(Epoch::ZERO, |fence| fence.epoch)
    }
}

/// Whether and how a lease is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) grant: Option<Grant>,
    /// Until when, for certain; `None`: for ever.
    pub(super) until: Option<Instant>,
    /// Why it is not held.
    pub(super) why: String,
}

/// A right to act that can end at any moment. Cheap to clone.
///
/// To be asked immediately before every act: the answer is by this process' monotonic clock, so that who was stopped for a
/// while (or cut off from the store) knows that its time is over before anybody tells it.
#[derive(Clone)]
pub struct Tenure(Arc<Inner>);

struct Inner {
    lease: String,
    held: watch::Sender<Held>,
    doubt: Notify,
}

impl Tenure {
    /// One that is not held yet.
    pub(super) fn of(lease: &str) -> Self {
        let held = Held { grant: None, until: None, why: "it has just begun".to_owned() };
        Self(Arc::new(Inner { lease: lease.to_owned(), held: watch::Sender::new(held), doubt: Notify::new() }))
    }

    /// One that is always held, without any lease: for who is certain to be alone.
    #[must_use]
    pub fn unquestioned() -> Self {
        let tenure = Self::of("");
        tenure.0.held.send_modify(|held| held.grant = Some(Grant(None)));
        tenure
    }

    /// What to act by at this moment.
    #[must_use]
    pub fn grant(&self) -> Option<Grant> {
        let held = self.0.held.borrow();
        let lasts = held.until.is_none_or(|until| tokio::time::Instant::now().into_std() < until);
        held.grant.clone().filter(|_| lasts)
    }

    /// Whether `grant` is still what to act by.
    #[must_use]
    pub fn holds(&self, grant: &Grant) -> bool {
        self.grant().as_ref() == Some(grant)
    }

    /// Why nobody may act by it here, while that is so.
    #[must_use]
    pub fn why_not(&self) -> String {
        let held = self.0.held.borrow();
        if held.grant.is_some() { "it could not be renewed in time".to_owned() } else { held.why.clone() }
    }

    /// Told at every gain and loss. Level-triggered use: it says "look again".
    #[must_use]
    pub fn changes(&self) -> TenureChanges {
        TenureChanges(self.0.held.subscribe())
    }

    /// The store has refused a write under it: somebody else may hold it.
    pub fn doubt(&self) {
        self.0.doubt.notify_one();
    }

    pub(super) async fn doubted(&self) {
        self.0.doubt.notified().await;
    }

    pub(super) fn gained(&self, epoch: Epoch, until: Option<Instant>) {
        let fence = Fence { lease: self.0.lease.clone(), epoch };
        self.0.held.send_replace(Held { grant: Some(Grant(Some(fence))), until, why: String::new() });
    }

    pub(super) fn prolonged(&self, until: Option<Instant>) {
        // Not told: nothing has changed for those who act by it.
        self.0.held.send_if_modified(|held| {
            held.until = until;
            false
        });
    }

    pub(super) fn lost(&self, why: &str) {
        self.0.held.send_if_modified(|held| {
            why.clone_into(&mut held.why);
            held.grant.take().is_some()
        });
    }
}

impl fmt::Debug for Tenure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenure").field("lease", &self.0.lease).field("held", &*self.0.held.borrow()).finish()
    }
}

/// The gains and losses of a [`Tenure`].
#[derive(Debug, Clone)]
pub struct TenureChanges(watch::Receiver<Held>);

impl TenureChanges {
    /// Waits for the next one; those that came since the last call count. Never, once the tenure is gone. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
