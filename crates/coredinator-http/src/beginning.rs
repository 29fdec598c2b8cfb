//! What a coredinator writes when it begins: at once, or where the store can be read and takes no writes, when it does.

use std::time::Duration;

use coredinator_core::Revision;
use coredinator_registry::{ConfigOutcome, Registry, RegistryError};

use crate::{config::Config, reload::Reloader};

/// The pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The steps that are left.
pub(crate) struct Beginning {
    registry: Registry,
    reloader: Reloader,
    /// What the file says, where there is one.
    file: Option<Config>,
    /// Up to where the store had been read: what was asked later is not this start's to take back.
    read: Revision,
}

impl Beginning {
    pub(crate) fn new(registry: &Registry, reloader: &Reloader, file: Option<Config>) -> Self {
        Self { registry: registry.clone(), reloader: reloader.clone(), file, read: registry.followed() }
    }

    /// Takes every step. A store that was begun before and takes no writes now is no reason not to start: what is in force goes
    /// on, and the steps are taken when it does.
    ///
    /// # Errors
    /// As [`Registry::change_config`].
    pub(crate) async fn begin(mut self) -> Result<Option<ConfigOutcome>, RegistryError> {
        match self.step().await {
            Err(error) if self.can_wait(&error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(%error, source, "the store takes no writes: what is in force goes on until it does");
                tokio::spawn(async move { self.go_on().await });
                Ok(None)
            }
            done => done,
        }
    }

    async fn step(&mut self) -> Result<Option<ConfigOutcome>, RegistryError> {
        self.registry.take_up_unplaced().await?;
        self.registry.release_stops(self.read).await?;
        match &self.file {
            Some(config) => self.reloader.begin(config).await,
            None => Ok(None),
        }
    }

    /// Of several replicas, and with something to go on with.
    fn can_wait(&self, error: &RegistryError) -> bool {
        let begun = self.registry.config().revision > 0 || !self.registry.services().is_empty();
        matches!(error, RegistryError::Store(_)) && error.is_retryable() && begun && !self.registry.place().is_sole()
    }

    async fn go_on(&mut self) {
        let mut pause = FIRST_PAUSE;
        loop {
            tokio::time::sleep(pause).await;
            if self.registry.is_closed() {
                return;
            }
            match self.step().await {
                Err(error) if self.can_wait(&error) => {}
                Err(error) => return self.reloader.refused(error),
                Ok(_) => return tracing::info!("what could not be written at the start has been written"),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}
