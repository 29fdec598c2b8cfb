//! How late checks start, measured for all of them in constant memory.

use std::time::Duration;

/// How much later than due checks have started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LatenessStats {
    /// How many checks have been started.
    pub count: u64,
    /// Half of them started no later than this after they were due, to within 7 %.
    pub p50: Duration,
    /// 99 of 100 started no later than this after they were due, to within 7 %.
    pub p99: Duration,
    /// The latest one.
    pub max: Duration,
}

/// Counts by powers of two of microseconds, each cut in 16.
#[derive(Debug)]
pub(super) struct Lateness {
    counts: Box<[u64; Self::BUCKETS]>,
    count: u64,
    max: Duration,
}

impl Default for Lateness {
    fn default() -> Self {
        Self { counts: Box::new([0; Self::BUCKETS]), count: 0, max: Duration::ZERO }
    }
}

impl Lateness {
    const CUT: u32 = 4;
    const BUCKETS: usize = 32 << Self::CUT;

    /// The bucket of a number of microseconds.
    fn bucket(micros: u64) -> usize {
        let top = micros.checked_ilog2().unwrap_or(0);
        let index = if top < Self::CUT {
            micros
        } else {
            let shift = top - Self::CUT;
            (u64::from(shift + 1) << Self::CUT) + ((micros >> shift) & ((1 << Self::CUT) - 1))
        };
        usize::try_from(index).unwrap_or(usize::MAX).min(Self::BUCKETS - 1)
    }

    /// The largest number of microseconds in a bucket.
    fn upper(bucket: usize) -> u64 {
        let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
        let (row, column) = (bucket >> Self::CUT, bucket & ((1 << Self::CUT) - 1));
        if row == 0 { column } else { (((1 << Self::CUT) + column + 1) << (row - 1)) - 1 }
    }

    pub(super) fn record(&mut self, late: Duration) {
        self.counts[Self::bucket(u64::try_from(late.as_micros()).unwrap_or(u64::MAX))] += 1;
        self.count += 1;
        self.max = self.max.max(late);
    }

    pub(super) fn stats(&self) -> LatenessStats {
        let quantile = |share: u64| {
            let rank = (self.count * share).div_ceil(100);
            let mut seen = 0;
            let bucket = self.counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            Duration::from_micros(bucket.map_or(0, Self::upper)).min(self.max)
        };
        LatenessStats { count: self.count, p50: quantile(50), p99: quantile(99), max: self.max }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles() {
        let mut lateness = Lateness::default();
        assert_eq!(lateness.stats(), LatenessStats::default());
        (1..=1000).for_each(|micros| lateness.record(Duration::from_micros(micros)));
        let stats = lateness.stats();
        assert_eq!((stats.count, stats.max), (1000, Duration::from_micros(1000)));
        assert!((500..=535).contains(&stats.p50.as_micros()), "{stats:?}");
        assert!((990..=1000).contains(&stats.p99.as_micros()), "{stats:?}");
    }

    proptest! {
        #[test]
        fn a_bucket_holds_its_numbers_to_within_seven_percent(micros in 0_u64..1 << 32) {
            let upper = Lateness::upper(Lateness::bucket(micros));
            prop_assert!(micros <= upper && upper - micros <= micros / 15 + 1, "{micros} {upper}");
        }
    }
}
