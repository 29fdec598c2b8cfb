use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::InstanceId;
use serde_json::json;

use super::*;

fn made(more: &Value) -> Value {
    let mut document = json!({"runtime": "kubernetes", "image": "i:1", "command": ["run", "--port={port}"]});
    document.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let spec = ServiceSpec::parse("", Some("svc"), document, &Default::default()).unwrap();
    let options = KubernetesOptions::parse(&spec).unwrap();
    let id = InstanceId::coin(&spec.name, 2, 1);
    let environment = BTreeMap::from([("COREDINATOR_URL".to_owned(), "http://c".to_owned())]);
    let request = StartRequest { id, replica: 2, spec: Arc::new(spec), preferred_port: None, environment };
    serde_json::to_value(pod(&request, &options, "me", "plant").unwrap()).unwrap()
}

fn main(pod: &Value) -> &Value {
    &pod["spec"]["containers"][0]
}

fn variable(pod: &Value, name: &str) -> Value {
    let variables = main(pod)["env"].as_array().unwrap();
    variables.iter().find(|it| it["name"] == name).map_or(Value::Null, |it| it["value"].clone())
}

#[test]
fn little_is_asked_for_little_is_given() {
    let pod = made(&json!({}));
    let container = main(&pod);
    assert_eq!(pod["metadata"]["name"], "svc-2-0000000000001");
    assert_eq!(container["args"], json!(["run", "--port=8080"]));
    assert_eq!(container["ports"], json!([{"name": "main", "containerPort": 8080, "protocol": "TCP"}]));
    assert_eq!(
        container["securityContext"],
        json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}})
    );
    assert_eq!(
        pod["spec"]["securityContext"],
        json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}})
    );
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert_eq!((&pod["spec"]["restartPolicy"], &pod["spec"]["shareProcessNamespace"]), (&json!("Never"), &json!(true)));
    assert_eq!(pod["spec"]["volumes"], json!([{"name": "v0", "emptyDir": {}}]), "/tmp can be written to");
    assert_eq!(container["volumeMounts"], json!([{"name": "v0", "mountPath": "/tmp"}]));
    assert_eq!(container["livenessProbe"], Value::Null);
}

#[test]
fn a_pod_of_many_wishes() {
    let pod = made(&json!({
        "entrypoint": ["tini", "--"], "port": 80, "container_port": 9000, "user": "10:20", "fs_group": 30, "read_only": false,
        "environment": {"A": "$HOME {port}", "COREDINATOR_URL": "mine"}, "working_dir": "/srv", "stop_grace_period": "2500ms",
        "resources": {"memory": "1k"}, "service_account": "reader", "pull": "never", "pull_secrets": ["a"], "init": false,
        "extra_hosts": {"h": "10.0.0.1"}, "node_selector": {"disk": "ssd"}, "stop_signal": "SIGINT",
        "mounts": [
            {"type": "config_map", "source": "c", "target": "/c"}, {"type": "secret", "source": "s", "target": "/s"},
            "claim:/d:ro", {"type": "tmpfs", "target": "/t", "size": 5},
        ],
    }));
    let (spec, container) = (&pod["spec"], main(&pod));
    assert_eq!((&container["command"], &container["workingDir"]), (&json!(["tini", "--"]), &json!("/srv")));
    assert_eq!(container["ports"][0]["containerPort"], 9000);
    assert_eq!(spec["terminationGracePeriodSeconds"], 3);
    assert_eq!(container["lifecycle"]["stopSignal"], "SIGINT");
    assert_eq!(spec["os"]["name"], "linux");
    assert_eq!(
        (
            &spec["securityContext"]["runAsUser"],
            &spec["securityContext"]["runAsGroup"],
            &spec["securityContext"]["fsGroup"]
        ),
        (&json!(10), &json!(20), &json!(30))
    );
    assert_eq!(variable(&pod, "A"), "$$HOME 9000", "what a kubelet makes of it is what was written");
    assert_eq!(variable(&pod, "COREDINATOR_URL"), "http://c");
    assert_eq!((variable(&pod, "PORT"), variable(&pod, "COREDINATOR_REPLICA")), (json!("9000"), json!("2")));
    assert_eq!(
        spec["volumes"],
        json!([
            {"name": "v0", "configMap": {"name": "c"}}, {"name": "v1", "secret": {"secretName": "s"}},
            {"name": "v2", "persistentVolumeClaim": {"claimName": "claim", "readOnly": true}},
            {"name": "v3", "emptyDir": {"medium": "Memory", "sizeLimit": "5"}},
        ])
    );
    assert_eq!(container["resources"]["limits"], json!({"memory": "1024"}));
    assert_eq!((&spec["serviceAccountName"], &spec["automountServiceAccountToken"]), (&json!("reader"), &json!(true)));
    assert_eq!(spec["shareProcessNamespace"], Value::Null);
}

#[test]
fn a_kubelet_may_restart_and_check() {
    for (policy, by, wanted) in [
        ("always", "coredinator", "Never"),
        ("always", "kubelet", "Always"),
        ("unless-stopped", "kubelet", "Always"),
        ("on-failure", "kubelet", "OnFailure"),
        ("no", "kubelet", "Never"),
    ] {
        let pod = made(&json!({"restart_policy": policy, "restart_by": by}));
        assert_eq!(pod["spec"]["restartPolicy"], wanted, "{policy} by {by}");
    }
    let pod = made(&json!({
        "probe_by": "kubelet", "health_check": {"path": "/h", "interval": 0.5, "timeout": 2, "retries": 4, "start_period": 25,
        "start_interval": 10, "success_threshold": 2, "headers": {"a": "b"}}, "readiness_check": {"kind": "tcp"},
    }));
    let container = main(&pod);
    let get = json!({"path": "/h", "port": 8080, "httpHeaders": [{"name": "a", "value": "b"}]});
    assert_eq!(
        container["livenessProbe"],
        json!({"httpGet": get, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 4})
    );
    assert_eq!(
        container["startupProbe"],
        json!({"httpGet": get, "periodSeconds": 10, "timeoutSeconds": 2, "failureThreshold": 3})
    );
    assert_eq!(container["readinessProbe"]["tcpSocket"], json!({"port": 8080}));
    let pod = made(&json!({"probe_by": "kubelet", "health_endpoint": "/h"}));
    assert_eq!(main(&pod)["readinessProbe"]["httpGet"]["path"], "/h", "alive is ready where nothing else is said");
    assert_eq!(main(&pod)["startupProbe"], Value::Null);
}

#[test]
fn a_template_has_the_last_word_on_what_is_not_coredinators() {
    let pod = made(&json!({"pod_template": {
        "metadata": {"annotations": {"note": "n"}},
        "spec": {
            "priorityClassName": "high", "containers": [
                {"name": "main", "securityContext": {"privileged": true}, "env": [{"name": "PORT", "value": "1"}]},
                {"name": "beside", "image": "b"},
            ],
        },
    }}));
    assert_eq!(pod["spec"]["priorityClassName"], "high");
    assert_eq!(pod["spec"]["containers"].as_array().unwrap().len(), 2);
    assert_eq!(main(&pod)["securityContext"]["privileged"], true);
    assert_eq!(main(&pod)["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(variable(&pod, "PORT"), "1");
    assert_eq!(pod["metadata"]["annotations"], json!({"note": "n"}));
    assert_eq!(pod["metadata"]["labels"]["coredinator.owner"], "me");
}

#[test]
fn the_configuration_file_is_found_inside() {
    let spec = json!({"runtime": "kubernetes", "image": "i", "read_only": false});
    let spec = ServiceSpec::parse("", Some("svc"), spec, &Default::default()).unwrap();
    let options = KubernetesOptions::parse(&spec).unwrap();
    let environment = BTreeMap::from([(files::VARIABLE.to_owned(), "/data/config/svc x.json".to_owned())]);
    let id = InstanceId::coin(&spec.name, 0, 1);
    let request = StartRequest { id, replica: 0, spec: Arc::new(spec), preferred_port: None, environment };
    let pod = serde_json::to_value(pod(&request, &options, "me", "plant").unwrap()).unwrap();
    assert_eq!(variable(&pod, files::VARIABLE), "/coredinator/svc_x.json");
    let name = request.id.as_str();
    assert_eq!(pod["spec"]["volumes"], json!([{"name": "coredinator", "secret": {"secretName": name}}]));
    let file = files::outside(&request).unwrap();
    let secret = files::secret(&request.id, "plant", BTreeMap::new(), file, b"{}".to_vec(), None).unwrap();
    assert_eq!(serde_json::to_value(&secret).unwrap()["data"], json!({"svc_x.json": "e30="}));
}

#[test]
fn a_signal_that_a_cluster_drops_is_noticed() {
    let asked: Pod = serde_json::from_value(made(&json!({"stop_signal": "SIGINT"}))).unwrap();
    assert_eq!(is_kept(&asked, &asked), Ok(()));
    let mut kept = asked.clone();
    kept.spec.as_mut().unwrap().containers[0].lifecycle = None;
    assert!(is_kept(&asked, &kept).unwrap_err().contains("SIGINT"));
    let usual: Pod = serde_json::from_value(made(&json!({}))).unwrap();
    assert_eq!(is_kept(&usual, &usual), Ok(()));
}

#[test]
fn seconds_are_whole_and_at_least_one() {
    for (grace, seconds) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (10_000, 10)] {
        assert_eq!(grace_seconds(Duration::from_millis(grace)), seconds, "{grace} ms");
    }
    assert!(grace_seconds(Duration::MAX) > 0);
}

#[test]
fn what_the_api_server_keeps_by_a_key_has_it_once() {
    let pod = made(&json!({
        "extra_hosts": ["b:10.0.0.1", "a:10.0.0.1", "c:10.0.0.2"], "pull_secrets": ["one", "two", "one"],
    }));
    assert_eq!(
        pod["spec"]["hostAliases"],
        json!([{"ip": "10.0.0.1", "hostnames": ["a", "b"]}, {"ip": "10.0.0.2", "hostnames": ["c"]}])
    );
    assert_eq!(pod["spec"]["imagePullSecrets"], json!([{"name": "one"}, {"name": "two"}]));
}
