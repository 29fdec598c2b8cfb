//! What a service's document says of its pod.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU16,
};

use coredinator_core::{
    FieldError, HealthCheck, ProbeSpec, RestartPolicy, ServiceName, ServiceSpec,
    field::{FieldReader, kind},
    parse_command,
};
use k8s_openapi::api::core::v1::Toleration;
use serde_json::{Map, Value};

use crate::{labels, template};

mod volumes;
mod words;

pub use volumes::{Mount, MountKind};
pub use words::{Expose, ProbeBy, Pull, Resources, RestartBy};

pub(crate) type Errors = Vec<FieldError>;

/// The keys of a service's document that this runtime understands beyond those of every runtime.
#[derive(Debug, Clone, PartialEq)]
pub struct KubernetesOptions {
    /// The image.
    pub image: String,
    /// Instead of the image's own; empty: that.
    pub entrypoint: Vec<String>,
    /// What the program listens on; `None`: `port`, else 8080.
    pub container_port: Option<NonZeroU16>,
    /// When the image is fetched.
    pub pull: Pull,
    /// Where its pods live; `None`: in the runtime's own namespace.
    pub namespace: Option<String>,
    /// In order.
    pub mounts: Vec<Mount>,
    /// What the program runs as: a user's number, and a group's. `None`: the image's.
    pub user: Option<(i64, Option<i64>)>,
    /// The group that owns what is mounted, by number.
    pub fs_group: Option<i64>,
    /// Its limits.
    pub resources: Resources,
    /// Whether its root file system cannot be written to; `/tmp` can be. True unless said otherwise.
    pub read_only: bool,
    /// Whether it may not run as root. True unless said otherwise.
    pub run_as_non_root: bool,
    /// Whether a program may gain more rights than its parent has, as by setuid. False unless said otherwise.
    pub allow_privilege_escalation: bool,
    /// Capabilities given to it.
    pub cap_add: Vec<String>,
    /// Capabilities taken from it; all, unless said otherwise.
    pub cap_drop: Vec<String>,
    /// Whether something else is process 1 and the program ends by signals as it would outside of a container (the pod's
    /// processes share one namespace, in which the pause container reaps orphans). True unless said otherwise.
    pub init: bool,
    /// Names that resolve to addresses, beside DNS.
    pub extra_hosts: BTreeMap<String, String>,
    /// Whose rights it has in the cluster; `None`: none, and no token is mounted.
    pub service_account: Option<String>,
    /// Labels that its node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that its node may have.
    pub tolerations: Vec<Toleration>,
    /// Secrets with which its image is fetched.
    pub pull_secrets: Vec<String>,
    /// How others find it in the cluster.
    pub expose: Expose,
    /// Who makes its health checks.
    pub probe_by: ProbeBy,
    /// Who starts it again.
    pub restart_by: RestartBy,
    /// A piece of a pod template, merged over what coredinator makes; empty: none.
    pub pod_template: Map<String, Value>,
}

impl KubernetesOptions {
    /// Reads them; pointers are relative to the spec.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn parse(spec: &ServiceSpec) -> Result<Self, Errors> {
        let mut reader = FieldReader::new("", Value::Object(spec.options.clone()));
        let image: Option<String> = reader.optional("image");
        if image.is_none() && reader.is_clean() {
            reader.error("image", "a service that runs as a pod needs an image");
        } else if image.as_deref().is_some_and(|image| image.is_empty() || image.contains(char::is_whitespace)) {
            reader.error("image", "must be an image's name, such as registry/name:tag");
        }
        let non_root: Option<bool> = reader.optional("run_as_non_root");
        let read = Self {
            image: image.unwrap_or_default(),
            entrypoint: reader.parsed("entrypoint", parse_command).unwrap_or_default(),
            container_port: reader.optional("container_port"),
            pull: reader.parsed("pull", |at, value| words::pull(at, &value)).unwrap_or_default(),
            namespace: reader.parsed("namespace", |at, value| dns_label(at, &value)),
            mounts: reader.parsed("mounts", |at, value| each(at, value, volumes::parse)).unwrap_or_default(),
            user: reader.parsed("user", |at, value| words::user(at, &value)),
            fs_group: reader.optional("fs_group"),
            resources: reader.parsed("resources", words::resources).unwrap_or_default(),
            read_only: reader.or("read_only", true),
            run_as_non_root: non_root.unwrap_or(true),
            allow_privilege_escalation: reader.or("allow_privilege_escalation", false),
            cap_add: reader.or("cap_add", Vec::new()),
            cap_drop: reader.or("cap_drop", vec!["ALL".to_owned()]),
            init: reader.or("init", true),
            extra_hosts: reader.parsed("extra_hosts", words::hosts).unwrap_or_default(),
            service_account: reader.parsed("service_account", |at, value| subdomain(at, &value)),
            node_selector: reader.parsed("node_selector", words::labels).unwrap_or_default(),
            tolerations: reader
                .parsed("tolerations", |at, value| each(at, value, words::toleration))
                .unwrap_or_default(),
            pull_secrets: reader.parsed("pull_secrets", |at, value| each(at, value, subdomain)).unwrap_or_default(),
            expose: reader.parsed("expose", |at, value| words::expose(at, &value)).unwrap_or_default(),
            probe_by: reader.parsed("probe_by", |at, value| words::probe_by(at, &value)).unwrap_or_default(),
            restart_by: reader.parsed("restart_by", |at, value| words::restart_by(at, &value)).unwrap_or_default(),
            pod_template: reader.parsed("pod_template", template::parse).unwrap_or_default(),
        };
        if let (Some((0, _)), None) = (read.user, non_root) {
            reader.push(
                FieldError::new("/user", "0 is root, which no pod of coredinator runs as unless that is asked for")
                    .with_hint("run_as_non_root: false"),
            );
        }
        if read.fs_group.is_some_and(|group| group < 0) {
            reader.error("fs_group", "must be a group's number");
        }
        read.check(spec, &mut reader);
        reader.finish(|| read)
    }

    /// What can be said only of several keys together.
    fn check(&self, spec: &ServiceSpec, reader: &mut FieldReader) {
        let mut targets = BTreeSet::new();
        for (index, mount) in self.mounts.iter().enumerate() {
            if !targets.insert(mount.target.as_str()) {
                reader.push(FieldError::new(format!("/mounts/{index}"), format!("{} is mounted twice", mount.target)));
            }
        }
        if self.expose != Expose::None && spec.name.as_str().starts_with(|c: char| c.is_ascii_digit()) {
            let detail =
                format!("is found by a Service of its name, which cannot begin with a digit as {} does", spec.name);
            reader.push(FieldError::new("/expose", detail).with_hint("expose: none"));
        }
        if self.restart_by == RestartBy::Kubelet {
            if matches!(spec.restart_policy, RestartPolicy::OnFailure { max: Some(_) }) {
                reader.push(
                    FieldError::new("/restart_policy", "a kubelet does not count how often it restarts")
                        .with_hint("on-failure, or restart_by: coredinator"),
                );
            }
            if spec.restart_policy != RestartPolicy::No && spec.success_exit_codes != [0] {
                let detail = "to a kubelet no exit code but 0 is a success";
                reader.push(FieldError::new("/success_exit_codes", detail).with_hint("restart_by: coredinator"));
            }
        }
        if self.probe_by == ProbeBy::Kubelet {
            for (key, check) in [("health_check", &spec.health_check), ("readiness_check", &spec.readiness_check)] {
                if let Some(detail) = check.as_ref().and_then(beyond_a_kubelet) {
                    reader.push(
                        FieldError::new(format!("/{key}"), format!("a kubelet {detail}"))
                            .with_hint("probe_by: coredinator"),
                    );
                }
            }
        }
    }
}

/// What a kubelet cannot do of a check; `None`: it can do it all.
fn beyond_a_kubelet(check: &HealthCheck) -> Option<&'static str> {
    match &check.probe {
        ProbeSpec::Http(http) => {
            let usual = [coredinator_core::StatusRange::DEFAULT];
            if !http.expected_headers.is_empty() || http.expected_body.is_some() {
                Some("looks at nothing but the status of an answer")
            } else if http.expected_status != usual {
                Some("passes every status from 200 to 399, and no other")
            } else {
                None
            }
        }
        ProbeSpec::Tcp => None,
        ProbeSpec::Command { beside: true, .. } => Some("cannot run a command beside coredinator"),
        // What it is asked is what it says of itself.
        ProbeSpec::Command { beside: false, .. } | ProbeSpec::Native => None,
        ProbeSpec::Heartbeat { .. } => Some("hears no heartbeats"),
        ProbeSpec::Custom { .. } => Some("knows no probes of plugins"),
    }
}

pub(crate) fn fail<T>(pointer: &str, detail: impl Into<String>) -> Result<T, Errors> {
    Err(vec![FieldError::new(pointer, detail)])
}

/// Reads a list, telling the errors of all of its elements.
fn each<T>(pointer: &str, value: Value, parse: impl Fn(&str, &Value) -> Result<T, Errors>) -> Result<Vec<T>, Errors> {
    let Value::Array(list) = value else {
        return fail(pointer, format!("expected a list, but found {}", kind(&value)));
    };
    let (mut read, mut errors) = (Vec::new(), Vec::new());
    for (index, element) in list.iter().enumerate() {
        match parse(&format!("{pointer}/{index}"), element) {
            Ok(element) => read.push(element),
            Err(wrong) => errors.extend(wrong),
        }
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

fn dns_label(pointer: &str, value: &Value) -> Result<String, Errors> {
    match value.as_str().map(ServiceName::new) {
        Some(Ok(name)) => Ok(name.to_string()),
        _ => fail(pointer, format!("expected a name of small letters, digits and dashes, but found {value}")),
    }
}

/// The name of an object: labels joined by dots.
fn subdomain(pointer: &str, value: &Value) -> Result<String, Errors> {
    let text = value.as_str().unwrap_or_default();
    if labels::is_subdomain(text) {
        return Ok(text.to_owned());
    }
    fail(pointer, format!("expected an object's name, but found {value}"))
}

#[cfg(test)]
mod tests;
