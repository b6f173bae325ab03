//! Policies that clients and keys are given.

use super::*;

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
