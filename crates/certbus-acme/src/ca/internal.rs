//! The internal CA: one root that signs leaves itself. It keeps no record of what it signed and publishes no
//! revocations; short lives take their place.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand;
use certbus_core::name::DnsName;
use certbus_core::time::Timestamp;
use data_encoding::HEXLOWER;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber, SubjectPublicKeyInfo,
};
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;

use crate::ca::{HeldOrder, Issued, Order, OrderStatus};
use crate::error::IssueError;
use crate::key::{KeyError, read_csr};

/// What the URL of an internal order begins with.
pub(crate) const ORDER_PREFIX: &str = "internal:";

const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// A root certificate with its key, and how long what it signs lives.
pub struct InternalCa {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
    lifetime: Duration,
}

impl InternalCa {
    /// A new P-256 root that lives ten years and signs leaves only (path length 0).
    ///
    /// # Errors
    /// [`IssueError::Key`] if the library cannot.
    pub fn generate(common_name: &str, lifetime: Duration, now: Timestamp) -> Result<Self, IssueError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let mut root = template(now, ROOT_LIFETIME)?;
        root.distinguished_name.push(DnType::CommonName, common_name);
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = root.self_signed(&key).map_err(make)?.pem();
        Ok(Self { issuer: Issuer::new(root, key), certificate_pem, lifetime })
    }

    /// A root that was kept.
    ///
    /// # Errors
    /// [`IssueError::Key`] if either cannot be read or they do not belong together.
    pub fn load(certificate_pem: &str, key_pem: &SecretString, lifetime: Duration) -> Result<Self, IssueError> {
        let read = |error: rcgen::Error| KeyError::Read(format!("the internal CA: {error}"));
        let key = KeyPair::from_pem(key_pem.expose_secret()).map_err(read)?;
        let leaf = crate::chain::leaf(certificate_pem)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&leaf)
            .map_err(|error| KeyError::Read(format!("the internal CA's certificate: {error}")))?;
        if parsed.public_key().raw != rcgen::PublicKeyData::subject_public_key_info(&key) {
            return Err(KeyError::Read("the internal CA's key is not its certificate's".into()).into());
        }
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key).map_err(read)?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned(), lifetime })
    }

    /// The root certificate, for those who are to trust it.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The root's private key: whoever has it is this CA.
    pub fn key_pem(&self) -> SecretString {
        self.issuer.key().serialize_pem().into()
    }

    /// Signs a leaf for what the request asks: its key and its names, and nothing else it may say.
    ///
    /// # Errors
    /// [`IssueError::Key`] if the request's signature is bad, it has no names, or others than were `ordered`.
    pub fn issue(&self, csr_der: &[u8], ordered: Option<&[DnsName]>, now: Timestamp) -> Result<Issued, IssueError> {
        let request = read_csr(csr_der)?;
        let set = |names: &[DnsName]| names.iter().cloned().collect::<BTreeSet<_>>();
        if ordered.is_some_and(|ordered| set(ordered) != set(&request.names)) {
            let why = format!("it asks for {:?}, ordered was {:?}", request.names, ordered.unwrap_or_default());
            return Err(KeyError::Request(why).into());
        }
        let Some(first) = request.names.first() else {
            return Err(KeyError::Request("it asks for no name".into()).into());
        };
        let mut leaf = template(now, self.lifetime)?;
        if first.as_str().len() <= 64 {
            leaf.distinguished_name.push(DnType::CommonName, first.as_str());
        }
        let names = request.names.iter().map(ToString::to_string).collect::<Vec<_>>();
        leaf.subject_alt_names = CertificateParams::new(names).map_err(make)?.subject_alt_names;
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        leaf.use_authority_key_identifier_extension = true;
        let public_key = SubjectPublicKeyInfo::from_der(&request.spki).map_err(make)?;
        let chain_pem = leaf.signed_by(&public_key, &self.issuer).map_err(make)?.pem();
        crate::chain::check(&chain_pem, &request)?;
        Ok(Issued { chain_pem })
    }

    /// An order that needs nothing but its signing request.
    pub(crate) fn new_order(&self, names: &[DnsName]) -> Result<Order, IssueError> {
        let url = format!("{ORDER_PREFIX}{}", HEXLOWER.encode(&random()?));
        Ok(Order { held: HeldOrder::Internal(Some(names.to_vec())), ..order(url) })
    }
}

/// A certificate that nobody else has signed, for a server that has no other yet: its name, or its address.
///
/// # Errors
/// [`IssueError::Key`] if `name` is neither, or there are no random numbers.
pub fn self_signed(name: &str, lifetime: Duration, now: Timestamp) -> Result<(String, SecretString), IssueError> {
    let mut params = template(now, lifetime)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.subject_alt_names = CertificateParams::new(vec![name.to_owned()]).map_err(make)?.subject_alt_names;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(make)?;
    let certificate = params.self_signed(&key).map_err(make)?.pem();
    Ok((certificate, key.serialize_pem().into()))
}

/// An internal order found again is its URL; what it was for stands in its signing request.
pub(crate) fn order(url: String) -> Order {
    Order { url, status: OrderStatus::Ready, challenges: Vec::new(), held: HeldOrder::Internal(None) }
}

impl fmt::Debug for InternalCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalCa").field("lifetime", &self.lifetime).finish_non_exhaustive()
    }
}

fn template(now: Timestamp, lifetime: Duration) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = date(now.minus(CLOCK_SKEW))?;
    params.not_after = date(now.plus(lifetime))?;
    params.serial_number = Some(SerialNumber::from(positive(random()?)));
    Ok(params)
}

fn date(at: Timestamp) -> Result<OffsetDateTime, IssueError> {
    OffsetDateTime::from_unix_timestamp(at.seconds()).map_err(|error| KeyError::Make(error.to_string()).into())
}

fn random() -> Result<[u8; 16], IssueError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| KeyError::Make("no random numbers to be had".into()))?;
    Ok(bytes)
}

/// A serial number is positive and is not written with leading zeros (RFC 5280 section 4.1.2.2).
fn positive(bytes: [u8; 16]) -> Vec<u8> {
    let [first, rest @ ..] = bytes;
    std::iter::once((first & 0x3f) | 0x40).chain(rest).collect()
}

fn make(error: rcgen::Error) -> IssueError {
    KeyError::Make(error.to_string()).into()
}
