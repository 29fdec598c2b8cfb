//! What the coordinator makes of the intentions as they stand: prices, then a plan.

use coredinator_core::coordination::{Budget, Draft, Pick, Presence, Problem, Resolution, by_priority};

use super::{
    super::{
        refine::{divide_anew, improve},
        shares::Curve,
    },
    auction::auction,
    blend,
    market::Market,
};

/// Prices are at rest when none moves by more than this, relative to itself.
const AT_REST: f64 = 1e-10;
/// A plan this near to its bound is the best there is but for rounding.
const EXACT: f64 = 1e-9;
/// As near as this everyone is content.
const CONTENT: f64 = 1e-6;

/// Finds prices in at most so many rounds, from some prices on, and a plan for them.
pub(super) fn settle(problem: &Problem, budget: &Budget, rounds: u32, prices: Option<&[f64]>) -> Resolution {
    let mut market = Market::new(problem, prices);
    let mut lowest = Lowest::of(&market);
    let mut taken = 0;
    let mut stuck = 0;
    while taken < rounds && stuck < 2 && !budget.is_over() {
        let change = market.round(budget);
        taken += 1;
        stuck = if lowest.note(&market) { 0 } else { stuck + 1 };
        if change <= AT_REST {
            break;
        }
    }
    market.set(&lowest.prices);
    let mut plan = repair(&mut market, &mut lowest, problem, budget);
    let is_done =
        |lowest: &Lowest, plan: &Resolution| budget.is_over() || is_near(lowest.bound, plan.objective(problem), EXACT);
    if market.is_coupled() && !is_done(&lowest, &plan) {
        let (mut relaxation, mut idle) = (1.0, 0);
        while taken < rounds && !is_done(&lowest, &plan) {
            market.step(plan.objective(problem), relaxation);
            taken += 1;
            idle = if lowest.note(&market) { 0 } else { idle + 1 };
            if idle == 3 {
                (relaxation, idle) = (relaxation / 2.0, 0);
                market.set(&lowest.prices);
            }
        }
        market.set(&lowest.prices);
        if !is_done(&lowest, &plan) {
            let again = repair(&mut market, &mut lowest, problem, budget);
            plan = better(problem, plan, again);
        }
    }
    let objective = plan.objective(problem);
    let agreement = blend::agree(problem, &plan, rounds);
    plan.values = agreement.values;
    plan.rounds = taken.max(agreement.rounds);
    plan.converged =
        agreement.complete && is_near(lowest.bound, objective, CONTENT) && is_content(&market, problem, &plan);
    plan.cut_short = budget.is_over();
    if shed(problem, &plan) == 0 {
        plan.bound = Some(lowest.bound.max(objective));
        plan.optimal = is_near(lowest.bound, objective, EXACT);
    }
    plan.prices = Some(lowest.prices);
    plan
}

/// The prices with the lowest dual so far.
struct Lowest {
    bound: f64,
    prices: Vec<f64>,
}

impl Lowest {
    fn of(market: &Market<'_>) -> Self {
        Self { bound: market.bound(), prices: market.prices().to_vec() }
    }

    /// Whether the market's is notably lower.
    fn note(&mut self, market: &Market<'_>) -> bool {
        let bound = market.bound();
        let lower = bound < self.bound - 1e-12 * self.bound.abs();
        if bound <= self.bound {
            self.bound = bound;
            self.prices.copy_from_slice(market.prices());
        }
        lower
    }
}

fn is_near(bound: f64, objective: f64, share: f64) -> bool {
    bound - objective <= share * bound.abs().max(objective.abs())
}

/// How many are left without anything that should have something.
pub(super) fn shed(problem: &Problem, plan: &Resolution) -> usize {
    let is_shed = |(party, pick): (&coredinator_core::coordination::Party, &Pick)| {
        *pick == Pick::Nothing && (party.presence == Presence::Active || party.fallback().is_some())
    };
    problem.parties().iter().zip(&plan.picks).filter(|&pair| is_shed(pair)).count()
}

/// The one that leaves fewer with nothing, or is worth more.
fn better(problem: &Problem, one: Resolution, other: Resolution) -> Resolution {
    let (sheds, sheds_other) = (shed(problem, &one), shed(problem, &other));
    let wins = sheds_other < sheds || (sheds_other == sheds && other.objective(problem) > one.objective(problem));
    if wins { other } else { one }
}

/// A plan near what everyone would choose at the market's prices; where dividing what is elastic finds prices at which the
/// dual is lower, the market gets these.
fn repair(market: &mut Market<'_>, lowest: &mut Lowest, problem: &Problem, budget: &Budget) -> Resolution {
    let order = by_priority(problem);
    let mut found = Vec::new();
    let mut finish = |mut draft: Draft<'_>| {
        if !budget.is_over() {
            found.extend(polish(&mut draft, &order));
        }
        let before = value(&draft);
        improve(&mut draft, &order);
        if value(&draft) > before && !budget.is_over() {
            found.extend(polish(&mut draft, &order));
        }
        drop_trifles(&mut draft, &order);
        draft.finish()
    };
    let best = |candidate: usize| market.best_fraction(candidate);
    let mut plan = finish(auction(problem, market.prices(), best, best));
    if !budget.is_over() && !is_near(lowest.bound, plan.objective(problem), EXACT) {
        // Of what is elastic everyone gets a little at first, so that the division is among all of them.
        let least = |candidate: usize| problem.candidates()[candidate].min_fraction();
        let free = vec![0.0; problem.resources().len()];
        plan = better(problem, plan, finish(auction(problem, &free, |_| 1.0, least)));
    }
    for prices in found {
        market.set(&prices);
        lowest.note(market);
    }
    market.set(&lowest.prices);
    plan
}

fn value(draft: &Draft<'_>) -> f64 {
    draft.clone().finish().objective(draft.problem())
}

/// Divides anew among all that is elastic, everyone keeping its option, if that is worth more; and the prices of that.
fn polish(draft: &mut Draft<'_>, order: &[usize]) -> Option<Vec<f64>> {
    let problem = draft.problem();
    let curve = |candidate: usize| {
        let of = &problem.candidates()[candidate];
        let elastic = of.elastic.filter(|_| of.utility > 0.0)?;
        let weight = problem.parties()[of.party].agent.weight;
        Some((Curve { weight, utility: of.utility, shape: elastic.shape, above: None }, elastic.min_fraction))
    };
    let (polished, prices) = divide_anew(draft, order, curve)?;
    if value(&polished) > value(draft) {
        *draft = polished;
    }
    Some(prices)
}

/// Gives those their fallback to whom the least fraction of an option is not worth anything more.
fn drop_trifles(draft: &mut Draft<'_>, order: &[usize]) {
    let problem = draft.problem();
    for &party in order {
        let of = &problem.parties()[party];
        if let (Pick::Option { candidate, fraction }, Some(fallback)) = (draft.pick(party), of.fallback()) {
            let candidates = problem.candidates();
            let gain = candidates[candidate].utility_at(fraction) - candidates[fallback].utility;
            if fraction < 1.0 && gain <= 1e-8 * candidates[candidate].utility {
                draft.set(party, Pick::Fallback);
            }
        }
    }
}

/// Whether nobody would choose another option than it gets. An elastic one that is not worth having is the same as none.
fn is_content(market: &Market<'_>, problem: &Problem, plan: &Resolution) -> bool {
    let elastic = |candidate: usize| problem.candidates()[candidate].elastic.is_some();
    let content = |party: usize| match (market.respond(party), plan.chosen(problem, party)) {
        (Some(wanted), Some((candidate, _))) => {
            wanted.candidate == candidate || elastic(wanted.candidate) || elastic(candidate)
        }
        (wanted, chosen) => wanted.is_none() && chosen.is_none(),
    };
    (0..problem.parties().len()).all(content)
}
