//! SIGKILL before or right after the Nth call that changes the data directory, the start included:
//! the next start needs no help, and what was answered is counted once.
//!
//! A sample of the points in a normal run; with `GATEPOST_LONG=1` every one, and three kills in a
//! row. Of a merge of the backlog, and what comes after it, the points are counted from its
//! beginning. `GATEPOST_SEED` repeats the choice of points.

use std::time::Duration;

use axum::http::Method;

use crate::support::database::Database;
use crate::support::dice::{Dice, long};
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::gateway::{Gateway, Made};
use crate::support::image::{Record, Tree};
use crate::support::shim::Shim;

const SAMPLE: u32 = 8;
const SAMPLE_MERGING: u32 = 4;
/// With `--long`: a life until something is merged takes seconds.
const LONG_SAMPLE_MERGING: u32 = 24;
const REQUESTS: usize = 12;
/// Enough for several segments that nothing was sent of.
const REQUESTS_MERGING: usize = 36;
/// Only what hangs waits longer for a merge.
const LOOKS_MAX: usize = 3000;

/// Postgres, and the way to it.
struct Linked {
    db: Database,
    way: FaultProxy,
}

impl Linked {
    async fn new() -> Self {
        let db = Database::new().await;
        let way = FaultProxy::new(&db.url);
        Self { db, way }
    }
}

/// What its lives go through.
#[derive(Clone, Copy)]
struct Scene {
    attached: bool,
    /// Postgres goes away before the requests, and each life goes on until usage was merged.
    merging: bool,
}

/// What its callers know of one data directory, over all its lives.
#[derive(Default)]
struct Known {
    keys: Vec<(Made, u64, u64)>,
    revoked: Vec<Made>,
}

/// The scenario: a start, state facts, requests that fill more than one segment, maybe a merge of
/// them, an end. Whoever is killed on the way answers no more, and that ends it. Returns whether it
/// came to its end.
async fn live(
    gateway: &mut Gateway,
    known: &mut Known,
    linked: Option<&Linked>,
    merging: bool,
) -> bool {
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
    if let Some(linked) = linked.filter(|_| merging) {
        linked.way.set(Fault::Cut);
    }
    let (made, answered, issued) = known.keys.last_mut().expect("made");
    for _ in 0..if merging { REQUESTS_MERGING } else { REQUESTS } {
        *issued += 1;
        let Some(answer) = gateway.http().decided(&made.key).await else { return false };
        assert_eq!(answer.status, 200, "{}", answer.body);
        *answered += 1;
    }
    if merging && !is_merged(gateway).await {
        return false;
    }
    gateway.terminate_or_die().await
}

/// Waits until usage was merged; whether it lived to say so.
async fn is_merged(gateway: &Gateway) -> bool {
    for _ in 0..LOOKS_MAX {
        match gateway.merged("usage").await {
            None => return false,
            Some(0) => tokio::time::sleep(Duration::from_millis(20)).await,
            Some(_) => return true,
        }
    }
    panic!("nothing is merged: {}", gateway.said());
}

/// The next start needs no help; every counter obeys the law, and every revocation holds.
async fn the_law_holds(gateway: &mut Gateway, known: &Known, linked: Option<&Linked>, point: &str) {
    if let Some(linked) = linked {
        linked.way.set(Fault::None);
    }
    gateway.start().await;
    if linked.is_some() {
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

fn gateway(linked: Option<&Linked>, merging: bool) -> Gateway {
    let segment = if merging { "256B" } else { "1KiB" };
    let settings = format!(
        "[journal]\ncommit = \"before_reply\"\nsegment_max_bytes = \"{segment}\"\n\
         retention = \"0s\"\nballast = \"64KiB\"\n[[policies]]\nname = \"default\"\n\
         quotas = [{{ name = \"yearly\", limit = 100000, period = \"year\" }}]\n"
    );
    let attached = "[drain]\ninterval = \"10ms\"\n[postgres]\npoll_interval = \"100ms\"\n";
    match linked {
        None => Gateway::new(None, &settings),
        Some(linked) => Gateway::new(Some(&linked.way.url(&linked.db.url)), &(settings + attached)),
    }
}

async fn killed_anywhere(scene: Scene) {
    let Scene { attached, merging } = scene;
    let dice = Dice::new();
    let kills = if long() { 3 } else { 1 };
    // One undisturbed life says how many points there are.
    let linked = if attached { Some(Linked::new().await) } else { None };
    let mut whole = gateway(linked.as_ref(), merging);
    let Some(shim) = Shim::below(whole.dir()) else { return };
    whole.shim = Some(shim.recording());
    let before = Tree::of(whole.dir());
    let mut known = Known::default();
    assert!(live(&mut whole, &mut known, linked.as_ref(), merging).await, "{}", whole.said());
    let record = Record::read(before, &whole.shim.take().expect("a shim").record());
    the_law_holds(&mut whole, &known, linked.as_ref(), "undisturbed").await;
    let points = match merging {
        true => record.counted_from(record.merging().expect("a merge")),
        false => record.len(),
    };
    let points = u32::try_from(points).expect("few");
    let sample = match (merging, long()) {
        (true, true) => LONG_SAMPLE_MERGING,
        (true, false) => SAMPLE_MERGING,
        _ => SAMPLE,
    };
    let chosen: Vec<u32> = if long() && !merging {
        (1..=points).collect()
    } else {
        (0..sample).map(|at| points * at / sample + dice.below(points / sample) + 1).collect()
    };
    let mut reached = 0;
    for point in chosen {
        let linked = if attached { Some(Linked::new().await) } else { None };
        let mut gateway = gateway(linked.as_ref(), merging);
        let mut known = Known::default();
        let mut points = Vec::new();
        for kill in 0..kills {
            // The second and third come early: they hit the start on what the first one left.
            let at = if kill == 0 { point } else { dice.below(60) + 1 };
            let after = dice.one_in(2);
            points.push(format!("call {at}, {}", if after { "after" } else { "before" }));
            let shim = Shim::below(gateway.dir()).expect("there was one");
            let shim = if merging && kill == 0 { shim.since("/sources") } else { shim };
            gateway.shim = Some(shim.killing_at(at as usize, after));
            if let Some(linked) = &linked {
                linked.way.set(Fault::None);
            }
            if live(&mut gateway, &mut known, linked.as_ref(), merging).await {
                points.push("not reached".into());
            } else {
                reached += 1;
            }
            gateway.bury();
        }
        gateway.shim = None;
        the_law_holds(&mut gateway, &known, linked.as_ref(), &points.join("; ")).await;
    }
    assert!(reached > 0, "nothing was killed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_an_embedded_gateway_starts_and_has_what_it_said() {
    killed_anywhere(Scene { attached: false, merging: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_an_attached_gateway_starts_and_counts_once() {
    killed_anywhere(Scene { attached: true, merging: false }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_of_a_merge_an_embedded_gateway_has_what_it_said() {
    killed_anywhere(Scene { attached: false, merging: true }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_call_of_a_merge_with_postgres_away_it_counts_once() {
    killed_anywhere(Scene { attached: true, merging: true }).await;
}
