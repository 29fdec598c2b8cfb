//! `ps`, `get`, `describe`.

use coredinator_core::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::{
    Failure,
    args::{NamesArgs, PsArgs},
    client::Client,
    fields::{list, text},
    output::Output,
    view,
};

/// All services, page by page.
///
/// # Errors
/// As [`Client::get`].
pub async fn all(client: &Client) -> Result<Vec<Value>, Failure> {
    let mut services = Vec::new();
    let mut token = String::new();
    loop {
        let mut answer = client.get(&format!("/services?limit=1000{token}")).await?;
        if let Some(Value::Array(page)) = answer.get_mut("services").map(Value::take) {
            services.extend(page);
        }
        match answer.get("next_page_token").and_then(Value::as_str) {
            Some(next) if !next.is_empty() => token = format!("&page_token={}", encode(next)),
            _ => return Ok(services),
        }
    }
}

/// One service.
///
/// # Errors
/// As [`Client::get`].
pub async fn one(client: &Client, name: &str) -> Result<Value, Failure> {
    client.get(&format!("/services/{}", encode(name))).await
}

/// A word as part of a URL.
#[must_use]
pub fn encode(word: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(byte);
    word.as_bytes()
        .iter()
        .map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

fn matches(service: &Value, args: &PsArgs) -> bool {
    let labelled = args.labels.iter().all(|wanted| {
        let (key, value) = wanted.split_once('=').map_or((wanted.as_str(), None), |(key, value)| (key, Some(value)));
        let found = service.pointer("/labels").and_then(|labels| labels.get(key)).and_then(Value::as_str);
        found.is_some_and(|found| value.is_none_or(|value| value == found))
    });
    labelled
        && args.text.as_deref().is_none_or(|part| text(service, "name").contains(part))
        && (args.status.is_empty() || args.status.iter().any(|status| status.as_str() == text(service, "status")))
}

/// Writes services as data.
fn show(output: &Output, services: &[Value], single: bool) -> Result<(), Failure> {
    let names: Vec<&str> = services.iter().map(|service| text(service, "name")).collect();
    let value = match services {
        [one] if single => one.clone(),
        many => json!({ "services": many }),
    };
    output.data(&value, &names, |wide| view::services(services, wide, SystemClock.now()))
}

/// `ps`.
///
/// # Errors
/// As [`Client::get`].
pub async fn ps(client: &Client, output: &Output, args: &PsArgs) -> Result<(), Failure> {
    let services: Vec<Value> = all(client).await?.into_iter().filter(|service| matches(service, args)).collect();
    if services.is_empty() {
        output.note(
            "there is no such service; declare one by \"coredinator register\" or in a file for \"coredinator up\"",
        );
    }
    show(output, &services, false)
}

/// `get`.
///
/// # Errors
/// As [`Client::get`].
pub async fn get(client: &Client, output: &Output, args: &NamesArgs) -> Result<(), Failure> {
    let mut services = Vec::new();
    for name in &args.names {
        services.push(one(client, name).await?);
    }
    show(output, &services, args.names.len() == 1)
}

/// `describe`.
///
/// # Errors
/// As [`Client::get`].
pub async fn describe(client: &Client, output: &Output, args: &NamesArgs) -> Result<(), Failure> {
    let mut described = Vec::new();
    let mut agents = None;
    for name in &args.names {
        let service = one(client, name).await?;
        let health = client.get(&format!("/services/{}/health", encode(name))).await?;
        if agents.is_none() {
            // Where coordination is disabled there are none; whatever else is wrong is no reason to tell nothing.
            agents = Some(client.get("/agents").await.unwrap_or_default());
        }
        let its = |agent: &&Value| text(agent, "service") == name.as_str();
        let agents: Vec<&Value> = agents.iter().flat_map(|known| list(known, "agents")).filter(its).collect();
        // A runtime that is away, or shows nothing, is no reason to tell nothing either.
        let asked = match text(&service, "runtime") {
            "" => Value::Null,
            _ => client.get(&format!("/services/{}/inspect", encode(name))).await.unwrap_or_default(),
        };
        let asked = asked.get("instances").cloned().unwrap_or_else(|| json!([]));
        described.push(json!({ "service": service, "health": health, "agents": agents, "asked": asked }));
    }
    let names: Vec<&str> = args.names.iter().map(String::as_str).collect();
    let value = match described.as_slice() {
        [one] => one.clone(),
        many => json!(many),
    };
    output.data(&value, &names, |_| {
        let now = SystemClock.now();
        let texts: Vec<String> = described
            .iter()
            .map(|one| view::described(&one["service"], &one["health"], list(one, "agents"), list(one, "asked"), now))
            .collect();
        texts.join("\n")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let service = json!({"name": "corerl", "status": "healthy", "labels": {"line": "a"}});
        let args = |text: Option<&str>, labels: &[&str], status: &[&str]| PsArgs {
            text: text.map(Into::into),
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
            status: status.iter().map(|status| status.parse().unwrap()).collect(),
        };
        for (wanted, args) in [
            (true, args(None, &[], &[])),
            (true, args(Some("rl"), &["line=a", "line"], &["failed", "healthy"])),
            (false, args(Some("io"), &[], &[])),
            (false, args(None, &["line=b"], &[])),
            (false, args(None, &["row"], &[])),
            (false, args(None, &[], &["failed"])),
        ] {
            assert_eq!(matches(&service, &args), wanted, "{args:?}");
        }
        assert!(!matches(&json!(3), &args(None, &["a"], &[])));
    }

    #[test]
    fn names_cannot_leave_their_place_in_a_url() {
        assert_eq!(encode("corerl-1"), "corerl-1");
        assert_eq!(encode("../a b?é"), "..%2Fa%20b%3F%C3%A9");
    }
}
