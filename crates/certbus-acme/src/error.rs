//! What can go wrong between us and a CA, in words a person can act on. It decides nothing about when to try again.

mod problem;

use std::time::Duration;

use certbus_core::name::DnsName;
use certbus_core::spec::Challenge;

use crate::key::KeyError;
use crate::solver::SolverError;

pub use crate::error::problem::{Problem, Subproblem};

/// Why a certificate was not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// No answer: name resolution, connection, TLS, or time ran out.
    #[error(
        "cannot reach the CA at {url}: {cause}; check the address, the network, the roots that are trusted and this machine's clock"
    )]
    Unreachable {
        /// What was asked.
        url: String,
        /// The innermost causes.
        cause: String,
    },
    /// An answer, but not one of RFC 8555.
    #[error("{url} answered {what} where an ACME answer was expected; check that the CA's address is a directory URL")]
    NotAcme {
        /// What was asked.
        url: String,
        /// The HTTP status, where there was one.
        status: Option<u16>,
        /// What came instead.
        what: String,
    },
    /// A problem document (RFC 8555 section 6.7).
    #[error("the CA refused: {}", .0.with_next_step())]
    Problem(Problem),
    /// The CA tried a challenge and was not satisfied (RFC 8555 section 7.5.1).
    #[error("the CA could not verify {name} by {challenge}: {problem}")]
    ChallengeFailed {
        /// The name that failed.
        name: DnsName,
        /// How it was tried.
        challenge: Challenge,
        /// The CA's words.
        problem: Problem,
    },
    /// The CA does not offer the wanted kind of challenge for a name.
    #[error("the CA does not offer {wanted} for {name}, but {offered}; ask for one of those")]
    ChallengeNotOffered {
        /// The name.
        name: DnsName,
        /// What was asked for.
        wanted: Challenge,
        /// What the CA offers, by its own words.
        offered: String,
    },
    /// The owner of a name has said who may sign for it, and it is not this CA (RFC 8659).
    #[error(
        "the CAA record of {owner} forbids {ca} to sign for {name}: {why}; let the owner of {owner} add `issue \"{ca}\"`, or use another CA"
    )]
    ForbiddenByCaa {
        /// The name that was to be signed for.
        name: DnsName,
        /// Where the record stands.
        owner: String,
        /// The CA's identities.
        ca: String,
        /// The record's words.
        why: String,
    },
    /// The order can no longer lead to a certificate; a new one can.
    #[error("the order {url} is invalid: {why}; start a new one")]
    OrderInvalid {
        /// The order.
        url: String,
        /// The CA's words, as far as it gave any.
        why: String,
    },
    /// The CA does not know the order (any more).
    #[error("the CA does not know the order {url}; start a new one")]
    OrderNotFound {
        /// The order.
        url: String,
    },
    /// The certificate is not one for what was asked.
    #[error("the certificate does not match what was ordered: {why}")]
    ChainMismatch {
        /// Where they differ.
        why: String,
    },
    /// The whole took too long. An order that was placed can be resumed by its URL.
    #[error("{what} took longer than {} s; the order can be resumed", after.as_secs())]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// The CA wants its terms agreed to (RFC 8555 section 7.3).
    #[error("the CA's terms of service are not agreed to: read {url} and say that you agree")]
    TermsNotAgreed {
        /// Where they can be read.
        url: String,
    },
    /// The CA wants an external account (RFC 8555 section 7.3.4) and none was given, or it cannot be read.
    #[error("external account binding: {why}; the CA's account page shows key id and HMAC key")]
    ExternalAccount {
        /// What is missing or wrong.
        why: String,
    },
    /// The stored account cannot be used.
    #[error("the stored ACME account cannot be used: {why}; register again")]
    Credentials {
        /// What is wrong with it.
        why: String,
    },
    /// The given roots cannot be used to trust the CA's API.
    #[error("the CA's roots cannot be used: {why}; give a PEM file with at least one CERTIFICATE")]
    Roots {
        /// What is wrong with them.
        why: String,
    },
    /// Key or certificate signing request.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A challenge could not be set up.
    #[error(transparent)]
    Solver(#[from] SolverError),
    /// This CA cannot do what was asked.
    #[error("{what}")]
    Unsupported {
        /// What it cannot do, and what can be done instead.
        what: String,
    },
}

impl IssueError {
    /// How long the CA asks to wait before the next attempt (RFC 8555 section 6.6).
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(problem) | Self::ChallengeFailed { problem, .. } => problem.retry_after,
            _ => None,
        }
    }

    /// Whether the same attempt can only succeed after a person changed something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Problem(problem) => problem.is_permanent(),
            Self::Solver(error) => error.is_permanent(),
            Self::ChallengeNotOffered { .. }
            | Self::ForbiddenByCaa { .. }
            | Self::TermsNotAgreed { .. }
            | Self::ExternalAccount { .. }
            | Self::Credentials { .. }
            | Self::Roots { .. }
            | Self::Key(_)
            | Self::Unsupported { .. } => true,
            Self::Unreachable { .. }
            | Self::NotAcme { .. }
            | Self::ChallengeFailed { .. }
            | Self::OrderInvalid { .. }
            | Self::OrderNotFound { .. }
            | Self::ChainMismatch { .. }
            | Self::Timeout { .. } => false,
        }
    }
}

/// From the library's error. What our HTTP client found comes through as it was; the rest is a breach of protocol.
pub(crate) fn from_acme(at: &str, error: instant_acme::Error) -> IssueError {
    let not_acme = |what: String| IssueError::NotAcme { url: at.to_owned(), status: None, what };
    match error {
        instant_acme::Error::Api(problem) => IssueError::Problem(problem.into()),
        instant_acme::Error::Other(other) => match other.downcast::<IssueError>() {
            Ok(own) => *own,
            Err(other) => not_acme(other.to_string()),
        },
        other => not_acme(other.to_string()),
    }
}

/// The last of an error's causes: it says what happened ("connection refused", "UnknownIssuer"), the first
/// only where.
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}
