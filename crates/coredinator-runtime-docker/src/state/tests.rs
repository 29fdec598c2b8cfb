use std::sync::Arc;

use coredinator_core::SystemClock;
use serde_json::Value;

use super::*;

fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

fn read(state: &Value, rest: &Value) -> Option<Container> {
    let mut inspected = json!({
        "Id": "c1",
        "Config": {"Labels": {
            "coredinator.owner": "me", "coredinator.service": "svc", "coredinator.replica": "0",
            "coredinator.instance": "svc-0-0000000000000007", "coredinator.port": "80",
        }},
        "State": state,
    });
    inspected.as_object_mut()?.extend(rest.as_object()?.clone());
    Container::read(&serde_json::from_value(inspected).ok()?, &["me".to_owned()], &clock())
}

fn ended_with(code: i64, oom: bool) -> Exit {
    let state = json!({"Status": "exited", "ExitCode": code, "OOMKilled": oom, "FinishedAt": "2020-01-01T00:00:00Z"});
    match read(&state, &json!({})).map(|container| container.state) {
        Some(State::Ended(exit)) => exit,
        other => panic!("expected an end, but saw {other:?}"),
    }
}

#[test]
fn ends_and_signals() {
    for (code, told, signal) in [
        (0, Some(0), None),
        (1, Some(1), None),
        (137, None, Some(9)),
        (139, None, Some(11)),
        (143, Some(143), None),
        (255, Some(255), None),
    ] {
        let exit = ended_with(code, false);
        assert_eq!((exit.code, exit.signal), (told, signal), "{code}");
        assert_eq!(exit.at.to_string(), "2020-01-01T00:00:00Z");
    }
    assert!(ended_with(137, true).oom_killed);
}

#[test]
fn states_of_the_engine() {
    for (status, state) in [
        ("created", State::Created),
        ("running", State::Running { paused: false }),
        ("restarting", State::Running { paused: false }),
    ] {
        assert_eq!(read(&json!({"Status": status}), &json!({})).map(|it| it.state), Some(state), "{status}");
    }
    let paused = read(&json!({"Status": "paused", "Paused": true}), &json!({})).map(|it| it.state);
    assert_eq!(paused, Some(State::Running { paused: true }));
    for status in ["exited", "dead", "removing"] {
        let read = read(&json!({"Status": status, "ExitCode": 0}), &json!({})).map(|it| it.state);
        assert!(matches!(read, Some(State::Ended(_))), "{status}");
    }
}

#[test]
fn a_port_is_where_it_is_really_published() {
    let binding = |port: &str| json!({"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]});
    for (rest, port) in [
        (json!({"HostConfig": {"NetworkMode": "host"}}), 80),
        (json!({"HostConfig": {"NetworkMode": "none"}}), 0),
        (json!({"HostConfig": {"PortBindings": binding("0")}, "NetworkSettings": {"Ports": binding("4711")}}), 4711),
        (json!({"HostConfig": {"PortBindings": binding("99")}, "NetworkSettings": {"Ports": {"80/tcp": null}}}), 99),
    ] {
        let read = read(&json!({"Status": "running"}), &rest).map(|it| it.to_started().port);
        assert_eq!(read, Some(port), "{rest}");
    }
}

#[test]
fn only_news_is_told() {
    let running = read(&json!({"Status": "running"}), &json!({}));
    let told = next(None, running.as_ref(), &clock());
    assert!(matches!(told, Some(Observation::Running(_))));
    assert_eq!(next(told.as_ref(), running.as_ref(), &clock()), None);
    let made = read(&json!({"Status": "created"}), &json!({}));
    assert!(matches!(next(None, made.as_ref(), &clock()), Some(Observation::Waiting(_))));
    let over = read(&json!({"Status": "exited", "ExitCode": 3}), &json!({}));
    match next(told.as_ref(), over.as_ref(), &clock()) {
        Some(Observation::Exited(exit)) => assert_eq!(exit.code, Some(3)),
        other => panic!("expected an end, but saw {other:?}"),
    }
    match next(told.as_ref(), None, &clock()) {
        Some(Observation::Exited(exit)) => assert_eq!((exit.code, exit.signal), (None, None)),
        other => panic!("expected an end, but saw {other:?}"),
    }
}
