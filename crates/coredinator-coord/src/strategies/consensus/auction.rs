//! From prices to a plan: an auction by sealed bids.

use std::cmp::Reverse;

use coredinator_core::coordination::{Draft, Pick, Presence, Problem};

/// Everyone bids for each of its options what that is worth to it beyond its fallback (weight times utility), less what it
/// costs at `prices`; the highest bid that still fits wins, then the next, until nobody is left who can have anything.
/// Ties: the higher priority, then the name, then the order of the options.
///
/// For single tasks with prices of 0 this is what the consensus-based bundle algorithm ends in (Choi, Brunet, How 2009):
/// greedy, and worth at least half of the optimum there.
///
/// Whoever wins gets of what is elastic the fraction that `portion` says, or what is left of it; it bids for the `wanted`.
pub(super) fn auction<'p>(
    problem: &'p Problem,
    prices: &[f64],
    wanted: impl Fn(usize) -> f64,
    portion: impl Fn(usize) -> f64,
) -> Draft<'p> {
    let mut draft = Draft::new(problem);
    let mut bids: Vec<(f64, usize)> = Vec::new();
    for party in problem.parties().iter().filter(|party| party.presence == Presence::Active) {
        let bid = |candidate: usize, fraction: f64| {
            let demands = problem.demands(candidate).iter();
            let cost: f64 = demands.map(|demand| demand.amount * prices[demand.resource]).sum();
            party.agent.weight * problem.candidates()[candidate].utility_at(fraction) - cost * fraction
        };
        let denied = match party.fallback() {
            Some(fallback) => bid(fallback, 1.0),
            None => party.options().map(|option| bid(option, wanted(option))).fold(f64::INFINITY, f64::min),
        };
        let options = party.options().filter(|&option| problem.candidates()[option].possible);
        bids.extend(options.map(|option| (bid(option, wanted(option)) - denied, option)));
    }
    let rank = |candidate: usize| {
        let party = problem.candidates()[candidate].party;
        (Reverse(problem.parties()[party].agent.priority), candidate)
    };
    bids.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| rank(a.1).cmp(&rank(b.1))));
    let mut served = vec![false; problem.parties().len()];
    for (bid, candidate) in bids {
        let of = &problem.candidates()[candidate];
        // What is worth its price but for rounding is let in: how much of it is for the division to say.
        let rounding = 1e-6 * problem.parties()[of.party].agent.weight * of.utility.abs();
        if bid < -rounding && problem.parties()[of.party].fallback().is_some() {
            continue;
        }
        if !served[of.party]
            && let Some(largest) = draft.largest_fraction(candidate)
        {
            let fraction = largest.min(portion(candidate)).max(of.min_fraction());
            served[of.party] = draft.set(of.party, Pick::Option { candidate, fraction });
        }
    }
    draft
}
