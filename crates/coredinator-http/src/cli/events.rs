//! `events`.

use std::time::Duration;

use coredinator_core::{Clock as _, SystemClock};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    ExitStatus, Failure, args::EventsArgs, client::Client, fields::text, output::Output, sse::SseReader, view,
};

/// How long to wait before a stream that broke off is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// How many events that have been are shown: all that the server tells where nobody waits for more, else the last few.
const LISTED: u32 = 10_000;
const BEFORE_FOLLOWING: u32 = 10;

/// `events`.
///
/// # Errors
/// As [`Client::get`], [`Client::stream`].
pub async fn run(client: &Client, output: &Output, args: &EventsArgs) -> Result<(), Failure> {
    if !args.follow {
        let list = client.get(&format!("/events?limit={LISTED}")).await?;
        let events = list.get("events").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        return events.iter().try_for_each(|event| show(output, args, event));
    }
    let mut last: Option<String> = None;
    loop {
        match stream(client, output, args, &mut last).await {
            // It can go on where it broke off, if the server is there still.
            Err(failure) if failure.exit != ExitStatus::Unreachable || !client.answers().await => return Err(failure),
            _ => output.note("the stream of events ended; opening it again"),
        }
        sleep(PAUSE).await;
    }
}

async fn stream(client: &Client, output: &Output, args: &EventsArgs, last: &mut Option<String>) -> Result<(), Failure> {
    let path = if last.is_none() { format!("/events?limit={BEFORE_FOLLOWING}") } else { "/events".to_owned() };
    let mut response = client.stream(&path, last.as_deref()).await?;
    let mut reader = SseReader::default();
    while let Some(piece) = client.chunk(&mut response).await? {
        for event in reader.push(&piece) {
            if event.name == "reset" {
                output.warn("some events are no longer kept, and are left out");
            }
            if event.id.is_some() {
                *last = event.id;
            }
            if let Ok(value) = serde_json::from_str::<Value>(&event.data) {
                show(output, args, &value)?;
            }
        }
    }
    Ok(())
}

/// Shows an event, if it is about a service that is asked for.
fn show(output: &Output, args: &EventsArgs, event: &Value) -> Result<(), Failure> {
    let service = text(event, "service");
    if service.is_empty() || !(args.names.is_empty() || args.names.iter().any(|name| name == service)) {
        return Ok(());
    }
    output.item(event, |wide| view::event(event, wide || args.follow, SystemClock.now()))
}
