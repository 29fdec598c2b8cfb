//! The contract of one health check of one instance.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{FieldError, InstanceRef, ProbeSpec, RuntimeName, ServiceName};

/// Who is checked, where, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeTarget {
    /// The service.
    pub service: ServiceName,
    /// The instance; `None` for an external service.
    pub instance: Option<InstanceRef>,
    /// What runs the instance; `None` for an external service.
    pub runtime: Option<RuntimeName>,
    /// Where it is reached.
    pub host: String,
    /// The port at which it is reached; 0 if it has none.
    pub port: u16,
    /// What is asked.
    pub spec: Arc<ProbeSpec>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Pass,
    /// It works, but asks for attention.
    Warn,
    /// It does not work.
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// How it ended.
    pub outcome: Outcome,
    /// What was found, for people: `HTTP 503`, `connection refused`. At most [`ProbeReport::MAX_MESSAGE`] bytes.
    pub message: String,
}

impl ProbeReport {
    /// How many bytes of a message are kept.
    pub const MAX_MESSAGE: usize = 4096;

    /// A report whose message is cut to size, at a character's edge.
    pub fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(Self::MAX_MESSAGE));
        Self { outcome, message }
    }

    /// As it should be.
    pub fn pass(message: impl Into<String>) -> Self {
        Self::new(Outcome::Pass, message)
    }

    /// It works, but asks for attention.
    pub fn warn(message: impl Into<String>) -> Self {
        Self::new(Outcome::Warn, message)
    }

    /// It does not work.
    pub fn fail(message: impl Into<String>) -> Self {
        Self::new(Outcome::Fail, message)
    }
}

/// The check could not be carried out, which says nothing about the instance (no file descriptors left, the probe's own
/// helper is missing). No verdict follows from it.
#[derive(Debug, thiserror::Error)]
#[error("the check could not be carried out: {message}")]
pub struct ProbeError {
    /// What is the matter.
    pub message: String,
}

/// Carries out one kind of health check.
///
/// A probe asks once and says what it found; how often it is asked and what several answers mean is the health
/// monitor's business. Implementors run [`conformance::probe`](crate::conformance::probe).
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait HealthProbe: Send + Sync + 'static {
    /// The kind it answers to, as [`ProbeSpec::kind`] says it.
    fn kind(&self) -> String;

    /// Checks a spec of its kind; pointers are relative to the `health_check` section.
    fn validate(&self, spec: &ProbeSpec) -> Vec<FieldError>;

    /// Asks once.
    ///
    /// To ensure correctness:
    /// - the caller sets the time limit and drops the future at its end: whatever was begun is then given up, and nothing
    ///   is left behind (no process, no open connection that is not of a bounded pool);
    /// - an instance that does not answer, refuses, or answers nonsense is a [`Outcome::Fail`], not an error;
    /// - what the instance sends is read in bounded amount.
    ///
    /// # Errors
    /// [`ProbeError`] when it was not possible to ask.
    async fn check(&self, target: &ProbeTarget) -> Result<ProbeReport, ProbeError>;
}
