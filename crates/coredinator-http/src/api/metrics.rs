//! What is told to Prometheus.

use std::{fmt::Write as _, sync::Arc};

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use coredinator_core::ServiceStatus;
use coredinator_registry::{
    ServiceView,
    leadership::{Role, Standing},
};

use super::{
    model::{ProblemDocument, Service},
    params::NoParams,
    state::Api,
};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Numbers about coredinator, its services and their coordination, in Prometheus' text format.
///
/// `coredinator_services` has a series for each status; the other names and their meaning are in `docs/coordination.md`.
#[utoipa::path(
    get, path = "/metrics", tag = "server", operation_id = "metrics",
    responses(
        (status = 200, description = "the numbers", body = String, content_type = "text/plain"),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn metrics(State(api): State<Api>, _: NoParams) -> Response {
    let mut text = own(&api);
    if let Some(recorder) = crate::metrics::recorder() {
        text.push_str(&recorder.render());
    }
    ([(header::CONTENT_TYPE, TEXT)], text).into_response()
}

/// What this server knows of itself at any time, whoever else counts in the process.
fn own(api: &Api) -> String {
    let mut text = String::new();
    gauge(&mut text, "coredinator_build_info", "Always 1; the label tells the version.");
    line(&mut text, "coredinator_build_info", Some(("version", api.info.version.as_str())), 1.0);
    gauge(&mut text, "coredinator_start_time_seconds", "When this server was started, in seconds since 1970.");
    let started = api.info.started_at.as_millisecond() as f64 / 1000.0;
    line(&mut text, "coredinator_start_time_seconds", None, started);
    gauge(&mut text, "coredinator_ready", "1 unless this server is coming up or going down.");
    line(&mut text, "coredinator_ready", None, f64::from(u8::from(api.ready.borrow().is_ready())));
    leadership(&mut text, &api.registry.place().standing());
    gauge(&mut text, "coredinator_store_stale_seconds", "How long the store has not been reached; 0 while it is.");
    let stale = api.registry.stale_for().unwrap_or_default().as_secs_f64();
    line(&mut text, "coredinator_store_stale_seconds", None, stale);
    gauge(&mut text, "coredinator_services", "How many services have this status.");
    let services = api.registry.services();
    for status in ServiceStatus::ALL {
        let count = services.iter().filter(|view| view.status == status).count();
        line(&mut text, "coredinator_services", Some(("status", status.as_str())), count as f64);
    }
    documents(&mut text, &services);
    text
}

/// Which revision of its configuration document is in force where.
fn documents(text: &mut String, services: &[Arc<ServiceView>]) {
    let with: Vec<_> = services.iter().filter(|view| view.record.config.is_some()).collect();
    if with.is_empty() {
        return;
    }
    gauge(text, "coredinator_config_revision", "The newest revision of a service's configuration document.");
    for view in &with {
        let labels = [("service", view.name().as_str())];
        line(text, "coredinator_config_revision", labels, view.record.config_revision as f64);
    }
    let told: Vec<_> = with.iter().map(|view| (view, Service::new(view, view.since))).collect();
    gauge(text, "coredinator_config_drift", "In how many running instances another one is in force.");
    for (view, service) in &told {
        let drifted = service.config.as_ref().map_or(0, |config| config.drifted);
        line(text, "coredinator_config_drift", [("service", view.name().as_str())], f64::from(drifted));
    }
    gauge(text, "coredinator_instance_config_revision", "The revision that is in force in a running instance.");
    for (view, service) in &told {
        for instance in &service.instances {
            let Some(config) = &instance.config else { continue };
            let in_force = config.acknowledged.unwrap_or(config.revision);
            let replica = instance.replica.to_string();
            let labels = [("service", view.name().as_str()), ("replica", replica.as_str())];
            line(text, "coredinator_instance_config_revision", labels, in_force as f64);
        }
    }
}

/// Who leads, as this replica knows it.
fn leadership(text: &mut String, standing: &Standing) {
    let leads = f64::from(u8::from(standing.role == Role::Leader));
    gauge(text, "coredinator_leader", "1 while this replica leads.");
    line(text, "coredinator_leader", None, leads);
    gauge(text, "coredinator_leader_epoch", "The leader's epoch, which rises with every new leader.");
    line(text, "coredinator_leader_epoch", None, standing.epoch.0 as f64);
    gauge(text, "coredinator_node_epoch", "The epoch under which this replica acts for its node; 0: it does not.");
    line(text, "coredinator_node_epoch", None, standing.node_epoch.0 as f64);
    if let Some(heard) = standing.heard {
        gauge(text, "coredinator_store_silence_seconds", "How long ago the shared store answered last.");
        line(text, "coredinator_store_silence_seconds", None, heard.as_secs_f64());
    }
    gauge(text, "coredinator_replicas", "How many replicas share the store, by whether they were heard of of late.");
    let alive = standing.replicas.iter().filter(|replica| replica.lost.is_none()).count();
    for (state, count) in [("alive", alive), ("lost", standing.replicas.len() - alive)] {
        line(text, "coredinator_replicas", Some(("state", state)), count as f64);
    }
}

fn gauge(text: &mut String, name: &str, help: &str) {
    // Writing to a text does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn line<'l>(text: &mut String, name: &str, labels: impl IntoIterator<Item = (&'l str, &'l str)>, value: f64) {
    let labels = labels.into_iter().map(|(key, value)| format!("{key}=\"{}\"", value.replace(['\\', '"', '\n'], "_")));
    let labels = labels.collect::<Vec<_>>().join(",");
    let labels = if labels.is_empty() { labels } else { format!("{{{labels}}}") };
    let _ = writeln!(text, "{name}{labels} {value}");
}
