//! The embedded engine: one SQLite file, used by several processes at once. It refuses network file systems, whose locks do
//! not hold, and files of newer programs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use certbus_core::id::Fingerprint;
use serde::de::DeserializeOwned;
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Connection, Sqlite, Transaction};

use crate::error::StoreError;

/// Each step of the layout, in order. None is ever changed once it is out.
const MIGRATIONS: [(&str, &str); 4] = [
    ("0001_inventory", include_str!("../migrations/sqlite/0001_inventory.sql")),
    ("0002_face", include_str!("../migrations/sqlite/0002_face.sql")),
    ("0003_alerts", include_str!("../migrations/sqlite/0003_alerts.sql")),
    ("0004_counts", include_str!("../migrations/sqlite/0004_counts.sql")),
];

/// `application_id` of an inventory: CBUS.
const OURS: i64 = 0x4342_5553;

/// The inventory.
#[derive(Clone, Debug)]
pub struct Store {
    place: String,
    /// One connection: writers wait for each other here rather than in the file.
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Store {
    /// Opens the file, and brings its layout up to date; makes it if it is not there. A file that is brought up to date is
    /// copied first, beside it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] naming the file and what is wrong: not a database, of a newer program, damaged, on a
    /// network file system.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let place = path.display().to_string();
        let wrong = |cause: String| StoreError::Unavailable { place: path.display().to_string(), cause };
        if let Some(kind) = network_file_system(path) {
            return Err(wrong(format!(
                "it is on a network file system ({kind}), where locks do not hold; use a local disk"
            )));
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .pragma("cache_size", "-65536")
            // 64 MiB: a page that many polls change is written back once.
            .pragma("wal_autocheckpoint", "16384")
            .statement_cache_capacity(256)
            .busy_timeout(Duration::from_secs(30));
        // After a full disk even a rollback may have failed: such a connection is not used again.
        let pool = |most: u32| {
            SqlitePoolOptions::new().max_connections(most).before_acquire(|connection, _| {
                let fresh = !connection.is_in_transaction();
                Box::pin(async move { Ok(fresh) })
            })
        };
        make_private(path).map_err(|error| wrong(format!("it cannot be made: {error}")))?;
        let writer = pool(1).connect_lazy_with(options.clone());
        let readers = pool(4).connect_lazy_with(options);
        let store = Self { place, writer, readers };
        store.migrate(path).await?;
        Ok(store)
    }

    async fn migrate(&self, path: &Path) -> Result<(), StoreError> {
        let mut connection = self.writer.acquire().await.map_err(|e| self.fault(&e))?;
        let known = MIGRATIONS.len() as i64;
        let version = |found: i64| match found {
            found if found > known => Err(self.wrong(format!(
                "its layout is {found}, made by a newer program, and this one knows {known}; upgrade this program"
            ))),
            found => Ok(found),
        };
        let id = pragma(&mut connection, "application_id").await.map_err(|e| self.fault(&e))?;
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut *connection).await.map_err(|e| self.fault(&e))?;
        if id != OURS && (id, tables) != (0, 0) {
            return Err(self.wrong("it is a SQLite database of something else; name another file".into()));
        }
        let found = version(pragma(&mut connection, "user_version").await.map_err(|e| self.fault(&e))?)?;
        if found == known {
            return Ok(());
        }
        let copy = copy_path(path, found);
        // One that is there was made by a run that was killed before it went on.
        if found > 0 && !copy.exists() {
            let half = copy.with_extension("half");
            let _ = std::fs::remove_file(&half);
            let why = |e: &dyn std::fmt::Display| {
                self.wrong(format!("it cannot be copied to {} before it is upgraded: {e}", copy.display()))
            };
            let copied = sqlx::query("VACUUM INTO ?").bind(half.display().to_string()).execute(&mut *connection).await;
            copied.map_err(|e| why(&e))?;
            std::fs::rename(&half, &copy).map_err(|e| why(&e))?;
        }
        drop(connection);
        let mut write = self.begin().await?;
        // Another process may have been quicker.
        let found = version(pragma(&mut write, "user_version").await.map_err(|e| self.fault(&e))?)?;
        for (at, (name, script)) in MIGRATIONS.iter().enumerate().skip(found.unsigned_abs() as usize) {
            tracing::info!(migration = name, "inventory");
            sqlx::raw_sql(*script).execute(&mut *write).await.map_err(|e| self.fault(&e))?;
            let number = at + 1;
            let say = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {number}"));
            sqlx::raw_sql(say).execute(&mut *write).await.map_err(|e| self.fault(&e))?;
        }
        self.commit(write).await
    }

    /// Where it is, for messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(|e| self.fault(&e))
    }

    pub(crate) async fn commit(&self, write: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
        write.commit().await.map_err(|e| self.fault(&e))
    }

    /// A change of at most one row, in a transaction of its own. False: there was no such row.
    pub(crate) async fn changes_one(&self, change: Query<'_, Sqlite, SqliteArguments>) -> Result<bool, StoreError> {
        let mut write = self.begin().await?;
        let done = change.execute(&mut *write).await.map_err(|e| self.fault(&e))?;
        self.commit(write).await?;
        Ok(done.rows_affected() == 1)
    }

    pub(crate) fn readers(&self) -> &SqlitePool {
        &self.readers
    }

    fn wrong(&self, cause: String) -> StoreError {
        StoreError::Unavailable { place: self.place.clone(), cause }
    }

    pub(crate) fn fault(&self, error: &sqlx::Error) -> StoreError {
        let cause = match error {
            sqlx::Error::Database(error) => match error.code().as_deref() {
                Some("8" | "264" | "520" | "776" | "1032" | "1544") => {
                    "it is read-only; run as the user that owns it, or mend its mode".to_owned()
                }
                Some("13") => "the disk is full; free some space".to_owned(),
                Some("14") => "it cannot be opened; look at the folder and its mode".to_owned(),
                Some("26") => "it is not a SQLite database".to_owned(),
                Some("11" | "267" | "523" | "779") => {
                    "it is damaged; stop what uses it, and restore a backup or look at it with `sqlite3 FILE .recover`"
                        .to_owned()
                }
                Some("5") => "it is locked by another process for too long".to_owned(),
                _ if self.disk_is_full() => "the disk is full; free some space".to_owned(),
                _ => error.message().to_owned(),
            },
            other => other.to_string(),
        };
        self.wrong(cause)
    }

    /// With no room for its index of the write-ahead log, SQLite speaks of I/O errors.
    fn disk_is_full(&self) -> bool {
        let probe = PathBuf::from(format!("{}-probe-{}", self.place, std::process::id()));
        let written = std::fs::write(&probe, [0_u8; 64 * 1024]);
        let _ = std::fs::remove_file(&probe);
        written.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
    }
}

/// Many rows as one text, an array of arrays: the driver takes longer to hand over a row than SQLite to find it.
pub(crate) async fn many<T: DeserializeOwned>(
    connection: &mut SqliteConnection,
    select: &'static str,
    of: &str,
) -> Result<Vec<T>, sqlx::Error> {
    let rows: String = sqlx::query_scalar(select).bind(of).fetch_one(connection).await?;
    serde_json::from_str(&rows).map_err(|error| sqlx::Error::Decode(error.into()))
}

/// A fingerprint as a column has it.
pub(crate) fn fingerprint(bytes: Option<Vec<u8>>) -> Option<Fingerprint> {
    Some(Fingerprint::from_bytes(bytes?.try_into().ok()?))
}

async fn pragma(connection: &mut SqliteConnection, name: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(sqlx::AssertSqlSafe(format!("PRAGMA {name}"))).fetch_one(connection).await
}

/// Makes the file for its owner alone; those that SQLite puts beside it take after it.
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

fn copy_path(path: &Path, layout: i64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".layout-{layout}"));
    name.into()
}

/// The kind of file system that `path` is on, if its locks do not hold.
fn network_file_system(path: &Path) -> Option<String> {
    const NETWORK: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "fuse.sshfs"];
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().ok()?;
    let holds_it = |line: &str| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?.replace("\\040", " "), words.next()?);
        folder.starts_with(&at).then(|| (at.len(), kind.to_owned()))
    };
    let (_, kind) = mounts.lines().filter_map(holds_it).max_by_key(|(length, _)| *length)?;
    NETWORK.contains(&kind.as_str()).then_some(kind)
}
