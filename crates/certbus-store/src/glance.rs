//! What a person needs to know first: how many endpoints want something, which of them most, and whether polls are made.
//! Each answer is bounded, however many there are.

use std::collections::HashMap;
use std::time::Duration;

use certbus_core::time::Timestamp;
use serde::Serialize;

use crate::error::StoreError;
use crate::listing::{Listed, Query, State};
use crate::sqlite::{self, Store};

/// What is counted is counted so far, and is `at least` beyond.
pub const COUNTED: i64 = 1000;

/// A poll that is later than this is late.
const LATE: Duration = Duration::from_secs(120);

/// The state of all endpoints in a few numbers. None is counted beyond [`COUNTED`], but those of `endpoints` and `active`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Glance {
    /// All that are registered.
    pub endpoints: i64,
    /// Those that are polled.
    pub active: i64,
    /// Those that want something of a person.
    pub needing: i64,
    /// A certificate of theirs is out of time.
    pub expired: i64,
    /// Somebody should have renewed it.
    pub overdue: i64,
    /// Their polls fail.
    pub failing: i64,
    /// They serve a version that was replaced.
    pub older: i64,
    /// They serve another certificate than was issued for them.
    pub another: i64,
    /// Nothing was seen of them yet.
    pub unseen: i64,
    /// Overdue within 24 hours, if nobody renews.
    pub overdue_in_a_day: i64,
    /// Overdue within 7 days.
    pub overdue_in_a_week: i64,
    /// Seen, and not for a managed certificate.
    pub unmanaged: i64,
    /// When the next certificate that is still good expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_expiry: Option<Timestamp>,
    /// Polls that are late by more than two minutes.
    pub late: i64,
    /// Since when the poll that is due longest is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_since: Option<Timestamp>,
    /// When a poll was last stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub polled_at: Option<Timestamp>,
}

/// What makes an endpoint want something of a person, at `?1`.
const WANTING: [&str; 5] = [
    "expires_at <= ?1",
    "overdue_at <= ?1",
    "failing_since IS NOT NULL AND ?1",
    "serves = 'older-version' AND ?1",
    "serves = 'another' AND ?1",
];

/// Those of which this is true, so far as [`COUNTED`]: read from an index alone.
fn some(condition: &str) -> String {
    format!("SELECT id FROM endpoint WHERE {condition} AND active LIMIT {COUNTED}")
}

fn any_of_wanting() -> String {
    WANTING.map(|condition| format!("SELECT id FROM ({})", some(condition))).join(" UNION ")
}

impl Store {
    /// All of it, read at one moment.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn glance(&self, now: Timestamp) -> Result<Glance, StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        let sites = self.sites().await?;
        let mut read = self.readers().begin().await.map_err(fault)?;
        let (today, week) = (now.plus(Duration::from_secs(86_400)), now.plus(Duration::from_secs(7 * 86_400)));
        let others = [
            "certificate IS NULL AND failing_since IS NULL AND ?1",
            "overdue_at > ?1 AND overdue_at <= ?2",
            "overdue_at > ?1 AND overdue_at <= ?3",
        ];
        let each = WANTING.iter().chain(&others).map(|condition| some(condition));
        let mut counts = Vec::new();
        for found in [any_of_wanting()].into_iter().chain(each) {
            let statement = format!("SELECT min(count(*), {COUNTED}) FROM ({found})");
            let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
                .bind(now.millis())
                .bind(today.millis())
                .bind(week.millis())
                .fetch_one(&mut *read)
                .await
                .map_err(fault)?;
            counts.push(count);
        }
        let tallies: Vec<(String, i64)> =
            sqlx::query_as("SELECT what, endpoints FROM tally").fetch_all(&mut *read).await.map_err(fault)?;
        let tally = |name: &str| tallies.iter().find(|(what, _)| what == name).map_or(0, |(_, count)| *count);
        let next: Option<i64> = sqlx::query_scalar(
            "SELECT expires_at FROM endpoint WHERE expires_at > ? AND active ORDER BY expires_at LIMIT 1",
        )
        .bind(now.millis())
        .fetch_optional(&mut *read)
        .await
        .map_err(fault)?;
        let (mut late, mut behind): (i64, Option<i64>) = (0, None);
        for site in &sites {
            let (some, first): (i64, Option<i64>) = sqlx::query_as(
                "SELECT count(*), min(next_at) FROM (SELECT next_at FROM schedule WHERE site = ? AND next_at < ?
                 ORDER BY next_at LIMIT ?)",
            )
            .bind(site)
            .bind(now.minus(LATE).millis())
            .bind(COUNTED)
            .fetch_one(&mut *read)
            .await
            .map_err(fault)?;
            late += some;
            behind = [behind, first].into_iter().flatten().min();
        }
        // A poll that was asked for is made by a worker of its site, if there is one.
        let asked: Option<i64> = sqlx::query_scalar(
            "SELECT min(added_at) FROM task WHERE lane >= 'poll/' AND lane < 'poll0' AND dead_at IS NULL AND added_at < ?",
        )
        .bind(now.minus(LATE).millis())
        .fetch_one(&mut *read)
        .await
        .map_err(fault)?;
        behind = [behind, asked].into_iter().flatten().min();
        let polled: Option<i64> = sqlx::query_scalar("SELECT at FROM moment WHERE what = 'polled'")
            .fetch_optional(&mut *read)
            .await
            .map_err(fault)?;
        let mut counts = counts.into_iter();
        let mut next_count = || counts.next().unwrap_or_default();
        Ok(Glance {
            endpoints: tally("endpoints"),
            active: tally("active"),
            needing: next_count(),
            expired: next_count(),
            overdue: next_count(),
            failing: next_count(),
            older: next_count(),
            another: next_count(),
            unseen: next_count(),
            overdue_in_a_day: next_count(),
            overdue_in_a_week: next_count(),
            unmanaged: tally("unmanaged"),
            next_expiry: next.map(Timestamp::from_millis),
            late,
            behind_since: behind.map(Timestamp::from_millis),
            polled_at: polled.map(Timestamp::from_millis),
        })
    }

    /// The endpoints that want something of a person, the most urgent first: those that visitors see an error of now, then by
    /// how long it is until they do.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn needing(&self, within: &Query, now: Timestamp, limit: i64) -> Result<Vec<Listed>, StoreError> {
        let mut found: Vec<Listed> = Vec::new();
        for state in [State::Expired, State::Failing, State::OlderVersion, State::Another, State::Overdue] {
            let query = Query { state: Some(state), soonest: true, limit, ..within.clone() };
            for row in self.endpoints(&query, now).await?.rows {
                if !found.iter().any(|other| other.stored.id == row.stored.id) {
                    found.push(row);
                }
            }
        }
        found.sort_by_key(|row| (row.slack, row.expires_at, row.failing_since, row.stored.id));
        found.truncate(usize::try_from(limit).unwrap_or_default());
        Ok(found)
    }
}

/// How many of an endpoint's nodes it concerns, and what comes next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Affected {
    /// Nodes that it has now, each site apart.
    pub nodes: i64,
    /// Those whose last polls failed.
    pub failing: i64,
    /// Those whose certificate is out of time.
    pub expired: i64,
    /// Those with the certificate of the endpoint that expires first.
    pub first: i64,
    /// What the last failed poll said.
    pub why: String,
    /// When it is polled next.
    pub next: Option<Timestamp>,
}

impl Store {
    /// How many managed certificates no endpoint is known for, counted so far as [`COUNTED`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn never_seen(&self, tenant: &str) -> Result<i64, StoreError> {
        sqlx::query_scalar(
            "SELECT count(*) FROM (SELECT 1 FROM managed m WHERE m.tenant = ? AND NOT EXISTS
                 (SELECT 1 FROM endpoint e WHERE e.managed = m.tenant || '/' || m.id AND e.certificate IS NOT NULL) LIMIT ?)",
        )
        .bind(tenant)
        .bind(COUNTED)
        .fetch_one(self.readers())
        .await
        .map_err(|e| self.fault(&e))
    }

    /// See [`Affected`], for each of these endpoints.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn affected(&self, ids: &[i64], now: Timestamp) -> Result<HashMap<i64, Affected>, StoreError> {
        type Row = (i64, i64, i64, i64, i64, String, Option<i64>);
        let fault = |e: sqlx::Error| self.fault(&e);
        let rows: Vec<Row> = sqlite::many(
            &mut *self.readers().acquire().await.map_err(fault)?,
            "SELECT json_group_array(json_array(id, nodes, failing, expired, first, why, next)) FROM (
                 SELECT e.id, count(n.endpoint) AS nodes, sum(n.failure IS NOT NULL) AS failing,
                     coalesce(sum(c.not_after <= ?1 ->> 0), 0) AS expired,
                     coalesce(sum(n.certificate = e.certificate), 0) AS first,
                     coalesce(max(CASE WHEN n.failure IS NULL THEN NULL ELSE n.why END), '') AS why,
                     (SELECT min(next_at) FROM schedule WHERE schedule.endpoint = e.id AND e.active) AS next
                 FROM endpoint e JOIN node n ON n.endpoint = e.id AND n.gone_at IS NULL
                 LEFT JOIN certificate c ON c.id = n.certificate
                 WHERE e.id IN (SELECT value FROM json_each(?1, '$[1]')) GROUP BY e.id)",
            &serde_json::to_string(&(now.millis(), ids)).unwrap_or_default(),
        )
        .await
        .map_err(fault)?;
        let affected = |(id, nodes, failing, expired, first, why, next): Row| {
            (id, Affected { nodes, failing, expired, first, why, next: next.map(Timestamp::from_millis) })
        };
        Ok(rows.into_iter().map(affected).collect())
    }

    /// How many of those that want something are of each tag, owner or site, the most first. Where more than [`COUNTED`] want
    /// something it is of some of them.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn needing_by(&self, by: Group, now: Timestamp, limit: i64) -> Result<Vec<(String, i64)>, StoreError> {
        let (column, table, id) = match by {
            Group::Tag => ("tag", "endpoint_tag", "endpoint"),
            Group::Owner => ("owner", "endpoint", "id"),
            Group::Site => ("site", "schedule", "endpoint"),
        };
        sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT {column}, count(*) FROM ({}) AS wanting CROSS JOIN {table} AS of ON of.{id} = wanting.id
             WHERE {column} <> '' GROUP BY {column} ORDER BY count(*) DESC, {column} LIMIT ?2",
            any_of_wanting()
        )))
        .bind(now.millis())
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .map_err(|e| self.fault(&e))
    }

    /// The tags, owners or sites that there are, the first of them by name: one look-up in an index for each.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn groups(&self, by: Group, limit: i64) -> Result<Vec<String>, StoreError> {
        let (column, table) = match by {
            Group::Tag => ("tag", "endpoint_tag"),
            Group::Owner => ("owner", "endpoint"),
            Group::Site => ("site", "schedule"),
        };
        sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "WITH RECURSIVE found(name) AS (SELECT min({column}) FROM {table} WHERE {column} <> ''
             UNION ALL SELECT (SELECT min({column}) FROM {table} WHERE {column} > found.name AND {column} <> '')
                 FROM found WHERE name IS NOT NULL LIMIT ?)
             SELECT name FROM found WHERE name IS NOT NULL"
        )))
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .map_err(|e| self.fault(&e))
    }
}

/// What endpoints are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Their tags.
    Tag,
    /// Their owners.
    Owner,
    /// The sites that they are polled from.
    Site,
}
