//! `logs`.

use coredinator_core::{Clock as _, SystemClock, Timestamp};
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::{
    ExitStatus, Failure,
    args::LogsArgs,
    client::Client,
    fields::text,
    output::{Format, Output},
    services::{all, encode},
    sse::SseReader,
    view,
};

/// `logs`.
///
/// # Errors
/// As [`Client::stream`].
pub async fn run(client: &Client, output: &Output, args: &LogsArgs) -> Result<(), Failure> {
    let mut names = args.names.clone();
    if names.is_empty() {
        let managed = all(client).await?.into_iter().filter(|service| !text(service, "runtime").is_empty());
        names.extend(managed.map(|service| text(&service, "name").to_owned()));
    }
    let mut query = vec![format!("follow={}", args.follow)];
    query.extend(args.tail.map(|tail| format!("tail={tail}")));
    if let Some(since) = &args.since {
        query.push(format!("since={}", encode(&instant(since, SystemClock.now())?)));
    }
    let query = query.join("&");
    let width = names.iter().map(|name| name.chars().count() + 2).max().unwrap_or_default();
    let each = names.iter().map(|name| one(client, output, name, &query, width, !args.no_prefix));
    if args.follow {
        return try_join_all(each).await.map(drop);
    }
    for logs in each {
        logs.await?;
    }
    Ok(())
}

/// `5m` ago, or an instant as it is.
fn instant(text: &str, now: Timestamp) -> Result<String, Failure> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant.to_string());
    }
    let invalid = || {
        Failure::new(ExitStatus::Usage, format!("{text:?} is neither a length of time nor an instant"))
            .hint("write it as 5m, 1h30m, or 2026-01-01T12:00:00Z")
    };
    let before = coredinator_core::duration::parse(text).map_err(|_| invalid())?;
    now.checked_sub(before).map(|instant| instant.to_string()).map_err(|_| invalid())
}

async fn one(
    client: &Client,
    output: &Output,
    name: &str,
    query: &str,
    width: usize,
    prefix: bool,
) -> Result<(), Failure> {
    let write = |line: &Value| -> Result<(), Failure> {
        let mut whole = line.clone();
        if matches!(output.format, Format::Json | Format::Yaml) && whole.is_object() {
            whole["service"] = name.into();
        }
        output.item(&whole, |_| view::log_line(name, line, width, prefix))
    };
    let mut response = client.stream(&format!("/services/{}/logs?{query}", encode(name)), None).await?;
    let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let events = kind.starts_with("text/event-stream");
    let mut reader = SseReader::default();
    let mut plain: Vec<u8> = Vec::new();
    while let Some(piece) = client.chunk(&mut response).await? {
        if events {
            for event in reader.push(&piece) {
                match serde_json::from_str::<Value>(&event.data) {
                    Ok(error) if event.name == "error" => {
                        let why = error.as_str().unwrap_or("the server does not say why");
                        return Err(Failure::new(
                            ExitStatus::Failed,
                            format!("the output of {name} breaks off: {why}"),
                        ));
                    }
                    Ok(line) => write(&line)?,
                    Err(_) => write(&json!({ "line": event.data }))?,
                }
            }
        } else {
            plain.extend_from_slice(&piece);
            while let Some(end) = plain.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = plain.drain(..=end).collect();
                write(&json!({ "line": String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']) }))?;
            }
        }
    }
    if plain.is_empty() { Ok(()) } else { write(&json!({ "line": String::from_utf8_lossy(&plain) })) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        assert_eq!(instant("5m", now).unwrap(), "2026-01-01T11:55:00Z");
        assert_eq!(instant("2025-12-31T00:00:00+01:00", now).unwrap(), "2025-12-30T23:00:00Z");
        for bad in ["", "yesterday", "-5m", "2026-01-01"] {
            assert_eq!(instant(bad, now).unwrap_err().exit, ExitStatus::Usage, "{bad}");
        }
    }
}
