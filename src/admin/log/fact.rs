//! Facts as JSON: a line each, with everything that is counted. The digest of a key is left out.

use serde_json::{Value, json};

use crate::model::Timestamp;
use crate::model::fact::{Fact, Lane, StateFact, UsageFact};

/// One fact, and where it stands.
pub(super) fn line(seq: u64, fact: &Fact) -> Value {
    let mut line = json!({ "seq": seq, "lane": Lane::as_str(fact.lane()) });
    let rest = match fact {
        Fact::Usage(fact) => usage(fact),
        Fact::State(fact) => state(fact),
        Fact::Audit(entry) => json!({
            "event_id": entry.event_id,
            "actor": entry.actor,
            "action": entry.action,
            "subject": entry.subject,
        }),
    };
    if let (Some(line), Value::Object(rest)) = (line.as_object_mut(), rest) {
        line.extend(rest);
    }
    line
}

fn usage(UsageFact { counter, counts }: &UsageFact) -> Value {
    json!({
        "client": counter.client,
        "key_id": counter.key_id,
        "table": counter.table,
        "operation": counter.operation,
        "hour": Timestamp::from_hour(counter.hour),
        "requests": counts.requests,
        "succeeded": counts.succeeded,
        "failed": counts.failed,
        "denied": counts.denied,
        "bytes_in": counts.bytes_in,
        "bytes_out": counts.bytes_out,
        "duration_us": counts.duration_us,
        "last_seen": counts.last_seen,
    })
}

fn state(fact: &StateFact) -> Value {
    match fact {
        StateFact::ClientCreated(client) => json!({
            "fact": "client_created",
            "client": client.name,
            "policy": client.policy,
        }),
        StateFact::KeyCreated(key) => json!({
            "fact": "key_created",
            "key_id": key.id,
            "client": key.client,
            "prefix": key.prefix,
            "last4": key.last4,
            "policy": key.policy,
            "scopes": key.scopes,
            "expires_at": key.expires_at,
            "created_at": key.created_at,
        }),
        StateFact::Revoked(revocation) => json!({
            "fact": "revoked",
            "kind": revocation.kind.as_str(),
            "id": revocation.id,
            "at": revocation.at,
        }),
        StateFact::Session(session) => json!({
            "fact": "session",
            "session_id": session.id,
            "node": session.node,
            "subject": session.subject,
            "client": session.client,
            "scopes": session.scopes,
            "generation": session.advance.generation,
            "advanced_at": session.advance.at,
            "created_at": session.created_at,
            "expires_at": session.expires_at,
            "revoked_at": session.revoked_at,
            "recovered_at": session.recovered_at,
        }),
    }
}
