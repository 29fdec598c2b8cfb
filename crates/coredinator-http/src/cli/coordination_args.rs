//! What can be typed about agents and what they share.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde_json::Value;

use super::args::duration;

/// `agents`.
#[derive(Debug, Args)]
pub struct AgentsArgs {
    /// Only agents of this group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

/// `agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Which agent
    #[arg(value_name = "ID")]
    pub id: String,
}

/// A group of agents.
#[derive(Debug, Args)]
pub struct GroupArgs {
    /// Of which group [default: default]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

/// `cycles`.
#[derive(Debug, Args)]
pub struct CyclesArgs {
    /// Of which group.
    #[command(flatten)]
    pub group: GroupArgs,
    /// How many of the newest
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20)]
    pub limit: u32,
    /// Go on with cycles as they end
    #[arg(short, long)]
    pub watch: bool,
}

/// `cycle`.
#[derive(Debug, Args)]
pub struct CycleArgs {
    /// The cycle's number
    #[arg(value_name = "N")]
    pub cycle: u64,
    /// Of which group.
    #[command(flatten)]
    pub group: GroupArgs,
}

/// `strategy`.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// The strategy to switch to, from the next cycle on; none: show which are in force
    #[arg(value_name = "NAME", conflicts_with = "strategy_file")]
    pub name: Option<String>,
    /// An option of it, such as when_it_does_not_fit=block or ageing.cycles=5; several, if repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = option, requires = "name")]
    pub option: Vec<(String, Value)>,
    /// A file (YAML or JSON) that says both, as conflict_resolution does in a configuration
    #[arg(long, value_name = "FILE")]
    pub strategy_file: Option<PathBuf>,
    /// Of which group; none: show those of all, switch that of the only one
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Switch that of every group
    #[arg(long, conflicts_with = "group")]
    pub all: bool,
}

/// `resources`.
#[derive(Debug, Args)]
pub struct ResourcesArgs {
    /// How much there is of a resource from the next cycle on, and how much of that is never handed out; such as steam=8 or
    /// steam=8,1; none: show what there is
    #[arg(value_name = "NAME=CAPACITY[,RESERVE]", value_parser = amount)]
    pub amounts: Vec<(String, Value)>,
    /// Of which group; none: show those of all, change those of default
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

/// `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// The number of a cycle that the server has, or a file with a cycle's record ("-" for standard input)
    #[arg(value_name = "N|FILE")]
    pub cycle: String,
    /// Of which group.
    #[command(flatten)]
    pub group: GroupArgs,
}

/// `coordinate`.
#[derive(Debug, Args)]
pub struct CoordinateArgs {
    /// The problem, as JSON: resources, variables, agents, intentions; "-" for standard input
    #[arg(short, long, value_name = "FILE")]
    pub problem: PathBuf,
    /// By which strategy.
    #[command(flatten)]
    pub strategy: StrategyArgs,
    /// How many steps the strategy may make, instead of what the problem says
    #[arg(long, value_name = "N")]
    pub iterations: Option<u64>,
    /// How long the strategy may take, instead of what the problem says; such as 300ms
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    pub deadline: Option<Duration>,
}

/// A strategy and its options.
#[derive(Debug, Args)]
pub struct StrategyArgs {
    /// The strategy's name [default: priority_based]
    #[arg(short, long, value_name = "NAME", conflicts_with = "strategy_file")]
    pub strategy: Option<String>,
    /// An option of it, such as when_it_does_not_fit=block or ageing.cycles=5; several, if repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = option, conflicts_with = "strategy_file")]
    pub option: Vec<(String, Value)>,
    /// A file (YAML or JSON) that says both, as conflict_resolution does in a configuration
    #[arg(long, value_name = "FILE")]
    pub strategy_file: Option<PathBuf>,
}

/// An option's value is JSON where it is that, and else the text itself.
fn option(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

fn amount(text: &str) -> Result<(String, Value), String> {
    let usage = "write it as NAME=CAPACITY or NAME=CAPACITY,RESERVE";
    let (name, amounts) = text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or(usage)?;
    let number = |text: &str| match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        _ => Err(format!("{text:?} is no amount")),
    };
    let mut amount = serde_json::Map::new();
    let (capacity, reserve) = amounts.split_once(',').map_or((amounts, None), |(first, then)| (first, Some(then)));
    amount.insert("capacity".to_owned(), number(capacity)?.into());
    if let Some(reserve) = reserve {
        amount.insert("reserve".to_owned(), number(reserve)?.into());
    }
    Ok((name.to_owned(), Value::Object(amount)))
}
