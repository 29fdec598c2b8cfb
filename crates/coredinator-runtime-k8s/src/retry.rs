//! Asking again: what an API server that is overloaded, restarting or cut off did not answer.
//!
//! Every call that the runtime makes can be made twice without doing anything twice: reads, server-side apply, and deletions
//! of an object by its id. So all of them are asked again.

use std::time::Duration;

use http::{
    Method, Request, Response, StatusCode,
    header::{RETRY_AFTER, UPGRADE},
};
use kube::{Client, client::Body};
use tower::BoxError;

/// How often a call is made at most.
const TRIES: u32 = 6;
/// The pause after the first try; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest wait that a server may ask for. One that asks for more is away, and the caller is told.
const LONGEST: Duration = Duration::from_secs(20);

/// What came of one try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Came {
    /// An answer, with what it says of when to come again.
    Answer { status: StatusCode, retry_after: Option<Duration> },
    /// None: the connection failed.
    Nothing,
}

/// How long to wait before the call is made again; `None`: what came stands. `try_` counts from 1; `random` is drawn from
/// [0, 1), and spreads those who were refused together.
pub(crate) fn pause(came: Came, try_: u32, random: f64) -> Option<Duration> {
    let own = PAUSE * 2_u32.saturating_pow(try_.saturating_sub(1));
    let own = own.mul_f64(0.75 + random / 2.0);
    let wait = match came {
        Came::Nothing => own,
        Came::Answer { status, retry_after } => match status.as_u16() {
            429 | 500 | 502 | 503 | 504 => retry_after.map_or(own, |asked| asked.max(own)),
            _ => return None,
        },
    };
    (try_ < TRIES && wait <= LONGEST).then_some(wait)
}

/// A client that asks again.
pub(crate) fn patient(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move { send(&client, request).await }
    });
    Client::new(service, namespace)
}

async fn send(client: &Client, request: Request<Body>) -> Result<Response<Body>, BoxError> {
    let mut request = Some(request);
    let mut try_ = 0;
    loop {
        try_ += 1;
        let Some(this) = request.take() else { return Err("a request that was taken".into()) };
        request = copy(&this);
        let answer = client.send(this).await;
        let came = match &answer {
            Ok(answer) => Came::Answer { status: answer.status(), retry_after: retry_after(answer) },
            Err(kube::Error::Service(_) | kube::Error::HyperError(_)) => Came::Nothing,
            Err(_) => return answer.map_err(Into::into),
        };
        match pause(came, try_, fastrand::f64()) {
            Some(wait) if request.is_some() => tokio::time::sleep(wait).await,
            _ => return answer.map_err(Into::into),
        }
    }
}

/// The same request once more; `None` if its body can be sent only once, or it opens a conversation.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    if request.method() == Method::POST || request.headers().contains_key(UPGRADE) {
        return None;
    }
    let mut copy = Request::new(request.body().try_clone()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy.extensions_mut().clone_from(request.extensions());
    Some(copy)
}

fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    answer.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, seconds: Option<u64>) -> Came {
        Came::Answer { status: StatusCode::from_u16(status).unwrap(), retry_after: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn what_may_pass_is_asked_again_and_nothing_else() {
        for status in [200, 201, 400, 401, 403, 404, 409, 410, 415, 422] {
            assert_eq!(pause(answer(status, Some(1)), 1, 0.5), None, "{status}");
        }
        for status in [429, 500, 502, 503, 504] {
            assert_eq!(pause(answer(status, None), 1, 0.5), Some(PAUSE), "{status}");
            assert_eq!(pause(answer(status, Some(3)), 1, 0.5), Some(Duration::from_secs(3)), "{status}");
            assert_eq!(pause(answer(status, None), TRIES, 0.5), None, "{status}");
            assert_eq!(pause(answer(status, Some(3600)), 1, 0.5), None, "that long is away");
        }
        assert_eq!(pause(Came::Nothing, 2, 0.5), Some(PAUSE * 2));
    }

    proptest! {
        #[test]
        fn it_comes_to_an_end(status in 100_u16..600, seconds in proptest::option::of(any::<u64>()), random in 0.0..1.0) {
            let came = answer(status, seconds);
            let waits: Vec<_> = (1..).map_while(|try_| pause(came, try_, random)).collect();
            prop_assert!(waits.len() < TRIES as usize);
            prop_assert!(waits.iter().all(|wait| *wait <= LONGEST));
            prop_assert!(pause(came, u32::MAX, random).is_none());
        }
    }
}
