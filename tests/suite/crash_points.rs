//! SIGKILL before or right after the Nth call that changes the data directory, the start included:
//! the next start needs no help, and what was answered is counted once.
//!
//! A sample of the points in a normal run; with `GATEPOST_LONG=1` every one, and three kills in a
//! row. `GATEPOST_SEED` repeats the choice of points.

use std::time::Duration;

use axum::http::Method;

use crate::support::database::Database;
use crate::support::dice::{Dice, long};
use crate::support::gateway::{Gateway, Made};
use crate::support::image::{Record, Tree};
use crate::support::shim::Shim;

const SAMPLE: u32 = 8;
const REQUESTS: usize = 12;

/// What its callers know of one data directory, over all its lives.
#[derive(Default)]
struct Known {
    keys: Vec<(Made, u64, u64)>,
    revoked: Vec<Made>,
}

/// The scenario: a start, state facts, requests that fill more than one segment, an end. Whoever is
/// killed on the way answers no more, and that ends it. Returns whether it came to its end.
async fn live(gateway: &mut Gateway, known: &mut Known) -> bool {
    if !gateway.start_or_die().await {
        return false;
    }
    // Attached, it first has to hear of what Postgres knows.
    loop {
        match gateway.admin().ask(Method::GET, "/readyz", &[], "").await {
            None => return false,
            Some(answer) if answer.status == 200 => break,
            Some(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let client = gateway.control(Method::POST, "/clients", r#"{"name":"acme"}"#).await;
    let Some(client) = client else { return false };
    assert!([201, 409].contains(&client.status), "{client:?}");
    for revoke in [false, true] {
        let new = gateway.control(Method::POST, "/keys", r#"{"client":"acme"}"#).await;
        let Some(new) = new else { return false };
        assert_eq!(new.status, 201, "{new:?}");
        let made = Made::of(&new.json());
        if revoke {
            let path = format!("/keys/{}/revoke", made.id);
            let Some(gone) = gateway.control(Method::POST, &path, "").await else {
                return false;
            };
            assert_eq!(gone.status, 200, "{gone:?}");
            known.revoked.push(made);
        } else {
            known.keys.push((made, 0, 0));
        }
    }
    let (made, answered, issued) = known.keys.last_mut().expect("made");
    for _ in 0..REQUESTS {
        *issued += 1;
        let Some(answer) = gateway.http().decided(&made.key).await else { return false };
        assert_eq!(answer.status, 200, "{}", answer.body);
        *answered += 1;
    }
    gateway.terminate_or_die().await
}

/// The next start needs no help; every counter obeys the law, and every revocation holds.
async fn the_law_holds(gateway: &mut Gateway, known: &Known, db: Option<&Database>, point: &str) {
    gateway.start().await;
    if db.is_some() {
        gateway.is_well().await;
        gateway.drain().await;
    }
    for made in &known.revoked {
        let (status, code) = gateway.http().verdict(&made.key).await;
        assert_eq!((status, code.as_str()), (401, "key_revoked"), "{point}");
    }
    let usage = gateway.run(&["usage", "--period", "all"]).await.json();
    let rows = usage.as_array().expect("a list");
    let client = rows.iter().find(|row| row["client"] == "acme");
    let found = client.map_or(0, |row| row["sum"]["succeeded"].as_u64().expect("a number"));
    let used = client.and_then(|row| row["quotas"][0]["used"].as_u64()).unwrap_or(0);
    let answered: u64 = known.keys.iter().map(|key| key.1).sum();
    let issued: u64 = known.keys.iter().map(|key| key.2).sum();
    for (lane, found) in [("usage", found), ("quota", used)] {
        let law = format!("{lane}: {answered} ≤ {found} ≤ {issued}; {point}");
        assert!(answered <= found && found <= issued, "{law}");
    }
    let set_aside = gateway.run(&["log", "status"]).await.json()["quarantined"].clone();
    let said = gateway.said();
    assert_eq!(set_aside, serde_json::json!([]), "nothing is damaged: {point}\n{said}");
    gateway.terminate().await;
}

fn gateway(db: Option<&Database>) -> Gateway {
    let settings = "[journal]\ncommit = \"before_reply\"\nsegment_max_bytes = \"1KiB\"\n\
         retention = \"0s\"\nballast = \"64KiB\"\n[[policies]]\nname = \"default\"\n\
         quotas = [{ name = \"yearly\", limit = 100000, period = \"year\" }]\n\
         [drain]\ninterval = \"10ms\"\n[postgres]\npoll_interval = \"100ms\"\n";
    let settings = if db.is_some() { settings } else { settings.split("[drain]").next().unwrap() };
    Gateway::new(db.map(|db| db.url.as_str()), settings)
}

async fn killed_anywhere(attached: bool) {
    let dice = Dice::new();
    let kills = if long() { 3 } else { 1 };
    // One undisturbed life says how many points there are.
    let db = if attached { Some(Database::new().await) } else { None };
    let mut whole = gateway(db.as_ref());
    let Some(shim) = Shim::below(whole.dir()) else { return };
    whole.shim = Some(shim.recording());
    let before = Tree::of(whole.dir());
    let mut known = Known::default();
    assert!(live(&mut whole, &mut known).await, "{}", whole.said());
    let record = Record::read(before, &whole.shim.take().expect("a shim").record());
    the_law_holds(&mut whole, &known, db.as_ref(), "undisturbed").await;
    let points = u32::try_from(record.len()).expect("few");
    let chosen: Vec<u32> = if long() {
        (1..=points).collect()
    } else {
        (0..SAMPLE).map(|at| points * at / SAMPLE + dice.below(points / SAMPLE) + 1).collect()
    };
    for point in chosen {
        let db = if attached { Some(Database::new().await) } else { None };
        let mut gateway = gateway(db.as_ref());
        let mut known = Known::default();
        let mut points = Vec::new();
        for kill in 0..kills {
            // The second and third come early: they hit the start on what the first one left.
            let at = if kill == 0 { point } else { dice.below(60) + 1 };
            let after = dice.one_in(2);
            points.push(format!("call {at}, {}", if after { "after" } else { "before" }));
            let shim = Shim::below(gateway.dir()).expect("there was one");
            gateway.shim = Some(shim.killing_at(at as usize, after));
            if live(&mut gateway, &mut known).await {
                points.push("not reached".into());
            }
            gateway.bury();
        }
        gateway.shim = None;
        the_law_holds(&mut gateway, &known, db.as_ref(), &points.join("; ")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_an_embedded_gateway_starts_and_has_what_it_said() {
    killed_anywhere(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_an_attached_gateway_starts_and_counts_once() {
    killed_anywhere(true).await;
}
