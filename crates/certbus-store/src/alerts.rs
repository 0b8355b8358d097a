//! Problems and what was told of them. What is wrong now is held against what is stored, and the messages that core decides
//! on are written in the same transaction: killed at any moment, none is lost and none is written twice.

mod mutes;
mod truth;

use certbus_core::alert::telling::{self, Open, Outcome, Recent};
use certbus_core::alert::{Event, Problem, means};
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;

pub use mutes::Mute;

use crate::error::StoreError;
use crate::outbox;
use crate::sqlite::{self, Store};

/// What one process looks after: it is judged by that.
#[derive(Clone, Debug, Default)]
pub struct Watch {
    /// Its messages are this tenant's.
    pub tenant: String,
    /// What is wrong with that tenant's managed certificates. None: the log cannot be read, and what was so stays.
    pub managed: Option<Vec<Problem>>,
    /// Whether it looks after endpoints too, and since when: one process does.
    pub endpoints_since: Option<Timestamp>,
    /// Where messages go. Where they go nowhere, none is written, and problems wait.
    pub destinations: Vec<String>,
}

/// A problem as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
    /// When it was told last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told_at: Option<Timestamp>,
    /// Since when it is no longer so; it is told as over when it stays away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// Nobody is told of it.
    pub is_muted: bool,
}

type Row = (String, String, String, String, String, i64, Option<i64>, Option<i64>, Option<i64>, u32);

impl Store {
    /// Looks what is wrong, and writes the messages that are due. Returns how many.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then nothing of it is stored.
    pub async fn judge(&self, watch: &Watch, now: Timestamp) -> Result<usize, StoreError> {
        let mut write = self.begin().await?;
        let messages = judge(&mut write, watch, now).await.map_err(|e| self.fault(&e))?;
        self.commit(write).await?;
        Ok(messages)
    }

    /// What is wrong, by key, after the problem of key `after`. What is over is not among it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn problems(&self, after: &str, limit: i64, now: Timestamp) -> Result<Vec<Shown>, StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        let mut read = self.readers().begin().await.map_err(fault)?;
        let rows: Vec<Row> = sqlite::many(
            &mut read,
            "SELECT json_group_array(json_array(key, kind, name, owner, words, since, told_at, gone_at, over_at, returns))
             FROM (SELECT * FROM problem WHERE key > ?1 ->> 0 AND over_at IS NULL
                 AND NOT (kind = 'changed' AND told_at IS NOT NULL) ORDER BY key LIMIT ?1 ->> 1)",
            &serde_json::to_string(&(after, limit)).unwrap_or_default(),
        )
        .await
        .map_err(fault)?;
        let muted = mutes::now(&mut read, now).await.map_err(fault)?;
        let shown = |open: Open| Shown {
            is_muted: muted.iter().any(|subject| means(subject, &open.problem.key)),
            problem: open.problem,
            told_at: open.told_at,
            gone_at: open.gone_at,
        };
        Ok(rows.into_iter().filter_map(open).map(shown).collect())
    }
}

async fn judge(write: &mut SqliteConnection, watch: &Watch, now: Timestamp) -> Result<usize, sqlx::Error> {
    let (mut now_true, mut scopes) = (Vec::new(), Vec::new());
    if let Some(managed) = &watch.managed {
        now_true.extend(managed.iter().cloned());
        scopes.push(format!("managed/{}/", watch.tenant));
    }
    if let Some(since) = watch.endpoints_since {
        now_true.extend(truth::of_endpoints(write, now).await?);
        now_true.extend(truth::of_the_scheduler(write, since, now).await?);
        now_true.extend(truth::of_changes(write).await?);
        scopes.extend(["endpoint/".to_owned(), "scheduler/".to_owned()]);
    }
    let mut before = Vec::new();
    for scope in scopes {
        before.extend(stored(write, &scope).await?);
    }
    let muted = mutes::now(write, now).await?;
    let is_muted = |key: &str| muted.iter().any(|subject| means(subject, key));
    let recent = recent(write, &watch.tenant, now).await?;
    let Outcome { kept, forgotten, messages } =
        telling::decide(before, now_true, is_muted, !watch.destinations.is_empty(), recent, now);
    keep(write, &kept).await?;
    if !forgotten.is_empty() {
        sqlx::query("DELETE FROM problem WHERE key IN (SELECT value FROM json_each(?))")
            .bind(serde_json::to_string(&forgotten).unwrap_or_default())
            .execute(&mut *write)
            .await?;
    }
    for message in &messages {
        outbox::write(write, &watch.tenant, message, &watch.destinations).await?;
    }
    let placed = outbox::place(write, &watch.tenant, &watch.destinations).await?;
    outbox::tidy(write, now).await?;
    Ok(messages.len() + placed)
}

async fn stored(write: &mut SqliteConnection, scope: &str) -> Result<Vec<Open>, sqlx::Error> {
    let rows: Vec<Row> = sqlite::many(
        write,
        "SELECT json_group_array(json_array(key, kind, name, owner, words, since, told_at, gone_at, over_at, returns))
         FROM problem WHERE key >= ?1 AND key < ?1 || char(1114111)",
        scope,
    )
    .await?;
    Ok(rows.into_iter().filter_map(open).collect())
}

fn open(row: Row) -> Option<Open> {
    let (key, kind, name, owner, words, since, told, gone, over, returns) = row;
    let at = |millis: Option<i64>| millis.map(Timestamp::from_millis);
    let since = Timestamp::from_millis(since);
    let problem = Problem { key, kind: kind.parse().ok()?, name, owner, words, since };
    Some(Open { problem, told_at: at(told), gone_at: at(gone), over_at: at(over), returns })
}

/// All at once: there may be very many.
async fn keep(write: &mut SqliteConnection, kept: &[Open]) -> Result<(), sqlx::Error> {
    if kept.is_empty() {
        return Ok(());
    }
    let millis = |at: Option<Timestamp>| at.map(Timestamp::millis);
    let row = |open: &Open| -> Row {
        let Problem { key, kind, name, owner, words, since } = open.problem.clone();
        let (told, gone, over) = (millis(open.told_at), millis(open.gone_at), millis(open.over_at));
        (key, kind.to_string(), name, owner, words, since.millis(), told, gone, over, open.returns)
    };
    let rows: Vec<Row> = kept.iter().map(row).collect();
    sqlx::query(
        "INSERT OR REPLACE INTO problem (key, kind, name, owner, words, since, told_at, gone_at, over_at, returns)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7,
             value ->> 8, value ->> 9 FROM json_each(?)",
    )
    .bind(serde_json::to_string(&rows).unwrap_or_default())
    .execute(write)
    .await
    .map(drop)
}

async fn recent(write: &mut SqliteConnection, tenant: &str, now: Timestamp) -> Result<Recent, sqlx::Error> {
    let (singles, digest): (i64, Option<i64>) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE event <> ?1), max(at) FILTER (WHERE event = ?1)
         FROM message WHERE tenant = ?2 AND at > ?3 AND event <> ?4",
    )
    .bind(Event::Digest.as_str())
    .bind(tenant)
    .bind(now.minus(telling::WINDOW).millis())
    .bind(Event::Test.as_str())
    .fetch_one(write)
    .await?;
    Ok(Recent { singles: usize::try_from(singles).unwrap_or_default(), digest_at: digest.map(Timestamp::from_millis) })
}
