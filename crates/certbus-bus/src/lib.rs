//! The log: an ordered, durable sequence of signed batches for each stream, on an engine that a user already runs.
//!
//! Engines store bytes and decide who appends first; they check no signatures. Reading with checks is [`follow`],
//! writing with an answer even when the connection broke is [`write`], and shortening a stream is [`compact`].

pub mod compact;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "dynamodb")]
pub mod dynamodb;
pub mod follow;
pub mod health;
#[cfg(feature = "http")]
pub mod http;
pub mod log;
#[cfg(feature = "mariadb")]
pub mod mariadb;
pub mod memory;
#[cfg(feature = "nats")]
pub mod nats;
#[cfg(any(feature = "mariadb", feature = "dynamodb"))]
mod poll;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mariadb"))]
mod sql;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod write;

pub use log::{AppendError, EventLog, LogError, Page, SnapshotStore};
