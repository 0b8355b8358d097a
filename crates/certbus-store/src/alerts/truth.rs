//! What is wrong now, read by the indexes of what is wrong: the cost grows with that, not with what is watched.

use certbus_core::alert::unexpected::{Compared, unexpected};
use certbus_core::alert::{Kind, POLLS_IN_VAIN, Problem, ROLLOUT, is_stalled};
use certbus_core::id::Hash;
use certbus_core::time::Timestamp;
use sqlx::SqliteConnection;

use crate::sqlite;

/// Changes that are looked through at a time.
const CHANGES: i64 = 10_000;

/// Number, name, owner, since when, and two words that depend on the kind.
type Row = (i64, String, String, i64, String, String);

/// Of endpoints that are polled. Each statement takes now, and what its kind needs.
pub(super) async fn of_endpoints(write: &mut SqliteConnection, now: Timestamp) -> Result<Vec<Problem>, sqlx::Error> {
    let at = |millis: i64| Timestamp::from_millis(millis);
    let mut found = Vec::new();
    type Words = fn(&Row, Timestamp) -> String;
    let statements: [(Kind, &'static str, i64, Words); 4] = [
        (
            Kind::Expired,
            "SELECT json_group_array(json_array(e.id, e.name, e.owner, e.expires_at, c.subject, c.issuer))
             FROM endpoint e JOIN certificate c ON c.id = e.certificate
             WHERE e.expires_at <= ?1 ->> 0 AND e.active",
            0,
            |(.., subject, issuer), since| format!("the certificate {subject} by {issuer} expired at {since}"),
        ),
        (
            // What was issued here is told of the managed certificate.
            Kind::RenewalOverdue,
            "SELECT json_group_array(json_array(e.id, e.name, e.owner, e.overdue_at, c.subject, c.issuer || char(10)
                 || e.expires_at))
             FROM endpoint e JOIN certificate c ON c.id = e.certificate
             WHERE e.overdue_at <= ?1 ->> 0 AND e.active AND coalesce(e.serves, 'another') = 'another'",
            0,
            |(.., subject, rest), since| {
                let (issuer, ends) = rest.rsplit_once('\n').unwrap_or((rest, ""));
                let ends = ends.parse().map(Timestamp::from_millis).unwrap_or_default();
                format!("the certificate {subject} by {issuer} should have been renewed by {since}; it expires at {ends}")
            },
        ),
        (
            Kind::Unreachable,
            "SELECT json_group_array(json_array(id, name, owner, since, nodes, why)) FROM (
                 SELECT e.id, e.name, e.owner, min(n.failing_first) AS since,
                     count(*) || ' of ' || (SELECT count(*) FROM node a WHERE a.endpoint = e.id AND a.gone_at IS NULL) AS nodes,
                     max(coalesce(n.why, n.failure)) AS why
                 FROM endpoint e JOIN node n ON n.endpoint = e.id AND n.gone_at IS NULL AND n.failure IS NOT NULL
                 WHERE e.failing_since <= ?1 ->> 0 AND e.active AND n.failing_times >= ?1 ->> 1 GROUP BY e.id)",
            i64::from(POLLS_IN_VAIN),
            |(.., nodes, why), _| format!("{nodes} nodes did not show a certificate in {POLLS_IN_VAIN} polls or more: {why}"),
        ),
        (
            // Seen well after the version of today was offered: not while it is on its way.
            Kind::OlderVersion,
            "SELECT json_group_array(json_array(id, name, owner, offered_at, managed, nodes)) FROM (
                 SELECT e.id, e.name, e.owner, e.managed, v.offered_at, group_concat(n.address, ', ') AS nodes
                 FROM endpoint e
                 JOIN version v ON v.tenant = substr(e.managed, 1, instr(e.managed, '/') - 1)
                     AND v.id = substr(e.managed, instr(e.managed, '/') + 1)
                     AND v.offered_place = (SELECT max(offered_place) FROM version o WHERE o.tenant = v.tenant AND o.id = v.id)
                 JOIN node n ON n.endpoint = e.id AND n.gone_at IS NULL AND n.served_last >= v.offered_at + ?1 ->> 1
                 JOIN version s ON s.tenant = v.tenant AND s.id = v.id AND s.certificate = n.certificate
                     AND s.place <> v.place AND s.place <= v.offered_place
                 WHERE e.serves = 'older-version' AND e.active GROUP BY e.id)",
            ROLLOUT.as_millis() as i64,
            |(.., managed, nodes), since| format!("{nodes} serves a version of {managed} that was replaced at {since}"),
        ),
    ];
    for (kind, statement, more, words) in statements {
        let asked = serde_json::to_string(&(now.millis(), more)).unwrap_or_default();
        let rows: Vec<Row> = sqlite::many(write, statement, &asked).await?;
        found.extend(rows.into_iter().map(|row| {
            let words = words(&row, at(row.3));
            let (id, name, owner, since, ..) = row;
            Problem { key: format!("endpoint/{id}/{kind}"), kind, name, owner, words, since: at(since) }
        }));
    }
    Ok(found)
}

/// Of the scheduler and the workers: whether what is due is polled, as far as it was watched.
pub(super) async fn of_the_scheduler(
    write: &mut SqliteConnection,
    watching: Timestamp,
    now: Timestamp,
) -> Result<Option<Problem>, sqlx::Error> {
    let behind: Vec<(String, i64)> = sqlx::query_as(
        "WITH RECURSIVE place(name) AS (SELECT min(site) FROM schedule
             UNION ALL SELECT (SELECT min(site) FROM schedule WHERE site > name) FROM place WHERE name IS NOT NULL)
         SELECT name, at FROM (
             SELECT name, (SELECT min(next_at) FROM schedule WHERE site = name) AS at FROM place WHERE name IS NOT NULL
             UNION ALL SELECT substr(lane, 6), min(ready_at) FROM task
                 WHERE dead_at IS NULL AND lane >= 'poll/' AND lane < 'poll0' GROUP BY lane)
         WHERE at <= ? ORDER BY at",
    )
    .bind(now.millis())
    .fetch_all(write)
    .await?;
    let stalled: Vec<(String, Timestamp)> = behind
        .into_iter()
        .map(|(site, at)| (site, Timestamp::from_millis(at)))
        .filter(|(_, at)| is_stalled(*at, watching, now))
        .collect();
    let Some(since) = stalled.iter().map(|(_, at)| *at).min() else { return Ok(None) };
    let mut sites: Vec<&str> = stalled.iter().map(|(site, _)| site.as_str()).collect();
    sites.sort_unstable();
    sites.dedup();
    let words = format!(
        "polls that are due are not made at: {}; look whether `certbus serve`, or `certbus scheduler` and `certbus worker`, run",
        sites.join(", ")
    );
    let (kind, name) = (Kind::Stalled, "scheduler".to_owned());
    Ok(Some(Problem { key: "scheduler/stalled".into(), kind, name, owner: String::new(), words, since }))
}

/// Of what changed since this was called last. A certificate that the endpoint had before is no news, whichever node has it
/// now; what was issued here is expected.
pub(super) async fn of_changes(write: &mut SqliteConnection) -> Result<Vec<Problem>, sqlx::Error> {
    type Side = (String, Hash, i64, i64);
    let last: (i64, Option<i64>) = sqlx::query_as(
        "SELECT id, (SELECT max(id) FROM (SELECT id FROM change WHERE change.id > looked.id ORDER BY id LIMIT ?))
         FROM looked WHERE what = 'change'",
    )
    .bind(CHANGES)
    .fetch_one(&mut *write)
    .await?;
    let (from, Some(to)) = last else { return Ok(Vec::new()) };
    let rows: Vec<(i64, i64, String, String, String, Side, Side)> = sqlite::many(
        write,
        "SELECT json_group_array(json_array(h.at, e.id, e.name, e.owner, lower(hex(a.fingerprint)),
             json_array(b.issuer, lower(hex(b.spki)), b.not_before, b.not_after),
             json_array(a.issuer, lower(hex(a.spki)), a.not_before, a.not_after)))
         FROM change h JOIN endpoint e ON e.id = h.endpoint
         JOIN certificate b ON b.id = h.before JOIN certificate a ON a.id = h.after
         WHERE h.id > ?1 ->> 0 AND h.id <= ?1 ->> 1 AND h.kind = 'replaced' AND e.active
             AND NOT EXISTS (SELECT 1 FROM version v WHERE v.certificate = h.after)
             AND NOT EXISTS (SELECT 1 FROM change o WHERE o.endpoint = h.endpoint AND o.id < h.id AND o.after = h.after)",
        &serde_json::to_string(&(from, to)).unwrap_or_default(),
    )
    .await?;
    sqlx::query("UPDATE looked SET id = ? WHERE what = 'change'").bind(to).execute(write).await?;
    let compared = |(issuer, spki, begin, end): Side| Compared {
        issuer,
        spki,
        not_before: Timestamp::from_millis(begin),
        not_after: Timestamp::from_millis(end),
    };
    let problem = |(at, id, name, owner, print, before, after): (i64, i64, String, String, String, Side, Side)| {
        let since = Timestamp::from_millis(at);
        let what = unexpected(&compared(before), &compared(after), since)?;
        let print: String = print.chars().take(16).collect();
        let words = format!("another certificate is served: {what}; its fingerprint begins with {print}");
        let key = format!("endpoint/{id}/{}/{print}", Kind::Changed);
        Some(Problem { key, kind: Kind::Changed, name, owner, words, since })
    };
    Ok(rows.into_iter().filter_map(problem).collect())
}
