//! Which endpoints are to be polled, and roles that one process at a time has. When is core's (`polling`).

use std::time::Duration;

use certbus_core::endpoint::Endpoint;
use certbus_core::polling::{interval, next_poll};
use certbus_core::time::Timestamp;

use crate::endpoints::stored;
use crate::error::StoreError;
use crate::sqlite::{self, Store};

/// Whoever has a role for longer had a clock that was ahead.
const LONGEST_ROLE: Duration = Duration::from_secs(3600);

/// An endpoint whose moment has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuePoll {
    /// Its number.
    pub endpoint: i64,
    /// From where.
    pub site: String,
    /// Since when.
    pub since: Timestamp,
    /// When it is polled after this.
    pub next: Timestamp,
}

impl Store {
    /// What is to be polled from a site at `now`, the longest due first. Nothing is changed: [`Store::polled`] says that it is
    /// under way.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn due_polls(&self, site: &str, now: Timestamp, limit: usize) -> Result<Vec<DuePoll>, StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        type Row = (i64, i64, Option<u64>, Option<i64>, Option<(i64, i64)>);
        let rows: Vec<Row> = sqlite::many(
            &mut *self.readers().acquire().await.map_err(fault)?,
            "SELECT json_group_array(json_array(due.endpoint, next_at, every, overdue_at,
                 iif(not_after IS NULL, NULL, json_array(not_before, not_after))))
             FROM (SELECT endpoint, next_at FROM schedule WHERE site = ?1 ->> 0 AND next_at <= ?1 ->> 1
                 ORDER BY next_at LIMIT ?1 ->> 2) AS due
             JOIN endpoint ON endpoint.id = due.endpoint
             LEFT JOIN certificate ON certificate.id = endpoint.certificate",
            &serde_json::to_string(&(site, now.millis(), limit)).unwrap_or_default(),
        )
        .await
        .map_err(fault)?;
        let at = Timestamp::from_millis;
        let due = |(endpoint, since, every, overdue, life): Row| {
            let life = life.map(|(begin, end)| at(end).since(at(begin)));
            let every = interval(every.map(Duration::from_secs), life, overdue.is_some_and(|from| at(from) <= now));
            let next = next_poll(endpoint, site, every, now);
            DuePoll { endpoint, site: site.to_owned(), since: at(since), next }
        };
        Ok(rows.into_iter().map(due).collect())
    }

    /// Says that these are under way, unless something has moved them since they were read.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn polled(&self, due: &[DuePoll]) -> Result<(), StoreError> {
        let rows: Vec<_> =
            due.iter().map(|one| (one.endpoint, &one.site, one.since.millis(), one.next.millis())).collect();
        let mut write = self.begin().await?;
        sqlx::query(
            "UPDATE schedule SET next_at = due.next FROM (SELECT value ->> 0 AS endpoint, value ->> 1 AS site,
                 value ->> 2 AS since, value ->> 3 AS next FROM json_each(?)) AS due
             WHERE schedule.endpoint = due.endpoint AND schedule.site = due.site AND schedule.next_at = due.since",
        )
        .bind(serde_json::to_string(&rows).unwrap_or_default())
        .execute(&mut *write)
        .await
        .map_err(|e| self.fault(&e))?;
        self.commit(write).await
    }

    /// These endpoints, as far as they are there: what a poll needs to know of them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn to_poll(&self, ids: &[i64]) -> Result<Vec<(i64, Endpoint)>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, name, host, port, sni, starttls, owner, active, every, revision, added_at, '' AS tags, '' AS sites
             FROM endpoint WHERE id IN (SELECT value FROM json_each(?))",
        )
        .bind(serde_json::to_string(ids).unwrap_or_default())
        .fetch_all(self.readers())
        .await
        .map_err(|e| self.fault(&e))?;
        let read = rows.iter().map(|row| stored(row).map(|stored| (stored.id, stored.endpoint)));
        read.collect::<Result<_, _>>().map_err(|e| self.fault(&e))
    }

    /// Takes a role, or keeps it, until `until`. False: another has it. It only saves work: whoever acts without it by
    /// mistake does nothing wrong.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn take_role(
        &self,
        role: &str,
        holder: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool, StoreError> {
        let taken = sqlx::query(
            "INSERT INTO role (role, holder, until) VALUES (?1, ?2, ?4)
             ON CONFLICT (role) DO UPDATE SET holder = ?2, until = ?4 WHERE holder = ?2 OR until <= ?3 OR until > ?5",
        )
        .bind(role)
        .bind(holder)
        .bind(now.millis())
        .bind(until.millis())
        .bind(now.plus(LONGEST_ROLE).millis());
        self.changes_one(taken).await
    }

    /// Gives a role back, if it is had.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn leave_role(&self, role: &str, holder: &str) -> Result<(), StoreError> {
        let left = sqlx::query("DELETE FROM role WHERE role = ? AND holder = ?").bind(role).bind(holder);
        self.changes_one(left).await.map(drop)
    }

    /// When the endpoint whose moment has come longest ago was due: how far behind polling is. None: nothing is due.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn poll_lag(&self, now: Timestamp) -> Result<Option<Duration>, StoreError> {
        let mut lag = None;
        for site in self.sites().await? {
            let first: Option<i64> = sqlx::query_scalar("SELECT min(next_at) FROM schedule WHERE site = ?")
                .bind(site)
                .fetch_one(self.readers())
                .await
                .map_err(|e| self.fault(&e))?;
            let due = first.map(Timestamp::from_millis).filter(|first| *first <= now);
            lag = lag.max(due.map(|due| now.since(due)));
        }
        Ok(lag)
    }

    /// Every site that something is polled from: one look-up in the index for each.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn sites(&self) -> Result<Vec<String>, StoreError> {
        sqlx::query_scalar(
            "WITH RECURSIVE site(name) AS (SELECT min(site) FROM schedule
             UNION ALL SELECT (SELECT min(site) FROM schedule WHERE site > name) FROM site WHERE name IS NOT NULL)
             SELECT name FROM site WHERE name IS NOT NULL",
        )
        .fetch_all(self.readers())
        .await
        .map_err(|e| self.fault(&e))
    }
}
