//! What stands beside the pods of a service: its Service, by which others find it, and its PodDisruptionBudget.

use coredinator_core::{ServiceName, ServiceSpec};
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec as PortsSpec},
        policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use crate::{
    container::{self, PORT_NAME},
    labels::{self, Labels},
    options::{Expose, KubernetesOptions},
};

/// The Service of a service; `None`: it wants none. It leads from `port` (or, where that is 0, the program's own) to the
/// program's port of every pod that is ready.
pub(crate) fn service(
    spec: &ServiceSpec,
    options: &KubernetesOptions,
    owner: &str,
    namespace: &str,
) -> Option<Service> {
    let cluster_ip = match options.expose {
        Expose::ClusterIp => None,
        Expose::Headless => Some("None".to_owned()),
        Expose::None => return None,
    };
    let inside = container::inside(spec, options);
    let port = ServicePort {
        name: Some(PORT_NAME.to_owned()),
        port: i32::from(if spec.port == 0 { inside } else { spec.port }),
        target_port: Some(IntOrString::Int(i32::from(inside))),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    let ports = PortsSpec {
        type_: Some("ClusterIP".to_owned()),
        cluster_ip,
        ports: Some(vec![port]),
        selector: Some(labels::selector(&spec.name, owner)),
        ..PortsSpec::default()
    };
    let metadata = metadata(&spec.name, namespace, labels::of_service(spec, owner));
    Some(Service { metadata, spec: Some(ports), status: None })
}

/// Whether a Service that was changed is what was asked for. Whether it has an address cannot be changed: asked to have one again,
/// the API server leaves it without one, and says nothing.
pub(crate) fn is_kept(asked: &Service, kept: &Service) -> bool {
    let is_headless = |it: &Service| it.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    is_headless(asked) == is_headless(kept)
}

/// The budget of a service of so many replicas; `None`: it needs none. One replica at a time may be taken away by what can
/// wait, such as the draining of a node.
pub(crate) fn budget(
    service: &ServiceName,
    replicas: usize,
    owner: &str,
    namespace: &str,
) -> Option<PodDisruptionBudget> {
    // In numbers of those that stay: pods without a controller that scales them have no other.
    let stay = i32::try_from(replicas.checked_sub(1).filter(|&stay| stay > 0)?).unwrap_or(i32::MAX);
    let selector = labels::selector(service, owner);
    let spec = PodDisruptionBudgetSpec {
        min_available: Some(IntOrString::Int(stay)),
        selector: Some(LabelSelector { match_labels: Some(selector.clone()), match_expressions: None }),
        // One that does not get ready is not kept from leaving a node that is drained.
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    };
    Some(PodDisruptionBudget { metadata: metadata(service, namespace, selector), spec: Some(spec), status: None })
}

fn metadata(service: &ServiceName, namespace: &str, labels: Labels) -> ObjectMeta {
    ObjectMeta {
        name: Some(service.to_string()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

/// Whether an object says already what is asked: the labels, which hold the spec's hash, and what a budget allows.
pub(crate) fn is_as_asked(there: &ObjectMeta, asked: &ObjectMeta) -> bool {
    let there = there.labels.as_ref();
    asked.labels.iter().flatten().all(|(key, value)| there.and_then(|labels| labels.get(key)) == Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn spec(document: Value) -> (ServiceSpec, KubernetesOptions) {
        let spec = ServiceSpec::parse("", Some("svc"), document, &Default::default()).unwrap();
        let options = KubernetesOptions::parse(&spec).unwrap();
        (spec, options)
    }

    #[test]
    fn a_service_leads_to_the_programs_port() {
        for (more, port, inside, address) in [
            (json!({}), 8080, 8080, None),
            (json!({"port": 80}), 80, 80, None),
            (json!({"port": 80, "container_port": 9000}), 80, 9000, None),
            (json!({"container_port": 9000, "expose": "headless"}), 9000, 9000, Some("None")),
        ] {
            let mut document = json!({"runtime": "kubernetes", "image": "i"});
            document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let (spec, options) = spec(document);
            let made = service(&spec, &options, "me", "plant").unwrap();
            let ports = made.spec.unwrap();
            let first = &ports.ports.unwrap()[0];
            assert_eq!((first.port, first.target_port.clone()), (port, Some(IntOrString::Int(inside))), "{more}");
            assert_eq!(ports.cluster_ip.as_deref(), address);
            assert_eq!(ports.selector.unwrap(), labels::selector(&spec.name, "me"));
        }
        let (spec, options) = spec(json!({"runtime": "kubernetes", "image": "i", "expose": "none"}));
        assert_eq!(service(&spec, &options, "me", "plant"), None);
    }

    #[test]
    fn a_budget_lets_one_go_at_a_time() {
        let name = ServiceName::new("svc").unwrap();
        for (replicas, stay) in [(0, None), (1, None), (2, Some(1)), (10, Some(9))] {
            let made = budget(&name, replicas, "me", "plant").map(|made| made.spec.unwrap().min_available.unwrap());
            assert_eq!(made, stay.map(IntOrString::Int), "{replicas}");
        }
    }
}
