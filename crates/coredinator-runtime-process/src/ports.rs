//! Free ports for services that ask for one.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddrV4},
    ops::RangeInclusive,
    sync::{Mutex, PoisonError},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

/// Hands out ports that nobody listens on, each to one instance at a time.
#[derive(Debug)]
pub(crate) struct Ports {
    range: RangeInclusive<u16>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    held: BTreeSet<u16>,
    /// Where the search goes on, so that a port which was just given back is not handed out next.
    next: u16,
}

impl Ports {
    pub(crate) fn new(range: RangeInclusive<u16>) -> Self {
        let next = *range.start();
        Self { range, state: Mutex::new(State { held: BTreeSet::new(), next }) }
    }

    /// Allocates a free port, `preferred` if that is free; `None` if the machine has none left.
    pub(crate) fn allocate(&self, preferred: Option<u16>) -> Option<u16> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(port) = preferred.filter(|&port| port != 0 && !state.held.contains(&port) && is_free(port)) {
            state.held.insert(port);
            return Some(port);
        }
        for _ in 0..self.range.len() {
            let port = state.next;
            state.next = if port >= *self.range.end() { *self.range.start() } else { port + 1 };
            if !state.held.contains(&port) && is_free(port) {
                state.held.insert(port);
                return Some(port);
            }
        }
        // The range is used up: any other that needs no privilege will do.
        let port = (1024..=u16::MAX).rev().find(|port| !state.held.contains(port) && is_free(*port))?;
        state.held.insert(port);
        Some(port)
    }

    /// Notes that an instance has `port`, however it came by it.
    pub(crate) fn hold(&self, port: u16) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).held.insert(port);
    }

    /// Takes a port back.
    pub(crate) fn release(&self, port: u16) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).held.remove(&port);
    }
}

/// Whether `port` can be bound on all addresses, which fails where anybody listens on it on any of them. It is not listened on,
/// and old connections that linger in TIME_WAIT do not count.
fn is_free(port: u16) -> bool {
    let bound = || {
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))
    };
    bound().is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn no_port_is_handed_out_twice_nor_while_somebody_listens() {
        let ports = Ports::new(21_000..=21_019);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert_ne!(ports.allocate(Some(taken)), Some(taken));
        let mut all: Vec<u16> = (0..40).map(|_| ports.allocate(None).unwrap()).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 40);
        ports.release(all[0]);
        assert_eq!(ports.allocate(Some(all[0])), Some(all[0]));
    }
}
