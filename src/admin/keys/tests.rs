//! How keys are shown, and a key for the tests of this room.

use super::*;
use crate::model::Digest;

pub(super) fn key(created_at: Timestamp, expires_at: Option<Timestamp>) -> Key {
    Key {
        id: Uuid::nil(),
        digest: Digest([0; 32]),
        prefix: "gp_dev_".into(),
        last4: "abcd".into(),
        client: "a".into(),
        policy: None,
        scopes: Vec::new(),
        enabled: true,
        expires_at,
        created_at,
    }
}

#[test]
fn a_key_revoked_at_once_shows_a_state_and_no_moment() {
    let now = Timestamp::from_hour(10);
    let at = |revoked_at| Shown::new(KeyView { key: key(now, None), revoked_at }, now);
    let at_once = at(Some(Timestamp::NEG_INFINITY));
    assert_eq!((at_once.state, at_once.revoked_at), ("revoked", None));
    let later = at(Some(Timestamp::from_hour(11)));
    assert_eq!((later.state, later.revoked_at), ("active", Some(Timestamp::from_hour(11))));
}
