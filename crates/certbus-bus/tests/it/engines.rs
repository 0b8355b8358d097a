//! The engines of this crate against the suite.

use std::sync::Arc;

use certbus_bus::conformance::Engine;
use certbus_bus::memory::MemoryLog;
use certbus_bus::sqlite::SqliteFile;

async fn memory() -> Engine {
    let log = Arc::new(MemoryLog::default());
    Engine { log: log.clone(), other: log.clone(), snapshots: log, keep: Box::new(()) }
}

async fn sqlite() -> Engine {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.db");
    let log = SqliteFile::open(&path, true).await.unwrap().stream("default/certs");
    let other = SqliteFile::open(&path, false).await.unwrap().stream("default/certs");
    Engine { log: Arc::new(log.clone()), other: Arc::new(other), snapshots: Arc::new(log), keep: Box::new(folder) }
}

certbus_bus::conformance!(memory_engine, crate::engines::memory);
certbus_bus::conformance!(sqlite_engine, crate::engines::sqlite);
