//! Best-response dynamics of a finite game.

use coredinator_core::coordination::Budget;

/// How much better, relative to the payoffs at hand, a choice has to be for a player to change to it.
const WORTH_CHANGING: f64 = 1e-9;

/// A finite game under way: everyone has chosen something.
pub(super) trait Game {
    /// How many choices a player has; at least 1.
    fn choices(&self, player: usize) -> usize;

    /// What a player has chosen.
    fn chosen(&self, player: usize) -> usize;

    /// What a choice would be worth to a player, all others staying with theirs.
    fn payoff(&self, player: usize, choice: usize) -> f64;

    /// A player changes to a choice.
    fn choose(&mut self, player: usize, choice: usize);
}

/// How a game went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    /// The rounds that were played.
    pub(super) rounds: u32,
    /// Whether it came to rest: nobody would change alone, which is a Nash equilibrium in pure strategies.
    pub(super) at_rest: bool,
}

/// Lets players in some order, round for round, change to what is best for each, until nobody does or so many rounds were
/// played or time is up. Who has nothing better stays.
pub(super) fn play(game: &mut impl Game, order: &[usize], rounds: u32, budget: &Budget) -> Course {
    for round in 1..=rounds {
        let mut moved = false;
        for &player in order {
            if budget.is_over() {
                return Course { rounds: round, at_rest: false };
            }
            let now = game.chosen(player);
            let here = game.payoff(player, now);
            let mut best = (here + WORTH_CHANGING * here.abs().max(f64::MIN_POSITIVE), now);
            for choice in (0..game.choices(player)).filter(|&choice| choice != now) {
                let there = game.payoff(player, choice);
                if there > best.0 {
                    best = (there, choice);
                }
            }
            if best.1 != now {
                game.choose(player, best.1);
                moved = true;
            }
        }
        if !moved {
            return Course { rounds: round, at_rest: true };
        }
    }
    Course { rounds, at_rest: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two players and their payoffs by what the first and the second choose.
    struct Table {
        payoffs: [[[f64; 2]; 2]; 2],
        chosen: [usize; 2],
    }

    impl Game for Table {
        fn choices(&self, _: usize) -> usize {
            2
        }
        fn chosen(&self, player: usize) -> usize {
            self.chosen[player]
        }
        fn payoff(&self, player: usize, choice: usize) -> f64 {
            let mut chosen = self.chosen;
            chosen[player] = choice;
            self.payoffs[player][chosen[0]][chosen[1]]
        }
        fn choose(&mut self, player: usize, choice: usize) {
            self.chosen[player] = choice;
        }
    }

    #[test]
    fn matching_pennies_end_and_are_flagged() {
        let same = [[1.0, -1.0], [-1.0, 1.0]];
        let other = [[-1.0, 1.0], [1.0, -1.0]];
        let mut game = Table { payoffs: [same, other], chosen: [0, 0] };
        let course = play(&mut game, &[0, 1], 25, &Budget::default());
        assert_eq!(course, Course { rounds: 25, at_rest: false });
    }

    #[test]
    fn a_dilemma_comes_to_rest_where_nobody_would_change() {
        let mut game = Table { payoffs: [[[3.0, 0.0], [5.0, 1.0]], [[3.0, 5.0], [0.0, 1.0]]], chosen: [0, 0] };
        let course = play(&mut game, &[0, 1], 25, &Budget::default());
        assert_eq!((course, game.chosen), (Course { rounds: 2, at_rest: true }, [1, 1]));
    }

    #[test]
    fn what_is_no_better_is_not_changed_to() {
        let mut game = Table { payoffs: [[[1.0; 2]; 2]; 2], chosen: [1, 0] };
        assert!(play(&mut game, &[0, 1], 25, &Budget::default()).at_rest);
        assert_eq!(game.chosen, [1, 0]);
    }
}
