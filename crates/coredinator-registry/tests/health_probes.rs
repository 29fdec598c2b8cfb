//! The built-in probes against real servers on loopback and real processes, well-behaved and not.

use std::{
    collections::BTreeMap,
    future::pending,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use coredinator_core::{
    CheckTiming, HealthCheck, HealthProbe, HttpCheck, InstanceId, InstanceRef, Outcome, ProbeReport, ProbeSpec,
    ProbeTarget, RuntimeName, ServiceName, StatusRange,
    conformance::probe::{self, Subject},
};
use coredinator_registry::health::{CommandProbe, HttpProbe, ProbeRegistry, TcpProbe};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// An HTTP server that is written by hand, so that it can be wrong. What it does depends on the path.
struct Server {
    port: u16,
    accepted: Arc<AtomicUsize>,
    /// Connections on which a request hangs.
    hung: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start() -> Self {
        Self::bind("127.0.0.1:0").await.unwrap()
    }

    async fn bind(address: &str) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let port = listener.local_addr()?.port();
        let (accepted, hung) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counts = (Arc::clone(&accepted), Arc::clone(&hung));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counts.0.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&counts.1)));
            }
        });
        Ok(Self { port, accepted, hung, task })
    }

    fn http(&self, path: &str) -> ProbeTarget {
        self.with(check(path))
    }

    fn with(&self, check: HttpCheck) -> ProbeTarget {
        target("127.0.0.1", self.port, ProbeSpec::Http(check))
    }
}

/// Answers requests on one connection until one of them ends it.
async fn serve(mut stream: TcpStream, hung: Arc<AtomicUsize>) {
    while let Some(request) = read_request(&mut stream).await {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let answer = match path {
            "/ok" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Role: leader\r\n\r\nready".to_owned(),
            "/status" => format!("HTTP/1.1 {query} Whatever\r\nContent-Length: 0\r\n\r\n"),
            "/redirect" => "HTTP/1.1 302 Found\r\nLocation: /status?500\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "/echo" => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{request}", request.len()),
            "/close" => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nready".to_owned(),
            "/once" => {
                // Promises to keep the connection, and closes it.
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                return;
            }
            "/garbage" => {
                let _ = stream.write_all(&[0, 255, 13, 10, 7, 0].repeat(100_000)).await;
                return;
            }
            "/nothing" => return,
            "/half" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-").await;
                return;
            }
            "/huge-header" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nX-Huge: ").await;
                while stream.write_all(&[b'a'; 8192]).await.is_ok() {}
                return;
            }
            "/endless" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while stream.write_all(&[b'a'; 8192]).await.is_ok() {}
                return;
            }
            "/drip" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
                while stream.write_all(b"a").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                return;
            }
            _ => {
                hung.fetch_add(1, Ordering::SeqCst);
                // Ends when the other side closes.
                let _ = stream.read(&mut [0; 1]).await;
                hung.fetch_sub(1, Ordering::SeqCst);
                return;
            }
        };
        if stream.write_all(answer.as_bytes()).await.is_err() || path == "/close" {
            return;
        }
    }
}

/// The head of the next request; `None` at the end.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn check(path: &str) -> HttpCheck {
    HttpCheck {
        path: path.to_owned(),
        headers: BTreeMap::new(),
        expected_status: vec![StatusRange::DEFAULT],
        expected_headers: BTreeMap::new(),
        expected_body: None,
    }
}

fn target(host: &str, port: u16, spec: ProbeSpec) -> ProbeTarget {
    let service = ServiceName::new("corerl").unwrap();
    let id = InstanceId::new("corerl-0-x").unwrap();
    let instance = Some(InstanceRef { id, service: service.clone(), replica: 0, handle: None });
    let runtime = Some(RuntimeName::new("process").unwrap());
    ProbeTarget { service, instance, runtime, host: host.to_owned(), port, spec: Arc::new(spec) }
}

/// A port at which nothing listens.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn ask(probe: &impl HealthProbe, target: &ProbeTarget) -> ProbeReport {
    tokio::time::timeout(Duration::from_secs(30), probe.check(target)).await.expect("an answer").expect("it was asked")
}

#[tokio::test]
async fn http_conforms() {
    probe::run(|| async {
        let server = Server::start().await;
        let hung = Arc::clone(&server.hung);
        Subject::new(HttpProbe::new(), server.http("/ok"), server.http("/status?500"))
            .warning(server.http("/status?429"))
            .hanging(server.http("/never"))
            .refused(target("127.0.0.1", free_port().await, ProbeSpec::Http(check("/"))))
            .garbage(server.http("/garbage"))
            .bad("closed without an answer", server.http("/nothing"))
            .bad("half a head", server.http("/half"))
            .bad("an endless header", server.http("/huge-header"))
            .verbose(server.with(HttpCheck { expected_body: Some("b".to_owned()), ..check("/endless") }))
            .residue(move || hung.load(Ordering::SeqCst))
            .guard(server)
    })
    .await;
}

#[tokio::test]
async fn http_judges_status_headers_and_body() {
    let server = Server::start().await;
    let probe = HttpProbe::new();
    let headers = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let codes = |from, to| vec![StatusRange { from, to }];
    let cases = [
        (check("/status?204"), Outcome::Pass, "HTTP 204"),
        (check("/status?404"), Outcome::Fail, "HTTP 404"),
        (check("/redirect"), Outcome::Pass, "HTTP 302"),
        (HttpCheck { expected_status: codes(404, 404), ..check("/status?404") }, Outcome::Pass, "HTTP 404"),
        (HttpCheck { expected_status: codes(404, 404), ..check("/ok") }, Outcome::Fail, "HTTP 200"),
        (HttpCheck { expected_status: codes(400, 499), ..check("/status?429") }, Outcome::Pass, "HTTP 429"),
        (HttpCheck { expected_headers: headers("x-role", "leader"), ..check("/ok") }, Outcome::Pass, "HTTP 200"),
        (
            HttpCheck { expected_headers: headers("x-role", "follower"), ..check("/ok") },
            Outcome::Fail,
            "HTTP 200, but no header x-role: follower",
        ),
        (HttpCheck { expected_body: Some("ready".to_owned()), ..check("/ok") }, Outcome::Pass, "HTTP 200"),
        (HttpCheck { expected_body: Some("ready".to_owned()), ..check("/close") }, Outcome::Pass, "HTTP 200"),
        (
            HttpCheck { expected_body: Some("steady".to_owned()), ..check("/ok") },
            Outcome::Fail,
            "the body does not hold what is expected",
        ),
        (
            HttpCheck {
                headers: headers("x-token", "secret"),
                expected_body: Some("x-token: secret".to_owned()),
                ..check("/echo?a=b")
            },
            Outcome::Pass,
            "HTTP 200",
        ),
    ];
    for (check, outcome, message) in cases {
        let report = ask(&probe, &server.with(check.clone())).await;
        assert_eq!(report, ProbeReport::new(outcome, message), "{check:?}");
    }
}

#[tokio::test]
async fn http_does_not_wait_for_a_body_that_nobody_wants() {
    let server = Server::start().await;
    let probe = HttpProbe::new();
    for path in ["/drip", "/endless"] {
        assert_eq!(ask(&probe, &server.http(path)).await.outcome, Outcome::Pass, "{path}");
    }
    let wanted = server.with(HttpCheck { expected_body: Some("b".to_owned()), ..check("/drip") });
    assert!(tokio::time::timeout(Duration::from_millis(300), probe.check(&wanted)).await.is_err());
}

#[tokio::test]
async fn http_keeps_its_connection_and_survives_its_loss() {
    let server = Server::start().await;
    let probe = HttpProbe::new();
    for _ in 0..20 {
        assert_eq!(ask(&probe, &server.http("/ok")).await.outcome, Outcome::Pass);
    }
    assert_eq!(server.accepted.load(Ordering::SeqCst), 1);
    for _ in 0..20 {
        assert_eq!(ask(&probe, &server.http("/once")).await.outcome, Outcome::Pass);
    }
}

#[tokio::test]
async fn http_reaches_names_and_ipv6() {
    let server = Server::start().await;
    let probe = HttpProbe::new();
    let host_named = |host: &str, port: u16| {
        let body = Some(format!("host: {}:{port}", if host == "::1" { "[::1]" } else { host }));
        target(host, port, ProbeSpec::Http(HttpCheck { expected_body: body, ..check("/echo") }))
    };
    assert_eq!(ask(&probe, &host_named("localhost", server.port)).await, ProbeReport::pass("HTTP 200"));
    // A machine without IPv6 has nothing to show.
    if let Ok(server) = Server::bind("[::1]:0").await {
        for host in ["::1", "[::1]", "localhost"] {
            assert_eq!(ask(&probe, &host_named(host, server.port)).await, ProbeReport::pass("HTTP 200"), "{host}");
        }
    }
}

#[tokio::test]
async fn a_target_without_a_port_cannot_be_asked() {
    let error = HttpProbe::new().check(&target("127.0.0.1", 0, ProbeSpec::Http(check("/")))).await.unwrap_err();
    assert_eq!(error.message, "no port is known");
    assert!(TcpProbe.check(&target("127.0.0.1", 0, ProbeSpec::Tcp)).await.is_err());
}

#[tokio::test]
async fn tcp_conforms() {
    probe::run(|| async {
        let server = Server::start().await;
        let tcp = |port| target("127.0.0.1", port, ProbeSpec::Tcp);
        let refused = free_port().await;
        Subject::new(TcpProbe, tcp(server.port), tcp(refused)).refused(tcp(refused)).guard(server)
    })
    .await;
}

fn sh(script: &str) -> ProbeTarget {
    target(
        "127.0.0.1",
        7,
        ProbeSpec::Command { command: ["sh", "-c", script].map(str::to_owned).to_vec(), beside: false },
    )
}

/// How many processes on this machine have `word` in their command line.
fn processes_with(word: &str) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            entry.path() != Path::new("/proc/self") && String::from_utf8_lossy(&line).contains(word)
        })
        .count()
}

#[tokio::test]
async fn command_conforms() {
    // A duration that nobody else sleeps for marks the processes of this test.
    let mark = format!("{}.{}", 100_000 + std::process::id(), fastrand::u32(..));
    probe::run(|| async {
        let counted = mark.clone();
        Subject::new(CommandProbe::default(), sh("exit 0"), sh("exit 2"))
            .warning(sh("exit 1"))
            .hanging(sh(&format!("sleep {mark} & sleep {mark}")))
            .bad("ended by a signal", sh("kill -9 $$"))
            .verbose(sh("yes coredinator | head -c 10000000"))
            .residue(move || processes_with(&counted))
    })
    .await;
}

#[tokio::test]
async fn command_says_what_it_wrote_and_knows_whom_it_is_about() {
    let cases = [
        (sh("echo out; echo err >&2; exit 1"), ProbeReport::warn("out\nerr")),
        (sh("exit 3"), ProbeReport::fail("exited with code 3")),
        (sh("kill -TERM $$"), ProbeReport::fail("ended by a signal")),
        (sh("echo {host}:{port} $COREDINATOR_SERVICE $COREDINATOR_INSTANCE_ID"), {
            ProbeReport::pass("127.0.0.1:7 corerl corerl-0-x")
        }),
        (sh("cat; echo end of input"), ProbeReport::pass("end of input")),
        (sh("exec >/dev/null 2>&1; true"), ProbeReport::pass("exited with code 0")),
    ];
    for (target, expected) in cases {
        assert_eq!(ask(&CommandProbe::default(), &target).await, expected, "{:?}", target.spec);
    }
}

#[tokio::test]
async fn command_takes_what_it_left_behind_with_it() {
    let mark = format!("{}.{}", 200_000 + std::process::id(), fastrand::u32(..));
    assert_eq!(ask(&CommandProbe::default(), &sh(&format!("sleep {mark} & exit 0"))).await.outcome, Outcome::Pass);
    let gone = async {
        while processes_with(&mark) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("the rest of its group is killed");
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_no_verdict() {
    let target = target("h", 1, ProbeSpec::Command { command: vec!["/nowhere/to/be/found".to_owned()], beside: true });
    let error = CommandProbe::default().check(&target).await.unwrap_err();
    assert!(error.message.starts_with("cannot run \"/nowhere/to/be/found\""), "{}", error.message);
}

#[test]
fn checks_are_validated_by_kind() {
    struct Own;
    #[async_trait::async_trait]
    impl HealthProbe for Own {
        fn kind(&self) -> String {
            "own".to_owned()
        }
        fn validate(&self, _: &ProbeSpec) -> Vec<coredinator_core::FieldError> {
            Vec::new()
        }
        async fn check(&self, _: &ProbeTarget) -> Result<ProbeReport, coredinator_core::ProbeError> {
            pending().await
        }
    }
    let registry = ProbeRegistry::builtin().with(Own);
    let errors = |probe| {
        let errors = registry.validate(&HealthCheck { probe, timing: CheckTiming::default() });
        errors.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let custom = |kind: &str| ProbeSpec::Custom { kind: kind.to_owned(), options: serde_json::Map::new() };
    let header = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
    let good = [ProbeSpec::Http(check("/h?a=1")), ProbeSpec::Tcp, custom("own")];
    for probe in good.into_iter().chain([ProbeSpec::Heartbeat { ttl: Duration::from_secs(1) }]) {
        assert_eq!(errors(probe.clone()), [""; 0], "{probe:?}");
    }
    assert_eq!(
        errors(custom("owm")),
        ["/kind: unknown kind \"owm\" (one of command, http, native, own, tcp, heartbeat) (did you mean \"own\"?)"]
    );
    assert_eq!(errors(ProbeSpec::Command { command: Vec::new(), beside: false }), ["/command: must name a program"]);
    assert_eq!(
        errors(ProbeSpec::Http(HttpCheck {
            headers: header("a b", "c"),
            expected_headers: header("a", "b\n"),
            ..check("/")
        })),
        ["/headers/a b: not the name of a header", "/expected_headers/a: not the value of a header"]
    );
}
