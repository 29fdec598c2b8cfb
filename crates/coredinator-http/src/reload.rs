//! The file read anew while coredinator runs: all of it or nothing.

use std::sync::{Arc, Mutex, PoisonError};

use coredinator_core::{FieldError, Timestamp, field};
use coredinator_registry::{ConfigEdit, ConfigOutcome, ConfigSource, Registry, RegistryError};
use coredinator_supervisor::Runtimes;

use crate::config::{Config, LoadError, Loaded};

/// Reads the file again, with the same environment and flags as at the start.
pub type Read = Arc<dyn Fn() -> Result<Loaded, LoadError> + Send + Sync>;

/// Why the file is not in force. Everything is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// There is none that could be read again.
    #[error("coredinator was started without a file that could be read again")]
    NoFile,
    /// It is not valid.
    #[error("the file is not valid; the configuration stays as it is")]
    Load(#[from] LoadError),
    /// What it declares is refused.
    #[error("what the file declares is refused; the configuration stays as it is")]
    Refused(#[from] RegistryError),
}

/// How the file was read last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastReload {
    /// When.
    pub at: Timestamp,
    /// Why it is not in force; `None`: it is.
    pub error: Option<String>,
}

/// Reads the file anew when it is asked to. Cheap to clone.
#[derive(Clone)]
pub struct Reloader(Arc<Parts>);

struct Parts {
    name: String,
    read: Option<Read>,
    registry: Registry,
    runtimes: Runtimes,
    last: Mutex<Option<LastReload>>,
    /// One after the other.
    turn: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reloader").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl Reloader {
    pub(crate) fn new(name: &str, read: Option<Read>, registry: &Registry, runtimes: &Runtimes) -> Self {
        Self(Arc::new(Parts {
            name: name.to_owned(),
            read,
            registry: registry.clone(),
            runtimes: runtimes.clone(),
            last: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }))
    }

    /// How the file was read last; `None`: not since the start.
    #[must_use]
    pub fn last(&self) -> Option<LastReload> {
        self.0.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies the file as it was read at the start. What cannot be judged now, by nobody's fault, keeps nothing that was in
    /// force before from going on; a start without any such state needs it.
    ///
    /// # Errors
    /// As [`Registry::change_config`].
    pub(crate) async fn begin(&self, config: &Config) -> Result<Option<ConfigOutcome>, RegistryError> {
        match apply(&self.0.registry, &self.0.runtimes, config, &self.0.name).await {
            Err(error @ RegistryError::Unjudged { .. }) if self.0.registry.config().revision > 0 => {
                self.note(Some(told(&ReloadError::Refused(error))));
                Ok(None)
            }
            done => done.map(Some),
        }
    }

    /// Notes that the file, applied later than it was read, is refused.
    pub(crate) fn refused(&self, error: RegistryError) {
        self.note(Some(told(&ReloadError::Refused(error))));
    }

    /// Notes how it went, and logs what is wrong.
    fn note(&self, error: Option<String>) {
        if let Some(text) = &error {
            tracing::error!("{}: {text}", self.0.name);
        }
        let last = LastReload { at: self.0.registry.clock().now(), error };
        *self.0.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    /// Reads the file, and applies it if its content is not what it was when it was last applied.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing has been changed then, and [`last`](Self::last) tells of it.
    pub async fn reload(&self) -> Result<ConfigOutcome, ReloadError> {
        let _turn = self.0.turn.lock().await;
        let result = self.read_and_apply().await;
        self.note(result.as_ref().err().map(told));
        result
    }

    async fn read_and_apply(&self) -> Result<ConfigOutcome, ReloadError> {
        let read = self.0.read.clone().ok_or(ReloadError::NoFile)?;
        let loaded = tokio::task::spawn_blocking(move || read()).await;
        let loaded = loaded.map_err(|error| LoadError::Read {
            path: self.0.name.clone().into(),
            source: std::io::Error::other(error.to_string()),
        })??;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        let applied = apply(&self.0.registry, &self.0.runtimes, &loaded.config, &self.0.name).await;
        applied.map_err(|error| match error {
            // The file is there to show where.
            RegistryError::Invalid(errors) => {
                let problems = errors.into_iter().map(|error| loaded.problem(error.under("/coredinator"))).collect();
                ReloadError::Load(LoadError::Invalid(problems))
            }
            other => ReloadError::Refused(other),
        })
    }
}

/// An error with everything that is wrong.
fn told(error: &ReloadError) -> String {
    match error {
        ReloadError::Load(load) if !load.problems().is_empty() => {
            let problems = load.problems().iter().map(ToString::to_string);
            format!("{error}\n{}", problems.collect::<Vec<_>>().join("\n"))
        }
        other => {
            let causes = std::iter::successors(Some(other as &dyn std::error::Error), |error| error.source());
            causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
        }
    }
}

/// How often a file is applied anew because another replica changed the configuration meanwhile.
const TRIES: u32 = 10;

/// Applies what a file says, if it is not what it was when it was last applied.
///
/// # Errors
/// As [`Registry::change_config`].
pub(crate) async fn apply(
    registry: &Registry,
    runtimes: &Runtimes,
    config: &Config,
    file: &str,
) -> Result<ConfigOutcome, RegistryError> {
    let check = |spec: &coredinator_core::ServiceSpec| -> Vec<FieldError> {
        let pointer = field::join("/services", spec.name.as_str());
        runtimes.validate(spec).into_iter().map(|error| error.under(&pointer)).collect()
    };
    let errors: Vec<FieldError> = config.services.iter().flat_map(check).collect();
    if !errors.is_empty() {
        return Err(RegistryError::Invalid(errors));
    }
    let mut tries = 0;
    let outcome = loop {
        let edit = ConfigEdit::new(ConfigSource::File, "file", format!("{file} applied"));
        match registry.change_config(&config.live(), edit).await {
            // Another replica was quicker, with the same file for all that is known.
            Err(RegistryError::Stale { .. }) if tries < TRIES => {
                tries += 1;
                registry.catch_up().await?;
            }
            done => break done?,
        }
    };
    let revision = outcome.revision;
    for warning in &outcome.warnings {
        tracing::warn!("{file}: {warning}");
    }
    if outcome.skipped {
        tracing::info!(revision, "{file} is as it was when it was last applied: the configuration stays");
    } else {
        tracing::info!(revision, "{file} applied");
    }
    Ok(outcome)
}
