//! The boiler: one steam header for all, of limited capacity. Asked for more than it can give, its pressure sags, and
//! with it what everyone gets; if that lasts, it trips and needs its time to come back.

use serde::{Deserialize, Serialize};

/// The pressure at which steam valves give what they are set to, in bar.
pub const NOMINAL_PRESSURE: f64 = 10.0;
/// Below this pressure, in bar, for [`TRIP_AFTER_S`], it trips.
pub const TRIP_PRESSURE: f64 = 7.5;
/// In simulated seconds.
pub const TRIP_AFTER_S: f64 = 60.0;
/// From a trip to the burner lit again, in simulated seconds.
pub const RESTART_S: f64 = 240.0;
/// After a start low pressure is expected for this long, in simulated seconds.
const RAISING_S: f64 = 180.0;
/// Steam in the header, in t per bar.
const HEADER: f64 = 0.03;
const BURNER_LAG_S: f64 = 8.0;
/// How hard the burner answers to missing pressure, in t/h per bar.
const BURNER_GAIN: f64 = 6.0;

/// What the burner does.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum Burner {
    /// It raises pressure after a start.
    Raising {
        /// How much longer low pressure is forgiven, in simulated seconds.
        left_s: f64,
    },
    /// It is lit.
    Lit {
        /// For how long the pressure has been too low, in simulated seconds.
        low_s: f64,
    },
    /// It is out.
    Tripped {
        /// Until it may be lit again, in simulated seconds.
        left_s: f64,
    },
}

/// The state of the boiler and its steam header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boiler {
    /// In bar.
    pub pressure: f64,
    /// The steam that it makes, in t/h.
    pub output: f64,
    /// What the burner does.
    pub burner: Burner,
    /// How often it has tripped.
    pub trips: u64,
}

impl Default for Boiler {
    fn default() -> Self {
        Self::new()
    }
}

impl Boiler {
    /// At nominal pressure.
    #[must_use]
    pub fn new() -> Self {
        Self { pressure: NOMINAL_PRESSURE, output: 0.0, burner: Burner::Lit { low_s: 0.0 }, trips: 0 }
    }

    /// Whether it is out.
    #[must_use]
    pub fn tripped(&self) -> bool {
        matches!(self.burner, Burner::Tripped { .. })
    }

    /// The pressure as a share of the nominal one, 0 to 1: that share of what a valve is set to arrives.
    #[must_use]
    pub fn pressure_share(&self) -> f64 {
        (self.pressure / NOMINAL_PRESSURE).clamp(0.0, 1.0)
    }

    /// Whether every number is finite and physically possible.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let (Burner::Raising { left_s: timer } | Burner::Lit { low_s: timer } | Burner::Tripped { left_s: timer }) =
            self.burner;
        (0.0..=2.0 * NOMINAL_PRESSURE).contains(&self.pressure)
            && (0.0..=1000.0).contains(&self.output)
            && (-1.0..=RESTART_S).contains(&timer)
    }

    /// Lets a step pass. `opened` is what the valves would let through at nominal pressure, `capacity` the most that the
    /// boiler can make, both in t/h.
    pub fn step(&mut self, opened: f64, capacity: f64, seconds: f64) {
        let drawn = opened * self.pressure_share();
        let wanted = match self.burner {
            Burner::Tripped { .. } => 0.0,
            _ => (drawn + BURNER_GAIN * (NOMINAL_PRESSURE - self.pressure)).clamp(0.0, capacity),
        };
        self.output += (wanted - self.output) * seconds / BURNER_LAG_S;
        let change = (self.output - drawn) * seconds / 3600.0 / HEADER;
        // A relief valve keeps it from rising past a tenth above nominal.
        self.pressure = (self.pressure + change).clamp(0.0, 1.1 * NOMINAL_PRESSURE);
        self.burner = match self.burner {
            Burner::Tripped { left_s } if left_s > seconds => Burner::Tripped { left_s: left_s - seconds },
            Burner::Tripped { .. } => Burner::Raising { left_s: RAISING_S },
            Burner::Raising { left_s } if left_s > seconds && self.pressure < TRIP_PRESSURE => {
                Burner::Raising { left_s: left_s - seconds }
            }
            Burner::Raising { .. } => Burner::Lit { low_s: 0.0 },
            Burner::Lit { .. } if self.pressure >= TRIP_PRESSURE => Burner::Lit { low_s: 0.0 },
            Burner::Lit { low_s } if low_s + seconds < TRIP_AFTER_S => Burner::Lit { low_s: low_s + seconds },
            Burner::Lit { .. } => {
                self.trips = self.trips.saturating_add(1);
                Burner::Tripped { left_s: RESTART_S }
            }
        };
    }
}
