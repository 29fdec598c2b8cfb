//! What the runtime knows of its instances, and the blocking half of its work.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use coredinator_core::{
    Exit, InstanceId, InstanceRef, OutputStream, RuntimeError, ServiceName, ServiceSpec, SharedClock, StartRequest,
    Started, Timestamp,
};
use rustix::process::{Pid, Signal};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};
use tracing::{debug, info, warn};

use crate::{
    census::{Census, Found},
    command,
    handle::Handle,
    instance::Instance,
    logs::Logs,
    oom::OomKills,
    options::ProcessRuntimeOptions,
    pidfd::PidFd,
    ports::Ports,
    procfs::{self, Tags},
};

/// How many ends are remembered for those who ask late.
const REMEMBERED: usize = 4096;

/// How often logs are looked after.
const SWEEP: Duration = Duration::from_secs(1);

/// How many threads work at the same time. Some of them may wait for a disk or for a program that is being loaded.
const TURNS: usize = 8;

/// Ticks of a second in `/proc/<pid>/stat`: fixed in the kernel's interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// The runtime's state, shared by its handles and by the tasks that keep instances.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) clock: SharedClock,
    pub(crate) census: Census,
    pub(crate) oom: OomKills,
    pub(crate) logs: Arc<Logs>,
    owner: String,
    boot_id: String,
    ports: Ports,
    live: Mutex<HashMap<InstanceId, Arc<Instance>>>,
    ended: Mutex<EndedInstances>,
    /// Whether the processes of an earlier life are known: until then, a start looks for them itself.
    listed: AtomicBool,
    /// One instance is started or found by one thread at a time.
    locks: Vec<Mutex<()>>,
    sweeper: Mutex<Option<JoinHandle<()>>>,
    /// Turns for work that blocks.
    turns: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct EndedInstances {
    exits: HashMap<InstanceId, Exit>,
    order: VecDeque<InstanceId>,
}

/// Where an instance is.
#[derive(Debug)]
pub(crate) enum Place {
    Running(Arc<Instance>),
    /// Its end was seen.
    Ended(Exit),
    /// Its leader is not there; these are what it left.
    Gone(Vec<Found>),
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(options: ProcessRuntimeOptions) -> Result<Self, RuntimeError> {
        let boot_id = procfs::boot_id().map_err(|error| RuntimeError::internal("cannot read /proc", error))?;
        let logs = Arc::new(Logs::new(options.log_dir));
        Ok(Self {
            census: Census::new([options.owner.clone()].into_iter().chain(options.former_owner).collect()),
            oom: OomKills::new(),
            logs,
            clock: options.clock,
            owner: options.owner,
            boot_id,
            ports: Ports::new(options.ports),
            live: Mutex::default(),
            ended: Mutex::default(),
            listed: AtomicBool::new(false),
            locks: (0..256).map(|_| Mutex::default()).collect(),
            sweeper: Mutex::default(),
            turns: Arc::new(Semaphore::new(TURNS)),
        })
    }

    /// Waits for a turn to block a thread. Starts and looks through `/proc` are work for a processor: more threads than
    /// these would end nothing sooner, and each costs memory.
    pub(crate) async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.turns).acquire_owned().await.ok()
    }

    fn lock_of(&self, id: &InstanceId) -> &Mutex<()> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let slot = hasher.finish() % self.locks.len() as u64;
        &self.locks[usize::try_from(slot).unwrap_or(0)]
    }

    pub(crate) fn living(&self, id: &InstanceId) -> Option<Arc<Instance>> {
        locked(&self.live).get(id).cloned()
    }

    /// All that runs.
    pub(crate) fn instances(&self) -> Vec<Arc<Instance>> {
        locked(&self.live).values().cloned().collect()
    }

    /// The sessions of what runs, except `session`.
    pub(crate) fn sessions_but(&self, session: i32) -> HashSet<i32> {
        let live = locked(&self.live);
        live.values().map(|instance| instance.handle.pid).filter(|&pid| pid != session).collect()
    }

    /// Notes an instance's end.
    pub(crate) fn forget_instance(&self, instance: &Instance, exit: &Exit) {
        let mut ended = locked(&self.ended);
        if ended.exits.insert(instance.id.clone(), exit.clone()).is_none() {
            ended.order.push_back(instance.id.clone());
        }
        while ended.order.len() > REMEMBERED {
            if let Some(oldest) = ended.order.pop_front() {
                ended.exits.remove(&oldest);
            }
        }
        drop(ended);
        locked(&self.live).remove(&instance.id);
        self.ports.release(instance.handle.port);
        debug!(instance = %instance.id, %exit, "instance ended");
    }

    /// Starts an instance; to be called in the context of a tokio runtime, on a thread that may block.
    pub(crate) fn start(self: &Arc<Self>, request: &StartRequest) -> Result<Started, RuntimeError> {
        let _one_at_a_time = locked(self.lock_of(&request.id));
        if let Some(running) = self.living(&request.id) {
            return Ok(running.to_started());
        }
        if !self.listed.load(Ordering::Relaxed) {
            let reference = InstanceRef {
                id: request.id.clone(),
                service: request.spec.name.clone(),
                replica: request.replica,
                handle: None,
            };
            if let Place::Running(running) = self.find(&reference)? {
                return Ok(running.to_started());
            }
        }
        let port = match request.spec.port {
            0 => self
                .ports
                .allocate(request.preferred_port)
                .ok_or_else(|| RuntimeError::not_started("NoFreePort", "there is no free port left on this machine"))?,
            fixed => fixed,
        };
        self.ports.hold(port);
        let started = self.spawn(request, port);
        if started.is_err() {
            self.ports.release(port);
        }
        Ok(started?.to_started())
    }

    fn spawn(self: &Arc<Self>, request: &StartRequest, port: u16) -> Result<Arc<Instance>, RuntimeError> {
        let program = command::prepare(request, port, &self.owner)?;
        let spec = &request.spec;
        let output = |stream| self.output(&spec.name, request.replica, stream);
        let (stdout, stderr) = (output(OutputStream::Stdout)?, output(OutputStream::Stderr)?);
        let pid = program.spawn(stdout.as_fd(), stderr.as_fd()).map_err(|error| {
            let code = match error.raw_os_error() {
                Some(libc::ENOENT) => "CommandNotFound",
                Some(libc::EACCES | libc::EISDIR) => "NotExecutable",
                Some(libc::ENOEXEC) => "ExecFormatError",
                _ => "SpawnFailed",
            };
            RuntimeError::not_started(code, format!("{}: {error}", program.path.to_string_lossy()))
        })?;
        // Our child until it is reaped, and nobody else reaps it: the number is its own.
        let held = self.hold(pid, spec, port).and_then(|(handle, fd)| {
            self.keep(Instance::new(
                request.id.clone(),
                spec.name.clone(),
                request.replica,
                handle,
                self.clock.now(),
                fd,
            ))
        });
        held.inspect_err(|_| {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        })
    }

    fn hold(&self, pid: Pid, spec: &ServiceSpec, port: u16) -> Result<(Handle, PidFd), RuntimeError> {
        let failed = |error| RuntimeError::internal(format!("cannot watch process {pid:?}"), error);
        let fd = PidFd::open(pid).map_err(failed)?;
        let stat = procfs::stat(pid).map_err(failed)?;
        let stat = stat.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
        let handle = Handle {
            pid: pid.as_raw_pid(),
            start_time: stat.start_time,
            boot_id: self.boot_id.clone(),
            host: spec.host.clone(),
            port,
            log_max_size: Some(spec.logs.max_size),
            log_max_files: Some(spec.logs.max_files),
        };
        Ok((handle, fd))
    }

    /// Where output goes. To run without a log is better than not to run: a plant does not wait for disk space.
    fn output(&self, service: &ServiceName, replica: u32, stream: OutputStream) -> Result<File, RuntimeError> {
        self.logs.open(service, replica, stream).or_else(|error| {
            warn!(%service, replica, %error, "cannot write the log; output is discarded until the next start");
            File::options()
                .write(true)
                .open("/dev/null")
                .map_err(|error| RuntimeError::not_started("SpawnFailed", format!("/dev/null: {error}")))
        })
    }

    /// Takes an instance into care: from here on its end is noticed.
    fn keep(self: &Arc<Self>, instance: Instance) -> Result<Arc<Instance>, RuntimeError> {
        let instance = Arc::new(instance);
        let watched = instance.watched().map_err(|error| RuntimeError::internal("cannot watch a process", error))?;
        self.ports.hold(instance.handle.port);
        locked(&self.live).insert(instance.id.clone(), Arc::clone(&instance));
        self.logs.begin(&instance.service, instance.replica, instance.handle.retention());
        self.sweep_from_now_on();
        tokio::spawn(Arc::clone(&instance).keep(watched, Arc::clone(self)));
        Ok(instance)
    }

    /// Starts the task that looks after logs once a second, unless it runs. It ends with the runtime.
    fn sweep_from_now_on(self: &Arc<Self>) {
        let mut sweeper = locked(&self.sweeper);
        if sweeper.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let shared = Arc::downgrade(self);
        *sweeper = Some(tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(shared) = shared.upgrade() else { return };
                // A panic in it would be told by its log; the next second tries again.
                let _ = tokio::task::spawn_blocking(move || shared.sweep()).await;
            }
        }));
    }

    fn sweep(&self) {
        self.oom.rose();
        let writers = || self.instances().iter().map(|instance| (instance.service.clone(), instance.replica)).collect();
        self.logs.sweep(writers, self.clock.now());
    }

    /// Finds an instance, adopting it if it runs and is not in care yet.
    pub(crate) fn resolve(self: &Arc<Self>, instance: &InstanceRef) -> Result<Place, RuntimeError> {
        let _one_at_a_time = locked(self.lock_of(&instance.id));
        self.find(instance)
    }

    fn find(self: &Arc<Self>, instance: &InstanceRef) -> Result<Place, RuntimeError> {
        if let Some(running) = self.living(&instance.id) {
            return Ok(Place::Running(running));
        }
        if let Some(exit) = locked(&self.ended).exits.get(&instance.id) {
            return Ok(Place::Ended(exit.clone()));
        }
        if let Some(running) = self.adopt_known(instance)? {
            return Ok(Place::Running(running));
        }
        let found = self.census.of(&instance.id).map_err(unreadable)?;
        // With a handle it is known who the leader was; whoever is left then is not.
        self.adopt_found(found, instance.handle.is_none())
    }

    /// Adopts an instance by its handle, if that names a living process which does not say it is somebody else.
    fn adopt_known(self: &Arc<Self>, instance: &InstanceRef) -> Result<Option<Arc<Instance>>, RuntimeError> {
        let Some(handle) = instance.handle.as_ref().and_then(Handle::parse) else { return Ok(None) };
        let Some(fd) = handle.open(&self.boot_id).map_err(unreadable)? else { return Ok(None) };
        // A program may overwrite its environment (many do, to show a title): then the start time alone has to do.
        let tags = procfs::tags(fd.pid()).map_err(unreadable)?.unwrap_or_default();
        let foreign = |owner| !self.census.is_owned(Some(owner));
        let another = |id| id != instance.id.as_str();
        if tags.get(Tags::OWNER).is_some_and(foreign) || tags.get(Tags::INSTANCE_ID).is_some_and(another) {
            return Ok(None);
        }
        let started_at = self.wall_clock(handle.start_time);
        let (id, service) = (instance.id.clone(), instance.service.clone());
        self.keep(Instance::new(id, service, instance.replica, handle, started_at, fd)).map(Some)
    }

    /// Of the processes that carry one id, adopts the leader: the one that leads a session and is the oldest.
    fn adopt_found(self: &Arc<Self>, mut found: Vec<Found>, leader_unknown: bool) -> Result<Place, RuntimeError> {
        let leader = found
            .iter()
            .enumerate()
            .filter(|(_, found)| leader_unknown && found.leads())
            .min_by_key(|(_, found)| found.stat.start_time)
            .map(|(at, _)| at);
        let Some(Found { fd, stat, id, tags }) = leader.map(|at| found.swap_remove(at)) else {
            return Ok(Place::Gone(found));
        };
        let service = tags.get(Tags::SERVICE).and_then(|name| ServiceName::new(name).ok());
        let replica = tags.get(Tags::REPLICA).and_then(|number| number.parse().ok());
        let (Some(service), Some(replica)) = (service, replica) else {
            return Ok(Place::Gone(Vec::new()));
        };
        let handle = Handle {
            pid: fd.pid().as_raw_pid(),
            start_time: stat.start_time,
            boot_id: self.boot_id.clone(),
            host: tags.get(Tags::HOST).unwrap_or("localhost").to_owned(),
            port: tags.get(Tags::PORT).and_then(|port| port.parse().ok()).unwrap_or(0),
            log_max_size: None,
            log_max_files: None,
        };
        info!(instance = %id, pid = handle.pid, "found a running instance");
        let started_at = self.wall_clock(stat.start_time);
        self.keep(Instance::new(id, service, replica, handle, started_at, fd)).map(Place::Running)
    }

    /// Adopts all that is alive; answers it, and the processes of instances whose leader is gone.
    pub(crate) fn list(self: &Arc<Self>, known: &[InstanceRef]) -> Result<(Vec<Started>, Vec<Found>), RuntimeError> {
        for instance in known {
            let _one_at_a_time = locked(self.lock_of(&instance.id));
            if self.living(&instance.id).is_none() {
                self.adopt_known(instance)?;
            }
        }
        let mut by_id: BTreeMap<InstanceId, Vec<Found>> = BTreeMap::new();
        for found in self.census.all().map_err(unreadable)? {
            by_id.entry(found.id.clone()).or_default().push(found);
        }
        let mut left = Vec::new();
        for (id, found) in by_id {
            let _one_at_a_time = locked(self.lock_of(&id));
            if self.living(&id).is_some() {
                continue;
            }
            let leader_known = known.iter().any(|instance| instance.id == id && instance.handle.is_some())
                || locked(&self.ended).exits.contains_key(&id);
            if let Place::Gone(remains) = self.adopt_found(found, !leader_known)? {
                left.extend(remains);
            }
        }
        self.listed.store(true, Ordering::Relaxed);
        let mut all: Vec<Started> = self.instances().iter().map(|instance| instance.to_started()).collect();
        all.sort_by(|a, b| a.instance.id.cmp(&b.instance.id));
        Ok((all, left))
    }

    /// When a process started, by the wall clock.
    fn wall_clock(&self, start_time: u64) -> Timestamp {
        let now = self.clock.now();
        #[expect(clippy::cast_precision_loss, reason = "ticks since boot stay exact for millions of years")]
        let age = procfs::uptime_seconds().map_or(0.0, |uptime| uptime - start_time as f64 / TICKS_PER_SECOND);
        let age = Duration::try_from_secs_f64(age.max(0.0)).unwrap_or_default();
        now.checked_sub(age).unwrap_or(now)
    }
}

fn unreadable(error: std::io::Error) -> RuntimeError {
    RuntimeError::internal("cannot read /proc", error)
}
