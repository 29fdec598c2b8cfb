//! The HTTP API against a real registry on the store in memory.

#[path = "api_suite/services.rs"]
mod services;
#[path = "api_suite/support.rs"]
mod support;
