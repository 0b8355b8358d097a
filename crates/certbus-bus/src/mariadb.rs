//! MariaDB: one table for the batches of all streams. Whoever inserts a number first has it. It wakes nobody, so readers look
//! again, soon after something came and more rarely when nothing does.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use certbus_core::batch::Batch;
use certbus_core::id::{Cursor, Hash};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::BoxStream;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlPool, MySqlPoolOptions};
use sqlx::{Connection, Executor};
use tokio::time::timeout;

use crate::health::Health;
use crate::log::{AppendError, EventLog, LogError, PAGE_BYTES, Page, SnapshotStore, check_read, check_size, is_for};
use crate::poll::{self, Pace};
use crate::sql::{self, Failed, number, to_hash};

/// How long it may take to be connected.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

/// How often a watch looks.
const PACE: Pace = Pace { soonest: Duration::from_millis(10), latest: Duration::from_millis(250) };

/// How often an append is tried again that the server gave up in favour of another.
const TRIES: u32 = 5;

/// The oldest server whose SQL this is.
const OLDEST: (u32, u32) = (10, 5);

/// A statement that is not answered within this is given up, with its connection.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

/// Rows that are looked at for a page.
const MOST_ROWS: usize = 1000;

/// The layout of the tables.
const LAYOUT: i32 = 1;

const SCHEMA: [&str; 5] = [
    "CREATE TABLE IF NOT EXISTS certbus_batch (
        stream VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, seq BIGINT NOT NULL, hash BINARY(32) NOT NULL,
        body MEDIUMBLOB NOT NULL, PRIMARY KEY (stream, seq)
    ) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS certbus_snapshot_part (
        stream VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, hash BINARY(32) NOT NULL,
        body MEDIUMBLOB NOT NULL, PRIMARY KEY (stream, hash)
    ) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS certbus_snapshot_manifest (
        stream VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL PRIMARY KEY, body MEDIUMBLOB NOT NULL
    ) ENGINE = InnoDB",
    "CREATE TABLE IF NOT EXISTS certbus_layout (version INT NOT NULL PRIMARY KEY) ENGINE = InnoDB",
    "INSERT IGNORE INTO certbus_layout (version) VALUES (1)",
];

/// The number is free, and the batch before is the expected one.
const APPEND: &str = "INSERT INTO certbus_batch (stream, seq, hash, body) SELECT ?, ?, ?, ? FROM DUAL
    WHERE EXISTS (SELECT 1 FROM certbus_batch WHERE stream = ? AND seq = ? AND hash = ?)";

/// The number is free, and no batch is there.
const APPEND_FIRST: &str = "INSERT INTO certbus_batch (stream, seq, hash, body) SELECT ?, ?, ?, ? FROM DUAL
    WHERE NOT EXISTS (SELECT 1 FROM certbus_batch WHERE stream = ?)";

/// A database.
#[derive(Clone)]
pub struct MariadbServer {
    pool: MySqlPool,
    place: Arc<str>,
}

/// One stream in a database.
#[derive(Clone, Debug)]
pub struct MariadbLog {
    server: MariadbServer,
    stream: Arc<str>,
}

impl fmt::Debug for MariadbServer {
    /// Without its pool, whose options have the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MariadbServer").field("place", &self.place).finish_non_exhaustive()
    }
}

impl MariadbServer {
    /// Connects to `url`. Makes the tables if `create` says so.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] naming the host and what is wrong: not there, not let in, no tables, too old.
    pub async fn open(url: &str, create: bool) -> Result<Self, LogError> {
        // What is wrong with it is not said in the library's words: they may quote it.
        let no_url = || LogError::Unavailable {
            place: "MariaDB".into(),
            cause: "its URL cannot be read; write mariadb://USER:PASSWORD@HOST:3306/DATABASE".into(),
        };
        let (_, rest) = url.split_once("://").ok_or_else(no_url)?;
        let options = MySqlConnectOptions::from_str(&format!("mysql://{rest}")).map_err(|_| no_url())?;
        let Some(database) = options.get_database().map(str::to_owned) else { return Err(no_url()) };
        let place = format!("MariaDB {}:{}/{database}", options.get_host(), options.get_port());
        let pool = MySqlPoolOptions::new()
            .max_connections(8)
            .acquire_timeout(CONNECTED_WITHIN)
            // One more way there and back for each statement; a connection that is gone is told by the statement itself.
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                async move {
                    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await.map(drop)
                }
                .boxed()
            })
            .connect_lazy_with(options.clone());
        let server = Self { pool, place: place.into() };
        server.check(&options, create).await?;
        Ok(server)
    }

    /// By a connection of its own, which says what is wrong at once, where the pool would try until its time is over.
    async fn check(&self, options: &MySqlConnectOptions, create: bool) -> Result<(), LogError> {
        let connecting = timeout(CONNECTED_WITHIN, MySqlConnection::connect_with(options)).await;
        let mut connection = connecting.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(|e| self.fault(&e))?;
        let wrong = |cause: String| LogError::Unavailable { place: self.place.to_string(), cause };
        let version: String =
            sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut connection).await.map_err(|e| self.fault(&e))?;
        let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
        let found = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
        if !version.contains("MariaDB") || found < OLDEST {
            return Err(wrong(format!("it is {version}; MariaDB {}.{} or newer is needed", OLDEST.0, OLDEST.1)));
        }
        if create {
            // Each for itself: a definition cannot be taken back there.
            for statement in SCHEMA {
                connection.execute(statement).await.map_err(|e| self.fault(&e))?;
            }
        }
        let layout: Option<i32> = sqlx::query_scalar("SELECT max(version) FROM certbus_layout")
            .fetch_one(&mut connection)
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
    pub fn stream(&self, name: &str) -> MariadbLog {
        MariadbLog { server: self.clone(), stream: name.into() }
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
        let (version, clock, flush, binlog, sync, packet, read_only): (String, i64, i64, i64, i64, i64, i64) =
            sqlx::query_as(
                "SELECT VERSION(), CAST(UNIX_TIMESTAMP(NOW(3)) * 1000 AS SIGNED),
                 CAST(@@innodb_flush_log_at_trx_commit AS SIGNED), CAST(@@log_bin AS SIGNED), CAST(@@sync_binlog AS SIGNED),
                 CAST(@@max_allowed_packet AS SIGNED), CAST(@@read_only AS SIGNED)",
            )
            .fetch_one(&self.pool)
            .await
            .map_err(|e| self.fault(&e))?;
        let mut wrong = Vec::new();
        if flush != 1 {
            wrong.push(format!(
                "innodb_flush_log_at_trx_commit is {flush}: a crash can lose batches that were acknowledged; set it to 1"
            ));
        }
        if binlog != 0 && sync != 1 {
            wrong.push(format!("sync_binlog is {sync}: a crash can part a replica from its primary; set it to 1"));
        }
        if packet < 1024 * 1024 {
            wrong.push(format!("max_allowed_packet is {packet}: a batch may need more; raise it to 1M"));
        }
        if read_only != 0 {
            wrong.push("it is read-only: name the primary".into());
        }
        Ok(Health { version: format!("MariaDB {version}"), clock: Some(clock), wrong, remarks: Vec::new() })
    }

    fn fault(&self, error: &sqlx::Error) -> LogError {
        let cause = match error {
            sqlx::Error::Database(e) => in_words(number_of(error), e.message()),
            sqlx::Error::PoolTimedOut => format!("it does not answer within {} s", CONNECTED_WITHIN.as_secs()),
            sqlx::Error::Io(e) => format!("no connection: {e}"),
            sqlx::Error::Tls(e) => format!("no TLS: {e}; ssl-ca in the URL names the file with its CA"),
            other => other.to_string(),
        };
        LogError::Unavailable { place: self.place.to_string(), cause }
    }
}

/// What an error of the server means, and what to do (MariaDB error code reference).
fn in_words(number: u16, message: &str) -> String {
    let advice = match number {
        1044 | 1142 | 1143 => {
            "readers need GRANT SELECT, managers GRANT SELECT, INSERT, UPDATE, DELETE on certbus_batch, certbus_snapshot_part, \
             certbus_snapshot_manifest and SELECT on certbus_layout; `certbus init` needs CREATE on the database"
        }
        1045 | 1698 => "look at user and password in the URL",
        1049 => "make it: CREATE DATABASE …",
        1146 => "the log's tables are not there; `certbus init` makes them",
        1290 | 1792 => "it takes no writes: name the primary, and not a replica",
        1153 => "raise max_allowed_packet to 1M",
        1021 | 1114 => "its disk is full",
        1040 | 1203 => "raise max_connections, or let fewer processes connect",
        _ => return message.to_owned(),
    };
    format!("{message}; {advice}")
}

fn number_of(error: &sqlx::Error) -> u16 {
    let database = error.as_database_error().and_then(|e| e.try_downcast_ref::<MySqlDatabaseError>());
    database.map_or(0, MySqlDatabaseError::number)
}

/// Whether the connection was lost under a statement, so that nobody knows what became of it.
fn is_lost(error: &sqlx::Error) -> bool {
    match error {
        // A server that is shut down, and a connection that was killed.
        sqlx::Error::Database(_) => matches!(number_of(error), 1053 | 1077 | 1080 | 1317 | 1927),
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed | sqlx::Error::Tls(_) => true,
        _ => false,
    }
}

impl MariadbLog {
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
        connection: &mut MySqlConnection,
        after: Cursor,
        limit: usize,
    ) -> Result<Option<Page>, Failed> {
        if after == Cursor::START {
            return Ok(None);
        }
        // The place itself comes first, without its body.
        let at = number(after.seq);
        let rows: Vec<(i64, Option<Vec<u8>>, Vec<u8>)> = sqlx::query_as(
            "SELECT seq, CASE seq WHEN ? THEN hash END AS hash, CASE seq WHEN ? THEN '' ELSE body END AS body FROM (
                 SELECT seq, hash, body, sum(CASE seq WHEN ? THEN 0 ELSE length(body) END) OVER (ORDER BY seq) AS size
                 FROM (SELECT seq, hash, body FROM certbus_batch WHERE stream = ? AND seq >= ? ORDER BY seq LIMIT ?) AS few
             ) AS page WHERE size <= ? OR seq <= ? + 1 ORDER BY seq",
        )
        .bind(at)
        .bind(at)
        .bind(at)
        .bind(&*self.stream)
        .bind(at)
        .bind(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX))
        .bind(PAGE_BYTES as i64)
        .bind(at)
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
        connection: &mut MySqlConnection,
        after: Cursor,
        limit: usize,
    ) -> Result<Page, Failed> {
        // The checks and the page see the same state.
        let mut read = {
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
            connection.begin().await?
        };
        let (first, head): (Option<i64>, Option<i64>) =
            sqlx::query_as("SELECT min(seq), max(seq) FROM certbus_batch WHERE stream = ?")
                .bind(&*self.stream)
                .fetch_one(&mut *read)
                .await?;
        let found: Option<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM certbus_batch WHERE stream = ? AND seq = ?")
            .bind(&*self.stream)
            .bind(number(after.seq))
            .fetch_optional(&mut *read)
            .await?;
        let first = match first {
            Some(first) if found.is_none() => {
                let body: Vec<u8> = sqlx::query_scalar("SELECT body FROM certbus_batch WHERE stream = ? AND seq = ?")
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
                 SELECT seq, body, sum(length(body)) OVER (ORDER BY seq) AS size
                 FROM (SELECT seq, body FROM certbus_batch WHERE stream = ? AND seq > ? ORDER BY seq LIMIT ?) AS few
             ) AS page WHERE size <= ? OR seq = ? + 1 ORDER BY seq",
        )
        .bind(&*self.stream)
        .bind(number(after.seq))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .bind(PAGE_BYTES as i64)
        .bind(number(after.seq))
        .fetch_all(&mut *read)
        .await?;
        read.commit().await?;
        Ok(sql::page(|| self.place(), rows)?)
    }

    async fn head(&self) -> Result<Cursor, sqlx::Error> {
        let head: Option<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT seq, hash FROM certbus_batch WHERE stream = ? ORDER BY seq DESC LIMIT 1")
                .bind(&*self.stream)
                .fetch_optional(&self.server.pool)
                .await?;
        Ok(sql::head(head))
    }

    async fn append_now(&self, expected: Cursor, batch: Batch) -> Result<Cursor, AppendError> {
        check_size(&batch)?;
        let unknown = |error: sqlx::Error| AppendError::Unknown { cause: self.fault(&error).to_string() };
        if is_for(expected, &batch) {
            let cursor = batch.cursor();
            for _ in 0..TRIES {
                let mut connection = self.server.pool.acquire().await.map_err(|e| self.fault(&e))?;
                let put = sqlx::query(if expected == Cursor::START { APPEND_FIRST } else { APPEND })
                    .bind(&*self.stream)
                    .bind(number(cursor.seq))
                    .bind(cursor.hash.as_bytes().as_slice())
                    .bind(&**batch.bytes())
                    .bind(&*self.stream);
                let put = match expected {
                    Cursor::START => put,
                    place => put.bind(number(place.seq)).bind(place.hash.as_bytes().as_slice()),
                };
                let put = timeout(ANSWERED_WITHIN, put.execute(&mut *connection)).await;
                let Ok(put) = put else {
                    drop(connection.detach());
                    return Err(AppendError::Unknown { cause: self.silent().to_string() });
                };
                match put {
                    Ok(done) if done.rows_affected() == 1 => return Ok(cursor),
                    Ok(_) => break,
                    Err(error) if is_lost(&error) => return Err(unknown(error)),
                    Err(error) => match number_of(&error) {
                        // Another has the number.
                        1062 => break,
                        // A deadlock, or a lock that was waited for too long: nothing was stored.
                        1205 | 1213 => {}
                        _ => return Err(self.fault(&error).into()),
                    },
                }
            }
        }
        Err(AppendError::Conflict { head: self.head().await.map_err(|e| self.fault(&e))? })
    }
}

impl EventLog for MariadbLog {
    fn read(&self, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Page, LogError>> {
        self.read_now(after, limit).boxed()
    }

    fn append(&self, expected: Cursor, batch: Batch) -> BoxFuture<'_, Result<Cursor, AppendError>> {
        self.append_now(expected, batch).boxed()
    }

    fn watch(&self, after: Cursor) -> BoxStream<'static, Result<Page, LogError>> {
        poll::watch(self.clone(), after, PACE)
    }

    fn trim(&self, through: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            let head = self.head().await.map_err(|e| self.fault(&e))?;
            sqlx::query("DELETE FROM certbus_batch WHERE stream = ? AND seq <= ? AND seq < ?")
                .bind(&*self.stream)
                .bind(number(through.seq))
                .bind(number(head.seq))
                .execute(&self.server.pool)
                .await
                .map(drop)
                .map_err(|e| self.fault(&e))
        }
        .boxed()
    }

    fn cut(&self, after: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            let here: Option<i64> =
                sqlx::query_scalar("SELECT seq FROM certbus_batch WHERE stream = ? AND seq = ? AND hash = ?")
                    .bind(&*self.stream)
                    .bind(number(after.seq))
                    .bind(after.hash.as_bytes().as_slice())
                    .fetch_optional(&self.server.pool)
                    .await
                    .map_err(|e| self.fault(&e))?;
            if here.is_none() && after != Cursor::START {
                return Ok(());
            }
            sqlx::query("DELETE FROM certbus_batch WHERE stream = ? AND seq > ?")
                .bind(&*self.stream)
                .bind(number(after.seq))
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
                sqlx::query_as("SELECT seq, body FROM certbus_batch WHERE stream = ? ORDER BY seq LIMIT 1")
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

impl SnapshotStore for MariadbLog {
    fn put_part(&self, bytes: Vec<u8>) -> BoxFuture<'_, Result<Hash, LogError>> {
        async move {
            let hash = Hash::of(&bytes);
            sqlx::query("INSERT IGNORE INTO certbus_snapshot_part (stream, hash, body) VALUES (?, ?, ?)")
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
            sqlx::query_scalar("SELECT body FROM certbus_snapshot_part WHERE stream = ? AND hash = ?")
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
            let found: Option<Vec<u8>> =
                sqlx::query_scalar("SELECT body FROM certbus_snapshot_manifest WHERE stream = ?")
                    .bind(&*self.stream)
                    .fetch_optional(&self.server.pool)
                    .await
                    .map_err(|e| self.fault(&e))?;
            Ok(found.map(|text| String::from_utf8_lossy(&text).into_owned()))
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
                Some(expected) => {
                    sqlx::query("UPDATE certbus_snapshot_manifest SET body = ? WHERE stream = ? AND body = ?")
                        .bind(text.as_bytes())
                        .bind(&*self.stream)
                        .bind(expected.as_bytes())
                }
                None => sqlx::query("INSERT IGNORE INTO certbus_snapshot_manifest (body, stream) VALUES (?, ?)")
                    .bind(text.as_bytes())
                    .bind(&*self.stream),
            };
            if put.execute(&mut *write).await.map_err(fault)?.rows_affected() == 0 {
                return Ok(false);
            }
            let stored: Vec<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM certbus_snapshot_part WHERE stream = ?")
                .bind(&*self.stream)
                .fetch_all(&mut *write)
                .await
                .map_err(fault)?;
            for old in stored.into_iter().filter(|hash| !to_hash(hash).is_some_and(|hash| parts.contains(&hash))) {
                sqlx::query("DELETE FROM certbus_snapshot_part WHERE stream = ? AND hash = ?")
                    .bind(&*self.stream)
                    .bind(old)
                    .execute(&mut *write)
                    .await
                    .map_err(fault)?;
            }
            write.commit().await.map_err(fault)?;
            Ok(true)
        }
        .boxed()
    }
}
