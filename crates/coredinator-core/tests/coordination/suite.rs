//! The suite for strategies fails where it has to: for each case a strategy that is fine but for what the case is about.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use coredinator_core::{
    conformance::strategy,
    coordination::{
        Answer, Budget, CoordinationStrategy, Decision, DecisionOutcome, DecisionReason, Draft, Negotiator, Offer,
        Pick, Presence, Problem, Resolution, StrategyError,
    },
};

use super::greedy;

/// A strategy that is a function.
struct By<F>(&'static str, F);

type Chosen = Result<Resolution, StrategyError>;

#[async_trait]
impl<F: Fn(&Problem, &Budget) -> Chosen + Send + Sync + 'static> CoordinationStrategy for By<F> {
    fn name(&self) -> &str {
        self.0
    }

    async fn resolve(&self, problem: &Problem, budget: &Budget, _: &dyn Negotiator) -> Chosen {
        (self.1)(problem, budget)
    }
}

/// What the suite says of a strategy.
fn verdict<S: CoordinationStrategy>(make: impl Fn() -> S) -> String {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| strategy::run(make))) else { return "it conforms".to_owned() };
    panic.downcast_ref::<String>().expect("a text").clone()
}

/// What the suite says of a function.
fn of(decide: impl Fn(&Problem, &Budget) -> Chosen + Send + Sync + Clone + 'static) -> String {
    verdict(move || By("tried", decide.clone()))
}

/// Asserts that a verdict names this case and says this.
fn assert_said(verdict: &str, case: &str, said: &str) {
    assert!(verdict.starts_with(&format!("{case}: ")) && verdict.contains(said), "{case}: {said:?}? {verdict}");
}

/// Changes the choice for the first party that is active, where something conflicts.
fn spoilt(problem: &Problem, spoil: impl Fn(Pick) -> Pick) -> Resolution {
    let mut resolution = greedy(problem);
    let active = problem.parties().iter().position(|party| party.presence == Presence::Active);
    if let Some(at) = active.filter(|_| !problem.conflicts().is_empty()) {
        resolution.picks[at] = spoil(resolution.picks[at]);
    }
    resolution
}

#[test]
fn one_that_does_what_it_has_to_passes() {
    assert_eq!(of(|problem, _| Ok(greedy(problem))), "it conforms");
}

#[test]
fn a_name_is_a_word() {
    for name in ["", "Two Words", "kebab-case"] {
        assert_said(
            &verdict(|| By(name, |problem: &Problem, _: &Budget| Ok(greedy(problem)))),
            "has_a_name",
            "snake case",
        );
    }
}

#[test]
fn plans_that_cannot_be_acted_on_are_found() {
    let case = "keeps_every_invariant";
    // Everyone has its way, whatever that takes.
    let greed = |problem: &Problem, _: &Budget| {
        let mut resolution = greedy(problem);
        for (party, pick) in problem.parties().iter().zip(&mut resolution.picks) {
            if party.presence == Presence::Active {
                *pick = Pick::Option { candidate: party.options().start, fraction: 1.0 };
            }
        }
        Ok(resolution)
    };
    assert_said(&of(greed), case, "is available");
    let fraction = |problem: &Problem, _: &Budget| {
        Ok(spoilt(problem, |pick| match pick {
            Pick::Option { candidate, .. } => Pick::Option { candidate, fraction: f64::NAN },
            other => other,
        }))
    };
    assert_said(&of(fraction), case, "is none that it has");
    assert_said(&of(|problem, _| Ok(spoilt(problem, |_| Pick::Held))), case, "is none that it has");
    let nobody = |problem: &Problem, _: &Budget| Ok(spoilt(problem, |_| Pick::Nothing));
    assert_said(&of(nobody), case, "it is shed, but");
    let short = |problem: &Problem, _: &Budget| Ok(Resolution { picks: Vec::new(), ..greedy(problem) });
    assert_said(&of(short), case, "choices were made for");
    let boast = |problem: &Problem, _: &Budget| Ok(Resolution { bound: Some(f64::INFINITY), ..greedy(problem) });
    assert_said(&of(boast), case, "contradict each other");
    let refuse = |problem: &Problem, _: &Budget| match problem.conflicts() {
        [] => Ok(greedy(problem)),
        _ => Err(StrategyError::new("not today")),
    };
    assert_said(&of(refuse), case, "it made no plan: not today");
    let panics = |problem: &Problem, _: &Budget| {
        assert!(problem.conflicts().len() < 3, "too much");
        Ok(greedy(problem))
    };
    assert_said(&of(panics), case, "it panicked");
    // What is safe, even where nothing is in anybody's way.
    assert_said(&of(|problem, _| Ok(Draft::new(problem).finish())), case, "does not get its first choice");
}

#[test]
fn who_takes_plenty_for_nothing_is_found() {
    let stingy = |problem: &Problem, _: &Budget| {
        let plenty = problem.available().iter().any(|&available| available > 1e5);
        Ok(if plenty { Draft::new(problem).finish() } else { greedy(problem) })
    };
    assert_said(&of(stingy), "first_choices_where_nothing_conflicts", "does not get its first choice");
}

/// Another party begins than the first, where something conflicts.
fn from(problem: &Problem, begin: u64) -> Resolution {
    if problem.conflicts().is_empty() {
        return greedy(problem);
    }
    let mut draft = Draft::new(problem);
    let mut order: Vec<usize> = (0..problem.parties().len()).collect();
    let count = order.len() as u64;
    order.rotate_left((begin % count) as usize);
    for party in order {
        let _ = problem.parties()[party].options().any(|candidate| draft.grant(candidate));
    }
    draft.finish()
}

#[test]
fn one_that_remembers_is_found() {
    let asked = Arc::new(AtomicU64::new(0));
    let moody = move |problem: &Problem, _: &Budget| Ok(from(problem, asked.fetch_add(1, Ordering::Relaxed)));
    assert_said(&of(moody), "same_plan_whatever_the_order", "another plan in another order");
}

#[test]
fn one_that_is_another_each_time_it_is_made_is_found() {
    let made = AtomicU64::new(0);
    let make = || {
        let begin = made.fetch_add(1, Ordering::Relaxed);
        By("tried", move |problem: &Problem, _: &Budget| Ok(from(problem, begin)))
    };
    assert_said(&verdict(make), "same_plan_whatever_the_order", "another plan in another order");
}

#[test]
fn one_that_cannot_bear_wild_numbers_is_found() {
    let delicate = |problem: &Problem, _: &Budget| {
        assert!(problem.candidates().iter().all(|candidate| candidate.utility < 1e9), "how much?");
        Ok(greedy(problem))
    };
    assert_said(&of(delicate), "survives_garbage", "it panicked");
}

#[test]
fn one_that_needs_its_time_is_found() {
    let slow = |problem: &Problem, budget: &Budget| match budget.iterations() {
        Some(0) => Err(StrategyError::new("not begun")),
        _ => Ok(greedy(problem)),
    };
    assert_said(&of(slow), "keeps_to_few_iterations", "not begun");
    let asked = Arc::new(AtomicU64::new(0));
    let moody = move |problem: &Problem, budget: &Budget| {
        let begin = budget.iterations().map_or(0, |_| asked.fetch_add(1, Ordering::Relaxed));
        Ok(from(problem, begin))
    };
    assert_said(&of(moody), "keeps_to_few_iterations", "another plan in as many iterations");
}

#[test]
fn one_that_has_nothing_when_time_is_up_is_found() {
    let late = |problem: &Problem, budget: &Budget| match budget.is_over() {
        true => Err(StrategyError::new("no time")),
        false => Ok(greedy(problem)),
    };
    assert_said(&of(late), "ends_when_time_is_up", "no time");
}

/// One that takes agents at their word, without looking at what it says.
struct Gullible;

#[async_trait]
impl CoordinationStrategy for Gullible {
    fn name(&self) -> &str {
        "gullible"
    }

    async fn resolve(&self, problem: &Problem, _: &Budget, negotiator: &dyn Negotiator) -> Chosen {
        let mut resolution = greedy(problem);
        let proposed = |party: usize| Decision {
            agent_id: problem.parties()[party].id().clone(),
            outcome: DecisionOutcome::Denied,
            option_id: None,
            fraction: 0.0,
            values: std::collections::BTreeMap::new(),
            grant: std::collections::BTreeMap::new(),
            action: serde_json::Value::Null,
            utility: 0.0,
            reason: DecisionReason::default(),
        };
        let offers = (0..problem.parties().len()).map(|party| Offer { party, proposed: proposed(party) }).collect();
        for answer in negotiator.ask(1, &[], offers).await {
            if let Answer::Revises(revised) = answer {
                // The choices still are places in the problem as it was.
                resolution.revisions.push(Arc::new(*revised));
            }
        }
        Ok(resolution)
    }
}

#[test]
fn one_that_takes_agents_at_their_word_is_found() {
    assert_said(&verdict(|| Gullible), "negotiators_cannot_spoil_it", "problem");
}
