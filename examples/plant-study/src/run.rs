//! One run: a seed, some simulated hours, and how the controllers share the boiler.

use std::sync::Arc;

use coredinator_core::coordination::{AgentId, DecisionOutcome};
use quickstart::plant::{Plant, STEP_S};

use crate::{
    controller::{Controller, crew},
    coordinator::{CAPACITY, Coordinator, StudyError},
};

/// Between two steps of a controller, in simulated seconds.
const CONTROL_STEP_S: f64 = 5.0;
/// Control steps between two cycles: the quickstart's sync interval of a second, at twenty times real time.
const STEPS_PER_CYCLE: u64 = 4;
/// Beyond rounding, in t/h.
const ROUNDING: f64 = 1e-6;

/// How the controllers share the boiler.
#[derive(Clone, Copy)]
pub enum Sharing<'c> {
    /// Each takes its first choice.
    None,
    /// Each takes its first choice within a part of the capacity that is its own for good.
    Fixed,
    /// Each takes what was decided.
    By(&'c Coordinator),
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Product on specification, in t an hour.
    pub on_spec: f64,
    /// The part of the product that was on specification.
    pub on_spec_share: f64,
    /// For how long more steam was asked for than the boiler can give, in minutes an hour.
    pub overdrawn: f64,
    /// How often the boiler tripped, a day.
    pub trips: f64,
    /// How content each controller was in the mean, 0 to 1, by name.
    pub satisfaction: Vec<(AgentId, f64)>,
    /// Conflicts among the first choices, an hour.
    pub conflicts: f64,
    /// The share of wishes that got none of their options; where nothing is decided nothing is denied.
    pub denied: f64,
    /// How it went, control step by control step.
    pub course: Vec<Moment>,
}

/// A moment of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moment {
    /// Simulated time, in s.
    pub time_s: f64,
    /// The steam that is asked for, in t/h.
    pub demand: f64,
    /// Whether the boiler is out.
    pub tripped: bool,
}

/// Runs the plant of this seed for so many simulated hours.
///
/// # Errors
/// As [`Coordinator::cycle`]; a study does not go on by another strategy than the one it is about.
pub fn run(sharing: Sharing<'_>, seed: u64, hours: f64) -> Result<Run, StudyError> {
    let mut plant = Plant::new(seed);
    let mut crew = crew(seed);
    if matches!(sharing, Sharing::Fixed) {
        let all: f64 = crew.iter().map(|controller| controller.interest.safe_steam).sum();
        let share = |controller: &mut Controller| {
            controller.interest.max_steam = controller.interest.safe_steam / all * CAPACITY;
        };
        crew.iter_mut().for_each(share);
    }
    let agents: Vec<Arc<_>> = crew.iter().map(|controller| Arc::new(controller.agent.clone())).collect();
    let steps = (hours * 3600.0 / CONTROL_STEP_S).round() as u64;
    let (mut conflicts, mut denied, mut overdrawn) = (0, 0_u64, 0.0);
    let mut satisfaction = vec![0.0; crew.len()];
    let mut course = Vec::new();
    for step in 0..steps {
        if step % STEPS_PER_CYCLE == 0 {
            let (cycle, feed) = (step / STEPS_PER_CYCLE, plant.feed.setpoint);
            let wishes: Vec<_> = crew.iter_mut().map(|controller| controller.intend(&plant)).collect();
            if let Sharing::By(coordinator) = sharing {
                let plan = coordinator.cycle(cycle, feed, agents.clone(), wishes)?;
                conflicts += plan.conflicts.len();
                for (controller, decision) in crew.iter_mut().zip(&plan.decisions) {
                    let refused = matches!(decision.outcome, DecisionOutcome::Denied | DecisionOutcome::Preempted);
                    denied += u64::from(refused);
                    controller.obey(&mut plant, decision);
                }
            } else {
                conflicts += Coordinator::conflicts(cycle, feed, agents.clone(), wishes.clone())?.len();
                crew.iter_mut().zip(&wishes).for_each(|(controller, wish)| controller.help_itself(&mut plant, wish));
            }
        }
        crew.iter_mut().for_each(|controller| controller.step(&mut plant));
        let demand: f64 = plant.tanks.iter().map(|tank| tank.steam_wanted).sum();
        overdrawn += if demand > CAPACITY + ROUNDING { CONTROL_STEP_S } else { 0.0 };
        plant.advance(CONTROL_STEP_S, CAPACITY);
        for (sum, controller) in satisfaction.iter_mut().zip(&crew) {
            *sum += controller.satisfaction(&plant);
        }
        course.push(Moment { time_s: plant.time_s, demand, tripped: plant.boiler.tripped() });
    }
    let hours = plant.time_s.max(STEP_S) / 3600.0;
    let named = |(controller, sum): (&Controller, f64)| (controller.agent.agent_id.clone(), sum / steps.max(1) as f64);
    let decided = steps.div_ceil(STEPS_PER_CYCLE).max(1) as f64 * crew.len().max(1) as f64;
    Ok(Run {
        on_spec: plant.counters.on_spec / hours,
        on_spec_share: plant.counters.on_spec / plant.counters.product.max(f64::MIN_POSITIVE),
        overdrawn: overdrawn / 60.0 / hours,
        trips: plant.boiler.trips as f64 / hours * 24.0,
        satisfaction: crew.iter().zip(satisfaction).map(named).collect(),
        conflicts: conflicts as f64 / hours,
        denied: denied as f64 / decided,
        course,
    })
}
