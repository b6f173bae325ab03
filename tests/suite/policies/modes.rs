//! Who denies and who observes: the client's own word over its policy's, and that over the global
//! one.

use super::*;

/// What a credential meets on each path: forward-auth, a route, verify.
async fn met(gateway: &Gateway, credential: &str) -> [bool; 3] {
    let bearer = format!("Bearer {credential}");
    let headers = [
        ("authorization", bearer.as_str()),
        ("x-forwarded-method", "GET"),
        ("x-forwarded-uri", "/rest/v1/orders"),
    ];
    let asked = gateway.http().ask(Method::GET, "/authz/forward-auth", &headers, "").await;
    let asked = asked.expect("an answer");
    let through = forwarded(gateway, credential, Method::GET, "/rest/v1/orders").await;
    let question = json!({ "key": credential, "table": "orders", "operation": "read" });
    let verified = verify(gateway, question).await;
    for answer in [&asked, &through, &verified] {
        let would = answer.header("x-gatepost-would-deny");
        let denied = answer.status == 403 || answer.body.contains("\"valid\":false");
        assert_eq!(would, (!denied).then_some("insufficient_scope"), "{answer:?}");
    }
    [asked.status == 200, through.status == 200, verified.json()["valid"] == true]
}

#[tokio::test]
async fn a_clients_own_mode_wins_on_every_path() {
    let db = Database::new().await;
    // The same in both orders: all others observe and it enforces, and the reverse.
    for (global, own, others_pass) in [("enforce", "observe", false), ("observe", "enforce", true)]
    {
        let (plain, declared, stored) =
            (format!("{own}-plain"), format!("{own}-declared"), format!("{own}-stored"));
        let mut gateway = Gateway::new(
            Some(&db.url),
            &format!(
                "[admission]\nmode = \"{global}\"\n{QUICK}{ORDERS}\
                 [[clients]]\nname = \"{plain}\"\n\
                 [[clients]]\nname = \"{declared}\"\nmode = \"{own}\"\n\
                 [[policies]]\nname = \"default\"\nrights = [\"gateway.*\"]\n\
                 [[policies]]\nname = \"louder\"\nrights = [\"gateway.*\"]\nmode = \"{global}\"\n"
            ),
        );
        gateway.start_ready().await;
        gateway.create_client(&stored).await;
        gateway.drain().await;
        let set = gateway.run(&["client", "mode", &stored, own]).await.json();
        assert_eq!(set["mode"], own);
        let listed = async |name: &str| {
            let shown = gateway.run(&["client", "show", name]).await.json();
            shown["mode"].clone()
        };
        until("the feed has brought it", || async { listed(&stored).await == own }).await;
        assert_eq!(listed(&declared).await, own);
        assert_eq!(listed(&plain).await, Value::Null);
        for (client, passes) in
            [(&plain, others_pass), (&declared, !others_pass), (&stored, !others_pass)]
        {
            for policy in ["default", "louder"] {
                let key = key_with(&gateway, client, policy).await;
                let token = token_of(&gateway, &key).await;
                for credential in [&key.key, &token] {
                    let told = met(&gateway, credential).await;
                    assert_eq!(told, [passes; 3], "{client} with {policy}, else {global}");
                }
            }
        }
        // What is declared is changed where it is declared.
        for args in [["client", "mode", &declared, global], ["client", "disable", &declared, ""]] {
            let args: Vec<_> = args.into_iter().filter(|arg| !arg.is_empty()).collect();
            let refused = gateway.run(&args).await;
            let told = refused.stderr.contains("is declared in this gateway's configuration");
            assert!(refused.code == Some(1) && told, "{refused:?}");
        }
    }
}
