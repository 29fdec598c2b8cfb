//! Faults of the whole system: the real binary, real processes, a real store; killed, starved, frozen, filled up, lied to.
//!
//! Every test has a coredinator of its own and counts processes in `/proc`, by a mark that coredinator and all it starts
//! carry, against what the API and the store say. Nothing here asserts how long something takes: deadlines are upper bounds
//! for a loaded machine.

mod clock;
#[cfg(feature = "kubernetes")]
#[expect(dead_code, unused_imports, reason = "other tests use more of it")]
#[path = "../../../coredinator-runtime-k8s/tests/support/mod.rs"]
mod cluster;
#[cfg(all(feature = "docker", feature = "postgres"))]
mod composition;
mod config;
mod config_validator;
mod coordination;
mod coordination_live;
#[cfg(feature = "docker")]
mod deploy;
#[path = "../described/mod.rs"]
mod described;
#[cfg(feature = "docker")]
mod docker;
mod drivers;
#[cfg(feature = "docker")]
#[path = "../../../coredinator-runtime-docker/tests/support/mod.rs"]
mod engine;
#[cfg(all(feature = "docker", feature = "kubernetes"))]
mod in_cluster;
mod kill_loop;
#[cfg(feature = "kubernetes")]
mod kubernetes;
#[cfg(feature = "postgres")]
mod postgres;
mod processes;
#[cfg(feature = "postgres")]
mod replica_rollouts;
#[cfg(feature = "postgres")]
mod replicas;
mod services;
#[cfg(feature = "postgres")]
mod site;
mod start_up;
mod starved;
mod store;
mod support;
