//! Many endpoints at a time: imported, exported, and changed by their numbers.

use askama::Template;
use axum::Extension;
use axum::extract::{Form, Multipart, State};
use axum::response::Response;
use certbus_core::endpoint::{Endpoint, Word, Written};
use certbus_store::Query;
use certbus_store::endpoints::{Put, Wanted};

use super::Face;
use super::asker::Asker;
use super::endpoint::ask_for_polls;
use super::fault::Fault;
use super::page::{self, Frame};
use crate::clock;
use crate::inventory::files;
use crate::inventory::import::{Tally, store};

/// Lines of one transaction.
const AT_ONCE: usize = 1000;

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
    let (Tally { added, edited, same, .. }, errors) = store_all(&face, &asker, &text).await?;
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
        page.rows.iter().for_each(|row| text.push_str(&(files::record(&row.stored.endpoint) + "\n")));
        match page.next {
            None => break,
            next => query.after = next,
        }
    }
    Ok(page::download(text, "text/csv; charset=utf-8", "endpoints.csv"))
}

/// Stores all that the lines of a text say, a thousand at a time. Returns what became of them, and the lines that are wrong.
pub(super) async fn store_all(face: &Face, asker: &Asker, text: &str) -> Result<(Tally, Vec<(usize, String)>), Fault> {
    let (lines, errors) = files::parse(text, &face.site);
    let (mut tally, mut lines) = (Tally::default(), lines.into_iter().peekable());
    while lines.peek().is_some() {
        let some = lines.by_ref().take(AT_ONCE).collect();
        tally = tally.plus(store(&face.store, &face.site, some, &asker.actor(), clock::now()).await?);
    }
    Ok((tally, errors))
}

/// What can be done to several endpoints.
pub(super) enum Deed<'a> {
    Poll,
    Pause,
    Resume,
    Tag(&'a str),
    Untag(&'a str),
    Remove,
}

impl Deed<'_> {
    /// Does it to all of these that are there. Returns to how many.
    pub(super) async fn done_to(self, face: &Face, asker: &Asker, ids: &[i64]) -> Result<usize, Fault> {
        let active = |word: &str| Written { active: Some(word.into()), ..Written::default() };
        let tagged = |words: Vec<&str>| Written { tags: Some(words.join(",")), ..Written::default() };
        match self {
            Self::Poll => ask_for_polls(face, asker, ids).await,
            Self::Remove => Ok(face.store.remove_endpoints(ids, &asker.actor(), clock::now()).await?),
            Self::Pause => edit_all(face, asker, ids, |_| active("no")).await,
            Self::Resume => edit_all(face, asker, ids, |_| active("yes")).await,
            Self::Tag(tag) => {
                let with = |one: &Endpoint| tagged(one.tags.iter().map(Word::as_str).chain([tag]).collect());
                edit_all(face, asker, ids, with).await
            }
            Self::Untag(tag) => {
                let without =
                    |one: &Endpoint| tagged(one.tags.iter().map(Word::as_str).filter(|word| *word != tag).collect());
                edit_all(face, asker, ids, without).await
            }
        }
    }
}

/// Edits several; what is written of each follows from what it is.
async fn edit_all(
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

/// Something that is done to several: the form's fields, each `id` a number.
pub(super) async fn bulk(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(fields): Form<Vec<(String, String)>>,
) -> Result<Response, Fault> {
    let of = |name: &str| fields.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value.trim());
    let ids: Vec<i64> = fields.iter().filter(|(key, _)| key == "id").filter_map(|(_, id)| id.parse().ok()).collect();
    if ids.is_empty() {
        return page::go("/endpoints", "No endpoint was chosen.");
    }
    let (deed, past) = match (of("do"), of("tag")) {
        ("poll", _) => (Deed::Poll, "will be polled now".to_owned()),
        ("remove", _) => (Deed::Remove, "removed".to_owned()),
        ("pause", _) => (Deed::Pause, "paused".to_owned()),
        ("resume", _) => (Deed::Resume, "resumed".to_owned()),
        ("tag", "") => return Err(Fault::bad("which tag? write one beside the button")),
        ("tag", tag) => (Deed::Tag(tag), format!("tagged {tag}")),
        (other, _) => {
            return Err(Fault::bad(format!(
                "`{other}` cannot be done to endpoints; choose poll, pause, resume, tag or remove"
            )));
        }
    };
    let count = deed.done_to(&face, &asker, &ids).await?;
    let what = if count == 1 { "1 endpoint".to_owned() } else { format!("{count} endpoints") };
    page::go("/endpoints", &format!("{what} {past}."))
}
