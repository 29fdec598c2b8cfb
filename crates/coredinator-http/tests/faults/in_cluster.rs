//! coredinator as a pod of the cluster itself: it is given an address and a service account's files, and nothing else.

use std::{fs, path::Path, process::Command, sync::Arc};

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

use crate::{
    cluster::{Double, IMAGE, Place},
    engine::{left_out, packages},
    support::Plant,
};

/// Where a kubelet mounts a service account's files.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";

/// Makes `ca.crt`, and `api.crt` and `api.key` for 127.0.0.1, in a folder.
fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
        let output = output.expect("openssl can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=plant -keyout ca.key -out ca.crt");
    fs::write(folder.join("ext"), "subjectAltName=IP:127.0.0.1\n").expect("a file");
    openssl("req -newkey rsa:2048 -nodes -subj /CN=api -keyout api.key -out api.csr");
    openssl("x509 -req -days 2 -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile ext -out api.crt");
}

/// TLS before a double, as an API server in a cluster always has it; answers the port.
async fn with_tls(folder: &Path, double: u16) -> u16 {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(folder.join("api.crt"))
        .expect("a certificate")
        .map(|one| one.expect("a certificate"))
        .collect();
    let key = PrivateKeyDer::from_pem_file(folder.join("api.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, key))
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be listened on");
    let port = listener.local_addr().expect("it has an address").port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut near) = acceptor.accept(near).await else { return };
                let Ok(mut far) = TcpStream::connect(("127.0.0.1", double)).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    port
}

/// A plant whose coredinator sees an account's files where a pod would, and knows an address, and nothing else of a cluster.
/// `None`, and a line that says so, where that cannot be arranged.
fn inside(account: &Path, host: &str, port: u16, services: &Value) -> Option<Plant> {
    let mut try_it = Command::new("unshare");
    try_it.args(["--mount", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/mnt"]);
    let may = try_it.output().is_ok_and(|output| output.status.success());
    if !may {
        left_out("authentication as a pod", "no mount namespace can be made here (root is needed)");
        return None;
    }
    let account = account.display();
    let mut plant = Plant::new(services);
    plant.prelude = Some(format!(
        "unset KUBECONFIG; export HOME=/nowhere KUBERNETES_SERVICE_HOST={host} KUBERNETES_SERVICE_PORT={port}; \
         exec unshare --mount --propagation private sh -c 'mount -t tmpfs none /run && mkdir -p {ACCOUNT} && \
         mount --bind {account} {ACCOUNT} && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    ));
    Some(plant)
}

fn service() -> Value {
    json!({
        "runtime": "kubernetes", "image": IMAGE, "pull": "never", "user": 1000, "command": ["sh", "-c", "exec sleep 1000"],
        "backoff": {"initial": 0.02, "max": 0.1}, "stop_grace_period": 1,
    })
}

fn is_running(service: &Value) -> bool {
    service["ready"] == 1 && service["instances"][0]["state"] == "running"
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_enough_and_its_token_may_change() {
    if let Err(why) = packages::need(&[("openssl", "openssl"), ("unshare", "util-linux")]) {
        return left_out("authentication as a pod", &why);
    }
    let double = Double::start().await;
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let port = with_tls(dir.path(), double.port()).await;
    let account = dir.path().join("account");
    fs::create_dir(&account).unwrap();
    fs::copy(dir.path().join("ca.crt"), account.join("ca.crt")).unwrap();
    fs::write(account.join("namespace"), "line-a").unwrap();
    fs::write(account.join("token"), "the-first").unwrap();
    double.accept("the-first");
    let Some(mut plant) = inside(&account, "127.0.0.1", port, &json!({"svc": service()})) else { return };
    plant.patience *= 5;
    plant.start().await;
    plant.service_until("svc", "runs", is_running).await;
    let first = double.names("pods", "line-a");
    assert_eq!(first.len(), 1, "in the account's namespace");
    // A kubelet writes a new one long before the old one ends. Who reads it keeps it for a minute.
    fs::write(account.join("token"), "the-second").unwrap();
    double.accept("the-second");
    plant.order("svc", "restart").await.expect("an answer").ok();
    plant
        .service_until("svc", "is another", |service| {
            is_running(service) && !double.names("pods", "line-a").is_subset(&first)
        })
        .await;
    plant.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_with_the_rights_of_the_table_is_enough_on_a_cluster() {
    let Some(place) = Place::cluster().await else { return };
    let (Some(authority), server) = (place.authority(), place.server()) else {
        return left_out("authentication as a pod of the cluster", "its kubeconfig names no authority");
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ca.crt"), authority).unwrap();
    fs::write(dir.path().join("namespace"), &place.namespace).unwrap();
    fs::write(dir.path().join("token"), place.token(&[]).await).unwrap();
    let (host, port) = (server.host().unwrap_or_default(), server.port_u16().unwrap_or(443));
    let Some(mut plant) = inside(dir.path(), host, port, &json!({"svc": service()})) else { return };
    plant.patience = place.patience;
    plant.start().await;
    plant.service_until("svc", "runs", is_running).await;
    let first = place.pods().await;
    assert_eq!(first.len(), 1, "{first:?}");
    plant.kill().await;
    plant.start().await;
    plant.service_until("svc", "is adopted", is_running).await;
    assert_eq!(place.pods().await, first);
    plant.deregister("svc").await.expect("an answer").ok();
    plant.until("nothing is left", async |_| place.pods().await.is_empty()).await;
    plant.terminate().await;
}
