//! What stands at the addresses that certificates name for their issuers (RFC 5280 section 4.2.2.1): a certificate, or a
//! bundle of them. It fetches nothing and trusts nothing of it.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::error::X509Error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::bytes::Reader;

/// More of one bundle are not read.
const MOST: usize = 32;

/// The certificates in an answer: DER or PEM, or PKCS#7 (RFC 2797 section 2.2: SignedData that nobody signed). Empty if it is
/// none of these.
pub fn certificates(body: &[u8]) -> Vec<CertificateDer<'static>> {
    if body.first() != Some(&SEQUENCE) {
        return CertificateDer::pem_slice_iter(body).map_while(Result::ok).take(MOST).collect();
    }
    if let Some(bundled) = bundled(body) {
        return bundled;
    }
    let whole = X509Certificate::from_der(body).is_ok_and(|(rest, _)| rest.is_empty());
    if whole { vec![CertificateDer::from(body.to_vec())] } else { Vec::new() }
}

/// Who has the name of a certificate's issuer need not have its key: more of one name are not tried.
const MOST_TRIED: usize = 32;

/// Those whose key signed one of the certificates below: a CA may have several, signed by different roots.
pub fn signers<'a>(
    below: &[CertificateDer<'_>],
    among: &'a [CertificateDer<'static>],
) -> Vec<&'a CertificateDer<'static>> {
    let parse = |der| X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate);
    let above: Vec<_> = among.iter().filter_map(|der| Some((der, parse(der)?))).collect();
    let mut signers = Vec::new();
    for below in below.iter().filter_map(|der| parse(der)) {
        let named = above.iter().filter(|(_, above)| above.subject() == below.issuer()).take(MOST_TRIED);
        let signed = named.filter(|(_, above)| match below.verify_signature(Some(above.public_key())) {
            // Who judges the chain knows more algorithms.
            Ok(()) | Err(X509Error::SignatureUnsupportedAlgorithm) => true,
            Err(_) => false,
        });
        for (der, _) in signed {
            if !signers.contains(der) {
                signers.push(*der);
            }
        }
    }
    signers
}

const INTEGER: u8 = 0x02;
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const CONTEXT_0: u8 = 0xa0;
/// pkcs7-signedData, 1.2.840.113549.1.7.2.
const SIGNED_DATA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// The certificates of a SignedData (RFC 5652 section 5.1). None if it is not one.
fn bundled(body: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut outer = Reader::new(body);
    let mut info = Reader::new(value(&mut outer, SEQUENCE)?);
    if !outer.is_empty() || value(&mut info, OBJECT_IDENTIFIER)? != SIGNED_DATA {
        return None;
    }
    let mut content = Reader::new(value(&mut info, CONTEXT_0)?);
    let mut data = Reader::new(value(&mut content, SEQUENCE)?);
    value(&mut data, INTEGER)?;
    value(&mut data, SET)?;
    value(&mut data, SEQUENCE)?;
    let mut set = Reader::new(value(&mut data, CONTEXT_0)?);
    let mut certificates = Vec::new();
    while !set.is_empty() && certificates.len() < MOST {
        let rest = set.rest();
        value(&mut set, SEQUENCE)?;
        let whole = rest.get(..rest.len() - set.rest().len())?;
        certificates.push(CertificateDer::from(whole.to_vec()));
    }
    Some(certificates)
}

/// What is inside of the next element, which must have this tag. DER: its length is as short as it can be.
fn value<'a>(from: &mut Reader<'a>, tag: u8) -> Option<&'a [u8]> {
    if from.u8()? != tag {
        return None;
    }
    let length = match from.u8()? {
        length @ 0..=0x7f => length.into(),
        0x81 => usize::from(from.u8()?).checked_sub(0x80)? + 0x80,
        0x82 => usize::from(from.u16()?).checked_sub(0x100)? + 0x100,
        0x83 => from.u24()?.checked_sub(0x1_0000)? + 0x1_0000,
        _ => return None,
    };
    from.take(length)
}
