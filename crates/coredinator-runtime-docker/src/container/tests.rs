use std::sync::Arc;

use coredinator_core::InstanceId;
use serde_json::{Value, json};

use super::*;

fn made(document: Value) -> (Option<Reach>, Value) {
    let Value::Object(mut document) = document else { panic!("a document is an object") };
    document.extend([("runtime".to_owned(), json!("docker")), ("image".to_owned(), json!("a:1"))]);
    let spec = ServiceSpec::parse("", Some("svc"), Value::Object(document), &Default::default()).unwrap();
    let options = DockerOptions::parse(&spec).unwrap();
    let reach = Reach::of(&spec, &options);
    let request = StartRequest {
        id: InstanceId::coin(&spec.name, 1, 7),
        replica: 1,
        spec: Arc::new(spec),
        preferred_port: None,
        environment: BTreeMap::from([("COREDINATOR_URL".to_owned(), "http://x".to_owned())]),
    };
    (reach, json!(body(&request, &options, "me", &request.spec.host, reach.unwrap_or(Reach::Machine(9)))))
}

#[test]
fn ports_inside_and_outside() {
    let published = |inside, outside| Some(Reach::Published { inside, outside });
    for (document, reach) in [
        (json!({}), published(8080, 0)),
        (json!({"port": 90}), published(90, 90)),
        (json!({"port": 90, "container_port": 80}), published(80, 90)),
        (json!({"container_port": 80}), published(80, 0)),
        (json!({"network_mode": "bridge"}), published(8080, 0)),
        (json!({"network_mode": "none", "port": 90}), Some(Reach::Nowhere)),
        (json!({"network_mode": "host", "port": 90}), Some(Reach::Machine(90))),
        (json!({"network_mode": "host"}), None),
    ] {
        assert_eq!(made(document.clone()).0, reach, "{document}");
    }
}

#[test]
fn what_the_engine_is_asked() {
    let everything = made(json!({
        "command": ["serve", "--port", "{port}", "{replica}{nothing}"], "entrypoint": ["/bin/tool"], "port": 0,
        "container_port": 80, "user": "7:8", "working_dir": "/w", "read_only": true, "mounts": ["/a:/b:ro", "/cache"],
        "networks": ["plant"], "environment": {"AT": "{host}", "PORT": "1"}, "labels": {"team": "x", "coredinator.owner": "you"},
        "resources": {"cpus": 0.5, "memory": "64m", "pids": 9, "gpus": "all"}, "ulimits": {"nofile": 5},
        "devices": ["/dev/null"], "extra_hosts": {"db": "10.0.0.1"}, "cap_drop": ["ALL"], "stop_signal": "SIGINT",
    }))
    .1;
    for (pointer, value) in [
        ("/Image", json!("a:1")),
        ("/Cmd", json!(["serve", "--port", "80", "1{nothing}"])),
        ("/Entrypoint", json!(["/bin/tool"])),
        ("/User", json!("7:8")),
        ("/WorkingDir", json!("/w")),
        ("/StopSignal", json!("SIGINT")),
        ("/Labels/team", json!("x")),
        ("/Labels/coredinator.owner", json!("me")),
        ("/ExposedPorts", json!({"80/tcp": {}})),
        ("/HostConfig/PortBindings", json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "0"}]})),
        ("/HostConfig/RestartPolicy/Name", json!("no")),
        ("/HostConfig/NetworkMode", json!("plant")),
        ("/HostConfig/ReadonlyRootfs", json!(true)),
        ("/HostConfig/NanoCpus", json!(500_000_000)),
        ("/HostConfig/Memory", json!(67_108_864)),
        ("/HostConfig/PidsLimit", json!(9)),
        ("/HostConfig/DeviceRequests/0/Count", json!(-1)),
        ("/HostConfig/Ulimits", json!([{"Name": "nofile", "Soft": 5, "Hard": 5}])),
        ("/HostConfig/Devices/0/PathOnHost", json!("/dev/null")),
        ("/HostConfig/ExtraHosts", json!(["db:10.0.0.1"])),
        ("/HostConfig/CapDrop", json!(["ALL"])),
        ("/HostConfig/LogConfig/Config/max-file", json!("5")),
        ("/HostConfig/Mounts/0/Type", json!("bind")),
        ("/HostConfig/Mounts/0/ReadOnly", json!(true)),
        ("/HostConfig/Mounts/1/Type", json!("volume")),
    ] {
        assert_eq!(everything.pointer(pointer), Some(&value), "{pointer}");
    }
    let env = everything["Env"].as_array().unwrap();
    assert!(!everything["Env"].to_string().contains("OWNER"), "the process runtime would take it for its own: {env:?}");
    for entry in ["AT=localhost", "PORT=80", "COREDINATOR_SERVICE=svc", "COREDINATOR_URL=http://x"] {
        assert!(env.contains(&json!(entry)), "{entry} in {env:?}");
    }
}

#[test]
fn a_service_of_other_machines_is_published_to_them() {
    let made = made(json!({"host": "10.0.0.5", "port": 80})).1;
    assert_eq!(made.pointer("/HostConfig/PortBindings/80~1tcp/0/HostIp"), Some(&json!("")));
}
