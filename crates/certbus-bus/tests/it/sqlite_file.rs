//! What goes wrong with a file, and what it says then.

use certbus_bus::EventLog;
use certbus_bus::sqlite::SqliteFile;
use certbus_core::batch::Batch;
use certbus_core::id::{Cursor, StreamKind};
use certbus_core::testing::World;

#[tokio::test]
async fn a_missing_file_says_how_it_is_made_and_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    let error = SqliteFile::open(&path, false).await.unwrap_err().to_string();
    assert!(error.contains("certbus init") && error.contains("log.db"), "{error}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_that_is_no_database_or_of_a_newer_program_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    std::fs::write(&path, "this is no database, but long enough to be read as a header of one ................")
        .unwrap();
    let error = SqliteFile::open(&path, false).await.unwrap_err().to_string();
    assert!(error.contains("not a SQLite database"), "{error}");

    let newer = folder.path().join("newer.db");
    drop(SqliteFile::open(&newer, true).await.unwrap());
    let pool =
        sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(&newer)).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&pool).await.unwrap();
    pool.close().await;
    let error = SqliteFile::open(&newer, false).await.unwrap_err().to_string();
    assert!(error.contains("newer program") && error.contains("upgrade"), "{error}");
}

#[tokio::test]
async fn a_damaged_record_is_named_by_its_number_and_those_before_it_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    let log = SqliteFile::open(&path, true).await.unwrap().stream("default/certs");
    let (mut world, first) = World::new(StreamKind::Certs);
    let second = world.append(vec![]);
    for batch in [&first, &second] {
        log.append(batch.expected(), Batch::clone(batch)).await.unwrap();
    }
    let pool = sqlx::SqlitePool::connect_with(sqlx::sqlite::SqliteConnectOptions::new().filename(&path)).await.unwrap();
    sqlx::raw_sql("UPDATE batch SET body = substr(body, 1, 50) WHERE seq = 2").execute(&pool).await.unwrap();
    pool.close().await;
    assert_eq!(log.read(Cursor::START, 10).await.unwrap().batches.len(), 1);
    let error = log.read(first.cursor(), 10).await.unwrap_err().to_string();
    assert!(error.contains("record 2") && error.contains("default/certs"), "{error}");
}
