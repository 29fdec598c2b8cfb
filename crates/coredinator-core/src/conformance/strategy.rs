//! The suite for [`CoordinationStrategy`]: what its documentation asks, as named cases.
//!
//! ```no_run
//! use coredinator_core::conformance::strategy;
//! # use coredinator_core::coordination::CoordinationStrategy;
//! # fn my_strategy() -> std::sync::Arc<dyn CoordinationStrategy> { unimplemented!() }
//!
//! // In a #[test]:
//! strategy::run(|| my_strategy());
//! ```
//!
//! Problems are made by chance from seeds, and a failure names the case and the seed. Nothing here is asynchronous: each
//! answer is awaited on a thread of its own, so that a strategy that hangs fails a case instead of hanging the suite.

mod problems;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use async_trait::async_trait;
pub use problems::{large_problem, random_problem, shuffled};
use serde_json::json;

use crate::coordination::{
    Answer, Budget, CoordinationStrategy, DecisionOutcome, Intention, Limits, Negotiator, NoNegotiator, Offer, Plan,
    PlanHeader, Presence, Problem, ProblemDocument, Resolution, assemble, verify,
};

/// The longest that one answer may take: an upper bound against one that hangs, generous for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long a strategy works on a large problem before time is called.
const A_WHILE: Duration = Duration::from_millis(30);

/// What makes a fresh strategy for a case.
type Make<'a> = &'a dyn Fn() -> Arc<dyn CoordinationStrategy>;

/// What can be taken for a strategy: one, or one that is shared already.
pub trait IntoStrategy {
    /// As the suite holds it.
    fn into_strategy(self) -> Arc<dyn CoordinationStrategy>;
}

impl<S: CoordinationStrategy> IntoStrategy for S {
    fn into_strategy(self) -> Arc<dyn CoordinationStrategy> {
        Arc::new(self)
    }
}

impl IntoStrategy for Arc<dyn CoordinationStrategy> {
    fn into_strategy(self) -> Arc<dyn CoordinationStrategy> {
        self
    }
}

/// A case: its name, and what it does.
type Case = (&'static str, fn(Make<'_>));

/// All cases.
const CASES: [Case; 8] = [
    ("has_a_name", has_a_name),
    ("keeps_every_invariant", keeps_every_invariant),
    ("first_choices_where_nothing_conflicts", first_choices_where_nothing_conflicts),
    ("same_plan_whatever_the_order", same_plan_whatever_the_order),
    ("survives_garbage", survives_garbage),
    ("keeps_to_few_iterations", keeps_to_few_iterations),
    ("ends_when_time_is_up", ends_when_time_is_up),
    ("negotiators_cannot_spoil_it", negotiators_cannot_spoil_it),
];

/// Runs all cases.
///
/// # Panics
/// When a case fails, with its name and the seed of the problem.
pub fn run<S: IntoStrategy>(make: impl Fn() -> S) {
    let make = || make().into_strategy();
    for (name, case) in CASES {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| case(&make)));
        if let Err(panic) = outcome {
            let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            panic!("{name}: {}", text.unwrap_or("it panicked"));
        }
    }
}

/// Asks a strategy on a thread of its own, and waits.
fn answer(
    strategy: &Arc<dyn CoordinationStrategy>,
    problem: &Problem,
    budget: &Budget,
    negotiator: Arc<dyn Negotiator>,
    seed: u64,
) -> Resolution {
    let (tell, told) = mpsc::channel();
    let (strategy, problem, budget) = (Arc::clone(strategy), problem.clone(), budget.clone());
    std::thread::spawn(move || {
        let resolve = async { strategy.resolve(&problem, &budget, negotiator.as_ref()).await };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let answer = runtime.map(|runtime| runtime.block_on(resolve));
        let _ = tell.send(answer);
    });
    match told.recv_timeout(PATIENCE) {
        Ok(Ok(Ok(resolution))) => resolution,
        Ok(Ok(Err(error))) => panic!("problem {seed}: it made no plan: {error}"),
        Ok(Err(error)) => panic!("problem {seed}: no runtime to ask it on: {error}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("problem {seed}: it panicked"),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("problem {seed}: no answer within {PATIENCE:?}"),
    }
}

/// Writes out and verifies what was answered.
fn checked(problem: &Problem, resolution: &Resolution, seed: u64) -> Plan {
    let revised = if resolution.revisions.is_empty() {
        None
    } else {
        match problem.revised(resolution.revisions.clone(), &Limits::default()) {
            Ok(revised) => Some(revised),
            Err(errors) => panic!("problem {seed}: revisions that nobody made: {errors:?}"),
        }
    };
    let problem = revised.as_ref().unwrap_or(problem);
    let header = PlanHeader { strategy: String::new(), epoch: 1, fallback: false, elapsed_ms: 0.0 };
    let plan = assemble(problem, resolution, &header).unwrap_or_else(|error| panic!("problem {seed}: {error}"));
    if let Err(wrong) = verify(problem, &plan) {
        panic!("problem {seed}: {}", wrong.join("; "));
    }
    plan
}

fn compile(document: ProblemDocument, seed: u64) -> Problem {
    Problem::new(document).unwrap_or_else(|errors| panic!("problem {seed} is none: {errors:?}"))
}

fn plan(strategy: &Arc<dyn CoordinationStrategy>, document: ProblemDocument, budget: &Budget, seed: u64) -> Plan {
    let problem = compile(document, seed);
    let resolution = answer(strategy, &problem, budget, Arc::new(NoNegotiator), seed);
    checked(&problem, &resolution, seed)
}

/// Its name is a word in snake case, and stays.
fn has_a_name(make: Make<'_>) {
    let (one, other) = (make(), make());
    let name = one.name();
    let word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    assert!(word, "{name:?} is not a word in snake case");
    assert_eq!(name, other.name(), "another name the second time");
    assert_eq!(one.needs(), other.needs(), "other needs the second time");
}

/// Whatever the problem, what it answers is a plan that can be acted on.
fn keeps_every_invariant(make: Make<'_>) {
    let strategy = make();
    for seed in 0..400 {
        plan(&strategy, random_problem(seed, 8), &Budget::default(), seed);
    }
    for seed in 400..410 {
        plan(&strategy, random_problem(seed, 60), &Budget::default(), seed);
    }
}

/// With enough for all and nothing to disagree about, everyone gets what it wants most.
fn first_choices_where_nothing_conflicts(make: Make<'_>) {
    let strategy = make();
    let mut tried = 0;
    for seed in 0..400 {
        let mut document = random_problem(seed, 6);
        document.variables.clear();
        document.intentions.clear();
        document.holdings.clear();
        let wishes = random_problem(seed, 6).intentions;
        for intention in wishes {
            let mut intention = Intention::clone(&intention);
            for option in &mut intention.options {
                option.claims.clear();
                option.effects.clear();
            }
            document.intentions.push(Arc::new(intention));
        }
        document.resources.iter_mut().for_each(|resource| (resource.capacity, resource.reserve) = (1e6, 0.0));
        let problem = compile(document, seed);
        if !problem.conflicts().is_empty() {
            continue;
        }
        tried += 1;
        let resolution = answer(&strategy, &problem, &Budget::default(), Arc::new(NoNegotiator), seed);
        let plan = checked(&problem, &resolution, seed);
        for (party, decision) in problem.parties().iter().zip(&plan.decisions) {
            let expected =
                if party.presence == Presence::Active { DecisionOutcome::Granted } else { DecisionOutcome::Defaulted };
            assert_eq!(decision.outcome, expected, "problem {seed}: {}", decision.agent_id);
        }
    }
    assert!(tried > 100, "only {tried} problems without conflict");
}

/// The same problem gives the same plan, again and in whatever order it is written.
fn same_plan_whatever_the_order(make: Make<'_>) {
    let strategy = make();
    for seed in 0..150 {
        let document = random_problem(seed, 8);
        let mut plans = vec![plan(&strategy, document.clone(), &Budget::default(), seed)];
        for order in 0..3 {
            plans.push(plan(&make(), shuffled(&document, seed * 10 + order), &Budget::default(), seed));
        }
        plans.push(plan(&strategy, document, &Budget::default(), seed));
        let first = json!(plans[0]);
        assert!(plans.iter().all(|other| json!(other) == first), "problem {seed}: another plan in another order");
    }
}

/// Problems at the edge of what is one: nobody, nothing, no room, huge and tiny numbers.
fn survives_garbage(make: Make<'_>) {
    let strategy = make();
    plan(&strategy, random_problem(0, 0), &Budget::default(), 0);
    for seed in 0..200 {
        let mut document = random_problem(seed, 6);
        let stretch = [1e-300, 1e-15, 0.0, 1e13][seed as usize % 4];
        for resource in &mut document.resources {
            if resource.kind == crate::coordination::ResourceKind::Divisible {
                resource.capacity *= stretch;
            }
        }
        if seed % 3 == 0 {
            for intention in &mut document.intentions {
                let mut wild = Intention::clone(intention);
                wild.options.iter_mut().for_each(|option| option.utility *= [1e-300, 1e12, 0.0][seed as usize / 3 % 3]);
                *intention = Arc::new(wild);
            }
        }
        plan(&strategy, document, &Budget::default(), seed);
    }
}

/// However few steps it may make, its answer can be acted on, and is the same each time.
fn keeps_to_few_iterations(make: Make<'_>) {
    let strategy = make();
    for seed in 0..60 {
        for iterations in [0, 1, 7] {
            let budget = Budget::new(Some(iterations));
            let one = plan(&strategy, random_problem(seed, 8), &budget, seed);
            let other = plan(&strategy, random_problem(seed, 8), &budget, seed);
            assert_eq!(json!(one), json!(other), "problem {seed}: another plan in as many iterations");
        }
    }
}

/// When time is up, before it began or while it works, it answers with what it has.
fn ends_when_time_is_up(make: Make<'_>) {
    let strategy = make();
    for seed in 0..40 {
        let over = Budget::default();
        over.end();
        plan(&strategy, random_problem(seed, 8), &over, seed);
    }
    let over = Budget::default();
    over.end();
    plan(&strategy, large_problem(1, 2000), &over, 1);
    let budget = Budget::default();
    let timer = {
        let budget = budget.clone();
        std::thread::spawn(move || {
            std::thread::park_timeout(A_WHILE);
            budget.end();
        })
    };
    plan(&strategy, large_problem(2, 5000), &budget, 2);
    assert!(timer.join().is_ok(), "the clock stopped");
}

/// Agents that agree, refuse, contradict themselves or say nothing change what they get, but not that there is a plan.
fn negotiators_cannot_spoil_it(make: Make<'_>) {
    let strategy = make();
    for seed in 0..100 {
        let mut document = random_problem(seed, 6);
        for agent in &mut document.agents {
            let mut talkative = crate::coordination::Agent::clone(agent);
            talkative.negotiates = true;
            talkative.endpoint = Some("http://127.0.0.1:1/agent".to_owned());
            *agent = Arc::new(talkative);
        }
        let problem = compile(document, seed);
        let negotiator = Arc::new(Fickle { problem: problem.clone(), random: AtomicU64::new(seed) });
        let resolution = answer(&strategy, &problem, &Budget::default(), negotiator, seed);
        checked(&problem, &resolution, seed);
    }
}

/// Agents that never mean what they said.
struct Fickle {
    problem: Problem,
    random: AtomicU64,
}

#[async_trait]
impl Negotiator for Fickle {
    async fn ask(&self, round: u32, _: &[f64], offers: Vec<Offer>) -> Vec<Answer> {
        let mut rng = fastrand::Rng::with_seed(self.random.fetch_add(u64::from(round) + 1, Ordering::Relaxed));
        let answer = |offer: Offer| {
            let Some(intention) = self.problem.parties().get(offer.party).and_then(|party| party.intention.as_ref())
            else {
                return Answer::Silent;
            };
            let mut revised = Intention::clone(intention);
            revised.seq += u64::from(round) + 1;
            rng.shuffle(&mut revised.options);
            if rng.bool() {
                revised.options.truncate(1);
            }
            for option in &mut revised.options {
                option.utility = f64::from(rng.u8(0..50));
                option.id = format!("{}-{round}", option.id);
            }
            match rng.u8(0..3) {
                0 => Answer::Accepts,
                1 => Answer::Silent,
                _ => Answer::Revises(Box::new(revised)),
            }
        };
        offers.into_iter().map(answer).collect()
    }
}
