//! Issuing: ACME accounts and orders (RFC 8555), renewal windows (RFC 9773), challenge solvers, the internal CA.
//!
//! Read in this order: [`ca`] (the one seam: order, complete, clean up), [`account`] (who orders), `order` (how an
//! ACME order is placed and driven), [`solver`] and [`dns`] (how control of a name is shown), [`caa`] (who may sign for it), [`key`] (what a certificate is
//! made for). Nothing here knows the log, a settings file, or what day it is.

pub mod account;
pub mod ca;
pub mod caa;
mod chain;
pub mod dns;
pub mod error;
mod http;
pub mod key;
mod nonce;
mod order;
mod renewal;
pub mod solver;

pub use account::{AcmeCa, DirectoryInfo, Eab};
pub use ca::internal::{InternalCa, self_signed};
pub use ca::{Ca, Issued, Order, OrderRequest, OrderStatus, PlannedChallenge, RenewalWindow, RevocationReason};
pub use caa::Caa;
pub use chain::ari_certificate_id;
pub use dns::api::{Api, PROVIDERS, Words};
pub use dns::exec::ExecHook;
pub use dns::httpreq::{HTTPREQ_KEYS, HttpReq};
pub use dns::propagation::Propagation;
pub use dns::rfc2136::{Rfc2136, TsigAlgorithm, TsigKey};
pub use error::{IssueError, Problem, Subproblem, innermost};
pub use http::text_of;
pub use key::{CertificateKey, KeyError};
pub use solver::bucket::{Bucket, BucketPlace};
pub use solver::dns01::{Dns01, Dns01Provider};
pub use solver::http01::Http01;
pub use solver::rehearsal::Rehearsed;
pub use solver::{ChallengeHost, SolverError, Solvers};
