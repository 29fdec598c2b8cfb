//! What is deployed: the image is built and run, the composition is read by the tool that it is for.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    engine::{Engine, left_out, packages},
    support::PATIENCE,
};

pub(crate) const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");

pub(crate) fn copied(from: &Path, root: &Path) {
    let to = root.join(from.strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    fs::copy(from, to).expect("a copy");
}

/// The libraries that a program names.
pub(crate) fn libraries(program: &str) -> Vec<PathBuf> {
    let told = Command::new("ldd").arg(program).output().expect("ldd can be run");
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    told.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// A stand-in for the image with Rust in it, which no test can have: its `cargo build` takes a program that is built already.
pub(crate) fn builder(engine: &Engine, program: &str, image: &str) {
    let root = engine.folder().join("builder");
    for path in ["/bin/busybox", "/bin/bash", "/usr/bin/ldd"] {
        copied(&fs::canonicalize(path).expect(path), &root);
    }
    for library in libraries(program).iter().chain(&libraries("/bin/bash")) {
        copied(library, &root);
    }
    let bin = root.join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    for name in ["sh", "cp", "mkdir", "grep", "cat", "echo", "chown", "test"] {
        let _ = symlink("/bin/busybox", bin.join(name));
    }
    for (name, file) in [("bash", "/bin/bash"), ("ldd", "/usr/bin/ldd"), ("busybox", "/bin/busybox")] {
        let real = fs::canonicalize(file).expect(file);
        if !bin.join(name).exists() {
            symlink(real, bin.join(name)).expect("a link");
        }
    }
    let cargo = bin.join("cargo");
    fs::write(&cargo, "#!/bin/sh\nmkdir -p target/release && cp built/coredinator target/release/\n").expect("a file");
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("it can be run");
    let archive = engine.folder().join("builder.tar").display().to_string();
    let packed = Command::new("tar").arg("-C").arg(&root).args(["-cf", &archive, "."]).status();
    assert!(packed.expect("tar can be run").success());
    engine.asked(&["import", &archive, image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_is_built_runs_as_nobody_and_says_that_it_is_well() {
    let Some(engine) = Engine::start().await else { return };
    if let Err(why) = packages::need(&[("ldd", "libc-bin"), ("bash", "bash")]) {
        return left_out("the image of coredinator", &why);
    }
    let program = env!("CARGO_BIN_EXE_coredinator");
    builder(&engine, program, "coredinator-test:builder");
    let context = engine.folder().join("context");
    fs::create_dir_all(context.join("built")).expect("a folder");
    fs::copy(program, context.join("built/coredinator")).expect("a copy");
    let (file, context) = (format!("{DEPLOY}/Dockerfile"), context.display().to_string());
    let arguments = ["build", "--tag", "coredinator:test", "--build-arg", "BUILDER=coredinator-test:builder", "--file"];
    // The engine's own way of building, which needs nothing beside it.
    let built = engine.docker_with(&[("DOCKER_BUILDKIT", "0")], &[&arguments[..], &[&file, &context]].concat());
    assert!(
        built.status.success(),
        "{}{}",
        String::from_utf8_lossy(&built.stdout),
        String::from_utf8_lossy(&built.stderr)
    );

    // On a root that cannot be written to, as nobody in particular, without any privilege.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let run = ["run", "--detach", "--init", "--read-only", "--cap-drop=ALL", "--network=host", "--health-interval=1s"];
    let environment = [format!("--env=COREDINATOR_PORT={port}"), "--env=COREDINATOR_HOST=127.0.0.1".to_owned()];
    let address = format!("--env=COREDINATOR_ADDR=127.0.0.1:{port}");
    let id = engine.asked(&[&run[..], &[&environment[0], &environment[1], &address, "coredinator:test"]].concat());
    let told = |format: &str| engine.asked(&["inspect", "--format", format, &id]);
    let deadline = tokio::time::Instant::now() + PATIENCE * 2;
    while told("{{.State.Health.Status}}") != "healthy" {
        let output = engine.docker(&["logs", &id]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(tokio::time::Instant::now() < deadline, "never healthy: {} {said}", told("{{json .State}}"));
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(
        told("{{.Config.User}} {{json .Config.Healthcheck.Test}}"),
        r#"65532:65532 ["CMD","/usr/bin/coredinator","healthcheck"]"#
    );
    let status = fs::read_to_string(format!("/proc/{}/status", told("{{.State.Pid}}"))).expect("its status");
    assert!(status.lines().any(|line| line.starts_with("Uid:") && line.contains("65532")), "{status}");
    // Its own subcommand says so by its exit code, and by another where nothing answers.
    let checked = |address: &str| {
        let address = format!("--address={address}");
        engine.docker(&["exec", &id, "/usr/bin/coredinator", "healthcheck", &address]).status.code()
    };
    assert_eq!(checked(&format!("127.0.0.1:{port}")), Some(0));
    assert_eq!(checked("127.0.0.1:1"), Some(1));
    // It ends in order when it is asked to.
    engine.asked(&["stop", "--time", "60", &id]);
    assert_eq!(told("{{.State.ExitCode}}"), "0");
    engine.asked(&["rm", "--volumes", &id]);
}

#[test]
fn the_composition_is_read_by_its_own_tool() {
    let name = "docker-compose";
    if let Err(why) = packages::need(&[(name, name)]) {
        return left_out("the composition was not read by docker-compose", &why);
    }
    let read = Command::new(name).args(["--file", "docker-compose.yml", "config"]).current_dir(DEPLOY).output();
    let read = read.expect("it can be run");
    let text = String::from_utf8_lossy(&read.stdout);
    assert!(read.status.success() && read.stderr.is_empty(), "{}", String::from_utf8_lossy(&read.stderr));
    for line in [
        "DATABASE_URL: postgresql://postgres:password@db:5432/postgres",
        "condition: service_healthy",
        "- /usr/bin/coredinator",
        "dockerfile: ./deploy/Dockerfile",
        "read_only: true",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
