//! What hangs together.

/// Places 0, 1, … in sets that only ever grow together (union-find). A set goes by its smallest place, so that what is joined
/// in another order goes by the same name.
#[derive(Debug)]
pub(crate) struct Union {
    parent: Vec<usize>,
}

impl Union {
    /// So many places, each alone.
    pub(crate) fn new(places: usize) -> Self {
        Self { parent: (0..places).collect() }
    }

    /// Makes one set of the sets of two places.
    pub(crate) fn join(&mut self, one: usize, other: usize) {
        let (a, b) = (self.name(one), self.name(other));
        self.parent[a.max(b)] = a.min(b);
    }

    /// The smallest place of the set of a place.
    pub(crate) fn name(&mut self, mut place: usize) -> usize {
        while self.parent[place] != place {
            // Halving the path on the way keeps all paths short.
            self.parent[place] = self.parent[self.parent[place]];
            place = self.parent[place];
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::Union;

    #[test]
    fn sets_go_by_their_smallest_place_in_whatever_order_they_are_joined() {
        let pairs = [(5, 3), (3, 8), (1, 2), (8, 9), (2, 1)];
        for turn in 0..pairs.len() {
            let mut union = Union::new(10);
            pairs.iter().cycle().skip(turn).take(pairs.len()).for_each(|&(a, b)| union.join(a, b));
            let names: Vec<usize> = (0..10).map(|place| union.name(place)).collect();
            assert_eq!(names, [0, 1, 1, 3, 4, 3, 6, 7, 3, 3]);
        }
    }
}
