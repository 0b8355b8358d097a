//! What `--fail-on` looks for.

use std::fmt;
use std::str::FromStr;

use certbus_scan::observation::Observation;
use certbus_scan::verdict::{Problem, Revocation, Verdict};

/// One thing that makes a scan end with exit code 10.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FailOn {
    Expired,
    Untrusted,
    Overdue,
    Revoked,
    /// No list says whether it is revoked.
    Unchecked,
    Weak,
    /// A probe that saw no certificate.
    Failed,
    /// Less than this part of its life is left.
    Part(f64),
    /// Fewer days than this are left.
    Days(f64),
}

impl FailOn {
    pub(super) fn applies(self, seen: &Observation, verdict: Option<&Verdict>) -> bool {
        let Some(verdict) = verdict else { return self == Self::Failed && seen.result.is_err() };
        match self {
            Self::Expired => verdict.problems.contains(&Problem::Expired),
            Self::Untrusted => !verdict.trusted,
            Self::Overdue => verdict.overdue,
            Self::Revoked => verdict.problems.contains(&Problem::Revoked),
            Self::Unchecked => matches!(verdict.revocation, Some(Revocation::Unknown { .. })),
            Self::Weak => {
                let weak = |one: &Problem| matches!(one, Problem::WeakKey { .. } | Problem::WeakSignature { .. });
                verdict.problems.iter().any(weak)
            }
            Self::Failed => false,
            Self::Part(part) => verdict.life_left.is_none_or(|left| left < part),
            Self::Days(days) => verdict.days_left.is_none_or(|left| left < days),
        }
    }
}

impl FromStr for FailOn {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| (0.0..100_000.0).contains(number));
        let found = match text {
            "expired" => Some(Self::Expired),
            "untrusted" => Some(Self::Untrusted),
            "overdue" => Some(Self::Overdue),
            "revoked" => Some(Self::Revoked),
            "unchecked" => Some(Self::Unchecked),
            "weak" => Some(Self::Weak),
            "failed" => Some(Self::Failed),
            _ => match (text.strip_suffix('%'), text.strip_suffix('d')) {
                (Some(part), _) => number(part).filter(|part| *part <= 100.0).map(|part| Self::Part(part / 100.0)),
                (_, Some(days)) => number(days).map(Self::Days),
                _ => None,
            },
        };
        found.ok_or_else(|| {
            "write expired, untrusted, overdue, revoked, unchecked, weak, failed, a part of life as 20%, or days as 30d"
                .into()
        })
    }
}

impl fmt::Display for FailOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("expired"),
            Self::Untrusted => f.write_str("untrusted"),
            Self::Overdue => f.write_str("overdue"),
            Self::Revoked => f.write_str("revoked"),
            Self::Unchecked => f.write_str("unchecked"),
            Self::Weak => f.write_str("weak"),
            Self::Failed => f.write_str("failed"),
            Self::Part(part) => write!(f, "less than {}% of life", part * 100.0),
            Self::Days(days) => write!(f, "less than {days} days"),
        }
    }
}
