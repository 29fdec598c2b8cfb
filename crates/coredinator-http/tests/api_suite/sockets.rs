//! What needs a connection: streams, and the end of the server.

use std::time::Duration;

use coredinator_http::api::serve;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
    time::timeout,
};

use crate::support::{PATIENCE, Plant, request};

/// A server, and how its end is told.
async fn serving(plant: &Plant) -> (std::net::SocketAddr, JoinHandle<std::io::Result<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = serve(listener, plant.router.clone(), plant.shutdown.clone(), Duration::from_secs(60));
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
    timeout(PATIENCE, serving).await.expect("drained").unwrap().unwrap();
}
