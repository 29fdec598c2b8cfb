//! A double of a cluster: an API server over real HTTP that keeps objects, versions and watches as the real one does, and a
//! kubelet that runs each pod's program as a local process.
//!
//! It does what the runtime relies on: label selectors, server-side apply with field managers and conflicts, preconditions,
//! graceful deletion that can be shortened, resource versions with a history that can be compacted (410), watches that go on
//! where they are told to, output with times, and statuses as a kubelet writes them. It refuses what it does not know, so
//! that a call which it would have to guess at fails the test; and what a real one refuses of names, labels, lists that are kept by
//! keys, quantities and probes (`admission`). What it does not do: quotas, Pod Security, the garbage of objects whose owner is gone, scheduling over
//! several nodes, networks, volumes. Tests that need one of these stand in a pod's status by hand.

mod admission;
mod exec;
mod http;
mod kubelet;
mod world;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde_json::{Value, json};
use world::World;
pub(crate) use world::{Fault, Then};

/// The image that the double's node has.
pub(crate) const IMAGE: &str = "localhost/busybox:1";

/// A running double; it ends, with all of its processes, when dropped.
pub(crate) struct Double {
    world: Arc<World>,
    server: tokio::task::JoinHandle<()>,
    port: u16,
}

impl Double {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback can be listened on");
        let port = listener.local_addr().expect("it has an address").port();
        let world = World::new();
        Self { server: http::serve(listener, Arc::clone(&world)), world, port }
    }

    /// Where its API server listens, without TLS.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A kubeconfig that leads to it.
    pub(crate) fn kubeconfig(&self) -> String {
        let named = |kind: &str, value: Value| json!([{"name": "double", kind: value}]);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "double",
            "clusters": named("cluster", json!({"server": self.url()})),
            "users": named("user", json!({"token": "a-token"})),
            "contexts": named("context", json!({"cluster": "double", "user": "double", "namespace": "plant"})),
        })
        .to_string()
    }

    /// The address of its API server.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The API server goes away: whoever is connected is cut off, and nobody is answered. Pods go on.
    pub(crate) async fn halt(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
        self.world.cut();
    }

    /// It comes back at the same address.
    pub(crate) async fn resume(&mut self) {
        let listener = loop {
            match tokio::net::TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        self.server = http::serve(listener, Arc::clone(&self.world));
    }

    /// What the next calls of a kind come to.
    pub(crate) fn fault(&self, fault: Fault) {
        self.world.faults.lock().unwrap().push(fault);
    }

    /// From now on who does not show this token is not let in.
    pub(crate) fn accept(&self, token: &str) {
        *self.world.token.lock().unwrap() = Some(token.to_owned());
    }

    /// From now on nothing may be done in a namespace.
    pub(crate) fn forbid(&self, namespace: &str) {
        self.world.forbidden.lock().unwrap().insert(namespace.to_owned());
    }

    /// Whatever faults are left come to nothing, and all is allowed.
    pub(crate) fn heal(&self) {
        self.world.forbidden.lock().unwrap().clear();
        self.world.faults.lock().unwrap().clear();
    }

    /// Cuts all watches.
    pub(crate) fn cut(&self) {
        self.world.cut();
    }

    /// Forgets the past: who goes on from a version before now is answered 410.
    pub(crate) fn compact(&self) {
        self.world.compact();
    }

    /// The clock that it stamps by runs so many seconds before (or after) everybody else's.
    pub(crate) fn skew(&self, seconds: i64) {
        self.world.skew.store(seconds, std::sync::atomic::Ordering::Relaxed);
    }

    /// Changes an object by hand, as its node or somebody else might.
    pub(crate) fn alter(&self, resource: &str, namespace: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.world.alter(resource, namespace, name, change).expect("there is such an object");
    }

    /// The node of a pod is lost: its kubelet says nothing more, and its program goes on.
    pub(crate) fn lose(&self, namespace: &str, name: &str) {
        self.world.lose(namespace, name);
    }

    /// Puts an object there that somebody else made.
    pub(crate) fn put(&self, resource: &str, object: Value) {
        self.world.put(resource, object, "somebody").expect("there is no such object yet");
    }

    /// An object, if it is there.
    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.world.get(resource, namespace, name)
    }

    /// The names of all objects of a kind in a namespace.
    pub(crate) fn names(&self, resource: &str, namespace: &str) -> BTreeSet<String> {
        self.world.names(resource, namespace)
    }

    /// Every kind of call that was made: group, resource, verb.
    pub(crate) fn calls(&self) -> BTreeSet<(String, String, String)> {
        self.world.calls.lock().unwrap().clone()
    }

    /// How many calls of a verb were made on a resource.
    pub(crate) fn count(&self, resource: &str, verb: &str) -> usize {
        let counted = self.world.counts.lock().unwrap();
        counted.get(&(resource.to_owned(), verb.to_owned())).copied().unwrap_or(0)
    }

    /// How many processes of pods run.
    pub(crate) fn processes(&self) -> usize {
        self.world.processes.load(std::sync::atomic::Ordering::SeqCst)
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.server.abort();
        self.world.end();
    }
}
