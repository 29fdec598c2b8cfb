//! What runs an instance checks it by itself.

use async_trait::async_trait;
use coredinator_core::{FieldError, HealthProbe, ProbeError, ProbeReport, ProbeSpec, ProbeTarget};

use super::{ProbedRuntimes, wrong_kind};

/// Asks what runs an instance how it is, by checks of its own: such as Docker by the image's `HEALTHCHECK`.
///
/// Where it has not said anything yet, or checks nothing, the check could not be carried out, and says why.
#[derive(Debug, Clone, Default)]
pub struct NativeProbe {
    runtimes: ProbedRuntimes,
}

impl NativeProbe {
    /// One that asks these runtimes.
    #[must_use]
    pub fn new(runtimes: ProbedRuntimes) -> Self {
        Self { runtimes }
    }
}

#[async_trait]
impl HealthProbe for NativeProbe {
    fn kind(&self) -> String {
        "native".to_owned()
    }

    fn validate(&self, spec: &ProbeSpec) -> Vec<FieldError> {
        match spec {
            ProbeSpec::Native => Vec::new(),
            other => vec![wrong_kind(other, "native")],
        }
    }

    async fn check(&self, target: &ProbeTarget) -> Result<ProbeReport, ProbeError> {
        let cannot = |message: String| ProbeError { message };
        let Some((runtime, instance)) = self.runtimes.of(target) else {
            return Err(cannot("nothing here runs it, so nothing can tell its health".to_owned()));
        };
        let told = runtime.native_health(instance).await.map_err(|error| cannot(error.to_string()))?;
        told.ok_or_else(|| cannot(format!("runtime {} has not said yet how it is", runtime.name())))
    }
}
