//! Free ports for programs on the machine's own network.

use std::{
    net::{Ipv4Addr, TcpListener},
    ops::RangeInclusive,
    sync::atomic::{AtomicU16, Ordering},
};

/// Hands out ports that nobody listens on. The search goes on where it ended, so that a port is not handed out again before
/// the program it was for has bound it.
#[derive(Debug)]
pub(crate) struct Ports {
    range: RangeInclusive<u16>,
    next: AtomicU16,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>) -> Self {
        Self { range, next: AtomicU16::new(0) }
    }

    /// A free port, `preferred` if that is free; `None` if there is none.
    pub(crate) fn allocate(&self, preferred: Option<u16>) -> Option<u16> {
        let free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
        let (first, count) = (*self.range.start(), u16::try_from(self.range.len()).unwrap_or(u16::MAX).max(1));
        let next = || first + self.next.fetch_add(1, Ordering::Relaxed) % count;
        preferred.filter(|&port| port != 0).filter(free).or_else(|| (0..count).map(|_| next()).find(free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listened_on_is_not_handed_out() {
        let ports = Ports::new(31_900..=31_919);
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let taken = listener.local_addr().unwrap().port();
        let first = ports.allocate(Some(taken)).unwrap();
        assert_ne!(first, taken);
        assert_ne!(ports.allocate(None), Some(first));
        assert_eq!(ports.allocate(Some(first)), Some(first));
    }
}
