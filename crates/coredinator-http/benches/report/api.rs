//! Reads and durable writes over HTTP: the server on one core, the load on the other.

use std::{
    io::{Seek, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    Outcome,
    http::Connection,
    load::{self, Load},
    row,
    server::{Server, Setup, pinned},
    until,
};

const SECONDS: u64 = 4;
const LIST: &str = "/api/coredinator/services";

fn print(what: &str, load: &Load) {
    let errors = if load.errors > 0 { format!("  {} errors", load.errors) } else { String::new() };
    let (p50, p99) = (load.p50.as_secs_f64() * 1000.0, load.p99.as_secs_f64() * 1000.0);
    println!("{what:<58} {:>12.0}/s  p50 {p50:.2} ms  p99 {p99:.2} ms{errors}", load.per_second);
}

fn registered(count: usize) -> Outcome<Server> {
    let server = Server::start(Setup { cpu: Some("0"), ..Setup::default() })?;
    let mut connection = server.connect()?;
    for n in 0..count {
        let body = format!(r#"{{"name":"s{n}","host":"127.0.0.1","port":9,"health_endpoint":null}}"#);
        let answer = connection.send("POST", &format!("{LIST}/register"), &body)?;
        if answer.status != 201 {
            return Err(String::from_utf8_lossy(&answer.body).into_owned().into());
        }
    }
    Ok(server)
}

/// `GET` of services, and the same of a dictionary behind FastAPI.
pub(crate) fn reads() -> Outcome<()> {
    for count in [2, 100, 1000] {
        let server = registered(count)?;
        let load = load::run(server.port, LIST, 32, SECONDS)?;
        print(&format!("list of {count} services, 32 connections"), &load);
        baseline(count, "/services", load.per_second)?;
        if count == 2 {
            let load = load::run(server.port, &format!("{LIST}/s1"), 32, SECONDS)?;
            print("one service, 32 connections", &load);
            baseline(count, "/services/s1", load.per_second)?;
            wrk(server.port)?;
        }
    }
    Ok(())
}

/// The same reads made by wrk, where it is installed.
fn wrk(port: u16) -> Outcome<()> {
    let url = format!("http://127.0.0.1:{port}{LIST}");
    match pinned("wrk", Some("1")).args(["-t1", "-c32", "-d3s", &url]).output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let line = text.lines().find(|line| line.starts_with("Requests/sec")).unwrap_or_default();
            println!(
                "{:<58} {:>14}",
                "  the list of 2 as wrk counts it",
                line.trim_start_matches("Requests/sec:").trim()
            );
        }
        _ => println!("  wrk is not installed"),
    }
    Ok(())
}

/// A dictionary behind FastAPI, on the same core: what a service registry is often made of.
struct Baseline(Child);

impl Drop for Baseline {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn baseline(count: usize, path: &str, ours: f64) -> Outcome<()> {
    let python = std::env::var("BENCH_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let importable = Command::new(&python).args(["-c", "import fastapi, uvicorn"]).stderr(Stdio::null()).status();
    if !importable.is_ok_and(|status| status.success()) {
        println!("  FastAPI is not installed (BENCH_PYTHON names a python that has it)");
        return Ok(());
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/fastapi_baseline.py");
    let mut command = pinned(&python, Some("0"));
    let child = command.args([script, &port.to_string(), &count.to_string()]).stderr(Stdio::null()).spawn()?;
    let _baseline = Baseline(child);
    until("FastAPI", Duration::from_secs(20), || Ok(Connection::open(port).is_ok()))?;
    let load = load::run(port, path, 32, SECONDS)?;
    print(&format!("  a FastAPI dictionary (coredinator: {:.0} times as many)", ours / load.per_second), &load);
    Ok(())
}

/// Registrations that are on the disk when they are answered.
pub(crate) fn writes() -> Outcome<()> {
    let mut file = tempfile::tempfile()?;
    let mut syncs = Vec::new();
    for _ in 0..1000 {
        let at = Instant::now();
        file.write_all(&[7; 256])?;
        file.sync_data()?;
        syncs.push(at.elapsed());
    }
    file.rewind()?;
    row("one append of 256 bytes and fdatasync", &mut syncs);
    for connections in [1, 32] {
        let server = Server::start(Setup { cpu: Some("0"), ..Setup::default() })?;
        let load = load::run(server.port, "register", connections, SECONDS)?;
        print(&format!("durable registrations, {connections} client(s), server on one core"), &load);
        server.stop()?;
    }
    Ok(())
}
