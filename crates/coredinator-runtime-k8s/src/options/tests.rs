use proptest::prelude::*;
use serde_json::json;

use super::*;

fn spec(more: &Value) -> ServiceSpec {
    let mut document = json!({"runtime": "kubernetes", "command": "run"});
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ServiceSpec::parse("", Some("svc"), document, &Default::default()).unwrap()
}

fn parse(more: &Value) -> Result<KubernetesOptions, Errors> {
    KubernetesOptions::parse(&spec(more))
}

fn pointers(more: &Value) -> Vec<String> {
    parse(more).unwrap_err().into_iter().map(|error| error.pointer).collect()
}

#[test]
fn an_image_is_enough_and_means_little_trust() {
    let read = parse(&json!({"image": "plant/controller:1"})).unwrap();
    assert!(read.read_only && read.run_as_non_root && !read.allow_privilege_escalation && read.init);
    assert_eq!((read.cap_drop.as_slice(), read.service_account), (["ALL".to_owned()].as_slice(), None));
    assert_eq!((read.expose, read.probe_by, read.restart_by), Default::default());
}

#[test]
fn every_key_is_read() {
    let read = parse(&json!({
        "image": "i", "entrypoint": "tini --", "container_port": 9000, "pull": "always", "namespace": "plant",
        "mounts": [
            "/scratch", "data:/data:ro", {"type": "config_map", "source": "settings", "target": "/etc/plant"},
            {"type": "secret", "source": "keys", "target": "/run/keys", "sub_path": "tls"},
            {"type": "tmpfs", "target": "/dev/shm", "size": "64m"},
        ],
        "user": "1000:2000", "fs_group": 3000, "resources": {"cpus": 0.25, "memory": "64m", "gpus": 1},
        "read_only": false, "run_as_non_root": true, "allow_privilege_escalation": true, "cap_add": ["NET_ADMIN"],
        "cap_drop": [], "init": false, "extra_hosts": ["historian:10.0.0.7"], "service_account": "reader",
        "node_selector": {"disk": "ssd"}, "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "pull_secrets": ["registry"], "expose": "headless", "probe_by": "kubelet", "restart_by": "kubelet",
        "pod_template": {"spec": {"priorityClassName": "high"}}, "x-note": "mine",
    }))
    .unwrap();
    assert_eq!(read.user, Some((1000, Some(2000))));
    assert_eq!(read.mounts.len(), 5);
    assert_eq!(read.mounts[1].kind, MountKind::Claim("data".into()));
    assert_eq!(read.mounts[4].kind, MountKind::Empty { memory: true, size: Some(64 << 20) });
    let limits: Vec<_> = read.resources.limits().into_iter().map(|(name, amount)| (name, amount.0)).collect();
    let wanted = [("cpu", "250m"), ("memory", "67108864"), ("nvidia.com/gpu", "1")];
    assert_eq!(limits, wanted.map(|(name, amount)| (name.to_owned(), amount.to_owned())));
    assert_eq!(read.extra_hosts["historian"], "10.0.0.7");
}

#[test]
fn what_is_wrong_is_told_all_at_once() {
    assert_eq!(pointers(&json!({})), ["/image"]);
    assert_eq!(
        pointers(&json!({
            "image": "a b", "pull": "sometimes", "namespace": "Plant", "user": "me", "service_account": "A",
            "expose": "yes", "imagee": 1, "node_selector": {"a": 1}, "pull_secrets": ["-"], "restart_by": 3,
            "resources": {"cpus": -1, "memory": "x", "pids": 3, "gpus": 1, "disk": 1}, "extra_hosts": {"a": "b"},
            "mounts": ["/x", "./y:/z", "a:/b:rx", {"type": "secret", "target": "/t"}, {"type": "what", "target": "/u"}, "data:here"],
            "tolerations": [{"key": "a", "operator": "Maybe"}, {"kee": "a"}],
            "pod_template": {"spec": {"hostNetwrk": true}},
        })),
        [
            "/image",
            "/pull",
            "/namespace",
            "/mounts/1",
            "/mounts/2",
            "/mounts/3/source",
            "/mounts/4/type",
            "/mounts/5",
            "/user",
            "/resources/cpus",
            "/resources/memory",
            "/resources/pids",
            "/resources/disk",
            "/extra_hosts/a",
            "/service_account",
            "/node_selector/a",
            "/tolerations/0/operator",
            "/tolerations/1/kee",
            "/pull_secrets/0",
            "/expose",
            "/restart_by",
            "/pod_template/spec/hostNetwrk",
            "/imagee",
        ]
    );
    assert_eq!(pointers(&json!({"image": "i", "mounts": ["a:/x", "b:/x"]})), ["/mounts/1"]);
    assert_eq!(pointers(&json!({"image": "i", "user": 0})), ["/user"]);
    assert!(parse(&json!({"image": "i", "user": 0, "run_as_non_root": false})).is_ok());
}

#[test]
fn what_a_kubelet_cannot_do_is_not_left_to_it() {
    let restart = |policy: &str| json!({"image": "i", "restart_by": "kubelet", "restart_policy": policy});
    assert!(
        parse(&restart("always")).is_ok() && parse(&restart("on-failure")).is_ok() && parse(&restart("no")).is_ok()
    );
    assert_eq!(pointers(&restart("on-failure:3")), ["/restart_policy"]);
    let codes =
        json!({"image": "i", "restart_by": "kubelet", "restart_policy": "always", "success_exit_codes": [0, 3]});
    assert_eq!(pointers(&codes), ["/success_exit_codes"]);
    let check = |check: Value| json!({"image": "i", "probe_by": "kubelet", "health_check": check});
    for good in [
        json!({"path": "/h"}),
        json!({"kind": "tcp"}),
        json!({"disable": true}),
        json!({"path": "/h", "headers": {"a": "b"}}),
    ] {
        assert!(parse(&check(good.clone())).is_ok(), "{good}");
    }
    for bad in [
        json!({"path": "/h", "expected_status": [200]}),
        json!({"path": "/h", "expected_body": "ok"}),
        json!({"ttl": 3}),
        json!({"command": "x", "beside": true}),
        json!({"kind": "own"}),
    ] {
        assert_eq!(pointers(&check(bad.clone())), ["/health_check"], "{bad}");
    }
    assert_eq!(
        pointers(&json!({"image": "i", "probe_by": "kubelet", "readiness_check": {"ttl": 3}})),
        ["/readiness_check"]
    );
}

proptest! {
    #[test]
    fn no_document_panics(
        key in prop_oneof![Just("mounts"), Just("user"), Just("resources"), Just("tolerations"), Just("extra_hosts"),
            Just("node_selector"), Just("pod_template"), Just("namespace"), Just("pull_secrets")],
        text in "\\PC{0,20}", number: i64, deep: bool,
    ) {
        for value in [json!(text), json!(number), json!([text, number]), json!({ &text: number, "spec": text }), json!([{ &text: [number] }])] {
            let value = if deep { json!({"spec": {"containers": [value]}}) } else { value };
            let _ = parse(&json!({"image": "i", key: value}));
        }
    }
}

#[test]
fn what_an_api_server_would_refuse_is_refused_before() {
    let of = |name: &str, more: &Value| {
        let mut document = json!({"runtime": "kubernetes", "image": "i"});
        document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let spec = ServiceSpec::parse("", Some(name), document, &Default::default()).unwrap();
        KubernetesOptions::parse(&spec)
    };
    let refused = of("7th", &json!({})).unwrap_err();
    assert_eq!((refused[0].pointer.as_str(), refused[0].hint.as_deref()), ("/expose", Some("expose: none")));
    assert!(of("7th", &json!({"expose": "none"})).is_ok() && of("a7", &json!({})).is_ok());
    let hosts = of("svc", &json!({"extra_hosts": {"Historian.Plant": "10.0.0.7", "six": "2001:DB8:0::1"}}))
        .unwrap()
        .extra_hosts;
    assert_eq!(
        hosts.into_iter().collect::<Vec<_>>(),
        [("historian.plant".to_owned(), "10.0.0.7".to_owned()), ("six".to_owned(), "2001:db8::1".to_owned()),]
    );
    for bad in ["my_host", "-a", "a..b", ""] {
        let refused = of("svc", &json!({"extra_hosts": {bad: "10.0.0.7"}})).unwrap_err();
        assert!(refused[0].pointer.starts_with("/extra_hosts"), "{bad:?}: {refused:?}");
    }
}
