//! What is read out of a certificate chain that a CA gave: its leaf, key and names. It builds no trust path.

use std::collections::BTreeSet;

use certbus_core::name::DnsName;
use instant_acme::CertificateIdentifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::parse_x509_certificate;

use crate::error::IssueError;
use crate::key::SigningRequest;

/// The identifier of a certificate for its renewal window (RFC 9773 section 4.1): `base64url(AKI).base64url(serial)`.
/// None where the leaf cannot be read or names no authority key.
pub fn ari_certificate_id(chain_pem: &str) -> Option<String> {
    let leaf = leaf(chain_pem).ok()?;
    Some(CertificateIdentifier::try_from(&leaf).ok()?.to_string())
}

/// The first certificate of a chain.
pub(crate) fn leaf(chain_pem: &str) -> Result<CertificateDer<'static>, IssueError> {
    match CertificateDer::pem_slice_iter(chain_pem.as_bytes()).next() {
        Some(Ok(leaf)) => Ok(leaf),
        Some(Err(error)) => Err(mismatch(format!("it is not PEM: {error}"))),
        None => Err(mismatch("it has no certificate in it".into())),
    }
}

/// Whether the chain's leaf carries the requested key and all the requested names.
pub(crate) fn check(chain_pem: &str, request: &SigningRequest) -> Result<(), IssueError> {
    let der = leaf(chain_pem)?;
    let (_, leaf) = parse_x509_certificate(&der).map_err(|error| mismatch(error.to_string()))?;
    if leaf.public_key().raw != request.spki {
        return Err(mismatch("it is for another key".into()));
    }
    let asked: BTreeSet<String> = request.names.iter().map(DnsName::to_string).collect();
    let san = leaf.subject_alternative_name().map_err(|error| mismatch(error.to_string()))?;
    let given: BTreeSet<String> = san
        .into_iter()
        .flat_map(|san| &san.value.general_names)
        .filter_map(|name| match name {
            x509_parser::extensions::GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if !asked.is_subset(&given) {
        return Err(mismatch(format!("it is for {given:?}, asked was {asked:?}")));
    }
    Ok(())
}

fn mismatch(why: String) -> IssueError {
    IssueError::ChainMismatch { why }
}
