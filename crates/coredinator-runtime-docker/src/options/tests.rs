use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(options: Value) -> Result<DockerOptions, Errors> {
    let Value::Object(mut document) = options else { panic!("a document is an object") };
    document.insert("runtime".into(), json!("docker"));
    let spec = ServiceSpec::parse("", Some("svc"), Value::Object(document), &Default::default());
    DockerOptions::parse(&spec.expect("the rest of the document is valid"))
}

/// The document of a good image and one key more.
#[expect(clippy::needless_pass_by_value, reason = "as `json!` makes them")]
fn with(key: &str, value: Value) -> Result<DockerOptions, Errors> {
    parse(json!({"image": "a:1", key: value}))
}

#[test]
fn an_image_is_enough() {
    let options = parse(json!({"image": "registry:5000/a/b@sha256:00", "x-mine": 1})).unwrap();
    assert_eq!(options.image, "registry:5000/a/b@sha256:00");
    assert_eq!((options.pull, options.init, options.read_only), (Pull::Missing, true, false));
    assert_eq!((options.container_port, options.resources), (None, Resources::default()));
}

#[test]
fn mounts_long_and_short() {
    let bind = |read_only| Mount { kind: MountKind::Bind("/a".into()), target: "/b".into(), read_only };
    let volume = |name: Option<&str>| Mount {
        kind: MountKind::Volume(name.map(str::to_owned)),
        target: "/b".into(),
        read_only: false,
    };
    for (written, read) in [
        (json!("/a:/b"), bind(false)),
        (json!("/a:/b:ro"), bind(true)),
        (json!({"type": "bind", "source": "/a", "target": "/b", "read_only": true}), bind(true)),
        (json!("data:/b:rw"), volume(Some("data"))),
        (json!({"type": "volume", "source": "data", "target": "/b"}), volume(Some("data"))),
        (json!("/b"), volume(None)),
        (
            json!({"type": "tmpfs", "target": "/b"}),
            Mount { kind: MountKind::Tmpfs, target: "/b".into(), read_only: false },
        ),
    ] {
        assert_eq!(with("mounts", json!([written.clone()])).map(|options| options.mounts), Ok(vec![read]), "{written}");
    }
}

#[test]
fn resources_as_the_engine_counts_them() {
    let resources = |value| with("resources", value).unwrap().resources;
    let read = resources(json!({"cpus": "1.5", "memory": "512m", "pids": 100, "gpus": ["0", "GPU-1"]}));
    assert_eq!((read.nano_cpus, read.memory, read.pids), (Some(1_500_000_000), Some(536_870_912), Some(100)));
    assert_eq!(read.gpus, Some(Gpus::Ids(vec!["0".into(), "GPU-1".into()])));
    assert_eq!(resources(json!({"gpus": "all"})).gpus, Some(Gpus::All));
    assert_eq!(resources(json!({"gpus": 2})).gpus, Some(Gpus::Count(2)));
}

#[test]
fn hosts_limits_and_devices() {
    let hosts = BTreeMap::from([("db".to_owned(), "::1".to_owned())]);
    for written in [json!({"db": "::1"}), json!(["db=::1"]), json!(["db:::1"])] {
        assert_eq!(with("extra_hosts", written).map(|options| options.extra_hosts), Ok(hosts.clone()));
    }
    let limits = with("ulimits", json!({"nofile": {"soft": 10, "hard": -1}, "nproc": 5})).unwrap().ulimits;
    assert_eq!(limits["nofile"], Ulimit { soft: 10, hard: -1 });
    assert_eq!(limits["nproc"], Ulimit { soft: 5, hard: 5 });
    let devices = with("devices", json!(["/dev/a", "/dev/a:/dev/b:r"])).unwrap().devices;
    let device = |container: &str, permissions: &str| Device {
        host: "/dev/a".into(),
        container: container.into(),
        permissions: permissions.into(),
    };
    assert_eq!(devices, [device("/dev/a", "rwm"), device("/dev/b", "r")]);
}

#[test]
fn what_is_wrong_is_told_where_it_stands() {
    for (key, value, pointer) in [
        ("image", json!("a b"), "/image"),
        ("imag", json!("a"), "/imag"),
        ("container_port", json!(0), "/container_port"),
        ("pull", json!("sometimes"), "/pull"),
        ("network_mode", json!("moon"), "/network_mode"),
        ("entrypoint", json!([]), "/entrypoint"),
        ("mounts", json!("/a:/b"), "/mounts"),
        ("mounts", json!(["/a:/b", "./a:/b"]), "/mounts/1"),
        ("mounts", json!(["/a:b"]), "/mounts/0"),
        ("mounts", json!(["/a:/b:rx"]), "/mounts/0"),
        ("mounts", json!([{"type": "bind", "source": "a", "target": "/b"}]), "/mounts/0/source"),
        ("mounts", json!([{"type": "tmpfs", "source": "a", "target": "/b"}]), "/mounts/0/source"),
        ("mounts", json!([{"type": "nfs", "target": "/b"}]), "/mounts/0/type"),
        ("mounts", json!([{"type": "tmpfs"}]), "/mounts/0"),
        ("resources", json!({"cpus": 0}), "/resources/cpus"),
        ("resources", json!({"cpus": "many"}), "/resources/cpus"),
        ("resources", json!({"memory": "5x"}), "/resources/memory"),
        ("resources", json!({"pids": 0}), "/resources/pids"),
        ("resources", json!({"gpus": 0}), "/resources/gpus"),
        ("resources", json!({"disk": 1}), "/resources/disk"),
        ("extra_hosts", json!(["db"]), "/extra_hosts/0"),
        ("extra_hosts", json!({"db": 1}), "/extra_hosts/db"),
        ("ulimits", json!({"nofile": {"soft": 1}}), "/ulimits/nofile/hard"),
        ("ulimits", json!({"nofile": {"soft": 2, "hard": 1}}), "/ulimits/nofile"),
        ("ulimits", json!({"nofile": {"soft": -1, "hard": 1}}), "/ulimits/nofile"),
        ("devices", json!(["dev"]), "/devices/0"),
        ("devices", json!(["/dev/a:/dev/a:rx"]), "/devices/0"),
        ("shm_size", json!("0"), "/shm_size"),
    ] {
        let errors = with(key, value.clone()).expect_err(&format!("{key}: {value}"));
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, [pointer], "{key}: {value}");
    }
    assert_eq!(parse(json!({})).unwrap_err()[0].pointer, "/image");
    let clash = parse(json!({"image": "a", "network_mode": "host", "networks": ["n"]})).unwrap_err();
    assert_eq!(clash[0].pointer, "/network_mode");
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*", parts in "[/a:.rwm]{0,12}") {
        for key in ["mounts", "devices", "extra_hosts"] {
            let _ = (with(key, json!([text])), with(key, json!([parts])));
        }
    }
}
