//! From desired to running: keeps the managed services of a registry as they are declared.
//!
//! One actor per service compares what is declared with what runs, level-triggered, and takes the next step. All deciding
//! is pure: `machine` (the life of replicas), `restart` (policy, back-off, budget), `gate` (dependencies), `adopt` (what
//! runs already), `rollout` (how a new configuration document comes to instances). `actor` and `supervisor` do the awaiting.
//!
//! Every start is written down, durably, before the runtime is asked; so whatever happens to coredinator, what runs is
//! found again and supervised on, never doubled and never lost.

mod actor;
mod adopt;
mod context;
mod gate;
mod machine;
mod restart;
mod rollout;
mod runtimes;
mod slot;
mod supervisor;
mod sweep;

pub use context::{SupervisorOptions, read_secret};
pub use runtimes::Runtimes;
pub use supervisor::{Shutdown, Supervisor};
