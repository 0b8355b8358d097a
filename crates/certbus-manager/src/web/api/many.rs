//! Many endpoints at a time: read from a file's lines, written as such, and changed by their numbers.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use certbus_core::endpoint::{Endpoint, FieldError};
use certbus_core::time::Timestamp;
use certbus_store::Query;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::endpoints::EndpointIn;
use super::input::{Input, Params};
use crate::clock;
use crate::inventory::files;
use crate::inventory::import::Tally;
use crate::web::Face;
use crate::web::asker::Asker;
use crate::web::endpoint_form::with_site;
use crate::web::fault::Fault;
use crate::web::many::{Deed, store_all};

/// Wrong lines that are told; the others are counted.
const TOLD: usize = 1000;

/// What became of an import.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ImportOut {
    /// Endpoints that are new.
    added: u64,
    /// Those that were there, and are changed.
    edited: u64,
    /// Those that were there, and are as before.
    same: u64,
    /// Results of scans that say nothing new.
    passed_over: u64,
    /// Lines that were not read.
    refused: usize,
    /// The first thousand of them.
    errors: Vec<WrongLine>,
}

/// A line that is wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WrongLine {
    /// Its number: 1, 2 …
    line: usize,
    why: String,
}

/// Watches all that the lines say: CSV with a heading, lines of `scan --json` or of an export, or plain targets. A line that is
/// wrong is named, and the others are stored. Done twice, it changes nothing.
#[utoipa::path(post, path = "/api/v1/endpoints/import", tag = "endpoints",
    request_body(content((serde_json::Value = "text/csv"), (serde_json::Value = "application/x-ndjson"), (serde_json::Value = "text/plain"))), responses(
    (status = 200, body = ImportOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn import(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Lines(text): Lines,
) -> Result<Json<ImportOut>, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::bad("nothing is in the body; send lines"));
    }
    let (Tally { added, edited, same, passed_over }, errors) = store_all(&face, &asker, &text).await?;
    let refused = errors.len();
    let errors = errors.into_iter().take(TOLD).map(|(line, why)| WrongLine { line, why }).collect();
    Ok(Json(ImportOut { added, edited, same, passed_over, refused, errors }))
}

/// A body of lines.
pub(crate) struct Lines(String);

impl<S: Send + Sync> FromRequest<S> for Lines {
    type Rejection = Fault;

    async fn from_request(request: Request, state: &S) -> Result<Self, Fault> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let word = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if !matches!(word.as_str(), "text/csv" | "application/x-ndjson" | "text/plain") {
            let what = format!("the body is `{kind}`; send text/csv, application/x-ndjson or text/plain");
            return Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported media type", what));
        }
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|error| Fault::new(error.status(), "the body cannot be read", error.body_text()))?;
        String::from_utf8(body.to_vec()).map(Self).map_err(|_| Fault::bad("the body is not UTF-8 text"))
    }
}

/// How an export is written.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Format {
    /// `csv` or `ndjson`; left out: as `Accept` says, else `ndjson`.
    #[param(pattern = "^(csv|ndjson)$")]
    format: Option<String>,
}

/// All endpoints, as `import` reads them.
#[utoipa::path(get, path = "/api/v1/endpoints/export", tag = "endpoints", params(Format), responses(
    (status = 200, content((String = "application/x-ndjson"), (String = "text/csv"))),
    (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn export(
    State(face): State<Face>,
    Params(Format { format }): Params<Format>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let accepts = |word: &str| {
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains(word))
    };
    let csv = match format.as_deref() {
        Some("csv") => true,
        Some("ndjson") => false,
        Some(other) => return Err(Fault::bad(format!("format is `{other}`; write csv or ndjson"))),
        None => accepts("text/csv"),
    };
    // The first page is read before anything is answered: what cannot be read is an error, and not a short file.
    let mut query = Query { limit: 1000, ..Query::default() };
    let mut page = face.store.endpoints(&query, clock::now()).await?;
    let lines = async_stream::try_stream! {
        if csv {
            yield files::COLUMNS.join(",") + "\n";
        }
        loop {
            let mut text = String::new();
            for row in &page.rows {
                let endpoint = &row.stored.endpoint;
                text.push_str(&if csv { files::record(endpoint) } else { serde_json::to_string(endpoint).unwrap_or_default() });
                text.push('\n');
            }
            yield text;
            query.after = page.next.take();
            if query.after.is_none() {
                break;
            }
            page = face.store.endpoints(&query, clock::now()).await?;
        }
    };
    let kind = if csv { "text/csv; charset=utf-8" } else { "application/x-ndjson" };
    let body = Body::from_stream::<
        std::pin::Pin<Box<dyn futures::Stream<Item = Result<String, certbus_store::StoreError>> + Send>>,
    >(Box::pin(lines));
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// What is done to endpoints.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Act {
    /// Watch `endpoints`: all, or none.
    Add,
    /// Poll them now.
    Poll,
    /// Poll them no more.
    Pause,
    /// Poll them again.
    Resume,
    /// Give them `tag`.
    Tag,
    /// Take `tag` from them.
    Untag,
    /// Watch them no longer, and forget what was seen of them.
    Remove,
}

/// What is done to several endpoints.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkIn {
    r#do: Act,
    /// To which; what is not there is passed over.
    #[serde(default)]
    ids: Vec<i64>,
    #[serde(default)]
    tag: String,
    /// Those that are to be there.
    #[serde(default)]
    endpoints: Vec<EndpointIn>,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BulkOut {
    /// To how many it was done.
    done: usize,
    /// The numbers of those that are new, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    added: Vec<i64>,
    /// When it was asked for: what a poll finds is from then on.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

/// Does one thing to several endpoints.
#[utoipa::path(post, path = "/api/v1/endpoints/bulk", tag = "endpoints", request_body = BulkIn, responses(
    (status = 200, body = BulkOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn bulk(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Input(BulkIn { r#do: act, ids, tag, endpoints }): Input<BulkIn>,
) -> Result<Json<BulkOut>, Fault> {
    let at = clock::now();
    if matches!(act, Act::Tag | Act::Untag) && tag.trim().is_empty() {
        return Err(Fault::fields(vec![FieldError { field: "tag", why: "write which one".into() }]));
    }
    let deed = match act {
        Act::Add => {
            let parse = |one: EndpointIn| Endpoint::parse(&with_site(one.written(), &face.site));
            let endpoints: Result<Vec<_>, _> = endpoints.into_iter().map(parse).collect();
            let added = face.store.add_endpoints(&endpoints.map_err(Fault::fields)?, &asker.actor(), at).await?;
            return Ok(Json(BulkOut { done: added.len(), added, at }));
        }
        Act::Poll => Deed::Poll,
        Act::Remove => Deed::Remove,
        Act::Pause => Deed::Pause,
        Act::Resume => Deed::Resume,
        Act::Tag => Deed::Tag(&tag),
        Act::Untag => Deed::Untag(&tag),
    };
    let done = deed.done_to(&face, &asker, &ids).await?;
    Ok(Json(BulkOut { done, added: Vec::new(), at }))
}
