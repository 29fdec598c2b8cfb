//! The command line as people and scripts meet it: the real binary, against a double of the API.

use std::{
    collections::BTreeMap,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, process::Command};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coredinator"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("COREDINATOR_") || name == "DATABASE_URL" {
            command.env_remove(name);
        }
    }
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn run(args: &[&str]) -> Output {
    tokio::time::timeout(Duration::from_secs(30), command(args).output()).await.expect("ends in time").expect("starts")
}

fn code(output: &Output) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    output.status.code().unwrap_or_else(|| -output.status.signal().unwrap_or_default())
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[tokio::test]
async fn help_version_and_usage() {
    let help = run(&["--help"]).await;
    assert_eq!(code(&help), 0);
    for word in [
        "serve",
        "up",
        "ps",
        "get",
        "describe",
        "start",
        "stop",
        "restart",
        "scale",
        "logs",
        "register",
        "deregister",
        "events",
        "wait",
        "agents",
        "cycles",
        "cycle",
        "step",
        "strategy",
        "resources",
        "replay",
        "coordinate",
        "apply",
        "plan",
        "diff",
        "config",
        "healthcheck",
        "completion",
        "version",
        "Exit codes:",
        "124",
        "COREDINATOR_ADDR",
    ] {
        assert!(stdout(&help).contains(word), "{word}");
    }
    assert!(stdout(&run(&["--version"]).await).starts_with("coredinator "));
    for wrong in [
        &["strat"][..],
        &[],
        &["ps", "--colour"],
        &["wait", "a", "--for", "helthy"],
        &["scale", "a"],
        &["ps", "--address", "https://x"],
    ] {
        let output = run(wrong).await;
        assert_eq!((code(&output), stdout(&output).as_str()), (2, ""), "{wrong:?}");
        assert!(!stderr(&output).is_empty());
    }
    let bash = run(&["completion", "bash"]).await;
    assert_eq!(code(&bash), 0);
    assert!(stdout(&bash).contains("complete -F"));
}

#[tokio::test]
async fn nobody_answers() {
    // A port that was free a moment ago, and that nobody else is given soon.
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for args in [
        &["ps"][..],
        &["logs", "-f", "a"],
        &["events", "-f"],
        &["wait", "a"],
        &["restart", "a", "--wait"],
        &["deregister", "a"],
    ] {
        let output = command(args).env("COREDINATOR_ADDR", &address).output().await.unwrap();
        assert_eq!((code(&output), stdout(&output).as_str()), (6, ""), "{args:?}");
        assert!(
            stderr(&output).starts_with(&format!("error: no coredinator answers at http://{address}\n")),
            "{}",
            stderr(&output)
        );
        assert!(stderr(&output).contains("hint: start one by \"coredinator serve\""), "{}", stderr(&output));
    }
    let check = run(&["healthcheck", "--address", &address]).await;
    assert_eq!(code(&check), 1);
    let version = run(&["version", "--address", &address]).await;
    assert_eq!(code(&version), 0);
    assert!(stdout(&version).contains("no answer"));
}

#[tokio::test]
async fn config_check_and_show() {
    let good = file(
        "coredinator:\n  port: 9\n  database_url: postgres://me:secret@db/x\n  services:\n    io: {port: 1}\n    rl: {runtime: process, command: ./rl}\n",
    );
    let path = good.path().to_str().unwrap();
    let output = run(&["config", "check", path]).await;
    assert_eq!((code(&output), stdout(&output)), (0, format!("{path} is valid: 1 managed and 1 external services\n")));
    let output = run(&["config", "show", "--config", path, "--host", "10.0.0.1"]).await;
    let shown = stdout(&output);
    assert_eq!(code(&output), 0);
    for line in [
        "host: \"10.0.0.1\"  # --host".to_owned(),
        format!("port: 9  # {path}:2:3"),
        "detach: false  # default".to_owned(),
    ] {
        assert!(shown.contains(&line) || shown.contains(&line.replace('"', "")), "{line}\n{shown}");
    }
    assert!(shown.contains("postgres://me:***@db/x") && !shown.contains("secret"));
    let json: Value =
        serde_json::from_slice(&run(&["config", "show", "--config", path, "-o", "json"]).await.stdout).unwrap();
    assert_eq!(json["config"]["coredinator"]["port"], 9);
    assert_eq!(json["origins"]["/coredinator/services/rl/replicas"], "default");
    assert_eq!(stdout(&run(&["config", "show", "--config", path, "-o", "name"]).await), "io\nrl\n");

    let bad = file(
        "coredinator:\n  prot: 9\n  services:\n    rl: {runtime: proces, command: x}\n    io: {runtime: process, comand: x}\n",
    );
    let path = bad.path().to_str().unwrap();
    let output = run(&["config", "check", path]).await;
    assert_eq!((code(&output), stdout(&output).as_str()), (2, ""));
    let told = stderr(&output);
    for line in [
        "error: the configuration has 4 errors".to_owned(),
        format!("  {path}:2:3: coredinator.prot: unknown field \"prot\""),
        "hint: did you mean \"port\"?".to_owned(),
        format!("  {path}:4:10: coredinator.services.rl.runtime: unknown runtime \"proces\""),
        "hint: did you mean \"process\"?".to_owned(),
        format!("  {path}:5:28: coredinator.services.io.comand: unknown field \"comand\""),
        "hint: did you mean \"command\"?".to_owned(),
    ] {
        assert!(told.contains(&line), "{line}\n{told}");
    }
    let output = run(&["config", "check", path, "-o", "json"]).await;
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), json["errors"].as_array().map(Vec::len)), (2, Some(4)));
    let absent = run(&["config", "check", "/nonexistent.yaml"]).await;
    assert_eq!(code(&absent), 2);
    assert!(stderr(&absent).contains("cannot read /nonexistent.yaml"));
}

/// What the double was asked, and the services it has.
#[derive(Debug, Default)]
struct Double {
    asked: Mutex<Vec<String>>,
    looks: Mutex<u64>,
}

type Shared = State<Arc<Double>>;

impl Double {
    fn note(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }
}

fn problem(status: u16, detail: &str, errors: &Value) -> Response {
    let body = json!({"type": "urn:x", "title": "x", "status": status, "detail": detail, "code": "X", "request_id": "r7", "retryable": status == 503, "errors": errors});
    let mut response = (StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, "application/problem+json".parse().unwrap());
    response
}

fn service(name: &str, status: &str, index: u64) -> Value {
    json!({"name": name, "status": status, "reason": "as it is", "host": "localhost", "port": 8000, "runtime": "process", "replicas": 1, "ready": 1,
        "labels": {"line": "a"}, "index": index, "future_field": {"x": 1},
        "instances": [{"id": format!("{name}-0-{index}"), "replica": 0, "state": "running", "restarts": 0, "pid": 7}]})
}

/// A service whose name is `status-N` is refused with that status; `slow` never answers; `rising` becomes healthy.
async fn one(State(double): Shared, Path(name): Path<String>) -> Response {
    if let Some(status) = name.strip_prefix("status-").and_then(|status| status.parse().ok()) {
        return problem(status, "refused", &json!([]));
    }
    match name.as_str() {
        "slow" => std::future::pending().await,
        "absent" => problem(404, "there is no service \"absent\"", &json!([])),
        "failed" => Json(service("failed", "failed", 1)).into_response(),
        "stuck" => Json(service("stuck", "starting", 1)).into_response(),
        "rising" => {
            let mut looks = double.looks.lock().unwrap();
            *looks += 1;
            Json(service("rising", if *looks < 3 { "starting" } else { "healthy" }, *looks)).into_response()
        }
        name => Json(service(name, "healthy", 1)).into_response(),
    }
}

async fn act(state: Shared, Path((name, action)): Path<(String, String)>) -> Response {
    state.note(format!("{action} {name}"));
    one(state, Path(name)).await
}

async fn register(
    State(double): Shared,
    Query(query): Query<BTreeMap<String, String>>,
    Json(body): Json<Value>,
) -> Response {
    let name = body["name"].as_str().unwrap_or_default().to_owned();
    double.note(format!("register {body} {query:?}"));
    match name.as_str() {
        "taken" if !query.contains_key("replace") => problem(409, "another service has this name", &json!([])),
        "bad" => problem(
            422,
            "the service is not valid",
            &json!([{"pointer": "/port", "detail": "too odd", "hint": "use an even one"}, {"pointer": "/host", "detail": "too far"}]),
        ),
        _ => (StatusCode::CREATED, Json(service(&name, "unknown", 1))).into_response(),
    }
}

async fn logs(Path(name): Path<String>, Query(query): Query<BTreeMap<String, String>>, headers: HeaderMap) -> Response {
    let lines = ["one", "two"]
        .map(|line| json!({"replica": 0, "stream": "stdout", "at": null, "line": format!("{name} {line} {query:?}")}));
    assert_eq!(headers[header::ACCEPT], "text/event-stream");
    let body: String = lines.iter().map(|line| format!("data: {line}\n\n")).collect();
    if query["follow"] == "true" {
        let stream = futures_util::stream::once(async move { Ok::<_, std::io::Error>(body) });
        let stream = futures_util::StreamExt::chain(stream, futures_util::stream::pending());
        return ([(header::CONTENT_TYPE, "text/event-stream")], axum::body::Body::from_stream(stream)).into_response();
    }
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

async fn serve() -> (String, Arc<Double>) {
    let double = Arc::new(Double::default());
    let list = |Query(query): Query<BTreeMap<String, String>>| async move {
        let (names, next) = match query.get("page_token").map(String::as_str) {
            None => (["corerl", "failed"], "more/1"),
            Some("more/1") => (["io", "slow"], ""),
            Some(_) => (["?", "?"], ""),
        };
        Json(
            json!({"services": names.map(|name| service(name, if name == "failed" { "failed" } else { "healthy" }, 1)), "next_page_token": next}),
        )
    };
    let event = json!({"id": 3, "at": "2026-01-01T00:00:00Z", "service": "io", "severity": "warning", "code": "BackOff", "message": "exited with code 1"});
    let events = json!({ "events": [event] });
    let routes = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/health", get(|| async { (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "unhealthy"}))) }))
        .route("/version", get(|| async { Json(json!({"version": "9.9.9"})) }))
        .route("/api/coredinator/services", get(list))
        .route("/api/coredinator/services/register", post(register))
        .route("/api/coredinator/services/{name}", get(one))
        .route(
            "/api/coredinator/services/{name}",
            delete(|state: Shared, Path(name): Path<String>| act(state, Path((name, "delete".to_owned())))),
        )
        .route("/api/coredinator/services/{name}/health", get(|| async { Json(json!({"checks": []})) }))
        .route("/api/coredinator/services/{name}/logs", get(logs))
        .route(
            "/api/coredinator/services/{name}/scale",
            put(|state: Shared, Path(name): Path<String>, Json(body): Json<Value>| {
                act(state, Path((name, body.to_string())))
            }),
        )
        .route("/api/coredinator/services/{name}/{action}", post(act))
        .route("/api/coredinator/events", get(move || async move { Json(events) }))
        .with_state(Arc::clone(&double));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, double)
}

#[tokio::test]
async fn exit_codes_follow_the_answer() {
    let (address, _double) = serve().await;
    let code_of = async |args: &[&str]| code(&run(&[args, &["--address", &address]].concat()).await);
    for (name, wanted) in [
        ("status-400", 2),
        ("status-422", 2),
        ("status-401", 4),
        ("status-403", 4),
        ("status-404", 3),
        ("status-409", 5),
        ("status-412", 5),
        ("status-500", 1),
        ("status-503", 1),
        ("status-504", 124),
        ("corerl", 0),
    ] {
        assert_eq!(code_of(&["get", name]).await, wanted, "get {name}");
        assert_eq!(code_of(&["start", name]).await, wanted, "start {name}");
        assert_eq!(code_of(&["scale", &format!("{name}=2")]).await, wanted, "scale {name}");
        assert_eq!(code_of(&["deregister", name]).await, wanted, "deregister {name}");
    }
    assert_eq!(code_of(&["get", "slow", "--timeout", "200ms"]).await, 124);
    assert_eq!(code_of(&["wait", "corerl"]).await, 0);
    assert_eq!(code_of(&["wait", "rising"]).await, 0);
    assert_eq!(code_of(&["wait", "absent"]).await, 3);
    assert_eq!(code_of(&["wait", "absent", "--for", "deleted"]).await, 0);
    assert_eq!(code_of(&["wait", "failed"]).await, 1);
    assert_eq!(code_of(&["wait", "failed", "--for", "healthy,failed"]).await, 0);
    assert_eq!(code_of(&["wait", "stuck", "corerl", "--timeout", "300ms"]).await, 124);
    assert_eq!(code_of(&["wait", "slow", "--timeout", "300ms"]).await, 124);
    assert_eq!(code_of(&["healthcheck"]).await, 1);
    assert_eq!(code_of(&["register", "--name", "taken", "--port", "1"]).await, 5);
    assert_eq!(code_of(&["register", "--name", "taken", "--port", "1", "--replace"]).await, 0);
    let output = run(&["register", "--name", "bad", "--port", "1", "--address", &address]).await;
    assert_eq!(code(&output), 2);
    assert_eq!(
        stderr(&output),
        "error: bad: the service is not valid\n  /port: too odd (use an even one)\n  /host: too far\n"
    );
    let output = run(&["wait", "stuck", "--timeout", "300ms", "--quiet", "--address", &address]).await;
    assert_eq!(
        stderr(&output),
        "error: not healthy within 300ms: stuck\n  stuck is starting: as it is\nhint: see why by \"coredinator describe\" and \"coredinator logs\"\n"
    );
}

#[tokio::test]
async fn data_in_every_format() {
    let (address, double) = serve().await;
    let out = async |args: &[&str]| stdout(&run(&[args, &["--address", &address]].concat()).await);
    let table = out(&["ps"]).await;
    assert_eq!(
        table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["NAME", "STATUS", "READY", "RESTARTS", "UPTIME", "CHECKED", "ENDPOINT", "REASON"]
    );
    assert_eq!(table.lines().count(), 5, "both pages: {table}");
    assert!(!table.contains('\u{1b}'), "no colours where there is no terminal");
    assert_eq!(out(&["ps", "-o", "name", "--status", "healthy"]).await, "corerl\nio\nslow\n");
    assert_eq!(out(&["ps", "-o", "name", "-l", "line=b"]).await, "");
    let json: Value = serde_json::from_str(&out(&["get", "corerl", "-o", "json"]).await).unwrap();
    assert_eq!((&json["name"], &json["future_field"]["x"]), (&json!("corerl"), &json!(1)));
    assert!(out(&["get", "corerl", "-o", "yaml"]).await.contains("\nname: corerl\n"));
    assert!(out(&["describe", "corerl"]).await.starts_with("Name:          corerl\n"));
    assert!(out(&["version"]).await.contains("server  9.9.9"));
    assert_eq!(
        out(&["logs", "io", "--tail", "5"]).await,
        "io-0 | io one {\"follow\": \"false\", \"tail\": \"5\"}\nio-0 | io two {\"follow\": \"false\", \"tail\": \"5\"}\n"
    );
    let line: Value = serde_json::from_str(out(&["logs", "io", "-o", "json"]).await.lines().next().unwrap()).unwrap();
    assert_eq!(line["service"], "io");
    assert!(out(&["events"]).await.contains("io                    BackOff           exited with code 1\n"));
    assert_eq!(out(&["events", "corerl"]).await, "");
    assert_eq!(out(&["restart", "corerl", "io", "-o", "name"]).await, "corerl\nio\n");
    out(&["scale", "corerl=3"]).await;
    let services = file("- {name: a, port: 1}\n- {name: b, port: 2, health_check: {interval: 5}}\n");
    out(&["register", "-f", services.path().to_str().unwrap()]).await;
    let asked = double.asked.lock().unwrap().clone();
    assert_eq!(asked[..3], ["restart corerl", "restart io", "{\"replicas\":3} corerl"]);
    assert!(asked[3].contains("\"name\":\"a\"") && asked[4].contains("\"interval\":5"), "{asked:?}");
}

#[tokio::test]
async fn up_hands_a_file_to_the_server_that_runs() {
    let (address, double) = serve().await;
    let plant = file(
        "coredinator:\n  services:\n    io: {port: 1}\n    rl: {runtime: process, command: ./rl, depends_on: [io]}\n",
    );
    let output = run(&["up", "--config", plant.path().to_str().unwrap(), "--wait", "--address", &address]).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let asked = double.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|asked| asked.contains("replace")), "{asked:?}");
    assert!(stderr(&output).contains("rl: healthy"), "{}", stderr(&output));
}

#[tokio::test]
async fn following_ends_quietly_with_the_reader_and_with_ctrl_c() {
    let (address, _double) = serve().await;
    // The reader goes away.
    let mut child = command(&["logs", "-f", "io", "--address", &address]).spawn().unwrap();
    let mut first = [0; 4];
    let mut stdout = child.stdout.take().unwrap();
    tokio::time::timeout(Duration::from_secs(30), stdout.read_exact(&mut first)).await.expect("in time").unwrap();
    assert_eq!(&first, b"io-0");
    // Somebody presses Ctrl-C.
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output =
        tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await.expect("in time").unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (130, ""));

    let mut child = command(&["completion", "zsh"]).spawn().unwrap();
    drop(child.stdout.take());
    let output =
        tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await.expect("in time").unwrap();
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
}
