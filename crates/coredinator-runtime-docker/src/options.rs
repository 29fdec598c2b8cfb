//! What a service's document says of its container.

use std::{collections::BTreeMap, num::NonZeroU16};

use coredinator_core::{
    FieldError, ServiceSpec,
    field::{FieldReader, join, kind},
    parse_command, size,
};
use serde_json::{Map, Value};

type Errors = Vec<FieldError>;

/// When an image is fetched from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// Where the engine does not have it.
    #[default]
    Missing,
    /// Before every start.
    Always,
    /// Never: one that the engine does not have is a reason not to start.
    Never,
}

/// The network that a container is born into, where it is none of `networks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// The machine's own: the port inside is the port outside.
    Host,
    /// None but its own loopback; it is reached nowhere.
    None,
    /// The engine's default bridge.
    Bridge,
}

/// Something of outside that a container sees inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What it is.
    pub kind: MountKind,
    /// Where it appears; absolute.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A path of the engine's machine; absolute.
    Bind(String),
    /// A volume by its name; `None`: an anonymous one, which goes with the container.
    Volume(Option<String>),
    /// Memory.
    Tmpfs,
}

/// The graphics processors that a container may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gpus {
    /// All that there are.
    All,
    /// Any so many, at least 1.
    Count(u32),
    /// These, by number or UUID.
    Ids(Vec<String>),
}

/// How much a container may use; `None`: no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Billionths of a processor, as the engine counts.
    pub nano_cpus: Option<i64>,
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// Graphics processors; `None`: none.
    pub gpus: Option<Gpus>,
}

/// A limit of `setrlimit`; -1: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// What a process may raise its own limit to is `hard`; it starts with this.
    pub soft: i64,
    /// At least `soft`.
    pub hard: i64,
}

/// A device of the engine's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its path outside.
    pub host: String,
    /// Its path inside.
    pub container: String,
    /// Some of `rwm`: read, write, make.
    pub permissions: String,
}

/// The keys of a service's document that this runtime understands beyond those of every runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerOptions {
    /// The image.
    pub image: String,
    /// Instead of the image's own; empty: that.
    pub entrypoint: Vec<String>,
    /// What the program listens on inside; `None`: the port at which it is reached.
    pub container_port: Option<NonZeroU16>,
    /// When the image is fetched.
    pub pull: Pull,
    /// In order.
    pub mounts: Vec<Mount>,
    /// Named networks that it joins, in order.
    pub networks: Vec<String>,
    /// Excludes `networks`.
    pub network_mode: Option<NetworkMode>,
    /// User, or `user:group`; `None`: the image's.
    pub user: Option<String>,
    /// Its limits.
    pub resources: Resources,
    /// Whether its root file system cannot be written to.
    pub read_only: bool,
    /// Whether the engine's init is process 1: it hands signals on, so that a program which does not handle SIGTERM ends by
    /// it as it would outside of a container, and it reaps what is orphaned. True unless said otherwise.
    pub init: bool,
    /// Names that resolve to addresses, beside DNS.
    pub extra_hosts: BTreeMap<String, String>,
    /// By name.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// In order.
    pub devices: Vec<Device>,
    /// Bytes of `/dev/shm`; `None`: the engine's default.
    pub shm_size: Option<i64>,
    /// Capabilities beyond the engine's default set.
    pub cap_add: Vec<String>,
    /// Capabilities taken from it.
    pub cap_drop: Vec<String>,
}

impl DockerOptions {
    /// Reads them; pointers are relative to the spec.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn parse(spec: &ServiceSpec) -> Result<Self, Errors> {
        Self::read("", &spec.options)
    }

    fn read(pointer: &str, options: &Map<String, Value>) -> Result<Self, Errors> {
        let mut reader = FieldReader::new(pointer, Value::Object(options.clone()));
        let image: Option<String> = reader.optional("image");
        if image.is_none() && reader.is_clean() {
            reader.error("image", "a service that runs as a container needs an image");
        } else if image.as_deref().is_some_and(|image| image.is_empty() || image.contains(char::is_whitespace)) {
            reader.error("image", "must be an image's name, such as registry/name:tag");
        }
        let read = Self {
            image: image.unwrap_or_default(),
            entrypoint: reader.parsed("entrypoint", parse_command).unwrap_or_default(),
            container_port: reader.optional("container_port"),
            pull: reader.parsed("pull", |at, value| parse_pull(at, &value)).unwrap_or_default(),
            mounts: reader.parsed("mounts", |at, value| each(at, value, parse_mount)).unwrap_or_default(),
            networks: reader.or("networks", Vec::new()),
            network_mode: reader.parsed("network_mode", |at, value| parse_network_mode(at, &value)),
            user: reader.optional("user"),
            resources: reader.parsed("resources", parse_resources).unwrap_or_default(),
            read_only: reader.or("read_only", false),
            init: reader.or("init", true),
            extra_hosts: reader.parsed("extra_hosts", parse_hosts).unwrap_or_default(),
            ulimits: reader.parsed("ulimits", parse_ulimits).unwrap_or_default(),
            devices: reader.parsed("devices", |at, value| each(at, value, parse_device)).unwrap_or_default(),
            shm_size: reader.parsed("shm_size", |at, value| parse_size(at, &value)),
            cap_add: reader.or("cap_add", Vec::new()),
            cap_drop: reader.or("cap_drop", Vec::new()),
        };
        if read.network_mode.is_some() && !read.networks.is_empty() {
            reader.error("network_mode", "excludes networks");
        }
        reader.finish(|| read)
    }
}

fn fail<T>(pointer: &str, detail: impl Into<String>) -> Result<T, Errors> {
    Err(vec![FieldError::new(pointer, detail)])
}

/// Reads a list, telling the errors of all of its elements.
fn each<T>(pointer: &str, value: Value, parse: impl Fn(&str, &Value) -> Result<T, Errors>) -> Result<Vec<T>, Errors> {
    let Value::Array(list) = value else {
        return fail(pointer, format!("expected a list, but found {}", kind(&value)));
    };
    let (mut read, mut errors) = (Vec::new(), Vec::new());
    for (index, element) in list.iter().enumerate() {
        match parse(&join(pointer, &index.to_string()), element) {
            Ok(element) => read.push(element),
            Err(wrong) => errors.extend(wrong),
        }
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

fn parse_pull(pointer: &str, value: &Value) -> Result<Pull, Errors> {
    match value.as_str() {
        Some("missing") => Ok(Pull::Missing),
        Some("always") => Ok(Pull::Always),
        Some("never") => Ok(Pull::Never),
        _ => fail(pointer, format!("expected missing, always or never, but found {value}")),
    }
}

fn parse_network_mode(pointer: &str, value: &Value) -> Result<NetworkMode, Errors> {
    match value.as_str() {
        Some("host") => Ok(NetworkMode::Host),
        Some("none") => Ok(NetworkMode::None),
        Some("bridge") => Ok(NetworkMode::Bridge),
        _ => fail(pointer, format!("expected host, none or bridge, but found {value}")),
    }
}

fn parse_size(pointer: &str, value: &Value) -> Result<i64, Errors> {
    size::bytes(value).or_else(|detail| fail(pointer, detail))
}

/// `source:target[:ro|:rw]`, `target` alone, or the long form.
fn parse_mount(pointer: &str, value: &Value) -> Result<Mount, Errors> {
    let Some(text) = value.as_str() else { return parse_long_mount(pointer, value.clone()) };
    let (source, target, mode) = match *text.split(':').collect::<Vec<_>>() {
        [target] => (None, target, "rw"),
        [source, target] => (Some(source), target, "rw"),
        [source, target, mode] => (Some(source), target, mode),
        _ => return fail(pointer, "expected source:target or source:target:ro"),
    };
    let read_only = match mode {
        "ro" => true,
        "rw" => false,
        other => return fail(pointer, format!("expected ro or rw, but found {other:?}")),
    };
    let kind = match source {
        Some(path) if path.starts_with('/') => MountKind::Bind(path.to_owned()),
        Some(path) if path.is_empty() || path.starts_with(['.', '~']) => {
            return fail(pointer, format!("the source must be an absolute path or a volume's name, but is {path:?}"));
        }
        name => MountKind::Volume(name.map(str::to_owned)),
    };
    checked(pointer, Mount { kind, target: target.to_owned(), read_only })
}

fn parse_long_mount(pointer: &str, value: Value) -> Result<Mount, Errors> {
    let mut reader = FieldReader::new(pointer, value);
    let (wanted, source): (Option<String>, Option<String>) = (reader.optional("type"), reader.optional("source"));
    let target: Option<String> = reader.optional("target");
    let read_only = reader.or("read_only", false);
    let kind = match (wanted.as_deref(), source) {
        (Some("bind"), Some(path)) if path.starts_with('/') => MountKind::Bind(path),
        (Some("bind"), _) => {
            reader.error("source", "a bind mount needs an absolute path");
            MountKind::Tmpfs
        }
        (Some("volume"), name) => MountKind::Volume(name),
        (Some("tmpfs"), None) => MountKind::Tmpfs,
        (Some("tmpfs"), Some(_)) => {
            reader.error("source", "a tmpfs has no source");
            MountKind::Tmpfs
        }
        _ => {
            reader.error("type", "expected bind, volume or tmpfs");
            MountKind::Tmpfs
        }
    };
    let mount = reader.finish(|| Mount { kind, target: target.unwrap_or_default(), read_only })?;
    checked(pointer, mount)
}

fn checked(pointer: &str, mount: Mount) -> Result<Mount, Errors> {
    if mount.target.starts_with('/') && mount.target.len() > 1 {
        return Ok(mount);
    }
    fail(pointer, format!("the target must be an absolute path below /, but is {:?}", mount.target))
}

fn parse_resources(pointer: &str, value: Value) -> Result<Resources, Errors> {
    let mut reader = FieldReader::new(pointer, value);
    let read = Resources {
        nano_cpus: reader.parsed("cpus", |at, value| parse_cpus(at, &value)),
        memory: reader.parsed("memory", |at, value| parse_size(at, &value)),
        pids: reader.optional("pids"),
        gpus: reader.parsed("gpus", |at, value| parse_gpus(at, &value)),
    };
    if read.pids.is_some_and(|pids| pids < 1) {
        reader.error("pids", "must be at least 1");
    }
    reader.finish(|| read)
}

fn parse_cpus(pointer: &str, value: &Value) -> Result<i64, Errors> {
    let cpus = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    match cpus {
        // The kernel shares out time in no finer parts, and no machine has more.
        Some(cpus) if (0.001..=100_000.0).contains(&cpus) => {
            #[expect(clippy::cast_possible_truncation, reason = "at most 1e14")]
            let nano = (cpus * 1e9).round() as i64;
            Ok(nano)
        }
        _ => fail(pointer, format!("expected a number of processors such as 0.5, but found {value}")),
    }
}

fn parse_gpus(pointer: &str, value: &Value) -> Result<Gpus, Errors> {
    let read = match value {
        Value::String(all) if all == "all" => Some(Gpus::All),
        Value::Number(count) => {
            count.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|&count| count > 0).map(Gpus::Count)
        }
        Value::Array(ids) if !ids.is_empty() => {
            ids.iter().map(|id| id.as_str().map(str::to_owned)).collect::<Option<_>>().map(Gpus::Ids)
        }
        _ => None,
    };
    read.map_or_else(|| fail(pointer, format!("expected all, a count or a list of ids, but found {value}")), Ok)
}

/// A map, or Compose's list of `name:address` or `name=address`.
fn parse_hosts(pointer: &str, value: Value) -> Result<BTreeMap<String, String>, Errors> {
    let pair = |at: &str, name: &str, address: &str| {
        if name.is_empty() || address.is_empty() {
            return fail(at, "expected a name and an address");
        }
        Ok((name.to_owned(), address.to_owned()))
    };
    let pairs = match value {
        Value::Object(map) => map
            .iter()
            .map(|(name, address)| pair(&join(pointer, name), name, address.as_str().unwrap_or_default()))
            .collect::<Result<Vec<_>, _>>()?,
        list => each(pointer, list, |at, entry| {
            let entry = entry.as_str().unwrap_or_default();
            let (name, address) = entry.split_once('=').or_else(|| entry.split_once(':')).unwrap_or_default();
            pair(at, name, address)
        })?,
    };
    Ok(pairs.into_iter().collect())
}

fn parse_ulimits(pointer: &str, value: Value) -> Result<BTreeMap<String, Ulimit>, Errors> {
    let Value::Object(map) = value else { return fail(pointer, format!("expected a map, but found {}", kind(&value))) };
    let (mut read, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, value) in map {
        match parse_ulimit(&join(pointer, &name), value) {
            Ok(limit) => drop(read.insert(name, limit)),
            Err(wrong) => errors.extend(wrong),
        }
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

fn parse_ulimit(pointer: &str, value: Value) -> Result<Ulimit, Errors> {
    let limit = if let Some(both) = value.as_i64() {
        Ulimit { soft: both, hard: both }
    } else {
        let mut reader = FieldReader::new(pointer, value);
        let (soft, hard) = (reader.optional("soft"), reader.optional("hard"));
        if soft.is_none() || hard.is_none() {
            let missing = if soft.is_none() { "soft" } else { "hard" };
            reader.error(missing, "a limit needs soft and hard");
        }
        reader.finish(|| Ulimit { soft: soft.unwrap_or_default(), hard: hard.unwrap_or_default() })?
    };
    let above = limit.hard != -1 && (limit.soft == -1 || limit.soft > limit.hard);
    if limit.soft < -1 || limit.hard < -1 || above {
        return fail(pointer, format!("soft ({}) must not exceed hard ({}); -1: none", limit.soft, limit.hard));
    }
    Ok(limit)
}

/// `host[:container[:rwm]]`.
fn parse_device(pointer: &str, value: &Value) -> Result<Device, Errors> {
    let parts: Vec<&str> = value.as_str().unwrap_or_default().split(':').collect();
    let (host, container, permissions) = match *parts {
        [host] => (host, host, "rwm"),
        [host, container] => (host, container, "rwm"),
        [host, container, permissions] => (host, container, permissions),
        _ => return fail(pointer, "expected host:container:permissions"),
    };
    let known = !permissions.is_empty() && permissions.chars().all(|c| "rwm".contains(c));
    if !host.starts_with('/') || !container.starts_with('/') || !known {
        return fail(pointer, format!("expected a device such as /dev/dri:/dev/dri:rwm, but found {value}"));
    }
    Ok(Device { host: host.to_owned(), container: container.to_owned(), permissions: permissions.to_owned() })
}

#[cfg(test)]
mod tests;
