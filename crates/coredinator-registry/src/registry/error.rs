//! What can go wrong with a call to the registry, by what the caller can do about it.

use coredinator_core::{FieldError, FieldErrors, ServiceName, StoreError};

/// Why the registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no such service.
    #[error("there is no service {name:?}{}", .nearest.as_ref().map(|n| format!(" (did you mean {n:?}?)")).unwrap_or_default())]
    NotFound {
        /// What was asked for.
        name: String,
        /// A service of a similar name.
        nearest: Option<ServiceName>,
    },
    /// The state of the service does not allow it.
    #[error("{message}")]
    Conflict {
        /// A `CamelCase` word of a fixed set: `AlreadyExists`, `External`, `Deleting`, `NoHeartbeat`,
        /// `NoInstance`, `NoConfig`.
        code: &'static str,
        /// What stands against it, and what to do.
        message: String,
    },
    /// Another revision of the configuration is the newest than the one that was expected.
    #[error("the configuration has changed meanwhile: its newest revision is {current}")]
    Stale {
        /// The newest revision.
        current: u64,
    },
    /// There is no such revision of the configuration.
    #[error("there is no revision {revision} of the configuration: {oldest} to {newest} are kept")]
    NoRevision {
        /// What was asked for.
        revision: u64,
        /// The oldest that is kept.
        oldest: u64,
        /// The newest.
        newest: u64,
    },
    /// What was asked is not valid.
    #[error("invalid: {}", FieldErrors(.0.clone()))]
    Invalid(
        /// All that is wrong with it.
        Vec<FieldError>,
    ),
    /// Configuration documents could not be judged, and are not taken without.
    #[error("nothing was changed, because the configuration could not be judged: {message}")]
    Unjudged {
        /// What is the matter.
        message: String,
    },
    /// The store did not take it.
    #[error("the change was not stored")]
    Store(#[from] StoreError),
}

impl RegistryError {
    /// Whether the same call may succeed later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable() || matches!(error, StoreError::Conflict { .. }),
            Self::Unjudged { .. } => true,
            _ => false,
        }
    }
}
