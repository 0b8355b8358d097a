//! Managed certificates of the log.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use certbus_core::time::Timestamp;
use certbus_store::issued::ServedAt;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;
use super::input::{Input, Params};
use super::page::{Page, Paged};
use crate::clock;
use crate::managed::{Detail, Explained, Managed};
use crate::story::Told;
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
            state: one.state.into_owned(),
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
    /// Which CA of the issuing settings; left out: the usual one.
    #[serde(default)]
    ca: Option<String>,
    /// The CA's certificate profile.
    #[serde(default)]
    profile: Option<String>,
}

/// A managed certificate that was ordered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ordered {
    #[serde(flatten)]
    managed: ManagedOut,
    /// Which CA is asked.
    ca: String,
    /// How control of the names is shown; left out: the CA does not ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge: Option<String>,
}

/// A managed certificate with its chain.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DetailOut {
    #[serde(flatten)]
    managed: ManagedOut,
    /// How control of its names is shown.
    challenge: String,
    /// The kind of its key.
    key_type: String,
    /// Its newest version's chain, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    /// When the CA wants that renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<WindowOut>,
}

/// When a CA wants a version renewed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WindowOut {
    #[schema(value_type = String, format = DateTime)]
    start: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    end: Timestamp,
    /// A page for people, if the CA names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<String>,
}

impl From<Detail> for DetailOut {
    fn from(one: Detail) -> Self {
        let window =
            |one: crate::managed::Window| WindowOut { start: one.start, end: one.end, explanation: one.explanation };
        Self {
            managed: one.managed.into(),
            challenge: one.challenge.to_string(),
            key_type: one.key_type.to_string(),
            chain: one.chain,
            window: one.window.map(window),
        }
    }
}

/// The managed certificates of this server's tenant, by their first name.
#[utoipa::path(get, path = "/api/v1/managed", tag = "managed", params(Paged), responses(
    (status = 200, body = Page<ManagedOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Params(paged): Params<Paged>,
) -> Result<Json<Page<ManagedOut>>, Fault> {
    let place = |one: &Managed| format!("{}|{}", one.names.first().map_or("", String::as_str), one.id);
    let mut all = Managed::all(&*pages::manager(&face, &asker)?.view().await?, clock::now());
    all.sort_by_cached_key(place);
    Ok(Json(paged.cut(all, place)?))
}

/// Orders a certificate for exactly these names, if there is none yet.
#[utoipa::path(post, path = "/api/v1/managed", tag = "managed", request_body = ManagedIn, responses(
    (status = 200, body = Ordered, description = "there is one for these names"), (status = 201, body = Ordered),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn create(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Input(given): Input<ManagedIn>,
) -> Result<Response, Fault> {
    let issuing = pages::manager(&face, &asker)?.settings().await?;
    let words = given.names.iter().map(String::as_str);
    let wanted = pages::wanted(&issuing, given.ca.as_deref(), words, &given.challenge, &given.key_type);
    let (mut wanted, ca) = wanted.map_err(Fault::fields)?;
    wanted.profile = given.profile;
    let (id, new) = pages::order(&face, &asker, &wanted).await?;
    let (_, found) = pages::one(&face, &asker, &id.to_string()).await?;
    let internal = issuing.ca.get(&ca).is_some_and(|entry| entry.directory == "internal");
    let challenge = (!internal).then(|| wanted.challenge.to_string());
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    let location = [(header::LOCATION, format!("/api/v1/managed/{id}"))];
    Ok((status, location, Json(Ordered { managed: found.into(), ca, challenge })).into_response())
}

/// One managed certificate.
#[utoipa::path(get, path = "/api/v1/managed/{id}", tag = "managed", params(("id" = String, Path)), responses(
    (status = 200, body = DetailOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Result<Json<DetailOut>, Fault> {
    let (id, _) = pages::one(&face, &asker, &id).await?;
    Ok(Json(pages::manager(&face, &asker)?.detail(id).await?.into()))
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
    /// From where.
    source: String,
    /// The event's kind.
    kind: String,
    what: String,
}

impl From<Told> for ToldOut {
    fn from(one: Told) -> Self {
        Self { at: one.at, actor: one.actor, source: one.source, kind: one.kind, what: one.what }
    }
}

/// A node that has to do with a managed certificate.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServedOut {
    endpoint: i64,
    /// The endpoint's name.
    name: String,
    /// From where it was seen.
    site: String,
    /// The node; empty: the name led nowhere.
    address: String,
    /// What it serves: the leaf's SHA-256.
    fingerprint: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<Timestamp>,
    #[schema(value_type = Option<String>, format = DateTime)]
    last_seen: Option<Timestamp>,
    /// Why the last poll failed, if it did.
    failure: Option<String>,
    /// `current`, `older-version` or `another`.
    serves: Option<String>,
}

impl From<ServedAt> for ServedOut {
    fn from(one: ServedAt) -> Self {
        Self {
            endpoint: one.endpoint,
            name: one.name,
            site: one.site,
            address: one.address,
            fingerprint: one.fingerprint.map(|print| print.to_string()),
            since: one.since,
            last_seen: one.last_seen,
            failure: one.failure,
            serves: one.serves.map(|serves| serves.as_str().to_owned()),
        }
    }
}

/// A managed certificate's whole story.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StoryOut {
    /// As it is now; left out: it is managed no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed: Option<ManagedOut>,
    /// What the log says, the oldest first.
    story: Vec<ToldOut>,
    /// Where it is served.
    served: Vec<ServedOut>,
    /// What comes next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl From<Explained> for StoryOut {
    fn from(one: Explained) -> Self {
        Self {
            managed: one.managed.map(Into::into),
            story: one.story.into_iter().map(Into::into).collect(),
            served: one.served.into_iter().map(Into::into).collect(),
            next: one.next,
        }
    }
}

/// All that the log says of a managed certificate, also of one that was removed, and where it is served.
#[utoipa::path(get, path = "/api/v1/managed/{id}/story", tag = "managed", params(("id" = String, Path)), responses(
    (status = 200, body = StoryOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn story(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Result<Json<StoryOut>, Fault> {
    let id = id.parse().map_err(|error: certbus_core::id::IdError| Fault::missing(error.to_string()))?;
    let manager = pages::manager(&face, &asker)?;
    let served = face.store.served_at(&manager.tenant().name, id).await?;
    let explained = manager.explained(id, served).await?;
    if explained.story.is_empty() {
        return Err(Fault::missing(format!("the log never heard of a certificate {id}")));
    }
    Ok(Json(explained.into()))
}
