//! What PostgreSQL's errors, and those of the way to it, mean to a caller.

use std::sync::Arc;

use coredinator_core::StoreError;

/// Why a transaction came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server, or the way to it.
    Sql(sqlx::Error),
    /// What the server holds is not for this version.
    Told(String),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// The error for a call that was not answered in time.
pub(super) fn too_slow() -> sqlx::Error {
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"))
}

fn code(error: &sqlx::Error) -> Option<String> {
    let sqlx::Error::Database(error) = error else { return None };
    error.code().map(|code| code.into_owned())
}

/// Whether the connection is gone, or about to be: another may do better.
pub(super) fn is_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() != std::io::ErrorKind::TimedOut,
        sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => true,
        // The session was ended: by an administrator, a crash, or for having idled within a transaction.
        error => code(error).is_some_and(|code| {
            code.starts_with("08") || matches!(code.as_str(), "57P01" | "57P02" | "57P05" | "25P03")
        }),
    }
}

/// Whether the server says that what we look for is not there (it may have been made or dropped by somebody else).
pub(super) fn is_missing(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("42P01" | "3F000" | "42703"))
}

/// One failure, told to everybody whose write was in the transaction.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<sqlx::Error>);

/// The store's error for what was said about the server at `location`.
pub(super) fn classify(location: &str, error: impl Into<Arc<sqlx::Error>>) -> StoreError {
    let error = Shared(error.into());
    let message = match &*error.0 {
        sqlx::Error::Configuration(what) => {
            return StoreError::Unusable(format!("{location} cannot be connected to as configured: {what}"));
        }
        sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::TimedOut => {
            format!("{location} did not answer in time")
        }
        sqlx::Error::Io(_) => format!("the connection to {location} failed"),
        sqlx::Error::Tls(_) => format!("no secure connection to {location} can be made"),
        other => match code(other).as_deref() {
            Some("25006") => format!("{location} is read-only (a standby, or in the middle of a failover)"),
            Some("53100") => format!("the disk of {location} is full"),
            Some("53300") => format!("{location} is out of connections"),
            Some("53200" | "53000" | "53400") => format!("{location} is out of resources"),
            Some("57P03") => format!("{location} is starting up, shutting down or recovering"),
            Some("57P01" | "57P02" | "57P05" | "25P03") => format!("{location} ended the connection"),
            Some("57014" | "55P03") => format!("{location} took too long"),
            Some("28P01" | "28000") => format!("{location} refuses the login"),
            Some("3D000") => format!("{location}: there is no such database"),
            Some("42501") => format!("{location} refuses it for lack of privileges"),
            Some(code) if code.starts_with("42") || code == "3F000" => {
                return StoreError::Unusable(format!("the tables at {location} are not what they should be: {other}"));
            }
            Some(code) if code.starts_with("XX") => {
                return StoreError::Unusable(format!("{location} is damaged ({other}): restore a backup"));
            }
            _ => format!("{location} did not do what it was asked"),
        },
    };
    StoreError::unavailable(message, error)
}

/// The same for a transaction.
pub(super) fn explain(location: &str, failure: Failure) -> StoreError {
    match failure {
        Failure::Sql(error) => classify(location, error),
        Failure::Told(what) => StoreError::Unusable(what),
    }
}
