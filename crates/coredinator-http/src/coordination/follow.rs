//! The coordination section of the configuration, taken up while cycles take place.

use std::time::Duration;

use coredinator_coord::{CoordinationConfig, Coordinator, Strategies};
use coredinator_core::FieldErrors;
use coredinator_registry::Registry;

/// When what could not be taken up for want of the store is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Has the engine work by what the configuration says, whoever changed it. Never ends.
pub(crate) async fn follow(registry: Registry, coordinator: Coordinator, strategies: Strategies) {
    let mut changes = registry.config_changes();
    loop {
        let section = changes.borrow_and_update().sections.get("coordination").cloned();
        // Without a section nobody has said anything: it stays as it was started.
        let taken = match section.map(|section| CoordinationConfig::parse("", &section, &strategies)) {
            None => true,
            Some(Ok(config)) => take_up(&coordinator, config).await,
            Some(Err(errors)) => {
                let error = FieldErrors(errors);
                tracing::error!(%error, "the coordination section that is stored cannot be read; it stays as it was");
                true
            }
        };
        let again = if taken { Duration::MAX } else { RETRY };
        tokio::select! {
            changed = changes.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(again) => {}
        }
    }
}

/// `false`: it has to be tried again.
async fn take_up(coordinator: &Coordinator, config: CoordinationConfig) -> bool {
    if *coordinator.config() == config {
        return true;
    }
    match coordinator.reconfigure(config).await {
        Ok(()) => {
            tracing::info!("the coordination section has changed: it holds from the next cycles on");
            true
        }
        Err(error) => {
            tracing::warn!(%error, "the coordination section has changed, and cannot be taken up now");
            !error.is_retryable()
        }
    }
}
