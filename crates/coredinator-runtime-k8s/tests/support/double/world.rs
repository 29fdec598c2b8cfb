//! What the double knows: objects, their versions and history, and who watches them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use coredinator_core::{Clock as _, SystemClock, Timestamp};
use serde_json::{Map, Value, json};
use tokio::sync::{Notify, broadcast};

use super::{admission, kubelet};

/// An object's resource, namespace and name.
pub(super) type Key = (String, String, String);

/// What becomes of a call.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    /// It is answered this status, and perhaps when to come again (seconds).
    Answer(u16, Option<u64>),
    /// Its connection is cut before anything is done.
    Cut,
    /// It is done, and its connection is cut before it is answered.
    DoneAndCut,
    /// It is answered after a while.
    Slow(Duration),
    /// It is done at once, and answered after a while.
    DoneAndSlow(Duration),
}

/// A call that goes wrong.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) resource: &'static str,
    pub(crate) verb: &'static str,
    /// How often.
    pub(crate) times: usize,
    pub(crate) then: Then,
}

/// Something that happened to an object.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) kind: &'static str,
    pub(super) key: Key,
    pub(super) object: Value,
}

/// An answer other than an object: a status, the API server's word for it, and a message.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) u16, pub(super) &'static str, pub(super) String);

#[derive(Debug, Default)]
struct Objects {
    version: u64,
    compacted: u64,
    all: BTreeMap<Key, Value>,
    history: VecDeque<Change>,
}

pub(super) struct World {
    objects: Mutex<Objects>,
    changes: broadcast::Sender<Change>,
    pub(super) cuts: broadcast::Sender<()>,
    pub(super) faults: Mutex<Vec<Fault>>,
    /// The one token that is accepted; `None`: whoever comes is let in.
    pub(super) token: Mutex<Option<String>>,
    /// Namespaces in which nothing may be done.
    pub(super) forbidden: Mutex<BTreeSet<String>>,
    pub(super) calls: Mutex<BTreeSet<(String, String, String)>>,
    pub(super) counts: Mutex<HashMap<(String, String), usize>>,
    pub(super) skew: AtomicI64,
    pub(super) processes: AtomicUsize,
    pub(super) nodes: Mutex<HashMap<String, kubelet::Pod>>,
    uids: AtomicU64,
    pub(super) ended: Notify,
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            objects: Mutex::new(Objects { version: 100, ..Objects::default() }),
            changes: broadcast::Sender::new(65_536),
            cuts: broadcast::Sender::new(16),
            faults: Mutex::default(),
            token: Mutex::default(),
            forbidden: Mutex::default(),
            calls: Mutex::default(),
            counts: Mutex::default(),
            skew: AtomicI64::new(0),
            processes: AtomicUsize::new(0),
            nodes: Mutex::default(),
            uids: AtomicU64::new(1),
            ended: Notify::new(),
        })
    }

    /// The time by its clock.
    pub(super) fn now(&self) -> Timestamp {
        later(SystemClock.now(), self.skew.load(Ordering::Relaxed))
    }

    /// To whole seconds, as the API server stamps.
    pub(super) fn stamp(&self) -> String {
        Timestamp::from_second(self.now().as_second()).expect("a time").to_string()
    }

    pub(super) fn cut(&self) {
        let _ = self.cuts.send(());
    }

    pub(super) fn compact(&self) {
        let mut objects = self.objects.lock().unwrap();
        objects.version += 1;
        objects.compacted = objects.version;
        objects.history.clear();
    }

    pub(super) fn lose(&self, namespace: &str, name: &str) {
        let uid = self.uid(namespace, name).expect("there is such a pod");
        self.nodes.lock().unwrap().get(&uid).expect("it runs").lose();
    }

    pub(super) fn end(&self) {
        self.cut();
        for pod in self.nodes.lock().unwrap().values() {
            pod.kill();
        }
        self.ended.notify_waiters();
    }

    fn uid(&self, namespace: &str, name: &str) -> Option<String> {
        self.get("pods", namespace, name)?["metadata"]["uid"].as_str().map(str::to_owned)
    }

    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.objects.lock().unwrap().all.get(&key(resource, namespace, name)).cloned()
    }

    pub(super) fn names(&self, resource: &str, namespace: &str) -> BTreeSet<String> {
        let objects = self.objects.lock().unwrap();
        let of = objects.all.keys().filter(|(kind, space, _)| kind == resource && space == namespace);
        of.map(|(_, _, name)| name.clone()).collect()
    }

    /// All objects of a kind that the labels choose, and the version of that answer.
    pub(super) fn list(&self, resource: &str, namespace: Option<&str>, selector: &str) -> (Vec<Value>, u64) {
        let objects = self.objects.lock().unwrap();
        let of = objects.all.iter().filter(|((kind, space, _), object)| {
            kind == resource && namespace.is_none_or(|namespace| namespace == space) && chosen(object, selector)
        });
        (of.map(|(_, object)| object.clone()).collect(), objects.version)
    }

    /// What changed after a version, and whatever changes from now on; `None`: that is too long ago.
    pub(super) fn changes(&self, after: u64) -> Option<(Vec<Change>, broadcast::Receiver<Change>)> {
        let objects = self.objects.lock().unwrap();
        if after < objects.compacted {
            return None;
        }
        let past = objects.history.iter().filter(|change| change.version > after).cloned().collect();
        Some((past, self.changes.subscribe()))
    }

    fn commit(&self, objects: &mut Objects, kind: &'static str, key: Key, mut object: Value) -> Value {
        objects.version += 1;
        object["metadata"]["resourceVersion"] = json!(objects.version.to_string());
        if kind == "DELETED" {
            objects.all.remove(&key);
        } else {
            objects.all.insert(key.clone(), object.clone());
        }
        let change = Change { version: objects.version, kind, key, object: object.clone() };
        objects.history.push_back(change.clone());
        let _ = self.changes.send(change);
        object
    }

    /// Makes an object that is not there yet.
    pub(super) fn put(&self, resource: &str, mut object: Value, manager: &str) -> Result<Value, Refusal> {
        let metadata = &mut object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (resource.to_owned(), text(&metadata["namespace"]), text(&metadata["name"]));
        let uid = format!("uid-{}", self.uids.fetch_add(1, Ordering::Relaxed));
        metadata["uid"] = json!(uid);
        metadata["creationTimestamp"] = json!(self.stamp());
        metadata["managedFields"] = json!([{"manager": manager, "operation": "Apply"}]);
        if resource == "pods" {
            object["status"] = json!({"phase": "Pending"});
            object["spec"].as_object_mut().expect("a pod has a spec").entry("restartPolicy").or_insert(json!("Always"));
        }
        admission::check(resource, &object)?;
        let mut objects = self.objects.lock().unwrap();
        if objects.all.contains_key(&key) {
            return Err(Refusal(409, "AlreadyExists", format!("{resource} {:?} already exists", key.2)));
        }
        Ok(self.commit(&mut objects, "ADDED", key, object))
    }

    /// Server-side apply: makes the object, or changes what the manager says of it.
    pub(super) fn apply(
        self: &Arc<Self>,
        key: Key,
        asked: Value,
        manager: &str,
        force: bool,
    ) -> Result<Value, Refusal> {
        let (resource, _, name) = &key;
        let there = self.objects.lock().unwrap().all.get(&key).cloned();
        let Some(there) = there else {
            if asked["metadata"].get("uid").is_some() {
                return Err(Refusal(
                    409,
                    "Conflict",
                    format!("Operation cannot be fulfilled on {resource} {name:?}: uid mismatch"),
                ));
            }
            let made = self.put(resource, asked, manager)?;
            if resource == "pods" {
                kubelet::run(self, &made);
            }
            return Ok(made);
        };
        if asked["metadata"].get("uid").is_some_and(|uid| *uid != there["metadata"]["uid"]) {
            return Err(Refusal(
                409,
                "Conflict",
                format!("Operation cannot be fulfilled on {resource} {name:?}: uid mismatch"),
            ));
        }
        if there["metadata"]["managedFields"][0]["manager"] != manager && !force {
            return Err(Refusal(
                409,
                "Conflict",
                "Apply failed with 1 conflict: conflict with \"somebody\"".to_owned(),
            ));
        }
        let mut changed = there.clone();
        merge(&mut changed, &asked);
        admission::check(resource, &changed)?;
        let fixed = ["/spec/containers", "/spec/restartPolicy", "/spec/clusterIP"];
        for path in fixed {
            if changed.pointer(path) != there.pointer(path) {
                return Err(Refusal(
                    422,
                    "Invalid",
                    format!("{resource} {name:?} is invalid: {path}: field is immutable"),
                ));
            }
        }
        let mut objects = self.objects.lock().unwrap();
        Ok(self.commit(&mut objects, "MODIFIED", key, changed))
    }

    /// A merge patch: writes a piece over an object that is there.
    pub(super) fn merge(&self, key: Key, piece: &Value) -> Result<Value, Refusal> {
        let mut objects = self.objects.lock().unwrap();
        let Some(mut object) = objects.all.get(&key).cloned() else {
            return Err(Refusal(404, "NotFound", format!("{} {:?} not found", key.0, key.2)));
        };
        if piece["metadata"].get("uid").is_some_and(|uid| *uid != object["metadata"]["uid"]) {
            return Err(Refusal(409, "Conflict", "Precondition failed: UID in precondition differs".to_owned()));
        }
        merge(&mut object, piece);
        Ok(self.commit(&mut objects, "MODIFIED", key, object))
    }

    /// Deletes an object: at once, or, for a pod that may run, when its kubelet says that it has ended.
    pub(super) fn delete(&self, key: &Key, options: &Value) -> Result<Value, Refusal> {
        let mut objects = self.objects.lock().unwrap();
        let Some(there) = objects.all.get(key).cloned() else {
            return Err(Refusal(404, "NotFound", format!("{} {:?} not found", key.0, key.2)));
        };
        let wanted = &options["preconditions"]["uid"];
        if !wanted.is_null() && *wanted != there["metadata"]["uid"] {
            return Err(Refusal(409, "Conflict", format!("Precondition failed: UID in precondition: {wanted}")));
        }
        let over = matches!(there["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let own = there["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
        let asked = options["gracePeriodSeconds"].as_i64().unwrap_or(own);
        if key.0 != "pods" || over || asked == 0 {
            let gone = self.commit(&mut objects, "DELETED", key.clone(), there);
            return Ok(gone);
        }
        let earlier = there["metadata"]["deletionGracePeriodSeconds"].as_i64();
        let grace = earlier.map_or(asked, |earlier| earlier.min(asked));
        let mut ending = there;
        let end = later(self.now(), grace);
        ending["metadata"]["deletionTimestamp"] =
            json!(Timestamp::from_second(end.as_second()).expect("a time").to_string());
        ending["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        let ending = self.commit(&mut objects, "MODIFIED", key.clone(), ending);
        drop(objects);
        let uid = ending["metadata"]["uid"].as_str().unwrap_or_default();
        match self.nodes.lock().unwrap().get(uid) {
            Some(pod) => pod.end(Duration::from_secs(u64::try_from(grace).unwrap_or(0))),
            None => drop(self.remove(key)),
        }
        Ok(ending)
    }

    /// Evicts a pod: says why, and deletes it with its own grace. No budget is looked at.
    pub(super) fn evict(&self, key: &Key) -> Result<Value, Refusal> {
        let evicted = self.alter(&key.0, &key.1, &key.2, |pod| {
            let condition = json!({
                "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
            });
            match pod["status"]["conditions"].as_array_mut() {
                Some(conditions) => conditions.push(condition),
                None => pod["status"]["conditions"] = json!([condition]),
            }
        });
        evicted.ok_or_else(|| Refusal(404, "NotFound", format!("{} {:?} not found", key.0, key.2)))?;
        self.delete(key, &Value::Null)?;
        Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
    }

    /// An object is gone.
    pub(super) fn remove(&self, key: &Key) -> Option<Value> {
        let mut objects = self.objects.lock().unwrap();
        let there = objects.all.get(key).cloned()?;
        Some(self.commit(&mut objects, "DELETED", key.clone(), there))
    }

    pub(super) fn alter(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Option<Value> {
        let key = key(resource, namespace, name);
        let mut objects = self.objects.lock().unwrap();
        let mut object = objects.all.get(&key).cloned()?;
        change(&mut object);
        Some(self.commit(&mut objects, "MODIFIED", key, object))
    }

    /// What becomes of a call, if it is not to be answered as usual.
    pub(super) fn verdict(&self, resource: &str, verb: &str) -> Option<Then> {
        let mut faults = self.faults.lock().unwrap();
        let of = |fault: &&mut Fault| fault.times > 0 && fault.resource == resource && fault.verb == verb;
        let fault = faults.iter_mut().find(of)?;
        fault.times -= 1;
        Some(fault.then.clone())
    }
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(time.as_nanosecond() + i128::from(seconds) * 1_000_000_000).expect("a time")
}

pub(super) fn key(resource: &str, namespace: &str, name: &str) -> Key {
    (resource.to_owned(), namespace.to_owned(), name.to_owned())
}

/// Whether a selector of equalities chooses an object.
pub(super) fn chosen(object: &Value, selector: &str) -> bool {
    selector.split(',').filter(|term| !term.is_empty()).all(|term| {
        let (name, value) = term.split_once('=').expect("only equalities are known");
        object["metadata"]["labels"][name] == value
    })
}

fn merge(whole: &mut Value, piece: &Value) {
    match (whole, piece) {
        (Value::Object(whole), Value::Object(piece)) => {
            for (key, value) in piece {
                merge(whole.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (whole, piece) => whole.clone_from(piece),
    }
}

/// An answer that says why there is none.
pub(super) fn status(refusal: &Refusal) -> Value {
    let Refusal(code, reason, message) = refusal;
    let mut status = Map::new();
    status.insert("kind".to_owned(), json!("Status"));
    status.insert("apiVersion".to_owned(), json!("v1"));
    status.insert("metadata".to_owned(), json!({}));
    status.insert("status".to_owned(), json!("Failure"));
    status.insert("message".to_owned(), json!(message));
    status.insert("reason".to_owned(), json!(reason));
    status.insert("code".to_owned(), json!(code));
    Value::Object(status)
}
