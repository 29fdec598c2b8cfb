//! Another configuration while cycles take place.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::coordination::DEFAULT_GROUP;

use crate::{
    CoordError, CoordinationConfig, GroupConfig,
    engine::Engine,
    group::{Group, Next, configured_resources},
    persist::Loaded,
    resolve::Chosen,
};

impl Engine {
    /// Works by another configuration. See [`Coordinator::reconfigure`](crate::Coordinator::reconfigure).
    pub(crate) async fn reconfigure(self: &Arc<Self>, config: CoordinationConfig) -> Result<(), CoordError> {
        let _turn = self.registering.lock().await;
        let before = self.config();
        if *before == config {
            return Ok(());
        }
        // All that can fail comes first.
        let mut chosen: BTreeMap<&String, Chosen> = BTreeMap::new();
        for (name, group) in &config.groups {
            let known = before.groups.get(name);
            if known.is_none_or(|known| known.conflict_resolution != group.conflict_resolution) {
                let made = self.strategies.make("/conflict_resolution", &group.conflict_resolution);
                let made = made.map_err(CoordError::Invalid)?;
                chosen.insert(name, Chosen::new(group.conflict_resolution.clone(), made)?);
            }
        }
        // Who does not lead reads all of it when it does.
        let leads = self.leading().ok();
        let stored = match leads.filter(|_| asks_anew(&before, &config)) {
            Some(epoch) => Some((epoch, self.persist.load().await?)),
            None => None,
        };
        self.set_config(config.clone());
        let known = self.groups();
        let mut groups: BTreeMap<String, Arc<Group>> = BTreeMap::new();
        let mut begun = Vec::new();
        for (name, wanted) in &config.groups {
            let chosen = chosen.remove(name);
            let group = match (known.get(name), chosen) {
                (Some(group), chosen) => {
                    let configured = configured_resources(wanted, self.host());
                    group.reconfigure(Next { config: wanted.clone(), chosen, configured, most: config.kept() });
                    Arc::clone(group)
                }
                (None, Some(chosen)) => {
                    let (group, steps) = Group::new(name, wanted, chosen, self.host(), config.kept());
                    let group = Arc::new(group);
                    if let Some((epoch, loaded)) = &stored {
                        self.adopt_group(&group, loaded, *epoch);
                    }
                    begun.push((Arc::clone(&group), steps));
                    group
                }
                // A group that was not there has had its strategy made.
                (None, None) => continue,
            };
            groups.insert(name.clone(), group);
        }
        let gone: Vec<Arc<Group>> =
            known.iter().filter(|(name, _)| !groups.contains_key(*name)).map(|(_, group)| Arc::clone(group)).collect();
        self.set_groups(groups.clone());
        self.readmit(stored.as_ref().map(|(_, loaded)| loaded), &groups, &config);
        for group in gone {
            group.retired.cancel();
            // Whoever waits for a decision of it learns that there will be none.
            group.published.send_modify(|count| *count += 1);
            tracing::info!(group = %group.name, "a group of agents is gone");
        }
        for (group, steps) in begun {
            tracing::info!(group = %group.name, "a group of agents is new");
            self.drive(group, steps);
        }
        Ok(())
    }

    /// Agents by the operator's word of now, in groups that there are.
    fn readmit(&self, stored: Option<&Loaded>, groups: &BTreeMap<String, Arc<Group>>, config: &CoordinationConfig) {
        let now = self.now();
        let mut book = self.book();
        book.limit_to(config.max_agents);
        match stored {
            Some(loaded) => self.enter(&mut book, &loaded.agents, groups, now),
            None => {
                // Nobody is told anything here; but nobody is in a group that is gone.
                for view in book.views(None, now.at) {
                    if !groups.contains_key(&view.agent.group) {
                        let mut agent = (*view.agent).clone();
                        DEFAULT_GROUP.clone_into(&mut agent.group);
                        book.register(Arc::new(agent), now);
                    }
                }
            }
        }
    }
}

/// Whether what agents asked for themselves is needed: another word of the operator's stands above it, or groups come or go.
fn asks_anew(before: &CoordinationConfig, after: &CoordinationConfig) -> bool {
    let of_groups = |config: &CoordinationConfig| {
        let silence = |group: &GroupConfig| group.on_silence.clone();
        config.groups.iter().map(|(name, group)| (name.clone(), silence(group))).collect::<Vec<_>>()
    };
    before.agents != after.agents
        || before.max_priority != after.max_priority
        || before.max_weight != after.max_weight
        || of_groups(before) != of_groups(after)
}
