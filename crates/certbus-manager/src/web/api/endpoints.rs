//! Endpoints: listed, registered, changed, removed, polled, and what was seen of them.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use certbus_core::endpoint::{Endpoint, Written};
use certbus_core::time::Timestamp;
use certbus_store::endpoints::Stored;
use certbus_store::shown::{Brief, Changed, Stay};
use certbus_store::{Listed, Query, State as Is};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Problem;
use super::input::{Id, Input, Params, whole};
use super::page::{Page, Paged, limit};
use crate::clock;
use crate::web::Face;
use crate::web::asker::Asker;
use crate::web::endpoint::ask_for_polls;
use crate::web::endpoint_form::with_site;
use crate::web::fault::Fault;

/// Stays of each kind that are told, unless the request says otherwise.
const STAYS: i64 = 500;

/// And at most.
const MOST_STAYS: i64 = 10_000;

/// An endpoint.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EndpointOut {
    id: i64,
    /// What people call it.
    name: String,
    /// A name with all its nodes, or one address.
    host: String,
    port: u16,
    /// The name in the ClientHello, if it is not the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<String>,
    /// What is spoken before TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    starttls: Option<String>,
    tags: Vec<String>,
    owner: String,
    /// From where it is polled.
    sites: Vec<String>,
    /// Whether it is polled.
    active: bool,
    /// How often, if not as often as usual: `10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    /// How often it was edited.
    revision: i64,
    #[schema(value_type = String, format = DateTime)]
    added_at: Timestamp,
    /// `expired`, `older-version`, `another`, `overdue`, `failing`, `unseen`, `paused` or `ok`: the worst of what it is.
    state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    overdue_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    failing_since: Option<Timestamp>,
    /// The managed certificate that is for it: tenant and id.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed: Option<String>,
    /// `current`, `older-version` or `another`: what it serves of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    serves: Option<String>,
    /// The certificate that expires first.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    /// Seconds until visitors see an error; 0 if they see one now.
    #[serde(skip_serializing_if = "Option::is_none")]
    slack: Option<u64>,
}

impl From<Listed> for EndpointOut {
    fn from(row: Listed) -> Self {
        let Stored { id, endpoint, revision, added_at } = row.stored;
        let words = |set: std::collections::BTreeSet<certbus_core::endpoint::Word>| {
            set.iter().map(|word| word.as_str().to_owned()).collect()
        };
        Self {
            id,
            name: endpoint.name,
            host: endpoint.key.host.to_string(),
            port: endpoint.key.port,
            sni: endpoint.key.sni.map(|name| name.to_string()),
            starttls: endpoint.key.starttls.map(|word| word.to_string()),
            tags: words(endpoint.tags),
            owner: endpoint.owner,
            sites: words(endpoint.sites),
            active: endpoint.active,
            interval: endpoint.interval.map(|span| span.to_string()),
            revision,
            added_at,
            state: row.state.as_str().to_owned(),
            expires_at: row.expires_at,
            overdue_at: row.overdue_at,
            failing_since: row.failing_since,
            managed: row.managed,
            serves: row.serves.map(|serves| serves.as_str().to_owned()),
            fingerprint: row.fingerprint.map(|print| print.to_string()),
            issuer: row.issuer,
            slack: row.slack,
        }
    }
}

/// An endpoint as it is to be. What is left out is as usual, or stays.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointIn {
    /// `[PROTOCOL://]HOST[:PORT]`, or the host alone.
    #[schema(example = "www.example.com")]
    host: Option<String>,
    #[schema(minimum = 1, maximum = 65535)]
    #[serde(default, deserialize_with = "whole")]
    port: Option<u16>,
    /// A DNS name; empty: the host's.
    #[schema(example = "shop.example.com")]
    sni: Option<String>,
    /// smtp, lmtp, imap, pop3, ftp, ldap, postgres, mysql, xmpp, xmpp-server, nntp or sieve; empty or `none`: TLS from the
    /// begin; left out: as the port is usually spoken.
    starttls: Option<String>,
    name: Option<String>,
    tags: Option<Vec<String>>,
    owner: Option<String>,
    #[schema(min_items = 1)]
    sites: Option<Vec<String>>,
    active: Option<bool>,
    /// `10m`, `1h`; empty: as often as usual.
    interval: Option<String>,
    /// Of a change: which edit it follows, as it was read. Left out, it is made whatever came between.
    #[serde(default, deserialize_with = "whole")]
    revision: Option<i64>,
}

impl EndpointIn {
    pub(super) fn written(self) -> Written {
        Written {
            host: self.host,
            port: self.port.map(|port| port.to_string()),
            sni: self.sni,
            starttls: self.starttls,
            name: self.name,
            tags: self.tags.map(|tags| tags.join(",")),
            owner: self.owner,
            sites: self.sites.map(|sites| sites.join(",")),
            active: self.active.map(|active| if active { "yes" } else { "no" }.to_owned()),
            interval: self.interval,
        }
    }
}

/// What a list is narrowed to.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Wanted {
    /// Words: begins of labels or words of host, name, or a certificate's names or issuer.
    #[serde(default)]
    q: String,
    /// Only those that are so.
    #[param(value_type = Option<StateWord>)]
    state: Option<String>,
    tag: Option<String>,
    owner: Option<String>,
    site: Option<String>,
    /// Only those that are meant by this: a number, a name, a host or host:port. Nothing else narrows the list then.
    meant: Option<String>,
    /// `expiry`: those first that expire first, where the list is not narrowed; else by name.
    #[param(pattern = "^expiry$")]
    sort: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
}

#[derive(ToSchema)]
#[schema(rename_all = "kebab-case")]
#[expect(dead_code, reason = "it describes the words of a state")]
pub(crate) enum StateWord {
    Expired,
    OlderVersion,
    Another,
    Overdue,
    Failing,
    Unseen,
    Unmanaged,
    Paused,
    Current,
    Ok,
}

/// Endpoints, page by page.
#[utoipa::path(get, path = "/api/v1/endpoints", tag = "endpoints", params(Wanted), responses(
    (status = 200, body = Page<EndpointOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn list(
    State(face): State<Face>,
    Params(wanted): Params<Wanted>,
) -> Result<Json<Page<EndpointOut>>, Fault> {
    if let Some(text) = &wanted.meant {
        let mut items = Vec::new();
        for id in face.store.meant(text).await? {
            items.push(one(&face, id).await?);
        }
        return Ok(Json(Page { items, next: None }));
    }
    if let Some(other) = wanted.sort.as_ref().filter(|sort| *sort != "expiry") {
        return Err(Fault::bad(format!("sort is `{other}`; write `expiry`, or leave it out")));
    }
    let query = Query {
        search: wanted.q,
        state: wanted.state.map(|text| text.parse::<Is>()).transpose().map_err(Fault::bad)?,
        tag: wanted.tag,
        owner: wanted.owner,
        site: wanted.site,
        soonest: wanted.sort.is_some(),
        after: wanted.after,
        limit: limit(wanted.limit)?,
        ..Query::default()
    };
    let page = face.store.endpoints(&query, clock::now()).await?;
    Ok(Json(Page { items: page.rows.into_iter().map(Into::into).collect(), next: page.next }))
}

async fn one(face: &Face, id: i64) -> Result<EndpointOut, Fault> {
    let query = Query { id: Some(id), limit: 1, ..Query::default() };
    let found = face.store.endpoints(&query, clock::now()).await?.rows.pop();
    found.map(Into::into).ok_or_else(|| missing(id))
}

fn missing(id: i64) -> Fault {
    Fault::missing(format!("there is no endpoint number {id}"))
}

async fn stored(face: &Face, id: i64) -> Result<Stored, Fault> {
    face.store.endpoint(id).await?.ok_or_else(|| missing(id))
}

/// Watches an endpoint.
#[utoipa::path(post, path = "/api/v1/endpoints", tag = "endpoints",
    request_body(content = ref("#/components/schemas/EndpointNew")), responses(
    (status = 201, body = EndpointOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn add(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Input(given): Input<EndpointIn>,
) -> Result<Response, Fault> {
    let endpoint = Endpoint::parse(&with_site(given.written(), &face.site)).map_err(Fault::fields)?;
    let ids = face.store.add_endpoints(std::slice::from_ref(&endpoint), &asker.actor(), clock::now()).await?;
    let id = ids.first().copied().unwrap_or_default();
    let location = [(header::LOCATION, format!("/api/v1/endpoints/{id}"))];
    Ok((StatusCode::CREATED, location, Json(one(&face, id).await?)).into_response())
}

/// One endpoint.
#[utoipa::path(get, path = "/api/v1/endpoints/{id}", tag = "endpoints", params(("id" = i64, Path)), responses(
    (status = 200, body = EndpointOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn show(State(face): State<Face>, Id(id): Id) -> Result<Json<EndpointOut>, Fault> {
    one(&face, id).await.map(Json)
}

/// Changes what is said of an endpoint; what is left out stays.
#[utoipa::path(patch, path = "/api/v1/endpoints/{id}", tag = "endpoints", params(("id" = i64, Path)),
    request_body = EndpointIn, responses(
    (status = 200, body = EndpointOut), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn edit(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Id(id): Id,
    Input(given): Input<EndpointIn>,
) -> Result<Json<EndpointOut>, Fault> {
    let stored = stored(&face, id).await?;
    let seen = Stored { revision: given.revision.unwrap_or(stored.revision), ..stored.clone() };
    let edited = stored.endpoint.edited(&given.written()).map_err(Fault::fields)?;
    if seen.revision != stored.revision || edited != stored.endpoint {
        face.store.edit_endpoint(&seen, &edited, &asker.actor(), clock::now()).await?;
    }
    one(&face, id).await.map(Json)
}

/// Watches an endpoint no longer, and forgets what was seen of it.
#[utoipa::path(delete, path = "/api/v1/endpoints/{id}", tag = "endpoints", params(("id" = i64, Path)), responses(
    (status = 204), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn remove(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Id(id): Id,
) -> Result<StatusCode, Fault> {
    stored(&face, id).await?;
    face.store.remove_endpoints(&[id], &asker.actor(), clock::now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has an endpoint polled now. What it finds is in its timeline.
#[utoipa::path(post, path = "/api/v1/endpoints/{id}/poll", tag = "endpoints", params(("id" = i64, Path)), responses(
    (status = 202), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn poll(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Id(id): Id,
) -> Result<StatusCode, Fault> {
    let stored = stored(&face, id).await?;
    if ask_for_polls(&face, &asker, &[id]).await? == 0 {
        return Err(Fault::bad(format!("{} is paused; set `active` first", stored.endpoint.name)));
    }
    Ok(StatusCode::ACCEPTED)
}

/// A certificate that a node serves or served, or a time in which its polls failed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StayOut {
    /// From where it was seen.
    site: String,
    /// The node; empty: the name led nowhere.
    address: String,
    /// How it was looked at.
    method: String,
    /// The leaf; left out in an outage.
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<BriefOut>,
    /// Why polls failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<String>,
    /// The kind of that, of a closed set.
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_kind: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    first: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last: Timestamp,
    /// How often it was seen so.
    times: i64,
    /// Whether it is so still, as far as the last poll saw.
    still: bool,
    /// Since when its name no longer leads to the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    gone: Option<Timestamp>,
}

/// A certificate in few words.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BriefOut {
    /// SHA-256 of its DER.
    fingerprint: String,
    subject: String,
    issuer: String,
    /// Separated by spaces.
    names: String,
    /// Hex.
    serial: String,
    #[schema(value_type = String, format = DateTime)]
    not_before: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    not_after: Timestamp,
    key: String,
    /// The managed certificate that it is a version of: tenant and id.
    #[serde(skip_serializing_if = "Option::is_none")]
    managed: Option<String>,
}

impl From<Stay> for StayOut {
    fn from(stay: Stay) -> Self {
        let brief = |one: Brief| BriefOut {
            fingerprint: one.fingerprint.to_string(),
            subject: one.subject,
            issuer: one.issuer,
            names: one.names,
            serial: one.serial,
            not_before: one.not_before,
            not_after: one.not_after,
            key: one.key,
            managed: one.managed,
        };
        Self {
            site: stay.site,
            address: stay.address,
            method: stay.method,
            certificate: stay.certificate.map(brief),
            failure: stay.failure,
            failure_kind: stay.failure_kind,
            first: stay.first,
            last: stay.last,
            times: stay.times,
            still: stay.still,
            gone: stay.gone,
        }
    }
}

/// How much of a timeline is told.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Stays {
    /// At most so many of each kind; 500 unless said otherwise.
    #[param(minimum = 1, maximum = 10000)]
    limit: Option<i64>,
}

/// What the nodes of an endpoint serve and served, the newest first.
#[utoipa::path(get, path = "/api/v1/endpoints/{id}/timeline", tag = "endpoints", params(("id" = i64, Path), Stays), responses(
    (status = 200, body = Vec<StayOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn timeline(
    State(face): State<Face>,
    Id(id): Id,
    Params(wanted): Params<Stays>,
) -> Result<Json<Vec<StayOut>>, Fault> {
    stored(&face, id).await?;
    let limit = match wanted.limit.unwrap_or(STAYS) {
        limit @ 1..=MOST_STAYS => limit,
        other => return Err(Fault::bad(format!("limit is {other}; write 1 to {MOST_STAYS}"))),
    };
    let stays = face.store.timeline(id, limit).await?;
    Ok(Json(stays.into_iter().map(Into::into).collect()))
}

/// Something that changed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChangeOut {
    id: i64,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    endpoint: i64,
    /// The endpoint's name.
    name: String,
    address: String,
    site: String,
    /// `first`, `replaced`, `otherwise`, `chain`, `failing`, `recovered`, `gone` or `back`.
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    /// What a renewal would have left as it was: `another issuer`, `other names`, `ends sooner`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    surprise: Vec<String>,
}

impl From<Changed> for ChangeOut {
    fn from(one: Changed) -> Self {
        Self {
            id: one.id,
            at: one.at,
            endpoint: one.endpoint,
            name: one.name,
            address: one.address,
            site: one.site,
            kind: one.kind,
            before: one.before.map(|print| print.to_string()),
            after: one.after.map(|print| print.to_string()),
            why: one.why,
            surprise: one.surprise.into_iter().map(Into::into).collect(),
        }
    }
}

/// What changed at an endpoint, the newest first.
#[utoipa::path(get, path = "/api/v1/endpoints/{id}/changes", tag = "endpoints", params(("id" = i64, Path), Paged), responses(
    (status = 200, body = Page<ChangeOut>), (status = "4XX", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn changes(
    State(face): State<Face>,
    Id(id): Id,
    Params(paged): Params<Paged>,
) -> Result<Json<Page<ChangeOut>>, Fault> {
    stored(&face, id).await?;
    let limit = paged.limit()?;
    let changes = face.store.changes(Some(id), paged.number()?, limit + 1).await?;
    Ok(Json(Page::of(changes, limit, |one| one.id)))
}
