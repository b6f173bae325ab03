//! A disk that fails in the middle of a merge. (Under the real program: `tests/suite/merge`.)

use super::*;

/// Backlog, what it says, and how many segments it is.
async fn backlog(data: &Path) -> (Journal, Sums, usize) {
    let (journal, _) = open(data);
    for first in [0, 50, 100, 150] {
        closed(&journal, first).await;
    }
    let before = sums(&journal);
    let segments = dirs(data, "usage").len();
    (journal, before, segments)
}

/// The segment that is being made: it has `sources`, and no `end`.
fn half_made(data: &Path) -> Option<std::path::PathBuf> {
    let dirs = dirs(data, "usage").into_iter().map(|name| data.join("journal/usage").join(name));
    dirs.into_iter().find(|dir| sources::exist(dir) && !dir.join("end").is_file())
}

#[tokio::test]
async fn a_merge_that_cannot_be_ended_leaves_nothing_behind_and_is_made_later() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, before, segments) = backlog(data.path()).await;
    let in_the_way = || {
        if let Some(dir) = half_made(data.path()) {
            // Of the same name as the file that is its commit point.
            drop(fs::create_dir(dir.join("end")));
        }
        false
    };
    for _ in 0..2 {
        let merged = journal.merge(Scope::Own, &in_the_way);
        assert!(matches!(merged, Err(MergeError::Unwritten(_))), "{merged:?}");
        assert_eq!((sums(&journal), dirs(data.path(), "usage").len()), (before.clone(), segments));
        assert!(journal.segments(Lane::Usage)[0].claim().is_some(), "it may be sent");
    }
    assert!(merge(&journal, Scope::Own));
    assert_eq!((sums(&journal), dirs(data.path(), "usage").len()), (before, 1));
}

#[tokio::test]
async fn what_a_half_made_merge_stands_for_is_not_sent_before_it_is_removed() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, before, segments) = backlog(data.path()).await;
    let in_the_way = || match half_made(data.path()) {
        Some(dir) => {
            // Of the name under which it is to be removed.
            let name = format!(".gone-{}", dir.file_name().expect("named").to_string_lossy());
            fs::create_dir_all(dir.with_file_name(name).join("entry")).expect("writable");
            true
        }
        None => false,
    };
    let merged = journal.merge(Scope::Own, &in_the_way);
    assert!(matches!(merged, Err(MergeError::Stopped)), "{merged:?}");
    assert!(half_made(data.path()).is_some());
    assert!(journal.segments(Lane::Usage).iter().all(|segment| segment.claim().is_none()));
    assert!(!merge(&journal, Scope::Own), "nor merged");
    assert_eq!(sums(&journal), before);
    journal.shutdown().expect("a working disk");
    drop(journal);

    let (journal, _) = open(data.path());
    assert_eq!((sums(&journal), dirs(data.path(), "usage").len()), (before.clone(), segments));
    assert!(merge(&journal, Scope::All(None)));
    assert_eq!((sums(&journal), dirs(data.path(), "usage").len()), (before, 1));
}

#[tokio::test]
async fn what_cannot_be_read_for_a_while_is_merged_later() {
    let data = TempDir::new().expect("temporary directory");
    let (journal, before, _) = backlog(data.path()).await;
    let db = journal.segments(Lane::Usage)[1].dir().join("db");
    let kept = db.with_extension("kept");
    fs::rename(&db, &kept).expect("writable");
    // Nobody may open it for writing: as with too many open files, it says nothing of the segment.
    std::os::unix::fs::symlink("/sys/kernel/uevent_seqnum", &db).expect("writable");
    for _ in 0..2 {
        let merged = journal.merge(Scope::Own, &|| false);
        let MergeError::Unreadable(_, error) = merged.expect_err("it cannot be read") else {
            panic!("of another kind")
        };
        assert!(!error.is_damage(), "{error}");
    }
    fs::rename(&kept, &db).expect("writable");
    assert!(merge(&journal, Scope::Own));
    assert_eq!((sums(&journal), dirs(data.path(), "usage").len()), (before, 1));
}
