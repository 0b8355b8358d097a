//! The embedded engine: one SQLite file for all streams, used by several processes at once. It refuses network file
//! systems, whose locks do not hold.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use certbus_core::batch::Batch;
use certbus_core::id::{Cursor, Hash};
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Connection, Row};

use crate::log::{
    AppendError, EventLog, LogError, PAGE_BYTES, Page, READ_AT_LEAST, SnapshotStore, check_append, check_read,
};
use crate::sql::{self, number, to_hash};

/// How often a watch looks at `PRAGMA data_version`: file events fire before a commit is visible, this does not.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A connection lives at most this long: a file that was put in the place of another is noticed by then.
const REOPEN: Duration = READ_AT_LEAST;

/// The layout of the file.
const LAYOUT: i64 = 1;

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS batch (
    stream TEXT NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (stream, seq)
);
CREATE TABLE IF NOT EXISTS snapshot_part (
    stream TEXT NOT NULL, hash BLOB NOT NULL, body BLOB NOT NULL, PRIMARY KEY (stream, hash)
);
CREATE TABLE IF NOT EXISTS snapshot_manifest (stream TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL);
PRAGMA user_version = 1;
";

/// An open file.
#[derive(Clone, Debug)]
pub struct SqliteFile {
    path: Arc<PathBuf>,
    pool: SqlitePool,
}

/// One stream in a file.
#[derive(Clone, Debug)]
pub struct SqliteLog {
    file: SqliteFile,
    stream: Arc<str>,
}

impl SqliteFile {
    /// Opens the file; makes it if `create` says so.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] naming the file and what is wrong: missing, not a database, of a newer program, on a
    /// network file system.
    pub async fn open(path: &Path, create: bool) -> Result<Self, LogError> {
        let fault = |cause: String| LogError::Unavailable { place: path.display().to_string(), cause };
        if let Some(kind) = network_file_system(path) {
            return Err(fault(format!(
                "it is on a network file system ({kind}), where locks do not hold; use a local disk or another engine"
            )));
        }
        if !create && !path.exists() {
            return Err(fault("there is no such file; `certbus init` makes it".into()));
        }
        let options = connect_options(path).create_if_missing(create);
        let (opened, looked_at) = (path.to_owned(), path.to_owned());
        // As long as nobody ever saw another file in its place, no connection can be to another.
        let first = Arc::new(OnceLock::new());
        let moved = Arc::new(AtomicBool::new(false));
        let (first_opened, has_moved) = (first.clone(), moved.clone());
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .max_lifetime(REOPEN)
            .after_connect(move |connection, _| {
                let here = mark(&opened);
                if *first_opened.get_or_init(|| here) != here {
                    has_moved.store(true, Ordering::Relaxed);
                }
                remember_file(connection, here).boxed()
            })
            // After a full disk even a rollback may have failed: such a connection is not used again. Nor is one to a file
            // that was moved away: what is written there is lost.
            .before_acquire(move |connection, _| {
                let here = mark(&looked_at);
                if first.get() != Some(&here) {
                    moved.store(true, Ordering::Relaxed);
                }
                let doubtful = moved.load(Ordering::Relaxed);
                async move {
                    let free = !connection.is_in_transaction();
                    Ok(free && (!doubtful || remembered_file(connection).await? == here))
                }
                .boxed()
            })
            .connect_lazy_with(options);
        let file = Self { path: Arc::new(path.to_owned()), pool };
        let mut connection = file.pool.acquire().await.map_err(|e| file.fault(&e))?;
        let layout: i64 =
            sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(|e| file.fault(&e))?;
        if layout > LAYOUT {
            return Err(fault(format!("it has layout {layout}, made by a newer program; upgrade this one")));
        }
        if layout < LAYOUT {
            sqlx::raw_sql(SCHEMA).execute(&mut *connection).await.map_err(|e| file.fault(&e))?;
        }
        drop(connection);
        Ok(file)
    }

    /// One of its streams; it need not exist yet.
    pub fn stream(&self, name: &str) -> SqliteLog {
        SqliteLog { file: self.clone(), stream: name.into() }
    }

    /// The names of the streams in it that have a batch.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    pub async fn streams(&self) -> Result<Vec<String>, LogError> {
        sqlx::query_scalar("SELECT DISTINCT stream FROM batch ORDER BY stream")
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.fault(&e))
    }

    fn fault(&self, error: &sqlx::Error) -> LogError {
        let cause = match error {
            // With no room for its index of the write-ahead log, SQLite speaks of I/O errors.
            sqlx::Error::Database(_) if self.disk_is_full() => "the disk is full; free some space".to_owned(),
            sqlx::Error::Database(e) => match e.code().as_deref() {
                Some("8" | "264" | "520" | "776" | "1032" | "1544") => {
                    "it is read-only; run as the user that owns it, or mend its mode".to_owned()
                }
                Some("14") => "it cannot be opened; look at the folder and its mode".to_owned(),
                Some("26") => "it is not a SQLite database".to_owned(),
                Some("11") => "it is damaged; restore a backup, and let `stream verify` look at it".to_owned(),
                Some("5") => "it is locked by another process for too long".to_owned(),
                _ => e.message().to_owned(),
            },
            other => other.to_string(),
        };
        LogError::Unavailable { place: self.path.display().to_string(), cause }
    }
}

impl SqliteFile {
    /// Whether a page more can be written beside the file.
    fn disk_is_full(&self) -> bool {
        let Some(folder) = self.path.parent() else { return false };
        let probe = folder.join(format!(".certbus-probe-{}", std::process::id()));
        let written = std::fs::write(&probe, [0_u8; 64 * 1024]);
        let _ = std::fs::remove_file(&probe);
        written.is_err_and(|e| e.kind() == std::io::ErrorKind::StorageFull)
    }
}

/// What tells a file from another in its place, as far as 31 bits do; 0 if there is none.
fn mark(path: &Path) -> i32 {
    let inode = std::fs::metadata(path).map_or(0, |found| std::os::unix::fs::MetadataExt::ino(&found));
    i32::try_from(inode & 0x7fff_ffff).unwrap_or_default()
}

/// Which file a connection was opened to stands in its own temporary schema.
async fn remember_file(connection: &mut SqliteConnection, mark: i32) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PRAGMA temp.user_version = {mark}"))).execute(connection).await.map(drop)
}

async fn remembered_file(connection: &mut SqliteConnection) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("PRAGMA temp.user_version").fetch_one(connection).await
}

fn connect_options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10))
}

impl SqliteLog {
    async fn read_on(&self, connection: &mut SqliteConnection, after: Cursor, limit: usize) -> Result<Page, LogError> {
        match self.read_next(connection, after, limit).await? {
            Some(page) => Ok(page),
            None => self.read_with_checks(connection, after, limit).await,
        }
    }

    /// What comes after a place that is there, by one query: what nearly every reader asks. None: the place is not there.
    async fn read_next(
        &self,
        connection: &mut SqliteConnection,
        after: Cursor,
        limit: usize,
    ) -> Result<Option<Page>, LogError> {
        let fault = |e: sqlx::Error| self.file.fault(&e);
        if after == Cursor::START {
            return Ok(None);
        }
        // The place itself comes first, without its body.
        let mut rows = sqlx::query(
            "SELECT seq, CASE seq WHEN ?2 THEN hash END AS hash, CASE seq WHEN ?2 THEN x'' ELSE body END AS body
             FROM batch WHERE stream = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3",
        )
        .bind(&*self.stream)
        .bind(number(after.seq))
        .bind(i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX))
        .fetch(connection);
        let Some(first) = rows.next().await.transpose().map_err(fault)? else { return Ok(None) };
        let hash: Option<Vec<u8>> = first.try_get("hash").map_err(fault)?;
        if hash.as_deref().and_then(to_hash) != Some(after.hash) {
            return Ok(None);
        }
        self.page(rows).await.map(Some)
    }

    async fn read_with_checks(
        &self,
        connection: &mut SqliteConnection,
        after: Cursor,
        limit: usize,
    ) -> Result<Page, LogError> {
        let fault = |e: sqlx::Error| self.file.fault(&e);
        // One read transaction: the checks and the page see the same state.
        let mut read = connection.begin().await.map_err(fault)?;
        // Two look-ups in the index; one query for both would walk the whole stream.
        let seqs: (Option<i64>, Option<i64>) = sqlx::query_as(
            "SELECT (SELECT min(seq) FROM batch WHERE stream = ?1), (SELECT max(seq) FROM batch WHERE stream = ?1)",
        )
        .bind(&*self.stream)
        .fetch_one(&mut *read)
        .await
        .map_err(fault)?;
        let seqs = seqs.0.zip(seqs.1);
        let found: Option<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM batch WHERE stream = ? AND seq = ?")
            .bind(&*self.stream)
            .bind(number(after.seq))
            .fetch_optional(&mut *read)
            .await
            .map_err(fault)?;
        let first = match seqs {
            // Only a reader whose place is not kept needs to know what the first batch names as its predecessor.
            Some((first, _)) if found.is_none() => {
                let body: Vec<u8> = sqlx::query_scalar("SELECT body FROM batch WHERE stream = ? AND seq = ?")
                    .bind(&*self.stream)
                    .bind(first)
                    .fetch_one(&mut *read)
                    .await
                    .map_err(fault)?;
                Some(sql::oldest(first, body))
            }
            _ => None,
        };
        let head = seqs.map_or(0, |(_, last)| last.unsigned_abs());
        check_read(&self.place(), after, first, found.as_deref().and_then(to_hash), head)?;
        let rows = sqlx::query("SELECT seq, body FROM batch WHERE stream = ? AND seq > ? ORDER BY seq LIMIT ?")
            .bind(&*self.stream)
            .bind(number(after.seq))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch(&mut *read);
        self.page(rows).await
    }

    /// Batches as long as they parse and fit into a page.
    async fn page(&self, mut rows: BoxStream<'_, Result<SqliteRow, sqlx::Error>>) -> Result<Page, LogError> {
        let fault = |e: sqlx::Error| self.file.fault(&e);
        let (mut page, mut size) = (Page::default(), 0);
        while let Some(row) = rows.next().await {
            let row = row.map_err(fault)?;
            let body: Vec<u8> = row.try_get("body").map_err(fault)?;
            size += body.len();
            if size > PAGE_BYTES && !page.batches.is_empty() {
                break;
            }
            match sql::batch(|| self.place(), row.try_get("seq").map_err(fault)?, body) {
                Ok(batch) => page.batches.push(batch),
                Err(error) if page.batches.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        Ok(page)
    }

    async fn append_now(&self, expected: Cursor, batch: Batch) -> Result<Cursor, AppendError> {
        let fault = |e: sqlx::Error| AppendError::Log(self.file.fault(&e));
        let mut write = self.file.pool.begin_with("BEGIN IMMEDIATE").await.map_err(fault)?;
        let head: Option<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT seq, hash FROM batch WHERE stream = ? ORDER BY seq DESC LIMIT 1")
                .bind(&*self.stream)
                .fetch_optional(&mut *write)
                .await
                .map_err(fault)?;
        check_append(expected, sql::head(head), &batch)?;
        let cursor = batch.cursor();
        sqlx::query("INSERT INTO batch (stream, seq, hash, body) VALUES (?, ?, ?, ?)")
            .bind(&*self.stream)
            .bind(number(cursor.seq))
            .bind(cursor.hash.as_bytes().as_slice())
            .bind(&**batch.bytes())
            .execute(&mut *write)
            .await
            .map_err(fault)?;
        // A commit that fails has not happened, but for an error of the disk nobody can say.
        write.commit().await.map_err(|e| AppendError::Unknown { cause: self.file.fault(&e).to_string() })?;
        Ok(cursor)
    }
}

impl EventLog for SqliteLog {
    fn read(&self, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Page, LogError>> {
        async move {
            let mut connection = self.file.pool.acquire().await.map_err(|e| self.file.fault(&e))?;
            self.read_on(&mut connection, after, limit).await
        }
        .boxed()
    }

    fn append(&self, expected: Cursor, batch: Batch) -> BoxFuture<'_, Result<Cursor, AppendError>> {
        self.append_now(expected, batch).boxed()
    }

    fn watch(&self, after: Cursor) -> BoxStream<'static, Result<Page, LogError>> {
        let log = self.clone();
        async_stream::stream! {
            let mut after = after;
            loop {
                // A connection of its own: data_version tells of commits by others than the connection that asks.
                let opened = SqliteConnection::connect_with(&connect_options(&log.file.path)).await;
                let mut connection = match opened {
                    Ok(connection) => connection,
                    Err(error) => {
                        yield Err(log.file.fault(&error));
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                };
                loop {
                    let version = data_version(&mut connection).await;
                    let read = log.read_on(&mut connection, after, usize::MAX).await;
                    match (version, read) {
                        (Ok(version), Ok(page)) => {
                            if let Some(last) = page.batches.last() {
                                after = last.cursor();
                                yield Ok(page);
                            } else if !wait_for_change(&mut connection, version).await.unwrap_or(false) {
                                break;
                            }
                        }
                        (Err(error), _) => {
                            yield Err(log.file.fault(&error));
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            break;
                        }
                        (_, Err(error)) => {
                            let lost = matches!(error, LogError::Unavailable { .. });
                            yield Err(error);
                            tokio::time::sleep(Duration::from_secs(1)).await;
                            if lost {
                                break;
                            }
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
                "DELETE FROM batch WHERE stream = ?1 AND seq <= ?2
                 AND seq < (SELECT max(seq) FROM batch WHERE stream = ?1)",
            )
            .bind(&*self.stream)
            .bind(number(through.seq))
            .execute(&self.file.pool)
            .await
            .map(drop)
            .map_err(|e| self.file.fault(&e))
        }
        .boxed()
    }

    fn cut(&self, after: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        async move {
            sqlx::query(
                "DELETE FROM batch WHERE stream = ?1 AND seq > ?2 AND (?2 = 0 OR EXISTS
                 (SELECT 1 FROM batch WHERE stream = ?1 AND seq = ?2 AND hash = ?3))",
            )
            .bind(&*self.stream)
            .bind(number(after.seq))
            .bind(after.hash.as_bytes().to_vec())
            .execute(&self.file.pool)
            .await
            .map(drop)
            .map_err(|e| self.file.fault(&e))
        }
        .boxed()
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Option<Batch>, LogError>> {
        async move {
            let found: Option<(i64, Vec<u8>)> =
                sqlx::query_as("SELECT seq, body FROM batch WHERE stream = ? ORDER BY seq LIMIT 1")
                    .bind(&*self.stream)
                    .fetch_optional(&self.file.pool)
                    .await
                    .map_err(|e| self.file.fault(&e))?;
            found.map(|(seq, body)| sql::batch(|| self.place(), seq, body)).transpose()
        }
        .boxed()
    }

    fn place(&self) -> String {
        format!("{} ({})", self.file.path.display(), self.stream)
    }
}

impl SnapshotStore for SqliteLog {
    fn put_part(&self, bytes: Vec<u8>) -> BoxFuture<'_, Result<Hash, LogError>> {
        async move {
            let hash = Hash::of(&bytes);
            sqlx::query("INSERT OR IGNORE INTO snapshot_part (stream, hash, body) VALUES (?, ?, ?)")
                .bind(&*self.stream)
                .bind(hash.as_bytes().as_slice())
                .bind(bytes)
                .execute(&self.file.pool)
                .await
                .map_err(|e| self.file.fault(&e))?;
            Ok(hash)
        }
        .boxed()
    }

    fn part(&self, hash: Hash) -> BoxFuture<'_, Result<Option<Vec<u8>>, LogError>> {
        async move {
            sqlx::query_scalar("SELECT body FROM snapshot_part WHERE stream = ? AND hash = ?")
                .bind(&*self.stream)
                .bind(hash.as_bytes().as_slice().to_vec())
                .fetch_optional(&self.file.pool)
                .await
                .map_err(|e| self.file.fault(&e))
        }
        .boxed()
    }

    fn manifest(&self) -> BoxFuture<'_, Result<Option<String>, LogError>> {
        async move {
            sqlx::query_scalar("SELECT body FROM snapshot_manifest WHERE stream = ?")
                .bind(&*self.stream)
                .fetch_optional(&self.file.pool)
                .await
                .map_err(|e| self.file.fault(&e))
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
            let fault = |e: sqlx::Error| self.file.fault(&e);
            let mut write = self.file.pool.begin_with("BEGIN IMMEDIATE").await.map_err(fault)?;
            let found: Option<String> = sqlx::query_scalar("SELECT body FROM snapshot_manifest WHERE stream = ?")
                .bind(&*self.stream)
                .fetch_optional(&mut *write)
                .await
                .map_err(fault)?;
            if found != expected {
                return Ok(false);
            }
            sqlx::query("INSERT OR REPLACE INTO snapshot_manifest (stream, body) VALUES (?, ?)")
                .bind(&*self.stream)
                .bind(text)
                .execute(&mut *write)
                .await
                .map_err(fault)?;
            let stored: Vec<Vec<u8>> = sqlx::query_scalar("SELECT hash FROM snapshot_part WHERE stream = ?")
                .bind(&*self.stream)
                .fetch_all(&mut *write)
                .await
                .map_err(fault)?;
            for old in stored.into_iter().filter(|hash| !to_hash(hash).is_some_and(|hash| parts.contains(&hash))) {
                sqlx::query("DELETE FROM snapshot_part WHERE stream = ? AND hash = ?")
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

async fn data_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await
}

/// True when another connection committed; false when [`READ_AT_LEAST`] is over, and the file is to be opened anew.
async fn wait_for_change(connection: &mut SqliteConnection, seen: i64) -> Result<bool, sqlx::Error> {
    let until = Instant::now() + READ_AT_LEAST;
    while Instant::now() < until {
        if data_version(connection).await? != seen {
            return Ok(true);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(false)
}

/// The kind of network file system that `path` would be on, as Linux tells it; None elsewhere or if it is local.
fn network_file_system(path: &Path) -> Option<String> {
    const NETWORK: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs"];
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let mut best: Option<(usize, &str)> = None;
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(at), Some(kind)) = (fields.next(), fields.next()) else {
            continue;
        };
        let at = at.replace("\\040", " ");
        if folder.starts_with(&at) && best.is_none_or(|(length, _)| at.len() >= length) {
            best = Some((at.len(), kind));
        }
    }
    best.map(|(_, kind)| kind).filter(|kind| NETWORK.contains(kind)).map(str::to_owned)
}
