//! The contract of whoever judges the configuration documents of services.

use async_trait::async_trait;
use serde_json::{Map, Value};

use crate::{FieldError, ServiceName};

/// A configuration document that a service is to have.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigCandidate {
    /// The service.
    pub service: ServiceName,
    /// The replica that has a layer of its own; `None`: the document of all that have none.
    pub replica: Option<u32>,
    /// The document as a whole, its layers merged. References to secrets (`{secret_file: …}`, `{secret_env: …}`) are
    /// references.
    pub document: Map<String, Value>,
}

/// What is to be said of a document. Pointers are into the document; empty: it is about the document as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConfigVerdict {
    /// All that is wrong with it; empty: it is valid.
    pub errors: Vec<FieldError>,
    /// What is doubtful.
    pub warnings: Vec<FieldError>,
}

/// It could not be judged, which says nothing about the document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ConfigValidatorError {
    /// What is the matter: `http://127.0.0.1:8030/ does not answer: connection refused`.
    pub message: String,
}

impl ConfigValidatorError {
    /// An error.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// Judges the configuration documents of services before they come into force: what the specification calls `CoreConfig`.
///
/// It is asked about each document that a change makes another, once per service and once per replica that has a layer of its
/// own, before anything is stored; also where a change is only tried.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ConfigValidator: Send + Sync + 'static {
    /// Judges one document.
    ///
    /// To ensure correctness:
    /// - the answer depends on the document alone: the same one may be asked about again, by any replica of coredinator;
    /// - the caller sets the time limit and drops the future at its end; several documents are asked about at the same time;
    /// - a document that is not valid is a [`ConfigVerdict`] with errors, not an error.
    ///
    /// # Errors
    /// [`ConfigValidatorError`] when it was not possible to judge.
    async fn validate(&self, candidate: &ConfigCandidate) -> Result<ConfigVerdict, ConfigValidatorError>;
}
