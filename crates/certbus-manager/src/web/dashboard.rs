//! The first page: whether all is well, and if not, what needs a person, the most urgent first.

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Query as Asked, State};
use axum::http::HeaderMap;
use axum::response::Response;
use certbus_core::polling::USUAL_INTERVAL;
use certbus_core::time::Timestamp;
use certbus_store::glance::{COUNTED, Glance, Group};
use certbus_store::{Query, State as Is};

use super::asker::Asker;
use super::chart::{by_day, by_life_left, thousands};
use super::endpoints::Filter;
use super::fault::Fault;
use super::page::{self, Frame, When, when};
use super::rows::{ChangeRow, Row, change_rows};
use super::{Face, managed};
use crate::clock;
use crate::managed::Managed;

/// Up to so many endpoints all of them are on this page.
const ALL: i64 = 100;

/// What needs a person is listed so far.
const LISTED: i64 = 50;

/// Of tags, owners and sites so many are named that have something to do.
const GROUPS: i64 = 8;

/// Polls that are late by more than this make what is known old.
const STALE: i64 = 10 * 60_000;

/// What the whole page comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Headline {
    /// `good`, `warn` or `bad`, for style.
    pub(crate) kind: &'static str,
    pub(crate) words: String,
}

/// Managed certificates in a few numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) all: usize,
    pub(crate) needing: Vec<Managed>,
    pub(crate) due_in_a_day: usize,
    pub(crate) due_in_a_week: usize,
    pub(crate) next_renewal: Option<Timestamp>,
    /// Versions obtained in 7 days, and renewals that are failing now.
    pub(crate) renewed: usize,
    pub(crate) failing: usize,
    /// Managed certificates that no endpoint is known for.
    pub(crate) never_seen: i64,
}

/// The one sentence. What is stale is never said to be good.
pub(crate) fn headline(glance: &Glance, issued: &Issued, now: Timestamp) -> Headline {
    let needing = glance.needing + i64::try_from(issued.needing.len()).unwrap_or(i64::MAX);
    let behind = glance.behind_since.filter(|since| now.millis() - since.millis() > STALE);
    // All are polled once an hour, or more often.
    let old =
        glance.polled_at.filter(|at| glance.active > 0 && now.since(*at) > USUAL_INTERVAL + Duration::from_secs(600));
    let behind = behind.or(old);
    let checked = glance.polled_at.map(|at| format!("checked {}", at.away(now)));
    let mut words = Vec::new();
    let kind = match (needing, glance.active, issued.all) {
        (0, 0, 0) => {
            words.push("Nothing is watched yet".to_owned());
            "warn"
        }
        (0, 0, many) => {
            let managed = if many == 1 {
                "1 certificate is".to_owned()
            } else {
                format!("{} certificates are", thousands(many as i64))
            };
            let watched = match glance.endpoints {
                0 => "no endpoint is watched".to_owned(),
                1 => "the only endpoint is paused".to_owned(),
                all => format!("all {} endpoints are paused", thousands(all)),
            };
            words.push(format!("{managed} managed, and {watched}"));
            "warn"
        }
        (0, active, _) => {
            let unseen = glance.unseen.min(active);
            words.push(match (active - unseen, unseen) {
                (1, 0) => "Its certificate is served".to_owned(),
                (served, 0) => format!("All {} served", thousands(served)),
                (_, unseen) if unseen >= COUNTED => format!("{} not looked at yet", counted(unseen)),
                (served, unseen) => format!("{} served, {} not looked at yet", thousands(served), counted(unseen)),
            });
            if unseen == 0 { "good" } else { "warn" }
        }
        (1, ..) => {
            words.push("1 thing needs you".to_owned());
            "bad"
        }
        (many, ..) => {
            words.push(format!("{} things need you", counted(many)));
            "bad"
        }
    };
    if let Some(renewal) = issued.next_renewal.filter(|_| needing == 0) {
        let away = if renewal > now { renewal.away(now) } else { "due now".into() };
        words.push(format!("next renewal {away}"));
    }
    let kind = match behind {
        Some(since) => {
            words.push(format!("polls are behind since {}, so this may be old", since.away(now)));
            if kind == "good" { "warn" } else { kind }
        }
        None => {
            words.extend(checked);
            kind
        }
    };
    Headline { kind, words: words.join("; ") }
}

#[derive(Template)]
#[template(path = "dashboard.html")]
struct Dashboard {
    frame: Frame,
    headline: Headline,
    needs: Vec<Need>,
    more: bool,
    numbers: Vec<Number>,
    life: String,
    days: String,
    changes: Vec<ChangeRow>,
    loose: Vec<Number>,
    groups: Vec<Grouped>,
    filter: Filter,
    all: Vec<Row>,
}

/// Tags, owners or sites: all that there are, to choose from; and those that have something to do, with how much.
struct Grouped {
    field: &'static str,
    word: &'static str,
    names: Vec<String>,
    needing: Vec<(String, i64)>,
}

/// Something that needs a person.
struct Need {
    name: String,
    link: String,
    what: String,
    kind: &'static str,
    nodes: String,
    since: Option<When>,
    owner: String,
    error: String,
    next: Option<When>,
    slack: String,
    slack_seconds: Option<u64>,
    /// What helps: the form's address and its word.
    button: (String, &'static str),
}

/// A number with what it is of, and where more of it stands.
struct Number {
    value: String,
    what: &'static str,
    link: &'static str,
    kind: &'static str,
}

pub(super) async fn show(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Asked(filter): Asked<Filter>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let now = clock::now();
    let frame = Frame::new("CertBus", "dashboard", &asker).said(&headers);
    let glance = face.store.glance(now).await?;
    let issued = managed::issued(&face, now).await?;
    let within = Query { tag: filter.tag(), owner: filter.owner(), site: filter.site(), ..Query::default() };
    let narrowed = within != Query::default();
    let mut needs = endpoints(&face, &within, now).await?;
    if !narrowed {
        needs.extend(issued.needing.iter().map(|one| certificate(one, now)));
    }
    needs.sort_by_key(|need| need.slack_seconds);
    let more = needs.len() as i64 >= LISTED;
    needs.truncate(LISTED as usize);
    let headline = headline(&glance, &issued, now);
    let all = match glance.endpoints {
        0..=ALL => {
            let query = Query { limit: ALL, ..within.clone() };
            face.store.endpoints(&query, now).await?.rows.iter().map(|row| Row::of(row, now)).collect()
        }
        _ => Vec::new(),
    };
    let counts = face.store.counts().await?;
    let mut groups = Vec::new();
    for (field, word, by) in
        [("tag", "Tag", Group::Tag), ("owner", "Owner", Group::Owner), ("site", "Site", Group::Site)]
    {
        let names = face.store.groups(by, 30).await?;
        if names.len() > usize::from(by == Group::Site) {
            let counted = (1..COUNTED).contains(&glance.needing);
            let needing = if counted { face.store.needing_by(by, now, GROUPS).await? } else { Vec::new() };
            groups.push(Grouped { field, word, names, needing });
        }
    }
    let changes = change_rows(face.store.changes(None, None, 10).await?, now);
    let page = Dashboard {
        headline,
        needs,
        more,
        numbers: numbers(&glance, &issued, now),
        life: by_life_left(&counts, now),
        days: by_day(&counts, now, 90),
        changes,
        loose: loose(&glance, &issued),
        groups,
        filter,
        all,
        frame,
    };
    page::show(&page, &page.frame)
}

/// A number that is counted no further than [`COUNTED`].
fn counted(count: i64) -> String {
    if count >= COUNTED { format!("{}+", thousands(COUNTED)) } else { thousands(count) }
}

fn number(value: String, what: &'static str, link: &'static str, kind: &'static str) -> Number {
    Number { value, what, link, kind }
}

fn warn(count: i64) -> &'static str {
    if count > 0 { "warn" } else { "good" }
}

fn numbers(glance: &Glance, issued: &Issued, now: Timestamp) -> Vec<Number> {
    let bad = |count: i64| if count > 0 { "bad" } else { "good" };
    let due = |count: usize, watched: i64| counted(watched.saturating_add(count as i64));
    let slack = match glance.next_expiry {
        _ if glance.expired > 0 || glance.failing > 0 => "none".to_owned(),
        Some(at) => at.away(now).replacen("in ", "", 1),
        None => "–".to_owned(),
    };
    let tried = issued.renewed + issued.failing;
    let success = if tried == 0 { "–".to_owned() } else { format!("{} of {tried}", issued.renewed) };
    let coverage = match (glance.active, glance.late) {
        (0, _) => "–".to_owned(),
        (active, late) => {
            let percent = format!("{:.4}", (active - late.min(active)) as f64 / active as f64 * 100.0);
            format!("{} %", percent.trim_end_matches('0').trim_end_matches('.'))
        }
    };
    let lag = glance.behind_since.map_or_else(|| "none".to_owned(), |at| at.away(now).replace(" ago", ""));
    vec![
        number(counted(glance.overdue), "overdue", "/endpoints?state=overdue", bad(glance.overdue)),
        number(counted(glance.failing), "failing", "/endpoints?state=failing", bad(glance.failing)),
        number(due(issued.due_in_a_day, glance.overdue_in_a_day), "due in 24 h", "/endpoints?sort=expiry", "good"),
        number(due(issued.due_in_a_week, glance.overdue_in_a_week), "due in 7 days", "/endpoints?sort=expiry", "good"),
        number(slack, "smallest slack", "/endpoints?sort=expiry", bad(glance.expired + glance.failing)),
        number(success, "renewed, 7 d", "/managed", warn(issued.failing as i64)),
        number(coverage, "polled in time", "/tasks", warn(glance.late)),
        number(lag, "poll lag", "/tasks", warn(glance.late)),
    ]
}

fn loose(glance: &Glance, issued: &Issued) -> Vec<Number> {
    let older = glance.older;
    vec![
        number(thousands(glance.unmanaged), "seen, but not managed here", "/endpoints?state=unmanaged", "good"),
        number(counted(issued.never_seen), "managed here, but never seen", "/managed", warn(issued.never_seen)),
        number(counted(older), "serve an older version than was issued", "/endpoints?state=older-version", warn(older)),
        number(
            counted(glance.another),
            "serve another certificate than was issued",
            "/endpoints?state=another",
            warn(glance.another),
        ),
        number(counted(glance.unseen), "watched, but not looked at yet", "/endpoints?state=unseen", "good"),
    ]
}

async fn endpoints(face: &Face, within: &Query, now: Timestamp) -> Result<Vec<Need>, Fault> {
    let rows = face.store.needing(within, now, LISTED).await?;
    let ids: Vec<i64> = rows.iter().map(|row| row.stored.id).collect();
    let mut affected = face.store.affected(&ids, now).await?;
    let need = |row: certbus_store::Listed| {
        let of = affected.remove(&row.stored.id).unwrap_or_default();
        let (what, kind, count, since) = match row.state {
            Is::Expired => ("expired", "bad", of.expired, row.expires_at),
            Is::Failing => ("cannot be reached", "bad", of.failing, row.failing_since),
            Is::OlderVersion => ("serves an older version", "warn", of.first, None),
            Is::Another => ("serves another certificate", "warn", of.first, None),
            _ => ("overdue", "warn", of.first, row.overdue_at),
        };
        let id = row.stored.id;
        Need {
            name: row.stored.endpoint.name.clone(),
            link: format!("/endpoints/{id}"),
            what: what.to_owned(),
            kind,
            nodes: format!("{}/{}", count.max(i64::from(of.nodes > 0)), of.nodes),
            since: since.map(|at| when(at, now)),
            owner: row.stored.endpoint.owner.clone(),
            error: of.why,
            next: of.next.map(|at| when(at.max(now), now)),
            slack: slack(row.slack),
            slack_seconds: row.slack,
            button: (format!("/endpoints/{id}/poll"), "Poll now"),
        }
    };
    Ok(rows.into_iter().map(need).collect())
}

/// Seconds until visitors see an error, as people say it.
pub(super) fn slack(seconds: Option<u64>) -> String {
    match seconds {
        None => "–".into(),
        Some(0) => "none".into(),
        Some(seconds) => {
            let zero = Timestamp::default();
            zero.plus(std::time::Duration::from_secs(seconds)).away(zero).replacen("in ", "", 1)
        }
    }
}

fn certificate(one: &Managed, now: Timestamp) -> Need {
    let left = one.not_after.map(|at| at.since(now).as_secs());
    Need {
        name: one.names.first().cloned().unwrap_or_default(),
        link: format!("/managed/{}", one.id),
        what: if one.is_overdue && one.state == "ok" { "renewal overdue".into() } else { one.state.to_string() },
        kind: "bad",
        nodes: "–".into(),
        since: None,
        owner: String::new(),
        error: one.problem.clone().unwrap_or_default(),
        next: one.retry_at.map(|at| when(at.max(now), now)),
        slack: slack(left),
        slack_seconds: left,
        button: (format!("/managed/{}/renew", one.id), "Renew now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-22T12:00:00Z").unwrap_or_default()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn one_sentence_says_whether_all_is_well() {
        let glance =
            Glance { endpoints: 4012, active: 4012, polled_at: Some(now().minus(seconds(40))), ..Glance::default() };
        let issued = Issued { all: 3, next_renewal: Some(now().plus(seconds(7200))), ..Issued::default() };
        let said = headline(&glance, &issued, now());
        assert_eq!(
            (said.kind, said.words.as_str()),
            ("good", "All 4,012 served; next renewal in 2 h; checked 40 s ago")
        );
        let three = Glance { needing: 3, ..glance };
        assert_eq!(headline(&three, &issued, now()).kind, "bad");
        assert!(headline(&three, &issued, now()).words.starts_with("3 things need you"));
    }

    #[test]
    fn what_is_stale_is_never_green() {
        let behind = Some(now().minus(seconds(3600)));
        let glance =
            Glance { endpoints: 2, active: 2, polled_at: behind, behind_since: behind, late: 2, ..Glance::default() };
        let said = headline(&glance, &Issued::default(), now());
        assert_eq!(said.kind, "warn");
        assert!(said.words.contains("behind since 60 min ago"), "{}", said.words);
        assert_eq!(headline(&Glance::default(), &Issued::default(), now()).kind, "warn");
    }
}
