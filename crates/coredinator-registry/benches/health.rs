//! How many HTTP checks one core makes, and how late they start: `cargo bench -p coredinator-registry --bench health`.
//!
//! The endpoints are served by a second process, so that the first one's CPU time is that of checking alone. Run without
//! `--bench`, as a test, it makes a small round.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use coredinator_core::{
    CheckTiming, HealthStatus, HttpCheck, ProbeSpec, ProbeTarget, ServiceName, StatusRange, SystemClock,
};
use coredinator_registry::health::{
    CheckCell, CheckKey, CheckKind, CheckSpec, HealthMonitor, MonitorOptions, ProbeRegistry,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}";

fn main() -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, count] = arguments.as_slice()
        && mode == "serve"
    {
        return runtime.block_on(serve(count.parse().map_err(io::Error::other)?));
    }
    let whole = arguments.iter().any(|argument| argument == "--bench");
    println!(
        "{:>9} {:>9} {:>9} {:>7} {:>9} {:>9} {:>9} {:>8} {:>9}",
        "endpoints", "interval", "checks/s", "CPU %", "p50 late", "p99 late", "max late", "failures", "RSS MiB"
    );
    let rounds: &[(usize, u64, u64)] = match whole {
        true => &[(100, 1, 5), (1_000, 10, 5), (10_000, 100, 10), (10_000, 1_000, 20)],
        false => &[(20, 10, 1)],
    };
    for (endpoints, interval, seconds) in rounds.iter().copied() {
        let interval = Duration::from_millis(interval);
        runtime.block_on(round(endpoints, interval, Duration::from_secs(seconds)))?;
    }
    Ok(())
}

/// Checks `endpoints` once an `interval`, and prints a line about it.
async fn round(endpoints: usize, interval: Duration, time: Duration) -> io::Result<()> {
    let server = Server::start(endpoints.div_ceil(2))?;
    let (monitor, _transitions) =
        HealthMonitor::start(MonitorOptions::new(ProbeRegistry::builtin(), Arc::new(SystemClock)));
    let timing =
        CheckTiming { interval, start_interval: interval, timeout: Duration::from_secs(5), ..CheckTiming::default() };
    let spec = Arc::new(ProbeSpec::Http(HttpCheck {
        path: "/health".to_owned(),
        headers: BTreeMap::new(),
        expected_status: vec![StatusRange::DEFAULT],
        expected_headers: BTreeMap::new(),
        expected_body: None,
    }));
    let mut cells = Vec::new();
    for n in 0..endpoints {
        let service = ServiceName::new(&format!("service-{n}")).map_err(io::Error::other)?;
        let key = CheckKey { service: service.clone(), replica: None, instance: None, kind: CheckKind::Health };
        let port = server.ports[n / 2];
        let target = ProbeTarget {
            service,
            instance: None,
            runtime: None,
            host: "127.0.0.1".to_owned(),
            port,
            spec: Arc::clone(&spec),
        };
        cells.push(monitor.add(key, CheckSpec { target, timing, age: Duration::MAX }));
    }
    // The first checks open the connections; the measurement is of the time after.
    while cells.iter().any(|cell| cell.status() != HealthStatus::Healthy) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (checks, _) = totals(&cells);
    monitor.take_lateness();
    let (cpu, started) = (cpu_time()?, Instant::now());
    tokio::time::sleep(time).await;
    let elapsed = started.elapsed().as_secs_f64();
    let (cpu, (after, failures)) = ((cpu_time()? - cpu).as_secs_f64(), totals(&cells));
    let rate = (after - checks) as f64 / elapsed;
    let late = monitor.take_lateness();
    println!(
        "{endpoints:>9} {:>9} {rate:>9.0} {:>7.0} {:>9} {:>9} {:>9} {failures:>8} {:>9.0}",
        format!("{interval:?}"),
        cpu / elapsed * 100.0,
        format!("{:.1?}", late.p50),
        format!("{:.1?}", late.p99),
        format!("{:.1?}", late.max),
        resident_mib()?,
    );
    Ok(())
}

/// Checks and failures of all cells.
fn totals(cells: &[Arc<CheckCell>]) -> (u64, u64) {
    let snapshots = cells.iter().map(|cell| cell.snapshot());
    snapshots.fold((0, 0), |sum, snapshot| (sum.0 + snapshot.checks, sum.1 + snapshot.failures))
}

/// User and system time of this process, in the kernel's ticks of 10 ms.
fn cpu_time() -> io::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn resident_mib() -> io::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kib: f64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default();
    Ok(kib / 1024.0)
}

/// The second process.
struct Server {
    child: Child,
    ports: Vec<u16>,
}

impl Server {
    fn start(listeners: usize) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["serve", &listeners.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            io::BufReader::new(output).read_line(&mut line)?;
        }
        let ports = line.split_whitespace().filter_map(|port| port.parse().ok()).collect();
        Ok(Self { child, ports })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers on that many ports of its choice until it is killed.
async fn serve(listeners: usize) -> io::Result<()> {
    let mut ports = String::new();
    for _ in 0..listeners {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        ports.push_str(&format!("{} ", listener.local_addr()?.port()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
    }
    writeln!(io::stdout(), "{ports}")?;
    std::future::pending().await
}

/// One request is one read: they are small.
async fn answer(mut stream: TcpStream) {
    let mut request = [0; 1024];
    while let Ok(1..) = stream.read(&mut request).await {
        if stream.write_all(ANSWER).await.is_err() {
            return;
        }
    }
}
