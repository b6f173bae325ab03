//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use uuid::Uuid;

const EXIT_CODES: &str = "\
Exit codes:
  0   done
  1   failure
  2   usage
  69  something that is needed cannot be reached (Postgres, the admin URL)
  75  try again (another process holds the data directory)
  78  configuration

Commands talk to the gateway at --admin-url, GATEPOST_ADMIN_URL, or the configured admin address if
one answers there; otherwise they work on the data directory.";

const DRILL: &str = "\
A gateway of its own runs on a scratch directory and on a database that the drill makes and drops
again; it listens on 127.0.0.1 only. Postgres is cut off, frozen and brought back by a proxy before
it, and the gateway is killed twice. The last line is `lost 0, counted twice 0`, or the exit code is
1.

Neither the configuration nor DATABASE_URL is read, and no existing database is touched. What is
printed is for people, also into a pipe, unless --output json asks for the same as data.";

/// An API gateway that answers from local storage and settles its counts into Postgres later.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, after_help = EXIT_CODES, propagate_version = true)]
pub(super) struct Cli {
    /// Configuration file [default: $GATEPOST_CONFIG, config/gatepost.toml,
    /// /etc/gatepost/gatepost.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// How data is printed [default: table on a terminal, otherwise json]
    #[arg(long, global = true, value_enum)]
    pub(super) output: Option<Format>,
    /// The admin API of a running gateway [default: $GATEPOST_ADMIN_URL]
    #[arg(long, global = true, value_name = "URL")]
    pub(super) admin_url: Option<String>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run the gateway
    Serve,
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Bring the database's schema up to date
    Migrate,
    /// Check everything that the gateway needs, a line each
    Doctor,
    /// See for yourself: load, outages of Postgres and kills, and then every counter compared
    #[command(after_help = DRILL)]
    Drill(DrillArgs),
    /// Clients: who owns keys
    Client {
        #[command(subcommand)]
        command: ClientCommand,
    },
    /// API keys
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Policies: what clients and keys may do
    Policy {
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Sessions: who may refresh
    Session {
        #[command(subcommand)]
        command: SessionCommand,
    },
    /// What sessions are made with
    Token {
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// What clients did: settled in Postgres, unsettled here, and the sum
    Usage(UsageArgs),
    /// The write-behind log
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
    /// What the cache must not do by itself
    Cache {
        #[command(subcommand)]
        command: CacheCommand,
    },
    /// Have the running gateway read its configuration again: routes and upstreams
    Reload,
    /// Print a completion script
    Completions { shell: Shell },
    /// Read segments for the gateway that started this
    #[command(hide = true)]
    SegmentFrames,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say whether it is valid, and what is wrong with it
    Check,
    /// Print what holds, as TOML, without secrets
    Print,
    /// Print the JSON schema of the file
    Schema,
}

#[derive(Debug, Subcommand)]
pub(super) enum ClientCommand {
    /// Make a client
    Create {
        name: String,
        /// The policy of its keys that name none themselves
        #[arg(long)]
        policy: Option<String>,
    },
    /// List clients by name
    List(PageArgs<String>),
    /// Show one client
    Show { name: String },
    /// Refuse its keys from now on (needs Postgres)
    Disable { name: String },
    /// Accept its keys again (needs Postgres)
    Enable { name: String },
    /// Whether its policies deny, or only say that they would (needs Postgres)
    Mode {
        name: String,
        #[arg(value_enum)]
        mode: ClientMode,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ClientMode {
    /// They deny
    Enforce,
    /// They are decided and recorded; its requests pass
    Observe,
    /// As each policy says
    Inherit,
}

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Store the [[policies]] of a TOML file in Postgres: all of them, or none when anything is
    /// wrong
    Apply {
        file: PathBuf,
        /// Only show what would change
        #[arg(long)]
        dry_run: bool,
        /// Remove stored policies that are not in the file; one that is in use is refused
        #[arg(long)]
        prune: bool,
    },
    /// List policies, declared and stored
    List,
    /// Show one policy
    Show { name: String },
}

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Make a key; it is shown this once
    Create {
        /// Who owns it
        #[arg(long)]
        client: String,
        /// Overrides the client's policy
        #[arg(long)]
        policy: Option<String>,
        /// What it may do, repeated; without, nothing is narrowed
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How long it lives, like 90d [default: for ever]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires_in: Option<String>,
        /// The environment in its text: `live` gives gp_live_…
        #[arg(long, default_value = "live")]
        env: String,
    },
    /// List keys by id
    List {
        /// Only of this client
        #[arg(long)]
        client: Option<String>,
        #[command(flatten)]
        page: PageArgs<Uuid>,
    },
    /// Show one key
    Show { id: Uuid },
    /// Refuse it at once and for good; works without Postgres
    Revoke { id: Uuid },
    /// Refuse it from now on (needs Postgres)
    Disable { id: Uuid },
    /// Accept it again (needs Postgres)
    Enable { id: Uuid },
    /// Make a successor, and revoke it when the overlap is over
    Rotate {
        id: Uuid,
        /// How long both are good
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
        overlap: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Begin a session; its tokens are shown this once
    Create {
        /// The end user
        #[arg(long)]
        subject: String,
        /// The client that it is for
        #[arg(long)]
        client: String,
        /// What its tokens may do, repeated; without, nothing is narrowed
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How long it may live, like 30d [default: tokens.session_ttl]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ttl: Option<String>,
    },
    /// List the sessions of this gateway by id
    List {
        /// Only of this subject
        #[arg(long)]
        subject: Option<String>,
        /// Only of this client
        #[arg(long)]
        client: Option<String>,
        #[command(flatten)]
        page: PageArgs<Uuid>,
    },
    /// Show one session
    Show { id: Uuid },
    /// End one session, or log a subject or client out everywhere; works without Postgres
    #[command(group = clap::ArgGroup::new("whose").required(true))]
    Revoke {
        #[arg(group = "whose")]
        id: Option<Uuid>,
        /// Every session and token of this subject made until now
        #[arg(long, group = "whose")]
        subject: Option<String>,
        /// Every session and token of this client made until now; its keys stay good
        #[arg(long, group = "whose")]
        client: Option<String>,
    },
    /// After a lost or restored data directory: take newer tokens than are known here on their
    /// proof, once per session
    Recover {
        /// For how long, like 24h; 0s closes the window
        #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
        span: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Server secrets and signing keys
    Keys {
        #[command(subcommand)]
        command: TokenKeysCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenKeysCommand {
    /// List them; never the secrets themselves
    List,
    /// Use new ones from now on; the old ones stay good for what was made with them
    Rotate,
    /// Print a key set for GATEPOST_TOKEN_KEYS_FILE
    Generate {
        /// With what this one holds, and a new secret and signing key
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
}

/// A page of a list.
#[derive(Debug, Args)]
pub(super) struct PageArgs<T: Clone + Send + Sync + std::str::FromStr + 'static>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    /// Begin after this one
    #[arg(long)]
    pub(super) after: Option<T>,
    /// At most this many
    #[arg(long, default_value_t = crate::admin::LIST_MAX, value_parser = limit)]
    pub(super) limit: usize,
}

#[derive(Debug, Args)]
pub(super) struct DrillArgs {
    /// A Postgres server on which its role may make a database [default: a throw-away server, where
    /// the server binaries are installed]
    #[arg(long, value_name = "URL")]
    pub(super) database_url: Option<String>,
    /// How long load lasts, about
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = seconds())]
    pub(super) seconds: u16,
}

fn seconds() -> clap::builder::RangedI64ValueParser<u16> {
    let span = i64::from(crate::drill::SECONDS_MIN)..=i64::from(crate::drill::SECONDS_MAX);
    clap::value_parser!(u16).range(span)
}

#[derive(Debug, Args)]
pub(super) struct UsageArgs {
    /// Only of this client
    #[arg(long)]
    pub(super) client: Option<String>,
    /// Quotas of its keys beyond this one only
    #[arg(long, value_name = "ID", requires = "client")]
    pub(super) after: Option<Uuid>,
    /// By the calendar in UTC
    #[arg(long, value_enum, default_value_t = Period::Month)]
    pub(super) period: Period,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Period {
    Month,
    Day,
    Year,
    All,
}

#[derive(Clone, Debug, Subcommand)]
pub(super) enum LogCommand {
    /// What waits for Postgres, how much room is left, and what is in quarantine
    Status,
    /// Send everything recorded until now to Postgres
    Drain,
    /// Read everything, quarantine included, and compare it with Postgres; exit 1 when anything is
    /// wrong
    Verify,
    /// List the streams, or print the facts of one as JSON lines
    Inspect {
        /// A stream's id, a name below quarantine/, or the path of a segment's directory
        stream: Option<String>,
    },
    /// Count what a segment holds that is in quarantine, or was copied from elsewhere, exactly once
    Replay {
        /// A stream's id or name in quarantine, or the path of a segment's directory
        path: String,
    },
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Forget the keys that a full resync did not find in Postgres (`status` shows how many wait)
    AcceptRemovals,
}

fn duration(text: &str) -> Result<String, String> {
    let parsed = humantime::parse_duration(text);
    parsed.map(|_| text.to_owned()).map_err(|_| "write it like 90d, 24h or 30m".into())
}

fn limit(text: &str) -> Result<usize, String> {
    let max = crate::admin::LIST_MAX;
    let parsed = text.parse().ok().filter(|limit| (1..=max).contains(limit));
    parsed.ok_or_else(|| format!("must lie between 1 and {max}"))
}
