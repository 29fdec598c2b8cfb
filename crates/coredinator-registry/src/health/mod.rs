//! Probes and the health monitor: what is asked of every instance, when, and what the answers mean.
//!
//! [`HealthMonitor`] is one scheduler for all checks. What an answer means is decided by pure code, [`Hysteresis`]; when
//! and in which order checks start, by an agenda that holds no clock; the monitor's driver only waits, asks and records.
//! [`ProbeRegistry`] names the probes: HTTP, TCP and commands are built in, heartbeats are the monitor's own, and plugins
//! add theirs.

mod agenda;
mod cadence;
mod cell;
mod check;
mod hysteresis;
mod lateness;
mod monitor;
mod probes;

pub use cell::{CheckCell, CheckResult, CheckSnapshot, HISTORY};
pub use check::{CheckKey, CheckKind, CheckSpec, Transition};
pub use hysteresis::Hysteresis;
pub use lateness::LatenessStats;
pub use monitor::{HealthMonitor, MonitorOptions};
pub use probes::{CommandProbe, HttpProbe, NativeProbe, ProbeRegistry, ProbedRuntimes, TcpProbe};
