//! Small problems against all choices there are.

use std::sync::Arc;

use coredinator_core::coordination::{
    ActionOption, Agent, AgentId, Budget, Claim, Draft, Fallback, Intention, OnConflict, Pick, Problem,
    ProblemDocument, Resource, ResourceKind, Variable,
};
use proptest::prelude::*;

use super::{
    Scope, Solution,
    dive::dive,
    exchange,
    join::Join,
    model::Model,
    prices, repair,
    search::{Guide, Search},
    solve,
    solve::solve_on,
    state::State,
};

fn resource(name: String, capacity: f64) -> Resource {
    Resource { name, capacity, unit: String::new(), reserve: 0.0, kind: ResourceKind::Divisible }
}

fn variable(name: String, on_conflict: OnConflict) -> Variable {
    let (min, max, tolerance) = (0.0, 10.0, 1.0);
    Variable {
        name,
        unit: String::new(),
        min,
        max,
        max_rate: None,
        current: None,
        default: None,
        tolerance,
        on_conflict,
    }
}

/// The demands of two resources (0: none), a claim on a variable, a push, the utility.
type RawOption = ((u8, u8), Option<(bool, u8, Option<u8>)>, Option<(bool, i8)>, i8);

#[derive(Debug, Clone)]
struct RawAgent {
    priority: i32,
    weight: u8,
    /// Whether it has a fallback, and its demand.
    fallback: Option<u8>,
    disagreement: i8,
    options: Vec<RawOption>,
}

fn raw_option() -> impl Strategy<Value = RawOption> {
    let claim = proptest::option::weighted(0.3, (any::<bool>(), 0_u8..10, proptest::option::of(0_u8..4)));
    let push = proptest::option::weighted(0.2, (any::<bool>(), -4_i8..5));
    ((0_u8..6, 0_u8..6), claim, push, -2_i8..20)
}

fn raw_agent() -> impl Strategy<Value = RawAgent> {
    let fallback = proptest::option::weighted(0.7, 0_u8..3);
    (0..3, 1_u8..4, fallback, -2_i8..4, proptest::collection::vec(raw_option(), 1..5)).prop_map(
        |(priority, weight, fallback, disagreement, options)| RawAgent {
            priority,
            weight,
            fallback,
            disagreement,
            options,
        },
    )
}

fn option(id: usize, raw: &RawOption) -> ActionOption {
    let &((steam, power), claim, push, utility) = raw;
    let name = |second: bool| if second { "w" } else { "v" }.to_owned();
    let placed = |(second, value, span): (bool, u8, Option<u8>)| {
        let value = f64::from(value);
        let span = span.map(f64::from);
        (name(second), Claim { value, min: span.map(|by| value - by), max: span.map(|by| value + by), weight: 1.0 })
    };
    ActionOption {
        id: format!("o{id}"),
        action: serde_json::Value::Null,
        demands: [("power".to_owned(), f64::from(power)), ("steam".to_owned(), f64::from(steam))].into(),
        claims: claim.map(placed).into_iter().collect(),
        effects: push.map(|(second, strength)| (name(second), f64::from(strength))).into_iter().collect(),
        utility: f64::from(utility),
        elastic: None,
    }
}

fn problem(raw: &[RawAgent], capacities: (f64, f64)) -> Problem {
    let id = |at: usize| AgentId::new(&format!("a{at}")).unwrap();
    let agents = raw.iter().enumerate().map(|(at, raw)| {
        let fallback = raw.fallback.map(|demand| match demand {
            0 => Fallback::Release,
            demand => Fallback::Option(Box::new(option(9, &((demand, 0), None, None, 0)))),
        });
        Arc::new(Agent { priority: raw.priority, weight: f64::from(raw.weight), fallback, ..Agent::new(id(at)) })
    });
    let intentions = raw.iter().enumerate().map(|(at, raw)| {
        let options = raw.options.iter().enumerate().map(|(id, raw)| option(id, raw)).collect();
        let (agent_id, disagreement) = (id(at), Some(f64::from(raw.disagreement)).filter(|said| *said != 0.0));
        Arc::new(Intention { agent_id, seq: 1, valid_until_cycle: None, disagreement, options })
    });
    let document = ProblemDocument {
        resources: vec![resource("power".to_owned(), capacities.0), resource("steam".to_owned(), capacities.1)],
        variables: vec![variable("v".to_owned(), OnConflict::Exclusive), variable("w".to_owned(), OnConflict::Blend)],
        agents: agents.collect(),
        intentions: intentions.collect(),
        ..serde_json::from_str(r#"{"agents": []}"#).unwrap()
    };
    Problem::new(document).unwrap()
}

/// What is best among all choices: who is shed (by the sum of 10 to the priority), and the value.
fn best_of_all(problem: &Problem) -> (f64, f64) {
    fn go(draft: &Draft<'_>, party: usize, shed: f64, value: f64, best: &mut (f64, f64)) {
        let problem = draft.problem();
        let Some(of) = problem.parties().get(party) else {
            if shed < best.0 || (shed == best.0 && value > best.1) {
                *best = (shed, value);
            }
            return;
        };
        for candidate in of.options().chain(of.fallback()) {
            let mut next = draft.clone();
            let pick = match of.fallback() {
                Some(fallback) if fallback == candidate => Pick::Fallback,
                _ => Pick::Option { candidate, fraction: 1.0 },
            };
            if next.set(party, pick) {
                go(&next, party + 1, shed, value + of.agent.weight * problem.candidates()[candidate].utility, best);
            }
        }
        go(draft, party + 1, shed + 10_f64.powi(of.agent.priority), value, best);
    }
    let mut draft = Draft::new(problem);
    for party in 0..problem.parties().len() {
        assert!(draft.set(party, Pick::Nothing));
    }
    let mut best = (f64::INFINITY, f64::NEG_INFINITY);
    go(&draft, 0, 0.0, 0.0, &mut best);
    best
}

/// Whether all picks fit together, who is shed (as above), and the value.
fn judged(problem: &Problem, solution: &Solution) -> (f64, f64) {
    let mut draft = Draft::new(problem);
    for party in 0..problem.parties().len() {
        assert!(draft.set(party, Pick::Nothing));
    }
    let (mut shed, mut value) = (0.0, 0.0);
    for &(party, pick) in &solution.picks {
        assert!(draft.set(party, pick), "{pick:?} of {party} does not fit");
        let agent = &problem.parties()[party].agent;
        match pick {
            Pick::Nothing => shed += 10_f64.powi(agent.priority),
            Pick::Option { candidate, fraction } => {
                value += agent.weight * problem.candidates()[candidate].utility_at(fraction);
            }
            _ => {
                value += problem.parties()[party]
                    .fallback()
                    .map_or(0.0, |at| agent.weight * problem.candidates()[at].utility);
            }
        }
    }
    assert!((value - solution.value).abs() < 1e-9, "{value} is said to be {}", solution.value);
    (shed, value)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_better_than_what_is_optimal(
        raw in proptest::collection::vec(raw_agent(), 1..6),
        capacities in (0_u8..16, 0_u8..16),
    ) {
        let problem = problem(&raw, (f64::from(capacities.0), f64::from(capacities.1)));
        let solution = solve(&Scope::whole(&problem), None, &Budget::default());
        let (shed, value) = judged(&problem, &solution);
        let best = best_of_all(&problem);
        prop_assert_eq!(shed, best.0);
        prop_assert!(solution.optimal);
        prop_assert!((value - best.1).abs() < 1e-9, "{} instead of {}", value, best.1);
        prop_assert!(solution.bound >= best.1 - 1e-9 && solution.bound <= best.1 + 1e-9);
    }

    #[test]
    fn a_scope_leaves_all_others_what_they_have(
        raw in proptest::collection::vec(raw_agent(), 2..7),
        capacities in (0_u8..16, 0_u8..16),
        chosen in proptest::collection::vec(any::<bool>(), 7),
        steps in 0_u64..300,
    ) {
        let problem = problem(&raw, (f64::from(capacities.0), f64::from(capacities.1)));
        let mut draft = Draft::new(&problem);
        let inside: Vec<usize> = (0..raw.len()).filter(|&party| chosen[party]).collect();
        for &party in &inside {
            prop_assert!(draft.set(party, Pick::Nothing));
        }
        let solution = solve(&Scope::around(&draft, inside.iter().copied()), Some(steps), &Budget::default());
        prop_assert_eq!(solution.picks.iter().map(|&(party, _)| party).collect::<Vec<_>>(), inside);
        prop_assert!(solution.bound >= solution.value);
        for (party, pick) in solution.picks {
            prop_assert!(draft.set(party, pick), "{:?} of {} does not fit", pick, party);
        }
    }
}

/// Twenty components of ten agents that each want of one or both of two resources.
fn islands() -> Problem {
    let (mut resources, mut agents, mut intentions) = (Vec::new(), Vec::new(), Vec::new());
    let mut chance = fastrand::Rng::with_seed(7);
    for island in 0..20 {
        let names = [format!("power{island:02}"), format!("steam{island:02}")];
        resources.extend(names.iter().map(|name| resource(name.clone(), 25.0)));
        for at in 0..10 {
            let agent_id = AgentId::new(&format!("a{island:02}-{at}")).unwrap();
            agents.push(Arc::new(Agent { fallback: Some(Fallback::Release), ..Agent::new(agent_id.clone()) }));
            let options = (0..4).map(|id| {
                let mut demands = || names.iter().map(|name| (name.clone(), f64::from(chance.u8(0..9)))).collect();
                ActionOption { demands: demands(), utility: chance.f64() * 9.0, ..option(id, &((0, 0), None, None, 0)) }
            });
            let options = options.collect();
            intentions.push(Arc::new(Intention {
                agent_id,
                seq: 1,
                valid_until_cycle: None,
                disagreement: None,
                options,
            }));
        }
    }
    Problem::new(ProblemDocument {
        resources,
        agents,
        intentions,
        ..serde_json::from_str(r#"{"agents": []}"#).unwrap()
    })
    .unwrap()
}

#[test]
fn the_number_of_threads_does_not_matter() {
    // Of many parts each is solved on a thread; one that is whole on several, from several starts.
    let (parts, whole) = (islands(), published_kind(5, (510, 3, 25)));
    for (problem, steps) in [(&parts, None), (&parts, Some(20_000)), (&whole, Some(600_000))] {
        let on = |threads| solve_on(threads, &Scope::whole(problem), steps, &Budget::default());
        let alone = on(1);
        for threads in [2, 3, 7, 64] {
            let together = on(threads);
            assert_eq!(together.picks, alone.picks);
            assert_eq!(together.prices, alone.prices);
            assert_eq!((together.value, together.bound, together.steps), (alone.value, alone.bound, alone.steps));
        }
    }
}

/// Groups of options of which each is worth about what it takes of all resources, in whole numbers, as in the published
/// instances of the multiple-choice knapsack problem (Khan, Li, Manning, Akbar, 2002); half of the mean peak is there.
fn published_kind(seed: u64, size: (usize, usize, usize)) -> Problem {
    kind(seed, size, 5.0)
}

/// The same with so much of each resource for each group; less than five is enough because each has one more option, which
/// takes nothing and is worth nothing.
fn kind(seed: u64, (groups, items, rows): (usize, usize, usize), each: f64) -> Problem {
    let mut chance = seed;
    let mut below = |limit: u64| {
        // A sequence of its own, so that the answers stay (Knuth's multiplier).
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((chance >> 33) % limit) as u32
    };
    let name = |row: usize| format!("r{row:02}");
    let id = |group: usize| AgentId::new(&format!("g{group:02}")).unwrap();
    let intentions = (0..groups).map(|group| {
        let mut options: Vec<ActionOption> = (0..items)
            .map(|item| {
                let takes: Vec<u32> = (0..rows).map(|_| below(10)).collect();
                let utility = f64::from(2 * takes.iter().sum::<u32>() + below(12 * rows as u64));
                let demands = takes.iter().enumerate().map(|(row, &amount)| (name(row), f64::from(amount))).collect();
                ActionOption { utility, demands, ..option(item, &((0, 0), None, None, 0)) }
            })
            .collect();
        if each < 5.0 {
            let nothing = option(items, &((0, 0), None, None, 0));
            options.push(ActionOption { demands: [].into(), ..nothing });
        }
        options.sort_by(|a, b| b.utility.total_cmp(&a.utility));
        let agent_id = id(group);
        Arc::new(Intention { agent_id, seq: 1, valid_until_cycle: None, disagreement: None, options })
    });
    Problem::new(ProblemDocument {
        intentions: intentions.collect(),
        resources: (0..rows).map(|row| resource(name(row), each * groups as f64)).collect(),
        agents: (0..groups).map(|group| Arc::new(Agent::new(id(group)))).collect(),
        ..serde_json::from_str(r#"{"agents": []}"#).unwrap()
    })
    .unwrap()
}

#[test]
fn instances_of_the_published_kind_are_solved_exactly() {
    // Depth first, these were proven as well.
    for (seed, best) in [(2, 4011.0), (3, 4061.0), (4, 4033.0), (5, 4019.0)] {
        let problem = published_kind(seed, (20, 10, 10));
        let solution = solve(&Scope::whole(&problem), None, &Budget::default());
        assert_eq!((solution.value, solution.bound, solution.optimal), (best, best, true), "seed {seed}");
    }
}

#[test]
fn lists_find_what_a_tree_finds_and_bound_what_they_leave_out() {
    let budget = Budget::default();
    let (mut capped, mut infeasible) = (0, 0);
    for seed in 0..300 {
        let size = (4 + seed as usize % 5, 3 + seed as usize % 4, 1 + seed as usize % 12);
        let problem = published_kind(seed, size);
        let model = Model::of(&Scope::whole(&problem));
        let dual = prices::find(&model, 100_000, &budget);
        let gains = repair::gains(&model, &dual.prices);
        let guide = Guide { prices: &dual.prices, gains: &gains, quantum: 0.0 };
        let groups: Vec<u32> = (0..model.groups() as u32).collect();
        let Some(rounded) = repair::round(&model, &gains, &mut 0, &budget) else {
            infeasible += 1;
            continue;
        };
        let (mut tree, mut lists) = (rounded.clone(), rounded.clone());
        let proof = Search::default().window(&mut tree, &groups, &guide, u64::MAX, &budget);
        let found = Join::default().window(&mut lists, &groups, &guide, (1 << 16, u64::MAX), &budget);
        assert!(proof.complete && found.complete, "seed {seed}: {found:?}");
        assert!((tree.value() - lists.value()).abs() < 1e-9, "seed {seed}: {} of {}", lists.value(), tree.value());
        assert!(lists.is_feasible(), "seed {seed}");
        for (size, limit) in [(3, u64::MAX), (20, u64::MAX), (1 << 16, 40)] {
            let mut short = rounded.clone();
            let told = Join::default().window(&mut short, &groups, &guide, (size, limit), &budget);
            assert!(told.bound >= tree.value() - 1e-9, "seed {seed}, lists of {size}: {told:?} of {}", tree.value());
            assert!(short.is_feasible() && short.value() >= rounded.value(), "seed {seed}, lists of {size}");
            assert!(!told.complete || (short.value() - tree.value()).abs() < 1e-9, "seed {seed}, lists of {size}");
            capped += usize::from(!told.complete);
        }
    }
    assert!(capped > 100 && infeasible < 100, "{capped} lists were cut off, {infeasible} problems had no beginning");
}

/// The best of all choices that differ from a state in two groups at most.
fn best_of_two_changes(state: &State<'_>) -> f64 {
    let model = state.model;
    let moves = || (0..model.groups()).flat_map(|group| model.columns(group).map(move |column| (group, column)));
    let mut best = state.value();
    for one in moves() {
        for other in moves().filter(|other| other.0 > one.0) {
            let mut changed = state.clone();
            for (group, column) in [one, other] {
                let _ = changed.lift(group);
                changed.put(group, column);
            }
            if changed.value() > best && changed.is_feasible() {
                best = changed.value();
            }
        }
    }
    best
}

#[test]
fn where_exchanges_end_no_two_changes_are_better() {
    let (budget, mut better) = (Budget::default(), 0);
    for seed in 0..12 {
        let problem = published_kind(seed, (16, 4, 2 + 3 * seed as usize));
        let model = Model::of(&Scope::whole(&problem));
        let dual = prices::find(&model, 100_000, &budget);
        let gains = repair::gains(&model, &dual.prices);
        let guide = Guide { prices: &dual.prices, gains: &gains, quantum: 0.0 };
        let Some(start) = repair::round(&model, &gains, &mut 0, &budget) else { continue };
        let mut state = start.clone();
        exchange::improve(&mut state, &guide, u64::MAX, &budget);
        assert!(state.is_feasible(), "seed {seed}");
        assert!(best_of_two_changes(&state) <= state.value() + 1e-6, "seed {seed}");
        better += usize::from(state.value() > best_of_two_changes(&start) + 1e-6);
    }
    assert!(better > 2, "{better} of 12 came further than two changes lead");
}

#[test]
fn dives_end_where_all_fits_and_mostly_above_what_rounding_finds() {
    let (budget, mut better) = (Budget::default(), 0);
    for seed in 0..10 {
        let problem = kind(seed, (150, 4, 26), 2.5);
        let model = Model::of(&Scope::whole(&problem));
        let dual = prices::find(&model, 400_000, &budget);
        let gains = repair::gains(&model, &dual.prices);
        let guide = Guide { prices: &dual.prices, gains: &gains, quantum: 0.0 };
        let Some(mut rounded) = repair::round(&model, &gains, &mut 0, &budget) else { continue };
        repair::fill(&mut rounded, &gains, &mut 0);
        let ends: Vec<State<'_>> = (0..8).filter_map(|number| dive(&model, &guide, number, &mut 0, &budget)).collect();
        assert!(ends.iter().all(State::is_feasible), "seed {seed}");
        let worth = ends.iter().map(State::value).fold(0.0, f64::max);
        assert!(worth <= dual.bound * (1.0 + 1e-9), "seed {seed}: {worth} of at most {}", dual.bound);
        better += usize::from(worth > rounded.value());
        let given_up = Budget::default();
        given_up.end();
        assert!(dive(&model, &guide, 0, &mut 0, &given_up).is_none());
    }
    assert!(better > 6, "{better} of 10 problems");
}

#[test]
fn of_many_groups_under_few_rows_next_to_nothing_is_lost() {
    // Prices that have not settled cost these ten times as much.
    for seed in [1, 3] {
        let problem = kind(seed, (3000, 3, 10), 2.5);
        let solution = solve(&Scope::whole(&problem), None, &Budget::default());
        let lost = (solution.bound - solution.value) / solution.bound;
        assert!(lost < 2e-4, "seed {seed}: {lost}");
    }
}
