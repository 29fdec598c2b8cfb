//! A learning controller: what it sees, what it wants, what it was told, and what it asks of the plant. Shared by its loops
//! and the handlers.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use coredinator_core::coordination::{AgentId, Intention};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    learner::{Episode, Learner},
    mandate::{Mandate, Standing, Told},
    wish::{Interest, Outlook},
};

/// Control steps in an episode.
pub const EPISODE_STEPS: u32 = 20;
/// Without a word from the plant for longer than this it is not ready.
pub const OUT_OF_TOUCH: Duration = Duration::from_secs(3);
/// How much the last step counts in what has been delivered of late.
const STEP_SHARE: f64 = 0.02;
/// Nearer to what was decided, in t/h, the feed is left as it is.
const FEED_TOLERANCE: f64 = 1e-6;

/// What it asks of the plant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Orders {
    /// For its tank, in t/h.
    pub steam: f64,
    /// For all, in t/h; `None`: that is not for it to set, or it is set already.
    pub feed: Option<f64>,
}

struct Controller {
    learner: Learner,
    interest: Interest,
    unit: String,
    sets_feed: bool,
    /// `None`: it takes what it likes.
    mandate: Option<Mandate>,
    orders: Option<Orders>,
    /// What it last saw; the share that was delivered is that of late.
    outlook: Option<Outlook>,
    /// The last word from the plant.
    heard: Option<Instant>,
}

/// The controller as the handlers and its loops share it.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Controller>>);

impl Shared {
    /// Shares a controller of `unit`. Without a mandate it takes what it likes.
    #[must_use]
    pub fn new(unit: String, learner: Learner, interest: Interest, mandate: Option<Mandate>, sets_feed: bool) -> Self {
        let (orders, outlook, heard) = (None, None, None);
        Self(Arc::new(Mutex::new(Controller { learner, interest, unit, sets_feed, mandate, orders, outlook, heard })))
    }

    fn lock(&self) -> MutexGuard<'_, Controller> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One control step, pure: it learns from what it sees, and says what it asks of the plant, within its mandate. What it
    /// sees tells the share of the steam that is delivered at the moment.
    pub fn step(&self, now: Outlook) -> (Orders, Option<Episode>) {
        let mut controller = self.lock();
        let at = Instant::now();
        let config = controller.interest.learner(EPISODE_STEPS);
        let (demand, episode) = controller.learner.step(&config, now.tank);
        let before = controller.outlook.map_or(1.0, |outlook| outlook.delivered);
        controller.outlook = Some(Outlook { delivered: before + (now.delivered - before) * STEP_SHARE, ..now });
        let mandate = controller.mandate.as_ref();
        let decided = mandate.and_then(|mandate| mandate.feed(at)).filter(|_| controller.sets_feed);
        let orders = Orders {
            steam: mandate.map_or(demand.steam, |mandate| demand.steam.min(mandate.steam(at))),
            feed: decided.filter(|feed| (feed - now.feed).abs() > FEED_TOLERANCE),
        };
        controller.orders = Some(orders);
        controller.heard = Some(at);
        (orders, episode)
    }

    /// What it wants of the next cycle. `None`: it does not see its plant.
    #[must_use]
    pub fn intend(&self, agent_id: AgentId, seq: u64) -> Option<Intention> {
        let controller = self.lock();
        let outlook = controller.outlook.filter(|_| in_touch(&controller))?;
        let forecast = controller.learner.forecast();
        Some(controller.interest.intention(agent_id, seq, forecast.as_ref(), &outlook))
    }

    /// Takes what it was told, or that there was nothing to tell yet, in answer to what was sent at `sent`.
    pub fn hear(&self, told: Option<Told>, sent: Instant) {
        if let Some(mandate) = &mut self.lock().mandate {
            match told {
                // What is no newer than the last changes nothing.
                Some(told) => drop(mandate.hear(told, sent, Instant::now())),
                None => mandate.heard(sent),
            }
        }
    }

    /// The name of its tank.
    #[must_use]
    pub fn unit(&self) -> String {
        self.lock().unit.clone()
    }

    /// What it has learned so far.
    #[must_use]
    pub fn learner(&self) -> Learner {
        self.lock().learner.clone()
    }

    /// Whether it has heard of its plant of late.
    #[must_use]
    pub fn in_touch(&self) -> bool {
        in_touch(&self.lock())
    }

    /// All there is to tell of it.
    #[must_use]
    pub fn status(&self) -> Value {
        let controller = self.lock();
        let episodes = controller.learner.episodes();
        let [inlet, steam, rest] = controller.learner.weights();
        json!({
            "unit": controller.unit,
            "setpoint": controller.interest.setpoint,
            "orders": controller.orders,
            "coordination": coordination(&controller),
            "episode": episodes.map_or(0, |(last, _)| last.number),
            "mean_error": episodes.map(|(last, _)| last.mean_error),
            "first_mean_error": episodes.map(|(_, first)| first.mean_error),
            "trust": controller.learner.trust(),
            "weights": { "inlet": inlet, "steam": steam, "rest": rest },
            "plant_reachable": in_touch(&controller),
        })
    }

    /// What it leaves its valve at when it stops, in t/h: what coredinator reserves for one that is silent. `None`: as it is.
    #[must_use]
    pub fn parting(&self) -> Option<f64> {
        let controller = self.lock();
        controller
            .mandate
            .as_ref()
            .and(controller.orders)
            .map(|orders| orders.steam.min(controller.interest.safe_steam))
    }
}

fn in_touch(controller: &Controller) -> bool {
    controller.heard.is_some_and(|heard| heard.elapsed() <= OUT_OF_TOUCH)
}

/// How it stands with coredinator; null where it is not coordinated.
fn coordination(controller: &Controller) -> Value {
    let now = Instant::now();
    controller.mandate.as_ref().map_or(Value::Null, |mandate| {
        let last = mandate.last();
        json!({
            "standing": match mandate.standing(now) {
                Standing::Told => "told",
                Standing::Alone => "alone",
            },
            "steam_at_most": mandate.steam(now),
            "feed": mandate.feed(now),
            "epoch": last.map(|told| told.epoch),
            "cycle": last.map(|told| told.cycle),
            "outcome": last.map(|told| told.decision.outcome),
            "reason": last.map(|told| &told.decision.reason.text),
        })
    })
}
