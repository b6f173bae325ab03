//! Policies as the operator changes them: all of a file in one transaction, with their history.

use sqlx::PgConnection;
use uuid::Uuid;

use super::PostgresError;
use super::directory::Directory;
use super::sink::made_at;

/// One change to a policy; each has an event of its own in `audit_log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    /// A uuid v7 for the history.
    pub event_id: Uuid,
    /// The policy.
    pub name: String,
    /// Its document, as JSON; `None`: it is removed.
    pub spec: Option<String>,
}

impl Directory {
    /// Every stored policy: name and document, by name.
    ///
    /// # Errors
    /// When Postgres cannot be asked.
    pub async fn policies(&self) -> Result<Vec<(String, String)>, PostgresError> {
        self.with(async |conn| {
            let rows = sqlx::query!(
                r#"SELECT name AS "name!: String", spec::text AS "spec!"
                   FROM gatepost.policies ORDER BY name"#
            );
            Ok(rows.fetch_all(conn).await?.into_iter().map(|row| (row.name, row.spec)).collect())
        })
        .await
    }

    /// Makes all changes or none, and writes down who made them. With `dry_run` none in the end:
    /// only what would be refused is.
    ///
    /// # Errors
    /// When Postgres cannot be asked, or refuses: a policy that is removed is in use.
    pub async fn change_policies(
        &self,
        node: &str,
        actor: &str,
        changes: &[PolicyChange],
        dry_run: bool,
    ) -> Result<(), PostgresError> {
        self.with(async |conn| {
            sqlx::raw_sql("BEGIN").execute(&mut *conn).await?;
            for change in changes {
                change_one(&mut *conn, node, actor, change).await?;
            }
            let end = if dry_run { "ROLLBACK" } else { "COMMIT" };
            sqlx::raw_sql(end).execute(conn).await?;
            Ok(())
        })
        .await
    }

    /// Sets a client's own mode; `false` when there is none of that name.
    ///
    /// # Errors
    /// When Postgres cannot be asked; nothing has changed then, as far as one can know.
    pub async fn set_client_mode(
        &self,
        name: &str,
        mode: Option<&str>,
    ) -> Result<bool, PostgresError> {
        self.with(async |conn| {
            let update =
                sqlx::query!("UPDATE gatepost.clients SET mode = $2 WHERE name = $1", name, mode);
            Ok(update.execute(conn).await?.rows_affected() > 0)
        })
        .await
    }
}

async fn change_one(
    conn: &mut PgConnection,
    node: &str,
    actor: &str,
    change: &PolicyChange,
) -> Result<(), PostgresError> {
    let at = made_at(change.event_id).0;
    let action = if change.spec.is_some() { "policy.apply" } else { "policy.remove" };
    // First: it says what was there before.
    sqlx::query!(
        r#"
        INSERT INTO gatepost.audit_log (event_id, at, node_id, actor, action, subject, detail)
        SELECT $1, gatepost.from_micros($2), $3, $4, $5, $6::text,
               jsonb_build_object(
                 'before', (SELECT spec FROM gatepost.policies WHERE name = $6::text),
                 'after', $7::text::jsonb)
        "#,
        change.event_id,
        at,
        node,
        actor,
        action,
        change.name,
        change.spec
    )
    .execute(&mut *conn)
    .await?;
    match &change.spec {
        Some(spec) => {
            let put = sqlx::query!(
                r#"
                INSERT INTO gatepost.policies AS p (name, spec) VALUES ($1, $2::text::jsonb)
                ON CONFLICT (name) DO UPDATE SET spec = excluded.spec
                "#,
                change.name as _,
                spec
            );
            put.execute(conn).await?;
        }
        None => {
            let remove =
                sqlx::query!("DELETE FROM gatepost.policies WHERE name = $1", change.name as _);
            remove.execute(conn).await?;
        }
    }
    Ok(())
}
