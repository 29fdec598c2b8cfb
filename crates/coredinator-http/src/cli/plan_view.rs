//! Plans as people read them; from JSON, of which anything may be missing.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    fields::{list, text},
    human::{cut, milliseconds},
    paint::{Colour, clean, paint},
    table::table,
};

/// What stands where there is nothing.
pub(super) const NONE: &str = "-";

/// A number to four decimals at most, without trailing zeros.
pub(super) fn amount(number: f64) -> String {
    let text = format!("{number:.4}");
    let short = text.trim_end_matches('0').trim_end_matches('.');
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

pub(super) fn number(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_f64).map_or_else(|| NONE.to_owned(), amount)
}

/// `steam 6, water 2.5`: a map's numbers, without those that are 0.
pub(super) fn amounts(value: &Value, key: &str) -> String {
    let all = value.get(key).and_then(Value::as_object).into_iter().flatten();
    let each = all.filter_map(|(name, value)| {
        let number = value.as_f64().or_else(|| value.get("value").and_then(Value::as_f64))?;
        (number != 0.0).then(|| format!("{} {}", clean(name), amount(number)))
    });
    each.collect::<Vec<_>>().join(", ")
}

pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { NONE.to_owned() } else { text }
}

/// What an option takes: amounts of resources, and values of variables after `@`.
pub(super) fn option(option: &Value) -> String {
    let parts = [amounts(option, "demands"), values(option, "claims")];
    let needs = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let id = clean(text(option, "id"));
    if needs.is_empty() { id.into_owned() } else { format!("{id} ({needs})") }
}

/// `level=2.5`: a map's values, those that are 0 too.
pub(super) fn values(value: &Value, key: &str) -> String {
    let all = value.get(key).and_then(Value::as_object).into_iter().flatten();
    let each = all.filter_map(|(name, value)| {
        let number = value.as_f64().or_else(|| value.get("value").and_then(Value::as_f64))?;
        Some(format!("{}={}", clean(name), amount(number)))
    });
    each.collect::<Vec<_>>().join(", ")
}

/// What became of a wish, in its colour.
pub(super) fn outcome(word: &str) -> String {
    let colour = match word {
        "granted" => Colour::Green,
        "scaled" | "substituted" => Colour::Yellow,
        "denied" | "preempted" => Colour::Red,
        _ => Colour::Dim,
    };
    paint(colour, &clean(word))
}

/// A plan: a line on the whole, who wanted what and got what and why, what is used, and what collided. With the problem that
/// it answers, what was wanted is told too.
#[must_use]
pub fn plan(plan: &Value, problem: Option<&Value>, wide: bool) -> String {
    let mut out = heading(plan);
    out.push('\n');
    out.push_str(&decisions(plan, problem, wide));
    for part in [resources(plan), variables(plan), conflicts(plan, wide)] {
        if !part.is_empty() {
            out.push('\n');
            out.push_str(&part);
        }
    }
    let shed: Vec<&str> = list(plan, "shed").iter().filter_map(Value::as_str).collect();
    if !shed.is_empty() {
        let who = format!("shed, because not even the fallbacks fit: {}", clean(&shed.join(", ")));
        out.push_str(&format!("\n{}\n", paint(Colour::Red, &who)));
    }
    out
}

/// How far a plan is from the best there is, where a share of what it is worth says that. Of a loss it does not: from -3 to a
/// bound of 0 are 100 %, and so are they from -1.
pub(super) fn gap(plan: &Value) -> Option<f64> {
    let gap = plan.get("gap").and_then(Value::as_f64)?;
    let is_loss = plan.get("objective").and_then(Value::as_f64).is_some_and(|objective| objective < 0.0);
    (gap == 0.0 || !is_loss).then_some(gap)
}

/// So many rounds, in words.
pub(super) fn rounds(number: u64) -> String {
    if number == 1 { "1 round".to_owned() } else { format!("{number} rounds") }
}

fn heading(plan: &Value) -> String {
    let whole = |key: &str| plan.get(key).and_then(Value::as_u64).unwrap_or_default();
    let gap = gap(plan).map_or_else(String::new, |gap| format!(" (gap {}%)", amount(gap * 100.0)));
    let rounds = match whole("rounds") {
        0 => String::new(),
        rounds if plan.get("converged").and_then(Value::as_bool) == Some(false) => {
            format!(", {} without coming to rest", self::rounds(rounds))
        }
        rounds => format!(", {}", self::rounds(rounds)),
    };
    let took = plan
        .get("elapsed_ms")
        .and_then(Value::as_f64)
        .map_or_else(String::new, |took| format!(", {}", milliseconds(took)));
    let status = text(plan, "status");
    let status = match status {
        "optimal" => paint(Colour::Green, status),
        "fallback" => paint(Colour::Yellow, status),
        other => clean(other).into_owned(),
    };
    format!(
        "{} by {}: {status}, objective {} of at most {}{gap}{rounds}{took}\n",
        paint(Colour::Bold, &format!("{} cycle {}", clean(text(plan, "group")), whole("cycle"))),
        clean(text(plan, "strategy")),
        number(plan, "objective"),
        number(plan, "bound"),
    )
}

fn decisions(plan: &Value, problem: Option<&Value>, wide: bool) -> String {
    let by_agent = |key: &str| -> HashMap<&str, &Value> {
        let all = problem.map_or(&[][..], |problem| list(problem, key));
        all.iter().map(|of| (text(of, "agent_id"), of)).collect()
    };
    let (agents, intentions) = (by_agent("agents"), by_agent("intentions"));
    let pays = plan.get("payments").filter(|pays| pays.is_object());
    let mut headings = vec!["AGENT"];
    if wide && problem.is_some() {
        headings.extend([">PRIORITY", ">WEIGHT"]);
    }
    if problem.is_some() {
        headings.push("WANTED");
    }
    headings.extend(["OUTCOME", "GOT", "USES", "VALUES", ">UTILITY"]);
    if pays.is_some() {
        headings.push(">PAYS");
    }
    headings.push("WHY");
    let rows = list(plan, "decisions").iter().map(|decision| {
        let id = text(decision, "agent_id");
        let mut row = vec![clean(id).into_owned()];
        if wide && problem.is_some() {
            let of = |key: &str| agents.get(id).map_or_else(|| NONE.to_owned(), |agent| number(agent, key));
            row.extend([of("priority"), of("weight")]);
        }
        if problem.is_some() {
            let first = intentions.get(id).and_then(|intention| list(intention, "options").first());
            row.push(first.map_or_else(|| NONE.to_owned(), |first| cut(&option(first), if wide { 200 } else { 50 })));
        }
        let fraction = decision.get("fraction").and_then(Value::as_f64).unwrap_or_default();
        let got = clean(text(decision, "option_id"));
        row.extend([
            outcome(text(decision, "outcome")),
            match got.is_empty() {
                true => NONE.to_owned(),
                false if fraction < 1.0 => format!("{got} x {}", amount(fraction)),
                false => got.into_owned(),
            },
            or_none(amounts(decision, "grant")),
            or_none(values(decision, "values")),
            number(decision, "utility"),
        ]);
        row.extend(pays.map(|pays| number(pays, id)));
        let why = decision.get("reason").map_or("", |reason| text(reason, "text"));
        let why = clean(why).into_owned();
        row.push(if wide { why } else { cut(&why, 70) });
        row
    });
    table(&headings, rows.collect())
}

fn resources(plan: &Value) -> String {
    let Some(all) = plan.get("utilization").and_then(Value::as_object).filter(|all| !all.is_empty()) else {
        return String::new();
    };
    let prices = plan.get("prices").filter(|prices| prices.is_object());
    let mut headings = vec!["RESOURCE", ">CAPACITY", ">RESERVE", ">HELD", ">GRANTED", ">LEFT"];
    headings.extend(prices.map(|_| ">PRICE"));
    let rows = all.iter().map(|(name, of)| {
        let get = |key: &str| of.get(key).and_then(Value::as_f64).unwrap_or_default();
        let left = get("capacity") - get("reserve") - get("held") - get("granted");
        let mut row = vec![clean(name).into_owned()];
        row.extend(["capacity", "reserve", "held", "granted"].map(|key| number(of, key)));
        row.push(amount(left));
        row.extend(prices.map(|prices| number(prices, name)));
        row
    });
    table(&headings, rows.collect())
}

fn variables(plan: &Value) -> String {
    let all = plan.get("values").and_then(Value::as_object).filter(|all| !all.is_empty());
    let Some(all) = all else { return String::new() };
    let rows = all
        .iter()
        .map(|(name, value)| vec![clean(name).into_owned(), value.as_f64().map_or_else(|| NONE.to_owned(), amount)]);
    table(&["VARIABLE", ">VALUE"], rows.collect())
}

fn conflicts(plan: &Value, wide: bool) -> String {
    let all = list(plan, "conflicts");
    if all.is_empty() {
        return String::new();
    }
    let rows = all.iter().map(|conflict| {
        let parties: Vec<&str> = list(conflict, "parties").iter().filter_map(Value::as_str).collect();
        let what = match (conflict.get("demanded"), text(conflict, "subtype")) {
            (Some(_), _) => format!("{} of {}", number(conflict, "demanded"), number(conflict, "available")),
            (None, "indirect") => values(conflict, "effects"),
            (None, _) => values(conflict, "claims"),
        };
        let parties = clean(&parties.join(", ")).into_owned();
        vec![
            clean(text(conflict, "id")).into_owned(),
            clean(text(conflict, "type")).into_owned(),
            number(conflict, "severity"),
            if wide { what } else { cut(&what, 50) },
            if wide { parties } else { cut(&parties, 60) },
        ]
    });
    table(&["CONFLICT", "TYPE", ">SEVERITY", "WANTED", "BY"], rows.collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::paint::finish;

    fn example() -> (Value, Value) {
        let problem = json!({
            "agents": [{"agent_id": "a", "priority": 3, "weight": 1}, {"agent_id": "b", "priority": 2, "weight": 1.5}],
            "intentions": [
                {"agent_id": "a", "options": [{"id": "full", "demands": {"steam": 6.0}, "claims": {"level": {"value": 0}}, "utility": 6}]},
                {"agent_id": "b", "options": [{"id": "full", "demands": {"steam": 6.0, "air": 0}, "utility": 6}]}]});
        let plan = json!({
            "group": "default", "cycle": 7, "strategy": "priority_based", "status": "feasible", "objective": 9.0, "bound": 12.0,
            "gap": 0.25, "rounds": 0, "converged": true, "elapsed_ms": 0.42, "unheard_of": 1,
            "decisions": [
                {"agent_id": "a", "outcome": "granted", "option_id": "full", "fraction": 1.0, "values": {"level": 0.0},
                 "grant": {"steam": 6.0}, "utility": 6.0, "reason": {"code": "first_choice", "text": "its first choice"}},
                {"agent_id": "b", "outcome": "scaled", "option_id": "full", "fraction": 0.66666666, "values": {},
                 "grant": {"steam": 4.0}, "utility": 3.0, "reason": {"code": "limited", "text": "a took the rest"}}],
            "conflicts": [{"id": "capacity:steam", "type": "resource_contention", "subtype": "capacity", "subject": "steam",
                "parties": ["a", "b"], "demanded": 12.0, "available": 10.0, "severity": 0.2}],
            "values": {"level": 0.0}, "utilization": {"steam": {"capacity": 11.0, "reserve": 1.0, "held": 0.0, "granted": 10.0}}});
        (plan, problem)
    }

    #[test]
    fn who_wanted_what_and_got_what_and_why() {
        let (made, problem) = example();
        let wanted = "\
default cycle 7 by priority_based: feasible, objective 9 of at most 12 (gap 25%), 0.4ms

AGENT  WANTED                   OUTCOME  GOT            USES     VALUES   UTILITY  WHY
a      full (steam 6, level=0)  granted  full           steam 6  level=0        6  its first choice
b      full (steam 6)           scaled   full x 0.6667  steam 4  -              3  a took the rest

RESOURCE  CAPACITY  RESERVE  HELD  GRANTED  LEFT
steam           11        1     0       10     0

VARIABLE  VALUE
level         0

CONFLICT        TYPE                 SEVERITY  WANTED    BY
capacity:steam  resource_contention       0.2  12 of 10  a, b
";
        assert_eq!(finish(&plan(&made, Some(&problem), false), false), wanted);
    }

    #[test]
    fn what_is_there_only_sometimes() {
        let (mut made, problem) = example();
        made["payments"] = json!({"a": 5.0});
        made["prices"] = json!({"steam": 3.3333333});
        made["shed"] = json!(["b"]);
        made["rounds"] = json!(1);
        assert!(finish(&plan(&made, None, false), false).contains("(gap 25%), 1 round, 0.4ms"));
        made["rounds"] = json!(30);
        made["converged"] = json!(false);
        let text = finish(&plan(&made, Some(&problem), true), false);
        for part in [
            "30 rounds without coming to rest",
            "AGENT  PRIORITY  WEIGHT  WANTED",
            "UTILITY  PAYS  WHY",
            "PRICE\n",
            "3.3333\n",
            "shed, because not even the fallbacks fit: b",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!finish(&plan(&made, None, true), false).contains("WANTED  OUTCOME"));
    }

    #[test]
    fn anything_may_be_missing() {
        for odd in [
            json!({}),
            json!(null),
            json!({"decisions": [3, {}], "conflicts": [null], "utilization": {"x": 1}, "values": []}),
        ] {
            assert!(plan(&odd, Some(&odd), true).ends_with('\n'));
        }
    }

    #[test]
    fn numbers() {
        for (value, text) in
            [(6.0, "6"), (0.66666, "0.6667"), (-0.00001, "0"), (1e15, "1000000000000000"), (100.0, "100")]
        {
            assert_eq!(amount(value), text);
        }
    }
}
