//! coredinator's own log: to standard error, as text for people and as JSON for programs.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// What is logged, in the syntax of [`EnvFilter`]; the audience's default where it is not set.
const FILTER: &str = "COREDINATOR_LOG";
/// `text` or `json`; text on a terminal and JSON elsewhere where it is not set.
const FORMAT: &str = "COREDINATOR_LOG_FORMAT";

/// Who reads the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Whoever operates a server: everything that happens.
    Operators,
    /// Somebody at a terminal who is told of progress in other words: warnings, and how it ends.
    People,
}

/// The target of what is told while coredinator goes down.
pub const SHUTDOWN: &str = "coredinator::shutdown";

/// Libraries that log as errors what their caller is told, and tells itself.
const QUIET: &str = "kube_client=off,kube_runtime=off";

/// Starts to log. Where a program has set up a log of its own already, that one stays.
pub fn init(audience: Audience) {
    let default = match audience {
        Audience::Operators => format!("info,{QUIET}"),
        Audience::People => format!("warn,{SHUTDOWN}=info,{QUIET}"),
    };
    let filter = EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new(default));
    let terminal = std::io::stderr().is_terminal();
    let json = match std::env::var(FORMAT).as_deref() {
        Ok("json") => true,
        Ok("text") => false,
        _ => audience == Audience::Operators && !terminal,
    };
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(colour);
    // An error says that there is a log already.
    let _ = match (json, audience) {
        (true, _) => registry.with(layer.json().flatten_event(true)).try_init(),
        (false, Audience::Operators) => registry.with(layer).try_init(),
        (false, Audience::People) => registry.with(layer.without_time()).try_init(),
    };
}
