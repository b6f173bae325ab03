//! Segments of earlier processes are read by a child of the real program: what it may break, and
//! what it must not.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use axum::http::Method;
use gatepost::journal::{End, Missing, Reader};
use gatepost::model::Timestamp;
use gatepost::model::fact::Lane;
use tempfile::TempDir;

use crate::support::gateway::{Gateway, until};
use crate::support::journal::{PROGRAM, counted, left, move_to, open, real, segment_dir};
use crate::support::postgres::{id, revoked};

/// A program in place of the child. Not written by this process: another thread may just fork, and
/// what is open for writing cannot be run.
fn script(dir: &TempDir, body: &str) -> PathBuf {
    let path = dir.path().join("child.sh");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg("cat > \"$1\" && chmod 700 \"$1\"").arg("sh").arg(&path);
    let mut shell = shell.stdin(Stdio::piped()).spawn().unwrap();
    let text = format!("#!/bin/sh\n{body}\n");
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
    path
}

/// What a gateway asks a child: the frames of a segment up to `to`.
fn request(dir: &Path, to: u64) -> Vec<u8> {
    let path = dir.to_str().unwrap().as_bytes();
    let length = (path.len() as u32).to_be_bytes();
    [&0_u64.to_be_bytes()[..], &to.to_be_bytes(), &length, path].concat()
}

#[tokio::test]
async fn everything_comes_through_the_child_in_order() {
    let data = left(2000, 3000).await;
    let (journal, state) = open(data.path(), real()).unwrap();
    let expected: Vec<_> = (0..2000).map(|n| revoked(id(n), Timestamp::NEG_INFINITY)).collect();
    assert_eq!(state, expected);
    journal.examine(&|| false);
    assert_eq!(counted(&journal), 3000);
    // By pages that differ in size, and from the middle.
    let segment = journal.segments(Lane::Usage).remove(0);
    let (mut after, mut chunks) = (0, Vec::new());
    for limit in (1..).map(|n| n % 7 + 1) {
        let page = segment.read(after, limit).unwrap();
        chunks.extend(page.chunks);
        after = page.reached;
        if after >= segment.durable_seq() {
            break;
        }
    }
    let seqs: Vec<u64> = chunks.iter().map(|chunk| chunk.seq).collect();
    assert_eq!(seqs, (1..=segment.durable_seq()).collect::<Vec<_>>());
    let middle = segment.durable_seq() / 2;
    let page = segment.read(middle, usize::MAX).unwrap();
    assert_eq!(page.chunks, chunks[usize::try_from(middle).unwrap()..]);
    journal.shutdown().unwrap();
}

/// Schedule 9. The gateway is gone, its child is not yet: the next one waits, and loses nothing.
#[tokio::test]
async fn the_next_start_waits_for_the_child_of_a_gateway_that_was_killed() {
    // More than the pipe and all buffers hold: a child that nobody listens to stays in the middle.
    let left = left(8000, 1).await;
    let mut gateway = Gateway::new(None, "");
    move_to(left, &gateway.data_dir());
    let dir = segment_dir(&gateway.data_dir(), Lane::State);
    let mut child = Command::new(PROGRAM);
    child.arg("segment-frames").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&request(&dir, u64::MAX)).unwrap();
    let mut first = [0; 16];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert!(fs::File::open(dir.join("db")).unwrap().try_lock().is_err(), "it has the segment open");

    let (ended, data) = (AtomicBool::new(false), gateway.data_dir());
    fs::remove_dir(data.join("journal/events")).unwrap();
    let next = async {
        gateway.start().await;
        assert!(ended.load(SeqCst), "it started without the segment");
    };
    let end = async {
        until("the next one has begun", || async { data.join("journal/events").exists() }).await;
        // Time enough for a gateway that does not wait.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(child.try_wait().unwrap().is_none(), "it lives as long as its stdin is open");
        ended.store(true, SeqCst);
        // What the kernel does when the gateway is killed.
        drop(child.stdin.take());
        until("it ends by itself", || {
            let ended = child.try_wait().unwrap().is_some();
            async move { ended }
        })
        .await;
    };
    tokio::join!(next, end);
    let status = gateway.control(Method::GET, "/log", "").await.unwrap().json();
    assert_eq!(status["lanes"][0]["unsettled_facts"], 8000, "{status}");
    assert_eq!(status["quarantined"], serde_json::json!([]));
    gateway.terminate().await;
}

#[tokio::test]
async fn a_segment_whose_child_crashes_twice_is_set_aside_and_the_gateway_starts() {
    let (data, programs) = (left(0, 3000).await, TempDir::new().unwrap());
    let end = End::read(&segment_dir(data.path(), Lane::Usage)).unwrap().unwrap();
    let aborting =
        script(&programs, "printf GPF1; head -c 1 > /dev/null; echo broken >&2; kill -ABRT $$");
    let (journal, _) = open(data.path(), Reader::child(&aborting)).unwrap();
    journal.examine(&|| false);
    assert!(journal.segments(Lane::Usage).is_empty());
    let [report] = journal.quarantined().try_into().unwrap();
    assert!(report.reason.contains("SIGABRT") && report.reason.contains("broken"), "{report:?}");
    // Closed: what is missing is known exactly.
    let expected = Missing { chunks: end.last_seq, facts: 3000, exact: true };
    assert_eq!(report.missing, expected);
    assert!(data.path().join("quarantine").join(&report.name).join("db").exists());
    journal.shutdown().unwrap();
}

#[tokio::test]
async fn a_child_that_says_nothing_is_ended() {
    let (data, programs) = (left(0, 10).await, TempDir::new().unwrap());
    let program = script(&programs, "printf GPF1; exec sleep 1000");
    let silent = Reader::patient_child(&program, Duration::from_millis(200));
    let (journal, _) = open(data.path(), silent).unwrap();
    journal.examine(&|| false);
    let [report] = journal.quarantined().try_into().unwrap();
    assert!(report.reason.contains("silent"), "{report:?}");
    journal.shutdown().unwrap();
}

/// A slow disk, a hung mount: silence that is not the segment's.
#[tokio::test]
async fn a_child_that_waits_for_its_disk_is_waited_for() {
    let (data, programs) = (left(0, 3000).await, TempDir::new().unwrap());
    let waits = programs.path().join("waits");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/shim/waits.c");
    let made = Command::new("cc").arg("-o").arg(&waits).arg(source).status();
    if !cfg!(target_os = "linux") || !made.is_ok_and(|made| made.success()) {
        return;
    }
    // What the real one says, held back.
    let answer = programs.path().join("answer");
    let mut child = Command::new(PROGRAM);
    child.arg("segment-frames").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let dir = segment_dir(data.path(), Lane::Usage);
    let end = End::read(&dir).unwrap().unwrap();
    child.stdin.as_mut().unwrap().write_all(&request(&dir, end.last_seq)).unwrap();
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !said.ends_with(b"\0\0\0\0\0\0\0\0\0\0\0\x01c") {
        child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
        said.extend(byte);
    }
    // It ends when nobody can ask any more.
    drop(child.stdin.take());
    child.wait().unwrap();
    fs::write(&answer, said.strip_prefix(b"GPF1").unwrap()).unwrap();
    let body = format!("printf GPF1; exec {} cat {}", waits.display(), answer.display());
    let reader = Reader::patient_child(&script(&programs, &body), Duration::from_secs(2));
    let (journal, _) = open(data.path(), reader).unwrap();
    journal.examine(&|| false);
    assert!(journal.quarantined().is_empty(), "{:?}", journal.quarantined());
    assert_eq!(journal.segments(Lane::Usage)[0].missing().chunks, 0);
    assert_eq!(journal.segments(Lane::Usage)[0].facts(), 3000);
    journal.shutdown().unwrap();
}

#[tokio::test]
async fn a_crash_of_the_child_alone_is_no_damage() {
    let (data, programs) = (left(0, 30_000).await, TempDir::new().unwrap());
    // The first one breaks off in the middle of a frame, as one that the system killed.
    let once = format!(
        "mark=$(dirname \"$0\")/mark\nif [ -e $mark ]; then exec {PROGRAM} \"$@\"; fi\n\
         touch $mark; {PROGRAM} \"$@\" | dd bs=1 count=20000"
    );
    let (journal, _) = open(data.path(), Reader::child(&script(&programs, &once))).unwrap();
    journal.examine(&|| false);
    assert_eq!(journal.segments(Lane::Usage)[0].missing().chunks, 0);
    assert_eq!(counted(&journal), 30_000);
    assert!(journal.quarantined().is_empty());
    journal.shutdown().unwrap();
}

#[tokio::test]
async fn that_no_child_can_be_started_is_no_damage() {
    let (data, programs) = (left(1, 10).await, TempDir::new().unwrap());
    let program = script(&programs, "echo no memory >&2; exit 1");
    let error = open(data.path(), Reader::child(&program)).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("cannot be started") && error.contains("no memory"), "{error}");
    let (journal, state) = open(data.path(), real()).unwrap();
    assert_eq!((state.len(), counted(&journal)), (1, 10));
    assert!(journal.quarantined().is_empty());
    journal.shutdown().unwrap();
}

/// A revocation must not end with its segment: what can be read is logged again.
#[tokio::test]
async fn state_facts_of_a_damaged_segment_are_kept() {
    let (data, programs) = (left(2000, 0).await, TempDir::new().unwrap());
    let torn = script(&programs, &format!("{PROGRAM} \"$@\" | dd bs=1 count=6000"));
    let (journal, state) = open(data.path(), Reader::child(&torn)).unwrap();
    assert_eq!(state.len(), 2000, "what the child did not send still stands in the file");
    assert_eq!(journal.quarantined().len(), 1);
    journal.shutdown().unwrap();
    let (journal, again) = open(data.path(), real()).unwrap();
    assert_eq!(again, state, "also in force after the next start");
    journal.shutdown().unwrap();
}

fn go_on() -> std::ops::ControlFlow<()> {
    std::ops::ControlFlow::Continue(())
}

/// sled says nothing when it drops what it cannot read, and nobody wrote where this one ends.
#[tokio::test]
async fn what_sled_drops_in_silence_is_reported_and_stays_in_force() {
    let data = left(50, 3000).await;
    for lane in [Lane::State, Lane::Usage] {
        let dir = segment_dir(data.path(), lane);
        fs::remove_file(dir.join("end")).unwrap_or_default();
        let mut bytes = fs::read(dir.join("db")).unwrap();
        bytes[300..303].iter_mut().for_each(|byte| *byte ^= 0xff);
        fs::write(dir.join("db"), bytes).unwrap();
    }
    let (journal, state) = open(data.path(), real()).unwrap();
    journal.examine(&|| false);
    assert_eq!(state.len(), 50);
    assert_eq!(journal.quarantined().len(), 1, "the state segment, its facts logged again");
    let missing = journal.segments(Lane::Usage)[0].missing();
    assert_eq!((missing.facts + counted(&journal), missing.exact), (3000, false));
    journal.shutdown().unwrap();
    let (journal, again) = open(data.path(), real()).unwrap();
    assert_eq!(again, state);
    journal.shutdown().unwrap();
}

#[tokio::test]
async fn a_segment_without_its_file_is_damaged() {
    let data = left(1, 10).await;
    for lane in [Lane::State, Lane::Usage] {
        fs::remove_file(segment_dir(data.path(), lane).join("db")).unwrap();
    }
    let (journal, state) = open(data.path(), real()).unwrap();
    journal.examine(&|| false);
    assert_eq!((state.len(), journal.quarantined().len()), (0, 2));
    let places = journal.places();
    let surveys = places.iter().map(|place| journal.survey(place, &mut |_| go_on()));
    assert_eq!(surveys.filter(|survey| survey.error.is_some()).count(), 2, "verify sees them");
    journal.shutdown().unwrap();
}

/// Real damage, real program: it starts, says what is missing, and counts on.
#[tokio::test]
async fn a_gateway_with_garbage_in_a_segment_starts_and_reports_it() {
    let left = left(0, 3000).await;
    let mut gateway = Gateway::new(None, "");
    move_to(left, &gateway.data_dir());
    let db = segment_dir(&gateway.data_dir(), Lane::Usage).join("db");
    let garbage: Vec<u8> = (0..fs::metadata(&db).unwrap().len()).map(|n| (n * 31) as u8).collect();
    fs::write(&db, garbage).unwrap();
    gateway.start().await;
    let status = || async { gateway.control(Method::GET, "/log", "").await.unwrap().json() };
    until("it has looked through its segments", || async {
        let status = status().await;
        status["quarantined"][0]["missing"]["facts"] == 3000
            || status["lanes"][2]["missing"]["facts"] == 3000
    })
    .await;
    gateway.terminate().await;
}
