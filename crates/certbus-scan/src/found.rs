//! What a probe found: the chain as served, what was negotiated, and how much of it is proved.

use std::fmt;

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::offer::Version;

/// A certificate that a server presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As served: the leaf first if the server is right, never reordered here, at least one.
    pub chain: Vec<CertificateDer<'static>>,
    /// What was negotiated.
    pub version: Version,
    /// What was negotiated.
    pub cipher_suite: CipherSuite,
    /// How much is proved.
    pub proof: Proof,
    /// Why it is less than was asked for.
    pub shortfall: Option<String>,
}

/// How much a probe proves about the key of the certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Nothing: whoever answered presented it.
    Presented,
    /// It signed this handshake, over our random.
    Signed,
    /// The handshake was finished, and its Finished message verified.
    Finished,
}

/// A cipher suite, by its number. Spelt as the IANA registry spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CipherSuite(pub u16);

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Presented => "presented",
            Self::Signed => "signed",
            Self::Finished => "finished",
        })
    }
}

impl fmt::Display for CipherSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match rustls::CipherSuite::from(self.0).as_str() {
            // rustls says TLS13 where the registry says TLS.
            Some(name) => f.write_str(&name.replace("TLS13_", "TLS_")),
            None => write!(f, "0x{:04x}", self.0),
        }
    }
}

impl Serialize for CipherSuite {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CipherSuite {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = text.strip_prefix("0x").and_then(|hex| u16::from_str_radix(hex, 16).ok());
        let named = || (0..=u16::MAX).find(|number| CipherSuite(*number).to_string() == text);
        number.or_else(named).map(Self).ok_or_else(|| serde::de::Error::custom(format!("no cipher suite `{text}`")))
    }
}
