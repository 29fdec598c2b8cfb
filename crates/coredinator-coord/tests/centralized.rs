//! Known answers of `centralized`.

mod paper;

use coredinator_coord::strategies::Centralized;
use coredinator_core::coordination::PlanStatus;
use paper::{agent, assert_near, decision, granted, plan, problem};
use serde_json::{Value, json};

/// Khan's instance I01 (Khan, Li, Manning, Akbar, 2002): five groups of five items; of each item its value, and what it
/// takes of five resources, of each of which there is 25.
const I01: [[[u32; 6]; 5]; 5] = [
    [[7, 1, 3, 1, 1, 6], [17, 1, 4, 9, 9, 3], [25, 4, 3, 9, 8, 2], [35, 4, 5, 8, 0, 6], [36, 6, 8, 3, 0, 7]],
    [[9, 0, 0, 4, 4, 2], [10, 0, 0, 1, 8, 7], [10, 1, 1, 6, 0, 6], [39, 9, 1, 2, 2, 4], [44, 8, 7, 0, 8, 2]],
    [[15, 2, 0, 5, 5, 5], [19, 2, 3, 2, 6, 2], [20, 3, 1, 6, 4, 7], [44, 6, 7, 5, 6, 9], [50, 9, 5, 9, 2, 2]],
    [[5, 0, 1, 3, 8, 0], [25, 2, 2, 7, 0, 8], [32, 5, 5, 6, 1, 9], [37, 6, 3, 6, 9, 1], [37, 7, 9, 7, 2, 3]],
    [[24, 4, 0, 7, 0, 2], [30, 4, 8, 9, 0, 0], [32, 5, 2, 7, 2, 0], [43, 5, 5, 9, 5, 2], [44, 9, 2, 2, 2, 3]],
];

#[test]
fn the_first_published_instance_is_solved_as_published() {
    let names = ["r1", "r2", "r3", "r4", "r5"];
    let resources: Vec<Value> = names.iter().map(|name| json!({"name": name, "capacity": 25})).collect();
    let agents: Vec<Value> = (0..5).map(|at| json!({"agent_id": format!("g{at}")})).collect();
    let intentions = I01.iter().enumerate().map(|(at, items)| {
        let options = items.iter().enumerate().rev().map(|(id, item)| {
            let demands: serde_json::Map<String, Value> =
                names.iter().zip(&item[1..]).map(|(name, &amount)| ((*name).to_owned(), json!(amount))).collect();
            json!({"id": id.to_string(), "demands": demands, "utility": item[0]})
        });
        json!({"agent_id": format!("g{at}"), "seq": 1, "options": options.collect::<Vec<_>>()})
    });
    let document = json!({"resources": resources, "agents": agents, "intentions": intentions.collect::<Vec<_>>()});
    let plan = plan(&Centralized::default(), &problem(document));
    let chosen: Vec<_> =
        (0..5).map(|at| decision(&plan, &format!("g{at}")).option_id.as_deref().unwrap().to_owned()).collect();
    assert_eq!(chosen, ["3", "4", "1", "2", "3"]);
    assert_eq!((plan.objective, plan.bound), (173.0, 173.0));
}

/// Power, steam, and what it is worth to have both.
type Want = (f64, f64, f64);

/// Several of them, and what there is of power and steam.
type Table<'a> = (&'a [Want], (f64, f64));

/// What a shape is called, and what a fraction is worth.
type Curve<'a> = (&'a str, fn(f64) -> f64);

/// Agents that want so much of power and steam in whole, at so much utility, but could do with a tenth.
fn elastic(shape: &str, wants: &[Want], capacities: (f64, f64)) -> Value {
    let id = |at: usize| format!("a{at}");
    let agents: Vec<Value> = (0..wants.len()).map(|at| agent(&id(at))).collect();
    let intentions = wants.iter().enumerate().map(|(at, &(power, steam, utility))| {
        let option = json!({
            "id": "o", "demands": {"power": power, "steam": steam}, "utility": utility,
            "elastic": {"min_fraction": 0.1, "shape": shape},
        });
        json!({"agent_id": id(at), "seq": 1, "options": [option]})
    });
    json!({
        "resources": [{"name": "power", "capacity": capacities.0}, {"name": "steam", "capacity": capacities.1}],
        "agents": agents, "intentions": intentions.collect::<Vec<_>>(),
    })
}

/// The best of all fractions in steps of a hundredth.
fn best_of_grid(worth: fn(f64) -> f64, wants: &[Want], left: (f64, f64)) -> f64 {
    let Some((&(power, steam, utility), others)) = wants.split_first() else { return 0.0 };
    let fractions = std::iter::once(0.0).chain((10..=100).map(|hundredths| f64::from(hundredths) / 100.0));
    let fitting = fractions
        .map(|fraction| (fraction, (left.0 - power * fraction, left.1 - steam * fraction)))
        .filter(|(_, left)| left.0 >= -1e-9 && left.1 >= -1e-9);
    fitting
        .map(|(fraction, left)| utility * worth(fraction) + best_of_grid(worth, others, left))
        .fold(f64::NEG_INFINITY, f64::max)
}

#[test]
fn what_is_elastic_is_divided_at_least_as_well_as_on_a_fine_grid() {
    let shapes: [Curve<'_>; 3] = [("linear", |x| x), ("quadratic", |x| 2.0 * x - x * x), ("log", |x| (1.0 + x).log2())];
    let tables: [Table<'_>; 3] = [
        (&[(6.0, 0.0, 9.0), (5.0, 0.0, 10.0), (4.0, 0.0, 7.0)], (10.0, 1.0)),
        (&[(6.0, 2.0, 9.0), (5.0, 4.0, 10.0), (4.0, 7.0, 7.0)], (10.0, 9.0)),
        (&[(3.0, 8.0, 5.0), (9.0, 1.0, 6.0), (4.0, 4.0, 6.0)], (7.3, 6.1)),
    ];
    for (shape, worth) in shapes {
        for (wants, capacities) in tables {
            let plan = plan(&Centralized::default(), &problem(elastic(shape, wants, capacities)));
            let best = best_of_grid(worth, wants, capacities);
            assert!(plan.objective >= best - 1e-9, "{shape} {wants:?}: {} instead of {best}", plan.objective);
            assert!(plan.bound >= plan.objective);
        }
    }
}

/// Of each option: power, steam, what it is worth in whole, and the least fraction; 1: it is not elastic.
type Options = [(f64, f64, f64, f64); 2];

/// The best of all options, in all fractions in steps of a fortieth.
fn best_of_options(worth: fn(f64) -> f64, agents: &[Options], left: (f64, f64)) -> f64 {
    let Some((options, others)) = agents.split_first() else { return 0.0 };
    let mut best = best_of_options(worth, others, left);
    for &(power, steam, utility, least) in options {
        for fraction in (0..=40).map(|fortieths| f64::from(fortieths) / 40.0).filter(|&fraction| fraction >= least) {
            let left = (left.0 - power * fraction, left.1 - steam * fraction);
            if left.0 >= -1e-9 && left.1 >= -1e-9 {
                best = best.max(utility * worth(fraction) + best_of_options(worth, others, left));
            }
        }
    }
    best
}

#[test]
fn of_a_few_elastic_options_the_best_are_chosen() {
    let worth: fn(f64) -> f64 = |x| 2.0 * x - x * x;
    let mut chance = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let mut number = |most: u32| f64::from(chance.u32(0..=most));
        let agents: Vec<Options> = (0..3)
            .map(|_| [(); 2].map(|()| (number(8), number(8), 1.0 + number(10), [0.25, 0.5, 1.0][number(2) as usize])))
            .collect();
        let mut document = elastic("quadratic", &[(0.0, 0.0, 0.0); 3], (10.0, 7.0));
        for (intention, options) in document["intentions"].as_array_mut().unwrap().iter_mut().zip(&agents) {
            let options = options.iter().enumerate().map(|(at, &(power, steam, utility, least))| {
                let mut option = json!({
                    "id": format!("o{at}"), "demands": {"power": power, "steam": steam}, "utility": utility,
                });
                if least < 1.0 {
                    option["elastic"] = json!({"min_fraction": least, "shape": "quadratic"});
                }
                option
            });
            let mut options: Vec<Value> = options.collect();
            options.sort_by(|a, b| b["utility"].as_f64().unwrap().total_cmp(&a["utility"].as_f64().unwrap()));
            intention["options"] = options.into();
        }
        let plan = plan(&Centralized::default(), &problem(document.clone()));
        let best = best_of_options(worth, &agents, (10.0, 7.0));
        assert!(plan.objective >= best - 1e-9, "{} instead of {best}: {document}", plan.objective);
        assert!(plan.bound >= best - 1e-9, "{} is no bound of {best}: {document}", plan.bound);
    }
}

#[test]
fn nothing_is_left_over_that_somebody_could_use() {
    let wants = [(6.0, 0.0, 9.0), (5.0, 0.0, 10.0), (4.0, 0.0, 7.0)];
    let plan = plan(&Centralized::default(), &problem(elastic("linear", &wants, (10.0, 1.0))));
    // By what a unit of power is worth: 2, 1.75, 1.5.
    for (id, power) in [("a1", 5.0), ("a2", 4.0), ("a0", 1.0)] {
        assert_near(granted(&plan, id, "power"), power);
    }
}

#[test]
fn a_few_elastic_options_are_searched_exactly() {
    let option = |id: &str, utility: f64, power: f64| {
        json!({"id": id, "utility": utility, "demands": {"power": power},
               "elastic": {"min_fraction": 0.1, "shape": "quadratic"}})
    };
    let plan = plan(
        &Centralized::default(),
        &problem(json!({
            "resources": [{"name": "power", "capacity": 7}],
            "agents": [agent("a"), agent("b"), agent("c")],
            "intentions": [
                {"agent_id": "a", "options": [option("big", 20.0, 9.0), option("small", 12.0, 4.0)]},
                {"agent_id": "b", "options": [option("big", 17.0, 8.0), option("small", 9.0, 3.0)]},
                {"agent_id": "c", "options": [{"id": "all", "utility": 6, "demands": {"power": 5}}]},
            ],
        })),
    );
    assert_eq!((plan.status, plan.gap), (PlanStatus::Optimal, 0.0));
    // a: 12 (2x - x^2) at x = y = 1 would take all 7 and be worth 21.
    assert!(plan.objective >= 21.0, "{}", plan.objective);
    // One that can only be had whole is elastic in name alone.
    let claim = |value: f64, min: f64, max: f64| json!({"v": {"value": value, "min": min, "max": max}});
    let plan = self::plan(
        &Centralized::default(),
        &problem(json!({
            "variables": [{"name": "v", "min": 0, "max": 10, "on_conflict": "exclusive"}],
            "agents": [agent("a"), agent("b")],
            "intentions": [
                {"agent_id": "a", "options": [
                    {"id": "x", "utility": 11, "claims": claim(0.5, 0.0, 1.0), "elastic": {"min_fraction": 1}}]},
                {"agent_id": "b", "options": [{"id": "y", "utility": 9, "claims": claim(3.0, 3.0, 3.0)}]},
            ],
        })),
    );
    assert_eq!((plan.status, plan.objective), (PlanStatus::Optimal, 11.0));
}

#[test]
fn where_the_least_is_all_there_is_nothing_else_is_left_unproven() {
    let elastic = |id: &str, utility: f64, power: f64| json!({"id": id, "utility": utility, "demands": {"power": power}, "elastic": {"min_fraction": 0.5}});
    let plan = plan(
        &Centralized::default(),
        &problem(json!({
            "resources": [{"name": "power", "capacity": 3}],
            "agents": [{"agent_id": "a"}, {"agent_id": "b", "fallback": {"id": "safe", "demands": {"power": 1}, "utility": 0}},
                       agent("c")],
            "intentions": [
                {"agent_id": "a", "options": [{"id": "o1", "utility": 8, "demands": {"power": 1}}, elastic("o0", 1.0, 4.0)]},
                {"agent_id": "b", "options": [{"id": "o0", "utility": 2, "demands": {"power": 4}}]},
                {"agent_id": "c", "options": [{"id": "o0", "utility": 2, "demands": {"power": 3}}]},
            ],
        })),
    );
    assert_eq!((plan.status, plan.objective, plan.gap), (PlanStatus::Optimal, 8.0, 0.0));
}
