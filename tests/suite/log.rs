//! `gatepost log`: looking into the journal and its quarantine, and counting what was set aside
//! exactly once, through the real program.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use gatepost::codec::{self, Kind};
use gatepost::journal::{End, Reader};
use gatepost::model::Timestamp;
use gatepost::model::fact::Lane;
use serde_json::{Value, json};

use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::gateway::{Gateway, Ran, until};
use crate::support::journal::{copy_of, left, left_quotas, move_to, segment_dir};
use crate::support::postgres::revoked;

const USED: &str = "SELECT coalesce(sum(used), 0)::bigint FROM gatepost.quota_usage";
const TOTAL: &str =
    "SELECT coalesce(sum(total_requests), 0)::bigint FROM gatepost.client_statistics";
/// Settled segments go at once.
const NO_RETENTION: &str = "[journal]\nretention = \"0s\"\n[drain]\ninterval = \"20ms\"\n";

async fn replay(gateway: &Gateway, path: &Path) -> Ran {
    gateway.run(&["log", "replay", path.to_str().unwrap()]).await
}

async fn status(gateway: &Gateway) -> Value {
    gateway.run(&["log", "status"]).await.json()
}

/// Waits until nothing of the usage lane is left to settle, and no segment of it either.
async fn settled(gateway: &Gateway) {
    until("settled", || async { status(gateway).await["lanes"][2]["segments"] == 0 }).await;
}

fn lines(ran: &Ran) -> Vec<Value> {
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_in_quarantine_is_looked_at_mended_and_counted_once() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(Some(&db.url), NO_RETENTION);
    move_to(left(0, 3000).await, &gateway.data_dir());
    let dir = segment_dir(&gateway.data_dir(), Lane::Usage);
    let stream = dir.file_name().unwrap().to_str().unwrap().to_owned();
    let (_kept, whole) = copy_of(&dir);
    fs::write(dir.join("db"), vec![7; 4096]).unwrap();

    gateway.start_ready().await;
    until("set aside", || async { status(&gateway).await["quarantined"][0].is_object() }).await;
    let report = status(&gateway).await["quarantined"][0].clone();
    assert_eq!(report["stream"], stream.as_str());
    assert_eq!(report["missing"]["facts"], 3000);
    assert_eq!(report["missing"]["exact"], true);
    let aside = gateway.data_dir().join("quarantine").join(format!("usage-{stream}"));
    let before = fs::read(aside.join("db")).unwrap();
    let verified = gateway.run(&["log", "verify"]).await;
    assert_eq!(verified.code, Some(1), "{verified:?}");
    let refused = replay(&gateway, &aside).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(fs::read(aside.join("db")).unwrap() == before, "looking changes nothing");

    // The disk is mended, or its files come from a backup.
    fs::remove_dir_all(&aside).unwrap();
    fs::create_dir(&aside).unwrap();
    gatepost::disk::copy_dir(&whole, &aside).unwrap();
    let facts = lines(&gateway.run(&["log", "inspect", &stream]).await);
    assert_eq!(facts.len(), 3000);
    assert_eq!(facts.iter().map(|fact| fact["requests"].as_u64().unwrap()).sum::<u64>(), 3000);
    assert_eq!(db.number(TOTAL).await, 0);
    let done = gateway.run(&["log", "replay", &stream]).await.json();
    assert_eq!((&done["outcome"], &done["facts"]), (&json!("replayed"), &json!(3000)), "{done}");
    settled(&gateway).await;
    assert_eq!(db.number(TOTAL).await, 3000);
    assert_eq!(status(&gateway).await["quarantined"], json!([]));

    // Again, from where it is kept now: Postgres has it.
    let replayed = gateway.data_dir().join("quarantine").join(format!("replayed-usage-{stream}"));
    let again = replay(&gateway, &replayed).await.json();
    assert_eq!(again["outcome"], "nothing_to_replay", "{again}");
    assert_eq!(db.number(TOTAL).await, 3000);
    let verified = gateway.run(&["log", "verify"]).await.json();
    assert_eq!((&verified["ok"], &verified["ledger"]), (&json!(true), &json!("compared")));
    gateway.terminate().await;
}

/// A quota's sums are replayed like those of usage: once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_segment_in_quarantine_is_replayed_and_counted_once() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(Some(&db.url), NO_RETENTION);
    move_to(left_quotas(300).await, &gateway.data_dir());
    let dir = segment_dir(&gateway.data_dir(), Lane::Quota);
    let stream = dir.file_name().unwrap().to_str().unwrap().to_owned();
    let (_kept, whole) = copy_of(&dir);
    fs::write(dir.join("db"), vec![7; 4096]).unwrap();
    gateway.start_ready().await;
    until("set aside", || async { status(&gateway).await["quarantined"][0].is_object() }).await;
    let report = status(&gateway).await["quarantined"][0].clone();
    assert_eq!((&report["lane"], &report["stream"]), (&json!("quota"), &json!(stream)));
    assert_eq!(report["missing"]["facts"], 300);
    let verified = gateway.run(&["log", "verify"]).await;
    assert_eq!(verified.code, Some(1), "{verified:?}");

    let aside = gateway.data_dir().join("quarantine").join(format!("quota-{stream}"));
    fs::remove_dir_all(&aside).unwrap();
    fs::create_dir(&aside).unwrap();
    gatepost::disk::copy_dir(&whole, &aside).unwrap();
    let facts = lines(&gateway.run(&["log", "inspect", &stream]).await);
    assert_eq!(facts.iter().map(|fact| fact["used"].as_u64().unwrap()).sum::<u64>(), 600);
    let done = gateway.run(&["log", "replay", &stream]).await.json();
    assert_eq!((&done["outcome"], &done["facts"]), (&json!("replayed"), &json!(300)), "{done}");
    gateway.drain().await;
    assert_eq!(db.number(USED).await, 600);
    let replayed = gateway.data_dir().join("quarantine").join(format!("replayed-quota-{stream}"));
    let again = replay(&gateway, &replayed).await.json();
    assert_eq!(again["outcome"], "nothing_to_replay", "{again}");
    gateway.drain().await;
    assert_eq!(db.number(USED).await, 600);
    let verified = gateway.run(&["log", "verify"]).await.json();
    assert_eq!((&verified["ok"], &verified["ledger"]), (&json!(true), &json!("compared")));
    gateway.terminate().await;
}

/// The first copy and the next one are damaged: each stands by itself, and the one that can be
/// mended is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_copies_of_a_stream_in_quarantine_are_told_apart() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(Some(&db.url), NO_RETENTION);
    move_to(left(0, 500).await, &gateway.data_dir());
    let dir = segment_dir(&gateway.data_dir(), Lane::Usage);
    let stream = dir.file_name().unwrap().to_str().unwrap().to_owned();
    let (_kept, whole) = copy_of(&dir);
    let names = [format!("usage-{stream}"), format!("usage-2-{stream}")];
    for copies in 1..=2 {
        fs::write(dir.join("db"), vec![copies; 4096]).unwrap();
        gateway.start_ready().await;
        let last = usize::from(copies) - 1;
        until("set aside", || async {
            status(&gateway).await["quarantined"][last]["name"] == names[last].as_str()
        })
        .await;
        gateway.terminate().await;
        if copies == 1 {
            fs::create_dir(&dir).unwrap();
            gatepost::disk::copy_dir(&whole, &dir).unwrap();
        }
    }
    gateway.start_ready().await;
    for report in status(&gateway).await["quarantined"].as_array().unwrap() {
        assert_eq!((&report["lane"], &report["stream"]), (&json!("usage"), &json!(stream)));
        assert_eq!(report["missing"]["facts"], 500);
    }
    for command in ["inspect", "replay"] {
        let which = gateway.run(&["log", command, &stream]).await;
        assert_eq!(which.code, Some(1), "{which:?}");
        assert!(names.iter().all(|name| which.stderr.contains(name.as_str())), "{which:?}");
    }
    let verified = gateway.run(&["log", "verify"]).await;
    let streams: Value = serde_json::from_str(&verified.stdout).unwrap();
    let read = streams["streams"].as_array().unwrap().iter();
    let mut read: Vec<_> = read.filter_map(|row| row["name"].as_str()).collect();
    read.sort_unstable();
    assert_eq!(read, [names[0].as_str(), names[1].as_str()]);

    let aside = gateway.data_dir().join("quarantine").join(&names[1]);
    fs::remove_dir_all(&aside).unwrap();
    fs::create_dir(&aside).unwrap();
    gatepost::disk::copy_dir(&whole, &aside).unwrap();
    let none = gateway.run(&["log", "inspect", &names[0]]).await;
    assert!(none.stdout.is_empty() && none.stderr.contains("3 chunks are missing"), "{none:?}");
    assert_eq!(lines(&gateway.run(&["log", "inspect", &names[1]]).await).len(), 500);
    let done = gateway.run(&["log", "replay", &names[1]]).await.json();
    assert_eq!((&done["outcome"], &done["facts"]), (&json!("replayed"), &json!(500)), "{done}");
    settled(&gateway).await;
    assert_eq!(db.number(TOTAL).await, 500);
    assert_eq!(status(&gateway).await["quarantined"].as_array().unwrap().len(), 1);
    let replayed = gateway.data_dir().join("quarantine").join(format!("replayed-{}", names[1]));
    assert!(replayed.is_dir() && replayed.with_added_extension("json").is_file());
    gateway.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_stopped_reading_what_is_inspected_does_not_hold_up_the_end() {
    let mut gateway = Gateway::new(None, "");
    // Nothing else shall end it.
    let file = gateway.dir().join("gatepost.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(file, text.replace("[server]\n", "[server]\nshutdown_deadline = \"1h\"\n")).unwrap();
    // More than any buffer takes.
    move_to(left(0, 60_000).await, &gateway.data_dir());
    let stream = segment_dir(&gateway.data_dir(), Lane::Usage);
    let stream = stream.file_name().unwrap().to_str().unwrap().to_owned();
    gateway.start().await;
    let said = gateway.said();
    let (_, address) = said.split_once("control plane on http://").unwrap();
    let mut reader = TcpStream::connect(address.lines().next().unwrap()).unwrap();
    let token = fs::read_to_string(gateway.data_dir().join("admin-token")).unwrap();
    let ask = format!(
        "GET /admin/v1/log/facts?of={stream} HTTP/1.1\r\nHost: a\r\n\
         Authorization: Bearer {}\r\n\r\n",
        token.trim()
    );
    reader.write_all(ask.as_bytes()).unwrap();
    let mut begun = [0; 12];
    reader.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    // Until nothing more comes: all buffers on the way are full.
    let (mut waiting, mut known, mut same) = (vec![0; 32 << 20], 0, 0);
    while same < 50 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = reader.peek(&mut waiting).unwrap();
        same = if now == known { same + 1 } else { 0 };
        known = now;
    }
    gateway.terminate().await;
    let mut rest = Vec::new();
    // A reset is as good an end as any.
    drop(reader.read_to_end(&mut rest));
    assert!(!String::from_utf8_lossy(&rest).contains("{\"end\""), "it was not all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replayed_with_postgres_away_and_on_two_gateways_it_is_counted_once() {
    let db = Database::new().await;
    let line = FaultProxy::new(&db.url);
    let settings = format!("{NO_RETENTION}[postgres]\nconnect_timeout = \"300ms\"\n");
    let mut first = Gateway::new(Some(&line.url(&db.url)), &settings);
    let mut second = Gateway::new(Some(&line.url(&db.url)), &settings);
    let (original, mut away) = (left(0, 500).await, Gateway::new(None, ""));
    let (_kept, copy) = copy_of(&segment_dir(original.path(), Lane::Usage));
    first.start_ready().await;
    second.start_ready().await;
    line.set(Fault::Cut);
    for gateway in [&first, &second] {
        let done = replay(gateway, &copy).await.json();
        assert_eq!(done["outcome"], "replayed", "{done}");
    }
    line.set(Fault::None);
    settled(&first).await;
    settled(&second).await;
    assert_eq!(db.number(TOTAL).await, 500);
    // Once more, when all of it is settled and gone, and Postgres cannot be asked.
    line.set(Fault::Cut);
    let done = replay(&first, &copy).await.json();
    assert_eq!(done["outcome"], "replayed", "{done}");
    line.set(Fault::None);
    settled(&first).await;
    assert_eq!(db.number(TOTAL).await, 500);
    first.terminate().await;
    second.terminate().await;

    // Without a Postgres at all, by a command alone: it stays, and is refused from then on.
    let done = replay(&away, &copy).await.json();
    assert_eq!(done["outcome"], "replayed", "{done}");
    away.start().await;
    assert_eq!(replay(&away, &copy).await.code, Some(1));
    away.terminate().await;
}

#[tokio::test]
async fn a_copy_of_what_is_in_the_journal_is_refused() {
    let mut gateway = Gateway::new(None, "");
    move_to(left(0, 10).await, &gateway.data_dir());
    let (_kept, copy) = copy_of(&segment_dir(&gateway.data_dir(), Lane::Usage));
    gateway.start().await;
    let refused = replay(&gateway, &copy).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("is in the journal"), "{}", refused.stderr);
    assert_eq!(status(&gateway).await["lanes"][2]["segments"], 1);
    gateway.terminate().await;
}

#[tokio::test]
async fn sums_without_an_end_are_refused_and_what_is_no_segment_is_told() {
    let gateway = Gateway::new(None, "");
    let original = left(0, 10).await;
    let (kept, copy) = copy_of(&segment_dir(original.path(), Lane::Usage));
    for end in [None, Some(b"not a frame")] {
        fs::remove_file(copy.join("end")).unwrap_or_default();
        if let Some(end) = end {
            fs::write(copy.join("end"), end).unwrap();
        }
        let refused = replay(&gateway, &copy).await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("no readable `end`"), "{}", refused.stderr);
    }
    // Looking changes nothing: it may be the last evidence, and sled mends what it opens.
    let garbage = vec![7; 4096];
    fs::write(copy.join("db"), &garbage).unwrap();
    let inspected = gateway.run(&["log", "inspect", copy.to_str().unwrap()]).await;
    assert!(inspected.stdout.is_empty(), "{inspected:?}");
    assert!(fs::read(copy.join("db")).unwrap() == garbage);
    let refused = replay(&gateway, kept.path()).await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("nor the directory of a segment"), "{}", refused.stderr);
    let journal = gateway.data_dir().join("journal");
    assert_eq!(fs::read_dir(journal.join("usage")).unwrap().count(), 0);
    let names = fs::read_dir(journal).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    let alone = ["events", "manifest", "quota", "state", "usage"];
    assert_eq!(names, alone, "no copy is left behind");
}

/// Schedule 7, its last part: what lies beyond `end` was logged in another segment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_was_logged_again_elsewhere_is_not_replayed() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(Some(&db.url), NO_RETENTION);
    let original = left(0, 500).await;
    let (_kept, copy) = copy_of(&segment_dir(original.path(), Lane::Usage));
    gateway.start_ready().await;
    let inspected = gateway.run(&["log", "inspect", copy.to_str().unwrap()]).await;
    let first = lines(&inspected).into_iter().filter(|fact| fact["seq"] == 1).count();
    assert!((1..500).contains(&first), "{first}");
    // Its disk failed after the first chunk.
    let end = End { last_seq: 1, facts: first as u64, sealed: true };
    let end = codec::seal(Kind::End, 1, &end).unwrap();
    fs::write(copy.join("end"), end).unwrap();
    let inspected = gateway.run(&["log", "inspect", copy.to_str().unwrap()]).await;
    assert_eq!(lines(&inspected).len(), first);
    let done = replay(&gateway, &copy).await.json();
    assert_eq!((&done["outcome"], &done["facts"]), (&json!("replayed"), &json!(first)), "{done}");
    settled(&gateway).await;
    assert_eq!(db.number(TOTAL).await, first as i64);
    gateway.terminate().await;
}

#[tokio::test]
async fn replayed_revocations_are_in_force_at_once() {
    let mut gateway = Gateway::new(None, "");
    gateway.start().await;
    gateway.create_client("acme").await;
    let key = gateway.create_key("acme").await;
    assert_eq!(gateway.http().authorize(&key.key).await.unwrap().status, 200);
    let other = tempfile::TempDir::new().unwrap();
    let (journal, _) = crate::support::journal::open(other.path(), Reader::InProcess).unwrap();
    let at = Timestamp::NEG_INFINITY;
    let fact = revoked(key.id.parse().unwrap(), at);
    journal.append(vec![fact]).unwrap().durable().await.unwrap();
    journal.shutdown().unwrap();
    let (_kept, copy) = copy_of(&segment_dir(other.path(), Lane::State));
    // State facts may be repeated: here no `end` is needed.
    fs::remove_file(copy.join("end")).unwrap();
    assert_eq!(replay(&gateway, &copy).await.json()["outcome"], "replayed");
    assert_eq!(gateway.http().authorize(&key.key).await.unwrap().status, 401);
    gateway.kill9();
    gateway.start().await;
    assert_eq!(gateway.http().authorize(&key.key).await.unwrap().status, 401);
    gateway.terminate().await;
}

/// What is not there cannot speak for itself: the manifest does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_whose_directory_is_gone_is_missed_and_what_postgres_has_of_it_is_told() {
    let db = Database::new().await;
    let mut gateway = Gateway::new(Some(&db.url), "[drain]\ninterval = \"20ms\"\n");
    move_to(left(0, 3000).await, &gateway.data_dir());
    let settled = segment_dir(&gateway.data_dir(), Lane::Usage);
    gateway.start_ready().await;
    until("drained", || async { db.number(TOTAL).await == 3000 }).await;
    gateway.terminate().await;
    fs::remove_dir_all(&settled).unwrap();

    // All of it is in Postgres.
    gateway.start_ready().await;
    let report = status(&gateway).await["quarantined"][0].clone();
    assert_eq!(report["stream"], settled.file_name().unwrap().to_str().unwrap());
    assert_eq!(report["reason"], "the segment's directory is not there any more");
    let verified = gateway.run(&["log", "verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    gateway.terminate().await;

    // Of this one nothing is.
    let mut apart = Gateway::new(None, "");
    move_to(left(3000, 10).await, &apart.data_dir());
    let unsettled = segment_dir(&apart.data_dir(), Lane::Usage);
    apart.start_ready().await;
    apart.terminate().await;
    fs::remove_dir_all(&unsettled).unwrap();
    apart.start_ready().await;
    let verified = apart.run(&["log", "verify"]).await;
    assert_eq!(verified.code, Some(1), "{verified:?}");
    assert!(verified.stdout.contains("cannot be read to its end"), "{verified:?}");
    apart.terminate().await;
}
