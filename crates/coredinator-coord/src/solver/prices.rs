//! Prices at which everybody's own best choice comes close to what fits.
//!
//! The Lagrangian dual, the smallest over all prices of (what there is, at the prices) + (the most that each group can gain
//! at them), bounds every choice. It is smoothed (each group takes its columns in the proportions of a logit, each price
//! keeps away from 0 by a barrier), which makes it differentiable, and minimised by Newton's method while the temperature
//! falls: an interior-point method with one row of its system per resource (Nesterov, 2005, on smoothing). With more rows
//! than pay for that system, each row is treated by itself, with damping. While it is hot, a sample of the groups stands for
//! all, of which there are many.

mod smooth;

use coredinator_core::coordination::Budget;
use smooth::Smooth;

use super::model::Model;

/// By how much the temperature falls, by the typical spread of a group's values.
const COOLING: f64 = 0.2;

/// Where it ends: the fewer groups there are, the further the best choice is from the bound anyway.
const COLDEST: (f64, f64) = (2e-4, 2e-3);
const COLDEST_FOR_ALL: f64 = 0.02;

/// Above this temperature, so many groups stand for all of them.
const HOT: f64 = 0.01;
const SAMPLE: usize = 250;

/// Prices are not adjusted from less than this part of the highest, nor for the sake of shares that are smaller than this.
const LEAST: f64 = 1e-4;
const NEGLIGIBLE: f64 = 1e-4;

/// How much of the work on its system is one step.
const SYSTEM_AT_ONCE: u64 = 48;

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
    let look = (model.candidate.len() + model.row.len() / 4) as u64;
    let best = Dual { prices: vec![0.0; rows], bound: bound(model, &vec![0.0; rows]), steps: look };
    let mut smooth = Smooth::new(model, best);
    let scale = smooth.spread;
    let mut prices = smooth.begin();
    let mut temperature = 0.5 * scale;
    let coldest = scale * (COLDEST_FOR_ALL / model.groups().max(1) as f64).clamp(COLDEST.0, COLDEST.1);
    smooth.stride = (model.groups() / SAMPLE).max(1);
    smooth.look(&prices, temperature);
    while smooth.best.steps < limit && !budget.is_over() {
        let Some(descent) = smooth.descend(&mut prices, temperature) else { break };
        // While it is not as cold as it gets, a step that went all the way is good enough.
        let is_coldest = temperature <= coldest;
        if descent.is_small || (descent.stride > 0.9 && !is_coldest) {
            if is_coldest {
                break;
            }
            temperature = (temperature * COOLING).max(coldest);
            if temperature < HOT * scale {
                smooth.stride = 1;
            }
            smooth.look(&prices, temperature);
        }
    }
    if smooth.stride > 1 {
        smooth.stride = 1;
        smooth.look(&prices, temperature);
    }
    smooth.best
}

/// Adjusts prices to a model that is much like the one that they are for, at a temperature and in so many rounds at most; the
/// steps that it took.
pub(super) fn adjust(model: &Model, prices: &mut [f64], temperature: f64, rounds: usize) -> u64 {
    let mut smooth = Smooth::new(model, Dual { prices: prices.to_vec(), bound: f64::INFINITY, steps: 0 });
    smooth.negligible = NEGLIGIBLE;
    // What costs next to nothing would never come to cost anything.
    let least = LEAST * prices.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    prices.iter_mut().for_each(|price| *price = price.max(least));
    smooth.look(prices, temperature);
    for _ in 0..rounds {
        smooth.best.steps += smooth.system() / SYSTEM_AT_ONCE;
        if smooth.descend(prices, temperature).is_none_or(|descent| descent.is_small) {
            break;
        }
    }
    smooth.best.steps
}
