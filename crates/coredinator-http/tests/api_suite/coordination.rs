//! Agents and cycles by the API: what is right, and whatever else is sent.

use std::sync::Arc;

use axum::{body::Body, http::HeaderValue};
use coredinator_http::api::ApiOptions;
use coredinator_registry::store::MemoryStore;
use serde_json::{Value, json};

use crate::support::{Answer, Plant, pointers, request};

const REGISTER: &str = "/api/coredinator/agents/register";
const STEP: &str = "/api/coredinator/coordination/step";
const STATUS: &str = "/api/coredinator/coordination/status";
const STRATEGY: &str = "/api/coredinator/coordination/strategy";
const RESOURCES: &str = "/api/coredinator/coordination/resources";

fn agent(id: &str, rest: &str) -> String {
    format!("/api/coredinator/agents/{id}{rest}")
}

impl Plant {
    async fn agent(&self, id: &str, priority: i32) {
        let document = json!({"agent_id": id, "priority": priority, "ttl_seconds": 600, "fallback": "release"});
        assert_eq!(self.ask("POST", REGISTER, Some(document)).await.status, 201);
    }

    /// Says that an agent wants so much steam.
    async fn wants(&self, id: &str, seq: u64, steam: f64) -> Answer {
        let option = json!({"id": "run", "demands": {"steam": steam}, "utility": steam, "action": {"valve": steam}});
        self.ask("POST", &agent(id, "/intention"), Some(json!({"seq": seq, "options": [option]}))).await
    }

    async fn step(&self) -> Value {
        let answer = self.ask("POST", STEP, None).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn raw(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let mut request = request(method, path, None);
        request.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        *request.body_mut() = body.into();
        self.send(request).await
    }
}

#[tokio::test]
async fn agents_say_what_they_want_and_hear_what_they_get() {
    let plant = Plant::new().await;
    for (id, priority) in [("a", 3), ("b", 2), ("c", 1)] {
        plant.agent(id, priority).await;
    }
    let accepted = plant.wants("a", 1, 6.0).await;
    assert_eq!((accepted.status.as_u16(), &accepted.json()["group"]), (202, &json!("default")), "{}", accepted.text());
    let cycle = accepted.json()["cycle"].as_u64().unwrap();
    plant.wants("b", 1, 6.0).await;
    plant.wants("c", 1, 3.0).await;
    assert_eq!(plant.get(&agent("a", &format!("/decision?cycle={cycle}"))).await.status, 204);

    let record = plant.step().await;
    assert_eq!((&record["cycle"], &record["outcome"]), (&json!(cycle), &json!("distributed")), "{record}");
    let grants: Vec<&Value> =
        record["plan"]["decisions"].as_array().unwrap().iter().map(|decision| &decision["grant"]["steam"]).collect();
    assert_eq!(grants, [&json!(6.0), &Value::Null, &json!(3.0)]);
    let told = plant.get(&agent("a", &format!("/decision?cycle={cycle}"))).await;
    assert_eq!(told.status, 200);
    let decision = told.json();
    assert_eq!(
        (&decision["outcome"], &decision["action"], &decision["epoch"]),
        (&json!("granted"), &json!({"valve": 6.0}), &record["epoch"])
    );
    let denied = plant.get(&agent("b", "/decision")).await.json();
    assert_eq!((&denied["outcome"], &denied["option_id"]), (&json!("denied"), &Value::Null));
    assert!(denied["reason"]["text"].as_str().is_some_and(|text| !text.is_empty()));
    assert_eq!(denied["reason"]["conflict_ids"], json!(["capacity:steam"]));

    let word = json!({"cycle": cycle, "epoch": decision["epoch"]});
    assert_eq!(plant.ask("POST", &agent("c", "/decision/ack"), Some(word)).await.status, 204);
    let listed = plant.get("/api/coredinator/agents").await.json();
    let acknowledged: Vec<&Value> =
        listed["agents"].as_array().unwrap().iter().map(|agent| &agent["acknowledged_cycle"]).collect();
    assert_eq!(acknowledged, [&json!(cycle), &json!(cycle), &json!(cycle)], "reading a decision acknowledges it");
    assert_eq!(plant.get("/api/coredinator/agents?group=other").await.json(), json!({"agents": []}));
    assert_eq!(plant.get(&agent("a", "")).await.json()["decision"], decision);
    assert_eq!(plant.get("/api/coredinator/health").await.json()["system_metrics"]["active_agents"], 3);

    assert_eq!(plant.ask("DELETE", &agent("a", ""), None).await.status, 204);
    plant.get(&agent("a", "")).await.problem(404, "NotFound");
    plant.wants("a", 2, 1.0).await.problem(404, "NotFound");
    assert_eq!(plant.get("/api/coredinator/health").await.json()["system_metrics"]["active_agents"], 2);
}

#[tokio::test]
async fn who_waits_gets_the_decision_of_the_cycle() {
    let plant = Plant::new().await;
    plant.agent("a", 0).await;
    let option = json!({"id": "run", "demands": {"steam": 4.0}, "utility": 1});
    let intention = Some(json!({"agent_id": "a", "options": [option]}));
    let path = agent("a", "/intention?wait=20s");
    let asking = plant.ask("POST", &path, intention);
    let deciding = async {
        // Whoever comes too early decides without the intention; then its turn comes with the next cycle.
        loop {
            let record = plant.step().await;
            if record["problem"]["intentions"].as_array().is_some_and(|all| !all.is_empty()) {
                return record;
            }
        }
    };
    let (told, record) = tokio::join!(asking, deciding);
    assert_eq!((told.status.as_u16(), &told.json()["cycle"]), (200, &record["cycle"]), "{}", told.text());
    assert_eq!(told.json()["grant"], json!({"steam": 4.0}));
    let late = plant.wants("a", 1, 1.0).await.json()["cycle"].as_u64().unwrap();
    assert_eq!(plant.get(&agent("a", &format!("/decision?cycle={late}&wait=10ms"))).await.status, 204);
    let again = Some(json!({"seq": 1, "options": [{"id": "x", "utility": 0}]}));
    assert_eq!(plant.ask("POST", &agent("a", "/intention?wait=10ms"), again).await.status, 202);
}

#[tokio::test]
async fn shutting_down_keeps_nobody_waiting() {
    let plant = Plant::new().await;
    plant.agent("a", 0).await;
    let path = agent("a", "/decision?cycle=99&wait=10m");
    let waiting = plant.get(&path);
    let ending = async { plant.shutdown.cancel() };
    let (answer, ()) = tokio::join!(waiting, ending);
    answer.problem(503, "Draining");
}

#[tokio::test]
async fn registering_again_takes_the_place() {
    let plant = Plant::new().await;
    let document = json!({"agent_id": "a", "priority": 9, "fallback": "hold"});
    let first = plant.ask("POST", REGISTER, Some(document.clone())).await;
    assert_eq!((first.status.as_u16(), first.header("location")), (201, "/api/coredinator/agents/a"));
    assert_eq!(first.json()["priority"], 5, "the operator's word stands above its own");
    assert!(first.json()["notes"][0].as_str().unwrap().contains("priority 5 instead of 9"), "{}", first.text());
    assert_eq!(plant.ask("POST", REGISTER, Some(document)).await.status, 200);
    let beat = plant.ask("POST", &agent("a", "/heartbeat"), None).await;
    assert_eq!((beat.status.as_u16(), &beat.json()["group"]), (200, &json!("default")));
    // A name that is a path's, too.
    plant.agent("register", 0).await;
    assert_eq!(plant.get(REGISTER).await.json()["agent_id"], "register");
    assert_eq!(plant.ask("DELETE", REGISTER, None).await.status, 204);
}

#[tokio::test]
async fn everything_wrong_with_an_agent_is_told() {
    let plant = Plant::new().await;
    for (document, wrong) in [
        (json!({}), &["/agent_id"][..]),
        (json!({"agent_id": "-a", "wieght": 1, "priority": "high"}), &["/agent_id", "/priority", "/wieght"]),
        (json!({"agent_id": "a", "weight": 0, "ttl_seconds": -1}), &["/ttl_seconds", "/weight"]),
        (json!({"agent_id": "a", "negotiates": true}), &["/negotiates"]),
        (json!({"agent_id": "a", "endpoint": "ftp://x"}), &["/endpoint"]),
        (json!({"agent_id": "a", "group": "othr"}), &["/group"]),
        (json!({"agent_id": "a b", "weight": -1, "ttl_seconds": 0}), &["/agent_id", "/ttl_seconds", "/weight"]),
        (
            json!({"agent_id": "a", "ttl_seconds": 1e12, "endpoint": "x", "group": ""}),
            &["/endpoint", "/group", "/ttl_seconds"],
        ),
        (json!({"agent_id": "a", "endpoint": 5, "negotiates": true, "weight": 0}), &["/endpoint", "/weight"]),
        (
            json!({"agent_id": "a", "fallback": {"id": 1}, "group": "none"}),
            &["/fallback/id", "/fallback/utility", "/group"],
        ),
        (json!({"agent_id": "a", "fallback": {"id": "", "utility": 1}}), &["/fallback/id"]),
        (json!([]), &[""]),
    ] {
        let problem = plant.ask("POST", REGISTER, Some(document.clone())).await.problem(422, "Invalid");
        let found: Vec<String> = pointers(&problem).into_keys().collect();
        assert_eq!(found, wrong, "{document}");
    }
    let problem =
        plant.ask("POST", REGISTER, Some(json!({"agent_id": "a", "wieght": 1}))).await.problem(422, "Invalid");
    assert_eq!(pointers(&problem)["/wieght"], "did you mean \"weight\"?");
    let problem = plant.ask("POST", REGISTER, Some(json!({"agent_id": "a", "group": "othr"}))).await;
    assert_eq!(pointers(&problem.problem(422, "Invalid"))["/group"], "did you mean \"other\"?");
    let longest = json!({"agent_id": "a", "ttl_seconds": 31_536_000});
    assert_eq!(plant.ask("POST", REGISTER, Some(longest)).await.status, 201);
    assert_eq!(plant.ask("DELETE", &agent("a", ""), None).await.status, 204);
    assert_eq!(plant.get("/api/coredinator/agents").await.json(), json!({"agents": []}));
}

#[tokio::test]
async fn what_an_agent_cannot_want() {
    let plant = Plant::new().await;
    plant.agent("a", 0).await;
    let path = agent("a", "/intention");
    let option = |more: Value| {
        let mut option = json!({"id": "run", "utility": 1});
        option.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"options": [option]})
    };
    for (document, wrong) in [
        (json!({}), "/options"),
        (json!({"options": []}), "/options"),
        (json!({"options": vec![json!({"id": "x", "utility": 0}); 1001]}), "/options"),
        (json!({"agent_id": "b", "options": []}), "/agent_id"),
        (json!({"agent_id": 3, "options": []}), "/agent_id"),
        (option(json!({"demands": {"steam": -1}})), "/options/0/demands/steam"),
        (option(json!({"demands": {"water": 1}})), "/options/0/demands/water"),
        (option(json!({"claims": {"level": {"value": 1, "min": 2}}})), "/options/0/claims/level"),
        (option(json!({"utility": 1e300})), "/options/0/utility"),
        (option(json!({"utility": "much"})), "/options/0/utility"),
        (option(json!({"elastic": {"min_fraction": 0}})), "/options/0/elastic/min_fraction"),
    ] {
        let problem = plant.ask("POST", &path, Some(document.clone())).await.problem(422, "Invalid");
        assert!(pointers(&problem).contains_key(wrong), "{wrong} in {problem}");
    }
    // What cannot be read hides nothing else, and nothing is said of what was put in its place.
    let document = json!({"sqe": 1, "options": [
        {"id": "run", "utility": "x", "demands": {"steam": -1, "a/b": []}, "elastic": {"shape": "linear"}},
        {"id": "run", "utility": 1, "demands": {"water": 1}, "claims": {"level": {"min": 2}}}, 5]});
    let all = pointers(&plant.ask("POST", &path, Some(document)).await.problem(422, "Invalid"));
    let found: Vec<&str> = all.keys().map(String::as_str).collect();
    let wanted = [
        "/options/0/demands/a~1b",
        "/options/0/demands/steam",
        "/options/0/elastic/min_fraction",
        "/options/0/utility",
        "/options/1/claims/level/value",
        "/options/1/demands/water",
        "/options/1/id",
        "/options/2",
        "/sqe",
    ];
    assert_eq!(found, wanted);
    for garbage in [
        "{\"options\": [{\"id\": \"x\", \"utility\": NaN}]}",
        "{\"options\": [{\"id\": \"x\", \"utility\": 1e999}]}",
        "{\"seq\": 1, \"seq\": 2}",
        "{",
        "",
        "\u{0}",
    ] {
        plant.raw("POST", &path, garbage).await.problem(400, "MalformedJson");
    }
    plant.raw("POST", &path, "[".repeat(100_000)).await.problem(400, "MalformedJson");
    plant.raw("POST", &path, vec![b' '; 4 * 1024 * 1024 + 1]).await.problem(413, "TooLarge");
    assert_eq!(plant.get(&agent("a", "")).await.json().get("intention_seq"), None, "nothing of that counts");

    // Large, but no larger than may be.
    let large = json!({"seq": 7, "options": [{"id": "x", "utility": 0, "action": "x".repeat(3 * 1024 * 1024)}]});
    assert_eq!(plant.ask("POST", &path, Some(large)).await.status, 202);
    let problem = plant.ask("POST", &path, Some(json!({"seq": 6, "options": [{"id": "x", "utility": 0}]}))).await;
    assert!(problem.problem(409, "Stale")["detail"].as_str().unwrap().contains('7'));
    assert_eq!(plant.get(&agent("a", "")).await.json()["intention_seq"], 7);
}

#[tokio::test]
async fn who_is_not_there_and_what_is_none() {
    let plant = Plant::new().await;
    plant.agent("a", 0).await;
    let huge = format!("/api/coredinator/agents/{}", "x".repeat(5000));
    for path in [agent("b", ""), agent("b", "/decision"), agent("%00", ""), agent("..", "%2F.."), huge] {
        plant.get(&path).await.problem(404, "NotFound");
    }
    for (path, body) in [
        ("/heartbeat", None),
        ("/decision/ack", Some(json!({"cycle": 1, "epoch": 1}))),
        ("/intention", Some(json!({"options": []}))),
    ] {
        plant.ask("POST", &agent("b", path), body).await.problem(404, "NotFound");
    }
    plant.ask("DELETE", &agent("b", ""), None).await.problem(404, "NotFound");
    let ack = agent("a", "/decision/ack");
    for wrong in [
        json!({}),
        json!({"cycle": -1, "epoch": 1}),
        json!({"cycle": 1.5, "epoch": 0}),
        json!({"cycle": 1, "epoch": 1, "x": 1}),
        json!([]),
    ] {
        plant.ask("POST", &ack, Some(wrong)).await.problem(422, "Invalid");
    }
    plant.ask("POST", &agent("a", "/heartbeat"), Some(json!({"x": 1}))).await.problem(422, "Invalid");
    for path in [
        "/api/coredinator/agents?gruop=x",
        "/api/coredinator/coordination/status?x=1",
        "/api/coredinator/coordination/cycles?limit=0",
        "/api/coredinator/coordination/cycles?limit=many",
        "/api/coredinator/coordination/cycles/one",
        "/api/coredinator/coordination/cycles/-1",
        "/api/coredinator/coordination/events?limit=0",
        "/api/coredinator/agents/a/decision?wait=soon",
        "/api/coredinator/agents/a/decision?cycle=-1",
    ] {
        plant.get(path).await.problem(400, "InvalidParameter");
    }
    for path in [
        "/api/coredinator/agents?group=none",
        "/api/coredinator/coordination/cycles?group=none",
        "/api/coredinator/coordination/cycles/1?group=none",
        "/api/coredinator/coordination/cycles/999",
        "/api/coredinator/coordination/events?group=none",
    ] {
        plant.get(path).await.problem(404, "NotFound");
    }
    plant.ask("POST", &format!("{STEP}?group=none"), None).await.problem(404, "NotFound");
    plant.ask("POST", &format!("{STEP}?strategy=centralized"), None).await.problem(400, "InvalidParameter");
    plant.ask("POST", &format!("{STEP}?dry_run=true&group=a"), None).await.problem(400, "InvalidParameter");
    plant.ask("POST", STEP, Some(json!({"agents": []}))).await.problem(422, "Invalid");
}

#[tokio::test]
async fn cycles_are_kept_and_tell_everything() {
    let plant = Plant::new().await;
    plant.agent("a", 0).await;
    plant.wants("a", 1, 12.0).await;
    let (first, second) = (plant.step().await, plant.step().await);
    let [first_number, second_number] = [&first, &second].map(|record| record["cycle"].as_u64().unwrap());
    assert_eq!(second_number, first_number + 1);
    let listed = plant.get("/api/coredinator/coordination/cycles?limit=2").await.json();
    assert_eq!(listed["group"], "default");
    let numbers: Vec<&Value> = listed["cycles"].as_array().unwrap().iter().map(|cycle| &cycle["cycle"]).collect();
    assert_eq!(numbers, [second_number, first_number]);
    let early = plant.get("/api/coredinator/coordination/cycles/999").await.problem(404, "NotFound");
    let detail = early["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("cycle 999") && detail.contains("has not ended yet; the newest is"), "{detail}");
    for (path, says) in
        [("0", "is not kept: records go"), ("1?group=other", "has ended since this coredinator was started")]
    {
        let gone = plant.get(&format!("/api/coredinator/coordination/cycles/{path}")).await.problem(404, "NotFound");
        assert!(gone["detail"].as_str().unwrap_or_default().contains(says), "{gone}");
    }
    let kept = plant.get(&format!("/api/coredinator/coordination/cycles/{first_number}?group=default")).await.json();
    assert_eq!(kept["plan"], first["plan"]);
    for key in ["problem", "timings", "strategy", "decided_by", "started_at"] {
        assert!(!kept[key].is_null(), "{key}");
    }
    let status = plant.get(STATUS).await.json();
    assert_eq!((&status["enabled"], &status["leading"]), (&json!(true), &json!(true)));
    let group = &status["groups"][0];
    assert_eq!(
        (&group["group"], &group["agents"], &group["cycle"]),
        (&json!("default"), &json!(1), &json!(second_number))
    );
    assert_eq!(group["resources"][0]["name"], "steam");
}

#[tokio::test]
async fn a_problem_on_paper_is_solved_and_nobody_is_told() {
    let plant = Plant::new().await;
    plant.agent("mine", 0).await;
    let option = |amount: f64| json!([{"id": "run", "demands": {"steam": amount}, "utility": amount}]);
    let problem = json!({
        "resources": [{"name": "steam", "capacity": 10}],
        "agents": [{"agent_id": "a", "priority": 3, "fallback": "release"}, {"agent_id": "b", "priority": 2, "fallback": "release"},
            {"agent_id": "c", "priority": 1, "fallback": "release"}],
        "intentions": [{"agent_id": "a", "options": option(6.0)}, {"agent_id": "b", "options": option(6.0)},
            {"agent_id": "c", "options": option(3.0)}],
    });
    let grants = |plan: &Value| -> Vec<f64> {
        let decisions = plan["decisions"].as_array().unwrap();
        decisions.iter().map(|decision| decision["grant"]["steam"].as_f64().unwrap_or_default()).collect()
    };
    let dry = async |strategy: &str, problem: &Value| {
        plant.ask("POST", &format!("{STEP}?dry_run=true{strategy}"), Some(problem.clone())).await
    };
    for (strategy, expected) in [
        ("", [6.0, 0.0, 3.0]),
        ("&strategy=priority_based", [6.0, 0.0, 3.0]),
        ("&strategy=%7B%22priority_based%22%3A%7B%22when_it_does_not_fit%22%3A%22block%22%7D%7D", [6.0, 0.0, 0.0]),
    ] {
        let plan = dry(strategy, &problem).await;
        assert_eq!(plan.status, 200, "{}", plan.text());
        assert_eq!(grants(&plan.json()), expected, "{strategy}");
        assert_eq!(plan.json()["verified"], true);
    }
    assert_eq!(plant.get(&agent("mine", "/decision")).await.status, 204);
    // It is well formed: which strategies there are is not in the description.
    let unknown = dry("&strategy=centralised", &problem).await.problem(422, "Invalid");
    assert_eq!(unknown["errors"][0]["pointer"], "?strategy", "{unknown}");
    let odd = dry("&strategy=%7B%22consensus%22%3A%7B%22rounds%22%3A0%7D%7D", &problem).await;
    let odd = odd.problem(422, "Invalid");
    assert_eq!(odd["errors"][0]["pointer"], "?strategy/consensus/rounds", "{odd}");
    assert!(unknown["errors"][0]["hint"].as_str().unwrap().contains("centralized"), "{unknown}");
    let wrong = json!({"agents": [{"agent_id": "a", "weight": "x"}], "resources": [{"name": "steam"}], "sead": 1});
    let found: Vec<String> = pointers(&dry("", &wrong).await.problem(422, "Invalid")).into_keys().collect();
    assert_eq!(found, ["/agents/0/weight", "/resources/0/capacity", "/sead"]);
    let twice = json!({"agents": [{"agent_id": "a"}, {"agent_id": "a"}]});
    dry("", &twice).await.problem(422, "Invalid");
    let path = format!("{STEP}?dry_run=true");
    plant.ask("POST", &path, None).await.problem(422, "Invalid");
    for garbage in ["{", "NaN", "{\"agents\": [], \"seed\": 1e999}"] {
        plant.raw("POST", &path, garbage).await.problem(400, "MalformedJson");
    }
    plant.raw("POST", &path, vec![b' '; 16 * 1024 * 1024 + 1]).await.problem(413, "TooLarge");
}

#[tokio::test]
async fn strategies_are_switched_between_two_cycles() {
    let plant = Plant::new().await;
    let choice = json!({"priority_based": {"when_it_does_not_fit": "block"}});
    let body = json!({"group": "other", "conflict_resolution": choice});
    let status = plant.ask("POST", STRATEGY, Some(body)).await;
    assert_eq!(status.status, 200, "{}", status.text());
    let of = |status: &Value| -> Vec<Value> {
        status["groups"].as_array().unwrap().iter().map(|group| group["strategy"].clone()).collect()
    };
    assert_eq!(of(&status.json()), [json!("priority_based"), choice]);
    let all = plant.ask("POST", STRATEGY, Some(json!({"conflict_resolution": "centralized"}))).await;
    assert_eq!(of(&all.json()), [json!("centralized"), json!("centralized")]);
    for (body, wrong) in [
        (json!({}), "/conflict_resolution"),
        (json!({"conflict_resolution": "centralised"}), "/conflict_resolution"),
        (json!({"conflict_resolution": {"priority_based": {"x": 1}}}), "/conflict_resolution/priority_based/x"),
        (json!({"conflict_resolution": 3}), "/conflict_resolution"),
        (json!({"conflict_resolution": "centralized", "gruop": "x"}), "/gruop"),
    ] {
        let problem = plant.ask("POST", STRATEGY, Some(body)).await.problem(422, "Invalid");
        assert!(pointers(&problem).contains_key(wrong), "{wrong} in {problem}");
    }
    let unknown = json!({"group": "none", "conflict_resolution": "centralized"});
    plant.ask("POST", STRATEGY, Some(unknown)).await.problem(404, "NotFound");
    assert_eq!(of(&plant.get(STATUS).await.json()), [json!("centralized"), json!("centralized")]);
}

#[tokio::test]
async fn how_much_there_is_can_be_changed() {
    let plant = Plant::new().await;
    plant.agent("a", 0).await;
    plant.wants("a", 1, 6.0).await;
    let steam = |status: &Value| status["groups"][0]["resources"][0].clone();
    let before = steam(&plant.get(STATUS).await.json());
    assert_eq!(before["name"], "steam");
    let changed = plant.ask("POST", RESOURCES, Some(json!({"resources": {"steam": 4}}))).await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    assert_eq!(
        (&steam(&changed.json())["capacity"], &steam(&changed.json())["reserve"]),
        (&json!(4.0), &before["reserve"])
    );
    let record = plant.step().await;
    assert_eq!(record["plan"]["decisions"][0]["outcome"], "denied", "{record}");

    for (body, wrong) in [
        (json!({}), "/resources"),
        (json!({"resources": {}}), "/resources"),
        (json!({"resources": null}), "/resources"),
        (json!({"resources": [1]}), "/resources"),
        (json!({"resources": {"steam": "much"}}), "/resources/steam"),
        (json!({"resources": {"steam": null}}), "/resources/steam"),
        (json!({"resources": {"steam": {}}}), "/resources/steam/capacity"),
        (json!({"resources": {"steam": {"capacity": 1, "reserved": 1}}}), "/resources/steam/reserved"),
        (json!({"resources": {"steam": {"capacity": 1, "reserve": -1}}}), "/resources/steam/reserve"),
        (json!({"resources": {"steam": -1}}), "/resources/steam/capacity"),
        (json!({"resources": {"steam": 1, "st/eam": 1}}), "/resources/st~1eam"),
        (json!({"resources": {"steam": 1}, "gruop": "x"}), "/gruop"),
    ] {
        let problem = plant.ask("POST", RESOURCES, Some(body)).await.problem(422, "Invalid");
        assert!(pointers(&problem).contains_key(wrong), "{wrong} in {problem}");
    }
    let near = plant.ask("POST", RESOURCES, Some(json!({"resources": {"steem": 1}}))).await.problem(422, "Invalid");
    assert_eq!(pointers(&near)["/resources/steem"], "did you mean \"steam\"?");
    plant.raw("POST", RESOURCES, r#"{"resources": {"steam": 1e999}}"#).await.problem(400, "MalformedJson");
    let unknown = json!({"group": "none", "resources": {"steam": 1}});
    plant.ask("POST", RESOURCES, Some(unknown)).await.problem(404, "NotFound");
    assert_eq!(steam(&plant.get(STATUS).await.json())["capacity"], 4.0, "what is refused changes nothing");

    let back = json!({"group": "default", "resources": {"steam": {"capacity": 9, "reserve": 1}}});
    assert_eq!(plant.ask("POST", RESOURCES, Some(back)).await.status, 200);
    let record = plant.step().await;
    assert_eq!(record["plan"]["decisions"][0]["outcome"], "granted", "{record}");
}

#[tokio::test]
async fn what_happens_is_listed() {
    let plant = Plant::new().await;
    plant.agent("a", 0).await;
    plant.wants("a", 1, 1.0).await;
    plant.step().await;
    let list = async |query: &str| -> Vec<Value> {
        let mut request = request("GET", &format!("/api/coredinator/coordination/events{query}"), None);
        request.headers_mut().insert("accept", HeaderValue::from_static("application/json"));
        plant.send(request).await.json()["events"].as_array().unwrap().clone()
    };
    let all = list("").await;
    let types: Vec<&str> = all.iter().map(|event| event["type"].as_str().unwrap()).collect();
    for expected in ["agent_registered", "cycle"] {
        assert!(types.contains(&expected), "{types:?}");
    }
    assert_eq!(list("?limit=1").await, all[all.len() - 1..]);
    assert_eq!(list(&format!("?after={}", all[0]["id"])).await, all[1..]);
    assert!(list("?group=other").await.iter().all(|event| event["group"] != "default"));
}

#[tokio::test]
async fn only_decisions_that_were_given_are_acknowledged() {
    let plant = Plant::new().await;
    plant.agent("a", 0).await;
    let ack = async |cycle: u64, epoch: u64| {
        plant.ask("POST", &agent("a", "/decision/ack"), Some(json!({"cycle": cycle, "epoch": epoch}))).await
    };
    ack(1, 1).await.problem(409, "NoSuchDecision");
    plant.step().await;
    plant.agent("late", 0).await;
    plant.step().await;
    for (cycle, epoch) in [(1, 1), (2, 1), (2, 1)] {
        assert_eq!(ack(cycle, epoch).await.status, 204, "{cycle} {epoch}");
    }
    for (cycle, epoch) in [(99_999_999, 1), (3, 1), (2, 2), (2, 0), (1, 0), (0, 1), (0, 0), (u64::MAX, u64::MAX)] {
        let problem = ack(cycle, epoch).await.problem(409, "NoSuchDecision");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.ends_with("its last is of cycle 2 in epoch 1"), "{detail}");
    }
    let word = Some(json!({"cycle": 1, "epoch": 1}));
    plant.ask("POST", &agent("late", "/decision/ack"), word).await.problem(409, "NoSuchDecision");
}

#[tokio::test]
async fn a_coordination_that_is_disabled_says_how_to_enable_it() {
    let section = json!({"enabled": false});
    let plant = Plant::coordinating(Arc::new(MemoryStore::new()), ApiOptions::default(), &section).await;
    let document = json!({"agent_id": "a"});
    let refused = [
        plant.ask("POST", REGISTER, Some(document)).await,
        plant.get("/api/coredinator/agents").await,
        plant.get(&agent("a", "")).await,
        plant.ask("DELETE", &agent("a", ""), None).await,
        plant.ask("POST", &agent("a", "/heartbeat"), None).await,
        plant.ask("POST", &agent("a", "/intention"), Some(json!({"options": []}))).await,
        plant.get(&agent("a", "/decision")).await,
        plant.ask("POST", &agent("a", "/decision/ack"), Some(json!({"cycle": 1, "epoch": 1}))).await,
        plant.get("/api/coredinator/coordination/cycles").await,
        plant.get("/api/coredinator/coordination/cycles/1").await,
        plant.get("/api/coredinator/coordination/events").await,
        plant.ask("POST", STEP, None).await,
        plant.ask("POST", STRATEGY, Some(json!({"conflict_resolution": "centralized"}))).await,
        plant.ask("POST", RESOURCES, Some(json!({"resources": {"steam": 1}}))).await,
    ];
    for answer in refused {
        let detail = answer.problem(409, "CoordinationDisabled")["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("coredinator.coordination.enabled"), "{detail}");
    }
    assert_eq!(plant.get(STATUS).await.json()["enabled"], false);
    let plan = plant.ask("POST", &format!("{STEP}?dry_run=true"), Some(json!({"agents": []}))).await;
    assert_eq!((plan.status.as_u16(), &plan.json()["decisions"]), (200, &json!([])), "{}", plan.text());
    assert_eq!(plant.get("/api/coredinator/health").await.json()["system_metrics"]["active_agents"], 0);
}
