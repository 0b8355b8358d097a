//! What a person asks for: key type, challenge, and the closed sets they come from.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kind of key a certificate is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum KeyType {
    /// ECDSA on P-256: the default.
    #[default]
    #[serde(rename = "p256")]
    P256,
    /// ECDSA on P-384.
    #[serde(rename = "p384")]
    P384,
    /// RSA, 2048 bits.
    #[serde(rename = "rsa2048")]
    Rsa2048,
    /// RSA, 3072 bits.
    #[serde(rename = "rsa3072")]
    Rsa3072,
    /// RSA, 4096 bits.
    #[serde(rename = "rsa4096")]
    Rsa4096,
}

/// How control of a name is shown to the CA (RFC 8555 section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Challenge {
    /// A TXT record under `_acme-challenge` (RFC 8555 section 8.4). Needed for wildcards.
    #[serde(rename = "dns-01")]
    Dns01,
    /// A file under `/.well-known/acme-challenge/` (RFC 8555 section 8.3).
    #[serde(rename = "http-01")]
    Http01,
}

/// A word that is not in a closed set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {what}; write one of: {allowed}")]
pub struct UnknownWord {
    given: String,
    what: &'static str,
    allowed: &'static str,
}

impl KeyType {
    /// The word used in settings, on the command line and in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
        }
    }
}

impl Challenge {
    /// The word of RFC 8555.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dns01 => "dns-01",
            Self::Http01 => "http-01",
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for KeyType {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::P256, Self::P384, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| UnknownWord {
                given: word.to_owned(),
                what: "a key type",
                allowed: "p256, p384, rsa2048, rsa3072, rsa4096",
            })
    }
}

impl FromStr for Challenge {
    type Err = UnknownWord;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        [Self::Dns01, Self::Http01].into_iter().find(|kind| kind.as_str() == word).ok_or_else(|| UnknownWord {
            given: word.to_owned(),
            what: "a challenge",
            allowed: "dns-01, http-01",
        })
    }
}
