//! One catch-up: everything between the follower's position and now, in one snapshot.

use std::sync::Arc;

use sqlx::PgConnection;
use tokio::sync::Mutex;
use tokio::task::JoinError;
use uuid::Uuid;

use super::pages::{Page, clients, keys, policies, revocations, tombstones};
use super::{Feed, FeedError, Missing};
use crate::cache::{Follower, Position};
use crate::postgres::{PostgresError, deadline};

/// A line of progress after so many rows.
const PROGRESS: u64 = 100_000;
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
     SET LOCAL idle_in_transaction_session_timeout = '60s'";

impl Feed {
    pub(super) async fn catch_up(
        &self,
        conn: &mut PgConnection,
        follower: &Arc<dyn Follower>,
        missing: &Missing,
    ) -> Result<(), FeedError> {
        let stored = self.blocking(follower, |follower| follower.position()).await?;
        // Short: this is what notices that nobody is there any more.
        let (now, known) = deadline(self.connect_timeout, async {
            sqlx::raw_sql(BEGIN).execute(&mut *conn).await?;
            where_are_we(conn, stored).await
        })
        .await?;
        if stored == Some(now) {
            self.commit(conn).await?;
            return self.blocking(follower, |follower| follower.still_current()).await;
        }
        let full = !known;
        if full {
            self.metrics.postgres.feed_resyncs.inc();
            tracing::info!(revision = now.revision, "reading everything from Postgres");
        }
        self.blocking(follower, move |follower| follower.begin(now.revision, full)).await?;
        // -1: before every row there can be.
        let after = stored.filter(|_| known).map_or(-1, |position| position.revision);
        let rows = self.rows(conn, follower, after, full).await?;
        self.commit(conn).await?;
        let lacking = self.blocking(follower, move |follower| follower.complete(now)).await??;
        if full {
            tracing::info!(rows, revision = now.revision, "everything from Postgres is read");
        }
        self.metrics.postgres.feed_catch_ups.inc();
        if !lacking.is_empty() {
            tracing::warn!(count = lacking.len(), "Postgres lacks revocations: sent again");
            missing(lacking);
        }
        Ok(())
    }

    /// Revocations before keys, so that no key is seen without its revocation; tombstones last.
    async fn rows(
        &self,
        conn: &mut PgConnection,
        follower: &Arc<dyn Follower>,
        after: i64,
        full: bool,
    ) -> Result<u64, FeedError> {
        let mut told = 0;
        // No id is empty, so nothing of the next revision lies at or before this place.
        let mut place = Some((after + 1, String::new()));
        while let Some(from) = place {
            let page = deadline(self.query_deadline, policies(conn, from)).await?;
            place = self.tell(follower, page, &mut told).await?;
        }
        let mut place = Some((after + 1, String::new()));
        while let Some(from) = place {
            let page = deadline(self.query_deadline, clients(conn, from)).await?;
            place = self.tell(follower, page, &mut told).await?;
        }
        let mut place = Some((after + 1, String::new(), String::new()));
        while let Some(from) = place {
            let page = deadline(self.query_deadline, revocations(conn, from)).await?;
            place = self.tell(follower, page, &mut told).await?;
        }
        let mut place = Some((after, Uuid::max()));
        while let Some(from) = place {
            let page = deadline(self.query_deadline, keys(conn, from)).await?;
            place = self.tell(follower, page, &mut told).await?;
        }
        // Who was told of every row there is needs no tombstones.
        let mut place = (!full).then(|| (after + 1, String::new(), String::new()));
        while let Some(from) = place {
            let page = deadline(self.query_deadline, tombstones(conn, from)).await?;
            place = self.tell(follower, page, &mut told).await?;
        }
        Ok(told)
    }

    /// Applies a page. Returns the place of the next.
    async fn tell<C>(
        &self,
        follower: &Arc<dyn Follower>,
        page: Page<C>,
        told: &mut u64,
    ) -> Result<Option<C>, FeedError> {
        let (changes, place) = page;
        if changes.is_empty() {
            return Ok(place);
        }
        let rows = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        self.blocking(follower, move |follower| follower.apply(changes)).await??;
        self.metrics.postgres.feed_rows.inc_by(rows);
        if (*told + rows) / PROGRESS > *told / PROGRESS {
            tracing::info!(rows = *told + rows, "reading from Postgres");
        }
        *told += rows;
        Ok(place)
    }

    /// Calls the follower where it may block on its disk.
    async fn blocking<T: Send + 'static>(
        &self,
        follower: &Arc<dyn Follower>,
        call: impl FnOnce(&dyn Follower) -> T + Send + 'static,
    ) -> Result<T, FeedError> {
        let follower = Arc::clone(follower);
        Ok(in_turn(&self.turn, move || call(&*follower)).await?)
    }

    async fn commit(&self, conn: &mut PgConnection) -> Result<(), FeedError> {
        let commit = async {
            sqlx::raw_sql("COMMIT").execute(conn).await?;
            Ok::<_, PostgresError>(())
        };
        Ok(deadline(self.connect_timeout, commit).await?)
    }
}

/// Calls off the async threads, one at a time. A caller who is dropped leaves its call running: the
/// next waits for it, so that two catch-ups never mix.
async fn in_turn<T: Send + 'static>(
    turn: &Arc<Mutex<()>>,
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    let turn = Arc::clone(turn).lock_owned().await;
    let called = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        call()
    });
    called.await
}

/// The snapshot's own position, and whether the stored one belongs to its history: after a restore,
/// or a failover to a lagging replica, the same revision bears another mark.
async fn where_are_we(
    conn: &mut PgConnection,
    stored: Option<Position>,
) -> Result<(Position, bool), PostgresError> {
    let row = sqlx::query!(
        r#"
        SELECT n.revision, l.mark AS "mark!",
               EXISTS (SELECT FROM gatepost.change_log AS s
                       WHERE s.table_name = '' AND s.row_id = '' AND s.revision = $1
                         AND s.mark = $2) AS "known!"
        FROM gatepost.change_counter AS n
        JOIN gatepost.change_log AS l ON l.revision = n.revision AND l.table_name = ''
        "#,
        stored.map(|position| position.revision),
        stored.map(|position| Uuid::from_bytes(position.mark))
    )
    .fetch_one(conn)
    .await?;
    Ok((Position { revision: row.revision, mark: *row.mark.as_bytes() }, row.known))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_a_dropped_catch_up_left_running_is_waited_for() {
        let turn = Arc::default();
        let (started, begun) = tokio::sync::oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let (said, order) = mpsc::channel();
        let first = said.clone();
        let left = in_turn(&turn, move || {
            started.send(()).expect("it is waited for");
            released.recv().expect("it is released");
            first.send("first").expect("it is listened to");
        });
        tokio::select! {
            _ = left => panic!("it ended before it was released"),
            begun = begun => begun.expect("it begins"),
        }
        // The first future is dropped by now; its call runs on.
        let mut next = Box::pin(in_turn(&turn, move || said.send("next")));
        assert!(futures_util::poll!(&mut next).is_pending());
        assert!(turn.try_lock().is_err());
        release.send(()).expect("it waits");
        next.await.expect("no panic").expect("it is listened to");
        assert_eq!(order.iter().collect::<Vec<_>>(), ["first", "next"]);
    }
}
