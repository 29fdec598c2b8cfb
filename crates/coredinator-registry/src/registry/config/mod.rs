//! The configuration: services and sections as one revisioned document, changed as a whole.
//!
//! Deciding is pure ([`plan`]); here it is carried out, each change in one write: the services' records, the head with the
//! sections, and the revision that tells of it. What a revision changed is kept complete, so that the configuration of any
//! revision that is kept is made again by going back from the newest.
//!
//! Three sources write it. The **file** is applied when its content is not what it was when it was last applied: services
//! of the file that it no longer names go, all others stay. An **update** is the whole: what was declared through the
//! configuration and is no longer named goes. A **service** that registers itself is no part of it, unless the
//! configuration declares it: then that is a revision, too.

mod document;
mod finding;
mod judge;
mod plan;
#[cfg_attr(not(feature = "json-schema"), path = "unread.rs")]
mod schema;

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::{
    Batch, ConfigAck, ConfigCandidate, FieldError, InstanceId, Origin, Precondition, ServiceName, ServiceRecord,
    ServiceSpec, StoreError, field,
};

use serde_json::{Map, Value};

pub use document::{ConfigDiff, ConfigDocument, ConfigHead, ConfigRevision, ConfigSource, Placed, Was};
pub use judge::{ConfigValidation, OnUnreachable};
pub use plan::{ConfigPlan, PlanAction, PlanEffect, SectionPlan, ServicePlan};

pub use schema::Schemas;

pub(super) use document::base;
pub(super) use finding::Finding;
pub(super) use judge::Judged;

use super::{
    Registry, RegistryError, ServiceView, keys,
    write::{json, redeclare},
};
use plan::{Current, Wanting};

/// How many revisions are kept.
const KEPT: u64 = 1000;
/// The longest author and message, in bytes.
const MAX_AUTHOR: usize = 200;
const MAX_MESSAGE: usize = 4000;
/// How often a return is decided anew because somebody else was quicker.
const TRIES: u32 = 10;

/// Who changes the configuration, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEdit {
    /// What brings it about.
    pub source: ConfigSource,
    /// Who, in their own words.
    pub author: String,
    /// Why, in their own words.
    pub message: String,
    /// The revision that must be the newest for it to happen.
    pub if_revision: Option<u64>,
    /// Only say what would happen.
    pub dry_run: bool,
}

impl ConfigEdit {
    /// By an author, without a condition.
    pub fn new(source: ConfigSource, author: impl Into<String>, message: impl Into<String>) -> Self {
        Self { source, author: author.into(), message: message.into(), if_revision: None, dry_run: false }
    }
}

/// What a change of the configuration came to.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigOutcome {
    /// The newest revision now.
    pub revision: u64,
    /// What was (or would be) changed; nothing: no revision was made.
    pub plan: ConfigPlan,
    /// The same, complete.
    pub diff: ConfigDiff,
    /// Of a file: it is as it was when it was last applied, so nothing was even compared.
    pub skipped: bool,
    /// What is doubtful about the documents of services, with pointers as errors have them.
    pub warnings: Vec<FieldError>,
}

/// How far a change has been decided.
enum Decided {
    /// It is done, or was tried.
    Done(ConfigOutcome),
    /// The validator is to be asked about these first.
    ToBeJudged(Vec<ConfigCandidate>),
}

/// A service that there would be, and how it is now.
struct Wants<'a> {
    spec: &'a ServiceSpec,
    now: Option<&'a ServiceRecord>,
}

impl Registry {
    /// The newest revision's number and sections.
    #[must_use]
    pub fn config(&self) -> Arc<ConfigHead> {
        self.shared.config.borrow().clone()
    }

    /// Wait on it for new revisions.
    #[must_use]
    pub fn config_changes(&self) -> tokio::sync::watch::Receiver<Arc<ConfigHead>> {
        self.shared.config.subscribe()
    }

    /// The configuration as it is: what was declared through it.
    #[must_use]
    pub fn config_document(&self) -> ConfigDocument {
        let services = self.services();
        let declared = services.iter().filter(|view| !view.record.deleting && view.record.origin != Origin::Api);
        let services = declared.map(|view| (view.name().clone(), view.record.spec.clone())).collect();
        ConfigDocument { services, sections: self.config().sections.clone() }
    }

    /// Makes the configuration that of `wanted`, in one write. Of [`ConfigSource::File`] only what came from the file is
    /// taken away, and nothing is done where the file is as it was when it was last applied.
    ///
    /// # Errors
    /// [`RegistryError::Stale`] if another revision is the newest; [`RegistryError::Invalid`] with pointers starting with
    /// `/services/{name}` or `/config`; [`RegistryError::Unjudged`]; [`RegistryError::Store`]. Nothing is changed then.
    pub async fn change_config(
        &self,
        wanted: &ConfigDocument,
        edit: ConfigEdit,
    ) -> Result<ConfigOutcome, RegistryError> {
        if !self.shared.place.is_sole() && !edit.dry_run {
            // Another replica may have changed what nothing seems to be left to do about.
            self.catch_up().await?;
        }
        // Nothing is held while the validator is asked: what it said is taken if the documents are still those.
        let mut judged = Judged::default();
        loop {
            let deciding = self.shared.deciding.write().await;
            match self.change_config_locked(wanted, edit.clone(), &judged).await? {
                Decided::Done(outcome) => return Ok(outcome),
                Decided::ToBeJudged(candidates) => {
                    drop(deciding);
                    self.judge(&mut judged, candidates).await?;
                }
            }
        }
    }

    async fn change_config_locked(
        &self,
        wanted: &ConfigDocument,
        edit: ConfigEdit,
        judged: &Judged,
    ) -> Result<Decided, RegistryError> {
        // Before the services: whoever is faster in between makes this one stale, and cannot be passed over.
        let head = self.config();
        if edit.if_revision.is_some_and(|revision| revision != head.revision) {
            return Err(RegistryError::Stale { current: head.revision });
        }
        let wanting = match edit.source {
            ConfigSource::File => Wanting::File,
            ConfigSource::Rollback { .. } => Wanting::Earlier,
            ConfigSource::Update | ConfigSource::Service => Wanting::Whole,
        };
        let file = match wanting {
            Wanting::File => Some(self.file_as_applied().await?),
            Wanting::Whole | Wanting::Earlier => None,
        };
        if file.as_ref().is_some_and(|(applied, _)| applied.as_ref() == Some(wanted)) {
            return Ok(Decided::Done(ConfigOutcome {
                revision: head.revision,
                plan: ConfigPlan::default(),
                diff: ConfigDiff::default(),
                skipped: true,
                warnings: Vec::new(),
            }));
        }
        let views = self.services();
        let now: BTreeMap<&ServiceName, Current<'_>> = views
            .iter()
            .filter(|view| !view.record.deleting)
            .map(|view| {
                let ServiceRecord { spec, origin, config, .. } = view.record.as_ref();
                (view.name(), Current { spec, origin: *origin, config: config.as_ref() })
            })
            .collect();
        let (plan, diff) = plan::plan(&now, &head.sections, wanted, wanting);
        let gone: Vec<ServiceName> = plan.of(PlanAction::Delete).cloned().collect();
        let base = base(&wanted.sections);
        let wants = Self::wants(wanted, &views, &gone);
        let mut invalid = self.check(wanted, &gone, &wants, &base);
        let candidates = wants.iter().flat_map(|wants| self.candidates(wants.spec, wants.now, &base)).collect();
        let verdict = match judged.verdict(candidates) {
            Ok(verdict) => verdict,
            Err(candidates) => return Ok(Decided::ToBeJudged(candidates)),
        };
        let mut warnings = Vec::new();
        for Wants { spec, .. } in &wants {
            let (errors, doubts) = verdict.about(spec, &base);
            invalid.extend(errors.into_iter().map(|finding| finding.in_configuration(&spec.name)));
            warnings.extend(doubts.into_iter().map(|finding| finding.in_configuration(&spec.name)));
        }
        if !invalid.is_empty() {
            return Err(RegistryError::Invalid(invalid));
        }
        warnings.extend(verdict.unjudged(self.on_unreachable())?);
        if edit.dry_run {
            return Ok(Decided::Done(ConfigOutcome { revision: head.revision, plan, diff, skipped: false, warnings }));
        }
        let mut batch = Batch::new();
        for view in &views {
            let name = view.name();
            if gone.contains(name) {
                batch = self.put_removal(batch, view)?;
            } else if !wanted.services.contains_key(name) && !view.record.deleting {
                // Not in the document, and stays: a new base reaches it, too.
                batch = self.put_declared(batch, Some(view), view.record.spec.clone(), view.record.origin, &base)?;
            }
        }
        for (name, spec) in &wanted.services {
            let existing = self.shared.service(name.as_str());
            let there = existing.as_ref().filter(|view| !view.record.deleting);
            let there = there.map(|view| (view.record.spec == *spec, view.record.origin));
            batch = self.put_declared(batch, existing.as_deref(), spec.clone(), wanting.places(there), &base)?;
        }
        let mut revision = head.revision;
        if !diff.is_empty() {
            (batch, revision) = self.put_revision(batch, &head, diff.clone(), &edit)?;
        }
        if let Some((_, at)) = file {
            batch = batch.put(keys::config_file(), json(wanted)?, at);
        }
        self.commit_config(batch, &head).await?;
        Ok(Decided::Done(ConfigOutcome { revision, plan, diff, skipped: false, warnings }))
    }

    /// Commits a batch that makes a revision: whoever was faster made the one that this was decided on stale.
    async fn commit_config(&self, batch: Batch, head: &ConfigHead) -> Result<(), RegistryError> {
        match self.commit(batch).await {
            Err(RegistryError::Store(StoreError::Conflict { .. })) => {
                // Another coredinator on the same store; its revision may not have been read yet.
                let current = self.stored_head().await.map_or(head.revision, |head| head.revision);
                Err(RegistryError::Stale { current })
            }
            other => other,
        }
    }

    async fn stored_head(&self) -> Option<ConfigHead> {
        let record = self.shared.store.get(&keys::config_head()).await.ok()??;
        serde_json::from_slice(&record.value).ok()
    }

    /// Goes back to the configuration of an earlier revision, by a new one.
    ///
    /// # Errors
    /// As [`change_config`](Self::change_config) and [`config_at`](Self::config_at).
    pub async fn rollback_config(&self, to: u64, edit: ConfigEdit) -> Result<ConfigOutcome, RegistryError> {
        let mut tries = 0;
        loop {
            let (read, wanted) = {
                let _deciding = self.shared.deciding.read().await;
                (self.config().revision, self.config_at(to).await?)
            };
            // What came in between would be gone back on, too.
            let if_revision = Some(edit.if_revision.unwrap_or(read));
            let edit_at = ConfigEdit { source: ConfigSource::Rollback { to }, if_revision, ..edit.clone() };
            match self.change_config(&wanted, edit_at).await {
                Err(RegistryError::Stale { .. }) if edit.if_revision.is_none() && tries < TRIES => tries += 1,
                done => return done,
            }
        }
    }

    /// The configuration as it was in a revision. 0: before the first.
    ///
    /// # Errors
    /// [`RegistryError::NoRevision`] for one that never was or is no longer kept; [`RegistryError::Store`].
    pub async fn config_at(&self, revision: u64) -> Result<ConfigDocument, RegistryError> {
        if revision > self.config().revision && !self.shared.place.is_sole() {
            // Another replica may have made it.
            self.catch_up().await?;
        }
        let head = self.config().revision;
        let mut document = self.config_document();
        let revisions = self.read_revisions().await?;
        let missing = || RegistryError::NoRevision {
            revision,
            oldest: revisions.first_key_value().map_or(head, |(oldest, _)| oldest - 1),
            newest: head,
        };
        if revision > head {
            return Err(missing());
        }
        for later in ((revision + 1)..=head).rev() {
            revisions.get(&later).ok_or_else(missing)?.diff.undo(&mut document);
        }
        Ok(document)
    }

    /// Takes an instance's own word that a revision of its configuration document is in force in it.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`]; [`RegistryError::Conflict`] (`NoConfig`) if the service has no document or never had
    /// that revision, (`NoInstance`) if `instance` is not (any more) one of its living ones; [`RegistryError::Store`].
    pub async fn acknowledge_config(
        &self,
        name: &str,
        instance: &InstanceId,
        revision: u64,
    ) -> Result<ConfigAck, RegistryError> {
        let mut turn = self.turn();
        loop {
            let done = self.acknowledge_config_once(name, instance, revision).await;
            if !self.is_overtaken(done.as_ref().err(), done.is_ok(), &mut turn).await? {
                return done;
            }
        }
    }

    async fn acknowledge_config_once(
        &self,
        name: &str,
        instance: &InstanceId,
        revision: u64,
    ) -> Result<ConfigAck, RegistryError> {
        let view = self.service(name)?;
        let record = &view.record;
        if record.config.is_none() || revision == 0 || revision > record.config_revision {
            let message = format!(
                "{name} has no revision {revision} of a configuration: its newest is {}",
                record.config_revision
            );
            return Err(RegistryError::Conflict { code: "NoConfig", message });
        }
        let living = view.instances.iter().find(|i| i.record.id.as_ref() == Some(instance) && i.record.state.is_live());
        let Some(living) = living else {
            let message = format!("{instance} is no living instance of {name}");
            return Err(RegistryError::Conflict { code: "NoInstance", message });
        };
        let replica = living.record.replica;
        let ack = ConfigAck { instance: instance.clone(), revision, at: self.shared.clock.now() };
        // Saying it again writes nothing.
        let said = view.acks.get(&replica).filter(|said| said.instance == ack.instance && said.revision == revision);
        if let Some(said) = said {
            return Ok(said.clone());
        }
        let batch = Batch::new().put(keys::ack(view.name(), replica), json(&ack)?, Precondition::Any);
        self.commit(batch).await?;
        Ok(ack)
    }

    /// One revision.
    ///
    /// # Errors
    /// [`RegistryError::NoRevision`]; [`RegistryError::Store`].
    pub async fn config_revision(&self, revision: u64) -> Result<ConfigRevision, RegistryError> {
        let newest = self.config().revision;
        let record = self.shared.store.get(&keys::config_revision(revision)).await?;
        match record.and_then(|record| serde_json::from_slice(&record.value).ok()) {
            Some(read) => Ok(read),
            None => Err(RegistryError::NoRevision { revision, oldest: newest.saturating_sub(KEPT) + 1, newest }),
        }
    }

    /// The revisions that are kept below `before` (all, without one), newest first, `limit` at most.
    ///
    /// # Errors
    /// The store's.
    pub async fn config_history(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<ConfigRevision>, RegistryError> {
        let revisions = self.read_revisions().await?;
        let wanted = revisions.into_values().rev().filter(|one| before.is_none_or(|before| one.revision < before));
        Ok(wanted.take(limit).collect())
    }

    async fn read_revisions(&self) -> Result<BTreeMap<u64, ConfigRevision>, RegistryError> {
        let listing = self.shared.store.list(keys::CONFIG_REVISIONS).await?;
        let read = listing.records.iter().filter_map(|record| {
            let read = serde_json::from_slice::<ConfigRevision>(&record.value);
            read.inspect_err(|error| tracing::error!(key = %record.key, %error, "a revision cannot be read")).ok()
        });
        Ok(read.map(|revision| (revision.revision, revision)).collect())
    }

    /// The file as it was when it was last applied, if it was, and the precondition under which that is replaced.
    async fn file_as_applied(&self) -> Result<(Option<ConfigDocument>, Precondition), RegistryError> {
        let Some(record) = self.shared.store.get(&keys::config_file()).await? else {
            return Ok((None, Precondition::Absent));
        };
        // One that this version cannot read is not the same.
        Ok((serde_json::from_slice(&record.value).ok(), Precondition::At(record.revision)))
    }

    /// The services of which documents follow from `wanted`, those included that are not in it and stay.
    fn wants<'a>(wanted: &'a ConfigDocument, views: &'a [Arc<ServiceView>], gone: &[ServiceName]) -> Vec<Wants<'a>> {
        let there: BTreeMap<&ServiceName, &ServiceRecord> = views
            .iter()
            .filter(|view| !view.record.deleting && !gone.contains(view.name()))
            .map(|view| (view.name(), view.record.as_ref()))
            .collect();
        let declared = wanted.services.values().map(|spec| Wants { spec, now: there.get(&spec.name).copied() });
        let stay = there.iter().filter(|(name, _)| !wanted.services.contains_key(**name));
        declared.chain(stay.map(|(_, record)| Wants { spec: &record.spec, now: Some(*record) })).collect()
    }

    /// All that is wrong with what is wanted.
    fn check(
        &self,
        wanted: &ConfigDocument,
        gone: &[ServiceName],
        wants: &[Wants<'_>],
        base: &Map<String, Value>,
    ) -> Vec<FieldError> {
        let specs: Vec<ServiceSpec> = wanted.services.values().cloned().collect();
        let mut invalid: Vec<FieldError> = Vec::new();
        if let Some((name, error)) = self.cycle_with(&specs, gone) {
            invalid.push(error.under(&field::join("/services", name.as_str())));
        }
        for spec in &specs {
            let pointer = field::join("/services", spec.name.as_str());
            invalid.extend(self.validate_checks(spec).into_iter().map(|error| error.under(&pointer)));
        }
        let mut schemas = Schemas::new();
        for Wants { spec, now } in wants.iter().filter(|wants| wants.spec.config.schema.is_some()) {
            // What stays as it is has been taken before, maybe by a coredinator that reads other schemas.
            let stays = now.is_some_and(|now| now.spec == **spec && now.config == spec.config.on(base));
            if !stays {
                invalid.extend(schemas.in_configuration(spec, base));
            }
        }
        invalid
    }

    /// Puts what a service's record becomes, if it becomes anything else.
    fn put_declared(
        &self,
        batch: Batch,
        existing: Option<&ServiceView>,
        spec: ServiceSpec,
        origin: Origin,
        base: &Map<String, Value>,
    ) -> Result<Batch, StoreError> {
        match redeclare(existing, spec, origin, (base, self.shared.place.node()), self.shared.clock.now()) {
            Some(record) => self.put_declaration(batch, existing, &record),
            None => Ok(batch),
        }
    }

    /// Puts the revision that follows `head`, the head that names it, and takes the oldest away. Answers its number.
    pub(super) fn put_revision(
        &self,
        mut batch: Batch,
        head: &ConfigHead,
        diff: ConfigDiff,
        edit: &ConfigEdit,
    ) -> Result<(Batch, u64), StoreError> {
        let revision = head.revision + 1;
        let mut sections = head.sections.clone();
        for (name, was) in &diff.sections {
            match &was.after {
                Some(after) => drop(sections.insert(name.clone(), after.clone())),
                None => drop(sections.remove(name)),
            }
        }
        let record = ConfigRevision {
            revision,
            at: self.shared.clock.now(),
            author: cut(&edit.author, MAX_AUTHOR),
            message: cut(&edit.message, MAX_MESSAGE),
            source: edit.source,
            diff,
        };
        let at = head.stored.map_or(Precondition::Absent, Precondition::At);
        let head = ConfigHead { revision, sections, stored: None };
        batch = batch.put(keys::config_head(), json(&head)?, at);
        batch = batch.put(keys::config_revision(revision), json(&record)?, Precondition::Absent);
        if let Some(oldest) = revision.checked_sub(KEPT).filter(|oldest| *oldest > 0) {
            batch = batch.delete(keys::config_revision(oldest), Precondition::Any);
        }
        Ok((batch, revision))
    }

    /// Puts the revision that follows from a change of one service which the configuration declares.
    pub(super) fn put_service_revision(
        &self,
        batch: Batch,
        head: &ConfigHead,
        view: &ServiceView,
        after: Option<&ServiceRecord>,
    ) -> Result<Batch, StoreError> {
        let placed = |record: &ServiceRecord| Placed { spec: record.spec.clone(), origin: record.origin };
        let was = Was { before: Some(placed(&view.record)), after: after.map(placed) };
        let message = format!("{} {}", view.name(), if after.is_some() { "registered anew" } else { "deregistered" });
        let diff = ConfigDiff { services: [(view.name().clone(), was)].into(), sections: BTreeMap::new() };
        self.put_revision(batch, head, diff, &ConfigEdit::new(ConfigSource::Service, "api", message))
            .map(|(batch, _)| batch)
    }
}

/// A text cut to what is kept of it.
fn cut(text: &str, longest: usize) -> String {
    let end = (0..=longest.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text[..end].chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
}
