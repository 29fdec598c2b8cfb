//! Where the typed collections lie in the store.
//!
//! | key | value | written by |
//! |---|---|---|
//! | `services/{name}` | [`ServiceRecord`](coredinator_core::ServiceRecord) | users |
//! | `intents/{name}` | [`Intent`](coredinator_core::Intent) | users |
//! | `instances/{name}/{replica}` | [`InstanceRecord`](coredinator_core::InstanceRecord) | the supervisor |
//! | `acks/{name}/{replica}` | [`ConfigAck`](coredinator_core::ConfigAck) | the instances, by the API |
//! | `rollouts/{name}` | [`ConfigRollout`](coredinator_core::ConfigRollout) | the supervisor |
//! | `config/head` | [`ConfigHead`](super::ConfigHead) | users |
//! | `config/revisions/{number}` | [`ConfigRevision`](super::ConfigRevision) | users, with the head |
//! | `config/file` | the [`ConfigDocument`](super::ConfigDocument) of the file that was applied last | whoever applies it |
//! | `health/{name}` | what its checks came to, where several replicas share the store | who checks it |
//! | `events/{micros}-{unique}` | [`Event`](coredinator_core::Event) | whoever made it happen, with what happened |

use coredinator_core::{Key, ServiceName, Timestamp};

pub(super) const EVENTS: &str = "events/";
pub(super) const CONFIG_REVISIONS: &str = "config/revisions/";

/// What a key of the registry is about. Keys of other collections are `None` to [`parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Service(ServiceName),
    Intent(ServiceName),
    Instance(ServiceName, u32),
    Ack(ServiceName, u32),
    Rollout(ServiceName),
    ConfigHead,
    Health(ServiceName),
    Event,
}

pub(super) fn parse(key: &Key) -> Option<Subject> {
    let (collection, rest) = key.as_str().split_once('/')?;
    match collection {
        "services" => ServiceName::new(rest).ok().map(Subject::Service),
        "intents" => ServiceName::new(rest).ok().map(Subject::Intent),
        "instances" | "acks" => {
            let (name, replica) = rest.split_once('/')?;
            let (name, replica) = (ServiceName::new(name).ok()?, replica.parse().ok()?);
            Some(if collection == "acks" { Subject::Ack(name, replica) } else { Subject::Instance(name, replica) })
        }
        "rollouts" => ServiceName::new(rest).ok().map(Subject::Rollout),
        "config" => (rest == "head").then_some(Subject::ConfigHead),
        "health" => ServiceName::new(rest).ok().map(Subject::Health),
        "events" => Some(Subject::Event),
        _ => None,
    }
}

pub(super) fn service(name: &ServiceName) -> Key {
    key(format!("services/{name}"))
}

pub(super) fn intent(name: &ServiceName) -> Key {
    key(format!("intents/{name}"))
}

pub(super) fn health(name: &ServiceName) -> Key {
    key(format!("health/{name}"))
}

pub(super) fn instance(name: &ServiceName, replica: u32) -> Key {
    key(format!("instances/{name}/{replica:06}"))
}

pub(super) fn ack(name: &ServiceName, replica: u32) -> Key {
    key(format!("acks/{name}/{replica:06}"))
}

pub(super) fn rollout(name: &ServiceName) -> Key {
    key(format!("rollouts/{name}"))
}

pub(super) fn config_head() -> Key {
    key("config/head".to_owned())
}

pub(super) fn config_file() -> Key {
    key("config/file".to_owned())
}

pub(super) fn config_revision(number: u64) -> Key {
    key(format!("{CONFIG_REVISIONS}{number:020}"))
}

/// Events sort by time; `unique` tells apart those of one microsecond.
pub(super) fn event(at: Timestamp, unique: u32) -> Key {
    key(format!("{EVENTS}{:020}-{unique:08x}", at.as_microsecond().max(0)))
}

fn key(text: String) -> Key {
    Key::new(text).unwrap_or_else(|error| unreachable!("made of DNS labels and digits: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        let name = ServiceName::new("core-io").unwrap();
        assert_eq!(parse(&service(&name)), Some(Subject::Service(name.clone())));
        assert_eq!(parse(&health(&name)), Some(Subject::Health(name.clone())));
        assert_eq!(parse(&intent(&name)), Some(Subject::Intent(name.clone())));
        assert_eq!(parse(&instance(&name, 12)), Some(Subject::Instance(name.clone(), 12)));
        assert_eq!(parse(&event(Timestamp::UNIX_EPOCH, 1)), Some(Subject::Event));
        assert_eq!(parse(&ack(&name, 12)), Some(Subject::Ack(name.clone(), 12)));
        assert_eq!(parse(&rollout(&name)), Some(Subject::Rollout(name)));
        assert_eq!(parse(&config_head()), Some(Subject::ConfigHead));
        assert_eq!(parse(&config_file()), None, "read when it is needed");
        assert_eq!(parse(&config_revision(3)), None, "read when it is needed");
        for foreign in ["agents/x", "acks/a", "nodes/a", "services", "services/A", "instances/a", "instances/a/x"] {
            assert_eq!(parse(&Key::new(foreign).unwrap()), None, "{foreign}");
        }
    }
}
