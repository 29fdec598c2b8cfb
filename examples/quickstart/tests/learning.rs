//! The learners and the plant together, without a network and without a clock.

use quickstart::{
    action::Action,
    learner::{Learner, LearnerConfig, Observation},
    plant::{Plant, TANKS},
};

const CONTROL_STEP_S: f64 = 5.0;
const CAPACITY: f64 = 18.0;

fn observe(plant: &Plant, index: usize) -> Observation {
    Observation {
        time_s: plant.time_s,
        temperature: plant.tanks[index].measured,
        inlet_temperature: plant.inlet(index).temperature,
        steam: plant.tanks[index].steam,
    }
}

/// The two controllers of the quickstart, as `plant.yaml` sets them.
fn controllers(seed: u64) -> [(usize, Learner, LearnerConfig); 2] {
    let config = |setpoint, max_steam| LearnerConfig { setpoint, max_steam, episode_steps: 20 };
    [(0, Learner::new(seed), config(62.0, 14.0)), (1, Learner::new(seed + 1), config(80.0, 8.0))]
}

/// The mean errors of each controller's episodes.
fn train(plant: &mut Plant, learners: &mut [(usize, Learner, LearnerConfig); 2], episodes: usize) -> [Vec<f64>; 2] {
    let mut errors = [Vec::new(), Vec::new()];
    while errors.iter().any(|errors| errors.len() < episodes) {
        for ((index, learner, config), errors) in learners.iter_mut().zip(&mut errors) {
            let (demand, episode) = learner.step(config, observe(plant, *index));
            assert!((0.0..=config.max_steam).contains(&demand.steam), "{} asks for {demand:?}", TANKS[*index]);
            plant.act(&Action::Tank { index: *index, steam: Some(demand.steam), valve: None });
            errors.extend(episode.map(|episode| episode.mean_error));
        }
        plant.advance(CONTROL_STEP_S, CAPACITY);
    }
    errors
}

#[test]
fn error_falls_by_more_than_half_and_stays_low_whatever_the_seed() {
    for seed in 0..20 {
        let mut plant = Plant::new(seed);
        let errors = train(&mut plant, &mut controllers(seed * 7 + 1), 40);
        for (errors, unit) in errors.iter().zip(TANKS) {
            let shown: Vec<String> = errors.iter().map(|error| format!("{error:.2}")).collect();
            println!("seed {seed}, {unit}: {}", shown.join(" "));
            // Half a minute of the quickstart is six episodes of five seconds.
            assert!(errors[6] < errors[0] / 2.0, "seed {seed}, {unit}: {shown:?}");
            let worst = errors[10..].iter().copied().fold(0.0, f64::max);
            assert!(worst < errors[0] / 2.0, "seed {seed}, {unit} becomes unstable: {shown:?}");
        }
        assert_eq!(plant.boiler.trips, 0, "seed {seed}");
    }
}

#[test]
fn without_learning_the_error_stays() {
    let mut plant = Plant::new(1);
    let mut learners = controllers(1);
    let learned = train(&mut plant, &mut learners, 20);
    let mut plant = Plant::new(1);
    for (index, _, config) in &learners {
        // What an untrained learner would go on doing.
        plant.act(&Action::Tank { index: *index, steam: Some(config.max_steam / 2.0), valve: None });
    }
    plant.advance(20.0 * 20.0 * CONTROL_STEP_S, CAPACITY);
    for ((index, _, config), learned) in learners.iter().zip(&learned) {
        let error = (plant.tanks[*index].temperature - config.setpoint).abs();
        assert!(error > 5.0 * learned[19], "{}: {error} °C without, {} with", TANKS[*index], learned[19]);
    }
}

#[test]
fn recovers_from_a_boiler_that_tripped() {
    let mut plant = Plant::new(3);
    let mut learners = controllers(3);
    let before = train(&mut plant, &mut learners, 20);
    // Someone opens the third tank's steam as far as it goes, until the boiler gives up.
    plant.act(&Action::Tank { index: 2, steam: Some(Action::MAX_STEAM), valve: None });
    while plant.boiler.trips == 0 {
        train(&mut plant, &mut learners, 1);
        assert!(plant.time_s < 50_000.0, "the boiler bears all that");
    }
    plant.act(&Action::Tank { index: 2, steam: Some(0.0), valve: None });
    train(&mut plant, &mut learners, 10);
    let after = train(&mut plant, &mut learners, 10);
    for (before, after) in before.iter().zip(&after) {
        assert!(after[9] < before[0] / 2.0, "before {before:?}, after {after:?}");
    }
}

#[test]
fn same_seed_gives_the_same_course() {
    let run = |seed| {
        let (mut plant, mut learners) = (Plant::new(seed), controllers(seed));
        let errors = train(&mut plant, &mut learners, 8);
        (plant, learners.map(|(_, learner, _)| learner), errors)
    };
    assert_eq!(run(11), run(11));
    assert_ne!(run(11).0, run(12).0);
}

#[test]
fn what_was_learned_survives_a_restart() {
    let (mut plant, mut learners) = (Plant::new(5), controllers(5));
    train(&mut plant, &mut learners, 12);
    let reload = |learner: &Learner| -> Learner {
        serde_json::from_slice(&serde_json::to_vec(learner).expect("it can be written")).expect("and read")
    };
    let (mut plant_2, mut learners_2) = (plant.clone(), learners.clone());
    for (_, learner, _) in &mut learners_2 {
        *learner = reload(learner);
    }
    assert_eq!(train(&mut plant, &mut learners, 3), train(&mut plant_2, &mut learners_2, 3));
}

#[test]
fn garbage_teaches_nothing() {
    let config = LearnerConfig { setpoint: 60.0, max_steam: 10.0, episode_steps: 20 };
    let mut learner = Learner::new(1);
    let good = Observation { time_s: 0.0, temperature: 50.0, inlet_temperature: 20.0, steam: 5.0 };
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for observation in [
            Observation { time_s: bad, ..good },
            Observation { temperature: bad, ..good },
            Observation { inlet_temperature: bad, ..good },
            Observation { steam: bad, ..good },
        ] {
            let (demand, episode) = learner.step(&config, observation);
            assert_eq!((demand.steam, episode), (0.0, None));
        }
    }
    for time_s in [0.0, 5.0, 4.0, 1e300, 5.0] {
        for temperature in [1e300, -1e300, 50.0] {
            let (demand, _) = learner.step(&config, Observation { time_s, temperature, ..good });
            assert!((0.0..=10.0).contains(&demand.steam));
        }
    }
    assert!(learner.weights().iter().all(|weight| weight.is_finite()));
}
