//! `coreio`, the I/O service: the plant, in scaled real time, over HTTP.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::StatusCode,
    routing::{get, post},
};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    action::Action,
    boiler::NOMINAL_PRESSURE,
    plant::{Plant, STEP_S, TANKS},
    problem::Problem,
    serve::{self, ServeArgs, say},
    state_file::{self, Loaded},
};

const TICK: Duration = Duration::from_millis(50);
const SAVE_EVERY: Duration = Duration::from_secs(2);
/// A pause of the machine longer than this, in real seconds, is not made up for: the plant stood still meanwhile.
const LONGEST_CATCH_UP_S: f64 = 1.0;
const MAX_BODY: usize = 16 * 1024;

/// Runs the simulated plant and serves it over HTTP.
#[derive(Debug, Clone, Args)]
pub struct CoreioArgs {
    /// What both services take.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// The port to listen on.
    #[arg(long, env = "PORT", default_value_t = 8001)]
    pub port: u16,
    /// Simulated seconds a second, 0.1 to 1000.
    #[arg(long, default_value_t = 20.0, value_parser = speed)]
    pub speed: f64,
    /// What the boiler can give at most, in t/h, 0 to 100.
    #[arg(long, default_value_t = 18.0, value_parser = capacity)]
    pub steam_capacity: f64,
    /// Say whether the plant's state can be read and written, and end.
    #[arg(long)]
    pub check: bool,
}

fn speed(text: &str) -> Result<f64, String> {
    bounded(text, 0.1, 1000.0)
}

fn capacity(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, 100.0)
}

/// Reads a number between `min` and `max`.
///
/// # Errors
/// What is wrong with it, for people.
pub fn bounded(text: &str, min: f64, max: f64) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (min..=max).contains(&number) => Ok(number),
        _ => Err(format!("must be a number between {min} and {max}")),
    }
}

/// A measured value and its unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Tag<U> {
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: U,
}

/// The plant as the handlers and the clock share it.
#[derive(Debug, Clone)]
pub struct Shared {
    plant: Arc<Mutex<Plant>>,
    steam_capacity: f64,
}

impl Shared {
    /// Shares `plant`; its boiler can give `steam_capacity` t/h at most.
    #[must_use]
    pub fn new(plant: Plant, steam_capacity: f64) -> Self {
        Self { plant: Arc::new(Mutex::new(plant)), steam_capacity }
    }

    /// The plant, for a moment: nobody holds it across an await.
    pub fn plant(&self) -> MutexGuard<'_, Plant> {
        // No step can panic half-way; were one to, the numbers are still numbers.
        self.plant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes.
pub fn router(shared: Shared) -> Router {
    let routes = Router::new()
        .route("/api/coreio/health", get(health))
        .route("/api/coreio/state", get(state))
        .route("/api/coreio/actions", post(actions))
        .route("/api/coreio/metrics", get(metrics));
    serve::with_fallbacks(routes.with_state(shared)).layer(DefaultBodyLimit::max(MAX_BODY))
}

async fn health(State(shared): State<Shared>) -> Json<Value> {
    let plant = shared.plant();
    let tripped = plant.boiler.tripped();
    Json(json!({
        "status": if tripped { "degraded" } else { "healthy" },
        "simulated_seconds": plant.time_s,
        "boiler_tripped": tripped,
        "steam_pressure_bar": plant.boiler.pressure,
    }))
}

async fn state(State(shared): State<Shared>) -> Json<Value> {
    let plant = shared.plant();
    Json(json!({
        "simulated_seconds": plant.time_s,
        "boiler": plant.boiler.burner,
        "tags": tags(&plant, shared.steam_capacity),
    }))
}

/// All that is measured, by name.
#[must_use]
pub fn tags(plant: &Plant, steam_capacity: f64) -> BTreeMap<String, Tag<&'static str>> {
    let mut tags = BTreeMap::new();
    let mut add = |name: String, value: f64, unit: &'static str| tags.insert(name, Tag { value, unit });
    for (index, (name, tank)) in TANKS.iter().zip(&plant.tanks).enumerate() {
        let inlet = plant.inlet(index);
        add(format!("{name}.level"), tank.level, "m");
        add(format!("{name}.temperature"), tank.measured, "°C");
        add(format!("{name}.valve"), tank.valve, "1");
        add(format!("{name}.inflow"), inlet.flow, "t/h");
        add(format!("{name}.inlet_temperature"), inlet.temperature, "°C");
        add(format!("{name}.outflow"), tank.outflow, "t/h");
        add(format!("{name}.steam_wanted"), tank.steam_wanted, "t/h");
        add(format!("{name}.steam"), tank.steam, "t/h");
    }
    add("feed.setpoint".to_owned(), plant.feed.setpoint, "t/h");
    add("feed.flow".to_owned(), plant.feed.flow, "t/h");
    add("feed.temperature".to_owned(), plant.feed.temperature, "°C");
    add("boiler.pressure".to_owned(), plant.boiler.pressure, "bar");
    add("boiler.nominal_pressure".to_owned(), NOMINAL_PRESSURE, "bar");
    add("boiler.output".to_owned(), plant.boiler.output, "t/h");
    add("boiler.capacity".to_owned(), steam_capacity, "t/h");
    tags
}

async fn actions(
    State(shared): State<Shared>,
    body: Result<Bytes, BytesRejection>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::TooLarge,
        _ => Problem::Malformed(rejection.body_text()),
    })?;
    let value: Value = serde_json::from_slice(&body).map_err(|error| Problem::Malformed(error.to_string()))?;
    let action = Action::parse(&value).map_err(Problem::Invalid)?;
    let mut plant = shared.plant();
    plant.act(&action);
    Ok((StatusCode::OK, Json(json!({ "accepted": value, "simulated_seconds": plant.time_s }))))
}

async fn metrics(State(shared): State<Shared>) -> Json<Value> {
    let plant = shared.plant();
    let counters = &plant.counters;
    let share = |part: f64| if counters.product > 0.0 { part / counters.product } else { 0.0 };
    Json(json!({
        "simulated_seconds": plant.time_s,
        "production": {
            "fed_t": counters.fed, "product_t": counters.product, "overflow_t": counters.overflow,
        },
        "quality": { "on_spec_t": counters.on_spec, "on_spec_share": share(counters.on_spec) },
        "energy": { "steam_t": counters.steam, "steam_t_per_t": share(counters.steam) },
        "boiler": { "trips": plant.boiler.trips },
    }))
}

/// The plant as it was left, or a new one.
fn resume(path: &Path, seed: u64) -> io::Result<Plant> {
    match state_file::load(path, Plant::is_plausible)? {
        Loaded::State(plant) => {
            say(format_args!("the plant goes on at {:.0} simulated seconds", plant.time_s));
            Ok(plant)
        }
        Loaded::Absent => {
            say(format_args!("a new plant, seed {seed}"));
            Ok(Plant::new(seed))
        }
        Loaded::Damaged { aside, reason } => {
            say(format_args!("warning: the plant's state was of no use ({reason}); kept as {}", aside.display()));
            Ok(Plant::new(seed))
        }
    }
}

/// Runs the service until it is asked to stop.
///
/// # Errors
/// The state cannot be read or its place not be written, or the address cannot be bound.
pub async fn run(args: CoreioArgs) -> io::Result<()> {
    let path = args.serve.state_file("coreio");
    if args.check {
        // In a file of its own: the plant may be running, and its state is its own to write.
        let trial = path.with_file_name("check.json");
        save_first(&trial, &resume(&path, args.serve.seed)?)?;
        fs::remove_file(&trial)?;
        say(format_args!("{} can be read and written", path.display()));
        return Ok(());
    }
    let listener = serve::listen(&args.serve.host, args.port).await?;
    let plant = resume(&path, args.serve.seed)?;
    save_first(&path, &plant)?;
    let shared = Shared::new(plant, args.steam_capacity);
    let clockwork = shared.clone();
    serve::serve(listener, router(shared), |stopped| drive(clockwork, args.speed, path, stopped)).await
}

/// That the state cannot be kept is better known before the plant runs than after.
fn save_first(path: &Path, plant: &Plant) -> io::Result<()> {
    state_file::save(path, plant)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display())))
}

/// Lets the plant's time pass and keeps its state safe.
async fn drive(shared: Shared, speed: f64, path: PathBuf, mut stopped: watch::Receiver<bool>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last, mut saved, mut owed) = (Instant::now(), Instant::now(), 0.0);
    let mut tripped = false;
    loop {
        let stopping = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => true,
            _ = ticks.tick() => false,
        };
        let now = Instant::now();
        owed += (now - last).as_secs_f64().min(LONGEST_CATCH_UP_S) * speed;
        last = now;
        let due = (owed / STEP_S).floor() * STEP_S;
        owed -= due;
        let snapshot = {
            let mut plant = shared.plant();
            plant.advance(due, shared.steam_capacity);
            (stopping || now - saved >= SAVE_EVERY || plant.boiler.tripped() != tripped).then(|| plant.clone())
        };
        if let Some(plant) = snapshot {
            if plant.boiler.tripped() != tripped {
                tripped = plant.boiler.tripped();
                let word = if tripped { "tripped on low steam pressure" } else { "is lit again" };
                say(format_args!("the boiler {word} at {:.0} simulated seconds", plant.time_s));
            }
            saved = now;
            save(&path, plant).await;
        }
        if stopping {
            return;
        }
    }
}

/// Writes the state off the thread that serves. That it cannot be written does not stop the plant.
async fn save(path: &Path, plant: Plant) {
    let to = path.to_owned();
    let written = tokio::task::spawn_blocking(move || state_file::save(&to, &plant)).await;
    if let Err(error) = written.map_err(io::Error::other).and_then(|result| result) {
        say(format_args!("warning: cannot write {}: {error}", path.display()));
    }
}
