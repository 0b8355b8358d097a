//! What polls found, written in batches: what did not change costs no row. What it means is core's (`history`); here it is
//! kept, in one transaction with all that hangs on it. Told twice, it is stored once (invariants 7 and 8).

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use certbus_core::certificate::Facts;
use certbus_core::history::{Change, Node, Span, Step};
use certbus_core::id::{Fingerprint, Hash};
use certbus_core::time::Timestamp;
use serde_json::{Value, json};
use sqlx::{Row, SqliteConnection};

use crate::error::StoreError;
use crate::sqlite::Store;
use crate::summary;

/// One poll of an endpoint from one site.
#[derive(Clone, Debug)]
pub struct Poll {
    /// Its number.
    pub endpoint: i64,
    /// From where.
    pub site: String,
    /// When.
    pub at: Timestamp,
    /// What each node came to.
    pub looks: Vec<Look>,
}

/// One look at one node.
#[derive(Clone, Debug)]
pub struct Look {
    /// The node; None: the name led nowhere.
    pub address: Option<IpAddr>,
    /// How it was looked at: only looks of one method are compared.
    pub method: String,
    /// The chain as served, leaf first, each in DER; or why there is none.
    pub outcome: Result<Vec<Vec<u8>>, Failed>,
}

/// Why a look saw no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// The kind, of a closed set.
    pub kind: String,
    /// In words.
    pub why: String,
}

/// What a batch of polls came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Looks that were stored.
    pub looks: usize,
    /// Of them, those that changed something.
    pub changed: usize,
    /// Looks at what was removed, or that came late or twice.
    pub passed_over: usize,
}

/// A node's place: endpoint, site, address, look.
type Place = (i64, String, String, i64);

struct Work<'a> {
    place: Place,
    look: Option<&'a Look>,
    step: Step,
}

impl Store {
    /// Stores what polls found.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then nothing of it is stored.
    pub async fn record(&self, polls: &[Poll]) -> Result<Recorded, StoreError> {
        self.record_these(polls, true).await
    }

    /// As [`Store::record`], of polls that did not ask every node: none is taken to be gone.
    ///
    /// # Errors
    /// As [`Store::record`].
    pub async fn record_partly(&self, polls: &[Poll]) -> Result<Recorded, StoreError> {
        self.record_these(polls, false).await
    }

    async fn record_these(&self, polls: &[Poll], whole: bool) -> Result<Recorded, StoreError> {
        let mut write = self.begin().await?;
        let recorded = record(&mut write, polls, whole).await.map_err(|e| self.fault(&e))?;
        self.commit(write).await?;
        Ok(recorded)
    }
}

async fn record(write: &mut SqliteConnection, polls: &[Poll], whole: bool) -> Result<Recorded, sqlx::Error> {
    let endpoints: BTreeSet<i64> = polls.iter().map(|poll| poll.endpoint).collect();
    let endpoints = serde_json::to_string(&endpoints).unwrap_or_default();
    let known: Vec<i64> = sqlx::query_scalar("SELECT id FROM endpoint WHERE id IN (SELECT value FROM json_each(?))")
        .bind(&endpoints)
        .fetch_all(&mut *write)
        .await?;
    let known: BTreeSet<i64> = known.into_iter().collect();
    let mut nodes = read_nodes(write, &endpoints).await?;
    let mut methods: HashMap<String, i64> = HashMap::new();
    let mut recorded = Recorded::default();
    let mut unchanged: Vec<Value> = Vec::new();
    let mut changed: Vec<Work<'_>> = Vec::new();
    for poll in polls {
        if !known.contains(&poll.endpoint) {
            recorded.passed_over += poll.looks.len();
            continue;
        }
        let mut found: BTreeSet<&str> = BTreeSet::new();
        let addresses: Vec<String> =
            poll.looks.iter().map(|look| look.address.map_or_else(String::new, |ip| ip.to_string())).collect();
        for (look, address) in poll.looks.iter().zip(&addresses) {
            found.insert(address);
            let method = match methods.get(&look.method) {
                Some(id) => *id,
                None => {
                    let id = method_id(write, &look.method).await?;
                    methods.insert(look.method.clone(), id);
                    id
                }
            };
            let place = (poll.endpoint, poll.site.clone(), address.clone(), method);
            let node = nodes.entry(place.clone()).or_default();
            let outcome = match &look.outcome {
                Ok(chain) => chain.first().map(|leaf| Hash::of(leaf)).ok_or("no_certificate"),
                Err(failed) => Err(failed.kind.as_str()),
            };
            let Some(step) = node.look(outcome, poll.at) else {
                recorded.passed_over += 1;
                continue;
            };
            recorded.looks += 1;
            *node = step.node.clone();
            if step.changes.is_empty() && step.over.is_none() && step.replaced.is_none() {
                let (endpoint, site, address, method) = &place;
                let why = look.outcome.as_ref().err().map(|failed| &failed.why);
                unchanged.push(json!([endpoint, site, address, method, poll.at.millis(), why]));
            } else {
                recorded.changed += 1;
                changed.push(Work { place, look: Some(look), step });
            }
        }
        // Nodes that the name no longer leads to: a name that led nowhere says nothing of them.
        if whole && !found.is_empty() && !found.contains("") {
            let left = nodes.iter_mut().filter(|((endpoint, site, address, _), _)| {
                *endpoint == poll.endpoint && *site == poll.site && !found.contains(address.as_str())
            });
            for (place, node) in left {
                if let Some(step) = node.left_out(poll.at) {
                    *node = step.node.clone();
                    changed.push(Work { place: place.clone(), look: None, step });
                }
            }
        }
    }
    went_on(write, &unchanged).await?;
    let mut touched: BTreeSet<i64> = BTreeSet::new();
    for work in &changed {
        keep(write, work).await?;
        touched.insert(work.place.0);
    }
    summary::renew(write, &touched.into_iter().collect::<Vec<_>>()).await?;
    Ok(recorded)
}

async fn method_id(write: &mut SqliteConnection, method: &str) -> Result<i64, sqlx::Error> {
    let known: Option<i64> =
        sqlx::query_scalar("SELECT id FROM look WHERE method = ?").bind(method).fetch_optional(&mut *write).await?;
    match known {
        Some(known) => Ok(known),
        None => {
            sqlx::query_scalar("INSERT INTO look (method) VALUES (?) RETURNING id").bind(method).fetch_one(write).await
        }
    }
}

async fn read_nodes(write: &mut SqliteConnection, endpoints: &str) -> Result<HashMap<Place, Node>, sqlx::Error> {
    let rows = sqlx::query(
        "SELECT endpoint, site, address, look, fingerprint, served_first, served_last, served_times, failure,
         failing_first, failing_last, failing_times, asked_at, gone_at
         FROM node LEFT JOIN certificate ON certificate.id = node.certificate
         WHERE endpoint IN (SELECT value FROM json_each(?))",
    )
    .bind(endpoints)
    .fetch_all(write)
    .await?;
    let at = Timestamp::from_millis;
    rows.into_iter()
        .map(|row| {
            let fingerprint: Option<Vec<u8>> = row.try_get(4)?;
            let fingerprint = fingerprint.and_then(|bytes| Some(Fingerprint::from_bytes(bytes.try_into().ok()?)));
            let span = |first: usize| -> Result<Option<(i64, i64, i64)>, sqlx::Error> {
                let (begin, last): (Option<i64>, Option<i64>) = (row.try_get(first)?, row.try_get(first + 1)?);
                let times: i64 = row.try_get(first + 2)?;
                Ok(begin.zip(last).map(|(begin, last)| (begin, last, times)))
            };
            let failure: Option<String> = row.try_get(8)?;
            let node = Node {
                served: fingerprint.zip(span(5)?).map(|(what, (first, last, times))| Span {
                    what,
                    first: at(first),
                    last: at(last),
                    times: times.unsigned_abs(),
                }),
                failing: failure.zip(span(9)?).map(|(what, (first, last, times))| Span {
                    what: what.into(),
                    first: at(first),
                    last: at(last),
                    times: times.unsigned_abs(),
                }),
                asked: Some(at(row.try_get(12)?)),
                gone: row.try_get::<Option<i64>, _>(13)?.map(at),
            };
            Ok(((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?), node))
        })
        .collect()
}

/// Nodes that serve, or fail, as before.
async fn went_on(write: &mut SqliteConnection, looks: &[Value]) -> Result<(), sqlx::Error> {
    if looks.is_empty() {
        return Ok(());
    }
    // Those that failed again have their words; the others have none.
    sqlx::query(
        "UPDATE node SET asked_at = seen.at,
             served_last = CASE WHEN node.failure IS NULL THEN seen.at ELSE served_last END,
             served_times = served_times + (node.failure IS NULL),
             failing_last = CASE WHEN node.failure IS NULL THEN NULL ELSE seen.at END,
             failing_times = failing_times + (node.failure IS NOT NULL),
             why = seen.why
         FROM (SELECT value ->> 0 AS endpoint, value ->> 1 AS site, value ->> 2 AS address, value ->> 3 AS look,
                   value ->> 4 AS at, value ->> 5 AS why FROM json_each(?)) AS seen
         WHERE node.endpoint = seen.endpoint AND node.site = seen.site AND node.address = seen.address
             AND node.look = seen.look",
    )
    .bind(serde_json::to_string(looks).unwrap_or_default())
    .execute(write)
    .await
    .map(drop)
}

/// Stores a step that changed something: what ended, what is new, and what there is to tell.
async fn keep(write: &mut SqliteConnection, work: &Work<'_>) -> Result<(), sqlx::Error> {
    let Work { place: (endpoint, site, address, look), step, .. } = work;
    let at = step.node.asked.max(step.node.gone).unwrap_or_default();
    let chain = work.look.and_then(|look| look.outcome.as_ref().ok());
    let mut ids = Vec::new();
    for der in chain.into_iter().flatten() {
        ids.push(summary::certificate(write, &Facts::read(der), der, at).await?);
    }
    let before: Option<(Option<i64>, Option<String>)> = sqlx::query_as(
        "SELECT certificate, why FROM node WHERE endpoint = ? AND site = ? AND address = ? AND look = ?",
    )
    .bind(endpoint)
    .bind(site)
    .bind(address)
    .bind(look)
    .fetch_optional(&mut *write)
    .await?;
    let (certificate_before, why_before) = before.unwrap_or_default();
    if let (Some(replaced), Some(certificate)) = (&step.replaced, certificate_before) {
        sqlx::query(
            "INSERT INTO association (endpoint, site, address, look, certificate, first_seen, last_seen, times, replaced_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(endpoint)
        .bind(site)
        .bind(address)
        .bind(look)
        .bind(certificate)
        .bind(replaced.first.millis())
        .bind(replaced.last.millis())
        .bind(replaced.times as i64)
        .bind(at.millis())
        .execute(&mut *write)
        .await?;
    }
    if let Some(over) = &step.over {
        sqlx::query(
            "INSERT INTO outage (endpoint, site, address, look, first, last, times, failure, why)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(endpoint)
        .bind(site)
        .bind(address)
        .bind(look)
        .bind(over.first.millis())
        .bind(over.last.millis())
        .bind(over.times as i64)
        .bind(&*over.what)
        .bind(why_before.unwrap_or_default())
        .execute(&mut *write)
        .await?;
    }
    let certificate = ids.first().copied().or(certificate_before);
    let failed = work.look.and_then(|look| look.outcome.as_ref().err());
    let rest = ids.get(1..).unwrap_or_default().iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
    let (served, failing) = (step.node.served.as_ref(), step.node.failing.as_ref());
    sqlx::query(
        "INSERT INTO node (endpoint, site, address, look, certificate, chain, served_first, served_last, served_times,
             failure, why, failing_first, failing_last, failing_times, asked_at, gone_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (endpoint, site, address, look) DO UPDATE SET certificate = excluded.certificate,
             chain = CASE WHEN ?17 THEN excluded.chain ELSE chain END,
             served_first = excluded.served_first, served_last = excluded.served_last,
             served_times = excluded.served_times, failure = excluded.failure, why = excluded.why,
             failing_first = excluded.failing_first, failing_last = excluded.failing_last,
             failing_times = excluded.failing_times, asked_at = excluded.asked_at, gone_at = excluded.gone_at",
    )
    .bind(endpoint)
    .bind(site)
    .bind(address)
    .bind(look)
    .bind(certificate)
    .bind(rest)
    .bind(served.map(|span| span.first.millis()))
    .bind(served.map(|span| span.last.millis()))
    .bind(served.map_or(0, |span| span.times as i64))
    .bind(failing.map(|span| span.what.to_string()))
    .bind(failed.map(|failed| failed.why.clone()))
    .bind(failing.map(|span| span.first.millis()))
    .bind(failing.map(|span| span.last.millis()))
    .bind(failing.map_or(0, |span| span.times as i64))
    .bind(step.node.asked.unwrap_or_default().millis())
    .bind(step.node.gone.map(Timestamp::millis))
    .bind(!ids.is_empty())
    .execute(&mut *write)
    .await?;
    for change in &step.changes {
        let (before, after) = match change {
            Change::First => (None, certificate),
            Change::Replaced => (certificate_before, certificate),
            _ => (None, None),
        };
        let why = match (change, failed, failing) {
            (Change::Failing, Some(failed), _) => failed.why.as_str(),
            (Change::Failing, None, Some(failing)) => &failing.what,
            _ => "",
        };
        sqlx::query(
            "INSERT INTO change (at, endpoint, site, address, look, kind, before, after, why)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(at.millis())
        .bind(endpoint)
        .bind(site)
        .bind(address)
        .bind(look)
        .bind(change.as_str())
        .bind(before)
        .bind(after)
        .bind(why)
        .execute(&mut *write)
        .await?;
    }
    Ok(())
}
