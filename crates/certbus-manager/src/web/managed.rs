//! Managed certificates of the log: listed, ordered, renewed, removed, each with its story. Ordering writes what is wanted;
//! whoever keeps the log renewed does it.

use std::time::Duration;

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use certbus_core::drift;
use certbus_core::endpoint::FieldError;
use certbus_core::event::CertificateRequested;
use certbus_core::id::CertificateId;
use certbus_core::name::{DnsName, NameSet};
use certbus_core::spec::{Challenge, UnknownWord};
use certbus_core::time::Timestamp;
use certbus_store::tasks::TaskQueue;
use serde::Deserialize;

use super::Face;
use super::asker::Asker;
use super::dashboard::Issued;
use super::fault::Fault;
use super::page::{self, Frame, When, when};
use crate::clock;
use crate::issuing::Issuing;
use crate::managed::Managed;
use crate::manager::Manager;
use crate::wishes;

/// Public CAs take no more.
const MOST_NAMES: usize = 100;

const DAY: Duration = Duration::from_secs(86_400);

/// Managed certificates in a few numbers.
pub(super) async fn issued(face: &Face, now: Timestamp) -> Result<Issued, Fault> {
    let Some(manager) = &face.manager else { return Ok(Issued::default()) };
    let never_seen = face.store.never_seen(&manager.tenant().name).await?;
    let view = manager.view().await?;
    let all = Managed::all(&view, now);
    let until = |days: u32| all.iter().filter(|one| one.renewal.is_some_and(|at| at <= now.plus(DAY * days))).count();
    let since = now.minus(DAY * 7);
    // A first version is no renewal.
    let renewed = view
        .catalog
        .timelines()
        .map(|(_, timeline)| {
            timeline
                .iter()
                .filter(|known| {
                    known.version.reason != certbus_core::event::Reason::New && known.version.not_before > since
                })
                .count()
        })
        .sum();
    Ok(Issued {
        never_seen,
        all: all.len(),
        due_in_a_day: until(1),
        due_in_a_week: until(7),
        next_renewal: all.iter().filter_map(|one| one.renewal).min(),
        renewed,
        failing: all.iter().filter(|one| one.problem.is_some()).count(),
        needing: all.into_iter().filter(Managed::needs_somebody).collect(),
    })
}

/// Which nodes serve the version last offered, in one line.
pub(super) async fn sentence(face: &Face, id: &str) -> Result<Option<String>, Fault> {
    let (Some(manager), Ok(id)) = (&face.manager, id.parse::<CertificateId>()) else { return Ok(None) };
    let served = face.store.served_at(&manager.tenant().name, id).await?;
    let nodes: Vec<(&str, Option<drift::Serves>)> =
        served.iter().map(|one| (one.address.as_str(), one.serves)).collect();
    Ok(drift::sentence(&nodes))
}

struct ManagedRow {
    id: String,
    names: String,
    more: usize,
    state: std::borrow::Cow<'static, str>,
    kind: &'static str,
    expires: Option<When>,
    renewal: Option<When>,
    problem: String,
    retry: Option<When>,
}

fn row(one: &Managed, now: Timestamp) -> ManagedRow {
    let kind = match &*one.state {
        "ok" => "good",
        "due" | "requested" | "CA wants it replaced now" => "warn",
        _ => "bad",
    };
    ManagedRow {
        id: one.id.to_string(),
        names: one.names.iter().take(3).cloned().collect::<Vec<_>>().join(", "),
        more: one.names.len().saturating_sub(3),
        state: one.state.clone(),
        kind,
        expires: one.not_after.map(|at| when(at, now)),
        renewal: one.renewal.map(|at| when(at, now)),
        problem: one.problem.clone().unwrap_or_default(),
        retry: one.retry_at.map(|at| when(at, now)),
    }
}

/// Who writes to the log.
pub(super) fn manager<'a>(face: &'a Face, asker: &Asker) -> Result<&'a Manager, Fault> {
    let Some(manager) = &face.manager else {
        return Err(Fault::missing("this server has no manager's identity, so it knows no managed certificates"));
    };
    match &asker.tenant {
        Some(tenant) if *tenant != manager.tenant().name => {
            Err(Fault::missing(format!("this server has no tenant `{tenant}`, which the token is for")))
        }
        _ => Ok(manager),
    }
}

#[derive(Template)]
#[template(path = "managed.html")]
struct ListPage {
    frame: Frame,
    tenant: String,
    rows: Vec<ManagedRow>,
}

pub(super) async fn list(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let now = clock::now();
    let manager = manager(&face, &asker)?;
    let rows = Managed::all(&*manager.view().await?, now).iter().map(|one| row(one, now)).collect();
    let frame = Frame::new("Managed certificates", "managed", &asker).said(&headers);
    let page = ListPage { frame, tenant: manager.tenant().name.clone(), rows };
    page::show(&page, &page.frame)
}

#[derive(Template)]
#[template(path = "managed_form.html")]
struct FormPage {
    frame: Frame,
    typed: Typed,
    errors: Vec<FieldError>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Typed {
    #[serde(default)]
    names: String,
    #[serde(default)]
    challenge: String,
    #[serde(default)]
    key_type: String,
}

pub(super) async fn new(Extension(asker): Extension<Asker>) -> Result<Response, Fault> {
    let frame = Frame::new("Order a certificate", "managed", &asker);
    page::rendered(&FormPage { frame, typed: Typed::default(), errors: Vec::new() })
}

pub(super) async fn create(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(typed): Form<Typed>,
) -> Result<Response, Fault> {
    let names = typed.names.split(|c: char| c.is_whitespace() || c == ',').filter(|word| !word.is_empty());
    let issuing = manager(&face, &asker)?.settings().await?;
    let wanted = match wanted(&issuing, None, names, &typed.challenge, &typed.key_type) {
        Ok((wanted, _)) => wanted,
        Err(errors) => {
            let frame = Frame::new("Order a certificate", "managed", &asker);
            return page::refused(&FormPage { frame, typed, errors });
        }
    };
    let (id, new) = order(&face, &asker, &wanted).await?;
    let said =
        if new { "It is ordered; whatever the CA says is told here." } else { "There is one for these names already." };
    page::go(&format!("/managed/{id}"), said)
}

/// Writes what is wanted, if there is none for these names. True if it is new.
pub(super) async fn order(
    face: &Face,
    asker: &Asker,
    wanted: &CertificateRequested,
) -> Result<(CertificateId, bool), Fault> {
    let (id, new) = manager(face, asker)?.request(wanted).await?;
    if new {
        let names = NameSet::new(&wanted.names).to_string();
        face.store.note(&asker.actor(), clock::now(), ["cert mk", &id.to_string(), &names]).await?;
    }
    Ok((id, new))
}

/// What is asked for as the settings have it, and the CA that it goes to; each field with what is wrong with it.
pub(super) fn wanted<'a>(
    issuing: &Issuing,
    ca: Option<&str>,
    words: impl Iterator<Item = &'a str>,
    challenge: &str,
    key_type: &str,
) -> Result<(CertificateRequested, String), Vec<FieldError>> {
    let (mut errors, mut names) = (Vec::new(), Vec::new());
    let mut wrong = |field: &'static str, why: String| errors.push(FieldError { field, why });
    for word in words {
        match DnsName::parse(word) {
            Ok(name) => names.push(name),
            Err(error) => wrong("names", error.to_string()),
        }
    }
    let named = issuing.ca_name(ca).map_err(|error| wrong("ca", error.what));
    let challenge = if challenge.is_empty() { Ok(issuing.usual_challenge(&names)) } else { challenge.parse() };
    let challenge = challenge.map_err(|why: UnknownWord| wrong("challenge", why.to_string()));
    let key_type = if key_type.is_empty() { "p256" } else { key_type }.parse();
    let key_type = key_type.map_err(|why: UnknownWord| wrong("key_type", why.to_string()));
    if let (Some(name), Ok(Challenge::Http01)) = (names.iter().find(|name| name.is_wildcard()), &challenge) {
        wrong("challenge", format!("`{name}` is a wildcard, which is shown by dns-01 only"));
    }
    if named.as_ref().is_ok_and(|ca| issuing.is_public_ca(ca)) {
        for (name, why) in names.iter().filter_map(|name| Some((name, name.public_obstacle()?))) {
            wrong("names", format!("no public CA signs `{name}`: {why}"));
        }
    }
    if names.len() > MOST_NAMES {
        let why = format!("these are {}, and a CA takes {MOST_NAMES} at most; order several", names.len());
        errors.push(FieldError { field: "names", why });
    }
    if names.is_empty() && errors.is_empty() {
        errors.push(FieldError { field: "names", why: "write at least one name, such as www.example.com".into() });
    }
    match (challenge, key_type, named, errors.is_empty()) {
        (Ok(challenge), Ok(key_type), Ok(named), true) => {
            let wanted = CertificateRequested {
                certificate: clock::certificate_id(),
                names: NameSet::new(&names).names(),
                key_type,
                challenge,
                profile: None,
                ca: ca.map(str::to_owned),
            };
            Ok((wanted, named))
        }
        _ => Err(errors),
    }
}

/// One that is wanted, as it is now.
pub(super) async fn one(face: &Face, asker: &Asker, text: &str) -> Result<(CertificateId, Managed), Fault> {
    let id = text.parse().map_err(|error: certbus_core::id::IdError| Fault::missing(error.to_string()))?;
    let view = manager(face, asker)?.view().await?;
    let request = view.work.request(id);
    let request = request.ok_or_else(|| Fault::missing(format!("there is no managed certificate {id}")))?;
    Ok((id, Managed::of(&view, request, clock::now())))
}

/// Asks for a renewal.
pub(super) async fn ask_to_renew(face: &Face, asker: &Asker, id: &str) -> Result<CertificateId, Fault> {
    let (id, _) = one(face, asker, id).await?;
    let tenant = &manager(face, asker)?.tenant().name;
    face.store.add(&[wishes::renewal(tenant, id)], clock::now()).await?;
    face.store.note(&asker.actor(), clock::now(), ["cert renew", &id.to_string(), ""]).await?;
    Ok(id)
}

/// Ends a managed certificate.
pub(super) async fn end(face: &Face, asker: &Asker, id: &str) -> Result<CertificateId, Fault> {
    let (id, _) = one(face, asker, id).await?;
    manager(face, asker)?.remove(id).await?;
    face.store.note(&asker.actor(), clock::now(), ["cert rm", &id.to_string(), ""]).await?;
    Ok(id)
}

#[derive(Template)]
#[template(path = "managed_one.html")]
struct OnePage {
    frame: Frame,
    row: ManagedRow,
    names: Vec<String>,
    version: Option<String>,
    sentence: Option<String>,
    served: Vec<ServedRow>,
    next: Option<String>,
    story: Vec<(When, String, String)>,
}

struct ServedRow {
    endpoint: i64,
    name: String,
    node: String,
    serves: String,
    kind: &'static str,
}

pub(super) async fn show(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let now = clock::now();
    let manager = manager(&face, &asker)?;
    let (id, found) = one(&face, &asker, &id).await?;
    let settings = manager.settings().await?;
    let served = face.store.served_at(&manager.tenant().name, id).await?;
    let story = manager.story(id).await?;
    let told = story.into_iter().rev().map(|told| (when(told.at, now), told.what, told.actor)).collect();
    let rows = served.iter().map(|one| ServedRow {
        endpoint: one.endpoint,
        name: one.name.clone(),
        node: one.address.clone(),
        serves: one.serves.map_or_else(|| "does not answer".to_owned(), |serves| serves.to_string()),
        kind: match one.serves {
            Some(drift::Serves::Current) => "good",
            Some(_) => "warn",
            None => "bad",
        },
    });
    let page = OnePage {
        frame: Frame::new(found.names.first().cloned().unwrap_or_default(), "managed", &asker).said(&headers),
        row: row(&found, now),
        names: found.names.clone(),
        version: found.version.map(|print| print.to_string()),
        sentence: sentence(&face, &id.to_string()).await?,
        served: rows.collect(),
        next: manager.next_step(id, &settings).await?,
        story: told,
    };
    page::show(&page, &page.frame)
}

pub(super) async fn renew(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let id = ask_to_renew(&face, &asker, &id).await?;
    page::go(
        &format!("/managed/{id}"),
        "A renewal is asked for. Whatever the CA says is told here; load the page again.",
    )
}

pub(super) async fn remove(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(id): Path<String>,
) -> Result<Response, Fault> {
    let id = end(&face, &asker, &id).await?;
    page::go("/managed", &format!("{id} is renewed and served no longer."))
}
