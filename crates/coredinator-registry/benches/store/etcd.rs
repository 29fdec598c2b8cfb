//! etcd, to stand beside: one member, its data on the same disk, asked over its JSON gateway.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Mutex};

/// A running etcd, with a connection for each client; it ends when dropped.
pub(crate) struct Etcd {
    process: Child,
    connections: Vec<Mutex<SendRequest<Full<Bytes>>>>,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

impl Etcd {
    /// Starts one with that many connections; `None` where there is none.
    pub(crate) async fn start(dir: &Path, clients: usize) -> Option<Self> {
        let (client, peer) = (free_port(), free_port());
        let (client_url, peer_url) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
        let mut command = Command::new("etcd");
        command.arg("--data-dir").arg(dir.join("etcd")).args([
            "--name",
            "one",
            "--logger",
            "zap",
            "--log-level",
            "error",
        ]);
        command.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        command.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        command.args(["--initial-cluster", &format!("one={peer_url}")]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let mut etcd = Self { process, connections: Vec::new() };
        for _ in 0..1000 {
            if TcpStream::connect(("127.0.0.1", client)).await.is_ok() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..clients {
            let stream = TcpStream::connect(("127.0.0.1", client)).await.ok()?;
            stream.set_nodelay(true).ok()?;
            let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(connection);
            etcd.connections.push(Mutex::new(sender));
        }
        Some(etcd)
    }

    /// Puts a value and waits until that is durable.
    pub(crate) async fn put(&self, client: usize, key: &str, value: &[u8]) {
        let body = format!(r#"{{"key":"{}","value":"{}"}}"#, base64(key.as_bytes()), base64(value));
        let request = Request::post("/v3/kv/put").header("host", "127.0.0.1").body(Full::from(body));
        let request = request.expect("it is a request");
        let mut connection = self.connections[client].lock().await;
        connection.ready().await.expect("etcd is there");
        let response = connection.send_request(request).await.expect("etcd answers");
        assert!(response.status().is_success(), "etcd takes it: {}", response.status());
        response.into_body().collect().await.expect("etcd answers in whole");
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let three = chunk.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(three >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
