//! `corerl`, a learning controller in a process of its own: it holds one tank at its setpoint.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::get};
use clap::{Args, builder::PossibleValuesParser};
use coredinator_core::{
    ServiceName,
    coordination::{Agent, AgentId},
};
use reqwest::Url;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use crate::{
    action::Action,
    agent::{self, AgentArgs, AgentLink},
    controller::{OUT_OF_TOUCH, Orders, Shared},
    coreio::bounded,
    learner::{Episode, Learner},
    link::{Link, PlantError},
    mandate::Mandate,
    plant::TANKS,
    problem::Problem,
    serve::{self, ServeArgs, say},
    state_file::{self, Loaded},
    wish::Interest,
};

const STEP: Duration = Duration::from_millis(250);

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
    /// How it shares the plant.
    #[command(flatten)]
    pub agent: AgentArgs,
}

fn temperature(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, 95.0)
}

fn steam(text: &str) -> Result<f64, String> {
    bounded(text, 0.0, Action::MAX_STEAM)
}

/// The routes.
pub fn router(shared: Shared) -> Router {
    let routes = Router::new()
        .route("/api/corerl/health", get(health))
        .route("/api/corerl/ready", get(ready))
        .route("/api/corerl/status", get(status));
    serve::with_fallbacks(routes.with_state(shared))
}

/// It lives. That the plant is away is told, but to restart a controller for it would help nobody.
async fn health(State(shared): State<Shared>) -> Json<Value> {
    let in_touch = shared.in_touch();
    Json(json!({ "status": if in_touch { "healthy" } else { "degraded" }, "plant_reachable": in_touch }))
}

/// It lives and controls.
async fn ready(State(shared): State<Shared>) -> Result<Json<Value>, Problem> {
    if shared.in_touch() {
        Ok(Json(json!({ "status": "ready" })))
    } else {
        Err(Problem::Unavailable(format!("no word from the plant for {} seconds", OUT_OF_TOUCH.as_secs())))
    }
}

async fn status(State(shared): State<Shared>) -> Json<Value> {
    Json(shared.status())
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
    let AgentArgs { coredinator, service, safe_steam, paid_up_to, sets_feed } = args.agent;
    let interest = Interest { setpoint: args.setpoint, max_steam: args.max_steam, paid_up_to, safe_steam };
    let coordinated =
        coredinator.map(|url| AgentLink::new(&url, agent(&args.unit, service, &interest)?)).transpose()?;
    let link = Link::new(&args.plant)?;
    let mandate = coordinated.as_ref().map(|_| Mandate::new(safe_steam, agent::TTL));
    let shared = Shared::new(args.unit, learner, interest, mandate, sets_feed);
    let looped = shared.clone();
    let work = |stopped: watch::Receiver<bool>| async move {
        let controlling = control(looped.clone(), link, path, stopped.clone());
        match coordinated {
            Some(link) => drop(tokio::join!(controlling, agent::take_part(looped, link, stopped))),
            None => controlling.await,
        }
    };
    serve::serve(listener, router(shared), work).await
}

/// What it registers as: by the name of its service, or else of its tank.
fn agent(unit: &str, service: Option<ServiceName>, interest: &Interest) -> io::Result<Agent> {
    let name = service.as_ref().map_or(unit, ServiceName::as_str);
    let mut agent = Agent::new(AgentId::new(name).map_err(io::Error::other)?);
    agent.ttl_seconds = agent::TTL.as_secs_f64();
    agent.fallback = Some(interest.fallback());
    agent.service = service;
    Ok(agent)
}

/// Observe, learn, act, in even steps; whatever fails is tried again at the next one.
async fn control(shared: Shared, link: Link, path: PathBuf, mut stopped: watch::Receiver<bool>) {
    let unit = shared.unit();
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
    if let Some(steam) = shared.parting() {
        // Where the plant is gone already there is no valve to leave open.
        drop(link.act(&unit, Orders { steam, feed: None }).await);
    }
    save(&shared, &path).await;
}

async fn control_step(shared: &Shared, link: &Link, unit: &str) -> Result<Option<Episode>, PlantError> {
    let now = link.look(unit).await?;
    let (orders, episode) = shared.step(now);
    link.act(unit, orders).await?;
    Ok(episode)
}

fn tell(shared: &Shared, episode: &Episode) {
    let first = shared.learner().episodes().map_or(episode.mean_error, |(_, first)| first.mean_error);
    say(format_args!(
        "episode {:>3}  mean |error| {:>5.2} °C  (first: {first:.2})  steam {:>4.1} t/h",
        episode.number, episode.mean_error, episode.mean_steam,
    ));
}

async fn save(shared: &Shared, path: &Path) {
    let (to, learner) = (path.to_owned(), shared.learner());
    let written = tokio::task::spawn_blocking(move || state_file::save(&to, &learner)).await;
    if let Err(error) = written.map_err(io::Error::other).and_then(|result| result) {
        say(format_args!("warning: cannot write {}: {error}", path.display()));
    }
}
