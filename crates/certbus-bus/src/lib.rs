//! The log: an ordered, durable sequence of signed batches for each stream, on an engine that a user already runs.
//!
//! Engines store bytes and decide who appends first; they check no signatures. Reading with checks is [`follow`],
//! writing with an answer even when the connection broke is [`write`], and shortening a stream is [`compact`].

pub mod compact;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod follow;
pub mod log;
pub mod memory;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod write;

pub use log::{AppendError, EventLog, LogError, Page, SnapshotStore};
