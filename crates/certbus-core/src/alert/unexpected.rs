//! Whether a certificate that replaced another is one that nobody expected: of another issuer, or with another key long
//! before a renewal.

use crate::id::Hash;
use crate::overdue::part_lived;
use crate::time::Timestamp;

/// Who renews does so in the second half of a certificate's life: a key that changes before that is unexpected.
pub const RENEWALS_FROM: f64 = 0.5;

/// What is compared of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Its issuer's distinguished name (RFC 4514).
    pub issuer: String,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki: Hash,
    /// Its validity.
    pub not_before: Timestamp,
    /// Its validity.
    pub not_after: Timestamp,
}

/// What is unexpected of a change from `before` to `after` that was seen at `at`, in words. None: nothing is. What was issued
/// here is never unexpected; who asks knows that.
pub fn unexpected(before: &Compared, after: &Compared, at: Timestamp) -> Option<String> {
    let (old, new) = (organisation(&before.issuer), organisation(&after.issuer));
    if old != new {
        return Some(format!("the issuer was {old} and is {new}"));
    }
    let early = part_lived(before.not_before, before.not_after, at).is_some_and(|part| part < RENEWALS_FROM);
    let point = before.not_before.plus(before.not_after.since(before.not_before) / 2);
    (before.spki != after.spki && early)
        .then(|| format!("it has another key, and no renewal was to be expected before {}", point.date()))
}

/// The organisation of a distinguished name, else all of it: one CA signs with many intermediates.
fn organisation(name: &str) -> &str {
    let mut begin = 0;
    let bytes = name.as_bytes();
    for (at, byte) in bytes.iter().enumerate().chain([(bytes.len(), &b',')]) {
        let escaped = at > 0 && bytes.get(at - 1) == Some(&b'\\');
        if matches!(byte, b',' | b'+') && !escaped {
            let part = name.get(begin..at).unwrap_or_default().trim();
            if let Some(organisation) = part.strip_prefix("O=") {
                return organisation;
            }
            begin = at + 1;
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(issuer: &str, key: u8) -> Compared {
        let day = |text| Timestamp::parse(text).unwrap();
        let spki = Hash::of(&[key]);
        Compared { issuer: issuer.into(), spki, not_before: day("2026-01-01"), not_after: day("2026-04-01") }
    }

    #[test]
    fn another_intermediate_of_one_organisation_is_expected_and_another_organisation_is_not() {
        let at = Timestamp::parse("2026-03-20").unwrap();
        let told = |old, new| unexpected(&certificate(old, 1), &certificate(new, 2), at);
        assert_eq!(told("CN=E7, O=Let's Encrypt, C=US", "CN=R12, O=Let's Encrypt, C=US"), None);
        let words = told("CN=E7,O=Let's Encrypt,C=US", "CN=WE1,O=Google\\, Inc,C=US").unwrap();
        assert_eq!(words, "the issuer was Let's Encrypt and is Google\\, Inc");
        assert!(told("CN=one", "CN=two").is_some(), "without an organisation the whole name counts");
    }

    #[test]
    fn another_key_is_unexpected_in_the_first_half_of_a_life() {
        let told =
            |at, key| unexpected(&certificate("O=CA", 1), &certificate("O=CA", key), Timestamp::parse(at).unwrap());
        assert!(told("2026-01-20", 2).unwrap().contains("2026-02-15"));
        assert_eq!(told("2026-01-20", 1), None, "the same key");
        assert_eq!(told("2026-02-20", 2), None, "a renewal");
        assert_eq!(told("2026-04-20", 2), None, "a late renewal");
    }
}
