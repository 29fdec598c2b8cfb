//! Serving the API on a socket.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, getrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

/// What the server allows its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServeOptions {
    /// How long requests that are being answered may take when the server ends.
    pub drain: Duration,
    /// A connection on which no whole head of a request has come for this long, the first or the next, is closed.
    pub head_timeout: Duration,
    /// How many connections there are at once; further ones wait until one has ended.
    pub max_connections: usize,
}

impl Default for ServeOptions {
    /// 10 s, 30 s, and half as many connections as this process may open files (10,000 at most): the other half is for the
    /// services' own.
    fn default() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let max_connections = usize::try_from(files / 2).unwrap_or(usize::MAX).clamp(1, 10_000);
        Self { drain: Duration::from_secs(10), head_timeout: Duration::from_secs(30), max_connections }
    }
}

/// After an accept that failed for want of something (files, memory).
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown` is cancelled, and then for as long as requests are being answered, `drain`
/// at most; whatever is still open then is cut off, as it is when the future is dropped. Streams and waiting requests end
/// with the token that the router's state was made with.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken, options: ServeOptions) {
    let slots = Arc::new(Semaphore::new(options.max_connections));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    let _cut_at_the_end = cut.clone().drop_guard();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(options.head_timeout);
    let accepting = async {
        // Nobody closes the semaphore.
        while let Ok(slot) = slots.clone().acquire_owned().await {
            let (socket, peer) = accept(&listener).await;
            let served = connection(http.clone(), socket, peer, router.clone(), shutdown.clone());
            let cut = cut.clone();
            connections.spawn(async move {
                let _slot = slot;
                cut.run_until_cancelled(served).await;
            });
        }
    };
    shutdown.run_until_cancelled(accepting).await;
    drop(listener);
    connections.close();
    if tokio::time::timeout(options.drain, connections.wait()).await.is_err() {
        tracing::warn!("{} connections are cut off: their requests took too long", connections.len());
    }
}

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            // The client's own affair.
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection cannot be accepted; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Serves one connection to its end; after `shutdown` to the end of the request that is being answered.
async fn connection(
    http: http1::Builder,
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    shutdown: CancellationToken,
) {
    // Answers are written whole, so that gathering would only delay them.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "small answers may be late");
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        router.clone().oneshot(request)
    });
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(socket), service));
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error = %super::problem::chain(&error), "a connection ended early");
    }
}
