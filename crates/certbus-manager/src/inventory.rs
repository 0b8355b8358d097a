//! What drives the inventory: the log projected into it, polls asked for when they are due and made by whoever has time.

pub mod files;
pub mod import;
pub mod poller;
pub mod projector;
pub mod scheduler;
pub mod worker;
