//! The manifests in `deploy/kubernetes` and the example of services that are pods, read by the types of the API itself: what
//! an API server would pass over in silence is an error here.

use std::{fs, path::PathBuf};

use coredinator_core::{Runtime, ServiceSpec};
use coredinator_runtime_k8s::{KubernetesRuntime, KubernetesRuntimeOptions, rbac};
use k8s_openapi::api::{apps, core, policy, rbac as rights};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

fn path(of: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(of)
}

fn documents(of: &str) -> Vec<Value> {
    let text = fs::read_to_string(path(of)).unwrap_or_else(|error| panic!("{of}: {error}"));
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{of} is YAML: {error}"))
}

/// Everything of `given` that is not in `read`.
fn unread(at: &str, given: &Value, read: Option<&Value>, missing: &mut Vec<String>) {
    match (given, read) {
        (Value::Object(given), Some(Value::Object(read))) => {
            for (key, value) in given {
                unread(&format!("{at}/{key}"), value, read.get(key), missing);
            }
        }
        (Value::Array(given), Some(Value::Array(read))) => {
            for (index, value) in given.iter().enumerate() {
                unread(&format!("{at}/{index}"), value, read.get(index), missing);
            }
        }
        (_, Some(_)) => {}
        (_, None) => missing.push(at.to_owned()),
    }
}

fn check<T: DeserializeOwned + Serialize>(given: &Value) -> Vec<String> {
    match serde_json::from_value::<T>(given.clone()) {
        Ok(read) => {
            let mut missing = Vec::new();
            unread("", given, Some(&json!(read)), &mut missing);
            missing
        }
        Err(error) => vec![error.to_string()],
    }
}

fn wrong(given: &Value) -> Vec<String> {
    match given["kind"].as_str().unwrap_or_default() {
        "Secret" => check::<core::v1::Secret>(given),
        "ConfigMap" => check::<core::v1::ConfigMap>(given),
        "Service" => check::<core::v1::Service>(given),
        "ServiceAccount" => check::<core::v1::ServiceAccount>(given),
        "Namespace" => check::<core::v1::Namespace>(given),
        "Deployment" => check::<apps::v1::Deployment>(given),
        "PodDisruptionBudget" => check::<policy::v1::PodDisruptionBudget>(given),
        "Role" => check::<rights::v1::Role>(given),
        "RoleBinding" => check::<rights::v1::RoleBinding>(given),
        other => vec![format!("kind {other:?} is not expected here")],
    }
}

#[test]
fn the_manifests_are_what_they_say() {
    let mut kinds = Vec::new();
    for file in ["deploy/kubernetes/coredinator.yaml", "deploy/kubernetes/rbac.yaml"] {
        for document in documents(file) {
            assert_eq!(wrong(&document), Vec::<String>::new(), "{file}: {document}");
            assert_eq!(document["metadata"]["namespace"], "plant", "{file}: {document}");
            kinds.push(document["kind"].as_str().unwrap_or_default().to_owned());
        }
    }
    kinds.sort();
    let wanted = [
        "ConfigMap",
        "Deployment",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "Secret",
        "Service",
        "ServiceAccount",
    ];
    assert_eq!(kinds, wanted);
}

#[test]
fn the_deployment_has_the_shape_of_the_specification() {
    let deployment =
        documents("deploy/kubernetes/coredinator.yaml").into_iter().find(|it| it["kind"] == "Deployment").unwrap();
    let (spec, container) = (&deployment["spec"], &deployment["spec"]["template"]["spec"]["containers"][0]);
    assert_eq!((&deployment["metadata"]["name"], &spec["replicas"]), (&json!("coredinator"), &json!(2)));
    assert_eq!(spec["selector"]["matchLabels"], json!({"app": "coredinator"}));
    assert_eq!(spec["template"]["metadata"]["labels"], json!({"app": "coredinator"}));
    assert_eq!(
        (&container["image"], &container["ports"][0]["containerPort"]),
        (&json!("corerl/coredinator:latest"), &json!(8002))
    );
    let url = json!({"name": "DATABASE_URL", "valueFrom": {"secretKeyRef": {"name": "db-secret", "key": "url"}}});
    assert_eq!(container["env"], json!([url]));
}

#[test]
fn the_rights_are_made_from_the_table_of_calls() {
    let made = rbac::manifest("coredinator", "plant", ["plant"])["items"].as_array().unwrap().clone();
    let file = "deploy/kubernetes/rbac.yaml";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let head = "# The rights that coredinator needs in the namespace `plant`, made from the table of the calls that it makes:\n\
            # cargo run -p coredinator-runtime-k8s --example rbac -- OWN-NAMESPACE [NAMESPACE…] makes them for others.\n";
        let documents: Vec<String> =
            made.iter().map(|it| serde_saphyr::to_string(it).expect("it can be written")).collect();
        fs::write(path(file), head.to_owned() + &documents.join("---\n")).unwrap();
    }
    assert_eq!(documents(file), made, "{file} is not what the table says; UPDATE_GOLDEN=1 makes it anew");
}

#[test]
fn rights_are_given_namespace_by_namespace() {
    let made = rbac::manifest("coredinator", "plant", ["plant", "line-b"])["items"].as_array().unwrap().clone();
    let of = |kind: &str| made.iter().filter(|it| it["kind"] == kind).collect::<Vec<_>>();
    let places = |kind: &str| of(kind).iter().map(|it| it["metadata"]["namespace"].clone()).collect::<Vec<_>>();
    assert_eq!(places("ServiceAccount"), ["plant"], "coredinator itself runs in one");
    assert_eq!(
        (places("Role"), places("RoleBinding")),
        (vec![json!("plant"), json!("line-b")], vec![json!("plant"), json!("line-b")])
    );
    for binding in of("RoleBinding") {
        let account = json!([{"kind": "ServiceAccount", "name": "coredinator", "namespace": "plant"}]);
        assert_eq!((&binding["subjects"], &binding["roleRef"]["kind"]), (&account, &json!("Role")));
    }
    assert!(made.iter().all(|it| wrong(it).is_empty()), "{made:?}");
    assert!(of("ClusterRole").is_empty() && made.len() == 5, "nothing is asked for across namespaces");
}

#[test]
fn a_field_that_is_unknown_is_found() {
    let mut deployment =
        documents("deploy/kubernetes/coredinator.yaml").into_iter().find(|it| it["kind"] == "Deployment").unwrap();
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePulPolicy"] = json!("Always");
    assert_eq!(wrong(&deployment), ["/spec/template/spec/containers/0/imagePulPolicy"]);
    deployment["spec"]["replicas"] = json!("two");
    assert_eq!(wrong(&deployment).len(), 1);
    assert_eq!(wrong(&json!({"kind": "Pood"})).len(), 1);
}

#[test]
fn the_example_plant_is_valid() {
    let runtime = KubernetesRuntime::new(KubernetesRuntimeOptions::new("me"));
    let example = documents("examples/kubernetes.yaml").remove(0);
    let services = example["coredinator"]["services"].as_object().unwrap();
    assert!(services.len() >= 3);
    for (name, document) in services {
        let spec = ServiceSpec::parse("", Some(name), document.clone(), &Default::default())
            .unwrap_or_else(|errors| panic!("{name}: {errors:?}"));
        assert_eq!(spec.runtime.as_ref().map(|runtime| runtime.as_str()), Some("kubernetes"));
        assert_eq!(runtime.validate(&spec), [], "{name}");
    }
}
