//! What is wrong between services, each of which is right in itself.

use std::collections::BTreeMap;

use coredinator_core::{
    DependencyGraph, FieldError, ServiceName, ServiceSpec,
    field::{join, nearest},
};

use super::Config;

fn pointer(service: &ServiceName, key: &str) -> String {
    format!("/coredinator/services/{service}/{key}")
}

/// Checks dependencies and ports. `names` are all declared services, those included that could not be read; `None`: there
/// are others elsewhere.
pub(super) fn check(
    services: &[ServiceSpec],
    names: Option<&[String]>,
    errors: &mut Vec<FieldError>,
    warnings: &mut Vec<FieldError>,
) {
    if let Some(names) = names {
        missing_dependencies(services, names, errors, warnings);
    }
    cycles(services, errors);
    shared_ports(services, errors, warnings);
}

fn missing_dependencies(
    services: &[ServiceSpec],
    names: &[String],
    errors: &mut Vec<FieldError>,
    warnings: &mut Vec<FieldError>,
) {
    for spec in services {
        for (on, dependency) in spec.depends_on.iter().filter(|(on, _)| !names.iter().any(|name| name == on.as_str())) {
            let at = join(&pointer(&spec.name, "depends_on"), on.as_str());
            let others: Vec<&str> =
                names.iter().map(String::as_str).filter(|name| *name != spec.name.as_str()).collect();
            let mut error = FieldError::new(at, format!("there is no service {:?}", on.as_str()));
            error.hint = nearest(on.as_str(), &others).map(|near| format!("did you mean {near:?}?"));
            if dependency.required {
                errors.push(error);
            } else {
                warnings.push(error);
            }
        }
    }
}

fn cycles(services: &[ServiceSpec], errors: &mut Vec<FieldError>) {
    let mut edges: BTreeMap<ServiceName, Vec<ServiceName>> =
        services.iter().map(|spec| (spec.name.clone(), spec.depends_on.keys().cloned().collect())).collect();
    // Each cycle found is cut at its first edge, so that the next can be seen.
    while let Err(cycle) = DependencyGraph::new(edges.clone()).waves() {
        let [from, to, ..] = cycle.0.as_slice() else { break };
        errors.push(FieldError::new(join(&pointer(from, "depends_on"), to.as_str()), cycle.to_string()));
        if let Some(on) = edges.get_mut(from) {
            on.retain(|name| name != to);
        }
    }
}

/// A host as it matters for ports: the names of this machine are one.
fn place(host: &str) -> &str {
    match host {
        "localhost" | "::1" | "0.0.0.0" | "::" | "[::1]" | "[::]" => "127.0.0.1",
        other => other,
    }
}

fn shared_ports(services: &[ServiceSpec], errors: &mut Vec<FieldError>, warnings: &mut Vec<FieldError>) {
    let mut taken: BTreeMap<(&str, u16), &ServiceSpec> = BTreeMap::new();
    for spec in services.iter().filter(|spec| spec.port != 0) {
        let Some(first) = taken.get(&(place(&spec.host), spec.port)) else {
            taken.insert((place(&spec.host), spec.port), spec);
            continue;
        };
        let detail = format!("service {:?} is at {}:{} too", first.name.as_str(), first.host, first.port);
        let error = FieldError::new(pointer(&spec.name, "port"), detail);
        if spec.is_managed() && first.is_managed() {
            errors.push(error.with_hint("use another port, or port: 0, which allocates a free one"));
        } else {
            warnings.push(error);
        }
    }
}

/// Checks that no service is where coredinator itself listens.
pub(super) fn own_port(config: &Config, errors: &mut Vec<FieldError>, warnings: &mut Vec<FieldError>) {
    let own = (place(&config.host), config.port);
    for spec in config.services.iter().filter(|spec| spec.port != 0 && (place(&spec.host), spec.port) == own) {
        let error =
            FieldError::new(pointer(&spec.name, "port"), format!("coredinator itself listens on port {}", spec.port));
        if spec.is_managed() {
            errors.push(error.with_hint("use another port, or port: 0, which allocates a free one"));
        } else {
            warnings.push(error);
        }
    }
}
