//! Where services are reached.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Path, State},
};
use coredinator_registry::{Endpoint as Place, ServiceView};

use super::{
    model::{Endpoint, Endpoints, ProblemDocument, PrometheusTargets},
    params::NoParams,
    problem::Problem,
    state::Api,
};

/// Where requests to a service can go now: its ready instances, or an external service that is up.
#[utoipa::path(
    get, path = "/api/coredinator/services/{service_id}/endpoints", tag = "discovery", operation_id = "endpoints",
    params(("service_id" = String, Path, description = "the service's name")),
    responses(
        (status = 200, description = "the places; none, if it is not up", body = Endpoints),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn endpoints(
    State(api): State<Api>,
    Path(name): Path<String>,
    _: NoParams,
) -> Result<Json<Endpoints>, Problem> {
    let view = api.service(&name)?;
    let endpoints = view.endpoints().into_iter().map(|place| Endpoint {
        url: format!("http://{}", authority(&place)),
        instance_id: place.instance,
        host: place.host,
        port: place.port,
    });
    Ok(Json(Endpoints { service: view.name().clone(), endpoints: endpoints.collect() }))
}

/// The same of all services, for Prometheus' HTTP service discovery.
#[utoipa::path(
    get, path = "/sd/prometheus", tag = "discovery", operation_id = "prometheus_targets",
    responses(
        (status = 200, description = "the places of every service that has any", body = Vec<PrometheusTargets>),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn prometheus(State(api): State<Api>, _: NoParams) -> Json<Vec<PrometheusTargets>> {
    let targets = api.registry.services().iter().map(|view| targets(view)).collect::<Vec<_>>();
    Json(targets.into_iter().filter(|group| !group.targets.is_empty()).collect())
}

fn targets(view: &ServiceView) -> PrometheusTargets {
    let labels = view.record.spec.labels.iter().map(|(key, value)| {
        let fit = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        (format!("__meta_coredinator_label_{}", key.chars().map(fit).collect::<String>()), value.clone())
    });
    let name = ("service".to_owned(), view.name().as_str().to_owned());
    PrometheusTargets {
        targets: view.endpoints().iter().filter(|place| place.port != 0).map(authority).collect(),
        labels: labels.chain([name]).collect::<BTreeMap<_, _>>(),
    }
}

/// `host:port`, with brackets around an IPv6 address.
fn authority(Place { host, port, .. }: &Place) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_version_6_wear_brackets() {
        for (host, expected) in [("a.b", "a.b:80"), ("::1", "[::1]:80"), ("[::1]", "[::1]:80")] {
            assert_eq!(authority(&Place { instance: None, host: host.to_owned(), port: 80 }), expected);
        }
    }
}
