//! The private key of a certificate and the signing request made with it. It stores nothing and seals nothing.

use certbus_core::name::DnsName;
use certbus_core::spec::KeyType;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_RSA_SHA256, PublicKeyData, RsaKeySize,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;
use zeroize::Zeroizing;

/// A certificate's private key, in memory only: wiped when dropped, printed by nothing.
pub struct CertificateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    spki: Vec<u8>,
}

/// A key or signing request that cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The cryptographic library refused.
    #[error("cannot make the key or its signing request: {0}")]
    Make(String),
    /// The bytes are not a private key in PKCS#8 of a kind that is issued for.
    #[error("not a private key in PKCS#8 (ECDSA P-256, P-384 or RSA): {0}")]
    Read(String),
    /// The bytes are not a signing request with a good signature.
    #[error("not a certificate signing request with a good signature: {0}")]
    Request(String),
}

impl CertificateKey {
    /// A new key. RSA takes up to seconds of CPU: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`KeyError::Make`] if the library cannot.
    pub fn generate(kind: KeyType) -> Result<Self, KeyError> {
        let pair = match kind {
            KeyType::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
            KeyType::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
            KeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
            KeyType::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
            KeyType::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
        };
        Ok(Self::from_pair(wiped(pair.map_err(make)?)))
    }

    /// A key that was kept.
    ///
    /// # Errors
    /// [`KeyError::Read`] if it is not one of the kinds of [`KeyType`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        let pair = KeyPair::try_from(der).map_err(|error| KeyError::Read(error.to_string()))?;
        Ok(Self::from_pair(wiped(pair)))
    }

    /// The private key in PKCS#8 (RFC 5958).
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public key as certificates carry it: SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7).
    pub fn spki_der(&self) -> Vec<u8> {
        self.spki.clone()
    }

    /// A signing request (RFC 2986) for exactly `names`. Its common name is the first that fits the 64 characters.
    ///
    /// # Errors
    /// [`KeyError::Make`] if the library cannot.
    pub fn csr(&self, names: &[DnsName]) -> Result<Vec<u8>, KeyError> {
        let pair = wiped(KeyPair::try_from(self.pkcs8_der()).map_err(make)?);
        let mut request =
            CertificateParams::new(names.iter().map(DnsName::to_string).collect::<Vec<_>>()).map_err(make)?;
        request.distinguished_name = DistinguishedName::new();
        if let Some(name) = names.iter().find(|name| name.as_str().len() <= 64) {
            request.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        Ok(request.serialize_request(&*pair).map_err(make)?.der().to_vec())
    }

    fn from_pair(pair: Zeroizing<KeyPair>) -> Self {
        Self { pkcs8: Zeroizing::new(pair.serialize_der()), spki: pair.subject_public_key_info() }
    }
}

impl std::fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CertificateKey(..)")
    }
}

/// What a signing request asks for, after its signature was checked.
#[derive(Debug)]
pub(crate) struct SigningRequest {
    pub(crate) names: Vec<DnsName>,
    pub(crate) spki: Vec<u8>,
}

/// Reads a signing request and checks that its maker has the private key.
pub(crate) fn read_csr(der: &[u8]) -> Result<SigningRequest, KeyError> {
    let refuse = |why: String| KeyError::Request(why);
    let (_, request) = X509CertificationRequest::from_der(der).map_err(|error| refuse(error.to_string()))?;
    request.verify_signature().map_err(|error| refuse(error.to_string()))?;
    let mut names = Vec::new();
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(san) = extension else {
            continue;
        };
        for name in &san.general_names {
            let GeneralName::DNSName(name) = name else {
                return Err(refuse(format!("it asks for {name}, which is no DNS name")));
            };
            names.push(DnsName::parse(name).map_err(|error| refuse(error.to_string()))?);
        }
    }
    let spki = request.certification_request_info.subject_pki.raw.to_vec();
    Ok(SigningRequest { names, spki })
}

fn wiped(pair: KeyPair) -> Zeroizing<KeyPair> {
    Zeroizing::new(pair)
}

fn make(error: rcgen::Error) -> KeyError {
    KeyError::Make(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_asks_for_the_names_and_the_key_it_was_made_with() {
        let names = [DnsName::parse("example.com").unwrap(), DnsName::parse("*.example.com").unwrap()];
        for kind in [KeyType::P256, KeyType::P384, KeyType::Rsa2048] {
            let key = CertificateKey::generate(kind).unwrap();
            let kept = CertificateKey::from_pkcs8(key.pkcs8_der()).unwrap();
            let request = read_csr(&kept.csr(&names).unwrap()).unwrap();
            assert_eq!(request.names, names);
            assert_eq!(request.spki, key.spki_der());
        }
    }

    #[test]
    fn a_request_with_a_broken_signature_is_refused() {
        let key = CertificateKey::generate(KeyType::P256).unwrap();
        let mut der = key.csr(&[DnsName::parse("example.com").unwrap()]).unwrap();
        *der.last_mut().unwrap() ^= 1;
        assert!(matches!(read_csr(&der), Err(KeyError::Request(_))));
    }

    #[test]
    fn a_key_is_not_printed() {
        let key = CertificateKey::generate(KeyType::P256).unwrap();
        assert_eq!(format!("{key:?}"), "CertificateKey(..)");
    }
}
