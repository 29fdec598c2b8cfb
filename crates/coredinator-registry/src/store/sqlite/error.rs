//! What SQLite's errors mean to a caller.

use std::{path::Path, sync::Arc};

use coredinator_core::StoreError;

/// The primary result codes that are told apart (<https://www.sqlite.org/rescode.html>).
mod code {
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const READONLY: u32 = 8;
    pub(super) const IOERR: u32 = 10;
    pub(super) const CORRUPT: u32 = 11;
    pub(super) const FULL: u32 = 13;
    pub(super) const CANTOPEN: u32 = 14;
    pub(super) const NOTADB: u32 = 26;
}

fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let sqlx::Error::Database(error) = error else { return None };
    // The low byte of the extended code is the primary one.
    error.code()?.parse::<u32>().ok().map(|code| code & 0xff)
}

/// Whether reading has to wait for a change that somebody left unfinished to be taken back, or a log to be read in, which
/// a connection that only reads may not do.
pub(super) fn is_unfinished(error: &sqlx::Error) -> bool {
    /// `SQLITE_READONLY_RECOVERY` and `SQLITE_READONLY_ROLLBACK`.
    const CODES: [&str; 2] = ["264", "776"];
    let sqlx::Error::Database(error) = error else { return false };
    error.code().is_some_and(|code| CODES.contains(&code.as_ref()))
}

/// Whether another connection has the file locked: worth waiting for.
pub(super) fn is_locked(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some(code::BUSY | code::LOCKED))
}

/// Whether there was no room: a smaller write may still fit.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    primary_code(error) == Some(code::FULL)
}

/// One failure, told to everybody whose write was in the transaction.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Shared(Arc<sqlx::Error>);

/// The store's error for what SQLite said about the file.
pub(super) fn classify(path: &Path, error: impl Into<Arc<sqlx::Error>>) -> StoreError {
    let error = Shared(error.into());
    let file = path.display();
    let message = match primary_code(&error.0) {
        Some(code::CORRUPT | code::NOTADB) => return damaged(path, &error.to_string()),
        Some(code::BUSY | code::LOCKED) => format!("{file} is locked by another process"),
        Some(code::FULL) => format!("there is no room to write {file}"),
        Some(code::READONLY) => format!("{file} cannot be written"),
        Some(code::IOERR) => format!("reading or writing {file} failed"),
        Some(code::CANTOPEN) => format!("{file} cannot be opened"),
        _ => format!("{file} did not do what it was asked"),
    };
    StoreError::unavailable(message, error)
}

/// The error for a file that is no sound database.
pub(super) fn damaged(path: &Path, what: &str) -> StoreError {
    StoreError::Unusable(format!(
        "{} is damaged or no database ({what}); it has been left as it is: restore a backup, or move it aside to start empty",
        path.display()
    ))
}
