//! The embedded queue: rows of the inventory, leased by compare-and-swap.

use std::time::Duration;

use certbus_core::time::Timestamp;
use futures::future::{BoxFuture, FutureExt};

use super::{ATTEMPTS, Leased, NewTask, Place, Shown, TaskQueue, TaskState, retry_after};
use crate::error::StoreError;
use crate::sqlite::Store;

impl TaskQueue for Store {
    fn add<'a>(&'a self, tasks: &'a [NewTask], now: Timestamp) -> BoxFuture<'a, Result<usize, StoreError>> {
        async move {
            let mut write = self.begin().await?;
            let mut added = 0;
            for task in tasks {
                let done = sqlx::query(
                    "INSERT INTO task (lane, key, body, attempts, ready_at, lease, leased, why, added_at)
                     VALUES (?1, ?2, ?3, 0, ?4, 0, 0, '', ?4) ON CONFLICT (key) DO NOTHING",
                )
                .bind(&task.lane)
                .bind(&task.key)
                .bind(&task.body)
                .bind(now.millis())
                .execute(&mut *write)
                .await
                .map_err(|e| self.fault(&e))?;
                added += usize::try_from(done.rows_affected()).unwrap_or_default();
            }
            self.commit(write).await?;
            Ok(added)
        }
        .boxed()
    }

    fn lease<'a>(
        &'a self,
        lane: &'a str,
        many: usize,
        now: Timestamp,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Vec<Leased>, StoreError>> {
        async move {
            let fault = |e: sqlx::Error| self.fault(&e);
            // Looked at without the lock of writers: mostly there is nothing.
            let ready: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM (SELECT 1 FROM task WHERE lane = ? AND dead_at IS NULL AND ready_at <= ? LIMIT 1)",
            )
            .bind(lane)
            .bind(now.millis())
            .fetch_one(self.readers())
            .await
            .map_err(fault)?;
            if ready == 0 {
                return Ok(Vec::new());
            }
            let mut write = self.begin().await?;
            // Who was killed again and again in the middle of it will be killed by it once more.
            sqlx::query(
                "UPDATE task SET dead_at = ?1, key = NULL, why = CASE why WHEN '' THEN 'its workers ended in the middle of it'
                 ELSE why END WHERE lane = ?2 AND dead_at IS NULL AND ready_at <= ?1 AND attempts >= ?3",
            )
            .bind(now.millis())
            .bind(lane)
            .bind(ATTEMPTS)
            .execute(&mut *write)
            .await
            .map_err(fault)?;
            let rows: Vec<(i64, i64, u32, String)> = sqlx::query_as(
                "UPDATE task SET lease = lease + 1, leased = 1, attempts = attempts + 1, ready_at = ?1 WHERE id IN
                     (SELECT id FROM task WHERE lane = ?2 AND dead_at IS NULL AND ready_at <= ?3 ORDER BY ready_at, id LIMIT ?4)
                 RETURNING id, lease, attempts, body",
            )
            .bind(now.plus(lease).millis())
            .bind(lane)
            .bind(now.millis())
            .bind(i64::try_from(many).unwrap_or(i64::MAX))
            .fetch_all(&mut *write)
            .await
            .map_err(fault)?;
            self.commit(write).await?;
            let mut leased: Vec<Leased> =
                rows.into_iter().map(|(id, lease, attempt, body)| Leased { id, lease, attempt, body }).collect();
            leased.sort_by_key(|task| task.id);
            Ok(leased)
        }
        .boxed()
    }

    fn waiting<'a>(&'a self, lane: &'a str) -> BoxFuture<'a, Result<usize, StoreError>> {
        async move {
            let waiting: i64 =
                sqlx::query_scalar("SELECT count(*) FROM task WHERE lane = ? AND dead_at IS NULL AND leased = 0")
                    .bind(lane)
                    .fetch_one(self.readers())
                    .await
                    .map_err(|e| self.fault(&e))?;
            Ok(usize::try_from(waiting).unwrap_or_default())
        }
        .boxed()
    }

    fn extend<'a>(
        &'a self,
        task: &'a Leased,
        now: Timestamp,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let change = sqlx::query("UPDATE task SET ready_at = ? WHERE id = ? AND lease = ? AND dead_at IS NULL")
                .bind(now.plus(lease).millis())
                .bind(task.id)
                .bind(task.lease);
            self.changes_one(change).await
        }
        .boxed()
    }

    fn done<'a>(&'a self, task: &'a Leased) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let change = sqlx::query("DELETE FROM task WHERE id = ? AND lease = ? AND dead_at IS NULL")
                .bind(task.id)
                .bind(task.lease);
            self.changes_one(change).await
        }
        .boxed()
    }

    fn failed<'a>(&'a self, task: &'a Leased, why: &'a str, now: Timestamp) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let given_up = task.attempt >= ATTEMPTS;
            let change = sqlx::query(
                "UPDATE task SET ready_at = ?1, leased = 0, why = ?2, dead_at = CASE WHEN ?3 THEN ?4 END,
                 key = CASE WHEN ?3 THEN NULL ELSE key END
                 WHERE id = ?5 AND lease = ?6 AND dead_at IS NULL",
            )
            .bind(now.plus(retry_after(task.attempt)).millis())
            .bind(why)
            .bind(given_up)
            .bind(now.millis())
            .bind(task.id)
            .bind(task.lease);
            self.changes_one(change).await
        }
        .boxed()
    }

    fn list<'a>(
        &'a self,
        now: Timestamp,
        after: Option<Place>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Shown>, StoreError>> {
        async move {
            type Row = (i64, String, String, u32, i64, Option<i64>, String, i64, bool);
            let rows: Vec<Row> = sqlx::query_as(
                "SELECT id, lane, body, attempts, ready_at, dead_at, why, added_at, leased FROM task
                 WHERE (dead_at IS NULL, id) > (?, ?) ORDER BY dead_at IS NULL, id LIMIT ?",
            )
            .bind(after.map_or(-1, |after| i64::from(!after.dead)))
            .bind(after.map_or(0, |after| after.id))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(self.readers())
            .await
            .map_err(|e| self.fault(&e))?;
            let shown = rows.into_iter().map(|(id, lane, body, attempts, ready, dead, why, added, leased)| Shown {
                id,
                lane,
                body,
                attempts,
                state: match dead {
                    Some(_) => TaskState::Dead,
                    None if leased && ready > now.millis() => TaskState::UnderWay,
                    None => TaskState::Waiting,
                },
                ready_at: Timestamp::from_millis(ready),
                why,
                added_at: Timestamp::from_millis(added),
            });
            Ok(shown.collect())
        }
        .boxed()
    }

    fn revive<'a>(&'a self, id: i64, now: Timestamp) -> BoxFuture<'a, Result<bool, StoreError>> {
        async move {
            let change = sqlx::query(
                "UPDATE task SET dead_at = NULL, leased = 0, attempts = 0, why = '', ready_at = ? WHERE id = ? AND dead_at IS NOT NULL",
            )
            .bind(now.millis())
            .bind(id);
            self.changes_one(change).await
        }
        .boxed()
    }
}
