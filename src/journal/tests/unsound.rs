//! Damage to what stands around the segments: each costs its own segment, and is told.

use super::*;

/// A closed segment of one counter in `data`, and one of so many revocations.
async fn made(data: &TempDir, revoked: usize) -> (PathBuf, PathBuf) {
    let (journal, _) = open(data, Config::default());
    journal.count(journal.reserve().expect("room"), counter(1), ONE);
    let facts = (0..revoked).map(|n| revocation(&n.to_string())).collect();
    journal.append(facts).expect("room").durable().await.expect("a working disk");
    journal.shutdown().expect("a working disk");
    let dir = |lane| journal.segments(lane)[0].dir().to_owned();
    (dir(Lane::Usage), dir(Lane::State))
}

#[tokio::test]
async fn an_emptied_segment_is_damage_and_not_one_that_was_never_made() {
    let data = TempDir::new().expect("temporary directory");
    let (usage, _) = made(&data, 1).await;
    fs::remove_dir_all(&usage).expect("writable");
    fs::create_dir(&usage).expect("writable");
    for _ in 0..2 {
        let (journal, _) = open(&data, Config::default());
        journal.examine(&|| false);
        let reports = journal.quarantined();
        assert_eq!((reports.len(), &*reports[0].lane), (1, "usage"), "{reports:?}");
        journal.shutdown().expect("a working disk");
    }
}

#[tokio::test]
async fn what_was_only_being_made_goes_without_a_word() {
    let data = TempDir::new().expect("temporary directory");
    let lane_dir = data.path().join("journal/usage");
    let stream = Uuid::from_u128(7).to_string();
    disk::make_private_dir(&lane_dir).expect("writable");
    // Killed before it had its name, and after.
    disk::make_new_dir(&lane_dir.join(&stream)).expect("writable");
    fs::rename(lane_dir.join(&stream), lane_dir.join(format!(".new-{stream}"))).expect("writable");
    disk::make_new_dir(&lane_dir.join(&stream)).expect("writable");
    let (journal, _) = open(&data, Config::default());
    journal.examine(&|| false);
    assert!(journal.segments(Lane::Usage).is_empty() && journal.quarantined().is_empty());
    assert_eq!(lane_dir.read_dir().expect("there").count(), 0);
}

#[tokio::test]
async fn a_file_that_cannot_be_made_safe_costs_its_segment_and_not_the_start() {
    let data = TempDir::new().expect("temporary directory");
    let (usage, state) = made(&data, 20).await;
    for dir in [&usage, &state] {
        // Which is no file, and cannot be removed as one.
        fs::create_dir(dir.join("snap.0.generating")).expect("writable");
    }
    for _ in 0..2 {
        let (journal, state) = open(&data, Config::default());
        assert_eq!(state.len(), 20, "in force all the same");
        assert_eq!(journal.quarantined().len(), 2);
        assert!(journal.segments(Lane::Usage).is_empty());
        journal.shutdown().expect("a working disk");
    }
}

#[tokio::test]
async fn what_is_no_segment_is_told_and_does_not_keep_anything_from_starting() {
    let data = TempDir::new().expect("temporary directory");
    let (usage, _) = made(&data, 1).await;
    let lane_dir = data.path().join("journal/usage");
    let stream = usage.file_name().expect("named").to_string_lossy().into_owned();
    let file = lane_dir.join(Uuid::from_u128(7).to_string());
    fs::write(&file, "plain").expect("writable");
    let upper = lane_dir.join("01A20A19-45FF-773A-BBC8-8536E4BB8604");
    fs::create_dir(&upper).expect("writable");
    let quarantined = lane_dir.join(format!("usage-{stream}"));
    fs::rename(&usage, &quarantined).expect("writable");
    let (journal, _) = open(&data, Config::default());
    let mut told = vec![file, upper, quarantined];
    told.sort_unstable();
    assert_eq!(journal.strangers(), told);
    assert!(journal.segments(Lane::Usage).is_empty());
    // Under its own name it is missed.
    let missed: Vec<_> = journal.quarantined().into_iter().filter_map(|r| r.stream).collect();
    assert_eq!(missed, [stream.parse::<Uuid>().expect("a stream")]);
    journal.shutdown().expect("a working disk");
}
