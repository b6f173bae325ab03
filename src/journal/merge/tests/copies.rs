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
