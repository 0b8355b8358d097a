//! Problem documents: a CA's own words for why it refused (RFC 7807, RFC 8555 section 6.7). They are passed on, not
//! rewritten.

use std::fmt;
use std::time::Duration;

/// A problem document (RFC 7807, RFC 8555 section 6.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The last part of the type's URN, such as `rateLimited`; the whole type where it is not one of ACME.
    pub kind: String,
    /// The CA's words.
    pub detail: String,
    /// HTTP status, where there was one.
    pub status: Option<u16>,
    /// What it says of single names (RFC 8555 section 6.7.1).
    pub subproblems: Vec<Subproblem>,
    /// The answer's Retry-After.
    pub retry_after: Option<Duration>,
}

/// A problem with one identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subproblem {
    /// The name it is about.
    pub name: Option<String>,
    /// As in [`Problem`].
    pub kind: String,
    /// The CA's words.
    pub detail: String,
}

impl Problem {
    /// Whether the same request can only succeed after a person changed something.
    pub fn is_permanent(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "accountDoesNotExist"
                | "badCSR"
                | "badPublicKey"
                | "badSignatureAlgorithm"
                | "caa"
                | "externalAccountRequired"
                | "invalidContact"
                | "invalidProfile"
                | "malformed"
                | "rejectedIdentifier"
                | "unauthorized"
                | "unsupportedContact"
                | "unsupportedIdentifier"
                | "userActionRequired"
        )
    }
}

impl Problem {
    /// How long the CA takes no orders of the account at all, if it clearly says so: other limits are about some names.
    pub fn account_limit(&self) -> Option<Duration> {
        let said = self.detail.to_lowercase();
        let whole = ["new orders", "this account", "service busy"].iter().any(|words| said.contains(words));
        (self.kind == "rateLimited" && whole && self.subproblems.is_empty()).then_some(self.retry_after).flatten()
    }

    /// The CA's words, and what would be right.
    pub(crate) fn with_next_step(&self) -> String {
        self.next_step().map_or_else(|| self.to_string(), |step| format!("{self}; {step}"))
    }

    /// What would be right, for the types of RFC 8555 section 6.7, RFC 9773 section 7.4 and the profiles draft; None where
    /// the CA's words say all there is to say.
    pub fn next_step(&self) -> Option<&'static str> {
        Some(match self.kind.as_str() {
            "accountDoesNotExist" => {
                "take the CA's `account` out of the issuing settings (`certbus conf edit`) and register again with `certbus init --ca`"
            }
            "badCSR" | "badPublicKey" => "order another kind of key (`cert mk --key-type`)",
            "badSignatureAlgorithm" => {
                "this CA wants account keys of another kind, which CertBus does not make; use another CA"
            }
            "caa" => "let the owner of the domain name this CA in its CAA record",
            "connection" | "dns" | "incorrectResponse" | "tls" | "unauthorized" => {
                "`certbus cert check NAME` goes the way that the CA went"
            }
            "externalAccountRequired" => "give `certbus init --ca` the CA's `--eab-key-id` and `--eab-key-file`",
            "invalidContact" | "unsupportedContact" => "write a mail address that exists as the CA's `email`",
            "invalidProfile" => "name a profile that the CA's directory has, or none",
            "rateLimited" => "it is tried again by itself when the CA allows it",
            "rejectedIdentifier" | "unsupportedIdentifier" => {
                "this CA does not issue for that name; ask another one (`--ca`)"
            }
            "serverInternal" | "badNonce" | "orderNotReady" => "it is tried again by itself",
            "userActionRequired" => "do what the CA's words ask for (new terms, most often), then order again",
            _ => return None,
        })
    }
}

impl From<instant_acme::Problem> for Problem {
    fn from(problem: instant_acme::Problem) -> Self {
        let subproblems = problem.subproblems.into_iter().map(|sub| Subproblem {
            name: sub.identifier.map(|identifier| identifier.authorized(false).to_string()),
            kind: short(sub.r#type),
            detail: sub.detail.unwrap_or_default(),
        });
        Self {
            subproblems: subproblems.collect(),
            kind: short(problem.r#type),
            detail: problem.detail.unwrap_or_default(),
            status: problem.status,
            retry_after: None,
        }
    }
}

fn short(kind: Option<String>) -> String {
    let kind = kind.unwrap_or_else(|| "about:blank".into());
    kind.strip_prefix("urn:ietf:params:acme:error:").map(str::to_owned).unwrap_or(kind)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.kind)?;
        for sub in &self.subproblems {
            write!(f, "; {}: {} ({})", sub.name.as_deref().unwrap_or("?"), sub.detail, sub.kind)?;
        }
        match self.retry_after {
            Some(wait) => write!(f, "; it asks to wait {} s", wait.as_secs()),
            None => Ok(()),
        }
    }
}
