//! The facts of a batch, lane by lane: written whole, or sifted.
//!
//! Sifting halves what Postgres refuses until the offenders stand alone, each attempt behind a
//! savepoint: one bad row among thousands costs some twenty statements, and all others are applied.

use sqlx::PgConnection;

use super::letters::Refused;
use super::{Batch, SinkError, events, failed, quotas, state, usage};
use crate::model::fact::{AuditEntry, Event, Fact, Lane, QuotaFact, StateFact, UsageFact};

/// Facts of one lane.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    State(&'a [StateFact]),
    Quotas(&'a [QuotaFact]),
    Usage(&'a [UsageFact]),
    Events(&'a [AuditEntry]),
    Happened(&'a [Event]),
}

impl<'a> Part<'a> {
    /// Everything in a batch, in the order in which it is written.
    pub(super) fn all(batch: &'a Batch) -> [Self; 5] {
        [
            Self::State(&batch.state),
            Self::Quotas(&batch.quotas),
            Self::Usage(&batch.usage),
            Self::Events(&batch.events),
            Self::Happened(&batch.happened),
        ]
    }

    pub(super) fn lane(self) -> Lane {
        match self {
            Self::State(_) => Lane::State,
            Self::Quotas(_) => Lane::Quota,
            Self::Usage(_) => Lane::Usage,
            Self::Events(_) | Self::Happened(_) => Lane::Events,
        }
    }

    fn len(self) -> usize {
        match self {
            Self::State(facts) => facts.len(),
            Self::Quotas(facts) => facts.len(),
            Self::Usage(facts) => facts.len(),
            Self::Events(facts) => facts.len(),
            Self::Happened(facts) => facts.len(),
        }
    }

    fn halves(self) -> [Self; 2] {
        let half = self.len() / 2;
        match self {
            Self::State(facts) => [Self::State(&facts[..half]), Self::State(&facts[half..])],
            Self::Quotas(facts) => [Self::Quotas(&facts[..half]), Self::Quotas(&facts[half..])],
            Self::Usage(facts) => [Self::Usage(&facts[..half]), Self::Usage(&facts[half..])],
            Self::Events(facts) => [Self::Events(&facts[..half]), Self::Events(&facts[half..])],
            Self::Happened(facts) => {
                [Self::Happened(&facts[..half]), Self::Happened(&facts[half..])]
            }
        }
    }

    /// The fact, if there is one only.
    fn single(self) -> Option<Fact> {
        match self {
            Self::State([fact]) => Some(Fact::State(fact.clone())),
            Self::Quotas([fact]) => Some(Fact::Quota(fact.clone())),
            Self::Usage([fact]) => Some(Fact::Usage(fact.clone())),
            Self::Events([fact]) => Some(Fact::Audit(fact.clone())),
            Self::Happened([fact]) => Some(Fact::Event(fact.clone())),
            _ => None,
        }
    }

    /// Writes it, all or nothing; returns how many rows were sent.
    pub(super) async fn write(
        self,
        conn: &mut PgConnection,
        node: &str,
    ) -> Result<u64, sqlx::Error> {
        match self {
            Self::State(facts) => state::write(conn, facts).await,
            Self::Quotas(facts) => quotas::write(conn, node, facts).await,
            Self::Usage(facts) => usage::write(conn, node, facts).await,
            Self::Events(facts) => events::write_audit(conn, node, facts).await,
            Self::Happened(facts) => events::write_happened(conn, node, facts).await,
        }
    }

    /// Writes all that Postgres takes; returns how many rows those were, and what it refuses.
    pub(super) async fn sift(
        self,
        conn: &mut PgConnection,
        node: &str,
    ) -> Result<(u64, Vec<Refused>), SinkError> {
        let (mut rows, mut refused) = (0, Vec::new());
        let mut left = vec![self];
        while let Some(part) = left.pop() {
            if part.len() == 0 {
                continue;
            }
            run(conn, "SAVEPOINT sifted").await?;
            match part.write(conn, node).await.map_err(failed) {
                Ok(sent) => {
                    run(conn, "RELEASE SAVEPOINT sifted").await?;
                    rows += sent;
                }
                Err(SinkError::BadRow(reason)) => {
                    run(conn, "ROLLBACK TO SAVEPOINT sifted; RELEASE SAVEPOINT sifted").await?;
                    match part.single() {
                        Some(fact) => refused.push(Refused { fact, reason }),
                        // The first half on top: in the order in which it is sorted.
                        None => left.extend(part.halves().into_iter().rev()),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok((rows, refused))
    }
}

async fn run(conn: &mut PgConnection, sql: &'static str) -> Result<(), SinkError> {
    sqlx::raw_sql(sql).execute(conn).await.map_err(failed)?;
    Ok(())
}
