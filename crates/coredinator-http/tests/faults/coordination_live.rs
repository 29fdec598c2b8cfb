//! The coordination section changed while cycles take place: by an update, by the file read anew, at any replica.

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{processes, support::Plant};

const STATUS: &str = "/api/coredinator/coordination/status";

fn section(steam: u32, strategy: &str) -> Value {
    json!({"sync_interval": 0.1, "resources": {"steam": {"capacity": steam}}, "conflict_resolution": strategy})
}

fn write(plant: &Plant, coordination: &Value) {
    let document = json!({"coredinator": {"coordination": coordination}});
    std::fs::write(plant.root().join("plant.yaml"), document.to_string()).unwrap();
}

/// Makes the section this one, at the coredinator at `address`.
async fn update(address: &str, coordination: &Value) -> (u16, Value) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.put(format!("{address}/api/coredinator/config/update")).header("if-match", "*");
    let answer = request.json(&json!({"coredinator": {"coordination": coordination}})).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn group<'a>(status: &'a Value, name: &str) -> &'a Value {
    let groups = status["groups"].as_array().into_iter().flatten();
    groups.into_iter().find(|group| group["group"] == name).unwrap_or(&Value::Null)
}

async fn status_until(plant: &Plant, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    plant
        .until(what, async |plant| {
            last = plant.get(STATUS).await.unwrap().ok();
            holds(&last)
        })
        .await;
    last
}

/// What the agent is granted of steam, once it is told anything of which that `holds`.
async fn granted(plant: &Plant, mut holds: impl FnMut(f64) -> bool) {
    plant
        .until("the agent is told so", async |plant| {
            let decision = plant.get("/api/coredinator/agents/x/decision").await.unwrap();
            holds(decision.body["grant"]["steam"].as_f64().unwrap_or(0.0))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_section_is_taken_up_while_cycles_take_place_and_agents_stay() {
    let mut plant = Plant::new(&json!({}));
    write(&plant, &section(10, "priority_based"));
    plant.start().await;
    let agent = json!({"agent_id": "x", "fallback": "release", "ttl_seconds": 1000});
    plant.call(Method::POST, "/api/coredinator/agents/register", Some(agent)).await.unwrap().ok();
    let options = json!([{"id": "full", "demands": {"steam": 6}, "utility": 6}, {"id": "less", "demands": {"steam": 3}, "utility": 3}]);
    let wish = json!({"seq": 1, "options": options});
    plant.call(Method::POST, "/api/coredinator/agents/x/intention", Some(wish)).await.unwrap().ok();
    granted(&plant, |steam| steam == 6.0).await;

    // What cannot be is refused as a whole; what can is planned as taken up at once.
    let (status, refused) = update(plant.address(), &section(4, "of_nobody")).await;
    assert_eq!(
        (status, &refused["errors"][0]["pointer"]),
        (422, &json!("/coredinator/coordination/conflict_resolution"))
    );
    let (status, updated) = update(plant.address(), &section(4, "resource_based")).await;
    assert_eq!(
        (status, &updated["plan"]["needs_restart"], &updated["warnings"]),
        (200, &json!([]), &json!([])),
        "{updated}"
    );
    assert_eq!(updated["plan"]["sections"], json!([{"section": "coordination", "action": "update"}]));
    granted(&plant, |steam| steam > 0.0 && steam <= 4.0).await;
    let told =
        status_until(&plant, "the strategy is another", |told| group(told, "default")["strategy"] == "resource_based")
            .await;
    assert_eq!(group(&told, "default")["agents"], 1, "who was there is there");

    // The file, read anew: a group comes, the interval changes, and it is disabled and enabled.
    let mut wanted = section(10, "priority_based");
    wanted["sync_interval"] = json!(0.05);
    wanted["groups"] = json!({"other": {"resources": {"air": {"capacity": 1}}}});
    write(&plant, &wanted);
    processes::signal(plant.pid(), Signal::HUP);
    let told = status_until(&plant, "there is another group", |told| !group(told, "other").is_null()).await;
    assert_eq!(group(&told, "other")["resources"][0]["name"], "air");
    granted(&plant, |steam| steam == 6.0).await;
    wanted["enabled"] = json!(false);
    let (status, _) = update(plant.address(), &wanted).await;
    assert_eq!(status, 200);
    status_until(&plant, "it is disabled", |told| told["enabled"] == false).await;
    let heard = plant.call(Method::POST, "/api/coredinator/agents/x/heartbeat", None).await.unwrap();
    assert_eq!((heard.status.as_u16(), &heard.body["code"]), (409, &json!("CoordinationDisabled")));
    wanted["enabled"] = json!(true);
    update(plant.address(), &wanted).await;
    let before = status_until(&plant, "it is enabled", |told| told["enabled"] == true).await;
    let cycle = |told: &Value| group(told, "default")["cycle"].as_u64().unwrap();
    status_until(&plant, "cycles take place again", |told| cycle(told) > cycle(&before) + 2).await;

    // As after a start.
    plant.kill().await;
    plant.start().await;
    let told = plant.get(STATUS).await.unwrap().ok();
    assert_eq!(
        (&group(&told, "default")["sync_interval_seconds"], group(&told, "other").is_null()),
        (&json!(0.05), false)
    );
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_takes_it_up_whichever_was_told() {
    let Some(cluster) = coredinator_test_postgres::Cluster::shared() else { return };
    let mut site = crate::site::Site::new(cluster, &["a", "b"], [600.0, 500.0, 0.2]).await;
    site.start(0).await;
    site.start(1).await;
    assert_eq!(site.leader().await, 0);
    let (status, told) = update(&site.address(1), &section(7, "resource_based")).await;
    assert_eq!(status, 200, "{told}");
    let all = async |site: &crate::site::Site, steam: f64| {
        for at in 0..2 {
            let told = site.ask(at, Method::GET, STATUS, None).await.unwrap().1;
            if group(&told, "default")["resources"][0]["capacity"] != steam {
                return false;
            }
        }
        true
    };
    site.until("both have taken it up", async |site| all(site, 7.0).await).await;
    // Whoever leads next has it without being told.
    site.signal(0, Signal::TERM);
    site.until("the other leads", async |site| site.says(1).await.is_some_and(|says| says.leads)).await;
    site.ended(0).await;
    // To lead is known before the agents have a leader.
    site.until("the other steps with it", async |site| {
        let (status, cycle) =
            site.ask(1, Method::POST, "/api/coredinator/coordination/step", Some(json!({}))).await.unwrap();
        assert!(status == 200 || cycle["code"] == "NotLeading", "{status}: {cycle}");
        let capacity = &cycle["problem"]["resources"][0]["capacity"];
        assert!(status != 200 || capacity == &json!(7.0), "{cycle}");
        status == 200
    })
    .await;
}
