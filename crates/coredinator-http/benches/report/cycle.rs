//! Whole cycles of coordination, from what agents want to what every one of them was told, over HTTP.

use std::{fmt::Write as _, sync::mpsc, thread, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use crate::{
    Outcome,
    http::Connection,
    row,
    server::{Server, Setup},
};

const AGENTS: &str = "/api/coredinator/agents";
/// How many agents, and how many cycles are measured after one that is not.
const SIZES: [(usize, usize); 3] = [(100, 100), (1_000, 50), (10_000, 15)];
/// Connections that agents which speak by themselves share.
const CONNECTIONS: usize = 32;

/// Cycles in which agents are asked and told at their own endpoints (pull), and in which they come by themselves (push).
pub(crate) fn all() -> Outcome<()> {
    for (agents, cycles) in SIZES {
        pull(agents, cycles)?;
        push(agents, cycles)?;
    }
    Ok(())
}

/// Every cycle is a step by hand. Together agents want twice the steam that there is.
fn server(agents: usize) -> Outcome<Server> {
    let section = format!(
        "  coordination:\n    enabled: true\n    sync_interval: 3600\n    budget: {{deadline_ms: 10000}}\n    \
         resources: {{steam: {{capacity: {}}}}}\n",
        2 * agents
    );
    Server::start(Setup { section: &section, ..Setup::default() })
}

fn name(number: usize) -> String {
    format!("agent-{number:05}")
}

/// A large grant, a small one or none; another large one every cycle, so that there is always something to resolve.
fn wish(agent: &str, number: usize, cycle: usize) -> Value {
    let steam = 1 + (number + cycle) % 7;
    json!({"agent_id": agent, "seq": cycle, "options": [
        {"id": "run", "demands": {"steam": steam}, "utility": 2 * steam},
        {"id": "less", "demands": {"steam": 0.5}, "utility": 1},
        {"id": "idle", "utility": 0},
    ]})
}

fn expect(connection: &mut Connection, method: &str, path: &str, body: &str, status: u16) -> Outcome<Vec<u8>> {
    let answer = connection.send(method, path, body)?;
    if answer.status != status {
        return Err(format!("{method} {path}: {}: {}", answer.status, String::from_utf8_lossy(&answer.body)).into());
    }
    Ok(answer.body)
}

/// Does the same for all agents, over as many connections as they share.
fn each(
    connections: &mut [Connection],
    agents: usize,
    act: impl Fn(&mut Connection, usize) -> Outcome<()> + Sync,
) -> Outcome<()> {
    let (lanes, act) = (connections.len(), &act);
    thread::scope(|scope| {
        let lane = |(first, connection): (usize, &mut Connection)| -> Result<(), String> {
            (first..agents)
                .step_by(lanes)
                .try_for_each(|agent| act(connection, agent))
                .map_err(|error| error.to_string())
        };
        let running: Vec<_> =
            connections.iter_mut().enumerate().map(|lane_of| scope.spawn(move || lane(lane_of))).collect();
        let joined = running.into_iter().map(|lane| lane.join().map_err(|_| "a connection's thread panicked")?);
        Ok(joined.collect::<Result<Vec<()>, String>>().map(drop)?)
    })
}

fn connect(server: &Server) -> Outcome<Vec<Connection>> {
    (0..CONNECTIONS).map(|_| server.connect()).collect()
}

fn register(connections: &mut [Connection], agents: usize, port: Option<u16>) -> Outcome<()> {
    each(connections, agents, |connection, number| {
        let name = name(number);
        let endpoint = port.map(|port| format!("http://127.0.0.1:{port}/{name}"));
        let agent = json!({"agent_id": name, "endpoint": endpoint, "fallback": "release", "ttl_seconds": 3600});
        expect(connection, "POST", &format!("{AGENTS}/register"), &agent.to_string(), 201).map(drop)
    })
}

/// One cycle; what it says of itself.
fn step(connection: &mut Connection) -> Outcome<Value> {
    Ok(serde_json::from_slice(&expect(connection, "POST", "/api/coredinator/coordination/step", "", 200)?)?)
}

/// A row, and where the time went in the cycles themselves.
fn print(way: &str, agents: usize, times: &mut [Duration], records: &[Value]) {
    row(&format!("cycle of {agents} agents, {way}"), times);
    let mut parts = String::new();
    for part in ["collect", "detect", "resolve", "verify", "store", "distribute"] {
        let time = |record: &Value| record["timings"][format!("{part}_ms")].as_f64().unwrap_or(f64::NAN);
        let mut times: Vec<f64> = records.iter().map(time).collect();
        times.sort_by(f64::total_cmp);
        let _ = write!(parts, " {part} {:.1}", times[times.len() / 2]);
    }
    println!("  medians within it, ms:{parts}");
}

fn pull(agents: usize, cycles: usize) -> Outcome<()> {
    let port = endpoints()?;
    let server = server(agents)?;
    let mut connections = connect(&server)?;
    register(&mut connections, agents, Some(port))?;
    let (mut times, mut records) = (Vec::new(), Vec::new());
    for cycle in 0..=cycles {
        let begun = Instant::now();
        let record = step(&mut connections[0])?;
        let took = begun.elapsed();
        let heard = record["unacknowledged"].as_array().is_none_or(Vec::is_empty);
        let intended = record["problem"]["intentions"].as_array().map_or(0, Vec::len);
        if !heard || intended != agents {
            return Err(format!("{intended} of {agents} agents were asked; all acknowledged: {heard}").into());
        }
        if cycle > 0 {
            times.push(took);
            records.push(record);
        }
    }
    print("asked and told at their endpoints", agents, &mut times, &records);
    server.stop()?;
    Ok(())
}

fn push(agents: usize, cycles: usize) -> Outcome<()> {
    let server = server(agents)?;
    let mut connections = connect(&server)?;
    register(&mut connections, agents, None)?;
    let (mut times, mut records) = (Vec::new(), Vec::new());
    for cycle in 0..=cycles {
        let begun = Instant::now();
        each(&mut connections, agents, |connection, number| {
            let name = name(number);
            let wish = wish(&name, number, cycle + 1).to_string();
            expect(connection, "POST", &format!("{AGENTS}/{name}/intention"), &wish, 202).map(drop)
        })?;
        let record = step(&mut connections[0])?;
        let decided = record["cycle"].as_u64().ok_or("a cycle without a number")?;
        each(&mut connections, agents, |connection, number| {
            let path = format!("{AGENTS}/{}/decision?cycle={decided}&wait=10s", name(number));
            expect(connection, "GET", &path, "", 200).map(drop)
        })?;
        if cycle > 0 {
            times.push(begun.elapsed());
            records.push(record);
        }
    }
    print("which say and read it by themselves", agents, &mut times, &records);
    server.stop()?;
    Ok(())
}

/// The endpoints of all agents, behind one port; served until this process ends.
fn endpoints() -> Outcome<u16> {
    let (sender, bound) = mpsc::channel();
    thread::spawn(move || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            // Nobody waits any more where this fails.
            let _ = sender.send(listener.local_addr()?.port());
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::spawn(answer(stream));
            }
        })
    });
    Ok(bound.recv_timeout(Duration::from_secs(5))?)
}

/// Says what an agent wants, and acknowledges decisions, until the connection ends.
async fn answer(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    loop {
        let (mut first, mut length) = (String::new(), 0);
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        loop {
            let mut header = String::new();
            stream.read_line(&mut header).await?;
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let agent = first.split('/').nth(1).unwrap_or_default();
        let number = agent.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let cycle = first.split("cycle=").nth(1).and_then(|rest| rest.split(['&', ' ']).next()?.parse().ok());
        let text =
            if first.starts_with("GET") { wish(agent, number, cycle.unwrap_or(1)).to_string() } else { String::new() };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        stream.get_mut().write_all(answer.as_bytes()).await?;
    }
}
