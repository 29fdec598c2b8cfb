//! The plant: three stirred tanks in series, heated by steam from one boiler. Pure and synchronous: time passes in
//! [`Plant::advance`] alone, and chance comes from the seed.

use serde::{Deserialize, Serialize};

use crate::{
    action::Action,
    boiler::Boiler,
    tank::{self, Inflow, Tank},
};

/// The names of the tanks, in the order in which the product passes them.
pub const TANKS: [&str; 3] = ["tank-a", "tank-b", "tank-c"];

/// One step of the integration, in simulated seconds.
pub const STEP_S: f64 = 0.5;

/// The product is on specification between these temperatures, in °C.
pub const ON_SPEC: (f64, f64) = (75.0, 80.0);

/// The temperature around the plant, in °C.
pub const AMBIENT: f64 = 20.0;

const FEED_LAG_S: f64 = 10.0;
const FEED_TEMPERATURE: f64 = 20.0;
const FEED_SWING: f64 = 5.0;
const FEED_SWING_PERIOD_S: f64 = 600.0;
const TEMPERATURE_NOISE: f64 = 0.08;

/// What enters the first tank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// The flow that is asked for, in t/h.
    pub setpoint: f64,
    /// The flow that enters, in t/h.
    pub flow: f64,
    /// Its temperature, in °C.
    pub temperature: f64,
    /// The slow random part of the flow, in t/h.
    pub flow_drift: f64,
    /// The slow random part of the temperature, in °C.
    pub temperature_drift: f64,
}

/// What has passed since the plant was first started. The balances close: what entered is what left and what is held.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counters {
    /// Fed, in t.
    pub fed: f64,
    /// Left the last tank as product, in t.
    pub product: f64,
    /// The part of the product that was on specification, in t.
    pub on_spec: f64,
    /// Ran over a tank's brim, in t.
    pub overflow: f64,
    /// Steam used, in t.
    pub steam: f64,
    /// Heat that entered with the feed and the steam, in MJ above 0 °C.
    pub heat_in: f64,
    /// Heat that left with product and overflow, to the surroundings and as vapour, in MJ.
    pub heat_out: f64,
}

/// The whole state: saved and loaded as it stands, a plant continues as if it had never stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plant {
    /// Simulated time since the first start, in seconds.
    pub time_s: f64,
    /// What enters.
    pub feed: Feed,
    /// The tanks, in the order of [`TANKS`].
    pub tanks: [Tank; 3],
    /// Where the steam comes from.
    pub boiler: Boiler,
    /// What has passed.
    pub counters: Counters,
    /// The state of the random source.
    random: u64,
}

impl Plant {
    /// A plant that has just been filled and runs lukewarm. The same seed gives the same course, bit for bit.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            time_s: 0.0,
            feed: Feed {
                setpoint: 120.0,
                flow: 120.0,
                temperature: FEED_TEMPERATURE,
                flow_drift: 0.0,
                temperature_drift: 0.0,
            },
            tanks: [Tank::filled(45.0), Tank::filled(52.0), Tank::filled(51.0)],
            boiler: Boiler::new(),
            counters: Counters::default(),
            random: seed,
        }
    }

    /// Whether every number is finite and within what is physically possible: asked of a state that was read from a file.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let Counters { fed, product, on_spec, overflow, steam, heat_in, heat_out } = self.counters;
        let counters = [fed, product, on_spec, overflow, steam, heat_in, heat_out, self.time_s];
        let feed = &self.feed;
        counters.iter().all(|value| value.is_finite() && *value >= 0.0)
            && (0.0..=Action::MAX_FLOW).contains(&feed.setpoint)
            && (0.0..=2.0 * Action::MAX_FLOW).contains(&feed.flow)
            && (0.0..=100.0).contains(&feed.temperature)
            && feed.flow_drift.abs() <= 100.0
            && feed.temperature_drift.abs() <= 100.0
            && self.boiler.is_plausible()
            && self.tanks.iter().all(Tank::is_plausible)
    }

    /// Carries out an action. [`Action::parse`] has bounded it.
    pub fn act(&mut self, action: &Action) {
        match *action {
            Action::Tank { index, steam, valve } => {
                if let Some(tank) = self.tanks.get_mut(index) {
                    tank.steam_wanted = steam.unwrap_or(tank.steam_wanted);
                    tank.valve = valve.unwrap_or(tank.valve);
                }
            }
            Action::Feed { flow } => self.feed.setpoint = flow,
        }
    }

    /// Lets this many simulated seconds pass, rounded to whole steps of [`STEP_S`]. `steam_capacity`, in t/h, is what the
    /// boiler can give at most.
    pub fn advance(&mut self, seconds: f64, steam_capacity: f64) {
        // A cast of a float saturates, and a day at a time is more than anyone asks.
        let steps = (seconds.clamp(0.0, 86_400.0) / STEP_S).round() as u64;
        for _ in 0..steps {
            self.step(steam_capacity);
        }
    }

    fn step(&mut self, steam_capacity: f64) {
        let hours = STEP_S / 3600.0;
        self.disturb();
        for tank in &mut self.tanks {
            tank.move_valve(STEP_S);
        }
        let opened: f64 = self.tanks.iter().map(|tank| tank.steam_valve).sum();
        self.boiler.step(opened, steam_capacity, STEP_S);
        let pressure = self.boiler.pressure_share();

        let mut inflow = Inflow { flow: self.feed.flow, temperature: self.feed.temperature };
        self.counters.fed += inflow.flow * hours;
        self.counters.heat_in += inflow.flow * hours * inflow.temperature * tank::HEAT_CAPACITY;
        for tank in &mut self.tanks {
            let passed = tank.step(inflow, pressure, STEP_S);
            self.counters.overflow += passed.overflow;
            self.counters.steam += tank.steam * hours;
            self.counters.heat_in += tank.steam * hours * tank::LATENT_HEAT;
            self.counters.heat_out += passed.heat_lost;
            inflow = passed.outflow;
        }
        let product = inflow.flow * hours;
        self.counters.product += product;
        self.counters.heat_out += product * inflow.temperature * tank::HEAT_CAPACITY;
        if (ON_SPEC.0..=ON_SPEC.1).contains(&inflow.temperature) {
            self.counters.on_spec += product;
        }
        self.time_s += STEP_S;
    }

    /// The feed swings and drifts, and the thermometers are noisy.
    fn disturb(&mut self) {
        let mut random = fastrand::Rng::with_seed(self.random);
        let mut noise = || random.f64() * 2.0 - 1.0;
        let feed = &mut self.feed;
        feed.flow_drift += STEP_S * (-feed.flow_drift / 120.0) + noise() * 0.4;
        feed.temperature_drift += STEP_S * (-feed.temperature_drift / 180.0) + noise() * 0.1;
        let wanted = (feed.setpoint + feed.flow_drift).max(0.0);
        feed.flow += (wanted - feed.flow) * STEP_S / FEED_LAG_S;
        let swing = (std::f64::consts::TAU * self.time_s / FEED_SWING_PERIOD_S).sin() * FEED_SWING;
        feed.temperature = (FEED_TEMPERATURE + swing + feed.temperature_drift).clamp(1.0, 60.0);
        for tank in &mut self.tanks {
            tank.measured = tank.temperature + noise() * TEMPERATURE_NOISE;
        }
        self.random = random.get_seed();
    }

    /// What flows into the tank at `index`, and how warm it is.
    #[must_use]
    pub fn inlet(&self, index: usize) -> Inflow {
        match index.checked_sub(1).and_then(|before| self.tanks.get(before)) {
            Some(before) => Inflow { flow: before.outflow, temperature: before.measured },
            None => Inflow { flow: self.feed.flow, temperature: self.feed.temperature },
        }
    }
}
