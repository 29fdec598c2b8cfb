//! An engine over TLS, by a context of Docker's settings; against a real engine.
#![cfg(feature = "tls")]

#[path = "support/kit.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod kit;
#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use coredinator_core::{Runtime, Scope, StopRequest};
use coredinator_runtime_docker::{DockerRuntime, DockerRuntimeOptions};
use kit::{container, ends, runs, started};
use serde_json::json;
use support::{Engine, left_out, packages};

/// Certificates of an authority of one's own: `ca.pem`, and for engine and client each `NAME/cert.pem` and `NAME/key.pem`.
fn certificates(folder: &Path) -> Result<(), String> {
    let openssl = |arguments: &str| {
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(folder).stdin(Stdio::null());
        let output = command.output().map_err(|error| format!("openssl: {error}"))?;
        let said = || String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said()) }
    };
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).map_err(|error| error.to_string());
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=plant -keyout ca-key.pem -out ca.pem")?;
    for (name, extensions) in [
        ("engine", "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n"),
        ("client", "extendedKeyUsage=clientAuth\n"),
    ] {
        fs::create_dir_all(folder.join(name)).map_err(|error| error.to_string())?;
        write(&format!("{name}.ext"), extensions)?;
        openssl(&format!("req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}/key.pem -out {name}.csr"))?;
        openssl(&format!(
            "x509 -req -days 2 -in {name}.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -extfile {name}.ext -out {name}/cert.pem"
        ))?;
        fs::copy(folder.join("ca.pem"), folder.join(name).join("ca.pem")).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_leads_to_an_engine_over_tls() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    if let Err(why) = packages::need(&[("openssl", "openssl")]) {
        return left_out("TLS", &why);
    }
    let engine = Engine::start_with(|folder| {
        certificates(folder).expect("certificates can be made");
        let file = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
        vec![
            "--tlsverify".to_owned(),
            file("tlscacert", "ca.pem"),
            file("tlscert", "engine/cert.pem"),
            file("tlskey", "engine/key.pem"),
            format!("--host=tcp://{free}"),
        ]
    });
    let Some(engine) = engine.await else { return };
    let settings = engine.folder().join("settings");
    let write = |path: &str, text: &str| {
        let path = settings.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("config.json", r#"{"currentContext": "plant"}"#);
    let meta =
        json!({"Name": "plant", "Endpoints": {"docker": {"Host": format!("tcp://{free}"), "SkipTLSVerify": false}}});
    write("contexts/meta/0a/meta.json", &meta.to_string());
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let certificate = fs::read_to_string(engine.folder().join("client").join(name)).unwrap();
        write(&format!("contexts/tls/0a/docker/{name}"), &certificate);
    }
    let runtime = DockerRuntime::new(DockerRuntimeOptions::new("me").with_settings(&settings));
    assert_eq!(runtime.capabilities().scope, Scope::NodeLocal, "loopback is this machine");
    let started = started(&runtime, "exec sleep 1000", json!({})).await;
    let mut watch = runtime.watch(&started.instance);
    runs(&mut watch).await;
    assert_eq!(engine.asked(&["ps", "--quiet", "--no-trunc"]), container(&started));
    runtime.stop(&started.instance, StopRequest::KILL).await.unwrap();
    ends(&mut watch).await;
    // Whom the authority does not know is not let in, and not believed.
    write("contexts/tls/0a/docker/ca.pem", &fs::read_to_string(engine.folder().join("client/cert.pem")).unwrap());
    let stranger = DockerRuntime::new(DockerRuntimeOptions::new("me").with_settings(&settings));
    let error = stranger.list(&[]).await.expect_err("nobody vouches for the engine").to_string();
    assert!(error.contains("certificate"), "{error}");
}
