//! The HTTP API: it parses, calls the registry, and renders. It owns no state and takes no decisions.
//!
//! [`router`] makes it from an [`ApiState`]; [`serve`] puts it on a socket; [`model`] holds what it says and hears.
//! Every request passes `edge`, which writes every refusal as `application/problem+json`; a handler a file, grouped by what
//! they are about; `render` keeps the JSON of services for as long as it holds; `params` and `body` read strictly.

use axum::{
    Router,
    extract::Path,
    middleware::from_fn_with_state,
    routing::{get, post, put},
};
use utoipa_swagger_ui::SwaggerUi;

mod agents;
mod body;
mod commands;
pub mod config;
mod coordination;
mod coordination_schema;
mod database;
pub mod database_schema;
mod discovery;
mod edge;
mod events;
mod forward;
mod health;
mod inspect;
mod leadership;
mod logs;
mod metrics;
pub mod model;
mod openapi;
mod params;
mod peers;
mod problem;
mod render;
mod schema;
mod serve;
mod services;
mod state;
mod stream;
mod system;
mod wait;

pub use events::EventList;
pub use openapi::openapi;
pub use serve::{ServeOptions, serve};
pub use state::{ApiOptions, ApiState, Readiness, ServerInfo};

use state::Api;

/// The whole API as a router, which needs no socket.
///
/// Requests are taken to come from this machine only if they carry a loopback
/// [`ConnectInfo<SocketAddr>`](axum::extract::ConnectInfo), as [`serve`] adds it.
pub fn router(state: ApiState, options: ApiOptions) -> Router {
    let api = Api::new(state, options);
    let to_node = from_fn_with_state(api.clone(), forward::to_node);
    let to_owner = from_fn_with_state(api.clone(), forward::to_owner);
    let to_owner_if_reached = from_fn_with_state(api.clone(), forward::to_owner_if_reached);
    let to_leader = from_fn_with_state(api.clone(), forward::to_leader);
    let of_service = Router::new()
        .route("/", get(services::get).delete(services::deregister))
        .route("/health", get(health::of_service).layer(to_owner_if_reached))
        .route("/start", post(commands::start))
        .route("/stop", post(commands::stop))
        .route("/restart", post(commands::restart))
        .route("/scale", put(commands::scale))
        .route("/heartbeat", post(commands::heartbeat).layer(to_owner))
        .route("/logs", get(logs::logs).layer(to_node.clone()))
        .route("/inspect", get(inspect::inspect).layer(to_node))
        .route("/endpoints", get(discovery::endpoints));
    let of_agent = Router::new()
        .route("/", get(agents::get).delete(agents::deregister))
        .route("/heartbeat", post(agents::heartbeat))
        .route("/intention", post(agents::intend))
        .route("/decision", get(agents::told))
        .route("/decision/ack", post(agents::acknowledge));
    let of_coordination = Router::new()
        .route("/status", get(coordination::status))
        .route("/cycles", get(coordination::cycles))
        .route("/cycles/{cycle}", get(coordination::cycle))
        .route("/step", post(coordination::step))
        .route("/strategy", post(coordination::strategy))
        .route("/resources", post(coordination::resources))
        .route("/events", get(coordination::events));
    let of_config = Router::new()
        .route("/generate", get(config::generate))
        .route("/validate", post(config::validate))
        .route("/update", put(config::update))
        .route("/history", get(config::history))
        .route("/history/{revision}", get(config::revision))
        .route("/rollback", post(config::rollback))
        .route("/services/{service_id}", get(config::of_service))
        .route("/services/{service_id}/ack", post(config::acknowledge));
    let of_the_leader = Router::new()
        .route("/api/coredinator/agents", get(agents::list))
        .route(
            "/api/coredinator/agents/register",
            // An agent may have that name, too.
            post(agents::register)
                .get(|api, params| agents::get(api, Path("register".to_owned()), params))
                .delete(|api, params| agents::deregister(api, Path("register".to_owned()), params)),
        )
        .nest("/api/coredinator/agents/{agent_id}", of_agent)
        .nest("/api/coredinator/coordination", of_coordination)
        .layer(to_leader);
    Router::new()
        .merge(of_the_leader)
        .nest("/api/coredinator/config", of_config)
        .route("/api/coredinator/database/status", get(database::status))
        .route("/api/coredinator/database/verify", post(database::verify))
        .route("/api/coredinator/services", get(services::list))
        .route(
            "/api/coredinator/services/register",
            // A service may have that name, too.
            post(services::register)
                .get(|api, params, headers| services::get(api, Path("register".to_owned()), params, headers))
                .delete(|api, params| services::deregister(api, Path("register".to_owned()), params)),
        )
        .nest("/api/coredinator/services/{service_id}", of_service)
        .route("/api/coredinator/events", get(events::events))
        .route("/api/coredinator/health", get(health::system))
        .route("/api/coredinator/leadership", get(leadership::leadership))
        .route("/health", get(health::health))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/version", get(health::version))
        .route("/-/reload", post(config::reload))
        .route("/metrics", get(metrics::metrics))
        .route("/sd/prometheus", get(discovery::prometheus))
        .with_state(api.clone())
        .merge(SwaggerUi::new("/docs").url("/openapi.json", openapi()))
        .layer(from_fn_with_state(api, edge::edge))
}
