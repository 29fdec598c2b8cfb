//! Who acts: one replica per node looks after what runs there, and one leader among them after everything else.
//!
//! - [`Leadership`]: one replica's part in it, from joining to leaving. It holds the lease `node/<name>` while it runs, so that
//!   two of one name refuse each other, and runs for the lease `leader`;
//! - [`Tenure`], [`Grant`]: a lease as those see it who act by it. Everything that is written by it carries its epoch, and the
//!   store refuses older ones;
//! - [`Place`]: which services are this replica's to look after, and where the others are.
//!
//! Deciding is pure (`election`, the rules in `place`); `keeper` awaits the store.

mod election;
#[cfg(test)]
mod election_tests;
mod join;
mod keeper;
mod place;
mod replicas;
mod tenure;

use std::time::Duration;

use coredinator_core::FieldError;
use serde::Serialize;

use join::Inner;
pub use join::{JoinError, LEADER, Leadership, LeadershipOptions, NodeIdentity};
pub use place::{Duty, Place, PlaceChanges, Post, Reach, ReplicaStanding, Role, Seat, Standing};
pub use replicas::Replica;
pub use tenure::{Grant, Tenure, TenureChanges};

/// The times by which leases are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LeaseTiming {
    /// How long a lease that is not renewed is left to its holder. A replica that dies is replaced after that.
    #[serde(with = "coredinator_core::duration")]
    pub lease: Duration,
    /// How long a holder that cannot renew goes on to act; less than `lease`.
    #[serde(with = "coredinator_core::duration")]
    pub renew_deadline: Duration,
    /// How often a lease is renewed, or looked at by those who would have it; less than `renew_deadline`.
    #[serde(with = "coredinator_core::duration")]
    pub retry: Duration,
}

impl Default for LeaseTiming {
    /// 15 s, 10 s, 2 s.
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { lease: seconds(15), renew_deadline: seconds(10), retry: seconds(2) }
    }
}

impl LeaseTiming {
    /// The shortest that makes sense over a network.
    const SHORTEST: Duration = Duration::from_millis(10);
    /// The longest: a day.
    const LONGEST: Duration = Duration::from_secs(86_400);

    /// What is wrong with it, all at once; pointers are relative to it.
    #[must_use]
    pub fn check(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut refuse = |key: &str, detail: String| errors.push(FieldError::new(format!("/{key}"), detail));
        for (key, value) in [("lease", self.lease), ("renew_deadline", self.renew_deadline), ("retry", self.retry)] {
            if !(Self::SHORTEST..=Self::LONGEST).contains(&value) {
                refuse(key, format!("must be between {:?} and {:?}, but is {value:?}", Self::SHORTEST, Self::LONGEST));
            }
        }
        if self.renew_deadline >= self.lease {
            let detail =
                format!("must be less than lease, which is {:?}, but is {:?}", self.lease, self.renew_deadline);
            refuse("renew_deadline", detail);
        }
        if self.retry >= self.renew_deadline {
            let than = self.renew_deadline;
            refuse("retry", format!("must be less than renew_deadline, which is {than:?}, but is {:?}", self.retry));
        }
        errors
    }
}
