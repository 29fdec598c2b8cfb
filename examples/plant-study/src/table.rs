//! What the runs came to, as a page.

use std::fmt::Write as _;

use crate::run::Run;

/// The runs of one way to share, one for each seed.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is called.
    pub name: String,
    /// Whether anything is decided for the controllers.
    pub coordinated: bool,
    /// Its runs, in the order of their seeds; at least one.
    pub runs: Vec<Run>,
}

/// The median of some numbers and how far they reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The one in the middle; the mean of two where their number is even.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these; of none, all are 0.
    #[must_use]
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
        let last = sorted.len().saturating_sub(1);
        Self { median: f64::midpoint(at(last / 2), at(sorted.len() / 2)), min: at(0), max: at(last) }
    }

    fn told(self, digits: usize) -> String {
        let Self { median, min, max } = self;
        let [median, min, max] = [median, min, max].map(|number| format!("{number:.digits$}"));
        if min == max { median } else { format!("{median} ({min} to {max})") }
    }
}

/// Jain's index of fairness: 1 where all have the same, 1/n where one has everything. Of nothing: 1.
#[must_use]
pub fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), share| (sum + share, squares + share * share));
    if squares > 0.0 { sum * sum / (shares.len() as f64 * squares) } else { 1.0 }
}

impl Case {
    /// A number of each run.
    pub fn spread(&self, of: impl Fn(&Run) -> f64) -> Spread {
        Spread::of(self.runs.iter().map(of))
    }

    /// Jain's index over how content the controllers of a run were.
    #[must_use]
    pub fn fairness(run: &Run) -> f64 {
        jain(&run.satisfaction.iter().map(|(_, content)| *content).collect::<Vec<_>>())
    }
}

const INTRODUCTION: &str = "\
# What coordination is worth: the quickstart's plant

Three tanks heat a feed to specification (75 to 80 °C) with steam of one boiler, which gives 18 t/h and trips when it is overdrawn
for long. Each tank has a controller that begins with nothing, learns a model of its tank while it runs, and puts its wishes
together from what that model foresees: for every feed near the present one and several amounts of steam, what it expects to be
paid. They disagree about two things:

- **steam**: together their valves open for up to 26 t/h;
- **feed**: the first controller is paid for every tonne up to 160 t/h, the others bring the product to specification, are paid
  for no more than 130 t/h, and pay for their steam.

In the first row each does what it wants: it takes the steam that it likes, and the first one, whose valve the feed is, sets the
feed that it likes best. They do learn from it: when less steam arrives than they asked for, they count on less. In the second row
each has a fixed part of the boiler, about as large as its part of the heating at the nominal feed, and knows it. Then the same
controllers, on the same plant, for the same seeds, say what they want every 20 simulated seconds and do what the strategy decides.
";

const READING: &str = "
Medians over the seeds, in brackets the lowest and the highest run. *On specification*: product that can be sold, from the cold start on.
*Overdrawn*: more steam asked for than the boiler can give. *Content*: what a controller was paid, of the most that it could be. *Fairness*:
Jain's index over that (1: all alike). *Conflicts*: among first choices, on steam and on the feed; how many there are depends on where a
strategy holds the plant, and it is no fault to have many. *Denied*: wishes that got none of their options and took the safe steam.

What is behind the differences:

- `centralized` earns most because these wishes are honest and in one unit. It takes turns at denying one controller for the sake of
  the others: for 20 seconds a tank does not notice.
- `game_theoretic` bargains: a feed that only the first controller gains by is not agreed on. Its `vcg` decides as `centralized` does
  and adds payments, so that exaggeration would not pay; here nobody exaggerates.
- `priority_based` goes by tank, the last one, where quality is decided, before the first: it runs at the feed that the last tank
  likes best.
- Whatever steam the first tank lacks, those after it make up for. Where it comes last (`priority_based`), has the largest share
  already (`resource_based`) or asks for what is dear (`consensus`), its own setpoint suffers; the product does not.
- `round_robin` is not one of coredinator's: it is [taking turns, the guide's example](custom-strategy.md) of a strategy of one's own.

The same in real processes, over HTTP: `cargo run --release` starts two of these controllers as services, by
[plant.yaml](../examples/quickstart/plant.yaml) with its `coordination:` section. They register themselves and say every second what
they want ([agent.rs](../examples/quickstart/src/agent.rs)); what they may take of the answer, and without one, is in
[mandate.rs](../examples/quickstart/src/mandate.rs). What is said is described in [coordination.md](coordination.md).
";

/// The page: what was done, the plot, and the table.
#[must_use]
pub fn page(cases: &[Case], hours: f64, command: &str) -> String {
    let seeds = cases.iter().map(|case| case.runs.len()).max().unwrap_or(0);
    let mut page = format!("{INTRODUCTION}\nGenerated by\n\n    {command}\n\n");
    page.push_str("![Steam asked for, without coordination and with it, and what is produced](plant.svg)\n\n");
    // Writing to a string cannot fail.
    let _ = writeln!(page, "## {seeds} seeds, {hours} simulated hours each\n");
    page.push_str(&table(cases));
    page.push_str(READING);
    page
}

/// The table alone.
#[must_use]
pub fn table(cases: &[Case]) -> String {
    let names = cases
        .first()
        .and_then(|case| case.runs.first())
        .map(|run| run.satisfaction.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>().join(", "));
    let mut table = format!(
        "| | on specification, t/h | of the product | overdrawn, min/h | trips a day | fairness | content: {} | conflicts an hour | denied |\n",
        names.unwrap_or_default()
    );
    table.push_str("|---|---|---|---|---|---|---|---|---|\n");
    for case in cases {
        let content = (0..case.runs.first().map_or(0, |run| run.satisfaction.len()))
            .map(|at| format!("{:.2}", case.spread(|run| run.satisfaction[at].1).median))
            .collect::<Vec<_>>();
        let _ = writeln!(
            table,
            "| {} | **{}** | {:.0} % | {} | {} | {:.3} | {} | {:.0} | {} |",
            case.name,
            case.spread(|run| run.on_spec).told(1),
            case.spread(|run| run.on_spec_share).median * 100.0,
            case.spread(|run| run.overdrawn).told(1),
            case.spread(|run| run.trips).told(0),
            case.spread(Case::fairness).median,
            content.join(", "),
            case.spread(|run| run.conflicts).median,
            if case.coordinated {
                format!("{:.1} %", case.spread(|run| run.denied).median * 100.0)
            } else {
                "-".to_owned()
            },
        );
    }
    table
}
