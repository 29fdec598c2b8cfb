//! The learner: it acts on its tank, learns from what follows a linear model of it by recursive least squares, and
//! chooses the steam that its model says will bring the temperature to the setpoint. Pure and synchronous.
//!
//! Untrained it only nudges a fixed steam flow and explores around it; the more it has seen, the more it trusts what it
//! has learned and the less it explores. It never stops learning: old experience fades.

use serde::{Deserialize, Serialize};

/// What it sees of its tank, once a control step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observation {
    /// Simulated time, in s.
    pub time_s: f64,
    /// Of the tank, in °C.
    pub temperature: f64,
    /// Of what flows in, in °C.
    pub inlet_temperature: f64,
    /// The steam that arrives, in t/h: less than was asked for while the pressure sags.
    pub steam: f64,
}

impl Observation {
    fn is_finite(&self) -> bool {
        [self.time_s, self.temperature, self.inlet_temperature, self.steam].iter().all(|value| value.is_finite())
    }
}

/// What it wants of the shared utility for one control step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Demand {
    /// In t/h.
    pub steam: f64,
}

/// How it is to behave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearnerConfig {
    /// The temperature that it is to hold, in °C.
    pub setpoint: f64,
    /// The most steam that it may ask for, in t/h.
    pub max_steam: f64,
    /// Control steps in an episode; at least 1.
    pub episode_steps: u32,
}

/// What an episode came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Episode {
    /// Counted from 1.
    pub number: u64,
    /// The mean absolute distance from the setpoint, in °C.
    pub mean_error: f64,
    /// The mean steam asked for, in t/h.
    pub mean_steam: f64,
}

const WEIGHTS: usize = 3;
type Vector = [f64; WEIGHTS];

/// How quickly old experience fades: a step weighs this much less than the next one.
const FORGETTING: f64 = 0.995;
/// Experience must not fade for want of anything new to see.
const MAX_COVARIANCE: f64 = 1e3;
/// Steps of experience after which the model is trusted fully.
const TRUSTED_AFTER: f64 = 80.0;
/// How soon the temperature should be at the setpoint, in simulated seconds: slower than valve and thermometer.
const HORIZON_S: f64 = 30.0;
/// A model in which steam heats less than this, in °C/min for 10 t/h, is not acted upon.
const LEAST_EFFECT: f64 = 1.0;
/// Exploration before anything is learned and after, in t/h to either side.
const EXPLORE_FIRST: f64 = 1.5;
const EXPLORE_ALWAYS: f64 = 0.1;
/// Of an untrained learner, in t/h per °C.
const NUDGE: f64 = 0.05;
/// Steps further apart than this, in simulated seconds, teach nothing: something was away in between.
const LONGEST_STEP_S: f64 = 30.0;

/// All that it has learned: saved and loaded as it stands, it goes on where it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Learner {
    /// What the rate of change of the temperature, in °C/min, owes to the inlet (per 50 °C of difference), to steam (per
    /// 10 t/h), and to all else.
    weights: Vector,
    covariance: [Vector; WEIGHTS],
    /// Steps learned from.
    steps: u64,
    /// The last finished episode.
    last: Option<Episode>,
    /// The first one, for comparison.
    first: Option<Episode>,
    error_sum: f64,
    steam_sum: f64,
    steps_in_episode: u32,
    seen: Option<Observation>,
    random: u64,
}

impl Learner {
    /// A learner that knows nothing. The same seed gives the same exploration.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut covariance = [[0.0; WEIGHTS]; WEIGHTS];
        for (at, row) in covariance.iter_mut().enumerate() {
            row[at] = 100.0;
        }
        Self {
            weights: [0.0; WEIGHTS],
            covariance,
            steps: 0,
            last: None,
            first: None,
            error_sum: 0.0,
            steam_sum: 0.0,
            steps_in_episode: 0,
            seen: None,
            random: seed,
        }
    }

    /// Whether every number is finite: asked of a state that was read from a file.
    #[must_use]
    pub fn is_plausible(&self) -> bool {
        let episodes = [self.first, self.last];
        self.weights.iter().chain(self.covariance.iter().flatten()).all(|value| value.is_finite() && value.abs() < 1e9)
            && (0..WEIGHTS).all(|at| self.covariance[at][at] > 0.0)
            && self.error_sum.is_finite()
            && self.steam_sum.is_finite()
            && self.seen.is_none_or(|seen| seen.is_finite())
            && episodes.iter().flatten().all(|episode| episode.mean_error.is_finite() && episode.mean_steam.is_finite())
    }

    /// What it has learned; see the field of that name.
    #[must_use]
    pub fn weights(&self) -> Vector {
        self.weights
    }

    /// The last finished episode and the first one.
    #[must_use]
    pub fn episodes(&self) -> Option<(Episode, Episode)> {
        self.last.zip(self.first)
    }

    /// What it foresees of its tank. `None`: it has not learned enough to be believed.
    #[must_use]
    pub fn forecast(&self) -> Option<Forecast> {
        let [inlet, steam, rest] = self.weights;
        let believed = self.trust() >= 1.0 && steam > LEAST_EFFECT && inlet > LEAST_EFFECT;
        believed.then_some(Forecast { inlet, steam, rest })
    }

    /// How far it trusts its model, 0 to 1.
    #[must_use]
    pub fn trust(&self) -> f64 {
        (self.steps as f64 / TRUSTED_AFTER).min(1.0)
    }

    /// One control step: learns from what followed the last one, and says what it wants now. Between a finished episode
    /// and the next there is no pause: the episode is told as it ends.
    ///
    /// An observation that is not finite teaches nothing and asks for no steam.
    pub fn step(&mut self, config: &LearnerConfig, now: Observation) -> (Demand, Option<Episode>) {
        if !now.is_finite() {
            self.seen = None;
            return (Demand { steam: 0.0 }, None);
        }
        if let Some(before) = self.seen {
            self.learn(&before, &now);
        }
        self.seen = Some(now);
        let demand = self.act(config, &now);
        (demand, self.count((now.temperature - config.setpoint).abs(), demand.steam, config.episode_steps))
    }

    fn learn(&mut self, before: &Observation, now: &Observation) {
        let seconds = now.time_s - before.time_s;
        if seconds <= 0.0 || seconds > LONGEST_STEP_S {
            return;
        }
        let rate = (now.temperature - before.temperature) / seconds * 60.0;
        let between = |a: f64, b: f64| f64::midpoint(a, b);
        let x = features(
            between(before.inlet_temperature, now.inlet_temperature),
            between(before.temperature, now.temperature),
            between(before.steam, now.steam),
        );
        let px: Vector = std::array::from_fn(|row| dot(&self.covariance[row], &x));
        let spread: f64 = (0..WEIGHTS).map(|at| self.covariance[at][at]).sum();
        let forgetting = if spread < MAX_COVARIANCE { FORGETTING } else { 1.0 };
        let scale = forgetting + dot(&x, &px);
        let surprise = rate - dot(&self.weights, &x);
        let gain = px.map(|value| value / scale);
        let weights: Vector = std::array::from_fn(|at| self.weights[at] + gain[at] * surprise);
        let covariance: [Vector; WEIGHTS] = std::array::from_fn(|row| {
            std::array::from_fn(|column| (self.covariance[row][column] - gain[row] * px[column]) / forgetting)
        });
        if weights.iter().chain(covariance.iter().flatten()).all(|value| value.is_finite()) {
            self.weights = weights;
            self.covariance = covariance;
            self.steps = self.steps.saturating_add(1);
        }
    }

    fn act(&mut self, config: &LearnerConfig, now: &Observation) -> Demand {
        let error = config.setpoint - now.temperature;
        let untrained = config.max_steam / 2.0 + NUDGE * error;
        let [_, effect, _] = self.weights;
        let trust = if effect > LEAST_EFFECT { self.trust() } else { 0.0 };
        let greedy = if trust > 0.0 {
            let without = dot(&self.weights, &features(now.inlet_temperature, now.temperature, 0.0));
            (error / HORIZON_S * 60.0 - without) / effect * 10.0
        } else {
            untrained
        };
        let mut random = fastrand::Rng::with_seed(self.random);
        let explore = (random.f64() * 2.0 - 1.0) * (EXPLORE_ALWAYS + (1.0 - trust) * EXPLORE_FIRST);
        self.random = random.get_seed();
        let bounded = greedy.clamp(0.0, config.max_steam);
        let wanted = trust * bounded + (1.0 - trust) * untrained + explore;
        Demand { steam: wanted.clamp(0.0, config.max_steam) }
    }

    fn count(&mut self, error: f64, steam: f64, episode_steps: u32) -> Option<Episode> {
        self.error_sum += error;
        self.steam_sum += steam;
        self.steps_in_episode = self.steps_in_episode.saturating_add(1);
        if self.steps_in_episode < episode_steps {
            return None;
        }
        let steps = f64::from(self.steps_in_episode);
        let episode = Episode {
            number: self.last.map_or(0, |last| last.number).saturating_add(1),
            mean_error: self.error_sum / steps,
            mean_steam: self.steam_sum / steps,
        };
        (self.error_sum, self.steam_sum, self.steps_in_episode) = (0.0, 0.0, 0);
        self.last = Some(episode);
        self.first = self.first.or(Some(episode));
        Some(episode)
    }
}

/// What a learner foresees, by what it has learned at the present flow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    inlet: f64,
    steam: f64,
    rest: f64,
}

impl Forecast {
    /// The temperature of the tank after some time with this much steam, in t/h, if `flow` times as much flowed through it as
    /// does now.
    #[must_use]
    pub fn temperature(&self, now: &Observation, steam: f64, flow: f64, after_s: f64) -> f64 {
        let (pull, kept) = self.pull(flow, after_s);
        let settled = now.inlet_temperature + (self.steam * steam / 10.0 + self.rest) / pull;
        settled + (now.temperature - settled) * kept
    }

    /// The steam, in t/h, that brings the tank to a temperature in this time. Below 0: it would have to be cooled.
    #[must_use]
    pub fn steam(&self, now: &Observation, temperature: f64, flow: f64, after_s: f64) -> f64 {
        let (pull, kept) = self.pull(flow, after_s);
        let settled = (temperature - now.temperature * kept) / (1.0 - kept);
        ((settled - now.inlet_temperature) * pull - self.rest) / self.steam * 10.0
    }

    /// How strongly the inlet pulls the temperature, in °C/min per °C, and how much of a distance is left after some time.
    fn pull(&self, flow: f64, after_s: f64) -> (f64, f64) {
        let pull = self.inlet * flow.max(0.01) / 50.0;
        (pull, (-pull * after_s.max(1.0) / 60.0).exp())
    }
}

fn features(inlet: f64, temperature: f64, steam: f64) -> Vector {
    [(inlet - temperature) / 50.0, steam / 10.0, 1.0]
}

fn dot(a: &Vector, b: &Vector) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
