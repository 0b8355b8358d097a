//! DNS names as certificates carry them (RFC 5280 dNSName, RFC 6125 wildcards): parsed once, then trusted.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A lower-case A-label name without trailing dot, at most 253 characters, possibly with one leading `*.` label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DnsName(Box<str>);

/// Why a text is not a name that a public or internal CA would put into a certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` cannot be in a certificate: {why}")]
pub struct NameError {
    /// What was given.
    pub text: String,
    /// What is wrong and what would be right.
    pub why: String,
}

impl DnsName {
    /// Parses and normalises (IDNA 2008 / UTS 46, lower case, trailing dot removed).
    ///
    /// # Errors
    /// [`NameError`] naming the label or rule at fault.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let refuse = |why: &str| NameError { text: text.to_owned(), why: why.to_owned() };
        let trimmed = text.trim();
        let bare = trimmed.strip_suffix('.').unwrap_or(trimmed);
        if bare.is_empty() {
            return Err(refuse("it is empty; write a name such as example.com"));
        }
        if bare.contains("://") || bare.contains('/') {
            return Err(refuse("it is a URL or path; write only the host name"));
        }
        if bare.parse::<std::net::IpAddr>().is_ok() || bare.starts_with('[') {
            return Err(refuse("it is an IP address; only DNS names are issued"));
        }
        if bare.contains(':') {
            return Err(refuse("it has a port; write only the host name"));
        }
        let (wildcard, rest) = match bare.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, bare),
        };
        if rest.contains('*') {
            return Err(refuse("`*` may stand only for the whole first label, as in *.example.com (RFC 6125)"));
        }
        let ascii = if rest.is_ascii() {
            rest.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii_strict(rest)
                .map_err(|_| refuse("it has a character that internationalised names (IDNA 2008) cannot have"))?
        };
        for label in ascii.split('.') {
            if label.is_empty() {
                return Err(refuse("it has an empty label (two dots in a row)"));
            }
            if label.len() > 63 {
                return Err(refuse("a label is longer than 63 characters"));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(refuse("a label begins or ends with `-`"));
            }
            if !label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                return Err(refuse("a label has a character other than a-z, 0-9 and `-`"));
            }
        }
        let full = if wildcard { format!("*.{ascii}") } else { ascii.clone() };
        if full.len() > 253 {
            return Err(refuse("it is longer than 253 characters"));
        }
        if full.rsplit('.').next().is_some_and(|tld| tld.bytes().all(|b| b.is_ascii_digit())) {
            return Err(refuse("its last label is a number"));
        }
        // `xn--` labels must be what IDNA would make.
        if full.contains("xn--") && idna::domain_to_ascii_strict(&ascii).ok().as_ref() != Some(&ascii) {
            return Err(refuse("a label begins with `xn--` and is no internationalised name (IDNA 2008)"));
        }
        Ok(Self(full.into()))
    }

    /// The name as it stands in the certificate.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the first label is `*`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with("*.")
    }

    /// The name without its `*.`: what DNS-01 is proved for (RFC 8555 section 7.1.3).
    pub fn base(&self) -> &str {
        self.0.strip_prefix("*.").unwrap_or(&self.0)
    }

    /// The wildcard name that also answers for this one: `*.example.com` for `www.example.com`. None for a wildcard
    /// or a single label.
    pub fn wildcard(&self) -> Option<DnsName> {
        if self.is_wildcard() {
            return None;
        }
        self.0.split_once('.').map(|(_, parent)| DnsName(format!("*.{parent}").into()))
    }

    /// Whether a certificate with this name answers for `host` (RFC 6125 section 6.4.3: one label for the `*`).
    pub fn covers(&self, host: &DnsName) -> bool {
        self == host || (self.is_wildcard() && host.wildcard().as_ref() == Some(self))
    }

    /// What keeps a public CA from signing this name, if anything: a single label, a public suffix, or a wildcard
    /// directly below one. An internal CA signs them.
    pub fn public_obstacle(&self) -> Option<String> {
        let base = self.base();
        if !base.contains('.') {
            return Some("it has a single label; public CAs sign only names below a public suffix".into());
        }
        match psl::suffix_str(base) {
            Some(suffix) if suffix == base => Some(format!("`{suffix}` is a public suffix; name a domain below it")),
            _ if reserved(base) => {
                Some("its ending is reserved (RFC 2606, RFC 6761) and signed by no public CA".into())
            }
            _ => None,
        }
    }

    /// The domain that a registrar sold (public suffix and one label), if there is one: `example.co.uk`.
    pub fn registered_domain(&self) -> Option<&str> {
        psl::domain_str(self.base())
    }

    /// Whether the name lies directly below a public suffix, so that `www.` beside it is expected.
    pub fn is_registered_domain(&self) -> bool {
        !self.is_wildcard() && self.registered_domain() == Some(self.as_str())
    }
}

/// The names of one certificate: sorted, without repeats, kept in one text so that a hundred thousand sets stay small.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameSet(Box<str>);

impl NameSet {
    /// From names in any order.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a DnsName>) -> Self {
        let mut names: Vec<&str> = names.into_iter().map(DnsName::as_str).collect();
        names.sort_unstable();
        names.dedup();
        Self(names.join(" ").into())
    }

    /// From the text of [`NameSet::as_str`], which a trusted file of ours kept.
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The names with a space between.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The names, as they stand in the certificate.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|name| !name.is_empty())
    }

    /// As the type that was parsed.
    pub fn names(&self) -> Vec<DnsName> {
        self.iter().map(|name| DnsName(name.into())).collect()
    }

    /// Whether one of the names answers for `host`.
    pub fn covers(&self, host: &DnsName) -> bool {
        let wildcard = host.wildcard();
        self.iter().any(|name| name == host.as_str() || wildcard.as_ref().is_some_and(|w| w.as_str() == name))
    }
}

impl fmt::Display for NameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.replace(' ', ", "))
    }
}

impl fmt::Debug for NameSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn reserved(base: &str) -> bool {
    ["test", "invalid", "localhost", "local", "onion", "example", "internal"]
        .iter()
        .any(|ending| base == *ending || base.ends_with(&format!(".{ending}")))
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for DnsName {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for DnsName {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<DnsName> for String {
    fn from(name: DnsName) -> Self {
        name.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DnsName {
        DnsName::parse(text).unwrap()
    }

    #[test]
    fn names_are_normalised_to_lower_case_a_labels() {
        assert_eq!(name("Example.COM.").as_str(), "example.com");
        assert_eq!(name("bücher.example.com").as_str(), "xn--bcher-kva.example.com");
        assert_eq!(name("*.Example.com").as_str(), "*.example.com");
    }

    #[test]
    fn what_no_certificate_can_carry_is_refused_with_the_rule() {
        for (bad, word) in [
            ("", "empty"),
            ("a..b", "empty"),
            ("https://example.com", "URL"),
            ("example.com:443", "port"),
            ("192.0.2.1", "IP"),
            ("[::1]", "IP"),
            ("w*w.example.com", "first label"),
            ("*.*.example.com", "first label"),
            ("-a.example.com", "label"),
            ("a_b.example.com", "character"),
            ("a b.example.com", "character"),
            (&format!("{}.com", "a".repeat(64)), "63"),
            ("host.123", "number"),
            ("xn--zzzzzz--9.example.com", "xn--"),
        ] {
            let error = DnsName::parse(bad).expect_err(bad).to_string();
            assert!(error.contains(word), "{bad}: {error}");
        }
        let long = ["abcdefghij"; 26].join(".");
        assert!(DnsName::parse(&long).unwrap_err().why.contains("253"));
    }

    #[test]
    fn a_wildcard_covers_exactly_one_label() {
        let wildcard = name("*.example.com");
        assert!(wildcard.covers(&name("www.example.com")));
        assert!(!wildcard.covers(&name("example.com")));
        assert!(!wildcard.covers(&name("a.b.example.com")));
        assert!(wildcard.covers(&wildcard));
    }

    #[test]
    fn public_obstacles_follow_the_public_suffix_list() {
        assert!(name("co.uk").public_obstacle().unwrap().contains("public suffix"));
        assert!(name("*.co.uk").public_obstacle().is_some());
        assert!(name("localhost").public_obstacle().is_some());
        assert!(name("a.test").public_obstacle().unwrap().contains("reserved"));
        assert_eq!(name("example.co.uk").public_obstacle(), None);
        assert!(name("example.co.uk").is_registered_domain());
        assert!(!name("www.example.co.uk").is_registered_domain());
    }
}
