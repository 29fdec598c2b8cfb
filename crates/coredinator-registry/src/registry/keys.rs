//! Where the typed collections lie in the store.
//!
//! | key | value | written by |
//! |---|---|---|
//! | `services/{name}` | [`ServiceRecord`](coredinator_core::ServiceRecord) | users |
//! | `intents/{name}` | [`Intent`](coredinator_core::Intent) | users |
//! | `instances/{name}/{replica}` | [`InstanceRecord`](coredinator_core::InstanceRecord) | the supervisor |
//! | `events/{micros}-{unique}` | [`Event`](coredinator_core::Event) | whoever made it happen, with what happened |

use coredinator_core::{Key, ServiceName, Timestamp};

pub(super) const EVENTS: &str = "events/";

/// What a key of the registry is about. Keys of other collections are `None` to [`parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Service(ServiceName),
    Intent(ServiceName),
    Instance(ServiceName, u32),
    Event,
}

pub(super) fn parse(key: &Key) -> Option<Subject> {
    let (collection, rest) = key.as_str().split_once('/')?;
    match collection {
        "services" => ServiceName::new(rest).ok().map(Subject::Service),
        "intents" => ServiceName::new(rest).ok().map(Subject::Intent),
        "instances" => {
            let (name, replica) = rest.split_once('/')?;
            Some(Subject::Instance(ServiceName::new(name).ok()?, replica.parse().ok()?))
        }
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

pub(super) fn instance(name: &ServiceName, replica: u32) -> Key {
    key(format!("instances/{name}/{replica:06}"))
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
        assert_eq!(parse(&intent(&name)), Some(Subject::Intent(name.clone())));
        assert_eq!(parse(&instance(&name, 12)), Some(Subject::Instance(name, 12)));
        assert_eq!(parse(&event(Timestamp::UNIX_EPOCH, 1)), Some(Subject::Event));
        for foreign in ["agents/x", "services", "services/A", "instances/a", "instances/a/x"] {
            assert_eq!(parse(&Key::new(foreign).unwrap()), None, "{foreign}");
        }
    }
}
