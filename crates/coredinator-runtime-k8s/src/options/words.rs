//! The smaller words of a service's document.

use std::collections::BTreeMap;

use coredinator_core::{
    FieldError,
    field::{FieldReader, join, kind},
    size,
};
use k8s_openapi::{api::core::v1::Toleration, apimachinery::pkg::api::resource::Quantity};
use serde_json::Value;

use super::{Errors, each, fail};
use crate::{labels, template};

/// When an image is fetched from its registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pull {
    /// Where the node does not have it.
    #[default]
    Missing,
    /// Before every start.
    Always,
    /// Never: one that the node does not have is a reason not to start.
    Never,
}

/// How others find a service in the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Expose {
    /// By a Service with an address of its own, which spreads connections over the pods that are ready.
    #[default]
    ClusterIp,
    /// By a Service without one: its name resolves to the addresses of the pods that are ready.
    Headless,
    /// Not by a Service.
    None,
}

/// Who makes the health checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProbeBy {
    /// coredinator, over the network, at the pod's address.
    #[default]
    Coredinator,
    /// The kubelet, on the pod's node; its verdict is read back.
    Kubelet,
}

/// Who starts a program again that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartBy {
    /// coredinator, as a new pod: by policy, back-off and budget, as with every runtime.
    #[default]
    Coredinator,
    /// The kubelet, in place and by its own back-off; coredinator counts it.
    Kubelet,
}

/// How much a pod may use; `None`: no limit. What it may use is also what is set aside for it on its node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resources {
    /// Thousandths of a processor.
    pub milli_cpus: Option<i64>,
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Graphics processors, as `nvidia.com/gpu`; 0: none.
    pub gpus: u32,
}

impl Resources {
    /// As the API server counts.
    pub(crate) fn limits(&self) -> BTreeMap<String, Quantity> {
        let cpus = self.milli_cpus.map(|cpus| ("cpu", format!("{cpus}m")));
        let memory = self.memory.map(|bytes| ("memory", bytes.to_string()));
        let gpus = (self.gpus > 0).then(|| ("nvidia.com/gpu", self.gpus.to_string()));
        let all = cpus.into_iter().chain(memory).chain(gpus);
        all.map(|(name, amount)| (name.to_owned(), Quantity(amount))).collect()
    }
}

/// Reads one of a few words.
fn one_of<T: Copy>(pointer: &str, value: &Value, known: &[(&str, T)]) -> Result<T, Errors> {
    let found = known.iter().find(|(word, _)| value.as_str() == Some(word));
    found.map(|(_, meaning)| *meaning).map_or_else(
        || {
            let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            fail(pointer, format!("expected {}, but found {value}", words.join(" or ")))
        },
        Ok,
    )
}

pub(super) fn pull(pointer: &str, value: &Value) -> Result<Pull, Errors> {
    one_of(pointer, value, &[("missing", Pull::Missing), ("always", Pull::Always), ("never", Pull::Never)])
}

pub(super) fn expose(pointer: &str, value: &Value) -> Result<Expose, Errors> {
    let known = [("cluster_ip", Expose::ClusterIp), ("headless", Expose::Headless), ("none", Expose::None)];
    one_of(pointer, value, &known)
}

pub(super) fn probe_by(pointer: &str, value: &Value) -> Result<ProbeBy, Errors> {
    one_of(pointer, value, &[("coredinator", ProbeBy::Coredinator), ("kubelet", ProbeBy::Kubelet)])
}

pub(super) fn restart_by(pointer: &str, value: &Value) -> Result<RestartBy, Errors> {
    one_of(pointer, value, &[("coredinator", RestartBy::Coredinator), ("kubelet", RestartBy::Kubelet)])
}

/// `1000`, `"1000"` or `"1000:1000"`: a pod knows no names.
pub(super) fn user(pointer: &str, value: &Value) -> Result<(i64, Option<i64>), Errors> {
    let text =
        value.as_i64().map_or_else(|| value.as_str().unwrap_or_default().to_owned(), |number| number.to_string());
    let (user, group) = text.split_once(':').map_or((text.as_str(), None), |(user, group)| (user, Some(group)));
    let number = |text: &str| text.parse::<i64>().ok().filter(|&number| (0..=i64::from(i32::MAX)).contains(&number));
    match (number(user), group.map(number)) {
        (Some(user), None) => Ok((user, None)),
        (Some(user), Some(Some(group))) => Ok((user, Some(group))),
        _ => fail(pointer, format!("a pod's user is a number, or two as in 1000:1000, but found {value}")),
    }
}

pub(super) fn resources(pointer: &str, value: Value) -> Result<Resources, Errors> {
    let mut reader = FieldReader::new(pointer, value);
    let read = Resources {
        milli_cpus: reader.parsed("cpus", |at, value| cpus(at, &value)),
        memory: reader.parsed("memory", |at, value| size::bytes(&value).or_else(|detail| fail(at, detail))),
        gpus: reader.or("gpus", 0),
    };
    if reader.raw("pids").is_some() {
        let pointer = join(pointer, "pids");
        let detail = "how many processes a pod may have is for its node's kubelet to say (podPidsLimit)";
        reader.push(FieldError::new(pointer, detail));
    }
    reader.finish(|| read)
}

fn cpus(pointer: &str, value: &Value) -> Result<i64, Errors> {
    let cpus = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok());
    match cpus {
        Some(cpus) if (0.001..=100_000.0).contains(&cpus) => {
            #[expect(clippy::cast_possible_truncation, reason = "at most 1e8")]
            let milli = (cpus * 1e3).ceil() as i64;
            Ok(milli)
        }
        _ => fail(pointer, format!("expected a number of processors such as 0.5, but found {value}")),
    }
}

/// A map, or Compose's list of `name:address` or `name=address`.
pub(super) fn hosts(pointer: &str, value: Value) -> Result<BTreeMap<String, String>, Errors> {
    let pair = |at: &str, name: &str, address: &str| {
        let (lower, parsed) = (name.to_ascii_lowercase(), address.parse::<std::net::IpAddr>());
        match parsed {
            // Names of hosts do not differ by case, and the API server takes lower case alone.
            Ok(address) if labels::is_subdomain(&lower) => Ok((lower, address.to_string())),
            _ => fail(at, format!("expected a host's name and an address, but found {name:?} and {address:?}")),
        }
    };
    let pairs = match value {
        Value::Object(map) => map
            .iter()
            .map(|(name, address)| pair(&join(pointer, name), name, address.as_str().unwrap_or_default()))
            .collect::<Result<Vec<_>, _>>()?,
        list => each(pointer, list, |at, entry| {
            let entry = entry.as_str().unwrap_or_default();
            let (name, address) = entry.split_once('=').or_else(|| entry.split_once(':')).unwrap_or_default();
            pair(at, name, address)
        })?,
    };
    Ok(pairs.into_iter().collect())
}

/// A map of labels.
pub(super) fn labels(pointer: &str, value: Value) -> Result<BTreeMap<String, String>, Errors> {
    let Value::Object(map) = value else { return fail(pointer, format!("expected a map, but found {}", kind(&value))) };
    let (mut read, mut errors) = (BTreeMap::new(), Vec::new());
    for (key, value) in map {
        match value.as_str().filter(|value| labels::is_value(value) && labels::is_key(&key)) {
            Some(value) => drop(read.insert(key, value.to_owned())),
            None => errors.push(FieldError::new(join(pointer, &key), format!("{key}={value} is no label"))),
        }
    }
    if errors.is_empty() { Ok(read) } else { Err(errors) }
}

/// As a pod's spec writes it.
pub(super) fn toleration(pointer: &str, value: &Value) -> Result<Toleration, Errors> {
    let read: Toleration = template::strict(pointer, value)?;
    let known = |word: &Option<String>, known: &[&str]| word.as_deref().is_none_or(|word| known.contains(&word));
    if !known(&read.operator, &["Exists", "Equal"]) {
        return fail(&join(pointer, "operator"), "expected Exists or Equal");
    }
    if !known(&read.effect, &["NoSchedule", "PreferNoSchedule", "NoExecute", ""]) {
        return fail(&join(pointer, "effect"), "expected NoSchedule, PreferNoSchedule or NoExecute");
    }
    Ok(read)
}
