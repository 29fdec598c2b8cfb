//! `agents`, `agent`, `cycles`, `cycle`, `step`, `strategy`, `resources`: what a server coordinates.

use std::{collections::BTreeSet, time::Duration};

use coredinator_core::{Clock as _, FieldError, SystemClock};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    ExitStatus, Failure,
    args::{AgentArgs, AgentsArgs, CycleArgs, CyclesArgs, GroupArgs, ResourcesArgs, SwitchArgs},
    client::Client,
    coordinate::choice,
    coordination_view as view,
    fields::list,
    fields::text,
    output::{Format, Output},
    plan_view,
    services::encode,
    sse::SseReader,
};

/// How long a cycle is not shown that it is not known of how it ended.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before a stream that broke off is opened again.
const PAUSE: Duration = Duration::from_secs(1);

/// A path with the group as its parameter, where one is asked for.
fn of_group(path: &str, group: &GroupArgs) -> String {
    group.group.as_ref().map_or_else(
        || path.to_owned(),
        |group| {
            let separator = if path.contains('?') { '&' } else { '?' };
            format!("{path}{separator}group={}", encode(group))
        },
    )
}

/// `agents`.
///
/// # Errors
/// As [`Client::get`].
pub async fn agents(client: &Client, output: &Output, args: &AgentsArgs) -> Result<(), Failure> {
    let answer = client.get(&of_group("/agents", &GroupArgs { group: args.group.clone() })).await?;
    let agents = list(&answer, "agents");
    if agents.is_empty() {
        output.note("there is no agent; they register themselves by POST /api/coredinator/agents/register");
    }
    let names: Vec<&str> = agents.iter().map(|agent| text(agent, "agent_id")).collect();
    output.data(&answer, &names, |wide| view::agents(agents, wide, SystemClock.now()))
}

/// `agent`.
///
/// # Errors
/// As [`Client::get`].
pub async fn agent(client: &Client, output: &Output, args: &AgentArgs) -> Result<(), Failure> {
    let agent = client.get(&format!("/agents/{}", encode(&args.id))).await?;
    output.data(&agent, &[&args.id], |_| view::agent(&agent, SystemClock.now()))
}

/// `cycles`.
///
/// # Errors
/// As [`Client::get`], [`Client::stream`].
pub async fn cycles(client: &Client, output: &Output, args: &CyclesArgs) -> Result<(), Failure> {
    let path = of_group(&format!("/coordination/cycles?limit={}", args.limit), &args.group);
    if !args.watch {
        let answer = client.get(&path).await?;
        let cycles = list(&answer, "cycles");
        let numbers: Vec<String> = cycles.iter().map(|cycle| plan_view::number(cycle, "cycle")).collect();
        let names: Vec<&str> = numbers.iter().map(String::as_str).collect();
        return output.data(&answer, &names, |wide| view::cycles(cycles, wide, SystemClock.now()));
    }
    let mut watched = Watched::default();
    loop {
        match watch(client, output, &path, &mut watched).await {
            // It can go on where it broke off, if the server is there still.
            Err(failure) if failure.exit != ExitStatus::Unreachable || !client.answers().await => return Err(failure),
            _ => output.note("the stream of events ended; opening it again"),
        }
        sleep(PAUSE).await;
    }
}

/// Shows cycles that have not been told, and each as it ends, until the stream does. Events only say that there is news; what
/// is shown is read from the list, so that nothing is missed.
async fn watch(client: &Client, output: &Output, path: &str, watched: &mut Watched) -> Result<(), Failure> {
    let mut response = client.stream("/coordination/events", None).await?;
    let mut reader = SseReader::default();
    loop {
        let answer = client.get(path).await?;
        if !std::mem::replace(&mut watched.headed, true) && matches!(output.format, Format::Table | Format::Wide) {
            output.text(&view::cycle_line_headings(output.format == Format::Wide))?;
        }
        for cycle in watched.news(list(&answer, "cycles"), Instant::now()) {
            match output.format {
                Format::Name => output.text(&format!("{}\n", plan_view::number(cycle, "cycle")))?,
                _ => output.item(cycle, |wide| view::cycle_line(cycle, wide, SystemClock.now()))?,
            }
        }
        let mut news = false;
        while !news {
            let piece = match watched.until {
                None => client.chunk(&mut response).await?,
                Some(until) => match timeout_at(until, client.chunk(&mut response)).await {
                    Ok(piece) => piece?,
                    // It is not going to be settled soon: it is shown as it is.
                    Err(_) => break,
                },
            };
            let Some(piece) = piece else { return Ok(()) };
            let ended =
                |data: &str| serde_json::from_str(data).is_ok_and(|event: Value| text(&event, "type") == "cycle");
            news = reader.push(&piece).iter().any(|event| ended(&event.data));
        }
    }
}

/// Which cycles have been shown. Whether all is well with one whose agents come by themselves is known when the next begins:
/// a cycle is held back for that a little while, and where it takes longer and was not well in the end, shown again.
#[derive(Debug, Default)]
struct Watched {
    /// The newest that was shown.
    told: u64,
    /// Those that were shown before it was known how they ended.
    open: BTreeSet<u64>,
    /// Until when the newest is held back.
    until: Option<Instant>,
    held: u64,
    /// Whether the headings have been written.
    headed: bool,
}

impl Watched {
    /// What is to be shown, the oldest first.
    fn news<'c>(&mut self, cycles: &'c [Value], now: Instant) -> Vec<&'c Value> {
        let number = |cycle: &Value| cycle.get("cycle").and_then(Value::as_u64).unwrap_or_default();
        let mut cycles: Vec<&Value> = cycles.iter().collect();
        cycles.sort_by_key(|cycle| number(cycle));
        let newest = cycles.last().map_or(0, |cycle| number(cycle));
        let mut shown = Vec::new();
        for cycle in cycles {
            let (at, success) = (number(cycle), cycle.get("success").and_then(Value::as_bool));
            if at <= self.told {
                if success.is_some() && self.open.remove(&at) && success == Some(false) {
                    shown.push(cycle);
                }
                continue;
            }
            if success.is_none() && at == newest {
                if self.held != at {
                    (self.held, self.until) = (at, Some(now + PATIENCE));
                }
                if self.until.is_some_and(|until| now < until) {
                    return shown;
                }
            }
            if success.is_none() {
                self.open.insert(at);
            }
            self.told = at;
            shown.push(cycle);
        }
        self.until = None;
        shown
    }
}

/// `cycle`.
///
/// # Errors
/// As [`Client::get`].
pub async fn cycle(client: &Client, output: &Output, args: &CycleArgs) -> Result<(), Failure> {
    let record = record(client, args.cycle, &args.group).await?;
    show(output, &record)
}

/// The record of a cycle.
pub(super) async fn record(client: &Client, cycle: u64, group: &GroupArgs) -> Result<Value, Failure> {
    client.get(&of_group(&format!("/coordination/cycles/{cycle}"), group)).await
}

fn show(output: &Output, record: &Value) -> Result<(), Failure> {
    let number = plan_view::number(record, "cycle");
    output.data(record, &[&number], |wide| view::cycle(record, wide, SystemClock.now()))
}

/// `step`.
///
/// # Errors
/// As [`Client::send`].
pub async fn step(client: &Client, output: &Output, group: &GroupArgs) -> Result<(), Failure> {
    let (_, record) = client.send(Method::POST, &of_group("/coordination/step", group), None).await?;
    show(output, &record)
}

/// `strategy`.
///
/// # Errors
/// As [`Client::send`]; a file that cannot be read.
pub async fn strategy(client: &Client, output: &Output, args: &SwitchArgs) -> Result<(), Failure> {
    let mut group = args.group.clone();
    if args.name.is_some() || args.strategy_file.is_some() {
        let name = args.name.as_deref().unwrap_or_default();
        let (_, choice) = choice(name, &args.option, args.strategy_file.as_deref())?;
        if group.is_none() && !args.all {
            group = only_group(client).await?;
        }
        let mut body = json!({ "conflict_resolution": choice });
        if let Some(group) = &group {
            body["group"] = group.as_str().into();
        }
        client.send(Method::POST, "/coordination/strategy", Some(&body)).await?;
    }
    let groups = groups(client, group.as_deref(), view::strategy_of).await?;
    let names: Vec<&str> = groups.iter().map(|group| text(group, "group")).collect();
    let value = json!({ "groups": groups });
    output.data(&value, &names, |_| view::strategies(&groups))
}

/// `resources`.
///
/// # Errors
/// As [`Client::send`].
pub async fn resources(client: &Client, output: &Output, args: &ResourcesArgs) -> Result<(), Failure> {
    if !args.amounts.is_empty() {
        let amounts: serde_json::Map<String, Value> = args.amounts.iter().cloned().collect();
        let mut body = json!({ "resources": amounts });
        if let Some(group) = &args.group {
            body["group"] = group.as_str().into();
        }
        client.send(Method::POST, "/coordination/resources", Some(&body)).await?;
    }
    let groups = groups(client, args.group.as_deref(), view::resources_of).await?;
    let names: Vec<&str> =
        groups.iter().flat_map(|group| list(group, "resources")).map(|resource| text(resource, "name")).collect();
    let value = json!({ "groups": groups });
    output.data(&value, &names, |_| view::resources(&groups))
}

/// The group that is meant where none is named: the only one there is. Of several none is: a switch stays, so whoever means all
/// of them has to say so. Where there is none, the server says why.
async fn only_group(client: &Client) -> Result<Option<String>, Failure> {
    let status = client.get("/coordination/status").await?;
    let names: Vec<&str> = list(&status, "groups").iter().map(|group| text(group, "group")).collect();
    match names[..] {
        [] => Ok(None),
        [only] => Ok(Some(only.to_owned())),
        _ => {
            let message = format!("there are {} groups, and none is named: {}", names.len(), names.join(", "));
            Err(Failure::new(ExitStatus::Usage, message)
                .hint("say which by --group NAME, or by --all that all of them are meant"))
        }
    }
}

/// What is to be shown of one group, or of all.
async fn groups(client: &Client, wanted: Option<&str>, show: fn(&Value) -> Value) -> Result<Vec<Value>, Failure> {
    let status = client.get("/coordination/status").await?;
    let all = list(&status, "groups");
    let Some(wanted) = wanted else { return Ok(all.iter().map(show).collect()) };
    match all.iter().find(|group| text(group, "group") == wanted) {
        Some(group) => Ok(vec![show(group)]),
        None => {
            let names: Vec<&str> = all.iter().map(|group| text(group, "group")).collect();
            let error = FieldError::new("", format!("there is no group {wanted:?}")).with_nearest(wanted, &names);
            let failure = Failure::new(ExitStatus::NotFound, error.detail);
            Err(error.hint.into_iter().fold(failure, Failure::hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cycle_is_shown_when_it_is_known_how_it_ended_or_after_a_while() {
        let cycle = |number: u64, success: Option<bool>| json!({"cycle": number, "success": success});
        let start = Instant::now();
        let mut watched = Watched::default();
        let mut at = |seconds: u64, cycles: &[Value]| -> Vec<(u64, Option<bool>)> {
            let told = watched.news(cycles, start + Duration::from_secs(seconds));
            told.iter().map(|cycle| (cycle["cycle"].as_u64().unwrap(), cycle["success"].as_bool())).collect()
        };
        // The newest first, as the list has them.
        assert_eq!(at(0, &[cycle(2, None), cycle(1, Some(true))]), [(1, Some(true))]);
        assert_eq!(at(1, &[cycle(3, None), cycle(2, Some(true))]), [(2, Some(true))]);
        assert_eq!(at(2, &[cycle(3, None), cycle(2, Some(true))]), []);
        // Nothing has come of waiting.
        assert_eq!(at(4, &[cycle(3, None)]), [(3, None)]);
        assert_eq!(at(9, &[cycle(4, Some(true)), cycle(3, Some(false))]), [(3, Some(false)), (4, Some(true))]);
        assert_eq!(at(9, &[cycle(4, Some(true)), cycle(3, Some(false))]), []);
        assert_eq!(at(9, &[cycle(5, None)]), []);
        assert_eq!(at(12, &[cycle(5, None)]), [(5, None)]);
        assert_eq!(
            at(13, &[cycle(6, Some(true)), cycle(5, Some(true))]),
            [(6, Some(true))],
            "5 was shown, and is well"
        );
    }
}
