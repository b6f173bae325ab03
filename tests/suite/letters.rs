//! Dead letters: what Postgres will never take stands aside with the reason, everything else is
//! counted exactly once, and the drain goes on.

use gatepost::model::fact::{AuditEntry, Fact, Lane, StateFact};
use gatepost::model::{KeyState, Name, Timestamp};
use gatepost::postgres::sink::{Applied, Batch, Refused, SinkError};
use uuid::Uuid;

use crate::support::database::Database;
use crate::support::fault_proxy::{Fault, FaultProxy};
use crate::support::in_process::{Gateway, drain};
use crate::support::postgres::{client, digest, id, key, range, revoked, sink, usage};

const TOTAL: &str =
    "SELECT coalesce(sum(total_requests), 0)::bigint FROM gatepost.client_statistics";
const HOURLY: &str = "SELECT coalesce(sum(requests), 0)::bigint FROM gatepost.usage_hourly";
const LETTERS: &str = "SELECT count(*) FROM gatepost.dead_letters";
/// One client of whom nothing is taken; the other tables would take it.
const NO_EVIL: &str =
    "ALTER TABLE gatepost.client_totals ADD CONSTRAINT no_evil CHECK (client_name <> 'evil')";
/// Somebody else has the digest of the key `k` already.
const TAKEN: &str = "INSERT INTO gatepost.clients (name) VALUES ('first'); \
     INSERT INTO gatepost.api_keys (digest, client_name) VALUES (sha256('k'), 'first')";

/// The clients whose counters were refused.
fn clients(applied: &Applied) -> Vec<Name> {
    let name = |refused: &Refused| match &refused.fact {
        Fact::Usage(fact) => fact.counter.client.clone(),
        other => panic!("not a counter: {other:?}"),
    };
    applied.refused.iter().map(name).collect()
}

/// A hundred counters, three of them of the client `evil`.
fn mixed(from: u64) -> Batch {
    let one = |at: u128| {
        let client = if [0, 41, 99].contains(&at) { "evil" } else { "acme" };
        usage(client, at, "orders", 10)
    };
    Batch {
        ranges: vec![range(id(1), Lane::Usage, from, from + 1)],
        usage: (0..100).map(one).collect(),
        ..Batch::default()
    }
}

#[tokio::test]
async fn rows_that_postgres_never_takes_stand_aside_and_all_others_count_once() {
    let db = Database::new().await;
    db.execute(NO_EVIL).await;
    let mut sink = sink(&db.url, "gw-1");
    let applied = sink.apply(&mixed(0)).await.unwrap();
    assert_eq!(clients(&applied), ["evil"; 3].map(Name::from));
    assert!(applied.refused[0].reason.contains("23514"), "{:?}", applied.refused[0]);
    // All of a fact or nothing: not in the tables either that would have taken it.
    assert_eq!((db.number(TOTAL).await, db.number(HOURLY).await), (970, 970));
    assert_eq!(sink.positions(&[id(1)]).await.unwrap()[&id(1)].last_seq, 1);
    let told = "SELECT sum((fact->'usage'->>'requests')::int) FROM gatepost.dead_letters \
                WHERE fact->'usage'->>'client' = 'evil' AND lane = 'usage' AND node_id = 'gw-1' \
                AND reason LIKE '%no_evil%'";
    assert_eq!(db.number(told).await, 30);
    let of = "SELECT count(DISTINCT stream_id) FROM gatepost.dead_letters";
    assert_eq!(db.number(of).await, 1);
    // Again nothing is doubled, and what comes after is not held up.
    assert!(matches!(sink.apply(&mixed(0)).await, Err(SinkError::Moved)));
    assert_eq!(clients(&sink.apply(&mixed(1)).await.unwrap()).len(), 3);
    assert_eq!((db.number(TOTAL).await, db.number(LETTERS).await), (1940, 6));
}

#[tokio::test]
async fn a_nul_byte_and_an_overflow_are_letters_of_their_own() {
    let db = Database::new().await;
    let mut sink = sink(&db.url, "gw-1");
    let batch = |from, usage| Batch {
        ranges: vec![range(id(1), Lane::Usage, from, from + 1)],
        usage,
        ..Batch::default()
    };
    let nul = batch(0, vec![usage("acme", 1, "", 1), usage("nul\0byte", 2, "", 1)]);
    assert_eq!(clients(&sink.apply(&nul).await.unwrap()), [Name::from("nul\0byte")]);
    assert_eq!(db.number(TOTAL).await, 1);
    let most = i64::MAX as u64;
    sink.apply(&batch(1, vec![usage("full", 3, "", most)])).await.unwrap();
    let over = batch(2, vec![usage("acme", 1, "", 2), usage("full", 3, "", 1)]);
    assert_eq!(clients(&sink.apply(&over).await.unwrap()), [Name::from("full")]);
    let acme = "SELECT total_requests FROM gatepost.client_statistics WHERE client_name = 'acme'";
    assert_eq!((db.number(acme).await, db.number(LETTERS).await), (3, 2));
}

#[tokio::test]
async fn a_constraint_that_speaks_at_commit_is_heard_at_its_row() {
    let db = Database::new().await;
    db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
           RAISE EXCEPTION 'no evil' USING ERRCODE = 'check_violation'; END $$; \
         CREATE CONSTRAINT TRIGGER late AFTER INSERT ON gatepost.client_totals \
           DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.client_name = 'evil') \
           EXECUTE FUNCTION refuse()",
    )
    .await;
    let applied = sink(&db.url, "gw-1").apply(&mixed(0)).await.unwrap();
    assert_eq!(clients(&applied).len(), 3);
    assert_eq!((db.number(TOTAL).await, db.number(LETTERS).await), (970, 3));
}

#[tokio::test]
async fn a_letter_comes_with_its_commit_or_not_at_all() {
    let db = Database::new().await;
    db.execute(NO_EVIL).await;
    let proxy = FaultProxy::new(&db.url);
    let mut sink = sink(&proxy.url(&db.url), "gw-1");
    for (fault, applied) in [(Fault::CutBeforeCommit, 0), (Fault::CutAfterCommit, 1)] {
        proxy.set(fault);
        let fate = sink.apply(&mixed(0)).await;
        assert!(matches!(fate, Err(SinkError::Unknown(_))), "{fate:?}");
        assert_eq!(proxy.fault(), Fault::None);
        if applied == 0 {
            assert_eq!((db.number(TOTAL).await, db.number(LETTERS).await), (0, 0));
        }
    }
    // Waits for the COMMIT of the connection that is gone, and finds what is true.
    assert!(matches!(sink.apply(&mixed(0)).await, Err(SinkError::Moved)));
    assert_eq!((db.number(TOTAL).await, db.number(LETTERS).await), (970, 3));
}

#[tokio::test]
async fn a_state_fact_that_is_sent_again_gets_no_second_letter_and_in_the_end_its_row() {
    let db = Database::new().await;
    db.execute(TAKEN).await;
    let mut sink = sink(&db.url, "gw-1");
    let facts = vec![
        StateFact::ClientCreated(client("acme")),
        StateFact::KeyCreated(key(1, "k", "acme")),
        revoked(id(7), Timestamp::NEG_INFINITY),
    ];
    let told = |stream, facts: &[StateFact]| Batch {
        ranges: vec![range(id(stream), Lane::State, 0, 1)],
        state: facts.to_vec(),
        ..Batch::default()
    };
    for stream in [9, 9, 10] {
        let applied = sink.apply(&told(stream, &facts)).await.unwrap();
        assert_eq!(applied.refused.len(), 1);
        assert_eq!(applied.refused[0].fact, Fact::State(facts[1].clone()));
    }
    assert_eq!(db.number(LETTERS).await, 1);
    let secret = "SELECT count(*) FROM gatepost.dead_letters \
                  WHERE (fact::text || reason) LIKE '%' || encode(sha256('k'), 'hex') || '%'";
    assert_eq!(db.number(secret).await, 0);
    assert_eq!(db.number("SELECT count(*) FROM gatepost.revocations").await, 1);
    db.execute("DELETE FROM gatepost.api_keys").await;
    assert_eq!(sink.apply(&told(10, &facts)).await.unwrap().refused, []);
    let made = "SELECT count(*) FROM gatepost.api_keys WHERE client_name = 'acme'";
    assert_eq!((db.number(made).await, db.number(LETTERS).await), (1, 1));
}

#[tokio::test]
async fn an_audit_entry_that_is_refused_does_not_hold_up_the_others() {
    let db = Database::new().await;
    db.execute("ALTER TABLE gatepost.audit_log ADD CHECK (actor <> 'evil')").await;
    let event = |number, actor: &str| AuditEntry {
        event_id: id(number),
        actor: actor.into(),
        action: "key.create".into(),
        subject: "x".into(),
    };
    let events = (0..10).map(|n| event(n, if n == 4 { "evil" } else { "cli" })).collect();
    let ranges = vec![range(id(1), Lane::Events, 0, 1)];
    let batch = Batch { ranges, events, ..Batch::default() };
    let applied = sink(&db.url, "gw-1").apply(&batch).await.unwrap();
    assert_eq!(applied.refused.len(), 1);
    assert_eq!(db.number("SELECT count(*) FROM gatepost.audit_log").await, 9);
    assert_eq!(db.number(LETTERS).await, 1);
}

#[tokio::test]
async fn the_drain_goes_on_past_a_refused_counter_and_says_so() {
    let db = Database::new().await;
    db.execute(NO_EVIL).await;
    let gateway = Gateway::new(&db.url);
    for (client, number) in [("acme", 1), ("evil", 2), ("zeta", 3)] {
        let fact = usage(client, number, "orders", 5);
        let room = gateway.journal.reserve().unwrap();
        gateway.journal.count(room, fact.counter, fact.counts).durable().await.unwrap();
    }
    gateway.drainer.drain_now().await.expect("one bad row stops nothing");
    assert_eq!((db.number(TOTAL).await, db.number(LETTERS).await), (10, 1));
    let status = gateway.drainer.status();
    assert_eq!((status.dead_letters, status.pending_chunks), (1, 0));
    assert_eq!(status.last_error, None);
    let metrics = gateway.metrics.encode();
    assert!(metrics.contains("drain_dead_letters_total{lane=\"usage\"} 1"), "{metrics}");
    drop(gateway.shut_down().await);
}

#[tokio::test]
async fn a_refused_revocation_stays_in_force_through_restarts_until_postgres_takes_it() {
    let db = Database::new().await;
    db.execute("ALTER TABLE gatepost.revocations ADD CONSTRAINT never CHECK (kind <> 'key')").await;
    let gateway = Gateway::new(&db.url);
    tell(&gateway, StateFact::KeyCreated(key(1, "k", "acme"))).await;
    tell(&gateway, revoked(id(1), Timestamp::NEG_INFINITY)).await;
    drain(&gateway).await;
    assert_eq!((db.number(LETTERS).await, gateway.drainer.status().dead_letters), (1, 1));
    let data = gateway.shut_down().await;

    let gateway = Gateway::open(data, &db.url, None);
    drain(&gateway).await;
    // The feed has brought all that there is: the key is settled, the revocation is not.
    caught_up(&gateway, 1);
    drain(&gateway).await;
    assert_eq!(gateway.cache.status().overlay_entries, 1);
    assert_eq!(state(&gateway).await, Some(KeyState::Revoked));
    assert_eq!(gateway.journal.segments(Lane::State).len(), 1, "and it stays on disk");
    assert_eq!(db.number(LETTERS).await, 1);
    let data = gateway.shut_down().await;

    db.execute("ALTER TABLE gatepost.revocations DROP CONSTRAINT never").await;
    let gateway = Gateway::open(data, &db.url, None);
    drain(&gateway).await;
    assert_eq!(db.number("SELECT count(*) FROM gatepost.revocations").await, 1);
    caught_up(&gateway, 2);
    drain(&gateway).await;
    assert_eq!(gateway.cache.status().overlay_entries, 0);
    assert!(gateway.journal.segments(Lane::State).is_empty(), "settled, and no retention");
    drop(gateway.shut_down().await);
}

async fn tell(gateway: &Gateway, fact: StateFact) {
    let ticket = gateway.journal.append(vec![fact.clone()]).unwrap();
    gateway.cache.pin(&fact);
    ticket.durable().await.unwrap();
}

/// A catch-up of the feed that brought the key.
fn caught_up(gateway: &Gateway, revision: i64) {
    use gatepost::cache::{Change, ClientRow, Follower, KeyRow, Position};
    let _asked = gateway.cache.position();
    gateway.cache.begin(revision, false);
    let key = Change::Key(KeyRow { key: key(1, "k", "acme"), revision });
    let client = Change::Client(ClientRow { client: client("acme"), mode: None, revision });
    gateway.cache.apply(vec![key, client]).unwrap();
    let mark = *Uuid::from_u128(7).as_bytes();
    gateway.cache.complete(Position { revision, mark }).unwrap();
}

async fn state(gateway: &Gateway) -> Option<KeyState> {
    let entry = gateway.cache.find(digest("k")).await.ok()??;
    Some(entry.state(Timestamp(1_800_000_000_000_000)))
}
