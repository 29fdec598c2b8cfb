//! The configuration of a coredinator that is started anew, killed, and asked by the command line.

use std::process::Output;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::support::{Plant, sleeper, with};

/// Runs the command line against the plant's coredinator.
pub(crate) async fn cli(plant: &Plant, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coredinator"));
    command.args(args).env("COREDINATOR_ADDR", plant.address()).env("USER", "tester").kill_on_drop(true);
    tokio::time::timeout(crate::support::PATIENCE, command.output()).await.expect("ends in time").expect("starts")
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

pub(crate) async fn history(plant: &Plant) -> Vec<Value> {
    let read = plant.get("/api/coredinator/config/history").await.unwrap().ok();
    read["revisions"].as_array().unwrap().clone()
}

/// Makes the services those of this map, as a whole.
pub(crate) async fn update(plant: &Plant, services: &Value) -> Value {
    let body = json!({"coredinator": {"services": services}});
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.put(format!("{}/api/coredinator/config/update", plant.address())).header("if-match", "*");
    let answer = request.json(&body).send().await.unwrap();
    let (status, text) = (answer.status(), answer.text().await.unwrap());
    assert!(status.is_success(), "{text}");
    serde_json::from_str(&text).unwrap()
}

fn labelled(label: &str) -> Value {
    with(sleeper(), json!({"labels": {"v": label}}))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_plans_applies_and_goes_back() {
    let plant = Plant::running(&json!({"a": sleeper()})).await;
    let before = plant.runs("a", 1).await;
    let file = plant.root().join("more.yaml");
    std::fs::write(&file, "coredinator:\n  services:\n    b: {runtime: process, command: sleep 1000}\n").unwrap();
    let file = file.to_str().unwrap();

    let (code, out, err) = told(&cli(&plant, &["diff", "-f", file]).await);
    assert_eq!(code, 1, "{out}{err}");
    assert!(out.starts_with("/coredinator/services/b\n+ ") && out.contains("+ command:\n+   - "), "{out}");
    let (code, out, err) = told(&cli(&plant, &["plan", "-f", file]).await);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "+ b create: starts\n", ""));
    assert_eq!(told(&cli(&plant, &["plan", "-f", file, "--detailed-exitcode"]).await).0, 2);
    let (code, out, err) = told(&cli(&plant, &["apply", "-f", file, "-m", "one more"]).await);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "+ b create: starts\nrevision 2 is in force\n", ""));
    plant.runs("b", 1).await;
    assert_eq!(told(&cli(&plant, &["diff", "-f", file]).await), (0, String::new(), String::new()));
    let (code, out, _) = told(&cli(&plant, &["apply", "-f", file]).await);
    assert_eq!((code, out.as_str()), (0, "nothing to change: revision 2 stays in force\n"));
    assert_eq!(plant.runs("a", 1).await, before, "what no file names goes on");

    // What is generated is no difference; a directory is read whole; what it does not name is taken away on request.
    let directory = plant.root().join("all");
    std::fs::create_dir(&directory).unwrap();
    let (_, document, _) = told(&cli(&plant, &["config", "get"]).await);
    std::fs::write(directory.join("1.yaml"), &document).unwrap();
    let all = directory.to_str().unwrap();
    assert_eq!(told(&cli(&plant, &["diff", "-f", all]).await), (0, String::new(), String::new()));
    let (code, out, _) = told(&cli(&plant, &["apply", "-f", file, "--prune", "--dry-run"]).await);
    assert_eq!((code, out.as_str()), (0, "- a delete: stops\ntried on revision 2; nothing was changed\n"));

    let (code, out, _) = told(&cli(&plant, &["config", "history"]).await);
    assert_eq!(code, 0);
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows[1][0], rows[1][2], rows[1][3], rows[1][4]), ("2", "update", "tester", "b"), "{out}");
    assert_eq!((rows[2][0], rows[2][2]), ("1", "file"), "{out}");
    let (code, out, _) = told(&cli(&plant, &["config", "history", "2"]).await);
    assert!(code == 0 && out.contains("by tester (update)\n  one more\n\n/coredinator/services/b\n+ "), "{out}");
    let (code, out, _) = told(&cli(&plant, &["config", "rollback", "1"]).await);
    assert_eq!((code, out.as_str()), (0, "- b delete: stops\nrevision 3 is in force\n"));
    plant.runs("a", 1).await;
    assert_eq!(told(&cli(&plant, &["config", "rollback", "77"]).await).0, 3);

    // What is wrong is told before anything is asked of the server, and by the server.
    std::fs::write(directory.join("2.yaml"), "coredinator: {services: {b: {runtime: process, command: x, prot: 1}}}")
        .unwrap();
    let (code, _, err) = told(&cli(&plant, &["diff", "-f", all]).await);
    assert!(code > 1 && err.contains("2.yaml:1:") && err.contains("prot"), "{code} {err}");
    let clash = plant.root().join("clash.yaml");
    std::fs::write(&clash, "name: c\nruntime: process\ncommand: x\ndepends_on: [nobody]\n").unwrap();
    let (code, _, err) = told(&cli(&plant, &["apply", "-f", clash.to_str().unwrap()]).await);
    assert!(
        code == 2 && err.contains("/coredinator/services/c/depends_on/nobody: there is no service"),
        "{code} {err}"
    );
    let (code, out, _) = told(&cli(&plant, &["config", "schema"]).await);
    assert!(code == 0 && serde_json::from_str::<Value>(&out).unwrap()["$defs"].is_object());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_outlives_coredinator_until_the_file_says_something_else() {
    let mut plant = Plant::running(&json!({"a": labelled("file")})).await;
    plant.runs("a", 1).await;
    update(&plant, &json!({"a": labelled("update"), "b": sleeper()})).await;
    plant.runs("b", 1).await;
    for _ in 0..2 {
        plant.kill().await;
        plant.start().await;
        assert!(plant.said().contains("is as it was when it was last applied"), "{}", plant.said());
        assert_eq!(plant.service("a").await["labels"]["v"], "update");
        plant.runs("b", 1).await;
        assert_eq!(history(&plant).await.len(), 2);
    }
    plant.kill().await;
    plant.declare(&json!({"a": labelled("file again")}));
    plant.start().await;
    assert_eq!(plant.service("a").await["labels"]["v"], "file again");
    plant.runs("b", 1).await;
    let newest = history(&plant).await[0].clone();
    assert_eq!((&newest["source"], &newest["author"]), (&json!("file"), &json!("file")), "{newest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_a_change_is_whole_or_was_never_made() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let services = |n: u32| {
        let of = |name: &str| with(sleeper(), json!({"labels": {"v": n.to_string(), "name": name}}));
        json!({"a": of("a"), "b": of("b"), "c": of("c")})
    };
    let mut plant = Plant::running(&services(0)).await;
    let mut acknowledged = 1;
    for round in 1..=12_u32 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/api/coredinator/config/update", plant.address());
        // By turns it is an update that is cut off, and a start with a file that has changed.
        let by_file = round % 3 == 0;
        let answered = if by_file {
            plant.kill().await;
            plant.declare(&services(round));
            plant.launch();
            tokio::time::sleep(std::time::Duration::from_micros(rng.u64(0..40_000))).await;
            plant.kill().await;
            false
        } else {
            let body = json!({"coredinator": {"services": services(round)}});
            let request = client.put(url).header("if-match", "*").json(&body).send();
            let sending = tokio::spawn(request);
            tokio::time::sleep(std::time::Duration::from_micros(rng.u64(0..8_000))).await;
            plant.kill().await;
            matches!(sending.await.unwrap(), Ok(answer) if answer.status().is_success())
        };
        plant.start().await;
        let revisions = history(&plant).await;
        let newest = revisions[0]["revision"].as_u64().unwrap();
        assert!(newest == acknowledged || newest == acknowledged + 1, "seed {seed}, round {round}: {newest}");
        assert!(!answered || newest == acknowledged + 1, "seed {seed}, round {round}: an acknowledged change is lost");
        assert!(!by_file || newest == acknowledged + 1, "seed {seed}, round {round}: the file was not applied");
        acknowledged = newest;
        let mut labels = Vec::new();
        for name in ["a", "b", "c"] {
            labels.push(plant.service(name).await["labels"]["v"].as_str().unwrap().to_owned());
        }
        labels.dedup();
        assert_eq!(labels.len(), 1, "seed {seed}, round {round}: half of a change");
        for name in ["a", "b", "c"] {
            plant.runs(name, 1).await;
        }
    }
}

/// A small service that reads its document, reads it again when it is told to, and says so.
///
/// Its health is bad while the document says `sick: true`; it ends when that says `crash: true`. What it has read it appends
/// to `read.log`, with its replica.
const WORKER: &str = r#"
import http.server, json, os, signal, sys, threading, urllib.request
replica, url = os.environ["COREDINATOR_REPLICA"], os.environ["COREDINATOR_URL"]
state = {}
def load(ack=None):
    with open(os.environ["COREDINATOR_CONFIG_FILE"]) as file:
        config = json.load(file)
    mode = os.stat(os.environ["COREDINATOR_CONFIG_FILE"]).st_mode & 0o777
    with open("read.log", "a") as log:
        log.write(f"{replica} {config['lr']} {mode:o} {config.get('seed')} {config.get('key')}\n")
    if config.get("crash"):
        os._exit(7)
    state.update(config)
    state["sick"] = config.get("sick", False)
    if config.get("ack"):
        threading.Thread(target=acknowledge).start()
def acknowledge():
    name = os.environ["COREDINATOR_SERVICE"]
    with urllib.request.urlopen(f"{url}/api/coredinator/config/services/{name}?replica={replica}") as answer:
        revision = json.load(answer)["revision"]
    body = json.dumps({"instance_id": os.environ["COREDINATOR_INSTANCE_ID"], "revision": state.get("told") or revision}).encode()
    request = urllib.request.Request(f"{url}/api/coredinator/config/services/{name}/ack", body, {"content-type": "application/json"})
    urllib.request.urlopen(request).read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(503 if state.get("sick") else 200)
    def do_POST(self):
        told = json.loads(self.rfile.read(int(self.headers["content-length"])))
        state["told"] = told["revision"]
        load()
        self.answer(200)
    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
signal.signal(signal.SIGHUP, lambda *args: load())
load()
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// A service of that program.
fn worker(plant: &Plant, replicas: u32, change: &Value, config: &Value) -> Value {
    std::fs::write(plant.root().join("worker.py"), WORKER).unwrap();
    json!({
        "runtime": "process", "command": ["python3", "-u", "worker.py"], "working_dir": plant.root(), "replicas": replicas,
        "health_endpoint": "/health", "health_check": {"interval": 0.2, "timeout": 5, "retries": 2, "start_period": 60, "start_interval": 0.1},
        "backoff": {"initial": 0.05, "max": 0.2}, "stop_grace_period": 2,
        "config": config, "config_change": change,
    })
}

/// What instances have read, in order: replica and learning rate.
fn reads(plant: &Plant) -> Vec<(u32, String)> {
    let log = std::fs::read_to_string(plant.root().join("read.log")).unwrap_or_default();
    let words = log.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|words| words.len() == 5);
    words.map(|words| (words[0].parse().unwrap(), words[1].to_owned())).collect()
}

/// Programs that listen at ports which several coredinators allocate take turns: to each what is free is free.
static LISTENING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Waits until the document's revision is in force in every instance. Programs that take long to start are replaced one after
/// the other, so as long as that goes on it is waited for.
async fn in_force(plant: &Plant, revision: u64) -> Value {
    for given in 1..3 {
        plant
            .service_until("w", &format!("has given revision {revision} to {given}"), |service| {
                let instances = service["instances"].as_array().into_iter().flatten();
                let well = instances.filter(|i| i["config"]["revision"] == revision && i["ready"] == true).count();
                well >= given || service["replicas"].as_u64() < Some(given as u64)
            })
            .await;
    }
    plant
        .service_until("w", &format!("has revision {revision} in force"), |service| {
            service["config"]["stable"] == revision
                && service["config"]["drifted"] == 0
                && service["ready"] == service["replicas"]
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_document_reaches_every_instance_by_each_action_one_after_the_other() {
    let _turn = LISTENING.lock().await;
    for action in ["signal", "http", "restart"] {
        let plant = Plant::new(&json!({}));
        let change = json!({"action": action, "settle": 0.3, "path": "/again", "timeout": 60});
        let mut worker = worker(&plant, 3, &change, &json!({"lr": 1, "key": {"secret_file": "key"}}));
        worker["config_overrides"] = json!({"1": {"seed": 7}});
        worker["config"]["key"]["secret_file"] = json!(plant.root().join("key"));
        std::fs::write(plant.root().join("key"), "s3cret\n").unwrap();
        plant.declare(&json!({"w": worker}));
        let mut plant = plant;
        plant.start().await;
        let before = in_force(&plant, 1).await;
        let pids: Vec<Value> = before["instances"].as_array().unwrap().iter().map(|i| i["pid"].clone()).collect();
        let first = std::fs::read_to_string(plant.root().join("read.log")).unwrap();
        assert!(first.lines().all(|line| line.contains(" 600 ") && line.ends_with(" s3cret")), "{first}");
        assert!(first.lines().any(|line| line.starts_with("1 1 600 7 ")), "{first}");

        worker["config"]["lr"] = json!(2);
        let told = update(&plant, &json!({"w": worker})).await;
        let effect = if action == "restart" { "restart" } else { "reload" };
        assert_eq!(told["plan"]["services"][0]["effect"], effect);
        let after = in_force(&plant, 2).await;
        let now: Vec<Value> = after["instances"].as_array().unwrap().iter().map(|i| i["pid"].clone()).collect();
        assert_eq!(now == pids, action != "restart", "{action}");
        let order: Vec<(u32, String)> = reads(&plant).into_iter().skip(3).collect();
        let wanted: Vec<(u32, String)> = (0..3).map(|replica| (replica, "2".to_owned())).collect();
        assert_eq!(order, wanted, "{action}: each once, one after the other");
        // No change, no action.
        update(&plant, &json!({"w": worker})).await;
        assert_eq!(history(&plant).await.len(), 2);
        let metrics = plant.get("/metrics").await.unwrap().body;
        let metrics = metrics.as_str().unwrap();
        assert!(metrics.contains("coredinator_config_drift{service=\"w\"} 0"), "{metrics}");
        assert!(metrics.contains("coredinator_instance_config_revision{service=\"w\",replica=\"2\"} 2"), "{metrics}");
        let shown = String::from_utf8(cli(&plant, &["describe", "w"]).await.stdout).unwrap();
        assert!(shown.contains("revision 2, in force everywhere: 2") && shown.contains("CONFIG"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_an_instance_ill_or_crash_or_silent_is_taken_back_and_reaches_no_other() {
    let _turn = LISTENING.lock().await;
    for (action, harm, acknowledge) in [
        ("signal", json!({"sick": true}), false),
        ("signal", json!({"crash": true}), false),
        ("http", json!({"crash": true}), false),
        ("restart", json!({"crash": true}), false),
        ("signal", json!({"ack": false}), true),
    ] {
        let mut plant = Plant::new(&json!({}));
        // A program that is slow to come up is no failure; one that stays silent has to be waited for.
        let timeout = if acknowledge { 10 } else { 60 };
        let change = json!({"action": action, "settle": 0.3, "timeout": timeout, "acknowledge": acknowledge});
        let mut worker = worker(&plant, 3, &change, &json!({"lr": 1, "ack": true}));
        plant.declare(&json!({"w": worker}));
        plant.start().await;
        in_force(&plant, 1).await;
        worker["config"] = with(json!({"lr": 2, "ack": true}), harm.clone());
        update(&plant, &json!({"w": worker})).await;
        let what = format!("{action} {harm}");
        let service = plant
            .service_until("w", &format!("took {what} back"), |service| {
                let instances = service["instances"].as_array().unwrap();
                service["config"]["rejected"]["revision"] == 2
                    && service["config"]["drifted"] == 3
                    && service["ready"] == 3
                    && instances.iter().all(|instance| instance["config"]["revision"] == 1)
            })
            .await;
        assert_eq!((&service["config"]["stable"], &service["config"]["drifted"]), (&json!(1), &json!(3)), "{what}");
        let others: Vec<_> = reads(&plant).into_iter().filter(|(replica, lr)| *replica > 0 && lr == "2").collect();
        assert!(others.is_empty(), "{what}: {others:?}");
        let events = plant.get("/api/coredinator/events?service=w&limit=1000").await.unwrap().body.to_string();
        assert!(events.contains("ConfigRejected") && events.contains("going back to revision 1"), "{what}: {events}");
        // As long as one of them is only just up again, that is what is told.
        plant
            .until("ps tells what was taken back", async |plant| {
                let shown = String::from_utf8(cli(plant, &["ps"]).await.stdout).unwrap();
                shown.contains("configuration 2 was taken back")
            })
            .await;
        // A better one is tried.
        worker["config"] = json!({"lr": 3, "ack": true});
        update(&plant, &json!({"w": worker})).await;
        in_force(&plant, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_roll_out_goes_on_after_coredinator_was_killed_in_the_middle_of_it() {
    let _turn = LISTENING.lock().await;
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    for action in ["signal", "restart"] {
        let mut plant = Plant::new(&json!({}));
        let change = json!({"action": action, "settle": 0.1, "timeout": 60});
        let mut worker = worker(&plant, 3, &change, &json!({"lr": 0}));
        plant.declare(&json!({"w": worker}));
        plant.start().await;
        in_force(&plant, 1).await;
        for round in 2..=4_u64 {
            worker["config"] = json!({"lr": round});
            update(&plant, &json!({"w": worker})).await;
            tokio::time::sleep(std::time::Duration::from_millis(rng.u64(0..800))).await;
            plant.kill().await;
            plant.start().await;
            in_force(&plant, round).await;
            plant.runs("w", 3).await;
            for replica in 0..3 {
                let last = reads(&plant).into_iter().rfind(|(of, _)| *of == replica).unwrap();
                assert_eq!(last.1, round.to_string(), "seed {seed}, {action}, replica {replica}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_is_asked_for_waited_for_followed_and_acknowledged() {
    let _turn = LISTENING.lock().await;
    let mut plant = Plant::new(&json!({}));
    let change = json!({"action": "none", "settle": 0.1});
    let mut worker = worker(&plant, 2, &change, &json!({"lr": 1}));
    worker["config_overrides"] = json!({"1": {"seed": 7}});
    plant.declare(&json!({"w": worker, "plain": sleeper()}));
    plant.start().await;
    in_force(&plant, 1).await;
    let client = reqwest::Client::builder().no_proxy().timeout(crate::support::PATIENCE).build().unwrap();
    let url = format!("{}/api/coredinator/config/services/w", plant.address());
    let get =
        |query: &str, tag: &str| client.get(format!("{url}{query}")).header("if-none-match", tag.to_owned()).send();
    let answer = get("?replica=1", "").await.unwrap();
    assert_eq!(answer.headers()["etag"], "\"1\"");
    let told: Value = answer.json().await.unwrap();
    assert_eq!(told, json!({"service": "w", "replica": 1, "revision": 1, "document": {"lr": 1, "seed": 7}}));
    assert_eq!(get("", "\"1\"").await.unwrap().status(), 304);
    assert_eq!(get("?wait=50ms", "\"1\"").await.unwrap().status(), 304);
    let mut stream = client.get(&url).header("accept", "text/event-stream").send().await.unwrap();
    let first = String::from_utf8(stream.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(first.contains("event: config") && first.contains("id: 1") && first.contains("\"lr\":1"), "{first}");
    let waiting = tokio::spawn(get("?wait=30s", "\"1\""));
    worker["config"] = json!({"lr": 2});
    update(&plant, &json!({"w": worker, "plain": sleeper()})).await;
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!((answer.status().as_u16(), &answer.headers()["etag"]), (200, &"\"2\"".parse().unwrap()));
    let second = String::from_utf8(stream.chunk().await.unwrap().unwrap().to_vec()).unwrap();
    assert!(second.contains("id: 2") && second.contains("\"lr\":2"), "{second}");

    let service = in_force(&plant, 2).await;
    assert_eq!(reads(&plant).len(), 2, "nothing is done with instances");
    let id = service["instances"][0]["id"].clone();
    let ack = |body: Value| plant.call(reqwest::Method::POST, "/api/coredinator/config/services/w/ack", Some(body));
    let taken = ack(json!({"instance_id": id, "revision": 1})).await.unwrap().ok();
    assert_eq!((&taken["instance_id"], &taken["revision"]), (&id, &json!(1)));
    let service = plant.service_until("w", "drifts", |service| service["config"]["drifted"] == 1).await;
    let expected = json!({"revision": 2, "acknowledged": 1, "drifted": true});
    assert_eq!(service["instances"][0]["config"], expected);
    let shown = String::from_utf8(cli(&plant, &["ps"]).await.stdout).unwrap();
    assert!(shown.contains("configuration 2 is not yet in force in 1 of 2"), "{shown}");
    for (body, status) in [
        (json!({"instance_id": id, "revision": 3}), 409),
        (json!({"instance_id": "w-9-nobody", "revision": 2}), 409),
        (json!({"instance_id": id}), 422),
        (json!({"instance_id": id, "revision": 2, "x": 1}), 422),
    ] {
        assert_eq!(ack(body.clone()).await.unwrap().status, status, "{body}");
    }
    assert_eq!(plant.get("/api/coredinator/config/services/plain").await.unwrap().status, 404);
    assert_eq!(plant.get("/api/coredinator/config/services/nobody").await.unwrap().status, 404);
    assert_eq!(plant.get("/api/coredinator/config/services/w?replica=x").await.unwrap().status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_is_read_anew_all_of_it_or_nothing() {
    let plant = Plant::running(&json!({"a": labelled("1"), "b": sleeper()})).await;
    let (a, b) = (plant.runs("a", 1).await, plant.runs("b", 1).await);
    let file = plant.root().join("plant.yaml");
    let said = async |what: &str| {
        plant.until(&format!("it says {what}"), async |plant| plant.said().contains(what)).await;
    };
    // Nothing changed, nothing happens.
    crate::processes::signal(plant.pid(), rustix::process::Signal::HUP);
    said("is as it was when it was last applied").await;
    assert_eq!(history(&plant).await.len(), 1);

    // A bad one keeps the old, and says so, everywhere.
    std::fs::write(&file, "coredinator:\n  services:\n    a: {runtime: process, command: x, prot: 1}\n").unwrap();
    let refused = plant.call(reqwest::Method::POST, "/-/reload", None).await.unwrap();
    assert_eq!(
        (refused.status.as_u16(), refused.content_type.as_str()),
        (422, "application/problem+json"),
        "{refused:?}"
    );
    let error = &refused.body["errors"][0];
    assert_eq!(
        (&error["pointer"], &error["line"], &error["column"]),
        (&json!("/coredinator/services/a/prot"), &json!(3), &json!(39))
    );
    let health = plant.get("/api/coredinator/health").await.unwrap().ok();
    assert!(health["reload"]["error"].as_str().unwrap().contains("prot"), "{health}");
    let before = plant.said().len();
    crate::processes::signal(plant.pid(), rustix::process::Signal::HUP);
    plant.until("it says so again", async |plant| plant.said()[before..].contains("plant.yaml:3:39")).await;
    let (code, _, err) = told(&cli(&plant, &["config", "reload"]).await);
    assert!(code == 2 && err.contains("prot"), "{code} {err}");
    std::fs::remove_file(&file).unwrap();
    assert_eq!(plant.call(reqwest::Method::POST, "/-/reload", None).await.unwrap().status, 409);
    assert_eq!((plant.runs("a", 1).await, plant.runs("b", 1).await), (a, b.clone()));
    assert_eq!(history(&plant).await.len(), 1);

    // A good one is applied, and touches what it changes.
    plant.declare(&json!({"a": with(sleeper(), json!({"environment": {"V": "2"}})), "b": sleeper(), "c": sleeper()}));
    let (code, out, err) = told(&cli(&plant, &["config", "reload"]).await);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("+ c create") && out.contains("~ a update (environment, labels): is restarted"), "{out}");
    plant.runs("c", 1).await;
    assert_eq!(plant.runs("b", 1).await, b);
    let health = plant.get("/api/coredinator/health").await.unwrap().ok();
    assert!(health["reload"]["at"].is_string() && health["reload"]["error"].is_null(), "{health}");
}
