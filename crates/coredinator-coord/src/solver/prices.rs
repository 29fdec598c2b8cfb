//! Prices at which everybody's own best choice comes close to what fits.
//!
//! The Lagrangian dual, the smallest over all prices of (what there is, at the prices) + (the most that each group can gain
//! at them), bounds every choice. It is smoothed (each group takes its columns in the proportions of a logit, each price
//! keeps away from 0 by a barrier), which makes it differentiable, and minimised by Newton's method while the temperature
//! falls: an interior-point method with one row of its system per resource (Nesterov, 2005, on smoothing). With more rows
//! than pay for that system, each row is treated by itself, with damping.

use coredinator_core::coordination::Budget;

use super::model::Model;

/// With more rows than this, rows are treated one by one.
const MOST_ROWS: usize = 96;

/// Gains this many temperatures below the best do not count.
const COLD: f64 = 24.0;

/// What came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Dual {
    /// The price of a unit of each row.
    pub(super) prices: Vec<f64>,
    /// No choice is worth more than this.
    pub(super) bound: f64,
    /// The looks at columns.
    pub(super) steps: u64,
}

/// The bound at some prices: a true one, for the model's columns and for its elastic options in any fraction.
pub(super) fn bound(model: &Model, prices: &[f64]) -> f64 {
    let mut most = vec![f64::NEG_INFINITY; model.groups()];
    for (group, most) in most.iter_mut().enumerate() {
        for column in model.columns(group) {
            *most = most.max(model.value[column] - model.cost(column, prices));
        }
    }
    for curve in &model.curves {
        let column = curve.column as usize;
        let cost = model.cost(column, prices) / model.fraction[column];
        let fraction = if curve.value > 0.0 {
            curve.shape.best_fraction(cost / curve.value, curve.span.0).min(curve.span.1)
        } else {
            curve.span.0
        };
        let gain = curve.value * curve.shape.worth(fraction) - cost * fraction;
        most[curve.group as usize] = most[curve.group as usize].max(gain);
    }
    most.iter().sum::<f64>() + model.capacity.iter().zip(prices).map(|(capacity, price)| capacity * price).sum::<f64>()
}

/// Finds prices, with about so many steps at most.
pub(super) fn find(model: &Model, limit: u64, budget: &Budget) -> Dual {
    let rows = model.rows();
    if rows == 0 {
        return Dual { prices: Vec::new(), bound: bound(model, &[]), steps: model.candidate.len() as u64 };
    }
    let mut smooth = Smooth::new(model);
    let look = (model.candidate.len() + model.row.len() / 4) as u64;
    let mut best = Dual { prices: vec![0.0; rows], bound: bound(model, &vec![0.0; rows]), steps: look };
    let scale = smooth.spread;
    let mut prices = smooth.begin();
    let mut temperature = 0.5 * scale;
    let coldest = scale * COLDEST;
    let mut moved = vec![0.0; rows];
    let mut slope = vec![0.0; rows];
    smooth.look(&prices, temperature, &mut best);
    best.steps += look;
    while best.steps < limit && !budget.is_over() {
        slope.copy_from_slice(&smooth.slope);
        if !smooth.direction(temperature, &prices) {
            break;
        }
        let reach = |(price, step): (&f64, &f64)| if *step < 0.0 { -0.9 * price / step } else { f64::INFINITY };
        let mut stride = prices.iter().zip(&smooth.step).map(reach).fold(1.0, f64::min);
        let start: f64 = slope.iter().zip(&smooth.step).map(|(slope, step)| slope * step).sum();
        // Back, where the slope along the way has turned round too far.
        for _ in 0..6 {
            for (at, moved) in moved.iter_mut().enumerate() {
                *moved = prices[at] + stride * smooth.step[at];
            }
            smooth.look(&moved, temperature, &mut best);
            best.steps += look;
            let end: f64 = smooth.slope.iter().zip(&smooth.step).map(|(slope, step)| slope * step).sum();
            if end <= 0.5 * -start {
                break;
            }
            stride *= (-start / (end - start)).clamp(0.1, 0.7);
        }
        prices.copy_from_slice(&moved);
        if -start < 0.3 * temperature * rows as f64 || stride > 0.9 {
            if temperature <= coldest {
                break;
            }
            temperature = (temperature * COOLING).max(coldest);
            smooth.look(&prices, temperature, &mut best);
            best.steps += look;
        }
    }
    best
}

/// By how much the temperature falls, and where it ends, by the typical spread of a group's values.
const COOLING: f64 = 0.2;
const COLDEST: f64 = 2e-4;

/// The smoothed dual at some prices.
struct Smooth<'m> {
    model: &'m Model,
    spread: f64,
    /// Its gradient, and its second derivatives: a square of rows, or only their diagonal.
    slope: Vec<f64>,
    bend: Vec<f64>,
    square: bool,
    step: Vec<f64>,
    shares: Vec<f64>,
    mean: Vec<f64>,
    touched: Vec<u32>,
}

impl<'m> Smooth<'m> {
    fn new(model: &'m Model) -> Self {
        let rows = model.rows();
        let square = rows <= MOST_ROWS;
        let spread = |group: usize| {
            let values = &model.value[model.columns(group)];
            values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
                - values.iter().copied().fold(f64::INFINITY, f64::min)
        };
        let spread: f64 = (0..model.groups()).map(spread).sum::<f64>() / model.groups().max(1) as f64;
        Self {
            model,
            spread: spread.max(1e-12),
            slope: vec![0.0; rows],
            bend: vec![0.0; if square { rows * rows } else { rows }],
            square,
            step: vec![0.0; rows],
            shares: Vec::new(),
            mean: vec![0.0; rows],
            touched: Vec::new(),
        }
    }

    /// Prices to begin with.
    fn begin(&self) -> Vec<f64> {
        let model = self.model;
        let all = self.spread * model.groups() as f64 / model.rows() as f64;
        model.capacity.iter().map(|capacity| all / capacity.max(all * 1e-9).max(1e-300)).collect()
    }

    /// Reckons slope and bend, and keeps the prices if they bound better than the best so far.
    fn look(&mut self, prices: &[f64], temperature: f64, best: &mut Dual) {
        let model = self.model;
        let rows = model.rows();
        self.bend.fill(0.0);
        let mut total = 0.0;
        for (row, &price) in prices.iter().enumerate() {
            total += model.capacity[row] * price;
            self.slope[row] = model.capacity[row] - temperature / price;
            let at = if self.square { row * rows + row } else { row };
            self.bend[at] = temperature / (price * price);
        }
        for group in 0..model.groups() {
            total += self.group(model.columns(group), prices, temperature);
        }
        if total < best.bound && model.curves.is_empty() {
            best.bound = total;
            best.prices.copy_from_slice(prices);
        } else if !model.curves.is_empty() {
            let bound = bound(model, prices);
            if bound < best.bound {
                best.bound = bound;
                best.prices.copy_from_slice(prices);
            }
        }
    }

    /// Adds a group's part to slope and bend; the most that it can gain.
    fn group(&mut self, columns: std::ops::Range<usize>, prices: &[f64], temperature: f64) -> f64 {
        let model = self.model;
        self.shares.clear();
        let mut most = f64::NEG_INFINITY;
        for column in columns.clone() {
            let gain = model.value[column] - model.cost(column, prices);
            most = most.max(gain);
            self.shares.push(gain);
        }
        let mut sum = 0.0;
        for share in &mut self.shares {
            *share = exponential((*share - most) / temperature);
            sum += *share;
        }
        self.touched.clear();
        let mut mixed = false;
        for (share, column) in self.shares.iter_mut().zip(columns.clone()) {
            *share /= sum;
            mixed |= *share > 1e-6 && *share < 1.0 - 1e-6;
            if *share > 0.0 {
                for at in model.entries(column) {
                    let row = model.row[at] as usize;
                    if self.mean[row] == 0.0 {
                        self.touched.push(row as u32);
                    }
                    self.mean[row] += *share * model.amount[at];
                }
            }
        }
        for &row in &self.touched {
            self.slope[row as usize] -= self.mean[row as usize];
        }
        if mixed {
            self.add_bend(columns, temperature);
        }
        for &row in &self.touched {
            self.mean[row as usize] = 0.0;
        }
        most
    }

    fn add_bend(&mut self, columns: std::ops::Range<usize>, temperature: f64) {
        let (model, rows) = (self.model, self.model.rows());
        for (&share, column) in self.shares.iter().zip(columns).filter(|(share, _)| **share > 1e-9) {
            let weight = share / temperature;
            for at in model.entries(column) {
                let (row, amount) = (model.row[at] as usize, weight * model.amount[at]);
                if self.square {
                    let line = &mut self.bend[row * rows..(row + 1) * rows];
                    for other in model.entries(column) {
                        line[model.row[other] as usize] += amount * model.amount[other];
                    }
                } else {
                    self.bend[row] += amount * model.amount[at];
                }
            }
        }
        for &row in &self.touched {
            let (row, mean) = (row as usize, self.mean[row as usize] / temperature);
            if self.square {
                for &other in &self.touched {
                    self.bend[row * rows + other as usize] -= mean * self.mean[other as usize];
                }
            } else {
                self.bend[row] -= mean * self.mean[row];
            }
        }
    }

    /// Newton's step from the prices last looked at; whether there is one.
    fn direction(&mut self, temperature: f64, prices: &[f64]) -> bool {
        let rows = self.slope.len();
        for (step, slope) in self.step.iter_mut().zip(&self.slope) {
            *step = -slope;
        }
        if !self.square {
            for ((step, bend), price) in self.step.iter_mut().zip(&self.bend).zip(prices) {
                *step /= bend.max(temperature / (price * price));
            }
            return self.step.iter().all(|step| step.is_finite());
        }
        // Cholesky's decomposition in place, scaled by the barrier's share of the diagonal.
        let bend = &mut self.bend;
        for row in 0..rows {
            bend[row * rows + row] *= 1.0 + 1e-9;
        }
        for at in 0..rows {
            for to in 0..=at {
                let mut sum = bend[at * rows + to];
                let (upper, lower) = bend.split_at(at * rows);
                if to < at {
                    let (a, b) = (&lower[..to], &upper[to * rows..to * rows + to]);
                    sum -= a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                    bend[at * rows + to] = sum / bend[to * rows + to];
                } else {
                    sum -= lower[..at].iter().map(|a| a * a).sum::<f64>();
                    if sum.is_nan() || sum <= 0.0 {
                        return false;
                    }
                    bend[at * rows + at] = sum.sqrt();
                }
            }
        }
        for at in 0..rows {
            let known: f64 = (0..at).map(|to| bend[at * rows + to] * self.step[to]).sum();
            self.step[at] = (self.step[at] - known) / bend[at * rows + at];
        }
        for at in (0..rows).rev() {
            let known: f64 = (at + 1..rows).map(|to| bend[to * rows + at] * self.step[to]).sum();
            self.step[at] = (self.step[at] - known) / bend[at * rows + at];
        }
        self.step.iter().all(|step| step.is_finite())
    }
}

/// e to the power of `x`, at most 0: by arithmetic alone, so that it is the same on every machine; to ten digits.
fn exponential(x: f64) -> f64 {
    if x < -COLD {
        return 0.0;
    }
    let halves = (x * std::f64::consts::LOG2_E).round();
    let rest = x - halves * std::f64::consts::LN_2;
    let series = [8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0].iter().fold(1.0, |sum, step| 1.0 + sum * rest / step);
    series * f64::from_bits(((halves as i64 + 1023) as u64) << 52)
}
