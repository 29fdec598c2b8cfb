//! What an agent must be to be coordinated, beside what is right or wrong with it in itself.

use coredinator_core::{FieldError, coordination::Agent};

use crate::{CoordinationConfig, transport::wrong_endpoint};

/// Everything that keeps an agent from being asked, told, and waited for, with pointers below `pointer`: an endpoint that is
/// none, a time to live that never ends.
#[must_use]
pub fn inadmissible(pointer: &str, agent: &Agent) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Some(wrong) = agent.endpoint.as_deref().and_then(wrong_endpoint) {
        errors.push(FieldError::new(format!("{pointer}/endpoint"), wrong));
    }
    let longest = CoordinationConfig::LONGEST_TTL.as_secs();
    if agent.ttl_seconds > CoordinationConfig::LONGEST_TTL.as_secs_f64() {
        let detail = format!("must be at most {longest} (a year), but is {}", agent.ttl_seconds);
        errors.push(FieldError::new(format!("{pointer}/ttl_seconds"), detail));
    }
    errors
}
