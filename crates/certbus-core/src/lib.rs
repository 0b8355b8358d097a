//! The words and the decisions of CertBus. No I/O, no clock, no async: `now` and randomness are arguments.
//!
//! Read in this order: [`event`] (what is said), [`batch`] (how it is signed and chained), [`statement`] and [`authority`]
//! (what the authority says, and how it comes to say it), [`chain`] (how a reader checks it), [`catalog`] and [`work`] (what is known after folding it),
//! [`plan`] (what is due), [`agenda`] (what of it is done now, and what waits for what). What is observed: [`endpoint`],
//! [`polling`], [`history`], [`overdue`], [`drift`].

pub mod access;
pub mod agenda;
pub mod alert;
pub mod authority;
pub mod batch;
pub mod budget;
pub mod catalog;
pub mod certificate;
pub mod chain;
pub mod crash;
pub mod drift;
pub mod endpoint;
pub mod event;
pub mod history;
pub mod id;
pub mod identity;
pub mod key;
pub mod name;
pub mod overdue;
pub mod plan;
pub mod polling;
pub mod seal;
pub mod snapshot;
pub mod spec;
pub mod starttls;
pub mod statement;
pub mod story;
#[cfg(feature = "testing")]
pub mod testing;
pub mod time;
pub mod work;
pub mod x509;
