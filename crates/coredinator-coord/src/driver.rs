//! The one task of a group: does what the [cycle](crate::cycle) says.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use coredinator_core::{
    Epoch,
    coordination::{Agent, AgentId, BudgetDocument, Holding, Known, Limits, PastCycle, Plan, Problem, ProblemDocument},
};
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};

use crate::{
    CoordError, CycleOutcome, CycleRecord, Timings,
    agents::Participant,
    cycle::{Cycle, Input, Step},
    duties::{Duties, past_of, tell_why_silent},
    engine::Engine,
    events::EventKind,
    group::{Group, Step as StepNow},
    negotiate::CycleNegotiator,
    persist::GroupHead,
    resolve::{Chosen, resolve},
    stats::nobody,
    transport::{Ask, DecisionMessage, TransportError},
};

/// What is told of one that comes by itself, and did not.
const UNSAID: &str = "it has not said what it wants";
/// How many agents are asked or told side by side.
const CONCURRENCY: usize = 1024;

pub(crate) struct Driver {
    engine: Arc<Engine>,
    group: Arc<Group>,
    /// How earlier cycles ended, the newest first; only as far as the strategy wants to know.
    history: Vec<Arc<PastCycle>>,
}

/// What collecting leaves.
struct Collected {
    participants: Vec<Participant>,
    faults: BTreeMap<AgentId, String>,
}

impl Driver {
    pub(crate) fn new(engine: Arc<Engine>, group: Arc<Group>) -> Self {
        Self { engine, group, history: Vec::new() }
    }

    pub(crate) async fn run(mut self, mut steps: mpsc::Receiver<StepNow>) {
        let mut interval = self.group.config().sync_interval;
        let mut next = Instant::now() + interval;
        loop {
            tokio::select! {
                // A group that is gone ends between two cycles.
                () = self.group.retired.cancelled() => return nobody(&self.group.name),
                () = self.group.wake.notified() => {}
                () = tokio::time::sleep_until(next) => {
                    let due = self.engine.config().enabled && self.engine.book().count(Some(&self.group.name)).0 > 0;
                    // Without the lease there is nothing to do; the status says why.
                    if !due || matches!(self.cycle().await, Err(CoordError::NotLeading(_))) {
                        nobody(&self.group.name);
                    }
                    next = self.next_tick(next, interval);
                }
                Some(answer) = steps.recv() => {
                    let record = self.cycle().await;
                    // Whoever asked may have gone.
                    let _ = answer.send(record);
                    if Instant::now() >= next {
                        next = self.next_tick(next, interval);
                    }
                }
            }
            self.take_up();
            let wanted = self.group.config().sync_interval;
            if wanted != interval {
                // The next one is as far from the last as it is to be from now on.
                let last = next.checked_sub(interval).unwrap_or_else(Instant::now);
                next = (last + wanted).max(Instant::now());
                interval = wanted;
            }
        }
    }

    /// Takes up what the configuration says by now.
    fn take_up(&self) {
        let Some((strategy, resources)) = self.group.take_up() else { return };
        let tell = |kind| self.engine.events.tell(Some(&self.group.name), kind);
        if let Some(strategy) = strategy {
            tell(EventKind::StrategyChanged { strategy });
        }
        if !resources.is_empty() {
            tell(EventKind::ResourcesChanged { resources });
        }
    }

    /// The tick after this one that is still to come; those that have passed meanwhile are counted.
    fn next_tick(&self, tick: Instant, interval: Duration) -> Instant {
        let now = Instant::now();
        let passed = now.saturating_duration_since(tick).as_nanos() / interval.as_nanos().max(1);
        let missed = u64::try_from(passed).unwrap_or(u64::MAX);
        if missed > 0 {
            self.group.stats().overrun(&self.group.name, missed);
            let told = EventKind::Overrun { cycle: self.group.cycle(), missed };
            self.engine.events.tell(Some(&self.group.name), told);
        }
        let ahead =
            interval.checked_mul(u32::try_from(missed.saturating_add(1)).unwrap_or(u32::MAX)).unwrap_or(interval);
        (tick + ahead).max(now)
    }

    /// One cycle, from asking to telling.
    async fn cycle(&mut self) -> Result<Arc<CycleRecord>, CoordError> {
        let epoch = self.engine.leading()?;
        self.take_up();
        let config = self.group.config();
        let begun = Instant::now();
        let started_at = self.engine.clock.now();
        let mut timings = Timings::default();
        let number = {
            let mut progress = self.group.progress();
            progress.cycle += 1;
            progress.cycle
        };
        let chosen = self.group.chosen();
        let (mut cycle, collected) = self.collect(number, epoch, begun).await;
        timings.collect_ms = millis(begun);
        self.group.settle();

        let detecting = Instant::now();
        let document = self.document(number, &chosen, &collected);
        let problem = match tokio::task::spawn_blocking(move || Problem::new(document)).await {
            Ok(Ok(problem)) => Arc::new(problem),
            Ok(Err(errors)) => {
                let told = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                return Err(CoordError::NoPlan(told));
            }
            Err(_) => return Err(CoordError::Ended),
        };
        timings.detect_ms = millis(detecting);
        let mut agent_faults = collected.faults;
        for party in problem.parties() {
            // What an agent said, or falls back to, may have become wrong since it said so.
            if let Some(fault) = party.faults.first() {
                agent_faults.entry(party.id().clone()).or_insert_with(|| fault.to_string());
            }
        }

        let negotiator = Arc::new(CycleNegotiator {
            problem: Arc::clone(&problem),
            group: Arc::clone(&self.group.name),
            epoch: epoch.0,
            transport: Arc::clone(&self.engine.transport),
            patience: config.negotiate_time(),
            transcript: Mutex::default(),
            faults: Mutex::default(),
        });
        let deadline = config.resolve_time();
        let mut resolved =
            resolve(Arc::clone(&problem), &chosen, Arc::clone(&negotiator) as _, epoch.0, deadline).await;
        (timings.resolve_ms, timings.verify_ms) = (resolved.resolve_ms, resolved.verify_ms);
        for (agent, fault) in negotiator.faults() {
            agent_faults.entry(agent).or_insert(fault);
        }
        if let Some(plan) = &mut resolved.plan {
            tell_why_silent(plan, &agent_faults);
        }
        let mut record = CycleRecord {
            group: self.group.name.to_string(),
            cycle: number,
            epoch: epoch.0,
            started_at,
            strategy: chosen.choice.clone(),
            problem: Arc::new(problem.document().clone()),
            plan: None,
            decided_by: resolved.decided_by,
            outcome: CycleOutcome::Failed,
            trouble: None,
            faults: resolved.faults,
            agent_faults,
            negotiation: negotiator.transcript(),
            timings,
            unacknowledged: Vec::new(),
            success: None,
        };
        match resolved.plan {
            Some(plan) => {
                let plan = Arc::new(plan);
                record.plan = Some(Arc::clone(&plan));
                self.act(&mut cycle, &problem, &plan, epoch, &mut record).await;
            }
            None => {
                let Step::Finish(outcome) = cycle.handle(Input::NoPlan) else { return Err(CoordError::Ended) };
                record.outcome = outcome;
                record.trouble = Some("not even what is safe for everyone could be verified".to_owned());
            }
        }
        record.timings.total_ms = millis(begun);
        Ok(self.finish(record))
    }

    /// Asks everyone what they want, until all have said or the time is up.
    async fn collect(&self, number: u64, epoch: Epoch, begun: Instant) -> (Cycle, Collected) {
        let (engine, group) = (&self.engine, &self.group);
        let usable = |service: &_| engine.services.usable(service);
        let mut heard = group.listen();
        let asked = engine.book().ask(&group.name, number, begun, &usable);
        let comes_by_itself = asked.awaited.clone();
        let mut awaited = asked.awaited;
        awaited.extend(asked.pull.iter().map(|agent| agent.agent_id.clone()));
        let (mut cycle, mut step) = Cycle::begin(awaited);
        let mut faults = BTreeMap::new();
        let ask = Ask { group: Arc::clone(&group.name), cycle: number, epoch: epoch.0 };
        let mut answers = stream::iter(asked.pull)
            .map(|agent| {
                let (transport, ask) = (&engine.transport, &ask);
                async move { (agent.agent_id.clone(), transport.intention(&agent, ask).await) }
            })
            .buffer_unordered(CONCURRENCY);
        let deadline = tokio::time::sleep_until(begun + group.config().collect_time());
        tokio::pin!(deadline);
        while step == Step::Wait {
            let input = tokio::select! {
                () = &mut deadline => {
                    faults.extend(cycle.waiting().map(|agent| {
                        let asked = !comes_by_itself.contains(agent);
                        let fault = if asked { "it did not answer in time" } else { UNSAID };
                        (agent.clone(), fault.to_owned())
                    }));
                    Input::TimeUp
                }
                Some((agent, answer)) = answers.next() => {
                    if let Some(fault) = self.answered(number, &agent, answer) {
                        faults.insert(agent.clone(), fault);
                    }
                    Input::Heard(agent)
                }
                Some(agent) = heard.recv() => Input::Heard(agent),
            };
            step = cycle.handle(input);
        }
        drop(answers);
        group.stop_listening();
        let mut book = engine.book();
        let participants = book.close(&group.name, number, Instant::now(), &usable);
        for Participant { agent, intention, .. } in &participants {
            if intention.is_none() && asked.quiet.contains(&agent.agent_id) {
                faults.insert(agent.agent_id.clone(), UNSAID.to_owned());
            }
            // Whatever else is missed of it, this is why.
            if let Some(service) = &agent.service
                && let Some(trouble) = engine.services.trouble(service)
            {
                faults.insert(agent.agent_id.clone(), format!("its service {service} {trouble}"));
            }
        }
        // With the book locked, so that whoever is told a cycle's number counts in it.
        group.set_open_cycle(number + 1);
        drop(book);
        (cycle, Collected { participants, faults })
    }

    /// Enters what an agent answered; what is wrong with it.
    fn answered(
        &self,
        number: u64,
        agent: &AgentId,
        answer: Result<coredinator_core::coordination::Intention, TransportError>,
    ) -> Option<String> {
        let mut intention = match answer {
            Ok(intention) => intention,
            Err(error) => return Some(format!("it {error}")),
        };
        let (resources, variables) = self.group.subjects();
        let limits = Limits::default();
        if let Some(last) = intention.valid_until_cycle.filter(|&last| last < number) {
            // There is somebody who says it. An agent that has left meanwhile is nobody to be told of.
            self.engine.book().seen(agent.as_str(), self.engine.now()).ok()?;
            return Some(format!("its intention stood until cycle {last}, and this is cycle {number}"));
        }
        let Ok(asked) = self.engine.book().agent(agent.as_str()).cloned() else { return None };
        let known = Known { resources: &resources, variables: &variables };
        let errors = asked.check_intention(&intention, known, &limits);
        let fault = errors.first().map(ToString::to_string);
        // What is more than anybody may send is not kept; one too many is as wrong.
        intention.options.truncate(limits.options + 1);
        let mut book = self.engine.book();
        match book.intend(Arc::new(intention), self.engine.now()) {
            Err(CoordError::Stale { .. }) => {
                book.stays(agent.as_str());
                fault
            }
            // It has left meanwhile.
            Err(_) => None,
            Ok(()) => fault,
        }
    }

    /// All that decides the cycle.
    fn document(&mut self, number: u64, chosen: &Chosen, collected: &Collected) -> ProblemDocument {
        let (resources, mut variables) = self.group.subjects();
        for variable in &mut variables {
            // Its limits may have changed since it was given that value.
            variable.current = variable.current.map(|current| current.max(variable.min).min(variable.max));
        }
        let config = self.group.config();
        let wanted = chosen.needs.history.min(coredinator_core::coordination::Needs::MAX_HISTORY);
        if wanted > self.history.len() {
            // The strategy has only now been chosen: what it wants to know may be in the records.
            let records = self.group.records().last(wanted);
            let told = records.iter().filter(|record| record.outcome == CycleOutcome::Distributed);
            self.history =
                told.filter_map(|record| record.plan.as_deref()).map(|plan| Arc::new(past_of(plan))).collect();
        }
        self.history.truncate(wanted);
        let exists = |name: &String| resources.iter().any(|resource| resource.name == *name);
        let allowed = |(name, value): (&String, &f64)| {
            variables.iter().any(|variable| variable.name == *name && variable.allows(*value))
        };
        let holdings = collected.participants.iter().filter_map(|participant| participant.holding.as_ref());
        let holdings = holdings.map(|holding| {
            // The configuration may have lost something since, or drawn limits closer. What is left of the grant stays, but the
            // option that it was for cannot be carried out any more.
            if holding.grant.keys().all(exists) && holding.values.iter().all(allowed) {
                return Arc::clone(holding);
            }
            let mut known = Holding { option_id: None, fraction: 0.0, action: Value::Null, ..Holding::clone(holding) };
            known.grant.retain(|name, _| exists(name));
            known.values.retain(|name, value| allowed((name, value)));
            Arc::new(known)
        });
        ProblemDocument {
            group: self.group.name.to_string(),
            cycle: number,
            budget: BudgetDocument { ..config.budget },
            seed: config.seed.wrapping_add(number),
            holdings: holdings.collect(),
            agents: collected.participants.iter().map(|participant| Arc::clone(&participant.agent)).collect(),
            intentions: collected.participants.iter().filter_map(|participant| participant.intention.clone()).collect(),
            history: self.history.clone(),
            resources,
            variables,
        }
    }

    /// Writes the plan down, and tells the agents.
    async fn act(
        &mut self,
        cycle: &mut Cycle,
        problem: &Problem,
        plan: &Arc<Plan>,
        epoch: Epoch,
        record: &mut CycleRecord,
    ) {
        let duties = Duties::of(problem, plan);
        let has_endpoint =
            |id: &&AgentId| problem.party(id.as_str()).is_some_and(|at| problem.parties()[at].agent.endpoint.is_some());
        let givers = duties.givers.iter().filter(has_endpoint).cloned().collect();
        let takers = duties.takers.iter().filter(has_endpoint).cloned().collect();
        cycle.handle(Input::Decided { givers, takers });
        let storing = Instant::now();
        let stored = self.store(plan, &duties.holdings, epoch).await;
        record.timings.store_ms = millis(storing);
        let input = match stored {
            Ok(()) => Input::Stored,
            Err(why) => {
                tracing::warn!(group = %self.group.name, cycle = plan.cycle, why, "a plan is withheld");
                record.trouble = Some(why);
                Input::Refused
            }
        };
        match cycle.handle(input) {
            Step::Finish(outcome) => record.outcome = outcome,
            _ => {
                self.engine.book().hold(&self.group.name, &duties.holdings);
                self.enter_presence(&duties.active, record);
                let telling = Instant::now();
                record.outcome = self.tell(cycle, problem, plan, &duties, record).await;
                record.timings.distribute_ms = millis(telling);
                record.unacknowledged = self.group.unacknowledged();
            }
        }
        if record.outcome == CycleOutcome::Distributed {
            self.history.insert(0, Arc::new(past_of(plan)));
        }
    }

    /// Writes down where the group is and what agents hold. Why not, for people.
    async fn store(&self, plan: &Plan, holdings: &[Arc<Holding>], epoch: Epoch) -> Result<(), String> {
        let mut progress = self.group.progress().clone();
        if progress.epoch != epoch {
            return Err("another has led meanwhile".to_owned());
        }
        progress.values.extend(plan.values.iter().map(|(name, value)| (name.clone(), *value)));
        let head = GroupHead {
            group: self.group.name.to_string(),
            cycle: plan.cycle,
            epoch: epoch.0,
            values: progress.values.clone(),
        };
        let written = self.engine.persist.save_cycle(epoch, &head, holdings, &mut progress.written).await;
        let kept = {
            let mut known = self.group.progress();
            let same = known.epoch == epoch;
            if same {
                known.written = progress.written;
                if written.is_ok() {
                    known.values = progress.values;
                }
            }
            same
        };
        self.engine.stored(written).map_err(|error| error.to_string())?;
        match self.engine.leading() {
            Ok(current) if current == epoch && kept => Ok(()),
            Ok(_) => Err("another has led meanwhile".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn enter_presence(&self, active: &BTreeSet<AgentId>, record: &CycleRecord) {
        let active: BTreeSet<&AgentId> = active.iter().collect();
        let (silent, back) = self.engine.book().took_part(&self.group.name, &active, self.engine.clock.now());
        for agent_id in silent {
            let detail = record.agent_faults.get(&agent_id).cloned();
            let detail = detail.unwrap_or_else(|| "it has said nothing that counts".to_owned());
            self.engine.events.tell(Some(&self.group.name), EventKind::AgentSilent { agent_id, detail });
        }
        for agent_id in back {
            self.engine.events.tell(Some(&self.group.name), EventKind::AgentBack { agent_id });
        }
    }

    /// Tells the agents, those first who give something up; they have half the time.
    async fn tell(
        &self,
        cycle: &mut Cycle,
        problem: &Problem,
        plan: &Arc<Plan>,
        duties: &Duties,
        record: &CycleRecord,
    ) -> CycleOutcome {
        let mut heard = self.group.expect(plan.cycle, plan.epoch, duties.active.clone());
        let whole = self.group.config().distribute_time();
        let mut ends = Instant::now() + whole / 2;
        let mut posts = stream::FuturesUnordered::new();
        let mut unsent = VecDeque::new();
        let mut step = Step::TellGivers;
        loop {
            match step {
                Step::TellGivers => {
                    unsent.extend(self.publish(problem, plan, record, duties, |id| duties.givers.contains(id)));
                }
                Step::TellTakers => {
                    ends += whole / 2;
                    unsent.extend(self.publish(problem, plan, record, duties, |id| !duties.givers.contains(id)));
                }
                Step::Finish(outcome) => return outcome,
                _ => {}
            }
            if cycle.waiting().next().is_none() {
                step = cycle.handle(Input::TimeUp);
                continue;
            }
            while posts.len() < CONCURRENCY
                && let Some((agent, message)) = unsent.pop_front()
            {
                posts.push(self.post(agent, message));
            }
            let input = tokio::select! {
                () = tokio::time::sleep_until(ends) => Input::TimeUp,
                Some((agent, told)) = posts.next() => match told {
                    // Its acknowledgement comes by the same way as all others.
                    true => { step = Step::Wait; continue }
                    false => Input::Heard(agent),
                },
                Some(agent) = heard.recv() => Input::Heard(agent),
            };
            step = cycle.handle(input);
        }
    }

    /// Puts down what some agents are told, for them to come for. Answers those with an endpoint that are waited for.
    fn publish(
        &self,
        problem: &Problem,
        plan: &Plan,
        record: &CycleRecord,
        duties: &Duties,
        which: impl Fn(&AgentId) -> bool,
    ) -> Vec<(Arc<Agent>, Arc<DecisionMessage>)> {
        let strategy: Arc<str> = plan.strategy.as_str().into();
        let (mut waiting, mut quiet) = (Vec::new(), Vec::new());
        let mut book = self.engine.book();
        for (party, decision) in problem.parties().iter().zip(&plan.decisions).filter(|(party, _)| which(party.id())) {
            let message = Arc::new(DecisionMessage {
                group: Arc::clone(&self.group.name),
                cycle: plan.cycle,
                epoch: plan.epoch,
                strategy: Arc::clone(&strategy),
                status: plan.status,
                decision: decision.clone(),
                fault: record.agent_faults.get(party.id()).cloned(),
            });
            if book.tell(Arc::clone(&message)) && party.agent.endpoint.is_some() {
                let list = if duties.active.contains(party.id()) { &mut waiting } else { &mut quiet };
                list.push((Arc::clone(&party.agent), message));
            }
        }
        drop(book);
        self.group.published.send_modify(|count| *count += 1);
        self.tell_quiet(quiet);
        waiting
    }

    /// Tells an agent by its endpoint; whether it acknowledged.
    async fn post(
        &self,
        agent: Arc<coredinator_core::coordination::Agent>,
        message: Arc<DecisionMessage>,
    ) -> (AgentId, bool) {
        let told = self.engine.transport.decision(&agent, &message).await.is_ok();
        if told {
            let id = &agent.agent_id;
            let new = self.engine.book().acknowledge(id.as_str(), message.cycle, message.epoch, self.engine.now());
            if new.is_ok_and(|new| new) {
                self.group.acknowledged(id, message.cycle, message.epoch);
            }
        }
        (agent.agent_id.clone(), told)
    }

    /// Tells those who were silent, for whom nobody waits.
    fn tell_quiet(&self, quiet: Vec<(Arc<Agent>, Arc<DecisionMessage>)>) {
        if quiet.is_empty() {
            return;
        }
        let (transport, time) = (Arc::clone(&self.engine.transport), self.group.config().distribute_time());
        let tell = async move {
            let told = stream::iter(quiet).for_each_concurrent(64, |(agent, message)| {
                let transport = Arc::clone(&transport);
                // That it is not heard of is what makes it silent.
                async move { drop(transport.decision(&agent, &message).await) }
            });
            let _ = tokio::time::timeout(time, told).await;
        };
        self.engine.spawn(tell);
    }

    /// Keeps the record, and counts and tells what was in it.
    fn finish(&mut self, record: CycleRecord) -> Arc<CycleRecord> {
        let (engine, group) = (&self.engine, &self.group);
        let tell = |kind| engine.events.tell(Some(&group.name), kind);
        for fault in &record.faults {
            tell(EventKind::StrategyFault {
                cycle: record.cycle,
                strategy: fault.strategy.clone(),
                fault: fault.kind,
                details: fault.details.clone(),
            });
        }
        if let Some(plan) = record.plan.as_deref().filter(|plan| !plan.shed.is_empty()) {
            tracing::error!(group = %group.name, cycle = plan.cycle, agents = plan.shed.len(), "not even the fallbacks fit");
            tell(EventKind::Shed { cycle: plan.cycle, agents: plan.shed.clone() });
        }
        tell(EventKind::Cycle {
            cycle: record.cycle,
            epoch: record.epoch,
            outcome: record.outcome,
            status: record.plan.as_ref().map(|plan| plan.status),
            conflicts: record.plan.as_ref().map_or(0, |plan| plan.conflicts.len()),
            total_ms: record.timings.total_ms,
            trouble: record.trouble.clone(),
        });
        group.stats().cycle(&record);
        let settled = record.outcome != CycleOutcome::Distributed || record.unacknowledged.is_empty();
        let record = Arc::new(record);
        group.records().push(Arc::clone(&record));
        if settled {
            group.settle();
        }
        group.records().newest().unwrap_or(record)
    }
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
