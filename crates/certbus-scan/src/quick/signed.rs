//! Whether the server holds the key of the certificate that it presents: the signature of ServerKeyExchange (RFC 5246
//! section 7.4.3) or CertificateVerify (RFC 8446 section 4.4.3). It judges no certificate.

use rustls::SignatureScheme;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::bytes::Reader;
use crate::failure::{Failure, Part};
use crate::offer::signature_algorithm_name;

/// Why a signature that is there proves nothing. The certificate was presented all the same.
pub(crate) type Shortfall = String;

/// A ServerKeyExchange of TLS 1.2: the signed parameters, and the signature.
pub(crate) fn server_key_exchange(
    body: &[u8],
    suite: u16,
    randoms: [&[u8]; 2],
    leaf: &[u8],
) -> Result<Result<(), Shortfall>, Failure> {
    let (parameters, scheme, signature) = split_key_exchange(body, suite)
        .ok_or_else(|| Failure::malformed(Part::ServerKeyExchange, "it ends too early"))?;
    let [client, server] = randoms;
    Ok(verify(leaf, scheme, &[client, server, parameters].concat(), signature))
}

/// A CertificateVerify, over the hash of all that came before it.
pub(crate) fn certificate_verify(
    body: &[u8],
    transcript: &[u8],
    leaf: &[u8],
) -> Result<Result<(), Shortfall>, Failure> {
    let mut body = Reader::new(body);
    let parts = body.u16().zip(body.vec16());
    let (scheme, signature) = parts.ok_or_else(|| Failure::malformed(Part::CertificateVerify, "it ends too early"))?;
    let said = [&[b' '; 64], b"TLS 1.3, server CertificateVerify\0".as_slice(), transcript].concat();
    Ok(verify(leaf, scheme, &said, signature))
}

fn split_key_exchange(body: &[u8], suite: u16) -> Option<(&[u8], u16, &[u8])> {
    let mut rest = Reader::new(body);
    // DHE_RSA with ChaCha20 stands among those of elliptic curves (RFC 7905).
    if suite >= 0xc000 && suite != 0xccaa {
        // A named curve and a point (RFC 8422 section 5.4).
        rest.take(3)?;
        rest.vec8()?;
    } else {
        // Finite field: p, g and Ys.
        for _ in 0..3 {
            rest.vec16()?;
        }
    }
    let parameters = body.get(..body.len() - rest.rest().len())?;
    Some((parameters, rest.u16()?, rest.vec16()?))
}

fn verify(leaf: &[u8], scheme: u16, said: &[u8], signature: &[u8]) -> Result<(), Shortfall> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| "the leaf is not an X.509 certificate")?;
    let key = SubjectPublicKeyInfoDer::from(certificate.tbs_certificate.subject_pki.raw);
    let key = RawPublicKeyEntity::try_from(&key).map_err(|_| "the leaf's public key cannot be read")?;
    let known = rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.mapping;
    let found = known.iter().find(|(known, _)| *known == SignatureScheme::from(scheme));
    let Some((_, algorithms)) = found else {
        return Err(format!("a signature by {} is not checked here", signature_algorithm_name(scheme)));
    };
    let mut valid = algorithms.iter().map(|algorithm| key.verify_signature(*algorithm, said, signature));
    if valid.any(|valid| valid.is_ok()) {
        Ok(())
    } else {
        Err(format!("the signature by {} is not of the certificate's key", signature_algorithm_name(scheme)))
    }
}
