//! What any certificate says of itself (RFC 5280), also one that a CA would refuse today. It asks nobody whether that is
//! true.

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::id::{Fingerprint, Hash};
use crate::time::Timestamp;

/// What is kept of a certificate beside its DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// SHA-256 of the DER.
    pub fingerprint: Fingerprint,
    /// SHA-256 of its SubjectPublicKeyInfo.
    pub spki: Hash,
    /// Its distinguished name (RFC 4514).
    pub subject: String,
    /// Its issuer's.
    pub issuer: String,
    /// Hex, as it stands in the certificate.
    pub serial: String,
    /// DNS names and addresses of its subject alternative name, in their order.
    pub names: Vec<String>,
    /// Its validity.
    pub not_before: Timestamp,
    /// Its validity.
    pub not_after: Timestamp,
    /// `RSA 2048`, `P-256`, `Ed25519` …
    pub key: String,
    /// The algorithm that its issuer signed it with.
    pub signature: String,
}

impl Facts {
    /// Reads a certificate; one that does not parse has a fingerprint and no words.
    pub fn read(der: &[u8]) -> Self {
        match X509Certificate::from_der(der) {
            Ok((_, certificate)) => Self::of(der, &certificate),
            Err(_) => Self {
                fingerprint: Hash::of(der),
                spki: Hash::ZERO,
                subject: String::new(),
                issuer: String::new(),
                serial: String::new(),
                names: Vec::new(),
                not_before: Timestamp::default(),
                not_after: Timestamp::default(),
                key: String::new(),
                signature: String::new(),
            },
        }
    }

    /// Of a certificate that was parsed from `der`.
    pub fn of(der: &[u8], certificate: &X509Certificate<'_>) -> Self {
        let names = certificate.subject_alternative_name().ok().flatten();
        let validity = certificate.validity();
        Self {
            fingerprint: Hash::of(der),
            spki: Hash::of(certificate.public_key().raw),
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            serial: data_encoding::HEXLOWER.encode(certificate.raw_serial()),
            names: names.map_or_else(Vec::new, |n| n.value.general_names.iter().filter_map(spelt).collect()),
            not_before: Timestamp::from_seconds(validity.not_before.timestamp()),
            not_after: Timestamp::from_seconds(validity.not_after.timestamp()),
            key: key_words(certificate).0,
            signature: signature_words(certificate),
        }
    }
}

/// A public key in words, and whether it is weak (NIST SP 800-57: less than 112 bits of strength).
pub fn key_words(certificate: &X509Certificate<'_>) -> (String, bool) {
    let info = certificate.public_key();
    let oid = info.algorithm.algorithm.to_id_string();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => (format!("RSA {}", key.key_size()), key.key_size() < 2048),
        Ok(PublicKey::EC(point)) => match point.key_size() {
            size @ (256 | 384) => (format!("P-{size}"), false),
            // 66 bytes hold 521 bits.
            528 | 521 => ("P-521".into(), false),
            size => (format!("EC {size}"), size < 224),
        },
        Ok(PublicKey::DSA(_)) => ("DSA".into(), true),
        _ => match oid.as_str() {
            "1.3.101.112" => ("Ed25519".into(), false),
            "1.3.101.113" => ("Ed448".into(), false),
            _ => (oid, false),
        },
    }
}

/// The algorithm that a certificate is signed with, as its RFC names it; else its object identifier.
pub fn signature_words(certificate: &X509Certificate<'_>) -> String {
    let oid = certificate.signature_algorithm.algorithm.to_id_string();
    let name = match oid.as_str() {
        "1.2.840.113549.1.1.2" => "md2WithRSAEncryption",
        "1.2.840.113549.1.1.4" => "md5WithRSAEncryption",
        "1.2.840.113549.1.1.5" => "sha1WithRSAEncryption",
        "1.2.840.113549.1.1.10" => "rsassaPss",
        "1.2.840.113549.1.1.11" => "sha256WithRSAEncryption",
        "1.2.840.113549.1.1.12" => "sha384WithRSAEncryption",
        "1.2.840.113549.1.1.13" => "sha512WithRSAEncryption",
        "1.2.840.10040.4.3" => "dsaWithSha1",
        "1.2.840.10045.4.1" => "ecdsa-with-SHA1",
        "1.2.840.10045.4.3.2" => "ecdsa-with-SHA256",
        "1.2.840.10045.4.3.3" => "ecdsa-with-SHA384",
        "1.2.840.10045.4.3.4" => "ecdsa-with-SHA512",
        "1.3.101.112" => "Ed25519",
        "1.3.101.113" => "Ed448",
        _ => &oid,
    };
    name.to_owned()
}

/// A DNS name or address of a subject alternative name, as people write it.
fn spelt(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(std::net::IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(std::net::IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}
