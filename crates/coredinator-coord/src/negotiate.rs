//! Strategies talk to agents, with everything written down; and do so again from what was written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use coredinator_core::coordination::{
    Agent, AgentId, Answer, Intention, Known, Limits, Negotiator, Offer, Party, Plan, Problem,
};
use futures_util::{StreamExt, stream};

use crate::{
    record::{NegotiationRound, NegotiationWord},
    transport::{AgentTransport, NegotiationRequest},
};

/// How many agents are asked side by side.
const CONCURRENCY: usize = 512;
/// How many rounds of one cycle are put to agents; in those after, everyone is silent.
const MAX_ROUNDS: usize = 1000;

/// The way to the agents of one cycle.
pub(crate) struct CycleNegotiator {
    pub(crate) problem: Arc<Problem>,
    pub(crate) group: Arc<str>,
    pub(crate) epoch: u64,
    pub(crate) transport: Arc<dyn AgentTransport>,
    /// How long one round is waited for.
    pub(crate) patience: Duration,
    pub(crate) transcript: Mutex<Vec<NegotiationRound>>,
    /// What was wrong with answers: the first thing of each agent.
    pub(crate) faults: Mutex<BTreeMap<AgentId, String>>,
}

impl CycleNegotiator {
    /// What was said.
    pub(crate) fn transcript(&self) -> Vec<NegotiationRound> {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was wrong with what agents answered.
    pub(crate) fn faults(&self) -> BTreeMap<AgentId, String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An answer of no use counts as none, and is told.
    fn useless(&self, agent: &AgentId, why: impl fmt::Display) -> NegotiationWord {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.entry(agent.clone()).or_insert_with(|| format!("to an offer, {why}"));
        NegotiationWord::Silent
    }

    /// Nothing came of an offer in time.
    fn late(&self, agent: &AgentId) -> NegotiationWord {
        self.useless(agent, "it did not answer in time")
    }

    /// Who an offer is for, if that is one who can be asked.
    fn asked(&self, party: usize) -> Option<&Party> {
        let party = self.problem.parties().get(party)?;
        let agent = &party.agent;
        (agent.negotiates && agent.endpoint.is_some() && party.intention.is_some()).then_some(party)
    }

    async fn put(&self, round: u32, prices: &BTreeMap<String, f64>, offer: Offer) -> NegotiationWord {
        let Some(party) = self.asked(offer.party) else { return NegotiationWord::Silent };
        let agent = &party.agent;
        let involved = |conflict: &&coredinator_core::coordination::Conflict| conflict.parties.contains(party.id());
        let request = NegotiationRequest {
            group: Arc::clone(&self.group),
            cycle: self.problem.cycle(),
            epoch: self.epoch,
            round,
            prices: prices.clone(),
            proposed: offer.proposed,
            conflicts: self.problem.conflicts().iter().filter(involved).cloned().collect(),
        };
        let answered = tokio::time::timeout(self.patience, self.transport.negotiate(agent, &request)).await;
        let answer = match answered {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return self.useless(party.id(), format_args!("it {error}")),
            Err(_) => return self.late(party.id()),
        };
        if answer.accept {
            return NegotiationWord::Accepts;
        }
        let Some(intention) = answer.intention else {
            return self.useless(party.id(), "it neither accepted nor said what it wants");
        };
        match self.wrong(agent, &intention) {
            Some(wrong) => self.useless(party.id(), wrong),
            None => NegotiationWord::Revises(Arc::new(intention)),
        }
    }

    /// What is wrong with a revised intention, first of all.
    fn wrong(&self, agent: &Agent, intention: &Intention) -> Option<String> {
        let known = Known { resources: self.problem.resources(), variables: self.problem.variables() };
        if intention.agent_id != agent.agent_id {
            return Some(format!("it sent the intention of {}", intention.agent_id));
        }
        if let Some(last) = intention.valid_until_cycle.filter(|&last| last < self.problem.cycle()) {
            return Some(format!("it sent an intention that stood until cycle {last}"));
        }
        let first = agent.check_intention(intention, known, &Limits::default()).into_iter().next();
        first.map(|error| format!("it sent an intention that cannot be used: {error}"))
    }
}

#[async_trait]
impl Negotiator for CycleNegotiator {
    async fn ask(&self, round: u32, prices: &[f64], offers: Vec<Offer>) -> Vec<Answer> {
        let rounds = self.transcript.lock().unwrap_or_else(PoisonError::into_inner).len();
        if rounds >= MAX_ROUNDS {
            return vec![Answer::Silent; offers.len()];
        }
        let names = self.problem.resources().iter().map(|resource| resource.name.clone());
        let named: BTreeMap<String, f64> =
            names.zip(prices.iter().copied()).filter(|(_, price)| price.is_finite()).collect();
        let parties: Vec<usize> = offers.iter().map(|offer| offer.party).collect();
        let mut words = vec![None; offers.len()];
        let mut asked = stream::iter(offers.into_iter().enumerate())
            .map(|(at, offer)| {
                let put = self.put(round, &named, offer);
                async move { (at, put.await) }
            })
            .buffer_unordered(CONCURRENCY);
        let hear = async {
            while let Some((at, word)) = asked.next().await {
                words[at] = Some(word);
            }
        };
        // More agents than are asked side by side share one round's time.
        let _ = tokio::time::timeout(self.patience, hear).await;
        drop(asked);
        let unheard = |party: usize| self.asked(party).map_or(NegotiationWord::Silent, |party| self.late(party.id()));
        let heard = words.into_iter().zip(&parties);
        let words: Vec<NegotiationWord> = heard.map(|(word, &party)| word.unwrap_or_else(|| unheard(party))).collect();
        let parties = parties.into_iter().zip(&words);
        let answers =
            parties.filter_map(|(party, word)| Some((self.problem.parties().get(party)?.id().clone(), word.clone())));
        let said = NegotiationRound { round, prices: named, answers: answers.collect() };
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).push(said);
        words.into_iter().map(answer).collect()
    }
}

fn answer(word: NegotiationWord) -> Answer {
    match word {
        NegotiationWord::Accepts => Answer::Accepts,
        NegotiationWord::Revises(intention) => Answer::Revises(Box::new(Intention::clone(&intention))),
        NegotiationWord::Silent => Answer::Silent,
    }
}

/// Has a plan that answers what agents revised tell of what they asked for first as well: whoever looks at the cycle sees that in
/// its problem, and would wonder where the conflicts have gone, and why somebody got what it never asked for.
pub(crate) fn tell_revised(plan: &mut Plan, first: &Problem, revisions: &[Arc<Intention>]) {
    let known: BTreeSet<&str> = first.conflicts().iter().map(|conflict| conflict.id.as_str()).collect();
    plan.conflicts.retain(|conflict| !known.contains(conflict.id.as_str()));
    plan.conflicts.splice(0..0, first.conflicts().iter().cloned());
    for revised in revisions {
        let Some(at) = first.party(revised.agent_id.as_str()) else { continue };
        let party = &first.parties()[at];
        let other =
            |asked: &Arc<Intention>| asked.options != revised.options || asked.disagreement != revised.disagreement;
        // It may have come back to what it wanted all along.
        if !party.intention.as_ref().is_some_and(other) {
            continue;
        }
        plan.revisions.push(Arc::clone(revised));
        let Some(decision) = plan.decisions.get_mut(at) else { continue };
        let reason = &mut decision.reason;
        if reason.code == "first_choice" {
            "revised".clone_into(&mut reason.code);
            "revised in negotiation: what it wanted in the end, in full".clone_into(&mut reason.text);
        } else {
            reason.text = format!("revised in negotiation; {}", reason.text);
        }
        let involved = first.conflicts().iter().filter(|conflict| conflict.parties.contains(party.id()));
        let mut ids: Vec<String> = involved.map(|conflict| conflict.id.clone()).collect();
        reason.conflict_ids.retain(|id| !ids.contains(id));
        ids.append(&mut reason.conflict_ids);
        reason.conflict_ids = ids;
    }
    plan.revisions.sort_by(|one, other| one.agent_id.cmp(&other.agent_id));
}

/// Remembers what agents revised, so that a strategy can be held to it.
pub(crate) struct Witness {
    problem: Arc<Problem>,
    negotiator: Arc<dyn Negotiator>,
    heard: Mutex<BTreeMap<usize, Vec<Intention>>>,
}

impl Witness {
    pub(crate) fn new(problem: Arc<Problem>, negotiator: Arc<dyn Negotiator>) -> Self {
        Self { problem, negotiator, heard: Mutex::default() }
    }

    /// What is wrong with revisions that agents are said to have made; empty if each is an answer of its agent.
    pub(crate) fn invented(&self, revisions: &[Arc<Intention>]) -> Vec<String> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let said = |revision: &Intention| {
            let party = self.problem.parties().binary_search_by(|party| party.id().cmp(&revision.agent_id)).ok();
            party.and_then(|party| heard.get(&party)).is_some_and(|said| said.contains(revision))
        };
        let invented = revisions.iter().filter(|revision| !said(revision));
        invented.map(|revision| format!("{} never revised its intention so", revision.agent_id)).collect()
    }
}

#[async_trait]
impl Negotiator for Witness {
    async fn ask(&self, round: u32, prices: &[f64], offers: Vec<Offer>) -> Vec<Answer> {
        let parties: Vec<usize> = offers.iter().map(|offer| offer.party).collect();
        let answers = self.negotiator.ask(round, prices, offers).await;
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        for (party, answer) in parties.into_iter().zip(&answers) {
            if let Answer::Revises(intention) = answer
                && self.problem.parties().get(party).map(Party::id) == Some(&intention.agent_id)
            {
                heard.entry(party).or_default().push(Intention::clone(intention));
            }
        }
        answers
    }
}

/// Says again what was said then, question by question.
pub(crate) struct ReplayingNegotiator {
    problem: Arc<Problem>,
    rounds: Mutex<std::vec::IntoIter<NegotiationRound>>,
}

impl ReplayingNegotiator {
    pub(crate) fn new(problem: Arc<Problem>, rounds: Vec<NegotiationRound>) -> Self {
        Self { problem, rounds: Mutex::new(rounds.into_iter()) }
    }
}

#[async_trait]
impl Negotiator for ReplayingNegotiator {
    async fn ask(&self, _: u32, _: &[f64], offers: Vec<Offer>) -> Vec<Answer> {
        let said = self.rounds.lock().unwrap_or_else(PoisonError::into_inner).next();
        let of = |offer: &Offer| {
            let party = self.problem.parties().get(offer.party)?;
            said.as_ref()?.answers.get(party.id()).cloned().map(answer)
        };
        offers.iter().map(|offer| of(offer).unwrap_or(Answer::Silent)).collect()
    }
}
