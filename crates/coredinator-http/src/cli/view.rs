//! Services as people read them; from the API's JSON, of which anything may be missing.

use std::time::Duration;

use coredinator_core::Timestamp;
use serde_json::Value;

use super::{
    coordination_view,
    fields::text,
    human::{ago, cut, milliseconds, span},
    paint::{Colour, clean, paint, status},
    table::table,
};
use crate::config::yaml;

/// What stands where there is nothing.
const NONE: &str = "-";

fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}

fn instances(service: &Value) -> &[Value] {
    service.get("instances").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn number(value: &Value, key: &str) -> Option<u64> {
    value.get(key).and_then(Value::as_u64)
}

/// A number, or a dash.
fn count(value: &Value, key: &str) -> String {
    number(value, key).map_or_else(|| NONE.to_owned(), |number| number.to_string())
}

fn time(value: &Value, key: &str) -> Option<Timestamp> {
    text(value, key).parse().ok()
}

fn when(value: &Value, key: &str, now: Timestamp) -> String {
    time(value, key).map_or_else(|| NONE.to_owned(), |then| ago(then, now))
}

fn response(value: &Value) -> String {
    value.get("response_time_ms").and_then(Value::as_f64).map_or_else(|| NONE.to_owned(), milliseconds)
}

fn uptime(instance: &Value) -> Option<Duration> {
    number(instance, "uptime_seconds").map(Duration::from_secs)
}

/// Where an instance is reached, while it has a process.
fn instance_endpoint(instance: &Value) -> String {
    if matches!(text(instance, "state"), "starting" | "running" | "stopping") {
        endpoint(instance)
    } else {
        NONE.to_owned()
    }
}

/// Where a service is reached, while anything of it runs; an external one: in any case.
fn service_endpoint(service: &Value) -> String {
    let managed = !text(service, "runtime").is_empty();
    if managed && instances(service).iter().all(|instance| instance_endpoint(instance) == NONE) {
        return NONE.to_owned();
    }
    endpoint(service)
}

fn endpoint(value: &Value) -> String {
    match number(value, "port") {
        None | Some(0) => NONE.to_owned(),
        Some(port) => {
            let host = clean(text(value, "host"));
            if host.contains(':') && !host.starts_with('[') {
                format!("[{host}]:{port}")
            } else {
                format!("{host}:{port}")
            }
        }
    }
}

fn labels(service: &Value) -> String {
    let labels = service.get("labels").and_then(Value::as_object).into_iter().flatten();
    let pairs: Vec<String> =
        labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    clean(&pairs.join(",")).into_owned()
}

/// Whether the reason of a status is worth a line.
fn telling(service: &Value) -> bool {
    !matches!(text(service, "status"), "healthy" | "completed")
}

/// What is the matter, and when it will be tried again.
fn reason(value: &Value, now: Timestamp) -> String {
    let reason = clean(text(value, "reason")).into_owned();
    match time(value, "next_restart_at").filter(|next| *next > now) {
        Some(next) if reason.is_empty() => format!("next start {}", ago(next, now)),
        _ => reason,
    }
}

/// Where another revision of a service's configuration document is in force than the newest; empty if nowhere.
fn drift(service: &Value) -> String {
    let Some(config) = service.get("config").filter(|config| config.is_object()) else { return String::new() };
    let drifted = number(config, "drifted").unwrap_or(0);
    if drifted == 0 {
        return String::new();
    }
    let rejected = config.get("rejected").filter(|rejected| number(rejected, "revision") == number(config, "revision"));
    let newest = count(config, "revision");
    match rejected {
        Some(rejected) => format!("configuration {newest} was taken back: {}", clean(text(rejected, "reason"))),
        None => format!("configuration {newest} is not yet in force in {drifted} of {}", instances(service).len()),
    }
}

/// A line per service.
#[must_use]
pub fn services(services: &[Value], wide: bool, now: Timestamp) -> String {
    let mut headings = vec!["NAME", "STATUS", ">READY", ">RESTARTS", ">UPTIME", "CHECKED", "ENDPOINT"];
    if wide {
        headings.extend([">RESPONSE", "RUNTIME", "POLICY", "PIDS", "VERSION", "LABELS"]);
    }
    headings.push("REASON");
    let rows = services.iter().map(|service| {
        let restarts: u64 = instances(service).iter().filter_map(|instance| number(instance, "restarts")).sum();
        let managed = !text(service, "runtime").is_empty();
        let up = instances(service).iter().filter_map(uptime).min();
        let mut row = vec![
            clean(text(service, "name")).into_owned(),
            status(text(service, "status")),
            if managed {
                format!("{}/{}", count(service, "ready"), count(service, "replicas"))
            } else {
                count(service, "ready")
            },
            if managed { restarts.to_string() } else { NONE.to_owned() },
            up.map_or_else(|| NONE.to_owned(), span),
            when(service, "last_health_check", now),
            service_endpoint(service),
        ];
        if wide {
            let pids: Vec<String> =
                instances(service).iter().filter_map(|i| number(i, "pid")).map(|pid| pid.to_string()).collect();
            row.extend([
                response(service),
                if managed { clean(text(service, "runtime")).into_owned() } else { "external".to_owned() },
                or_none(clean(text(service, "restart_policy")).into_owned()),
                or_none(pids.join(",")),
                or_none(clean(text(service, "version")).into_owned()),
                or_none(labels(service)),
            ]);
        }
        let why = if telling(service) { reason(service, now) } else { drift(service) };
        row.push(if wide { why } else { cut(&why, 60) });
        row
    });
    table(&headings, rows.collect())
}

fn line(out: &mut String, key: &str, value: &str) {
    if !value.is_empty() && value != NONE {
        out.push_str(&format!("{key:<15}{value}\n"));
    }
}

fn last_exit(instance: &Value, now: Timestamp) -> String {
    let Some(exit) = instance.get("last_exit").filter(|exit| exit.is_object()) else { return NONE.to_owned() };
    let how = match (exit.get("code").and_then(Value::as_i64), exit.get("signal").and_then(Value::as_i64)) {
        _ if exit.get("oom_killed").and_then(Value::as_bool) == Some(true) => "out of memory".to_owned(),
        (Some(code), _) => format!("code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    };
    format!("{how}, {}", when(exit, "at", now))
}

/// Everything about one service: `service` as the API shows it, `health` as its health route does, `asked` as what was really
/// asked for its instances.
#[must_use]
pub fn described(service: &Value, health: &Value, agents: &[Value], asked: &[Value], now: Timestamp) -> String {
    let word = |key: &str| clean(text(service, key)).into_owned();
    let mut out = String::new();
    line(&mut out, "Name:", &paint(Colour::Bold, &word("name")));
    let since = time(service, "since").map_or_else(String::new, |since| format!(", since {}", ago(since, now)));
    line(&mut out, "Status:", &format!("{}{since}", status(text(service, "status"))));
    line(&mut out, "Reason:", &reason(service, now));
    line(&mut out, "Wanted:", &word("desired"));
    line(&mut out, "Endpoint:", &service_endpoint(service));
    line(&mut out, "Health check:", &word("health_endpoint"));
    let runtime = word("runtime");
    line(&mut out, "Runtime:", if runtime.is_empty() { "external (watched, never started)" } else { &runtime });
    let command = service.get("command").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    line(&mut out, "Command:", &clean(&command.collect::<Vec<_>>().join(" ")));
    if !runtime.is_empty() {
        line(&mut out, "Replicas:", &format!("{} ready of {}", count(service, "ready"), count(service, "replicas")));
        line(&mut out, "Restarts:", &word("restart_policy"));
    }
    let depends = service.get("depends_on").and_then(Value::as_object).into_iter().flatten();
    let depends = depends.map(|(name, condition)| format!("{name} ({})", condition.as_str().unwrap_or_default()));
    line(&mut out, "Depends on:", &clean(&depends.collect::<Vec<_>>().join(", ")));
    line(&mut out, "Labels:", &labels(service));
    line(&mut out, "Version:", &word("version"));
    line(&mut out, "Declared:", &when(service, "created_at", now));
    line(&mut out, "Next start:", &when(service, "next_restart_at", now));
    if let Some(config) = service.get("config").filter(|config| config.is_object()) {
        let stable =
            format!("revision {}, in force everywhere: {}", count(config, "revision"), count(config, "stable"));
        let drift = drift(service);
        line(&mut out, "Configuration:", &if drift.is_empty() { stable } else { format!("{stable}; {drift}") });
    }
    if !instances(service).is_empty() {
        out.push_str("\nInstances\n");
        out.push_str(&instance_table(instances(service), now));
    }
    let checks = health.get("checks").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if !checks.is_empty() {
        out.push_str("\nChecks\n");
        out.push_str(&check_table(checks, now));
    }
    if !agents.is_empty() {
        out.push_str("\nAgents\n");
        out.push_str(&coordination_view::agents(agents, false, now));
    }
    // Of replicas that are alike, one is enough; all are in the output as YAML or JSON.
    if let Some(one) = asked.iter().find(|one| one.get("asked").is_some_and(Value::is_object)) {
        let runtime = clean(text(one, "runtime")).into_owned();
        out.push_str(&format!("\nAsked of runtime {runtime} (replica {})\n", count(one, "replica")));
        for line in yaml::write(&one["asked"]).lines() {
            out.push_str(&format!("  {}\n", clean(line)));
        }
    }
    out
}

/// Which revision of its configuration document an instance has.
fn instance_config(instance: &Value) -> String {
    let Some(config) = instance.get("config").filter(|config| config.is_object()) else { return NONE.to_owned() };
    let drifted = config.get("drifted").and_then(Value::as_bool) == Some(true);
    let revision = count(config, "revision");
    let told = match number(config, "acknowledged") {
        Some(acknowledged) if acknowledged.to_string() == revision => format!("{revision} acknowledged"),
        Some(acknowledged) => format!("{revision}, acknowledged {acknowledged}"),
        None => revision,
    };
    if drifted { paint(Colour::Yellow, &told) } else { told }
}

fn instance_table(instances: &[Value], now: Timestamp) -> String {
    // Most services have no document.
    let configured = instances.iter().any(|instance| instance.get("config").is_some_and(Value::is_object));
    let rows = instances.iter().map(|instance| {
        let health = instance.get("health").map_or("", |health| text(health, "status"));
        let mut row = vec![
            count(instance, "replica"),
            status(text(instance, "state")),
            or_none(status(health)),
            count(instance, "pid"),
            instance_endpoint(instance),
            uptime(instance).map_or_else(|| NONE.to_owned(), span),
            count(instance, "restarts"),
            last_exit(instance, now),
            or_none(clean(text(instance, "id")).into_owned()),
            if text(instance, "state") == "running" { String::new() } else { reason(instance, now) },
        ];
        if configured {
            row.insert(8, instance_config(instance));
        }
        row
    });
    let mut headings =
        vec![">#", "STATE", "HEALTH", ">PID", "ENDPOINT", ">UPTIME", ">RESTARTS", "LAST EXIT", "ID", "REASON"];
    if configured {
        headings.insert(8, "CONFIG");
    }
    table(&headings, rows.collect())
}

fn check_table(checks: &[Value], now: Timestamp) -> String {
    let rows = checks.iter().map(|check| {
        vec![
            count(check, "replica"),
            clean(text(check, "kind")).into_owned(),
            clean(text(check, "probe")).into_owned(),
            status(text(check, "status")),
            when(check, "last_check", now),
            response(check),
            format!("{} of {}", count(check, "failures"), count(check, "checks")),
            cut(&clean(text(check, "message")), 60),
        ]
    });
    table(&[">#", "KIND", "PROBE", "STATUS", "CHECKED", ">RESPONSE", "FAILED", "FOUND"], rows.collect())
}

/// One line of output: `corerl-0 | text`.
#[must_use]
pub fn log_line(service: &str, line: &Value, width: usize, prefix: bool) -> String {
    let content: String = text(line, "line").chars().map(|c| if c == '\t' { c } else { clean_char(c) }).collect();
    if !prefix {
        return format!("{content}\n");
    }
    let name = match number(line, "replica") {
        Some(replica) => format!("{service}-{replica}"),
        None => service.to_owned(),
    };
    let colour = if text(line, "stream") == "stderr" { Colour::Yellow } else { Colour::Dim };
    format!("{} {content}\n", paint(colour, &format!("{:<width$} |", clean(&name))))
}

/// Escape codes that services write stay, for their colours' sake; other control characters do not.
fn clean_char(c: char) -> char {
    if c == '\x1b' { c } else { clean(c.encode_utf8(&mut [0; 4])).chars().next().unwrap_or(' ') }
}

/// One event on a line: when, who, what.
#[must_use]
pub fn event(event: &Value, wide: bool, now: Timestamp) -> String {
    let at = match time(event, "at") {
        Some(at) if wide => format!("{at:.3}"),
        Some(at) => ago(at, now),
        None => NONE.to_owned(),
    };
    let who = match number(event, "replica") {
        Some(replica) => format!("{}-{replica}", text(event, "service")),
        None => text(event, "service").to_owned(),
    };
    let code = clean(text(event, "code")).into_owned();
    let code = format!("{code:<16}");
    let code = if text(event, "severity") == "warning" { paint(Colour::Yellow, &code) } else { code };
    format!(
        "{}  {:<20}  {code}  {}\n",
        paint(Colour::Dim, &format!("{at:<8}")),
        clean(&who),
        clean(text(event, "message"))
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::paint::finish;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn corerl() -> Value {
        json!({
            "name": "corerl", "status": "backoff", "reason": "exited with code 1; restart 3 in 3.8 s", "host": "localhost", "port": 8000,
            "health_endpoint": "/health", "restart_policy": "always", "runtime": "process", "replicas": 2, "ready": 1, "desired": "running",
            "labels": {"line": "a"}, "version": null, "last_health_check": "2026-01-01T11:59:57Z", "response_time_ms": 1.25,
            "next_restart_at": "2026-01-01T12:00:04Z", "since": "2026-01-01T11:58:00Z", "command": ["./corerl", "--fast"],
            "depends_on": {"coreio": "service_healthy"}, "created_at": "2026-01-01T09:00:00Z", "unheard_of": [1],
            "instances": [
                {"id": "corerl-0-abc", "replica": 0, "state": "running", "pid": 4711, "host": "localhost", "port": 8000, "uptime_seconds": 250,
                 "restarts": 2, "last_exit": {"code": null, "signal": 9, "at": "2026-01-01T11:55:50Z"}, "health": {"status": "healthy"}},
                {"id": null, "replica": 1, "state": "backoff", "reason": "exited with code 1", "pid": null, "host": "localhost", "port": 0,
                 "uptime_seconds": null, "restarts": 1, "last_exit": {"code": 1, "signal": null, "at": "2026-01-01T12:00:00Z"}, "health": null}
            ]
        })
    }

    fn external() -> Value {
        json!({"name": "coreio", "status": "healthy", "reason": "HTTP 200", "host": "::1", "port": 8001, "runtime": null, "ready": 1, "replicas": 1,
               "last_health_check": null, "instances": []})
    }

    #[test]
    fn a_line_per_service() {
        let text = finish(&services(&[corerl(), external()], false, now()), false);
        let wanted = "\
NAME    STATUS   READY  RESTARTS  UPTIME  CHECKED  ENDPOINT        REASON
corerl  backoff    1/2         3   4m10s  3s ago   localhost:8000  exited with code 1; restart 3 in 3.8 s
coreio  healthy      1         -       -  -        [::1]:8001
";
        assert_eq!(text, wanted);
        let wide = finish(&services(&[corerl(), external()], true, now()), false);
        assert!(wide.contains("1.2ms  process   always  4711  -        line=a"), "{wide}");
        assert!(wide.contains("external  -       -     -        -"), "{wide}");
    }

    #[test]
    fn what_does_not_run_is_reached_nowhere() {
        let once = |state: &str| {
            let instance = json!({"replica": 0, "state": state, "host": "localhost", "port": 20000});
            let service = json!({"name": "once", "status": "completed", "runtime": "process", "host": "localhost",
                "port": 20000, "ready": 0, "replicas": 1, "instances": [instance]});
            let texts = [
                services(std::slice::from_ref(&service), false, now()),
                described(&service, &json!({}), &[], &[], now()),
            ];
            texts.map(|text| finish(&text, false).contains("localhost:20000"))
        };
        for state in ["pending", "backoff", "stopped", "completed", "failed"] {
            assert_eq!(once(state), [false, false], "{state}");
        }
        for state in ["starting", "running", "stopping"] {
            assert_eq!(once(state), [true, true], "{state}");
        }
    }

    #[test]
    fn everything_about_one() {
        let health = json!({"checks": [{"kind": "health", "probe": "http", "replica": 0, "status": "healthy", "last_check": "2026-01-01T11:59:57Z",
            "response_time_ms": 45.0, "checks": 9, "failures": 1, "message": "HTTP 200"}]});
        let wanted = "\
Name:          corerl
Status:        backoff, since 2m ago
Reason:        exited with code 1; restart 3 in 3.8 s
Wanted:        running
Endpoint:      localhost:8000
Health check:  /health
Runtime:       process
Command:       ./corerl --fast
Replicas:      1 ready of 2
Restarts:      always
Depends on:    coreio (service_healthy)
Labels:        line=a
Declared:      3h ago
Next start:    in 4s

Instances
#  STATE    HEALTH    PID  ENDPOINT        UPTIME  RESTARTS  LAST EXIT         ID            REASON
0  running  healthy  4711  localhost:8000   4m10s         2  signal 9, 4m ago  corerl-0-abc
1  backoff  -           -  -                    -         1  code 1, now       -             exited with code 1

Checks
#  KIND    PROBE  STATUS   CHECKED  RESPONSE  FAILED  FOUND
0  health  http   healthy  3s ago       45ms  1 of 9  HTTP 200
";
        assert_eq!(finish(&described(&corerl(), &health, &[], &[], now()), false), wanted);
    }

    #[test]
    fn anything_may_be_missing() {
        for odd in [json!({}), json!(null), json!([1]), json!({"instances": [3, {}], "labels": [], "port": "x"})] {
            let texts = [
                services(std::slice::from_ref(&odd), true, now()),
                described(&odd, &odd, std::slice::from_ref(&odd), std::slice::from_ref(&odd), now()),
                event(&odd, true, now()),
                log_line("a", &odd, 3, true),
            ];
            assert!(texts.iter().all(|text| text.ends_with('\n')), "{texts:?}");
        }
    }

    #[test]
    fn a_service_is_told_with_its_agents() {
        let agent =
            json!({"agent_id": "tank", "group": "default", "state": "silent", "priority": 2, "service": "corerl"});
        let told = finish(&described(&corerl(), &json!({}), &[agent], &[], now()), false);
        let told = told.split_once("\nAgents\n").map(|(_, agents)| agents);
        assert_eq!(
            told,
            Some(
                "AGENT  GROUP    STATE   PRIORITY  SEEN  CYCLE  DECISION\ntank   default  silent         2  -         -  -\n"
            )
        );
    }

    #[test]
    fn lines_and_events() {
        let line = json!({"replica": 0, "stream": "stdout", "line": "\u{1b}[1mhi\u{1b}[0m\tthere\r\u{7}"});
        assert_eq!(finish(&log_line("io", &line, 8, true), false), "io-0     | \u{1b}[1mhi\u{1b}[0m\tthere  \n");
        assert_eq!(log_line("io", &line, 8, false), "\u{1b}[1mhi\u{1b}[0m\tthere  \n");
        let happened = json!({"at": "2026-01-01T11:59:00Z", "service": "corerl", "replica": 1, "severity": "warning", "code": "BackOff", "message": "exited"});
        assert_eq!(
            finish(&event(&happened, false, now()), false),
            "1m ago    corerl-1              BackOff           exited\n"
        );
        assert!(finish(&event(&happened, true, now()), false).starts_with("2026-01-01T11:59:00.000Z  "));
    }

    #[test]
    fn what_was_asked_is_described_once() {
        let asked =
            |replica: u32| json!({"replica": replica, "runtime": "docker", "asked": {"Image": "a:1", "Env": ["A=b"]}});
        let gone = json!({"replica": 0, "runtime": "docker", "asked": null});
        let told = finish(&described(&corerl(), &json!({}), &[], &[gone, asked(1), asked(2)], now()), false);
        let end = "\nAsked of runtime docker (replica 1)\n  Env:\n    - A=b\n  Image: a:1\n";
        assert!(told.ends_with(end), "{told}");
    }
}
