//! Segments outside the journal: set aside more than once, and replayed in spite of failures.

use super::*;

/// A closed segment of one counter below `data`, and a copy of it elsewhere.
async fn segment(data: &TempDir) -> (PathBuf, TempDir, PathBuf) {
    let (journal, _) = open(data, Config::default());
    journal.count(journal.reserve().expect("room"), counter(1), ONE);
    journal.shutdown().expect("a working disk");
    let dir = journal.segments(Lane::Usage)[0].dir().to_owned();
    let kept = TempDir::new().expect("temporary directory");
    let copy = kept.path().join(dir.file_name().expect("a stream"));
    fs::create_dir(&copy).expect("writable");
    disk::copy_dir(&dir, &copy).expect("copied");
    (dir, kept, copy)
}

#[tokio::test]
async fn damaged_copies_of_one_stream_stand_side_by_side() {
    let data = TempDir::new().expect("temporary directory");
    let (dir, _kept, copy) = segment(&data).await;
    let stream: Uuid = dir.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("named");
    let names = ["usage", "usage-2", "usage-3"].map(|name| format!("{name}-{stream}"));
    for name in &names {
        if !dir.exists() {
            fs::create_dir(&dir).expect("writable");
            disk::copy_dir(&copy, &dir).expect("copied");
        }
        fs::write(dir.join("end"), name).expect("writable");
        let (journal, _) = open(&data, Config::default());
        assert!(journal.segments(Lane::Usage).is_empty());
        journal.shutdown().expect("a working disk");
    }
    let quarantine = data.path().join("quarantine");
    for name in &names {
        let end = fs::read(quarantine.join(name).join("end")).expect("it is there");
        assert_eq!(end, name.as_bytes(), "each is kept as it was");
    }

    let (journal, _) = open(&data, Config::default());
    let reports = journal.quarantined();
    assert!(reports.iter().map(|report| &report.name).eq(&names), "{reports:?}");
    let known = |report: &Report| report.stream == Some(stream) && report.lane == "usage";
    assert!(reports.iter().all(|r| known(r) && !r.reason.is_empty()), "{reports:?}");
    let which = journal.find(&stream.to_string()).expect_err("nobody knows which");
    assert!(names.iter().all(|name| which.to_string().contains(name)), "{which}");
    for name in &names {
        let place = journal.find(name).expect("it is there");
        let found = journal.survey(&place, &mut |_| std::ops::ControlFlow::Continue(()));
        assert_eq!((found.stream, found.lane, found.facts), (stream, Some("usage"), 1));
        assert_eq!(found.error, None);
        assert_eq!(found.name.as_ref(), Some(name));
    }
    // What cannot be copied is told of itself, and keeps nobody from looking at the rest.
    let copied = quarantine.join("events-".to_owned() + &stream.to_string());
    fs::create_dir(&copied).expect("writable");
    let place = journal.find(copied.to_str().expect("text")).expect("it is there");
    fs::remove_dir(&copied).expect("writable");
    let found = journal.survey(&place, &mut |_| std::ops::ControlFlow::Continue(()));
    assert!(found.error.is_some() && found.facts == 0, "{found:?}");

    // One of them is mended. What was replayed before under its name stays, too.
    let before = quarantine.join(format!("replayed-{}", names[1]));
    fs::create_dir(&before).expect("writable");
    fs::copy(copy.join("end"), quarantine.join(&names[1]).join("end")).expect("copied");
    let replay = journal.prepare_replay(&names[1]).expect("it is whole");
    let source = journal.replay(&replay).expect("a working disk");
    assert_eq!(source, quarantine.join(format!("replayed-usage-2-2-{stream}")));
    assert!(source.join("db").is_file() && source.with_added_extension("json").is_file());
    assert!(before.is_dir());
    assert_eq!(usage_on_disk(&journal), 1);
    assert_eq!(journal.quarantined().len(), 2);
}

#[tokio::test]
async fn a_replay_that_fails_in_its_place_leaves_nothing_and_works_the_next_time() {
    let (_kept, copy) = {
        let (_, kept, copy) = segment(&TempDir::new().expect("temporary directory")).await;
        (kept, copy)
    };
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(&data, Config::default());
    let what = copy.to_str().expect("text");
    let count = |dir: &str| data.path().join(dir).read_dir().expect("there").count();
    let before = count("journal");

    let replay = journal.prepare_replay(what).expect("it is whole");
    let end = data.path().join("journal").join(format!(".new-{}", replay.stream)).join("end");
    fs::write(end, b"not a frame").expect("writable");
    let failed = journal.replay(&replay);
    assert!(matches!(failed, Err(LogError::Unreadable(_))), "{failed:?}");
    drop(replay);
    assert!(journal.segments(Lane::Usage).is_empty());
    assert_eq!((count("journal/usage"), count("journal")), (0, before));

    let replay = journal.prepare_replay(what).expect("it is whole");
    journal.replay(&replay).expect("nothing is in the way");
    assert_eq!(usage_on_disk(&journal), 1);
}

/// What is known to be missing is passed over by the ledger: its end is no proof of all.
#[tokio::test]
async fn a_segment_with_a_gap_that_postgres_has_passed_says_so_when_it_is_set_aside() {
    let data = TempDir::new().expect("temporary directory");
    let config = Config { retention: Span::secs(0), ..Config::default() };
    let (journal, _) = open(&data, config.clone());
    for n in 0..3 {
        journal.count(journal.reserve().expect("room"), counter(n), ONE);
        journal.flush().durable().await.expect("a working disk");
    }
    journal.shutdown().expect("a working disk");
    let dir = journal.segments(Lane::Usage)[0].dir().to_owned();
    {
        let db = disk::open_sled(&dir, 1 << 20).expect("it opens");
        db.remove(2_u64.to_be_bytes()).expect("there").expect("a chunk");
        db.flush().expect("writable");
    }
    let (journal, _) = open(&data, config);
    journal.examine(&|| false);
    journal.segments(Lane::Usage).iter().for_each(|s| s.set_applied(s.durable_seq()));
    journal.reclaim(&|segment| segment.is_finished(), &mut |_| ());
    let [report] = &journal.quarantined()[..] else { panic!("one is set aside") };
    assert!(report.missing.chunks == 1 && report.passed_a_gap(), "{report:?}");
}
