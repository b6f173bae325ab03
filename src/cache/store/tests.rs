//! What the disk tier reads back, whatever stands there.

use uuid::Uuid;

use super::*;
use crate::fuzz::{each, framed};
use crate::model::{Advance, Client, Key, Policy, Session};

fn payload(kind: Kind, value: &impl Encode) -> Vec<u8> {
    let frame = codec::seal(kind, VERSION, value).expect("small");
    codec::payload(kind, VERSION, &frame).expect("whole").to_vec()
}

fn session() -> Session {
    Session {
        id: Uuid::from_u128(9),
        node: "gw-1".into(),
        subject: "somebody".into(),
        client: "acme".into(),
        scopes: vec!["orders.read".into(), "items".into()],
        created_at: Timestamp(1_700_000_000_000_000),
        expires_at: Timestamp(i64::MAX),
        advance: Advance { generation: 3, at: Timestamp(1_700_000_001_000_000) },
        revoked_at: Some(Timestamp::NEG_INFINITY),
        recovered_at: None,
    }
}

/// The rows that are stored, as they are stored.
fn rows() -> Vec<Vec<u8>> {
    let key = Key {
        id: Uuid::from_u128(7),
        digest: Digest([7; 32]),
        prefix: "gp_live_".into(),
        last4: "0000".into(),
        client: "acme".into(),
        policy: Some("gold".into()),
        scopes: vec!["orders.read".into()],
        enabled: true,
        expires_at: Some(Timestamp(1_900_000_000_000_000)),
        created_at: Timestamp(1_700_000_000_000_000),
    };
    let client = Client { name: "acme".into(), policy: Some("gold".into()), enabled: true };
    let policy = Policy { name: "gold".into(), spec: "{\"version\": 1}".into() };
    vec![
        payload(Kind::Row, &KeyRow { key, revision: 7 }),
        payload(Kind::Row, &ClientRow { client, mode: None, revision: 8 }),
        payload(Kind::Row, &PolicyRow { policy, revision: i64::MAX }),
        payload(Kind::Row, &session()),
        payload(Kind::Row, &QuotaBase::default()),
        payload(Kind::Row, &Timestamp::NEG_INFINITY),
        payload(Kind::Meta, &Age { caught_up: Timestamp::EPOCH, age_us: 7 }),
    ]
}

/// Read and written again, it says the same.
fn stays<T: Encode + Decode<()> + PartialEq + std::fmt::Debug>(kind: Kind, frame: &[u8]) {
    let Ok(Some(value)) = read::<T>(kind, Some(frame.into())) else { return };
    let again = codec::seal(kind, VERSION, &value).expect("it has room where it came from");
    let again = read::<T>(kind, Some(again.into())).expect("it was written just now");
    assert_eq!(again, Some(value));
}

#[test]
fn any_bytes_are_a_row_or_an_error() {
    each("cache rows", &rows(), |bytes| {
        for kind in [Kind::Row, Kind::Meta] {
            let Some(frame) = framed(kind, VERSION, bytes) else { return };
            stays::<KeyRow>(kind, &frame);
            stays::<ClientRow>(kind, &frame);
            stays::<PolicyRow>(kind, &frame);
            stays::<Session>(kind, &frame);
            stays::<QuotaBase>(kind, &frame);
            stays::<Timestamp>(kind, &frame);
            stays::<Position>(kind, &frame);
            stays::<Age>(kind, &frame);
            stays::<Synced>(kind, &frame);
        }
    });
}
