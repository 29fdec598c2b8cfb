//! Schemas, for the API's description alone, of types that other crates own, which know nothing of OpenAPI: what problems and
//! plans are made of, and what the engine tells of itself. Tests hold them against the real ones.

#![expect(dead_code, reason = "these types are described, never made")]

mod engine;
mod paper;

pub(super) use engine::*;
pub(super) use paper::*;
