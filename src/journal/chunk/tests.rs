//! What is packed is read back, whatever it is; and what was never packed does no harm.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::model::Timestamp;
use crate::model::fact::{Revocation, RevocationKind, UsageFact};

const STREAM: Uuid = Uuid::from_u128(7);

fn fact(n: usize) -> Fact {
    let counter = Counter {
        client: format!("client-{n}").into(),
        key_id: Uuid::from_u128(n as u128),
        table: "orders".into(),
        operation: "read".into(),
        hour: 495_000,
    };
    Fact::Usage(UsageFact { counter, counts: Counts { requests: n as u64, ..Counts::ZERO } })
}

/// Of each kind of fact, with neighbours that are alike in some ways and not in others.
fn facts() -> impl Strategy<Value = Vec<Fact>> {
    let key_id = prop_oneof![any::<u128>(), (0u128..3).prop_map(|n| n << 20), Just(u128::MAX)];
    let hour = prop_oneof![Just(495_000), Just(495_001), any::<i64>()];
    let name = "[aäб字]{0,4}";
    let counter = (name, key_id, "t[0-9]{0,2}", "read|write|", hour);
    let number = prop_oneof![0u64..3, any::<u64>()];
    let last_seen = prop_oneof![any::<i64>(), 0i64..1000, Just(i64::MIN)];
    let counts = (vec(number, 7), any::<bool>(), last_seen);
    let usage = (counter, counts).prop_map(|(counter, (sums, succeeded, last_seen))| {
        let (client, key_id, table, operation, hour) = counter;
        Fact::Usage(UsageFact {
            counter: Counter {
                client: client.into(),
                key_id: Uuid::from_u128(key_id),
                table: table.into(),
                operation: operation.into(),
                hour,
            },
            counts: Counts {
                requests: sums[0],
                succeeded: if succeeded { sums[0] } else { sums[1] },
                failed: sums[2],
                denied: sums[3],
                bytes_in: sums[4],
                bytes_out: sums[5],
                duration_us: sums[6],
                last_seen: Timestamp(last_seen),
            },
        })
    });
    let state = (name, any::<i64>()).prop_map(|(id, at)| {
        let kind = RevocationKind::Key;
        Fact::State(StateFact::Revoked(Revocation { kind, id: id.into(), at: Timestamp(at) }))
    });
    let audit = (any::<u128>(), name, "[a-z]{0,200}").prop_map(|(id, actor, subject)| {
        Fact::Audit(AuditEntry {
            event_id: Uuid::from_u128(id),
            actor: actor.into(),
            action: "key.revoke".into(),
            subject: subject.into(),
        })
    });
    vec(prop_oneof![8 => usage, 1 => state, 1 => audit], 0..200)
}

fn packed(facts: &[Fact], next_seq: u64) -> (Vec<(u64, Vec<u8>)>, Packer) {
    let mut packer = Packer::new(STREAM, next_seq);
    let mut chunks = Vec::new();
    for fact in facts {
        chunks.extend(packer.push(fact.into()).expect("small"));
    }
    chunks.extend(packer.finish().expect("small"));
    (chunks, packer)
}

/// A whole frame around facts that nobody has packed.
fn framed(count: u16, facts: &[u8]) -> Vec<u8> {
    let mut frame = codec::open(Kind::Chunk, CHUNK_VERSION);
    frame.extend_from_slice(STREAM.as_bytes());
    frame.extend_from_slice(&1u64.to_be_bytes());
    frame.extend_from_slice(&count.to_le_bytes());
    frame.extend_from_slice(facts);
    codec::close(frame).expect("small")
}

proptest! {
    #[test]
    fn packed_facts_come_back_in_order(facts in facts()) {
        let (chunks, packer) = packed(&facts, 1);
        let mut found = Vec::new();
        for (at, (seq, frame)) in chunks.iter().enumerate() {
            prop_assert_eq!(*seq, at as u64 + 1);
            prop_assert!(frame.len() <= CHUNK_MAX);
            // Each by itself: none needs what another says.
            found.extend(Chunk::read(STREAM, *seq, frame).expect("whole").facts);
        }
        prop_assert_eq!(found, facts);
        prop_assert_eq!(packer.next_seq(), chunks.len() as u64 + 1);
    }

    #[test]
    fn garbage_in_a_whole_frame_neither_panics_nor_is_more_than_it_is(
        count: u16, bytes in vec(any::<u8>(), 0..500)
    ) {
        if let Ok(chunk) = Chunk::read(STREAM, 1, &framed(count, &bytes)) {
            prop_assert!(chunk.facts.len() <= bytes.len() / delta::FACT_MIN);
        }
    }

    #[test]
    fn a_changed_byte_in_a_whole_frame_does_not_panic(
        facts in facts(), at: prop::sample::Index, byte: u8
    ) {
        for (_, frame) in packed(&facts, 1).0.iter().take(1) {
            let facts = &frame[HEADER + COUNT..frame.len() - CHECK];
            let count = u16::from_le_bytes([frame[HEADER], frame[HEADER + 1]]);
            let mut changed = facts.to_vec();
            changed[at.index(facts.len())] = byte;
            if let Ok(chunk) = Chunk::read(STREAM, 1, &framed(count, &changed)) {
                prop_assert_eq!(chunk.facts.len(), usize::from(count));
            }
        }
    }
}

#[test]
fn a_busy_window_of_counters_takes_a_third_of_what_they_would_take_whole() {
    let at = Timestamp::from_hour(495_000);
    let facts: Vec<_> = (0..10_000u64)
        .map(|n| {
            let Fact::Usage(mut fact) = fact(usize::try_from(n / 10).expect("small")) else {
                unreachable!()
            };
            // As a uuid v7 is: the time in front, the rest as good as random.
            let random = u128::from(n).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
            fact.counter.key_id = Uuid::from_u128((u128::from(n) << 100) | (random >> 48));
            fact.counts = Counts {
                requests: 1 + n % 3,
                succeeded: 1 + n % 3,
                last_seen: Timestamp(at.0 + i64::try_from(n * 7919 % 50_000).expect("small")),
                ..Counts::ZERO
            };
            Fact::Usage(fact)
        })
        .collect();
    let compact: usize = packed(&facts, 1).0.iter().map(|(_, frame)| frame.len()).sum();
    let mut whole = Vec::new();
    facts.iter().for_each(|fact| codec::append(&mut whole, fact).expect("small"));
    assert!(compact * 3 <= whole.len(), "{compact} bytes, whole {}", whole.len());
}

#[test]
fn a_chunk_at_another_place_or_of_another_stream_is_refused() {
    let (chunks, _) = packed(&[fact(1)], 5);
    let (seq, frame) = &chunks[0];
    assert!(Chunk::read(STREAM, *seq, frame).is_ok());
    assert_eq!(Chunk::read(STREAM, seq + 1, frame), Err(CodecError::Shape));
    assert_eq!(Chunk::read(Uuid::from_u128(8), *seq, frame), Err(CodecError::Shape));
}

#[test]
fn the_largest_fact_that_fits_is_at_most_its_bound_and_a_larger_one_is_refused() {
    let Fact::Usage(mut large) = fact(2) else { unreachable!() };
    let most = FACT_MAX - delta::OVERHEAD_MAX - large.counter.client.len() - "read".len();
    large.counter.table = "t".repeat(most).into();
    large.counter.hour = i64::MIN;
    large.counts = Counts {
        requests: u64::MAX,
        succeeded: u64::MAX - 1,
        failed: u64::MAX,
        denied: u64::MAX,
        bytes_in: u64::MAX,
        bytes_out: u64::MAX,
        duration_us: u64::MAX,
        last_seen: Timestamp(i64::MAX),
    };
    let (chunks, mut packer) = packed(&[fact(1), Fact::Usage(large.clone())], 1);
    let (alone, _) = packed(&[fact(1)], 1);
    assert!(chunks[0].1.len() - alone[0].1.len() <= FACT_MAX);

    large.counter.table = "t".repeat(most + 1).into();
    let large = Fact::Usage(large);
    assert!(!fits((&large).into()));
    assert_eq!(packer.push((&large).into()), Err(CodecError::TooLarge));
    assert_eq!(packer.push((&fact(1)).into()), Ok(None));
    let (seq, frame) = packer.finish().expect("small").expect("one chunk");
    assert_eq!(Chunk::read(STREAM, seq, &frame).expect("whole").facts, [fact(1)]);
}
