//! The Certificate message (RFC 8446 section 4.4.2, RFC 5246 section 7.4.2): the chain as served, in the server's order.

use rustls::pki_types::CertificateDer;

use crate::bytes::Reader;
use crate::failure::{Failure, Part};
use crate::offer::Version;

/// Chains that are longer are mistakes or attacks: OpenSSL verifies 100 at most.
const LONGEST_CHAIN: usize = 100;

/// Reads the body of a Certificate message.
pub(crate) fn read(body: &[u8], version: Version) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let bad = |why: &'static str| Failure::malformed(Part::Certificate, why);
    let short = || bad("it ends too early");
    let mut body = Reader::new(body);
    if version == Version::Tls13 && !body.vec8().ok_or_else(short)?.is_empty() {
        return Err(bad("it answers a request that was not made"));
    }
    let mut list = Reader::new(body.vec24().ok_or_else(short)?);
    if !body.is_empty() {
        return Err(bad("bytes follow its list"));
    }
    let mut chain = Vec::with_capacity(3);
    while !list.is_empty() {
        let certificate = list.vec24().ok_or_else(short)?;
        if version == Version::Tls13 {
            list.vec16().ok_or_else(short)?;
        }
        if chain.len() == LONGEST_CHAIN {
            return Err(Failure::too_large("a chain of more than 100 certificates"));
        }
        if !is_one_sequence(certificate) {
            let why = format!("certificate {} is not DER", chain.len() + 1);
            return Err(Failure::malformed(Part::Certificate, why));
        }
        chain.push(CertificateDer::from(certificate.to_vec()));
    }
    if chain.is_empty() {
        return Err(bad("it has no certificate"));
    }
    Ok(chain)
}

/// The outermost shape of a certificate: a DER sequence that begins with one, and ends where the bytes do.
fn is_one_sequence(der: &[u8]) -> bool {
    let content = |mut der: Reader<'_>| -> Option<usize> {
        if der.u8()? != 0x30 {
            return None;
        }
        match der.u8()? {
            length @ 0..=0x7f => Some(length.into()),
            0x81 => Some(der.u8()?.into()),
            0x82 => Some(der.u16()?.into()),
            0x83 => der.u24(),
            _ => None,
        }
    };
    let header = match der.get(1) {
        Some(0..=0x7f) => 2,
        Some(length) => 2 + usize::from(length & 0x7f),
        None => return false,
    };
    let inside = der.get(header..).map(Reader::new);
    content(Reader::new(der)) == inside.map(|inside| inside.rest().len()) && inside.and_then(content).is_some()
}
