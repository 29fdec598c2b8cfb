//! Who exists, where, and how healthy: the registry of coredinator, its stores, probes and discovery.
//!
//! - [`Registry`]: a handle to everything declared and observed, served from memory, kept in a
//!   [`Store`](coredinator_core::Store);
//! - [`store`]: the stores that come with it, in memory and SQLite;
//! - [`health`]: the probes that come with it, and the monitor that schedules them all;
//! - [`leadership`]: who acts, where several replicas of coredinator share a store;
//! - [`DataDir`]: the directory of one coredinator, locked while it lives.

mod data_dir;
pub mod health;
pub mod leadership;
mod outbound;
mod registry;
pub mod store;

pub use data_dir::{DataDir, DataDirError};
pub use outbound::post_json;
pub use registry::{
    Command, ConfigDiff, ConfigDocument, ConfigEdit, ConfigHead, ConfigOutcome, ConfigPlan, ConfigRevision,
    ConfigSource, ConfigValidation, Declared, Endpoint, EventCursor, EventItem, InstanceView, NewEvent, OnUnreachable,
    Placed, PlanAction, PlanEffect, Recording, Registry, RegistryError, RegistryOptions, Schemas, SectionPlan,
    ServicePlan, ServiceView, Was, Written,
};
