//! What needs a connection: streams, and the end of the server.

use std::time::Duration;

use coredinator_http::api::{ApiOptions, ServeOptions, serve};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
    time::timeout,
};

use crate::support::{PATIENCE, Plant, request};

/// A server, and how its end is told.
async fn serving(plant: &Plant) -> (std::net::SocketAddr, JoinHandle<()>) {
    serving_with(plant, ServeOptions { drain: Duration::from_secs(60), ..ServeOptions::default() }).await
}

async fn serving_with(plant: &Plant, options: ServeOptions) -> (std::net::SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve(listener, plant.router.clone(), plant.shutdown.clone(), options);
    (address, tokio::spawn(serving))
}

/// A connection on which one request was sent.
struct Client {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _keep_open: OwnedWriteHalf,
}

impl Client {
    async fn ask(address: std::net::SocketAddr, path: &str, headers: &str) -> Self {
        let (read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n");
        write.write_all(request.as_bytes()).await.unwrap();
        Self { lines: BufReader::new(read).lines(), _keep_open: write }
    }

    /// The next line that `wanted` lets through; `None` at the end.
    async fn line(&mut self, wanted: impl Fn(&str) -> bool) -> Option<String> {
        timeout(PATIENCE, async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if wanted(&line) {
                    return Some(line);
                }
            }
            None
        })
        .await
        .unwrap()
    }

    /// The next event's id and JSON.
    async fn event(&mut self) -> (u64, Value) {
        let id = self.line(|line| line.starts_with("id: ")).await.unwrap();
        let data = self.line(|line| line.starts_with("data: ")).await.unwrap();
        (id["id: ".len()..].parse().unwrap(), serde_json::from_str(&data["data: ".len()..]).unwrap())
    }
}

#[tokio::test]
async fn a_reader_of_events_goes_on_where_it_was() {
    let plant = Plant::new().await;
    let (address, _serving) = serving(&plant).await;
    let mut first = Client::ask(address, "/api/coredinator/events", "last-event-id: 0\r\n").await;
    plant.external("a").await;
    plant.external("b").await;
    let (id, event) = first.event().await;
    assert_eq!((&event["service"], &event["code"], &event["id"]), (&"a".into(), &"Registered".into(), &id.into()));
    drop(first);
    plant.external("c").await;
    let mut second = Client::ask(address, "/api/coredinator/events", &format!("last-event-id: {id}\r\n")).await;
    assert_eq!(second.event().await.1["service"], "b");
    assert_eq!(second.event().await.1["service"], "c");
    let mut of_c = Client::ask(address, "/api/coredinator/events?service=c&after=0", "").await;
    assert_eq!(of_c.event().await.1["service"], "c");
    let mut newest = Client::ask(address, "/api/coredinator/events?limit=1", "").await;
    assert_eq!(newest.event().await.1["service"], "c");
    plant.external("d").await;
    assert_eq!(newest.event().await.1["service"], "d");
    let mut stranger = Client::ask(address, "/api/coredinator/events", "last-event-id: what\r\n").await;
    assert_eq!(stranger.line(|line| line.starts_with("event: ")).await.as_deref(), Some("event: reset"));
    assert_eq!(stranger.event().await.1["service"], "a");
}

#[tokio::test]
async fn events_are_listed_for_those_who_ask_for_json() {
    let plant = Plant::new().await;
    plant.external("a").await;
    plant.external("b").await;
    let list = async |query: &str| {
        let mut request = request("GET", &format!("/api/coredinator/events{query}"), None);
        request.headers_mut().insert("accept", "application/json".parse().unwrap());
        plant.send(request).await.json()["events"].as_array().unwrap().clone()
    };
    let all = list("").await;
    assert_eq!(all.iter().map(|event| event["service"].as_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(list("?limit=1").await, all[1..]);
    assert_eq!(list("?service=a").await, all[..1]);
    assert_eq!(list(&format!("?after={}", all[0]["id"])).await, all[1..]);
    plant.get("/api/coredinator/events?limit=0").await.problem(400, "InvalidParameter");
    plant.get("/api/coredinator/events?service=A").await.problem(400, "InvalidParameter");
}

#[tokio::test]
async fn the_end_of_the_server_waits_for_no_stream() {
    let plant = Plant::new().await;
    plant.managed("a").await;
    let (address, serving) = serving(&plant).await;
    let mut events = Client::ask(address, "/api/coredinator/events?limit=1", "").await;
    events.event().await;
    let mut logs = Client::ask(address, "/api/coredinator/services/a/logs?follow=true", "").await;
    assert!(logs.line(|line| line == "line 2").await.is_some());
    plant.shutdown.cancel();
    assert_eq!(events.line(|line| line.starts_with("id: ")).await, None);
    assert_eq!(logs.line(|line| line.starts_with("line")).await, None);
    timeout(PATIENCE, serving).await.expect("drained").unwrap();
}

/// What the server sends in answer to `bytes` until it closes the connection, which this side leaves open. A connection that
/// it resets because it has not read everything counts as closed.
async fn raw(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let exchange = async {
        let (mut read, mut write) = socket.split();
        let mut answer = Vec::new();
        let (_, _) = tokio::join!(write.write_all(bytes), read.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    };
    timeout(PATIENCE, exchange).await.expect("closed")
}

/// Asks in the ordinary way and expects the ordinary answer.
async fn is_alive(address: std::net::SocketAddr) {
    let answer = raw(address, b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn who_does_not_come_to_the_point_is_cut_off() {
    let plant = Plant::new().await;
    let options = ServeOptions { head_timeout: Duration::from_millis(50), ..ServeOptions::default() };
    let (address, _serving) = serving_with(&plant, options).await;
    for start in ["", "GET /livez HTTP/1.1\r\n", "GET /livez HTTP/1.1\r\nhost: localhost\r\nx: "] {
        let answer = raw(address, start.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{start:?}: {answer}");
    }
    // A connection that is kept open, and on which nothing more comes.
    let answer = raw(address, b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let plant = Plant::new().await;
    let (address, _serving) =
        serving_with(&plant, ServeOptions { max_connections: 2, ..ServeOptions::default() }).await;
    let mut first = Client::ask(address, "/livez", "").await;
    assert!(first.line(|line| line.starts_with("HTTP/1.1 200")).await.is_some());
    let second = TcpStream::connect(address).await.unwrap();
    let mut third = Client::ask(address, "/livez", "").await;
    assert!(timeout(Duration::from_millis(100), third.lines.next_line()).await.is_err(), "there are two already");
    drop(second);
    assert!(third.line(|line| line.starts_with("HTTP/1.1 200")).await.is_some());
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let plant = Plant::with(
        std::sync::Arc::new(coredinator_registry::store::MemoryStore::new()),
        ApiOptions { timeout: Duration::from_millis(50), ..ApiOptions::default() },
    )
    .await;
    let (address, _serving) = serving(&plant).await;
    let head =
        "POST /api/coredinator/services/register HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
    for rest in ["content-length: 100\r\n\r\n{", "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n"] {
        let answer = raw(address, format!("{head}{rest}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    }
    is_alive(address).await;
}

#[tokio::test]
async fn requests_of_two_meanings_are_refused() {
    let plant = Plant::new().await;
    let (address, _serving) = serving(&plant).await;
    let smuggled = "GET /version HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let head = "POST /api/coredinator/services/register HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    for doubtful in [
        "content-length: 0\r\ntransfer-encoding: identity\r\n\r\n",
        "content-length: 0\r\ncontent-length: 46\r\n\r\n",
        "content-length: +0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nZ\r\n\r\n",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "x: y\r\n z\r\n\r\n",
    ] {
        let answer = raw(address, format!("{head}{doubtful}{smuggled}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{doubtful:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{doubtful:?}: {answer}");
    }
    // Of a length and chunks, chunks count, and the connection is not used again.
    let both = format!("{head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}");
    let answer = raw(address, both.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    is_alive(address).await;
}

#[tokio::test]
async fn odd_clients_are_answered_in_their_way() {
    let plant = Plant::new().await;
    let (address, _serving) = serving(&plant).await;
    let old = raw(address, b"GET /livez HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
    let pair = "GET /livez HTTP/1.1\r\nhost: a\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let pipelined = raw(address, pair.as_bytes()).await;
    assert!(pipelined.find("HTTP/1.1 200").unwrap() < pipelined.find("HTTP/1.1 404").unwrap(), "{pipelined}");
    let long = format!("GET /livez HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let refused = raw(address, long.as_bytes()).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
    let many = format!("GET /livez HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(10_000));
    let refused = raw(address, many.as_bytes()).await;
    assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 431"), "{refused}");
    let garbage = raw(address, &[0xff; 1 << 16]).await;
    assert!(garbage.is_empty() || garbage.starts_with("HTTP/1.1 400"), "{garbage}");
    is_alive(address).await;
}
