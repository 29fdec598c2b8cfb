//! As much HTTP as the measurements need.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use crate::Outcome;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

/// A connection that is kept.
pub(crate) struct Connection {
    stream: TcpStream,
    port: u16,
}

impl Connection {
    pub(crate) fn open(port: u16) -> Outcome<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Self { stream, port })
    }

    pub(crate) fn get(&mut self, path: &str) -> Outcome<Answer> {
        self.send("GET", path, "")
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, body: &str) -> Outcome<Answer> {
        self.exchange(method, path, "", body)
    }

    /// The same on the condition that what is changed is still what the tag is of.
    pub(crate) fn send_if(&mut self, method: &str, path: &str, tag: &str, body: &str) -> Outcome<Answer> {
        self.exchange(method, path, &format!("If-Match: {tag}\r\n"), body)
    }

    fn exchange(&mut self, method: &str, path: &str, headers: &str, body: &str) -> Outcome<Answer> {
        let (port, length) = (self.port, body.len());
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        self.stream.write_all(request.as_bytes())?;
        let (mut bytes, mut buffer) = (Vec::new(), [0; 65536]);
        loop {
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                return Err("the connection ended".into());
            }
            bytes.extend_from_slice(&buffer[..read]);
            if let Some((head, length)) = head(&bytes)
                && bytes.len() >= head + length
            {
                let status = std::str::from_utf8(&bytes[9..12])?.parse()?;
                return Ok(Answer { status, body: bytes.split_off(head) });
            }
        }
    }
}

/// Where the head ends, and how long the body is, once the whole head is there.
pub(crate) fn head(bytes: &[u8]) -> Option<(usize, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let length = text.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    });
    Some((end, length.unwrap_or(0)))
}

/// A service with a health endpoint: answers whatever it is asked.
pub(crate) fn endpoint(port: u16) -> Outcome<()> {
    let listener = TcpListener::bind(("127.0.0.1", port))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let mut request = [0; 2048];
            while let Ok(1..) = stream.read(&mut request) {
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}
