//! The audit trail: who changed what, when, from where (invariant 10). A line is written in the transaction of what it
//! tells.

use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;

use crate::error::StoreError;
use crate::sqlite::Store;

/// Who does something, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The person, token or program.
    pub name: String,
    /// `cli`, an address …
    pub source: String,
}

/// A line of the trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// From where.
    pub source: String,
    /// What was done: `endpoint add` …
    pub action: String,
    /// To what.
    pub subject: String,
    /// What exactly.
    pub detail: String,
}

/// Writes a line.
pub(crate) async fn note(
    write: &mut SqliteConnection,
    actor: &Actor,
    now: Timestamp,
    [action, subject, detail]: [&str; 3],
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO audit (at, actor, source, action, subject, detail) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(now.millis())
        .bind(&actor.name)
        .bind(&actor.source)
        .bind(action)
        .bind(subject)
        .bind(detail)
        .execute(write)
        .await
        .map(drop)
}

impl Store {
    /// The newest lines below number `before`, newest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn audit(&self, before: Option<i64>, limit: i64) -> Result<Vec<Line>, StoreError> {
        type Row = (i64, i64, String, String, String, String, String);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT id, at, actor, source, action, subject, detail FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?",
        )
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .map_err(|e| self.fault(&e))?;
        Ok(rows
            .into_iter()
            .map(|(id, at, actor, source, action, subject, detail)| Line {
                id,
                at: Timestamp::from_millis(at),
                actor,
                source,
                action,
                subject,
                detail,
            })
            .collect())
    }

    /// Writes a line of its own, for what is not done in this store.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn note(&self, actor: &Actor, now: Timestamp, line: [&str; 3]) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        note(&mut write, actor, now, line).await.map_err(|e| self.fault(&e))?;
        self.commit(write).await
    }
}
