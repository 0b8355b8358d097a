//! What the nodes of an endpoint come to, kept in the endpoint's own row so that listings need no other; and the counts of
//! all, kept beside it. Whatever changes a node, an endpoint or what was issued calls [`renew`] in its transaction.

use std::collections::{BTreeMap, BTreeSet};

use certbus_core::certificate::Facts;
use certbus_core::drift::{self, Serves};
use certbus_core::endpoint::{Endpoint, USUAL_PORT};
use certbus_core::overdue::{HABIT, overdue_from, part_lived};
use certbus_core::time::Timestamp;
use sqlx::{Row, SqliteConnection};

use crate::search::{self, Kind};

/// Milliseconds of a day.
pub(crate) const DAY: i64 = 86_400_000;

/// How far back a habit is looked for, in stays of all nodes.
const RECENT: i64 = 200;

/// What an endpoint counts as, and its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Summary {
    certificate: Option<i64>,
    /// Of that certificate.
    life: Option<(i64, i64)>,
    expires_at: Option<i64>,
    overdue_at: Option<i64>,
    failing_since: Option<i64>,
    managed: Option<String>,
    serves: Option<Serves>,
}

/// A node as it was asked last.
struct Node {
    failing_first: Option<i64>,
    certificate: Option<Served>,
}

#[derive(Clone, Copy)]
struct Served {
    id: i64,
    not_before: i64,
    not_after: i64,
    /// Of the version that it is, if it was issued here.
    planned_overdue: Option<i64>,
}

/// Differences of counts, to be stored at once.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    counts: BTreeMap<String, i64>,
    lives: BTreeMap<(i64, i64), i64>,
}

/// Computes and stores what these endpoints come to.
pub(crate) async fn renew(write: &mut SqliteConnection, endpoints: &[i64]) -> Result<(), sqlx::Error> {
    let mut tallies = Tallies::default();
    for id in endpoints {
        let Some(before) = stored(write, *id).await? else { continue };
        let nodes = nodes(write, *id).await?;
        let after = computed(write, *id, &nodes).await?;
        let certificates: BTreeSet<i64> = nodes.iter().filter_map(|node| node.certificate).map(|one| one.id).collect();
        set_tokens(write, *id, &certificates).await?;
        if before != after {
            tallies.changed(&before, -1);
            tallies.changed(&after, 1);
            sqlx::query(
                "UPDATE endpoint SET certificate = ?, expires_at = ?, overdue_at = ?, failing_since = ?, managed = ?,
                 serves = ? WHERE id = ?",
            )
            .bind(after.certificate)
            .bind(after.expires_at)
            .bind(after.overdue_at)
            .bind(after.failing_since)
            .bind(&after.managed)
            .bind(after.serves.map(Serves::as_str))
            .bind(id)
            .execute(&mut *write)
            .await?;
        }
    }
    tallies.store(write).await
}

/// Which managed certificates are for new endpoints, of which nothing was seen yet.
pub(crate) async fn begin(write: &mut SqliteConnection, ids: &[i64], tallies: &mut Tallies) -> Result<(), sqlx::Error> {
    let named: Vec<i64> = sqlx::query_scalar(
        "SELECT id FROM endpoint e WHERE id IN (SELECT value FROM json_each(?))
             AND (EXISTS (SELECT 1 FROM managed_name m WHERE m.name = e.asked AND e.asked <> '')
                 OR EXISTS (SELECT 1 FROM managed_name m WHERE m.name = '*.' || e.parent AND e.parent <> ''))",
    )
    .bind(serde_json::to_string(ids).unwrap_or_default())
    .fetch_all(&mut *write)
    .await?;
    for id in named {
        if let Some((managed, _)) = managed(write, id, &[]).await? {
            tallies.count("managed", 1);
            let set = sqlx::query("UPDATE endpoint SET managed = ? WHERE id = ?").bind(managed).bind(id);
            set.execute(&mut *write).await?;
        }
    }
    Ok(())
}

/// What an endpoint is found by besides what it serves.
pub(crate) fn own_tokens(endpoint: &Endpoint) -> BTreeSet<String> {
    let key = &endpoint.key;
    let sni = key.sni.as_ref().map(ToString::to_string).unwrap_or_default();
    of_texts([endpoint.name.clone(), key.host.to_string(), sni], i64::from(key.port))
}

fn of_texts([name, host, sni]: [String; 3], port: i64) -> BTreeSet<String> {
    // All have the usual port: nobody looks for it.
    let port = if port == i64::from(USUAL_PORT) { String::new() } else { port.to_string() };
    search::tokens([&name, &host, &sni, &port].map(String::as_str))
}

/// Takes an endpoint that is to be removed out of the counts.
pub(crate) async fn forget(write: &mut SqliteConnection, id: i64) -> Result<(), sqlx::Error> {
    let Some(before) = stored(write, id).await? else { return Ok(()) };
    let active: bool =
        sqlx::query_scalar("SELECT active FROM endpoint WHERE id = ?").bind(id).fetch_one(&mut *write).await?;
    let mut tallies = Tallies::default();
    tallies.changed(&before, -1);
    tallies.count("endpoints", -1);
    tallies.count("active", -i64::from(active));
    tallies.store(write).await
}

async fn stored(write: &mut SqliteConnection, id: i64) -> Result<Option<Summary>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT certificate, expires_at, overdue_at, failing_since, managed, serves,
         (SELECT not_before FROM certificate WHERE certificate.id = endpoint.certificate) AS not_before,
         (SELECT not_after FROM certificate WHERE certificate.id = endpoint.certificate) AS not_after
         FROM endpoint WHERE id = ?",
    )
    .bind(id)
    .fetch_optional(write)
    .await?;
    row.map(|row| {
        let life = row.try_get::<Option<i64>, _>("not_before")?.zip(row.try_get("not_after")?);
        let serves: Option<String> = row.try_get("serves")?;
        Ok(Summary {
            certificate: row.try_get("certificate")?,
            life,
            expires_at: row.try_get("expires_at")?,
            overdue_at: row.try_get("overdue_at")?,
            failing_since: row.try_get("failing_since")?,
            managed: row.try_get("managed")?,
            serves: serves.and_then(|word| word.parse().ok()),
        })
    })
    .transpose()
}

/// The nodes that the endpoint has now, seen from where it is polled.
async fn nodes(write: &mut SqliteConnection, id: i64) -> Result<Vec<Node>, sqlx::Error> {
    type Row = (Option<i64>, Option<i64>, Option<i64>, Option<i64>, Option<i64>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT failing_first, certificate, not_before, not_after,
             (SELECT min(overdue_at) FROM version v WHERE v.certificate = node.certificate)
         FROM node JOIN schedule ON schedule.endpoint = node.endpoint AND schedule.site = node.site
         LEFT JOIN certificate ON certificate.id = node.certificate
         WHERE node.endpoint = ? AND gone_at IS NULL",
    )
    .bind(id)
    .fetch_all(write)
    .await?;
    let node = |(failing_first, certificate, not_before, not_after, planned_overdue): Row| Node {
        failing_first,
        certificate: certificate.zip(not_before.zip(not_after)).map(|(id, (not_before, not_after))| Served {
            id,
            not_before,
            not_after,
            planned_overdue,
        }),
    };
    Ok(rows.into_iter().map(node).collect())
}

async fn computed(write: &mut SqliteConnection, id: i64, nodes: &[Node]) -> Result<Summary, sqlx::Error> {
    let served = || nodes.iter().filter_map(|node| node.certificate);
    let first = served().min_by_key(|one| (one.not_after, one.id));
    let habit = if first.is_some() { habit(write, id).await? } else { Vec::new() };
    let at = Timestamp::from_millis;
    let overdue = served().map(|one| match one.planned_overdue {
        Some(planned) => at(planned),
        None => overdue_from(at(one.not_before), at(one.not_after), &habit),
    });
    let overdue = overdue.min();
    let (managed, serves) = match managed(write, id, nodes).await? {
        Some((managed, serves)) => (Some(managed), serves),
        None => (None, None),
    };
    Ok(Summary {
        certificate: first.map(|first| first.id),
        life: first.map(|first| (first.not_before, first.not_after)),
        expires_at: first.map(|first| first.not_after),
        overdue_at: overdue.map(Timestamp::millis),
        failing_since: nodes.iter().filter_map(|node| node.failing_first).min(),
        managed,
        serves,
    })
}

/// After which parts of their lives the endpoint's last certificates were replaced.
async fn habit(write: &mut SqliteConnection, id: i64) -> Result<Vec<f64>, sqlx::Error> {
    let rows: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT not_before, not_after, min(ended_at) AS at FROM (
             SELECT certificate, ended_at FROM association
             WHERE endpoint = ?1 AND ended = 'replaced'
                 AND first_seen >= (SELECT key_since FROM endpoint WHERE id = ?1)
             ORDER BY first_seen DESC LIMIT ?2)
         JOIN certificate ON certificate.id = certificate GROUP BY certificate ORDER BY at DESC LIMIT ?3",
    )
    .bind(id)
    .bind(RECENT)
    .bind(HABIT as i64)
    .fetch_all(write)
    .await?;
    let at = Timestamp::from_millis;
    Ok(rows.into_iter().filter_map(|(begin, end, replaced)| part_lived(at(begin), at(end), at(replaced))).collect())
}

/// The managed certificate that is for an endpoint, as `tenant/id`, and what its nodes serve of it. Of several the one that
/// is served, else the one that is found by the name that is asked for, else by what was served before; of equals the last
/// that was issued.
async fn managed(
    write: &mut SqliteConnection,
    id: i64,
    nodes: &[Node],
) -> Result<Option<(String, Option<Serves>)>, sqlx::Error> {
    let found: Option<(String, String)> = sqlx::query_as(
        "SELECT tenant, id FROM (
             SELECT 0 AS way, v.tenant, v.id, v.obtained_at AS at FROM node n JOIN version v ON v.certificate = n.certificate
                 WHERE n.endpoint = ?1 AND n.gone_at IS NULL
             UNION ALL
             SELECT 1, v.tenant, v.id, v.obtained_at FROM endpoint e JOIN managed_name m ON m.name = e.asked
                 JOIN version v ON v.tenant = m.tenant AND v.id = m.id WHERE e.id = ?1 AND e.asked <> ''
             UNION ALL
             SELECT 2, v.tenant, v.id, v.obtained_at FROM endpoint e JOIN managed_name m ON m.name = '*.' || e.parent
                 JOIN version v ON v.tenant = m.tenant AND v.id = m.id WHERE e.id = ?1 AND e.parent <> ''
             UNION ALL
             SELECT 3, v.tenant, v.id, v.obtained_at FROM association a JOIN version v ON v.certificate = a.certificate
                 WHERE a.endpoint = ?1 AND a.first_seen >= (SELECT key_since FROM endpoint WHERE id = ?1)
         ) ORDER BY way, at DESC LIMIT 1",
    )
    .bind(id)
    .fetch_optional(&mut *write)
    .await?;
    let Some((tenant, managed)) = found else { return Ok(None) };
    let versions = versions(write, &tenant, &managed).await?;
    let known: Vec<drift::Version> = versions.iter().map(|(_, version)| *version).collect();
    let served = nodes.iter().filter_map(|node| node.certificate).map(|one| of(&versions, one.id));
    let serves = drift::worst(served.filter_map(|version| drift::serves(&known, version)));
    Ok(Some((format!("{tenant}/{managed}"), serves)))
}

/// The versions of a managed certificate, each with its certificate.
pub(crate) async fn versions(
    connection: &mut SqliteConnection,
    tenant: &str,
    managed: &str,
) -> Result<Vec<(i64, drift::Version)>, sqlx::Error> {
    let rows: Vec<(i64, i64, Option<i64>)> =
        sqlx::query_as("SELECT certificate, place, offered_place FROM version WHERE tenant = ? AND id = ?")
            .bind(tenant)
            .bind(managed)
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().map(|(id, obtained, offered)| (id, drift::Version { obtained, offered })).collect())
}

/// The version that a certificate is.
pub(crate) fn of(versions: &[(i64, drift::Version)], certificate: i64) -> Option<drift::Version> {
    versions.iter().find(|(id, _)| *id == certificate).map(|(_, version)| *version)
}

async fn set_tokens(write: &mut SqliteConnection, id: i64, certificates: &BTreeSet<i64>) -> Result<(), sqlx::Error> {
    let row = sqlx::query("SELECT name, host, sni, port FROM endpoint WHERE id = ?").bind(id);
    let row = row.fetch_one(&mut *write).await?;
    let texts = [row.try_get("name")?, row.try_get("host")?, row.try_get("sni")?];
    let mut tokens = of_texts(texts, row.try_get("port")?);
    for certificate in certificates {
        let known: Vec<String> = sqlx::query_scalar("SELECT token FROM token WHERE kind = 'c' AND id = ?")
            .bind(certificate)
            .fetch_all(&mut *write)
            .await?;
        tokens.extend(known);
    }
    search::set(write, Kind::Endpoint, id, &tokens).await
}

/// Stores a certificate once; returns its number.
pub(crate) async fn certificate(
    write: &mut SqliteConnection,
    facts: &Facts,
    der: &[u8],
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let fingerprint = facts.fingerprint.as_bytes().as_slice();
    let known: Option<i64> = sqlx::query_scalar("SELECT id FROM certificate WHERE fingerprint = ?")
        .bind(fingerprint)
        .fetch_optional(&mut *write)
        .await?;
    if let Some(known) = known {
        return Ok(known);
    }
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO certificate (fingerprint, der, subject, issuer, serial, names, not_before, not_after, key, signature,
         spki, added_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(fingerprint)
    .bind(der)
    .bind(&facts.subject)
    .bind(&facts.issuer)
    .bind(&facts.serial)
    .bind(facts.names.join(" "))
    .bind(facts.not_before.millis())
    .bind(facts.not_after.millis())
    .bind(&facts.key)
    .bind(&facts.signature)
    .bind(facts.spki.as_bytes().as_slice())
    .bind(now.millis())
    .fetch_one(&mut *write)
    .await?;
    search::set(write, Kind::Certificate, id, &search::of_certificate(facts)).await?;
    Ok(id)
}

impl Tallies {
    pub(crate) fn count(&mut self, what: &str, by: i64) {
        *self.counts.entry(what.to_owned()).or_default() += by;
    }

    fn changed(&mut self, summary: &Summary, by: i64) {
        if let Some((first, last)) = summary.life {
            *self.lives.entry((first.div_euclid(DAY), last.div_euclid(DAY))).or_default() += by;
        }
        if summary.failing_since.is_some() {
            self.count("failing", by);
        }
        if summary.managed.is_some() {
            self.count("managed", by);
        } else if summary.certificate.is_some() {
            self.count("unmanaged", by);
        }
        if let Some(serves) = summary.serves {
            self.count(serves.as_str(), by);
        }
    }

    pub(crate) async fn store(self, write: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        for (what, by) in self.counts.into_iter().filter(|(_, by)| *by != 0) {
            sqlx::query(
                "INSERT INTO tally (what, endpoints) VALUES (?1, ?2)
                 ON CONFLICT (what) DO UPDATE SET endpoints = endpoints + ?2",
            )
            .bind(what)
            .bind(by)
            .execute(&mut *write)
            .await?;
        }
        for ((first, last), by) in self.lives.into_iter().filter(|(_, by)| *by != 0) {
            sqlx::query(
                "INSERT INTO life (first_day, last_day, endpoints) VALUES (?1, ?2, ?3)
                 ON CONFLICT (first_day, last_day) DO UPDATE SET endpoints = endpoints + ?3",
            )
            .bind(first)
            .bind(last)
            .bind(by)
            .execute(&mut *write)
            .await?;
            sqlx::query("DELETE FROM life WHERE first_day = ? AND last_day = ? AND endpoints = 0")
                .bind(first)
                .bind(last)
                .execute(&mut *write)
                .await?;
        }
        Ok(())
    }
}
