//! Images that have to be fetched first: from a real registry on loopback, which asks who one is.

#[path = "support/kit.rs"]
#[expect(dead_code, reason = "other tests use more of it")]
mod kit;
#[path = "support/registry.rs"]
mod registry;
mod support;

use coredinator_core::{Observation, Reason, Runtime, StopRequest};
use coredinator_runtime_docker::{DockerRuntime, DockerRuntimeOptions};
use kit::{begun, ends, observed, request, runs};
use registry::Registry;
use serde_json::json;
use support::{Engine, left_out};

async fn both() -> Option<(Engine, Registry)> {
    let engine = Engine::start().await?;
    match Registry::start(&engine).await {
        Ok(registry) => Some((engine, registry)),
        Err(why) => {
            left_out("a test did not run against a real registry", &why);
            None
        }
    }
}

fn who(engine: &Engine, settings: &std::path::Path) -> DockerRuntime {
    DockerRuntime::new(DockerRuntimeOptions::new("me").with_host(engine.host()).with_settings(settings))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_known_gets_the_image() {
    let Some((engine, registry)) = both().await else { return };
    let image = registry.image();
    let with = json!({"image": image});

    // A stranger is told so, and nothing is left of the start.
    let stranger = who(&engine, &registry.settings("stranger", "{}"));
    let asked = request("exec sleep 1000", with.clone());
    let taken_on = begun(&stranger, asked.clone()).await;
    assert!(!taken_on.running, "{taken_on:?}");
    let mut watch = stranger.watch(&taken_on.instance);
    let failed: Reason = loop {
        match observed(&mut watch).await {
            Observation::Waiting(reason) => assert_eq!(reason.code, "Pulling"),
            Observation::NotStarted(reason) => break reason,
            other => panic!("expected no start, but saw {other:?}"),
        }
    };
    assert!(failed.code == "ImagePullFailed" && failed.message.contains(&image), "{failed:?}");
    let again = observed(&mut stranger.watch(&taken_on.instance)).await;
    assert_eq!(again, Observation::NotStarted(failed), "who asks late is told as well");
    assert_eq!(stranger.list(&[]).await.unwrap(), []);
    assert_eq!(engine.asked(&["ps", "--all", "--quiet"]), "");

    // Who is known gets it; ten who want it at the same time get it once.
    let known = who(&engine, &registry.settings("known", r#"{"username": "me", "password": "secret"}"#));
    let fleet: Vec<_> = (0..10).map(|_| request("exec sleep 1000", with.clone())).collect();
    for asked in &fleet {
        let taken_on = begun(&known, asked.clone()).await;
        let twice = begun(&known, asked.clone()).await;
        assert_eq!((&taken_on.instance.id, &twice.instance.id), (&asked.id, &asked.id));
    }
    for asked in &fleet {
        let taken_on = begun(&known, asked.clone()).await;
        let (before, started) = runs(&mut known.watch(&taken_on.instance)).await;
        assert!(before.iter().all(|reason| reason.code == "Pulling" && reason.message.contains(&image)), "{before:?}");
        assert!(started.running && started.instance.handle.is_some());
    }
    assert_eq!(known.list(&[]).await.unwrap().len(), fleet.len());
    for started in known.list(&[]).await.unwrap() {
        known.stop(&started.instance, StopRequest::KILL).await.unwrap();
    }

    // The engine has it by now: nothing is fetched, unless that is asked for every time.
    let here = begun(&known, request("exec sleep 1000", with)).await;
    assert!(here.running);
    let always = begun(&known, request("exec sleep 1000", json!({"image": image, "pull": "always"}))).await;
    assert!(!always.running);
    runs(&mut known.watch(&always.instance)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_while_it_is_fetched_never_starts() {
    let Some(engine) = Engine::start().await else { return };
    // Accepts, and says nothing: whoever fetches from here waits.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/never:1", mute.local_addr().unwrap());
    let runtime = kit::runtime(&engine, "me");
    let taken_on = begun(&runtime, request("exec sleep 1000", json!({"image": image}))).await;
    let mut watch = runtime.watch(&taken_on.instance);
    let first = observed(&mut watch).await;
    assert!(matches!(&first, Observation::Waiting(reason) if reason.code == "Pulling"), "{first:?}");
    let listed = runtime.list(&[]).await.unwrap();
    assert_eq!((listed.len(), &listed[0].instance.id, listed[0].running), (1, &taken_on.instance.id, false));
    runtime.stop(&taken_on.instance, StopRequest::KILL).await.unwrap();
    let exit = ends(&mut watch).await;
    assert_eq!((exit.code, exit.signal), (None, None));
    assert_eq!(runtime.list(&[]).await.unwrap(), []);
    runtime.stop(&taken_on.instance, StopRequest::KILL).await.expect("stopping what is gone succeeds");
}
