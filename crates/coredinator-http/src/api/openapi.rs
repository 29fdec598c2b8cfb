//! The API's description, made from the code.

use utoipa::OpenApi;

use super::{
    agents, commands, config, coordination, database, discovery, events, health, inspect, leadership, logs, metrics,
    services,
};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "coredinator",
        description = "The control plane for fleets of reinforcement-learning services that share one plant.\n\nErrors are \
                       `application/problem+json` (RFC 9457). Every answer carries `X-Request-Id`, the request's own if it \
                       has one. Query parameters that are not known are refused.",
        license(name = "MIT OR Apache-2.0"),
    ),
    servers((url = "/")),
    paths(
        services::list,
        services::get,
        services::register,
        services::deregister,
        health::of_service,
        commands::start,
        commands::stop,
        commands::restart,
        commands::scale,
        commands::heartbeat,
        logs::logs,
        inspect::inspect,
        discovery::endpoints,
        discovery::prometheus,
        events::events,
        agents::register,
        agents::list,
        agents::get,
        agents::deregister,
        agents::heartbeat,
        agents::intend,
        agents::told,
        agents::acknowledge,
        coordination::status,
        coordination::cycles,
        coordination::cycle,
        coordination::step,
        coordination::strategy,
        coordination::resources,
        coordination::events,
        config::generate,
        config::validate,
        config::update,
        config::history,
        config::revision,
        config::rollback,
        config::of_service,
        config::acknowledge,
        config::reload,
        database::status,
        database::verify,
        health::system,
        health::health,
        health::livez,
        health::readyz,
        leadership::leadership,
        health::version,
        metrics::metrics,
    ),
    tags(
        (name = "services", description = "what is declared, and how it stands"),
        (name = "commands", description = "what is done to services by hand"),
        (name = "health", description = "how everything is"),
        (name = "events", description = "what happened"),
        (name = "agents", description = "who takes part in coordination, what they want and what they get"),
        (name = "coordination", description = "how conflicts between agents are resolved, cycle by cycle"),
        (name = "config", description = "what is declared, as one document with a history"),
        (name = "database", description = "the store behind everything"),
        (name = "discovery", description = "where services are reached"),
        (name = "server", description = "coredinator itself"),
    )
)]
struct Description;

/// The API's description.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}
