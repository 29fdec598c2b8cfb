//! What services leave behind that were deregistered while their runtime, or coredinator, was away.

use std::{sync::Arc, time::Duration};

use coredinator_core::{Runtime, RuntimeError};
use coredinator_registry::RegistryError;
use tokio_util::sync::CancellationToken;

use crate::{actor::chain, context::Context};

/// The first and the longest pause before a runtime that failed is asked again.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Has a runtime forget what it keeps of services that are not declared: now, and whenever something may have been left.
pub(crate) async fn run(context: Arc<Context>, runtime: Arc<dyn Runtime>, end: CancellationToken) {
    let sweep = async {
        let mut leftovers = context.leftovers.subscribe();
        loop {
            leftovers.mark_unchanged();
            let mut pause = PAUSE;
            while let Err(error) = once(&context, runtime.as_ref()).await {
                tracing::debug!(runtime = %runtime.name(), error = chain(&error), "cannot look for what is left behind");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            // `context` holds the sender: this cannot fail.
            let _ = leftovers.changed().await;
        }
    };
    tokio::select! {
        () = sweep => {}
        () = end.cancelled() => {}
    }
}

async fn once(context: &Context, runtime: &dyn Runtime) -> Result<(), RuntimeError> {
    for service in runtime.kept().await? {
        if matches!(context.registry.service(service.as_str()), Err(RegistryError::NotFound { .. })) {
            tracing::info!(%service, runtime = %runtime.name(), "removing what a service that is gone left behind");
            runtime.forget(&service).await?;
        }
    }
    Ok(())
}
