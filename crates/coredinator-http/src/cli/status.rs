//! `status`: how coredinator itself is, and who leads.

use coredinator_core::{Clock, SystemClock, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Failure, client::Client, fields::text, human::ago, output::Output, paint, table::table};

/// `status`.
///
/// # Errors
/// As [`Client::send`].
pub async fn status(client: &Client, output: &Output) -> Result<(), Failure> {
    let leadership = client.send(Method::GET, "/leadership", None).await?.1;
    // One that is coming up or going down answers, too, with an error's status; then the rest has to do.
    let health = client.send_root(Method::GET, "/api/coredinator/health").await.unwrap_or_default();
    let version = client.send_root(Method::GET, "/version").await.unwrap_or_default();
    let value = json!({
        "address": client.address(),
        "version": version["version"],
        "ready": health["ready"].as_bool().unwrap_or(false),
        "status": health["status"],
        "services": health["services"].as_object().map_or(0, serde_json::Map::len),
        "leadership": leadership,
    });
    let name = text(&value["leadership"], "node").to_owned();
    output.data(&value, &[&name], |_| render(&value, SystemClock.now()))
}

fn render(value: &Value, now: Timestamp) -> String {
    let leadership = &value["leadership"];
    let mut out = String::new();
    let mut line = |key: &str, words: String| out.push_str(&format!("{key:<12}{words}\n"));
    let ready = if value["ready"] == true { text(value, "status") } else { "not ready" };
    line("Address:", paint::clean(text(value, "address")).into_owned());
    line("Version:", paint::clean(text(value, "version")).into_owned());
    line("Status:", format!("{}, {} services", paint::status(ready), value["services"]));
    let epoch = &leadership["epoch"];
    let role = match (text(leadership, "role"), text(&leadership["leader"], "node")) {
        ("leader", _) => format!("leader, epoch {epoch}"),
        (_, "") => format!("follower, and nobody leads (epoch {epoch} was the last)"),
        (_, leader) => format!("follower of {}, epoch {epoch}", paint::clean(leader)),
    };
    line("Role:", role);
    if !text(leadership, "node").is_empty() {
        let trouble = text(leadership, "trouble");
        let acts = if trouble.is_empty() {
            format!("epoch {}", leadership["node_epoch"])
        } else {
            format!("does not act: {}", paint::clean(trouble))
        };
        line("Node:", format!("{} ({acts})", paint::clean(text(leadership, "node"))));
    }
    if let Some(stale) = leadership["stale_seconds"].as_f64() {
        line("Store:", format!("answered {stale:.1} s ago"));
    }
    let rows: Vec<Vec<String>> =
        leadership["replicas"].as_array().into_iter().flatten().map(|replica| row(replica, now)).collect();
    if leadership["shared"] == true && !rows.is_empty() {
        out.push('\n');
        out.push_str(&table(&["NODE", "STATE", "LEADS", "VERSION", "STARTED", "ADDRESS"], rows));
    }
    out
}

fn row(replica: &Value, now: Timestamp) -> Vec<String> {
    let state = match replica["silent_seconds"].as_f64() {
        Some(silent) => format!("lost, silent for {silent:.0} s"),
        None => "alive".to_owned(),
    };
    vec![
        paint::clean(text(replica, "node")).into_owned(),
        state,
        if replica["leads"] == true { "yes".to_owned() } else { String::new() },
        paint::clean(text(replica, "version")).into_owned(),
        text(replica, "started_at").parse().map_or_else(|_| String::new(), |started| ago(started, now)),
        paint::clean(text(replica, "address")).into_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::paint::finish;

    #[test]
    fn a_follower_tells_whom_it_follows_and_who_is_lost() {
        let replica = |node: &str, leads: bool, silent: Value| {
            json!({
                "node": node, "address": format!("http://{node}:8002"), "version": "0.1.0", "leads": leads,
                "started_at": "2026-01-01T00:00:00.000Z", "alive": silent.is_null(), "silent_seconds": silent,
            })
        };
        let value = json!({
            "address": "http://b:8002", "version": "0.1.0", "ready": true, "status": "healthy", "services": 3,
            "leadership": {
                "role": "follower", "epoch": 7, "leader": {"node": "a", "address": "http://a:8002"}, "node": "b",
                "node_epoch": 2, "shared": true, "stale_seconds": 0.42, "trouble": null,
                "replicas": [
                    replica("a", true, Value::Null), replica("b", false, Value::Null), replica("c", false, json!(31.5)),
                ],
            },
        });
        let told = finish(&render(&value, Timestamp::UNIX_EPOCH), false);
        for words in ["follower of a, epoch 7", "b (epoch 2)", "answered 0.4 s ago", "lost, silent for 32 s"] {
            assert!(told.contains(words), "{words} is missing in:\n{told}");
        }
    }

    #[test]
    fn one_that_is_alone_has_no_list() {
        let value = json!({
            "address": "http://127.0.0.1:8002", "version": "0.1.0", "ready": true, "status": "healthy", "services": 0,
            "leadership": {"role": "leader", "epoch": 4, "leader": {"node": "a", "address": null}, "node": "a",
                "node_epoch": 4, "shared": false, "stale_seconds": null, "trouble": null, "replicas": []},
        });
        let told = finish(&render(&value, Timestamp::UNIX_EPOCH), false);
        assert!(told.contains("leader, epoch 4") && !told.contains("NODE "), "{told}");
    }
}
