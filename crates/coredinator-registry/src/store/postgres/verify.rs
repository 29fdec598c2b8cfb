//! Everything that has to be right for a server to be our store, looked at part by part over a connection of its own.

use coredinator_core::{Clock, StoreCheck, StoreError, SystemClock, Timestamp};
use sqlx::{Connection, PgConnection, Row};
use tokio::time::{Instant, timeout};

use super::{
    connect::Connector,
    error::{classify, explain, too_slow},
    open,
    schema::VERSION,
};

/// What is looked at after a connection has been made.
const PARTS: [&str; 7] =
    ["server_version", "migrations", "privileges", "round_trip", "clock_skew", "durability", "replication"];

/// The oldest server that has all that is used here.
const OLDEST_SERVER: i32 = 130_000;

/// How far the clocks may be apart before the stamps of events mislead.
const MOST_SKEW_MS: f64 = 1000.0;

/// Leaves nothing behind, whatever it finds.
pub(super) async fn verify(connector: &Connector) -> Vec<StoreCheck> {
    let options = connector.options();
    let location = options.location();
    let since = Instant::now();
    let mut connection = match connector.connect().await {
        Ok(connection) => connection,
        Err(error) => {
            let error = classify(&location, error);
            let mut checks = vec![StoreCheck::failed("connectivity", describe(&error), hint(&error))];
            checks.extend(PARTS.map(|part| StoreCheck::skipped(part, "there is no connection")));
            return checks;
        }
    };
    let detail = format!("connected to {location} in {:.1} ms", since.elapsed().as_secs_f64() * 1e3);
    let mut checks = vec![StoreCheck::ok("connectivity", detail)];
    let mut answers = true;
    for part in PARTS {
        if !answers {
            checks.push(StoreCheck::skipped(part, "the server answers no more"));
            continue;
        }
        let looking = timeout(options.statement_timeout, look(part, &mut connection, connector, &location));
        let check = looking.await.unwrap_or_else(|_| {
            answers = false;
            Err(classify(&location, too_slow()))
        });
        checks.push(check.unwrap_or_else(|error| StoreCheck::failed(part, describe(&error), hint(&error))));
        // A part that failed may have left a transaction.
        answers &= timeout(options.statement_timeout, sqlx::raw_sql("ROLLBACK").execute(&mut connection)).await.is_ok();
    }
    let _ = timeout(options.statement_timeout, connection.close()).await;
    checks
}

fn describe(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn hint(error: &StoreError) -> &'static str {
    let text = describe(error);
    let about = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if about(&["refuses the login"]) {
        "check user and password, and the server's pg_hba.conf"
    } else if about(&["no such database"]) {
        "create it (CREATE DATABASE), or name another"
    } else if about(&["secure connection", "certificate", "TLS"]) {
        "check sslmode and sslrootcert, and the name in the server's certificate"
    } else if about(&["out of connections"]) {
        "raise the server's max_connections, or lower max_connections in the URLs"
    } else if about(&["privileges"]) {
        "grant them to this user, or let it own the schema"
    } else if about(&["read-only"]) {
        "name the primary server, or wait for the failover to end"
    } else if about(&["schema version"]) {
        "run the coredinator that the tables were upgraded for"
    } else {
        "check host and port, that the server runs, and what is between here and there"
    }
}

async fn look(
    part: &'static str,
    connection: &mut PgConnection,
    connector: &Connector,
    location: &str,
) -> Result<StoreCheck, StoreError> {
    let schema = connector.options().schema.as_str();
    let looked = match part {
        "server_version" => server_version(connection).await,
        "migrations" => {
            let found = open::inspect(connection, location).await.map_err(|failure| explain(location, failure))?;
            Ok(match found {
                Some(version) => {
                    StoreCheck::ok(part, format!("schema version {version}; this coredinator knows {VERSION}"))
                }
                None => StoreCheck::ok(part, format!("schema {schema} is empty; it is filled at the first start")),
            })
        }
        "privileges" => privileges(connection, schema).await,
        "round_trip" => round_trip(connection, schema).await,
        "clock_skew" => clock_skew(connection).await,
        "durability" => durability(connection).await,
        _ => replication(connection).await,
    };
    looked.map_err(|error| classify(location, error))
}

async fn server_version(connection: &mut PgConnection) -> Result<StoreCheck, sqlx::Error> {
    let row = sqlx::query(
        "SELECT current_setting('server_version') AS version, current_setting('server_version_num')::integer AS number,
            (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS tls",
    )
    .fetch_one(connection)
    .await?;
    let (version, tls) = (row.try_get::<String, _>("version")?, row.try_get::<Option<String>, _>("tls")?);
    let over = tls.map_or_else(|| "without TLS".to_owned(), |tls| format!("over {tls}"));
    if row.try_get::<i32, _>("number")? < OLDEST_SERVER {
        return Ok(StoreCheck::failed("server_version", format!("PostgreSQL {version}"), "13 or newer is needed"));
    }
    Ok(StoreCheck::ok("server_version", format!("PostgreSQL {version}, {over}")))
}

async fn privileges(connection: &mut PgConnection, schema: &str) -> Result<StoreCheck, sqlx::Error> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)")
        .bind(schema)
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        let may: bool = sqlx::query_scalar("SELECT has_database_privilege(current_database(), 'CREATE')")
            .fetch_one(connection)
            .await?;
        let detail = format!("schema {schema} does not exist");
        return Ok(if may {
            StoreCheck::ok("privileges", format!("{detail}, and may be made"))
        } else {
            let hint = format!("GRANT CREATE ON DATABASE to this user, or CREATE SCHEMA {schema} AUTHORIZATION it");
            StoreCheck::failed("privileges", format!("{detail}, and may not be made"), hint)
        });
    }
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT privilege || ' on schema ' || $1
            FROM unnest(ARRAY['USAGE']) AS privilege WHERE NOT has_schema_privilege($1, privilege)
         UNION ALL
         SELECT privilege || ' on ' || relname FROM pg_class CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE'])
                AS privilege
            WHERE relkind = 'r' AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = $1)
                AND NOT has_table_privilege(pg_class.oid, privilege)",
    )
    .bind(schema)
    .fetch_all(connection)
    .await?;
    Ok(if missing.is_empty() {
        StoreCheck::ok("privileges", format!("all that is needed in schema {schema}"))
    } else {
        StoreCheck::failed("privileges", format!("missing: {}", missing.join(", ")), "GRANT them to this user")
    })
}

/// In a transaction that is taken back, so that a database that is only looked at stays as it is.
async fn round_trip(connection: &mut PgConnection, schema: &str) -> Result<StoreCheck, sqlx::Error> {
    let since = Instant::now();
    // The schema's name needs no quoting: options see to that.
    let make = format!(
        "BEGIN; CREATE SCHEMA IF NOT EXISTS {schema};
         CREATE TABLE IF NOT EXISTS {schema}.scratch (id uuid PRIMARY KEY, value bytea NOT NULL);
         INSERT INTO {schema}.scratch (id, value) VALUES (gen_random_uuid(), decode('c0', 'hex'))"
    );
    let exists: bool =
        sqlx::query_scalar("SELECT to_regclass('scratch') IS NOT NULL").fetch_one(&mut *connection).await?;
    if exists {
        sqlx::raw_sql("BEGIN; INSERT INTO scratch (id, value) VALUES (gen_random_uuid(), decode('c0', 'hex'))")
            .execute(&mut *connection)
            .await?;
    } else {
        sqlx::raw_sql(sqlx::AssertSqlSafe(make)).execute(&mut *connection).await?;
    }
    let read: Vec<u8> =
        sqlx::query_scalar("SELECT value FROM scratch LIMIT 1").persistent(false).fetch_one(&mut *connection).await?;
    sqlx::raw_sql("DELETE FROM scratch; ROLLBACK").execute(connection).await?;
    let took = since.elapsed().as_secs_f64() * 1e3;
    Ok(if read == [0xc0] {
        StoreCheck::ok("round_trip", format!("written, read and deleted in {took:.1} ms"))
    } else {
        StoreCheck::failed("round_trip", "what was read is not what was written", "restore a backup")
    })
}

async fn clock_skew(connection: &mut PgConnection) -> Result<StoreCheck, sqlx::Error> {
    let (before, since) = (SystemClock.now(), Instant::now());
    let micros: i64 = sqlx::query_scalar("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
        .fetch_one(connection)
        .await?;
    let middle = before.as_microsecond() as f64 + since.elapsed().as_secs_f64() * 5e5;
    let skew = (micros as f64 - middle) / 1e3;
    let known = since.elapsed().as_secs_f64() * 1e3 / 2.0;
    let detail = format!("the server's clock is {skew:+.1} ms from this machine's (±{known:.1} ms)");
    debug_assert!(Timestamp::from_microsecond(micros).is_ok(), "the server lives in our time");
    Ok(if skew.abs() - known > MOST_SKEW_MS {
        StoreCheck::failed("clock_skew", detail, "let both machines keep their time by NTP")
    } else {
        StoreCheck::ok("clock_skew", detail)
    })
}

async fn durability(connection: &mut PgConnection) -> Result<StoreCheck, sqlx::Error> {
    let off: Vec<String> = sqlx::query_scalar(
        "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off' ORDER BY name",
    )
    .fetch_all(connection)
    .await?;
    Ok(if off.is_empty() {
        StoreCheck::ok("durability", "what is acknowledged is on the server's disk")
    } else {
        let hint = "set it to on: otherwise a power cut loses what was acknowledged, or the whole database";
        StoreCheck::failed("durability", format!("the server runs with {} off", off.join(" and ")), hint)
    })
}

async fn replication(connection: &mut PgConnection) -> Result<StoreCheck, sqlx::Error> {
    let row = sqlx::query(
        "SELECT pg_is_in_recovery() AS standby, current_setting('transaction_read_only') = 'on' AS read_only,
            (SELECT count(*) FROM pg_stat_replication) AS standbys,
            (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum')) AS synchronous",
    )
    .fetch_one(connection)
    .await?;
    if row.try_get("standby")? {
        let hint = "name the primary server, or wait for the failover to end";
        return Ok(StoreCheck::failed("replication", "this is a standby, which takes no writes", hint));
    }
    if row.try_get("read_only")? {
        let hint = "set default_transaction_read_only to off once writes are to be taken";
        return Ok(StoreCheck::failed("replication", "this server is set to take no writes", hint));
    }
    let (standbys, synchronous) = (row.try_get::<i64, _>("standbys")?, row.try_get::<i64, _>("synchronous")?);
    Ok(StoreCheck::ok(
        "replication",
        format!("the primary, with {standbys} standbys, {synchronous} of them synchronous"),
    ))
}
