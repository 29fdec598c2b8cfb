//! coredinator's own log: to standard error, as text for people and as JSON for programs.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged, in the syntax of [`EnvFilter`]; `info` where it is not set.
const FILTER: &str = "COREDINATOR_LOG";
/// `text` or `json`; text on a terminal and JSON elsewhere where it is not set.
const FORMAT: &str = "COREDINATOR_LOG_FORMAT";

/// Starts to log. Where a program has set up a log of its own already, that one stays.
pub fn init() {
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info"));
    let json = match std::env::var(FORMAT).as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        _ => !std::io::stderr().is_terminal(),
    };
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colour);
    // An error says that there is a log already.
    let _ =
        if json { registry.with(layer.json().flatten_event(true)).try_init() } else { registry.with(layer).try_init() };
}
