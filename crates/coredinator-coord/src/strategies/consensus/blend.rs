//! Agreement on a shared value by the alternating direction method of multipliers.

use std::collections::BTreeMap;

use coredinator_core::coordination::{OnConflict, PlacedClaim, Problem, Resolution};

/// How far, relative to the values at hand, proposals may be apart that count as the same.
const AGREED: f64 = 1e-7;

/// What became of all shared values.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// The value of each variable on which there is one, by its place.
    pub(super) values: BTreeMap<usize, f64>,
    /// The most rounds that any of them took.
    pub(super) rounds: u32,
    /// Whether there is one on all of them.
    pub(super) complete: bool,
}

/// Lets all that claim a blend variable in a plan agree on its value, in so many rounds at most.
pub(super) fn agree(problem: &Problem, resolution: &Resolution, rounds: u32) -> Agreement {
    let mut claims: BTreeMap<usize, Vec<(f64, PlacedClaim)>> = BTreeMap::new();
    for (party, of) in problem.parties().iter().enumerate() {
        let Some((candidate, _)) = resolution.chosen(problem, party) else { continue };
        for claim in problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            let blends = problem.variables()[claim.variable].on_conflict == OnConflict::Blend;
            if blends && problem.fixed()[claim.variable].is_none() {
                let value = problem.wish(candidate, claim);
                let claim = PlacedClaim { value, ..*claim };
                claims.entry(claim.variable).or_default().push((of.agent.weight * claim.weight, claim));
            }
        }
    }
    let mut agreement = Agreement { complete: true, ..Agreement::default() };
    for (variable, claims) in claims {
        let (value, taken) = shared_value(&claims, problem.ranges()[variable], rounds);
        agreement.rounds = agreement.rounds.max(taken);
        match value {
            Some(value) => drop(agreement.values.insert(variable, value)),
            None => agreement.complete = false,
        }
    }
    agreement
}

/// Each claimant proposes what lies midway between what it wants and the last shared value, as corrected by how far it has
/// given way so far; the shared value is the weighted mean of the proposals within `range` and everyone's bounds. With the
/// weights as penalties the disagreement halves with each round.
///
/// Returns the value, if they agree, and how many rounds it took.
fn shared_value(claims: &[(f64, PlacedClaim)], range: (f64, f64), rounds: u32) -> (Option<f64>, u32) {
    let (low, high) =
        claims.iter().fold(range, |common, (_, claim)| (common.0.max(claim.bounds.0), common.1.min(claim.bounds.1)));
    let total: f64 = claims.iter().map(|(weight, _)| weight).sum();
    if low > high || total <= 0.0 {
        return (None, 0);
    }
    let mean = |values: &[f64]| -> f64 {
        let sum: f64 = claims.iter().zip(values).map(|((weight, _), value)| weight * value).sum();
        (sum / total).clamp(low, high)
    };
    let wishes: Vec<f64> = claims.iter().map(|(_, claim)| claim.value).collect();
    let near = AGREED * (1.0 + wishes.iter().copied().map(f64::abs).fold(low.abs().max(high.abs()), f64::max));
    let mut shared = mean(&wishes);
    let mut given = vec![0.0; claims.len()];
    for round in 1..=rounds {
        let corrected: Vec<f64> =
            wishes.iter().zip(&given).map(|(wish, given)| f64::midpoint(wish + given, shared)).collect();
        let before = shared;
        shared = mean(&corrected);
        let mut apart: f64 = 0.0;
        for (given, corrected) in given.iter_mut().zip(corrected) {
            apart = apart.max((corrected - *given - shared).abs());
            *given = corrected - shared;
        }
        if apart <= near && (shared - before).abs() <= near {
            return (Some(shared), round);
        }
    }
    (None, rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(weight: f64, value: f64, bounds: (f64, f64)) -> (f64, PlacedClaim) {
        (weight, PlacedClaim { variable: 0, value, weight, bounds, agrees: (value, value), soft: false })
    }

    const FREE: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

    #[test]
    fn the_weighted_mean_within_all_limits() {
        let cases = [
            (vec![claim(1.0, 60.0, FREE), claim(3.0, 80.0, FREE)], (0.0, 100.0), 75.0),
            (vec![claim(1.0, 60.0, FREE), claim(3.0, 80.0, FREE)], (0.0, 70.0), 70.0),
            (vec![claim(1.0, 60.0, FREE), claim(3.0, 80.0, (0.0, 70.0))], (0.0, 100.0), 70.0),
            (vec![claim(1.0, 60.0, (0.0, 70.0)), claim(3.0, 80.0, FREE)], (0.0, 100.0), 70.0),
            (vec![claim(1.0, 10.0, FREE), claim(1.0, 20.0, (18.0, 30.0))], (0.0, 100.0), 18.0),
            (vec![claim(2.0, 7.0, FREE)], (0.0, 100.0), 7.0),
        ];
        for (claims, range, expected) in cases {
            let (value, rounds) = shared_value(&claims, range, 50);
            assert!((value.unwrap() - expected).abs() < 1e-5, "{claims:?}: {value:?} after {rounds}");
        }
    }

    #[test]
    fn disagreement_halves_with_each_round() {
        let claims = [claim(1.0, 60.0, FREE), claim(3.0, 80.0, FREE), claim(0.5, -3.0, FREE)];
        let (value, rounds) = shared_value(&claims, (0.0, 100.0), 50);
        assert!(value.is_some() && rounds < 30, "{rounds}");
        assert_eq!(shared_value(&claims, (0.0, 100.0), 3), (None, 3));
    }

    #[test]
    fn bounds_that_contradict_each_other_leave_none() {
        let claims = [claim(1.0, 10.0, (0.0, 20.0)), claim(1.0, 80.0, (70.0, 90.0))];
        assert_eq!(shared_value(&claims, (0.0, 100.0), 50), (None, 0));
    }
}
