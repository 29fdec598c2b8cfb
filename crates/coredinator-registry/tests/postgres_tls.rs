//! Connections over TLS, to a real server whose certificate a throw-away authority signed.

#![cfg(feature = "postgres")]

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::{Command, Stdio},
};

use coredinator_core::{Store, StoreCheckOutcome, StoreError};
use coredinator_registry::store::{PostgresOptions, PostgresStore};
use coredinator_test_postgres::Cluster;

fn openssl(dir: &Path, arguments: &str) -> bool {
    let mut command = Command::new("openssl");
    command
        .args(arguments.split(' '))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An authority, and a server's key and certificate for `localhost`; `false` where there is no openssl.
fn certificates(dir: &Path) -> bool {
    fs::write(dir.join("san"), "subjectAltName=DNS:localhost\n").unwrap();
    let authority = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority";
    [
        format!("{authority} -keyout ca.key -out ca.crt"),
        format!("{authority} -keyout other.key -out other.crt"),
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr".to_owned(),
        "x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.crt"
            .to_owned(),
    ]
    .iter()
    .all(|arguments| openssl(dir, arguments))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mode_asks_of_the_server_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        let _ = writeln!(std::io::stderr(), "SKIPPED, no connection was made over TLS: openssl cannot be run");
        return;
    }
    let Some(cluster) = Cluster::start() else { return };
    let data = cluster.dir().join("data");
    let owner = fs::metadata(&data).unwrap();
    for name in ["server.crt", "server.key"] {
        fs::copy(dir.path().join(name), data.join(name)).unwrap();
        fs::set_permissions(data.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        chown(data.join(name), Some(owner.uid()), Some(owner.gid())).unwrap();
    }
    let plain = cluster.database();
    let url = plain.replace("127.0.0.1", "localhost");
    let open = async |url: &str, more: &str| {
        let options = PostgresOptions::new(&format!("{url}?{more}")).unwrap().open_wait(std::time::Duration::ZERO);
        PostgresStore::open_with(options).await
    };
    let refused = open(&url, "sslmode=require").await.unwrap_err();
    assert!(refused.to_string().contains("secure connection"), "a server without TLS does not do: {refused}");
    open(&url, "sslmode=prefer").await.unwrap();
    cluster.configure("ssl", "on");
    let roots = |name: &str| format!("sslrootcert={}", dir.path().join(name).display());
    let (ours, theirs) = (roots("ca.crt"), roots("other.crt"));
    for (url, mode) in [
        (&url, "sslmode=require".to_owned()),
        (&url, format!("sslmode=verify-full&{ours}")),
        // The certificate names the host, not its address.
        (&plain, format!("sslmode=verify-ca&{ours}")),
    ] {
        let store = open(url, &mode).await.unwrap_or_else(|error| panic!("{mode}: {error:?}"));
        store.check().await.unwrap();
        let version = store.verify().await.into_iter().find(|check| check.name == "server_version").unwrap();
        assert!(version.outcome == StoreCheckOutcome::Ok && version.detail.contains("over TLS"), "{mode}: {version:?}");
    }
    for (url, mode) in [
        (&url, format!("sslmode=verify-full&{theirs}")),
        (&url, format!("sslmode=verify-ca&{theirs}")),
        (&plain, format!("sslmode=verify-full&{ours}")),
        (&url, "sslmode=verify-full".to_owned()),
        (&url, "sslmode=verify-full&sslrootcert=/nonexistent".to_owned()),
    ] {
        let error = open(url, &mode).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable { .. } | StoreError::Unusable(_)), "{mode}: {error:?}");
        let text = error.to_string();
        assert!(text.contains("localhost") || text.contains("127.0.0.1"), "{mode}: {text}");
        assert!(!text.contains("not-a-secret"), "{mode}: {text}");
    }
}
