//! One certificate with all that is known of it: its DER, the chain it was served with, and where it was seen.

use certbus_core::id::Fingerprint;
use certbus_core::time::Timestamp;
use serde::Serialize;
use sqlx::Row;

use crate::error::StoreError;
use crate::sqlite::Store;

/// A certificate that was seen or issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its DER.
    pub der: Vec<u8>,
    /// What came after it where it was last seen, in order, each in DER.
    pub chain: Vec<Vec<u8>>,
    /// Since when it is known.
    pub added_at: Timestamp,
    /// The managed certificate that it is a version of: tenant and id.
    pub managed: Option<String>,
}

/// A place where a certificate was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeenAt {
    /// The endpoint.
    pub endpoint: i64,
    /// Its name.
    pub name: String,
    /// From where it was seen.
    pub site: String,
    /// The node.
    pub address: String,
    /// First seen.
    pub first: Timestamp,
    /// Last seen.
    pub last: Timestamp,
    /// It is there still, as far as the last poll saw.
    pub still: bool,
}

impl Store {
    /// A certificate.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn certificate(&self, fingerprint: Fingerprint) -> Result<Option<Kept>, StoreError> {
        let fault = |e: sqlx::Error| self.fault(&e);
        let mut read = self.readers().begin().await.map_err(fault)?;
        let row = sqlx::query(
            "SELECT id, der, added_at, (SELECT tenant || '/' || id FROM version v WHERE v.certificate = c.id LIMIT 1) AS managed,
                 (SELECT chain FROM node n WHERE n.certificate = c.id AND chain <> '' LIMIT 1) AS chain
             FROM certificate c WHERE fingerprint = ?",
        )
        .bind(fingerprint.as_bytes().as_slice())
        .fetch_optional(&mut *read)
        .await
        .map_err(fault)?;
        let Some(row) = row else { return Ok(None) };
        let ids: Option<String> = row.try_get("chain").map_err(fault)?;
        let mut chain = Vec::new();
        for id in ids.unwrap_or_default().split_whitespace() {
            let der: Option<Vec<u8>> = sqlx::query_scalar("SELECT der FROM certificate WHERE id = ?")
                .bind(id.parse::<i64>().unwrap_or_default())
                .fetch_optional(&mut *read)
                .await
                .map_err(fault)?;
            chain.extend(der);
        }
        Ok(Some(Kept {
            der: row.try_get("der").map_err(fault)?,
            chain,
            added_at: Timestamp::from_millis(row.try_get("added_at").map_err(fault)?),
            managed: row.try_get("managed").map_err(fault)?,
        }))
    }

    /// Where a certificate is or was seen, those first where it still is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn seen_at(&self, fingerprint: Fingerprint, limit: i64) -> Result<Vec<SeenAt>, StoreError> {
        type Row = (i64, String, String, String, i64, i64, bool);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT * FROM (SELECT n.endpoint, e.name, site, address, served_first, served_last, gone_at IS NULL
                 FROM certificate c JOIN node n ON n.certificate = c.id JOIN endpoint e ON e.id = n.endpoint
                 WHERE c.fingerprint = ?1 LIMIT ?2)
             UNION ALL
             SELECT * FROM (SELECT a.endpoint, e.name, site, address, first_seen, last_seen, 0
                 FROM certificate c JOIN association a ON a.certificate = c.id JOIN endpoint e ON e.id = a.endpoint
                 WHERE c.fingerprint = ?1 LIMIT ?2)",
        )
        .bind(fingerprint.as_bytes().as_slice())
        .bind(limit)
        .fetch_all(self.readers())
        .await
        .map_err(|e| self.fault(&e))?;
        let at = Timestamp::from_millis;
        let seen = |(endpoint, name, site, address, first, last, still): Row| SeenAt {
            endpoint,
            name,
            site,
            address,
            first: at(first),
            last: at(last),
            still,
        };
        Ok(rows.into_iter().map(seen).collect())
    }
}
