//! What libraries count through the facade `metrics`, kept for `GET /metrics`.
//!
//! A process has one recorder. Where a program that embeds coredinator has set one of its own, that is left alone and gets
//! everything; several coredinators in one process count together.

use std::{sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

/// From one clean-up to the next: what is counted is kept sample by sample until then.
const UPKEEP: Duration = Duration::from_secs(5);

/// The upper ends, in seconds, of the classes by which times are counted.
const TIMES: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The process's recorder, set up at the first call; `None` where there is one already that is not ours.
pub(crate) fn recorder() -> Option<&'static PrometheusHandle> {
    static RECORDER: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let set_up = || {
        let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &TIMES);
        let recorder = match builder {
            Ok(builder) => builder.build_recorder(),
            Err(error) => {
                tracing::error!(%error, "metrics cannot be kept");
                return None;
            }
        };
        let handle = recorder.handle();
        match metrics::set_global_recorder(recorder) {
            Ok(()) => Some(handle),
            Err(_) => {
                tracing::info!("this program keeps metrics itself: /metrics tells only what coredinator knows anyway");
                None
            }
        }
    };
    RECORDER.get_or_init(set_up).as_ref()
}

/// Cleans up after the recorder until `end` is cancelled.
pub(crate) fn keep_up(handle: &PrometheusHandle, end: CancellationToken) {
    let handle = handle.clone();
    tokio::spawn(end.run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            handle.run_upkeep();
        }
    }));
}
