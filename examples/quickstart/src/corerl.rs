//! `corerl`, a learning controller in a process of its own: it holds one tank at its setpoint.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::get};
use clap::{Args, builder::PossibleValuesParser};
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    action::Action,
    coreio::{Tag, bounded},
    learner::{Demand, Episode, Learner, LearnerConfig, Observation},
    plant::TANKS,
    problem::Problem,
    serve::{self, ServeArgs, say},
    state_file::{self, Loaded},
};

const STEP: Duration = Duration::from_millis(250);
const EPISODE_STEPS: u32 = 20;
const ASK_TIMEOUT: Duration = Duration::from_secs(1);
/// Without a word from the plant for longer than this it is not ready.
const OUT_OF_TOUCH: Duration = Duration::from_secs(3);

/// Runs one learning controller.
#[derive(Debug, Clone, Args)]
pub struct CorerlArgs {
    /// What both services take.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// The port to listen on.
    #[arg(long, env = "PORT", default_value_t = 8000)]
    pub port: u16,
    /// The tank to hold.
    #[arg(long, value_parser = PossibleValuesParser::new(TANKS))]
    pub unit: String,
    /// At this temperature, in °C, 0 to 95.
    #[arg(long, value_parser = temperature)]
    pub setpoint: f64,
    /// The most steam it may ask for, in t/h.
    #[arg(long, default_value_t = 12.0, value_parser = steam)]
    pub max_steam: f64,
    /// Where the plant is.
    #[arg(long, env = "COREIO_URL", default_value = "http://127.0.0.1:8001")]
    pub plant: Url,
}

fn temperature(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, 95.0)
}

fn steam(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, Action::MAX_STEAM)
}

/// What went wrong between the controller and the plant. All of it is worth another try.
#[derive(Debug, thiserror::Error)]
pub enum PlantError {
    /// It did not answer, or not with what was asked for.
    #[error("the plant does not answer: {}", root_cause(.0))]
    Http(#[from] reqwest::Error),
    /// A tag is missing.
    #[error("the plant does not tell {0}")]
    Missing(String),
}

/// The innermost error says what is wrong; those around it repeat the address.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[derive(Deserialize)]
struct PlantState {
    simulated_seconds: f64,
    tags: BTreeMap<String, Tag<String>>,
}

impl PlantState {
    fn observe(&self, unit: &str) -> Result<Observation, PlantError> {
        let tag = |name: &str| {
            let name = format!("{unit}.{name}");
            self.tags.get(&name).map(|tag| tag.value).ok_or(PlantError::Missing(name))
        };
        Ok(Observation {
            time_s: self.simulated_seconds,
            temperature: tag("temperature")?,
            inlet_temperature: tag("inlet_temperature")?,
            steam: tag("steam")?,
        })
    }
}

struct Controller {
    learner: Learner,
    config: LearnerConfig,
    unit: String,
    demand: Option<Demand>,
    /// The last word from the plant.
    heard: Option<Instant>,
}

/// The controller as the handlers and its loop share it.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Controller>>);

impl Shared {
    /// Shares a controller of `unit`.
    #[must_use]
    pub fn new(unit: String, learner: Learner, config: LearnerConfig) -> Self {
        Self(Arc::new(Mutex::new(Controller { learner, config, unit, demand: None, heard: None })))
    }

    fn lock(&self) -> MutexGuard<'_, Controller> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One control step, pure: what it saw, what it wants.
    pub fn step(&self, now: Observation) -> (Demand, Option<Episode>) {
        let mut controller = self.lock();
        let config = controller.config;
        let (demand, episode) = controller.learner.step(&config, now);
        controller.demand = Some(demand);
        controller.heard = Some(Instant::now());
        (demand, episode)
    }
}

/// The routes.
pub fn router(shared: Shared) -> Router {
    let routes = Router::new()
        .route("/api/corerl/health", get(health))
        .route("/api/corerl/ready", get(ready))
        .route("/api/corerl/status", get(status));
    serve::with_fallbacks(routes.with_state(shared))
}

fn in_touch(controller: &Controller) -> bool {
    controller.heard.is_some_and(|heard| heard.elapsed() <= OUT_OF_TOUCH)
}

/// It lives. That the plant is away is told, but to restart a controller for it would help nobody.
async fn health(State(shared): State<Shared>) -> Json<Value> {
    let controller = shared.lock();
    let in_touch = in_touch(&controller);
    Json(json!({ "status": if in_touch { "healthy" } else { "degraded" }, "plant_reachable": in_touch }))
}

/// It lives and controls.
async fn ready(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    if in_touch(&shared.lock()) {
        Ok(Json(json!({ "status": "ready" })))
    } else {
        Err(Problem::Unavailable(format!("no word from the plant for {} seconds", OUT_OF_TOUCH.as_secs())))
    }
}

async fn status(State(shared): State<Shared>) -> Json<Value> {
    let controller = shared.lock();
    let episodes = controller.learner.episodes();
    let [inlet, steam, rest] = controller.learner.weights();
    Json(json!({
        "unit": controller.unit,
        "setpoint": controller.config.setpoint,
        "demand": controller.demand,
        "episode": episodes.map_or(0, |(last, _)| last.number),
        "mean_error": episodes.map(|(last, _)| last.mean_error),
        "first_mean_error": episodes.map(|(_, first)| first.mean_error),
        "trust": controller.learner.trust(),
        "weights": { "inlet": inlet, "steam": steam, "rest": rest },
        "plant_reachable": in_touch(&controller),
    }))
}

fn resume(path: &Path, seed: u64) -> io::Result<Learner> {
    match state_file::load(path, Learner::is_plausible)? {
        Loaded::State(learner) => {
            let episode = learner.episodes().map_or(0, |(last, _)| last.number);
            say(format_args!("what was learned in {episode} episodes is kept"));
            Ok(learner)
        }
        Loaded::Absent => {
            say(format_args!("nothing learned yet, seed {seed}"));
            Ok(Learner::new(seed))
        }
        Loaded::Damaged { aside, reason } => {
            say(format_args!("warning: what was learned was of no use ({reason}); kept as {}", aside.display()));
            Ok(Learner::new(seed))
        }
    }
}

/// Runs the controller until it is asked to stop.
///
/// # Errors
/// The state cannot be read, or the address cannot be bound.
pub async fn run(args: CorerlArgs) -> io::Result<()> {
    let path = args.serve.state_file(&format!("corerl-{}", args.unit));
    let listener = serve::listen(&args.serve.host, args.port).await?;
    let learner = resume(&path, args.serve.seed)?;
    let config = LearnerConfig { setpoint: args.setpoint, max_steam: args.max_steam, episode_steps: EPISODE_STEPS };
    let client = Client::builder().timeout(ASK_TIMEOUT).build().map_err(io::Error::other)?;
    let link = Link {
        client,
        state: join(&args.plant, "api/coreio/state")?,
        actions: join(&args.plant, "api/coreio/actions")?,
    };
    let shared = Shared::new(args.unit, learner, config);
    let looped = shared.clone();
    serve::serve(listener, router(shared), |stopped| control(looped, link, path, stopped)).await
}

fn join(base: &Url, path: &str) -> io::Result<Url> {
    base.join(path).map_err(|error| io::Error::other(format!("cannot use {base} as the plant: {error}")))
}

/// The way to the plant.
struct Link {
    client: Client,
    state: Url,
    actions: Url,
}

impl Link {
    async fn observe(&self, unit: &str) -> Result<Observation, PlantError> {
        let answer = self.client.get(self.state.clone()).send().await?.error_for_status()?;
        answer.json::<PlantState>().await?.observe(unit)
    }

    async fn act(&self, unit: &str, demand: Demand) -> Result<(), PlantError> {
        let body = json!({ "unit": unit, "steam": demand.steam });
        self.client.post(self.actions.clone()).json(&body).send().await?.error_for_status()?;
        Ok(())
    }
}

/// Observe, learn, act, in even steps; whatever fails is tried again at the next one.
async fn control(shared: Shared, link: Link, path: PathBuf, mut stopped: watch::Receiver<bool>) {
    let unit = shared.lock().unit.clone();
    let mut steps = interval(STEP);
    steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            _ = steps.tick() => {}
        }
        match control_step(&shared, &link, &unit).await {
            Ok(episode) => {
                if std::mem::take(&mut away) {
                    say(format_args!("the plant is back"));
                }
                if let Some(episode) = episode {
                    tell(&shared, &episode);
                    save(&shared, &path).await;
                }
            }
            // Said once, not four times a second.
            Err(error) if !std::mem::replace(&mut away, true) => say(format_args!("warning: {error}; trying on")),
            Err(_) => {}
        }
    }
    save(&shared, &path).await;
}

async fn control_step(shared: &Shared, link: &Link, unit: &str) -> Result<Option<Episode>, PlantError> {
    let now = link.observe(unit).await?;
    let (demand, episode) = shared.step(now);
    link.act(unit, demand).await?;
    Ok(episode)
}

fn tell(shared: &Shared, episode: &Episode) {
    let first = shared.lock().learner.episodes().map_or(episode.mean_error, |(_, first)| first.mean_error);
    say(format_args!(
        "episode {:>3}  mean |error| {:>5.2} °C  (first: {first:.2})  steam {:>4.1} t/h",
        episode.number, episode.mean_error, episode.mean_steam,
    ));
}

async fn save(shared: &Shared, path: &Path) {
    let (to, learner) = (path.to_owned(), shared.lock().learner.clone());
    let written = tokio::task::spawn_blocking(move || state_file::save(&to, &learner)).await;
    if let Err(error) = written.map_err(io::Error::other).and_then(|result| result) {
        say(format_args!("warning: cannot write {}: {error}", path.display()));
    }
}
