//! What the command line does to groups of agents: the real binary, against a double of the API.

use std::{
    process::{Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    routing::{get, post},
};
use serde_json::{Value, json};
use tokio::process::Command;

#[derive(Debug, Default)]
struct Double {
    groups: Vec<&'static str>,
    switched: Mutex<Vec<Value>>,
}

async fn serve(groups: &[&'static str]) -> (String, Arc<Double>) {
    let double = Arc::new(Double { groups: groups.to_vec(), switched: Mutex::default() });
    let status = |State(double): State<Arc<Double>>| async move {
        let group =
            |name| json!({"group": name, "strategy": "centralized", "resources": [{"name": "steam", "capacity": 1}]});
        Json(json!({"groups": double.groups.iter().map(group).collect::<Vec<_>>()}))
    };
    let switch = |State(double): State<Arc<Double>>, Json(body): Json<Value>| async move {
        double.switched.lock().unwrap().push(body);
        Json(json!({}))
    };
    let routes = Router::new()
        .route("/api/coredinator/coordination/status", get(status))
        .route("/api/coredinator/coordination/strategy", post(switch))
        .with_state(Arc::clone(&double));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (address, double)
}

async fn run(address: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coredinator"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("COREDINATOR_")) {
        command.env_remove(name);
    }
    command.args(args).args(["--address", address]).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(30), command.output()).await;
    let Output { status, stdout, stderr } = ended.expect("ends in time").expect("starts");
    let told = |text: Vec<u8>| String::from_utf8_lossy(&text).into_owned();
    (status.code(), told(stdout), told(stderr))
}

#[tokio::test]
async fn of_several_groups_none_is_switched_unless_it_is_named() {
    let (address, double) = serve(&["default", "packaging"]).await;
    let (code, out, told) = run(&address, &["strategy", "centralized"]).await;
    assert_eq!((code, out.as_str()), (Some(2), ""), "{told}");
    assert!(told.contains("default, packaging") && told.contains("--group NAME") && told.contains("--all"), "{told}");
    assert_eq!(*double.switched.lock().unwrap(), Vec::<Value>::new());

    let (code, out, _) = run(&address, &["strategy", "centralized", "--group", "packaging", "-o", "name"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "packaging\n"));
    let (code, out, _) = run(&address, &["strategy", "centralized", "--all", "-o", "name"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "default\npackaging\n"));
    let switched = [
        json!({"conflict_resolution": "centralized", "group": "packaging"}),
        json!({"conflict_resolution": "centralized"}),
    ];
    assert_eq!(*double.switched.lock().unwrap(), switched);
    // Looking is about all of them, as before.
    let (code, out, _) = run(&address, &["strategy", "-o", "name"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "default\npackaging\n"));
    let (code, ..) = run(&address, &["strategy", "centralized", "--all", "--group", "packaging"]).await;
    assert_eq!(code, Some(2));
}

#[tokio::test]
async fn the_only_group_need_not_be_named() {
    let (address, double) = serve(&["line-1"]).await;
    let (code, out, told) = run(&address, &["strategy", "centralized", "-o", "name"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "line-1\n"), "{told}");
    assert_eq!(*double.switched.lock().unwrap(), [json!({"conflict_resolution": "centralized", "group": "line-1"})]);
}

#[tokio::test]
async fn a_group_that_there_is_not_is_not_found() {
    let (address, _) = serve(&["default", "packaging"]).await;
    for command in ["strategy", "resources"] {
        let (code, out, told) = run(&address, &[command, "--group", "packagign"]).await;
        assert_eq!((code, out.as_str()), (Some(3), ""), "{command}: {told}");
        assert_eq!(told, "error: there is no group \"packagign\"\nhint: did you mean \"packaging\"?\n", "{command}");
    }
}
