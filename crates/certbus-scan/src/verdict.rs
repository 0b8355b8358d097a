//! The verdict: what to think of a chain as served. A pure function of the chain, the name it was asked for, the roots, what
//! was fetched beside it, and the time. It builds no chains itself (rustls-webpki does) and fetches nothing.

mod fetched;
mod leaf;
mod list;
mod trust;

use std::fmt;

use certbus_core::time::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};

use crate::observation::Observation;
use crate::roots::Roots;
pub use fetched::{certificates, signers};
pub use leaf::{Leaf, Links, links};
pub use list::{List, ListError};
pub use trust::unlinked;

/// What was fetched beside the chain, if anything was.
#[derive(Clone, Debug, Default)]
pub struct Extras<'a> {
    /// Certificates from the issuer's address that a certificate names (AIA, RFC 5280 section 4.2.2.1).
    pub intermediates: Vec<CertificateDer<'static>>,
    /// Revocation lists that the leaf names (RFC 5280 section 4.2.1.13).
    pub crls: Vec<&'a List>,
    /// What should have been fetched and was not: each address, and why.
    pub unfetched: Vec<String>,
}

/// What to think of a chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether a client with these roots would go on: the chain, the name and the time are right, and it is not known to be
    /// revoked.
    pub trusted: bool,
    /// The roots: `platform`, `mozilla` or a file.
    pub roots: String,
    /// All that is wrong, the worst first. Empty for what is trusted and strong.
    pub problems: Vec<Problem>,
    /// What the leaf says of itself. None if it is no certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<Leaf>,
    /// Days until it expires; negative after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days_left: Option<f64>,
    /// The part of its life that is left, 1 to 0; negative after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub life_left: Option<f64>,
    /// Whether less than a third of its life is left, or half of a life under 10 days: somebody should have renewed it.
    #[serde(default)]
    pub overdue: bool,
    /// What the revocation lists say, if any were fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Revocation>,
    /// What should have been fetched and was not: each address, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unfetched: Vec<String>,
}

/// Something wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Problem {
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYetValid,
    /// It is for other names.
    NameMismatch {
        /// What was asked for.
        wanted: String,
    },
    /// It signed itself, and is no trusted root.
    SelfSigned,
    /// A certificate between leaf and root was not served.
    MissingIntermediate {
        /// Whose certificate it is.
        issuer: String,
        /// Where the one that it signed says it can be had.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        aia: Option<String>,
        /// Whether what was fetched from there completes the chain. None: nothing was fetched.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mends: Option<bool>,
    },
    /// The chain ends in a root that is not trusted.
    UntrustedRoot {
        /// Who signed its last certificate.
        issuer: String,
    },
    /// Its issuer took it back.
    Revoked,
    /// It may not be used as a server's.
    Usage {
        /// Which extension, and what is missing.
        why: String,
    },
    /// A key that can be broken.
    WeakKey {
        /// Whose, and how long.
        what: String,
    },
    /// A signature that can be forged.
    WeakSignature {
        /// Whose, and by which algorithm.
        what: String,
    },
    /// A certificate that does not parse, or breaks a rule.
    Invalid {
        /// What is wrong.
        why: String,
    },
}

/// What the revocation lists say of the leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Revocation {
    /// A list of its issuer does not have it.
    Good,
    /// A list of its issuer has it.
    Revoked {
        /// Since when.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Timestamp>,
    },
    /// No list says anything.
    Unknown {
        /// Why.
        why: String,
    },
}

/// Judges what an observation saw, for the name it was made with. None if it saw nothing.
pub fn of(observation: &Observation, roots: &Roots, extras: &Extras<'_>, now: Timestamp) -> Option<Verdict> {
    let found = observation.result.as_ref().ok()?;
    let name = observation.server_name.as_ref().map_or(&*observation.host, |name| name.as_str());
    let name = ServerName::try_from(name.to_owned()).ok();
    let name = name.or_else(|| observation.address.map(ServerName::from));
    Some(judge(&found.chain, name.as_ref(), roots, extras, now))
}

/// Judges a chain. Without a name none is compared.
pub fn judge(
    chain: &[CertificateDer<'_>],
    name: Option<&ServerName<'_>>,
    roots: &Roots,
    extras: &Extras<'_>,
    now: Timestamp,
) -> Verdict {
    let mut problems = Vec::new();
    let leaf = chain.first().and_then(|leaf| Leaf::read(leaf));
    let mut revocation = None;
    match &leaf {
        None => problems.push(Problem::Invalid { why: "the first certificate does not parse".into() }),
        Some(leaf) => {
            problems.extend(leaf.time_problem(now));
            if let Some(name) = name.filter(|name| !trust::is_for(chain, name)) {
                problems.push(Problem::NameMismatch { wanted: name.to_str().into_owned() });
            }
            let judged = trust::judge(chain, leaf, roots, extras, now);
            problems.extend(judged.problem);
            revocation = judged.revocation;
            if matches!(revocation, Some(Revocation::Revoked { .. })) {
                problems.push(Problem::Revoked);
            }
            problems.extend(leaf.usage_problem());
        }
    }
    let trusted = problems.is_empty();
    problems.extend(leaf.as_ref().and_then(Leaf::usage_weakness));
    problems.extend(leaf::weaknesses(chain));
    Verdict {
        trusted,
        roots: roots.source().to_owned(),
        problems,
        days_left: leaf.as_ref().map(|leaf| rounded(leaf.left(now).0 / 86_400.0)),
        life_left: leaf.as_ref().map(|leaf| rounded(leaf.left(now).1)),
        overdue: leaf.as_ref().is_some_and(|leaf| leaf.is_overdue(now)),
        leaf,
        revocation,
        unfetched: extras.unfetched.clone(),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("expired"),
            Self::NotYetValid => f.write_str("not yet valid"),
            Self::NameMismatch { wanted } => write!(f, "not for {wanted}"),
            Self::SelfSigned => f.write_str("self-signed"),
            Self::MissingIntermediate { issuer, mends: Some(true), .. } => {
                write!(f, "missing intermediate ({issuer}; AIA mends it)")
            }
            Self::MissingIntermediate { issuer, aia: None, .. } => write!(f, "missing intermediate ({issuer}; no AIA)"),
            Self::MissingIntermediate { issuer, .. } => write!(f, "missing intermediate ({issuer})"),
            Self::UntrustedRoot { issuer } => write!(f, "untrusted root ({issuer})"),
            Self::Revoked => f.write_str("revoked"),
            Self::Usage { why } => write!(f, "usage: {why}"),
            Self::WeakKey { what } => write!(f, "weak key ({what})"),
            Self::WeakSignature { what } => write!(f, "weak signature ({what})"),
            Self::Invalid { why } => write!(f, "invalid: {why}"),
        }
    }
}

/// To a thousandth: more would be noise.
fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}
