//! Which request each command is, and how its answer looks.

use std::fmt::Write;
use std::path::Path;

use axum::http::Method;
use clap::ValueEnum;
use serde_json::{Value, json};

use super::args::{
    CacheCommand, ClientCommand, ClientMode, Command, KeyCommand, LogCommand, PolicyCommand,
    SessionCommand, TokenCommand, TokenKeysCommand, UsageArgs,
};
use super::failure::Failure;
use super::output::{Column, Section, Shape};

/// One request to the admin API.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) body: Option<Value>,
    pub(super) shape: Shape,
}

const CLIENTS: &[Column] =
    &[("NAME", "/name"), ("POLICY", "/policy"), ("ENABLED", "/enabled"), ("MODE", "/mode")];
const POLICIES: &[Column] = &[("NAME", "/name"), ("SOURCE", "/source"), ("SPEC", "/spec")];
const CHANGES: &[Column] = &[("NAME", "/name"), ("CHANGE", "/change")];
const KEYS: &[Column] = &[
    ("ID", "/id"),
    ("CLIENT", "/client"),
    ("PREFIX", "/prefix"),
    ("LAST4", "/last4"),
    ("STATE", "/state"),
    ("POLICY", "/policy"),
    ("SCOPES", "/scopes"),
    ("EXPIRES", "/expires_at"),
    ("CREATED", "/created_at"),
];
const SESSIONS: &[Column] = &[
    ("ID", "/id"),
    ("SUBJECT", "/subject"),
    ("CLIENT", "/client"),
    ("STATE", "/state"),
    ("SCOPES", "/scopes"),
    ("GENERATION", "/generation"),
    ("REFRESHED", "/advanced_at"),
    ("EXPIRES", "/expires_at"),
    ("NODE", "/node"),
];
const TOKEN_KEYS: &[Column] =
    &[("ID", "/id"), ("KIND", "/kind"), ("STATE", "/state"), ("CREATED", "/created_at")];
const USAGE: &[Column] = &[
    ("CLIENT", "/client"),
    ("SETTLED", "/settled/requests"),
    ("UNSETTLED", "/unsettled/requests"),
    ("SUM", "/sum/requests"),
    ("SUCCEEDED", "/known/succeeded"),
    ("FAILED", "/known/failed"),
    ("DENIED", "/known/denied"),
    ("BYTES IN", "/known/bytes_in"),
    ("BYTES OUT", "/known/bytes_out"),
    ("LAST SEEN", "/known/last_seen"),
];
const LANES: &[Column] = &[
    ("LANE", "/lane"),
    ("SEGMENTS", "/segments"),
    ("INHERITED", "/inherited"),
    ("BYTES", "/bytes"),
    ("UNSETTLED CHUNKS", "/unsettled_chunks"),
    ("UNSETTLED FACTS", "/unsettled_facts"),
    ("OLDEST S", "/oldest_seconds"),
    ("MISSING CHUNKS", "/missing/chunks"),
];
const STREAMS: &[Column] = &[
    ("LANE", "/lane"),
    ("STREAM", "/stream"),
    ("STATE", "/state"),
    ("BORN", "/born"),
    ("BYTES", "/bytes"),
    ("CHUNKS", "/chunks"),
    ("APPLIED", "/applied_chunks"),
    ("UNSETTLED FACTS", "/unsettled_facts"),
    ("MISSING", "/missing/chunks"),
];
const QUARANTINE: &[Column] = &[
    ("QUARANTINED", "/name"),
    ("SINCE", "/set_aside_at"),
    ("MISSING CHUNKS", "/missing/chunks"),
    ("MISSING FACTS", "/missing/facts"),
    ("EXACT", "/missing/exact"),
    ("REASON", "/reason"),
];
const VERIFIED: &[Column] = &[
    ("PLACE", "/place"),
    ("LANE", "/lane"),
    ("STREAM", "/stream"),
    ("CHUNKS", "/chunks"),
    ("FACTS", "/facts"),
    ("LEDGER", "/ledger/last_seq"),
    ("PROBLEMS", "/problems"),
];
const LOG: &[Section] = &[("lanes", LANES), ("streams", STREAMS), ("quarantined", QUARANTINE)];

/// The request of a command that is one.
///
/// # Errors
/// When it needs a file that cannot be read.
pub(super) fn ask(command: &Command) -> Result<Ask, Failure> {
    Ok(match command {
        Command::Client { command } => client(command),
        Command::Key { command } => key(command),
        Command::Policy { command } => return policy(command),
        Command::Session { command } => session(command),
        Command::Token { command: TokenCommand::Keys { command } } => token_keys(command),
        Command::Log { command } => log(command),
        Command::Usage(asked) => usage(asked),
        Command::Cache { command: CacheCommand::AcceptRemovals } => {
            post("/cache/removals", json!({}), Shape::One)
        }
        Command::Reload => post("/reload", json!({}), Shape::One),
        _ => get("/status", Shape::One),
    })
}

fn policy(command: &PolicyCommand) -> Result<Ask, Failure> {
    Ok(match command {
        PolicyCommand::Apply { file, dry_run, prune } => {
            let mut body = read_policies(file)?;
            body["dry_run"] = json!(dry_run);
            body["prune"] = json!(prune);
            post("/policies/apply", body, Shape::Changes(CHANGES))
        }
        PolicyCommand::List => get("/policies", Shape::List(POLICIES)),
        PolicyCommand::Show { name } => get(&format!("/policies/{}", escape(name)), Shape::One),
    })
}

/// `[[policies]]` and nothing else; what they say is checked where it is stored.
fn read_policies(file: &Path) -> Result<Value, Failure> {
    let shown = file.display();
    let text = std::fs::read_to_string(file)
        .map_err(|error| Failure::Usage(format!("{shown} cannot be read: {error}")))?;
    let table: toml::Table =
        toml::from_str(&text).map_err(|error| Failure::Usage(format!("{shown}: {error}")))?;
    if let Some(other) = table.keys().find(|key| *key != "policies") {
        let hint = "a file that is applied holds [[policies]] only";
        return Err(Failure::Usage(format!("{shown}: unknown key `{other}`; {hint}")));
    }
    // One that lost its text must not remove everything with `--prune`.
    if !table.contains_key("policies") {
        let hint = "write `policies = []` to say that there are none";
        return Err(Failure::Usage(format!("{shown}: no [[policies]]; {hint}")));
    }
    serde_json::to_value(&table).map_err(|error| Failure::Usage(format!("{shown}: {error}")))
}

fn log(command: &LogCommand) -> Ask {
    match command {
        LogCommand::Status => get("/log", Shape::Sections(LOG)),
        LogCommand::Drain => post("/log/drain", json!({}), Shape::Sections(LOG)),
        LogCommand::Verify => get("/log/verify", Shape::Verified(&[("streams", VERIFIED)])),
        LogCommand::Inspect { stream: None } => get("/log/streams", Shape::List(STREAMS)),
        LogCommand::Inspect { stream: Some(stream) } => {
            let mut path = "/log/facts".to_owned();
            parameter(&mut path, "of", Some(&named(stream)));
            get(&path, Shape::Lines)
        }
        LogCommand::Replay { path } => {
            post("/log/replay", json!({ "path": named(path) }), Shape::One)
        }
    }
}

/// A directory by its whole path: the gateway stands elsewhere. Anything else as it is; a stream is
/// a stream wherever one stands.
fn named(what: &str) -> String {
    if what.parse::<uuid::Uuid>().is_ok() {
        return what.to_owned();
    }
    let path = std::path::Path::new(what);
    let whole = path.canonicalize().ok().filter(|whole| whole.is_dir());
    whole.and_then(|whole| Some(whole.to_str()?.to_owned())).unwrap_or_else(|| what.to_owned())
}

fn client(command: &ClientCommand) -> Ask {
    let one = |name: &str| format!("/clients/{}", escape(name));
    match command {
        ClientCommand::Create { name, policy } => {
            post("/clients", json!({ "name": name, "policy": policy }), Shape::One)
        }
        ClientCommand::List(page) => {
            let mut path = format!("/clients?limit={}", page.limit);
            parameter(&mut path, "after", page.after.as_deref());
            get(&path, Shape::List(CLIENTS))
        }
        ClientCommand::Show { name } => get(&one(name), Shape::One),
        ClientCommand::Disable { name } => post(&(one(name) + "/disable"), json!({}), Shape::One),
        ClientCommand::Enable { name } => post(&(one(name) + "/enable"), json!({}), Shape::One),
        ClientCommand::Mode { name, mode } => {
            let mode = match mode {
                ClientMode::Enforce => json!({ "mode": "enforce" }),
                ClientMode::Observe => json!({ "mode": "observe" }),
                ClientMode::Inherit => json!({}),
            };
            post(&(one(name) + "/mode"), mode, Shape::One)
        }
    }
}

fn key(command: &KeyCommand) -> Ask {
    match command {
        KeyCommand::Create { client, policy, scopes, expires_in, env } => {
            let body = json!({
                "client": client,
                "policy": policy,
                "scopes": scopes,
                "expires_in": expires_in,
                "env": env,
            });
            post("/keys", body, Shape::NewKey)
        }
        KeyCommand::List { client, page } => {
            let mut path = format!("/keys?limit={}", page.limit);
            parameter(&mut path, "client", client.as_deref());
            let after = page.after.map(|id| id.to_string());
            parameter(&mut path, "after", after.as_deref());
            get(&path, Shape::List(KEYS))
        }
        KeyCommand::Show { id } => get(&format!("/keys/{id}"), Shape::One),
        KeyCommand::Revoke { id } => post(&format!("/keys/{id}/revoke"), json!({}), Shape::One),
        KeyCommand::Disable { id } => post(&format!("/keys/{id}/disable"), json!({}), Shape::One),
        KeyCommand::Enable { id } => post(&format!("/keys/{id}/enable"), json!({}), Shape::One),
        KeyCommand::Rotate { id, overlap } => {
            let body = json!({ "overlap": overlap });
            post(&format!("/keys/{id}/rotate"), body, Shape::NewKey)
        }
    }
}

fn session(command: &SessionCommand) -> Ask {
    match command {
        SessionCommand::Create { subject, client, scopes, ttl } => {
            let body = json!({
                "subject": subject,
                "client": client,
                "scopes": scopes,
                "ttl": ttl,
            });
            post("/sessions", body, Shape::NewSession)
        }
        SessionCommand::List { subject, client, page } => {
            let mut path = format!("/sessions?limit={}", page.limit);
            parameter(&mut path, "subject", subject.as_deref());
            parameter(&mut path, "client", client.as_deref());
            let after = page.after.map(|id| id.to_string());
            parameter(&mut path, "after", after.as_deref());
            get(&path, Shape::List(SESSIONS))
        }
        SessionCommand::Show { id } => get(&format!("/sessions/{id}"), Shape::One),
        SessionCommand::Revoke { id: Some(id), .. } => {
            post(&format!("/sessions/{id}/revoke"), json!({}), Shape::One)
        }
        SessionCommand::Revoke { subject, client, .. } => {
            post("/sessions/revoke", json!({ "subject": subject, "client": client }), Shape::One)
        }
        SessionCommand::Recover { span } => {
            post("/sessions/recover", json!({ "for": span }), Shape::One)
        }
    }
}

fn token_keys(command: &TokenKeysCommand) -> Ask {
    match command {
        TokenKeysCommand::Rotate => post("/token-keys/rotate", json!({}), Shape::List(TOKEN_KEYS)),
        // (Generating asks nobody.)
        TokenKeysCommand::List | TokenKeysCommand::Generate { .. } => {
            get("/token-keys", Shape::List(TOKEN_KEYS))
        }
    }
}

fn usage(asked: &UsageArgs) -> Ask {
    let mut path = "/usage".to_owned();
    let period = asked.period.to_possible_value();
    let period = period.as_ref().map(|value| value.get_name());
    parameter(&mut path, "period", period);
    parameter(&mut path, "client", asked.client.as_deref());
    let after = asked.after.map(|id| id.to_string());
    parameter(&mut path, "after", after.as_deref());
    get(&path, Shape::Usage(USAGE))
}

fn get(path: &str, shape: Shape) -> Ask {
    Ask { method: Method::GET, path: format!("/admin/v1{path}"), body: None, shape }
}

fn post(path: &str, mut body: Value, shape: Shape) -> Ask {
    // What was not given is left out.
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    Ask { method: Method::POST, path: format!("/admin/v1{path}"), body: Some(body), shape }
}

fn parameter(path: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        let separator = if path.contains('?') { '&' } else { '?' };
        path.extend([separator.to_string().as_str(), name, "=", &escape(value)]);
    }
}

/// Percent-encodes all but the unreserved characters (RFC 3986 §2.3).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(escaped, "%{byte:02X}").unwrap_or_default();
        }
    }
    escaped
}
