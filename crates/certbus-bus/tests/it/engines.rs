//! The engines of this crate against the suite. Servers are those that ci/services.py started; each test has streams of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use certbus_bus::conformance::Engine;
use certbus_bus::dynamodb::DynamodbTable;
use certbus_bus::mariadb::MariadbServer;
use certbus_bus::memory::MemoryLog;
use certbus_bus::nats::NatsServer;
use certbus_bus::postgres::PostgresServer;
use certbus_bus::sqlite::SqliteFile;
use certbus_bus::{EventLog, SnapshotStore};

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

/// Where a server is, as ci/services.py says.
pub(crate) fn server(name: &str) -> String {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run under ci/services.py"))
}

/// A tenant that no other test has.
pub(crate) fn tenant() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn engine<L: EventLog + SnapshotStore + Clone + 'static>(log: L, other: L) -> Engine {
    Engine { log: Arc::new(log.clone()), other: Arc::new(other), snapshots: Arc::new(log), keep: Box::new(()) }
}

async fn postgres() -> Engine {
    let (url, name) = (server("CERTBUS_TEST_POSTGRES"), format!("{}/certs", tenant()));
    let open = async |create: bool| PostgresServer::open(&url, create).await.unwrap().stream(&name);
    engine(open(true).await, open(false).await)
}

async fn mariadb() -> Engine {
    let (url, name) = (server("CERTBUS_TEST_MARIADB"), format!("{}/certs", tenant()));
    let open = async |create: bool| MariadbServer::open(&url, create).await.unwrap().stream(&name);
    engine(open(true).await, open(false).await)
}

async fn dynamodb() -> Engine {
    let (url, name) = (server("CERTBUS_TEST_DYNAMODB"), format!("{}/certs", tenant()));
    let open = async |create: bool| DynamodbTable::open(&url, create).await.unwrap().stream(&name);
    engine(open(true).await, open(false).await)
}

async fn nats() -> Engine {
    let (url, name) = (server("CERTBUS_TEST_NATS"), format!("{}/certs", tenant()));
    let open = async || NatsServer::open(&url).await.unwrap().stream(&name);
    engine(open().await, open().await)
}

certbus_bus::conformance!(memory_engine, crate::engines::memory);
certbus_bus::conformance!(sqlite_engine, crate::engines::sqlite);
certbus_bus::conformance!(postgresql_engine, crate::engines::postgres);
certbus_bus::conformance!(mariadb_engine, crate::engines::mariadb);
certbus_bus::conformance!(dynamodb_engine, crate::engines::dynamodb);
certbus_bus::conformance!(nats_engine, crate::engines::nats);
