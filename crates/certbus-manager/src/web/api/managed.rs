//! Managed certificates of the log.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;
use super::input::Input;
use crate::clock;
use crate::managed::Managed;
use crate::web::Face;
use crate::web::asker::Asker;
use crate::web::fault::Fault;
use crate::web::managed as pages;

/// A managed certificate.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ManagedOut {
    /// It stays the same over renewals.
    id: String,
    names: Vec<String>,
    /// The fingerprint of its newest version.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    not_after: Option<Timestamp>,
    /// When it is renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    renewal: Option<Timestamp>,
    /// `ok`, `requested`, `due`, `CA wants it replaced now`, `renewal failing`, `failing` or `expired`.
    state: String,
    /// What went wrong last.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    retry_at: Option<Timestamp>,
}

impl From<Managed> for ManagedOut {
    fn from(one: Managed) -> Self {
        Self {
            id: one.id.to_string(),
            names: one.names,
            version: one.version.map(|print| print.to_string()),
            not_after: one.not_after,
            renewal: one.renewal,
            state: one.state.to_owned(),
            problem: one.problem,
            retry_at: one.retry_at,
        }
    }
}

/// A certificate to order.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ManagedIn {
    #[schema(min_items = 1, max_items = 100, example = json!(["example.com", "www.example.com"]))]
    names: Vec<String>,
    /// `http-01` or `dns-01`; left out: as the names allow.
    #[serde(default)]
    #[schema(pattern = "^(http-01|dns-01)?$")]
    challenge: String,
    /// `p256` (usual), `p384`, `rsa2048`, `rsa3072` or `rsa4096`.
    #[serde(default)]
    #[schema(pattern = "^(p256|p384|rsa2048|rsa3072|rsa4096)?$")]
    key_type: String,
}

/// All managed certificates of this server's tenant, by name.
#[utoipa::path(get, path = "/api/v1/managed", tag = "managed", responses(
    (status = 200, body = Vec<ManagedOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
) -> Result<Json<Vec<ManagedOut>>, Fault> {
    let view = pages::manager(&face, &asker)?.view().await?;
    Ok(Json(Managed::all(&view, clock::now()).into_iter().map(Into::into).collect()))
}

/// Orders a certificate for exactly these names, if there is none yet.
#[utoipa::path(post, path = "/api/v1/managed", tag = "managed", request_body = ManagedIn, responses(
    (status = 200, body = ManagedOut, description = "there is one for these names"), (status = 201, body = ManagedOut),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Input(given): Input<ManagedIn>,
) -> Result<Response, Fault> {
    let wanted = pages::wanted(given.names.iter().map(String::as_str), &given.challenge, &given.key_type);
    let (id, new) = pages::order(&face, &asker, &wanted.map_err(Fault::fields)?).await?;
    let (_, found) = pages::one(&face, &asker, &id.to_string()).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    let location = [(header::LOCATION, format!("/api/v1/managed/{id}"))];
    Ok((status, location, Json(ManagedOut::from(found))).into_response())
}

/// One managed certificate.
#[utoipa::path(get, path = "/api/v1/managed/{id}", tag = "managed", params(("id" = String, Path)), responses(
    (status = 200, body = ManagedOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Result<Json<ManagedOut>, Fault> {
    let (_, found) = pages::one(&face, &asker, &id).await?;
    Ok(Json(found.into()))
}

/// Has a managed certificate renewed now. What the CA says is in its story.
#[utoipa::path(post, path = "/api/v1/managed/{id}/renew", tag = "managed", params(("id" = String, Path)), responses(
    (status = 202), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn renew(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    pages::ask_to_renew(&face, &asker, &id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// Renews and serves a managed certificate no longer. Revokes nothing.
#[utoipa::path(delete, path = "/api/v1/managed/{id}", tag = "managed", params(("id" = String, Path)), responses(
    (status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn remove(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Result<StatusCode, Fault> {
    pages::end(&face, &asker, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Something that happened to a managed certificate.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ToldOut {
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Who wrote it.
    actor: String,
    what: String,
}

/// All that the log says of a managed certificate, the oldest first.
#[utoipa::path(get, path = "/api/v1/managed/{id}/story", tag = "managed", params(("id" = String, Path)), responses(
    (status = 200, body = Vec<ToldOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn story(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Result<Json<Vec<ToldOut>>, Fault> {
    let (id, _) = pages::one(&face, &asker, &id).await?;
    let story = pages::manager(&face, &asker)?.story(id).await?;
    Ok(Json(story.into_iter().map(|told| ToldOut { at: told.at, actor: told.actor, what: told.what }).collect()))
}
