//! The output of instances: `<log_dir>/<service>/<replica>.{stdout,stderr}.log`, rotated to `.log.1`, `.log.2`, ….
//!
//! Instances append to the file themselves, so that nothing is lost while coredinator is away. Once a second a sweep notes
//! how far each file has grown (`.log.marks`, by which lines get their time) and rotates what has grown too large. Read one
//! after the other, the files of a stream are all its bytes; a line may go on from one file into the next.

mod file;
mod lines;
mod marks;
mod query;

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use coredinator_core::{LogRetention, OutputStream, ServiceName, Timestamp};
use tracing::warn;

use self::file::StreamFile;
pub(crate) use self::query::read;

const STREAMS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

type StreamKey = (ServiceName, u32, OutputStream);

/// Where output is kept.
#[derive(Debug)]
pub(crate) struct Logs {
    dir: PathBuf,
    files: Mutex<HashMap<StreamKey, Arc<StreamFile>>>,
    /// What is written to, and how much of it is kept.
    written: Mutex<HashMap<(ServiceName, u32), LogRetention>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn word(stream: OutputStream) -> &'static str {
    match stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    }
}

impl Logs {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, files: Mutex::default(), written: Mutex::default() }
    }

    /// Opens a stream's file for an instance to append to.
    pub(crate) fn open(&self, service: &ServiceName, replica: u32, stream: OutputStream) -> io::Result<File> {
        let file = self.file(service, replica, stream);
        let open = || File::options().create(true).append(true).open(file.path());
        open().or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                return Err(error);
            }
            fs::create_dir_all(self.dir.join(service.as_str()))?;
            open()
        })
    }

    /// Notes that an instance writes: sweeps look after its files from now on.
    pub(crate) fn begin(&self, service: &ServiceName, replica: u32, retention: LogRetention) {
        locked(&self.written).insert((service.clone(), replica), retention);
    }

    /// Marks the time in whatever has grown and rotates what is too large. `writers` says whose files may still grow; those
    /// of others are seen to once more and then left alone.
    pub(crate) fn sweep(&self, writers: impl Fn() -> HashSet<(ServiceName, u32)>, now: Timestamp) {
        let before = writers();
        let written = locked(&self.written).clone();
        for ((service, replica), retention) in written {
            for stream in STREAMS {
                let file = self.file(&service, replica, stream);
                if let Err(error) = file.sweep(retention, now) {
                    warn!(path = %file.path().display(), %error, "cannot look after a log");
                }
            }
        }
        // Looked at again under the lock, as one may have begun meanwhile; it is a writer before it begins.
        let mut written = locked(&self.written);
        let after = writers();
        written.retain(|key, _| before.contains(key) || after.contains(key));
    }

    /// Deletes all output of a service.
    pub(crate) fn forget(&self, service: &ServiceName) -> io::Result<()> {
        locked(&self.written).retain(|(name, _), _| name != service);
        locked(&self.files).retain(|(name, ..), _| name != service);
        // A service's name is a DNS label: it cannot lead out of the directory.
        match fs::remove_dir_all(self.dir.join(service.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn file(&self, service: &ServiceName, replica: u32, stream: OutputStream) -> Arc<StreamFile> {
        let mut files = locked(&self.files);
        let file = files.entry((service.clone(), replica, stream)).or_insert_with(|| {
            let name = format!("{replica}.{}.log", word(stream));
            Arc::new(StreamFile::new(self.dir.join(service.as_str()).join(name)))
        });
        Arc::clone(file)
    }

    /// The replicas that have written anything, in order.
    fn replicas(&self, service: &ServiceName) -> Vec<u32> {
        let Ok(entries) = fs::read_dir(self.dir.join(service.as_str())) else { return Vec::new() };
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".stdout.log")?.parse().ok();
        let mut replicas: Vec<u32> = entries.filter_map(|entry| number(entry.ok()?)).collect();
        replicas.sort_unstable();
        replicas
    }
}
