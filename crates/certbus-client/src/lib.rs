//! Beside a load balancer, inside its process: follows the `certs` stream, keeps a sealed snapshot on disk, and answers
//! TLS handshakes by name. It knows no SQL, no web and no ACME, and goes on serving when everything else is down.
//!
//! ```no_run
//! # async fn example(identity: certbus_core::identity::Identity, log: std::sync::Arc<dyn certbus_bus::EventLog>,
//! #   snapshots: std::sync::Arc<dyn certbus_bus::SnapshotStore>) -> Result<(), Box<dyn std::error::Error>> {
//! let client = certbus_client::Client::open(identity, vec![], "/var/lib/certbus/client".as_ref())?;
//! tokio::spawn(client.clone().follow(log, snapshots));
//! let tls = rustls::ServerConfig::builder().with_no_client_auth().with_cert_resolver(client.resolver());
//! # Ok(()) }
//! ```

mod adopt;
mod client;
mod disk;
mod index;
mod resolver;
mod state;

pub use adopt::{AdoptError, Material};
pub use client::{Client, ClientError, LOG_SILENT_AFTER, LogHealth, Status};
pub use disk::DiskError;
pub use index::{Index, Live};
pub use resolver::Resolver;
