//! What holds of the plant whatever is asked of it.

use proptest::prelude::*;
use quickstart::{
    action::Action,
    boiler::{RESTART_S, TRIP_AFTER_S},
    plant::{Plant, TANKS},
    tank::{BRIM, Tank},
};
use serde_json::{Value, json};

const CAPACITY: f64 = 18.0;

fn mass(plant: &Plant) -> f64 {
    plant.tanks.iter().map(Tank::mass).sum()
}

fn heat(plant: &Plant) -> f64 {
    plant.tanks.iter().map(Tank::heat).sum()
}

fn tank_steam(index: usize, steam: f64) -> Action {
    Action::Tank { index, steam: Some(steam), valve: None }
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0..TANKS.len(), proptest::option::of(0.0..=Action::MAX_STEAM), proptest::option::of(0.0..=1.0_f64))
            .prop_map(|(index, steam, valve)| Action::Tank { index, steam, valve }),
        (Action::MIN_FLOW..=Action::MAX_FLOW).prop_map(|flow| Action::Feed { flow }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bounds_hold_and_balances_close(
        seed in any::<u64>(),
        capacity in 0.0..60.0_f64,
        course in proptest::collection::vec((any_action(), 0.0..400.0_f64), 1..12),
    ) {
        let mut plant = Plant::new(seed);
        let (mass_before, heat_before) = (mass(&plant), heat(&plant));
        for (action, seconds) in course {
            plant.act(&action);
            plant.advance(seconds, capacity);
            for (tank, name) in plant.tanks.iter().zip(TANKS) {
                prop_assert!(tank.level > 0.0 && tank.level <= BRIM, "{name}: {tank:?}");
                prop_assert!(tank.temperature > 0.0 && tank.temperature <= 100.0 + 1e-9, "{name}: {tank:?}");
            }
            let drawn: f64 = plant.tanks.iter().map(|tank| tank.steam).sum();
            prop_assert!(drawn >= 0.0 && plant.boiler.output <= capacity + 1e-9);
        }
        let counters = &plant.counters;
        let held = mass_before + counters.fed - counters.product - counters.overflow;
        prop_assert!((held - mass(&plant)).abs() < 1e-6, "mass: {held} on the books, {} in the tanks", mass(&plant));
        let stored = heat_before + counters.heat_in - counters.heat_out;
        prop_assert!((stored - heat(&plant)).abs() < 1e-6 * counters.heat_in.max(1e3), "heat: {stored}, {}", heat(&plant));
        prop_assert!(counters.on_spec <= counters.product);
    }

    #[test]
    fn saved_at_any_moment_it_goes_on_as_if_nothing_had_happened(
        seed in any::<u64>(), action in any_action(), before in 0.0..500.0_f64, after in 1.0..500.0_f64,
    ) {
        let mut plant = Plant::new(seed);
        plant.act(&action);
        plant.advance(before, CAPACITY);
        let bytes = serde_json::to_vec(&plant).expect("it can be written");
        let mut resumed: Plant = serde_json::from_slice(&bytes).expect("and read");
        prop_assert!(resumed.is_plausible());
        plant.advance(after, CAPACITY);
        resumed.advance(after, CAPACITY);
        prop_assert_eq!(plant, resumed);
    }

    #[test]
    fn no_json_makes_an_action_out_of_bounds(unit in "tank-[a-d]|feed|.{0,8}", key in "steam|valve|flow|.{0,6}", number in any::<f64>()) {
        let value = json!({ "unit": unit, key: number });
        match Action::parse(&value) {
            Ok(Action::Feed { flow }) => prop_assert!((Action::MIN_FLOW..=Action::MAX_FLOW).contains(&flow)),
            Ok(Action::Tank { index, steam, valve }) => {
                prop_assert!(index < TANKS.len());
                prop_assert!(steam.is_none_or(|steam| (0.0..=Action::MAX_STEAM).contains(&steam)));
                prop_assert!(valve.is_none_or(|valve| (0.0..=1.0).contains(&valve)));
            }
            Err(faults) => prop_assert!(!faults.is_empty()),
        }
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let faults = Action::parse(&json!({ "unit": "tank-a", "steam": -1, "valve": "open", "flow": 3 })).unwrap_err();
    let pointers: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["/flow", "/steam", "/valve"]);
    for value in [json!({}), json!([]), json!(null), json!({ "unit": "feed" }), json!({ "unit": 3 }), Value::from("x")]
    {
        assert!(Action::parse(&value).is_err(), "{value}");
    }
}

#[test]
fn over_demand_sags_for_all_then_trips_and_the_boiler_comes_back() {
    let mut plant = Plant::new(1);
    plant.act(&tank_steam(0, 10.0));
    plant.advance(120.0, CAPACITY);
    let undisturbed = plant.tanks[0].steam;
    assert!((undisturbed - 10.0).abs() < 0.5, "{undisturbed} t/h of 10 arrive");

    // The other two take all they can: the first suffers although it asks for no more than before.
    plant.act(&tank_steam(1, Action::MAX_STEAM));
    plant.act(&tank_steam(2, Action::MAX_STEAM));
    plant.advance(50.0, CAPACITY);
    assert!(plant.tanks[0].steam < undisturbed * 0.8, "{} t/h arrive while it sags", plant.tanks[0].steam);
    assert!(!plant.boiler.tripped());
    plant.advance(2.0 * TRIP_AFTER_S, CAPACITY);
    assert!(plant.boiler.tripped());
    plant.advance(60.0, CAPACITY);
    assert!(plant.tanks.iter().all(|tank| tank.steam < 1.0), "steam after a trip: {:?}", plant.tanks);

    for index in 0..TANKS.len() {
        plant.act(&tank_steam(index, 4.0));
    }
    plant.advance(RESTART_S + 120.0, CAPACITY);
    assert!(!plant.boiler.tripped());
    assert!(plant.boiler.pressure > 9.5, "{:?}", plant.boiler);
    assert_eq!(plant.boiler.trips, 1);
}

#[test]
fn demand_within_capacity_never_trips() {
    let mut plant = Plant::new(2);
    for index in 0..TANKS.len() {
        plant.act(&tank_steam(index, CAPACITY / 3.0));
    }
    plant.advance(7200.0, CAPACITY);
    assert_eq!(plant.boiler.trips, 0);
}

#[test]
fn a_tank_that_runs_dry_gets_no_steam() {
    let mut plant = Plant::new(4);
    plant.act(&Action::Tank { index: 0, steam: Some(10.0), valve: Some(1.0) });
    plant.act(&Action::Feed { flow: Action::MIN_FLOW });
    plant.advance(3600.0, CAPACITY);
    assert!(plant.tanks[0].level < 0.3, "{:?}", plant.tanks[0]);
    assert!(plant.tanks[0].steam < 0.1, "{:?}", plant.tanks[0]);
}
