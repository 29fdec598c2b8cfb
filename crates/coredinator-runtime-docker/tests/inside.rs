//! What is asked of containers that run, and what they find inside; against a real engine.

#[path = "support/kit.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod kit;
mod support;

use std::fs;

use coredinator_core::{ExecRequest, Outcome, Runtime, RuntimeError, Started, StopRequest};
use coredinator_runtime_docker::DockerRuntime;
use kit::{begun, container, ends, lines, request, runtime, started};
use serde_json::json;
use support::{Engine, IMAGE, PATIENCE};
use tokio::time::{Duration, sleep, timeout};

/// What a script prints inside of an instance that it ends well in.
async fn said(runtime: &DockerRuntime, started: &Started, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let asked = runtime.exec(&started.instance, ExecRequest { command, max_output: 4096 });
    let outcome = timeout(PATIENCE, asked).await.expect("a command ends").expect("a command runs");
    assert_eq!(outcome.code, Some(0), "{}", String::from_utf8_lossy(&outcome.output));
    String::from_utf8_lossy(&outcome.output).trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_file_is_inside() {
    let Some(engine) = Engine::start().await else { return };
    let runtime = runtime(&engine, "me");
    let file = engine.folder().join("svc.json");
    let script = "cat $COREDINATOR_CONFIG_FILE; echo; exec sleep 1000";
    // Another user than the one who owns the file outside, and a root that cannot be written to.
    for more in [json!({"user": "1234:1234"}), json!({"read_only": true}), json!({"read_only": true, "user": "7"})] {
        fs::write(&file, r#"{"is": "first"}"#).unwrap();
        let mut asked = request(script, more.clone());
        let outside = file.display().to_string();
        asked.environment.insert("COREDINATOR_CONFIG_FILE".to_owned(), outside);
        let started = begun(&runtime, asked).await;
        let printed = lines(&runtime, &started, 1).await;
        assert_eq!(printed[0].line, r#"{"is": "first"}"#, "{more}");
        assert_eq!(said(&runtime, &started, "echo $COREDINATOR_CONFIG_FILE").await, "/coredinator/svc.json");
        fs::write(&file, r#"{"is": "second"}"#).unwrap();
        runtime.deliver(&started.instance, &file).await.expect("it is brought");
        assert_eq!(said(&runtime, &started, "cat $COREDINATOR_CONFIG_FILE").await, r#"{"is": "second"}"#);
        runtime.stop(&started.instance, StopRequest::KILL).await.unwrap();
        runtime.deliver(&started.instance, &file).await.expect("to what is gone nothing is brought");
        runtime.forget(&started.instance.service).await.unwrap();
    }
    assert_eq!(engine.asked(&["volume", "ls", "--quiet"]), "", "no volume is left behind");
    // Without the file outside it is not started, and nothing is left.
    let mut asked = request(script, json!({}));
    asked.environment.insert("COREDINATOR_CONFIG_FILE".to_owned(), "/is/not/there".to_owned());
    let refused = runtime.start(asked).await;
    assert!(matches!(refused, Err(RuntimeError::Internal { .. })), "{refused:?}");
    assert_eq!(engine.asked(&["ps", "--all", "--quiet"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_is_what_the_engine_tells() {
    let Some(engine) = Engine::start().await else { return };
    let runtime = runtime(&engine, "me");
    let more = json!({
        "environment": {"A": "b", "A_TOKEN": "hidden"}, "devices": ["/dev/null:/dev/nothing:r"], "user": "5:6",
        "resources": {"cpus": 0.5, "memory": "40m", "pids": 30}, "extra_hosts": {"db": "10.0.0.1"},
        "ulimits": {"nofile": {"soft": 100, "hard": 200}}, "cap_drop": ["ALL"], "labels": {"team": "plant"},
        "stop_signal": "SIGINT", "shm_size": "1m",
    });
    let started = started(&runtime, "exec sleep 1000", more).await;
    let shown = runtime.inspect(&started.instance).await.unwrap().expect("it is there");
    for (pointer, value) in [
        ("/Image", json!(IMAGE)),
        ("/User", json!("5:6")),
        ("/StopSignal", json!("SIGINT")),
        ("/Labels/team", json!("plant")),
        ("/Labels/coredinator.owner", json!("me")),
        ("/HostConfig/Memory", json!(40 * 1024 * 1024)),
        ("/HostConfig/NanoCpus", json!(500_000_000)),
        ("/HostConfig/PidsLimit", json!(30)),
        ("/HostConfig/ShmSize", json!(1024 * 1024)),
        ("/HostConfig/ExtraHosts", json!(["db:10.0.0.1"])),
        ("/HostConfig/CapDrop", json!(["ALL"])),
        ("/HostConfig/Ulimits/0/Hard", json!(200)),
        ("/HostConfig/RestartPolicy/Name", json!("no")),
        ("/HostConfig/Devices/0/PathInContainer", json!("/dev/nothing")),
        ("/Networks", json!(["none"])),
        ("/Id", json!(container(&started))),
    ] {
        assert_eq!(shown.pointer(pointer), Some(&value), "{pointer} of {shown:#}");
    }
    let text = shown.to_string();
    assert!(text.contains("A=b") && text.contains("A_TOKEN=***") && !text.contains("hidden"), "{text}");
    // And it is so.
    let script = "cat /dev/nothing; ulimit -n; cat /etc/hosts; echo $A_TOKEN";
    let found = said(&runtime, &started, script).await;
    assert!(["100", "10.0.0.1", "hidden"].iter().all(|word| found.contains(word)), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_container_runs_no_command() {
    let Some(engine) = Engine::start().await else { return };
    let runtime = runtime(&engine, "me");
    let started = started(&runtime, "exec sleep 1000", json!({})).await;
    engine.asked(&["pause", &container(&started)]);
    let command = vec!["echo".to_owned()];
    let asked = timeout(PATIENCE, runtime.exec(&started.instance, ExecRequest { command, max_output: 10 })).await;
    match asked.expect("it is answered") {
        Err(RuntimeError::NotStarted { reason }) => assert_eq!(reason.code, "NotRunning"),
        other => panic!("expected NotStarted, but saw {other:?}"),
    }
    engine.asked(&["unpause", &container(&started)]);
    assert_eq!(said(&runtime, &started, "echo yes").await, "yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthcheck_of_the_image_is_believed() {
    let Some(engine) = Engine::start().await else { return };
    let runtime = runtime(&engine, "me");
    // An image from another, with a check in it: it is well as long as a file is there.
    let base = engine.asked(&["create", "--network=none", IMAGE, "sh"]);
    let check = r#"HEALTHCHECK --interval=1s --retries=1 CMD test -e /well && echo fine || { echo unwell; exit 1; }"#;
    engine.asked(&["commit", "--change", check, &base, "coredinator-test:checked"]);
    engine.asked(&["rm", &base]);
    let started = started(&runtime, "exec sleep 1000", json!({"image": "coredinator-test:checked"})).await;
    let told = async |wanted: Outcome| {
        loop {
            match runtime.native_health(&started.instance).await.expect("it is told") {
                Some(report) if report.outcome == wanted => return report.message,
                _ => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, told(Outcome::Fail)).await.expect("the engine tells"), "unwell");
    said(&runtime, &started, "touch /well").await;
    assert_eq!(timeout(PATIENCE, told(Outcome::Pass)).await.expect("the engine tells"), "fine");
    runtime.stop(&started.instance, StopRequest::KILL).await.unwrap();
    ends(&mut runtime.watch(&started.instance)).await;
    assert!(matches!(runtime.native_health(&started.instance).await, Err(RuntimeError::NotStarted { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_is_where_the_registry_says() {
    let Some(engine) = Engine::start().await else { return };
    let runtime = runtime(&engine, "me");
    // A subnet that other engines of this machine do not pick at the same time.
    let subnet = format!("10.{}.{}.0/24", fastrand::u8(100..250), fastrand::u8(..));
    let made = engine.docker(&["network", "create", "--subnet", &subnet, "plant"]);
    if !made.status.success() {
        let why = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        return support::left_out("published ports", &why);
    }
    let serve = "mkdir -p /www; echo $COREDINATOR_REPLICA:$PORT > /www/index.html; exec httpd -f -p {port} -h /www";
    let more = json!({"network_mode": null, "networks": ["plant"], "container_port": 4000});
    let mut asked = request(serve, more);
    let first = begun(&runtime, asked.clone()).await;
    assert!(first.port != 0 && first.port != 4000 && first.host == "localhost", "{first:?}");
    assert_eq!(timeout(PATIENCE, fetched(first.port)).await.expect("it serves"), "0:4000");
    assert!(engine.asked(&["port", &container(&first)]).contains("127.0.0.1:"), "to this machine alone");
    // The port that a replica had is its own again.
    runtime.stop(&first.instance, StopRequest::KILL).await.unwrap();
    (asked.preferred_port, asked.id) = (Some(first.port), request("", json!({})).id);
    let second = begun(&runtime, asked.clone()).await;
    assert_eq!(second.port, first.port);
    assert_eq!(timeout(PATIENCE, fetched(second.port)).await.expect("it serves"), "0:4000");
    // Unless somebody else has it by now.
    asked.id = request("", json!({})).id;
    let third = begun(&runtime, asked).await;
    assert_ne!(third.port, second.port);
    assert_eq!(runtime.list(&[]).await.unwrap().len(), 2);
    assert!(engine.asked(&["network", "inspect", "plant"]).contains(&container(&third)[..12]));
}

/// What a server on this machine says at `/`, once it says anything.
async fn fetched(port: u16) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    loop {
        let ask = async {
            let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        if let Ok(answer) = ask.await
            && let Some((_, body)) = answer.split_once("\r\n\r\n")
        {
            return body.trim().to_owned();
        }
        sleep(Duration::from_millis(20)).await;
    }
}
