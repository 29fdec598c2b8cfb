//! The directory in which coredinator keeps what it must not lose, for one coredinator at a time.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

/// A data directory, locked for as long as this lives.
///
/// Guarantees: the lock is taken before anything else in the directory is touched; the kernel gives it back when the
/// process ends, however it ends, so that there is no stale lock. Children do not inherit it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// Held, not used: its lock ends when it is closed.
    _lock: File,
}

/// Why a data directory cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// Another coredinator has it.
    #[error(
        "{} is in use by another coredinator{}: stop that one first, or give this one a data directory of its own", .path.display(),
        .pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that has it, as far as it has said.
        pid: Option<u32>,
    },
    /// It cannot be created, read or written.
    #[error("{} cannot be used as a data directory", .path.display())]
    Inaccessible {
        /// What it was about.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How often, and how long in between, the lock of somebody who has ended is tried again: 3 s in all.
const LOOKS: u32 = 600;
const PAUSE: Duration = Duration::from_millis(5);

/// Whether this process has surely ended: it is not there, or only waits to be reaped.
fn has_ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    match stat {
        // The state follows the name, which stands in parentheses and may hold some.
        Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])),
        Err(error) => error.kind() == io::ErrorKind::NotFound && Path::new("/proc/self").exists(),
    }
}

impl DataDirError {
    /// Whether the same call may succeed later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }
}

impl DataDir {
    /// Creates the directory if it is absent (with its parents, for the owner alone), locks it, and creates what belongs
    /// in it. Waits for nobody who lives; what a killed coredinator was starting at that moment may hold its lock until its
    /// program is loaded, a matter of milliseconds.
    ///
    /// # Errors
    /// [`DataDirError::InUse`] at once when another process has it; then nothing was touched.
    /// [`DataDirError::Inaccessible`] otherwise.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, DataDirError> {
        let inaccessible = |path: &Path| {
            let path = path.to_owned();
            move |source| DataDirError::Inaccessible { path, source }
        };
        let create = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
        let given = path.as_ref();
        create(given).map_err(inaccessible(given))?;
        // Absolute, so that what is handed to children means the same in their working directories.
        let path = given.canonicalize().map_err(inaccessible(given))?;

        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(inaccessible(&lock_path))?;
        let mut looks = 0;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    // Whose it is, is only told if it can be.
                    let pid = std::fs::read_to_string(&lock_path).ok().and_then(|text| text.trim().parse().ok());
                    if looks == LOOKS || !pid.is_some_and(has_ended) {
                        return Err(DataDirError::InUse { path, pid });
                    }
                    looks += 1;
                    std::thread::park_timeout(PAUSE);
                }
                Err(TryLockError::Error(source)) => return Err(inaccessible(&lock_path)(source)),
            }
        }
        let sign = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        // On a full disk the lock holds all the same, unsigned.
        if let Err(error) = sign(&mut lock) {
            tracing::warn!(file = %lock_path.display(), %error, "the lock file could not be signed");
        }
        let dir = Self { path, _lock: lock };
        for inner in [dir.logs(), dir.run()] {
            create(&inner).map_err(inaccessible(&inner))?;
        }
        Ok(dir)
    }

    /// The directory itself, absolute.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of the embedded store.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.path.join("store.sqlite")
    }

    /// The directory of the instances' output.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    /// The directory of what runtimes keep while instances run.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.path.join("run")
    }
}
