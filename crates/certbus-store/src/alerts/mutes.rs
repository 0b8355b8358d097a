//! What nobody wants to be told of, and until when.

use certbus_core::alert::Kind;
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;

use crate::audit::{Actor, note};
use crate::error::StoreError;
use crate::sqlite::Store;

/// What a key is about, if it ends with a kind of problem.
fn known_kind(key: &str) -> Option<&str> {
    key.rsplit_once('/').filter(|(_, kind)| kind.parse::<Kind>().is_ok()).map(|(about, _)| about)
}

/// What is not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mute {
    /// A problem's key, or the begin of keys up to a slash: `endpoint/12`.
    pub subject: String,
    /// Until when, if not for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Who said so.
    pub actor: String,
    /// When.
    pub at: Timestamp,
}

impl Store {
    /// Has nobody told of the problems that `subject` means, until `until`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] if there is neither such a problem nor such an endpoint, [`StoreError::Unavailable`].
    pub async fn mute(
        &self,
        subject: &str,
        until: Option<Timestamp>,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let subject = subject.trim_end_matches('/');
        let mut write = self.begin().await?;
        let done = async {
            let known: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT 1 FROM problem WHERE key = ?1 OR (key > ?1 || '/' AND key < ?1 || '0'))
                     OR EXISTS (SELECT 1 FROM endpoint WHERE 'endpoint/' || id = ?2 AND id = CAST(substr(?2, 10) AS INTEGER))
                     OR EXISTS (SELECT 1 FROM managed WHERE 'managed/' || tenant || '/' || id = ?2)
                     OR EXISTS (SELECT 1 FROM projection WHERE 'managed/' || tenant = ?2)
                     OR ?2 IN ('scheduler', 'endpoint', 'managed')",
            )
            .bind(subject)
            // What is there may be muted before it has a problem.
            .bind(known_kind(subject).unwrap_or(subject))
            .fetch_one(&mut *write)
            .await?;
            if !known {
                return Ok(false);
            }
            sqlx::query("INSERT OR REPLACE INTO mute (subject, until, actor, at) VALUES (?, ?, ?, ?)")
                .bind(subject)
                .bind(until.map(Timestamp::millis))
                .bind(&actor.name)
                .bind(now.millis())
                .execute(&mut *write)
                .await?;
            let detail = until.map_or_else(String::new, |until| format!("until {until}"));
            note(&mut write, actor, now, ["alert mute", subject, &detail]).await?;
            Ok(true)
        };
        match done.await.map_err(|e| self.fault(&e))? {
            true => self.commit(write).await,
            false => {
                let what = format!("problem or endpoint `{subject}`; `certbus alert ls` lists problems");
                Err(StoreError::NotFound { what })
            }
        }
    }

    /// Has people told again.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Unavailable`].
    pub async fn unmute(&self, subject: &str, actor: &Actor, now: Timestamp) -> Result<(), StoreError> {
        let subject = subject.trim_end_matches('/');
        let mut write = self.begin().await?;
        let done = async {
            let gone = sqlx::query("DELETE FROM mute WHERE subject = ?").bind(subject).execute(&mut *write).await?;
            if gone.rows_affected() == 0 {
                return Ok(false);
            }
            note(&mut write, actor, now, ["alert unmute", subject, ""]).await?;
            Ok(true)
        };
        match done.await.map_err(|e| self.fault(&e))? {
            true => self.commit(write).await,
            false => Err(StoreError::NotFound { what: format!("mute of `{subject}`; `certbus alert ls` lists them") }),
        }
    }

    /// What is muted at `now`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn mutes(&self, now: Timestamp) -> Result<Vec<Mute>, StoreError> {
        let rows: Vec<(String, Option<i64>, String, i64)> = sqlx::query_as(
            "SELECT subject, until, actor, at FROM mute WHERE until IS NULL OR until > ? ORDER BY subject LIMIT 1000",
        )
        .bind(now.millis())
        .fetch_all(self.readers())
        .await
        .map_err(|e| self.fault(&e))?;
        let mute = |(subject, until, actor, at): (String, Option<i64>, String, i64)| Mute {
            subject,
            until: until.map(Timestamp::from_millis),
            actor,
            at: Timestamp::from_millis(at),
        };
        Ok(rows.into_iter().map(mute).collect())
    }
}

/// The subjects that are muted at `now`.
pub(super) async fn now(read: &mut SqliteConnection, now: Timestamp) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT subject FROM mute WHERE until IS NULL OR until > ?")
        .bind(now.millis())
        .fetch_all(read)
        .await
}
