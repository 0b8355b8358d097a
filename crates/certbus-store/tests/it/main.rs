//! The embedded engine through the suites.
#![expect(clippy::unwrap_used, reason = "a test: a failure here is a failed test")]

use certbus_store::Store;
use certbus_store::conformance::Engine;

async fn embedded() -> Engine {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("inventory.db")).await.unwrap();
    Engine { store, keep: Box::new(folder) }
}

certbus_store::conformance!(sqlite, embedded);
