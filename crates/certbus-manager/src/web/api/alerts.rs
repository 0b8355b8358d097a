//! Alerts: what is wrong, what is muted, what became of each message.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use certbus_core::time::Timestamp;
use certbus_store::alerts::{Mute, Shown};
use certbus_store::outbox::Logged;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::input::{Input, Params};
use super::page::{Page, Paged};
use crate::clock;
use crate::web::Face;
use crate::web::alerts;
use crate::web::asker::Asker;
use crate::web::fault::Fault;

/// Something that is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AlertOut {
    /// What stays the same while it lasts: `endpoint/12/expired`.
    key: String,
    /// `expired`, `unreachable`, `stalled`, `renewal-failing`, `renewal-overdue`, `older-version` or `changed`.
    kind: String,
    /// What people call that which it is about.
    name: String,
    owner: String,
    words: String,
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// When it was told last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    told_at: Option<Timestamp>,
    /// Since when it is no longer so; it is told as over when it stays away.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    gone_at: Option<Timestamp>,
    /// Nobody is told of it.
    is_muted: bool,
}

impl From<Shown> for AlertOut {
    fn from(Shown { problem, told_at, gone_at, is_muted }: Shown) -> Self {
        let certbus_core::alert::Problem { key, kind, name, owner, words, since } = problem;
        Self { key, kind: kind.to_string(), name, owner, words, since, told_at, gone_at, is_muted }
    }
}

/// What is wrong, by key.
#[utoipa::path(get, path = "/api/v1/alerts", tag = "alerts", params(Paged), responses(
    (status = 200, body = Page<AlertOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(face): State<Face>,
    Params(paged): Params<Paged>,
) -> Result<Json<Page<AlertOut>>, Fault> {
    let limit = paged.limit()?;
    let found = face.store.problems(paged.after().unwrap_or_default(), limit + 1, clock::now()).await?;
    Ok(Json(Page::of(found, limit, |one| one.problem.key.clone())))
}

/// What is not told.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MuteOut {
    /// A problem's key, or the begin of keys up to a slash: `endpoint/12`.
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<Timestamp>,
    /// Who said so.
    actor: String,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl From<Mute> for MuteOut {
    fn from(Mute { subject, until, actor, at }: Mute) -> Self {
        Self { subject, until, actor, at }
    }
}

/// What is muted.
#[utoipa::path(get, path = "/api/v1/alerts/mutes", tag = "alerts", params(Paged), responses(
    (status = 200, body = Page<MuteOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn mutes(
    State(face): State<Face>,
    Params(paged): Params<Paged>,
) -> Result<Json<Page<MuteOut>>, Fault> {
    Ok(Json(paged.cut(face.store.mutes(clock::now()).await?, |one| one.subject.clone())?))
}

/// What to mute.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MuteIn {
    /// A problem's key, or the begin of keys: `endpoint/12`.
    subject: String,
    /// `12h`, `7d`; left out: until it is unmuted.
    r#for: Option<String>,
}

/// Has nobody told.
#[utoipa::path(post, path = "/api/v1/alerts/mutes", tag = "alerts", request_body = MuteIn, responses(
    (status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn mute(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Input(given): Input<MuteIn>,
) -> Result<StatusCode, Fault> {
    alerts::silence(&face, &asker, &given.subject, given.r#for.as_deref().unwrap_or_default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which mute.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Subject {
    /// What was muted.
    subject: String,
}

/// Has people told again.
#[utoipa::path(delete, path = "/api/v1/alerts/mutes", tag = "alerts", params(Subject), responses(
    (status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn unmute(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Params(Subject { subject }): Params<Subject>,
) -> Result<StatusCode, Fault> {
    face.store.unmute(&subject, &asker.actor(), clock::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A message at a destination.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageOut {
    /// Its number.
    message: i64,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// `opened`, `reminder`, `over`, `digest` or `test`.
    event: String,
    title: String,
    /// Where it goes; empty: that is not known yet.
    destination: String,
    /// `waiting`, `delivered` or `given-up`.
    state: String,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<Timestamp>,
    /// Why the last attempt failed, or what was remarkable.
    why: String,
}

impl From<Logged> for MessageOut {
    fn from(one: Logged) -> Self {
        let Logged { message, at, event, title, destination, state, attempts, ended_at, why } = one;
        Self { message, at, event, title, destination, state, attempts, ended_at, why }
    }
}

/// What was sent and what waits, the newest first; a message has an item for each destination, all on one page.
#[utoipa::path(get, path = "/api/v1/alerts/log", tag = "alerts", params(Paged), responses(
    (status = 200, body = Page<MessageOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn log(
    State(face): State<Face>,
    Params(paged): Params<Paged>,
) -> Result<Json<Page<MessageOut>>, Fault> {
    let (rows, next) = face.store.delivery_log(paged.number()?, paged.limit()?).await?;
    let (items, next) = (rows.into_iter().map(Into::into).collect(), next.map(|number| number.to_string()));
    Ok(Json(Page { items, next }))
}

/// The test message that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TestOut {
    /// Its number, by which the log shows what becomes of it.
    message: i64,
}

/// Has a test message sent to every destination.
#[utoipa::path(post, path = "/api/v1/alerts/test", tag = "alerts", responses(
    (status = 202, body = TestOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn test(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
) -> Result<(StatusCode, Json<TestOut>), Fault> {
    let message = alerts::ask_for_test(&face, &asker).await?;
    Ok((StatusCode::ACCEPTED, Json(TestOut { message })))
}
