//! Lists of endpoints: filtered, by pages, each page read from an index. A page says where the next begins.

use std::borrow::Cow;

use certbus_core::drift::Serves;
use certbus_core::id::Fingerprint;
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::{QueryBuilder, Row, Sqlite};

use crate::endpoints::{Stored, stored};
use crate::error::StoreError;
use crate::glance::COUNTED;
use crate::search;
use crate::sqlite::{Store, fingerprint};

/// Which endpoints, and from where on. Everything that is said must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Words: each must be the begin of a label or word of host, name, or of a certificate's names or issuer.
    pub search: String,
    /// In this state.
    pub state: Option<State>,
    /// With this tag.
    pub tag: Option<String>,
    /// Of this owner.
    pub owner: Option<String>,
    /// Polled from this site.
    pub site: Option<String>,
    /// Of this number.
    pub id: Option<i64>,
    /// Those first whose certificate expires first, where nothing but that is asked, or what is overdue; what has none is left out.
    pub soonest: bool,
    /// What the page before said.
    pub after: Option<String>,
    /// At most so many.
    pub limit: i64,
}

/// What an endpoint may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// A node's certificate is out of time.
    Expired,
    /// Somebody should have renewed it.
    Overdue,
    /// Its last polls failed.
    Failing,
    /// A node serves a version that was replaced.
    OlderVersion,
    /// A node serves another certificate than the one that was issued for it.
    Another,
    /// Every node serves the version that was issued last.
    Current,
    /// It is not polled.
    Paused,
    /// Nothing was seen of it yet.
    Unseen,
    /// Its certificate is not one that is managed here.
    Unmanaged,
    /// Nothing of the above is wrong.
    Ok,
}

/// An endpoint in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// What a person said.
    #[serde(flatten)]
    pub stored: Stored,
    /// When the first of its certificates expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// From when on it is overdue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overdue_at: Option<Timestamp>,
    /// Since when its polls fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Timestamp>,
    /// The managed certificate that is for it: tenant and id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<String>,
    /// What it serves of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serves: Option<Serves>,
    /// The certificate that expires first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// Its issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Seconds until visitors see an error; 0 if they see one now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slack: Option<u64>,
    /// The worst of what it is.
    pub state: State,
}

/// A page of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// What is on it.
    pub rows: Vec<Listed>,
    /// Where the next begins; None: this is the last.
    pub next: Option<String>,
}

impl State {
    /// All of them, the worst first.
    pub const ALL: [Self; 10] = [
        Self::Expired,
        Self::OlderVersion,
        Self::Another,
        Self::Overdue,
        Self::Failing,
        Self::Unseen,
        Self::Unmanaged,
        Self::Paused,
        Self::Current,
        Self::Ok,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Overdue => "overdue",
            Self::Failing => "failing",
            Self::OlderVersion => "older-version",
            Self::Another => "another",
            Self::Current => "current",
            Self::Paused => "paused",
            Self::Unseen => "unseen",
            Self::Unmanaged => "unmanaged",
            Self::Ok => "ok",
        }
    }
}

impl std::str::FromStr for State {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|state| state.as_str()).collect();
            format!("`{text}` is no state; write one of {}", all.join(", "))
        })
    }
}

const COLUMNS: &str =
    "e.id, e.name, e.host, e.port, e.sni, e.starttls, e.owner, e.active, e.every, e.revision, e.added_at,
    e.expires_at, e.overdue_at, e.failing_since, e.managed, e.serves, c.fingerprint, c.issuer,
    (SELECT coalesce(group_concat(tag), '') FROM endpoint_tag t WHERE t.endpoint = e.id) AS tags,
    (SELECT coalesce(group_concat(site), '') FROM schedule s WHERE s.endpoint = e.id) AS sites";

impl Store {
    /// A page of the endpoints that `query` means.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an `after` that no page said, [`StoreError::Unavailable`].
    pub async fn endpoints(&self, query: &Query, now: Timestamp) -> Result<Page, StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        let words = self.rarest_first(search::words(&query.search)).await.map_err(fault)?;
        if words.is_empty() && !query.search.trim().is_empty() {
            return Ok(Page { rows: Vec::new(), next: None });
        }
        let order = order(query, !words.is_empty(), now);
        let after = query.after.as_deref().map(|after| place(after).ok_or(after)).transpose();
        let after = after.map_err(|after| StoreError::NotFound { what: format!("page `{after}`") })?;
        let limit = query.limit.clamp(1, 1000);
        let by = order.by.unwrap_or("''");
        let mut sql: QueryBuilder<Sqlite> = QueryBuilder::new(format!("SELECT {by} AS place, {COLUMNS} FROM "));
        sql.push(&order.from).push(" LEFT JOIN certificate c ON c.id = e.certificate WHERE 1");
        if let Some(first) = words.first() {
            sql.push(" AND k.kind = 'e' AND k.token >= ").push_bind(first.clone());
            sql.push(" AND k.token < ").push_bind(search::after(first));
            // Found by two of its tokens, an endpoint is listed once: where the first of them stands.
            sql.push(
                " AND NOT EXISTS (SELECT 1 FROM token o WHERE o.kind = 'e' AND o.id = k.id AND o.token < k.token
                 AND o.token >= ",
            );
            sql.push_bind(first.clone()).push(")");
        }
        if let Some(id) = query.id {
            sql.push(" AND e.id = ").push_bind(id);
        }
        for word in words.iter().skip(1) {
            sql.push(" AND EXISTS (SELECT 1 FROM token w WHERE w.kind = 'e' AND w.id = e.id AND w.token >= ");
            sql.push_bind(word.clone()).push(" AND w.token < ").push_bind(search::after(word)).push(")");
        }
        match query.state {
            Some(State::Expired) => sql.push(" AND e.active = 1 AND e.expires_at <= ").push_bind(now.millis()),
            Some(State::Overdue) => sql.push(" AND e.active = 1 AND e.overdue_at <= ").push_bind(now.millis()),
            Some(State::Failing) => sql.push(" AND e.active = 1 AND e.failing_since IS NOT NULL"),
            Some(State::OlderVersion) => sql.push(" AND e.active = 1 AND e.serves = 'older-version'"),
            Some(State::Another) => sql.push(" AND e.active = 1 AND e.serves = 'another'"),
            Some(State::Current) => sql.push(" AND e.serves = 'current'"),
            Some(State::Paused) => sql.push(" AND e.active = 0"),
            Some(State::Unseen) => sql.push(" AND e.active = 1 AND e.certificate IS NULL AND e.failing_since IS NULL"),
            Some(State::Unmanaged) => sql.push(" AND e.certificate IS NOT NULL AND e.managed IS NULL"),
            Some(State::Ok) => sql
                .push(" AND e.active = 1 AND e.failing_since IS NULL AND coalesce(e.serves, 'current') = 'current' AND e.overdue_at > ")
                .push_bind(now.millis()),
            None if order.by == Some("e.expires_at") => sql.push(" AND e.expires_at IS NOT NULL"),
            None => &mut sql,
        };
        if let Some(tag) = &query.tag {
            match order.from == BY_TAG {
                true => sql.push(" AND g.tag = ").push_bind(tag),
                false => sql
                    .push(" AND EXISTS (SELECT 1 FROM endpoint_tag g WHERE g.endpoint = e.id AND g.tag = ")
                    .push_bind(tag)
                    .push(")"),
            };
        }
        if let Some(owner) = &query.owner {
            // As the index has it.
            sql.push(" AND e.owner <> '' AND e.owner = ").push_bind(owner);
        }
        if let Some(site) = &query.site {
            match order.from == BY_SITE {
                true => sql.push(" AND z.site = ").push_bind(site),
                false => sql
                    .push(" AND EXISTS (SELECT 1 FROM schedule z WHERE z.endpoint = e.id AND z.site = ")
                    .push_bind(site)
                    .push(")"),
            };
        }
        let id = order.id;
        match (&after, order.by) {
            (Some((_, last)), None) => {
                sql.push(format!(" AND {id} > ")).push_bind(*last);
            }
            (Some((Place::Number(number), last)), Some(by)) => {
                sql.push(format!(" AND ({by}, {id}) > (")).push_bind(*number).push(", ").push_bind(*last).push(")");
            }
            (Some((Place::Text(text), last)), Some(by)) => {
                sql.push(format!(" AND ({by}, {id}) > (")).push_bind(text.clone());
                sql.push(", ").push_bind(*last).push(")");
            }
            (None, _) => {}
        }
        let by = order.by.map_or_else(|| id.to_owned(), |by| format!("{by}, {id}"));
        sql.push(format!(" ORDER BY {by} LIMIT ")).push_bind(limit + 1);
        let rows = sql.build().fetch_all(self.readers()).await.map_err(|e| self.fault(&e))?;
        let mut page = Page { rows: Vec::with_capacity(rows.len()), next: None };
        for row in &rows {
            if page.rows.len() == usize::try_from(limit).unwrap_or_default() {
                // The last one that is on the page says where the next begins.
                let last = rows.get(page.rows.len() - 1).unwrap_or(row);
                page.next = Some(spelt(last).map_err(|e| self.fault(&e))?);
                break;
            }
            page.rows.push(read(row, now).map_err(|e| self.fault(&e))?);
        }
        Ok(page)
    }
}

/// How a list is read: from which table first, and by what it is sorted. Where all have the same, by number alone.
struct Order {
    from: Cow<'static, str>,
    by: Option<&'static str>,
    id: &'static str,
}

const BY_TAG: &str = "endpoint_tag g CROSS JOIN endpoint e ON e.id = g.endpoint";
const BY_SITE: &str = "schedule z CROSS JOIN endpoint e ON e.id = z.endpoint";

fn order(query: &Query, search: bool, now: Timestamp) -> Order {
    let plain = |by: Option<&'static str>| Order { from: "endpoint e".into(), by, id: "e.id" };
    let narrowed = query.tag.is_some() || query.owner.is_some() || query.site.is_some();
    match query.state {
        _ if search => Order { from: "token k CROSS JOIN endpoint e ON e.id = k.id".into(), by: Some("k.token"), id: "k.id" },
        Some(State::Expired) => plain(Some("e.expires_at")),
        // Of those that are overdue longest the first to expire.
        Some(State::Overdue) if query.soonest && !narrowed && query.after.is_none() => Order {
            from: format!(
                "(SELECT id AS few FROM (SELECT id, expires_at FROM endpoint WHERE overdue_at <= {} AND active LIMIT {COUNTED})
                 ORDER BY expires_at LIMIT {}) CROSS JOIN endpoint e ON e.id = few",
                now.millis(),
                query.limit.saturating_add(1)
            )
            .into(),
            by: Some("e.expires_at"),
            id: "e.id",
        },
        Some(State::Overdue) => plain(Some("e.overdue_at")),
        Some(State::Failing) => plain(Some("e.failing_since")),
        Some(
            State::OlderVersion | State::Another | State::Current | State::Paused | State::Unseen | State::Unmanaged,
        ) => plain(None),
        None if query.tag.is_some() => Order { from: BY_TAG.into(), by: None, id: "g.endpoint" },
        None if query.owner.is_some() => plain(None),
        None if query.soonest && !narrowed => plain(Some("e.expires_at")),
        None if query.site.is_some() => Order { from: BY_SITE.into(), by: None, id: "z.endpoint" },
        _ => plain(Some("e.name")),
    }
}

impl Store {
    /// The words of a search, the one that the fewest endpoints have first: that one leads, the others are looked up.
    async fn rarest_first(&self, words: Vec<String>) -> Result<Vec<String>, sqlx::Error> {
        if words.len() < 2 {
            return Ok(words);
        }
        let mut counted = Vec::with_capacity(words.len());
        for word in words {
            let count: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM (SELECT 1 FROM token WHERE kind = 'e' AND token >= ? AND token < ? LIMIT 200)",
            )
            .bind(&word)
            .bind(search::after(&word))
            .fetch_one(self.readers())
            .await?;
            counted.push((count, word));
        }
        counted.sort();
        Ok(counted.into_iter().map(|(_, word)| word).collect())
    }
}

enum Place {
    Number(i64),
    Text(String),
}

/// `n12|34` or `tTEXT|34`.
fn place(text: &str) -> Option<(Place, i64)> {
    let (place, id) = text.rsplit_once('|')?;
    let id = id.parse().ok()?;
    match (place.strip_prefix('n'), place.strip_prefix('t')) {
        (Some(number), _) => Some((Place::Number(number.parse().ok()?), id)),
        (_, Some(text)) => Some((Place::Text(text.to_owned()), id)),
        _ => None,
    }
}

fn spelt(row: &sqlx::sqlite::SqliteRow) -> Result<String, sqlx::Error> {
    let id: i64 = row.try_get("id")?;
    Ok(match row.try_get::<i64, _>("place") {
        Ok(number) => format!("n{number}|{id}"),
        Err(_) => format!("t{}|{id}", row.try_get::<String, _>("place")?),
    })
}

fn read(row: &sqlx::sqlite::SqliteRow, now: Timestamp) -> Result<Listed, sqlx::Error> {
    let at = |column: &str| -> Result<Option<Timestamp>, sqlx::Error> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp::from_millis))
    };
    let serves: Option<String> = row.try_get("serves")?;
    let mut read = Listed {
        stored: stored(row)?,
        expires_at: at("expires_at")?,
        overdue_at: at("overdue_at")?,
        failing_since: at("failing_since")?,
        managed: row.try_get("managed")?,
        serves: serves.and_then(|word| word.parse().ok()),
        fingerprint: fingerprint(row.try_get("fingerprint")?),
        issuer: row.try_get("issuer")?,
        slack: None,
        state: State::Ok,
    };
    read.slack = match (read.failing_since, read.expires_at) {
        (Some(_), _) => Some(0),
        (None, expires) => expires.map(|at| at.since(now).as_secs()),
    };
    read.state = match &read {
        // Nobody looks at what is paused.
        row if !row.stored.endpoint.active => State::Paused,
        row if row.expires_at.is_some_and(|at| at <= now) => State::Expired,
        row if row.serves == Some(Serves::OlderVersion) => State::OlderVersion,
        row if row.serves == Some(Serves::Another) => State::Another,
        row if row.overdue_at.is_some_and(|at| at <= now) => State::Overdue,
        row if row.failing_since.is_some() => State::Failing,
        row if row.fingerprint.is_none() => State::Unseen,
        _ => State::Ok,
    };
    Ok(read)
}
