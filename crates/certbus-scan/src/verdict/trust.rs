//! Whether a chain leads to a trusted root: rustls-webpki's answer (RFC 5280 section 6), and what it means where it is no.

use std::cell::Cell;
use std::time::Duration;

use certbus_core::time::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{
    CertRevocationList, EndEntityCert, Error, ExpirationPolicy, KeyUsage, RevocationCheckDepth, RevocationOptions,
    RevocationOptionsBuilder, UnknownStatusPolicy,
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
    extras: &Extras<'_>,
    now: Timestamp,
) -> Judged {
    // Whether it is expired is told apart from whether it is trusted: a chain is judged within its leaf's life.
    let at = now.max(leaf.not_before).min(leaf.not_after);
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(at.seconds()).unwrap_or(0)));
    Case { chain, roots, at, algorithms: webpki::ALL_VERIFICATION_ALGS, verified: Cell::new(0) }.judge(leaf, extras)
}

/// A chain and what it is judged by.
struct Case<'a> {
    chain: &'a [CertificateDer<'a>],
    roots: &'a Roots,
    at: UnixTime,
    algorithms: &'a [&'a dyn SignatureVerificationAlgorithm],
    /// Signatures that were verified here, beside webpki's, which verifies a hundred for each path at most.
    verified: Cell<usize>,
}

/// Who sends a chain chooses what it costs to judge it. No honest one has so many signatures.
const MOST_VERIFIED: usize = 64;

impl Case<'_> {
    fn judge(&self, leaf: &Leaf, extras: &Extras<'_>) -> Judged {
        let served = self.chain.get(1..).unwrap_or_default();
        let mended: Vec<_> = served.iter().chain(&extras.intermediates).cloned().collect();
        let as_served = self.path(served, None);
        let mends = || !extras.intermediates.is_empty() && self.path(&mended, None).is_ok();
        let problem = match as_served {
            Ok(()) => None,
            Err(error) if error == Error::UnknownIssuer || is_root(self.chain, &error) => {
                self.unknown_issuer(extras, mends())
            }
            // A trusted root has the name of the one above this chain, and another key.
            Err(Error::InvalidSignatureForPublicKey) if self.signs_itself_up() => self.unknown_issuer(extras, mends()),
            // What the leaf itself may not be used for is said elsewhere; of a certificate above it, here.
            Err(Error::RequiredEkuNotFoundContext(_)) if !leaf.server_auth => None,
            Err(error) => Some(Problem::Invalid { why: in_words(&error) }),
        };
        // What was not tried is not called wrong.
        let untried = || Problem::Invalid { why: in_words(&Error::MaximumSignatureChecksExceeded) };
        let problem = problem.map(|problem| if self.verified.get() > MOST_VERIFIED { untried() } else { problem });
        let revocation = (!extras.crls.is_empty()).then(|| self.revocation(&mended, extras));
        Judged { problem, revocation }
    }

    fn path(
        &self,
        intermediates: &[CertificateDer<'_>],
        revocation: Option<RevocationOptions<'_>>,
    ) -> Result<(), Error> {
        let leaf = EndEntityCert::try_from(self.chain.first().ok_or(Error::BadDer)?)?;
        let (roots, usage) = (self.roots.anchors(), KeyUsage::server_auth());
        leaf.verify_for_usage(self.algorithms, roots, intermediates, self.at, usage, revocation, None).map(|_| ())
    }

    /// Whether a certificate is signed by a key, its own if no other is given. False too where too many were asked for.
    fn is_signed(&self, one: &X509Certificate<'_>, by: Option<&X509Certificate<'_>>) -> bool {
        self.verified.set(self.verified.get() + 1);
        self.verified.get() <= MOST_VERIFIED && one.verify_signature(by.map(|by| by.public_key())).is_ok()
    }

    /// Whether every served certificate whose issuer was served too is signed by it.
    fn signs_itself_up(&self) -> bool {
        let parsed = parsed(self.chain);
        parsed.iter().all(|one| {
            let mut above = parsed.iter().filter(|other| other.subject() == one.issuer()).peekable();
            above.peek().is_none() || above.any(|above| self.is_signed(one, Some(above)))
        })
    }

    /// Nobody trusted signed the chain: who did?
    fn unknown_issuer(&self, extras: &Extras<'_>, mends: bool) -> Option<Problem> {
        let parsed = parsed(self.chain);
        let leaf = parsed.first()?;
        if leaf.subject() == leaf.issuer() && self.is_signed(leaf, None) {
            let own = |anchor: &&TrustAnchor<'_>| {
                // An anchor holds what is inside of the outer sequence.
                let subject = leaf.subject().as_raw();
                let spki = leaf.public_key().raw;
                subject.ends_with(anchor.subject.as_ref()) && spki.ends_with(anchor.subject_public_key_info.as_ref())
            };
            let is_trusted = self.roots.anchors().iter().any(|anchor| own(&anchor));
            return if is_trusted { None } else { Some(Problem::SelfSigned) };
        }
        let way = way_up(&parsed);
        let top = parsed.get(*way.last()?)?;
        let issuer = top.issuer().to_string();
        let ends_in_root = top.subject() == top.issuer();
        // A leaf alone, or one that says where its issuer is, lacks a link; a longer chain may end below a root nobody trusts.
        if mends || (!ends_in_root && way.len() == 1) {
            let aia = unlinked(self.chain).and_then(|below| links(below).issuers.into_iter().next());
            let mends = (mends || !extras.intermediates.is_empty()).then_some(mends);
            return Some(Problem::MissingIntermediate { issuer, aia, mends });
        }
        Some(Problem::UntrustedRoot { issuer })
    }

    fn revocation(&self, intermediates: &[CertificateDer<'_>], extras: &Extras<'_>) -> Revocation {
        let unknown = |why: &str| Revocation::Unknown { why: why.to_owned() };
        let lists: Vec<&CertRevocationList<'_>> = extras.crls.iter().map(|list| &list.read).collect();
        let Ok(options) = RevocationOptionsBuilder::new(&lists) else { return unknown("there is no list") };
        let options = options
            .with_depth(RevocationCheckDepth::EndEntity)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce);
        match self.path(intermediates, Some(options.build())) {
            Ok(()) => Revocation::Good,
            Err(Error::CertRevoked) => Revocation::Revoked { since: revoked_since(self.chain, &lists) },
            Err(Error::UnknownRevocationStatus) => unknown("no list is of the certificate's issuer"),
            Err(Error::CrlExpired { .. }) => unknown("the list is out of date"),
            Err(Error::InvalidCrlSignatureForPublicKey) => unknown("the list's signature is wrong"),
            Err(Error::UnknownIssuer) => unknown("no trusted chain, so no list can be believed"),
            Err(error) => unknown(&in_words(&error)),
        }
    }
}

/// The certificate above which links are missing: the highest that the served ones lead up to and that did not sign itself.
pub fn unlinked<'a, 'b>(chain: &'a [CertificateDer<'b>]) -> Option<&'a CertificateDer<'b>> {
    let parsed = parsed(chain);
    let signed_by_another = |at: &&usize| parsed.get(**at).is_some_and(|one| one.subject() != one.issuer());
    way_up(&parsed).iter().rev().find(signed_by_another).and_then(|at| chain.get(*at))
}

/// The certificates that parse, up to the first that does not: their places are the chain's.
fn parsed<'a>(chain: &'a [CertificateDer<'_>]) -> Vec<X509Certificate<'a>> {
    chain.iter().map_while(|der| X509Certificate::from_der(der).ok()).map(|(_, certificate)| certificate).collect()
}

/// From the leaf to its issuer and on, as far as the served certificates go, by their names.
fn way_up(parsed: &[X509Certificate<'_>]) -> Vec<usize> {
    let mut way = vec![0];
    while let Some(last) = way.last().and_then(|last| parsed.get(*last)) {
        match parsed.iter().position(|one| one.subject() == last.issuer()) {
            Some(next) if !way.contains(&next) => way.push(next),
            _ => break,
        }
    }
    way
}

/// A self-signed CA certificate as leaf: webpki refuses it as a leaf, whoever signed it.
fn is_root(chain: &[CertificateDer<'_>], error: &Error) -> bool {
    let signed_itself = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok());
    *error == Error::CaUsedAsEndEntity && signed_itself.is_some_and(|(_, leaf)| leaf.subject() == leaf.issuer())
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
        Error::MaximumSignatureChecksExceeded | Error::MaximumPathBuildCallsExceeded => {
            "more certificates of the same name than anybody can try".into()
        }
        error => format!("{error:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature};

    use super::*;

    /// Counts what is verified by an algorithm.
    #[derive(Debug)]
    struct Counting(&'static dyn SignatureVerificationAlgorithm, &'static AtomicUsize);

    impl SignatureVerificationAlgorithm for Counting {
        fn verify_signature(&self, key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
            self.1.fetch_add(1, Ordering::Relaxed);
            self.0.verify_signature(key, message, signature)
        }
        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            self.0.public_key_alg_id()
        }
        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            self.0.signature_alg_id()
        }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn issuer(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        CertifiedIssuer::self_signed(params(name), KeyPair::generate().unwrap()).unwrap()
    }

    /// As many certificates as a server may send, all of one name and all signed by the last; and a root that has that name
    /// too.
    fn of_one_name() -> (Vec<CertificateDer<'static>>, Roots) {
        let last = issuer("same");
        let below =
            |params: CertificateParams| params.signed_by(&KeyPair::generate().unwrap(), &last).unwrap().der().clone();
        let mut chain: Vec<_> = (0..98).map(|_| below(params("same"))).collect();
        let mut leaf = params("leaf");
        leaf.is_ca = IsCa::NoCa;
        chain.insert(0, below(leaf));
        chain.push(last.der().clone());
        (chain, Roots::from_pem(issuer("same").pem().as_bytes(), "roots.pem").unwrap())
    }

    #[test]
    fn more_certificates_than_anybody_tries_are_not_called_wrongly_signed() {
        let others = of_one_name().0.split_off(1);
        let middle = issuer("middle");
        let mut leaf = params("leaf");
        leaf.is_ca = IsCa::NoCa;
        let leaf = leaf.signed_by(&KeyPair::generate().unwrap(), &middle).unwrap().der().clone();
        // The trusted one has its name, and another key.
        let roots = Roots::from_pem(issuer("middle").pem().as_bytes(), "roots.pem").unwrap();
        let problem = |others: &[CertificateDer<'static>]| {
            let chain = [&[leaf.clone(), middle.der().clone()], others].concat();
            let leaf = Leaf::read(&chain[0]).unwrap();
            judge(&chain, &leaf, &roots, &Extras::default(), leaf.not_before).problem.unwrap()
        };
        assert_eq!(problem(&others[96..]), Problem::UntrustedRoot { issuer: "CN=middle".into() });
        let why = "more certificates of the same name than anybody can try".into();
        assert_eq!(problem(&others), Problem::Invalid { why });
    }

    #[test]
    fn however_a_chain_is_made_its_verdict_costs_a_bounded_number_of_verifications() {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let algorithms: Vec<_> = webpki::ALL_VERIFICATION_ALGS.iter().map(|one| Counting(*one, &COUNT)).collect();
        let algorithms: Vec<_> = algorithms.iter().map(|one| one as &dyn SignatureVerificationAlgorithm).collect();
        let (chain, roots) = of_one_name();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
        for above in [1, 50, 95] {
            COUNT.store(0, Ordering::Relaxed);
            let chain = [&chain[..1], &chain[above..]].concat();
            let (chain, verified) = (chain.as_slice(), Cell::new(0));
            let case = Case { chain, roots: &roots, at, algorithms: &algorithms, verified };
            let extras = Extras { intermediates: vec![chain[1].clone()], ..Extras::default() };
            let judged = case.judge(&Leaf::read(&chain[0]).unwrap(), &extras);
            assert!(judged.problem.is_some());
            case.signs_itself_up();
            let (theirs, ours) = (COUNT.load(Ordering::Relaxed), case.verified.get());
            assert!((1..=200).contains(&theirs) && ours <= 200, "{above}: {theirs} and {ours}");
        }
    }
}
