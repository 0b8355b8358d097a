//! Sealing: HPKE base mode (RFC 9180) with X25519, HKDF-SHA256 and AES-256-GCM. It never keeps a plaintext.

use std::fmt;

use aws_lc_rs::agreement;
use data_encoding::BASE64URL_NOPAD;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256 as SUITE;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::id::{CertificateId, Hash, PublicKey, RingId};

/// The only suite of format 1: KEM 0x0020, KDF 0x0001, AEAD 0x0002.
pub const SUITE_ID: &str = "hpke-0020-0001-0002";

const ENCAPSULATED: usize = 32;

/// Why something did not open or seal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Sealed by a newer program.
    #[error("sealed with suite `{0}`, which this program does not know: upgrade it")]
    UnknownSuite(String),
    /// The authentication failed: another key, another context, or altered bytes.
    #[error("{what} does not open with this identity: sealed for another one, moved from another record, or altered")]
    DoesNotOpen {
        /// What should have opened.
        what: String,
    },
    /// Not the shape of a sealed box, or not a key.
    #[error("{0} is malformed")]
    Malformed(&'static str),
}

/// A private X25519 key that opens what is sealed to its public half; wiped from memory when dropped.
pub struct OpeningKey {
    secret: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl OpeningKey {
    /// A new key, from HPKE's own randomness.
    ///
    /// # Errors
    /// [`SealError::Malformed`] if the library gives no key.
    pub fn generate() -> Result<Self, SealError> {
        let (_, secret) = SUITE.generate_key_pair().map_err(|_| SealError::Malformed("a new X25519 key"))?;
        Self::from_secret(secret.secret_bytes())
    }

    /// From the 32 bytes of an identity file or of an opened ring.
    ///
    /// # Errors
    /// [`SealError::Malformed`] if they are no X25519 key.
    pub fn from_secret(secret: &[u8]) -> Result<Self, SealError> {
        let bad = SealError::Malformed("an X25519 private key");
        let secret: [u8; 32] = secret.try_into().map_err(|_| bad.clone())?;
        let secret = Zeroizing::new(secret);
        let key =
            agreement::PrivateKey::from_private_key(&agreement::X25519, secret.as_ref()).map_err(|_| bad.clone())?;
        let public = key.compute_public_key().map_err(|_| bad.clone())?;
        let public = public.as_ref().try_into().map(PublicKey::from_bytes).map_err(|_| bad)?;
        Ok(Self { secret, public })
    }

    /// The public half: what is sealed to.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The secret bytes, for identity files and for sealing a ring to a recipient.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpeningKey({})", self.public)
    }
}

/// One HPKE message: encapsulated secret, then ciphertext; spelt in base64url, with its suite in front.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedBox(Vec<u8>);

impl fmt::Debug for SealedBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedBox({} bytes)", self.0.len())
    }
}

impl Serialize for SealedBox {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{SUITE_ID}:{}", BASE64URL_NOPAD.encode(&self.0)))
    }
}

impl<'de> Deserialize<'de> for SealedBox {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let text = String::deserialize(deserializer)?;
        let (suite, body) = text.split_once(':').ok_or_else(|| D::Error::custom("a sealed box without its suite"))?;
        if suite != SUITE_ID {
            return Err(D::Error::custom(SealError::UnknownSuite(suite.to_owned())));
        }
        let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(D::Error::custom)?;
        if bytes.len() < ENCAPSULATED + 16 {
            return Err(D::Error::custom("a sealed box that is too short"));
        }
        Ok(Self(bytes))
    }
}

/// What a sealed box is for. Authenticated with it: a box moved to another place does not open.
#[derive(Clone, Copy, Debug)]
pub enum Purpose<'a> {
    /// A certificate's private key (PKCS#8 DER), sealed to a ring.
    CertificateKey {
        /// The tenant.
        tenant: &'a str,
        /// The ring it is sealed to.
        ring: RingId,
        /// The managed certificate.
        certificate: CertificateId,
        /// SHA-256 of the key's SubjectPublicKeyInfo.
        spki: Hash,
    },
    /// A ring's private half, sealed to one recipient.
    Ring {
        /// The tenant.
        tenant: &'a str,
        /// The ring.
        ring: RingId,
    },
    /// The tenant's configuration, sealed to a key of its own.
    Configuration {
        /// The tenant.
        tenant: &'a str,
    },
    /// The private half of the configuration's key, sealed to one manager or to recovery.
    ConfigurationKey {
        /// The tenant.
        tenant: &'a str,
    },
}

impl Purpose<'_> {
    fn info(&self) -> &'static [u8] {
        match self {
            Self::CertificateKey { .. } => b"certbus certificate key 1",
            Self::Ring { .. } => b"certbus ring 1",
            Self::Configuration { .. } => b"certbus configuration 1",
            Self::ConfigurationKey { .. } => b"certbus configuration key 1",
        }
    }

    /// Lines of text; tenant names have no line breaks.
    fn authenticated(&self, to: &PublicKey) -> Vec<u8> {
        match self {
            Self::CertificateKey { tenant, ring, certificate, spki } => {
                format!("{SUITE_ID}\n{tenant}\n{ring}\n{certificate}\n{spki}\n")
            }
            Self::Ring { tenant, ring } => format!("{SUITE_ID}\n{tenant}\n{ring}\n{to}\n"),
            Self::Configuration { tenant } | Self::ConfigurationKey { tenant } => {
                format!("{SUITE_ID}\n{tenant}\n{to}\n")
            }
        }
        .into_bytes()
    }

    fn describe(&self) -> String {
        match self {
            Self::CertificateKey { certificate, .. } => format!("the private key of certificate {certificate}"),
            Self::Ring { ring, .. } => format!("ring {ring}"),
            Self::Configuration { .. } | Self::ConfigurationKey { .. } => "the configuration".to_owned(),
        }
    }
}

/// Seals `plaintext` to `to`.
///
/// # Errors
/// [`SealError::Malformed`] if `to` is not an X25519 public key.
pub fn seal(to: &PublicKey, purpose: Purpose<'_>, plaintext: &[u8]) -> Result<SealedBox, SealError> {
    let (encapsulated, ciphertext) = SUITE
        .seal(purpose.info(), &purpose.authenticated(to), plaintext, &HpkePublicKey(to.as_bytes().to_vec()))
        .map_err(|_| SealError::Malformed("the public key to seal to"))?;
    Ok(SealedBox([encapsulated.0, ciphertext].concat()))
}

/// Opens a box with the private half of the key it was sealed to.
///
/// # Errors
/// [`SealError::DoesNotOpen`] for another key, another purpose or altered bytes: never a wrong plaintext.
pub fn open(with: &OpeningKey, purpose: Purpose<'_>, sealed: &SealedBox) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let refuse = || SealError::DoesNotOpen { what: purpose.describe() };
    let (encapsulated, ciphertext) = sealed.0.split_at_checked(ENCAPSULATED).ok_or_else(refuse)?;
    let mut secret = with.secret.to_vec();
    let key = HpkePrivateKey::from(std::mem::take(&mut secret));
    secret.zeroize();
    SUITE
        .open(
            &EncapsulatedSecret(encapsulated.to_vec()),
            purpose.info(),
            &purpose.authenticated(&with.public),
            ciphertext,
            &key,
        )
        .map(Zeroizing::new)
        .map_err(|_| refuse())
}

/// A key of someone, sealed for one holder among several: how rings and the configuration reach their readers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedFor {
    /// Whose public key it is sealed to.
    pub to: PublicKey,
    /// The sealed private key.
    pub sealed: SealedBox,
}

/// A certificate's private key, sealed to a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// The ring whose private half opens it.
    pub ring: RingId,
    /// The sealed PKCS#8 DER.
    pub sealed: SealedBox,
}

/// Text sealed to several holders at once: the configuration. One box to a fresh key, that key once to each holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedText {
    /// The text, sealed to a key made for it.
    pub sealed: SealedBox,
    /// That key's private half, sealed to each holder.
    pub keys: Vec<SealedFor>,
}

impl SealedText {
    /// Seals `text` to every one of `holders`.
    ///
    /// # Errors
    /// [`SealError::Malformed`] naming a public key that is none.
    pub fn seal(tenant: &str, text: &str, holders: &[PublicKey]) -> Result<Self, SealError> {
        let key = OpeningKey::generate()?;
        let keys = holders
            .iter()
            .map(|to| Ok(SealedFor { to: *to, sealed: seal(to, Purpose::ConfigurationKey { tenant }, key.secret())? }))
            .collect::<Result<_, SealError>>()?;
        Ok(Self { sealed: seal(&key.public(), Purpose::Configuration { tenant }, text.as_bytes())?, keys })
    }

    /// Opens it as one of the holders.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`] if `with` is not one of them.
    pub fn open(&self, tenant: &str, with: &OpeningKey) -> Result<Zeroizing<String>, SealError> {
        let refuse = || SealError::DoesNotOpen { what: "the configuration".into() };
        let mine = self.keys.iter().find(|held| held.to == with.public()).ok_or_else(refuse)?;
        let key = OpeningKey::from_secret(&open(with, Purpose::ConfigurationKey { tenant }, &mine.sealed)?)?;
        let text = open(&key, Purpose::Configuration { tenant }, &self.sealed)?;
        String::from_utf8(text.to_vec()).map(Zeroizing::new).map_err(|_| SealError::Malformed("the configuration"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purpose(certificate: u8) -> Purpose<'static> {
        Purpose::CertificateKey {
            tenant: "default",
            ring: RingId::from_bytes([1; 8]),
            certificate: CertificateId::from_bytes([certificate; 8]),
            spki: Hash::of(b"spki"),
        }
    }

    #[test]
    fn what_is_sealed_opens_only_with_its_key_its_purpose_and_its_bytes() {
        let key = OpeningKey::generate().unwrap();
        let sealed = seal(&key.public(), purpose(1), b"private").unwrap();
        assert_eq!(open(&key, purpose(1), &sealed).unwrap().as_slice(), b"private");

        let other = OpeningKey::generate().unwrap();
        assert!(matches!(open(&other, purpose(1), &sealed), Err(SealError::DoesNotOpen { .. })));
        assert!(matches!(open(&key, purpose(2), &sealed), Err(SealError::DoesNotOpen { .. })), "swapped record");
        for at in 0..sealed.0.len() {
            let mut bent = sealed.clone();
            bent.0[at] ^= 1;
            assert!(open(&key, purpose(1), &bent).is_err(), "flipped bit in byte {at}");
        }
    }

    #[test]
    fn a_box_of_an_unknown_suite_asks_for_an_upgrade() {
        let error = serde_json::from_str::<SealedBox>("\"hpke-9999-0001-0002:AAAA\"").unwrap_err().to_string();
        assert!(error.contains("upgrade"), "{error}");
    }

    #[test]
    fn a_configuration_opens_for_each_holder_and_nobody_else() {
        let (a, b, c) =
            (OpeningKey::generate().unwrap(), OpeningKey::generate().unwrap(), OpeningKey::generate().unwrap());
        let sealed = SealedText::seal("default", "x = 1", &[a.public(), b.public()]).unwrap();
        assert_eq!(sealed.open("default", &a).unwrap().as_str(), "x = 1");
        assert_eq!(sealed.open("default", &b).unwrap().as_str(), "x = 1");
        assert!(sealed.open("default", &c).is_err());
        assert!(sealed.open("other", &a).is_err());
    }
}
