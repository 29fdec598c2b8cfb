//! Writes events that come with no other write, and takes old ones away: in batches, in the background.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use coredinator_core::{Batch, Event, Key, Precondition, Store, StoreError};
use tokio::sync::mpsc;

use crate::leadership::Grant;

/// How much of a journal waits at most while the store is away. What comes then is dropped, and told.
const WAITING: usize = 10_000;
/// Operations in one write.
const BATCH: usize = 500;

#[derive(Debug)]
pub(super) enum Entry {
    Put(Key, Event),
    Forget(Key),
    /// What somebody says who is answerable for it, as long as he is.
    Tell(Key, Vec<u8>, Grant),
}

/// The end that others write to.
#[derive(Debug, Clone)]
pub(super) struct Journal(mpsc::Sender<Entry>);

impl Journal {
    /// Starts the task that writes. It ends, everything written, when the last `Journal` is dropped.
    pub(super) fn start(store: Arc<dyn Store>) -> Self {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while receiver.recv_many(&mut waiting, BATCH).await > 0 {
                write(store.as_ref(), &waiting).await;
                waiting.clear();
            }
        });
        Self(sender)
    }

    pub(super) fn add(&self, entry: Entry) {
        if let Err(error) = self.0.try_send(entry) {
            tracing::warn!(%error, "an event was not stored");
        }
    }
}

async fn write(store: &dyn Store, entries: &[Entry]) {
    let mut batch = Batch::new();
    // Of each key the last word, under the lease of who says it.
    let mut told = BTreeMap::new();
    for entry in entries {
        batch = match entry {
            Entry::Tell(key, value, grant) => {
                told.insert(key, (value, grant));
                batch
            }
            Entry::Put(key, event) => match serde_json::to_vec(event) {
                Ok(value) => batch.put(key.clone(), value, Precondition::Any),
                Err(error) => {
                    tracing::error!(%error, %key, "an event could not be written as JSON");
                    batch
                }
            },
            Entry::Forget(key) => batch.delete(key.clone(), Precondition::Any),
        };
    }
    if !batch.operations.is_empty() {
        put(store, batch).await;
    }
    while let Some(grant) = told.first_entry().map(|first| first.get().1.clone()) {
        let mut batch = Batch { fence: grant.fence().cloned(), ..Batch::new() };
        told.retain(|key, (value, of)| {
            let same = **of == grant;
            if same {
                let put = std::mem::take(&mut batch);
                batch = put.put((*key).clone(), (*value).clone(), Precondition::Any);
            }
            !same
        });
        put(store, batch).await;
    }
}

async fn put(store: &dyn Store, batch: Batch) {
    let mut pause = Duration::from_millis(50);
    loop {
        match store.write(batch.clone()).await {
            Ok(_) => return,
            // Another is answerable by now, and says what is so.
            Err(StoreError::Fenced { .. }) => return,
            Err(error) if error.is_retryable() => {
                tracing::debug!(%error, "events wait for the store");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            Err(error) => {
                tracing::error!(%error, events = batch.operations.len(), "events were not stored");
                return;
            }
        }
    }
}
