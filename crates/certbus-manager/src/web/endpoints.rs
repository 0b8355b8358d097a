//! All endpoints: listed, searched, filtered, registered one by one or from a file, and changed many at a time.

use std::collections::BTreeMap;

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Multipart, Query as Asked, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use certbus_core::drift::Serves;
use certbus_core::endpoint::{Endpoint, FieldError, Written};
use certbus_core::time::Timestamp;
use certbus_store::endpoints::{Put, Wanted};
use certbus_store::shown::Changed;
use certbus_store::{Listed, Query, State as Is, StoreError};
use serde::{Deserialize, Serialize};

use super::Face;
use super::asker::Asker;
use super::endpoint::ask_for_polls;
use super::fault::Fault;
use super::page::{self, Frame, When, when};
use crate::clock;
use crate::inventory::files;

/// Endpoints on a page.
const PAGE: i64 = 50;

/// What a list is narrowed to, as its address says it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Filter {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) q: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) state: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) tag: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) owner: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) site: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) sort: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) after: String,
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Filter {
    pub(super) fn tag(&self) -> Option<String> {
        some(&self.tag)
    }
    pub(super) fn owner(&self) -> Option<String> {
        some(&self.owner)
    }
    pub(super) fn site(&self) -> Option<String> {
        some(&self.site)
    }

    pub(super) fn is(&self, field: &str, value: &str) -> bool {
        let own = match field {
            "tag" => &self.tag,
            "owner" => &self.owner,
            "site" => &self.site,
            "sort" => &self.sort,
            _ => &self.state,
        };
        own == value
    }

    pub(super) fn query(&self) -> Result<Query, Fault> {
        let state = some(&self.state).map(|text| text.parse::<Is>()).transpose().map_err(Fault::bad)?;
        Ok(Query {
            search: self.q.clone(),
            state,
            tag: self.tag(),
            owner: self.owner(),
            site: self.site(),
            soonest: self.sort == "expiry",
            after: some(&self.after),
            limit: PAGE,
            ..Query::default()
        })
    }

    /// The address of the page that begins there.
    fn at(&self, after: &str) -> String {
        let pairs = [
            ("q", &self.q),
            ("state", &self.state),
            ("tag", &self.tag),
            ("owner", &self.owner),
            ("site", &self.site),
            ("sort", &self.sort),
        ];
        let mut said: Vec<String> = pairs
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .map(|(key, value)| format!("{key}={}", escaped(value)))
            .collect();
        said.push(format!("after={}", escaped(after)));
        format!("/endpoints?{}", said.join("&"))
    }
}

/// As a query of an address has it (RFC 3986).
pub(super) fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
        out
    })
}

/// An endpoint in a list.
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) place: String,
    pub(super) state: &'static str,
    pub(super) kind: &'static str,
    pub(super) expires: Option<When>,
    pub(super) issuer: String,
    pub(super) serves: &'static str,
    pub(super) owner: String,
    pub(super) tags: Vec<String>,
}

/// In words, and how bad.
pub(super) fn state_words(state: Is) -> (&'static str, &'static str) {
    match state {
        Is::Expired => ("expired", "bad"),
        Is::OlderVersion => ("older version", "warn"),
        Is::Another => ("another certificate", "warn"),
        Is::Overdue => ("overdue", "warn"),
        Is::Failing => ("failing", "bad"),
        Is::Unseen => ("not seen yet", "off"),
        Is::Paused => ("paused", "off"),
        Is::Unmanaged => ("not managed", "good"),
        Is::Current | Is::Ok => ("ok", "good"),
    }
}

impl Row {
    pub(super) fn of(row: &Listed, now: Timestamp) -> Self {
        let (state, kind) = state_words(row.state);
        let endpoint = &row.stored.endpoint;
        let place = endpoint.key.to_string();
        Self {
            id: row.stored.id,
            name: endpoint.name.clone(),
            place: if place == endpoint.name { String::new() } else { place },
            state,
            kind,
            expires: row.expires_at.map(|at| when(at, now)),
            issuer: row.issuer.as_deref().map(short_name).unwrap_or_default(),
            serves: row.serves.map_or("", Serves::words),
            owner: endpoint.owner.clone(),
            tags: endpoint.tags.iter().map(|tag| tag.as_str().to_owned()).collect(),
        }
    }
}

/// The part of a distinguished name that people call somebody by.
pub(super) fn short_name(name: &str) -> String {
    let part = |key: &str| name.split(", ").find_map(|part| part.strip_prefix(key)).map(str::to_owned);
    match (part("CN="), part("O=")) {
        (Some(common), Some(organization)) if common.len() <= 4 => format!("{organization} {common}"),
        (Some(common), _) => common,
        (None, Some(organization)) => organization,
        (None, None) => name.to_owned(),
    }
}

/// A change in a list.
pub(super) struct ChangeRow {
    pub(super) at: When,
    pub(super) endpoint: i64,
    pub(super) name: String,
    pub(super) node: String,
    pub(super) words: &'static str,
    pub(super) kind: &'static str,
    pub(super) before: Option<(String, String)>,
    pub(super) after: Option<(String, String)>,
    pub(super) why: String,
}

pub(super) fn change_rows(changes: Vec<Changed>, now: Timestamp) -> Vec<ChangeRow> {
    let short = |print: certbus_core::id::Fingerprint| {
        let text = print.to_string();
        (text.get(..12).unwrap_or_default().to_owned(), text)
    };
    let row = |one: Changed| {
        let (words, kind) = match one.kind.as_str() {
            "first" => ("first seen", "off"),
            "replaced" | "otherwise" if !one.surprise.is_empty() => ("surprise", "warn"),
            "replaced" => ("renewed", "good"),
            "otherwise" => ("looked at otherwise", "off"),
            "chain" => ("other chain", "off"),
            "failing" => ("fails", "bad"),
            "recovered" => ("answers again", "good"),
            "gone" => ("left the name", "off"),
            "back" => ("is back", "off"),
            _ => ("changed", "off"),
        };
        ChangeRow {
            at: when(one.at, now),
            endpoint: one.endpoint,
            name: one.name,
            node: node_words(&one.address, &one.site),
            words,
            kind,
            before: one.before.map(short),
            after: one.after.map(short),
            why: if one.surprise.is_empty() { one.why } else { one.surprise.join(", ") },
        }
    };
    changes.into_iter().map(row).collect()
}

/// A node as people say it.
pub(super) fn node_words(address: &str, site: &str) -> String {
    let address = if address.is_empty() { "no address" } else { address };
    if site == certbus_core::endpoint::USUAL_SITE { address.to_owned() } else { format!("{address} from {site}") }
}

#[derive(Template)]
#[template(path = "endpoints.html")]
struct ListPage {
    frame: Frame,
    filter: Filter,
    rows: Vec<Row>,
    next: Option<String>,
    states: [Is; 10],
}

pub(super) async fn list(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Asked(filter): Asked<Filter>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let now = clock::now();
    let page = face.store.endpoints(&filter.query()?, now).await?;
    let frame = Frame::new("Endpoints", "endpoints", &asker).said(&headers);
    let next = page.next.map(|after| filter.at(&after));
    let rows = page.rows.iter().map(|row| Row::of(row, now)).collect();
    let page = ListPage { frame, filter, rows, next, states: Is::ALL };
    page::show(&page, &page.frame)
}

/// What was typed into the form of an endpoint, and what is wrong with it.
#[derive(Template)]
#[template(path = "endpoint_form.html")]
pub(super) struct FormPage {
    pub(super) frame: Frame,
    /// Where it is sent.
    pub(super) action: String,
    pub(super) back: String,
    pub(super) typed: Typed,
    pub(super) errors: BTreeMap<&'static str, String>,
    pub(super) other: Option<String>,
}

impl FormPage {
    /// Each with its word, what was typed, and what may be.
    fn fields(&self) -> [(&'static str, &'static str, &str, &'static str); 9] {
        [
            (
                "host",
                "Host",
                &self.typed.host,
                "A name with all its addresses, or one address: www.example.com, smtp://mail.example.com, 10.2.0.7",
            ),
            ("port", "Port", &self.typed.port, "443, or the usual one of the protocol"),
            ("name", "Name", &self.typed.name, "What you call it; else host and port"),
            ("tags", "Tags", &self.typed.tags, "Words to group by, separated by commas"),
            ("owner", "Owner", &self.typed.owner, "Who is to be told"),
            ("sni", "SNI", &self.typed.sni, "The name in the ClientHello, if it is not the host"),
            (
                "starttls",
                "STARTTLS",
                &self.typed.starttls,
                "smtp, lmtp, imap, pop3, ftp, ldap, postgres, mysql, xmpp, xmpp-server, nntp, sieve; guessed from the port",
            ),
            ("sites", "Sites", &self.typed.sites, "From where it is polled, separated by commas"),
            (
                "interval",
                "Interval",
                &self.typed.interval,
                "How often, such as 10m; else every hour, closer where it matters",
            ),
        ]
    }

    fn error(&self, field: &str) -> Option<&String> {
        self.errors.get(field)
    }
}

/// The fields of an endpoint's form.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Typed {
    #[serde(default)]
    pub(super) host: String,
    #[serde(default)]
    pub(super) port: String,
    #[serde(default)]
    pub(super) sni: String,
    #[serde(default)]
    pub(super) starttls: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) tags: String,
    #[serde(default)]
    pub(super) owner: String,
    #[serde(default)]
    pub(super) sites: String,
    #[serde(default)]
    pub(super) interval: String,
    #[serde(default)]
    pub(super) paused: String,
    /// Which edit it follows.
    #[serde(default)]
    pub(super) revision: i64,
}

impl Typed {
    /// What was written for a new one: what was left empty was not.
    fn new_one(&self) -> Written {
        Written {
            host: Some(self.host.clone()),
            port: some(&self.port),
            sni: some(&self.sni),
            starttls: some(&self.starttls),
            name: some(&self.name),
            tags: some(&self.tags),
            owner: some(&self.owner),
            sites: some(&self.sites),
            interval: some(&self.interval),
            active: (!self.paused.is_empty()).then(|| "no".into()),
        }
    }

    /// What was written for one that is there: what was left empty is to be empty.
    pub(super) fn edit(&self) -> Written {
        let said = |text: &String| Some(text.clone());
        Written {
            host: said(&self.host),
            port: said(&self.port),
            sni: said(&self.sni),
            starttls: said(&self.starttls),
            name: said(&self.name),
            tags: said(&self.tags),
            owner: said(&self.owner),
            sites: said(&self.sites),
            interval: said(&self.interval),
            active: Some(if self.paused.is_empty() { "yes" } else { "no" }.into()),
        }
    }

    pub(super) fn of(endpoint: &Endpoint, revision: i64) -> Self {
        let words = |set: &std::collections::BTreeSet<certbus_core::endpoint::Word>| {
            set.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(", ")
        };
        Self {
            host: endpoint.key.host.to_string(),
            port: endpoint.key.port.to_string(),
            sni: endpoint.key.sni.as_ref().map(ToString::to_string).unwrap_or_default(),
            starttls: endpoint.key.starttls.map(|one| one.to_string()).unwrap_or_default(),
            name: endpoint.name.clone(),
            tags: words(&endpoint.tags),
            owner: endpoint.owner.clone(),
            sites: words(&endpoint.sites),
            interval: endpoint.interval.map(|one| one.to_string()).unwrap_or_default(),
            paused: if endpoint.active { String::new() } else { "yes".into() },
            revision,
        }
    }
}

pub(super) async fn new(Extension(asker): Extension<Asker>) -> Result<Response, Fault> {
    page::rendered(&form(&asker, Typed::default(), Vec::new(), None))
}

fn form(asker: &Asker, typed: Typed, errors: Vec<FieldError>, other: Option<String>) -> FormPage {
    FormPage {
        frame: Frame::new("Watch an endpoint", "endpoints", asker),
        action: "/endpoints".into(),
        back: "/endpoints".into(),
        typed,
        errors: by_field(errors),
        other,
    }
}

pub(super) fn by_field(errors: Vec<FieldError>) -> BTreeMap<&'static str, String> {
    errors.into_iter().map(|error| (error.field, error.why)).collect()
}

pub(super) async fn add(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(typed): Form<Typed>,
) -> Result<Response, Fault> {
    let endpoint = match Endpoint::parse(&with_site(typed.new_one(), &face.site)) {
        Ok(endpoint) => endpoint,
        Err(errors) => return page::refused(&form(&asker, typed, errors, None)),
    };
    let now = clock::now();
    match face.store.add_endpoints(std::slice::from_ref(&endpoint), &asker.actor(), now).await {
        Ok(ids) => {
            let id = ids.first().copied().unwrap_or_default();
            page::go(
                &format!("/endpoints/{id}"),
                &format!("{} is watched. Its first poll is under way.", endpoint.name),
            )
        }
        Err(error @ StoreError::Duplicate { .. }) => {
            page::refused(&form(&asker, typed, Vec::new(), Some(error.to_string())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Polled from this site, if nobody says from where.
pub(super) fn with_site(written: Written, site: &str) -> Written {
    Written { sites: written.sites.or_else(|| Some(site.to_owned())), ..written }
}

#[derive(Template)]
#[template(path = "import.html")]
struct ImportPage {
    frame: Frame,
    typed: String,
    done: Option<String>,
    errors: Vec<(usize, String)>,
}

pub(super) async fn import_form(Extension(asker): Extension<Asker>) -> Result<Response, Fault> {
    let frame = Frame::new("Import endpoints", "endpoints", &asker);
    page::rendered(&ImportPage { frame, typed: String::new(), done: None, errors: Vec::new() })
}

pub(super) async fn import(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    mut parts: Multipart,
) -> Result<Response, Fault> {
    let mut text = String::new();
    while let Some(part) = parts.next_field().await.map_err(|error| Fault::bad(error.body_text()))? {
        if matches!(part.name(), Some("file" | "text")) {
            let found = part.text().await.map_err(|error| Fault::bad(error.body_text()))?;
            if !found.trim().is_empty() {
                text = found;
            }
        }
    }
    let frame = Frame::new("Import endpoints", "endpoints", &asker);
    if text.trim().is_empty() {
        let done = Some("Nothing was in it: choose a file, or paste lines.".to_owned());
        return page::refused(&ImportPage { frame, typed: text, done, errors: Vec::new() });
    }
    let (wanted, errors) = files::parse(&text, &face.site);
    let mut counts = [0_usize; 3];
    for some in wanted.chunks(1000) {
        for put in face.store.put_endpoints(some, &asker.actor(), clock::now()).await? {
            let at = match put {
                Put::Added(_) => 0,
                Put::Edited(_) => 1,
                Put::Same(_) => 2,
            };
            if let Some(count) = counts.get_mut(at) {
                *count += 1;
            }
        }
    }
    let [added, edited, same] = counts;
    let said = format!("{added} added, {edited} changed, {same} the same, {} refused", errors.len());
    if errors.is_empty() {
        return page::go("/endpoints", &said);
    }
    page::refused(&ImportPage { frame, typed: text, done: Some(said), errors })
}

pub(super) async fn export(State(face): State<Face>) -> Result<Response, Fault> {
    let mut text = files::COLUMNS.join(",") + "\n";
    let mut query = Query { limit: 1000, ..Query::default() };
    loop {
        let page = face.store.endpoints(&query, clock::now()).await?;
        page.rows.iter().for_each(|row| text.push_str(&(spreadsheet_safe(&row.stored.endpoint) + "\n")));
        match page.next {
            None => break,
            next => query.after = next,
        }
    }
    let mut response = text.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    let name = HeaderValue::from_static("attachment; filename=\"endpoints.csv\"");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

/// A line of CSV in which no field is a formula to a spreadsheet.
fn spreadsheet_safe(endpoint: &Endpoint) -> String {
    let safe =
        |text: &str| if text.starts_with(['=', '+', '-', '@', '\t']) { format!("'{text}") } else { text.to_owned() };
    let (name, owner) = (safe(&endpoint.name), safe(&endpoint.owner));
    files::record(&Endpoint { name, owner, ..endpoint.clone() })
}

/// Something that is done to several: the form's fields, each `id` a number.
pub(super) async fn bulk(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Fault> {
    let of = |name: &str| fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.trim());
    let ids: Vec<i64> = fields.iter().filter(|(key, _)| key == "id").filter_map(|(_, id)| id.parse().ok()).collect();
    let (what, tag) = (of("do"), of("tag"));
    if ids.is_empty() {
        return page::go("/endpoints", "No endpoint was chosen.");
    }
    let now = clock::now();
    let some = |count: usize| if count == 1 { "1 endpoint".to_owned() } else { format!("{count} endpoints") };
    let said = match what {
        "poll" => format!("{} will be polled now.", some(ask_for_polls(&face, &asker, &ids).await?)),
        "remove" => format!("{} removed.", some(face.store.remove_endpoints(&ids, &asker.actor(), now).await?)),
        "pause" | "resume" => {
            let active = Some(if what == "pause" { "no" } else { "yes" }.to_owned());
            let count =
                edit_all(&face, &asker, &ids, |_| Written { active: active.clone(), ..Written::default() }).await?;
            format!("{} {}d.", some(count), what)
        }
        "tag" if !tag.is_empty() => {
            let written = |endpoint: &Endpoint| {
                let tags: Vec<&str> = endpoint.tags.iter().map(|one| one.as_str()).chain([tag]).collect();
                Written { tags: Some(tags.join(",")), ..Written::default() }
            };
            format!("{} tagged {tag}.", some(edit_all(&face, &asker, &ids, written).await?))
        }
        "tag" => return Err(Fault::bad("which tag? write one beside the button")),
        other => {
            return Err(Fault::bad(format!(
                "`{other}` cannot be done to endpoints; choose poll, pause, resume, tag or remove"
            )));
        }
    };
    page::go("/endpoints", &said)
}

/// Edits several; what is written of each follows from what it is.
pub(super) async fn edit_all(
    face: &Face,
    asker: &Asker,
    ids: &[i64],
    written: impl Fn(&Endpoint) -> Written,
) -> Result<usize, Fault> {
    let mut wanted = Vec::new();
    for id in ids {
        let Some(stored) = face.store.endpoint(*id).await? else { continue };
        let written = written(&stored.endpoint);
        stored.endpoint.edited(&written).map_err(Fault::fields)?;
        wanted.push(Wanted { endpoint: stored.endpoint, written });
    }
    let done = face.store.put_endpoints(&wanted, &asker.actor(), clock::now()).await?;
    Ok(done.iter().filter(|put| matches!(put, Put::Edited(_))).count())
}
