//! Requests to instances.

use hyper::{Request, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Posts JSON to `http://host:port/path`, without a proxy and without following redirects. The caller limits its time.
///
/// # Errors
/// Why it was not taken: no connection, no answer, or a status other than 2xx.
pub async fn post_json(host: &str, port: u16, path: &str, body: String) -> Result<(), String> {
    if port == 0 {
        return Err("it has no port".to_owned());
    }
    let place = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((place, port)).await.map_err(|error| format!("{host}:{port}: {error}"))?;
    let failed = |error: hyper::Error| format!("{host}:{port}: {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let request = Request::post(path)
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len())
        .header(header::CONNECTION, "close")
        .body(body)
        .map_err(|error| format!("{path}: {error}"))?;
    // It ends when the sender and the answer are dropped.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(format!("{host}:{port}{path} answered with HTTP {}", status.as_u16()))
    }
}
