//! The probes, by the kind of check that they carry out.

mod command;
mod http;
mod native;
mod pool;
mod tcp;

use std::{collections::BTreeMap, fmt, io, sync::Arc};

use coredinator_core::{
    FieldError, HealthCheck, HealthProbe, InstanceRef, ProbeError, ProbeReport, ProbeSpec, ProbeTarget, Runtime,
    RuntimeName,
};
use tokio::net::TcpStream;

pub use command::CommandProbe;
pub use http::HttpProbe;
pub use native::NativeProbe;
pub use tcp::TcpProbe;

/// Which probe carries out which kind of check. Cheap to clone.
#[derive(Clone)]
pub struct ProbeRegistry(Arc<BTreeMap<String, Arc<dyn HealthProbe>>>);

impl ProbeRegistry {
    /// None at all; heartbeats alone, which need no probe, can be checked.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::default())
    }

    /// `http`, `tcp`, `command` and `native`. Until they are given [runtimes](Self::with_runtimes), commands run beside
    /// coredinator, and nothing tells a health of its own.
    #[must_use]
    pub fn builtin() -> Self {
        Self::empty().with(HttpProbe::new()).with(TcpProbe).with_runtimes(ProbedRuntimes::default())
    }

    /// The same with probes that reach inside the instances of these runtimes, in place of the built-in ones.
    #[must_use]
    pub fn with_runtimes(self, runtimes: ProbedRuntimes) -> Self {
        self.with(CommandProbe::new(runtimes.clone())).with(NativeProbe::new(runtimes))
    }

    /// The same with all probes of `others`, in place of those of their kinds.
    #[must_use]
    pub fn with_all(self, others: &Self) -> Self {
        let mut probes = Arc::unwrap_or_clone(self.0);
        probes.extend(others.0.iter().map(|(kind, probe)| (kind.clone(), Arc::clone(probe))));
        Self(Arc::new(probes))
    }

    /// The same with `probe` under its kind, in place of one that is there already.
    #[must_use]
    pub fn with(self, probe: impl HealthProbe) -> Self {
        let mut probes = Arc::unwrap_or_clone(self.0);
        probes.insert(probe.kind(), Arc::new(probe));
        Self(Arc::new(probes))
    }

    /// The probe for a kind of check.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<Arc<dyn HealthProbe>> {
        self.0.get(kind).cloned()
    }

    /// What is wrong with a check; pointers are relative to its section. Nothing, if the list is empty.
    #[must_use]
    pub fn validate(&self, check: &HealthCheck) -> Vec<FieldError> {
        let kind = check.probe.kind();
        match (&check.probe, self.0.get(kind)) {
            (ProbeSpec::Heartbeat { .. }, _) => Vec::new(),
            (_, Some(probe)) => probe.validate(&check.probe),
            (_, None) => {
                let mut known: Vec<&str> = self.0.keys().map(String::as_str).collect();
                known.push("heartbeat");
                let error = FieldError::new("/kind", format!("unknown kind {kind:?} (one of {})", known.join(", ")));
                vec![error.with_nearest(kind, &known)]
            }
        }
    }
}

/// The runtimes that probes may ask, by name. Cheap to clone.
#[derive(Clone, Default, Debug)]
pub struct ProbedRuntimes(Arc<BTreeMap<RuntimeName, Arc<dyn Runtime>>>);

impl ProbedRuntimes {
    /// What runs the instance that is checked, and the instance.
    fn of<'t>(&self, target: &'t ProbeTarget) -> Option<(&Arc<dyn Runtime>, &'t InstanceRef)> {
        Some((self.0.get(target.runtime.as_ref()?)?, target.instance.as_ref()?))
    }
}

impl FromIterator<Arc<dyn Runtime>> for ProbedRuntimes {
    fn from_iter<I: IntoIterator<Item = Arc<dyn Runtime>>>(runtimes: I) -> Self {
        Self(Arc::new(runtimes.into_iter().map(|runtime| (runtime.name(), runtime)).collect()))
    }
}

impl Default for ProbeRegistry {
    fn default() -> Self {
        Self::builtin()
    }
}

impl fmt::Debug for ProbeRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// The error for a spec that some other probe is meant to carry out.
fn wrong_kind(spec: &ProbeSpec, own: &str) -> FieldError {
    FieldError::new("/kind", format!("the {own} probe cannot carry out a check of kind {:?}", spec.kind()))
}

/// A check that ended before there was an answer to judge.
enum NoAnswer {
    /// The target's doing.
    Failed(String),
    /// This machine's doing: it says nothing about the target.
    NotAsked(String),
}

impl NoAnswer {
    /// Tells whose doing a failed connection is.
    fn from_io(error: &io::Error) -> Self {
        if is_local(error) { Self::NotAsked(describe(error)) } else { Self::Failed(describe(error)) }
    }

    fn report(self) -> Result<ProbeReport, ProbeError> {
        match self {
            Self::Failed(message) => Ok(ProbeReport::fail(message)),
            Self::NotAsked(message) => Err(ProbeError { message }),
        }
    }
}

/// Whether this machine, not the other side, ran out of something.
fn is_local(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let local = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    error.raw_os_error().is_some_and(|code| local.iter().any(|errno| errno.raw_os_error() == code))
}

/// An error in the words of this crate: without a number, and not starting in upper case.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "unreachable".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed without an answer".to_owned(),
        _ => error.to_string(),
    }
}

/// Connects to a name or an address; IPv6 with or without brackets.
async fn connect(host: &str, port: u16) -> Result<TcpStream, NoAnswer> {
    if port == 0 {
        return Err(NoAnswer::NotAsked("no port is known".to_owned()));
    }
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let stream = if host.eq_ignore_ascii_case("localhost") {
        // Known without asking a resolver, which would take a thread.
        let both: [std::net::IpAddr; 2] = [std::net::Ipv4Addr::LOCALHOST.into(), std::net::Ipv6Addr::LOCALHOST.into()];
        connect_either(both.map(|ip| (ip, port))).await
    } else {
        TcpStream::connect((host, port)).await
    };
    stream.map_err(|error| NoAnswer::from_io(&error))
}

/// Connects to the first that accepts; the first one's error if none does.
async fn connect_either(addresses: [(std::net::IpAddr, u16); 2]) -> io::Result<TcpStream> {
    let [first, second] = addresses;
    match TcpStream::connect(first).await {
        Ok(stream) => Ok(stream),
        Err(error) if is_local(&error) => Err(error),
        Err(error) => TcpStream::connect(second).await.map_err(|_| error),
    }
}
