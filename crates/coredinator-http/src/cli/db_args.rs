//! What can be typed after `db`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `db`.
#[derive(Debug, Args)]
pub struct DbArgs {
    /// What to do with it.
    #[command(subcommand)]
    pub command: DbCommand,
}

/// The commands of `db`.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Show how the database of the coredinator that runs is: exit code 1 if it is not reached
    Status,
    /// Check everything that has to be right, of the database in use or of a candidate: exit code 1 if something is not
    Verify(DbVerifyArgs),
    /// Write all that is stored to a file, with a checksum; coredinator may be running
    Backup(DbBackupArgs),
    /// Fill the database from a backup; coredinator must be stopped (else exit code 5)
    Restore(DbRestoreArgs),
    /// Write every record as a line of JSON; coredinator may be running
    Export(DbExportArgs),
    /// Move everything to another database, revisions and all; coredinator must be stopped (else exit code 5)
    Migrate(DbMigrateArgs),
}

/// Which database.
#[derive(Debug, Clone, Default, Args)]
pub struct DbSettings {
    /// The configuration file that says which [default: coredinator.yaml, if there is one]
    #[arg(long, env = "COREDINATOR_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the state is kept
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// The database, where it is not in the data directory [default: DATABASE_URL]
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
}

/// `db verify`.
#[derive(Debug, Args)]
pub struct DbVerifyArgs {
    /// A database that might be switched to; nothing is changed in it
    #[arg(long, value_name = "URL")]
    pub candidate: Option<String>,
    /// Look from here, without asking a coredinator
    #[arg(long)]
    pub here: bool,
}

/// `db backup`.
#[derive(Debug, Args)]
pub struct DbBackupArgs {
    /// The file to write; "-" for standard output
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Which database.
    #[command(flatten)]
    pub settings: DbSettings,
}

/// `db restore`.
#[derive(Debug, Args)]
pub struct DbRestoreArgs {
    /// The backup; "-" for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub replace: bool,
    /// Which database.
    #[command(flatten)]
    pub settings: DbSettings,
}

/// `db export`.
#[derive(Debug, Args)]
pub struct DbExportArgs {
    /// Only records whose key starts with this
    #[arg(long, value_name = "KEY", default_value = "")]
    pub prefix: String,
    /// Which database.
    #[command(flatten)]
    pub settings: DbSettings,
}

/// `db migrate`.
#[derive(Debug, Args)]
pub struct DbMigrateArgs {
    /// From which database [default: the file of the data directory]
    #[arg(long, value_name = "URL")]
    pub from: Option<String>,
    /// To which database
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub to: String,
    /// The data directory whose file is moved
    #[arg(long, value_name = "DIR", conflicts_with = "from")]
    pub data_dir: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    pub replace: bool,
}
