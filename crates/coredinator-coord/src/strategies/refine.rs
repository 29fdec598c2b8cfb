//! Making more of choices that are within the limits.

use coredinator_core::coordination::{Draft, Pick, Presence, Problem};

use super::shares::{Curve, Share, divide};

/// How many times everyone is gone through for something better.
const MAX_PASSES: usize = 8;

/// What is left of something beside the least of all, as a share of it, if that is nothing but rounding.
const NO_ROOM: f64 = 1e-8;

/// A draft with these choices, and nothing for others, as far as they fit together (which those of a solution do), rounding included.
pub(super) fn adopt<'p>(problem: &'p Problem, picks: &[(usize, Pick)]) -> Draft<'p> {
    let mut draft = Draft::bare(problem);
    for &(party, pick) in picks {
        let pick = match pick {
            Pick::Option { candidate, fraction } => {
                let fraction = draft.largest_fraction(candidate).map_or(fraction, |largest| fraction.min(largest));
                Pick::Option { candidate, fraction }
            }
            other => other,
        };
        draft.set(party, pick);
    }
    draft
}

/// Moves parties in some order to whatever of their own is worth more to them and fits, until nobody can be moved alone.
pub(super) fn improve(draft: &mut Draft<'_>, order: &[usize]) {
    for _ in 0..MAX_PASSES {
        let moved = order.iter().filter(|&&party| better(draft, party)).count();
        if moved == 0 {
            break;
        }
    }
}

fn better(draft: &mut Draft<'_>, party: usize) -> bool {
    let problem = draft.problem();
    let of = &problem.parties()[party];
    if of.presence != Presence::Active {
        return false;
    }
    let now = match draft.pick(party) {
        Pick::Option { candidate, fraction } => problem.candidates()[candidate].utility_at(fraction),
        Pick::Fallback => of.fallback().map_or(0.0, |fallback| problem.candidates()[fallback].utility),
        Pick::Held | Pick::Nothing => f64::NEG_INFINITY,
    };
    let margin = now + 1e-12 * now.abs();
    let mut best = (margin, None);
    for candidate in of.options() {
        let wanted = &problem.candidates()[candidate];
        if wanted.utility > best.0
            && let Some(fraction) = draft.largest_fraction(candidate)
            && wanted.utility_at(fraction) > best.0
        {
            best = (wanted.utility_at(fraction), Some(Pick::Option { candidate, fraction }));
        }
    }
    if let Some(fallback) = of.fallback()
        && problem.candidates()[fallback].utility > best.0
    {
        best.1 = Some(Pick::Fallback);
    }
    best.1.is_some_and(|pick| draft.set(party, pick))
}

/// Divides anew among all that is elastic, everyone keeping its option: with the curve and the least fraction that `curve`
/// says for a candidate (`None`: it stays as it is). The draft with that, and what a unit more of each resource would be
/// worth. `None`: nothing is to be divided, or it could not be.
pub(super) fn divide_anew<'p>(
    draft: &Draft<'p>,
    order: &[usize],
    curve: impl Fn(usize) -> Option<(Curve, f64)>,
) -> Option<(Draft<'p>, Vec<f64>)> {
    let problem = draft.problem();
    let mut left = draft.left().to_vec();
    let (mut grants, mut shares) = (Vec::new(), Vec::new());
    for &party in order {
        let Pick::Option { candidate, fraction } = draft.pick(party) else { continue };
        let Some((curve, least)) = curve(candidate).filter(|&(_, least)| least < 1.0) else { continue };
        let mut takes = Vec::new();
        for demand in problem.demands(candidate) {
            left[demand.resource] += demand.amount * fraction;
            takes.push((demand.resource, demand.amount));
        }
        grants.push((party, candidate));
        shares.push(Share { curve, least, takes });
    }
    if grants.is_empty() {
        return None;
    }
    let mut divided = draft.clone();
    for (&(party, candidate), share) in grants.iter().zip(&shares) {
        divided.set(party, Pick::Option { candidate, fraction: share.least });
    }
    // Where the least of all is all there is, nothing is left to divide among those who need it.
    let mut room = left.clone();
    for share in &shares {
        share.takes.iter().for_each(|&(row, amount)| room[row] -= amount * share.least);
    }
    let stuck = |share: &Share| share.takes.iter().any(|&(row, _)| room[row] <= NO_ROOM * left[row]);
    let stuck: Vec<bool> = shares.iter().map(stuck).collect();
    for (share, _) in shares.iter().zip(&stuck).filter(|&(_, &stuck)| stuck) {
        share.takes.iter().for_each(|&(row, amount)| left[row] -= amount * share.least);
    }
    let open = grants.into_iter().zip(shares).zip(stuck).filter(|&(_, stuck)| !stuck);
    let (grants, shares): (Vec<_>, Vec<_>) = open.map(|(of, _)| of).unzip();
    let division = divide(&shares, &left)?;
    for ((&(party, candidate), share), fraction) in grants.iter().zip(&shares).zip(division.fractions) {
        let whole = if fraction > 1.0 - 1e-7 { 1.0 } else { fraction };
        let fraction = divided.largest_fraction(candidate).map_or(share.least, |largest| whole.min(largest));
        divided.set(party, Pick::Option { candidate, fraction: fraction.max(share.least) });
    }
    Some((divided, division.prices))
}

/// Divides what is left, and what elastic options of `order` have, among these in the fractions that are worth most together,
/// everyone keeping its option; `value` says what a candidate is worth in full. What was picked stays, where that is worth no
/// more.
pub(super) fn make_most(
    problem: &Problem,
    picks: &mut [Pick],
    order: &[usize],
    value: impl Fn(usize) -> f64,
) -> Divided {
    let elastic = |pick: Pick| match pick {
        Pick::Option { candidate, .. } => problem.candidates()[candidate].elastic.map(|elastic| (candidate, elastic)),
        _ => None,
    };
    if !order.iter().any(|&party| elastic(picks[party]).is_some()) {
        return Divided { more: 0.0, exact: true };
    }
    let all: Vec<(usize, Pick)> = picks.iter().copied().enumerate().collect();
    let mut draft = adopt(problem, &all);
    let curve = |candidate: usize| {
        let of = &problem.candidates()[candidate];
        let elastic = of.elastic?;
        let curve = Curve { weight: 1.0, utility: value(candidate), shape: elastic.shape, above: None };
        (of.utility > 0.0).then_some((curve, elastic.min_fraction))
    };
    let open = |&party: &usize| {
        elastic(draft.pick(party)).is_some_and(|(candidate, _)| curve(candidate).is_some_and(|(_, least)| least < 1.0))
    };
    let mut exact = !order.iter().any(open);
    if let Some((divided, _)) = divide_anew(&draft, order, curve) {
        (draft, exact) = (divided, true);
    }
    // What is worth most for what it takes is in the prices already; this is for what rounding has left.
    for &party in order {
        if let Pick::Option { candidate, fraction } = draft.pick(party)
            && problem.candidates()[candidate].utility > 0.0
            && let Some(largest) = draft.largest_fraction(candidate).filter(|&largest| largest > fraction)
        {
            draft.set(party, Pick::Option { candidate, fraction: largest });
        }
    }
    let divided: Vec<Pick> = (0..picks.len()).map(|party| draft.pick(party)).collect();
    let worth = |picks: &[Pick]| -> f64 {
        let worth = |pick: &Pick| match *pick {
            Pick::Option { candidate, fraction } => {
                value(candidate) * elastic(*pick).map_or(1.0, |(_, elastic)| elastic.shape.worth(fraction))
            }
            _ => 0.0,
        };
        picks.iter().map(worth).sum()
    };
    // Everyone keeps its option, so that the rest is worth the same.
    let same = divided.iter().zip(picks.iter()).all(|(new, old)| match (new, old) {
        (Pick::Option { candidate: new, .. }, Pick::Option { candidate: old, .. }) => new == old,
        (new, old) => new == old,
    });
    let more = worth(&divided) - worth(picks);
    if !same || more <= 0.0 {
        return Divided { more: 0.0, exact: exact && same };
    }
    picks.copy_from_slice(&divided);
    Divided { more, exact }
}

/// What came of a division.
pub(super) struct Divided {
    /// How much more it is worth.
    pub(super) more: f64,
    /// Whether no other could be worth more, but for rounding.
    pub(super) exact: bool,
}
