//! What was issued here, projected from the log: cursor and effect in one transaction. A certificate that was issued and one
//! that was merely seen are the same row.

use std::collections::BTreeSet;

use certbus_core::certificate::Facts;
use certbus_core::drift;
use certbus_core::id::{CertificateId, Cursor, Fingerprint, Hash};
use certbus_core::name::DnsName;
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::SqliteConnection;

use crate::error::StoreError;
use crate::sqlite::{Store, fingerprint};
use crate::summary;

/// Something the log says, as far as the inventory needs it.
#[derive(Clone, Debug)]
pub enum Told {
    /// A version was obtained.
    Obtained {
        /// The managed certificate.
        id: CertificateId,
        /// Its names.
        names: Vec<DnsName>,
        /// The leaf's DER.
        leaf: Vec<u8>,
        /// Its place on the log: later is newer.
        place: i64,
        /// `new`, `renewal` or `replacement`.
        reason: String,
        /// When.
        at: Timestamp,
        /// From when on it is overdue: past its planned renewal by a tenth of the life that is left then.
        overdue_at: Timestamp,
    },
    /// All may serve it.
    Offered {
        /// The managed certificate.
        id: CertificateId,
        /// The version.
        version: Fingerprint,
        /// Its place on the log: the one that is offered last is current.
        place: i64,
        /// When.
        at: Timestamp,
    },
    /// The managed certificate is no more.
    Removed {
        /// Which.
        id: CertificateId,
    },
}

/// Where the versions of a managed certificate are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedAt {
    /// The endpoint's number.
    pub endpoint: i64,
    /// Its name.
    pub name: String,
    /// From where it was seen.
    pub site: String,
    /// The node; empty: the name led nowhere.
    pub address: String,
    /// What it serves: the leaf's fingerprint. None: it was never seen with one.
    pub fingerprint: Option<Fingerprint>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When it was seen last.
    pub last_seen: Option<Timestamp>,
    /// Why the last poll failed, if it did.
    pub failure: Option<String>,
    /// Whether it is the version last offered, one before, or another certificate.
    pub serves: Option<certbus_core::drift::Serves>,
}

impl Store {
    /// How far a tenant's log is projected.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn projected(&self, tenant: &str) -> Result<Cursor, StoreError> {
        let row: Option<(i64, Vec<u8>)> = sqlx::query_as("SELECT seq, hash FROM projection WHERE tenant = ?")
            .bind(tenant)
            .fetch_optional(self.readers())
            .await
            .map_err(|e| self.fault(&e))?;
        Ok(row.map_or(Cursor::START, |(seq, hash)| Cursor {
            seq: seq.unsigned_abs(),
            hash: hash.try_into().map_or(Hash::ZERO, Hash::from_bytes),
        }))
    }

    /// Applies what the log says between two cursors. False: another process has done so; read the cursor again.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; then nothing of it is applied.
    pub async fn project(
        &self,
        tenant: &str,
        from: Cursor,
        to: Cursor,
        told: &[Told],
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        if self.projected(tenant).await? != from {
            return Ok(false);
        }
        let fault = |e: sqlx::Error| self.fault(&e);
        let mut write = self.begin().await?;
        // One that was forgotten meanwhile begins anew, not from here.
        let moved = sqlx::query(if from == Cursor::START {
            "INSERT INTO projection (tenant, seq, hash) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING"
        } else {
            "UPDATE projection SET seq = ?2, hash = ?3 WHERE tenant = ?1 AND seq = ?4 AND hash = ?5"
        })
        .bind(tenant)
        .bind(to.seq as i64)
        .bind(to.hash.as_bytes().as_slice())
        .bind(from.seq as i64)
        .bind(from.hash.as_bytes().as_slice())
        .execute(&mut *write)
        .await
        .map_err(fault)?;
        if moved.rows_affected() == 0 {
            return Ok(false);
        }
        let mut touched = BTreeSet::new();
        for one in told {
            apply(&mut write, tenant, one, now, &mut touched).await.map_err(fault)?;
        }
        summary::renew(&mut write, &touched.into_iter().collect::<Vec<_>>()).await.map_err(fault)?;
        self.commit(write).await?;
        Ok(true)
    }

    /// Has a tenant's projection begin anew: its log was trimmed past it, restored, or is another. What the log knows no more
    /// but as one of `kept` stays; other managed certificates are gone.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn project_anew(&self, tenant: &str, kept: &BTreeSet<CertificateId>) -> Result<(), StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        let mut write = self.begin().await?;
        let known: Vec<String> = sqlx::query_scalar("SELECT id FROM managed WHERE tenant = ?")
            .bind(tenant)
            .fetch_all(&mut *write)
            .await
            .map_err(fault)?;
        let kept: BTreeSet<String> = kept.iter().map(ToString::to_string).collect();
        let mut touched = BTreeSet::new();
        for id in known.iter().filter(|id| !kept.contains(*id)) {
            remove(&mut write, tenant, id, &mut touched).await.map_err(fault)?;
        }
        let forget = sqlx::query("DELETE FROM projection WHERE tenant = ?").bind(tenant);
        forget.execute(&mut *write).await.map_err(fault)?;
        summary::renew(&mut write, &touched.into_iter().collect::<Vec<_>>()).await.map_err(fault)?;
        self.commit(write).await
    }

    /// Each node of each endpoint that a managed certificate is for, as it was seen last from wherever, and what it serves.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn served_at(&self, tenant: &str, id: CertificateId) -> Result<Vec<ServedAt>, StoreError> {
        use certbus_core::drift::serves;
        type Row =
            (i64, String, String, String, Option<i64>, Option<Vec<u8>>, Option<i64>, Option<i64>, Option<String>);
        let fault = |e: sqlx::Error| self.fault(&e);
        // One state of all.
        let mut read = self.readers().begin().await.map_err(fault)?;
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT endpoint.id, endpoint.name, node.site, address, node.certificate, fingerprint, served_first, served_last,
                 CASE WHEN failure IS NULL THEN NULL ELSE coalesce(why, failure) END
             FROM endpoint JOIN node ON node.endpoint = endpoint.id AND gone_at IS NULL
             JOIN schedule ON schedule.endpoint = node.endpoint AND schedule.site = node.site
             LEFT JOIN certificate ON certificate.id = node.certificate
             WHERE managed = ? ORDER BY endpoint.name, endpoint.id, address, asked_at DESC",
        )
        .bind(format!("{tenant}/{id}"))
        .fetch_all(&mut *read)
        .await
        .map_err(fault)?;
        let versions = summary::versions(&mut read, tenant, &id.to_string()).await.map_err(fault)?;
        let known: Vec<drift::Version> = versions.iter().map(|(_, version)| *version).collect();
        let at = Timestamp::from_millis;
        let shown =
            rows.into_iter().map(|(endpoint, name, site, address, certificate, print, first, last, failure)| {
                let served = certificate.filter(|_| failure.is_none()).map(|id| summary::of(&versions, id));
                ServedAt {
                    endpoint,
                    name,
                    site,
                    address,
                    fingerprint: fingerprint(print),
                    since: first.map(at),
                    last_seen: last.map(at),
                    failure,
                    serves: served.and_then(|version| serves(&known, version)),
                }
            });
        let mut nodes: Vec<ServedAt> = shown.collect();
        nodes.dedup_by(|later, first| (later.endpoint, &later.address) == (first.endpoint, &first.address));
        Ok(nodes)
    }
}

async fn apply(
    write: &mut SqliteConnection,
    tenant: &str,
    told: &Told,
    now: Timestamp,
    touched: &mut BTreeSet<i64>,
) -> Result<(), sqlx::Error> {
    match told {
        Told::Obtained { id, names, leaf, place, reason, at, overdue_at } => {
            let certificate = summary::certificate(write, &Facts::read(leaf), leaf, now).await?;
            let id = id.to_string();
            let spelt = names.iter().map(ToString::to_string).collect::<Vec<_>>();
            sqlx::query(
                "INSERT INTO managed (tenant, id, names) VALUES (?1, ?2, ?3)
                 ON CONFLICT (tenant, id) DO UPDATE SET names = ?3",
            )
            .bind(tenant)
            .bind(&id)
            .bind(spelt.join(" "))
            .execute(&mut *write)
            .await?;
            touch(write, tenant, &id, touched).await?;
            sqlx::query("DELETE FROM managed_name WHERE tenant = ? AND id = ?")
                .bind(tenant)
                .bind(&id)
                .execute(&mut *write)
                .await?;
            for name in &spelt {
                sqlx::query("INSERT INTO managed_name (name, tenant, id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
                    .bind(name)
                    .bind(tenant)
                    .bind(&id)
                    .execute(&mut *write)
                    .await?;
            }
            sqlx::query(
                "INSERT INTO version (tenant, id, certificate, place, reason, obtained_at, overdue_at)
                 VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(tenant)
            .bind(&id)
            .bind(certificate)
            .bind(place)
            .bind(reason)
            .bind(at.millis())
            .bind(overdue_at.millis())
            .execute(&mut *write)
            .await?;
            touch(write, tenant, &id, touched).await
        }
        Told::Offered { id, version, place, at } => {
            let id = id.to_string();
            sqlx::query(
                "UPDATE version SET offered_at = ?, offered_place = ? WHERE tenant = ? AND id = ?
                 AND certificate = (SELECT id FROM certificate WHERE fingerprint = ?)",
            )
            .bind(at.millis())
            .bind(place)
            .bind(tenant)
            .bind(&id)
            .bind(version.as_bytes().as_slice())
            .execute(&mut *write)
            .await?;
            touch(write, tenant, &id, touched).await
        }
        Told::Removed { id } => remove(write, tenant, &id.to_string(), touched).await,
    }
}

async fn remove(
    write: &mut SqliteConnection,
    tenant: &str,
    id: &str,
    touched: &mut BTreeSet<i64>,
) -> Result<(), sqlx::Error> {
    touch(write, tenant, id, touched).await?;
    for table in ["managed", "managed_name", "version"] {
        let statement = sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE tenant = ? AND id = ?"));
        sqlx::query(statement).bind(tenant).bind(id).execute(&mut *write).await?;
    }
    Ok(())
}

/// The endpoints that a managed certificate has to do with: by name, by what they serve, by what they served.
async fn touch(
    write: &mut SqliteConnection,
    tenant: &str,
    id: &str,
    touched: &mut BTreeSet<i64>,
) -> Result<(), sqlx::Error> {
    let found: Vec<i64> = sqlx::query_scalar(
        "SELECT e.id FROM managed_name m JOIN endpoint e ON e.asked = m.name WHERE m.tenant = ?1 AND m.id = ?2
         UNION SELECT e.id FROM managed_name m JOIN endpoint e ON e.parent = substr(m.name, 3)
             WHERE m.tenant = ?1 AND m.id = ?2 AND m.name LIKE '*.%'
         UNION SELECT n.endpoint FROM version v JOIN node n ON n.certificate = v.certificate
             WHERE v.tenant = ?1 AND v.id = ?2
         UNION SELECT a.endpoint FROM version v JOIN association a ON a.certificate = v.certificate
             WHERE v.tenant = ?1 AND v.id = ?2",
    )
    .bind(tenant)
    .bind(id)
    .fetch_all(write)
    .await?;
    touched.extend(found);
    Ok(())
}
