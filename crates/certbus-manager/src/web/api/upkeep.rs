//! How all is, what changed, tasks, the trail, users and tokens.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use certbus_core::time::Timestamp;
use certbus_store::tasks::TaskQueue;
use serde::Serialize;
use utoipa::ToSchema;

use super::Problem;
use super::endpoints::{Before, ChangeOut};
use super::input::{Id, Params};
use crate::clock;
use crate::web::asker::Asker;
use crate::web::dashboard::headline;
use crate::web::fault::Fault;
use crate::web::{Face, managed};

/// Tasks that are told.
const TASKS: usize = 500;

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
#[utoipa::path(get, path = "/api/v1/changes", tag = "upkeep", params(Before), responses(
    (status = 200, body = Vec<ChangeOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn changes(
    State(face): State<Face>,
    Params(before): Params<Before>,
) -> Result<Json<Vec<ChangeOut>>, Fault> {
    let (before, limit) = before.parts()?;
    let changes = face.store.changes(None, before, limit).await?;
    Ok(Json(changes.into_iter().map(Into::into).collect()))
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

/// Tasks that wait, are under way, or were given up; those first.
#[utoipa::path(get, path = "/api/v1/tasks", tag = "upkeep", responses(
    (status = 200, body = Vec<TaskOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn tasks(State(face): State<Face>) -> Result<Json<Vec<TaskOut>>, Fault> {
    let task = |one: certbus_store::tasks::Shown| TaskOut {
        id: one.id,
        lane: one.lane,
        body: one.body,
        attempts: one.attempts,
        state: one.state.to_owned(),
        ready_at: one.ready_at,
        why: one.why,
        added_at: one.added_at,
    };
    Ok(Json(face.store.list(clock::now(), TASKS).await?.into_iter().map(task).collect()))
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

/// Who changed what, when, from where; the newest first.
#[utoipa::path(get, path = "/api/v1/audit", tag = "upkeep", params(Before), responses(
    (status = 200, body = Vec<LineOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn audit(
    State(face): State<Face>,
    Params(before): Params<Before>,
) -> Result<Json<Vec<LineOut>>, Fault> {
    let (before, limit) = before.parts()?;
    let line = |one: certbus_store::audit::Line| LineOut {
        id: one.id,
        at: one.at,
        actor: one.actor,
        source: one.source,
        action: one.action,
        subject: one.subject,
        detail: one.detail,
    };
    Ok(Json(face.store.audit(before, limit).await?.into_iter().map(line).collect()))
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
}

/// Users, by name.
#[utoipa::path(get, path = "/api/v1/users", tag = "upkeep", responses(
    (status = 200, body = Vec<UserOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn users(State(face): State<Face>) -> Result<Json<Vec<UserOut>>, Fault> {
    let user = |one: certbus_store::people::Person| UserOut {
        name: one.name,
        role: one.role.to_string(),
        active: one.active,
        added_at: one.added_at,
    };
    Ok(Json(face.store.people().await?.into_iter().map(user).collect()))
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
}

/// Tokens, by name.
#[utoipa::path(get, path = "/api/v1/tokens", tag = "upkeep", responses(
    (status = 200, body = Vec<TokenOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn tokens(State(face): State<Face>) -> Result<Json<Vec<TokenOut>>, Fault> {
    let token = |one: certbus_store::people::Token| TokenOut {
        name: one.name,
        scope: one.scope.to_string(),
        tenant: one.tenant,
        made_by: one.made_by,
        added_at: one.added_at,
        until: one.until,
    };
    Ok(Json(face.store.tokens().await?.into_iter().map(token).collect()))
}
