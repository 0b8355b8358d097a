//! The log for those who have nothing but a token: pages, a stream of events, snapshots. Only of `certs`: the other stream is
//! the managers' alone. One task watches the log for all who wait, and what it says is encoded once.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, Query as Asked, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use certbus_bus::http::{BATCHES, STILL_THERE};
use certbus_bus::{EventLog, LogError, Page};
use certbus_core::id::{Cursor, Hash};
use certbus_scan::most_in_flight;
use futures::StreamExt;
use serde::Deserialize;
use tokio::sync::{Semaphore, broadcast};

use super::Face;
use super::asker;
use super::connections::{Seat, Stopping};
use super::fault::Fault;
use super::routes::{Access, Route, route};
use crate::tenant::Stream;

/// Batches that are read at once.
const PAGE: usize = 1000;

/// And for each of the many who catch up.
const AT_ONCE: usize = 32;

/// Batches that wait for one who reads slowly; then he reads them from the log.
const WAITING: usize = 64;

/// Who was let in is let in for so long without being asked again.
const LET_IN_FOR: Duration = Duration::from_secs(1);

/// File descriptors that are kept for all else.
const KEPT: usize = 1024;

pub(super) fn table() -> Vec<Route> {
    vec![
        route(Method::GET, "/api/log/v1/certs", Access::Certs, read),
        route(Method::GET, "/api/log/v1/certs/events", Access::Certs, events),
        route(Method::GET, "/api/log/v1/certs/snapshot", Access::Certs, manifest),
        route(Method::GET, "/api/log/v1/certs/snapshot/{hash}", Access::Certs, part),
    ]
}

/// Tells all who wait what was appended.
#[derive(Debug, Default)]
pub(super) struct Hub {
    said: OnceLock<broadcast::Sender<Said>>,
    room: OnceLock<Arc<Semaphore>>,
    let_in: Mutex<HashMap<Hash, (Instant, bool)>>,
}

/// What is told.
#[derive(Clone, Debug)]
enum Said {
    /// Batches in a row, as events.
    Batches { from: Cursor, to: Cursor, text: Bytes },
    /// The log is watched from this place on: who is elsewhere reads.
    From(Cursor),
    /// The log cannot be read: whoever waits comes back and is told why.
    Lost,
}

impl Hub {
    fn listen(&self, log: &Arc<dyn EventLog>) -> broadcast::Receiver<Said> {
        let said = self.said.get_or_init(|| {
            let (said, _) = broadcast::channel(WAITING);
            tokio::spawn(tell(log.clone(), said.clone()));
            said
        });
        said.subscribe()
    }

    /// As many as the system lets this process have file descriptors, but for some that are kept.
    fn room(&self) -> &Arc<Semaphore> {
        self.room.get_or_init(|| {
            let most = most_in_flight();
            Arc::new(Semaphore::new(most.saturating_sub(KEPT).max(most / 2)))
        })
    }
}

/// Watches the log from where it is now, for as long as there is a server.
async fn tell(log: Arc<dyn EventLog>, said: broadcast::Sender<Said>) {
    let mut watch = log.watch(begin(&*log, &said).await);
    while let Some(page) = watch.next().await {
        let told = match page {
            Ok(page) => match (page.batches.first().map(|batch| batch.expected()), page.batches.last()) {
                (Some(first), Some(last)) => Said::Batches { from: first, to: last.cursor(), text: as_events(&page) },
                _ => continue,
            },
            Err(error) => {
                tracing::warn!("the log that is served: {error}");
                let _ = said.send(Said::Lost);
                if !matches!(error, LogError::Unavailable { .. }) {
                    // It was trimmed or put back under the one who watches.
                    watch = log.watch(begin(&*log, &said).await);
                }
                continue;
            }
        };
        // Nobody waits: nobody is told.
        let _ = said.send(told);
    }
}

/// Where the log ends, told to all who were there before that was known.
async fn begin(log: &dyn EventLog, said: &broadcast::Sender<Said>) -> Cursor {
    let from = head(log).await;
    let _ = said.send(Said::From(from));
    from
}

/// Where the log ends; it is waited for until it can be read.
async fn head(log: &dyn EventLog) -> Cursor {
    let mut place = None;
    loop {
        let next = match place {
            None => log.oldest().await.map(|oldest| oldest.map(|batch| batch.cursor())),
            Some(place) => log.read(place, PAGE).await.map(|page| page.batches.last().map(|batch| batch.cursor())),
        };
        match next {
            Ok(Some(further)) => place = Some(further),
            Ok(None) => return place.unwrap_or(Cursor::START),
            Err(error) => {
                tracing::warn!("the log that is served: {error}");
                place = None;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Lines of text are lines of data; a batch ends with a line's end.
fn as_events(page: &Page) -> Bytes {
    let mut text = String::new();
    for batch in &page.batches {
        let body = String::from_utf8_lossy(batch.bytes());
        text.push_str("event: batch\n");
        for line in body.split_terminator('\n') {
            text.push_str("data: ");
            text.push_str(line);
            text.push('\n');
        }
        text.push('\n');
    }
    text.into()
}

fn stream(face: &Face) -> Result<&Stream, Fault> {
    let missing = || Fault::missing("this server has no manager's identity, and so no log; ask the one that has");
    face.manager.as_ref().map(|manager| &manager.tenant().certs).ok_or_else(missing)
}

/// What a log says against a reader, with the number that he goes on from.
fn fault(error: LogError) -> Fault {
    match error {
        LogError::Trimmed { first } => Fault {
            number: Some(("first", first)),
            ..Fault::new(
                StatusCode::GONE,
                "trimmed",
                format!("batches before {first} are trimmed; begin with the snapshot"),
            )
        },
        LogError::NotHere { head, cursor, .. } => Fault {
            number: Some(("head", head)),
            ..Fault::new(
                StatusCode::CONFLICT,
                "not here",
                format!("the log ends at batch {head} and does not have {cursor}"),
            )
        },
        other => {
            tracing::error!("{other}");
            let what = "the log cannot be read; what the server logged says why";
            Fault {
                retry_after: Some(2),
                ..Fault::new(StatusCode::SERVICE_UNAVAILABLE, "the log cannot be used", what)
            }
        }
    }
}

/// From where on, and how much.
#[derive(Debug, Deserialize)]
pub(super) struct Wanted {
    after: Option<String>,
    limit: Option<usize>,
}

impl Wanted {
    fn after(&self) -> Result<Cursor, Fault> {
        let Some(text) = &self.after else { return Ok(Cursor::START) };
        text.parse().map_err(|error| Fault::bad(format!("after: {error}")))
    }
}

async fn read(State(face): State<Face>, Asked(wanted): Asked<Wanted>) -> Result<Response, Fault> {
    let limit = wanted.limit.unwrap_or(PAGE).clamp(1, PAGE);
    let page = stream(&face)?.log.read(wanted.after()?, limit).await.map_err(fault)?;
    let mut body = Vec::new();
    for batch in &page.batches {
        body.extend_from_slice(&u32::try_from(batch.bytes().len()).unwrap_or_default().to_be_bytes());
        body.extend_from_slice(batch.bytes());
    }
    Ok(([(header::CONTENT_TYPE, BATCHES)], body).into_response())
}

/// Every batch after a place, and every one that comes, until the token is removed.
async fn events(
    State(face): State<Face>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Extension(mut stopping): Extension<Stopping>,
    Extension(seat): Extension<Seat>,
    Asked(wanted): Asked<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let mut after = wanted.after()?;
    let log = stream(&face)?.log.clone();
    // Listened before it is read: nothing comes between the two unheard.
    let mut said = face.hub().listen(&log);
    let mut page = log.read(after, AT_ONCE).await.map_err(fault)?;
    let full = || Fault {
        retry_after: Some(30),
        ..Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "full",
            "as many wait here as there is room for; ask another server",
        )
    };
    let room = face.hub().room().clone().try_acquire_owned().map_err(|_| full())?;
    let whole = async_stream::stream! {
        let _room = room;
        // Who is known and waits does not take a place of those who are not.
        seat.leave();
        // That it is heard.
        yield Bytes::from_static(b": here\n\n");
        loop {
            while let Some(last) = page.batches.last() {
                after = last.cursor();
                let text = as_events(&page);
                drop(std::mem::take(&mut page));
                yield text;
                if !is_let_in(&face, peer.ip(), &headers).await {
                    return;
                }
                page = match log.read(after, AT_ONCE).await {
                    Ok(page) => page,
                    Err(_) => return,
                };
            }
            loop {
                let heard = tokio::select! {
                    () = stopping.told() => return,
                    () = tokio::time::sleep(STILL_THERE) => None,
                    heard = said.recv() => Some(heard),
                };
                if !is_let_in(&face, peer.ip(), &headers).await {
                    return;
                }
                match heard {
                    None => yield Bytes::from_static(b": still there\n\n"),
                    Some(Ok(Said::Batches { from, to, text })) if from == after => {
                        after = to;
                        yield text;
                    }
                    Some(Ok(Said::Batches { to, .. })) if to.seq <= after.seq => {}
                    Some(Ok(Said::From(from))) if from == after => {}
                    Some(Ok(Said::Batches { .. } | Said::From(_)) | Err(broadcast::error::RecvError::Lagged(_))) => break,
                    Some(Ok(Said::Lost) | Err(broadcast::error::RecvError::Closed)) => return,
                }
            }
            page = match log.read(after, AT_ONCE).await {
                Ok(page) => page,
                Err(_) => return,
            };
        }
    };
    let head = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        // Nothing comes after it, and who asks for its head alone keeps no place.
        (header::CONNECTION, HeaderValue::from_static("close")),
        // For proxies that would wait for more.
        (header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((head, Body::from_stream(whole.map(Ok::<_, std::convert::Infallible>))).into_response())
}

/// Whether whoever asked is let in still.
async fn is_let_in(face: &Face, peer: IpAddr, headers: &HeaderMap) -> bool {
    let mut who = Vec::new();
    for name in [header::AUTHORIZATION, header::COOKIE] {
        headers.get_all(name).iter().for_each(|value| who.extend_from_slice(value.as_bytes()));
    }
    let who = Hash::of(&who);
    let known = |all: &mut HashMap<Hash, (Instant, bool)>| {
        all.retain(|_, (at, _)| at.elapsed() < LET_IN_FOR);
        all.get(&who).map(|(_, is)| *is)
    };
    let cached = known(&mut face.hub().let_in.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(is) = cached {
        return is;
    }
    // An inventory that cannot be read takes nobody's certificates away.
    let is = asker::ask(face, peer, headers).await.map_or(true, |asker| asker.may_follow());
    face.hub().let_in.lock().unwrap_or_else(PoisonError::into_inner).insert(who, (Instant::now(), is));
    is
}

async fn manifest(State(face): State<Face>, headers: HeaderMap) -> Result<Response, Fault> {
    match stream(&face)?.snapshots.manifest().await.map_err(fault)? {
        None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(text) => Ok(tagged(&headers, Hash::of(text.as_bytes()), "no-cache", text.into_bytes())),
    }
}

async fn part(State(face): State<Face>, Path(hash): Path<String>, headers: HeaderMap) -> Result<Response, Fault> {
    let hash: Hash = hash.parse().map_err(|error| Fault::bad(format!("{error}")))?;
    match stream(&face)?.snapshots.part(hash).await.map_err(fault)? {
        None => Ok(StatusCode::NO_CONTENT.into_response()),
        Some(bytes) => Ok(tagged(&headers, hash, "private, max-age=31536000, immutable", bytes)),
    }
}

/// With a tag (RFC 9110, section 8.8.3); who has it already gets no body.
fn tagged(headers: &HeaderMap, hash: Hash, cached: &'static str, bytes: Vec<u8>) -> Response {
    let tag = format!("\"{hash}\"");
    let has_it = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let has_it = has_it.flat_map(|value| value.split(',')).any(|one| one.trim().trim_start_matches("W/") == tag);
    let head = [(header::ETAG, tag), (header::CACHE_CONTROL, cached.to_owned())];
    if has_it {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, [(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response()
}
