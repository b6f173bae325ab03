//! Policies that clients and keys are given.

use super::*;
use crate::admission::{Bases, Used};
use crate::cache::{Change, Follower, PolicyRow};
use crate::model::fact::{QuotaKey, StateFact};
use crate::model::{Digest, Key, Policy};

#[tokio::test]
async fn a_policy_that_nobody_knows_is_given_to_nobody() {
    for plane in [Plane::embedded(), Plane::attached()] {
        assert_eq!(plane.post("/clients", json!({"name": "acme"})).await.0, StatusCode::CREATED);
        for (path, asked) in [
            ("/clients", json!({"name": "other", "policy": "nowhere"})),
            ("/keys", json!({"client": "acme", "policy": "nowhere"})),
        ] {
            let (status, problem) = plane.post(path, asked).await;
            let detail = problem["detail"].as_str().expect("a detail");
            assert_eq!(status, StatusCode::NOT_FOUND, "{detail}");
            assert!(detail.starts_with("there is no policy `nowhere`; "), "{detail}");
        }
        assert_eq!(plane.get("/clients/other").await.0, StatusCode::NOT_FOUND);
        assert_eq!(plane.get("/keys").await.1, json!([]));
        plane.key(json!({"client": "acme", "policy": "default"})).await;
    }
}

/// No quota was used before.
struct Unused;

impl Bases for Unused {
    fn used(&self, _: &QuotaKey) -> Option<Used> {
        Some(Used::default())
    }
}

/// A client with two keys more than a list shows, each with the policy that it is given.
async fn crowd(quotas_of: &str, policy: impl Fn(usize) -> Option<Name>) -> Plane {
    let plane = Plane::embedded();
    plane.control.admission.quotas().based_on(Arc::new(Unused));
    let spec = r#"{"quotas":[{"name":"own","limit":9,"period":"year","per":"key"}]}"#.into();
    let counted = Policy { name: quotas_of.into(), spec };
    let row = PolicyRow { policy: counted, revision: 1 };
    plane.control.cache.apply(vec![Change::Policy(row)]).expect("it");
    plane.post("/clients", json!({"name": "acme"})).await;
    for at in 1..=LIST_MAX + 2 {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&at.to_be_bytes());
        plane.control.cache.pin(&StateFact::KeyCreated(Key {
            id: id(at),
            digest: Digest(digest),
            prefix: "gp_live_".into(),
            last4: "last".into(),
            client: "acme".into(),
            policy: policy(at),
            scopes: Vec::new(),
            enabled: true,
            expires_at: None,
            created_at: Timestamp::EPOCH,
        }));
    }
    plane
}

fn id(at: usize) -> Uuid {
    Uuid::from_u128(at as u128)
}

#[tokio::test]
async fn quotas_of_more_keys_than_a_list_shows_are_not_left_out_in_silence() {
    let plane = crowd("default", |_| None).await;
    let row = async |more: &str| plane.get(&format!("/usage?client=acme{more}")).await.1[0].take();
    let first = row("").await;
    let shown = |row: &Value| row["quotas"].as_array().map(Vec::len);
    assert_eq!((shown(&first), &first["more_keys_after"]), (Some(1000), &json!(id(1000))));
    let rest = row(&format!("&after={}", id(1000))).await;
    assert_eq!((shown(&rest), rest.get("more_keys_after")), (Some(2), None));
    assert_eq!(rest["quotas"][1]["of"], json!(id(1002)));
    let (status, _) = plane.get(&format!("/usage?after={}", id(1))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    // Nor where only keys of the next page have any.
    let plane = crowd("counted", |at| (at > LIST_MAX).then(|| "counted".into())).await;
    let first = plane.get("/usage?client=acme").await.1[0].take();
    assert_eq!((shown(&first), &first["more_keys_after"]), (Some(0), &json!(id(1000))));
}

#[tokio::test]
async fn no_field_stands_twice_in_what_is_asked() {
    let plane = Plane::attached();
    let rate = r#"{"name":"steady","limit":1,"window":"1s","limit":1000}"#;
    for (path, body) in [
        ("clients", r#"{"name":"acme","name":"other"}"#.to_owned()),
        ("policies/apply", r#"{"policies":[{"name":"a","rights":["*"],"rights":[]}]}"#.to_owned()),
        ("policies/apply", format!(r#"{{"policies":[{{"name":"a","rate_limits":[{rate}]}}]}}"#)),
    ] {
        let path = format!("/admin/v1/{path}");
        let (status, problem) = plane.send(Method::POST, &path, body.clone()).await;
        let detail = problem["detail"].as_str().expect("a detail");
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {detail}");
        assert!(detail.contains("stands twice"), "{detail}");
    }
    assert_eq!(plane.get("/clients").await.1, json!([]));
}
