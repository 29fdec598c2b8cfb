//! Connections that wait for the next check of their address.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A host and a port.
type Address = (Box<str>, u16);

/// Idle connections by address: bounded, and closed when not used for a while.
#[derive(Debug)]
pub(super) struct Pool<C> {
    state: Mutex<State<C>>,
}

#[derive(Debug)]
struct State<C> {
    idle: HashMap<Address, Vec<(C, Instant)>>,
    count: usize,
    swept: Option<Instant>,
}

impl<C> Pool<C> {
    /// How many connections are kept in all.
    const LIMIT: usize = 16_384;
    /// How many are kept to one address: its services are checked one at a time each.
    const PER_ADDRESS: usize = 4;
    /// A connection that was idle for this long is closed.
    const MAX_IDLE: Duration = Duration::from_secs(90);
    /// How often idle connections are looked through.
    const SWEEP: Duration = Duration::from_secs(10);

    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { idle: HashMap::new(), count: 0, swept: None }) }
    }

    fn state(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out the connection to an address that was used last.
    pub(super) fn take(&self, host: &str, port: u16) -> Option<C> {
        let mut state = self.state();
        let (connection, _) = state.idle.get_mut(&(host.into(), port))?.pop()?;
        state.count -= 1;
        Some(connection)
    }

    /// Keeps a connection for later, if there is room.
    pub(super) fn put(&self, host: &str, port: u16, connection: C, now: Instant) {
        let mut state = self.state();
        state.sweep(now);
        if state.count >= Self::LIMIT {
            return;
        }
        let list = state.idle.entry((host.into(), port)).or_default();
        if list.len() < Self::PER_ADDRESS {
            list.push((connection, now));
            state.count += 1;
        }
    }

    /// Closes all of them.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.idle.clear();
        state.count = 0;
    }
}

impl<C> State<C> {
    fn sweep(&mut self, now: Instant) {
        let swept = *self.swept.get_or_insert(now);
        if now.saturating_duration_since(swept) < Pool::<C>::SWEEP {
            return;
        }
        self.swept = Some(now);
        self.idle.retain(|_, list| {
            list.retain(|(_, since)| now.saturating_duration_since(*since) < Pool::<C>::MAX_IDLE);
            !list.is_empty()
        });
        self.count = self.idle.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bounded_and_swept() {
        let pool = Pool::new();
        let now = Instant::now();
        assert_eq!(pool.take("a", 1), None);
        (0..9).for_each(|n| pool.put("a", 1, n, now));
        pool.put("b", 1, 100, now);
        assert_eq!((pool.take("a", 1), pool.take("a", 2), pool.state().count), (Some(3), None, 4));
        let later = now + Duration::from_secs(91);
        pool.put("c", 1, 200, later);
        assert_eq!((pool.take("a", 1), pool.take("b", 1), pool.take("c", 1)), (None, None, Some(200)));
        assert_eq!(pool.state().count, 0);
        (0..20_000_u16).for_each(|port| pool.put("d", port, 1, later));
        assert_eq!(pool.state().count, Pool::<i32>::LIMIT);
        pool.clear();
        assert_eq!(pool.take("d", 1), None);
    }
}
