//! The load generator: a process of its own, on a core of its own.

use std::{
    io::Write,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use crate::{Outcome, http::head, server::pinned};

/// What a load came to.
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) errors: u64,
}

/// Sends requests over `connections` for `seconds`, from CPU 1. `path` is asked for, or `register` registers a new external
/// service with every request.
pub(crate) fn run(port: u16, path: &str, connections: usize, seconds: u64) -> Outcome<Load> {
    let output = pinned(std::env::current_exe()?, Some("1"))
        .args(["load", &port.to_string(), path, &connections.to_string(), &seconds.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [per_second, p50, p99, errors] = numbers.as_slice() else { return Err(format!("load said {text:?}").into()) };
    let micros = |number: &f64| Duration::from_secs_f64(number / 1e6);
    Ok(Load { per_second: *per_second, p50: micros(p50), p99: micros(p99), errors: *errors as u64 })
}

/// The generator's own side: prints requests a second, p50 and p99 in microseconds, and errors.
pub(crate) fn generate(arguments: &[&str]) -> Outcome<()> {
    let [port, path, connections, seconds] = arguments else { return Err("load PORT PATH CONNECTIONS SECONDS".into()) };
    let (port, connections, seconds): (u16, usize, u64) = (port.parse()?, connections.parse()?, seconds.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let counter = Arc::new(AtomicU64::new(0));
    runtime.block_on(async {
        let begun = Instant::now();
        // The first tenth warms up, and is not counted.
        let (from, to) = (begun + Duration::from_millis(seconds * 100), begun + Duration::from_secs(seconds));
        let clients =
            (0..connections).map(|_| tokio::spawn(client(port, (*path).to_owned(), from, to, counter.clone())));
        let mut times = Vec::new();
        let mut errors = 0;
        for client in clients.collect::<Vec<_>>() {
            match client.await? {
                Ok((took, refused)) => {
                    times.extend(took);
                    errors += refused;
                }
                Err(_) => errors += 1,
            }
        }
        times.sort_unstable();
        let at = |share: usize| times.get(times.len().saturating_sub(1) * share / 100).map_or(0, |t| *t);
        let rate = times.len() as f64 / (to - from).as_secs_f64();
        writeln!(std::io::stdout(), "{rate} {} {} {errors}", at(50), at(99))?;
        Ok(())
    })
}

async fn client(
    port: u16,
    path: String,
    from: Instant,
    to: Instant,
    counter: Arc<AtomicU64>,
) -> std::io::Result<(Vec<u32>, u64)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    let get = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (mut times, mut errors, mut bytes) = (Vec::new(), 0, Vec::with_capacity(1 << 20));
    while Instant::now() < to {
        let request = match path.as_str() {
            "register" => registration(counter.fetch_add(1, Ordering::Relaxed)),
            _ => get.clone(),
        };
        let sent = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        bytes.clear();
        let mut whole = None;
        while whole.is_none_or(|whole| bytes.len() < whole) {
            if stream.read_buf(&mut bytes).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            whole = whole.or_else(|| head(&bytes).map(|(head, length)| head + length));
        }
        if !bytes.starts_with(b"HTTP/1.1 20") {
            errors += 1;
        }
        if sent >= from {
            times.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
    Ok((times, errors))
}

fn registration(n: u64) -> String {
    let body = format!(r#"{{"name":"r{n}","host":"127.0.0.1","port":9,"health_endpoint":null}}"#);
    let length = body.len();
    format!(
        "POST /api/coredinator/services/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
}
