//! Drives what the other crates decide and do: every flow is load (fold to the head), decide (a pure function of core),
//! append (compare-and-set; on conflict reload and decide again), act (idempotent).

pub mod alerts;
mod appender;
pub mod ceremony;
mod challenges;
pub mod check;
pub mod check_in;
pub mod clock;
pub mod inventory;
pub mod issue;
pub mod issuers;
pub mod issuing;
pub mod keeper;
pub mod managed;
pub mod manager;
pub mod round;
pub mod story;
pub mod tenant;
pub mod web;
pub mod windows;
pub mod wishes;

pub use issuers::{Issuers, LocalSolvers};
pub use issuing::{Issuing, SettingsError};
pub use manager::{ManageError, Manager};
pub use tenant::{Stream, Tenant, View};
