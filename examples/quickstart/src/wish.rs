//! What a controller wants of its plant, as the options of an intention: each asks for an amount of steam and a feed, and
//! is worth what the controller, by all that it has learned, expects of it. Pure and synchronous.

use std::collections::BTreeMap;

use coredinator_core::coordination::{ActionOption, AgentId, Claim, Fallback, Intention};
use serde_json::json;

use crate::{
    action::Action,
    learner::{Forecast, LearnerConfig, Observation},
};

/// The name of the shared steam among the resources, in t/h.
pub const STEAM: &str = "steam";
/// The name of the feed's setpoint among the variables, in t/h.
pub const FEED: &str = "feed";
/// Feeds are asked for in multiples of this, in t/h.
pub const FEED_STEP: f64 = 5.0;

/// Feed steps to either side of the present feed that are asked for.
const REACH: i32 = 2;
/// The least feed that is asked for, and the one that goes with the safe steam, in t/h.
pub const LEAST_FEED: f64 = 80.0;
/// The most feed that is asked for, in t/h.
pub const MOST_FEED: f64 = 160.0;
/// Shares of the steam that it needs which it asks for.
const SHARES: [f64; 4] = [1.0, 0.95, 0.9, 0.8];
/// On top of what it needs, for the noise of the plant: a share, and t/h.
const HEADROOM: (f64, f64) = (0.06, 0.2);
/// However little has been delivered of late, this part is counted on.
const LEAST_DELIVERED: f64 = 0.1;
/// How soon it wants to be back at its setpoint, in simulated seconds.
const CATCH_UP_S: f64 = 120.0;
/// What an hour at its setpoint and at the feed it is paid for is worth to it.
const PAY: f64 = 10.0;
/// What a tonne of steam costs it, as a share of that.
const STEAM_PRICE: f64 = 0.01;
/// This far from its setpoint, in °C, a third of the pay is gone, and further away it fades exponentially.
const TOLERABLE: f64 = 2.5;

/// What a controller is there for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interest {
    /// The temperature that it is to hold, in °C.
    pub setpoint: f64,
    /// The most steam that it may ask for, in t/h.
    pub max_steam: f64,
    /// More feed than this, in t/h, brings it nothing.
    pub paid_up_to: f64,
    /// The steam that it takes without a word from a coordinator, in t/h.
    pub safe_steam: f64,
}

/// What it sees of the plant beyond its own tank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlook {
    /// Its own tank.
    pub tank: Observation,
    /// What flows into its tank, in t/h.
    pub inflow: f64,
    /// The feed that is asked for at present, in t/h.
    pub feed: f64,
    /// The part of the steam that it asked for which arrived of late, 0 to 1.
    pub delivered: f64,
}

impl Interest {
    /// The same as its learner reads it.
    #[must_use]
    pub fn learner(&self, episode_steps: u32) -> LearnerConfig {
        LearnerConfig { setpoint: self.setpoint, max_steam: self.max_steam, episode_steps }
    }

    /// What a feed is worth to it at this distance from its setpoint, of 1: this is also what it is judged by in the end.
    #[must_use]
    pub fn satisfaction(&self, feed: f64, error: f64) -> f64 {
        let on_target = (error / TOLERABLE).cosh().recip();
        on_target * (feed / self.paid_up_to).clamp(0.0, 1.0)
    }

    /// The safe side: little steam, and whatever feed the others settle on.
    #[must_use]
    pub fn fallback(&self) -> Fallback {
        let anything =
            Claim { value: LEAST_FEED, min: Some(Action::MIN_FLOW), max: Some(Action::MAX_FLOW), weight: 1.0 };
        Fallback::Option(Box::new(ActionOption {
            id: "safe".to_owned(),
            action: json!({ "steam": self.safe_steam }),
            demands: BTreeMap::from([(STEAM.to_owned(), self.safe_steam)]),
            claims: BTreeMap::from([(FEED.to_owned(), anything)]),
            effects: BTreeMap::new(),
            utility: 0.0,
            elastic: None,
        }))
    }

    /// What it wants now, the most wanted first. One that has not learned enough to foresee anything asks for much of its
    /// steam, to learn with, at the feed as it is.
    #[must_use]
    pub fn intention(&self, agent_id: AgentId, seq: u64, forecast: Option<&Forecast>, outlook: &Outlook) -> Intention {
        let mut options = match forecast {
            Some(forecast) => self.options(forecast, outlook),
            None => self.guesses(outlook),
        };
        let by_worth =
            |a: &ActionOption, b: &ActionOption| b.utility.total_cmp(&a.utility).then_with(|| a.id.cmp(&b.id));
        options.sort_by(by_worth);
        Intention {
            agent_id,
            seq,
            valid_until_cycle: None,
            disagreement: Some(self.safe_worth(forecast, outlook)),
            options,
        }
    }

    fn options(&self, forecast: &Forecast, outlook: &Outlook) -> Vec<ActionOption> {
        let mut options = Vec::new();
        for step in -REACH..=REACH {
            let feed = on_grid(outlook.feed) + f64::from(step) * FEED_STEP;
            if !(LEAST_FEED..=MOST_FEED).contains(&feed) {
                continue;
            }
            let full = self.need(forecast, outlook, feed).min(self.max_steam);
            for share in SHARES {
                let steam = full * share;
                let worth = self.worth(forecast, outlook, feed, steam);
                options.push(option(&format!("{feed:.0}@{:.0}%", share * 100.0), feed, steam, worth));
            }
        }
        // The feed is where nobody asks for it: back towards what can be asked for.
        if options.is_empty() { self.guesses(outlook) } else { options }
    }

    fn guesses(&self, outlook: &Outlook) -> Vec<ActionOption> {
        let feed = on_grid(outlook.feed).clamp(LEAST_FEED, MOST_FEED);
        let guess = |(share, worth): (f64, f64)| {
            option(&format!("guess@{:.0}%", share * 100.0), feed, self.max_steam * share, PAY * worth)
        };
        [(0.8, 0.5), (0.6, 0.4), (0.4, 0.3)].map(guess).to_vec()
    }

    /// The most steam that is of use at a feed: what brings the tank to its setpoint soon, and some more for the noise.
    fn need(&self, forecast: &Forecast, outlook: &Outlook, feed: f64) -> f64 {
        let need = forecast.steam(&outlook.tank, self.setpoint, more_flow(outlook, feed), CATCH_UP_S);
        (need.max(0.0) * (1.0 + HEADROOM.0) + HEADROOM.1) / outlook.delivered.max(LEAST_DELIVERED)
    }

    /// What it expects of a feed with this much steam: how near it comes to its setpoint, and what it is paid for that.
    fn worth(&self, forecast: &Forecast, outlook: &Outlook, feed: f64, steam: f64) -> f64 {
        let arrives = (steam * outlook.delivered - HEADROOM.1).max(0.0) / (1.0 + HEADROOM.0);
        let then = forecast.temperature(&outlook.tank, arrives, more_flow(outlook, feed), CATCH_UP_S);
        // Too warm it is not: then it takes less than it may.
        let error = (self.setpoint - then).max(0.0);
        PAY * self.satisfaction(feed, error) * (1.0 - STEAM_PRICE * steam)
    }

    fn safe_worth(&self, forecast: Option<&Forecast>, outlook: &Outlook) -> f64 {
        forecast.map_or(0.0, |forecast| self.worth(forecast, outlook, on_grid(outlook.feed), self.safe_steam))
    }
}

/// How many times the flow through its tank becomes what it is now.
fn more_flow(outlook: &Outlook, feed: f64) -> f64 {
    feed / outlook.inflow.max(1.0)
}

fn on_grid(feed: f64) -> f64 {
    (feed / FEED_STEP).round() * FEED_STEP
}

fn option(id: &str, feed: f64, steam: f64, utility: f64) -> ActionOption {
    let claim = Claim { value: feed, min: None, max: None, weight: 1.0 };
    ActionOption {
        id: id.to_owned(),
        action: json!({ "steam": steam, "feed": feed }),
        demands: BTreeMap::from([(STEAM.to_owned(), steam)]),
        claims: BTreeMap::from([(FEED.to_owned(), claim)]),
        effects: BTreeMap::new(),
        utility,
        elastic: None,
    }
}
