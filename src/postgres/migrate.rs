//! The schema: forward only, under an advisory lock, with its own table inside the schema.

use std::collections::HashMap;

use sqlx::PgConnection;
use sqlx::migrate::{Migrate, MigrateError, Migrator};

use super::PostgresError;

const SCHEMA: &str = "gatepost";
const TABLE: &str = "gatepost.schema_migrations";

/// How the database compares with this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// Nothing to do.
    Current,
    /// So many are missing: `gatepost migrate` applies them.
    Pending(usize),
    /// A later version of gatepost applied this one.
    Newer(i64),
    /// This one was applied with another text.
    Altered(i64),
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    migrator.dangerous_set_table_name(TABLE);
    migrator.create_schema(SCHEMA);
    migrator
}

pub(super) async fn run(conn: &mut PgConnection) -> Result<(), PostgresError> {
    migrator().run_direct(None, conn, false).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => PostgresError::Newer(version),
        MigrateError::VersionMismatch(version) => PostgresError::Altered(version),
        MigrateError::Execute(error) => error.into(),
        MigrateError::ExecuteMigration(error, version) => {
            PostgresError::Refused(format!("migration {version}: {error}"))
        }
        other => PostgresError::Refused(other.to_string()),
    })
}

pub(super) async fn state(conn: &mut PgConnection) -> Result<MigrationState, PostgresError> {
    let known = migrator();
    let exists = sqlx::query_scalar!(r#"SELECT to_regclass($1) IS NOT NULL AS "exists!""#, TABLE);
    if !exists.fetch_one(&mut *conn).await? {
        return Ok(MigrationState::Pending(known.iter().count()));
    }
    let applied = conn.list_applied_migrations(TABLE).await;
    let applied = applied.map_err(|error| PostgresError::Refused(error.to_string()))?;
    if let Some(newer) = applied.iter().find(|applied| !known.version_exists(applied.version)) {
        return Ok(MigrationState::Newer(newer.version));
    }
    let applied: HashMap<_, _> = applied.into_iter().map(|a| (a.version, a.checksum)).collect();
    let mut missing = 0;
    for migration in known.iter() {
        match applied.get(&migration.version) {
            Some(checksum) if *checksum == migration.checksum => {}
            Some(_) => return Ok(MigrationState::Altered(migration.version)),
            None => missing += 1,
        }
    }
    Ok(if missing == 0 { MigrationState::Current } else { MigrationState::Pending(missing) })
}
