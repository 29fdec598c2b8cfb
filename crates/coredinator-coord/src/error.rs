//! What can go wrong with what callers ask of the engine, by what they can do about it.

use coredinator_core::{FieldError, FieldErrors, StoreError};

/// Why the engine did not do what it was asked. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoordError {
    /// No agent of this name is registered.
    #[error("there is no agent {0:?}")]
    UnknownAgent(
        /// The name asked for, at most its first 128 characters.
        String,
    ),
    /// The configuration has no such group.
    #[error("there is no group {name:?} (there are {})", .known.join(", "))]
    UnknownGroup {
        /// The name asked for.
        name: String,
        /// The groups there are.
        known: Vec<String>,
    },
    /// What was sent is not as it must be.
    #[error("{}", FieldErrors(.0.clone()))]
    Invalid(
        /// What is wrong with it, all at once.
        Vec<FieldError>,
    ),
    /// An intention that is older than one that is known already.
    #[error("intention {given} is older than intention {known}, which is known already")]
    Stale {
        /// The number of the one that was sent.
        given: u64,
        /// The number of the one that counts.
        known: u64,
    },
    /// A decision that the agent was never given.
    #[error("agent {agent:?} was given no decision of cycle {cycle} in epoch {epoch}{}", last_one(*.last))]
    NoSuchDecision {
        /// The agent.
        agent: String,
        /// The cycle that was named.
        cycle: u64,
        /// The epoch that was named.
        epoch: u64,
        /// Cycle and epoch of what it was last told.
        last: Option<(u64, u64)>,
    },
    /// An intention that does not stand for any cycle to come.
    #[error("the intention stands until cycle {last}, but the next is cycle {cycle}")]
    Past {
        /// The last cycle for which it stands.
        last: u64,
        /// The next cycle that will be decided.
        cycle: u64,
    },
    /// As many agents as there may be are registered.
    #[error("there are {0} agents already, which is as many as there may be")]
    Full(
        /// How many there may be.
        usize,
    ),
    /// Another coredinator leads, or none does for the moment: nothing can be registered or decided here.
    #[error("this coredinator does not lead the agents at the moment: {0}")]
    NotLeading(
        /// Why.
        String,
    ),
    /// The cycle ended without a plan that could be acted on.
    #[error("the cycle ended without a plan: {0}")]
    NoPlan(
        /// Why.
        String,
    ),
    /// The store refused.
    #[error("the store did not take it")]
    Store(#[from] StoreError),
    /// The engine has been shut down.
    #[error("the coordination engine has been shut down")]
    Ended,
}

fn last_one(last: Option<(u64, u64)>) -> String {
    last.map(|(cycle, epoch)| format!("; its last is of cycle {cycle} in epoch {epoch}")).unwrap_or_default()
}

impl CoordError {
    /// Whether the same call may succeed later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotLeading(_) | Self::NoPlan(_) => true,
            Self::Store(error) => error.is_retryable(),
            _ => false,
        }
    }

    pub(crate) fn unknown_agent(id: &str) -> Self {
        Self::UnknownAgent(id.chars().take(128).collect())
    }
}
