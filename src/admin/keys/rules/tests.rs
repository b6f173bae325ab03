//! The rules of new and rotated keys.

use axum::http::StatusCode;

use super::*;
use crate::admin::keys::tests::key;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_successor_lives_as_long_as_its_predecessor_was_made_for() {
    let made = Timestamp::from_hour(100);
    let now = Timestamp::from_hour(150);
    let old = key(made, Some(made.plus(HOUR * 90)));
    assert_eq!(successor_expiry(&old, now), Some(now.plus(HOUR * 90)));
    assert_eq!(successor_expiry(&key(made, None), now), None);
    let declared = key(Timestamp::EPOCH, Some(Timestamp::from_hour(200)));
    assert_eq!(successor_expiry(&declared, now), Some(Timestamp::from_hour(200)));
}

#[test]
fn without_an_overlap_no_clock_can_undo_the_revocation() {
    let now = Timestamp::from_hour(1);
    assert_eq!(end_of(Duration::ZERO, now), Timestamp::NEG_INFINITY);
    assert_eq!(end_of(HOUR, now), Timestamp::from_hour(2));
}

#[test]
fn the_environment_of_a_key_stays() {
    assert_eq!(env_of("gp_dev_"), "dev");
    assert_eq!(env_of("declared"), "live");
}

#[test]
fn scopes_are_few_and_short_names() {
    let many = vec!["s".to_owned(); SCOPES_MAX + 1];
    let long = vec!["s".repeat(100); 6];
    for refused in [many, long, vec![String::new()], vec!["a\nb".into()], vec!["a b".into()]] {
        assert_eq!(scopes(&refused).expect_err("refused").status, StatusCode::BAD_REQUEST);
    }
    assert_eq!(scopes(&["read".into(), "write".into()]).expect("accepted").len(), 2);
    let refused = scopes(&["openid".into(), "orders..read".into()]).expect_err("no right");
    assert!(refused.detail.starts_with("`scopes[1]`: `orders..read` is no right"), "{refused:?}");
}
