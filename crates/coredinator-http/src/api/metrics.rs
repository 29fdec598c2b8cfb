//! What is told to Prometheus.

use std::fmt::Write as _;

use axum::{
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use coredinator_core::ServiceStatus;

use super::{model::ProblemDocument, params::NoParams, state::Api};

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
    line(&mut text, "coredinator_build_info", Some(("version", &api.info.version)), 1.0);
    gauge(&mut text, "coredinator_start_time_seconds", "When this server was started, in seconds since 1970.");
    let started = api.info.started_at.as_millisecond() as f64 / 1000.0;
    line(&mut text, "coredinator_start_time_seconds", None, started);
    gauge(&mut text, "coredinator_ready", "1 unless this server is coming up or going down.");
    line(&mut text, "coredinator_ready", None, f64::from(u8::from(api.ready.borrow().is_ready())));
    gauge(&mut text, "coredinator_services", "How many services have this status.");
    let services = api.registry.services();
    for status in ServiceStatus::ALL {
        let count = services.iter().filter(|view| view.status == status).count();
        line(&mut text, "coredinator_services", Some(("status", status.as_str())), count as f64);
    }
    text
}

fn gauge(text: &mut String, name: &str, help: &str) {
    // Writing to a text does not fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

fn line(text: &mut String, name: &str, label: Option<(&str, &str)>, value: f64) {
    let labels = label.map(|(key, value)| format!("{{{key}=\"{}\"}}", value.replace(['\\', '"', '\n'], "_")));
    let _ = writeln!(text, "{name}{} {value}", labels.unwrap_or_default());
}
