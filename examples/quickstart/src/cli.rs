//! The quickstart's own command line.

use clap::{Parser, Subcommand};

use crate::{coreio::CoreioArgs, corerl::CorerlArgs};

/// The quickstart's own services.
#[derive(Debug, Clone, Parser)]
#[command(name = "quickstart", version, about)]
pub struct Cli {
    /// Which of them.
    #[command(subcommand)]
    pub service: Service,
}

/// One of the quickstart's services.
#[derive(Debug, Clone, Subcommand)]
pub enum Service {
    /// The simulated plant.
    Coreio(CoreioArgs),
    /// A learning controller.
    Corerl(Box<CorerlArgs>),
}
