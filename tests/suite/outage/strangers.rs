//! Keys that the gateway does not know: new ones pass, junk costs nothing.

use tokio::task::JoinSet;

use super::*;

/// The lookup on a miss, and nothing else, says this.
const LOOKUP: &str = "gatepost.api_keys AS k ON k.digest";
#[tokio::test]
async fn fifty_new_keys_at_once_all_pass_fed_or_looked_up() {
    let db = Database::new().await;
    let line = FaultProxy::new(&db.url);
    let mut gateway = Gateway::new(Some(&line.url(&db.url)), &format!("{QUICK}{PATIENT}"));
    gateway.start_ready().await;
    let keys = strangers(100);
    let (fed, looked_up) = keys.split_at(50);
    insert(&db, fed, "acme").await;
    at_once(&gateway, fed).await;
    // Without the feed, each of them is a miss.
    line.refuse(CATCH_UP);
    insert(&db, looked_up, "acme").await;
    let asked = line.queries_with(LOOKUP);
    at_once(&gateway, looked_up).await;
    assert_eq!(line.queries_with(LOOKUP) - asked, 50);
}

async fn at_once(gateway: &Gateway, keys: &[ApiKey]) {
    let mut asking = JoinSet::new();
    for key in keys {
        let (http, key) = (gateway.http().clone(), key.reveal().to_owned());
        asking.spawn(async move { http.verdict(&key).await });
    }
    while let Some(verdict) = asking.join_next().await {
        assert_eq!(verdict.unwrap(), (200, String::new()));
    }
}

#[tokio::test]
async fn a_flood_of_junk_reaches_postgres_with_none() {
    let db = Database::new().await;
    let line = FaultProxy::new(&db.url);
    let settings = format!("{QUICK}{PATIENT}absent_for = \"1h\"\n");
    let mut gateway = Gateway::new(Some(&line.url(&db.url)), &settings);
    gateway.start_ready().await;

    let well_formed = strangers(20);
    let refused = (401, "invalid_credential".to_owned());
    for key in &well_formed {
        let text = key.reveal();
        // One letter of the random part is another: the check characters tell.
        let other = if text.as_bytes()[10] == b'x' { 'y' } else { 'x' };
        for junk in [
            format!("{}{other}{}", &text[..10], &text[11..]),
            text[..text.len() - 1].to_owned(),
            format!("{text}0"),
            "sk-0123456789".to_owned(),
        ] {
            assert_eq!(gateway.http().verdict(&junk).await, refused, "{junk}");
        }
    }
    assert_eq!(line.queries_with(LOOKUP), 0);
    // What has the right form must be asked for, but only once.
    for _ in 0..5 {
        for key in &well_formed {
            assert_eq!(gateway.http().verdict(key.reveal()).await, refused);
        }
    }
    assert_eq!(line.queries_with(LOOKUP), well_formed.len());
}
