//! A line to an API server that can be cut: bytes are carried as they are, so that TLS goes through.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// What becomes of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// They are carried.
    Whole,
    /// Those that are there are broken off, and new ones closed at once.
    Cut,
    /// Those that are there are broken off, and new ones are carried.
    Broken(u32),
}

/// A line; it ends when dropped.
pub(crate) struct Line {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Line {
    /// A line to a host and a port.
    pub(crate) async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be listened on");
        let address = listener.local_addr().expect("it has an address");
        let (state, seen) = watch::channel(State::Whole);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, server.clone(), seen.clone()));
            }
        });
        Self { address, state, task }
    }

    /// Nobody is connected, and nobody can connect.
    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// It carries again.
    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Whole);
    }

    /// Whoever is connected is cut off, a watch in the middle of a line, and may connect anew.
    pub(crate) fn break_off(&self) {
        self.state.send_modify(|state| {
            *state = match state {
                State::Broken(times) => State::Broken(times.wrapping_add(1)),
                _ => State::Broken(0),
            }
        });
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn carry(mut near: TcpStream, server: String, mut state: watch::Receiver<State>) {
    if *state.borrow_and_update() == State::Cut {
        return;
    }
    let Ok(mut far) = TcpStream::connect(&server).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        // An error says that the test has ended.
        _ = state.changed() => {}
    }
}
