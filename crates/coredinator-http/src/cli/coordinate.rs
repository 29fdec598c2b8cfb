//! `coordinate`: problems on paper, solved without a server.

use std::{io::Read as _, path::Path, sync::Arc, time::Duration};

use coredinator_core::{
    FieldError,
    coordination::{
        Budget, CoordinationStrategy, NoNegotiator, Plan, PlanHeader, Problem, ProblemDocument, assemble, verify,
    },
};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

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
/// The largest problem that is read: 256 MiB.
const MAX_BYTES: u64 = 256 << 20;

/// `coordinate`.
///
/// # Errors
/// [`ExitStatus::Usage`] with everything that is wrong with the problem or the strategy; [`ExitStatus::Failed`] where the
/// strategy makes no plan, or one that breaks a limit.
pub async fn run(program: &Program, output: &Output, args: &CoordinateArgs) -> Result<(), Failure> {
    let strategy = strategy(program, &args.strategy)?;
    let name = if is_stdin(&args.problem) { "standard input".to_owned() } else { args.problem.display().to_string() };
    let mut document = problem_from_json(&read(&args.problem)?).map_err(|errors| invalid(&name, &errors))?;
    if let Some(iterations) = args.iterations {
        document.budget.iterations = Some(iterations);
    }
    if let Some(deadline) = args.deadline {
        document.budget.deadline_ms = Some(u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX));
    }
    let problem = Problem::new(document).map_err(|errors| invalid(&name, &errors))?;
    for party in problem.parties() {
        for fault in &party.faults {
            let text = format!("what {} wants does not count: {fault}", party.id());
            output.warn(&format!("{} {}", paint(Colour::Yellow, "warning:"), paint::clean(&text)));
        }
    }
    let problem = Arc::new(problem);
    let plan = solve(Arc::clone(&problem), strategy).await?;
    show(output, &plan, problem.document())
}

/// Writes a plan.
fn show(output: &Output, plan: &Plan, problem: &ProblemDocument) -> Result<(), Failure> {
    let value = serde_json::to_value(plan).unwrap_or_default();
    let granted: Vec<&str> = plan.decisions.iter().map(|decision| decision.agent_id.as_str()).collect();
    output.data(&value, &granted, |wide| {
        let problem = serde_json::to_value(problem).unwrap_or_default();
        plan_view::plan(&value, Some(&problem), wide)
    })
}

/// The strategy that is asked for.
fn strategy(program: &Program, args: &StrategyArgs) -> Result<Arc<dyn CoordinationStrategy>, Failure> {
    let (name, choice) = choice(args)?;
    program.strategies.make("", &choice).map_err(|errors| invalid(&name, &errors))
}

/// What is asked for, as the configuration would have it, and what it is called in messages.
pub(super) fn choice(args: &StrategyArgs) -> Result<(String, Value), Failure> {
    if let Some(file) = &args.strategy_file {
        let text = String::from_utf8(read(file)?)
            .map_err(|_| Failure::new(ExitStatus::Usage, format!("{} is not UTF-8", file.display())))?;
        let document = Document::parse(&text, &|_| None).map_err(|faults| {
            let errors: Vec<String> =
                faults.iter().map(|fault| format!("{}:{}: {}", file.display(), fault.position, fault.detail)).collect();
            Failure { details: errors, ..Failure::new(ExitStatus::Usage, "the strategy cannot be read") }
        })?;
        return Ok((file.display().to_string(), document.value()));
    }
    let name = args.strategy.clone().unwrap_or_else(|| "priority_based".to_owned());
    if args.option.is_empty() {
        return Ok(("--strategy".to_owned(), name.into()));
    }
    let options: Map<String, Value> = args.option.iter().cloned().collect();
    Ok(("--option".to_owned(), Value::Object(Map::from_iter([(name, Value::Object(options))]))))
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

/// Has a strategy make a plan, and checks it.
async fn solve(problem: Arc<Problem>, strategy: Arc<dyn CoordinationStrategy>) -> Result<Plan, Failure> {
    let limits = problem.document().budget;
    let budget = Budget::new(limits.iterations);
    let name = strategy.name().to_owned();
    let started = Instant::now();
    let mut solving = tokio::spawn({
        let (problem, budget) = (Arc::clone(&problem), budget.clone());
        async move { strategy.resolve(&problem, &budget, &NoNegotiator).await }
    });
    let deadline = async {
        match limits.deadline_ms {
            Some(deadline) => sleep(Duration::from_millis(deadline)).await,
            None => std::future::pending().await,
        }
    };
    let made = tokio::select! {
        made = &mut solving => made,
        () = deadline => {
            budget.end();
            solving.await
        }
    };
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::caused(ExitStatus::Failed, format!("{name} made no plan"), error)
    };
    let resolution = made.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    let elapsed_ms = started.elapsed().as_secs_f64() * 1000.0;
    let header = PlanHeader { strategy: name.clone(), epoch: 0, fallback: false, elapsed_ms };
    let wrong = |details: Vec<String>| Failure {
        details,
        ..Failure::new(ExitStatus::Failed, format!("{name} made a plan that breaks a limit"))
    };
    let mut plan = assemble(&problem, &resolution, &header).map_err(|error| wrong(vec![error]))?;
    verify(&problem, &plan).map_err(wrong)?;
    plan.verified = true;
    Ok(plan)
}
