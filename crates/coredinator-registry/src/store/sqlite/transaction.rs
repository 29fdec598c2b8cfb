//! One transaction that carries out a group of writes and lease operations, each judged by itself.
//!
//! It takes two trips to SQLite's thread whatever the group's size: one begins and reads what the verdicts depend on, one
//! writes and commits. Lists travel as JSON and values as one blob, so that the statements' text never varies and they
//! stay prepared.

use std::collections::HashMap;

use coredinator_core::{Change, Epoch, Key, Lease, Revision, Timestamp};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    history::History,
    reader::{revision, signed},
};
use crate::store::{
    group::{self, Answer, Request, State},
    retention::{COMPACTION_STEP, Retention},
};

const BEGIN: &str = "
    BEGIN IMMEDIATE;
    SELECT 0 AS kind, NULL AS name, revision AS number, compacted AS other, NULL AS holder FROM meta
    UNION ALL
    SELECT 1, records.key, records.revision, NULL, NULL
        FROM json_each(?1) AS wanted CROSS JOIN records ON records.key = wanted.value
    UNION ALL
    SELECT 2, leases.name, leases.epoch, leases.expires_at, leases.holder
        FROM json_each(?2) AS wanted CROSS JOIN leases ON leases.name = wanted.value;
";

/// `?1`: entries as `[revision, key, start, length or null, 1 if the key's last]`; `?2`: values; `?3`: newest revision.
const WRITE: &str = "
    INSERT INTO changes (revision, key, value)
        SELECT value ->> 0, value ->> 1, substr(?2, value ->> 2, value ->> 3) FROM json_each(?1);
    INSERT INTO records (key, value, revision)
        SELECT value ->> 1, substr(?2, value ->> 2, value ->> 3), value ->> 0 FROM json_each(?1)
        WHERE value ->> 4 AND value ->> 3 IS NOT NULL
        ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision;
    DELETE FROM records WHERE key IN
        (SELECT value ->> 1 FROM json_each(?1) WHERE value ->> 4 AND value ->> 3 IS NULL);
    UPDATE meta SET revision = ?3;
    COMMIT;
";

/// `?1`: leases as `[name, holder, epoch, microseconds]`.
const LEASES: &str = "
    INSERT INTO leases (name, holder, epoch, expires_at)
        SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?1) WHERE true
        ON CONFLICT (name) DO UPDATE
            SET holder = excluded.holder, epoch = excluded.epoch, expires_at = excluded.expires_at;
";

/// `?1`: the revision up to which changes are forgotten.
const FORGET: &str = "
    DELETE FROM changes WHERE revision <= ?1;
    UPDATE meta SET compacted = ?1;
";

/// What a group did, once committed.
pub(super) struct Committed {
    pub(super) answers: Vec<Answer>,
    pub(super) changes: Vec<Change>,
    pub(super) compacted: Revision,
}

/// Carries out a group in order; one that is refused leaves the others alone. On an error nothing is known to have
/// happened, and the connection may be left within the transaction.
pub(super) async fn carry_out(
    connection: &mut SqliteConnection,
    requests: &[Request<'_>],
    now: Timestamp,
    history: &History,
    keep: Retention,
) -> Result<Committed, sqlx::Error> {
    let mut state = begin(connection, requests).await?;
    let answers = requests.iter().map(|request| state.judge(request, now)).collect();
    if state.changes.is_empty() && state.granted.is_empty() {
        sqlx::query("ROLLBACK").execute(&mut *connection).await?;
        return Ok(Committed { answers, changes: Vec::new(), compacted: state.compacted });
    }
    let forget = history.due(state.revision, state.compacted, keep);
    commit(connection, &state, forget).await?;
    Ok(Committed { answers, changes: state.changes, compacted: forget.unwrap_or(state.compacted) })
}

async fn begin(connection: &mut SqliteConnection, requests: &[Request<'_>]) -> Result<State, sqlx::Error> {
    let (keys, names) = group::concerned(requests);
    let rows = sqlx::query(BEGIN).bind(json(&keys)?).bind(json(&names)?).fetch_all(connection).await?;
    let mut state = State::default();
    for row in rows {
        match row.try_get::<i64, _>("kind")? {
            0 => {
                state.revision = revision(&row, "number")?;
                state.compacted = revision(&row, "other")?;
            }
            1 => {
                if let Ok(key) = Key::new(row.try_get::<String, _>("name")?) {
                    state.records.insert(key, revision(&row, "number")?);
                }
            }
            _ => {
                let lease = lease(&row)?;
                state.leases.insert(lease.name.clone(), lease);
            }
        }
    }
    Ok(state)
}

pub(super) fn lease(row: &SqliteRow) -> Result<Lease, sqlx::Error> {
    let micros = row.try_get::<i64, _>("other")?;
    Ok(Lease {
        name: row.try_get("name")?,
        holder: row.try_get("holder")?,
        epoch: Epoch(row.try_get::<i64, _>("number")?.unsigned_abs()),
        expires_at: Timestamp::from_microsecond(micros).map_err(|error| sqlx::Error::Decode(error.into()))?,
    })
}

async fn commit(connection: &mut SqliteConnection, state: &State, forget: Option<Revision>) -> Result<(), sqlx::Error> {
    if !state.granted.is_empty() {
        let leases: Vec<_> = state
            .granted
            .values()
            .map(|lease| (&lease.name, &lease.holder, lease.epoch.0, lease.expires_at.as_microsecond()))
            .collect();
        sqlx::query(LEASES).bind(json(&leases)?).execute(&mut *connection).await?;
    }
    if let Some(up_to) = forget {
        sqlx::query(FORGET).bind(signed(up_to)).execute(&mut *connection).await?;
    }
    if state.changes.is_empty() {
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        return Ok(());
    }
    let (entries, values) = pack(&state.changes);
    sqlx::query(WRITE)
        .bind(json(&entries)?)
        .bind(values)
        .bind(signed(state.revision))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

type Entry<'a> = (u64, &'a str, usize, Option<usize>, u8);

/// The entries of all changes, and their values one after the other.
fn pack(changes: &[Change]) -> (Vec<Entry<'_>>, Vec<u8>) {
    // SQLite takes an empty blob for NULL, so there is always one byte; and it counts from 1.
    let mut values = vec![0];
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut last = HashMap::new();
    for change in changes {
        for (key, value) in &change.entries {
            let start = values.len() + 1;
            values.extend_from_slice(value.as_deref().unwrap_or_default());
            last.insert(key, entries.len());
            entries.push((change.revision.0, key.as_str(), start, value.as_ref().map(Vec::len), 0));
        }
    }
    for position in last.into_values() {
        entries[position].4 = 1;
    }
    (entries, values)
}

fn json(list: &impl serde::Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(list).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Forgets one step of changes, up to `up_to` at most; answers how far it is now, and the newest revision.
pub(super) async fn forget(
    connection: &mut SqliteConnection,
    up_to: Revision,
) -> Result<(Revision, Revision), sqlx::Error> {
    let state = begin(connection, &[]).await?;
    let step = up_to.min(state.revision).min(Revision(state.compacted.0 + COMPACTION_STEP));
    if step > state.compacted {
        sqlx::query(FORGET).bind(signed(step)).execute(&mut *connection).await?;
    }
    sqlx::query("COMMIT").execute(&mut *connection).await?;
    Ok((step.max(state.compacted), state.revision))
}

/// Writes, reads and deletes a value, and lets that reach the disk.
pub(super) async fn round_trip(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let read: Vec<u8> = sqlx::query_scalar(
        "BEGIN IMMEDIATE;
         INSERT OR REPLACE INTO scratch (id, value) VALUES (1, randomblob(16));
         SELECT value FROM scratch WHERE id = 1;",
    )
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM scratch; COMMIT;").execute(&mut *connection).await?;
    if read.len() == 16 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}
