//! A CertBus server, asked over HTTP with a token: for readers who have nothing else. It serves the stream `certs`, and takes
//! no batch from anybody. docs/LOG.md has what is said; the server's half is the manager's.

use std::error::Error;
use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use certbus_core::batch::Batch;
use certbus_core::id::{Cursor, Hash};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use crate::log::{AppendError, EventLog, LogError, PAGE_BYTES, Page, SnapshotStore};

/// The type of a page: each batch is its length (four bytes, the highest first) and its bytes.
pub const BATCHES: &str = "application/vnd.certbus.batches";

/// A server says at least so often that it is still there.
pub const STILL_THERE: Duration = Duration::from_secs(15);

/// How long it may take to be connected, and an answer to begin.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);

/// A stream of events on which nothing came for so long is broken.
const SILENT: Duration = Duration::from_secs(40);

/// How long is waited after an error, and up to as much again: so that not all come back at one moment.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The most that an answer may have: a page, and one batch more.
const LARGEST_ANSWER: usize = PAGE_BYTES + 1024 * 1024;

/// A server that knows who asks.
#[derive(Clone, Debug)]
pub struct HttpServer {
    client: Client,
    base: Arc<str>,
}

/// One stream on a server.
#[derive(Clone, Debug)]
pub struct HttpLog {
    server: HttpServer,
    kind: Arc<str>,
}

/// Why a request was refused, as a problem document says it (RFC 9457), with what only a log has.
#[derive(Debug, Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    first: Option<u64>,
    #[serde(default)]
    head: Option<u64>,
}

impl HttpServer {
    /// The server at `url`, asked with `token`. Nothing is asked yet.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] if this is no URL to which a token may go.
    pub fn new(url: &str, token: &str) -> Result<Self, LogError> {
        let wrong = |cause: &str| LogError::Unavailable { place: "a CertBus server".into(), cause: cause.into() };
        let read = Url::parse(url).ok().filter(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
        let no_url = || wrong("its URL cannot be read; write https://certbus.example.com, as its dashboard has it");
        let read = read.filter(|url| url.username().is_empty() && url.password().is_none()).ok_or_else(no_url)?;
        let host = read.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if read.scheme() == "http" && !here {
            return Err(wrong("over http:// the token would go there in the clear; write https://"));
        }
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| wrong("the token has characters that no token has; give it as it was printed"))?;
        bearer.set_sensitive(true);
        let builder = Client::builder()
            .user_agent(concat!("certbus/", env!("CARGO_PKG_VERSION")))
            .default_headers([(AUTHORIZATION, bearer)].into_iter().collect())
            // A token goes nowhere by itself.
            .redirect(Policy::none())
            .connect_timeout(CONNECTED_WITHIN)
            .read_timeout(SILENT)
            .pool_idle_timeout(Duration::from_secs(5));
        let builder = if here { builder.no_proxy() } else { builder };
        let client = builder.build().map_err(|error| wrong(&error.to_string()))?;
        Ok(Self { client, base: read.as_str().trim_end_matches('/').into() })
    }

    /// The stream of this kind: `certs`.
    pub fn stream(&self, kind: &str) -> HttpLog {
        HttpLog { server: self.clone(), kind: kind.into() }
    }
}

impl HttpLog {
    fn unavailable(&self, cause: impl Into<String>) -> LogError {
        LogError::Unavailable { place: self.place(), cause: cause.into() }
    }

    fn ask(&self, path: &str) -> RequestBuilder {
        self.server.client.get(format!("{}/api/log/v1/{}{path}", self.server.base, self.kind))
    }

    /// The answer, if it is one of success; `after` is the place that was asked for.
    async fn answer(&self, request: RequestBuilder, after: Cursor) -> Result<Response, LogError> {
        let sent = timeout(ANSWERED_WITHIN, request.send()).await;
        let sent = sent.map_err(|_| self.unavailable("it does not answer in time"))?;
        let mut response = sent.map_err(|error| self.unreached(&error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        if status.is_redirection() {
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere").to_owned();
            return Err(
                self.unavailable(format!("it leads on to {to}, which is not followed: a token goes nowhere by itself"))
            );
        }
        let body = self.body(&mut response).await?;
        let Ok(Problem { detail, first, head }) = serde_json::from_slice(&body) else {
            return Err(self.unavailable(format!("it answers {status}, and is no CertBus server that has a log")));
        };
        Err(match (status, first, head) {
            (StatusCode::GONE, Some(first), _) => LogError::Trimmed { first },
            (StatusCode::CONFLICT, _, Some(head)) => LogError::NotHere { place: self.place(), cursor: after, head },
            (StatusCode::UNAUTHORIZED, ..) => self.unavailable(
                "it does not take the token: it is wrong, was removed, or has ended; `certbus token new NAME --scope certs` \
                 there makes one",
            ),
            _ => self.unavailable(detail),
        })
    }

    async fn body(&self, response: &mut Response) -> Result<Vec<u8>, LogError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreached(&error))? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST_ANSWER {
                return Err(self.unavailable("it answers more than a page has"));
            }
        }
        Ok(body)
    }

    fn unreached(&self, error: &reqwest::Error) -> LogError {
        let mut cause: &dyn Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        let mut cause = cause.to_string();
        if cause.contains("certificate") {
            cause = format!(
                "its certificate is not trusted: {cause}; SSL_CERT_FILE names a file with the root of a CA of your own"
            );
        }
        self.unavailable(cause)
    }

    async fn read_now(&self, after: Cursor, limit: usize) -> Result<Page, LogError> {
        let path = format!("?after={after}&limit={}", limit.min(1000));
        let mut response = self.answer(self.ask(&path), after).await?;
        if response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != BATCHES) {
            return Err(self.unavailable("it answers something else than batches: is it a CertBus server?"));
        }
        let body = self.body(&mut response).await?;
        let (mut page, mut rest) = (Page::default(), &body[..]);
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
            let Some((bytes, more)) = more.split_at_checked(length) else {
                return Err(self.unavailable("its answer breaks off in the middle of a batch"));
            };
            rest = more;
            let seq = after.seq + 1 + page.batches.len() as u64;
            match self.parse(seq, bytes.to_vec()) {
                Ok(batch) => page.batches.push(batch),
                Err(error) if page.batches.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(page)
    }

    fn parse(&self, seq: u64, bytes: Vec<u8>) -> Result<Batch, LogError> {
        Batch::parse(bytes).map_err(|source| LogError::Corrupt { place: self.place(), seq, source })
    }

    fn refused(&self, what: &str) -> LogError {
        self.unavailable(format!(
            "a token reads the log and does not {what}; a manager's log.url names the engine itself"
        ))
    }
}

impl EventLog for HttpLog {
    fn read(&self, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Page, LogError>> {
        self.read_now(after, limit).boxed()
    }

    fn append(&self, _: Cursor, _: Batch) -> BoxFuture<'_, Result<Cursor, AppendError>> {
        async move { Err(self.refused("write to it").into()) }.boxed()
    }

    fn watch(&self, after: Cursor) -> BoxStream<'static, Result<Page, LogError>> {
        let log = self.clone();
        async_stream::stream! {
            let mut after = after;
            loop {
                let request = log.ask(&format!("/events?after={after}")).header(ACCEPT, "text/event-stream");
                let mut response = match log.answer(request, after).await {
                    Ok(response) => response,
                    Err(error) => {
                        yield Err(error);
                        sleep(later()).await;
                        continue;
                    }
                };
                let mut events = Events::default();
                let broken = loop {
                    match timeout(SILENT, response.chunk()).await {
                        Ok(Ok(Some(chunk))) => {
                            let mut page = Page::default();
                            for event in events.take(&chunk) {
                                match log.parse(after.seq + 1, event) {
                                    Ok(batch) => page.batches.push(batch),
                                    Err(error) => yield Err(error),
                                }
                            }
                            if let Some(last) = page.batches.last() {
                                after = last.cursor();
                                yield Ok(page);
                            }
                            if events.size > LARGEST_ANSWER {
                                break Some(log.unavailable("it sends an event without end"));
                            }
                        }
                        // It was ended in order: why is said by the next answer.
                        Ok(Ok(None)) => break None,
                        Ok(Err(error)) => break Some(log.unreached(&error)),
                        Err(_) => break Some(log.unavailable("it has gone silent")),
                    }
                };
                if let Some(error) = broken {
                    yield Err(error);
                }
                sleep(later()).await;
            }
        }
        .boxed()
    }

    fn trim(&self, _: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move { Err(self.refused("trim it")) }.boxed()
    }

    fn cut(&self, _: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move { Err(self.refused("cut it")) }.boxed()
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Option<Batch>, LogError>> {
        async move {
            // Only of a log that was never trimmed: its place before the oldest has a hash that only the server knows.
            Ok(self.read_now(Cursor::START, 1).await?.batches.pop())
        }
        .boxed()
    }

    fn place(&self) -> String {
        format!("{} ({})", self.server.base, self.kind)
    }
}

impl SnapshotStore for HttpLog {
    fn put_part(&self, _: Vec<u8>) -> BoxFuture<'_, Result<Hash, LogError>> {
        async move { Err(self.refused("write snapshots")) }.boxed()
    }

    fn part(&self, hash: Hash) -> BoxFuture<'_, Result<Option<Vec<u8>>, LogError>> {
        async move {
            let mut path = String::from("/snapshot/");
            let _ = write!(path, "{hash}");
            match self.answer(self.ask(&path), Cursor::START).await {
                Ok(mut response) if response.status() != StatusCode::NO_CONTENT => {
                    self.body(&mut response).await.map(Some)
                }
                Ok(_) => Ok(None),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn manifest(&self) -> BoxFuture<'_, Result<Option<String>, LogError>> {
        async move {
            let mut response = self.answer(self.ask("/snapshot"), Cursor::START).await?;
            if response.status() == StatusCode::NO_CONTENT {
                return Ok(None);
            }
            let text = String::from_utf8(self.body(&mut response).await?);
            text.map(Some).map_err(|_| self.unavailable("its manifest is no text"))
        }
        .boxed()
    }

    fn put_manifest(&self, _: Option<String>, _: String, _: Vec<Hash>) -> BoxFuture<'_, Result<bool, LogError>> {
        async move { Err(self.refused("write snapshots")) }.boxed()
    }
}

/// A moment that others do not take.
fn later() -> Duration {
    let chance = RandomState::new().hash_one(0_u8) % 1000;
    LOOK_AGAIN + LOOK_AGAIN * u32::try_from(chance).unwrap_or_default() / 1000
}

/// What is read of a stream of events (HTML, section 9.2.6): the data of each that is a batch.
#[derive(Default)]
struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    is_batch: bool,
    /// Of what is not complete yet.
    size: usize,
}

impl Events {
    fn take(&mut self, chunk: &[u8]) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            self.size += part.len();
            let Some(line) = self.line.strip_suffix(b"\n") else { continue };
            if line.is_empty() {
                let data = std::mem::take(&mut self.data);
                if std::mem::take(&mut self.is_batch) {
                    whole.push(data);
                }
                self.size = 0;
            } else if let Some(text) = line.strip_prefix(b"data: ") {
                self.data.extend_from_slice(text);
                self.data.push(b'\n');
            } else if line == b"event: batch" {
                self.is_batch = true;
            }
            self.line.clear();
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_read_out_of_events_however_they_are_cut() {
        let text = b": here\n\nevent: batch\nid: 1:aa\ndata: {1}\ndata: sig\n\nevent: other\ndata: x\n\nevent: batch\ndata: {2}\n\nevent: ba";
        for size in 1..text.len() {
            let mut events = Events::default();
            let whole: Vec<Vec<u8>> = text.chunks(size).flat_map(|chunk| events.take(chunk)).collect();
            assert_eq!(whole, [b"{1}\nsig\n".to_vec(), b"{2}\n".to_vec()], "{size}");
        }
    }

    #[test]
    fn a_token_goes_over_tls_or_to_this_machine_alone() {
        for good in ["https://certbus.example", "http://127.0.0.1:8080", "http://[::1]:8080/", "http://localhost:1"] {
            assert!(HttpServer::new(good, "token").is_ok(), "{good}");
        }
        for bad in
            ["http://certbus.example", "certbus.example", "https://a:b@certbus.example", "http://localhost.example"]
        {
            let error = HttpServer::new(bad, "t0ken").unwrap_err().to_string();
            assert!(!error.contains("t0ken") && !error.contains("a:b"), "{error}");
        }
    }
}
