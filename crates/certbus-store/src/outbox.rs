//! Messages on their way: written with what they tell, kept until each destination has them or they are given up. To one
//! destination they go in order. Sending is at-least-once: a message has one id in every attempt.

use certbus_core::alert::Message;
use certbus_core::alert::retry::KEPT;
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;

use crate::audit::{Actor, note};
use crate::error::StoreError;
use crate::sqlite::Store;

/// Messages are kept for so many days, for people to look at.
const REMEMBERED: i64 = 90 * 86_400_000;

/// No message waits longer than this for its next attempt: a moment that is further off was set by a clock that was ahead.
const LONGEST_WAIT: i64 = 3_600_000;

/// A message that is to go to a destination now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its number.
    pub message: i64,
    /// What it is known by, in every attempt.
    pub uid: String,
    /// Whose.
    pub tenant: String,
    /// Where it goes.
    pub destination: String,
    /// Which attempt this is: 1, 2 …
    pub attempt: u32,
    /// What it says.
    pub body: Message,
}

/// A message at a destination, as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged {
    /// Its number.
    pub message: i64,
    /// When it was written.
    pub at: Timestamp,
    /// `opened`, `reminder`, `over`, `digest`, `test`.
    pub event: String,
    /// Its line.
    pub title: String,
    /// Where it goes; empty: it is not known yet.
    pub destination: String,
    /// `waiting`, `delivered` or `given-up`.
    pub state: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was delivered, or given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why the last attempt failed, or what was remarkable.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}

impl Store {
    /// The oldest message that a destination has not got, if it is to be tried at `now`; a new test before all others.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn next_delivery(
        &self,
        tenant: &str,
        destination: &str,
        now: Timestamp,
    ) -> Result<Option<Delivery>, StoreError> {
        // A test that was not tried yet goes past what waits: who asks wants to know now.
        let queries = [
            "SELECT d.message, m.uid, d.attempts, d.ready_at, m.body
             FROM message m INDEXED BY message_test CROSS JOIN delivery d ON d.message = m.id
             WHERE m.event = 'test' AND d.tenant = ? AND d.destination = ? AND d.ended_at IS NULL AND d.attempts = 0
             ORDER BY m.id LIMIT 1",
            "SELECT d.message, m.uid, d.attempts, d.ready_at, m.body
             FROM delivery d INDEXED BY delivery_open JOIN message m ON m.id = d.message
             WHERE d.tenant = ? AND d.destination = ? AND d.ended_at IS NULL ORDER BY d.message LIMIT 1",
        ];
        let mut row: Option<(i64, String, u32, i64, String)> = None;
        for query in queries {
            if row.is_none() {
                let found = sqlx::query_as(query).bind(tenant).bind(destination).fetch_optional(self.readers()).await;
                row = found.map_err(|e| self.fault(&e))?;
            }
        }
        let Some((message, uid, attempts, ready_at, body)) = row else { return Ok(None) };
        if (0..LONGEST_WAIT).contains(&(ready_at - now.millis() - 1)) {
            return Ok(None);
        }
        let body = serde_json::from_str(&body).map_err(|e| self.fault(&sqlx::Error::Decode(e.into())))?;
        let (tenant, destination) = (tenant.to_owned(), destination.to_owned());
        Ok(Some(Delivery { message, uid, tenant, destination, attempt: attempts.saturating_add(1), body }))
    }

    /// The destination has it; `remark` says what was remarkable. False: it had ended before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn delivered(&self, delivery: &Delivery, remark: &str, now: Timestamp) -> Result<bool, StoreError> {
        self.ended(delivery, "delivered", remark, now).await
    }

    /// The attempt failed: it is tried again at `retry_at`, or given up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn undelivered(
        &self,
        delivery: &Delivery,
        why: &str,
        retry_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let Some(at) = retry_at else { return self.ended(delivery, "given-up", why, now).await };
        let waits = sqlx::query(
            "UPDATE delivery SET attempts = ?, ready_at = ?, why = ?
             WHERE tenant = ? AND destination = ? AND message = ? AND ended_at IS NULL",
        )
        .bind(delivery.attempt)
        .bind(at.millis())
        .bind(why)
        .bind(&delivery.tenant)
        .bind(&delivery.destination)
        .bind(delivery.message);
        self.changes_one(waits).await
    }

    async fn ended(&self, delivery: &Delivery, state: &str, why: &str, now: Timestamp) -> Result<bool, StoreError> {
        let ended = sqlx::query(
            "UPDATE delivery SET attempts = ?, ended_at = ?, state = ?, why = ?
             WHERE tenant = ? AND destination = ? AND message = ? AND ended_at IS NULL",
        )
        .bind(delivery.attempt)
        .bind(now.millis())
        .bind(state)
        .bind(why)
        .bind(&delivery.tenant)
        .bind(&delivery.destination)
        .bind(delivery.message);
        self.changes_one(ended).await
    }

    /// What was sent and what waits, the newest first: of `limit` messages below number `before`, each with all of its
    /// destinations. With it, the number below which there are more.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn delivery_log(
        &self,
        before: Option<i64>,
        limit: i64,
    ) -> Result<(Vec<Logged>, Option<i64>), StoreError> {
        type Row = (i64, i64, String, String, String, String, u32, Option<i64>, String);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT m.id, m.at, m.event, m.title, coalesce(d.destination, ''), coalesce(d.state, 'waiting'),
                 coalesce(d.attempts, 0), d.ended_at, coalesce(d.why, '')
             FROM message m LEFT JOIN delivery d ON d.message = m.id
             WHERE m.id IN (SELECT id FROM message WHERE id < ? ORDER BY id DESC LIMIT ?) ORDER BY m.id DESC, d.destination",
        )
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .map_err(|e| self.fault(&e))?;
        let logged = |(message, at, event, title, destination, state, attempts, ended, why): Row| Logged {
            message,
            at: Timestamp::from_millis(at),
            event,
            title,
            destination,
            state,
            attempts,
            ended_at: ended.map(Timestamp::from_millis),
            why,
        };
        let rows: Vec<Logged> = rows.into_iter().map(logged).collect();
        let messages = rows.chunk_by(|one, other| one.message == other.message).count() as i64;
        let next = rows.last().map(|last| last.message).filter(|_| messages == limit);
        Ok((rows, next))
    }

    /// Asks for a test message; whoever knows the destinations sends it. Returns its number, by which the log shows it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn ask_for_test(&self, tenant: &str, actor: &Actor, now: Timestamp) -> Result<i64, StoreError> {
        let mut write = self.begin().await?;
        let done = async {
            let id = insert(&mut write, tenant, &Message::test(now), false).await?;
            note(&mut write, actor, now, ["alert test", tenant, ""]).await?;
            Ok(id)
        };
        let id = done.await.map_err(|e| self.fault(&e))?;
        self.commit(write).await?;
        Ok(id)
    }

    /// Writes a test message to a destination that is tried at once, beside what waits for it; the caller says how it ended.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn test_now(
        &self,
        tenant: &str,
        destination: &str,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Delivery, StoreError> {
        let mut write = self.begin().await?;
        let body = Message::test(now);
        let done = async {
            let message = self::write(&mut write, tenant, &body, &[destination.to_owned()]).await?;
            // Nobody else tries it meanwhile.
            sqlx::query("UPDATE delivery SET ended_at = ?, state = 'given-up', why = 'interrupted' WHERE message = ?")
                .bind(now.millis())
                .bind(message)
                .execute(&mut *write)
                .await?;
            note(&mut write, actor, now, ["alert test", destination, ""]).await?;
            let uid = sqlx::query_scalar("SELECT uid FROM message WHERE id = ?").bind(message);
            Ok((message, uid.fetch_one(&mut *write).await?))
        };
        let (message, uid) = done.await.map_err(|e| self.fault(&e))?;
        self.commit(write).await?;
        let (tenant, destination) = (tenant.to_owned(), destination.to_owned());
        Ok(Delivery { message, uid, tenant, destination, attempt: 1, body })
    }

    /// How a test ended that was tried at once: None if it was delivered, else why not.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn tested(&self, delivery: &Delivery, why: Option<&str>, now: Timestamp) -> Result<(), StoreError> {
        let ended = sqlx::query(
            "UPDATE delivery SET attempts = 1, ended_at = ?, state = ?, why = ?
             WHERE tenant = ? AND destination = ? AND message = ?",
        )
        .bind(now.millis())
        .bind(if why.is_none() { "delivered" } else { "given-up" })
        .bind(why.unwrap_or_default())
        .bind(&delivery.tenant)
        .bind(&delivery.destination)
        .bind(delivery.message);
        self.changes_one(ended).await.map(drop)
    }
}

/// Writes a message, to go to these destinations. Returns its number.
pub(crate) async fn write(
    write: &mut SqliteConnection,
    tenant: &str,
    message: &Message,
    destinations: &[String],
) -> Result<i64, sqlx::Error> {
    let id = insert(write, tenant, message, true).await?;
    send_to(write, tenant, id, message.at.millis(), destinations).await?;
    Ok(id)
}

async fn insert(
    write: &mut SqliteConnection,
    tenant: &str,
    message: &Message,
    placed: bool,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO message (uid, tenant, at, event, title, body, placed)
         VALUES (lower(hex(randomblob(16))), ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(tenant)
    .bind(message.at.millis())
    .bind(message.event.as_str())
    .bind(&message.title)
    .bind(serde_json::to_string(message).unwrap_or_default())
    .bind(placed)
    .fetch_one(write)
    .await
}

async fn send_to(
    write: &mut SqliteConnection,
    tenant: &str,
    message: i64,
    ready_at: i64,
    destinations: &[String],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO delivery (tenant, destination, message, attempts, ready_at, state, why)
         SELECT ?, value, ?, 0, ?, 'waiting', '' FROM json_each(?)",
    )
    .bind(tenant)
    .bind(message)
    .bind(ready_at)
    .bind(serde_json::to_string(destinations).unwrap_or_default())
    .execute(write)
    .await
    .map(drop)
}

/// Messages that were asked for where the destinations are not known. Returns how many there were.
pub(crate) async fn place(
    write: &mut SqliteConnection,
    tenant: &str,
    destinations: &[String],
) -> Result<usize, sqlx::Error> {
    if destinations.is_empty() {
        return Ok(0);
    }
    let unplaced: Vec<(i64, i64)> =
        sqlx::query_as("SELECT id, at FROM message WHERE tenant = ? AND placed = 0 ORDER BY id LIMIT 100")
            .bind(tenant)
            .fetch_all(&mut *write)
            .await?;
    for (id, at) in &unplaced {
        send_to(write, tenant, *id, *at, destinations).await?;
        sqlx::query("UPDATE message SET placed = 1 WHERE id = ?").bind(id).execute(&mut *write).await?;
    }
    Ok(unplaced.len())
}

/// What waits for a destination that is there no more is given up, and what is long past is forgotten.
pub(crate) async fn tidy(write: &mut SqliteConnection, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE delivery SET ended_at = ?1, state = 'given-up',
             why = CASE why WHEN '' THEN 'its destination was not there for a week' ELSE why END
         WHERE ended_at IS NULL AND ready_at < ?2",
    )
    .bind(now.millis())
    .bind(now.minus(KEPT).millis())
    .execute(&mut *write)
    .await?;
    let old: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM (SELECT id, at FROM message ORDER BY id LIMIT 100) WHERE at < ?")
            .bind(now.millis() - REMEMBERED)
            .fetch_all(&mut *write)
            .await?;
    if !old.is_empty() {
        let old = serde_json::to_string(&old).unwrap_or_default();
        for statement in [
            "DELETE FROM delivery WHERE message IN (SELECT value FROM json_each(?))",
            "DELETE FROM message WHERE id IN (SELECT value FROM json_each(?))",
        ] {
            sqlx::query(statement).bind(&old).execute(&mut *write).await?;
        }
    }
    Ok(())
}
