//! PostgreSQL: one table for the batches of all streams. Whoever inserts a number first has it. Readers are woken by LISTEN on
//! a connection of their own, which must not go through a pooler that shares connections out.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use certbus_core::batch::Batch;
use certbus_core::id::{Cursor, Hash};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::health::Health;
use crate::log::{
    AppendError, EventLog, LogError, PAGE_BYTES, Page, READ_AT_LEAST, SnapshotStore, check_read, check_size, is_for,
};
use crate::sql::{self, Failed, number, to_hash};

/// What writers notify. The payload is the stream's name.
const CHANNEL: &str = "certbus_log";

/// A notification that this process sent itself comes back within this, or never does.
const ECHO: Duration = Duration::from_secs(2);

/// How often is looked where notifications do not come through.
const UNWOKEN: Duration = Duration::from_secs(1);

/// How long it may take to be connected.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// How long is waited after an error.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The oldest server whose SQL this is: `server_version_num`.
const OLDEST: i32 = 12_00_00;

/// A statement that is not answered within this is given up, with its connection.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// Rows that are looked at for a page.
const MOST_ROWS: usize = 1000;

/// The layout of the tables.
const LAYOUT: i32 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS certbus_batch (
    stream text COLLATE \"C\" NOT NULL, seq bigint NOT NULL, hash bytea NOT NULL, body bytea NOT NULL,
    PRIMARY KEY (stream, seq)
);
CREATE TABLE IF NOT EXISTS certbus_snapshot_part (
    stream text COLLATE \"C\" NOT NULL, hash bytea NOT NULL, body bytea NOT NULL, PRIMARY KEY (stream, hash)
);
CREATE TABLE IF NOT EXISTS certbus_snapshot_manifest (stream text COLLATE \"C\" PRIMARY KEY, body text NOT NULL);
CREATE TABLE IF NOT EXISTS certbus_layout (version integer NOT NULL);
INSERT INTO certbus_layout (version) SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM certbus_layout);
";

/// One statement: the number is free, the batch before is the expected one, and readers are woken.
const APPEND: &str = "
WITH won AS (
    INSERT INTO certbus_batch (stream, seq, hash, body) SELECT $1, $2, $3, $4
    WHERE CASE WHEN $6 THEN NOT EXISTS (SELECT 1 FROM certbus_batch WHERE stream = $1)
        ELSE EXISTS (SELECT 1 FROM certbus_batch WHERE stream = $1 AND seq = $2 - 1 AND hash = $5) END
    ON CONFLICT DO NOTHING RETURNING seq
) SELECT pg_notify('certbus_log', $1) FROM won";

/// A database.
#[derive(Clone)]
pub struct PostgresServer {
    pool: PgPool,
    /// For connections that are none of the pool's.
    options: Arc<PgConnectOptions>,
    place: Arc<str>,
}

/// One stream in a database.
#[derive(Clone, Debug)]
pub struct PostgresLog {
    server: PostgresServer,
    stream: Arc<str>,
}

impl fmt::Debug for PostgresServer {
    /// Without its options, which have the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresServer").field("place", &self.place).finish_non_exhaustive()
    }
}

impl PostgresServer {
    /// Connects to `url`. Makes the tables if `create` says so.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] naming the host and what is wrong: not there, not let in, no tables, too old.
    pub async fn open(url: &str, create: bool) -> Result<Self, LogError> {
        // What is wrong with it is not said in the library's words: they may quote it.
        let no_url = || LogError::Unavailable {
            place: "PostgreSQL".into(),
            cause: "its URL cannot be read; write postgres://USER:PASSWORD@HOST:5432/DATABASE".into(),
        };
        let options = PgConnectOptions::from_str(url).map_err(|_| no_url())?.application_name("certbus");
        let database = options.get_database().map(|name| format!("/{name}")).unwrap_or_default();
        let place = format!("PostgreSQL {}:{}{database}", options.get_host(), options.get_port());
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(CONNECTED_WITHIN)
            // One more way there and back for each statement; a connection that is gone is told by the statement itself.
            .test_before_acquire(false)
            .connect_lazy_with(options.clone());
        let server = Self { pool, options: Arc::new(options), place: place.into() };
        server.check(create).await?;
        Ok(server)
    }

    /// By a connection of its own, which says what is wrong at once, where the pool would try until its time is over.
    async fn check(&self, create: bool) -> Result<(), LogError> {
        let connecting = timeout(CONNECTED_WITHIN, PgConnection::connect_with(&self.options)).await;
        let mut connection = connecting.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(|e| self.fault(&e))?;
        let wrong = |cause: String| LogError::Unavailable { place: self.place.to_string(), cause };
        let version: String = sqlx::query_scalar("SHOW server_version_num")
            .fetch_one(&mut connection)
            .await
            .map_err(|e| self.fault(&e))?;
        let version: i32 = version.parse().unwrap_or_default();
        if version < OLDEST {
            return Err(wrong(format!(
                "it is PostgreSQL {}, which is too old; {} or newer is needed",
                version / 10_000,
                OLDEST / 10_000
            )));
        }
        if create {
            sqlx::raw_sql(SCHEMA).execute(&mut connection).await.map_err(|e| self.fault(&e))?;
        }
        let layout: Option<i32> = sqlx::query_scalar("SELECT version FROM certbus_layout")
            .fetch_optional(&mut connection)
            .await
            .map_err(|e| self.fault(&e))?;
        match layout {
            Some(layout) if layout > LAYOUT => {
                Err(wrong(format!("its tables have layout {layout}, made by a newer program; upgrade this one")))
            }
            Some(_) => Ok(()),
            None => Err(wrong("its table certbus_layout is empty; `certbus init` fills it".into())),
        }
    }

    /// One of its streams; it need not exist yet.
    pub fn stream(&self, name: &str) -> PostgresLog {
        PostgresLog { server: self.clone(), stream: name.into() }
    }

    /// The names of the streams in it that have a batch.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn streams(&self) -> Result<Vec<String>, LogError> {
        sqlx::query_scalar("SELECT DISTINCT stream FROM certbus_batch ORDER BY stream")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.fault(&e))
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn health(&self) -> Result<Health, LogError> {
        let (version, clock, is_replica): (String, i64, bool) = sqlx::query_as(
            "SELECT current_setting('server_version'), (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
             pg_is_in_recovery()",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(|e| self.fault(&e))?;
        let settings: Vec<(String, String)> = sqlx::query_as(
            "SELECT name, setting FROM pg_settings
             WHERE name IN ('synchronous_commit', 'fsync', 'full_page_writes') AND setting = 'off' ORDER BY name",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|e| self.fault(&e))?;
        let mut wrong: Vec<String> = settings
            .into_iter()
            .map(|(name, _)| format!("{name} is off: a crash can lose batches that were acknowledged; turn it on"))
            .collect();
        if is_replica {
            wrong.push("it is a replica, which takes no writes and may be behind; name the primary".into());
        }
        Ok(Health { version: format!("PostgreSQL {version}"), clock: Some(clock), wrong, remarks: Vec::new() })
    }

    fn fault(&self, error: &sqlx::Error) -> LogError {
        let cause = match error {
            sqlx::Error::Database(e) => in_words(&e.code().unwrap_or_default(), e.message()),
            sqlx::Error::PoolTimedOut => format!("it does not answer within {} s", CONNECTED_WITHIN.as_secs()),
            sqlx::Error::Io(e) => format!("no connection: {e}"),
            sqlx::Error::Tls(e) => format!("no TLS: {e}; sslrootcert in the URL names the file with its CA"),
            sqlx::Error::Protocol(said) if said.contains("NotificationResponse") => POOLER.to_owned(),
            other => other.to_string(),
        };
        LogError::Unavailable { place: self.place.to_string(), cause }
    }
}

const POOLER: &str = "a pooler that shares connections out, such as pgbouncer with pool_mode = transaction, stands in the way; \
                      name the server itself in log.url, or set pool_mode = session";

/// What an error of the server means, and what to do (PostgreSQL, Appendix A: error codes).
fn in_words(code: &str, message: &str) -> String {
    let advice = match code {
        "28P01" | "28000" => "look at user and password in the URL, and at pg_hba.conf",
        "3D000" => "make it: CREATE DATABASE …",
        "42P01" | "3F000" => "the log's tables are not there; `certbus init` makes them",
        "42501" => {
            "readers need GRANT SELECT, managers GRANT SELECT, INSERT, UPDATE, DELETE on certbus_batch, certbus_snapshot_part, \
             certbus_snapshot_manifest and SELECT on certbus_layout; `certbus init` needs CREATE on the schema"
        }
        "25006" => "it takes no writes: name the primary, and not a replica",
        "42P05" | "26000" => POOLER,
        "53100" => "its disk is full",
        "53300" => "raise max_connections, or let fewer processes connect",
        _ => return message.to_owned(),
    };
    format!("{message}; {advice}")
}

/// Whether the connection was lost under a statement, so that nobody knows what became of it.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        // Connection exceptions, and a server that is shut down or was killed.
        sqlx::Error::Database(e) => {
            e.code().is_some_and(|code| code.starts_with("08") || matches!(&*code, "57P01" | "57P02" | "57P03"))
        }
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Tls(_) => true,
        _ => false,
    }
}

impl PostgresLog {
    fn fault(&self, error: &sqlx::Error) -> LogError {
        self.server.fault(error)
    }

    async fn read_now(&self, after: Cursor, limit: usize) -> Result<Page, LogError> {
        // A connection that waited in the pool may have been cut meanwhile: then another is tried, a few times at most.
        let mut outcome = self.read_once(after, limit).await;
        for _ in 0..self.server.pool.size() {
            match outcome {
                Err(Failed::Sql(ref error)) if is_lost(error) => outcome = self.read_once(after, limit).await,
                _ => break,
            }
        }
        outcome.map_err(|failed| match failed {
            Failed::Sql(error) => self.fault(&error),
            Failed::Log(error) => error,
        })
    }

    async fn read_once(&self, after: Cursor, limit: usize) -> Result<Page, Failed> {
        let mut connection = self.server.pool.acquire().await?;
        // The server adds up what a page may have row by row, and does not stop when it is full.
        let limit = limit.min(MOST_ROWS);
        let reading = async {
            match self.read_next(&mut connection, after, limit).await? {
                Some(page) => Ok(page),
                None => self.read_with_checks(&mut connection, after, limit).await,
            }
        };
        match timeout(ANSWERED_WITHIN, reading).await {
            Ok(read) => read,
            Err(_) => {
                // Of no use to anybody: its answer may come yet.
                drop(connection.detach());
                Err(self.silent().into())
            }
        }
    }

    fn silent(&self) -> LogError {
        let cause = format!("it does not answer within {} s", ANSWERED_WITHIN.as_secs());
        LogError::Unavailable { place: self.server.place.to_string(), cause }
    }

    /// What comes after a place that is there, by one statement. None: the place is not there.
    async fn read_next(
        &self,
        connection: &mut PgConnection,
        after: Cursor,
        limit: usize,
    ) -> Result<Option<Page>, Failed> {
        if after == Cursor::START {
            return Ok(None);
        }
        // The place itself comes first, without its body.
        let rows: Vec<(i64, Option<Vec<u8>>, Vec<u8>)> = sqlx::query_as(
            "SELECT seq, CASE seq WHEN $2 THEN hash END AS hash, CASE seq WHEN $2 THEN ''::bytea ELSE body END AS body FROM (
                 SELECT seq, hash, body, sum(CASE seq WHEN $2 THEN 0 ELSE octet_length(body) END) OVER (ORDER BY seq) AS size
                 FROM (SELECT seq, hash, body FROM certbus_batch WHERE stream = $1 AND seq >= $2 ORDER BY seq LIMIT $3) AS few
             ) AS page WHERE size <= $4 OR seq <= $2 + 1 ORDER BY seq",
        )
        .bind(&*self.stream)
        .bind(number(after.seq))
        .bind(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX))
        .bind(PAGE_BYTES as i64)
        .fetch_all(&mut *connection)
        .await?;
        let mut rows = rows.into_iter();
        let Some((_, hash, _)) = rows.next() else { return Ok(None) };
        if hash.as_deref().and_then(to_hash) != Some(after.hash) {
            return Ok(None);
        }
        Ok(Some(sql::page(|| self.place(), rows.map(|(seq, _, body)| (seq, body)))?))
    }

    async fn read_with_checks(
        &self,
        connection: &mut PgConnection,
        after: Cursor,
        limit: usize,
    ) -> Result<Page, Failed> {
        // The checks and the page see the same state.
        let mut read = connection.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let (first, head): (Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT min(seq), max(seq) FROM certbus_batch WHERE stream = $1")
                .bind(&*self.stream)
                .fetch_one(&mut *read)
                .await?;
        let found: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT hash FROM certbus_batch WHERE stream = $1 AND seq = $2")
                .bind(&*self.stream)
                .bind(number(after.seq))
                .fetch_optional(&mut *read)
                .await?;
        let first = match first {
            Some(first) if found.is_none() => {
                let body: Vec<u8> = sqlx::query_scalar("SELECT body FROM certbus_batch WHERE stream = $1 AND seq = $2")
                    .bind(&*self.stream)
                    .bind(first)
                    .fetch_one(&mut *read)
                    .await?;
                Some(sql::oldest(first, body))
            }
            _ => None,
        };
        let head = head.map_or(0, i64::unsigned_abs);
        check_read(&self.place(), after, first, found.as_deref().and_then(to_hash), head)?;
        let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
            "SELECT seq, body FROM (
                 SELECT seq, body, sum(octet_length(body)) OVER (ORDER BY seq) AS size
                 FROM (SELECT seq, body FROM certbus_batch WHERE stream = $1 AND seq > $2 ORDER BY seq LIMIT $3) AS few
             ) AS page WHERE size <= $4 OR seq = $2 + 1 ORDER BY seq",
        )
        .bind(&*self.stream)
        .bind(number(after.seq))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(PAGE_BYTES as i64)
        .fetch_all(&mut *read)
        .await?;
        read.commit().await?;
        Ok(sql::page(|| self.place(), rows)?)
    }

    async fn head(&self) -> Result<Cursor, sqlx::Error> {
        let head: Option<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT seq, hash FROM certbus_batch WHERE stream = $1 ORDER BY seq DESC LIMIT 1")
                .bind(&*self.stream)
                .fetch_optional(&self.server.pool)
                .await?;
        Ok(sql::head(head))
    }

    async fn append_now(&self, expected: Cursor, batch: Batch) -> Result<Cursor, AppendError> {
        check_size(&batch)?;
        let unknown = |error: sqlx::Error| AppendError::Unknown { cause: self.fault(&error).to_string() };
        if is_for(expected, &batch) {
            let mut connection = self.server.pool.acquire().await.map_err(|e| self.fault(&e))?;
            let cursor = batch.cursor();
            let append = sqlx::query(APPEND)
                .bind(&*self.stream)
                .bind(number(cursor.seq))
                .bind(cursor.hash.as_bytes().as_slice())
                .bind(&**batch.bytes())
                .bind(expected.hash.as_bytes().as_slice())
                .bind(expected == Cursor::START)
                .fetch_optional(&mut *connection);
            match timeout(ANSWERED_WITHIN, append).await {
                Ok(Ok(Some(_))) => return Ok(cursor),
                Ok(Ok(None)) => {}
                Ok(Err(error)) if is_lost(&error) => return Err(unknown(error)),
                Ok(Err(error)) => return Err(self.fault(&error).into()),
                Err(_) => {
                    drop(connection.detach());
                    return Err(AppendError::Unknown { cause: self.silent().to_string() });
                }
            }
        }
        Err(AppendError::Conflict { head: self.head().await.map_err(|e| self.fault(&e))? })
    }

    /// Listens, and finds out whether what is said is heard.
    async fn listen(&self) -> Result<Option<PgListener>, sqlx::Error> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(CONNECTED_WITHIN)
            .max_lifetime(None)
            .idle_timeout(None)
            .connect_with((*self.server.options).clone())
            .await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(ECHO_WORD).execute(&self.server.pool).await?;
        let until = Instant::now() + ECHO;
        loop {
            match timeout_at(until, listener.recv()).await {
                Err(_) => return Ok(None),
                Ok(heard) => {
                    if heard?.payload() == ECHO_WORD {
                        return Ok(Some(listener));
                    }
                }
            }
        }
    }
}

/// Said to oneself.
const ECHO_WORD: &str = "?";

impl EventLog for PostgresLog {
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
            let mut listener: Option<PgListener> = None;
            // Whether it was said that nobody is woken here.
            let mut is_deaf = false;
            loop {
                if listener.is_none() && !is_deaf {
                    match log.listen().await {
                        Ok(Some(one)) => listener = Some(one),
                        Ok(None) => {
                            is_deaf = true;
                            tracing::warn!(
                                "{}: notifications do not come through: {POOLER}. Until then the log is read once a second",
                                log.place()
                            );
                        }
                        Err(error) => {
                            yield Err(log.fault(&error));
                            sleep(LOOK_AGAIN).await;
                            continue;
                        }
                    }
                }
                // It is listened before it is read, so nothing comes between the two unheard.
                match log.read_now(after, usize::MAX).await {
                    Ok(page) => {
                        if let Some(last) = page.batches.last() {
                            after = last.cursor();
                            yield Ok(page);
                            continue;
                        }
                    }
                    Err(error) => {
                        if matches!(error, LogError::Unavailable { .. }) {
                            listener = None;
                        }
                        yield Err(error);
                        sleep(LOOK_AGAIN).await;
                        continue;
                    }
                }
                let Some(heard) = &mut listener else {
                    sleep(UNWOKEN).await;
                    continue;
                };
                let until = Instant::now() + READ_AT_LEAST;
                loop {
                    match timeout_at(until, heard.try_recv()).await {
                        Ok(Ok(Some(said))) if said.payload() != &*log.stream => {}
                        // Cut off: what was said meanwhile was not heard.
                        Ok(Ok(None) | Err(_)) => {
                            listener = None;
                            break;
                        }
                        Ok(Ok(Some(_))) => break,
                        Err(_) => {
                            // A connection that something on the way has dropped is silent as well.
                            let alive = timeout(ECHO, sqlx::query("SELECT 1").execute(&mut *heard)).await;
                            if !matches!(alive, Ok(Ok(_))) {
                                listener = None;
                            }
                            break;
                        }
                    }
                }
            }
        }
        .boxed()
    }

    fn trim(&self, through: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            sqlx::query(
                "DELETE FROM certbus_batch WHERE stream = $1 AND seq <= $2
                 AND seq < (SELECT max(seq) FROM certbus_batch WHERE stream = $1)",
            )
            .bind(&*self.stream)
            .bind(number(through.seq))
            .execute(&self.server.pool)
            .await
            .map(drop)
            .map_err(|e| self.fault(&e))
        }
        .boxed()
    }

    fn cut(&self, after: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            sqlx::query(
                "DELETE FROM certbus_batch WHERE stream = $1 AND seq > $2 AND ($2 = 0 OR EXISTS
                 (SELECT 1 FROM certbus_batch WHERE stream = $1 AND seq = $2 AND hash = $3))",
            )
            .bind(&*self.stream)
            .bind(number(after.seq))
            .bind(after.hash.as_bytes().as_slice())
            .execute(&self.server.pool)
            .await
            .map(drop)
            .map_err(|e| self.fault(&e))
        }
        .boxed()
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Option<Batch>, LogError>> {
        async move {
            let found: Option<(i64, Vec<u8>)> =
                sqlx::query_as("SELECT seq, body FROM certbus_batch WHERE stream = $1 ORDER BY seq LIMIT 1")
                    .bind(&*self.stream)
                    .fetch_optional(&self.server.pool)
                    .await
                    .map_err(|e| self.fault(&e))?;
            found.map(|(seq, body)| sql::batch(|| self.place(), seq, body)).transpose()
        }
        .boxed()
    }

    fn place(&self) -> String {
        format!("{} ({})", self.server.place, self.stream)
    }
}

impl SnapshotStore for PostgresLog {
    fn put_part(&self, bytes: Vec<u8>) -> BoxFuture<'_, Result<Hash, LogError>> {
        async move {
            let hash = Hash::of(&bytes);
            sqlx::query(
                "INSERT INTO certbus_snapshot_part (stream, hash, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            )
            .bind(&*self.stream)
            .bind(hash.as_bytes().as_slice())
            .bind(bytes)
            .execute(&self.server.pool)
            .await
            .map_err(|e| self.fault(&e))?;
            Ok(hash)
        }
        .boxed()
    }

    fn part(&self, hash: Hash) -> BoxFuture<'_, Result<Option<Vec<u8>>, LogError>> {
        async move {
            sqlx::query_scalar("SELECT body FROM certbus_snapshot_part WHERE stream = $1 AND hash = $2")
                .bind(&*self.stream)
                .bind(hash.as_bytes().as_slice())
                .fetch_optional(&self.server.pool)
                .await
                .map_err(|e| self.fault(&e))
        }
        .boxed()
    }

    fn manifest(&self) -> BoxFuture<'_, Result<Option<String>, LogError>> {
        async move {
            sqlx::query_scalar("SELECT body FROM certbus_snapshot_manifest WHERE stream = $1")
                .bind(&*self.stream)
                .fetch_optional(&self.server.pool)
                .await
                .map_err(|e| self.fault(&e))
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
            let fault = |e: sqlx::Error| self.fault(&e);
            let mut write = self.server.pool.begin().await.map_err(fault)?;
            let put = match &expected {
                Some(_) => {
                    sqlx::query("UPDATE certbus_snapshot_manifest SET body = $2 WHERE stream = $1 AND body = $3")
                }
                None => sqlx::query(
                    "INSERT INTO certbus_snapshot_manifest (stream, body) SELECT $1, $2 WHERE $3::text IS NULL
                     ON CONFLICT DO NOTHING",
                ),
            };
            let put = put.bind(&*self.stream).bind(text).bind(expected).execute(&mut *write).await.map_err(fault)?;
            if put.rows_affected() == 0 {
                return Ok(false);
            }
            let parts: Vec<Vec<u8>> = parts.iter().map(|hash| hash.as_bytes().to_vec()).collect();
            sqlx::query("DELETE FROM certbus_snapshot_part WHERE stream = $1 AND hash <> ALL($2)")
                .bind(&*self.stream)
                .bind(parts)
                .execute(&mut *write)
                .await
                .map_err(fault)?;
            write.commit().await.map_err(fault)?;
            Ok(true)
        }
        .boxed()
    }
}
