//! The tables, and how each version of them came to be.
//!
//! Several coredinators use them at once, and are upgraded one after the other. So each version's step only adds what the
//! code of the version before can live with, and leaves `compatible_from` at that version; a step that cannot is split over
//! two releases. Code works with every schema whose `compatible_from` it has reached, and refuses all others.

/// The version that this code reads and writes.
pub(super) const VERSION: u32 = MIGRATIONS.len() as u32;

/// A step to the next version.
pub(super) struct Migration {
    /// The oldest version whose code works with the tables after this step.
    pub(super) compatible_from: u32,
    pub(super) sql: &'static str,
}

/// What leads from each version to the next; the first, from an empty schema. Never edited once released, only added to.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    compatible_from: 1,
    sql: r#"
    -- One row, locked by whoever writes until that is committed: so revisions become visible in their order.
    CREATE TABLE meta (
        id integer PRIMARY KEY CHECK (id = 0),
        application text NOT NULL CHECK (application = 'coredinator'),
        -- The version of these tables, and the oldest version whose code works with them.
        schema_version integer NOT NULL,
        compatible_from integer NOT NULL,
        -- The newest revision, and the oldest from which a watch can start.
        revision bigint NOT NULL,
        compacted bigint NOT NULL,
        -- How many bytes of keys and values the changes hold.
        weight bigint NOT NULL,
        compacted_at timestamptz
    ) WITH (fillfactor = 10);
    INSERT INTO meta VALUES (0, 'coredinator', 0, 0, 0, 0, 0, NULL);

    -- The records as they stand.
    CREATE TABLE records (
        key text COLLATE "C" PRIMARY KEY,
        value bytea NOT NULL,
        revision bigint NOT NULL
    );

    -- What each write put, and deleted (NULL), for those who watch; positions are in the order of the batch.
    CREATE TABLE changes (
        revision bigint,
        position integer,
        key text COLLATE "C" NOT NULL,
        value bytea,
        PRIMARY KEY (revision, position)
    );

    -- Times are microseconds since 1970. A lease is never deleted: its epoch must never fall.
    CREATE TABLE leases (
        name text COLLATE "C" PRIMARY KEY,
        holder text,
        epoch bigint NOT NULL,
        expires_at bigint NOT NULL
    );

    -- Empty but for the instant of a check.
    CREATE TABLE scratch (
        id uuid PRIMARY KEY,
        value bytea NOT NULL
    );
"#,
}];
