//! Segments whose directory is missing altogether are noticed, and no others.

use super::*;

fn at_once() -> Config {
    Config { interval: Span::secs(3600), retention: Span::secs(0), ..Config::default() }
}

/// One life that leaves a segment of counts, closed.
async fn leave(data: &TempDir) -> Uuid {
    let (journal, _) = open(data, at_once());
    journal.count(journal.reserve().expect("room"), counter(1), ONE);
    journal.flush().durable().await.expect("a working disk");
    journal.shutdown().expect("a working disk");
    journal.segments(Lane::Usage).last().expect("it wrote one").stream
}

fn dir(data: &TempDir, stream: Uuid) -> PathBuf {
    data.path().join("journal/usage").join(stream.to_string())
}

fn manifest(data: &TempDir) -> PathBuf {
    data.path().join("journal/manifest")
}

fn aside(journal: &Journal) -> Vec<(Option<Uuid>, String)> {
    journal.quarantined().into_iter().map(|report| (report.stream, report.reason)).collect()
}

#[tokio::test]
async fn a_segment_that_is_gone_as_a_whole_is_reported_once_and_stays_reported() {
    let data = TempDir::new().expect("temporary directory");
    let (gone, stays) = (leave(&data).await, leave(&data).await);
    fs::remove_dir_all(dir(&data, gone)).expect("writable");
    for _ in 0..2 {
        let (journal, _) = open(&data, at_once());
        let why = "the segment's directory is not there any more".to_owned();
        assert_eq!(aside(&journal), [(Some(gone), why)]);
        assert_eq!(journal.segments(Lane::Usage)[0].stream, stays);
        let place = journal.find(&gone.to_string()).expect("it is listed");
        let survey = journal.survey(&place, &mut |_| panic!("there is nothing of it"));
        assert!(survey.error.is_some(), "{survey:?}");
        journal.shutdown().expect("a working disk");
    }
}

#[tokio::test]
async fn a_lane_that_is_gone_is_reported_segment_by_segment() {
    let data = TempDir::new().expect("temporary directory");
    let mut streams = [leave(&data).await, leave(&data).await];
    fs::remove_dir_all(data.path().join("journal/usage")).expect("writable");
    let (journal, _) = open(&data, at_once());
    let mut told: Vec<_> = aside(&journal).into_iter().filter_map(|(stream, _)| stream).collect();
    told.sort_unstable();
    streams.sort_unstable();
    assert_eq!(told, streams);
}

#[tokio::test]
async fn what_was_settled_and_removed_is_not_missed() {
    let data = TempDir::new().expect("temporary directory");
    leave(&data).await;
    let (journal, _) = open(&data, at_once());
    journal.examine(&|| false);
    journal.segments(Lane::Usage).iter().for_each(|s| s.set_applied(s.durable_seq()));
    journal.reclaim(&|segment| segment.is_finished(), &mut |_| {});
    assert!(journal.segments(Lane::Usage).is_empty());
    // A kill: nothing more is written.
    let (journal, _) = open(&data, at_once());
    assert_eq!(aside(&journal), []);
}

#[tokio::test]
async fn what_was_merged_is_not_missed_wherever_a_kill_came() {
    let data = TempDir::new().expect("temporary directory");
    for _ in 0..5 {
        leave(&data).await;
    }
    let before = fs::read(manifest(&data)).expect("it is there");
    let (journal, _) = open(&data, at_once());
    assert!(journal.merge(Scope::All(None), &|| false).expect("a working disk"));
    assert!(journal.segments(Lane::Usage).len() < 5);
    journal.shutdown().expect("a working disk");
    assert_eq!(aside(&open(&data, at_once()).0), []);
    // It came before the merge was listed.
    fs::write(manifest(&data), before).expect("writable");
    assert_eq!(aside(&open(&data, at_once()).0), []);
}

#[tokio::test]
async fn what_was_set_aside_is_not_missed() {
    let data = TempDir::new().expect("temporary directory");
    let stream = leave(&data).await;
    let listed = fs::read(manifest(&data)).expect("it is there");
    fs::remove_file(dir(&data, stream).join("db")).expect("writable");
    let (journal, _) = open(&data, at_once());
    journal.examine(&|| false);
    assert_eq!(aside(&journal).len(), 1);
    journal.shutdown().expect("a working disk");
    // A kill came before that was listed.
    fs::write(manifest(&data), listed).expect("writable");
    assert_eq!(aside(&open(&data, at_once()).0).len(), 1);
}

/// An earlier version of the program ran in between: it lists nothing, and remembers what it
/// removes.
#[tokio::test]
async fn what_is_remembered_as_removed_is_not_missed() {
    let data = TempDir::new().expect("temporary directory");
    leave(&data).await;
    let listed = fs::read(manifest(&data)).expect("it is there");
    let (journal, _) = open(&data, at_once());
    journal.attach().expect("a working disk");
    journal.examine(&|| false);
    journal.segments(Lane::Usage).iter().for_each(|s| s.set_applied(s.durable_seq()));
    journal.reclaim(&|segment| segment.is_finished(), &mut |removed| {
        journal.remember(removed.iter()).expect("writable");
    });
    journal.shutdown().expect("a working disk");
    fs::write(manifest(&data), listed).expect("writable");
    assert_eq!(aside(&open(&data, at_once()).0), []);
}

#[tokio::test]
async fn what_cannot_be_reported_stays_on_the_list() {
    let data = TempDir::new().expect("temporary directory");
    let gone = leave(&data).await;
    fs::remove_dir_all(dir(&data, gone)).expect("writable");
    let quarantine = data.path().join("quarantine");
    fs::write(&quarantine, "in its place").expect("writable");
    for _ in 0..2 {
        let (journal, _) = open(&data, at_once());
        assert_eq!(aside(&journal), []);
        journal.shutdown().expect("a working disk");
    }
    fs::remove_file(&quarantine).expect("writable");
    let (journal, _) = open(&data, at_once());
    assert_eq!(
        aside(&journal).into_iter().map(|(stream, _)| stream).collect::<Vec<_>>(),
        [Some(gone)]
    );
}

#[tokio::test]
async fn without_a_list_nothing_is_missed() {
    let data = TempDir::new().expect("temporary directory");
    let stream = leave(&data).await;
    fs::remove_dir_all(dir(&data, stream)).expect("writable");
    fs::remove_file(manifest(&data)).expect("as an earlier version left it");
    assert_eq!(aside(&open(&data, at_once()).0), []);
    assert!(manifest(&data).exists());
}
