//! `replay`: a recorded cycle, solved again.

use std::path::Path;

use coredinator_coord::{CycleRecord, Replayed, replay};
use serde_json::Value;

use super::{
    ExitStatus, Failure, Program,
    args::ReplayArgs,
    client::Client,
    coordinate::read,
    coordination::record,
    output::Output,
    paint::{Colour, clean, paint},
    plan_view,
};

/// `replay`.
///
/// # Errors
/// [`ExitStatus::Failed`] where the plan is another one, or cannot be compared; [`ExitStatus::Usage`] for a record that cannot
/// be read; else as [`Client::get`].
pub async fn run(
    program: &Program,
    client: impl FnOnce() -> Result<Client, Failure>,
    output: &Output,
    args: &ReplayArgs,
) -> Result<(), Failure> {
    let record = match args.cycle.parse() {
        Ok(cycle) => parse("the answer", record(&client()?, cycle, &args.group).await)?,
        Err(_) => {
            let text = read(Path::new(&args.cycle))?;
            let name = if args.cycle == "-" { "standard input" } else { &args.cycle };
            let value: Result<Value, _> = serde_json::from_slice(&text);
            parse(name, value.map_err(|error| unreadable(name, &error)))?
        }
    };
    let replayed = replay(&record, &program.strategies).await;
    let replayed =
        replayed.map_err(|error| Failure::caused(ExitStatus::Usage, "the cycle cannot be solved", &error))?;
    let value = serde_json::to_value(&replayed).unwrap_or_default();
    let who = clean(&format!("{} cycle {}", record.group, record.cycle)).into_owned();
    output.data(&value, &[], |wide| match &replayed {
        Replayed::Same => format!("{who}: {}\n", paint(Colour::Green, "the same plan")),
        Replayed::Differs { detail, plan } => {
            let problem = serde_json::to_value(&*record.problem).unwrap_or_default();
            let plan = plan.as_ref().and_then(|plan| serde_json::to_value(plan).ok());
            let plan = plan.map(|plan| format!("\n{}", plan_view::plan(&plan, Some(&problem), wide)));
            format!("{who}: {}: {}\n{}", paint(Colour::Red, "another plan"), clean(detail), plan.unwrap_or_default())
        }
        Replayed::NotComparable { detail } => {
            format!("{who}: {}: {}\n", paint(Colour::Yellow, "cannot be compared"), clean(detail))
        }
    })?;
    match replayed {
        Replayed::Same => Ok(()),
        Replayed::Differs { .. } | Replayed::NotComparable { .. } => Err(Failure::silent(ExitStatus::Failed)),
    }
}

fn parse(name: &str, value: Result<Value, Failure>) -> Result<CycleRecord, Failure> {
    serde_json::from_value(value?).map_err(|error| unreadable(name, &error))
}

fn unreadable(name: &str, error: &serde_json::Error) -> Failure {
    Failure::caused(ExitStatus::Usage, format!("{name} is no record of a cycle"), error)
        .hint("\"coredinator cycle N -o json\" writes one")
}
