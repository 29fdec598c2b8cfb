//! Agents that are asked for what they would rather have, while a cycle is decided.

use coredinator_coord::{Coordinator, CycleRecord, EventKind, Replayed, Strategies, replay};
use coredinator_core::coordination::DecisionOutcome;
use serde_json::json;

use crate::support::{Manner, Plant, agent, id, steam, wants};

/// An engine whose agents a and b negotiate, and cannot both have what they want first.
async fn contended(plant: &Plant, manners: [Manner; 2]) -> Coordinator {
    let engine = plant.start().await;
    for (name, manner) in ["a", "b"].into_iter().zip(manners) {
        let document = json!({"agent_id": name, "endpoint": format!("http://{name}:1"), "negotiates": true});
        engine.register(agent(document)).await.unwrap();
        plant.fakes.set(name, manner);
    }
    engine
}

#[tokio::test(start_paused = true)]
async fn of_a_revised_wish_both_are_told_with_the_conflict_that_there_was() {
    let plant = Plant::new(json!({"conflict_resolution": "consensus"}));
    let revises = Manner::Revises(wants("b", 1, &[("run", 6.0, 1.0)]), wants("b", 2, &[("trickle", 2.0, 0.5)]));
    let engine = contended(&plant, [Manner::Answers(wants("a", 1, &[("run", 6.0, 2.0)])), revises]).await;
    let mut events = engine.events(None);
    let record = engine.step("default").await.unwrap();
    assert_eq!(steam(&record), [("a".into(), 6.0), ("b".into(), 2.0)].into());
    let plan = record.plan.as_ref().unwrap();
    // What there was to be resolved.
    assert_eq!(plan.conflicts.len(), 1);
    assert_eq!((plan.conflicts[0].id.as_str(), plan.conflicts[0].demanded), ("capacity:steam", Some(12.0)));
    assert_eq!(record.summary().conflicts, 1);
    assert_eq!(engine.status().groups[0].stats.conflicts["capacity"], 1);
    let counted = std::iter::from_fn(|| events.ready()).find_map(|event| match event.kind {
        EventKind::Cycle { conflicts, .. } => Some(conflicts),
        _ => None,
    });
    assert_eq!(counted, Some(1));
    // What was asked for first, and what in the end.
    let first = &record.problem.intentions[1].options[0].id;
    let [revised] = &plan.revisions[..] else { panic!("{:?}", plan.revisions) };
    assert_eq!((first.as_str(), revised.agent_id.as_str(), revised.options[0].id.as_str()), ("run", "b", "trickle"));
    let decision = plan.decision("b").unwrap();
    assert_eq!((decision.outcome, decision.option_id.as_deref()), (DecisionOutcome::Granted, Some("trickle")));
    assert_eq!(decision.reason.code, "revised");
    assert_eq!(decision.reason.text, "revised in negotiation: what it wanted in the end, in full");
    assert_eq!(decision.reason.conflict_ids, ["capacity:steam"]);
    assert_eq!(plan.decision("a").unwrap().reason.code, "first_choice");
    assert!(record.negotiation[0].prices.contains_key("steam"), "{:?}", record.negotiation[0]);
    let written: CycleRecord = serde_json::from_str(&serde_json::to_string(&*record).unwrap()).unwrap();
    assert_eq!(replay(&written, &Strategies::builtin()).await.unwrap(), Replayed::Same);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_revised_wish_that_is_not_met_in_full_is_told_as_such() {
    let plant = Plant::new(json!({"conflict_resolution": "consensus"}));
    let revises = Manner::Revises(wants("b", 1, &[("run", 6.0, 1.0)]), wants("b", 2, &[("walk", 5.0, 0.5)]));
    let engine = contended(&plant, [Manner::Answers(wants("a", 1, &[("run", 6.0, 2.0)])), revises]).await;
    let record = engine.step("default").await.unwrap();
    let plan = record.plan.as_ref().unwrap();
    assert_eq!((plan.conflicts.len(), plan.conflicts[0].demanded), (1, Some(12.0)));
    let reason = &plan.decision("b").unwrap().reason;
    assert_eq!(reason.code, "no_room");
    assert!(reason.text.starts_with("revised in negotiation; none of its options fits"), "{}", reason.text);
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_negotiation_in_which_nobody_revises_changes_no_word() {
    let plant = Plant::new(json!({"conflict_resolution": "consensus"}));
    let manner = |name, worth| Manner::Answers(wants(name, 1, &[("run", 6.0, worth)]));
    let engine = contended(&plant, [manner("a", 2.0), manner("b", 1.0)]).await;
    let record = engine.step("default").await.unwrap();
    let plan = record.plan.as_ref().unwrap();
    assert!(!record.negotiation.is_empty() && plan.revisions.is_empty() && record.agent_faults.is_empty());
    assert!(plan.decisions.iter().all(|decision| !decision.reason.text.contains("revised")), "{plan:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn who_does_not_answer_an_offer_is_told_of() {
    let section = json!({"conflict_resolution": "consensus", "negotiate": 0.00001, "distribute": 0.00001});
    let plant = Plant::new(section);
    let dies = Manner::Dies(wants("b", 1, &[("run", 6.0, 1.0)]));
    let engine = contended(&plant, [Manner::Answers(wants("a", 1, &[("run", 6.0, 2.0)])), dies]).await;
    let record = engine.step("default").await.unwrap();
    assert_eq!(record.agent_faults, [(id("b"), "to an offer, it did not answer in time".to_owned())].into());
    assert_eq!(engine.status().groups[0].stats.agent_faults, 1);
    assert_eq!(steam(&record), [("a".into(), 6.0), ("b".into(), 0.0)].into());
    let told = engine.decision("b", None, std::time::Duration::ZERO).await.unwrap().unwrap();
    assert_eq!(told.fault.as_ref(), record.agent_faults.get(&id("b")));
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_says_neither_is_told_of() {
    let plant = Plant::new(json!({"conflict_resolution": "consensus"}));
    let mumbles = Manner::Mumbles(wants("b", 1, &[("run", 6.0, 1.0)]));
    let engine = contended(&plant, [Manner::Answers(wants("a", 1, &[("run", 6.0, 2.0)])), mumbles]).await;
    let record = engine.step("default").await.unwrap();
    let told = "to an offer, it neither accepted nor said what it wants";
    assert_eq!(record.agent_faults, [(id("b"), told.to_owned())].into());
    engine.shutdown().await;
}
