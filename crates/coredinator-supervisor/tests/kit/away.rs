//! A runtime whose engine is not there.

use async_trait::async_trait;
use coredinator_core::{
    FieldError, InstanceRef, LogQuery, LogStream, ObservationStream, Runtime, RuntimeCapabilities, RuntimeError,
    RuntimeName, ServiceName, ServiceSpec, StartRequest, Started, StopRequest,
};

/// What it would run on is not there: it cannot tell anything.
pub(crate) struct Away;

#[async_trait]
impl Runtime for Away {
    fn name(&self) -> RuntimeName {
        RuntimeName::new("away").unwrap()
    }

    fn capabilities(&self) -> RuntimeCapabilities {
        RuntimeCapabilities::default()
    }

    fn validate(&self, _: &ServiceSpec) -> Vec<FieldError> {
        Vec::new()
    }

    async fn start(&self, _: StartRequest) -> Result<Started, RuntimeError> {
        Err(away())
    }

    async fn list(&self, _: &[InstanceRef]) -> Result<Vec<Started>, RuntimeError> {
        Err(away())
    }

    fn watch(&self, _: &InstanceRef) -> ObservationStream {
        Box::pin(futures_util::stream::pending())
    }

    async fn stop(&self, _: &InstanceRef, _: StopRequest) -> Result<(), RuntimeError> {
        Err(away())
    }

    async fn logs(&self, _: LogQuery) -> Result<LogStream, RuntimeError> {
        Err(away())
    }

    async fn forget(&self, _: &ServiceName) -> Result<(), RuntimeError> {
        Err(away())
    }
}

fn away() -> RuntimeError {
    RuntimeError::Unavailable { runtime: RuntimeName::new("away").unwrap(), message: "not there".to_owned() }
}
