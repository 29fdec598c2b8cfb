//! What services leave behind that were deregistered while their runtime, or coredinator, was away.

use std::{sync::Arc, time::Duration};

use coredinator_core::{Runtime, RuntimeError, ServiceName};
use coredinator_registry::{RegistryError, leadership::Grant};
use tokio_util::sync::CancellationToken;

use crate::{actor::chain, context::Context};

/// The first and the longest pause before a runtime that failed is asked again.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Has a runtime forget what it keeps of services that are not declared: now, and whenever something may have been left; for
/// as long as this replica looks after what the runtime runs.
pub(crate) async fn run(context: Arc<Context>, runtime: Arc<dyn Runtime>, grant: Grant, end: CancellationToken) {
    let place = context.registry.place().clone();
    let tenure = place.tenure(place.post_of(&runtime.name()));
    let mut changes = tenure.changes();
    let deposed = async {
        while tenure.holds(&grant) {
            changes.changed().await;
        }
    };
    let sweep = async {
        let mut leftovers = context.leftovers.subscribe();
        loop {
            leftovers.mark_unchanged();
            let mut pause = PAUSE;
            while let Err(error) = once(&context, runtime.as_ref(), &grant).await {
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
        () = deposed => {}
        () = end.cancelled() => {}
    }
}

async fn once(context: &Context, runtime: &dyn Runtime, grant: &Grant) -> Result<(), RuntimeError> {
    let gone = |service: &ServiceName| {
        matches!(context.registry.service(service.as_str()), Err(RegistryError::NotFound { .. }))
    };
    for service in runtime.kept().await?.into_iter().filter(gone) {
        // What was declared elsewhere a moment ago is seen then, and nobody else looks after it.
        let confirmed = context.registry.confirm(grant).await;
        confirmed.map_err(|error| RuntimeError::internal("nothing is removed before the store answers", error))?;
        if gone(&service) {
            tracing::info!(%service, runtime = %runtime.name(), "removing what a service that is gone left behind");
            runtime.forget(&service).await?;
        }
    }
    Ok(())
}
