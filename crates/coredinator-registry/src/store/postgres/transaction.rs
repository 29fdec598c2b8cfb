//! One transaction that carries out a group of writes and lease operations, each judged by itself.
//!
//! It takes four trips to the server whatever the group's size: one begins and takes the lock that whoever writes holds
//! until the end, one reads what the verdicts depend on, one writes, one commits.

use coredinator_core::{Change, Epoch, Key, Lease, Revision, Timestamp};
use sqlx::{PgConnection, Row, postgres::PgRow};

use super::{
    error::Failure,
    open::check_version,
    reader::{revision, signed},
};
use crate::store::{
    group::{self, Answer, Request, State},
    retention::COMPACTION_STEP,
};

/// Whoever comes next waits here until this transaction is visible to all. So revisions become visible in their order, and
/// what is read afterwards is the newest there is.
const BEGIN: &str = "BEGIN; SELECT schema_version, compatible_from, revision, compacted, weight FROM meta FOR UPDATE";

/// `$1`: keys; `$2`: leases. The time is the server's, read while the lock is held.
const READ: &str = "
    SELECT 0 AS kind, NULL AS name, floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS number,
        NULL::bigint AS other, NULL AS holder
    UNION ALL SELECT 1, key, revision, NULL, NULL FROM records WHERE key = ANY ($1)
    UNION ALL SELECT 2, name, epoch, expires_at, holder FROM leases WHERE name = ANY ($2)";

/// `$1` to `$5`: entries by column; `$6`: newest revision; `$7`: what the entries weigh; `$8`: the channel on which everybody
/// is woken once this is committed, `$9`: by whom.
const WRITE: &str = "
    WITH entries AS (
        SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::bytea[], $5::boolean[])
            AS entry (revision, position, key, value, last)
    ), logged AS (
        INSERT INTO changes (revision, position, key, value) SELECT revision, position, key, value FROM entries
    ), put AS (
        INSERT INTO records (key, value, revision)
            SELECT key, value, revision FROM entries WHERE last AND value IS NOT NULL
            ON CONFLICT (key) DO UPDATE SET value = excluded.value, revision = excluded.revision
    ), deleted AS (
        DELETE FROM records USING entries
            WHERE entries.key = records.key AND entries.last AND entries.value IS NULL
    )
    UPDATE meta SET revision = $6, weight = weight + $7 RETURNING pg_notify($8, $9)::text";

/// `$1` to `$4`: leases by column.
const LEASES: &str = "
    INSERT INTO leases (name, holder, epoch, expires_at)
        SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])
        ON CONFLICT (name) DO UPDATE
            SET holder = excluded.holder, epoch = excluded.epoch, expires_at = excluded.expires_at";

/// `$1`: the revision up to which changes are forgotten.
const FORGET: &str = "
    WITH forgotten AS (
        DELETE FROM changes WHERE revision <= $1
            RETURNING octet_length(key) + COALESCE(octet_length(value), 0) AS weight
    )
    UPDATE meta SET compacted = $1, compacted_at = clock_timestamp(),
        weight = weight - (SELECT COALESCE(sum(weight), 0) FROM forgotten)";

/// `$1`: how many bytes of changes may stay. The newest change always does.
const TOO_HEAVY: &str = "
    SELECT max(revision) FROM (
        SELECT revision, sum(sum(octet_length(key) + COALESCE(octet_length(value), 0))) OVER (ORDER BY revision DESC) AS kept
        FROM changes GROUP BY revision
    ) AS history WHERE kept > $1 AND revision < (SELECT revision FROM meta)";

/// Who wakes others, and how.
#[derive(Debug, Clone)]
pub(super) struct Bell {
    /// The channel of notifications.
    pub(super) channel: String,
    /// What tells this process from others.
    pub(super) who: String,
}

/// What a group did.
pub(super) struct Done {
    pub(super) answers: Vec<Answer>,
    pub(super) changes: Vec<Change>,
    pub(super) standing: Standing,
}

/// What the one row of `meta` says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) revision: Revision,
    pub(super) compacted: Revision,
    /// What the changes weigh, in bytes.
    pub(super) weight: u64,
}

/// Carries out a group in order up to the point where all that is left is to commit; one that is refused leaves the others
/// alone. On an error nothing has happened. `None`: nothing is to be committed, and the transaction has ended.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    requests: &[Request<'_>],
    bell: &Bell,
    location: &str,
) -> Result<(Done, bool), Failure> {
    let standing = begin(connection, location).await?;
    let (mut state, now) = read(connection, requests, standing).await?;
    let answers = requests.iter().map(|request| state.judge(request, now)).collect();
    if state.changes.is_empty() && state.granted.is_empty() {
        give_up(connection).await?;
        return Ok((Done { answers, changes: Vec::new(), standing }, false));
    }
    let weight = write(connection, &state, bell).await?;
    let standing = Standing { revision: state.revision, weight: standing.weight.saturating_add(weight), ..standing };
    Ok((Done { answers, changes: state.changes, standing }, true))
}

/// Ends a transaction of which nothing is to happen.
pub(super) async fn give_up(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("ROLLBACK").execute(connection).await.map(drop)
}

/// Makes what was prepared happen. On an error it may have happened, or not.
pub(super) async fn commit(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("COMMIT").execute(connection).await.map(drop)
}

async fn begin(connection: &mut PgConnection, location: &str) -> Result<Standing, Failure> {
    let row = sqlx::raw_sql(BEGIN).fetch_one(connection).await?;
    let number = |column: &str| row.try_get::<i32, _>(column).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    // A newer coredinator may have upgraded the tables since they were opened.
    check_version(location, number("schema_version")?, number("compatible_from")?)?;
    Ok(Standing {
        revision: revision(&row, "revision")?,
        compacted: revision(&row, "compacted")?,
        weight: row.try_get::<i64, _>("weight")?.unsigned_abs(),
    })
}

async fn read(
    connection: &mut PgConnection,
    requests: &[Request<'_>],
    standing: Standing,
) -> Result<(State, Timestamp), sqlx::Error> {
    let (keys, names) = group::concerned(requests);
    let rows = sqlx::query(READ).bind(keys).bind(names).fetch_all(connection).await?;
    let mut state = State { revision: standing.revision, compacted: standing.compacted, ..State::default() };
    let mut now = Timestamp::UNIX_EPOCH;
    for row in rows {
        match row.try_get::<i32, _>("kind")? {
            0 => now = stamp(row.try_get("number")?)?,
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
    Ok((state, now))
}

pub(super) fn lease(row: &PgRow) -> Result<Lease, sqlx::Error> {
    Ok(Lease {
        name: row.try_get("name")?,
        holder: row.try_get("holder")?,
        epoch: Epoch(row.try_get::<i64, _>("number")?.unsigned_abs()),
        expires_at: stamp(row.try_get("other")?)?,
    })
}

pub(super) fn stamp(micros: i64) -> Result<Timestamp, sqlx::Error> {
    Timestamp::from_microsecond(micros).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Writes what a group changed, and answers what that weighs.
async fn write(connection: &mut PgConnection, state: &State, bell: &Bell) -> Result<u64, sqlx::Error> {
    if !state.granted.is_empty() {
        let leases = || state.granted.values();
        sqlx::query(LEASES)
            .bind(leases().map(|lease| lease.name.as_str()).collect::<Vec<_>>())
            .bind(leases().map(|lease| lease.holder.as_deref()).collect::<Vec<_>>())
            .bind(leases().map(|lease| i64::try_from(lease.epoch.0).unwrap_or(i64::MAX)).collect::<Vec<_>>())
            .bind(leases().map(|lease| lease.expires_at.as_microsecond()).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await?;
    }
    if state.changes.is_empty() {
        return Ok(0);
    }
    let columns = Columns::of(&state.changes);
    sqlx::query(WRITE)
        .bind(columns.revisions)
        .bind(columns.positions)
        .bind(columns.keys)
        .bind(columns.values)
        .bind(columns.last)
        .bind(signed(state.revision))
        .bind(i64::try_from(columns.weight).unwrap_or(i64::MAX))
        .bind(&bell.channel)
        .bind(&bell.who)
        .execute(connection)
        .await?;
    Ok(columns.weight)
}

/// The entries of all changes, column by column.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) revisions: Vec<i64>,
    pub(super) positions: Vec<i32>,
    pub(super) keys: Vec<&'a str>,
    pub(super) values: Vec<Option<&'a [u8]>>,
    /// Whether no later change of the group is about the same key.
    last: Vec<bool>,
    pub(super) weight: u64,
}

impl<'a> Columns<'a> {
    pub(super) fn of(changes: &'a [Change]) -> Self {
        let mut columns = Self::default();
        let mut last = std::collections::HashMap::new();
        for change in changes {
            for (position, (key, value)) in change.entries.iter().enumerate() {
                last.insert(key, columns.keys.len());
                columns.revisions.push(signed(change.revision));
                columns.positions.push(i32::try_from(position).unwrap_or(i32::MAX));
                columns.keys.push(key.as_str());
                columns.values.push(value.as_deref());
                columns.last.push(false);
            }
            columns.weight += crate::store::feed::weight(change) as u64;
        }
        for position in last.into_values() {
            columns.last[position] = true;
        }
        columns
    }
}

/// Forgets one step of changes, up to `up_to` at most, as a transaction of its own; answers how far it is now, and the newest
/// revision.
pub(super) async fn forget(
    connection: &mut PgConnection,
    up_to: Revision,
    location: &str,
) -> Result<Standing, Failure> {
    let mut standing = begin(connection, location).await?;
    let step = up_to.min(standing.revision).min(Revision(standing.compacted.0 + COMPACTION_STEP));
    if step > standing.compacted {
        sqlx::query(FORGET).bind(signed(step)).execute(&mut *connection).await?;
        standing.compacted = step;
    }
    commit(connection).await?;
    Ok(standing)
}

/// The newest revision that has to go for the rest to weigh no more than `bytes`.
pub(super) async fn too_heavy(connection: &mut PgConnection, bytes: u64) -> Result<Option<Revision>, sqlx::Error> {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let revision: Option<i64> = sqlx::query_scalar(TOO_HEAVY).bind(bytes).fetch_one(connection).await?;
    Ok(revision.map(|revision| Revision(revision.unsigned_abs())))
}

/// Writes, reads and deletes a value, and lets that reach the disk.
pub(super) async fn round_trip(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let read: Vec<u8> = sqlx::query_scalar(
        "WITH written AS (INSERT INTO scratch (id, value) VALUES (gen_random_uuid(), decode('c0', 'hex')) RETURNING id, value)
         SELECT value FROM written",
    )
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM scratch").execute(&mut *connection).await?;
    if read == [0xc0] { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}
