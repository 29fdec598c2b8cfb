//! Dividing what there is among elastic grants: an interior-point method for a sum of concave curves under capacities.

use coredinator_core::coordination::Shape;

use crate::union::Union;

/// Rows that hang together and are more than this are not solved: the dense system between them would take too long.
const MAX_ROWS: usize = 300;
/// Newton steps before it is given up; a dozen or two are usual.
const MAX_STEPS: usize = 80;
/// How far from the optimum, relative to the objective's scale, is near enough.
const CLOSE: f64 = 1e-11;

/// What a fraction of a grant is worth: concave and differentiable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Curve {
    /// The factor of everything.
    pub(crate) weight: f64,
    /// The utility in full; at least 0.
    pub(crate) utility: f64,
    /// How the utility grows with the fraction.
    pub(crate) shape: Shape,
    /// Where the logarithm of what the utility is above this is what counts; `None`: the utility itself.
    pub(crate) above: Option<f64>,
}

impl Curve {
    /// First and second derivative at a fraction.
    fn slopes(&self, fraction: f64) -> (f64, f64) {
        let bend = match self.shape {
            Shape::Linear => 0.0,
            Shape::Quadratic => -2.0,
            Shape::Log => -1.0 / ((1.0 + fraction) * (1.0 + fraction) * std::f64::consts::LN_2),
        };
        let (first, second) = (self.utility * self.shape.slope(fraction), self.utility * bend);
        match self.above {
            None => (self.weight * first, self.weight * second),
            Some(threat) => {
                let gain = (self.utility * self.shape.worth(fraction) - threat).max(f64::MIN_POSITIVE);
                let relative = first / gain;
                (self.weight * relative, self.weight * (second / gain - relative * relative))
            }
        }
    }
}

/// Something that is granted in a fraction.
#[derive(Debug, Clone)]
pub(crate) struct Share {
    /// What it is worth.
    pub(crate) curve: Curve,
    /// The smallest fraction; below 1.
    pub(crate) least: f64,
    /// What a whole one takes, by row; each row at most once.
    pub(crate) takes: Vec<(usize, f64)>,
}

/// How something is divided.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Division {
    /// The fraction of each share.
    pub(crate) fractions: Vec<f64>,
    /// What a unit more of each row would be worth.
    pub(crate) prices: Vec<f64>,
}

/// The division that is worth most, where of row r there is `available[r]` (for these shares alone). `None`
/// where not even the least fractions fit with room to spare, where rows hang together in greater numbers than it can take,
/// or where it does not come to rest; never wrong.
pub(crate) fn divide(shares: &[Share], available: &[f64]) -> Option<Division> {
    let mut full = vec![0.0; available.len()];
    shares.iter().flat_map(|share| &share.takes).for_each(|&(row, amount)| full[row] += amount);
    let short = |row: usize| full[row] > available[row];
    let mut division = Division { fractions: vec![1.0; shares.len()], prices: vec![0.0; available.len()] };
    for (rows, members) in components(shares, available.len(), short) {
        if rows.len() > MAX_ROWS {
            return None;
        }
        let place = |row: usize| rows.binary_search(&row).ok();
        let local: Vec<Share> = members
            .iter()
            .map(|&member| {
                let takes = shares[member].takes.iter();
                let takes = takes.filter_map(|&(row, amount)| Some((place(row)?, amount / available[row]))).collect();
                Share { takes, ..shares[member].clone() }
            })
            .collect();
        let solved = Interior::new(&local, rows.len())?.solve()?;
        for (&member, fraction) in members.iter().zip(&solved.fractions) {
            division.fractions[member] = *fraction;
        }
        for (&row, price) in rows.iter().zip(&solved.prices) {
            division.prices[row] = price * solved.scale / available[row];
        }
    }
    Some(division)
}

/// Short rows that hang together by shares, and the shares.
fn components(shares: &[Share], rows: usize, short: impl Fn(usize) -> bool) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut union = Union::new(rows);
    let first = |share: &Share| share.takes.iter().map(|&(row, _)| row).find(|&row| short(row));
    for share in shares {
        let Some(one) = first(share) else { continue };
        for &(row, _) in share.takes.iter().filter(|&&(row, _)| short(row)) {
            union.join(one, row);
        }
    }
    let mut found: std::collections::BTreeMap<usize, (Vec<usize>, Vec<usize>)> = std::collections::BTreeMap::new();
    for (member, share) in shares.iter().enumerate() {
        if let Some(row) = first(share) {
            found.entry(union.name(row)).or_default().1.push(member);
        }
    }
    for row in (0..rows).filter(|&row| short(row)) {
        if let Some((rows, _)) = found.get_mut(&union.name(row)) {
            rows.push(row);
        }
    }
    found.into_values().collect()
}

/// The state of the iteration; every row has a capacity of 1.
struct Interior<'s> {
    shares: &'s [Share],
    fractions: Vec<f64>,
    slack: Vec<f64>,
    prices: Vec<f64>,
    /// Multipliers of the smallest and the largest fraction.
    lower: Vec<f64>,
    upper: Vec<f64>,
    scale: f64,
}

impl<'s> Interior<'s> {
    fn new(shares: &'s [Share], rows: usize) -> Option<Self> {
        let (mut least, mut range) = (vec![0.0; rows], vec![0.0; rows]);
        for share in shares {
            for &(row, amount) in &share.takes {
                least[row] += amount * share.least;
                range[row] += amount * (1.0 - share.least);
            }
        }
        let room = least.iter().zip(&range).map(|(least, range)| (1.0 - least) / range).fold(1.0, f64::min);
        if !(room > 1e-9 && shares.iter().all(|share| share.least < 1.0)) {
            return None;
        }
        let fractions: Vec<f64> = shares.iter().map(|share| share.least + 0.5 * room * (1.0 - share.least)).collect();
        let slopes = shares.iter().zip(&fractions).map(|(share, &at)| share.curve.slopes(at).0);
        let scale = slopes.fold(0.0, f64::max);
        if !(scale > 0.0 && scale.is_finite()) {
            return None;
        }
        let mut this = Self {
            shares,
            slack: vec![0.0; rows],
            prices: vec![0.0; rows],
            lower: Vec::new(),
            upper: Vec::new(),
            fractions,
            scale,
        };
        this.measure();
        let centre = 0.1;
        this.prices = this.slack.iter().map(|slack| centre / slack).collect();
        this.lower = shares.iter().zip(&this.fractions).map(|(share, at)| centre / (at - share.least)).collect();
        this.upper = this.fractions.iter().map(|at| centre / (1.0 - at)).collect();
        Some(this)
    }

    fn measure(&mut self) {
        self.slack.fill(1.0);
        for (share, fraction) in self.shares.iter().zip(&self.fractions) {
            share.takes.iter().for_each(|&(row, amount)| self.slack[row] -= amount * fraction);
        }
    }

    /// The mean product of a limit's distance and its multiplier.
    fn complementarity(&self) -> f64 {
        let rows: f64 = self.slack.iter().zip(&self.prices).map(|(slack, price)| slack * price).sum();
        let edges = |at: usize| {
            let (fraction, least) = (self.fractions[at], self.shares[at].least);
            (fraction - least) * self.lower[at] + (1.0 - fraction) * self.upper[at]
        };
        let edges: f64 = (0..self.shares.len()).map(edges).sum();
        (rows + edges) / (self.slack.len() + 2 * self.shares.len()) as f64
    }

    /// What each share would gain by a larger fraction, less what it would cost: 0 at the optimum.
    fn pull(&self, at: usize) -> f64 {
        let share = &self.shares[at];
        let cost: f64 = share.takes.iter().map(|&(row, amount)| amount * self.prices[row]).sum();
        share.curve.slopes(self.fractions[at]).0 / self.scale - cost
    }

    fn solve(mut self) -> Option<Self> {
        for _ in 0..MAX_STEPS {
            let mean = self.complementarity();
            let off = |at: usize| (self.pull(at) + self.lower[at] - self.upper[at]).abs();
            if mean < CLOSE && (0..self.shares.len()).map(off).fold(0.0, f64::max) < 1e-7 {
                return Some(self);
            }
            self.step(0.15 * mean)?;
        }
        None
    }

    /// A Newton step towards the point where every product is `target`.
    fn step(&mut self, target: f64) -> Option<()> {
        let (shares, rows) = (self.shares, self.slack.len());
        let mut stiffness = Vec::with_capacity(shares.len());
        let mut push = Vec::with_capacity(shares.len());
        let mut system = vec![0.0; rows * rows];
        let mut wanted: Vec<f64> = (0..rows).map(|row| target / self.prices[row] - self.slack[row]).collect();
        for (at, share) in shares.iter().enumerate() {
            let (above, below) = (self.fractions[at] - share.least, 1.0 - self.fractions[at]);
            let bend = -share.curve.slopes(self.fractions[at]).1 / self.scale;
            let stiff = bend + self.lower[at] / above + self.upper[at] / below;
            let towards = self.pull(at) + target / above - target / below;
            for &(row, amount) in &share.takes {
                wanted[row] += amount * towards / stiff;
                share.takes.iter().for_each(|&(other, more)| system[row * rows + other] += amount * more / stiff);
            }
            stiffness.push(stiff);
            push.push(towards);
        }
        for row in 0..rows {
            system[row * rows + row] += self.slack[row] / self.prices[row];
        }
        let dearer = cholesky(&mut system, wanted, rows)?;
        let moves: Vec<f64> = shares
            .iter()
            .enumerate()
            .map(|(at, share)| {
                let cost: f64 = share.takes.iter().map(|&(row, amount)| amount * dearer[row]).sum();
                (push[at] - cost) / stiffness[at]
            })
            .collect();
        let mut filled = vec![0.0; rows];
        for (share, step) in shares.iter().zip(&moves) {
            share.takes.iter().for_each(|&(row, amount)| filled[row] += amount * step);
        }
        let (mut lower, mut upper) = (Vec::with_capacity(shares.len()), Vec::with_capacity(shares.len()));
        for (at, share) in shares.iter().enumerate() {
            let (above, below) = (self.fractions[at] - share.least, 1.0 - self.fractions[at]);
            lower.push((target - self.lower[at] * moves[at]) / above - self.lower[at]);
            upper.push((target + self.upper[at] * moves[at]) / below - self.upper[at]);
        }
        let (mut along, mut across) = (1.0_f64, 1.0_f64);
        let limit = |room: f64, fall: f64| if fall > 0.0 { 0.99 * room / fall } else { f64::INFINITY };
        for (at, share) in shares.iter().enumerate() {
            let fraction = self.fractions[at];
            along = along.min(limit(fraction - share.least, -moves[at])).min(limit(1.0 - fraction, moves[at]));
            across = across.min(limit(self.lower[at], -lower[at])).min(limit(self.upper[at], -upper[at]));
        }
        for row in 0..rows {
            along = along.min(limit(self.slack[row], filled[row]));
            across = across.min(limit(self.prices[row], -dearer[row]));
        }
        for (fraction, step) in self.fractions.iter_mut().zip(&moves) {
            *fraction += along * step;
        }
        let grow = |values: &mut [f64], steps: &[f64]| {
            values.iter_mut().zip(steps).for_each(|(value, step)| *value += across * step);
        };
        grow(&mut self.prices, &dearer);
        grow(&mut self.lower, &lower);
        grow(&mut self.upper, &upper);
        self.measure();
        let inside = |at: usize| self.fractions[at] > shares[at].least && self.fractions[at] < 1.0;
        let sound = self.slack.iter().all(|&slack| slack > 0.0) && (0..shares.len()).all(inside);
        sound.then_some(())
    }
}

/// Solves a symmetric positive definite system, overwriting it. `None`: it is none.
fn cholesky(system: &mut [f64], mut right: Vec<f64>, size: usize) -> Option<Vec<f64>> {
    for column in 0..size {
        for row in column..size {
            let (head, tail) =
                (&system[row * size..row * size + column], &system[column * size..column * size + column]);
            let product: f64 = head.iter().zip(tail).map(|(a, b)| a * b).sum();
            let rest = system[row * size + column] - product;
            if row == column {
                if !(rest > 0.0 && rest.is_finite()) {
                    return None;
                }
                system[row * size + column] = rest.sqrt();
            } else {
                system[row * size + column] = rest / system[column * size + column];
            }
        }
    }
    for row in 0..size {
        let known: f64 = (0..row).map(|column| system[row * size + column] * right[column]).sum();
        right[row] = (right[row] - known) / system[row * size + row];
    }
    for row in (0..size).rev() {
        let known: f64 = (row + 1..size).map(|below| system[below * size + row] * right[below]).sum();
        right[row] = (right[row] - known) / system[row * size + row];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(weight: f64, utility: f64, shape: Shape, above: Option<f64>, takes: &[(usize, f64)]) -> Share {
        Share { curve: Curve { weight, utility, shape, above }, least: 1e-6, takes: takes.to_vec() }
    }

    fn close(found: &[f64], expected: &[f64]) {
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} instead of {expected:?}");
    }

    #[test]
    fn quadratic_curves_meet_at_one_price() {
        let all: Vec<Share> = [10.0, 8.0, 4.0]
            .iter()
            .map(|&b: &f64| share(1.0, b * b / 2.0, Shape::Quadratic, None, &[(0, b)]))
            .collect();
        let found = divide(&all, &[12.0]).unwrap();
        assert!((found.prices[0] - 10.0 / 3.0).abs() < 1e-6, "{found:?}");
        close(&found.fractions, &[(20.0 / 3.0) / 10.0, (14.0 / 3.0) / 8.0, (2.0 / 3.0) / 4.0]);
        close(&divide(&all, &[30.0]).unwrap().fractions, &[1.0, 1.0, 1.0]);
    }

    #[test]
    fn the_product_of_gains_splits_what_is_shared() {
        let pair = |threat: f64| {
            vec![
                share(1.0, 12.0, Shape::Linear, Some(threat), &[(0, 12.0)]),
                share(1.0, 24.0, Shape::Linear, Some(0.0), &[(0, 12.0)]),
            ]
        };
        close(&divide(&pair(0.0), &[12.0]).unwrap().fractions, &[0.5, 0.5]);
        let mut other = pair(2.0);
        other[0].least = 2.0 / 12.0;
        close(&divide(&other, &[12.0]).unwrap().fractions, &[7.0 / 12.0, 5.0 / 12.0]);
    }

    #[test]
    fn linear_curves_end_in_a_corner() {
        // max 3a + 2b + c with a + b <= 1, b + c <= 1: a = c = 1.
        let all = [
            share(1.0, 3.0, Shape::Linear, None, &[(0, 1.0)]),
            share(1.0, 2.0, Shape::Linear, None, &[(0, 1.0), (1, 1.0)]),
            share(1.0, 1.0, Shape::Linear, None, &[(1, 1.5)]),
        ];
        close(&divide(&all, &[1.0, 1.5]).unwrap().fractions, &[1.0, 0.0, 1.0]);
    }

    #[test]
    fn no_room_is_no_answer() {
        let mut one = share(1.0, 3.0, Shape::Linear, None, &[(0, 2.0)]);
        one.least = 0.5;
        assert_eq!(divide(&[one], &[1.0]), None);
    }
}
