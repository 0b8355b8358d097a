//! The words and the decisions of CertBus. No I/O, no clock, no async: `now` and randomness are arguments.
//!
//! Read in this order: [`event`] (what is said), [`batch`] (how it is signed and chained), [`statement`] (what the
//! authority says), [`chain`] (how a reader checks it), [`catalog`] and [`work`] (what is known after folding it),
//! [`plan`] (what is to be done next).

pub mod name;
pub mod spec;
pub mod time;
