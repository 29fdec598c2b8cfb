//! How long a conflict takes to resolve, and how good what comes out is.
//!
//! `cargo bench -p coredinator-coord --bench resolve [-- WORD…]` prints a table of every strategy, and of a baseline as
//! textbooks have it, on generated problems: the median time from a compiled problem to a resolution, finding the conflicts
//! included, and how far the objective is below the best bound that any of them proved in this run (and, in brackets, below
//! its own). Words select rows and strategies by parts of their names.
//!
//! With `KHAN=FOLDER`, a folder of the published instances I01 to I13, these are solved, too, and with `PROBLEM=FILE` that
//! problem is, alone; with `JSON=FOLDER` all that are solved are written there as problems that
//! `coredinator coordinate --problem`, this bench, or a program for another solver reads. `STEPS=N` gives every strategy so many
//! steps instead of its own measure; `SEED=N` generates other problems of the same kinds; `REFERENCE=N` has `centralized`
//! prove a bound in so many steps beforehand, which then counts, too.

mod baseline;
mod generate;
mod khan;

use std::{sync::Arc, time::Duration};

use baseline::PricesRepairSwap;
use coredinator_coord::Strategies;
use coredinator_core::coordination::{
    Budget, CoordinationStrategy, NoNegotiator, PlanHeader, Presence, Problem, ProblemDocument, Resolution, assemble,
    conflicts, verify,
};
use tokio::time::Instant;

const SEED: u64 = 1;

/// Runs until so much time has passed, but between three and nine.
const ENOUGH: Duration = Duration::from_secs(3);

struct Measured {
    strategy: String,
    time: Duration,
    objective: f64,
    bound: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let selected = |names: &[&str], name: &str| {
        let relevant: Vec<&String> =
            words.iter().filter(|word| names.iter().any(|n| n.contains(word.as_str()))).collect();
        relevant.is_empty() || relevant.iter().any(|word| name.contains(word.as_str()))
    };
    let all = Strategies::builtin();
    let names: Vec<&str> = all.names().chain([PricesRepairSwap.name()]).collect();
    let strategies: Vec<_> = names
        .iter()
        .filter(|name| selected(&names, name))
        .filter_map(|name| all.make("", &serde_json::Value::from(*name)).ok())
        .collect();
    let baseline: Option<Arc<dyn CoordinationStrategy>> =
        selected(&names, PricesRepairSwap.name()).then(|| Arc::new(PricesRepairSwap) as _);
    let with_baseline: Vec<_> = strategies.iter().cloned().chain(baseline).collect();
    let rows = generate::ROWS.map(|row| row.name);
    let given = std::env::var("PROBLEM");
    let generated = given.is_err() && !words.iter().any(|word| word.starts_with("khan"));
    for row in generate::ROWS.iter().filter(|row| generated && selected(&rows, row.name)) {
        let problem = generate::problem(row, number("SEED").unwrap_or(SEED));
        println!("{}: {} conflicts", row.name, problem.conflicts().len());
        write(row.name, problem.document());
        let measured = measure_all(&with_baseline, &problem).await;
        let reference = match (number("REFERENCE"), all.make("", &serde_json::Value::from("centralized"))) {
            (Some(patience), Ok(strategy)) => {
                let known = strategy.resolve(&problem, &Budget::new(Some(patience)), &NoNegotiator).await;
                known.ok().and_then(|known| known.bound)
            }
            _ => None,
        };
        report(&measured, reference.unwrap_or(f64::INFINITY));
    }
    if let Ok(file) = given {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let problem = Problem::new(serde_json::from_str(&text).expect("it is JSON")).expect("it is a problem");
        println!("{file}: {} conflicts", problem.conflicts().len());
        report(&measure_all(&strategies, &problem).await, f64::INFINITY);
    } else if let Ok(folder) = std::env::var("KHAN") {
        published(&folder, &strategies).await;
    }
}

/// A number that the environment names.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

async fn resolve(strategy: &dyn CoordinationStrategy, problem: &Problem) -> Resolution {
    let wanted: Vec<usize> = problem
        .parties()
        .iter()
        .filter(|party| party.presence == Presence::Active)
        .map(|party| party.options().start)
        .collect();
    std::hint::black_box(conflicts(problem, &wanted));
    strategy.resolve(problem, &Budget::new(number("STEPS")), &NoNegotiator).await.expect("the strategy answers")
}

/// Writes a problem down, if it is asked for.
fn write(name: &str, document: &ProblemDocument) {
    if let Some(folder) = std::env::var_os("JSON") {
        let text = serde_json::to_string_pretty(document).expect("it is JSON");
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}.json")), text).expect("it can be written");
    }
}

async fn measure_all(strategies: &[Arc<dyn CoordinationStrategy>], problem: &Problem) -> Vec<Measured> {
    let mut measured = Vec::new();
    for strategy in strategies {
        measured.push(measure(strategy.as_ref(), problem).await);
    }
    measured
}

async fn measure(strategy: &dyn CoordinationStrategy, problem: &Problem) -> Measured {
    let mut times = Vec::new();
    let begin = Instant::now();
    let mut last = None;
    while times.len() < 3 || (times.len() < 9 && begin.elapsed() < ENOUGH) {
        let start = Instant::now();
        let resolution = resolve(strategy, problem).await;
        times.push(start.elapsed());
        last = Some(resolution);
    }
    times.sort();
    let resolution = last.expect("it was resolved");
    let header = PlanHeader { strategy: strategy.name().to_owned(), epoch: 0, fallback: false, elapsed_ms: 0.0 };
    let plan = assemble(problem, &resolution, &header).expect("the choices make a plan");
    verify(problem, &plan).expect("the plan holds");
    Measured {
        strategy: strategy.name().to_owned(),
        time: times[times.len() / 2],
        objective: plan.objective,
        bound: resolution.bound.unwrap_or(f64::INFINITY).max(plan.objective),
    }
}

fn report(measured: &[Measured], reference: f64) {
    let best = measured.iter().map(|one| one.bound).fold(reference, f64::min);
    for one in measured {
        println!(
            "  {:<16} {:>9.2} ms  objective {:>12.3}  gap {} ({})",
            one.strategy,
            one.time.as_secs_f64() * 1e3,
            one.objective,
            gap(one.objective, best),
            gap(one.objective, one.bound),
        );
    }
}

/// How far an objective is below a bound, which not every strategy proves.
fn gap(objective: f64, bound: f64) -> String {
    match bound {
        f64::INFINITY => "no bound".to_owned(),
        bound if bound > 0.0 => format!("{:.4} %", 100.0 * (bound - objective) / bound),
        _ => "0 %".to_owned(),
    }
}

async fn published(folder: &str, strategies: &[Arc<dyn CoordinationStrategy>]) {
    let files = std::fs::read_dir(folder).expect("KHAN names a folder");
    let mut files: Vec<_> = files.filter_map(Result::ok).map(|file| file.path()).collect();
    files.sort();
    for file in files {
        let name = file.file_stem().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
        let Some(&(name, known, bound)) = khan::INSTANCES.iter().find(|(known, ..)| *known == name) else { continue };
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let document = khan::parse(&text).expect("it is an instance");
        write(name, &document);
        let problem = Problem::new(document).expect("it is a problem");
        println!("{name}: best known {known}, bound {bound}");
        report(&measure_all(strategies, &problem).await, bound);
    }
}
