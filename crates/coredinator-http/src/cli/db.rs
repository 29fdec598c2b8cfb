//! `db`: the database behind a coredinator. `status` and `verify` ask the coredinator that runs; the others work on the
//! database itself.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use coredinator_core::{Clock as _, Record, StoreCheckOutcome, StoreError, SystemClock};
use coredinator_registry::{
    DataDir,
    store::{Snapshot, SnapshotError},
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    ExitStatus, Failure, Program,
    args::{DbBackupArgs, DbExportArgs, DbMigrateArgs, DbRestoreArgs, DbSettings, DbVerifyArgs, SettingsArgs},
    client::Client,
    config_file,
    fields::text,
    output::Output,
    paint,
    register::is_stdin,
    table::table,
};
use crate::{
    StartError,
    api::database_schema::DatabaseVerification,
    config::{Config, DatabaseUrl},
    store::Place,
};

fn config(program: &Program, settings: &DbSettings) -> Result<Config, Failure> {
    let settings = SettingsArgs {
        config: settings.config.clone(),
        data_dir: settings.data_dir.clone(),
        database_url: settings.database_url.clone(),
        ..SettingsArgs::default()
    };
    Ok(config_file::load(program, &settings)?.config)
}

fn wrong_place(error: &StartError) -> Failure {
    Failure::caused(ExitStatus::Usage, "the database cannot be used", error)
}

fn failed(what: &str, place: &Place, error: &StoreError) -> Failure {
    let exit = match error {
        StoreError::Unavailable { .. } => ExitStatus::Unreachable,
        StoreError::Invalid(_) => ExitStatus::Usage,
        _ => ExitStatus::Failed,
    };
    Failure::caused(exit, format!("cannot {what} {}", place.location()), error)
}

/// `db status`.
///
/// # Errors
/// As [`Client::get`]; [`ExitStatus::Failed`] where the database is not reached.
pub async fn status(client: &Client, output: &Output) -> Result<(), Failure> {
    let status = client.get("/database/status").await?;
    output.data(&status, &[text(&status["store"], "location")], |_| describe(&status))?;
    if status["reachable"] == true { Ok(()) } else { Err(Failure::silent(ExitStatus::Failed)) }
}

fn describe(status: &Value) -> String {
    let store = &status["store"];
    let mut lines = vec![("reachable", text_of(&status["reachable"]))];
    let mut add = |name, value: &Value| {
        if !value.is_null() {
            lines.push((name, text_of(value)));
        }
    };
    add("error", &status["error"]);
    add("stale for ms", &status["stale_for_ms"]);
    for (name, key) in [
        ("backend", "backend"),
        ("location", "location"),
        ("version", "version"),
        ("schema", "schema_version"),
        ("revision", "revision"),
        ("compacted", "compacted"),
        ("compacted at", "compacted_at"),
        ("bytes", "size_bytes"),
        ("round trip ms", "round_trip_ms"),
    ] {
        add(name, &store[key]);
    }
    for (name, key) in [("reads", "reads"), ("writes", "writes")] {
        let of = &store[key];
        if of["calls"].as_u64().is_some_and(|calls| calls > 0) {
            let told = format!(
                "p50 {} ms, p95 {} ms, p99 {} ms, of {}",
                of["p50_ms"], of["p95_ms"], of["p99_ms"], of["calls"]
            );
            add(name, &told.into());
        }
    }
    let connections = &store["connections"];
    if !connections.is_null() {
        let (used, idle, max) = (&connections["in_use"], &connections["idle"], &connections["max"]);
        add("connections", &format!("{used} in use, {idle} idle, {max} at most").into());
    }
    for lease in store["leases"].as_array().into_iter().flatten() {
        let holder = lease["holder"].as_str().unwrap_or("nobody");
        let told = format!("{} is held by {holder}, epoch {}", text(lease, "name"), lease["epoch"]);
        add("lease", &told.into());
    }
    lines.iter().map(|(name, value)| format!("{name:<14} {}\n", paint::clean(value))).collect()
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// `db verify`.
///
/// # Errors
/// [`ExitStatus::Failed`] where a check failed; as [`Client::send`].
pub async fn verify(
    program: &Program,
    client: impl FnOnce() -> Result<Client, Failure>,
    output: &Output,
    args: &DbVerifyArgs,
) -> Result<(), Failure> {
    let found = if args.here {
        let place = match &args.candidate {
            Some(url) => Place::parse(&DatabaseUrl::new(url)),
            None => Place::of(&config(program, &DbSettings::default())?),
        };
        let checks = place.map_err(|error| wrong_place(&error))?.verify().await;
        let found = DatabaseVerification::new(args.candidate.is_some(), checks);
        serde_json::to_value(found)
            .map_err(|error| Failure::caused(ExitStatus::Failed, "cannot write what was found", &error))?
    } else {
        let body = args.candidate.as_ref().map(|url| json!({ "database_url": url }));
        client()?.send(Method::POST, "/database/verify", body.as_ref()).await?.1
    };
    let checks: Vec<&Value> = found["checks"].as_array().into_iter().flatten().collect();
    let names: Vec<&str> = checks.iter().map(|check| text(check, "name")).collect();
    output.data(&found, &names, |_| {
        let row = |check: &&Value| {
            let column = |key| paint::clean(check[key].as_str().unwrap_or_default()).into_owned();
            vec![column("name"), column("outcome"), column("detail"), column("hint")]
        };
        table(&["CHECK", "OUTCOME", "FOUND", "HINT"], checks.iter().map(row).collect())
    })?;
    let failed = json!(StoreCheckOutcome::Failed);
    match checks.iter().filter(|check| check["outcome"] == failed).count() {
        0 => Ok(()),
        1 => Err(Failure::new(ExitStatus::Failed, "one check failed")),
        count => Err(Failure::new(ExitStatus::Failed, format!("{count} checks failed"))),
    }
}

/// Everything at a place that should hold something.
async fn taken(place: &Place) -> Result<Snapshot, Failure> {
    match place.snapshot().await {
        Ok(Some(snapshot)) => Ok(snapshot),
        Ok(None) => Err(Failure::new(ExitStatus::NotFound, format!("there is no store at {}", place.location()))),
        Err(error) => Err(failed("read", place, &error)),
    }
}

/// `db backup`: while coredinator runs, or not.
///
/// # Errors
/// [`ExitStatus::NotFound`] where there is nothing to back up; [`ExitStatus::Unreachable`]; [`ExitStatus::Failed`].
pub async fn backup(program: &Program, output: &Output, args: &DbBackupArgs) -> Result<(), Failure> {
    let config = config(program, &args.settings)?;
    let place = Place::of(&config).map_err(|error| wrong_place(&error))?;
    let snapshot = taken(&place).await?;
    let checksum = if is_stdin(&args.file) {
        snapshot.write_to(io::stdout().lock())?
    } else {
        write_file(&args.file, &snapshot).map_err(|error| {
            Failure::caused(ExitStatus::Failed, format!("cannot write {}", args.file.display()), &error)
        })?
    };
    output.note(&format!(
        "revision {} of {}: {} records, sha256 {checksum}",
        snapshot.revision,
        paint::clean(&place.location()),
        snapshot.records.len()
    ));
    Ok(())
}

/// The file is whole or not there, and for its owner alone: it holds all that the store does.
fn write_file(path: &Path, snapshot: &Snapshot) -> io::Result<String> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    let mut writer = BufWriter::new(file);
    let written = snapshot.write_to(&mut writer).and_then(|checksum| {
        writer.flush()?;
        writer.get_ref().sync_all()?;
        fs::rename(&part, path)?;
        Ok(checksum)
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

/// Makes sure that no coredinator uses a place, for as long as the answer lives.
async fn alone(place: &Place, data_dir: Option<&Path>) -> Result<Option<DataDir>, Failure> {
    let lock = data_dir.map(DataDir::open).transpose().map_err(|error| {
        let exit = if error.is_retryable() { ExitStatus::Conflict } else { ExitStatus::Failed };
        Failure::caused(exit, "this is done while coredinator is stopped", &error)
    })?;
    let there = place.snapshot().await.map_err(|error| failed("read", place, &error))?;
    let now = SystemClock.now();
    if let Some(lease) = there.as_ref().and_then(|there| there.held(now).next()) {
        let holder = lease.holder.as_deref().unwrap_or_default();
        let message = format!("{} is in use: {holder} holds the lease {:?}", place.location(), lease.name);
        return Err(Failure::new(ExitStatus::Conflict, message)
            .hint(format!("stop every coredinator on it; one that was killed is forgotten at {}", lease.expires_at)));
    }
    Ok(lock)
}

async fn fill(place: &Place, snapshot: &Snapshot, replace: bool) -> Result<(), Failure> {
    match place.restore(snapshot, replace).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let message = format!("{} holds something already, and was left as it is", place.location());
            Err(Failure::new(ExitStatus::Conflict, message).hint("--replace replaces it; back it up before"))
        }
        Err(error) => Err(failed("fill", place, &error)),
    }
}

/// `db restore`: while coredinator is stopped.
///
/// # Errors
/// [`ExitStatus::Usage`] for a file that is no whole backup; [`ExitStatus::Conflict`] where a coredinator runs, or something
/// is there already; [`ExitStatus::Unreachable`]; [`ExitStatus::Failed`]. Nothing has been changed then.
pub async fn restore(program: &Program, output: &Output, args: &DbRestoreArgs) -> Result<(), Failure> {
    let config = config(program, &args.settings)?;
    let place = Place::of(&config).map_err(|error| wrong_place(&error))?;
    let snapshot = read_file(&args.file).map_err(|error| {
        let exit = if matches!(error, SnapshotError::Io(_)) { ExitStatus::Failed } else { ExitStatus::Usage };
        Failure::caused(exit, format!("{} cannot be restored", args.file.display()), &error)
    })?;
    let _lock = alone(&place, Some(&config.data_dir)).await?;
    fill(&place, &snapshot, args.replace).await?;
    output.note(&format!(
        "{} is at revision {}: {} records",
        paint::clean(&place.location()),
        snapshot.revision,
        snapshot.records.len()
    ));
    Ok(())
}

fn read_file(path: &Path) -> Result<Snapshot, SnapshotError> {
    if is_stdin(path) {
        return Snapshot::read_from(io::stdin().lock());
    }
    Snapshot::read_from(BufReader::new(File::open(path)?))
}

/// `db export`: while coredinator runs, or not.
///
/// # Errors
/// As [`backup`].
pub async fn export(program: &Program, output: &Output, args: &DbExportArgs) -> Result<(), Failure> {
    let config = config(program, &args.settings)?;
    let place = Place::of(&config).map_err(|error| wrong_place(&error))?;
    let snapshot = taken(&place).await?;
    let mut out = BufWriter::new(io::stdout().lock());
    for Record { key, value, revision } in &snapshot.records {
        if !key.as_str().starts_with(&args.prefix) {
            continue;
        }
        let value = serde_json::from_slice(value).unwrap_or_else(|_| Value::from(String::from_utf8_lossy(value)));
        let line = json!({ "key": key.as_str(), "revision": revision.0, "value": value });
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    output.note(&format!("revision {} of {}", snapshot.revision, paint::clean(&place.location())));
    Ok(())
}

/// `db migrate`: while coredinator is stopped.
///
/// # Errors
/// As [`restore`].
pub async fn migrate(program: &Program, output: &Output, args: &DbMigrateArgs) -> Result<(), Failure> {
    let parse = |url: &str| Place::parse(&DatabaseUrl::new(url)).map_err(|error| wrong_place(&error));
    let to = parse(&args.to)?;
    let from = match &args.from {
        Some(url) => parse(url)?,
        None => {
            let settings = DbSettings { data_dir: args.data_dir.clone(), ..DbSettings::default() };
            Place::File(config(program, &settings)?.data_dir.join("store.sqlite"))
        }
    };
    if from.location() == to.location() {
        return Err(Failure::new(ExitStatus::Usage, "--from and --to are the same database"));
    }
    // A file stands in the data directory of the coredinator that uses it, which has that locked while it runs.
    let data_dir = match &from {
        Place::File(path) => path.parent().filter(|folder| folder.join("lock").exists()),
        _ => None,
    };
    let _lock = alone(&from, data_dir).await?;
    let snapshot = taken(&from).await?;
    let _ = alone(&to, None).await?;
    fill(&to, &snapshot, args.replace).await?;
    output.note(&format!(
        "{} records are at {} now, at the same revision ({}); start coredinator with that as its DATABASE_URL",
        snapshot.records.len(),
        paint::clean(&to.location()),
        snapshot.revision
    ));
    Ok(())
}
