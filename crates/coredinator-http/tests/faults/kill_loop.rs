//! kill -9 of coredinator, over and over, at any instant.

use std::{collections::BTreeMap, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    processes::{self, Process, leaders_of},
    support::{Answer, Plant, running, script, sleeper, with},
};

/// How many times coredinator is killed; `COREDINATOR_FAULT_ROUNDS` asks for more.
const ROUNDS: u32 = 200;

/// What a service was asked to be.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    /// What tells one declaration from another.
    variant: String,
    declared: u32,
    /// By hand, until another number is declared.
    scaled: Option<u32>,
    stopped: bool,
}

impl Asked {
    fn replicas(&self) -> u32 {
        self.scaled.unwrap_or(self.declared)
    }
}

/// The users' side of the story: of each service everything that it may be by what was asked and acknowledged. An order
/// without an answer may or may not have been taken.
#[derive(Default)]
struct Ledger(BTreeMap<String, Vec<Option<Asked>>>);

impl Ledger {
    /// Notes an order and what came of it.
    fn note(&mut self, name: &str, order: &Order, answer: Option<&Answer>) {
        let possible = self.0.entry(name.to_owned()).or_insert_with(|| vec![None]);
        let after = possible.iter().map(|before| order.applied_to(before.as_ref()));
        match answer {
            Some(answer) if answer.status.is_success() => *possible = after.collect(),
            Some(answer) => {
                let known = format!("{possible:?}");
                possible.retain(Option::is_none);
                let absent = matches!(answer.status.as_u16(), 404 | 409) && !possible.is_empty();
                assert!(absent, "{name}, {order:?}, {known}: {answer:?}");
            }
            None => {
                let after: Vec<_> = after.collect();
                possible.extend(after);
            }
        }
    }

    /// Compares with what a coredinator that has just started says is declared.
    fn settle(&mut self, services: &[Value]) {
        for (name, possible) in &mut self.0 {
            let declared = services.iter().find(|service| service["name"] == **name && service["deleting"] == false);
            let told = declared.map(|service| {
                let replicas = u32::try_from(service["replicas"].as_u64().unwrap()).unwrap();
                (service["version"].as_str().unwrap().to_owned(), replicas, service["desired"] == "stopped")
            });
            let known = format!("{possible:?}");
            // A stop by hand does not outlive coredinator where the policy is `always`, as it is here.
            possible.iter_mut().flatten().for_each(|asked| asked.stopped = false);
            possible.retain(|may_be| {
                let may_be = may_be.as_ref().map(|asked| (asked.variant.clone(), asked.replicas(), asked.stopped));
                may_be == told
            });
            possible.dedup();
            assert!(!possible.is_empty(), "{name} is {told:?}; by what was acknowledged it may be {known}");
        }
    }
}

#[derive(Debug, Clone)]
enum Order {
    Register { variant: String, replicas: u32 },
    Deregister,
    Scale(u32),
    Start,
    Stop,
    Restart,
}

impl Order {
    fn draw(rng: &mut fastrand::Rng, variant: u32) -> Self {
        match rng.u8(..10) {
            0..2 => Self::Register { variant: variant.to_string(), replicas: rng.u32(1..4) },
            2 => Self::Deregister,
            3..6 => Self::Scale(rng.u32(0..4)),
            6..8 => Self::Start,
            8 => Self::Stop,
            _ => Self::Restart,
        }
    }

    fn applied_to(&self, before: Option<&Asked>) -> Option<Asked> {
        let before = before.cloned();
        match (self, before) {
            (Self::Register { variant, replicas }, None) => {
                Some(Asked { variant: variant.clone(), declared: *replicas, scaled: None, stopped: false })
            }
            (Self::Register { variant, replicas }, Some(before)) => Some(Asked {
                variant: variant.clone(),
                declared: *replicas,
                scaled: before.scaled.filter(|_| before.declared == *replicas),
                stopped: before.stopped,
            }),
            (Self::Deregister, _) | (_, None) => None,
            (Self::Scale(replicas), Some(before)) => Some(Asked { scaled: Some(*replicas), ..before }),
            (Self::Start | Self::Restart, Some(before)) => Some(Asked { stopped: false, ..before }),
            (Self::Stop, Some(before)) => Some(Asked { stopped: true, ..before }),
        }
    }

    async fn give(&self, plant: &Plant, name: &str, text: &str) -> Option<Answer> {
        match self {
            Self::Register { variant, replicas } => {
                let document = json!({
                    "name": name, "replicas": replicas, "version": variant, "environment": {"VARIANT": variant},
                });
                plant.register(with(script(text), document)).await
            }
            Self::Deregister => plant.deregister(name).await,
            Self::Scale(replicas) => plant.scale(name, *replicas).await,
            Self::Start => plant.order(name, "start").await,
            Self::Stop => plant.order(name, "stop").await,
            Self::Restart => plant.order(name, "restart").await,
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_instant_it_doubles_nothing_orphans_nothing_and_loses_nothing_it_acknowledged() {
    let seed = number("COREDINATOR_FAULT_SEED").unwrap_or_else(|| fastrand::u64(..));
    let rounds = number("COREDINATOR_FAULT_ROUNDS").map_or(ROUNDS, |rounds| u32::try_from(rounds).unwrap());
    println!("COREDINATOR_FAULT_SEED={seed} COREDINATOR_FAULT_ROUNDS={rounds}");
    let mut rng = fastrand::Rng::with_seed(seed);

    // From the file: one that stays, one that crashes all the time, one that ends well, one with a family.
    let file = json!({
        "stays": sleeper(),
        "crashes": script("sleep 0.01; exit 1"),
        "ends": with(script("exit 0"), json!({"restart_policy": "on-failure"})),
        "family": with(script("sleep 1000 & exec sleep 1000"), json!({"replicas": 2})),
        "waits": with(sleeper(), json!({"depends_on": {"stays": {"condition": "service_healthy"}}})),
    });
    // From the API, where orders change them all the time.
    let texts = [
        ("order-a", "exec sleep 1000"),
        ("order-b", "trap 'exit 0' TERM; while :; do sleep 0.01; done"),
        ("order-c", "sleep 1000 & exec sleep 1000"),
        ("order-d", "sleep 0.02; exit 3"),
    ];
    let mut plant = Plant::new(&file);
    let mut ledger = Ledger::default();
    let (mut listened, mut given, mut unanswered) = (0, 0, 0);
    for round in 0..rounds {
        plant.launch();
        // Most of the time it gets as far as to listen; now and then it is killed on the way there.
        if rng.u8(..5) == 0 {
            tokio::time::sleep(Duration::from_millis(rng.u64(..60))).await;
        } else if plant.listens().await {
            listened += 1;
            ledger.settle(&plant.services().await);
            let (orders, delay) = (rng.usize(..4), Duration::from_millis(rng.u64(..60)));
            let draw = |_| {
                let (name, text) = texts[rng.usize(..texts.len())];
                (name, text, Order::draw(&mut rng, round))
            };
            let drawn: Vec<(&str, &str, Order)> = (0..orders).map(draw).collect();
            let killed = tokio::time::sleep(delay);
            tokio::pin!(killed);
            let kill_one = rng.bool();
            let choice = rng.usize(..);
            let work = async {
                for (name, text, order) in &drawn {
                    let mut answer = None;
                    tokio::select! {
                        biased;
                        () = &mut killed => {}
                        got = order.give(&plant, name, text) => answer = got,
                    }
                    given += 1;
                    unanswered += u32::from(answer.is_none());
                    ledger.note(name, order, answer.as_ref());
                    if killed.is_elapsed() {
                        return;
                    }
                }
                if kill_one {
                    let leaders: Vec<Process> = plant.none_doubled().into_iter().filter(|p| p.leads).collect();
                    if !leaders.is_empty() {
                        processes::signal(leaders[choice % leaders.len()].pid, Signal::KILL);
                    }
                }
                killed.await;
            };
            work.await;
        } else {
            panic!("it ended by itself in round {round}:\n{}", plant.said());
        }
        plant.kill().await;
        plant.none_doubled();
        if round % 25 == 24 {
            plant.start().await;
            converge(&plant, &mut ledger).await;
            plant.kill().await;
        }
    }
    println!("{rounds} kills, {listened} of them listening; {given} orders, {unanswered} without an answer");

    plant.start().await;
    converge(&plant, &mut ledger).await;
    for (name, _) in texts {
        plant.deregister(name).await;
    }
    plant.until("the ordered ones are gone", async |plant| plant.services().await.len() == 5).await;
    plant.order("crashes", "stop").await.unwrap().ok();
    plant.service_until("crashes", "stopped", |s| s["instances"][0]["state"] == "stopped").await;
    let names: Vec<String> = plant.processes().into_iter().map(|process| process.service).collect();
    assert_eq!(names, ["family", "family", "family", "family", "stays", "waits"]);
    assert!(plant.terminate().await.success());
    plant.assert_nothing_runs();
}

/// Waits until everything is as it is declared, and every process belongs to a record.
async fn converge(plant: &Plant, ledger: &mut Ledger) {
    ledger.settle(&plant.services().await);
    plant.runs("stays", 1).await;
    plant.runs("family", 2).await;
    plant.runs("waits", 1).await;
    plant.service_until("ends", "completed", |service| service["status"] == "completed").await;
    for (name, possible) in &ledger.0 {
        let Some(asked) = &possible[0] else {
            plant.service_until(name, "is gone", Value::is_null).await;
            continue;
        };
        // One that crashes all the time never stands still; that it goes on is what can be asked of it.
        if name != "order-d" {
            plant.runs(name, asked.replicas() as usize).await;
        }
    }
    plant
        .until("every process belongs to a record", async |plant| {
            let services = plant.services().await;
            let seen = plant.none_doubled();
            services.iter().all(|service| {
                let name = service["name"].as_str().unwrap();
                running(service).into_iter().collect::<std::collections::BTreeSet<_>>() == leaders_of(&seen, name)
            }) && seen.iter().all(|process| {
                let service = services.iter().find(|service| service["name"] == *process.service);
                let mut instances = service.into_iter().flat_map(|service| service["instances"].as_array().unwrap());
                instances.any(|instance| instance["id"] == *process.id && instance["state"] == "running")
            })
        })
        .await;
}
