//! By which containers are known: labels, and a name that follows from the instance.

use std::collections::HashMap;

use coredinator_core::{InstanceId, ServiceName, ServiceSpec, StartRequest};

/// Whose container it is.
pub(crate) const OWNER: &str = "coredinator.owner";
/// The service.
pub(crate) const SERVICE: &str = "coredinator.service";
/// The life.
pub(crate) const INSTANCE: &str = "coredinator.instance";
/// The replica.
pub(crate) const REPLICA: &str = "coredinator.replica";
/// What the spec was, as a number that differs where it differs.
pub(crate) const SPEC: &str = "coredinator.spec";
/// The host name at which it is reached.
pub(crate) const HOST: &str = "coredinator.host";
/// The port inside, where there is one.
pub(crate) const PORT: &str = "coredinator.port";

/// What a container's labels say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tags {
    pub(crate) id: InstanceId,
    pub(crate) service: ServiceName,
    pub(crate) replica: u32,
    pub(crate) host: String,
    /// What the program listens on inside; 0: nothing.
    pub(crate) port: u16,
}

impl Tags {
    /// Reads a container's labels; `None` if it is none of these owners', or not to be understood.
    pub(crate) fn read(labels: &HashMap<String, String>, owners: &[String]) -> Option<Self> {
        let get = |key| labels.get(key).map(String::as_str);
        if !is_ours(labels, owners) {
            return None;
        }
        Some(Self {
            id: InstanceId::new(get(INSTANCE)?).ok()?,
            service: ServiceName::new(get(SERVICE)?).ok()?,
            replica: get(REPLICA)?.parse().ok()?,
            host: get(HOST).unwrap_or("localhost").to_owned(),
            port: get(PORT).and_then(|port| port.parse().ok()).unwrap_or(0),
        })
    }

    /// The labels of what `request` starts: ours, which win, over the spec's own.
    pub(crate) fn write(request: &StartRequest, owner: &str, host: &str, port: u16) -> HashMap<String, String> {
        let spec = &request.spec;
        let mut labels: HashMap<_, _> = spec.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        labels.extend(
            [
                (OWNER, owner.to_owned()),
                (SERVICE, spec.name.to_string()),
                (INSTANCE, request.id.to_string()),
                (REPLICA, request.replica.to_string()),
                (SPEC, spec_hash(spec)),
                (HOST, host.to_owned()),
                (PORT, port.to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        labels
    }
}

/// Whether a container with these labels is one of these owners'.
pub(crate) fn is_ours(labels: &HashMap<String, String>, owners: &[String]) -> bool {
    labels.get(OWNER).is_some_and(|owner| owners.contains(owner))
}

/// The name of an instance's container. Two coredinators of one engine never coin the same.
pub(crate) fn name(id: &InstanceId, owner: &str) -> String {
    format!("coredinator-{:08x}-{id}", fnv(owner.as_bytes()) >> 32)
}

fn spec_hash(spec: &ServiceSpec) -> String {
    format!("{:016x}", fnv(serde_json::to_string(spec).unwrap_or_default().as_bytes()))
}

/// FNV-1a: the same in every build, unlike the standard library's hashes.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn whose_labels_say_otherwise_is_a_stranger() {
        let id = InstanceId::coin(&ServiceName::new("svc").unwrap(), 2, 7);
        let me = ["me".to_owned()];
        let ours = [(OWNER, "me"), (SERVICE, "svc"), (INSTANCE, id.as_str()), (REPLICA, "2")];
        let read = Tags::read(&labels(&ours), &me).unwrap();
        assert_eq!((&read.id, read.service.as_str(), read.replica, read.port), (&id, "svc", 2, 0));
        assert_eq!(Tags::read(&labels(&ours), &["you".to_owned()]), None);
        let formerly = ["you".to_owned(), "me".to_owned()];
        assert_eq!(Tags::read(&labels(&ours), &formerly).unwrap(), read);
        for missing in 0..ours.len() {
            let mut fewer = ours.to_vec();
            fewer.remove(missing);
            assert_eq!(Tags::read(&labels(&fewer), &me), None, "without {}", ours[missing].0);
        }
        let garbage = [(OWNER, "me"), (SERVICE, "not a name"), (INSTANCE, id.as_str()), (REPLICA, "2")];
        assert_eq!(Tags::read(&labels(&garbage), &me), None);
    }

    #[test]
    fn names_differ_by_owner_and_stay() {
        let id = InstanceId::coin(&ServiceName::new("svc").unwrap(), 0, 7);
        assert_ne!(name(&id, "a"), name(&id, "b"));
        assert_eq!(name(&id, ""), format!("coredinator-cbf29ce4-{id}"));
    }
}
