//! The invariants of coordination, over thousands of problems made by chance, for every strategy that there is. A failure
//! names the strategy and the seed of the problem.

mod bargaining;
mod kit;
mod optimum;
mod plans;
mod priority;
mod shares;
