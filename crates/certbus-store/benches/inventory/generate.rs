//! An inventory of any size with a year of history, as a year of polls would have left it: ten endpoints share a wildcard
//! certificate that was renewed every 60 days; one in fifty fails, one in forty is overdue, one in ten has a tag.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use certbus_core::certificate::Facts;
use certbus_core::time::Timestamp;
use certbus_store::Store;
use certbus_store::conformance::certificate;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection, Sqlite, Transaction};

/// Replacements in the year; the certificate before the first is number 0.
pub(crate) const RENEWALS: usize = 6;

const DAY: u64 = 86_400_000;

pub(crate) fn now() -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").unwrap()
}

pub(crate) fn host(number: usize) -> String {
    format!("host-{number}.shop-{}.example.com", number / 10)
}

pub(crate) fn address(number: usize) -> String {
    format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)
}

/// When the shop's certificate number `renewal` began.
fn begin(shop: usize, renewal: usize) -> Timestamp {
    // The last ones are up to 59 days old, or 75 where nobody renewed.
    let age = if shop.is_multiple_of(40) { 75 } else { (shop * 7 % 59) as u64 };
    let days = age + 60 * (RENEWALS - renewal) as u64;
    now().minus(Duration::from_millis(days * DAY + (shop * 7919 % 86_400) as u64 * 1000))
}

/// What an endpoint served after its `renewal`th replacement.
pub(crate) fn certificate_of(number: usize, renewal: usize) -> Vec<u8> {
    let shop = number / 10;
    let life = Duration::from_millis(90 * DAY);
    certificate(&format!("*.shop-{shop}.example.com shop-{shop}.example.com"), "R3", begin(shop, renewal), life)
}

pub(crate) async fn inventory(count: usize, file: &Path) {
    drop(Store::open(file).await.unwrap());
    let options =
        SqliteConnectOptions::new().filename(file).pragma("synchronous", "OFF").pragma("cache_size", "-400000");
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let mut write = connection.begin().await.unwrap();
    certificates(&mut write, count.div_ceil(10)).await;
    let (now, day) = (now().millis(), DAY as i64);
    // Numbers of endpoints are counted from 0 as `n`; their rows have id n + 1, their shop's certificates shop * 7 + renewal + 1.
    let numbers =
        format!("WITH RECURSIVE number(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM number WHERE n + 1 < {count})");
    let renewals =
        format!("{numbers}, renewal(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM renewal WHERE k < {})", RENEWALS - 1);
    let address = "'10.' || (n >> 16 & 255) || '.' || (n >> 8 & 255) || '.' || (n & 255)";
    for statement in [
        format!(
            "{numbers} INSERT INTO endpoint (id, name, host, port, sni, starttls, owner, active, every, revision, added_at,
                 asked, parent, key_since, certificate, expires_at, overdue_at, failing_since)
             SELECT n + 1, h || ':443', h, 443, '', '', 'team-' || (n + 1) % 20, 1, NULL, 1, {now} - 365 * {day}, h, p, 0, c.id, c.not_after,
                 c.not_before + 60 * {day} + 3 * {day}, CASE WHEN n % 50 = 0 THEN {now} - {day} END
             FROM (SELECT n, 'host-' || n || '.shop-' || (n / 10) || '.example.com' AS h,
                 'shop-' || (n / 10) || '.example.com' AS p FROM number)
             JOIN certificate c ON c.id = (n / 10) * 7 + {RENEWALS} + 1"
        ),
        format!("{numbers} INSERT INTO endpoint_tag (tag, endpoint) SELECT 'eu', n + 1 FROM number WHERE n % 10 = 0"),
        format!("{numbers} INSERT INTO schedule (endpoint, site, next_at) SELECT n + 1, 'default', {now} + n * 7919 % 3600000 FROM number"),
        format!(
            "{numbers} INSERT INTO node (endpoint, site, address, certificate, leaf_hash, chain, chain_hash, method, served_first, served_last, served_times,
                 failure, why, failing_first, failing_last, failing_times, asked_at, missed)
             SELECT n + 1, 'default', {address}, c.id, c.fingerprint, '', zeroblob(32), 'quick 1.3 1.2 1.1 1.0', c.not_before + 3600000,
                 {now} - (CASE WHEN n % 50 = 0 THEN {day} ELSE 0 END), ({now} - c.not_before) / 3600000,
                 CASE WHEN n % 50 = 0 THEN 'refused' END, CASE WHEN n % 50 = 0 THEN 'refused: nothing listens there' END,
                 CASE WHEN n % 50 = 0 THEN {now} - {day} END, CASE WHEN n % 50 = 0 THEN {now} END,
                 CASE WHEN n % 50 = 0 THEN 24 ELSE 0 END, {now}, 0
             FROM number JOIN certificate c ON c.id = (n / 10) * 7 + {RENEWALS} + 1"
        ),
        format!(
            "{renewals} INSERT INTO association (endpoint, site, address, certificate, method, first_seen, last_seen, times, ended_at, ended)
             SELECT n + 1, 'default', {address}, c.id, 'quick 1.3 1.2 1.1 1.0', c.not_before + 3600000, d.not_before, 1440,
                 d.not_before + 3600000, 'replaced' 
             FROM number CROSS JOIN renewal JOIN certificate c ON c.id = (n / 10) * 7 + k + 1
             JOIN certificate d ON d.id = c.id + 1"
        ),
        format!(
            "{numbers}, renewal(k) AS (SELECT 0 UNION ALL SELECT k + 1 FROM renewal WHERE k < {RENEWALS})
             INSERT INTO change (at, endpoint, site, address, kind, before, after, why)
             SELECT c.not_before + 3600000, n + 1, 'default', {address}, CASE k WHEN 0 THEN 'first' ELSE 'replaced' END,
                 CASE k WHEN 0 THEN NULL ELSE c.id - 1 END, c.id, ''
             FROM renewal CROSS JOIN number JOIN certificate c ON c.id = (n / 10) * 7 + k + 1"
        ),
        format!(
            "{numbers} INSERT INTO token (kind, token, id) SELECT 'e', token, id FROM (
                 SELECT 'host-' || n || '.shop-' || (n / 10) || '.example.com' AS token, n + 1 AS id FROM number
                 UNION ALL SELECT 'shop-' || (n / 10) || '.example.com', n + 1 FROM number
                 UNION ALL SELECT 'example.com', n + 1 FROM number UNION ALL SELECT 'com', n + 1 FROM number
                 UNION ALL SELECT 'r3', n + 1 FROM number) ORDER BY token, id"
        ),
        "INSERT INTO tally (what, endpoints) SELECT 'endpoints', count(*) FROM endpoint
         UNION ALL SELECT 'active', count(*) FROM endpoint UNION ALL SELECT 'unmanaged', count(*) FROM endpoint
         UNION ALL SELECT 'failing', count(*) FROM endpoint WHERE failing_since IS NOT NULL"
            .to_owned(),
        format!(
            "INSERT INTO life (first_day, last_day, endpoints) SELECT not_before / {day} AS f, not_after / {day} AS l, count(*)
             FROM endpoint JOIN certificate ON certificate.id = endpoint.certificate GROUP BY f, l"
        ),
    ] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut *write).await.unwrap();
    }
    write.commit().await.unwrap();
    sqlx::raw_sql("ANALYZE; PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Seven for each shop, each with the tokens that the store would give it.
async fn certificates(write: &mut Transaction<'_, Sqlite>, shops: usize) {
    let mut tokens: BTreeMap<(String, i64), ()> = BTreeMap::new();
    for shop in 0..shops {
        for renewal in 0..=RENEWALS {
            let der = certificate_of(shop * 10, renewal);
            let facts = Facts::read(&der);
            let id = (shop * 7 + renewal + 1) as i64;
            sqlx::query(
                "INSERT INTO certificate (id, fingerprint, der, subject, issuer, serial, names, not_before, not_after, key,
                 signature, spki, added_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(id)
            .bind(facts.fingerprint.as_bytes().as_slice())
            .bind(&der)
            .bind(&facts.subject)
            .bind(&facts.issuer)
            .bind(&facts.serial)
            .bind(facts.names.join(" "))
            .bind(facts.not_before.millis())
            .bind(facts.not_after.millis())
            .bind(&facts.key)
            .bind(&facts.signature)
            .bind(facts.spki.as_bytes().as_slice())
            .bind(facts.not_before.millis())
            .execute(&mut **write)
            .await
            .unwrap();
            for token in [format!("shop-{shop}.example.com"), "example.com".into(), "com".into(), "r3".into()] {
                tokens.insert((token, id), ());
            }
        }
        if tokens.len() > 200_000 || shop + 1 == shops {
            for some in std::mem::take(&mut tokens).into_keys().collect::<Vec<_>>().chunks(10_000) {
                sqlx::query(
                    "INSERT INTO token (kind, token, id) SELECT 'c', value ->> 0, value ->> 1 FROM json_each(?)",
                )
                .bind(serde_json::to_string(some).unwrap())
                .execute(&mut **write)
                .await
                .unwrap();
            }
        }
    }
}
