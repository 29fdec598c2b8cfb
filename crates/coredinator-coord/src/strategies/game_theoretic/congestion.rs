//! A cycle as a congestion game: what an option is worth depends on how many want the same.

use coredinator_core::coordination::{Draft, Elastic, Pick, Presence, Problem};

use super::play::Game;

/// Everyone's choice among its options and its fallback, and how crowded that makes everything.
pub(super) struct Congestion<'p> {
    problem: &'p Problem,
    /// Of each party, the candidates that it could have.
    wishes: Vec<Vec<usize>>,
    chosen: Vec<usize>,
    load: Vec<f64>,
    crowds: Vec<Crowd>,
}

/// Who wants what of a variable.
#[derive(Debug, Clone, Default)]
struct Crowd {
    /// The bounds of all claims, each list sorted.
    lows: Vec<f64>,
    highs: Vec<f64>,
    up: usize,
    down: usize,
}

impl Crowd {
    /// How many claims cannot be met together with one of these bounds.
    fn against(&self, (low, high): (f64, f64)) -> usize {
        let above = self.lows.len() - self.lows.partition_point(|&other| other <= high);
        let below = self.highs.partition_point(|&other| other < low);
        above + below
    }

    fn change(&mut self, (low, high): (f64, f64), enters: bool) {
        for (list, bound) in [(&mut self.lows, low), (&mut self.highs, high)] {
            let at = list.partition_point(|&other| other < bound);
            if enters {
                list.insert(at, bound);
            } else {
                list.remove(at);
            }
        }
    }
}

impl<'p> Congestion<'p> {
    /// The game where everyone begins with its first choice.
    pub(super) fn new(problem: &'p Problem) -> Self {
        let wishes = problem.parties().iter().map(|party| {
            let all = party.options().chain(party.fallback());
            all.filter(|&candidate| problem.candidates()[candidate].possible).collect()
        });
        let mut game = Self {
            problem,
            wishes: wishes.collect(),
            chosen: vec![0; problem.parties().len()],
            load: vec![0.0; problem.resources().len()],
            crowds: vec![Crowd::default(); problem.variables().len()],
        };
        for player in 0..game.chosen.len() {
            if let Some(&candidate) = game.wishes[player].first() {
                game.change(candidate, true);
            }
        }
        game
    }

    /// Those that have something to choose from, out of some order.
    pub(super) fn players(&self, order: &[usize]) -> Vec<usize> {
        order.iter().copied().filter(|&party| self.wishes[party].len() > 1).collect()
    }

    /// What the choices come to within the limits: of what is elastic everyone gets the share that the crowd leaves it, what
    /// is not goes to the highest priority first.
    pub(super) fn settle(&self, order: &[usize]) -> Draft<'p> {
        let mut draft = Draft::new(self.problem);
        for &party in order {
            let of = &self.problem.parties()[party];
            let Some(&candidate) = self.wishes[party].get(self.chosen[party]) else { continue };
            if of.presence != Presence::Active || of.fallback() == Some(candidate) {
                continue;
            }
            let known = &self.problem.candidates()[candidate];
            let share = self.share(candidate, Some(candidate)).max(known.min_fraction());
            if let Some(largest) = draft.largest_fraction(candidate) {
                let fraction = known.elastic.map_or(1.0, |_| share.min(largest));
                draft.set(party, Pick::Option { candidate, fraction });
            }
        }
        draft
    }

    /// How much of a candidate there is for each that wants what it takes, if its party gave up `instead` for it: the
    /// smallest share of a resource in proportion to demands, and of a variable one of those that exclude each other.
    fn share(&self, candidate: usize, instead: Option<usize>) -> f64 {
        let problem = self.problem;
        let mut share: f64 = 1.0;
        for demand in problem.demands(candidate) {
            let own = instead.map_or(0.0, |other| {
                let demands = problem.demands(other).iter();
                demands.filter(|known| known.resource == demand.resource).map(|known| known.amount).sum()
            });
            let wanted = self.load[demand.resource] - own + demand.amount;
            let available = problem.available()[demand.resource];
            if wanted > available {
                share = share.min(available / wanted);
            }
        }
        for claim in problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            let own = instead.and_then(|other| {
                problem.claims(other).iter().find(|known| known.variable == claim.variable && !known.soft)
            });
            let (low, high) = claim.bounds;
            let own = own.is_some_and(|own| own.bounds.0 > high || own.bounds.1 < low);
            let against = self.crowds[claim.variable].against(claim.bounds) - usize::from(own);
            share = share.min(1.0 / (1 + against) as f64);
        }
        for push in problem.pushes(candidate) {
            let against = |strength: f64| (strength > 0.0) != (push.strength > 0.0);
            let own = instead.is_some_and(|other| {
                problem.pushes(other).iter().any(|known| known.variable == push.variable && against(known.strength))
            });
            let crowd = &self.crowds[push.variable];
            let opposed = if push.strength > 0.0 { crowd.down } else { crowd.up };
            share = share.min(1.0 / (1 + opposed - usize::from(own)) as f64);
        }
        share
    }

    fn change(&mut self, candidate: usize, enters: bool) {
        let problem = self.problem;
        for demand in problem.demands(candidate) {
            self.load[demand.resource] += if enters { demand.amount } else { -demand.amount };
        }
        for claim in problem.claims(candidate).iter().filter(|claim| !claim.soft) {
            self.crowds[claim.variable].change(claim.bounds, enters);
        }
        for push in problem.pushes(candidate) {
            let crowd = &mut self.crowds[push.variable];
            let side = if push.strength > 0.0 { &mut crowd.up } else { &mut crowd.down };
            *side = if enters { *side + 1 } else { *side - 1 };
        }
    }

    fn threat(&self, player: usize) -> f64 {
        let party = &self.problem.parties()[player];
        match (party.fallback(), &party.intention) {
            (Some(fallback), _) => self.problem.candidates()[fallback].utility,
            (None, Some(intention)) => intention.disagreement.unwrap_or(0.0),
            (None, None) => 0.0,
        }
    }
}

impl Game for Congestion<'_> {
    fn choices(&self, player: usize) -> usize {
        self.wishes[player].len()
    }

    fn chosen(&self, player: usize) -> usize {
        self.chosen[player]
    }

    fn payoff(&self, player: usize, choice: usize) -> f64 {
        let candidate = self.wishes[player][choice];
        let known = &self.problem.candidates()[candidate];
        if self.problem.parties()[player].fallback() == Some(candidate) {
            return known.utility;
        }
        let share = self.share(candidate, Some(self.wishes[player][self.chosen[player]]));
        match known.elastic {
            Some(Elastic { min_fraction, .. }) if share >= min_fraction => known.utility_at(share),
            // As likely to get it as there are shares.
            _ => {
                let threat = self.threat(player);
                threat + (known.utility_at(known.min_fraction()) - threat) * share
            }
        }
    }

    fn choose(&mut self, player: usize, choice: usize) {
        self.change(self.wishes[player][self.chosen[player]], false);
        self.chosen[player] = choice;
        self.change(self.wishes[player][choice], true);
    }
}
