//! Copies of a directory that were merged apart, and met again.

use super::*;

/// Four closed segments, merged by two copies of their directory; in one of them, what both made.
async fn merged_twice() -> (TempDir, Sums) {
    let data = TempDir::new().expect("temporary directory");
    let (journal, _) = open(data.path());
    for first in 0..4 {
        closed(&journal, first).await;
    }
    journal.shutdown().expect("a working disk");
    let copied = TempDir::new().expect("temporary directory");
    copy(data.path(), copied.path());
    assert!(merge(&journal, Scope::Own));
    let (once, merged) = (sums(&journal), journal.segments(Lane::Usage)[0].clone());
    drop(journal);
    let (journal, _) = open(copied.path());
    assert!(merge(&journal, Scope::All(None)));
    journal.shutdown().expect("a working disk");
    let beside = copied.path().join("journal/usage").join(merged.stream.to_string());
    copy(merged.dir(), &beside);
    (copied, once)
}

#[tokio::test]
async fn segments_that_stand_for_the_same_streams_are_not_merged_into_one() {
    let (data, once) = merged_twice().await;
    let (journal, _) = open(data.path());
    assert_eq!(journal.segments(Lane::Usage).len(), 2);
    for first in 1000..1004 {
        closed(&journal, first).await;
    }
    assert!(merge(&journal, Scope::All(None)), "the others");
    let segments = journal.segments(Lane::Usage);
    assert_eq!(segments.len(), 2);
    for segment in &segments {
        let sources = segment.sources();
        let streams: HashSet<_> = sources.iter().map(|source| source.stream).collect();
        assert_eq!(streams.len(), sources.len(), "each is named once");
    }
    // Either of them by itself says what was counted.
    for segment in segments {
        let page = segment.read(0, usize::MAX).expect("readable");
        let mut found = Sums::new();
        for fact in page.chunks.into_iter().flat_map(|chunk| chunk.facts) {
            let Fact::Usage(fact) = fact else { panic!("{fact:?}") };
            if once.contains_key(&fact.counter) {
                found.entry(fact.counter).or_insert(Counts::ZERO).merge(&fact.counts);
            }
        }
        assert_eq!(found, once);
    }
}

/// It would be taken for a segment that stands for itself alone.
#[tokio::test]
async fn a_merged_segment_whose_lists_are_gone_is_neither_replayed_nor_counted() {
    let (data, once) = merged_twice().await;
    let lane_dir = data.path().join("journal/usage");
    let (left, right) = {
        let (journal, _) = open(data.path());
        let segments = journal.segments(Lane::Usage);
        (segments[0].stream.to_string(), segments[1].stream.to_string())
    };
    for name in ["sources", "sources-copy"] {
        fs::remove_file(lane_dir.join(&right).join(name)).expect("there");
    }
    let kept = TempDir::new().expect("temporary directory");
    let aside = kept.path().join(&right);
    copy(&lane_dir.join(&right), &aside);
    let (journal, _) = open(data.path());
    assert_eq!((sums(&journal), journal.status().quarantined.len()), (once, 1));
    assert_eq!(journal.segments(Lane::Usage)[0].stream.to_string(), left);
    let refused = journal.prepare_replay(&aside.to_string_lossy());
    assert!(matches!(refused, Err(LogError::Sources(_))), "{refused:?}");
}
