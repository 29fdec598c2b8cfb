//! The HTTP API: it parses, calls the registry, and renders.

pub mod model;
mod schema;
