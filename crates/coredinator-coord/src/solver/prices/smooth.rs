//! The smoothed dual.

use super::{Dual, bound};
use crate::solver::model::Model;

/// With more rows than this, rows are treated one by one.
const MOST_ROWS: usize = 96;

/// Gains this many temperatures below the best do not count.
const COLD: f64 = 24.0;

/// Where a price has changed by more than this part of it, all columns are looked at again.
const FAR: f64 = 0.1;

/// Shares below this do not count for the second derivatives unless something else is said; nor do groups in which no share
/// is this many times as far from nothing and from all.
const NO_SHARE: f64 = 1e-7;
const MIXED: f64 = 10.0;

/// The smoothed dual, with what is known at the prices last looked at.
pub(super) struct Smooth<'m> {
    model: &'m Model,
    /// The best bound that was found, and the steps taken.
    pub(super) best: Dual,
    /// The typical spread of a group's values.
    pub(super) spread: f64,
    /// One of so many groups is looked at, and stands for the others.
    pub(super) stride: usize,
    /// Smaller shares do not count for the second derivatives.
    pub(super) negligible: f64,
    /// Its gradient, and its second derivatives: the lower half of a square of rows, or only their diagonal.
    slope: Vec<f64>,
    bend: Vec<f64>,
    square: bool,
    /// Newton's step, the gradient before it, and where it leads.
    step: Vec<f64>,
    before: Vec<f64>,
    moved: Vec<f64>,
    /// Of each column, how far it was behind its group's best when all were looked at last, less what it may have caught up
    /// by for each part by which prices have changed since.
    behind: Vec<Behind>,
    /// The prices of then.
    since: Vec<f64>,
    /// The steps of this look.
    looked: usize,
    shares: Vec<f64>,
    mean: Vec<f64>,
    apart: Vec<f64>,
    touched: Vec<u32>,
}

/// A step that was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Descent {
    /// Whether there was little left to win at this temperature.
    pub(super) is_small: bool,
    /// Which part of it.
    pub(super) stride: f64,
}

/// How far a column is behind the best of its group.
#[derive(Debug, Clone, Copy, Default)]
struct Behind {
    gain: f64,
    /// What both cost: so much it may catch up at most when all prices double, or half of it when they change by a half.
    costs: f64,
}

impl<'m> Smooth<'m> {
    pub(super) fn new(model: &'m Model, best: Dual) -> Self {
        let rows = model.rows();
        let square = rows <= MOST_ROWS;
        Self {
            model,
            best,
            spread: model.spread(),
            stride: 1,
            negligible: NO_SHARE,
            slope: vec![0.0; rows],
            bend: vec![0.0; if square { rows * rows } else { rows }],
            square,
            step: vec![0.0; rows],
            before: vec![0.0; rows],
            moved: vec![0.0; rows],
            behind: Vec::new(),
            since: Vec::new(),
            looked: 0,
            shares: Vec::new(),
            mean: vec![0.0; rows],
            apart: vec![0.0; rows],
            touched: Vec::new(),
        }
    }

    /// Prices to begin with.
    pub(super) fn begin(&self) -> Vec<f64> {
        let model = self.model;
        let all = self.spread * model.groups() as f64 / model.rows() as f64;
        model.capacity.iter().map(|capacity| all / capacity.max(all * 1e-9).max(1e-300)).collect()
    }

    /// Reckons slope and bend, and keeps the prices if they bound better than the best so far.
    pub(super) fn look(&mut self, prices: &[f64], temperature: f64) {
        let model = self.model;
        let (rows, groups) = (model.rows(), model.groups());
        let part = groups.div_ceil(self.stride) as f64 / groups.max(1) as f64;
        self.bend.fill(0.0);
        let mut total = 0.0;
        for (row, &price) in prices.iter().enumerate() {
            total += model.capacity[row] * price;
            self.slope[row] = model.capacity[row] * part - temperature / price;
            let at = if self.square { row * rows + row } else { row };
            self.bend[at] = temperature / (price * price);
        }
        let changed = prices.iter().zip(&self.since).map(|(price, since)| (price / since - 1.0).abs());
        let changed = if self.since.is_empty() { f64::INFINITY } else { changed.fold(0.0, f64::max) };
        let afresh = self.stride == 1 && changed > FAR;
        if afresh {
            self.since.clear();
            self.since.extend_from_slice(prices);
            self.behind.resize(model.candidate.len(), Behind::default());
        }
        self.looked = 0;
        let reach = if afresh || self.stride > 1 { None } else { Some((COLD * temperature, changed)) };
        for group in (0..groups).step_by(self.stride) {
            total += self.group(model.columns(group), prices, temperature, reach);
        }
        self.best.steps += (self.looked + (part * model.candidate.len() as f64) as usize / 4) as u64;
        if self.stride > 1 {
            return;
        }
        if !model.curves.is_empty() {
            total = bound(model, prices);
        }
        if total < self.best.bound {
            self.best.bound = total;
            self.best.prices.copy_from_slice(prices);
        }
    }

    /// Adds a group's part to slope and bend; the most that it can gain. Within a reach, columns too far behind to count are
    /// not looked at.
    fn group(
        &mut self,
        columns: std::ops::Range<usize>,
        prices: &[f64],
        temperature: f64,
        reach: Option<(f64, f64)>,
    ) -> f64 {
        let model = self.model;
        self.shares.clear();
        let mut most = f64::NEG_INFINITY;
        for column in columns.clone() {
            if let Some((cold, changed)) = reach
                && self.behind[column].gain - changed * self.behind[column].costs > cold
            {
                self.shares.push(f64::NEG_INFINITY);
                continue;
            }
            self.looked += 1 + model.entries(column).len() / 4;
            let gain = model.value[column] - model.cost(column, prices);
            most = most.max(gain);
            self.shares.push(gain);
        }
        if reach.is_none() && self.stride == 1 {
            let best = self.shares.iter().position(|&gain| gain == most).unwrap_or(0);
            let cost = model.value[columns.start + best] - most;
            for (&gain, column) in self.shares.iter().zip(columns.clone()) {
                self.behind[column] = Behind { gain: most - gain, costs: cost + model.value[column] - gain };
            }
        }
        let mut sum = 0.0;
        for share in &mut self.shares {
            *share = exponential((*share - most) / temperature);
            sum += *share;
        }
        self.touched.clear();
        let mut mixed = false;
        let clear = MIXED * self.negligible;
        for (share, column) in self.shares.iter_mut().zip(columns.clone()) {
            *share /= sum;
            mixed |= *share > clear && *share < 1.0 - clear;
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

    /// Adds how far the columns of a group are apart, by their shares.
    fn add_bend(&mut self, columns: std::ops::Range<usize>, temperature: f64) {
        let (model, rows) = (self.model, self.model.rows());
        let all = self.touched.len() == rows && self.touched.is_sorted();
        for (&share, column) in self.shares.iter().zip(columns).filter(|(share, _)| **share > self.negligible) {
            let weight = share / temperature;
            for &row in &self.touched {
                self.apart[row as usize] = -self.mean[row as usize];
            }
            for at in model.entries(column) {
                self.apart[model.row[at] as usize] += model.amount[at];
            }
            if !self.square {
                for &row in &self.touched {
                    self.bend[row as usize] += weight * self.apart[row as usize] * self.apart[row as usize];
                }
            } else if all {
                for row in 0..rows {
                    let by = weight * self.apart[row];
                    let line = &mut self.bend[row * rows..=row * rows + row];
                    line.iter_mut().zip(&self.apart).for_each(|(bend, apart)| *bend += by * apart);
                }
            } else {
                for (place, &row) in self.touched.iter().enumerate() {
                    let by = weight * self.apart[row as usize];
                    for &other in &self.touched[..=place] {
                        let (low, high) = (row.min(other) as usize, row.max(other) as usize);
                        self.bend[high * rows + low] += by * self.apart[other as usize];
                    }
                }
            }
        }
    }

    /// Takes a step of Newton's from the prices last looked at; `None` where there is none.
    pub(super) fn descend(&mut self, prices: &mut [f64], temperature: f64) -> Option<Descent> {
        self.before.copy_from_slice(&self.slope);
        if !self.direction(temperature, prices) {
            return None;
        }
        let reach = |(price, step): (&f64, &f64)| if *step < 0.0 { -0.9 * price / step } else { f64::INFINITY };
        let mut stride = prices.iter().zip(&self.step).map(reach).fold(1.0, f64::min);
        let start: f64 = self.before.iter().zip(&self.step).map(|(slope, step)| slope * step).sum();
        let mut moved = std::mem::take(&mut self.moved);
        // Back, where the slope along the way has turned round too far.
        for _ in 0..6 {
            for (at, moved) in moved.iter_mut().enumerate() {
                *moved = prices[at] + stride * self.step[at];
            }
            self.look(&moved, temperature);
            let end: f64 = self.slope.iter().zip(&self.step).map(|(slope, step)| slope * step).sum();
            if end <= 0.5 * -start {
                break;
            }
            stride *= (-start / (end - start)).clamp(0.1, 0.7);
        }
        prices.copy_from_slice(&moved);
        self.moved = moved;
        Some(Descent { is_small: -start < 0.3 * temperature * prices.len() as f64, stride })
    }

    /// How much work its system is.
    pub(super) fn system(&self) -> u64 {
        (self.slope.len() as u64).pow(if self.square { 3 } else { 1 })
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

/// Added to a number and taken away again, it leaves a whole one: there is no room for digits behind the point.
const WHOLE: f64 = 6_755_399_441_055_744.0;

/// One over the factorials of 8, 7 and so on.
const FACTORS: [f64; 9] = [1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// e to the power of `x`, at most 0: by arithmetic alone, so that it is the same on every machine; to ten digits.
fn exponential(x: f64) -> f64 {
    if x < -COLD {
        return 0.0;
    }
    let halves = (x * std::f64::consts::LOG2_E + WHOLE) - WHOLE;
    let rest = x - halves * std::f64::consts::LN_2;
    let series = FACTORS.iter().fold(0.0, |sum, factor| sum * rest + factor);
    series * f64::from_bits(((halves as i64 + 1023) as u64) << 52)
}
