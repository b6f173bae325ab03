//! Dead letters: facts that Postgres will never take, kept beside the truth with the reason, in the
//! transaction that advances the ledger past them.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Batch, made_at};
use crate::model::fact::{Fact, Lane};

/// A fact that Postgres refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The fact; of counts, what was merged from all streams of its batch.
    pub fact: Fact,
    /// What Postgres said, with its SQLSTATE.
    pub reason: String,
}

/// Writes one letter each, under the first stream that the batch carries of this lane.
///
/// A state fact is sent again after a restart or a regression: one that has its letter gets no
/// second one. Sums and events come once, by the ledger.
pub(super) async fn write(
    conn: &mut PgConnection,
    node: &str,
    lane: Lane,
    batch: &Batch,
    refused: &[Refused],
) -> Result<(), sqlx::Error> {
    if refused.is_empty() {
        return Ok(());
    }
    let range = batch.ranges.iter().find(|range| range.lane == lane);
    let (stream, from) = range.map_or((Uuid::nil(), 0), |range| (range.stream, range.from));
    let facts: Vec<Value> = refused.iter().map(|refused| letter(&refused.fact)).collect();
    let ids: Vec<Uuid> = facts.iter().map(|fact| event_id(stream, from, fact)).collect();
    let reasons: Vec<&str> = refused.iter().map(|refused| &*refused.reason).collect();
    sqlx::query!(
        r#"
        INSERT INTO gatepost.dead_letters (event_id, at, node_id, stream_id, lane, reason, fact)
        SELECT u.id, gatepost.from_micros($2), $3, $4, $5, u.reason, u.fact
        FROM unnest($1::uuid[], $6::text[], $7::jsonb[]) AS u (id, reason, fact)
        WHERE $5 <> 'state' OR NOT EXISTS (
          SELECT FROM gatepost.dead_letters AS known
          WHERE known.lane = 'state' AND known.node_id = $3 AND known.fact = u.fact)
        ON CONFLICT (event_id, at) DO NOTHING
        "#,
        &ids,
        made_at(stream).0,
        node,
        stream,
        lane.as_str(),
        &reasons as _,
        &facts
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A uuid v7 with the age of the stream, and otherwise made of what the letter says.
fn event_id(stream: Uuid, from: u64, fact: &Value) -> Uuid {
    let hash = digest(&SHA256, format!("{stream}/{from}/{fact}").as_bytes());
    let mut told = [0; 10];
    told.copy_from_slice(&hash.as_ref()[..10]);
    let millis = u64::try_from(made_at(stream).0 / 1000).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &told).into_uuid()
}

/// A fact as its letter shows it.
fn letter(fact: &Fact) -> Value {
    let (name, said) = fact.shown();
    json!({ name: storable(said) })
}

/// Text as `jsonb` takes it: without the one character that it cannot hold.
fn storable(value: Value) -> Value {
    match value {
        Value::String(text) => text.replace('\0', "\u{fffd}").into(),
        Value::Array(values) => values.into_iter().map(storable).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, storable(value))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fact::StateFact;
    use crate::model::{Digest, Key, Timestamp};

    #[test]
    fn a_letter_never_holds_a_digest_or_what_jsonb_refuses() {
        let key = Key {
            id: Uuid::from_u128(1),
            digest: Digest([0xab; 32]),
            prefix: "gp_live_".into(),
            last4: "0\0\u{fffd}0".into(),
            client: "acme\0".into(),
            policy: None,
            scopes: vec!["a\0b".into()],
            enabled: true,
            expires_at: None,
            created_at: Timestamp::NEG_INFINITY,
        };
        let letter = letter(&Fact::State(StateFact::KeyCreated(key))).to_string();
        for text in ["acme\u{fffd}", "a\u{fffd}b", "0\u{fffd}\u{fffd}0"] {
            assert!(letter.contains(text), "{letter}");
        }
        assert!(!letter.contains("abab") && !letter.contains("\\u0000"), "{letter}");
    }

    #[test]
    fn a_letter_has_one_id_however_often_it_is_written() {
        let stream = uuid::Builder::from_unix_timestamp_millis(1_700_000_000_000, &[7; 10]);
        let stream = stream.into_uuid();
        let one = event_id(stream, 3, &json!({"a": 1}));
        assert_eq!(one, event_id(stream, 3, &json!({"a": 1})));
        assert_ne!(one, event_id(stream, 4, &json!({"a": 1})));
        assert_ne!(one, event_id(stream, 3, &json!({"a": 2})));
        assert_eq!(made_at(one), made_at(stream));
    }
}
