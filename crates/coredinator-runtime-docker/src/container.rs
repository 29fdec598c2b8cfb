//! From a service to what the engine is asked to make.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, DeviceMapping, DeviceRequest, HostConfig, HostConfigLogConfig, Mount as EngineMount,
    MountType, PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use coredinator_core::{ServiceSpec, StartRequest};

use crate::{
    engine::is_here,
    files,
    labels::Tags,
    options::{DockerOptions, Gpus, Mount, MountKind, NetworkMode},
};

/// What a program listens on inside where neither `container_port` nor `port` says it; `PORT` tells it.
const INSIDE: u16 = 8080;

/// How a container is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It is not: it has no network.
    Nowhere,
    /// At the machine's own port, which is the program's.
    Machine(u16),
    /// At a port of the machine that leads to the program's. `outside` 0: the engine's choice.
    Published { inside: u16, outside: u16 },
}

impl Reach {
    /// How a spec's container is reached; `None`: on the machine's network, at a port that is still to be found.
    pub(crate) fn of(spec: &ServiceSpec, options: &DockerOptions) -> Option<Self> {
        let inside = options.container_port.map_or(spec.port, std::num::NonZeroU16::get);
        match options.network_mode {
            Some(NetworkMode::None) => Some(Self::Nowhere),
            Some(NetworkMode::Host) => (inside != 0).then_some(Self::Machine(inside)),
            Some(NetworkMode::Bridge) | None => {
                Some(Self::Published { inside: if inside == 0 { INSIDE } else { inside }, outside: spec.port })
            }
        }
    }

    fn inside(self) -> u16 {
        match self {
            Self::Nowhere => 0,
            Self::Machine(port) | Self::Published { inside: port, .. } => port,
        }
    }
}

/// What the engine is asked to make.
///
/// `host` is where what is published is reached.
pub(crate) fn body(
    request: &StartRequest,
    options: &DockerOptions,
    owner: &str,
    host: &str,
    reach: Reach,
) -> ContainerCreateBody {
    let spec = &request.spec;
    let expand = |text: &String| expand(text, reach.inside(), host, request.replica);
    let words = |words: &[String]| (!words.is_empty()).then(|| words.iter().map(expand).collect());
    let exposed = matches!(reach, Reach::Published { .. }).then(|| vec![format!("{}/tcp", reach.inside())]);
    ContainerCreateBody {
        image: Some(options.image.clone()),
        entrypoint: words(&options.entrypoint),
        cmd: words(&spec.command),
        env: Some(environment(request, host, reach.inside())),
        user: options.user.clone(),
        working_dir: spec.working_dir.as_ref().map(|path| path.to_string_lossy().into_owned()),
        labels: Some(Tags::write(request, owner, host, reach.inside())),
        exposed_ports: exposed,
        stop_signal: Some(spec.stop_signal.to_string()),
        host_config: Some(host_config(request, options, host, reach)),
        ..ContainerCreateBody::default()
    }
}

/// The spec's variables, over them the request's, over those what tells a program where it stands. Not whose it is: by that the
/// process runtime knows its own, and on the engine's machine it sees the processes inside.
fn environment(request: &StartRequest, host: &str, port: u16) -> Vec<String> {
    let spec = &request.spec;
    let mut variables: BTreeMap<&str, String> = BTreeMap::new();
    for (key, value) in &spec.environment {
        variables.insert(key, expand(value, port, host, request.replica));
    }
    variables.extend(files::environment(request));
    if port != 0 {
        variables.insert("PORT", port.to_string());
    }
    variables.extend([
        ("COREDINATOR_HOST", host.to_owned()),
        ("COREDINATOR_SERVICE", spec.name.to_string()),
        ("COREDINATOR_INSTANCE_ID", request.id.to_string()),
        ("COREDINATOR_REPLICA", request.replica.to_string()),
    ]);
    variables.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn host_config(request: &StartRequest, options: &DockerOptions, host: &str, reach: Reach) -> HostConfig {
    let spec = &request.spec;
    let files = files::needs_volume(request, options).then(|| EngineMount {
        target: Some(files::FOLDER.to_owned()),
        typ: Some(MountType::VOLUME),
        ..EngineMount::default()
    });
    let mode = match options.network_mode {
        Some(NetworkMode::Host) => Some("host".to_owned()),
        Some(NetworkMode::None) => Some("none".to_owned()),
        Some(NetworkMode::Bridge) => Some("bridge".to_owned()),
        None => options.networks.first().cloned(),
    };
    let log = HashMap::from([
        ("max-size".to_owned(), spec.logs.max_size.to_string()),
        ("max-file".to_owned(), spec.logs.max_files.to_string()),
    ]);
    let ulimits = options.ulimits.iter().map(|(name, limit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: Some(limit.soft),
        hard: Some(limit.hard),
    });
    let devices = options.devices.iter().map(|device| DeviceMapping {
        path_on_host: Some(device.host.clone()),
        path_in_container: Some(device.container.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    });
    let hosts = options.extra_hosts.iter().map(|(name, address)| format!("{name}:{address}"));
    HostConfig {
        network_mode: mode,
        port_bindings: bindings(host, reach),
        // The supervisor alone restarts.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        log_config: Some(HostConfigLogConfig { typ: Some("json-file".to_owned()), config: Some(log) }),
        mounts: Some(options.mounts.iter().map(mount).chain(files).collect()),
        init: Some(options.init),
        readonly_rootfs: Some(options.read_only),
        nano_cpus: options.resources.nano_cpus,
        memory: options.resources.memory,
        pids_limit: options.resources.pids,
        device_requests: options.resources.gpus.as_ref().map(|gpus| vec![gpu(gpus)]),
        ulimits: Some(ulimits.collect()),
        devices: Some(devices.collect()),
        extra_hosts: Some(hosts.collect()),
        shm_size: options.shm_size,
        cap_add: Some(options.cap_add.clone()),
        cap_drop: Some(options.cap_drop.clone()),
        ..HostConfig::default()
    }
}

/// A service of this machine alone is published to this machine alone.
fn bindings(host: &str, reach: Reach) -> Option<bollard::models::PortMap> {
    let Reach::Published { inside, outside } = reach else { return None };
    let address = if is_here(host) { "127.0.0.1" } else { "" };
    let binding = PortBinding { host_ip: Some(address.to_owned()), host_port: Some(outside.to_string()) };
    Some(HashMap::from([(format!("{inside}/tcp"), Some(vec![binding]))]))
}

fn mount(mount: &Mount) -> EngineMount {
    let (typ, source) = match &mount.kind {
        MountKind::Bind(path) => (MountType::BIND, Some(path.clone())),
        MountKind::Volume(name) => (MountType::VOLUME, name.clone()),
        MountKind::Tmpfs => (MountType::TMPFS, None),
    };
    EngineMount {
        target: Some(mount.target.clone()),
        source,
        typ: Some(typ),
        read_only: Some(mount.read_only),
        ..EngineMount::default()
    }
}

fn gpu(gpus: &Gpus) -> DeviceRequest {
    let (count, ids) = match gpus {
        Gpus::All => (Some(-1), None),
        Gpus::Count(count) => (Some(i64::from(*count)), None),
        Gpus::Ids(ids) => (None, Some(ids.clone())),
    };
    let capabilities = Some(vec![vec!["gpu".to_owned()]]);
    DeviceRequest { count, device_ids: ids, capabilities, ..DeviceRequest::default() }
}

/// Replaces `{port}`, `{host}` and `{replica}` wherever they stand, once; all other text stays.
pub(crate) fn expand(text: &str, port: u16, host: &str, replica: u32) -> String {
    let known = [("{port}", port.to_string()), ("{host}", host.to_owned()), ("{replica}", replica.to_string())];
    let (mut expanded, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(c) = rest.chars().next() {
        let (piece, taken) = match known.iter().find(|(name, _)| rest.starts_with(name)) {
            Some((name, value)) => (value.as_str(), name.len()),
            None => (&rest[..c.len_utf8()], c.len_utf8()),
        };
        expanded.push_str(piece);
        rest = &rest[taken..];
    }
    expanded
}

#[cfg(test)]
mod tests;
