//! What a certificate says of itself (RFC 5280): read once, when it is obtained or adopted.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::id::{Fingerprint, Hash};
use crate::name::{DnsName, NameSet};
use crate::time::Timestamp;

/// A chain, parsed: leaf first.
#[derive(Clone, Debug)]
pub struct ParsedChain {
    /// DER of each certificate.
    pub certificates: Vec<CertificateDer<'static>>,
    /// SHA-256 of the leaf.
    pub fingerprint: Fingerprint,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    pub spki: Hash,
    /// The leaf's dNSName SANs.
    pub names: NameSet,
    /// The leaf's validity.
    pub not_before: Timestamp,
    /// The leaf's validity.
    pub not_after: Timestamp,
    /// For people.
    pub issuer: Arc<str>,
    /// Hex.
    pub serial: Arc<str>,
}

/// Why a chain cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainPemError {
    /// Not PEM certificates.
    #[error("the chain is not PEM certificates: {0}")]
    NotPem(String),
    /// A certificate's DER does not parse.
    #[error("certificate {number} of the chain does not parse: {why}")]
    BadDer {
        /// Counted from 1, the leaf.
        number: usize,
        /// The parser's words.
        why: String,
    },
    /// The leaf is for other names.
    #[error("the certificate is for {found}, and {wanted} is not covered")]
    NotCovered {
        /// What it has.
        found: String,
        /// What is missing.
        wanted: String,
    },
    /// The leaf is for another key.
    #[error("the certificate is for another key than the one it was ordered with")]
    OtherKey,
    /// A certificate that has nothing to do in this chain.
    #[error(
        "certificate {number} of the chain, {subject}, has signed none before it: clients would find no way to a root"
    )]
    Stranger {
        /// Counted from 1, the leaf.
        number: usize,
        /// Who it is.
        subject: String,
    },
}

impl ParsedChain {
    /// Parses PEM text.
    ///
    /// # Errors
    /// [`ChainPemError::NotPem`], [`ChainPemError::BadDer`].
    pub fn parse(pem: &str) -> Result<Self, ChainPemError> {
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| ChainPemError::NotPem(e.to_string()))?;
        for (index, der) in certificates.iter().enumerate() {
            let bad = |why: String| ChainPemError::BadDer { number: index + 1, why };
            X509Certificate::from_der(der).map_err(|e| bad(e.to_string()))?;
        }
        let leaf = certificates.first().ok_or_else(|| ChainPemError::NotPem("there is none in it".into()))?;
        let bad = |why: String| ChainPemError::BadDer { number: 1, why };
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| bad(e.to_string()))?;
        let sans = parsed.subject_alternative_name().map_err(|e| bad(e.to_string()))?;
        let names: Vec<DnsName> = sans
            .iter()
            .flat_map(|san| &san.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => DnsName::parse(name).ok(),
                _ => None,
            })
            .collect();
        Ok(Self {
            fingerprint: Hash::of(leaf),
            spki: Hash::of(parsed.public_key().raw),
            names: NameSet::new(&names),
            not_before: Timestamp::from_seconds(parsed.validity().not_before.timestamp()),
            not_after: Timestamp::from_seconds(parsed.validity().not_after.timestamp()),
            issuer: parsed.issuer().to_string().into(),
            serial: parsed.raw_serial_as_string().replace(':', "").into(),
            certificates,
        })
    }

    /// That each certificate has signed one before it (RFC 8555 section 9.1), so that the leaf leads upwards. Whether to a
    /// root that somebody trusts is not asked.
    ///
    /// # Errors
    /// [`ChainPemError::Stranger`], [`ChainPemError::BadDer`].
    pub fn check_links(&self) -> Result<(), ChainPemError> {
        let parsed = self.certificates.iter().enumerate().map(|(index, der)| {
            let bad = |why: String| ChainPemError::BadDer { number: index + 1, why };
            X509Certificate::from_der(der).map(|(_, certificate)| certificate).map_err(|e| bad(e.to_string()))
        });
        let parsed: Vec<X509Certificate<'_>> = parsed.collect::<Result<_, _>>()?;
        for (index, issuer) in parsed.iter().enumerate().skip(1) {
            let signed = |below: &X509Certificate<'_>| {
                below.issuer() == issuer.subject()
                    && match below.verify_signature(Some(issuer.public_key())) {
                        // Of algorithms that are not known here the names alone speak.
                        Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
                        Err(_) => false,
                    }
            };
            if !parsed.iter().take(index).any(signed) {
                return Err(ChainPemError::Stranger { number: index + 1, subject: issuer.subject().to_string() });
            }
        }
        Ok(())
    }

    /// Invariant 5: the leaf is for this key and covers these names.
    ///
    /// # Errors
    /// [`ChainPemError::OtherKey`], [`ChainPemError::NotCovered`].
    pub fn check(&self, spki: Hash, names: &NameSet) -> Result<(), ChainPemError> {
        if self.spki != spki {
            return Err(ChainPemError::OtherKey);
        }
        match names.iter().find(|wanted| !self.names.iter().any(|has| has == *wanted)) {
            None => Ok(()),
            Some(wanted) => Err(ChainPemError::NotCovered { found: self.names.to_string(), wanted: wanted.to_owned() }),
        }
    }
}
