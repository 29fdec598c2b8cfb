//! What must outlive the process, and where it lies in the store.
//!
//! | key | value |
//! |---|---|
//! | `coordination/agents/{agent}` | the [`Agent`] as it registered |
//! | `coordination/groups/{group}` | [`GroupHead`]: the last cycle, its epoch, the values of variables |
//! | `coordination/holdings/{group}/{n}` | a list of [`Holding`]s, in the order of agents |
//! | `coordination/settings/{group}` | [`Settings`]: what was changed at run time |
//!
//! Names are [escaped](escape), so that each has a key of its own. Everything is written under the leader's lease.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::{
    Batch, Epoch, Key, Precondition, Store, StoreError,
    coordination::{Agent, AgentId, Holding},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

const AGENTS: &str = "coordination/agents/";
const GROUPS: &str = "coordination/groups/";
const HOLDINGS: &str = "coordination/holdings/";
const SETTINGS: &str = "coordination/settings/";

/// How many bytes of holdings lie under one key, about.
const CHUNK: usize = 1 << 20;
/// How many bytes go into one batch, about.
const BATCH: usize = 32 << 20;

/// Where a group is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct GroupHead {
    pub(crate) group: String,
    pub(crate) cycle: u64,
    pub(crate) epoch: u64,
    #[serde(default)]
    pub(crate) values: BTreeMap<String, f64>,
}

/// What was changed at run time. Each counts as long as the configuration says what it said then.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Settings {
    #[serde(default)]
    pub(crate) group: String,
    #[serde(default)]
    pub(crate) strategy: Option<Changed<Value>>,
    #[serde(default)]
    pub(crate) resources: BTreeMap<String, Changed<Amount>>,
}

/// How much there is of a resource, and how much of that is never handed out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// How much there is; at least 0.
    pub capacity: f64,
    /// How much is never handed out; at least 0. Absent: as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserve: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Changed<T> {
    pub(crate) to: T,
    pub(crate) configured: T,
}

/// What an earlier life left.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) agents: Vec<Agent>,
    pub(crate) groups: BTreeMap<String, GroupHead>,
    /// By group.
    pub(crate) holdings: BTreeMap<String, Vec<Holding>>,
    /// How many parts the holdings of a group lie in.
    pub(crate) parts: BTreeMap<String, usize>,
    pub(crate) settings: BTreeMap<String, Settings>,
}

/// The store, as the engine uses it.
#[derive(Clone)]
pub(crate) struct Persist {
    store: Arc<dyn Store>,
    /// Under which everything is written.
    lease: Option<Arc<str>>,
}

/// What of a group's holdings lies in the store, so that only what changes is written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    /// What certainly lies there.
    chunks: Vec<Vec<u8>>,
    /// How many parts may lie there.
    parts: usize,
}

impl Written {
    /// So many parts lie there, and what they hold is not known.
    pub(crate) fn parts(parts: usize) -> Self {
        Self { chunks: Vec::new(), parts }
    }
}

#[derive(Serialize, Deserialize)]
struct Chunk<H> {
    group: String,
    holdings: Vec<H>,
}

impl Persist {
    pub(crate) fn new(store: Arc<dyn Store>, lease: Option<&str>) -> Self {
        Self { store, lease: lease.map(Into::into) }
    }

    async fn write(&self, epoch: Epoch, batch: Batch) -> Result<(), StoreError> {
        let batch = match &self.lease {
            Some(lease) => batch.fenced(lease.as_ref(), epoch),
            None => batch,
        };
        self.store.write(batch).await.map(drop)
    }

    /// Reads everything. What cannot be read is passed over and told in the log: one bad record is no reason to lead nobody.
    pub(crate) async fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        for record in self.store.list("coordination/").await?.records {
            let (key, value) = (record.key.as_str(), record.value.as_slice());
            if key.starts_with(AGENTS) {
                loaded.agents.extend(read::<Agent>(key, value).filter(|agent| agent.check("").is_empty()));
            } else if key.starts_with(GROUPS) {
                loaded.groups.extend(read::<GroupHead>(key, value).map(|head| (head.group.clone(), head)));
            } else if key.starts_with(HOLDINGS) {
                if let Some(chunk) = read::<Chunk<Holding>>(key, value) {
                    *loaded.parts.entry(chunk.group.clone()).or_default() += 1;
                    loaded.holdings.entry(chunk.group).or_default().extend(chunk.holdings);
                }
            } else if key.starts_with(SETTINGS) {
                loaded.settings.extend(read::<Settings>(key, value).map(|known| (known.group.clone(), known)));
            }
        }
        Ok(loaded)
    }

    pub(crate) async fn save_agent(&self, epoch: Epoch, agent: &Agent) -> Result<(), StoreError> {
        let batch = Batch::new().put(key(AGENTS, agent.agent_id.as_str(), None), json(agent)?, Precondition::Any);
        self.write(epoch, batch).await
    }

    pub(crate) async fn delete_agent(&self, epoch: Epoch, agent: &AgentId) -> Result<(), StoreError> {
        let batch = Batch::new().delete(key(AGENTS, agent.as_str(), None), Precondition::Any);
        self.write(epoch, batch).await
    }

    pub(crate) async fn save_settings(&self, epoch: Epoch, settings: &Settings) -> Result<(), StoreError> {
        let batch = Batch::new().put(key(SETTINGS, &settings.group, None), json(settings)?, Precondition::Any);
        self.write(epoch, batch).await
    }

    /// Writes where a group is and what its agents hold: in one batch, unless that is very large; then the head last, so that
    /// what is counted as done is there. Writes only what differs from `written`, and brings that up to date.
    pub(crate) async fn save_cycle(
        &self,
        epoch: Epoch,
        head: &GroupHead,
        holdings: &[Arc<Holding>],
        written: &mut Written,
    ) -> Result<(), StoreError> {
        let chunks = chunks(&head.group, holdings)?;
        // After a failure it is not known what lies there.
        let before = std::mem::take(&mut written.chunks);
        let (mut batch, mut size) = (Batch::new(), 0);
        for (at, chunk) in chunks.iter().enumerate().filter(|(at, chunk)| before.get(*at) != Some(chunk)) {
            if size > BATCH {
                self.write(epoch, std::mem::take(&mut batch)).await?;
                size = 0;
            }
            size += chunk.len();
            batch = batch.put(key(HOLDINGS, &head.group, Some(at)), chunk.clone(), Precondition::Any);
        }
        let parts = written.parts;
        written.parts = parts.max(chunks.len());
        for at in chunks.len()..parts {
            batch = batch.delete(key(HOLDINGS, &head.group, Some(at)), Precondition::Any);
        }
        batch = batch.put(key(GROUPS, &head.group, None), json(head)?, Precondition::Any);
        self.write(epoch, batch).await?;
        (written.parts, written.chunks) = (chunks.len(), chunks);
        Ok(())
    }
}

/// The highest epoch under which anything was decided; 0: nothing was. Whoever leads next has to have one above it.
///
/// # Errors
/// The store's, if it cannot be read.
pub async fn highest_epoch(store: &dyn Store) -> Result<Epoch, StoreError> {
    let listing = store.list(GROUPS).await?;
    let heads = listing.records.iter().filter_map(|record| read::<GroupHead>(record.key.as_str(), &record.value));
    Ok(Epoch(heads.map(|head| head.epoch).max().unwrap_or(0)))
}

fn chunks(group: &str, holdings: &[Arc<Holding>]) -> Result<Vec<Vec<u8>>, StoreError> {
    let mut chunks = Vec::new();
    let mut rest = holdings;
    let mut texts = Vec::with_capacity(holdings.len());
    for holding in holdings {
        texts.push(json(holding)?.len());
    }
    let mut sizes = texts.as_slice();
    while !rest.is_empty() {
        let mut size = 0;
        let fits = sizes.iter().take_while(|&&next| (size += next, size <= CHUNK).1).count().max(1);
        let (chunk, left) = rest.split_at(fits);
        chunks.push(json(&Chunk { group: group.to_owned(), holdings: chunk.to_vec() })?);
        (rest, sizes) = (left, &sizes[fits..]);
    }
    Ok(chunks)
}

fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).inspect_err(|error| tracing::warn!(key, %error, "a record cannot be read")).ok()
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Invalid(error.to_string()))
}

fn key(collection: &str, name: &str, part: Option<usize>) -> Key {
    let part = part.map(|part| format!("/{part:06}")).unwrap_or_default();
    let text = format!("{collection}{}{part}", escape(name));
    Key::new(text).unwrap_or_else(|error| unreachable!("made of at most 128 bytes, escaped: {error}"))
}

/// A name as a segment of a key: letters, digits, `.`, `-` and `:` as they are, every other byte as `~` and two hex digits.
/// No two names give the same.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b".-:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("~{byte:02x}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_look_alike_have_keys_of_their_own() {
        let names = ["a_b", "a~5fb", "a/b", "a~b", "a.b", "a:b", "a-b", "ä", "a b", "A_b"];
        let keys: HashSet<_> = names.iter().map(|name| key(GROUPS, name, Some(3))).collect();
        assert_eq!(keys.len(), names.len());
    }

    proptest! {
        #[test]
        fn every_label_has_a_key(name in "\\PC{1,42}", other in "\\PC{1,42}") {
            prop_assert_eq!(key(HOLDINGS, &name, Some(999_999)) == key(HOLDINGS, &other, Some(999_999)), name == other);
        }
    }
}
