//! Observing: which certificate a TLS server really presents, and what to think of it. No database, no log.
//!
//! Read in this order: [`offer`] (what is asked), [`quick`] and [`full`] (the two looks), [`starttls`] (what comes before),
//! [`conversation`] (all of it over one connection), [`ways`] (which look comes first), [`engine`] (ten thousand at a time),
//! [`observation`], [`found`] and [`failure`] (what comes of it), [`verdict`] (what to think of that). Beside it: [`spec`] and
//! [`resolve`] (who is meant), [`roots`] (who is trusted).

mod bytes;
pub mod conversation;
pub mod engine;
pub mod exercise;
pub mod failure;
pub mod found;
pub mod full;
pub mod observation;
pub mod offer;
pub mod quick;
pub mod resolve;
pub mod roots;
pub mod spec;
pub mod starttls;
pub mod verdict;
pub mod ways;

pub use engine::{Feed, Limits, Options, Summary, Target, Targets, Timeouts, feed, most_in_flight, probe, scan};
