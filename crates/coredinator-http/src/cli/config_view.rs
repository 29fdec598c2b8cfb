//! Plans, differences and revisions of the configuration as people read them; from the API's JSON.

use serde_json::Value;

use super::{
    fields::text,
    paint::{Colour, clean, paint},
    table::table,
};
use crate::config::yaml;

fn list<'v>(of: &'v Value, pointer: &str) -> &'v [Value] {
    of.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// One thing that is wrong with a document.
#[must_use]
pub fn problem(problem: &Value) -> String {
    let pointer = Some(text(problem, "pointer")).filter(|pointer| !pointer.is_empty()).unwrap_or("/");
    let hint = Some(text(problem, "hint")).filter(|hint| !hint.is_empty());
    let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
    clean(&format!("{pointer}: {}{hint}", text(problem, "message"))).into_owned()
}

/// What is doubtful about a document.
#[must_use]
pub fn warning(of: &Value) -> String {
    format!("{} {}", paint(Colour::Yellow, "warning:"), problem(of))
}

/// The names of the services that a plan changes.
#[must_use]
pub fn changed_names(of: &Value) -> Vec<String> {
    let changed = list(of, "/plan/services").iter().filter(|service| text(service, "action") != "unchanged");
    changed.map(|service| text(service, "service").to_owned()).collect()
}

fn sign(action: &str) -> String {
    match action {
        "create" => paint(Colour::Green, "+"),
        "delete" => paint(Colour::Red, "-"),
        _ => paint(Colour::Yellow, "~"),
    }
}

/// What becomes of instances, in words.
fn effect(word: &str) -> &str {
    match word {
        "start" => "starts",
        "stop" => "stops",
        "restart" => "is restarted, one instance at a time",
        "reload" => "is told of its new document, one instance at a time",
        _ => "goes on",
    }
}

/// A plan: a line for each service and section that changes.
#[must_use]
pub fn plan(of: &Value) -> String {
    let mut out = String::new();
    for service in list(of, "/plan/services").iter().filter(|service| text(service, "action") != "unchanged") {
        let fields: Vec<&str> = list(service, "/fields").iter().filter_map(Value::as_str).collect();
        let fields = if fields.is_empty() { String::new() } else { format!(" ({})", fields.join(", ")) };
        let action = text(service, "action");
        out.push_str(&format!(
            "{} {} {action}{}: {}\n",
            sign(action),
            clean(text(service, "service")),
            clean(&fields),
            effect(text(service, "effect"))
        ));
    }
    for section in list(of, "/plan/sections") {
        let action = text(section, "action");
        out.push_str(&format!("{} section {} {action}\n", sign(action), clean(text(section, "section"))));
    }
    if out.is_empty() {
        return "nothing to change\n".to_owned();
    }
    out
}

/// The differences of a change: each pointer, and below it what was and what is, as YAML.
#[must_use]
pub fn differences(of: &Value) -> String {
    let mut out = String::new();
    for difference in list(of, "/differences") {
        out.push_str(&format!("{}\n", clean(text(difference, "pointer"))));
        for (key, sign, colour) in [("before", '-', Colour::Red), ("after", '+', Colour::Green)] {
            let Some(value) = difference.get(key).filter(|value| !value.is_null()) else { continue };
            for line in yaml::write(value).lines() {
                out.push_str(&paint(colour, &clean(&format!("{sign} {line}"))));
                out.push('\n');
            }
        }
    }
    out
}

/// What an update or a rollback came to.
#[must_use]
pub fn updated(of: &Value) -> String {
    let revision = of.get("revision").map(ToString::to_string).unwrap_or_default();
    let flag = |key: &str| of.get(key).and_then(Value::as_bool).unwrap_or(false);
    let what = match (flag("dry_run"), flag("changed")) {
        (true, _) => format!("tried on revision {revision}; nothing was changed\n"),
        (false, true) => format!("revision {revision} is in force\n"),
        (false, false) => return format!("nothing to change: revision {revision} stays in force\n"),
    };
    plan(of) + &what
}

/// Revisions, a line each.
#[must_use]
pub fn history(revisions: &[Value]) -> String {
    let rows = revisions.iter().map(|revision| {
        let source = match revision.get("to").and_then(Value::as_u64) {
            Some(to) => format!("rollback to {to}"),
            None => text(revision, "source").to_owned(),
        };
        let mut parts: Vec<&str> = list(revision, "/differences").iter().map(|one| text(one, "pointer")).collect();
        parts.iter_mut().for_each(|pointer| {
            let short = pointer.strip_prefix("/coredinator/").unwrap_or(pointer.trim_start_matches('/'));
            let short = short.strip_prefix("services/").unwrap_or(short);
            *pointer = short.split('/').next().unwrap_or_default();
        });
        parts.dedup();
        vec![
            revision.get("revision").map(ToString::to_string).unwrap_or_default(),
            text(revision, "at").to_owned(),
            source,
            clean(text(revision, "author")).into_owned(),
            clean(&super::human::cut(&parts.join(", "), 60)).into_owned(),
            clean(text(revision, "message").lines().next().unwrap_or_default()).into_owned(),
        ]
    });
    table(&[">REVISION", "AT", "BY", "AUTHOR", "CHANGED", "MESSAGE"], rows.collect())
}

/// One revision, with its differences.
#[must_use]
pub fn revision(of: &Value) -> String {
    let number = of.get("revision").map(ToString::to_string).unwrap_or_default();
    let mut out = format!("revision {number}, {} by {}", text(of, "at"), clean(text(of, "author")));
    match of.get("to").and_then(Value::as_u64) {
        Some(to) => out.push_str(&format!(", a rollback to {to}\n")),
        None => out.push_str(&format!(" ({})\n", text(of, "source"))),
    }
    for line in text(of, "message").lines() {
        out.push_str(&format!("  {}\n", clean(line)));
    }
    out + "\n" + &differences(of)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::paint::finish;

    #[test]
    fn what_people_read() {
        let of = json!({
            "revision": 4, "changed": true, "dry_run": false,
            "plan": {
                "services": [
                    {"service": "a", "action": "update", "fields": ["command", "port"], "effect": "restart"},
                    {"service": "b", "action": "unchanged", "fields": [], "effect": "none"},
                    {"service": "c", "action": "delete", "fields": [], "effect": "stop"},
                ],
                "sections": [{"section": "alerts", "action": "create"}],
            },
            "differences": [
                {"pointer": "/coredinator/services/a/port", "before": 1, "after": 2},
                {"pointer": "/alerts", "before": null, "after": [{"name": "x"}]},
            ],
        });
        let plain = |text: String| finish(&text, false);
        assert_eq!(
            plain(updated(&of)),
            "~ a update (command, port): is restarted, one instance at a time\n- c delete: stops\n+ section alerts create\n\
             revision 4 is in force\n"
        );
        assert_eq!(plain(differences(&of)), "/coredinator/services/a/port\n- 1\n+ 2\n/alerts\n+ - name: x\n");
        assert_eq!(changed_names(&of), ["a", "c"]);
        let garbage = json!({"plan": {"services": [7]}, "differences": [null], "revision": "x"});
        for view in [plan, differences, updated, revision] {
            let _ = view(&garbage);
            let _ = view(&Value::Null);
        }
    }
}
