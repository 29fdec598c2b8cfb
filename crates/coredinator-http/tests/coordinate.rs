//! `coordinate`: problems in files, solved by the real binary without a server.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coredinator"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("COREDINATOR_")) {
        command.env_remove(name);
    }
    // Nobody is asked: there is no server at this address.
    command.env("COREDINATOR_ADDR", "127.0.0.1:1").arg("coordinate").args(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Runs it on a problem that comes by standard input.
async fn solve(problem: &str, args: &[&str]) -> Output {
    let args: Vec<&str> = ["--problem", "-"].iter().chain(args).copied().collect();
    let mut child = command(&args).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A program that does not read to the end has its reasons.
    let _ = stdin.write_all(problem.as_bytes()).await;
    drop(stdin);
    tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await.expect("ends in time").unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn plan(problem: &Value, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().chain(&["-o", "json"]).copied().collect();
    let output = solve(&problem.to_string(), &args).await;
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Agents who want so much of a capacity of 10: name, priority, amount.
fn contention(wishes: &[(&str, i32, f64)]) -> Value {
    let agents: Vec<Value> = wishes
        .iter()
        .map(|(id, priority, _)| json!({"agent_id": id, "priority": priority, "fallback": "release"}))
        .collect();
    let want = |id: &str, amount: f64| json!({"agent_id": id, "options": [{"id": "run", "demands": {"steam": amount}, "utility": amount}]});
    let intentions: Vec<Value> = wishes.iter().map(|&(id, _, amount)| want(id, amount)).collect();
    json!({"resources": [{"name": "steam", "capacity": 10, "unit": "t/h"}], "agents": agents, "intentions": intentions})
}

fn grants(plan: &Value) -> Vec<f64> {
    let of = |decision: &Value| decision["grant"]["steam"].as_f64().unwrap_or_default();
    plan["decisions"].as_array().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn by_priority_who_does_not_fit_is_skipped() {
    let plan =
        plan(&contention(&[("a", 3, 6.0), ("b", 2, 6.0), ("c", 1, 3.0)]), &["--strategy", "priority_based"]).await;
    assert_eq!(grants(&plan), [6.0, 0.0, 3.0]);
    assert_eq!(plan["verified"], true);
    assert_eq!(plan["conflicts"][0]["id"], "capacity:steam");
    assert_eq!(plan["decisions"][1]["outcome"], "denied");
}

#[tokio::test]
async fn people_get_a_table() {
    let problem = contention(&[("a", 3, 6.0), ("b", 2, 6.0), ("c", 1, 3.0)]);
    let output = solve(&problem.to_string(), &[]).await;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((code(&output), stderr(&output).as_str()), (0, ""));
    for part in
        ["default cycle 0 by priority_based", "AGENT", "a      run (steam 6)  granted", "capacity:steam", "15 of 10"]
    {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    let names = solve(&problem.to_string(), &["-o", "name"]).await;
    assert_eq!(String::from_utf8_lossy(&names.stdout), "a\nb\nc\n");
}

#[tokio::test]
async fn a_wish_that_cannot_be_understood_costs_its_agent_alone() {
    let mut problem = contention(&[("a", 3, 6.0), ("b", 2, 3.0)]);
    problem["intentions"][0]["options"][0]["demands"]["steem"] = 1.into();
    let output = solve(&problem.to_string(), &["-o", "json"]).await;
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((code(&output), grants(&made)), (0, vec![0.0, 3.0]));
    let told = "what a wants does not count: /options/0/demands/steem: there is no resource \"steem\" (did you mean \"steam\"?)";
    assert!(stderr(&output).contains(told), "{}", stderr(&output));

    let mut problem = contention(&[("a", 3, 6.0)]);
    problem["agents"][0]["fallback"] = serde_json::json!({"id": "safe", "utility": 0, "demands": {"water": 1}});
    let output = solve(&problem.to_string(), &[]).await;
    assert!(
        stderr(&output).contains("the fallback of a cannot be had: /fallback/demands/water"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn everything_wrong_with_a_problem_is_told() {
    let wrong = json!({"agents": [{"agent_id": "a", "wieght": 2}, {"agent_id": "b", "fallback": "hol"}],
        "resources": [{"name": "steam"}]});
    let output = solve(&wrong.to_string(), &["-o", "json"]).await;
    assert_eq!((code(&output), output.stdout.len()), (2, 0));
    for line in [
        "error: standard input has 3 errors",
        "  /resources/0/capacity: is missing",
        "  /agents/0/wieght: unknown field \"wieght\" (did you mean \"weight\"?)",
        "  /agents/1/fallback: a fallback is \"hold\", \"default\", \"release\" or an option, but this is \"hol\" (did you mean \"hold\"?)",
    ] {
        assert!(stderr(&output).contains(line), "{line}\n{}", stderr(&output));
    }
    let semantic = json!({"agents": [{"agent_id": "a", "weight": 0}, {"agent_id": "a"}],
        "resources": [{"name": "steam", "capacity": -1}]});
    let output = solve(&semantic.to_string(), &[]).await;
    assert_eq!(code(&output), 2);
    assert!(
        stderr(&output).contains("has 3 errors") && stderr(&output).contains("/agents/1/agent_id"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn the_record_of_a_cycle_is_known_for_what_it_is() {
    let record =
        json!({"group": "default", "cycle": 3, "decided_by": "strategy", "problem": contention(&[("a", 1, 1.0)])});
    let output = solve(&record.to_string(), &[]).await;
    assert_eq!(code(&output), 2);
    let told = stderr(&output);
    assert!(told.contains("standard input is the record of a cycle, not a problem"), "{told}");
    assert!(told.contains("coredinator replay -") && !told.contains("unknown field"), "{told}");
}

#[tokio::test]
async fn a_loss_has_no_gap_in_percent_and_nothing_is_worth_0() {
    let mut problem = contention(&[("a", 1, 6.0)]);
    problem["agents"][0].as_object_mut().unwrap().remove("fallback");
    problem["intentions"][0]["options"][0]["utility"] = (-3).into();
    let output = solve(&problem.to_string(), &["--strategy", "resource_based"]).await;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("objective -3 of at most 0, "), "{shown}");
    let nobody = solve("{\"agents\": []}", &["-o", "json"]).await;
    let shown = String::from_utf8_lossy(&nobody.stdout).into_owned();
    assert!(shown.contains("\"objective\"") && !shown.contains("-0.0"), "{shown}");
}

#[tokio::test]
async fn garbage_is_refused_and_no_more() {
    let deep = "[".repeat(100_000);
    for garbage in
        ["", "{", "NaN", "[]", "{\"agents\": 1e999}", "{\"agents\": [], \"seed\": NaN}", "{} {}", "\u{0}", &deep]
    {
        let output = solve(garbage, &[]).await;
        let shown: String = garbage.chars().take(20).collect();
        assert_eq!(code(&output), 2, "{shown}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("error: standard input has"), "{shown}: {}", stderr(&output));
    }
    let absent = command(&["--problem", "/nonexistent.json"]).output().await.unwrap();
    assert_eq!(code(&absent), 2);
    assert!(stderr(&absent).contains("cannot read /nonexistent.json"), "{}", stderr(&absent));
}

#[tokio::test]
async fn strategies_are_named_with_their_options_or_by_a_file() {
    let problem = contention(&[("a", 1, 1.0)]).to_string();
    let unknown = solve(&problem, &["--strategy", "priority_base"]).await;
    assert_eq!(code(&unknown), 2);
    assert!(
        stderr(&unknown).contains("unknown strategy \"priority_base\" (did you mean \"priority_based\"?)"),
        "{}",
        stderr(&unknown)
    );
    let option = solve(&problem, &["--option", "colour=red"]).await;
    assert_eq!(code(&option), 2);
    assert!(stderr(&option).contains("/priority_based/colour: unknown field \"colour\""), "{}", stderr(&option));
    for (options, wanted) in [
        (&["ageing.cycles=5", "ageing.at_most=3"][..], ""),
        (&["ageing=1", "ageing.cycles=0"], "/priority_based/ageing: cycles must be 1 to 1000, but is 0"),
        (&["ageing=5"], "/priority_based/ageing: expected an object, but found 5"),
        (&["ageing.cycle=5"], "/priority_based/ageing: unknown field"),
    ] {
        let args: Vec<&str> = options.iter().flat_map(|option| ["--option", option]).collect();
        let output = solve(&problem, &args).await;
        assert_eq!(code(&output), if wanted.is_empty() { 0 } else { 2 }, "{options:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(wanted), "{wanted}\n{}", stderr(&output));
    }
    let nowhere = solve(&problem, &["--strategy", "http"]).await;
    assert!(stderr(&nowhere).contains("/http/url: must be given"), "{}", stderr(&nowhere));
    let file = tempfile::NamedTempFile::new().unwrap();
    for (text, code_wanted) in
        [("priority_based\n", 0), ("priority_based: {}\n", 0), ("{\"priority\": {}}", 2), ("[", 2)]
    {
        std::fs::write(file.path(), text).unwrap();
        let output = solve(&problem, &["--strategy-file", file.path().to_str().unwrap()]).await;
        assert_eq!(code(&output), code_wanted, "{text}: {}", stderr(&output));
    }
}
