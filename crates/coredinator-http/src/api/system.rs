//! How the machine is doing, sampled in the background so that no request waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use sysinfo::{CpuRefreshKind, MINIMUM_CPU_UPDATE_INTERVAL, MemoryRefreshKind, RefreshKind, System};

/// From one sample to the next.
const INTERVAL: Duration = Duration::from_secs(5);

/// The last sample, in per cent.
#[derive(Debug, Default)]
struct Sample {
    cpu: AtomicU8,
    memory: AtomicU8,
}

/// Samples until it is dropped.
#[derive(Debug)]
pub(super) struct SystemSampler(Arc<Sample>);

impl SystemSampler {
    /// Starts on the current tokio runtime.
    pub(super) fn start() -> Self {
        let sample = Arc::new(Sample::default());
        let weak = Arc::downgrade(&sample);
        tokio::spawn(async move {
            let what = RefreshKind::nothing()
                .with_cpu(CpuRefreshKind::nothing().with_usage())
                .with_memory(MemoryRefreshKind::nothing().with_ram());
            let Ok(mut system) = System::new_with_specifics(what) else {
                tracing::warn!("this machine does not tell how it is doing; its use is shown as 0%");
                return;
            };
            // Use of processors is told between two looks; the first pair comes early.
            let mut pause = MINIMUM_CPU_UPDATE_INTERVAL;
            while let Some(sample) = weak.upgrade() {
                system.refresh_specifics(what);
                sample.cpu.store(per_cent(f64::from(system.global_cpu_usage()), 100.0), Ordering::Relaxed);
                let (used, total) = (system.used_memory() as f64, system.total_memory() as f64);
                sample.memory.store(per_cent(used, total), Ordering::Relaxed);
                drop(sample);
                tokio::time::sleep(pause).await;
                pause = INTERVAL;
            }
        });
        Self(sample)
    }

    /// The share of all processors in use, in per cent.
    pub(super) fn cpu(&self) -> u8 {
        self.0.cpu.load(Ordering::Relaxed)
    }

    /// The share of the memory in use, in per cent.
    pub(super) fn memory(&self) -> u8 {
        self.0.memory.load(Ordering::Relaxed)
    }
}

/// What share `part` is of `whole`, 0 to 100. 0 where the whole is not known.
fn per_cent(part: f64, whole: f64) -> u8 {
    // A float is cut to the range of the integer, and what is not a number becomes 0.
    if whole > 0.0 { (part / whole * 100.0).round().clamp(0.0, 100.0) as u8 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_in_range() {
        for (part, whole, expected) in
            [(0.0, 0.0, 0), (1.0, 4.0, 25), (9.0, 4.0, 100), (-1.0, 4.0, 0), (f64::NAN, 1.0, 0)]
        {
            assert_eq!(per_cent(part, whole), expected, "{part} of {whole}");
        }
    }
}
