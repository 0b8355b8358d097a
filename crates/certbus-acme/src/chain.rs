//! What is read out of a certificate chain that a CA gave: its leaf, key and names. It builds no trust path.

use certbus_core::id::Hash;
use certbus_core::name::NameSet;
use certbus_core::x509::{ChainPemError, ParsedChain};
use instant_acme::CertificateIdentifier;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

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

/// Whether the chain is whole, and its leaf carries the requested key and all the requested names.
pub(crate) fn check(chain_pem: &str, request: &SigningRequest) -> Result<(), IssueError> {
    let refuse = |error: ChainPemError| mismatch(error.to_string());
    let chain = ParsedChain::parse(chain_pem).map_err(refuse)?;
    chain.check(Hash::of(&request.spki), &NameSet::new(&request.names)).map_err(refuse)?;
    chain.check_links().map_err(refuse)
}

fn mismatch(why: String) -> IssueError {
    IssueError::ChainMismatch { why }
}
