//! The controllers of the study: the quickstart's learners, each with an interest of its own.

use coredinator_core::coordination::{Agent, AgentId, Decision, Intention};
use quickstart::{
    action::Action,
    learner::{Learner, Observation},
    plant::{Plant, TANKS},
    wish::{FEED, Interest, Outlook, STEAM},
};

/// Control steps in an episode of learning.
const EPISODE_STEPS: u32 = 20;
/// How much the last step counts in what has been delivered of late.
const STEP_SHARE: f64 = 0.02;

/// A learning controller of one tank.
#[derive(Debug, Clone)]
pub struct Controller {
    /// What it is registered as.
    pub agent: Agent,
    /// What it is there for.
    pub interest: Interest,
    tank: usize,
    learner: Learner,
    /// Whether the feed is its own to set.
    owns_feed: bool,
    /// The most steam it may take, in t/h; `None`: as much as it likes.
    granted: Option<f64>,
    delivered: f64,
    seq: u64,
}

/// The three controllers of the plant. The first heats the feed, sets how much there is of it, and is paid for every tonne;
/// the other two bring it to specification and are paid no more above the plant's nominal feed. Quality goes before quantity:
/// the last tank has the highest priority.
#[must_use]
pub fn crew(seed: u64) -> Vec<Controller> {
    let controller = |(tank, interest): (usize, Interest)| {
        // A tank's name is one for an agent, too; were it none, there would be nobody to heat it.
        let mut agent = Agent::new(AgentId::new(TANKS.get(tank)?).ok()?);
        agent.priority = i32::try_from(tank).unwrap_or_default();
        agent.fallback = Some(interest.fallback());
        // Any spread of seeds will do, as long as it is the same in every case.
        let learner = Learner::new(seed.wrapping_mul(7).wrapping_add(tank as u64));
        Some(Controller { agent, interest, tank, learner, owns_feed: tank == 0, granted: None, delivered: 1.0, seq: 0 })
    };
    let interests = [
        Interest { setpoint: 62.0, max_steam: 14.0, paid_up_to: 160.0, safe_steam: 9.0 },
        Interest { setpoint: 75.0, max_steam: 8.0, paid_up_to: 130.0, safe_steam: 4.0 },
        Interest { setpoint: 77.5, max_steam: 4.0, paid_up_to: 130.0, safe_steam: 1.5 },
    ];
    interests.into_iter().enumerate().filter_map(controller).collect()
}

impl Controller {
    /// What it sees.
    #[must_use]
    pub fn look(&self, plant: &Plant) -> Outlook {
        let inlet = plant.inlet(self.tank);
        let tank = Observation {
            time_s: plant.time_s,
            temperature: plant.tanks[self.tank].measured,
            inlet_temperature: inlet.temperature,
            steam: plant.tanks[self.tank].steam,
        };
        Outlook { tank, inflow: inlet.flow, feed: plant.feed.setpoint, delivered: self.delivered }
    }

    /// What it wants for the next cycle.
    #[must_use]
    pub fn intend(&mut self, plant: &Plant) -> Intention {
        self.seq += 1;
        let outlook = self.look(plant);
        self.interest.intention(self.agent.agent_id.clone(), self.seq, self.learner.forecast().as_ref(), &outlook)
    }

    /// Takes its first choice without asking anyone: all the steam it likes, and, where the feed is its own, that feed.
    pub fn help_itself(&mut self, plant: &mut Plant, wish: &Intention) {
        let feed = wish.options.first().and_then(|first| first.claims.get(FEED).copied());
        self.granted = None;
        self.set_feed(plant, feed.map(|claim| claim.value));
    }

    /// Takes what was decided for it, and no more.
    pub fn obey(&mut self, plant: &mut Plant, decision: &Decision) {
        self.granted = Some(decision.grant.get(STEAM).copied().unwrap_or(0.0));
        self.set_feed(plant, decision.values.get(FEED).copied());
    }

    fn set_feed(&self, plant: &mut Plant, flow: Option<f64>) {
        if let Some(flow) = flow.filter(|_| self.owns_feed) {
            plant.act(&Action::Feed { flow });
        }
    }

    /// One control step: it learns from what followed the last one, and opens its steam valve as it wants it, at most as far
    /// as it may.
    pub fn step(&mut self, plant: &mut Plant) {
        let config = self.interest.learner(EPISODE_STEPS);
        let (demand, _) = self.learner.step(&config, self.look(plant).tank);
        self.delivered += (plant.boiler.pressure_share() - self.delivered) * STEP_SHARE;
        let steam = self.granted.map_or(demand.steam, |granted| demand.steam.min(granted));
        plant.act(&Action::Tank { index: self.tank, steam: Some(steam), valve: None });
    }

    /// How content it can be with the plant as it is, 0 to 1.
    #[must_use]
    pub fn satisfaction(&self, plant: &Plant) -> f64 {
        self.interest.satisfaction(plant.feed.flow, plant.tanks[self.tank].temperature - self.interest.setpoint)
    }
}
