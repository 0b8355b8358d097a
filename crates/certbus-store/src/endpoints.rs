//! Endpoints: registered, edited, removed. Each with its line in the audit trail, in one transaction.

use std::collections::{BTreeMap, BTreeSet};

use certbus_core::endpoint::{Endpoint, Key, Word, Written};
use certbus_core::time::{Span, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::{Row, Sqlite, SqliteConnection, Transaction};

use crate::audit::{Actor, note};
use crate::error::StoreError;
use crate::observations::end_nodes;
use crate::search::{self, Kind};
use crate::sqlite::{self, Store};
use crate::summary::{self, Tallies};

/// An endpoint as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Its number.
    pub id: i64,
    /// What a person said of it.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// How often it was edited: an edit is of what its author has seen.
    pub revision: i64,
    /// Since when it is here.
    pub added_at: Timestamp,
}

/// An endpoint that is to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// As it is to be if it is new.
    pub endpoint: Endpoint,
    /// What was said of it, besides what it is: what is changed if it is there.
    pub written: Written,
}

/// What became of one endpoint of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is new.
    Added(i64),
    /// It was there, and is edited.
    Edited(i64),
    /// It was there, and is the same.
    Same(i64),
}

impl Store {
    /// Registers endpoints, all or none; they are polled for the first time at `now`.
    ///
    /// # Errors
    /// [`StoreError::Duplicate`], [`StoreError::Unavailable`].
    pub async fn add_endpoints(
        &self,
        endpoints: &[Endpoint],
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Vec<i64>, StoreError> {
        let mut write = self.begin().await?;
        let (mut ids, mut tallies) = (Vec::with_capacity(endpoints.len()), Tallies::default());
        for endpoint in endpoints {
            if let Some((id, name)) = self.find(&mut write, &endpoint.key).await? {
                return Err(StoreError::Duplicate { key: Box::new(endpoint.key.clone()), id, name });
            }
            let added = insert(&mut write, &[endpoint], actor, now, &mut tallies).await;
            ids.extend(added.map_err(|e| self.fault(&e))?);
        }
        tallies.store(&mut write).await.map_err(|e| self.fault(&e))?;
        self.commit(write).await?;
        Ok(ids)
    }

    /// Registers many, or edits those that are there, in one transaction: all or none. Of one that is there only what was
    /// written is changed; what is the same is left alone.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn put_endpoints(
        &self,
        wanted: &[Wanted],
        actor: &Actor,
        now: Timestamp,
    ) -> Result<Vec<Put>, StoreError> {
        let mut write = self.begin().await?;
        let mut ids = self.find_all(&mut write, wanted).await?;
        // The first of a key is new; a second one finds it there.
        let mut new = BTreeMap::new();
        for (at, one) in wanted.iter().enumerate() {
            let place = place(&one.endpoint.key);
            if !ids.contains_key(&place) {
                new.entry(place).or_insert(at);
            }
        }
        let mut added: Vec<usize> = new.values().copied().collect();
        added.sort_unstable();
        let fresh: Vec<&Endpoint> = added.iter().filter_map(|at| wanted.get(*at)).map(|one| &one.endpoint).collect();
        let mut tallies = Tallies::default();
        let numbers = insert(&mut write, &fresh, actor, now, &mut tallies).await.map_err(|e| self.fault(&e))?;
        ids.extend(fresh.iter().map(|endpoint| place(&endpoint.key)).zip(numbers));
        let mut done = Vec::with_capacity(wanted.len());
        for (at, Wanted { endpoint, written }) in wanted.iter().enumerate() {
            let id = ids.get(&place(&endpoint.key)).copied().unwrap_or_default();
            if added.binary_search(&at).is_ok() {
                done.push(Put::Added(id));
                continue;
            }
            let Some(stored) = self.read(&mut write, id).await? else { continue };
            // It parsed as a whole, so it does in part.
            let edited = stored.endpoint.edited(written).unwrap_or_else(|_| stored.endpoint.clone());
            done.push(if edited == stored.endpoint {
                Put::Same(stored.id)
            } else {
                self.update(&mut write, &stored, &edited, actor, now).await?;
                Put::Edited(stored.id)
            });
        }
        tallies.store(&mut write).await.map_err(|e| self.fault(&e))?;
        self.commit(write).await?;
        Ok(done)
    }

    /// Makes `was` what `endpoint` says.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if it is not what it was, [`StoreError::Duplicate`], [`StoreError::Unavailable`].
    pub async fn edit_endpoint(
        &self,
        was: &Stored,
        endpoint: &Endpoint,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        match self.read(&mut write, was.id).await? {
            Some(stored) if stored.revision == was.revision => {}
            Some(_) => return Err(StoreError::Changed { name: was.endpoint.name.clone() }),
            None => return Err(StoreError::NotFound { what: format!("endpoint `{}` any more", was.endpoint.name) }),
        }
        if let Some((id, name)) = self.find(&mut write, &endpoint.key).await?.filter(|(id, _)| *id != was.id) {
            return Err(StoreError::Duplicate { key: Box::new(endpoint.key.clone()), id, name });
        }
        self.update(&mut write, was, endpoint, actor, now).await?;
        self.commit(write).await
    }

    /// Removes endpoints with all that was observed of them. Their certificates stay.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn remove_endpoints(&self, ids: &[i64], actor: &Actor, now: Timestamp) -> Result<usize, StoreError> {
        let mut write = self.begin().await?;
        let mut removed = 0;
        for id in ids {
            let Some(stored) = self.read(&mut write, *id).await? else { continue };
            let fault = |e: sqlx::Error| self.fault(&e);
            summary::forget(&mut write, *id).await.map_err(fault)?;
            for table in ["endpoint_tag", "schedule", "node", "association", "outage", "change"] {
                let statement = sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE endpoint = ?"));
                sqlx::query(statement).bind(id).execute(&mut *write).await.map_err(fault)?;
            }
            search::set(&mut write, Kind::Endpoint, *id, &BTreeSet::new()).await.map_err(fault)?;
            sqlx::query("DELETE FROM endpoint WHERE id = ?").bind(id).execute(&mut *write).await.map_err(fault)?;
            let subject = stored.endpoint.key.to_string();
            note(&mut write, actor, now, ["endpoint rm", &subject, ""]).await.map_err(fault)?;
            removed += 1;
        }
        self.commit(write).await?;
        Ok(removed)
    }

    /// One endpoint.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn endpoint(&self, id: i64) -> Result<Option<Stored>, StoreError> {
        let mut connection = self.readers().acquire().await.map_err(|e| self.fault(&e))?;
        self.read(&mut connection, id).await
    }

    /// The endpoints that a person means: the one of that number, else the one that is exactly that, else those of that
    /// name, else all of a host.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Unavailable`].
    pub async fn meant(&self, text: &str) -> Result<Vec<i64>, StoreError> {
        let key = Endpoint::parse(&Written { host: Some(text.into()), ..Written::default() }).ok().map(|e| e.key);
        let [host, _, starttls] = key.as_ref().map(texts).unwrap_or_default();
        // A place is said with its port or its protocol; a host alone means all that is there.
        let place = text.contains("://") || text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        for (statement, asked) in [
            ("SELECT id FROM endpoint WHERE id = CAST(?1 AS INTEGER)", text.bytes().all(|b| b.is_ascii_digit())),
            ("SELECT id FROM endpoint WHERE host = ?2 AND port = ?3 AND starttls = ?4 ORDER BY id", place),
            ("SELECT id FROM endpoint WHERE name = ?1 ORDER BY id", true),
            ("SELECT id FROM endpoint WHERE host = ?2 ORDER BY id", !place),
        ] {
            if !asked {
                continue;
            }
            let ids: Vec<i64> = sqlx::query_scalar(statement)
                .bind(text)
                .bind(&host)
                .bind(key.as_ref().map(|key| key.port))
                .bind(&starttls)
                .fetch_all(self.readers())
                .await
                .map_err(|e| self.fault(&e))?;
            if !ids.is_empty() {
                return Ok(ids);
            }
        }
        Err(StoreError::NotFound { what: format!("endpoint `{text}`; `certbus endpoint ls` lists them") })
    }

    async fn find(&self, connection: &mut SqliteConnection, key: &Key) -> Result<Option<(i64, String)>, StoreError> {
        let [host, sni, starttls] = texts(key);
        sqlx::query_as("SELECT id, name FROM endpoint WHERE host = ? AND port = ? AND sni = ? AND starttls = ?")
            .bind(host)
            .bind(key.port)
            .bind(sni)
            .bind(starttls)
            .fetch_optional(connection)
            .await
            .map_err(|e| self.fault(&e))
    }

    /// The numbers of those that are there.
    async fn find_all(
        &self,
        connection: &mut SqliteConnection,
        wanted: &[Wanted],
    ) -> Result<BTreeMap<Place, i64>, StoreError> {
        let places: Vec<Place> = wanted.iter().map(|one| place(&one.endpoint.key)).collect();
        let found: Vec<(String, u16, String, String, i64)> = sqlite::many(
            connection,
            "SELECT json_group_array(json_array(host, port, sni, starttls, endpoint.id))
             FROM (SELECT DISTINCT value FROM json_each(?1)) CROSS JOIN endpoint
             WHERE host = value ->> 0 AND port = value ->> 1 AND sni = value ->> 2 AND starttls = value ->> 3",
            &json(&places),
        )
        .await
        .map_err(|e| self.fault(&e))?;
        Ok(found.into_iter().map(|(host, port, sni, starttls, id)| ((host, port, sni, starttls), id)).collect())
    }

    async fn update(
        &self,
        write: &mut Transaction<'static, Sqlite>,
        was: &Stored,
        endpoint: &Endpoint,
        actor: &Actor,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        let [host, sni, starttls] = texts(&endpoint.key);
        let (asked, parent) = asked(&endpoint.key);
        sqlx::query(
            "UPDATE endpoint SET name = ?, host = ?, port = ?, sni = ?, starttls = ?, owner = ?, active = ?, every = ?,
             asked = ?, parent = ?, revision = revision + 1 WHERE id = ?",
        )
        .bind(&endpoint.name)
        .bind(host)
        .bind(endpoint.key.port)
        .bind(sni)
        .bind(starttls)
        .bind(&endpoint.owner)
        .bind(endpoint.active)
        .bind(seconds(endpoint.interval))
        .bind(asked)
        .bind(parent)
        .bind(was.id)
        .execute(&mut **write)
        .await
        .map_err(fault)?;
        if was.endpoint.tags != endpoint.tags {
            sqlx::query("DELETE FROM endpoint_tag WHERE endpoint = ?")
                .bind(was.id)
                .execute(&mut **write)
                .await
                .map_err(fault)?;
            set_tags(write, was.id, endpoint).await.map_err(fault)?;
        }
        // What is polled from elsewhere, or asked otherwise, is polled at once.
        let polled = |one: &Endpoint| (one.sites.clone(), one.active, one.key.clone(), one.interval);
        if polled(&was.endpoint) != polled(endpoint) {
            sqlx::query("DELETE FROM schedule WHERE endpoint = ?")
                .bind(was.id)
                .execute(&mut **write)
                .await
                .map_err(fault)?;
            set_sites(write, was.id, endpoint, now).await.map_err(fault)?;
        }
        if was.endpoint.key != endpoint.key {
            end_nodes(write, was.id, now).await.map_err(fault)?;
            sqlx::query("UPDATE endpoint SET key_since = ? WHERE id = ?")
                .bind(now.millis())
                .bind(was.id)
                .execute(&mut **write)
                .await
                .map_err(fault)?;
        }
        let mut tallies = Tallies::default();
        tallies.count("active", i64::from(endpoint.active) - i64::from(was.endpoint.active));
        tallies.store(write).await.map_err(fault)?;
        summary::renew(write, &[was.id]).await.map_err(fault)?;
        let detail = differences(&was.endpoint, endpoint);
        note(write, actor, now, ["endpoint edit", &endpoint.key.to_string(), &detail]).await.map_err(fault)
    }

    pub(crate) async fn read(&self, connection: &mut SqliteConnection, id: i64) -> Result<Option<Stored>, StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        let row = sqlx::query(
            "SELECT id, name, host, port, sni, starttls, owner, active, every, revision, added_at,
             (SELECT coalesce(group_concat(tag), '') FROM endpoint_tag WHERE endpoint = endpoint.id) AS tags,
             (SELECT coalesce(group_concat(site), '') FROM schedule WHERE schedule.endpoint = endpoint.id) AS sites
             FROM endpoint WHERE id = ?",
        )
        .bind(id)
        .fetch_optional(connection)
        .await
        .map_err(fault)?;
        row.map(|row| stored(&row)).transpose().map_err(fault)
    }
}

/// What makes an endpoint the one it is: host, port, SNI and STARTTLS.
type Place = (String, u16, String, String);

fn place(key: &Key) -> Place {
    let [host, sni, starttls] = texts(key);
    (host, key.port, sni, starttls)
}

fn json(rows: &impl Serialize) -> String {
    serde_json::to_string(rows).unwrap_or_default()
}

/// Stores new ones, whose places are all different, each kind of row by one statement. Returns their numbers. The counts of
/// all are the caller's to store.
async fn insert(
    write: &mut SqliteConnection,
    endpoints: &[&Endpoint],
    actor: &Actor,
    now: Timestamp,
    tallies: &mut Tallies,
) -> Result<Vec<i64>, sqlx::Error> {
    if endpoints.is_empty() {
        return Ok(Vec::new());
    }
    let row = |one: &&Endpoint| {
        let ((host, port, sni, starttls), (asked, parent)) = (place(&one.key), asked(&one.key));
        let (name, owner, active) = (one.name.clone(), one.owner.clone(), u8::from(one.active));
        (name, host, port, sni, starttls, owner, active, seconds(one.interval), asked, parent)
    };
    let rows: Vec<_> = endpoints.iter().map(row).collect();
    let added: Vec<(i64, String, u16, String, String)> = sqlx::query_as(
        "INSERT INTO endpoint (name, host, port, sni, starttls, owner, active, every, revision, added_at, asked, parent,
             key_since)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, 1, ?2,
             value ->> 8, value ->> 9, 0 FROM json_each(?1) RETURNING id, host, port, sni, starttls",
    )
    .bind(json(&rows))
    .bind(now.millis())
    .fetch_all(&mut *write)
    .await?;
    let numbers: BTreeMap<Place, i64> =
        added.into_iter().map(|(id, host, port, sni, starttls)| ((host, port, sni, starttls), id)).collect();
    let ids: Vec<i64> = endpoints.iter().filter_map(|one| numbers.get(&place(&one.key)).copied()).collect();
    let numbered = || ids.iter().copied().zip(endpoints.iter());
    let tags: Vec<_> = numbered().flat_map(|(id, one)| one.tags.iter().map(move |tag| (tag.as_str(), id))).collect();
    let sites: Vec<_> = numbered()
        .flat_map(|(id, one)| {
            let next = if one.active { now.millis() } else { i64::MAX };
            one.sites.iter().map(move |site| (id, site.as_str(), next))
        })
        .collect();
    let tokens: Vec<_> =
        numbered().flat_map(|(id, one)| summary::own_tokens(one).into_iter().map(move |token| (token, id))).collect();
    let lines: Vec<_> = endpoints.iter().map(|one| (one.key.to_string(), one.name.as_str())).collect();
    for (statement, rows) in [
        ("INSERT INTO endpoint_tag (tag, endpoint) SELECT value ->> 0, value ->> 1 FROM json_each(?1)", json(&tags)),
        (
            "INSERT INTO schedule (endpoint, site, next_at) SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)",
            json(&sites),
        ),
        ("INSERT INTO token (kind, token, id) SELECT 'e', value ->> 0, value ->> 1 FROM json_each(?1)", json(&tokens)),
    ] {
        sqlx::query(statement).bind(rows).execute(&mut *write).await?;
    }
    sqlx::query(
        "INSERT INTO audit (at, actor, source, action, subject, detail)
         SELECT ?2, ?3, ?4, 'endpoint add', value ->> 0, value ->> 1 FROM json_each(?1)",
    )
    .bind(json(&lines))
    .bind(now.millis())
    .bind(&actor.name)
    .bind(&actor.source)
    .execute(&mut *write)
    .await?;
    summary::begin(write, &ids, tallies).await?;
    tallies.count("endpoints", i64::try_from(ids.len()).unwrap_or(i64::MAX));
    tallies.count("active", endpoints.iter().map(|one| i64::from(one.active)).sum());
    Ok(ids)
}

async fn set_tags(write: &mut SqliteConnection, id: i64, endpoint: &Endpoint) -> Result<(), sqlx::Error> {
    for tag in &endpoint.tags {
        sqlx::query("INSERT INTO endpoint_tag (tag, endpoint) VALUES (?, ?)")
            .bind(tag.as_str())
            .bind(id)
            .execute(&mut *write)
            .await?;
    }
    Ok(())
}

/// Each site with the moment of its next poll: now, or never while it is paused.
async fn set_sites(
    write: &mut SqliteConnection,
    id: i64,
    endpoint: &Endpoint,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let next = if endpoint.active { now.millis() } else { i64::MAX };
    for site in &endpoint.sites {
        sqlx::query("INSERT INTO schedule (endpoint, site, next_at) VALUES (?, ?, ?)")
            .bind(id)
            .bind(site.as_str())
            .bind(next)
            .execute(&mut *write)
            .await?;
    }
    Ok(())
}

/// From a row with all its columns, and `tags` and `sites`.
pub(crate) fn stored(row: &sqlx::sqlite::SqliteRow) -> Result<Stored, sqlx::Error> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let damaged = |what: String| sqlx::Error::Decode(what.into());
    let optional = |text: String| (!text.is_empty()).then_some(text);
    let words = |text: String| -> Result<BTreeSet<Word>, String> {
        text.split(',').filter(|word| !word.is_empty()).map(str::parse).collect()
    };
    let key = Key {
        host: text("host")?.parse().map_err(damaged)?,
        port: row.try_get("port")?,
        sni: optional(text("sni")?).map(|name| name.parse()).transpose().map_err(|e| damaged(format!("{e}")))?,
        starttls: optional(text("starttls")?).map(|word| word.parse()).transpose().map_err(damaged)?,
    };
    let every: Option<i64> = row.try_get("every")?;
    Ok(Stored {
        id: row.try_get("id")?,
        endpoint: Endpoint {
            name: text("name")?,
            key,
            tags: words(text("tags")?).map_err(damaged)?,
            owner: text("owner")?,
            sites: words(text("sites")?).map_err(damaged)?,
            active: row.try_get("active")?,
            interval: every.map(|every| Span::new(std::time::Duration::from_secs(every.unsigned_abs()))),
        },
        revision: row.try_get("revision")?,
        added_at: Timestamp::from_millis(row.try_get("added_at")?),
    })
}

fn texts(key: &Key) -> [String; 3] {
    [
        key.host.to_string(),
        key.sni.as_ref().map_or_else(String::new, ToString::to_string),
        key.starttls.map_or_else(String::new, |word| word.to_string()),
    ]
}

/// The name that is asked for, and what follows its first label.
fn asked(key: &Key) -> (String, String) {
    let name = key.asked_for().map_or("", |name| name.as_str());
    (name.to_owned(), name.split_once('.').map_or("", |(_, parent)| parent).to_owned())
}

fn seconds(interval: Option<Span>) -> Option<i64> {
    interval.map(|interval| i64::try_from(interval.duration().as_secs()).unwrap_or(i64::MAX))
}

/// What an edit changed, for the trail.
fn differences(was: &Endpoint, is: &Endpoint) -> String {
    let json = |endpoint: &Endpoint| serde_json::to_value(endpoint).unwrap_or_default();
    let (was, is) = (json(was), json(is));
    let keys: BTreeSet<&String> =
        [&was, &is].into_iter().filter_map(|v| v.as_object()).flat_map(|map| map.keys()).collect();
    let changed = keys.into_iter().filter(|key| was.get(key) != is.get(key));
    let said = |value: Option<&serde_json::Value>| value.map_or_else(|| "none".to_owned(), ToString::to_string);
    changed.map(|key| format!("{key}: {} → {}", said(was.get(key)), said(is.get(key)))).collect::<Vec<_>>().join("; ")
}
