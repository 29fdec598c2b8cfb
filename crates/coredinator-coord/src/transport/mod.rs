//! The way to agents that have an endpoint.

mod http;
mod message;

use async_trait::async_trait;
use coredinator_core::coordination::{Agent, Intention};

pub use http::HttpTransport;
pub(crate) use http::wrong_endpoint;
pub use message::{Ask, DecisionMessage, NegotiationAnswer, NegotiationRequest};

/// Why nothing of use came from an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// It cannot be reached, or broke off.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// It answered with a status other than success.
    #[error("answered HTTP {0}")]
    Status(u16),
    /// It answered with more than is read.
    #[error("answered with more than {limit} bytes")]
    TooLarge {
        /// How much is read.
        limit: usize,
    },
    /// It answered with something that is not what it was asked for.
    #[error("answered with what is not understood: {0}")]
    Garbage(String),
}

/// Asks agents and tells them.
///
/// To ensure correctness: dropping a future gives the exchange up and frees all that it held; whoever calls sets the time
/// limit. Nothing that an agent answers, or does not, makes a call panic or hold more than a bounded amount of memory.
#[async_trait]
pub trait AgentTransport: Send + Sync + 'static {
    /// Asks an agent what it wants. An answer that is another agent's is [`TransportError::Garbage`].
    async fn intention(&self, agent: &Agent, ask: &Ask) -> Result<Intention, TransportError>;

    /// Tells an agent what was decided. `Ok` is its acknowledgement.
    async fn decision(&self, agent: &Agent, message: &DecisionMessage) -> Result<(), TransportError>;

    /// Puts an offer to an agent.
    async fn negotiate(&self, agent: &Agent, request: &NegotiationRequest)
    -> Result<NegotiationAnswer, TransportError>;
}
