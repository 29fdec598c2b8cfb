//! What instances wrote.

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, header},
    response::{Response, sse::Event as Sent},
};
use bytes::{BufMut, Bytes, BytesMut};
use coredinator_core::{LogLine, LogQuery, RuntimeError, Timestamp, duration};
use futures_util::{Stream, StreamExt};

use super::{
    model::ProblemDocument,
    params::Params,
    problem::{Problem, chain},
    schema,
    state::Api,
    stream::{EVENT_STREAM, accepts, send},
};

/// Lines that are there already go out together, up to this many.
const TOGETHER: usize = 256;

/// The output of a managed service's instances, oldest line first.
///
/// As plain text, line by line (each after `[replica] ` where several replicas are asked for), or, with
/// `Accept: text/event-stream`, as events whose data are lines as JSON; an event named `error` is the last.
#[utoipa::path(
    get, path = "/api/coredinator/services/{service_id}/logs", tag = "services", operation_id = "logs",
    params(
        ("service_id" = String, Path, description = "the service's name"),
        ("tail" = Option<usize>, Query, description = "the newest lines of each replica; all that are kept, if it is not given", minimum = 0, maximum = 18446744073709551615_u64),
        ("since" = Option<String>, Query, description = "no older lines: a time (RFC 3339), or how long ago (`5m`)", pattern = "^([0-9]{4}-[0-9]{2}-[0-9]{2}T.+|([0-9]+([.][0-9]+)?|([0-9]+([.][0-9]+)?(us|ms|s|m|h|d))+))$"),
        ("follow" = Option<bool>, Query, description = "go on with new lines as they are written, over restarts too"),
        ("replica" = Option<u32>, Query, description = "of one replica alone", minimum = 0, maximum = 4294967295_u32),
    ),
    responses(
        (status = 200, description = "the lines", content(
            (String = "text/plain"),
            (schema::LogLine = "text/event-stream"),
        )),
        (status = 400, description = "a query parameter is wrong", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "no such service", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "it is external: its output is not kept here", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 501, description = "its runtime keeps no output", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "its runtime is unavailable", body = ProblemDocument, content_type = "application/problem+json"),
    )
)]
pub(super) async fn logs(
    State(api): State<Api>,
    Path(name): Path<String>,
    mut params: Params,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let now = api.now();
    let (tail, replica) = (params.number("tail"), params.number("replica"));
    let since = params.read("since", |text| parse_since(text, now));
    let follow = params.switch("follow");
    params.finish()?;
    let view = api.service(&name)?;
    let spec = &view.record.spec;
    let Some(runtime) = &spec.runtime else {
        return Err(Problem::conflict("External", format!("{name} is external: coredinator does not have its output")));
    };
    let Some(runtime) = api.runtimes.get(runtime) else {
        return Err(Problem::conflict("NoSuchRuntime", format!("there is no runtime {runtime} (any more)")));
    };
    let several = replica.is_none() && view.declared_replicas().max(spec.replicas) > 1;
    let lines = runtime.logs(LogQuery { service: view.name().clone(), replica, tail, since, follow }).await?;
    if accepts(&headers, EVENT_STREAM) {
        return Ok(send(&api, as_events(lines)));
    }
    let until = api.shutdown.clone().cancelled_owned();
    let text = lines.take_until(until).ready_chunks(TOGETHER).map(move |lines| as_text(lines, several));
    let mut response = Response::new(Body::from_stream(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn as_events(
    lines: impl Stream<Item = Result<LogLine, RuntimeError>> + Send + 'static,
) -> impl Stream<Item = Sent> + Send + 'static {
    lines.map(|line| match line {
        Ok(line) => {
            let json = serde_json::to_string(&line).unwrap_or_else(|_| unreachable!("a line is plain data"));
            Sent::default().data(json)
        }
        Err(error) => {
            let json = serde_json::Value::String(chain(&error));
            Sent::default().event("error").data(json.to_string())
        }
    })
}

/// Lines as text. An error cuts the answer off, so that it is not taken for the end.
fn as_text(lines: Vec<Result<LogLine, RuntimeError>>, several: bool) -> Result<Bytes, RuntimeError> {
    let mut text = BytesMut::new();
    for line in lines {
        let line = line?;
        if several {
            text.put_slice(format!("[{}] ", line.replica).as_bytes());
        }
        text.put_slice(line.line.as_bytes());
        text.put_u8(b'\n');
    }
    Ok(text.freeze())
}

/// A time, or how long ago.
fn parse_since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let ago = duration::parse(text).map_err(|_| {
        format!("must be a time such as 2026-01-31T12:00:00Z, or how long ago, such as 5m, but is {text:?}")
    })?;
    now.checked_sub(ago).map_err(|_| format!("lies before all time: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_or_a_while() {
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(parse_since("90s", now), Timestamp::from_second(910).map_err(|e| e.to_string()));
        assert_eq!(parse_since("1970-01-01T00:00:05Z", now), Timestamp::from_second(5).map_err(|e| e.to_string()));
        for bad in ["", "yesterday", "-5", "1970-13-01T00:00:00Z"] {
            assert!(parse_since(bad, now).is_err(), "{bad}");
        }
    }
}
