//! Facts as JSON, with everything that they say, for whoever has to look at one: in a dead letter,
//! or a line of `gatepost log inspect`.

use serde_json::{Value, json};

use super::{
    AdmissionEvent, AuditEntry, AuthAttempt, Event, Fact, Happened, QuotaFact, StateFact, UsageFact,
};
use crate::model::{Client, Timestamp};

impl Fact {
    /// What it is called, and what it says: an object. What opens a door is left out: a key's
    /// digest.
    pub fn shown(&self) -> (&'static str, Value) {
        match self {
            Self::State(fact) => state(fact),
            Self::Usage(fact) => ("usage", usage(fact)),
            Self::Quota(QuotaFact { key, used }) => (
                "quota",
                json!({
                    "quota": key.quota,
                    "scope": key.scope,
                    "period_start": key.period,
                    "period_end": key.until,
                    "used": used,
                }),
            ),
            Self::Event(event) => happened(event),
            Self::Audit(AuditEntry { event_id, actor, action, subject }) => (
                "audit",
                json!({
                    "event_id": event_id,
                    "actor": actor,
                    "action": action,
                    "subject": subject,
                }),
            ),
        }
    }
}

fn happened(event: &Event) -> (&'static str, Value) {
    let id = event.event_id;
    let told = match &event.what {
        Happened::AuthAttempt(AuthAttempt { client, key_id, ip, code }) => {
            json!({"event_id": id, "client": client, "key_id": key_id, "ip": ip, "code": code})
        }
        Happened::Admission(AdmissionEvent { client, key_id, policy, code, observed, limit }) => {
            json!({
                "event_id": id,
                "client": client,
                "key_id": key_id,
                "policy": policy,
                "code": code,
                "observed": observed,
                "limit": limit,
            })
        }
        Happened::Request(line) => json!({
            "event_id": id,
            "request_id": line.request_id,
            "client": line.client,
            "key_id": line.key_id,
            "method": line.method,
            "host": line.host,
            "path": line.path,
            "status": line.status,
            "bytes_in": line.bytes_in,
            "bytes_out": line.bytes_out,
            "duration_us": line.duration_us,
        }),
    };
    (event.kind(), told)
}

fn state(fact: &StateFact) -> (&'static str, Value) {
    match fact {
        StateFact::ClientCreated(Client { name, policy, enabled }) => {
            ("client_created", json!({"name": name, "policy": policy, "enabled": enabled}))
        }
        StateFact::KeyCreated(key) => (
            "key_created",
            json!({
                "id": key.id,
                "prefix": key.prefix,
                "last4": key.last4,
                "client": key.client,
                "policy": key.policy,
                "scopes": key.scopes,
                "enabled": key.enabled,
                "expires_at": key.expires_at,
                "created_at": key.created_at,
            }),
        ),
        StateFact::Revoked(revocation) => (
            "revoked",
            json!({
                "kind": revocation.kind.as_str(),
                "id": revocation.id,
                "at": revocation.at,
            }),
        ),
        StateFact::Session(session) => (
            "session",
            json!({
                "id": session.id,
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
        ),
    }
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

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::model::fact::{Counter, Counts};
    use crate::model::{Digest, Key};

    #[test]
    fn a_key_is_shown_without_its_digest() {
        let key = Key {
            id: Uuid::from_u128(1),
            digest: Digest([0xab; 32]),
            prefix: "gp_live_".into(),
            last4: "0000".into(),
            client: "acme".into(),
            policy: None,
            scopes: vec!["orders.read".into()],
            enabled: true,
            expires_at: None,
            created_at: Timestamp::NEG_INFINITY,
        };
        let (name, said) = Fact::State(StateFact::KeyCreated(key)).shown();
        assert_eq!(
            (name, &said["client"], &said["created_at"]),
            ("key_created", &json!("acme"), &json!("-infinity"))
        );
        assert!(!said.to_string().contains("abab"), "{said}");
    }

    #[test]
    fn a_counter_of_no_hour_says_so() {
        let counter = Counter {
            client: "acme".into(),
            key_id: Uuid::from_u128(1),
            table: "".into(),
            operation: "access".into(),
            hour: Counter::NO_HOUR,
        };
        let counts = Counts { requests: 3, ..Counts::ZERO };
        let (_, said) = Fact::Usage(UsageFact { counter, counts }).shown();
        assert_eq!((&said["hour"], &said["requests"]), (&json!("-infinity"), &json!(3)));
    }
}
