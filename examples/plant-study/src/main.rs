//! Runs the study, prints its table, and writes its page and plot.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use coredinator_coord::Strategies;
use custom_strategy::RoundRobin;
use plant_study::{page, plot, study, table};

/// The quickstart's plant for the same seeds, without coordination and with each strategy.
#[derive(Debug, Parser)]
#[command(name = "plant-study", version)]
struct Args {
    /// How many seeds, from 1.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=1000))]
    seeds: u64,
    /// Simulated hours of each run.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1000))]
    hours: u32,
    /// Write plant.md and plant.svg into this folder.
    #[arg(long)]
    docs: Option<PathBuf>,
    /// The strategy that is drawn beside the case without coordination.
    #[arg(long, default_value = "centralized")]
    drawn: String,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("plant-study: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let hours = f64::from(args.hours);
    let cases = study(&Strategies::builtin().with(RoundRobin), args.seeds, hours)?;
    print!("{}", table(&cases));
    if let Some(folder) = &args.docs {
        let drawn = format!("`{}`", args.drawn);
        let with = cases.iter().position(|case| case.name == drawn).unwrap_or(cases.len() - 1);
        let defaults = (args.seeds, args.hours) == (10, 8);
        let own = if defaults { String::new() } else { format!(" --seeds {} --hours {}", args.seeds, args.hours) };
        let command = format!("cargo run --release -p plant-study -- --docs docs{own}");
        std::fs::write(folder.join("plant.md"), page(&cases, hours, &command))?;
        std::fs::write(folder.join("plant.svg"), plot(&cases, 0, with))?;
    }
    Ok(())
}
