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
