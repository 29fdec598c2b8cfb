use std::{fmt, str::FromStr, time::Duration};

use coredinator_core::{StoreError, duration, field};
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

use crate::store::{DEFAULT_RETAINED_BYTES, DEFAULT_RETAINED_REVISIONS};

/// The schema that is used where the URL names none.
const DEFAULT_SCHEMA: &str = "coredinator";

/// Parameters of a URL that are ours.
const OWN: [&str; 4] = ["schema", "connect_timeout", "statement_timeout", "max_connections"];
/// Those that are handed to the driver.
const DRIVERS: [&str; 11] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "options",
];
/// Those of libpq that providers put into their URLs, and that mean nothing here.
const IGNORED: [&str; 4] = ["application_name", "channel_binding", "gssencmode", "target_session_attrs"];

/// Where a [`PostgresStore`](super::PostgresStore) is and how it behaves, as a URL says it:
/// `postgresql://user:password@host:5432/database?sslmode=verify-full&schema=coredinator`.
///
/// | parameter | meaning | default |
/// |---|---|---|
/// | `sslmode` | `disable`, `allow`, `prefer`, `require`, `verify-ca`, `verify-full` | `prefer` |
/// | `sslrootcert`, `sslcert`, `sslkey` | PEM files: whom to trust (beside what the machine trusts), who we are | none |
/// | `schema` | where the tables are; made if absent | `coredinator` |
/// | `connect_timeout` | how long a connection may take to be made | 5 s |
/// | `statement_timeout` | how long one call may take at the server, and a transaction may idle there | 5 s |
/// | `max_connections` | how many connections are held at most, at least 3 | 6 |
///
/// What the URL leaves out is taken from the environment (`PGUSER`, `PGPASSWORD`, …) and from `~/.pgpass`, as `psql` does.
/// `Debug` shows the place without the password.
#[derive(Clone)]
pub struct PostgresOptions {
    pub(super) connect: PgConnectOptions,
    pub(super) schema: String,
    pub(super) connect_timeout: Duration,
    pub(super) statement_timeout: Duration,
    pub(super) max_connections: usize,
    pub(super) poll: Duration,
    pub(super) open_wait: Duration,
    pub(super) retained_revisions: u64,
    pub(super) retained_bytes: u64,
    pub(super) tail_changes: usize,
    pub(super) tail_bytes: usize,
}

impl PostgresOptions {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], which names what is wrong and no secret.
    pub fn new(url: &str) -> Result<Self, StoreError> {
        let scheme = url.split_once("://").map(|(scheme, _)| scheme);
        if !matches!(scheme, Some("postgres" | "postgresql")) {
            return Err(StoreError::Invalid("a PostgreSQL URL starts with postgresql://".to_owned()));
        }
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let mut options = Self {
            connect: PgConnectOptions::new_without_pgpass(),
            schema: DEFAULT_SCHEMA.to_owned(),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
            max_connections: 6,
            poll: Duration::from_secs(1),
            open_wait: Duration::from_secs(10),
            retained_revisions: DEFAULT_RETAINED_REVISIONS,
            retained_bytes: DEFAULT_RETAINED_BYTES,
            tail_changes: 1024,
            tail_bytes: 8 << 20,
        };
        let mut passed_on = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match name {
                "schema" => options.schema = schema(value)?,
                "connect_timeout" => options.connect_timeout = timeout(name, value)?,
                "statement_timeout" => options.statement_timeout = timeout(name, value)?,
                "max_connections" => options.max_connections = connections(value)?,
                name if DRIVERS.contains(&name) => passed_on.push(parameter),
                name if IGNORED.contains(&name) => {}
                other => return Err(unknown(other)),
            }
        }
        let driver = PgConnectOptions::from_str(&format!("{place}?{}", passed_on.join("&")));
        let driver = driver.map_err(|error| StoreError::Invalid(format!("this is no PostgreSQL URL: {error}")))?;
        options.connect = driver.application_name("coredinator").disable_statement_logging();
        Ok(options)
    }

    /// Where it is, without secrets.
    #[must_use]
    pub fn location(&self) -> String {
        let connect = &self.connect;
        let host = match connect.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => connect.get_host().to_owned(),
        };
        let (user, port) = (connect.get_username(), connect.get_port());
        let database = connect.get_database().unwrap_or(user);
        let schema = if self.schema == DEFAULT_SCHEMA { String::new() } else { format!("?schema={}", self.schema) };
        format!("postgresql://{user}@{host}:{port}/{database}{schema}")
    }

    /// How long a call, or a transaction that does nothing, may take at the server; whoever calls is answered by then, and a
    /// process that stopped in the middle of a write holds others up no longer. Default: 5 seconds.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout.max(Duration::from_millis(100));
        self
    }

    /// How long a connection may take to be made. Default: 5 seconds.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.max(Duration::from_millis(100));
        self
    }

    /// How often the changes table is looked at even if nobody told of a change. Default: 1 second.
    #[must_use]
    pub fn poll(mut self, every: Duration) -> Self {
        self.poll = every.max(Duration::from_millis(10));
        self
    }

    /// How long opening waits for a server that cannot be reached. Default: 10 seconds.
    #[must_use]
    pub fn open_wait(mut self, wait: Duration) -> Self {
        self.open_wait = wait;
        self
    }

    /// How many of the newest revisions are kept for watchers, at least 1; older ones are forgotten little by little as
    /// new ones are written. Of several coredinators the one that keeps least counts. Default:
    /// [`DEFAULT_RETAINED_REVISIONS`].
    #[must_use]
    pub fn retained_revisions(mut self, revisions: u64) -> Self {
        self.retained_revisions = revisions.max(1);
        self
    }

    /// How many bytes of changes are kept for watchers at most, beside the newest one. Default: [`DEFAULT_RETAINED_BYTES`].
    #[must_use]
    pub fn retained_bytes(mut self, bytes: u64) -> Self {
        self.retained_bytes = bytes;
        self
    }

    /// How many changes, and bytes of them, are held in memory for watchers that keep up; those who are further behind
    /// read the table. Default: 1024 changes, 8 MiB.
    #[must_use]
    pub fn watch_buffer(mut self, changes: usize, bytes: usize) -> Self {
        self.tail_changes = changes;
        self.tail_bytes = bytes;
        self
    }

    /// How long a whole call may take, connecting included.
    pub(super) fn patience(&self) -> Duration {
        self.connect_timeout + self.statement_timeout
    }
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("location", &self.location())
            .field("connect_timeout", &self.connect_timeout)
            .field("statement_timeout", &self.statement_timeout)
            .field("max_connections", &self.max_connections)
            .field("retained_revisions", &self.retained_revisions)
            .field("retained_bytes", &self.retained_bytes)
            .finish_non_exhaustive()
    }
}

/// A name that needs no quoting, so that it can stand in statements.
fn schema(name: &str) -> Result<String, StoreError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let fits =
        (1..=63).contains(&name.len()) && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit());
    if fits && !name.starts_with("pg_") && name != "information_schema" {
        return Ok(name.to_owned());
    }
    Err(StoreError::Invalid(format!(
        "schema is 1 to 63 of a-z, 0-9 and _, starting with no digit and not with pg_, but this is {name:?}"
    )))
}

fn timeout(name: &str, text: &str) -> Result<Duration, StoreError> {
    let read = duration::parse(text)
        .ok()
        .filter(|timeout| (Duration::from_millis(100)..=Duration::from_secs(600)).contains(timeout));
    read.ok_or_else(|| {
        StoreError::Invalid(format!("{name} is from 0.1 to 600 seconds, such as 5 or 250ms, but this is {text:?}"))
    })
}

fn connections(text: &str) -> Result<usize, StoreError> {
    let read = text.parse().ok().filter(|count| (3..=1000).contains(count));
    read.ok_or_else(|| StoreError::Invalid(format!("max_connections is from 3 to 1000, but this is {text:?}")))
}

fn unknown(name: &str) -> StoreError {
    let known: Vec<&str> = OWN.iter().chain(&DRIVERS).copied().collect();
    let hint = field::nearest(name, &known).map_or(String::new(), |near| format!(" (did you mean {near}?)"));
    let shown: String = name.chars().take(40).collect();
    StoreError::Invalid(format!("the URL has an unknown parameter {shown:?}{hint}"))
}
