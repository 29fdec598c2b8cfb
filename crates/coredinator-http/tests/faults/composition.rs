//! The composition of coredinator and PostgreSQL, run for real. The two images that it stands on and no test can have, those with Rust
//! and with PostgreSQL, are made from what this machine has.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    deploy::{DEPLOY, builder, copied, libraries},
    engine::{Engine, left_out, packages},
};

/// Where Debian keeps the PostgreSQL of the composition.
const POSTGRES: &str = "/usr/lib/postgresql/15";
/// Who runs it, in the image.
const USER: u32 = 999;
/// An upper bound: two images are built, a database is made.
const PATIENCE: Duration = Duration::from_secs(180);

/// What the image of PostgreSQL does at its start: makes a database where there is none, and runs it.
const ENTRY: &str = r#"#!/bin/sh
set -e
data=/var/lib/postgresql/data
if [ ! -e $data/PG_VERSION ]; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    initdb --pgdata=$data --username=postgres --pwfile=/tmp/password --auth=scram-sha-256 --auth-local=trust --locale=C --encoding=UTF8
    echo 'host all all all scram-sha-256' >> $data/pg_hba.conf
fi
exec postgres -D $data -c listen_addresses='*'
"#;

fn copied_whole(from: &str, root: &Path) {
    let to = root.join(Path::new(from).strip_prefix("/").expect("an absolute path"));
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    let done = Command::new("cp").args(["--archive", from]).arg(&to).status();
    assert!(done.expect("cp can be run").success(), "{from} is copied");
}

/// The image `postgres:15`, from this machine's own.
fn database(engine: &Engine) {
    let root = engine.folder().join("database");
    for folder in [POSTGRES, "/usr/share/postgresql/15"] {
        copied_whole(folder, &root);
    }
    let _ = fs::remove_dir_all(root.join("usr/lib/postgresql/15/lib/bitcode"));
    for zone in ["/usr/share/zoneinfo/UTC", "/usr/share/zoneinfo/GMT"] {
        if let Ok(real) = fs::canonicalize(zone) {
            fs::create_dir_all(root.join("usr/share/zoneinfo")).expect("a folder");
            fs::copy(real, root.join(zone.trim_start_matches('/'))).expect("a copy");
        }
    }
    let modules =
        ["plpgsql.so", "dict_snowball.so", "libpqwalreceiver.so"].map(|name| format!("{POSTGRES}/lib/{name}"));
    let programs = ["postgres", "initdb", "pg_isready"].map(|name| format!("{POSTGRES}/bin/{name}"));
    for program in programs.iter().chain(&modules) {
        libraries(program).iter().for_each(|library| copied(library, &root));
    }
    let bin = root.join("bin");
    fs::create_dir_all(&bin).expect("a folder");
    fs::copy("/bin/busybox", bin.join("busybox")).expect("a copy");
    for name in ["sh", "echo", "cat"] {
        symlink("busybox", bin.join(name)).expect("a link");
    }
    let entry = bin.join("entry");
    fs::write(&entry, ENTRY).expect("a file");
    fs::set_permissions(&entry, fs::Permissions::from_mode(0o755)).expect("it can be run");
    fs::create_dir_all(root.join("etc")).expect("a folder");
    fs::write(root.join("etc/passwd"), format!("postgres:x:{USER}:{USER}::/var/lib/postgresql:/bin/sh\n"))
        .expect("a file");
    for (folder, mode) in [("var/lib/postgresql/data", 0o700), ("var/run/postgresql", 0o755), ("tmp", 0o777)] {
        let folder = root.join(folder);
        fs::create_dir_all(&folder).expect("a folder");
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).expect("its mode");
        chown(&folder, Some(USER), Some(USER)).expect("its owner");
    }
    let archive = engine.folder().join("database.tar").display().to_string();
    let packed = Command::new("tar").arg("-C").arg(&root).args(["-cf", &archive, "."]).status();
    assert!(packed.expect("tar can be run").success());
    let user = format!("USER {USER}:{USER}");
    let path = format!("ENV PATH={POSTGRES}/bin:/bin");
    let changes = [user.as_str(), &path, "ENTRYPOINT [\"/bin/entry\"]", "VOLUME /var/lib/postgresql/data"];
    let changes: Vec<&str> = changes.iter().flat_map(|change| ["--change", change]).collect();
    engine.asked(&[&["import"], changes.as_slice(), &[&archive, "postgres:15"]].concat());
    fs::remove_dir_all(&root).expect("it can be removed");
}

struct Composition<'e> {
    engine: &'e Engine,
    folder: PathBuf,
    port: u16,
    client: Client,
}

impl Composition<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("docker-compose");
        command.args(["--project-name", "plant"]).args(arguments).current_dir(&self.folder).stdin(Stdio::null());
        command.env("DOCKER_HOST", self.engine.host()).env("COREDINATOR_PUBLISH", format!("127.0.0.1:{}", self.port));
        // The engine's own way of building, which needs nothing beside it.
        command.env("DOCKER_BUILDKIT", "0").env("COMPOSE_DOCKER_CLI_BUILD", "0").env("POSTGRES_PASSWORD", "s3cret");
        command.output().expect("docker-compose can be run")
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "docker-compose {arguments:?}: {said}");
        said
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let request = self.client.request(method, format!("http://127.0.0.1:{}{path}", self.port));
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let text = response.text().await.ok()?;
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self).await {
            if Instant::now() >= deadline {
                panic!("never: {what}\n{}\n{}", self.done(&["ps"]), self.done(&["logs", "--tail", "40"]));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn is_ready(&self) -> bool {
        self.ask(Method::GET, "/readyz", None).await.is_some_and(|(status, _)| status == 200)
    }
}

impl Drop for Composition<'_> {
    fn drop(&mut self) {
        let _ = self.run(&["down", "--volumes", "--timeout", "1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_composition_runs_and_keeps_its_state() {
    const WHAT: &str = "the composition was not run";
    let Some(engine) = Engine::start().await else { return };
    let needed = [("docker-compose", "docker-compose"), ("ldd", "libc-bin"), ("bash", "bash"), ("tar", "tar")];
    if let Err(why) = packages::need(&needed) {
        return left_out(WHAT, &why);
    }
    if !Path::new(POSTGRES).join("bin/initdb").exists() {
        return left_out(WHAT, "PostgreSQL 15 is not there (apt-get install postgresql-15)");
    }
    let program = env!("CARGO_BIN_EXE_coredinator");
    builder(&engine, program, "rust:1-bookworm");
    database(&engine);
    let context = engine.folder().join("context");
    for folder in ["built", "deploy"] {
        fs::create_dir_all(context.join(folder)).expect("a folder");
    }
    fs::copy(program, context.join("built/coredinator")).expect("a copy");
    for file in ["Dockerfile", "docker-compose.yml"] {
        fs::copy(format!("{DEPLOY}/{file}"), context.join("deploy").join(file)).expect("a copy");
    }
    // Reserved for a moment, and free again: nobody else takes it in that time.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let client = Client::builder().timeout(Duration::from_secs(20)).no_proxy().build().expect("a client");
    let plant = Composition { engine: &engine, folder: context.join("deploy"), port, client };
    plant.done(&["up", "--detach"]);
    plant.until("coredinator is ready", Composition::is_ready).await;
    let (_, database) =
        plant.ask(Method::GET, "/api/coredinator/database/status", None).await.expect("coredinator answers");
    assert!(database.to_string().contains("postgres") && !database.to_string().contains("s3cret"), "{database}");
    let document = json!({"name": "corerl", "host": "localhost", "port": 1});
    let registered = plant.ask(Method::POST, "/api/coredinator/services/register", Some(document)).await;
    assert!(registered.as_ref().is_some_and(|(status, _)| (200..300).contains(status)), "{registered:?}");

    // Without its database it goes on telling what it knows; with it again it goes on.
    plant.done(&["stop", "--timeout", "2", "database"]);
    let known = plant.ask(Method::GET, "/api/coredinator/services/corerl", None).await;
    assert!(known.as_ref().is_some_and(|(status, _)| *status == 200), "{known:?}");
    plant.done(&["start", "database"]);
    plant
        .until("changes are taken again", async |plant| {
            let document = json!({"name": "coreio", "host": "localhost", "port": 1});
            let answer =
                plant.ask(Method::POST, "/api/coredinator/services/register?replace=true", Some(document)).await;
            answer.is_some_and(|(status, _)| (200..300).contains(&status))
        })
        .await;

    // Taken down and put up again, as for a new version: what was declared is in the database.
    plant.done(&["down", "--timeout", "60"]);
    plant.done(&["up", "--detach"]);
    plant.until("coredinator is ready again", Composition::is_ready).await;
    for name in ["corerl", "coreio"] {
        let found = plant.ask(Method::GET, &format!("/api/coredinator/services/{name}"), None).await;
        assert!(found.as_ref().is_some_and(|(status, _)| *status == 200), "{name}: {found:?}");
    }
    // Its health is what its own subcommand says.
    plant
        .until("the engine says that it is healthy", async |plant| {
            let id = plant.done(&["ps", "--quiet", "coredinator"]);
            engine.asked(&["inspect", "--format", "{{.State.Health.Status}}", id.trim()]) == "healthy"
        })
        .await;
}
