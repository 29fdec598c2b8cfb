//! `coordinate`: problems on paper, solved without a server.

use std::{io::Read as _, path::Path, sync::Arc, time::Duration};

use coredinator_coord::{Chosen, StrategyFault, resolve};
use coredinator_core::{
    FieldError,
    coordination::{NoNegotiator, Plan, Problem, ProblemDocument},
};
use serde_json::{Map, Value};

use super::{
    ExitStatus, Failure, Program,
    args::{CoordinateArgs, StrategyArgs},
    output::Output,
    paint::{self, Colour, paint},
    plan_view,
    register::is_stdin,
};
use crate::{config::document::Document, coordination::problem_from_json};

/// How many errors are told before the rest is only counted.
const MAX_TOLD: usize = 50;
/// The strategy where none is named.
const DEFAULT_STRATEGY: &str = "priority_based";
/// How long a strategy may take where neither flag nor problem says.
const PATIENCE: Duration = Duration::from_secs(3600);
/// The largest problem that is read: 256 MiB.
const MAX_BYTES: u64 = 256 << 20;

/// `coordinate`.
///
/// # Errors
/// [`ExitStatus::Usage`] with everything that is wrong with the problem or the strategy; [`ExitStatus::Failed`] where the
/// strategy fails or makes a plan that breaks a limit, after the plan that was made instead.
pub async fn run(program: &Program, output: &Output, args: &CoordinateArgs) -> Result<(), Failure> {
    let strategy = strategy(program, &args.strategy)?;
    let name = if is_stdin(&args.problem) { "standard input".to_owned() } else { args.problem.display().to_string() };
    let text = read(&args.problem)?;
    let mut document = problem_from_json(&text).map_err(|errors| match is_record(&text) {
        true => Failure::new(ExitStatus::Usage, format!("{name} is the record of a cycle, not a problem"))
            .hint(format!("\"coredinator replay {}\" solves it again", args.problem.display())),
        false => invalid(&name, &errors),
    })?;
    drop(text);
    if let Some(iterations) = args.iterations {
        document.budget.iterations = Some(iterations);
    }
    if let Some(deadline) = args.deadline {
        document.budget.deadline_ms = Some(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
    }
    let problem = Problem::new(document).map_err(|errors| invalid(&name, &errors))?;
    for party in problem.parties() {
        for fault in &party.faults {
            let text = if fault.pointer.starts_with("/fallback") {
                format!("the fallback of {} cannot be had: {fault}", party.id())
            } else {
                format!("what {} wants does not count: {fault}", party.id())
            };
            output.warn(&format!("{} {}", paint(Colour::Yellow, "warning:"), paint::clean(&text)));
        }
    }
    let problem = Arc::new(problem);
    let deadline = problem.document().budget.deadline_ms.map_or(PATIENCE, Duration::from_millis);
    let resolved = resolve(Arc::clone(&problem), &strategy, Arc::new(NoNegotiator), 0, deadline).await;
    if let Some(plan) = &resolved.plan {
        show(output, plan, problem.document())?;
    }
    if resolved.faults.is_empty() { Ok(()) } else { Err(failed(&resolved.faults, resolved.plan.as_ref())) }
}

/// Whether a text that is no problem is the record of a cycle, which holds one.
fn is_record(text: &[u8]) -> bool {
    let document: Value = serde_json::from_slice(text).unwrap_or_default();
    document.get("problem").is_some_and(Value::is_object) && document.get("decided_by").is_some()
}

/// Writes a plan.
fn show(output: &Output, plan: &Plan, problem: &ProblemDocument) -> Result<(), Failure> {
    let value = serde_json::to_value(plan).unwrap_or_default();
    let agents: Vec<&str> = plan.decisions.iter().map(|decision| decision.agent_id.as_str()).collect();
    output.data(&value, &agents, |wide| {
        let problem = serde_json::to_value(problem).unwrap_or_default();
        plan_view::plan(&value, Some(&problem), wide)
    })
}

/// What strategies did wrong, and who decided instead.
fn failed(faults: &[StrategyFault], plan: Option<&Plan>) -> Failure {
    let first = faults.first().map_or("the strategy", |fault| &fault.strategy);
    let message = match plan {
        Some(plan) => format!("{first} failed, and this plan is by {}", plan.strategy),
        None => format!("{first} failed, and there is no plan"),
    };
    let told =
        |fault: &StrategyFault| format!("{} {}: {}", fault.strategy, fault.kind.as_str(), fault.details.join("; "));
    Failure { details: faults.iter().map(told).collect(), ..Failure::new(ExitStatus::Failed, message) }
}

/// The strategy that is asked for.
fn strategy(program: &Program, args: &StrategyArgs) -> Result<Chosen, Failure> {
    let StrategyArgs { strategy, option, strategy_file } = args;
    let name = strategy.as_deref().unwrap_or(DEFAULT_STRATEGY);
    let (name, choice) = choice(name, option, strategy_file.as_deref())?;
    let made = program.strategies.make("", &choice).map_err(|errors| invalid(&name, &errors))?;
    Chosen::new(choice, made)
        .map_err(|error| Failure::caused(ExitStatus::Failed, "the strategy cannot be used", &error))
}

/// A strategy as the configuration would name it, and what it is called in messages.
pub(super) fn choice(name: &str, options: &[(String, Value)], file: Option<&Path>) -> Result<(String, Value), Failure> {
    if let Some(file) = file {
        let name = file.display().to_string();
        let text = String::from_utf8(read(file)?)
            .map_err(|_| Failure::new(ExitStatus::Usage, format!("{name} is not UTF-8")))?;
        let document = Document::parse(&text, &|_| None).map_err(|faults| Failure {
            details: faults.iter().map(|fault| format!("{name}:{}: {}", fault.position, fault.detail)).collect(),
            ..Failure::new(ExitStatus::Usage, format!("{name} cannot be read"))
        })?;
        return Ok((name, document.value()));
    }
    if options.is_empty() {
        return Ok(("the strategy".to_owned(), name.into()));
    }
    let mut given = Map::new();
    for (path, value) in options {
        put(&mut given, path, value.clone());
    }
    Ok(("the strategy".to_owned(), Value::Object(Map::from_iter([(name.to_owned(), Value::Object(given))]))))
}

/// Sets an option; one whose name has dots, inside others: `ageing.cycles`.
fn put(options: &mut Map<String, Value>, path: &str, value: Value) {
    let Some((first, rest)) = path.split_once('.') else {
        options.insert(path.to_owned(), value);
        return;
    };
    match options.entry(first).or_insert_with(|| Value::Object(Map::new())) {
        Value::Object(inner) => put(inner, rest, value),
        // What is no object has nothing inside: the last word counts, as for an option that is given twice.
        other => {
            let mut inner = Map::new();
            put(&mut inner, rest, value);
            *other = Value::Object(inner);
        }
    }
}

/// Everything that is wrong with a document.
pub(super) fn invalid(name: &str, errors: &[FieldError]) -> Failure {
    let message = match errors.len() {
        1 => format!("{name} has an error"),
        many => format!("{name} has {many} errors"),
    };
    let mut failure = Failure::new(ExitStatus::Usage, message);
    failure.details = errors.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    if let Some(rest) = errors.len().checked_sub(MAX_TOLD).filter(|rest| *rest > 0) {
        failure.details.push(format!("and {rest} more"));
    }
    failure
}

/// The bytes of a file, or of standard input.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = if is_stdin(path) {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::caused(ExitStatus::Usage, format!("cannot read {}", path.display()), &error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Failure::new(ExitStatus::Usage, format!("{} is larger than {MAX_BYTES} bytes", path.display())));
    }
    Ok(bytes)
}
