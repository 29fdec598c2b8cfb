//! A stirred tank with a heating coil: what flows in is mixed at once; what flows out does so by gravity.

use serde::{Deserialize, Serialize};

use crate::plant::AMBIENT;

/// Of the liquid, in MJ per t and K.
pub const HEAT_CAPACITY: f64 = 4.186;
/// What a tonne of steam gives off, in MJ.
pub const LATENT_HEAT: f64 = 2100.0;
/// Where a tank runs over, in m.
pub const BRIM: f64 = 4.0;

const AREA: f64 = 2.0;
/// A heel that the outlet does not reach, in m³.
const HEEL: f64 = 0.04;
/// Below this level, in m, the interlock shuts the steam off, so that the coil is never dry.
const DRY_LEVEL: f64 = 0.3;
/// Of the outlet: t/h through the open valve at one metre of level.
const OUTLET: f64 = 170.0;
/// To the surroundings, in MJ per h and K.
const LOSS: f64 = 20.0;
const STEAM_VALVE_LAG_S: f64 = 6.0;
const BOILING: f64 = 100.0;

/// What flows into a tank, or out of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Inflow {
    /// In t/h.
    pub flow: f64,
    /// In °C.
    pub temperature: f64,
}

/// What a step passed on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Passed {
    /// To the next tank.
    pub outflow: Inflow,
    /// Over the brim, in t.
    pub overflow: f64,
    /// With the overflow, to the surroundings and as vapour, in MJ.
    pub heat_lost: f64,
}

/// The state of one tank. A cubic metre of the liquid weighs a tonne.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tank {
    /// In m.
    pub level: f64,
    /// In °C.
    pub temperature: f64,
    /// What the thermometer reads, in °C.
    pub measured: f64,
    /// How far the outlet is open, 0 to 1.
    pub valve: f64,
    /// The outflow, in t/h.
    pub outflow: f64,
    /// The steam that is asked for, in t/h.
    pub steam_wanted: f64,
    /// What the steam valve would let through at full pressure, in t/h; it follows `steam_wanted` with a lag.
    pub steam_valve: f64,
    /// The steam that arrives, in t/h.
    pub steam: f64,
}

impl Tank {
    /// Filled to two metres, at this temperature.
    #[must_use]
    pub fn filled(temperature: f64) -> Self {
        Self {
            level: 2.0,
            temperature,
            measured: temperature,
            valve: 0.5,
            outflow: 120.0,
            steam_wanted: 0.0,
            steam_valve: 0.0,
            steam: 0.0,
        }
    }

    /// Whether every number is finite and physically possible.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        (HEEL / AREA * 0.999..=BRIM).contains(&self.level)
            && (0.0..=BOILING).contains(&self.temperature)
            && (-1.0..=BOILING + 1.0).contains(&self.measured)
            && (0.0..=1.0).contains(&self.valve)
            && [self.outflow, self.steam_wanted, self.steam_valve, self.steam]
                .iter()
                .all(|flow| (0.0..=1000.0).contains(flow))
    }

    /// What it holds, in t.
    #[must_use]
    pub fn mass(&self) -> f64 {
        self.level * AREA
    }

    /// The heat of what it holds, in MJ above 0 °C.
    #[must_use]
    pub fn heat(&self) -> f64 {
        self.mass() * self.temperature * HEAT_CAPACITY
    }

    /// The steam valve follows what is asked for, unless the tank is nearly empty.
    pub fn move_valve(&mut self, seconds: f64) {
        let wanted = if self.level < DRY_LEVEL { 0.0 } else { self.steam_wanted };
        self.steam_valve += (wanted - self.steam_valve) * seconds / STEAM_VALVE_LAG_S;
    }

    /// Lets a step pass. `pressure` is the steam pressure as a share of the nominal one.
    pub fn step(&mut self, inflow: Inflow, pressure: f64, seconds: f64) -> Passed {
        let hours = seconds / 3600.0;
        self.steam = self.steam_valve * pressure;
        let entered = inflow.flow * hours;
        let held = self.mass() + entered;
        let drained = (OUTLET * self.valve * self.level.sqrt() * hours).min((self.mass() - HEEL).max(0.0));
        let overflow = (held - drained - BRIM * AREA).max(0.0);
        let mass = held - drained - overflow;
        self.outflow = drained / hours;

        let loss = LOSS * (self.temperature - AMBIENT) * hours;
        let left = (drained + overflow) * self.temperature * HEAT_CAPACITY;
        let gained = entered * inflow.temperature * HEAT_CAPACITY + self.steam * LATENT_HEAT * hours;
        let heat = self.heat() + gained - left - loss;
        let outflow = Inflow { flow: self.outflow, temperature: self.temperature };
        let spilled = overflow * self.temperature * HEAT_CAPACITY;
        // What would heat it past boiling leaves as vapour.
        let vapour = (heat - mass * BOILING * HEAT_CAPACITY).max(0.0);
        self.level = mass / AREA;
        self.temperature = (heat - vapour) / (mass * HEAT_CAPACITY);
        Passed { outflow, overflow, heat_lost: loss + spilled + vapour }
    }
}
