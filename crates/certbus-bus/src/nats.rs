//! NATS JetStream: one JetStream stream with one subject for each of ours. An append says which message it comes after, and the
//! server refuses it otherwise; readers are pushed to by a consumer. Numbers of JetStream are not ours (a message that was
//! deleted keeps its number), so a place is looked up, and remembered.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::context::{ContextBuilder, GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{self, DiscardPolicy, RawMessageError, RawMessageErrorKind, StorageType};
use async_nats::jetstream::{Context, ErrorCode};
use async_nats::{ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use certbus_core::batch::Batch;
use certbus_core::id::{Cursor, Hash};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tokio::time::{sleep, timeout};

use crate::health::Health;
use crate::log::{
    AppendError, EventLog, LogError, PAGE_BYTES, Page, READ_AT_LEAST, SnapshotStore, check_read, check_size, is_for,
};

/// How long it may take to be connected, and an answer to come.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);

/// How long is waited after an error, and for a stream that nobody has made yet.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Messages that are asked for at once.
const AT_ONCE: usize = 64;

/// The oldest server that can all of this.
const OLDEST: (u32, u32) = (2, 9);

/// What follows the name of a stream in that of the one with its snapshot.
const SNAPSHOT: &str = "-snapshot";

/// The name of a snapshot's manifest.
const MANIFEST: &str = "manifest";

/// A server, or a cluster of them.
#[derive(Clone, Debug)]
pub struct NatsServer {
    context: Context,
    /// Of each stream that is made.
    replicas: usize,
    place: Arc<str>,
    /// What the server said last against this connection: it tells what is forbidden beside the answer, not in it.
    said: Arc<Mutex<Option<String>>>,
}

/// One stream on a server.
#[derive(Clone, Debug)]
pub struct NatsLog {
    server: NatsServer,
    /// As people know it.
    name: Arc<str>,
    /// Of the JetStream stream.
    id: Arc<str>,
    subject: Arc<str>,
    /// A place with its number on JetStream: what is there does not change.
    known: Arc<Mutex<Option<Known>>>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    place: Cursor,
    number: u64,
}

/// A message with its number on JetStream.
struct Message {
    number: u64,
    batch: Batch,
}

impl NatsServer {
    /// Connects to `nats://USER:PASSWORD@HOST:4222`, or several of these with commas between them. After a `?` stand
    /// `replicas=3`, `credentials=FILE`, `ca=FILE`.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] naming the host and what is wrong: not there, not let in, too old, without JetStream.
    pub async fn open(url: &str) -> Result<Self, LogError> {
        let no_url = |what: &str| LogError::Unavailable {
            place: "NATS".into(),
            cause: format!("{what}; write nats://USER:PASSWORD@HOST:4222, or tls://…"),
        };
        let (servers, query) = url.split_once('?').unwrap_or((url, ""));
        let said = Arc::new(Mutex::new(None));
        let (hears, mut replicas) = (said.clone(), 1);
        let mut options = ConnectOptions::new()
            .name("certbus")
            .connection_timeout(ANSWERED_WITHIN)
            .request_timeout(Some(ANSWERED_WITHIN))
            .event_callback(move |event| {
                if let Event::ServerError(error) = event {
                    *hears.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                }
                std::future::ready(())
            });
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "replicas" => match value.parse() {
                    Ok(number @ (1 | 3 | 5)) => replicas = number,
                    _ => return Err(no_url("replicas are 1, 3 or 5")),
                },
                "credentials" => {
                    options = options.credentials_file(value).await.map_err(|e| no_url(&format!("{value}: {e}")))?;
                }
                "ca" => options = options.add_root_certificates(PathBuf::from(value)),
                other => return Err(no_url(&format!("`{other}` is nothing that its URL says"))),
            }
        }
        let servers: Result<Vec<ServerAddr>, _> = servers.split(',').map(ServerAddr::from_str).collect();
        let servers = servers.map_err(|_| no_url("its URL cannot be read"))?;
        let hosts: Vec<String> = servers.iter().map(|server| format!("{}:{}", server.host(), server.port())).collect();
        let place = format!("NATS {}", hosts.join(", "));
        let wrong = |cause: String| LogError::Unavailable { place: place.clone(), cause };
        let client = options.connect(servers).await.map_err(|error| {
            wrong(match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    "it does not let this user in; look at user and password in the URL, or at the credentials".into()
                }
                ConnectErrorKind::TimedOut => format!("it does not answer within {} s", ANSWERED_WITHIN.as_secs()),
                ConnectErrorKind::Tls => format!("no TLS: {error}; ca in the URL names the file with its CA"),
                _ => format!("no connection: {error}"),
            })
        })?;
        let info = client.server_info();
        let mut numbers = info.version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
        let found = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        if found < OLDEST {
            let what =
                format!("it is NATS {}, which is too old; {}.{} or newer is needed", info.version, OLDEST.0, OLDEST.1);
            return Err(wrong(what));
        }
        if !info.jetstream {
            return Err(wrong("JetStream is not on there; start it with `-js`, or name a server that has it".into()));
        }
        let context = ContextBuilder::new().timeout(ANSWERED_WITHIN).ack_timeout(ANSWERED_WITHIN).build(client);
        Ok(Self { context, replicas, place: place.into(), said })
    }

    /// One of its streams; it need not exist yet: the first append makes it.
    pub fn stream(&self, name: &str) -> NatsLog {
        NatsLog {
            server: self.clone(),
            name: name.into(),
            // `/` stands in neither; a tenant's name has no `.`.
            id: format!("certbus-{}", name.replace('/', "-")).into(),
            subject: format!("certbus.{}", name.replace('/', ".")).into(),
            known: Arc::default(),
        }
    }

    /// The names of the streams on it.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn streams(&self) -> Result<Vec<String>, LogError> {
        let names: Vec<String> =
            self.context.stream_names().try_collect().await.map_err(|e| self.fault(&e.to_string()))?;
        let ours = names
            .iter()
            .filter_map(|name| name.strip_prefix("certbus-")?.rsplit_once('-'))
            .filter(|(_, kind)| *kind != "snapshot");
        let mut ours: Vec<String> = ours.map(|(tenant, kind)| format!("{tenant}/{kind}")).collect();
        ours.sort();
        Ok(ours)
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn health(&self) -> Result<Health, LogError> {
        let info = self.context.client().server_info();
        let mut remarks = vec![
            "it acknowledges before data is on disk unless its configuration has `jetstream { sync_interval: always }`, which \
             cannot be seen from here"
                .to_owned(),
        ];
        for name in self.streams().await? {
            let id = format!("certbus-{}", name.replace('/', "-"));
            let found = self.context.get_stream(&id).await.map_err(|e| self.fault(&e.to_string()))?;
            let replicas = found.cached_info().config.num_replicas;
            if replicas < 3 {
                remarks.push(format!(
                    "{id} has {replicas} replica: with its server it is gone; in a cluster make it three: `nats stream edit {id} \
                     --replicas 3`"
                ));
            }
        }
        Ok(Health { version: format!("NATS {}", info.version), clock: None, wrong: Vec::new(), remarks })
    }

    fn fault(&self, cause: &str) -> LogError {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).take();
        let cause = match said {
            Some(said) if said.to_lowercase().contains("permissions violation") => format!(
                "{said}; readers need to publish to $JS.API.STREAM.MSG.GET.*, $JS.API.STREAM.INFO.*, $JS.API.CONSUMER.> and \
                 to subscribe to _INBOX.>, managers also to publish to certbus.>, $KV.certbus-> and $JS.API.STREAM.>"
            ),
            Some(said) => format!("{cause}; the server says: {said}"),
            None => cause.to_owned(),
        };
        LogError::Unavailable { place: self.place.to_string(), cause }
    }
}

impl NatsLog {
    fn fault(&self, error: &dyn std::fmt::Display) -> LogError {
        self.server.fault(&error.to_string())
    }

    fn known(&self) -> Option<Known> {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn learn(&self, place: Cursor, number: u64) {
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(Known { place, number });
    }

    async fn jetstream(&self) -> Result<stream::Stream<()>, LogError> {
        self.server.context.get_stream_no_info(&*self.id).await.map_err(|e| self.fault(&e))
    }

    /// What a look-up found; None: there is no such message, or no stream yet.
    fn found(&self, got: Result<StreamMessage, RawMessageError>) -> Result<Option<Message>, LogError> {
        match got {
            Ok(message) => {
                let number = message.sequence;
                self.parse(number, &message.payload).map(|batch| Some(Message { number, batch }))
            }
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.fault(&error)),
        }
    }

    fn parse(&self, number: u64, body: &[u8]) -> Result<Batch, LogError> {
        Batch::parse(body.to_vec()).map_err(|source| LogError::Corrupt { place: self.place(), seq: number, source })
    }

    /// The newest message, as the stream's leader has it.
    async fn last(&self) -> Result<Option<Message>, LogError> {
        let stream = self.jetstream().await?;
        if let Some(last) = self.found(stream.get_last_raw_message_by_subject(&self.subject).await)? {
            return Ok(Some(last));
        }
        // Older servers know no last message of a subject any more when that was deleted: it is looked for from the end.
        let Some(state) = self.state().await? else { return Ok(None) };
        for number in (state.first_sequence..=state.last_sequence).rev() {
            if state.messages == 0 {
                break;
            }
            if let Some(last) = self.found(stream.get_raw_message(number).await)? {
                return Ok(Some(last));
            }
        }
        Ok(None)
    }

    /// What the server says of the JetStream stream; None: there is none yet.
    async fn state(&self) -> Result<Option<stream::State>, LogError> {
        match self.server.context.get_stream(&*self.id).await {
            Ok(found) => Ok(Some(found.cached_info().state.clone())),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(self.fault(&error)),
            },
        }
    }

    async fn head(&self) -> Result<Cursor, LogError> {
        Ok(self.last().await?.map_or(Cursor::START, |last| last.batch.cursor()))
    }

    /// The first message of this number or a later one.
    async fn at_or_after(&self, number: u64) -> Result<Option<Message>, LogError> {
        let stream = self.jetstream().await?;
        self.found(stream.raw_message_builder().sequence(number).next_by_subject(&*self.subject).send().await)
    }

    /// The number of the message that ends at `after`: what comes next has a higher one. `last` is the newest message.
    async fn locate(&self, after: Cursor, last: &Message) -> Result<u64, LogError> {
        if let Some(known) = self.known().filter(|known| known.place == after) {
            return Ok(known.number);
        }
        if last.batch.cursor() == after {
            return Ok(last.number);
        }
        let head = last.batch.cursor().seq;
        let Some(first) = self.at_or_after(1).await? else { return Ok(0) };
        let (first_seq, previous) = (first.batch.cursor().seq, first.batch.envelope().previous);
        // Between the two ends the numbers grow together: the guess is right unless a tail was cut off once.
        let (mut low, mut high) = ((first_seq, first.number), (head, last.number));
        let mut found = (first.batch.cursor() == after).then_some((first.number, after.hash));
        while found.is_none() && low.0 < after.seq && after.seq < high.0 && low.1 + 1 < high.1 {
            let guess = (low.1 + (after.seq - low.0)).clamp(low.1 + 1, high.1);
            let Some(here) = self.at_or_after(guess).await? else { break };
            let place = here.batch.cursor();
            match place.seq.cmp(&after.seq) {
                std::cmp::Ordering::Equal => found = Some((here.number, place.hash)),
                std::cmp::Ordering::Less => low = (place.seq, here.number),
                // The one sought has a lower number than the guess.
                std::cmp::Ordering::Greater => {
                    let middle = low.1 + (guess - low.1) / 2;
                    let Some(here) = self.at_or_after(middle.max(low.1 + 1)).await? else { break };
                    let place = here.batch.cursor();
                    match place.seq.cmp(&after.seq) {
                        std::cmp::Ordering::Equal => found = Some((here.number, place.hash)),
                        std::cmp::Ordering::Less => low = (place.seq, here.number),
                        std::cmp::Ordering::Greater => high = (place.seq, middle),
                    }
                }
            }
        }
        check_read(&self.place(), after, Some((first_seq, previous)), found.map(|(_, hash)| hash), head)?;
        Ok(found.map_or(first.number - 1, |(number, _)| number))
    }

    async fn read_now(&self, after: Cursor, limit: usize) -> Result<Page, LogError> {
        let Some(last) = self.last().await? else {
            check_read(&self.place(), after, None, None, 0)?;
            return Ok(Page::default());
        };
        if last.batch.cursor() == after {
            self.learn(after, last.number);
            return Ok(Page::default());
        }
        let was_known = self.known().is_some_and(|known| known.place == after);
        let at = self.locate(after, &last).await?;
        if at >= last.number {
            let head = last.batch.cursor().seq;
            return Err(LogError::NotHere { place: self.place(), cursor: after, head });
        }
        let stream = self.jetstream().await?;
        // Asked for ahead of time and in order. Those that were deleted are passed over.
        let mut rest = futures::stream::iter(at + 1..last.number)
            .map(|number| stream.get_raw_message(number))
            .buffered(AT_ONCE.min(limit.max(1)))
            .map(|got| self.found(got))
            .chain(futures::stream::once(std::future::ready(Ok(Some(last)))));
        let (mut page, mut size) = (Page::default(), 0);
        while page.batches.len() < limit {
            let message = match rest.next().await {
                None => break,
                Some(Ok(None)) => continue,
                Some(Ok(Some(message))) => message,
                Some(Err(error)) if page.batches.is_empty() => return Err(error),
                Some(Err(_)) => break,
            };
            size += message.batch.bytes().len();
            if size > PAGE_BYTES && !page.batches.is_empty() {
                break;
            }
            if page.batches.is_empty() && was_known && message.batch.expected() != after {
                // It was known once, and was cut off since: it is looked for anew.
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return EventLog::read(self, after, limit).await;
            }
            self.learn(message.batch.cursor(), message.number);
            page.batches.push(message.batch);
        }
        Ok(page)
    }

    async fn append_now(&self, expected: Cursor, batch: Batch) -> Result<Cursor, AppendError> {
        check_size(&batch)?;
        // Asked each time: of a last message that was cut off since the server keeps the number.
        let mut number = match self.last().await? {
            Some(last) if last.batch.cursor() == expected => last.number,
            _ => self.number_of_head(expected).await?,
        };
        if !is_for(expected, &batch) {
            return Err(AppendError::Conflict { head: self.head().await? });
        }
        for _ in 0..3 {
            let message = PublishMessage::build()
                .payload(batch.bytes().to_vec().into())
                .expected_stream(&*self.id)
                // The stream has one subject. Of a subject whose last message was deleted older servers know no number.
                .expected_last_sequence(number);
            let sent = async { self.server.context.send_publish(self.subject.to_string(), message).await?.await };
            let error = match sent.await {
                Ok(ack) => {
                    self.learn(batch.cursor(), ack.sequence);
                    return Ok(batch.cursor());
                }
                Err(error) => error,
            };
            match error.kind() {
                PublishErrorKind::WrongLastSequence => {
                    // The head is another, or it was cut off and written anew.
                    number = self.number_of_head(expected).await?;
                }
                // That nobody answered may mean, too, that the stream has no leader at this moment.
                PublishErrorKind::StreamNotFound => match self.state().await? {
                    None if expected == Cursor::START => self.make().await?,
                    None => return Err(AppendError::Conflict { head: Cursor::START }),
                    Some(_) => return Err(self.fault(&"its stream has no leader at this moment").into()),
                },
                PublishErrorKind::MaxPayloadExceeded => {
                    return Err(self.fault(&format!("{error}; raise max_payload to 1MB")).into());
                }
                _ => return Err(AppendError::Unknown { cause: self.fault(&error).to_string() }),
            }
        }
        Err(AppendError::Conflict { head: self.head().await? })
    }

    /// The number of the newest message there ever was, if the newest that is there is `expected`. In this order: what is
    /// appended in between has a higher number.
    async fn number_of_head(&self, expected: Cursor) -> Result<u64, AppendError> {
        let number = self.state().await?.map_or(0, |state| state.last_sequence);
        let head = self.head().await?;
        if head == expected { Ok(number) } else { Err(AppendError::Conflict { head }) }
    }

    async fn make(&self) -> Result<(), LogError> {
        let config = stream::Config {
            name: self.id.to_string(),
            description: Some("a log of CertBus: never to be edited".into()),
            subjects: vec![self.subject.to_string()],
            discard: DiscardPolicy::New,
            ..self.config()
        };
        self.server.context.get_or_create_stream(config).await.map(drop).map_err(|e| self.fault(&e))
    }

    fn config(&self) -> stream::Config {
        stream::Config { storage: StorageType::File, num_replicas: self.server.replicas, ..stream::Config::default() }
    }

    /// The JetStream stream that has the snapshot: one message a part, and one that is the manifest.
    async fn snapshots(&self) -> Result<stream::Stream<()>, LogError> {
        self.server.context.get_stream_no_info(format!("{}{SNAPSHOT}", self.id)).await.map_err(|e| self.fault(&e))
    }

    fn snapshot_subject(&self, name: &str) -> String {
        format!("{}.snapshot.{name}", self.subject)
    }

    async fn snapshot_message(&self, name: &str) -> Result<Option<StreamMessage>, LogError> {
        match self.snapshots().await?.get_last_raw_message_by_subject(&self.snapshot_subject(name)).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(self.fault(&error)),
        }
    }

    /// Puts a message in place of the one of its name. False: that was not number `expected`.
    async fn put(&self, name: &str, bytes: Vec<u8>, expected: Option<u64>) -> Result<bool, LogError> {
        for _ in 0..2 {
            let mut message = PublishMessage::build().payload(bytes.clone().into());
            if let Some(expected) = expected {
                message = message.expected_last_subject_sequence(expected);
            }
            let sent = async { self.server.context.send_publish(self.snapshot_subject(name), message).await?.await };
            match sent.await {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => return Ok(false),
                Err(error) if error.kind() == PublishErrorKind::StreamNotFound => {
                    let config = stream::Config {
                        name: format!("{}{SNAPSHOT}", self.id),
                        description: Some("snapshots of a log of CertBus".into()),
                        subjects: vec![self.snapshot_subject(">")],
                        max_messages_per_subject: 1,
                        ..self.config()
                    };
                    self.server.context.get_or_create_stream(config).await.map_err(|e| self.fault(&e))?;
                }
                Err(error) => return Err(self.fault(&error)),
            }
        }
        Err(self.fault(&"its stream of snapshots is made and not there"))
    }
}

/// Whether an error says that there is no such message, or no stream yet.
fn is_missing(error: &RawMessageError) -> bool {
    match error.kind() {
        RawMessageErrorKind::NoMessageFound => true,
        RawMessageErrorKind::JetStream(error) => error.error_code() == ErrorCode::STREAM_NOT_FOUND,
        _ => false,
    }
}

impl EventLog for NatsLog {
    fn read(&self, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Page, LogError>> {
        self.read_now(after, limit).boxed()
    }

    fn append(&self, expected: Cursor, batch: Batch) -> BoxFuture<'_, Result<Cursor, AppendError>> {
        self.append_now(expected, batch).boxed()
    }

    fn watch(&self, after: Cursor) -> BoxStream<'static, Result<Page, LogError>> {
        let log = self.clone();
        async_stream::stream! {
            let mut after = after;
            loop {
                match log.read_now(after, usize::MAX).await {
                    Ok(page) => {
                        if let Some(last) = page.batches.last() {
                            after = last.cursor();
                            yield Ok(page);
                            continue;
                        }
                    }
                    Err(error) => {
                        yield Err(error);
                        sleep(LOOK_AGAIN).await;
                        continue;
                    }
                }
                // At the head; without a stream there is none.
                let Some(known) = log.known().filter(|known| known.place == after) else {
                    sleep(LOOK_AGAIN).await;
                    continue;
                };
                let config = pull::OrderedConfig {
                    deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: known.number + 1 },
                    filter_subject: log.subject.to_string(),
                    ..pull::OrderedConfig::default()
                };
                let pushed = async {
                    let consumer = log.jetstream().await?.create_consumer(config).await.map_err(|e| log.fault(&e))?;
                    consumer.messages().await.map_err(|e| log.fault(&e))
                };
                let mut pushed = match pushed.await {
                    Ok(pushed) => pushed,
                    Err(error) => {
                        yield Err(error);
                        sleep(LOOK_AGAIN).await;
                        continue;
                    }
                };
                loop {
                    match timeout(READ_AT_LEAST, pushed.next()).await {
                        Ok(Some(Ok(message))) => {
                            let number = message.info().map_or(0, |info| info.stream_sequence);
                            // What does not come next is read with checks.
                            let Ok(batch) = log.parse(number, &message.payload) else { break };
                            if batch.expected() != after {
                                break;
                            }
                            after = batch.cursor();
                            log.learn(after, number);
                            yield Ok(Page { batches: vec![batch] });
                        }
                        Ok(Some(Err(error))) => {
                            tracing::debug!("{}: the push broke: {error}", log.place());
                            break;
                        }
                        Ok(None) | Err(_) => break,
                    }
                }
            }
        }
        .boxed()
    }

    fn trim(&self, through: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            let Some(last) = self.last().await? else { return Ok(()) };
            // The first that stays: the one after, or the last.
            let keep = if through.seq >= last.batch.cursor().seq {
                last.number
            } else {
                match self.locate(through, &last).await {
                    Ok(number) => number + 1,
                    // It is trimmed that far already.
                    Err(LogError::Trimmed { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                }
            };
            let purged = self.jetstream().await?.purge().filter(&*self.subject).sequence(keep).await;
            purged.map(drop).map_err(|e| self.fault(&e))
        }
        .boxed()
    }

    fn cut(&self, after: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            let stream = self.jetstream().await?;
            // From the newest down: whatever stops it, what is left has no gap.
            while let Some(last) = self.last_or_raw().await? {
                let (number, place) = last;
                if place.is_some_and(|place| place == after) || number == 0 {
                    return Ok(());
                }
                if let Some(place) = place.filter(|place| place.seq <= after.seq) {
                    tracing::debug!("{}: {place} is not cut off: {after} is not here", self.place());
                    return Ok(());
                }
                stream.delete_message(number).await.map_err(|e| self.fault(&e))?;
                *self.known.lock().unwrap_or_else(PoisonError::into_inner) = None;
            }
            Ok(())
        }
        .boxed()
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Option<Batch>, LogError>> {
        async move { Ok(self.at_or_after(1).await?.map(|first| first.batch)) }.boxed()
    }

    fn place(&self) -> String {
        format!("{} ({})", self.server.place, self.name)
    }
}

impl NatsLog {
    /// The newest message's number, with its place if it is a batch.
    async fn last_or_raw(&self) -> Result<Option<(u64, Option<Cursor>)>, LogError> {
        match self.last().await {
            Ok(last) => Ok(last.map(|last| (last.number, Some(last.batch.cursor())))),
            Err(LogError::Corrupt { seq, .. }) => Ok(Some((seq, None))),
            Err(error) => Err(error),
        }
    }
}

impl SnapshotStore for NatsLog {
    fn put_part(&self, bytes: Vec<u8>) -> BoxFuture<'_, Result<Hash, LogError>> {
        async move {
            let hash = Hash::of(&bytes);
            self.put(&hash.to_string(), bytes, None).await.map(|_| hash)
        }
        .boxed()
    }

    fn part(&self, hash: Hash) -> BoxFuture<'_, Result<Option<Vec<u8>>, LogError>> {
        async move { Ok(self.snapshot_message(&hash.to_string()).await?.map(|message| message.payload.to_vec())) }
            .boxed()
    }

    fn manifest(&self) -> BoxFuture<'_, Result<Option<String>, LogError>> {
        async move {
            let found = self.snapshot_message(MANIFEST).await?;
            Ok(found.map(|message| String::from_utf8_lossy(&message.payload).into_owned()))
        }
        .boxed()
    }

    fn put_manifest(
        &self,
        expected: Option<String>,
        text: String,
        parts: Vec<Hash>,
    ) -> BoxFuture<'_, Result<bool, LogError>> {
        async move {
            let found = self.snapshot_message(MANIFEST).await?;
            let is = found.as_ref().map(|message| String::from_utf8_lossy(&message.payload).into_owned());
            // Put by the number of the one that was seen: of several one wins.
            let number = found.map_or(0, |message| message.sequence);
            if is != expected || !self.put(MANIFEST, text.into_bytes(), Some(number)).await? {
                return Ok(false);
            }
            let stream = self.snapshots().await?;
            let all = stream.info_with_subjects(self.snapshot_subject("*")).await.map_err(|e| self.fault(&e))?;
            let all: Vec<(String, usize)> = all.try_collect().await.map_err(|e| self.fault(&e))?;
            let mut kept: Vec<String> = parts.iter().map(|hash| self.snapshot_subject(&hash.to_string())).collect();
            kept.push(self.snapshot_subject(MANIFEST));
            for (old, _) in all.into_iter().filter(|(subject, _)| !kept.contains(subject)) {
                stream.purge().filter(old).await.map_err(|e| self.fault(&e))?;
            }
            Ok(true)
        }
        .boxed()
    }
}
