//! Alerts: what is wrong, who is told of it and who is not, and what became of each message.

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use certbus_core::alert::{Kind, Problem};
use certbus_core::time::{Span, Timestamp};
use certbus_store::alerts::{Mute, Shown};
use certbus_store::outbox::Logged;
use serde::Deserialize;

use super::Face;
use super::asker::Asker;
use super::fault::Fault;
use super::managed::manager;
use super::page::{self, Frame, When, when};
use crate::alerts::destination_names;
use crate::clock;

/// Problems on a page.
const PROBLEMS: i64 = 50;

/// Messages on a page.
const MESSAGES: i64 = 50;

#[derive(Template)]
#[template(path = "alerts.html")]
struct AlertsPage {
    frame: Frame,
    problems: Vec<ProblemRow>,
    /// The page of problems that follows.
    next: Option<String>,
    mutes: Vec<MuteRow>,
    /// Where messages go; None: this server does not know.
    destinations: Option<Vec<String>>,
    messages: Vec<MessageRow>,
    /// The page of messages that follows.
    earlier: Option<i64>,
    /// For how long one may be muted, and how that is said.
    spans: [(&'static str, &'static str); 4],
}

struct ProblemRow {
    problem: Problem,
    link: String,
    kind: &'static str,
    since: When,
    told: String,
    is_muted: bool,
}

struct MuteRow {
    mute: Mute,
    until: Option<When>,
    at: When,
}

struct MessageRow {
    logged: Logged,
    kind: &'static str,
    at: When,
}

/// Where more is said about a problem.
fn link(problem: &Problem) -> String {
    let subject = problem.subject();
    let mut parts = subject.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("endpoint"), Some(id), _) => format!("/endpoints/{id}"),
        (Some("managed"), _, Some(id)) => format!("/managed/{id}"),
        _ => "/tasks".into(),
    }
}

fn problem_row(one: Shown, now: Timestamp) -> ProblemRow {
    let told = match (one.is_muted, one.gone_at, one.told_at) {
        (true, ..) => "nobody: muted".into(),
        (_, Some(gone), _) => format!("ending since {}", when(gone, now).away),
        (_, _, Some(told)) => when(told, now).away,
        _ => "not yet".into(),
    };
    ProblemRow {
        link: link(&one.problem),
        kind: match one.problem.kind {
            Kind::Expired | Kind::Unreachable | Kind::Stalled | Kind::RenewalFailing => "bad",
            Kind::RenewalOverdue | Kind::OlderVersion | Kind::Changed => "warn",
        },
        since: when(one.problem.since, now),
        told,
        is_muted: one.is_muted,
        problem: one.problem,
    }
}

fn message_row(logged: Logged, now: Timestamp) -> MessageRow {
    let kind = match logged.state.as_str() {
        "delivered" => "good",
        "waiting" => "off",
        _ => "bad",
    };
    MessageRow { kind, at: when(logged.at, now), logged }
}

/// Where messages go.
async fn destinations(face: &Face) -> Result<Option<Vec<String>>, Fault> {
    let Some(manager) = &face.manager else { return Ok(None) };
    let settings = manager.settings().await?.alerts.unwrap_or_default();
    Ok(Some(destination_names(&settings, &face.local_alerts)))
}

/// Where the two lists begin.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Begin {
    #[serde(default)]
    after: String,
    before: Option<i64>,
}

pub(super) async fn list(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Query(Begin { after, before }): Query<Begin>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let now = clock::now();
    let mut problems = face.store.problems(&after, PROBLEMS + 1, now).await?;
    let more = problems.len() as i64 > PROBLEMS;
    problems.truncate(PROBLEMS as usize);
    let next = problems.last().map(|one| one.problem.key.clone()).filter(|_| more);
    let (messages, earlier) = face.store.delivery_log(before, MESSAGES).await?;
    let mute = |mute: Mute| MuteRow { until: mute.until.map(|at| when(at, now)), at: when(mute.at, now), mute };
    let page = AlertsPage {
        frame: Frame::new("Alerts", "alerts", &asker).said(&headers),
        problems: problems.into_iter().map(|one| problem_row(one, now)).collect(),
        next,
        mutes: face.store.mutes(now).await?.into_iter().map(mute).collect(),
        destinations: destinations(&face).await?,
        earlier,
        messages: messages.into_iter().map(|one| message_row(one, now)).collect(),
        spans: [("1d", "for a day"), ("7d", "for a week"), ("30d", "for 30 days"), ("", "until unmuted")],
    };
    page::show(&page, &page.frame)
}

#[derive(Debug, Deserialize)]
pub(super) struct Muted {
    subject: String,
    #[serde(default)]
    r#for: String,
}

pub(super) async fn mute(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(given): Form<Muted>,
) -> Result<Response, Fault> {
    silence(&face, &asker, &given.subject, &given.r#for).await?;
    page::go("/alerts", &format!("Nobody is told of {} now.", given.subject))
}

/// Has nobody told of what `subject` means, for a time such as `7d`; empty: until somebody says otherwise.
pub(super) async fn silence(face: &Face, asker: &Asker, subject: &str, span: &str) -> Result<(), Fault> {
    let now = clock::now();
    let until = match span.trim() {
        "" => None,
        span => Some(now.plus(span.parse::<Span>().map_err(Fault::bad)?.duration())),
    };
    Ok(face.store.mute(subject, until, &asker.actor(), now).await?)
}

#[derive(Debug, Deserialize)]
pub(super) struct Unmuted {
    subject: String,
}

pub(super) async fn unmute(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(Unmuted { subject }): Form<Unmuted>,
) -> Result<Response, Fault> {
    face.store.unmute(&subject, &asker.actor(), clock::now()).await?;
    page::go("/alerts", &format!("People are told of {subject} again."))
}

pub(super) async fn test(State(face): State<Face>, Extension(asker): Extension<Asker>) -> Result<Response, Fault> {
    let number = ask_for_test(&face, &asker).await?;
    page::go("/alerts", &format!("Test message {number} is on its way; below is what becomes of it."))
}

/// Has a test message sent to every destination. Returns its number.
pub(super) async fn ask_for_test(face: &Face, asker: &Asker) -> Result<i64, Fault> {
    let tenant = &manager(face, asker)?.tenant().name;
    if destinations(face).await?.is_some_and(|known| known.is_empty()) {
        return Err(Fault::new(
            StatusCode::CONFLICT,
            "nobody is told",
            "no destination is known: write [alerts.smtp] or [[alerts.webhook]] into the settings, or [alert] exec into \
             certbus.toml",
        ));
    }
    Ok(face.store.ask_for_test(tenant, &asker.actor(), clock::now()).await?)
}
