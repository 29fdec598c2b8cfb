//! How fast coredinator is, in one table: `cargo bench -p coredinator-http --bench report [-- ROW…]`.
//!
//! It drives the real binary over real data directories and real processes, on loopback alone. Every part is bounded in time
//! and count; a word on the command line picks the parts whose name holds it. What other programs do is measured in the same
//! run where they are installed (runit, s6, supervisord, Docker, a dictionary behind FastAPI), and left out with a line where not.
//! Run without `--bench`, as a test, it only says that it was built.

mod api;
mod config;
#[cfg(feature = "docker")]
mod containers;
mod cycle;
#[cfg(feature = "docker")]
#[path = "../../../coredinator-runtime-docker/tests/support/mod.rs"]
#[expect(dead_code, reason = "the runtime's tests use more of it")]
mod engine;
#[cfg(feature = "postgres")]
mod failover;
mod fleet;
mod http;
mod load;
mod peers;
mod server;
mod size;

use std::{error::Error, time::Duration};

use tokio::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Prints its rows.
type Part = fn() -> Outcome<()>;

/// The parts, and the word that picks each.
const PARTS: &[(&str, Part)] = &[
    ("restart", fleet::restarts),
    ("start", fleet::starts),
    ("peers", peers::restarts),
    #[cfg(feature = "docker")]
    ("containers", containers::all),
    ("api", api::reads),
    ("writes", api::writes),
    ("cycle", cycle::all),
    #[cfg(feature = "postgres")]
    ("failover", failover::all),
    ("config", config::all),
    ("memory", size::all),
];

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        // The other processes of a measurement are this program, too.
        ["load", rest @ ..] => return load::generate(rest),
        ["endpoint", port] => return http::endpoint(port.parse()?),
        _ => {}
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("built; measures when run by `cargo bench`");
        return Ok(());
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    println!("{:<58} {:>14} {:>12} {:>6}", "", "median", "p99", "n");
    for &(name, part) in PARTS {
        let is_wanted = wanted.is_empty() || wanted.iter().any(|word| name.contains(word.as_str()));
        if is_wanted && let Err(error) = part() {
            println!("{name}: not measured: {error}");
        }
    }
    println!("health checks a second, their lateness: cargo bench -p coredinator-registry --bench health");
    Ok(())
}

/// Prints a row of durations.
fn row(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let Some(last) = times.len().checked_sub(1) else { return };
    let at = |share: usize| format!("{:.2} ms", times[last * share / 100].as_secs_f64() * 1000.0);
    println!("{what:<58} {:>14} {:>12} {:>6}", at(50), at(99), times.len());
}

/// Prints a row of one value.
fn value(what: &str, value: &str) {
    println!("{what:<58} {value:>14}");
}

/// Waits until `holds`, looking every millisecond; fails after `limit`.
fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> Outcome<bool>) -> Outcome<Duration> {
    let since = Instant::now();
    while !holds()? {
        if since.elapsed() > limit {
            return Err(format!("{what} took longer than {limit:?}").into());
        }
        pause(Duration::from_millis(1));
    }
    Ok(since.elapsed())
}

/// Sleeps. Measurements are made of real time, by threads that may block.
fn pause(time: Duration) {
    std::thread::park_timeout(time);
}
