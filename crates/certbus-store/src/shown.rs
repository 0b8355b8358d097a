//! One endpoint with all that is known of it, and the counts of all.

use std::borrow::Cow;
use std::collections::BTreeMap;

use certbus_core::id::Fingerprint;
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::Row;

use crate::error::StoreError;
use crate::sqlite::{Store, fingerprint};
use crate::summary::DAY;

/// A certificate that a node serves or served, or a time in which its polls failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stay {
    /// From where it was seen.
    pub site: String,
    /// The node; empty: the name led nowhere.
    pub address: String,
    /// How it was looked at.
    pub method: String,
    /// The leaf; None in an outage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Brief>,
    /// Why polls failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The kind of that, of a closed set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_kind: Option<String>,
    /// First seen.
    pub first: Timestamp,
    /// Last seen.
    pub last: Timestamp,
    /// How often.
    pub times: i64,
    /// It is so still, as far as the last poll saw.
    pub still: bool,
    /// Since when its name no longer leads to the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<Timestamp>,
}

/// A certificate in few words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brief {
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// Whose.
    pub subject: String,
    /// By whom.
    pub issuer: String,
    /// For which names, separated by spaces.
    pub names: String,
    /// Hex.
    pub serial: String,
    /// Its validity.
    pub not_before: Timestamp,
    /// Its validity.
    pub not_after: Timestamp,
    /// Its key.
    pub key: String,
    /// The managed certificate that it is a version of: tenant and id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub managed: Option<String>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Its number.
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// The endpoint.
    pub endpoint: i64,
    /// Its name.
    pub name: String,
    /// From where it was seen.
    pub site: String,
    /// The node.
    pub address: String,
    /// `first`, `replaced`, `otherwise`, `chain`, `failing`, `recovered`, `gone`, `back`.
    pub kind: String,
    /// The certificate before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Fingerprint>,
    /// The certificate after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Fingerprint>,
    /// In words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// What a renewal would have left as it was: `another issuer`, `other names`, `ends sooner`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub surprise: Vec<Cow<'static, str>>,
}

/// How many endpoints are what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// `endpoints`, `active`, `failing`, `managed`, `unmanaged`, `current`, `older-version`, `another`.
    pub what: BTreeMap<String, i64>,
    /// By the first and last day of the certificate that expires first, counted from 1970.
    pub lives: Vec<(i64, i64, i64)>,
}

impl Counts {
    /// How many endpoints' certificates expire on each day from `now` on, for `days` days; the first number is of all that
    /// have expired before today.
    pub fn expiries(&self, now: Timestamp, days: i64) -> Vec<i64> {
        let today = now.millis().div_euclid(DAY);
        let mut found = vec![0; usize::try_from(days + 1).unwrap_or_default()];
        for (_, last, count) in &self.lives {
            let at = (last - today + 1).max(0);
            if let Some(bucket) = usize::try_from(at).ok().and_then(|at| found.get_mut(at)) {
                *bucket += count;
            }
        }
        found
    }
}

const BRIEF: &str = "c.fingerprint, c.subject, c.issuer, c.names, c.serial, c.not_before, c.not_after, c.key,
    (SELECT tenant || '/' || id FROM version v WHERE v.certificate = c.id LIMIT 1) AS managed";

impl Store {
    /// All that an endpoint's nodes served and how they failed, the newest first, at most `limit` of each kind.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn timeline(&self, endpoint: i64, limit: i64) -> Result<Vec<Stay>, StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        // Nodes of today first; of the past the newest.
        let queries = [
            format!(
                "SELECT site, address, method, served_first AS first, served_last AS last, served_times AS times, NULL AS failure,
                 NULL AS kind, 1 AS still, gone_at, {BRIEF} FROM node n JOIN certificate c ON c.id = n.certificate
                 WHERE n.endpoint = ? ORDER BY gone_at IS NOT NULL, address LIMIT ?"
            ),
            "SELECT site, address, method, failing_first AS first, failing_last AS last, failing_times AS times,
             coalesce(why, failure) AS failure, failure AS kind, 1 AS still, gone_at
             FROM node n WHERE n.endpoint = ? AND failure IS NOT NULL LIMIT ?"
                .to_owned(),
            format!(
                "SELECT site, address, method, first_seen AS first, last_seen AS last, times, NULL AS failure, NULL AS kind, 0 AS still,
                 NULL AS gone_at, {BRIEF} FROM association n
                 JOIN certificate c ON c.id = n.certificate WHERE n.endpoint = ? ORDER BY first_seen DESC LIMIT ?"
            ),
            "SELECT site, address, '' AS method, first, last, times, CASE why WHEN '' THEN failure ELSE why END AS failure,
             failure AS kind, 0 AS still, NULL AS gone_at FROM outage n WHERE n.endpoint = ? ORDER BY first DESC LIMIT ?"
                .to_owned(),
        ];
        let mut read = self.readers().begin().await.map_err(fault)?;
        let mut stays = Vec::new();
        for query in queries {
            let rows = sqlx::query(sqlx::AssertSqlSafe(query)).bind(endpoint).bind(limit);
            for row in rows.fetch_all(&mut *read).await.map_err(fault)? {
                stays.push(stay(&row).map_err(fault)?);
            }
        }
        stays.sort_by(|a, b| (b.still, b.first).cmp(&(a.still, a.first)).then_with(|| a.address.cmp(&b.address)));
        Ok(stays)
    }

    /// When one of its nodes was asked last.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn last_asked(&self, endpoint: i64) -> Result<Option<Timestamp>, StoreError> {
        let last: Option<i64> = sqlx::query_scalar("SELECT max(asked_at) FROM node WHERE endpoint = ?")
            .bind(endpoint)
            .fetch_one(self.readers())
            .await
            .map_err(|e| self.fault(&e))?;
        Ok(last.map(Timestamp::from_millis))
    }

    /// What changed, the newest first: of one endpoint, or of all; below number `before`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn changes(
        &self,
        endpoint: Option<i64>,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Vec<Changed>, StoreError> {
        let of = if endpoint.is_some() { "h.endpoint = ?1 AND" } else { "?1 IS NULL AND" };
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT h.id, h.at, h.endpoint, e.name, h.site, h.address, h.kind, h.why, b.fingerprint AS before,
                 a.fingerprint AS after, b.issuer AS was_issuer, a.issuer AS is_issuer, b.names AS was_names,
                 a.names AS is_names, b.not_after AS was_end, a.not_after AS is_end
             FROM change h JOIN endpoint e ON e.id = h.endpoint LEFT JOIN certificate b ON b.id = h.before
             LEFT JOIN certificate a ON a.id = h.after WHERE {of} h.id < ?2 ORDER BY h.id DESC LIMIT ?3"
        )))
        .bind(endpoint)
        .bind(before.unwrap_or(i64::MAX))
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .map_err(|e| self.fault(&e))?;
        rows.iter().map(changed).collect::<Result<_, _>>().map_err(|e| self.fault(&e))
    }

    /// How many endpoints are what: read from what is kept, not counted.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn counts(&self) -> Result<Counts, StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        let what: Vec<(String, i64)> =
            sqlx::query_as("SELECT what, endpoints FROM tally").fetch_all(self.readers()).await.map_err(fault)?;
        let lives = sqlx::query_as("SELECT first_day, last_day, endpoints FROM life ORDER BY last_day, first_day")
            .fetch_all(self.readers())
            .await
            .map_err(fault)?;
        Ok(Counts { what: what.into_iter().filter(|(_, count)| *count != 0).collect(), lives })
    }

    /// The same, counted anew from every row: what the tests hold it against.
    #[cfg(feature = "conformance")]
    pub(crate) async fn counted(&self) -> Result<Counts, StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        let what: Vec<(String, i64)> = sqlx::query_as(
            "SELECT 'endpoints', count(*) FROM endpoint UNION ALL SELECT 'active', count(*) FROM endpoint WHERE active
             UNION ALL SELECT 'failing', count(*) FROM endpoint WHERE failing_since IS NOT NULL
             UNION ALL SELECT 'managed', count(*) FROM endpoint WHERE managed IS NOT NULL
             UNION ALL SELECT 'unmanaged', count(*) FROM endpoint WHERE managed IS NULL AND certificate IS NOT NULL
             UNION ALL SELECT serves, count(*) FROM endpoint WHERE serves IS NOT NULL GROUP BY serves",
        )
        .fetch_all(self.readers())
        .await
        .map_err(fault)?;
        let lives = sqlx::query_as(
            "SELECT not_before / 86400000 AS first, not_after / 86400000 AS last, count(*) FROM endpoint
             JOIN certificate ON certificate.id = endpoint.certificate GROUP BY first, last ORDER BY last, first",
        )
        .fetch_all(self.readers())
        .await
        .map_err(fault)?;
        Ok(Counts { what: what.into_iter().filter(|(_, count)| *count != 0).collect(), lives })
    }
}

#[cfg(feature = "conformance")]
impl Store {
    /// How many rows each table has, but those that only keep count.
    pub(crate) async fn rows(&self) -> Result<BTreeMap<&'static str, i64>, StoreError> {
        let mut rows = BTreeMap::new();
        for table in [
            "endpoint",
            "certificate",
            "node",
            "association",
            "outage",
            "change",
            "token",
            "schedule",
            "version",
            "task",
        ] {
            let statement = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            let count = sqlx::query_scalar(statement).fetch_one(self.readers()).await.map_err(|e| self.fault(&e))?;
            rows.insert(table, count);
        }
        Ok(rows)
    }
}

fn stay(row: &sqlx::sqlite::SqliteRow) -> Result<Stay, sqlx::Error> {
    let at = |column: &str| row.try_get::<i64, _>(column).map(Timestamp::from_millis);
    let failure: Option<String> = row.try_get("failure")?;
    let certificate = match failure {
        Some(_) => None,
        None => Some(Brief {
            fingerprint: fingerprint(row.try_get("fingerprint")?).unwrap_or(Fingerprint::ZERO),
            subject: row.try_get("subject")?,
            issuer: row.try_get("issuer")?,
            names: row.try_get("names")?,
            serial: row.try_get("serial")?,
            not_before: at("not_before")?,
            not_after: at("not_after")?,
            key: row.try_get("key")?,
            managed: row.try_get("managed")?,
        }),
    };
    Ok(Stay {
        site: row.try_get("site")?,
        address: row.try_get("address")?,
        method: row.try_get("method")?,
        certificate,
        failure,
        failure_kind: row.try_get("kind")?,
        first: at("first")?,
        last: at("last")?,
        times: row.try_get("times")?,
        still: row.try_get("still")?,
        gone: row.try_get::<Option<i64>, _>("gone_at")?.map(Timestamp::from_millis),
    })
}

fn changed(row: &sqlx::sqlite::SqliteRow) -> Result<Changed, sqlx::Error> {
    let text = |column: &str| row.try_get::<Option<String>, _>(column);
    let end = |column: &str| row.try_get::<Option<i64>, _>(column);
    let mut surprise = Vec::new();
    let kind: String = row.try_get("kind")?;
    let another = matches!(kind.as_str(), "replaced" | "otherwise");
    if let (Some(was), Some(is), true) = (text("was_issuer")?, text("is_issuer")?, another) {
        // A CA's intermediates follow each other; whose they are stays.
        let by = |name: &str| name.split(", ").find(|part| part.starts_with("O=")).unwrap_or(name).to_owned();
        let names = |text: Option<String>| -> std::collections::BTreeSet<String> {
            text.unwrap_or_default().split(' ').map(str::to_owned).collect()
        };
        let all = [
            (by(&was) != by(&is), "another issuer"),
            (names(text("was_names")?) != names(text("is_names")?), "other names"),
            // Looked at otherwise, a server shows the other of its two, which need not be newer.
            (kind == "replaced" && end("is_end")? < end("was_end")?, "ends sooner"),
        ];
        surprise.extend(all.into_iter().filter(|(so, _)| *so).map(|(_, words)| Cow::from(words)));
    }
    Ok(Changed {
        id: row.try_get("id")?,
        at: Timestamp::from_millis(row.try_get("at")?),
        endpoint: row.try_get("endpoint")?,
        name: row.try_get("name")?,
        site: row.try_get("site")?,
        address: row.try_get("address")?,
        kind,
        before: fingerprint(row.try_get("before")?),
        after: fingerprint(row.try_get("after")?),
        why: row.try_get("why")?,
        surprise,
    })
}
