//! The inventory: endpoints, certificates, what was observed of them and what was issued for them; and the tasks that fill
//! it. It decides nothing (that is core's) and asks nobody.

pub mod alerts;
pub mod audit;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod endpoints;
mod error;
pub mod glance;
pub mod issued;
pub mod kept;
mod knock;
mod listing;
pub mod observations;
pub mod outbox;
pub mod people;
pub mod schedule;
pub mod search;
pub mod shown;
mod sqlite;
mod summary;
pub mod tasks;
pub mod tokens;

pub use error::StoreError;
pub use listing::{Listed, Page, Query, State};
pub use sqlite::Store;
