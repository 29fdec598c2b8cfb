//! Ways to the engine: over a network that breaks; near ones and far ones.

#[path = "support/kit.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod kit;
#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::time::Duration;

use coredinator_core::{Runtime, Scope};
use coredinator_runtime_docker::{DockerRuntime, DockerRuntimeOptions};
use kit::{container, ends, runs, started};
use serde_json::json;
use support::Engine;
use tokio::{
    net::{TcpListener, UnixStream},
    sync::watch,
};

/// A network between here and an engine, which can be cut: what is connected breaks or falls silent.
struct Network {
    address: String,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Works,
    /// Connections break, and new ones are closed at once.
    Cut,
    /// Nothing comes through, and nobody is told.
    Silent,
}

impl Network {
    async fn to(socket: String) -> Self {
        let socket = socket.trim_start_matches("unix://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("tcp://{}", listener.local_addr().unwrap());
        let (state, seen) = watch::channel(State::Works);
        tokio::spawn(async move {
            while let Ok((here, _)) = listener.accept().await {
                let (socket, seen) = (socket.clone(), seen.clone());
                tokio::spawn(async move {
                    let Ok(there) = UnixStream::connect(&socket).await else { return };
                    let (from_here, to_here) = here.into_split();
                    let (from_there, to_there) = there.into_split();
                    tokio::select! {
                        () = carry(from_here, to_there, seen.clone()) => {}
                        () = carry(from_there, to_here, seen.clone()) => {}
                        () = cut(seen) => {}
                    }
                });
            }
        });
        Self { address, state }
    }
}

async fn cut(mut seen: watch::Receiver<State>) {
    let _ = seen.wait_for(|state| *state == State::Cut).await;
}

/// Carries bytes one way while the network works. That one side has ended does not end the other.
async fn carry(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut seen: watch::Receiver<State>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut chunk = [0; 4096];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) => {
                let _ = to.shutdown().await;
                return std::future::pending().await;
            }
            Err(_) => return,
            Ok(read) => {
                // A connection that fell silent stays so: what was lost is lost.
                if *seen.borrow_and_update() == State::Silent {
                    return std::future::pending().await;
                }
                if to.write_all(&chunk[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_breaks_hides_no_end() {
    let Some(engine) = Engine::start().await else { return };
    let network = Network::to(engine.host()).await;
    let options = DockerRuntimeOptions::new("me").with_host(network.address.clone());
    let runtime = DockerRuntime::new(options.with_silence(Duration::from_secs(1)));
    for state in [State::Cut, State::Silent] {
        let lasting = started(&runtime, "exec sleep 1000", json!({})).await;
        let ending = started(&runtime, "exec sleep 1000", json!({})).await;
        let (mut lasts, mut ends_meanwhile) = (runtime.watch(&lasting.instance), runtime.watch(&ending.instance));
        runs(&mut lasts).await;
        runs(&mut ends_meanwhile).await;
        network.state.send_replace(state);
        engine.asked(&["kill", &container(&ending)]);
        if state == State::Cut {
            assert!(runtime.list(&[]).await.is_err_and(|error| error.is_retryable()), "nothing is known meanwhile");
        }
        network.state.send_replace(State::Works);
        assert_eq!(ends(&mut ends_meanwhile).await.signal, Some(9));
        let living: Vec<_> = runtime.list(&[]).await.unwrap().into_iter().map(|one| one.instance.id).collect();
        assert_eq!(living, std::slice::from_ref(&lasting.instance.id));
        // And the stream of events goes on.
        engine.asked(&["kill", &container(&lasting)]);
        assert_eq!(ends(&mut lasts).await.signal, Some(9));
    }
}

#[test]
fn a_remote_engine_is_everybodys() {
    let scope = |host: &str| DockerRuntime::new(DockerRuntimeOptions::new("me").with_host(host)).capabilities().scope;
    assert_eq!(scope("unix:///run/docker.sock"), Scope::NodeLocal);
    assert_eq!(scope("tcp://127.0.0.1:2375"), Scope::NodeLocal);
    assert_eq!(scope("tcp://engine.plant:2376"), Scope::Cluster);
}
