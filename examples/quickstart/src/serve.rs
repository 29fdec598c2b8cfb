//! What both services share: listening, stopping on a signal, saying a line.

use std::{fmt, future::Future, io, io::Write as _, path::PathBuf, time::Duration};

use axum::Router;
use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{problem::Problem, state_file};

/// How long requests under way may take once the service has been asked to stop.
const DRAIN: Duration = Duration::from_secs(2);

/// The flags that both services have.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Where its state lives [default: `plant` in $COREDINATOR_DATA_DIR or in .coredinator].
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
    /// Of the random source, for a first start.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

impl ServeArgs {
    /// Where the state of `name` lives.
    #[must_use]
    pub fn state_file(&self, name: &str) -> PathBuf {
        self.state_dir.clone().unwrap_or_else(state_file::default_dir).join(format!("{name}.json"))
    }
}

/// Says a line on standard output. That nobody listens is no reason to fail.
pub fn say(line: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    // One write a line, so that lines of several processes never mix.
    let text = format!("{line}\n");
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Answers with problem documents where there is no route.
pub fn with_fallbacks(router: Router) -> Router {
    router.fallback(|| async { Problem::NotFound }).method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
}

/// Listens, before anything of the service's state is touched: a second copy of it then harms nothing.
///
/// # Errors
/// The address cannot be bound.
pub async fn listen(host: &str, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((host, port))
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {host}:{port}: {error}")))
}

/// Serves `router` and runs `work` beside it until SIGTERM or SIGINT; `work` is told by the watch and then ends by itself.
///
/// # Errors
/// The signals cannot be watched, or `work` panicked.
pub async fn serve<F>(
    listener: TcpListener,
    router: Router,
    work: impl FnOnce(watch::Receiver<bool>) -> F,
) -> io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    say(format_args!("listening on http://{}", listener.local_addr()?));
    let (stop, stopped) = watch::channel(false);
    let working = tokio::spawn(work(stopped.clone()));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut drained = stopped;
    let serving = tokio::spawn(
        axum::serve(listener, router)
            .with_graceful_shutdown(async move { drop(drained.wait_for(|stop| *stop).await) })
            .into_future(),
    );
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    stop.send_replace(true);
    // A client that holds its connection open must not hold up the stop.
    drop(tokio::time::timeout(DRAIN, serving).await);
    working.await.map_err(io::Error::other)
}
