//! Whether a chain leads to a trusted root: rustls-webpki's answer (RFC 5280 section 6), and what it means where it is no.

use std::time::Duration;

use certbus_core::time::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage,
    RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::leaf::{Leaf, links};
use super::{Extras, Problem, Revocation};
use crate::roots::Roots;

pub(super) struct Judged {
    pub(super) problem: Option<Problem>,
    pub(super) revocation: Option<Revocation>,
}

/// Whether the leaf is for a name (RFC 6125; subject alternative names only).
pub(super) fn is_for(chain: &[CertificateDer<'_>], name: &ServerName<'_>) -> bool {
    let leaf = chain.first().and_then(|leaf| EndEntityCert::try_from(leaf).ok());
    leaf.is_some_and(|leaf| leaf.verify_is_valid_for_subject_name(name).is_ok())
}

pub(super) fn judge(
    chain: &[CertificateDer<'_>],
    leaf: &Leaf,
    roots: &Roots,
    extras: &Extras,
    now: Timestamp,
) -> Judged {
    // Whether it is expired is told apart from whether it is trusted: a chain is judged within its leaf's life.
    let at = now.max(leaf.not_before).min(leaf.not_after);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.seconds()).unwrap_or(0)));
    let served = chain.get(1..).unwrap_or_default();
    let mended: Vec<_> = served.iter().chain(&extras.intermediates).cloned().collect();
    let as_served = path(chain, served, roots, at, None);
    let with_extras = || path(chain, &mended, roots, at, None);
    let problem = match as_served {
        Ok(()) => None,
        Err(error) if error == Error::UnknownIssuer || is_root(chain, &error) => {
            unknown_issuer(chain, roots, extras, with_extras().is_ok())
        }
        // A trusted root has the name of the one above this chain, and another key.
        Err(Error::InvalidSignatureForPublicKey) if signs_itself_up(chain) => {
            unknown_issuer(chain, roots, extras, with_extras().is_ok())
        }
        // What the leaf itself may not be used for is said elsewhere; of a certificate above it, here.
        Err(Error::RequiredEkuNotFoundContext(_)) if !leaf.server_auth => None,
        Err(error) => Some(Problem::Invalid { why: in_words(&error) }),
    };
    let revocation = (!extras.crls.is_empty()).then(|| revocation(chain, &mended, roots, extras, at));
    Judged { problem, revocation }
}

fn path(
    chain: &[CertificateDer<'_>],
    intermediates: &[CertificateDer<'_>],
    roots: &Roots,
    at: UnixTime,
    revocation: Option<RevocationOptions<'_>>,
) -> Result<(), Error> {
    let leaf = chain.first().ok_or(Error::BadDer)?;
    let leaf = EndEntityCert::try_from(leaf)?;
    let (algorithms, usage) = (webpki::ALL_VERIFICATION_ALGS, KeyUsage::server_auth());
    leaf.verify_for_usage(algorithms, roots.anchors(), intermediates, at, usage, revocation, None).map(|_| ())
}

/// A self-signed CA certificate as leaf: webpki refuses it as a leaf, whoever signed it.
fn is_root(chain: &[CertificateDer<'_>], error: &Error) -> bool {
    let signed_itself = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
    *error == Error::CaUsedAsEndEntity && signed_itself.is_some_and(|(_, leaf)| leaf.subject() == leaf.issuer())
}

/// Whether every served certificate whose issuer was served too is signed by it.
fn signs_itself_up(chain: &[CertificateDer<'_>]) -> bool {
    let parse = |der| X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate);
    let parsed: Vec<_> = chain.iter().map_while(|der| parse(der)).collect();
    parsed.iter().all(|one| {
        let mut above = parsed.iter().filter(|other| other.subject() == one.issuer()).peekable();
        above.peek().is_none() || above.any(|above| one.verify_signature(Some(above.public_key())).is_ok())
    })
}

/// Nobody trusted signed the chain: who did?
fn unknown_issuer(chain: &[CertificateDer<'_>], roots: &Roots, extras: &Extras, mends: bool) -> Option<Problem> {
    let parsed: Vec<_> =
        chain.iter().filter_map(|der| X509Certificate::from_der(der).ok()).map(|(_, one)| one).collect();
    let leaf = parsed.first()?;
    if leaf.subject() == leaf.issuer() && leaf.verify_signature(None).is_ok() {
        let own = |anchor: &&rustls::pki_types::TrustAnchor<'_>| {
            // An anchor holds what is inside of the outer sequence.
            let subject = leaf.subject().as_raw();
            let spki = leaf.public_key().raw;
            subject.ends_with(anchor.subject.as_ref()) && spki.ends_with(anchor.subject_public_key_info.as_ref())
        };
        return if roots.anchors().iter().any(|anchor| own(&anchor)) { None } else { Some(Problem::SelfSigned) };
    }
    // As far up as the served certificates go.
    let mut last = 0;
    for _ in 0..parsed.len() {
        let issuer = parsed.get(last)?.issuer();
        match parsed.iter().position(|one| one.subject() == issuer) {
            Some(next) if next != last => last = next,
            _ => break,
        }
    }
    let (top, der) = (parsed.get(last)?, chain.get(last)?);
    let issuer = top.issuer().to_string();
    let aia = links(der).issuers.into_iter().next();
    let ends_in_root = top.subject() == top.issuer();
    // A leaf alone, or one that says where its issuer is, lacks a link; a longer chain may end below a root nobody trusts.
    if mends || (!ends_in_root && last == 0) {
        let mends = (mends || !extras.intermediates.is_empty()).then_some(mends);
        return Some(Problem::MissingIntermediate { issuer, aia, mends });
    }
    Some(Problem::UntrustedRoot { issuer })
}

fn revocation(
    chain: &[CertificateDer<'_>],
    intermediates: &[CertificateDer<'_>],
    roots: &Roots,
    extras: &Extras,
    at: UnixTime,
) -> Revocation {
    let unknown = |why: &str| Revocation::Unknown { why: why.to_owned() };
    let lists: Vec<CertRevocationList<'_>> =
        extras.crls.iter().filter_map(|crl| BorrowedCertRevocationList::from_der(crl).ok()).map(Into::into).collect();
    let lists: Vec<&CertRevocationList<'_>> = lists.iter().collect();
    let Ok(options) = RevocationOptionsBuilder::new(&lists) else { return unknown("no list that was fetched parses") };
    let options = options
        .with_depth(RevocationCheckDepth::EndEntity)
        .with_status_policy(UnknownStatusPolicy::Deny)
        .with_expiration_policy(ExpirationPolicy::Enforce);
    match path(chain, intermediates, roots, at, Some(options.build())) {
        Ok(()) => Revocation::Good,
        Err(Error::CertRevoked) => Revocation::Revoked { since: revoked_since(chain, &lists) },
        Err(Error::UnknownRevocationStatus) => unknown("no list is of the certificate's issuer"),
        Err(Error::CrlExpired { .. }) => unknown("the list is out of date"),
        Err(Error::UnknownIssuer) => unknown("no trusted chain, so no list can be believed"),
        Err(error) => unknown(&in_words(&error)),
    }
}

fn revoked_since(chain: &[CertificateDer<'_>], lists: &[&CertRevocationList<'_>]) -> Option<Timestamp> {
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    // Leading zeroes are no part of a number.
    let serial = leaf.raw_serial();
    let entry = lists.iter().find_map(|list| list.find_serial(serial).ok().flatten())?;
    Some(Timestamp::from_seconds(i64::try_from(entry.revocation_date.as_secs()).ok()?))
}

fn in_words(error: &Error) -> String {
    match error {
        Error::CertExpired { .. } => "a certificate of the chain above the leaf is expired".into(),
        Error::CertNotValidYet { .. } => "a certificate of the chain above the leaf is not yet valid".into(),
        Error::CaUsedAsEndEntity => "the leaf is a CA's certificate".into(),
        Error::InvalidSignatureForPublicKey => "a signature in the chain is wrong".into(),
        Error::NameConstraintViolation => "a CA above it may not sign for this name".into(),
        Error::PathLenConstraintViolated => "a CA above it may not have CAs below it".into(),
        Error::UnsupportedCertVersion => "it is not an X.509 version 3 certificate".into(),
        Error::UnsupportedSignatureAlgorithmContext(_) => "a signature algorithm that nobody should trust".into(),
        error => format!("{error:?}"),
    }
}
