//! Identifiers and hashes, each a type of its own and each with exactly one spelling.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}")]
pub struct IdError {
    /// What was given.
    pub text: String,
    /// What was expected, with its shape.
    pub what: &'static str,
}

macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident, $len:literal, $encoding:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// From its bytes.
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&$encoding.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $encoding
                    .decode(text.as_bytes())
                    .ok()
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or_else(|| IdError { text: text.to_owned(), what: $what })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

bytes_type!(
    /// The id of a managed certificate: 8 random bytes, 11 characters of base64url, never a leading `-` (so that it
    /// is never taken for an option).
    CertificateId, 8, BASE64URL_NOPAD, "a certificate id (11 characters, as `cert ls` prints them)"
);
bytes_type!(
    /// SHA-256, spelt in lower-case hex: of a batch's envelope, an event, a statement, or a leaf (its *fingerprint*).
    Hash, 32, HEXLOWER, "a SHA-256 in lower-case hex (64 characters)"
);
bytes_type!(
    /// The random id of a tenant's log, said by its first statement and pinned in every identity file.
    LogId, 16, HEXLOWER, "a log id (32 hex characters)"
);
bytes_type!(
    /// The random id of one batch: how a writer finds out whether an append of unknown outcome was stored.
    BatchId, 16, HEXLOWER, "a batch id (32 hex characters)"
);
bytes_type!(
    /// The random id of a ring.
    RingId, 8, HEXLOWER, "a ring id (16 hex characters)"
);
bytes_type!(
    /// An Ed25519 or X25519 public key, spelt in base64url.
    PublicKey, 32, BASE64URL_NOPAD, "a public key (43 characters of base64url)"
);

/// The SHA-256 of a leaf certificate's DER: names one version.
pub type Fingerprint = Hash;

impl CertificateId {
    /// From random bytes; None for the one in 64 whose spelling would begin with `-` (draw again).
    pub fn from_random(bytes: [u8; 8]) -> Option<Self> {
        let id = Self(bytes);
        (!id.to_string().starts_with('-')).then_some(id)
    }
}

impl Hash {
    /// What stands before the first of a chain.
    pub const ZERO: Hash = Hash([0; 32]);

    /// The SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self(out)
    }
}

/// The two streams of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    /// What load balancers read.
    Certs,
    /// Requests, claims, orders, failures, configuration: managers only.
    Work,
}

impl StreamKind {
    /// Both streams.
    pub const ALL: [StreamKind; 2] = [StreamKind::Certs, StreamKind::Work];

    /// `certs` or `work`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Certs => "certs",
            Self::Work => "work",
        }
    }
}

impl fmt::Display for StreamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A place in a stream: after the batch with this sequence number, whose envelope has this hash. Equal on every engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// 0 before the first batch, then 1, 2, 3 …
    pub seq: u64,
    /// The hash of that batch; [`Hash::ZERO`] before the first.
    pub hash: Hash,
}

impl Cursor {
    /// Before the first batch.
    pub const START: Cursor = Cursor { seq: 0, hash: Hash::ZERO };
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Cursor {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError { text: text.to_owned(), what: "a place: a number, `:`, and 64 hexadecimal digits" };
        let (seq, hash) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self { seq: seq.parse().map_err(|_| wrong())?, hash: hash.parse().map_err(|_| wrong())? })
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_id_has_11_characters_and_no_leading_dash() {
        for first in 0..=255_u8 {
            let drawn = CertificateId::from_random([first, 1, 2, 3, 4, 5, 6, 7]);
            assert_eq!(drawn.is_none(), first >> 2 == 62);
            if let Some(id) = drawn {
                assert_eq!(id.to_string().len(), 11);
                assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
        assert!("nd3oD6CfiY0".parse::<CertificateId>().is_ok());
        assert!("nd3oD6CfiY".parse::<CertificateId>().is_err());
    }
}
