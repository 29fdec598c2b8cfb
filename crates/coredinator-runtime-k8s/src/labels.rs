//! By which pods are known: labels, and a name that is the instance's id.

use std::collections::BTreeMap;

use coredinator_core::{InstanceId, ServiceName, ServiceSpec, StartRequest};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Whose object it is.
pub(crate) const OWNER: &str = "coredinator.owner";
/// The service.
pub(crate) const SERVICE: &str = "coredinator.service";
/// The life; also the pod's name.
pub(crate) const INSTANCE: &str = "coredinator.instance";
/// The replica.
pub(crate) const REPLICA: &str = "coredinator.replica";
/// What the spec was, as a number that differs where it differs.
pub(crate) const SPEC: &str = "coredinator.spec";
/// The port that the program listens on, where there is one.
pub(crate) const PORT: &str = "coredinator.port";
/// The words by which other tools sort what they find.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const NAME: &str = "app.kubernetes.io/name";
const VERSION: &str = "app.kubernetes.io/version";

/// Who writes: the name under which the API server keeps the fields that coredinator owns.
pub(crate) const FIELD_MANAGER: &str = "coredinator";

/// Labels as the API server keeps them.
pub(crate) type Labels = BTreeMap<String, String>;

/// What a pod's labels say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) id: InstanceId,
    pub(crate) service: ServiceName,
    pub(crate) replica: u32,
    /// What the program listens on; 0: nothing.
    pub(crate) port: u16,
}

impl Tags {
    /// Reads a pod's labels; `None` if it is not `owner`'s, or not to be understood.
    pub(crate) fn read(labels: &Labels, owner: &str) -> Option<Self> {
        let get = |key| labels.get(key).map(String::as_str);
        if get(OWNER) != Some(label(owner).as_str()) {
            return None;
        }
        Some(Self {
            id: InstanceId::new(get(INSTANCE)?).ok()?,
            service: ServiceName::new(get(SERVICE)?).ok()?,
            replica: get(REPLICA)?.parse().ok()?,
            port: get(PORT).and_then(|port| port.parse().ok()).unwrap_or(0),
        })
    }

    /// The labels of the pod that `request` asks for: ours, which win, over those of the spec that are labels here too.
    pub(crate) fn write(request: &StartRequest, owner: &str, port: u16) -> Labels {
        let spec = &request.spec;
        let mut labels: Labels = spec
            .labels
            .iter()
            .filter(|(key, value)| is_key(key) && is_value(value))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        labels.extend(of_service(spec, owner));
        labels.extend([
            (INSTANCE.to_owned(), request.id.to_string()),
            (REPLICA.to_owned(), request.replica.to_string()),
            (PORT.to_owned(), port.to_string()),
        ]);
        labels
    }
}

/// The labels of what stands for a whole service: its Service, its PodDisruptionBudget.
pub(crate) fn of_service(spec: &ServiceSpec, owner: &str) -> Labels {
    let mut labels = selector(&spec.name, owner);
    labels.extend([
        (SPEC.to_owned(), spec_hash(spec)),
        (MANAGED_BY.to_owned(), "coredinator".to_owned()),
        (NAME.to_owned(), spec.name.to_string()),
    ]);
    if let Some(version) = spec.version.as_ref().filter(|version| is_value(version)) {
        labels.insert(VERSION.to_owned(), version.clone());
    }
    labels
}

/// By which all pods of a service, and no others, are chosen.
pub(crate) fn selector(service: &ServiceName, owner: &str) -> Labels {
    [(OWNER.to_owned(), label(owner)), (SERVICE.to_owned(), service.to_string())].into()
}

/// The query for everything of an owner's.
pub(crate) fn of_owner(owner: &str) -> String {
    format!("{OWNER}={}", label(owner))
}

/// Whether an object is this owner's, by its labels alone.
pub(crate) fn is_ours(metadata: &ObjectMeta, owner: &str) -> bool {
    metadata.labels.as_ref().and_then(|labels| labels.get(OWNER)).is_some_and(|of| *of == label(owner))
}

/// An owner as a label's value: itself where it is one, else a number that stands for it.
fn label(owner: &str) -> String {
    if is_value(owner) && !owner.is_empty() { owner.to_owned() } else { format!("x{:016x}", fnv(owner.as_bytes())) }
}

/// Whether the API server takes it as a label's value.
pub(crate) fn is_value(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let outer = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63
        && text.chars().all(inner)
        && text.starts_with(outer) == text.ends_with(outer)
        && (text.is_empty() || text.starts_with(outer))
}

/// Whether the API server takes it as a label's key.
pub(crate) fn is_key(text: &str) -> bool {
    let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    !name.is_empty() && is_value(name) && prefix.is_none_or(is_subdomain)
}

/// Whether it can name an object: DNS labels joined by dots.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| ServiceName::new(part).is_ok())
}

pub(crate) fn spec_hash(spec: &ServiceSpec) -> String {
    format!("{:016x}", fnv(serde_json::to_string(spec).unwrap_or_default().as_bytes()))
}

/// FNV-1a: the same in every build, unlike the standard library's hashes.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn whose_labels_say_otherwise_is_a_stranger() {
        let id = InstanceId::coin(&ServiceName::new("svc").unwrap(), 2, 7);
        let ours = [(OWNER, "me"), (SERVICE, "svc"), (INSTANCE, id.as_str()), (REPLICA, "2")];
        let read = Tags::read(&labels(&ours), "me").unwrap();
        assert_eq!((&read.id, read.service.as_str(), read.replica, read.port), (&id, "svc", 2, 0));
        assert_eq!(Tags::read(&labels(&ours), "you"), None);
        for missing in 0..ours.len() {
            let mut fewer = ours.to_vec();
            fewer.remove(missing);
            assert_eq!(Tags::read(&labels(&fewer), "me"), None, "without {}", ours[missing].0);
        }
        let garbage = [(OWNER, "me"), (SERVICE, "not a name"), (INSTANCE, id.as_str()), (REPLICA, "2")];
        assert_eq!(Tags::read(&labels(&garbage), "me"), None);
    }

    #[test]
    fn what_is_no_label_is_told_apart() {
        for good in ["", "a", "A-1_x.9", &"x".repeat(63)] {
            assert!(is_value(good), "{good:?}");
        }
        for bad in ["-a", "a-", ".", "a b", "ä", "a/b", &"x".repeat(64)] {
            assert!(!is_value(bad), "{bad:?}");
        }
        for good in ["a", "coredinator.owner", "app.kubernetes.io/name", "X_y"] {
            assert!(is_key(good), "{good:?}");
        }
        for bad in ["", "/a", "a/", "A.b/c", "a//b", "a b", "ä"] {
            assert!(!is_key(bad), "{bad:?}");
        }
        assert_eq!(label("me"), "me");
        assert_ne!(label("two words"), label("three words"));
        assert!(is_value(&label("two words")) && is_value(&label("")));
    }

    #[test]
    fn labels_of_the_users_stay_below_ours() {
        let document = serde_json::json!({
            "runtime": "kubernetes", "image": "i", "version": "1.2",
            "labels": {"line": "a", "bad key": "x", "coredinator.owner": "me too", "wrong": "a value with blanks"},
        });
        let spec = ServiceSpec::parse("", Some("svc"), document, &Default::default()).unwrap();
        let id = InstanceId::coin(&spec.name, 3, 1);
        let request =
            StartRequest { id, replica: 3, spec: spec.into(), preferred_port: None, environment: BTreeMap::new() };
        let written = Tags::write(&request, "me", 80);
        assert_eq!((written["line"].as_str(), written[OWNER].as_str()), ("a", "me"));
        assert!(written.iter().all(|(key, value)| is_key(key) && is_value(value)), "{written:?}");
        assert_eq!(Tags::read(&written, "me").unwrap().port, 80);
        assert_eq!(of_owner("me"), "coredinator.owner=me");
    }
}
