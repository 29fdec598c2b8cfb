//! The HTTP API against a real registry on the store in memory.

#[path = "api_suite/config.rs"]
mod config;
#[path = "api_suite/config_schema.rs"]
mod config_schema;
#[path = "api_suite/contract.rs"]
mod contract;
#[path = "api_suite/coordination.rs"]
mod coordination;
#[path = "api_suite/coordination_metrics.rs"]
mod coordination_metrics;
#[path = "api_suite/database.rs"]
mod database;
mod described;
#[path = "api_suite/errors.rs"]
mod errors;
#[path = "api_suite/health.rs"]
mod health;
#[path = "api_suite/managed.rs"]
mod managed;
#[path = "api_suite/services.rs"]
mod services;
#[path = "api_suite/sockets.rs"]
mod sockets;
#[path = "api_suite/support.rs"]
mod support;
