//! Who asks, how all is, what changed, tasks, the trail, users and tokens.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use certbus_core::time::Timestamp;
use certbus_store::tasks::{Place, TaskQueue, TaskState};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::endpoints::ChangeOut;
use super::input::{Id, Params};
use super::page::{Page, Paged};
use crate::clock;
use crate::web::asker::Asker;
use crate::web::chart::tenths;
use crate::web::dashboard::headline;
use crate::web::fault::Fault;
use crate::web::{Face, managed};

const DAY: Duration = Duration::from_secs(86_400);

/// Days of expiries that are told, unless the request says otherwise.
const DAYS: i64 = 90;

/// And at most.
const MOST_DAYS: i64 = 400;

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WhoOut {
    /// As the trail has him.
    name: String,
    /// What he may: `viewer`, `operator` or `admin`.
    role: Option<String>,
    /// Whether it is a program with a token.
    token: bool,
    /// Whose managed certificates this server has; left out: of nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    /// From where what is registered here is polled, unless it says otherwise.
    site: String,
}

/// Who asks, and of what server.
#[utoipa::path(get, path = "/api/v1/whoami", tag = "upkeep", responses(
    (status = 200, body = WhoOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn whoami(State(face): State<Face>, Extension(asker): Extension<Asker>) -> Json<WhoOut> {
    Json(WhoOut {
        token: asker.csrf.is_none(),
        role: asker.role.map(|role| role.to_string()),
        name: asker.name,
        tenant: face.tenant().map(str::to_owned),
        site: face.site.clone(),
    })
}

/// How far expiries are told.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Days {
    /// Today and the days that follow; 90 unless said otherwise.
    #[param(minimum = 1, maximum = 400)]
    days: Option<i64>,
}

/// How many endpoints' certificates end when.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExpiriesOut {
    /// Before today.
    expired: i64,
    /// On each day from today on.
    days: Vec<DayOut>,
    /// By the part of life that is left: none, up to a tenth, up to two tenths …
    #[schema(min_items = 11, max_items = 11)]
    life_left: Vec<i64>,
}

/// A day.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DayOut {
    #[schema(format = Date)]
    day: String,
    endpoints: i64,
}

/// How many endpoints' certificates end on which day, and how many have which part of their life left.
#[utoipa::path(get, path = "/api/v1/expiries", tag = "upkeep", params(Days), responses(
    (status = 200, body = ExpiriesOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn expiries(
    State(face): State<Face>,
    Params(Days { days }): Params<Days>,
) -> Result<Json<ExpiriesOut>, Fault> {
    let days = match days.unwrap_or(DAYS) {
        days @ 1..=MOST_DAYS => days,
        other => return Err(Fault::bad(format!("days is {other}; write 1 to {MOST_DAYS}"))),
    };
    let (now, counts) = (clock::now(), face.store.counts().await?);
    let found = counts.expiries(now, days);
    let day = |(at, endpoints): (u32, &i64)| DayOut { day: now.plus(DAY * at).date(), endpoints: *endpoints };
    Ok(Json(ExpiriesOut {
        expired: found.first().copied().unwrap_or_default(),
        days: (0..).zip(found.iter().skip(1)).map(day).collect(),
        life_left: tenths(&counts, now).to_vec(),
    }))
}

/// How all is, in one sentence and a few numbers. No number but the first two is counted beyond 1000.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GlanceOut {
    /// Whether all is well: what is old never is.
    well: bool,
    sentence: String,
    endpoints: i64,
    active: i64,
    needing: i64,
    expired: i64,
    overdue: i64,
    failing: i64,
    older_version: i64,
    another: i64,
    unseen: i64,
    late_polls: i64,
    managed: i64,
    renewals_failing: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    polled_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_renewal: Option<Timestamp>,
}

/// How all is.
#[utoipa::path(get, path = "/api/v1/glance", tag = "upkeep", responses(
    (status = 200, body = GlanceOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn glance(State(face): State<Face>) -> Result<Json<GlanceOut>, Fault> {
    let now = clock::now();
    let (glance, issued) = (face.store.glance(now).await?, managed::issued(&face, now).await?);
    let said = headline(&glance, &issued, now);
    Ok(Json(GlanceOut {
        well: said.kind == "good",
        sentence: said.words,
        endpoints: glance.endpoints,
        active: glance.active,
        needing: glance.needing,
        expired: glance.expired,
        overdue: glance.overdue,
        failing: glance.failing,
        older_version: glance.older,
        another: glance.another,
        unseen: glance.unseen,
        late_polls: glance.late,
        managed: issued.all as i64,
        renewals_failing: issued.failing as i64,
        polled_at: glance.polled_at,
        next_renewal: issued.next_renewal,
    }))
}

/// What changed anywhere, the newest first.
#[utoipa::path(get, path = "/api/v1/changes", tag = "upkeep", params(Paged), responses(
    (status = 200, body = Page<ChangeOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn changes(
    State(face): State<Face>,
    Params(paged): Params<Paged>,
) -> Result<Json<Page<ChangeOut>>, Fault> {
    let limit = paged.limit()?;
    let changes = face.store.changes(None, paged.number()?, limit + 1).await?;
    Ok(Json(Page::of(changes, limit, |one| one.id)))
}

/// A task.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskOut {
    id: i64,
    /// Who does it: `poll/SITE`, `issue/TENANT` …
    lane: String,
    /// What to do.
    body: String,
    attempts: u32,
    /// `waiting`, `under way` or `dead`.
    state: String,
    #[schema(value_type = String, format = DateTime)]
    ready_at: Timestamp,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    #[schema(value_type = String, format = DateTime)]
    added_at: Timestamp,
}

impl From<certbus_store::tasks::Shown> for TaskOut {
    fn from(one: certbus_store::tasks::Shown) -> Self {
        Self {
            id: one.id,
            lane: one.lane,
            body: one.body,
            attempts: one.attempts,
            state: one.state.as_str().to_owned(),
            ready_at: one.ready_at,
            why: one.why,
            added_at: one.added_at,
        }
    }
}

/// Tasks that wait, are under way, or were given up; those first.
#[utoipa::path(get, path = "/api/v1/tasks", tag = "upkeep", params(Paged), responses(
    (status = 200, body = Page<TaskOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn tasks(
    State(face): State<Face>,
    Params(paged): Params<Paged>,
) -> Result<Json<Page<TaskOut>>, Fault> {
    let limit = paged.limit()?;
    // `d12` or `w12`: those that were given up come before those that wait.
    let read = |text: &str| {
        let (dead, id) = match (text.strip_prefix('d'), text.strip_prefix('w')) {
            (Some(id), _) => (true, id),
            (None, id) => (false, id?),
        };
        Some(Place { dead, id: id.parse().ok()? })
    };
    let after = match paged.after() {
        None => None,
        Some(text) => Some(read(text).ok_or_else(|| Fault::missing(format!("there is no page `{text}`")))?),
    };
    let rows = face.store.list(clock::now(), after, usize::try_from(limit + 1).unwrap_or_default()).await?;
    Ok(Json(Page::of(rows, limit, |one| format!("{}{}", if one.state == TaskState::Dead { 'd' } else { 'w' }, one.id))))
}

/// Has a task tried again that was given up.
#[utoipa::path(post, path = "/api/v1/tasks/{id}/retry", tag = "upkeep", params(("id" = i64, Path)), responses(
    (status = 202), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn retry(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Id(id): Id,
) -> Result<StatusCode, Fault> {
    crate::web::tasks::revive(&face, &asker, id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// A line of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LineOut {
    id: i64,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    actor: String,
    source: String,
    action: String,
    subject: String,
    detail: String,
}

impl From<certbus_store::audit::Line> for LineOut {
    fn from(one: certbus_store::audit::Line) -> Self {
        Self {
            id: one.id,
            at: one.at,
            actor: one.actor,
            source: one.source,
            action: one.action,
            subject: one.subject,
            detail: one.detail,
        }
    }
}

/// Who changed what, when, from where; the newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "upkeep", params(Paged), responses(
    (status = 200, body = Page<LineOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn audit(
    State(face): State<Face>,
    Params(paged): Params<Paged>,
) -> Result<Json<Page<LineOut>>, Fault> {
    let limit = paged.limit()?;
    let lines = face.store.audit(paged.number()?, limit + 1).await?;
    Ok(Json(Page::of(lines, limit, |one| one.id)))
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserOut {
    name: String,
    /// `viewer`, `operator` or `admin`.
    role: String,
    /// Whether a password was chosen.
    active: bool,
    #[schema(value_type = String, format = DateTime)]
    added_at: Timestamp,
    /// When he was last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    seen_at: Option<Timestamp>,
}

impl From<certbus_store::people::Person> for UserOut {
    fn from(one: certbus_store::people::Person) -> Self {
        Self {
            name: one.name,
            role: one.role.to_string(),
            active: one.active,
            added_at: one.added_at,
            seen_at: one.seen_at,
        }
    }
}

/// Users, by name. Whom to let in people alone say.
#[utoipa::path(get, path = "/api/v1/users", tag = "upkeep", params(Paged), responses(
    (status = 200, body = Page<UserOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn users(
    State(face): State<Face>,
    Params(paged): Params<Paged>,
) -> Result<Json<Page<UserOut>>, Fault> {
    Ok(Json(paged.cut(face.store.people().await?, |one| one.name.clone())?))
}

/// A token, without what opens anything.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenOut {
    name: String,
    /// `metrics`, `read`, `write` or `admin`.
    scope: String,
    tenant: String,
    made_by: String,
    #[schema(value_type = String, format = DateTime)]
    added_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// When it was last used, within a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    used_at: Option<Timestamp>,
}

impl From<certbus_store::tokens::Token> for TokenOut {
    fn from(one: certbus_store::tokens::Token) -> Self {
        Self {
            name: one.name,
            scope: one.scope.to_string(),
            tenant: one.tenant,
            made_by: one.made_by,
            added_at: one.added_at,
            until: one.until,
            used_at: one.used_at,
        }
    }
}

/// Tokens, by name. People alone make them.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "upkeep", params(Paged), responses(
    (status = 200, body = Page<TokenOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn tokens(
    State(face): State<Face>,
    Params(paged): Params<Paged>,
) -> Result<Json<Page<TokenOut>>, Fault> {
    Ok(Json(paged.cut(face.store.tokens().await?, |one| one.name.clone())?))
}
