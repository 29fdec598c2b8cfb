//! The weighted Nash bargaining solution.

use coredinator_core::coordination::{Budget, Draft, Party, Pick, Presence, Problem, Resolution, Shape, by_priority};

use super::{
    super::{
        refine::{adopt, divide_anew, improve},
        shares::Curve,
    },
    spread::Spread,
};
use crate::solver::{Scope, solve};

/// A gain this small beside the largest that the party could hope for is none.
const NO_GAIN: f64 = 1e-12;
/// Sums of logarithms are compared in steps of this, a power of two: so what is the same but for rounding is the same.
const GRAIN: f64 = 1.0 / (1 << 24) as f64;

/// What a party can hope for, and what it has without an agreement.
#[derive(Debug, Clone, Copy)]
struct Stake {
    weight: f64,
    /// What being denied is worth to it.
    threat: f64,
    /// The largest gain over that, by its own account; 0 or less: it cannot gain.
    hope: f64,
    /// The largest loss.
    fear: f64,
}

impl Stake {
    fn of(problem: &Problem, party: &Party) -> Self {
        let candidates = problem.candidates();
        let fallback = party.fallback().filter(|&fallback| candidates[fallback].possible);
        let threat = match (fallback, &party.intention) {
            (Some(fallback), _) => candidates[fallback].utility,
            (None, Some(intention)) => intention.disagreement.unwrap_or(0.0),
            (None, None) => 0.0,
        };
        let gains = party.options().filter(|&option| candidates[option].possible);
        let gains: Vec<f64> = gains.map(|option| candidates[option].utility - threat).collect();
        let hope = gains.iter().copied().fold(0.0, f64::max);
        let fear = gains.iter().copied().fold(0.0, |fear: f64, gain| fear.max(-gain));
        Self { weight: party.agent.weight, threat, hope, fear }
    }

    /// The share of what it could hope for that a utility is; `None`: no gain.
    fn share(&self, utility: f64) -> Option<f64> {
        let share = (utility - self.threat) / self.hope;
        (self.hope > 0.0 && share > NO_GAIN).then_some(share)
    }

    /// The smallest fraction of an option of this utility and shape with which it gains anything to speak of.
    fn least(&self, utility: f64, shape: Shape, min_fraction: f64) -> f64 {
        let part = self.threat / utility;
        if !(part > 0.0 && part < 1.0) {
            return if part >= 1.0 { 1.0 } else { min_fraction };
        }
        let even = match shape {
            Shape::Linear => part,
            Shape::Quadratic => 1.0 - (1.0 - part).sqrt(),
            Shape::Log => part.exp2() - 1.0,
        };
        (even + 1e-6 * (1.0 - even)).max(min_fraction)
    }
}

/// The plan in which nobody has less than without an agreement, as far as that is possible; as many as possible gain; and
/// the weighted product of the gains is largest.
pub(super) fn bargain(problem: &Problem, budget: &Budget) -> Option<Resolution> {
    let stakes: Vec<Stake> = problem.parties().iter().map(|party| Stake::of(problem, party)).collect();
    let least = |candidate: usize| {
        let of = &problem.candidates()[candidate];
        let least = of.elastic.map(|elastic| stakes[of.party].least(of.utility, elastic.shape, elastic.min_fraction));
        least.unwrap_or(1.0)
    };
    let spread = Spread::new(problem, least)?;
    let mut scope = Scope::whole(&spread.problem);
    let worth = worth(&spread.problem, &stakes);
    worth.iter().enumerate().for_each(|(candidate, &worth)| scope.revalue(candidate, worth));
    let solution = solve(&scope, budget.iterations(), budget);
    let original = |&(party, pick): &(usize, Pick)| match pick {
        Pick::Option { candidate, .. } => {
            let (candidate, fraction) = spread.origin[candidate];
            (party, Pick::Option { candidate, fraction })
        }
        other => (party, other),
    };
    let picks: Vec<(usize, Pick)> = solution.picks.iter().map(original).collect();
    let order = by_priority(problem);
    let mut draft = adopt(problem, &picks);
    let mut divided = false;
    if !budget.is_over() {
        let curve = |candidate: usize| {
            let of = &problem.candidates()[candidate];
            let (elastic, stake) = (of.elastic?, &stakes[of.party]);
            let curve =
                Curve { weight: stake.weight, utility: of.utility, shape: elastic.shape, above: Some(stake.threat) };
            let least = least(candidate);
            let gains = stake.share(of.utility_at(least)).is_some();
            gains.then_some((curve, least))
        };
        if let Some((better, _)) = divide_anew(&draft, &order, curve)
            && product(&better, &stakes) >= product(&draft, &stakes)
        {
            draft = better;
            divided = true;
        }
    }
    improve(&mut draft, &order);
    let optimal = if matches!(spread.problem, std::borrow::Cow::Borrowed(_)) {
        solution.optimal
    } else {
        divided && is_convex(problem, &draft, &stakes)
    };
    let cut_short = solution.cut_short || budget.is_over();
    Some(Resolution { optimal: optimal && !cut_short, cut_short, rounds: 1, ..draft.finish() })
}

/// What each candidate is worth in a sum that is largest where first the fewest lose, then the most gain, then the weighted
/// product of the gains is largest. A gain counts as a share of what its party could hope for, so that it does not matter
/// in which unit anyone reckons, not even where the same number could gain in different ways.
fn worth(problem: &Problem, stakes: &[Stake]) -> Vec<f64> {
    let candidates = problem.candidates();
    let logarithm = |candidate: usize| {
        let of = &candidates[candidate];
        let stake = &stakes[of.party];
        let share = stake.share(of.utility).filter(|_| of.possible)?;
        Some((stake.weight * share.ln() / GRAIN).round() * GRAIN)
    };
    let spans = problem.parties().iter().map(|party| {
        let lowest = party.options().filter_map(logarithm).fold(0.0, f64::min);
        -lowest
    });
    // More than all logarithms together: one more that gains outweighs them. And one that loses outweighs all that gain.
    let gains = 1.0 + spans.sum::<f64>().ceil();
    let loses = gains * (problem.parties().len() + 1) as f64;
    let worth = |(at, of): (usize, &coredinator_core::coordination::Candidate)| {
        let party = &problem.parties()[of.party];
        let stake = &stakes[of.party];
        if party.presence != Presence::Active || party.fallback() == Some(at) {
            return 0.0;
        }
        match logarithm(at) {
            Some(logarithm) => gains + logarithm,
            None if of.utility - stake.threat < -NO_GAIN * stake.fear.max(stake.hope) => {
                -loses - (stake.threat - of.utility) / stake.fear.max(f64::MIN_POSITIVE)
            }
            None => 0.0,
        }
    };
    candidates.iter().enumerate().map(worth).collect()
}

/// The weighted sum of the logarithms of all gains.
fn product(draft: &Draft<'_>, stakes: &[Stake]) -> f64 {
    let problem = draft.problem();
    let share = |(party, stake): (usize, &Stake)| match draft.pick(party) {
        Pick::Option { candidate, fraction } => {
            let share = stake.share(problem.candidates()[candidate].utility_at(fraction))?;
            Some(stake.weight * share.ln())
        }
        _ => None,
    };
    stakes.iter().enumerate().filter_map(share).sum()
}

/// Whether all gain by the one thing that each could have at all: then only the fractions were to be chosen, and the best
/// of these is the best there is.
fn is_convex(problem: &Problem, draft: &Draft<'_>, stakes: &[Stake]) -> bool {
    problem.parties().iter().zip(stakes).enumerate().all(|(at, (party, stake))| {
        let possible = party.options().filter(|&option| problem.candidates()[option].possible).count();
        let gains = match draft.pick(at) {
            Pick::Option { candidate, fraction } => {
                stake.share(problem.candidates()[candidate].utility_at(fraction)).is_some()
            }
            _ => false,
        };
        party.presence != Presence::Active || (possible == 1 && gains)
    })
}
