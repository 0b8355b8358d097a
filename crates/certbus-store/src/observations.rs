//! What polls found, written in batches: what did not change costs no row. What it means is core's (`history`); here it is
//! kept, in one transaction with all that hangs on it. Told twice, it is stored once (invariants 7 and 8).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use certbus_core::certificate::Facts;
use certbus_core::history::{Change, Node, Served, Span, Step};
use certbus_core::id::Hash;
use certbus_core::time::Timestamp;
use sqlx::SqliteConnection;

use crate::error::StoreError;
use crate::sqlite::{self, Store};
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
    /// Whether every node was asked that the name leads to: those that are missing are missed.
    pub whole: bool,
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
    /// Looks that were not: at what was removed or was another then, from where it is not polled, late, told twice, or by a
    /// clock that is ahead.
    pub passed_over: usize,
}

/// A node's place: endpoint, site, address.
type Place = (i64, String, String);

/// A look that found what the one before found: the node's place, when, and why it failed again.
type Unchanged<'a> = (i64, &'a str, String, i64, Option<&'a str>);

struct Work<'a> {
    place: Place,
    look: Option<&'a Look>,
    step: Step,
    at: Timestamp,
}

impl Store {
    /// Stores what polls found.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then nothing of it is stored.
    pub async fn record(&self, polls: &[Poll], now: Timestamp) -> Result<Recorded, StoreError> {
        let mut write = self.begin().await?;
        let recorded = record(&mut write, polls, now).await.map_err(|e| self.fault(&e))?;
        self.commit(write).await?;
        Ok(recorded)
    }
}

async fn record(write: &mut SqliteConnection, polls: &[Poll], now: Timestamp) -> Result<Recorded, sqlx::Error> {
    let endpoints: BTreeSet<i64> = polls.iter().map(|poll| poll.endpoint).collect();
    let endpoints = serde_json::to_string(&endpoints).unwrap_or_default();
    // Where each is polled from, and since when it is what it is.
    let known: Vec<(i64, String, i64)> = sqlite::many(
        write,
        "SELECT json_group_array(json_array(endpoint.id, site, key_since))
         FROM endpoint JOIN schedule ON schedule.endpoint = endpoint.id
         WHERE endpoint.id IN (SELECT value FROM json_each(?))",
        &endpoints,
    )
    .await?;
    let known: HashMap<(i64, String), i64> = known.into_iter().map(|(id, site, since)| ((id, site), since)).collect();
    let mut nodes = read_nodes(write, &endpoints).await?;
    let mut recorded = Recorded::default();
    let mut unchanged: Vec<Unchanged<'_>> = Vec::new();
    let mut changed: Vec<Work<'_>> = Vec::new();
    for poll in polls {
        let since = known.get(&(poll.endpoint, poll.site.clone()));
        if since.is_none_or(|since| poll.at.millis() < *since) {
            recorded.passed_over += poll.looks.len();
            continue;
        }
        let mut found: HashSet<String> = HashSet::with_capacity(poll.looks.len());
        for look in &poll.looks {
            let address = look.address.map_or_else(String::new, |ip| ip.to_string());
            found.insert(address.clone());
            let place = (poll.endpoint, poll.site.clone(), address);
            let node = nodes.entry(place.clone()).or_default();
            let Some(step) = node.look(outcome(look), poll.at, now) else {
                recorded.passed_over += 1;
                continue;
            };
            recorded.looks += 1;
            let same_method = node.served.as_ref().map(|served| &served.what.method)
                == step.node.served.as_ref().map(|served| &served.what.method);
            *node = step.node.clone();
            if step.changes.is_empty() && same_method {
                let why = look.outcome.as_ref().err().map(|failed| failed.why.as_str());
                unchanged.push((poll.endpoint, &poll.site, place.2, poll.at.millis(), why));
            } else {
                recorded.changed += usize::from(!step.changes.is_empty());
                changed.push(Work { place, look: Some(look), step, at: poll.at });
            }
        }
        // A name that led nowhere says nothing of its nodes.
        if !poll.whole || found.is_empty() || found.contains("") {
            continue;
        }
        let others = nodes.iter_mut().filter(|((endpoint, site, address), _)| {
            *endpoint == poll.endpoint && *site == poll.site && !found.contains(address)
        });
        for (place, node) in others {
            let step = if place.2.is_empty() { node.resolved(poll.at, now) } else { node.left_out(poll.at, now) };
            if let Some(step) = step {
                *node = step.node.clone();
                changed.push(Work { place: place.clone(), look: None, step, at: poll.at });
            }
        }
    }
    if recorded.looks > 0 {
        sqlx::query("INSERT INTO moment (what, at) VALUES ('polled', ?1) ON CONFLICT (what) DO UPDATE SET at = ?1")
            .bind(now.millis())
            .execute(&mut *write)
            .await?;
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

fn outcome(look: &Look) -> Result<Served, &str> {
    let chain = look.outcome.as_ref().map_err(|failed| failed.kind.as_str())?;
    let (leaf, rest) = chain.split_first().ok_or("no_certificate")?;
    let prints: Vec<u8> = rest.iter().flat_map(|one| *Hash::of(one).as_bytes()).collect();
    let chain = if prints.is_empty() { Hash::ZERO } else { Hash::of(&prints) };
    Ok(Served { leaf: Hash::of(leaf), chain, method: look.method.as_str().into() })
}

/// A row of `node` as it is read here; `first`, `last` and `times` of what it serves, then of how it fails.
type Row = (
    (i64, String, String),
    (Option<Hash>, Option<Hash>, Box<str>, Option<i64>, Option<i64>, u64),
    (Option<Box<str>>, Option<i64>, Option<i64>, u64),
    (i64, u32, Option<i64>),
);

async fn read_nodes(write: &mut SqliteConnection, endpoints: &str) -> Result<HashMap<Place, Node>, sqlx::Error> {
    let rows: Vec<Row> = sqlite::many(
        write,
        "SELECT json_group_array(json_array(json_array(endpoint, site, address),
             json_array(iif(leaf_hash IS NULL, NULL, lower(hex(leaf_hash))),
                 iif(chain_hash IS NULL, NULL, lower(hex(chain_hash))), method, served_first, served_last, served_times),
             json_array(failure, failing_first, failing_last, failing_times), json_array(asked_at, missed, gone_at)))
         FROM node WHERE endpoint IN (SELECT value FROM json_each(?))",
        endpoints,
    )
    .await?;
    let read = |(place, served, failing, (asked, missed, gone)): Row| {
        let (leaf, chain, method, served_first, served_last, served_times) = served;
        let (kind, failing_first, failing_last, failing_times) = failing;
        let what = leaf.map(|leaf| Served { leaf, chain: chain.unwrap_or(Hash::ZERO), method });
        let node = Node {
            served: span(what, served_first, served_last, served_times),
            failing: span(kind, failing_first, failing_last, failing_times),
            asked: Some(Timestamp::from_millis(asked)),
            missed,
            gone: gone.map(Timestamp::from_millis),
        };
        (place, node)
    };
    Ok(rows.into_iter().map(read).collect())
}

fn span<T>(what: Option<T>, first: Option<i64>, last: Option<i64>, times: u64) -> Option<Span<T>> {
    let at = Timestamp::from_millis;
    Some(Span { what: what?, first: at(first?), last: at(last?), times })
}

/// Nodes that serve, or fail, as before.
async fn went_on(write: &mut SqliteConnection, looks: &[Unchanged<'_>]) -> Result<(), sqlx::Error> {
    if looks.is_empty() {
        return Ok(());
    }
    // Those that failed again have their words; the others have none.
    sqlx::query(
        "UPDATE node SET asked_at = seen.at, missed = 0,
             served_last = CASE WHEN node.failure IS NULL THEN seen.at ELSE served_last END,
             served_times = served_times + (node.failure IS NULL),
             failing_last = CASE WHEN node.failure IS NULL THEN NULL ELSE seen.at END,
             failing_times = failing_times + (node.failure IS NOT NULL),
             why = seen.why
         FROM (SELECT value ->> 0 AS endpoint, value ->> 1 AS site, value ->> 2 AS address, value ->> 3 AS at,
                   value ->> 4 AS why FROM json_each(?)) AS seen
         WHERE node.endpoint = seen.endpoint AND node.site = seen.site AND node.address = seen.address",
    )
    .bind(serde_json::to_string(looks).unwrap_or_default())
    .execute(write)
    .await
    .map(drop)
}

/// Stores a step that changed something: what ended, what is new, and what there is to tell.
async fn keep(write: &mut SqliteConnection, work: &Work<'_>) -> Result<(), sqlx::Error> {
    let Work { place: (endpoint, site, address), step, at, .. } = work;
    let chain = work.look.and_then(|look| look.outcome.as_ref().ok());
    let mut ids = Vec::new();
    for der in chain.into_iter().flatten() {
        ids.push(summary::certificate(write, &Facts::read(der), der, *at).await?);
    }
    let before: Option<(Option<i64>, Option<String>)> =
        sqlx::query_as("SELECT certificate, why FROM node WHERE endpoint = ? AND site = ? AND address = ?")
            .bind(endpoint)
            .bind(site)
            .bind(address)
            .fetch_optional(&mut *write)
            .await?;
    let (certificate_before, why_before) = before.unwrap_or_default();
    if let (Some(replaced), Some(certificate)) = (&step.replaced, certificate_before) {
        let otherwise = step.changes.contains(&Change::Otherwise);
        let how = if otherwise { Change::Otherwise } else { Change::Replaced }.as_str();
        end_stay(write, (*endpoint, site, address), certificate, replaced, *at, how).await?;
    }
    if let Some(over) = &step.over {
        end_outage(write, (*endpoint, site, address), over, &why_before.unwrap_or_default()).await?;
    }
    let certificate = ids.first().copied().or(certificate_before);
    let failed = work.look.and_then(|look| look.outcome.as_ref().err());
    let rest = ids.get(1..).unwrap_or_default().iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
    let (served, failing) = (step.node.served.as_ref(), step.node.failing.as_ref());
    sqlx::query(
        "INSERT INTO node (endpoint, site, address, certificate, leaf_hash, chain, chain_hash, method, served_first,
             served_last, served_times, failure, why, failing_first, failing_last, failing_times, asked_at, missed, gone_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (endpoint, site, address) DO UPDATE SET certificate = excluded.certificate,
             leaf_hash = excluded.leaf_hash, chain = CASE WHEN ?20 THEN excluded.chain ELSE chain END,
             chain_hash = excluded.chain_hash, method = excluded.method,
             served_first = excluded.served_first, served_last = excluded.served_last,
             served_times = excluded.served_times, failure = excluded.failure,
             why = CASE WHEN ?21 THEN excluded.why ELSE why END,
             failing_first = excluded.failing_first, failing_last = excluded.failing_last,
             failing_times = excluded.failing_times, asked_at = excluded.asked_at, missed = excluded.missed,
             gone_at = excluded.gone_at",
    )
    .bind(endpoint)
    .bind(site)
    .bind(address)
    .bind(certificate)
    .bind(served.map(|span| span.what.leaf.as_bytes().to_vec()))
    .bind(rest)
    .bind(served.map(|span| span.what.chain.as_bytes().to_vec()))
    .bind(served.map_or("", |span| &*span.what.method))
    .bind(served.map(|span| span.first.millis()))
    .bind(served.map(|span| span.last.millis()))
    .bind(served.map_or(0, |span| span.times as i64))
    .bind(failing.map(|span| span.what.to_string()))
    .bind(failed.map(|failed| failed.why.clone()))
    .bind(failing.map(|span| span.first.millis()))
    .bind(failing.map(|span| span.last.millis()))
    .bind(failing.map_or(0, |span| span.times as i64))
    .bind(step.node.asked.unwrap_or_default().millis())
    .bind(step.node.missed)
    .bind(step.node.gone.map(Timestamp::millis))
    .bind(!ids.is_empty())
    .bind(work.look.is_some() || failing.is_none())
    .execute(&mut *write)
    .await?;
    for change in &step.changes {
        let (before, after) = match change {
            Change::First => (None, certificate),
            Change::Replaced | Change::Otherwise | Change::Chain => (certificate_before, certificate),
            _ => (None, None),
        };
        let why = failed.filter(|_| *change == Change::Failing).map_or("", |failed| failed.why.as_str());
        sqlx::query(
            "INSERT INTO change (at, endpoint, site, address, kind, before, after, why) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(at.millis())
        .bind(endpoint)
        .bind(site)
        .bind(address)
        .bind(change.as_str())
        .bind(before)
        .bind(after)
        .bind(why)
        .execute(&mut *write)
        .await?;
    }
    Ok(())
}

async fn end_stay(
    write: &mut SqliteConnection,
    (endpoint, site, address): (i64, &str, &str),
    certificate: i64,
    stay: &Span<Served>,
    at: Timestamp,
    how: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO association (endpoint, site, address, certificate, method, first_seen, last_seen, times, ended_at, ended)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(endpoint)
    .bind(site)
    .bind(address)
    .bind(certificate)
    .bind(&*stay.what.method)
    .bind(stay.first.millis())
    .bind(stay.last.millis())
    .bind(stay.times as i64)
    .bind(at.millis())
    .bind(how)
    .execute(write)
    .await
    .map(drop)
}

async fn end_outage(
    write: &mut SqliteConnection,
    (endpoint, site, address): (i64, &str, &str),
    over: &Span<Box<str>>,
    why: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO outage (endpoint, site, address, first, last, times, failure, why) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO NOTHING",
    )
    .bind(endpoint)
    .bind(site)
    .bind(address)
    .bind(over.first.millis())
    .bind(over.last.millis())
    .bind(over.times as i64)
    .bind(&*over.what)
    .bind(why)
    .execute(write)
    .await
    .map(drop)
}

/// The endpoint is another from now on: what its nodes served and how they failed is kept, and they are forgotten.
pub(crate) async fn end_nodes(write: &mut SqliteConnection, endpoint: i64, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO association (endpoint, site, address, certificate, method, first_seen, last_seen, times, ended_at, ended)
         SELECT endpoint, site, address, certificate, method, served_first, served_last, served_times, ?2, 'edited'
         FROM node WHERE endpoint = ?1 AND certificate IS NOT NULL ON CONFLICT DO NOTHING",
    )
    .bind(endpoint)
    .bind(now.millis())
    .execute(&mut *write)
    .await?;
    sqlx::query(
        "INSERT INTO outage (endpoint, site, address, first, last, times, failure, why)
         SELECT endpoint, site, address, failing_first, failing_last, failing_times, failure, coalesce(why, '')
         FROM node WHERE endpoint = ?1 AND failure IS NOT NULL ON CONFLICT DO NOTHING",
    )
    .bind(endpoint)
    .execute(&mut *write)
    .await?;
    sqlx::query("DELETE FROM node WHERE endpoint = ?").bind(endpoint).execute(write).await.map(drop)
}
