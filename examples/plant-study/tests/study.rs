//! A shortened study: what the table claims, for fewer seeds and hours.

use coredinator_coord::Strategies;
use plant_study::{ALONE, CAPACITY, Case, Coordinator, Run, Sharing, Spread, jain, page, plot, run, study};

const SEEDS: u64 = 2;
const HOURS: f64 = 4.0;

fn highest(run: &Run) -> f64 {
    run.course.iter().map(|moment| moment.demand).fold(0.0, f64::max)
}

#[test]
fn with_every_strategy_the_boiler_is_never_overdrawn_and_no_less_is_produced() {
    let cases = study(&Strategies::builtin(), SEEDS, HOURS).expect("a study");
    let alone = cases.iter().find(|case| case.name == ALONE).expect("the case without coordination");
    for (at, run) in alone.runs.iter().enumerate() {
        assert!(run.overdrawn > 0.0 && highest(run) > CAPACITY, "seed {} is not overdrawn", at + 1);
    }
    assert!(alone.runs.iter().any(|run| run.trips > 0.0), "the boiler bears all that");
    let coordinated: Vec<&Case> = cases.iter().filter(|case| case.coordinated).collect();
    assert!(!coordinated.is_empty());
    for case in coordinated {
        for (at, run) in case.runs.iter().enumerate() {
            let (name, seed, peak) = (&case.name, at + 1, highest(run));
            assert!(peak <= CAPACITY * (1.0 + 1e-9), "{name}, seed {seed}: {peak} t/h are asked for");
            assert_eq!((run.overdrawn, run.trips), (0.0, 0.0), "{name}, seed {seed}");
        }
        let [with, without] = [case, alone].map(|case| case.spread(|run| run.on_spec).median);
        assert!(with >= without, "{}: {with} t/h on specification, {without} without coordination", case.name);
    }
}

#[test]
fn the_same_seed_gives_the_same_course() {
    let strategy = || Strategies::builtin().make("", &"priority_based".into()).expect("it is built in");
    let once = |seed| {
        let coordinator = Coordinator::new(strategy()).expect("a coordinator");
        run(Sharing::By(&coordinator), seed, 0.5).expect("a run")
    };
    assert_eq!(once(4), once(4));
    assert_ne!(once(4), once(5));
}

#[test]
fn the_page_and_the_plot_name_every_case() {
    let cases = study(&Strategies::builtin(), 1, 0.1).expect("a study");
    let (page, plot) = (page(&cases, 0.1, "a command"), plot(&cases, 0, cases.len() - 1));
    for case in &cases {
        assert!(page.contains(&format!("| {} |", case.name)), "{page}");
        assert!(plot.contains(&format!(">{}</text>", case.name.replace('`', ""))), "{plot}");
    }
    assert!(page.contains("    a command\n"));
    assert!(plot.ends_with("</svg>\n") && !plot.contains("NaN"), "{plot}");
}

#[test]
fn fairness_is_one_where_all_have_the_same_and_a_part_where_one_has_all() {
    for (shares, index) in
        [(vec![0.5, 0.5, 0.5], 1.0), (vec![1.0, 0.0, 0.0, 0.0], 0.25), (vec![], 1.0), (vec![0.0], 1.0)]
    {
        assert!((jain(&shares) - index).abs() < 1e-12, "{shares:?}");
    }
}

#[test]
fn the_median_is_the_middle_one_or_between_two() {
    assert_eq!(Spread::of([3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
    assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    assert_eq!(Spread::of([]), Spread { median: 0.0, min: 0.0, max: 0.0 });
}
