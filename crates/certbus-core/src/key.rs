//! Ed25519 signing keys and the domains they sign in. A signature covers stored bytes, never re-encoded ones.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::id::PublicKey;

/// What kind of bytes a signature speaks for: put in front of them, so that none can be passed off as another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// The envelope of a batch, by a writer.
    Batch,
    /// A statement, by the authority.
    Statement,
    /// A change of authority, by the new one: it accepts the whole history before it.
    Acceptance,
    /// A snapshot's manifest, by a writer.
    Snapshot,
}

impl Domain {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Batch => b"certbus batch 1\0",
            Self::Statement => b"certbus statement 1\0",
            Self::Acceptance => b"certbus acceptance 1\0",
            Self::Snapshot => b"certbus snapshot 1\0",
        }
    }

    fn message(self, bytes: &[u8]) -> Vec<u8> {
        [self.prefix(), bytes].concat()
    }
}

/// A private Ed25519 key (RFC 8032), wiped from memory when dropped.
pub struct SigningKey {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
    public: PublicKey,
}

/// A key that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a usable Ed25519 private key")]
pub struct BadKey;

impl SigningKey {
    /// From 32 random bytes.
    ///
    /// # Errors
    /// [`BadKey`] if the library refuses them.
    pub fn from_seed(seed: [u8; 32]) -> Result<Self, BadKey> {
        let seed = Zeroizing::new(seed);
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| BadKey)?;
        let public = pair.public_key().as_ref().try_into().map(PublicKey::from_bytes).map_err(|_| BadKey)?;
        Ok(Self { seed, pair, public })
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The seed, for identity files only.
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// Signs `bytes` in `domain`.
    pub fn sign(&self, domain: Domain, bytes: &[u8]) -> Signature {
        let mut out = [0; 64];
        out.copy_from_slice(self.pair.sign(&domain.message(bytes)).as_ref());
        Signature(out)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public)
    }
}

/// An Ed25519 signature, spelt in base64url.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

impl Signature {
    /// Whether `signer` made this signature over `bytes` in `domain`.
    pub fn verifies(&self, signer: &PublicKey, domain: Domain, bytes: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, signer.as_bytes()).verify(&domain.message(bytes), &self.0).is_ok()
    }

    /// Reads the spelling that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64URL_NOPAD.encode(&self.0))
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Signature {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Signature::parse(&String::deserialize(deserializer)?)
            .ok_or_else(|| serde::de::Error::custom("not an Ed25519 signature in base64url"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_only_for_its_bytes_signer_and_domain() {
        let key = SigningKey::from_seed([7; 32]).unwrap();
        let other = SigningKey::from_seed([8; 32]).unwrap();
        let signature = key.sign(Domain::Batch, b"bytes");
        assert!(signature.verifies(&key.public(), Domain::Batch, b"bytes"));
        assert!(!signature.verifies(&key.public(), Domain::Batch, b"bytez"));
        assert!(!signature.verifies(&key.public(), Domain::Statement, b"bytes"));
        assert!(!signature.verifies(&other.public(), Domain::Batch, b"bytes"));
    }

    #[test]
    fn invariant_1_a_signing_key_shows_only_its_public_half() {
        let shown = format!("{:?}", SigningKey::from_seed([7; 32]).unwrap());
        assert!(!shown.contains(&BASE64URL_NOPAD.encode(&[7; 32])) && !shown.contains("7, 7"), "{shown}");
    }
}
