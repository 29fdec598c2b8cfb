//! The tables, and how each version of them came to be.

/// Marks the file as a store of coredinator: "cord".
pub(super) const APPLICATION_ID: u32 = 0x636f_7264;

/// The version that this code reads and writes; `PRAGMA user_version` of the file.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// What leads from each version to the next; the first, from an empty file. Never edited once released, only added to.
pub(super) const MIGRATIONS: &[&str] = &["
    -- One row: the newest revision, and the oldest from which a watch can start.
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 0),
        revision INTEGER NOT NULL,
        compacted INTEGER NOT NULL
    ) STRICT;
    INSERT INTO meta (id, revision, compacted) VALUES (0, 0, 0);

    -- The records as they stand.
    CREATE TABLE records (
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL,
        revision INTEGER NOT NULL
    ) STRICT;

    -- What each write put, and deleted (NULL), for those who watch. Row ids are in the order of the batch.
    CREATE TABLE changes (
        id INTEGER PRIMARY KEY,
        revision INTEGER NOT NULL,
        key TEXT NOT NULL,
        value BLOB
    ) STRICT;
    CREATE INDEX changes_by_revision ON changes (revision);

    -- Times are microseconds since 1970. A lease is never deleted: its epoch must never fall.
    CREATE TABLE leases (
        name TEXT NOT NULL PRIMARY KEY,
        holder TEXT,
        epoch INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
    ) STRICT;

    -- Empty but for the instant of a check.
    CREATE TABLE scratch (
        id INTEGER PRIMARY KEY,
        value BLOB NOT NULL
    ) STRICT;
"];
