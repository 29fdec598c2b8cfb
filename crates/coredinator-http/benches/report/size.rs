//! Memory, idle CPU, and start-up on a full store.

use std::{fs, time::Duration};

use crate::{
    Outcome, pause, row,
    server::{Server, Setup, services},
    until, value,
};

/// What coredinator holds of memory, its services not counted: proportional and resident set in MiB, threads, descriptors.
fn footprint(pid: u32) -> Outcome<String> {
    let kib = |path: &str, key: &str| -> Outcome<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/{path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix(key)).ok_or("no such line")?;
        Ok(line.split_whitespace().next().unwrap_or_default().parse::<f64>()? / 1024.0)
    };
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let threads = fs::read_dir(format!("/proc/{pid}/task"))?.count();
    let (pss, rss) = (kib("smaps_rollup", "Pss:")?, kib("status", "VmRSS:")?);
    Ok(format!("{pss:.1} MiB PSS, {rss:.1} MiB RSS, {threads} threads, {descriptors} descriptors"))
}

/// User and system time in the kernel's ticks of 10 ms.
fn ticks(pid: u32) -> Outcome<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    Ok(fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum())
}

pub(crate) fn all() -> Outcome<()> {
    for count in [0, 100, 1000] {
        let text = if count == 0 { String::new() } else { services(count, "[sleep, '1000']", "") };
        let setup = Setup { services: &text, ..Setup::default() };
        let server = Server::start(setup)?;
        until("all running", Duration::from_secs(60), || {
            let body = server.connect()?.get("/api/coredinator/services")?.body;
            Ok(String::from_utf8_lossy(&body).matches(r#""state":"running""#).count() == count)
        })?;
        value(
            &format!("{count} processes from nothing, all running in the API"),
            &format!("{:.0?}", server.begun.elapsed()),
        );
        pause(Duration::from_secs(2));
        value(&format!("coredinator with {count} processes"), &footprint(server.pid())?);
        if count == 100 {
            let before = ticks(server.pid())?;
            pause(Duration::from_secs(10));
            let used = ticks(server.pid())? - before;
            value("idle CPU with 100 processes", &format!("{:.1} %", used as f64 / 10.0));
        }
        server.stop()?;
    }
    // External ones, so that start-up is the store's and the registry's alone.
    let server = Server::start(Setup::default())?;
    let mut connection = server.connect()?;
    for n in 0..1000 {
        let body = format!(r#"{{"name":"s{n}","host":"127.0.0.1","port":9,"health_endpoint":null}}"#);
        connection.send("POST", "/api/coredinator/services/register", &body)?;
    }
    drop(connection);
    let mut dir = server.stop()?;
    let mut times = Vec::new();
    for _ in 0..10 {
        let server = Server::start_in(dir, Setup::default())?;
        times.push(server.ready_after);
        dir = server.stop()?;
    }
    row("start to /readyz, 1,000 services in the store", &mut times);
    Ok(())
}
