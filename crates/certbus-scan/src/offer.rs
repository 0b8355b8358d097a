//! What a probe offers to a server: versions, kinds of key, and the words that an observation keeps of it, so that like is
//! compared with like. It writes no bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Version {
    /// TLS 1.0 (RFC 2246).
    #[serde(rename = "1.0")]
    Tls10,
    /// TLS 1.1 (RFC 4346).
    #[serde(rename = "1.1")]
    Tls11,
    /// TLS 1.2 (RFC 5246).
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    Tls13,
}

/// Which kind of certificate is asked for, of a server that has several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keys {
    /// The server chooses.
    #[default]
    Any,
    /// Only signatures of ECDSA and EdDSA are offered.
    Ecdsa,
    /// Only signatures of RSA are offered.
    Rsa,
}

/// The lowest and highest version of a ClientHello, and the kinds of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hello {
    /// The lowest version offered.
    pub lowest: Version,
    /// The highest version offered.
    pub highest: Version,
    /// The kinds of key.
    pub keys: Keys,
}

/// What was offered, as an observation says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Newest first.
    pub versions: Vec<Version>,
    /// Names of the IANA registry, in the order they were offered.
    pub signature_algorithms: Vec<String>,
    /// Application protocols (RFC 7301); the quick look offers none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::Tls10, Self::Tls11, Self::Tls12, Self::Tls13];

    /// The two bytes on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::Tls10 => 0x0301,
            Self::Tls11 => 0x0302,
            Self::Tls12 => 0x0303,
            Self::Tls13 => 0x0304,
        }
    }

    /// From the two bytes on the wire.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.number() == number)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls10 => "1.0",
            Self::Tls11 => "1.1",
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        })
    }
}

impl FromStr for Version {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|version| version.to_string() == text);
        found.ok_or_else(|| format!("`{text}` is not a version of TLS; write 1.0, 1.1, 1.2 or 1.3"))
    }
}

impl Hello {
    /// Every version, and every kind of key.
    pub const ANY: Self = Self { lowest: Version::Tls10, highest: Version::Tls13, keys: Keys::Any };

    /// Whether a version is within the offer.
    pub fn has(&self, version: Version) -> bool {
        self.lowest <= version && version <= self.highest
    }

    /// Newest first.
    pub fn versions(&self) -> impl Iterator<Item = Version> + '_ {
        Version::ALL.into_iter().rev().filter(|version| self.has(*version))
    }

    /// The signature algorithms of the quick look.
    pub(crate) fn signature_algorithms(&self) -> impl Iterator<Item = u16> {
        let keys = self.keys;
        let wanted = move |(number, _): &&(u16, &str)| match keys {
            Keys::Any => true,
            Keys::Ecdsa => is_elliptic(*number),
            Keys::Rsa => !is_elliptic(*number),
        };
        SIGNATURE_ALGORITHMS.iter().filter(wanted).map(|(number, _)| *number)
    }

    /// What an observation says of a quick look with this offer.
    pub fn described(&self) -> Offer {
        Offer {
            versions: self.versions().collect(),
            signature_algorithms: self.signature_algorithms().map(signature_algorithm_name).collect(),
            alpn: Vec::new(),
        }
    }
}

/// ECDSA or EdDSA, of the schemes below and those of rustls.
pub(crate) fn is_elliptic(scheme: u16) -> bool {
    matches!(scheme, 0x0403 | 0x0503 | 0x0603 | 0x0807 | 0x0808 | 0x0203)
}

/// The registry's name (IANA TLS SignatureScheme).
pub(crate) fn signature_algorithm_name(number: u16) -> String {
    let found = SIGNATURE_ALGORITHMS.iter().chain(OTHERS).find(|(known, _)| *known == number);
    found.map_or_else(|| format!("0x{number:04x}"), |(_, name)| (*name).to_owned())
}

/// In the order they are offered: elliptic first, as browsers do.
const SIGNATURE_ALGORITHMS: &[(u16, &str)] = &[
    (0x0403, "ecdsa_secp256r1_sha256"),
    (0x0503, "ecdsa_secp384r1_sha384"),
    (0x0603, "ecdsa_secp521r1_sha512"),
    (0x0807, "ed25519"),
    (0x0808, "ed448"),
    (0x0804, "rsa_pss_rsae_sha256"),
    (0x0805, "rsa_pss_rsae_sha384"),
    (0x0806, "rsa_pss_rsae_sha512"),
    (0x0809, "rsa_pss_pss_sha256"),
    (0x080a, "rsa_pss_pss_sha384"),
    (0x080b, "rsa_pss_pss_sha512"),
    (0x0401, "rsa_pkcs1_sha256"),
    (0x0501, "rsa_pkcs1_sha384"),
    (0x0601, "rsa_pkcs1_sha512"),
    (0x0203, "ecdsa_sha1"),
    (0x0201, "rsa_pkcs1_sha1"),
];

/// What only the full way offers (draft-ietf-tls-mldsa).
const OTHERS: &[(u16, &str)] = &[(0x0904, "mldsa44"), (0x0905, "mldsa65"), (0x0906, "mldsa87")];
