//! Changes in Postgres: seen on one path, they are in force on all.

use super::*;

/// Every path, for an API key and for an access token that is made of it.
const PATHS: [&str; 4] = ["forward-auth", "auth-request", "a route", "verify"];

async fn passes(gateway: &Gateway, path: usize, credential: &str) -> bool {
    let bearer = format!("Bearer {credential}");
    let headers = [("authorization", bearer.as_str())];
    let get = async |path: &str| {
        let answer = gateway.http().ask(Method::GET, path, &headers, "").await;
        let status = answer.expect("an answer").status;
        assert!(matches!(status, 200 | 204 | 403), "{path}: {status}");
        status < 300
    };
    match path {
        0 => get("/authz/forward-auth").await,
        1 => get("/authz/auth-request").await,
        2 => get("/rest/v1/orders").await,
        _ => verify(gateway, json!({ "key": credential })).await.json()["valid"] == true,
    }
}

/// Nobody waits for the next poll.
#[tokio::test]
async fn a_change_that_is_seen_on_one_path_is_in_force_on_all() {
    let db = Database::new().await;
    let rarely = format!("[postgres]\npoll_interval = \"1h\"\n{ORDERS}");
    let mut gateway = Gateway::new(Some(&db.url), &rarely);
    gateway.start_ready().await;
    gateway.create_client("acme").await;
    let text = "[[policies]]\nname = \"open\"\n[[policies]]\nname = \"shut\"\nrights = []\n\
                [[policies]]\nname = \"own\"\n";
    enforce(&gateway, text).await;
    let key = key_with(&gateway, "acme", "own").await;
    gateway.drain().await;
    let credentials = [token_of(&gateway, &key).await, key.key.clone()];
    let changes = [
        ("UPDATE gatepost.policies SET spec = '{\"rights\": []}' WHERE name = 'own'", false),
        ("UPDATE gatepost.clients SET mode = 'observe'", true),
        ("UPDATE gatepost.clients SET mode = NULL", false),
        ("UPDATE gatepost.api_keys SET policy = 'open'", true),
        (
            "UPDATE gatepost.api_keys SET policy = NULL; \
          UPDATE gatepost.clients SET policy = 'shut'",
            false,
        ),
        ("UPDATE gatepost.policies SET spec = '{}' WHERE name = 'shut'", true),
        ("UPDATE gatepost.policies SET spec = '{\"rights\": []}' WHERE name = 'shut'", false),
        ("UPDATE gatepost.clients SET policy = 'open'", true),
    ];
    for (at, (change, wanted)) in changes.into_iter().enumerate() {
        db.execute(change).await;
        // Each path, and each credential, is the first to be asked once.
        let (path, credential) = (at % 4, &credentials[at / 4]);
        until(change, || async { passes(&gateway, path, credential).await == wanted }).await;
        for credential in &credentials {
            for (path, name) in PATHS.iter().enumerate() {
                assert_eq!(passes(&gateway, path, credential).await, wanted, "{name}: {change}");
            }
        }
    }
}

/// Nor does whoever is bound by one, whatever it says and whether there is one.
#[tokio::test]
async fn who_reads_a_policy_writes_nothing() {
    let db = Database::new().await;
    let gateway = ready(&db, "").await;
    enforce(&gateway, "[[policies]]\nname = \"own\"\nrights = [\"orders.read\"]\n").await;
    let keys = [gateway.create_key("acme").await, key_with(&gateway, "acme", "own").await];
    gateway.drain().await;
    db.watch().await;
    for args in [
        &["policy", "list"][..],
        &["policy", "show", "own"],
        &["policy", "show", "default"],
        &["client", "show", "acme"],
        &["key", "list", "--client", "acme"],
        &["key", "show", &keys[0].id],
        &["usage", "--client", "acme", "--period", "month"],
    ] {
        let ran = gateway.run(args).await;
        assert!(ran.code == Some(0) || args.contains(&"default"), "{args:?}: {ran:?}");
    }
    let other = "[[policies]]\nname = \"own\"\n[[policies]]\nname = \"other\"\n";
    assert_eq!(apply(&gateway, other, &["--dry-run"]).await.json()["applied"], false);
    for key in &keys {
        for path in 0..PATHS.len() {
            passes(&gateway, path, &key.key).await;
        }
    }
    gateway.drain().await;
    let written = "SELECT count(*) FROM public.wrote WHERE name IN ('policies', 'clients', \
                   'api_keys', 'revocations', 'change_counter', 'change_log', 'audit_log')";
    assert_eq!(db.number(written).await, 0);
    gateway.run(&["client", "mode", "acme", "observe"]).await.json();
    gateway.drain().await;
    assert!(db.number(written).await > 0, "who writes is seen");
}

#[tokio::test]
async fn a_policy_that_left_the_configuration_while_keys_have_it_is_told_at_the_start() {
    let [stays, gone] = ["stays", "gone"].map(|name| format!("[[policies]]\nname = \"{name}\"\n"));
    let client = "[[clients]]\nname = \"acme\"\n";
    let mut gateway = Gateway::new(None, &format!("{client}{gone}{stays}"));
    gateway.start().await;
    let (had, has) =
        (key_with(&gateway, "acme", "gone").await, key_with(&gateway, "acme", "stays").await);
    assert_eq!(gateway.http().verdict(&had.key).await.0, 200);
    gateway.terminate().await;
    assert!(!gateway.said().contains("have policies that nobody knows"));
    let file = gateway.dir().join("gatepost.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace(&gone, "");
    std::fs::write(&file, text).unwrap();
    gateway.start().await;
    until("it is told", || async { gateway.said().contains("have policies that nobody knows") })
        .await;
    let said = gateway.said();
    let told = said.lines().find(|line| line.contains("have policies that nobody knows")).unwrap();
    assert!(told.contains("gone") && !told.contains("stays"), "{told}");
    let refused = (503, "api_key_policy_unavailable".into());
    assert_eq!(gateway.http().verdict(&had.key).await, refused);
    assert_eq!(gateway.http().verdict(&has.key).await.0, 200);
}
