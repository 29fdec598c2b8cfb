//! Whether something accepts connections.

use async_trait::async_trait;
use coredinator_core::{FieldError, HealthProbe, ProbeError, ProbeReport, ProbeSpec, ProbeTarget};

use super::{connect, wrong_kind};

/// Connects to `host:port` and closes.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpProbe;

#[async_trait]
impl HealthProbe for TcpProbe {
    fn kind(&self) -> String {
        "tcp".to_owned()
    }

    fn validate(&self, spec: &ProbeSpec) -> Vec<FieldError> {
        match spec {
            ProbeSpec::Tcp => Vec::new(),
            other => vec![wrong_kind(other, "tcp")],
        }
    }

    async fn check(&self, target: &ProbeTarget) -> Result<ProbeReport, ProbeError> {
        match connect(&target.host, target.port).await {
            Ok(_) => Ok(ProbeReport::pass("connected")),
            Err(no_answer) => no_answer.report(),
        }
    }
}
