//! What a CA lets an account order, and when the next order fits: the limits that CAs publish, as token buckets that
//! refill evenly. It spares the CA what it would refuse; the CA has the last word.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::CertificateId;
use crate::name::{DnsName, NameSet};
use crate::time::{Span, Timestamp};

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// So many at most in so long: a bucket of `count` that refills evenly. As text `50 in 7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Limit {
    count: u32,
    per: Duration,
}

/// The limits of a CA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// New orders of an account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders: Option<Limit>,
    /// Certificates for a registered domain (public suffix and one label) and all below it. Renewals do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Limit>,
    /// Certificates for exactly the same names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<Limit>,
}

/// Let's Encrypt's (letsencrypt.org/docs/rate-limits, 2026). Renewals in a window that the CA gave (RFC 9773) are exempt
/// from all of them, other renewals from the first two.
pub const LETS_ENCRYPT: Limits = Limits {
    orders: Some(Limit { count: 300, per: Duration::from_secs(3 * HOUR) }),
    domain: Some(Limit { count: 50, per: Duration::from_secs(7 * DAY) }),
    names: Some(Limit { count: 5, per: Duration::from_secs(7 * DAY) }),
};

/// However a limit is measured, what is older than this is forgotten.
pub const MEMORY: Duration = Duration::from_secs(7 * DAY);

/// An order that was placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ordered {
    /// When.
    pub at: Timestamp,
    /// The CA's name in the settings.
    pub ca: String,
    /// For which managed certificate.
    pub certificate: CertificateId,
    /// The CA's URL of it.
    pub order: String,
    /// For what.
    pub names: NameSet,
    /// What it did not count against.
    pub exempt: Exempt,
}

/// What an order does not count against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exempt {
    /// It counts against everything.
    Nothing,
    /// A renewal: it counts against its names alone.
    AllButNames,
    /// A renewal in the CA's own window.
    Everything,
}

/// The limit that an order has to wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scarce {
    /// Orders of the account.
    Orders(Limit),
    /// Certificates for a registered domain.
    Domain(String, Limit),
    /// Certificates for exactly these names.
    Names(Limit),
}

/// What is left of a CA's limits.
#[derive(Debug)]
pub struct Budget {
    limits: Limits,
    orders: Bucket,
    domains: HashMap<String, Bucket>,
    names: HashMap<NameSet, Bucket>,
}

/// When the bucket would be full again.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(Timestamp);

impl Budget {
    /// After the orders of the past, in any order.
    pub fn new<'a>(limits: Limits, past: impl IntoIterator<Item = &'a Ordered>) -> Self {
        let mut past: Vec<&Ordered> = past.into_iter().collect();
        past.sort_by_key(|ordered| ordered.at);
        let mut budget = Self { limits, orders: Bucket::default(), domains: HashMap::new(), names: HashMap::new() };
        for ordered in past {
            budget.spend(&ordered.names, ordered.exempt, ordered.at);
        }
        budget
    }

    /// When an order for `names` fits: None for now, else when and what it waits for.
    pub fn wait(&self, names: &NameSet, exempt: Exempt, now: Timestamp) -> Option<(Timestamp, Scarce)> {
        let mut last: Option<(Timestamp, Scarce)> = None;
        let mut weigh = |limit: Limit, bucket: Option<&Bucket>, scarce: Scarce| {
            let free = bucket.map_or(now, |bucket| bucket.free(limit));
            if free > now && last.as_ref().is_none_or(|(at, _)| *at < free) {
                last = Some((free, scarce));
            }
        };
        if exempt < Exempt::AllButNames {
            if let Some(limit) = self.limits.orders {
                weigh(limit, Some(&self.orders), Scarce::Orders(limit));
            }
            if let Some(limit) = self.limits.domain {
                for domain in domains(names) {
                    weigh(limit, self.domains.get(&domain), Scarce::Domain(domain, limit));
                }
            }
        }
        if exempt < Exempt::Everything
            && let Some(limit) = self.limits.names
        {
            weigh(limit, self.names.get(names), Scarce::Names(limit));
        }
        last
    }

    /// Counts an order.
    pub fn spend(&mut self, names: &NameSet, exempt: Exempt, at: Timestamp) {
        if exempt < Exempt::AllButNames {
            if let Some(limit) = self.limits.orders {
                self.orders.spend(limit, at);
            }
            if let Some(limit) = self.limits.domain {
                for domain in domains(names) {
                    self.domains.entry(domain).or_default().spend(limit, at);
                }
            }
        }
        if exempt < Exempt::Everything
            && let Some(limit) = self.limits.names
        {
            self.names.entry(names.clone()).or_default().spend(limit, at);
        }
    }
}

impl Bucket {
    fn spend(&mut self, limit: Limit, at: Timestamp) {
        self.0 = self.0.max(at).plus(limit.refill());
    }

    /// When there is one again.
    fn free(self, limit: Limit) -> Timestamp {
        self.0.minus(limit.refill() * limit.count.saturating_sub(1))
    }
}

/// The registered domains of names, each once.
fn domains(names: &NameSet) -> Vec<String> {
    let parsed = names.names();
    let mut domains: Vec<String> = parsed.iter().filter_map(DnsName::registered_domain).map(str::to_owned).collect();
    domains.sort();
    domains.dedup();
    domains
}

impl Limit {
    /// The time in which one comes back.
    fn refill(self) -> Duration {
        self.per / self.count.max(1)
    }
}

/// `N in Td`, `Th` or `Tm`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no limit; write how many in how long, as `50 in 7d`, `300 in 3h` or `10 in 1m`")]
pub struct LimitError(String);

impl FromStr for Limit {
    type Err = LimitError;
    fn from_str(text: &str) -> Result<Self, LimitError> {
        let read = || {
            let (count, per) = text.split_once(" in ")?;
            let count: u32 = count.trim().parse().ok()?;
            let per = per.parse::<Span>().ok()?.duration();
            (count > 0 && per <= MEMORY).then_some(Self { count, per })
        };
        read().ok_or_else(|| LimitError(text.to_owned()))
    }
}

impl TryFrom<String> for Limit {
    type Error = LimitError;
    fn try_from(text: String) -> Result<Self, LimitError> {
        text.parse()
    }
}

impl From<Limit> for String {
    fn from(limit: Limit) -> Self {
        limit.to_string()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.count, Span::new(self.per))
    }
}

impl fmt::Display for Scarce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Orders(limit) => write!(f, "the CA takes {limit} orders of an account"),
            Self::Domain(domain, limit) => write!(f, "the CA signs {limit} new certificates below {domain}"),
            Self::Names(limit) => write!(f, "the CA signs {limit} certificates for exactly these names"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> NameSet {
        NameSet::new(&[DnsName::parse(text).unwrap()])
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000 + seconds)
    }

    fn past(count: usize, name: impl Fn(usize) -> String, exempt: Exempt) -> Vec<Ordered> {
        (0..count)
            .map(|n| Ordered {
                at: at(0),
                ca: "le".into(),
                certificate: CertificateId::from_bytes([1; 8]),
                order: n.to_string(),
                names: names(&name(n)),
                exempt,
            })
            .collect()
    }

    #[test]
    fn the_sixth_certificate_for_the_same_names_waits_until_one_is_refilled() {
        let four = Budget::new(LETS_ENCRYPT, &past(4, |_| "a.example.com".into(), Exempt::Nothing));
        assert_eq!(four.wait(&names("a.example.com"), Exempt::Nothing, at(1)), None);
        let five = Budget::new(LETS_ENCRYPT, &past(5, |_| "a.example.com".into(), Exempt::Nothing));
        let (until, scarce) = five.wait(&names("a.example.com"), Exempt::AllButNames, at(1)).unwrap();
        assert!(matches!(scarce, Scarce::Names(_)), "{scarce}");
        assert_eq!(until, at(7 * 86400 / 5), "a fifth of the week");
        assert_eq!(five.wait(&names("a.example.com"), Exempt::AllButNames, until), None);
        assert_eq!(five.wait(&names("a.example.com"), Exempt::Everything, at(1)), None, "in the CA's own window");
        assert_eq!(five.wait(&names("b.example.com"), Exempt::Nothing, at(1)), None, "other names");
    }

    #[test]
    fn new_certificates_below_one_registered_domain_are_counted_by_the_public_suffix_list_and_renewals_are_not() {
        let fifty = past(50, |n| format!("n{n}.example.co.uk"), Exempt::Nothing);
        let budget = Budget::new(LETS_ENCRYPT, &fifty);
        let (_, scarce) = budget.wait(&names("one-more.example.co.uk"), Exempt::Nothing, at(1)).unwrap();
        assert!(matches!(&scarce, Scarce::Domain(domain, _) if domain == "example.co.uk"), "{scarce}");
        assert_eq!(budget.wait(&names("n1.example.co.uk"), Exempt::AllButNames, at(1)), None, "a renewal");
        assert_eq!(
            budget.wait(&names("other.co.uk"), Exempt::Nothing, at(1)),
            None,
            "another customer of the registry"
        );
        let renewals = past(50, |n| format!("n{n}.example.co.uk"), Exempt::AllButNames);
        let budget = Budget::new(LETS_ENCRYPT, &renewals);
        assert_eq!(budget.wait(&names("one-more.example.co.uk"), Exempt::Nothing, at(1)), None);
    }

    #[test]
    fn orders_of_an_account_go_on_at_the_pace_of_the_refill() {
        let budget = Budget::new(LETS_ENCRYPT, &past(300, |n| format!("n{n}.example{n}.com"), Exempt::Nothing));
        let (until, scarce) = budget.wait(&names("new.example.org"), Exempt::Nothing, at(0)).unwrap();
        assert!(matches!(scarce, Scarce::Orders(_)));
        assert_eq!(until, at(36));
    }

    #[test]
    fn a_limit_is_read_and_written_and_what_is_none_is_refused() {
        for text in ["50 in 7d", "300 in 3h", "10 in 1m"] {
            assert_eq!(text.parse::<Limit>().unwrap().to_string(), text);
        }
        for text in ["", "5", "5 in", "0 in 1d", "5 in 0d", "5 in 8d", "x in 1d", "5 in 1w"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
    }
}
