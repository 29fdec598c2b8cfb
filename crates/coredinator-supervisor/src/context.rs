//! What all actors of a supervisor share, and what it adds to the environment of instances.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use coredinator_core::{
    FieldErrors, Reason, ServiceName, ServiceSpec, SharedClock,
    config::{self, SecretRef},
};
use coredinator_registry::Registry;
use serde_json::{Map, Value};
use tokio::sync::{Semaphore, watch};

use crate::{Runtimes, slot::Now};

/// How many documents are written at the same time.
const WRITING: usize = 4;
/// The longest secret, in bytes.
const MAX_SECRET: u64 = 1 << 20;

/// What a supervisor is made of.
#[derive(Clone)]
pub struct SupervisorOptions {
    /// What is wanted, and where what is observed goes.
    pub registry: Registry,
    /// What runs it.
    pub runtimes: Runtimes,
    /// What stamps.
    pub clock: SharedClock,
    /// Where the chance in back-off starts. Ids of instances are drawn from the same source, so it must never be the same
    /// twice outside of tests.
    pub seed: u64,
    /// Where services reach coredinator: given to them as `COREDINATOR_URL`.
    pub url: Option<String>,
    /// Where each service's own document is written for it, named to it by `COREDINATOR_CONFIG_FILE`.
    pub document_dir: Option<PathBuf>,
}

/// What all actors share.
pub(crate) struct Context {
    pub(crate) registry: Registry,
    pub(crate) runtimes: Runtimes,
    pub(crate) clock: SharedClock,
    seed: AtomicU64,
    url: Option<String>,
    document_dir: Option<PathBuf>,
    /// Which generation of each service's document has been written.
    documents: Mutex<BTreeMap<ServiceName, u64>>,
    /// Rises when something of a service that is gone may have been left with its runtime.
    pub(crate) leftovers: watch::Sender<u64>,
    /// Turns for writing them: many threads that write small files to one disk only cost memory.
    writing: Semaphore,
}

impl Context {
    pub(crate) fn new(options: SupervisorOptions) -> Self {
        let SupervisorOptions { registry, runtimes, clock, seed, url, document_dir } = options;
        Self {
            registry,
            runtimes,
            clock,
            seed: AtomicU64::new(seed),
            url,
            document_dir,
            documents: Mutex::default(),
            leftovers: watch::Sender::new(0),
            writing: Semaphore::new(WRITING),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: tokio::time::Instant::now().into_std(), wall: self.clock.now() }
    }

    /// Says that something of a service that is gone may have been left with its runtime.
    pub(crate) fn note_leftovers(&self) {
        self.leftovers.send_modify(|count| *count += 1);
    }

    pub(crate) fn next_seed(&self) -> u64 {
        // The odd constant of a Weyl sequence: successive seeds differ in many bits.
        self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
    }

    /// What coredinator adds to the environment of an instance, whose file is written before.
    ///
    /// # Errors
    /// Why its configuration document cannot be given to it.
    pub(crate) async fn environment(
        &self,
        spec: &ServiceSpec,
        generation: u64,
        replica: u32,
        config: Option<(u64, Map<String, Value>)>,
    ) -> Result<BTreeMap<String, String>, Reason> {
        let mut environment = BTreeMap::new();
        if let Some(url) = &self.url {
            environment.insert("COREDINATOR_URL".to_owned(), url.clone());
        }
        let path = match config {
            Some((revision, document)) => {
                environment.insert("COREDINATOR_CONFIG_REVISION".to_owned(), revision.to_string());
                let written = self.write_config(&spec.name, replica, document).await;
                let written = written.map_err(|error| Reason::new("ConfigUnavailable", error))?;
                written.and_then(|path| path.to_str().map(str::to_owned))
            }
            None => self.document(spec, generation).await,
        };
        if let Some(path) = path {
            environment.insert("COREDINATOR_CONFIG_FILE".to_owned(), path);
        }
        Ok(environment)
    }

    /// Where the configuration document of a replica is written for it; `None` where nothing is.
    pub(crate) fn config_path(&self, name: &ServiceName, replica: u32) -> Option<PathBuf> {
        // No service's name holds a dot, so this is no service's own document.
        self.document_dir.as_ref().map(|directory| directory.join(format!("{name}.{replica}.json")))
    }

    /// Writes the configuration document of a replica, its secrets put in place, and answers where; `None` where nothing is
    /// written.
    ///
    /// # Errors
    /// Why it cannot be written; the old one is there then.
    pub(crate) async fn write_config(
        &self,
        name: &ServiceName,
        replica: u32,
        mut document: Map<String, Value>,
    ) -> Result<Option<PathBuf>, String> {
        let Some(path) = self.config_path(name, replica) else { return Ok(None) };
        let _turn = self.writing.acquire().await.map_err(|error| error.to_string())?;
        let target = path.clone();
        let writing = tokio::task::spawn_blocking(move || {
            config::fill_secrets(&mut document, &mut read_secret).map_err(|errors| FieldErrors(errors).to_string())?;
            let content = serde_json::to_vec_pretty(&document).map_err(|error| error.to_string())?;
            write_private(&target, &content).map_err(|error| format!("{}: {error}", target.display()))
        });
        let written = writing.await.map_err(|error| error.to_string())?;
        written.map_err(|error| format!("its configuration cannot be written: {error}"))?;
        Ok(Some(path))
    }

    /// Takes away the configuration documents of replicas that are gone.
    async fn forget_configs(&self, directory: &Path, name: &ServiceName) {
        let Ok(mut entries) = tokio::fs::read_dir(directory).await else { return };
        let prefix = format!("{name}.");
        while let Ok(Some(entry)) = entries.next_entry().await {
            let file = entry.file_name();
            let rest = file.to_str().and_then(|file| file.strip_prefix(&prefix)?.strip_suffix(".json"));
            if rest.is_some_and(|replica| replica.parse::<u32>().is_ok())
                && let Err(error) = tokio::fs::remove_file(entry.path()).await
            {
                tracing::warn!(service = %name, %error, path = %entry.path().display(), "its document stays");
            }
        }
    }

    /// Writes a service's document once a generation; `None` if it cannot be written, which holds up no start.
    async fn document(&self, spec: &ServiceSpec, generation: u64) -> Option<String> {
        let path = self.document_dir.as_ref()?.join(format!("{}.json", spec.name));
        let documents = || self.documents.lock().unwrap_or_else(PoisonError::into_inner);
        if documents().get(&spec.name) != Some(&generation) {
            let (target, content) = (path.clone(), serde_json::to_vec_pretty(spec).ok()?);
            let _turn = self.writing.acquire().await.ok()?;
            let written = tokio::task::spawn_blocking(move || write_private(&target, &content)).await;
            if let Ok(Err(error)) = written {
                tracing::warn!(service = %spec.name, %error, path = %path.display(), "its document cannot be written");
                return None;
            }
            documents().insert(spec.name.clone(), generation);
        }
        path.to_str().map(str::to_owned)
    }

    /// Takes away the document of a service that is gone: the next one of its name begins at generation 1 again.
    pub(crate) async fn forget_document(&self, name: &ServiceName) {
        let written = self.documents.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        if let Some(directory) = &self.document_dir {
            self.forget_configs(directory, name).await;
        }
        if let Some(directory) = self.document_dir.as_ref().filter(|_| written.is_some()) {
            let path = directory.join(format!("{name}.json"));
            if let Err(error) = tokio::fs::remove_file(&path).await {
                tracing::warn!(service = %name, %error, path = %path.display(), "its document stays");
            }
        }
    }
}

/// Reads a secret that a document refers to.
///
/// # Errors
/// Why it cannot be read; the secret is not in it.
pub fn read_secret(secret: SecretRef<'_>) -> Result<String, String> {
    match secret {
        SecretRef::Env(name) => std::env::var(name).map_err(|_| format!("variable {name} is not set for coredinator")),
        SecretRef::File(path) => {
            use std::io::Read as _;
            let mut text = String::new();
            let file = std::fs::File::open(path).map_err(|error| format!("{path}: {error}"))?;
            file.take(MAX_SECRET + 1).read_to_string(&mut text).map_err(|error| format!("{path}: {error}"))?;
            if text.len() as u64 > MAX_SECRET {
                return Err(format!("{path}: a secret has at most {MAX_SECRET} bytes"));
            }
            Ok(text.trim_end_matches(['\n', '\r']).to_owned())
        }
    }
}

/// Writes a file that only its owner can read, so that readers see the old content or the new one.
fn write_private(path: &std::path::Path, content: &[u8]) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let temporary = path.with_extension(format!("{:016x}.tmp", fastrand::u64(..)));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(content).and_then(|()| std::fs::rename(&temporary, path)).inspect_err(|_| {
        // Nothing more can be done about a file that can neither be renamed nor removed.
        let _ = std::fs::remove_file(&temporary);
    })
}
