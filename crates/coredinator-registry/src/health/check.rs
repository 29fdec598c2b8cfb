//! What is checked: the identity of a check, and its terms.

use std::{fmt, time::Duration};

use coredinator_core::{CheckTiming, HealthStatus, InstanceId, ProbeTarget, ServiceName, Timestamp};

/// What follows from a check: liveness or readiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CheckKind {
    /// An unhealthy instance leaves discovery and, with a restart policy, is restarted.
    Health,
    /// An unhealthy instance only leaves discovery.
    Readiness,
}

impl fmt::Display for CheckKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Health => "health",
            Self::Readiness => "readiness",
        })
    }
}

/// Which check it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckKey {
    /// The service that is checked.
    pub service: ServiceName,
    /// The replica; `None` for an external service.
    pub replica: Option<u32>,
    /// The life of that replica; `None` for an external service. A new life is a new check.
    pub instance: Option<InstanceId>,
    /// What follows from it.
    pub kind: CheckKind,
}

impl fmt::Display for CheckKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.kind, self.service)?;
        self.instance.iter().try_for_each(|instance| write!(f, " ({instance})"))
    }
}

/// The terms of a check.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckSpec {
    /// Who is asked, where, and what.
    pub target: ProbeTarget,
    /// When, and what it takes to change one's mind.
    pub timing: CheckTiming,
    /// How long the instance had run already when the check was added: its start period is shorter by that. For an
    /// external service, of which nobody knows since when it runs, [`Duration::MAX`].
    pub age: Duration,
}

/// A check's status changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The check.
    pub key: CheckKey,
    /// What it said before.
    pub from: HealthStatus,
    /// What it says now; differs from `from`.
    pub to: HealthStatus,
    /// When the answer came that changed it.
    pub at: Timestamp,
    /// What that answer was, for people.
    pub message: String,
}
