//! From a service to what the API server is asked to make: its pod, above all the one container in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use coredinator_core::{HealthCheck, ProbeSpec, RestartPolicy, ServiceSpec, Signal, StartRequest};
use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, ExecAction,
        HTTPGetAction, HTTPHeader, HostAlias, Lifecycle, LocalObjectReference, PersistentVolumeClaimVolumeSource, Pod,
        PodOS, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile,
        SecretVolumeSource, SecurityContext, TCPSocketAction, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use serde_json::Value;

use crate::{
    files,
    labels::Tags,
    options::{KubernetesOptions, Mount, MountKind, ProbeBy, Pull, RestartBy},
    template,
};

/// The name of the container in which the program runs.
pub(crate) const CONTAINER: &str = "main";
/// What a program listens on where neither `container_port` nor `port` says it; `PORT` tells it.
const INSIDE: u16 = 8080;
/// The name of the program's port.
pub(crate) const PORT_NAME: &str = "main";

/// The port on which a program listens.
pub(crate) fn inside(spec: &ServiceSpec, options: &KubernetesOptions) -> u16 {
    match options.container_port.map_or(spec.port, std::num::NonZeroU16::get) {
        0 => INSIDE,
        port => port,
    }
}

/// The pod that is asked for, with the template merged in.
///
/// # Errors
/// Why the template cannot be merged.
pub(crate) fn pod(
    request: &StartRequest,
    options: &KubernetesOptions,
    owner: &str,
    namespace: &str,
) -> Result<Pod, String> {
    let port = inside(&request.spec, options);
    let labels = Tags::write(request, owner, port);
    let made = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() }),
        spec: Some(pod_spec(request, options, port)),
    };
    let made = merged(made, options)?;
    let mut metadata = made.metadata.unwrap_or_default();
    metadata.name = Some(request.id.to_string());
    metadata.namespace = Some(namespace.to_owned());
    Ok(Pod { metadata, spec: made.spec, status: None })
}

fn merged(made: PodTemplateSpec, options: &KubernetesOptions) -> Result<PodTemplateSpec, String> {
    if options.pod_template.is_empty() {
        return Ok(made);
    }
    let mut whole = serde_json::to_value(made).map_err(|error| error.to_string())?;
    template::merge(&mut whole, &options.pod_template);
    if !template::has_container(&whole) {
        return Err(format!("the pod_template takes the container {CONTAINER:?} away"));
    }
    serde_json::from_value(whole).map_err(|error| format!("the pod_template makes no pod: {error}"))
}

fn pod_spec(request: &StartRequest, options: &KubernetesOptions, port: u16) -> PodSpec {
    let spec = &request.spec;
    // By address, and each secret once: the API server keeps both as maps, and refuses a key that comes twice.
    let mut addresses: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    for (name, address) in &options.extra_hosts {
        addresses.entry(address).or_default().push(name.clone());
    }
    let aliases = addresses.into_iter().map(|(ip, names)| HostAlias { ip: ip.clone(), hostnames: Some(names) });
    let secrets: BTreeSet<&String> = options.pull_secrets.iter().collect();
    let secrets = secrets.into_iter().map(|name| LocalObjectReference { name: name.clone() });
    let user = options.user;
    PodSpec {
        containers: vec![container(request, options, port)],
        volumes: some(volumes(options).into_iter().chain(files::mount(request).map(|(volume, _)| volume)).collect()),
        restart_policy: Some(restart_policy(spec, options).to_owned()),
        termination_grace_period_seconds: Some(grace_seconds(spec.stop_grace_period)),
        service_account_name: options.service_account.clone(),
        automount_service_account_token: Some(options.service_account.is_some()),
        enable_service_links: Some(false),
        node_selector: (!options.node_selector.is_empty()).then(|| options.node_selector.clone()),
        tolerations: some(options.tolerations.clone()),
        image_pull_secrets: some(secrets.collect()),
        host_aliases: some(aliases.collect()),
        share_process_namespace: options.init.then_some(true),
        // Without it no signal but the image's own can be asked for.
        os: own_signal(spec.stop_signal).map(|_| PodOS { name: "linux".to_owned() }),
        security_context: Some(PodSecurityContext {
            run_as_user: user.map(|(user, _)| user),
            run_as_group: user.and_then(|(_, group)| group),
            run_as_non_root: Some(options.run_as_non_root),
            fs_group: options.fs_group,
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        ..PodSpec::default()
    }
}

/// Who restarts: coredinator, by a new pod, or the kubelet, in place.
pub(crate) fn restart_policy(spec: &ServiceSpec, options: &KubernetesOptions) -> &'static str {
    match (options.restart_by, &spec.restart_policy) {
        (RestartBy::Coredinator, _) | (RestartBy::Kubelet, RestartPolicy::No) => "Never",
        (RestartBy::Kubelet, RestartPolicy::OnFailure { .. }) => "OnFailure",
        (RestartBy::Kubelet, RestartPolicy::Always | RestartPolicy::UnlessStopped) => "Always",
    }
}

/// Whole seconds, at least one: with none the API server would forget the pod while its processes may still run.
pub(crate) fn grace_seconds(grace: Duration) -> i64 {
    i64::try_from(seconds(grace)).unwrap_or(i64::MAX)
}

fn seconds(duration: Duration) -> u64 {
    let whole = duration.as_secs();
    (if duration.subsec_nanos() > 0 { whole.saturating_add(1) } else { whole }).max(1)
}

/// A signal that has to be asked for: SIGTERM is what is sent anyway, and after the grace SIGKILL.
pub(crate) fn own_signal(signal: Signal) -> Option<String> {
    (!matches!(signal, Signal::Term | Signal::Kill)).then(|| signal.to_string())
}

fn container(request: &StartRequest, options: &KubernetesOptions, port: u16) -> Container {
    let spec = &request.spec;
    let expand = |text: &String| literal(&expand(text, port, request.replica));
    let words = |words: &[String]| some(words.iter().map(expand).collect());
    let limits = options.resources.limits();
    let (startup, liveness, readiness) = probes(request, options, port);
    Container {
        name: CONTAINER.to_owned(),
        image: Some(options.image.clone()),
        image_pull_policy: Some(pull_policy(options.pull).to_owned()),
        command: words(&options.entrypoint),
        args: words(&spec.command),
        env: Some(environment(request, port)),
        working_dir: spec.working_dir.as_ref().map(|path| path.to_string_lossy().into_owned()),
        ports: Some(vec![ContainerPort {
            name: Some(PORT_NAME.to_owned()),
            container_port: i32::from(port),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: (!limits.is_empty()).then(|| ResourceRequirements { limits: Some(limits), ..Default::default() }),
        volume_mounts: some(mounts(options).into_iter().chain(files::mount(request).map(|(_, mount)| mount)).collect()),
        lifecycle: own_signal(spec.stop_signal)
            .map(|signal| Lifecycle { stop_signal: Some(signal), ..Lifecycle::default() }),
        startup_probe: startup,
        liveness_probe: liveness,
        readiness_probe: readiness,
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(options.allow_privilege_escalation),
            read_only_root_filesystem: Some(options.read_only),
            capabilities: Some(Capabilities {
                add: some(options.cap_add.clone()),
                drop: some(options.cap_drop.clone()),
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn pull_policy(pull: Pull) -> &'static str {
    match pull {
        Pull::Missing => "IfNotPresent",
        Pull::Always => "Always",
        Pull::Never => "Never",
    }
}

/// The spec's variables, over them the request's, over those what tells a program where it stands.
fn environment(request: &StartRequest, port: u16) -> Vec<EnvVar> {
    let spec = &request.spec;
    let mut variables: BTreeMap<&str, String> = BTreeMap::new();
    for (key, value) in &spec.environment {
        variables.insert(key, expand(value, port, request.replica));
    }
    variables.extend(request.environment.iter().map(|(key, value)| (key.as_str(), value.clone())));
    if let Some(place) = files::place(request) {
        variables.insert(files::VARIABLE, place);
    }
    variables.extend([
        ("PORT", port.to_string()),
        ("COREDINATOR_HOST", HOST.to_owned()),
        ("COREDINATOR_SERVICE", spec.name.to_string()),
        ("COREDINATOR_INSTANCE_ID", request.id.to_string()),
        ("COREDINATOR_REPLICA", request.replica.to_string()),
    ]);
    let variable = |(name, value): (&str, String)| EnvVar {
        name: name.to_owned(),
        value: Some(literal(&value)),
        value_from: None,
    };
    variables.into_iter().map(variable).collect()
}

/// What a program listens on to be reached at its pod's address.
const HOST: &str = "0.0.0.0";

/// A text as it is to arrive: a kubelet would take `$(NAME)` for a variable, and `$$` for one `$`.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// Replaces `{port}`, `{host}` and `{replica}` wherever they stand, once; all other text stays.
pub(crate) fn expand(text: &str, port: u16, replica: u32) -> String {
    let known = [("{port}", port.to_string()), ("{host}", HOST.to_owned()), ("{replica}", replica.to_string())];
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

/// What is mounted, and `/tmp` where the root cannot be written to: few programs live without it.
fn all_mounts(options: &KubernetesOptions) -> Vec<Mount> {
    let mut mounts = options.mounts.clone();
    if options.read_only && !mounts.iter().any(|mount| mount.target == "/tmp") {
        let kind = MountKind::Empty { memory: false, size: None };
        mounts.push(Mount { kind, target: "/tmp".to_owned(), read_only: false, sub_path: None });
    }
    mounts
}

fn mounts(options: &KubernetesOptions) -> Vec<VolumeMount> {
    let mount = |(index, mount): (usize, Mount)| VolumeMount {
        name: format!("v{index}"),
        mount_path: mount.target,
        read_only: mount.read_only.then_some(true),
        sub_path: mount.sub_path,
        ..VolumeMount::default()
    };
    all_mounts(options).into_iter().enumerate().map(mount).collect()
}

fn volumes(options: &KubernetesOptions) -> Vec<Volume> {
    let volume = |(index, mount): (usize, Mount)| {
        let mut volume = Volume { name: format!("v{index}"), ..Volume::default() };
        match mount.kind {
            MountKind::ConfigMap(name) => {
                volume.config_map = Some(ConfigMapVolumeSource { name, ..ConfigMapVolumeSource::default() });
            }
            MountKind::Secret(name) => {
                volume.secret = Some(SecretVolumeSource { secret_name: Some(name), ..SecretVolumeSource::default() });
            }
            MountKind::Claim(claim_name) => {
                let read_only = mount.read_only.then_some(true);
                volume.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource { claim_name, read_only });
            }
            MountKind::Empty { memory, size } => {
                volume.empty_dir = Some(EmptyDirVolumeSource {
                    medium: memory.then(|| "Memory".to_owned()),
                    size_limit: size.map(|bytes| Quantity(bytes.to_string())),
                });
            }
        }
        volume
    };
    all_mounts(options).into_iter().enumerate().map(volume).collect()
}

/// The checks of a spec as a kubelet makes them: while starting, alive, ready. A service without a check of readiness of its
/// own is ready when it is alive, so that no Service sends it what it cannot answer.
fn probes(
    request: &StartRequest,
    options: &KubernetesOptions,
    port: u16,
) -> (Option<Probe>, Option<Probe>, Option<Probe>) {
    let spec = &request.spec;
    if options.probe_by != ProbeBy::Kubelet {
        return (None, None, None);
    }
    let of = |check: &HealthCheck| probe(check, port, request.replica);
    let liveness = spec.health_check.as_ref().and_then(of);
    let startup = spec.health_check.as_ref().filter(|check| !check.timing.start_period.is_zero()).and_then(|check| {
        let period = seconds(check.timing.start_interval);
        let mut probe = of(check)?;
        probe.period_seconds = i32::try_from(period).ok();
        probe.failure_threshold = i32::try_from(seconds(check.timing.start_period).div_ceil(period)).ok();
        probe.success_threshold = None;
        Some(probe)
    });
    let readiness = spec.readiness_check.as_ref().or(spec.health_check.as_ref()).and_then(|check| {
        let mut probe = of(check)?;
        probe.success_threshold = i32::try_from(check.timing.success_threshold).ok();
        Some(probe)
    });
    (startup, liveness, readiness)
}

fn probe(check: &HealthCheck, port: u16, replica: u32) -> Option<Probe> {
    let at = IntOrString::Int(i32::from(port));
    let mut probe = Probe {
        period_seconds: i32::try_from(seconds(check.timing.interval)).ok(),
        timeout_seconds: i32::try_from(seconds(check.timing.timeout)).ok(),
        failure_threshold: i32::try_from(check.timing.retries).ok(),
        ..Probe::default()
    };
    match &check.probe {
        ProbeSpec::Http(http) => {
            let headers =
                http.headers.iter().map(|(name, value)| HTTPHeader { name: name.clone(), value: value.clone() });
            probe.http_get = Some(HTTPGetAction {
                path: Some(http.path.clone()),
                port: at,
                http_headers: some(headers.collect()),
                ..HTTPGetAction::default()
            });
        }
        ProbeSpec::Tcp => probe.tcp_socket = Some(TCPSocketAction { port: at, host: None }),
        ProbeSpec::Command { command, .. } => {
            let words = command.iter().map(|word| expand(word, port, replica));
            probe.exec = Some(ExecAction { command: Some(words.collect()) });
        }
        // The template's, or refused when the spec is checked.
        ProbeSpec::Native | ProbeSpec::Heartbeat { .. } | ProbeSpec::Custom { .. } => return None,
    }
    Some(probe)
}

/// A list that says something.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// Whether what the API server keeps is what was asked, where a server that does not know a field drops it.
///
/// # Errors
/// What was dropped, in words.
pub(crate) fn is_kept(asked: &Pod, kept: &Pod) -> Result<(), String> {
    let signal = |pod: &Pod| {
        let value = serde_json::to_value(pod).unwrap_or(Value::Null);
        value.pointer("/spec/containers/0/lifecycle/stopSignal").and_then(Value::as_str).map(str::to_owned)
    };
    match signal(asked) {
        Some(wanted) if signal(kept).as_deref() != Some(&wanted) => Err(format!(
            "this cluster ends pods by SIGTERM or what their image says, and does not take {wanted} \
             (its feature ContainerStopSignals is off)"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
