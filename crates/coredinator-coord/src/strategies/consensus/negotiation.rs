//! The rounds with agents that answer for themselves.

use std::{collections::BTreeMap, sync::Arc};

use coredinator_core::coordination::{
    Answer, Budget, Intention, Known, Limits, Negotiator, Offer, PlanHeader, Presence, Problem, Resolution, assemble,
};

use super::settle::{settle, shed};

/// How often in a row an agent may be silent before it is not asked any more.
const PATIENCE: u8 = 2;

/// Intentions that change from round to round.
pub(super) struct Negotiation<'p> {
    original: &'p Problem,
    budget: &'p Budget,
    rounds: u32,
    limits: Limits,
    /// What has been revised so far, by party.
    revisions: BTreeMap<usize, Arc<Intention>>,
    /// How often in a row each was silent.
    silences: Vec<u8>,
}

impl<'p> Negotiation<'p> {
    /// One that has yet to begin; `rounds` of prices precede each time of asking.
    pub(super) fn new(original: &'p Problem, budget: &'p Budget, rounds: u32) -> Self {
        // What was let in once is not to be thrown out because it is more than the usual.
        let mut limits = Limits::default();
        for intention in &original.document().intentions {
            limits.options = limits.options.max(intention.options.len());
            for option in &intention.options {
                let entries = [option.demands.len(), option.claims.len(), option.effects.len()];
                limits.entries = entries.into_iter().fold(limits.entries, usize::max);
            }
        }
        let silences = vec![0; original.parties().len()];
        Self { original, budget, rounds, limits, revisions: BTreeMap::new(), silences }
    }

    /// Asks so many times at most.
    pub(super) async fn run(mut self, most: u32, negotiator: &dyn Negotiator) -> Resolution {
        let mut revised: Option<Problem> = None;
        let mut plan = settle(self.original, self.budget, self.rounds, None);
        let mut asked = 0;
        let mut at_rest = false;
        while asked < most && !self.budget.is_over() {
            let problem = revised.as_ref().unwrap_or(self.original);
            let offers = self.offers(problem, &plan);
            if offers.is_empty() {
                at_rest = true;
                break;
            }
            asked += 1;
            let parties: Vec<usize> = offers.iter().map(|offer| offer.party).collect();
            let answers = negotiator.ask(asked, plan.prices.as_deref().unwrap_or_default(), offers).await;
            let Some((next, found, revisions)) = self.hear(problem, &plan, &parties, answers) else {
                at_rest = true;
                break;
            };
            revised = Some(next);
            plan = found;
            self.revisions = revisions;
        }
        plan.rounds = asked;
        plan.converged &= at_rest;
        plan.cut_short = self.budget.is_over();
        plan.revisions = self.revisions.into_values().collect();
        plan
    }

    /// What is put to those that still answer.
    fn offers(&self, problem: &Problem, plan: &Resolution) -> Vec<Offer> {
        let asked = |&party: &usize| {
            let of = &problem.parties()[party];
            of.presence == Presence::Active && of.agent.negotiates && self.silences[party] < PATIENCE
        };
        let parties: Vec<usize> = (0..problem.parties().len()).filter(asked).collect();
        let header =
            PlanHeader { strategy: super::Consensus::NAME.to_owned(), epoch: 0, fallback: false, elapsed_ms: 0.0 };
        let Ok(proposal) = assemble(problem, plan, &header) else { return Vec::new() };
        parties.into_iter().map(|party| Offer { party, proposed: proposal.decisions[party].clone() }).collect()
    }

    /// Takes in what was answered; the new problem with its plan and everything revised so far, if anything changed for the
    /// better or at all.
    fn hear(
        &mut self,
        problem: &Problem,
        plan: &Resolution,
        parties: &[usize],
        answers: Vec<Answer>,
    ) -> Option<(Problem, Resolution, BTreeMap<usize, Arc<Intention>>)> {
        let mut fresh = BTreeMap::new();
        let answers = answers.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for (&party, answer) in parties.iter().zip(answers) {
            let silence = match answer {
                Some(Answer::Accepts) => false,
                Some(Answer::Revises(intention)) => {
                    let usable = self.is_usable(problem, party, &intention);
                    if usable && !says_the_same(problem, party, &intention) {
                        fresh.insert(party, Arc::from(intention));
                    }
                    !usable
                }
                Some(Answer::Silent) | None => true,
            };
            self.silences[party] = if silence { self.silences[party] + 1 } else { 0 };
        }
        let next = self.admit(problem, &mut fresh)?;
        let mut found = Resolution::first_choices(&next)
            .unwrap_or_else(|| settle(&next, self.budget, self.rounds, plan.prices.as_deref()));
        if shed(&next, &found) > shed(problem, plan) {
            return None;
        }
        found.prices.get_or_insert_with(|| vec![0.0; next.resources().len()]);
        let mut all = self.revisions.clone();
        all.extend(fresh);
        Some((next, found, all))
    }

    /// The problem with these revisions, without those that leave their agent nothing that it could ever have.
    fn admit(&self, problem: &Problem, fresh: &mut BTreeMap<usize, Arc<Intention>>) -> Option<Problem> {
        while !fresh.is_empty() {
            let next = problem.revised(fresh.values().cloned().collect(), &self.limits).ok()?;
            let before = fresh.len();
            fresh.retain(|&party, _| {
                let of = &next.parties()[party];
                let possible = |candidate: usize| next.candidates()[candidate].possible;
                of.presence == Presence::Active && (of.fallback().is_some() || of.options().any(possible))
            });
            if fresh.len() == before {
                return Some(next);
            }
        }
        None
    }

    fn is_usable(&self, problem: &Problem, party: usize, intention: &Intention) -> bool {
        let known = Known { resources: problem.resources(), variables: problem.variables() };
        let agent = &problem.parties()[party].agent;
        intention.agent_id == agent.agent_id
            && intention.valid_until_cycle.is_none_or(|last| last >= problem.cycle())
            && agent.check_intention(intention, known, &self.limits).is_empty()
    }
}

/// Whether an agent answers with what it has wanted anyway.
fn says_the_same(problem: &Problem, party: usize, intention: &Intention) -> bool {
    let known = problem.parties()[party].intention.as_deref();
    known.is_some_and(|known| known.options == intention.options && known.disagreement == intention.disagreement)
}
