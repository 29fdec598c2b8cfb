//! Documents judged by a program elsewhere: the example in Python, and one that is slow, dead, or lies.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    config::cli,
    processes,
    support::{Answer, Plant, sleeper, with},
};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/validator.py");

/// A validator in Python that ends with its guard.
struct Validator {
    process: Child,
    url: String,
}

impl Drop for Validator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Validator {
    /// Starts it; `arguments` come after the program's.
    fn start(program: &[&str], arguments: &[&str]) -> Self {
        let mut command = Command::new("python3");
        command.arg("-u").args(program).args(arguments).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("python3 starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ").expect("an address").to_owned();
        Self { process, url }
    }

    fn port(&self) -> &str {
        self.url.rsplit(':').next().expect("a port")
    }
}

/// Writes the plant's file: a service `rl` with this document, and more settings.
fn declare(plant: &Plant, settings: &Value, document: &Value) {
    let rl = with(sleeper(), json!({"config": document, "config_change": "none"}));
    let section = with(json!({"services": {"rl": rl}}), settings.clone());
    std::fs::write(plant.root().join("plant.yaml"), json!({"coredinator": section}).to_string()).unwrap();
}

/// Makes `rl`'s document this one.
async fn update(plant: &Plant, document: &Value) -> Answer {
    let rl = with(sleeper(), json!({"config": document, "config_change": "none"}));
    let body = json!({"coredinator": {"services": {"rl": rl}}});
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.put(format!("{}/api/coredinator/config/update", plant.address())).header("if-match", "*");
    let response = request.json(&body).send().await.unwrap();
    let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (status, retry_after) = (response.status(), header("retry-after"));
    let content_type = header("content-type").unwrap_or_default();
    Answer { status, content_type, retry_after, stale: None, body: response.json().await.unwrap() }
}

/// The document of `rl` in force.
async fn in_force(plant: &Plant) -> Value {
    plant.get("/api/coredinator/config/services/rl").await.unwrap().ok()["document"].clone()
}

async fn reload(plant: &Plant) -> Answer {
    plant.call(Method::POST, "/-/reload", None).await.unwrap()
}

fn unjudged(answer: &Answer) {
    let told = (answer.status.as_u16(), answer.body["code"].as_str(), answer.body["retryable"].as_bool());
    assert_eq!(told, (503, Some("ValidatorUnavailable"), Some(true)), "{answer:?}");
    assert!(answer.retry_after.is_some(), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_python_judges_at_every_path_and_its_absence_is_told() {
    let mut validator = Validator::start(&[EXAMPLE], &["--port", "0"]);
    let mut plant = Plant::new(&json!({}));
    let settings = json!({"config_validator": {"url": validator.url, "timeout": 5}});
    declare(&plant, &settings, &json!({"learning_rate": 0.01}));
    plant.start().await;
    plant.runs("rl", 1).await;

    // By an update, a registration, the file read anew, the command line, and a return.
    let refused = update(&plant, &json!({"learning_rate": 7, "low": 3})).await;
    assert_eq!(refused.status.as_u16(), 422, "{refused:?}");
    let errors = refused.body["errors"].as_array().unwrap();
    let told: Vec<_> = errors.iter().map(|error| (error["pointer"].as_str().unwrap(), &error["line"])).collect();
    let at = |key: &str| format!("/coredinator/services/rl/config/{key}");
    assert_eq!(told, [(at("learning_rate").as_str(), &json!(1)), (at("low").as_str(), &json!(1))]);
    assert_eq!(errors[0]["hint"], "begin with 0.001");
    let taken = update(&plant, &json!({"low": 0.5})).await;
    assert!(taken.body["warnings"].to_string().contains("there is no learning_rate"), "{taken:?}");
    let own = with(sleeper(), json!({"name": "own", "config": {"learning_rate": true}}));
    let registered = plant.register(own).await.unwrap();
    assert_eq!(
        (registered.status.as_u16(), &registered.body["errors"][0]["pointer"]),
        (422, &json!("/config/learning_rate"))
    );
    declare(&plant, &settings, &json!({"learning_rate": 0.5}));
    let reloaded = reload(&plant).await;
    assert_eq!(reloaded.status.as_u16(), 422, "{reloaded:?}");
    assert_eq!(reloaded.body["errors"][0]["line"], 1, "{reloaded:?}");
    let health = plant.get("/api/coredinator/health").await.unwrap().body;
    assert!(health["reload"]["error"].as_str().unwrap().contains("at most 0.1"), "{}", health["reload"]);
    let edited = plant.root().join("edited.yaml");
    std::fs::write(&edited, "coredinator:\n  services:\n    rl:\n      runtime: process\n      command: x\n      config:\n        learning_rate: 9\n").unwrap();
    let planned = cli(&plant, &["plan", "-f", edited.to_str().unwrap()]).await;
    let said = String::from_utf8_lossy(&planned.stderr).into_owned();
    assert!(!planned.status.success() && said.contains("learning_rate") && said.contains("at most 0.1"), "{said}");
    assert_eq!(in_force(&plant).await, json!({"low": 0.5}));
    let port = validator.port().to_owned();
    drop(validator);
    validator = Validator::start(&[EXAMPLE], &["--port", &port, "--highest-rate", "0.001"]);
    let back =
        plant.call(Method::POST, "/api/coredinator/config/rollback", Some(json!({"revision": 1}))).await.unwrap();
    assert_eq!(back.status.as_u16(), 422, "{back:?}");
    assert_eq!(back.body["errors"][0]["pointer"], "/coredinator/services/rl/config/learning_rate");

    // Frozen, then dead.
    processes::signal(validator.process.id(), Signal::STOP);
    unjudged(&update(&plant, &json!({"learning_rate": 0.0001})).await);
    processes::signal(validator.process.id(), Signal::CONT);
    drop(validator);
    unjudged(&update(&plant, &json!({"learning_rate": 0.0001})).await);
    unjudged(&reload(&plant).await);
    assert_eq!(in_force(&plant).await, json!({"low": 0.5}));
    // What changes no document needs nobody.
    assert!(plant.scale("rl", 2).await.unwrap().status.is_success());
    plant.runs("rl", 2).await;
    plant.scale("rl", 1).await.unwrap().ok();
    let before = plant.runs("rl", 1).await;

    // A start goes on with what was in force, and takes the file up when it can be judged.
    plant.kill().await;
    declare(&plant, &settings, &json!({"learning_rate": 0.0005}));
    plant.start().await;
    assert_eq!(in_force(&plant).await, json!({"low": 0.5}));
    assert_eq!(plant.runs("rl", 1).await, before, "it was adopted");
    let health = plant.get("/api/coredinator/health").await.unwrap().body;
    assert!(health["reload"]["error"].as_str().unwrap().contains("could not be judged"), "{}", health["reload"]);
    let _validator = Validator::start(&[EXAMPLE], &["--port", &port, "--highest-rate", "0.001"]);
    assert_eq!(reload(&plant).await.status.as_u16(), 200);
    assert_eq!(in_force(&plant).await, json!({"learning_rate": 0.0005}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_that_nobody_judges_ends_and_goes_on_where_that_is_accepted() {
    // Nobody listens there any more.
    let url = Validator::start(&[EXAMPLE], &["--port", "0"]).url.clone();
    let mut plant = Plant::new(&json!({}));
    declare(&plant, &json!({"config_validator": url}), &json!({}));
    plant.launch();
    assert!(!plant.listens().await || !plant.end().await.success());
    assert!(plant.said().contains("could not be judged"), "{}", plant.said());
    plant.assert_nothing_runs();

    let mut plant = Plant::new(&json!({}));
    declare(&plant, &json!({"config_validator": {"url": url, "on_unreachable": "accept"}}), &json!({}));
    plant.start().await;
    plant.runs("rl", 1).await;
    assert!(plant.said().contains("not every document was judged"), "{}", plant.said());
}

/// Does to each document what that says.
const LIAR: &str = r#"
import http.server, json, sys, time
class Liar(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        do = asked["document"].get("do")
        answer = {
            "stray": {"valid": False, "errors": [{"pointer": "/services/other", "message": "m" * 5000}, {"pointer": "no pointer", "message": "x"}]},
            "both": {"valid": True, "errors": [{"pointer": "/do", "message": "no"}]},
            "mute": {"valid": False},
            "many": {"valid": False, "errors": [{"message": str(i)} for i in range(5000)]},
            "shape": {"valid": "yes"}, "list": [], "unsaid": {"errors": []}, "errors": {"valid": False, "errors": "all"},
            "tell": {"valid": False, "errors": [{"message": json.dumps(asked["document"]) + str(self.headers["x-key"])}]},
        }.get(do, {"valid": True, "more": 1})
        body = json.dumps(answer).encode()
        if do == "html":
            body = b"<html>hello</html>"
        if do == "empty":
            body = b""
        if do == "huge":
            body = b" " * (50 << 20)
        status = {"500": 500, "redirect": 302, "teapot": 418}.get(do, 200)
        if do == "slow":
            time.sleep(60)
        if do == "close":
            return self.connection.close()
        self.send_response(status)
        self.send_header("location", "/elsewhere")
        self.send_header("content-length", str(len(body) + (do == "short")))
        self.end_headers()
        if do == "drip":
            for byte in body:
                self.wfile.write(bytes([byte])); self.wfile.flush(); time.sleep(1)
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar)
print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_validator_that_lies_says_is_never_taken_for_a_verdict() {
    let validator = Validator::start(&["-c", LIAR], &[]);
    let url = validator.url.as_str();
    let with_settings = async |on_unreachable: &str| {
        let mut plant = Plant::new(&json!({}));
        plant.prelude = Some("export VALIDATOR_KEY=k3y".to_owned());
        let settings = json!({"config_validator": {
            "url": url, "timeout": 2, "on_unreachable": on_unreachable, "headers": {"X-Key": {"secret_env": "VALIDATOR_KEY"}},
        }});
        declare(&plant, &settings, &json!({}));
        plant.start().await;
        plant
    };
    let (strict, lax) = (with_settings("refuse").await, with_settings("accept").await);
    for (does, says) in [
        ("500", "answers with status 500"),
        ("redirect", "answers with status 302"),
        ("teapot", "answers with status 418"),
        ("html", "what is no answer"),
        ("empty", "what is no answer"),
        ("shape", "what is no answer"),
        ("list", "what is no answer"),
        ("unsaid", "missing field `valid`"),
        ("errors", "what is no answer"),
        ("huge", "more than 1048576 bytes"),
        ("short", "breaks off"),
        ("close", "does not answer"),
        ("slow", "not answered within 2s"),
        ("drip", "not answered within 2s"),
    ] {
        let before = in_force(&strict).await;
        let answer = update(&strict, &json!({"do": does})).await;
        unjudged(&answer);
        assert!(answer.body["detail"].as_str().unwrap().contains(says), "{does}: {answer:?}");
        assert_eq!(in_force(&strict).await, before, "{does}");
        let answer = update(&lax, &json!({"do": does})).await;
        assert_eq!(answer.status.as_u16(), 200, "{does}: {answer:?}");
        assert!(answer.body["warnings"].to_string().contains(says), "{does}: {answer:?}");
        assert_eq!(in_force(&lax).await, json!({"do": does}));
    }
    for plant in [&strict, &lax] {
        for (does, pointer, says) in [
            ("stray", "", "is not in the document"),
            ("both", "/do", "no"),
            ("mute", "", "without a word why"),
            ("many", "", "0"),
        ] {
            let answer = update(plant, &json!({"do": does})).await;
            assert_eq!(answer.status.as_u16(), 422, "{does}: {answer:?}");
            let errors = answer.body["errors"].as_array().unwrap();
            assert!(errors.len() <= 100, "{}", errors.len());
            assert_eq!(errors[0]["pointer"], format!("/coredinator/services/rl/config{pointer}"), "{does}");
            let told = errors[0]["detail"].as_str().unwrap();
            assert!(does == "stray" || told.contains(says), "{does}: {told}");
            assert!(told.len() < 1000, "{} bytes", told.len());
        }
        // Secrets are not sent, and the key is.
        let secret = json!({"do": "tell", "db": {"password": "hunter2"}, "token": {"secret_env": "PATH"}});
        let answer = update(plant, &secret).await;
        let told = answer.body["errors"][0]["detail"].as_str().unwrap().to_owned();
        assert!(told.contains("***") && told.contains("secret_env") && told.ends_with("k3y"), "{told}");
        assert!(!told.contains("hunter2") && !told.contains("/bin"), "{told}");
    }
    let shown = strict.get("/api/coredinator/config/generate").await.unwrap().ok();
    assert_eq!(shown["coredinator"]["config_validator"]["headers"], json!({"X-Key": {"secret_env": "VALIDATOR_KEY"}}));
}
