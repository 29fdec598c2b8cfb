//! What all actors of a supervisor share, and what it adds to the environment of instances.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use coredinator_core::{ServiceName, ServiceSpec, SharedClock};
use coredinator_registry::Registry;
use tokio::sync::{Semaphore, watch};

use crate::{Runtimes, slot::Now};

/// How many documents are written at the same time.
const WRITING: usize = 4;

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

    /// What coredinator adds to the environment of a service's instances.
    pub(crate) async fn environment(&self, spec: &ServiceSpec, generation: u64) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        if let Some(url) = &self.url {
            environment.insert("COREDINATOR_URL".to_owned(), url.clone());
        }
        if let Some(path) = self.document(spec, generation).await {
            environment.insert("COREDINATOR_CONFIG_FILE".to_owned(), path);
        }
        environment
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
        if let Some(directory) = self.document_dir.as_ref().filter(|_| written.is_some()) {
            let path = directory.join(format!("{name}.json"));
            if let Err(error) = tokio::fs::remove_file(&path).await {
                tracing::warn!(service = %name, %error, path = %path.display(), "its document stays");
            }
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
