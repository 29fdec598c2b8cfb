//! Runs coredinator in the foreground until a signal ends it.

use coredinator_core::{Severity, Timestamp};
use coredinator_registry::{EventItem, Registry};
use coredinator_runtime_process::raise_descriptor_limit;
use futures_util::future::BoxFuture;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};
use tokio_util::sync::CancellationToken;

use crate::{Coredinator, Shutdown, StartError, cli, logging::SHUTDOWN};

/// Why [`serve`] ended in any other way than by a signal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// It could not start.
    #[error("coredinator could not start")]
    Start(#[from] StartError),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
}

/// Starts `coredinator` and runs it until SIGTERM or SIGINT (Ctrl-C); then ends it as `how` says. A second signal kills what
/// has not ended yet. SIGHUP has it read its file anew. `listening` is told the address, `http://host:port`, once requests are answered there.
///
/// # Errors
/// [`ServeError`], before anything has been started.
pub async fn serve(
    coredinator: Coredinator,
    how: Shutdown,
    listening: Option<oneshot::Sender<String>>,
) -> Result<(), ServeError> {
    match raise_descriptor_limit() {
        Ok(limit) => tracing::debug!(limit, "descriptors that can be open"),
        Err(error) => tracing::warn!(%error, "cannot raise the limit of open descriptors"),
    }
    // Before anything starts, so that no signal is missed.
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let running = coredinator.start().await?;
    let address = running.address();
    tracing::info!("listening on http://{address}");
    if !address.ip().is_loopback() {
        tracing::warn!(
            "ANYONE WHO REACHES {address} CAN STOP AND START SERVICES: there is no authentication. Registrations that \
             carry a command are taken from this machine alone"
        );
    }
    let ending = CancellationToken::new();
    tokio::spawn(tell(running.registry().clone(), running.started_at(), ending.clone()));
    if let Some(listening) = listening {
        // Whoever asked may have gone.
        let _ = listening.send(running.url());
    }
    let reloading = tokio::spawn(reload_on(signals.hangup(), running.reloader().clone()));
    signals.any().await;
    reloading.abort();
    ending.cancel();
    match how {
        Shutdown::StopServices => {
            tracing::info!(target: SHUTDOWN, "stopping services, dependents first; a second signal kills them");
        }
        Shutdown::Detach => {
            tracing::info!(target: SHUTDOWN, "leaving services running; the next coredinator adopts them");
        }
    }
    let force = CancellationToken::new();
    let stop = running.stop(how, force.clone());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = signals.any() => force.cancel(),
        }
    }
}

/// A [`cli::Serve`] that runs coredinator with whatever `extend` adds: runtimes, probes, a store of one's own.
pub fn server(extend: impl Fn(Coredinator) -> Coredinator + Send + Sync + 'static) -> cli::Serve {
    Box::new(move |config, options| {
        let how = if config.detach { Shutdown::Detach } else { Shutdown::StopServices };
        let file = options.file.map(|file| file.display().to_string());
        let mut coredinator = Coredinator::new(config).file(file);
        if let Some(read) = options.reload {
            coredinator = coredinator.reload(read);
        }
        served(extend(coredinator), how, options.listening)
    })
}

/// [`serve`], compiled here once and not anew in each program that serves.
#[inline(never)]
fn served(
    coredinator: Coredinator,
    how: Shutdown,
    listening: Option<oneshot::Sender<String>>,
) -> BoxFuture<'static, Result<(), cli::ServeFailure>> {
    Box::pin(async move { serve(coredinator, how, listening).await.map_err(cli::ServeFailure::from) })
}

/// Reads the file anew whenever the signal comes.
async fn reload_on(hangup: Option<Signal>, reloader: crate::reload::Reloader) {
    let Some(mut hangup) = hangup else { return };
    while hangup.recv().await.is_some() {
        // What came of it has been logged.
        let _ = reloader.reload().await;
    }
}

/// The signals that end coredinator, and the one that has it read its file anew.
struct Signals {
    end: [Signal; 2],
    hangup: Option<Signal>,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let end = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        Ok(Self { end, hangup: Some(signal(SignalKind::hangup())?) })
    }

    fn hangup(&mut self) -> Option<Signal> {
        self.hangup.take()
    }

    async fn any(&mut self) {
        let [terminate, interrupt] = &mut self.end;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

/// Logs every event since the start.
async fn tell(registry: Registry, started_at: Timestamp, ending: CancellationToken) {
    let mut events = registry.events(Some(0));
    loop {
        let EventItem::Event(event) = events.next().await else { continue };
        if event.at < started_at {
            // History, not news.
            continue;
        }
        let subject = event.replica.map_or_else(|| event.service.to_string(), |n| format!("{}-{n}", event.service));
        match event.severity {
            Severity::Normal if ending.is_cancelled() => {
                tracing::info!(target: SHUTDOWN, "{subject}: {}", event.reason.message);
            }
            Severity::Normal => tracing::info!("{subject}: {}", event.reason.message),
            Severity::Warning => tracing::warn!("{subject}: {}", event.reason.message),
        }
    }
}
