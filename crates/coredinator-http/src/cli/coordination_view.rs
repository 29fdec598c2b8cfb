//! Agents and cycles as people read them; from the API's JSON, of which anything may be missing.

use coredinator_core::Timestamp;
use serde_json::Value;

use super::{
    fields::list,
    fields::text,
    human::{ago, cut, milliseconds},
    paint::{Colour, clean, paint},
    plan_view::{self, NONE, amount, amounts, number, or_none, outcome, values},
    table::table,
};

fn when(value: &Value, key: &str, now: Timestamp) -> String {
    text(value, key).parse().map_or_else(|_| NONE.to_owned(), |then| ago(then, now))
}

fn yes_or_no(value: Option<&Value>) -> String {
    match value.and_then(Value::as_bool) {
        Some(true) => paint(Colour::Green, "yes"),
        Some(false) => paint(Colour::Red, "no"),
        None => NONE.to_owned(),
    }
}

/// What the strategy of a document is called: the text, or the one key.
fn strategy(choice: &Value) -> String {
    match choice {
        Value::Object(one) => one.keys().next().map_or_else(|| NONE.to_owned(), |name| clean(name).into_owned()),
        other => or_none(clean(other.as_str().unwrap_or_default()).into_owned()),
    }
}

/// A line per cycle, the headings first.
#[must_use]
pub fn cycles(summaries: &[Value], wide: bool, now: Timestamp) -> String {
    let rows = summaries.iter().map(|summary| cycle_row(summary, wide, now)).collect();
    table(&cycle_headings(wide), rows)
}

fn cycle_headings(wide: bool) -> Vec<&'static str> {
    let mut headings = vec![
        ">CYCLE",
        "BEGAN",
        "STRATEGY",
        "STATUS",
        ">ACTIVE",
        ">CONFLICTS",
        ">OBJECTIVE",
        ">GAP",
        ">TOOK",
        ">FAULTS",
        "ALL WELL",
    ];
    if wide {
        headings.extend([">EPOCH", "OUTCOME", ">SHED", ">UNACKNOWLEDGED"]);
    }
    headings
}

fn cycle_row(summary: &Value, wide: bool, now: Timestamp) -> Vec<String> {
    let took = summary.get("total_ms").and_then(Value::as_f64).map_or_else(|| NONE.to_owned(), milliseconds);
    let gap = plan_view::gap(summary);
    let mut row = vec![
        number(summary, "cycle"),
        when(summary, "started_at", now),
        or_none(clean(text(summary, "strategy")).into_owned()),
        match text(summary, "outcome") {
            "distributed" | "" => status(text(summary, "status")),
            other => paint(Colour::Red, &clean(other)),
        },
        format!("{}/{}", number(summary, "active"), number(summary, "agents")),
        number(summary, "conflicts"),
        number(summary, "objective"),
        gap.map_or_else(|| NONE.to_owned(), |gap| format!("{}%", amount((gap * 1e4).round() / 100.0))),
        took,
        match summary.get("faults").and_then(Value::as_u64) {
            Some(0) | None => number(summary, "faults"),
            Some(faults) => paint(Colour::Red, &faults.to_string()),
        },
        yes_or_no(summary.get("success")),
    ];
    if wide {
        row.extend([
            number(summary, "epoch"),
            clean(text(summary, "outcome")).into_owned(),
            number(summary, "shed"),
            number(summary, "unacknowledged"),
        ]);
    }
    row
}

/// The widths of what stands on the lines of a stream, which are written before it is known what comes.
const WIDTHS: [usize; 15] = [7, 8, 16, 11, 9, 9, 12, 8, 8, 6, 8, 5, 11, 4, 14];

/// What stands above the lines of cycles as they end.
#[must_use]
pub fn cycle_line_headings(wide: bool) -> String {
    spaced(cycle_headings(wide).into_iter().map(|heading| heading.trim_start_matches('>').to_owned()))
}

/// A cycle that has just ended, on a line.
#[must_use]
pub fn cycle_line(summary: &Value, wide: bool, now: Timestamp) -> String {
    spaced(cycle_row(summary, wide, now).into_iter())
}

fn spaced(cells: impl Iterator<Item = String>) -> String {
    let cells = cells.zip(WIDTHS).map(|(cell, width)| {
        // Marks of colour take no room.
        let plain = super::paint::finish(&cell, false).chars().count();
        format!("{cell}{}", " ".repeat(usize::saturating_sub(width, plain)))
    });
    format!("{}\n", cells.collect::<Vec<_>>().join(" ").trim_end())
}

fn status(word: &str) -> String {
    match word {
        "optimal" => paint(Colour::Green, word),
        "fallback" => paint(Colour::Yellow, word),
        other => or_none(clean(other).into_owned()),
    }
}

/// The steps of a cycle, in their order.
const STEPS: [&str; 7] = ["collect", "detect", "resolve", "verify", "store", "distribute", "total"];

/// A cycle's record: its plan, and how it came about.
#[must_use]
pub fn cycle(record: &Value, wide: bool, now: Timestamp) -> String {
    let mut out = match record.get("plan").filter(|plan| plan.is_object()) {
        Some(plan) => plan_view::plan(plan, record.get("problem"), wide),
        None => {
            let who = format!("{} cycle {}", clean(text(record, "group")), number(record, "cycle"));
            format!("{}: no plan\n", paint(Colour::Bold, &who))
        }
    };
    out.push('\n');
    let mut line = |key: &str, value: String| {
        if !value.is_empty() && value != NONE {
            out.push_str(&format!("{key:<16}{value}\n"));
        }
    };
    line("Began:", when(record, "started_at", now));
    line("Epoch:", number(record, "epoch"));
    line(
        "Strategy:",
        record.get("strategy").map_or_else(String::new, |choice| clean(&choice.to_string()).into_owned()),
    );
    line("Decided by:", clean(text(record, "decided_by")).into_owned());
    line("Outcome:", clean(text(record, "outcome")).into_owned());
    line("Trouble:", clean(text(record, "trouble")).into_owned());
    let took = |step: &&str| record.get("timings")?.get(format!("{step}_ms")).and_then(Value::as_f64);
    let timings = STEPS.iter().filter_map(|step| Some(format!("{step} {}", milliseconds(took(step)?))));
    line("Took:", timings.collect::<Vec<_>>().join(", "));
    let late: Vec<&str> = list(record, "unacknowledged").iter().filter_map(Value::as_str).collect();
    line("Unacknowledged:", clean(&late.join(", ")).into_owned());
    for fault in list(record, "faults") {
        let details: Vec<&str> = list(fault, "details").iter().filter_map(Value::as_str).collect();
        let told = format!("{} {}: {}", text(fault, "strategy"), text(fault, "kind"), details.join("; "));
        line("Fault:", paint(Colour::Red, &clean(&told)));
    }
    for (agent, why) in record.get("agent_faults").and_then(Value::as_object).into_iter().flatten() {
        line("Agent:", paint(Colour::Yellow, &clean(&format!("{agent}: {}", why.as_str().unwrap_or_default()))));
    }
    let said = list(record, "negotiation").len() as u64;
    line("Negotiation:", if said > 0 { plan_view::rounds(said) } else { String::new() });
    for told in revised(record) {
        line("Revised:", told);
    }
    out
}

/// Who wanted something else in the end of a negotiation than at first: what at first, and what then.
fn revised(record: &Value) -> impl Iterator<Item = String> {
    let asked = record.get("problem").map_or(&[][..], |problem| list(problem, "intentions"));
    let revisions = record.get("plan").map_or(&[][..], |plan| list(plan, "revisions"));
    let wanted = |intention: &Value| match list(intention, "options") {
        [] => NONE.to_owned(),
        [only] => plan_view::option(only),
        [first, others @ ..] => format!("{} (or {} other)", plan_view::option(first), others.len()),
    };
    revisions.iter().map(move |revision| {
        let id = text(revision, "agent_id");
        let first = asked.iter().find(|intention| text(intention, "agent_id") == id);
        let first = first.map_or_else(|| NONE.to_owned(), wanted);
        format!("{} from {first} to {}", clean(id), wanted(revision))
    })
}

/// What a decision grants: the option, what of it, and at which values.
pub(super) fn decided(decision: &Value) -> String {
    let parts = [amounts(decision, "grant"), values(decision, "values")];
    let got = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let option = clean(text(decision, "option_id")).into_owned();
    let what = [option, got].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
    format!("{} {}", outcome(text(decision, "outcome")), cut(&what, 60)).trim_end().to_owned()
}

fn state(word: &str) -> String {
    match word {
        "active" => paint(Colour::Green, word),
        "silent" => paint(Colour::Yellow, word),
        other => paint(Colour::Dim, &clean(other)),
    }
}

/// A line per agent.
#[must_use]
pub fn agents(agents: &[Value], wide: bool, now: Timestamp) -> String {
    let mut headings = vec!["AGENT", "GROUP", "STATE", ">PRIORITY", "SEEN", ">CYCLE", "DECISION"];
    if wide {
        headings.extend([">WEIGHT", ">SEQ", ">ACKNOWLEDGED", "SERVICE", "ENDPOINT"]);
    }
    let rows = agents.iter().map(|agent| {
        let decision = agent.get("decision").filter(|decision| decision.is_object());
        let mut row = vec![
            clean(text(agent, "agent_id")).into_owned(),
            clean(text(agent, "group")).into_owned(),
            state(text(agent, "state")),
            number(agent, "priority"),
            when(agent, "last_seen_at", now),
            decision.map_or_else(|| NONE.to_owned(), |decision| number(decision, "cycle")),
            decision.map_or_else(|| NONE.to_owned(), decided),
        ];
        if wide {
            row.extend([
                number(agent, "weight"),
                number(agent, "intention_seq"),
                number(agent, "acknowledged_cycle"),
                or_none(clean(text(agent, "service")).into_owned()),
                or_none(clean(text(agent, "endpoint")).into_owned()),
            ]);
        }
        row
    });
    table(&headings, rows.collect())
}

/// Everything about one agent.
#[must_use]
pub fn agent(agent: &Value, now: Timestamp) -> String {
    let mut out = String::new();
    let mut line = |key: &str, value: String| {
        if !value.is_empty() && value != NONE {
            out.push_str(&format!("{key:<15}{value}\n"));
        }
    };
    let word = |key: &str| clean(text(agent, key)).into_owned();
    line("Agent:", paint(Colour::Bold, &word("agent_id")));
    line("Group:", word("group"));
    let since = match when(agent, "silent_since", now) {
        since if since == NONE => String::new(),
        since => format!(", since {since}"),
    };
    line("State:", format!("{}{since}", state(text(agent, "state"))));
    line("Priority:", number(agent, "priority"));
    line("Weight:", number(agent, "weight"));
    line("Preemptible:", yes_or_no(agent.get("preemptible")));
    line("Endpoint:", or_none(word("endpoint")));
    line("Negotiates:", yes_or_no(agent.get("negotiates")));
    line("Service:", word("service"));
    line("Time to live:", format!("{} s", number(agent, "ttl_seconds")));
    let fallback = match agent.get("fallback") {
        None | Some(Value::Null) => "none: it must get one of its options".to_owned(),
        Some(Value::String(word)) => clean(word).into_owned(),
        Some(option) => plan_view::option(option),
    };
    line("Fallback:", fallback);
    line("Registered:", when(agent, "registered_at", now));
    line("Seen:", when(agent, "last_seen_at", now));
    line("Intention:", number(agent, "intention_seq"));
    if let Some(decision) = agent.get("decision").filter(|decision| decision.is_object()) {
        line("Decision:", format!("{} (cycle {})", decided(decision), number(decision, "cycle")));
        let why = decision.get("reason").map_or("", |reason| text(reason, "text"));
        line("Why:", clean(why).into_owned());
        line("Fault:", clean(text(decision, "fault")).into_owned());
    }
    line("Acknowledged:", number(agent, "acknowledged_cycle"));
    if let Some(holding) = agent.get("holding").filter(|holding| holding.is_object()) {
        let parts = [amounts(holding, "grant"), values(holding, "values")];
        line("Holds:", parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", "));
    }
    out
}

/// What `strategy` shows of a group, from the status of coordination.
#[must_use]
pub fn strategy_of(group: &Value) -> Value {
    serde_json::json!({
        "group": text(group, "group"),
        "strategy": group.get("strategy").cloned().unwrap_or_default(),
    })
}

/// A line per group: by which strategy its conflicts are resolved.
#[must_use]
pub fn strategies(groups: &[Value]) -> String {
    let rows = groups.iter().map(|group| {
        let choice = group.get("strategy").unwrap_or(&Value::Null);
        let options = match choice {
            Value::Object(one) => one.values().next().map(ToString::to_string).unwrap_or_default(),
            _ => String::new(),
        };
        vec![clean(text(group, "group")).into_owned(), strategy(choice), clean(&options).into_owned()]
    });
    table(&["GROUP", "STRATEGY", "OPTIONS"], rows.collect())
}

/// What `resources` shows of a group, from the status of coordination.
#[must_use]
pub fn resources_of(group: &Value) -> Value {
    serde_json::json!({
        "group": text(group, "group"),
        "resources": group.get("resources").cloned().unwrap_or_default(),
    })
}

/// A line per resource: how much there is of it.
#[must_use]
pub fn resources(groups: &[Value]) -> String {
    let row = |group: &Value, resource: &Value| {
        vec![
            clean(text(group, "group")).into_owned(),
            clean(text(resource, "name")).into_owned(),
            number(resource, "capacity"),
            number(resource, "reserve"),
            or_none(clean(text(resource, "unit")).into_owned()),
        ]
    };
    let of = |group| list(group, "resources").iter().map(move |resource| row(group, resource));
    table(&["GROUP", "RESOURCE", ">CAPACITY", ">RESERVE", "UNIT"], groups.iter().flat_map(of).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::paint::finish;

    fn now() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    fn decision() -> Value {
        json!({"agent_id": "a", "group": "default", "cycle": 7, "epoch": 2, "outcome": "scaled", "option_id": "run", "fraction": 0.5,
            "grant": {"steam": 3.0}, "values": {"level": 1.5}, "utility": 2, "reason": {"code": "limited", "text": "b took the rest"}})
    }

    #[test]
    fn a_line_per_agent() {
        let a = json!({"agent_id": "a", "group": "default", "priority": 3, "weight": 1.0, "state": "active", "intention_seq": 9,
            "last_seen_at": "2026-01-01T11:59:58Z", "decision": decision(), "acknowledged_cycle": 7, "unheard_of": {}});
        let b = json!({"agent_id": "b", "group": "default", "priority": 0, "state": "silent"});
        let wanted = "\
AGENT  GROUP    STATE   PRIORITY  SEEN    CYCLE  DECISION
a      default  active         3  2s ago      7  scaled run: steam 3, level=1.5
b      default  silent         0  -           -  -
";
        assert_eq!(finish(&agents(&[a.clone(), b], false, now()), false), wanted);
        let told = finish(&agent(&a, now()), false);
        for line in [
            "Decision:      scaled run: steam 3, level=1.5 (cycle 7)",
            "Why:           b took the rest",
            "Acknowledged:  7",
        ] {
            assert!(told.lines().any(|found| found == line), "{line}\n{told}");
        }
    }

    #[test]
    fn a_line_per_cycle() {
        let summary = json!({"cycle": 41, "epoch": 2, "started_at": "2026-01-01T11:59:59Z", "strategy": "centralized", "outcome": "distributed",
            "status": "optimal", "agents": 3, "active": 2, "conflicts": 1, "objective": 9.5, "gap": 0.00123, "shed": 0, "faults": 0,
            "total_ms": 12.5, "unacknowledged": 1, "success": null});
        let lost = json!({"cycle": 42, "outcome": "withheld", "success": false});
        let wanted = "\
CYCLE  BEGAN   STRATEGY     STATUS    ACTIVE  CONFLICTS  OBJECTIVE    GAP  TOOK  FAULTS  ALL WELL
   41  1s ago  centralized  optimal      2/3          1        9.5  0.12%  12ms       0  -
   42  -       -            withheld     -/-          -          -      -     -       -  no
";
        assert_eq!(finish(&cycles(&[summary.clone(), lost], false, now()), false), wanted);
        // Lines of a stream stand below headings that do not know them.
        let told = [cycle_line_headings(false), cycle_line(&summary, false, now())].map(|line| finish(&line, false));
        let wanted = [
            "CYCLE   BEGAN    STRATEGY         STATUS      ACTIVE    CONFLICTS OBJECTIVE    GAP      TOOK     FAULTS ALL WELL\n",
            "41      1s ago   centralized      optimal     2/3       1         9.5          0.12%    12ms     0      -\n",
        ];
        assert_eq!(told, wanted);
        let wide = [cycle_line_headings(true), cycle_line(&summary, true, now())].map(|line| finish(&line, false));
        assert!(wide[0].ends_with("ALL WELL EPOCH OUTCOME     SHED UNACKNOWLEDGED\n"), "{}", wide[0]);
        assert!(wide[1].ends_with("-        2     distributed 0    1\n"), "{}", wide[1]);
    }

    #[test]
    fn how_a_cycle_came_about() {
        let record = json!({"group": "default", "cycle": 41, "epoch": 2, "strategy": {"priority_based": {}}, "decided_by": "strategy",
            "outcome": "withheld", "trouble": "the store is full", "timings": {"collect_ms": 1.25, "verify_ms": 0.5, "resolve_ms": 12.0, "total_ms": 40.0},
            "faults": [{"strategy": "mine", "kind": "panicked", "details": ["oops"]}], "agent_faults": {"b": "HTTP 500"},
            "unacknowledged": ["c"]});
        let told = finish(&cycle(&record, false, now()), false);
        for line in [
            "default cycle 41: no plan",
            "Trouble:        the store is full",
            "Took:           collect 1.2ms, resolve 12ms, verify 0.5ms, total 40ms",
            "Fault:          mine panicked: oops",
            "Agent:          b: HTTP 500",
            "Unacknowledged: c",
        ] {
            assert!(told.lines().any(|found| found == line), "{line}\n{told}");
        }
    }

    #[test]
    fn what_was_revised_in_negotiation() {
        let wants = |options: Value| json!({"agent_id": "dryer", "options": options});
        let (run, slow) =
            (json!({"id": "run", "demands": {"steam": 6}}), json!({"id": "slow", "demands": {"steam": 2}}));
        let record = json!({"group": "default", "cycle": 41, "problem": {"intentions": [wants(json!([run.clone(), slow.clone()]))]},
            "plan": {"revisions": [wants(json!([slow]))]}, "negotiation": [{"round": 1}]});
        let told = finish(&cycle(&record, false, now()), false);
        for line in
            ["Negotiation:    1 round", "Revised:        dryer from run (steam 6) (or 1 other) to slow (steam 2)"]
        {
            assert!(told.lines().any(|found| found == line), "{line}\n{told}");
        }
    }

    #[test]
    fn which_strategies_are_in_force() {
        let group =
            strategy_of(&json!({"group": "default", "strategy": {"game_theoretic": {"rule": "vcg"}}, "more": 1}));
        let plain = strategy_of(&json!({"group": "b", "strategy": "centralized"}));
        assert_eq!(
            finish(&strategies(&[group, plain]), false),
            "GROUP    STRATEGY        OPTIONS\ndefault  game_theoretic  {\"rule\":\"vcg\"}\nb        centralized\n"
        );
    }

    #[test]
    fn how_much_there_is() {
        let group = json!({"group": "default", "strategy": "centralized", "resources": [
            {"name": "pumps", "capacity": 3.0, "reserve": 1.0, "unit": "", "kind": "unit"},
            {"name": "steam", "capacity": 12.5, "reserve": 0.0, "unit": "t/h", "kind": "divisible"}]});
        assert_eq!(
            finish(&resources(&[resources_of(&group)]), false),
            "GROUP    RESOURCE  CAPACITY  RESERVE  UNIT\ndefault  pumps            3        1  -\n\
             default  steam         12.5        0  t/h\n"
        );
    }

    #[test]
    fn anything_may_be_missing() {
        for odd in
            [json!({}), json!(null), json!([1]), json!({"decision": 3, "faults": [1], "timings": [], "fallback": []})]
        {
            let texts = [
                agents(std::slice::from_ref(&odd), true, now()),
                agent(&odd, now()),
                cycles(std::slice::from_ref(&odd), true, now()),
                cycle(&odd, true, now()),
                cycle_line(&odd, true, now()),
                strategies(&[strategy_of(&odd)]),
                resources(&[resources_of(&odd)]),
            ];
            assert!(texts.iter().all(|text| text.ends_with('\n')), "{texts:?}");
        }
    }
}
