//! What a leaf says of itself (RFC 5280), and what is weak in a chain. It asks nobody whether that is true.

use certbus_core::certificate::{Facts, key_words, signature_words};
use certbus_core::overdue::overdue_from;
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::{DistributionPointName, GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Problem;
use rustls::pki_types::CertificateDer;

/// What a leaf says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// Its distinguished name (RFC 4514).
    pub subject: String,
    /// Its issuer's.
    pub issuer: String,
    /// Hex, as it stands in the certificate.
    pub serial: String,
    /// DNS names and addresses of its subject alternative name.
    pub names: Vec<String>,
    /// Its validity.
    pub not_before: Timestamp,
    /// Its validity.
    pub not_after: Timestamp,
    /// `RSA 2048`, `P-256`, `Ed25519` …
    pub key: String,
    /// The algorithm that its issuer signed it with.
    pub signature: String,
    /// Whether it may also log in as a client (extended key usage clientAuth), which public CAs no longer issue.
    pub client_auth: bool,
    /// Whether it may be a server's: extended key usage serverAuth, or none at all.
    pub server_auth: bool,
    /// Whether its key may sign a handshake: key usage digitalSignature, or none at all.
    pub digital_signature: bool,
}

/// Where a certificate says that more can be had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// Its issuer's certificate.
    pub issuers: Vec<String>,
    /// Revocation lists.
    pub crls: Vec<String>,
}

impl Leaf {
    /// Reads a certificate; None if it does not parse.
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let usage = certificate.extended_key_usage().ok().flatten();
        // Not `any`: who verifies a server does not take it (RFC 5280 section 4.2.1.12 lets him).
        let may = |purpose: bool| usage.is_none() || purpose;
        let key_usage = certificate.key_usage().ok().flatten();
        let facts = Facts::of(der, &certificate);
        Some(Self {
            subject: facts.subject,
            issuer: facts.issuer,
            serial: facts.serial,
            names: facts.names,
            not_before: facts.not_before,
            not_after: facts.not_after,
            key: facts.key,
            signature: facts.signature,
            client_auth: usage.as_ref().is_some_and(|usage| usage.value.client_auth),
            server_auth: may(usage.as_ref().is_some_and(|usage| usage.value.server_auth)),
            digital_signature: key_usage.is_none_or(|usage| usage.value.digital_signature()),
        })
    }

    /// Seconds left, and the part of its life that they are.
    pub(super) fn left(&self, now: Timestamp) -> (f64, f64) {
        let left = (self.not_after.millis() - now.millis()) as f64;
        let life = (self.not_after.millis() - self.not_before.millis()).max(1) as f64;
        (left / 1000.0, (left / life).min(1.0))
    }

    pub(super) fn is_overdue(&self, now: Timestamp) -> bool {
        now > overdue_from(self.not_before, self.not_after, &[])
    }

    pub(super) fn time_problem(&self, now: Timestamp) -> Option<Problem> {
        match () {
            () if now > self.not_after => Some(Problem::Expired),
            () if now < self.not_before => Some(Problem::NotYetValid),
            () => None,
        }
    }

    pub(super) fn usage_problem(&self) -> Option<Problem> {
        (!self.server_auth).then(|| Problem::Usage { why: "extended key usage without serverAuth".into() })
    }

    /// Clients do not look, and no client's RSA key exchange is left to need such a key.
    pub(super) fn usage_weakness(&self) -> Option<Problem> {
        let why = "key usage without digitalSignature, which every modern handshake makes";
        (!self.digital_signature).then(|| Problem::Usage { why: why.into() })
    }
}

/// Where a certificate says that its issuer's certificate and revocation lists are.
pub fn links(der: &CertificateDer<'_>) -> Links {
    let mut links = Links::default();
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return links };
    for extension in certificate.extensions() {
        match extension.parsed_extension() {
            ParsedExtension::AuthorityInfoAccess(access) => {
                // id-ad-caIssuers
                let issuers =
                    access.accessdescs.iter().filter(|one| one.access_method.to_id_string() == "1.3.6.1.5.5.7.48.2");
                links.issuers.extend(issuers.filter_map(|one| url(&one.access_location)));
            }
            ParsedExtension::CRLDistributionPoints(points) => {
                for point in &points.points {
                    if let Some(DistributionPointName::FullName(names)) = &point.distribution_point {
                        links.crls.extend(names.iter().filter_map(url));
                    }
                }
            }
            _ => {}
        }
    }
    links
}

/// Keys and signatures of a chain that can be broken. A root's signature of itself proves nothing and may be weak.
pub(super) fn weaknesses(chain: &[CertificateDer<'_>]) -> Vec<Problem> {
    let mut weak = Vec::new();
    for der in chain {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { continue };
        let whose = certificate.subject();
        let (name, is_weak) = key_words(&certificate);
        if is_weak {
            weak.push(Problem::WeakKey { what: format!("{name} of {whose}") });
        }
        let signature = signature_words(&certificate);
        let forgeable = ["md2", "md4", "md5", "sha1"].iter().any(|old| signature.to_ascii_lowercase().contains(old));
        if forgeable && certificate.subject() != certificate.issuer() {
            weak.push(Problem::WeakSignature { what: format!("{signature} on {whose}") });
        }
    }
    weak
}

/// Longer ones are not followed, and spoil no table.
const LONGEST_URL: usize = 2048;

fn url(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::URI(url) if url.starts_with("http://") || url.starts_with("https://") => {
            let plain = url.len() <= LONGEST_URL && !url.chars().any(char::is_control);
            plain.then(|| (*url).to_owned())
        }
        _ => None,
    }
}
