//! Failed attempts to log in: who guesses is made to wait, longer each time.

use certbus_core::access::{SESSION_IDLE, wait_after};
use certbus_core::time::Timestamp;

use crate::error::StoreError;
use crate::sqlite::Store;

impl Store {
    /// Counts an attempt to log in as a failed one before anybody looks at it, so that many at once are no more than one after
    /// another; [`Store::logged_in`] takes it back. `subjects`: what is tried, each with how many failures cost nothing. Returns
    /// until when none is looked at; None: this one is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn knock(&self, subjects: &[(&str, u32)], now: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let mut write = self.begin().await?;
        let done = async {
            // What is long ago is forgiven.
            sqlx::query("DELETE FROM knock WHERE last_at < ?")
                .bind(now.minus(SESSION_IDLE).millis())
                .execute(&mut *write)
                .await?;
            let mut until = None;
            for (subject, free) in subjects {
                let row: Option<(u32, i64)> = sqlx::query_as("SELECT failures, last_at FROM knock WHERE subject = ?")
                    .bind(subject)
                    .fetch_optional(&mut *write)
                    .await?;
                let wait = |(failures, last)| Timestamp::from_millis(last).plus(wait_after(failures, *free));
                until = until.max(row.map(wait));
            }
            if let Some(until) = until.filter(|until| *until > now) {
                return Ok(Some(until));
            }
            for (subject, _) in subjects {
                sqlx::query(
                    "INSERT INTO knock (subject, failures, last_at) VALUES (?1, 1, ?2)
                     ON CONFLICT (subject) DO UPDATE SET failures = failures + 1, last_at = ?2",
                )
                .bind(subject)
                .bind(now.millis())
                .execute(&mut *write)
                .await?;
            }
            Ok(None)
        };
        let until = done.await.map_err(|e| self.fault(&e))?;
        self.commit(write).await?;
        Ok(until)
    }

    /// Takes back the attempt that succeeded, and forgives `person` those that failed before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn logged_in(&self, person: &str, others: &[&str]) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let done = async {
            sqlx::query("DELETE FROM knock WHERE subject = ?").bind(person).execute(&mut *write).await?;
            for other in others {
                let back = sqlx::query("UPDATE knock SET failures = failures - 1 WHERE subject = ? AND failures > 0");
                back.bind(other).execute(&mut *write).await?;
            }
            Ok(())
        };
        done.await.map_err(|e| self.fault(&e))?;
        self.commit(write).await
    }
}
