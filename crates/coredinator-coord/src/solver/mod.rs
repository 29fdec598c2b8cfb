//! The optimiser behind the strategies: which option for whom, so that the sum of what all get is largest and fits.
//!
//! A [`Scope`] says about whom something is to be decided and what the others leave them; [`solve`] answers a [`Solution`]
//! with a bound that no choice within the scope exceeds. Underneath, a scope falls into components that share nothing that
//! could run short; each is a small flat model (multiple-choice knapsacks in several dimensions, with pairs of columns that
//! exclude each other), solved by prices, repair, exact search by lists of all of it as far as that goes, and of windows.
//!
//! Effort is counted in steps: about one look at one column. So the same scope and effort give the same answer on every
//! machine, whatever the number of threads.

mod accord;
mod components;
mod dive;
mod exchange;
mod join;
mod local;
mod model;
mod part;
mod prices;
mod repair;
mod scope;
mod search;
mod solve;
mod start;
mod state;
#[cfg(test)]
mod tests;

pub use scope::{Scope, Solution};
pub use solve::solve;
