//! One endpoint: what its nodes serve and served, what changed, and what a person can do about it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{ConnectInfo, Form, Path, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use certbus_core::access::Role;
use certbus_core::endpoint::{FieldError, Written};
use certbus_core::id::Hash;
use certbus_core::time::Timestamp;
use certbus_store::endpoints::Stored;
use certbus_store::shown::Stay;
use certbus_store::tasks::{NewTask, TaskQueue};
use certbus_store::{Query, StoreError};
use futures::Stream;
use serde::Deserialize;

use super::asker::{self, Asker};
use super::connections::Stopping;
use super::endpoint_form::{FormPage, Typed, by_field};
use super::fault::Fault;
use super::page::{self, Frame, When, when};
use super::rows::{ChangeRow, Row, change_rows, node_words, short_name};
use super::{Face, managed};
use crate::clock;
use crate::inventory::scheduler::{PollTask, lane};

/// How much of the past is shown.
const SHOWN: i64 = 50;

/// A poll that a person asked for is watched for so long.
const WATCHED: Duration = Duration::from_secs(60);

/// And looked for this often.
const LOOK_EVERY: Duration = Duration::from_millis(300);

#[derive(Template)]
#[template(path = "endpoint.html")]
struct EndpointPage {
    frame: Frame,
    id: i64,
    row: Row,
    sites: String,
    every: String,
    active: bool,
    starttls: String,
    sni: String,
    managed: Option<String>,
    sentence: Option<String>,
    nodes: Nodes,
    changes: Vec<ChangeRow>,
    waiting: bool,
}

/// What its nodes serve and served: a part of the page that is shown anew after each poll.
#[derive(Template)]
#[template(path = "endpoint_nodes.html")]
struct Nodes {
    now: Vec<StayRow>,
    past: Vec<StayRow>,
    checked: Option<When>,
    next: Option<When>,
}

struct StayRow {
    node: String,
    gone: bool,
    fingerprint: String,
    short: String,
    issuer: String,
    key: String,
    expires: Option<When>,
    kind: &'static str,
    failure: Option<String>,
    first: When,
    last: When,
    times: i64,
}

impl StayRow {
    fn of(stay: &Stay, now: Timestamp) -> Self {
        let one = stay.certificate.as_ref();
        let fingerprint = one.map(|one| one.fingerprint.to_string()).unwrap_or_default();
        let kind = match (&stay.failure, one) {
            (Some(_), _) => "bad",
            (None, Some(one)) if stay.still && one.not_after <= now => "bad",
            _ if stay.gone.is_some() => "off",
            _ => "good",
        };
        Self {
            node: node_words(&stay.address, &stay.site),
            gone: stay.gone.is_some(),
            short: fingerprint.chars().take(12).collect(),
            fingerprint,
            issuer: one.map(|one| short_name(&one.issuer)).unwrap_or_default(),
            key: one.map(|one| one.key.clone()).unwrap_or_default(),
            expires: one.map(|one| when(one.not_after, now)),
            kind,
            failure: stay.failure.clone(),
            first: when(stay.first, now),
            last: when(stay.last, now),
            times: stay.times,
        }
    }
}

async fn stored(face: &Face, id: i64) -> Result<Stored, Fault> {
    face.store.endpoint(id).await?.ok_or_else(|| Fault::missing(format!("there is no endpoint number {id}")))
}

async fn nodes(face: &Face, id: i64, now: Timestamp) -> Result<Nodes, Fault> {
    let timeline = face.store.timeline(id, SHOWN).await?;
    let checked = timeline.iter().filter(|stay| stay.still).map(|stay| stay.last).max();
    let next = face.store.affected(&[id], now).await?.remove(&id).and_then(|one| one.next);
    let rows =
        |still: bool| timeline.iter().filter(|stay| stay.still == still).map(|stay| StayRow::of(stay, now)).collect();
    Ok(Nodes {
        now: rows(true),
        past: rows(false),
        checked: checked.map(|at| when(at, now)),
        next: next.map(|at| when(at.max(now), now)),
    })
}

pub(super) async fn show(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<i64>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let now = clock::now();
    let query = Query { id: Some(id), limit: 1, ..Query::default() };
    let listed = face.store.endpoints(&query, now).await?.rows.pop();
    let listed = listed.ok_or_else(|| Fault::missing(format!("there is no endpoint number {id}")))?;
    let endpoint = &listed.stored.endpoint;
    let managed = listed.managed.as_ref().and_then(|text| text.split_once('/')).map(|(_, id)| id.to_owned());
    let sentence = match &managed {
        Some(id) => managed::sentence(&face, id).await?,
        None => None,
    };
    let nodes = nodes(&face, id, now).await?;
    let page = EndpointPage {
        frame: Frame::new(&endpoint.name, "endpoints", &asker).said(&headers),
        id,
        row: Row::of(&listed, now),
        sites: endpoint.sites.iter().map(|site| site.as_str()).collect::<Vec<_>>().join(", "),
        every: endpoint.interval.map_or_else(|| "as often as usual".into(), |one| format!("every {one}")),
        active: endpoint.active,
        starttls: endpoint.key.starttls.map(|one| one.to_string()).unwrap_or_default(),
        sni: endpoint.key.sni.as_ref().map(ToString::to_string).unwrap_or_default(),
        managed,
        sentence,
        changes: change_rows(face.store.changes(Some(id), None, SHOWN).await?, now),
        waiting: nodes.now.is_empty() && endpoint.active,
        nodes,
    };
    page::show(&page, &page.frame)
}

fn form(asker: &Asker, stored: &Stored, typed: Typed, errors: Vec<FieldError>, other: Option<String>) -> FormPage {
    FormPage {
        frame: Frame::new(format!("Edit {}", stored.endpoint.name), "endpoints", asker),
        action: format!("/endpoints/{}/edit", stored.id),
        back: format!("/endpoints/{}", stored.id),
        typed,
        errors: by_field(errors),
        other,
    }
}

pub(super) async fn edit_form(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<i64>,
) -> Result<Response, Fault> {
    let stored = stored(&face, id).await?;
    let typed = Typed::of(&stored.endpoint, stored.revision);
    page::rendered(&form(&asker, &stored, typed, Vec::new(), None))
}

pub(super) async fn edit(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<i64>,
    Form(typed): Form<Typed>,
) -> Result<Response, Fault> {
    let stored = stored(&face, id).await?;
    let edited = match stored.endpoint.edited(&typed.edit()) {
        Ok(edited) => edited,
        Err(errors) => return page::refused(&form(&asker, &stored, typed, errors, None)),
    };
    // The edit is of what its author saw.
    let seen = Stored { revision: typed.revision, ..stored.clone() };
    match face.store.edit_endpoint(&seen, &edited, &asker.actor(), clock::now()).await {
        Ok(()) => page::go(&format!("/endpoints/{id}"), &format!("{} is changed.", edited.name)),
        Err(error @ StoreError::Changed { .. }) => {
            // What was typed stays; sent once more it counts over what the other one wrote.
            let what =
                format!("{error}: it is now {}. Send this again to write over that.", differing(&stored, &typed));
            let typed = Typed { revision: stored.revision, ..typed };
            page::refused(&form(&asker, &stored, typed, Vec::new(), Some(what)))
        }
        Err(error @ StoreError::Duplicate { .. }) => {
            page::refused(&form(&asker, &stored, typed, Vec::new(), Some(error.to_string())))
        }
        Err(error) => Err(error.into()),
    }
}

/// What is stored where it is not what was typed.
fn differing(stored: &Stored, typed: &Typed) -> String {
    let is = Typed::of(&stored.endpoint, stored.revision);
    let pairs = [
        ("host", &is.host, &typed.host),
        ("port", &is.port, &typed.port),
        ("SNI", &is.sni, &typed.sni),
        ("STARTTLS", &is.starttls, &typed.starttls),
        ("name", &is.name, &typed.name),
        ("tags", &is.tags, &typed.tags),
        ("owner", &is.owner, &typed.owner),
        ("sites", &is.sites, &typed.sites),
        ("interval", &is.interval, &typed.interval),
        ("paused", &is.paused, &typed.paused),
    ];
    let all: Vec<String> =
        pairs.iter().filter(|(_, is, typed)| is != typed).map(|(field, is, _)| format!("{field} `{is}`")).collect();
    if all.is_empty() { "what you typed".into() } else { all.join(", ") }
}

/// Has those of these endpoints polled that are active, from wherever they are polled, and says so in the trail. Returns how
/// many they are.
pub(super) async fn ask_for_polls(face: &Face, asker: &Asker, ids: &[i64]) -> Result<usize, Fault> {
    let (mut by_site, mut names) = (BTreeMap::<String, Vec<i64>>::new(), Vec::new());
    for id in ids.iter().collect::<BTreeSet<_>>() {
        let Some(stored) = face.store.endpoint(*id).await?.filter(|stored| stored.endpoint.active) else { continue };
        names.push(stored.endpoint.key.to_string());
        for site in &stored.endpoint.sites {
            by_site.entry(site.as_str().to_owned()).or_default().push(*id);
        }
    }
    if names.is_empty() {
        return Ok(0);
    }
    let now = clock::now();
    let subject = names.first().cloned().unwrap_or_default();
    let detail = if names.len() > 1 { format!("and {} more", names.len() - 1) } else { String::new() };
    face.store.note(&asker.actor(), now, ["endpoint poll", &subject, &detail]).await?;
    let task = |(site, endpoints): (String, Vec<i64>)| {
        // Asked for twice, it is polled once.
        let key = Some(Hash::of(format!("now {site} {endpoints:?}").as_bytes()).to_string());
        let body = serde_json::to_string(&PollTask { endpoints }).unwrap_or_default();
        NewTask { lane: lane(&site), key, body }
    };
    let tasks: Vec<NewTask> = by_site.into_iter().map(task).collect();
    face.store.add(&tasks, now).await?;
    Ok(names.len())
}

pub(super) async fn poll(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<i64>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let stored = stored(&face, id).await?;
    if ask_for_polls(&face, &asker, &[id]).await? == 0 {
        return Err(Fault::bad(format!("{} is paused; resume it first", stored.endpoint.name)));
    }
    if headers.contains_key("hx-request") {
        return Ok("asked; what it finds comes here by itself".into_response());
    }
    page::go(
        &format!("/endpoints/{id}"),
        "A poll is asked for. What it finds is here in a moment; load the page again.",
    )
}

/// Says each time that a poll of the endpoint was stored, with its nodes as they are then. It ends with the session.
pub(super) async fn events(
    State(face): State<Face>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(mut stopping): Extension<Stopping>,
    Path(id): Path<i64>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Fault> {
    stored(&face, id).await?;
    let before = face.store.last_asked(id).await?;
    let stream = async_stream::stream! {
        let (mut before, end) = (before, tokio::time::Instant::now() + WATCHED);
        while tokio::time::Instant::now() < end {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = stopping.told() => break,
            }
            let Ok(last) = face.store.last_asked(id).await else { break };
            if last == before {
                continue;
            }
            before = last;
            if !asker::ask(&face, peer.ip(), &headers).await.is_ok_and(|asker| asker.may(Role::Viewer)) {
                break;
            }
            let Ok(nodes) = nodes(&face, id, clock::now()).await else { break };
            let Ok(text) = nodes.render() else { break };
            yield Ok(Event::default().event("polled").data(text));
        }
        // The page asks again if it still wants to know.
        yield Ok(Event::default().event("over").data(""));
    };
    Ok(Sse::new(stream).keep_alive(KeepAlive::default()))
}

#[derive(Debug, Deserialize)]
pub(super) struct Pause {
    /// What it is to be: two who say the same at once do not undo each other.
    active: String,
}

pub(super) async fn pause(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<i64>,
    Form(Pause { active }): Form<Pause>,
) -> Result<Response, Fault> {
    let stored = stored(&face, id).await?;
    let active = Some(active);
    let edited = stored.endpoint.edited(&Written { active, ..Written::default() }).map_err(Fault::fields)?;
    if edited != stored.endpoint {
        face.store.edit_endpoint(&stored, &edited, &asker.actor(), clock::now()).await?;
    }
    let word = if edited.active { "is polled again" } else { "is paused" };
    page::go(&format!("/endpoints/{id}"), &format!("{} {word}.", edited.name))
}

pub(super) async fn remove(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<i64>,
) -> Result<Response, Fault> {
    let stored = stored(&face, id).await?;
    face.store.remove_endpoints(&[id], &asker.actor(), clock::now()).await?;
    page::go("/endpoints", &format!("{} is removed, with what was seen of it.", stored.endpoint.name))
}
