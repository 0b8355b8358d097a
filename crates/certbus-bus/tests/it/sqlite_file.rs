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

#[tokio::test]
async fn one_watch_tells_of_a_file_that_is_gone_and_goes_on_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("log.db"), folder.path().join("away.db"));
    let (mut world, first) = World::new(StreamKind::Certs);
    let file = SqliteFile::open(&path, true).await.unwrap();
    let log = file.stream("default/certs");
    log.append(first.expected(), first.clone()).await.unwrap();
    let copy = SqliteFile::open(&path, false).await.unwrap().stream("default/certs");
    std::fs::rename(&path, &away).unwrap();
    let mut watch = copy.watch(Cursor::START);
    let lost = tokio::time::timeout(std::time::Duration::from_secs(5), futures::StreamExt::next(&mut watch)).await;
    assert!(matches!(lost, Ok(Some(Err(certbus_bus::LogError::Unavailable { .. })))), "{lost:?}");
    std::fs::rename(&away, &path).unwrap();
    let mut seen = Vec::new();
    let second = world.append(vec![]);
    log.append(second.expected(), second.clone()).await.unwrap();
    while seen.len() < 2 {
        let page = tokio::time::timeout(std::time::Duration::from_secs(10), futures::StreamExt::next(&mut watch)).await;
        if let Ok(page) = page.expect("in 10 s").expect("a watch has no end") {
            seen.extend(page.batches);
        }
    }
    assert_eq!(seen, [first, second], "the same watch, no gap and no repeat");
}

#[tokio::test]
async fn nothing_is_written_to_a_file_that_was_moved_away_or_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (path, away) = (folder.path().join("log.db"), folder.path().join("away.db"));
    let (mut world, first) = World::new(StreamKind::Certs);
    let log = SqliteFile::open(&path, true).await.unwrap().stream("default/certs");
    log.append(first.expected(), first.clone()).await.unwrap();
    let second = world.append(vec![]);
    for suffix in ["", "-wal", "-shm"] {
        let name = |path: &std::path::Path| std::path::PathBuf::from(format!("{}{suffix}", path.display()));
        let _ = std::fs::rename(name(&path), name(&away));
    }
    let lost = log.append(second.expected(), second.clone()).await;
    assert!(matches!(lost, Err(certbus_bus::AppendError::Log(certbus_bus::LogError::Unavailable { .. }))), "{lost:?}");
    let other = SqliteFile::open(&path, true).await.unwrap();
    let replaced = log.append(second.expected(), second.clone()).await;
    assert!(replaced.is_err(), "{replaced:?}");
    assert_eq!(other.streams().await.unwrap(), Vec::<String>::new());
}
