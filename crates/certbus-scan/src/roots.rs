//! Whom a verdict trusts: the platform's roots, Mozilla's, or a file of one's own. It fetches nothing.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor};

/// Trusted roots.
#[derive(Clone, Debug)]
pub struct Roots {
    anchors: Vec<TrustAnchor<'static>>,
    source: String,
}

/// Why roots cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The platform has none.
    #[error("the platform's trust store has no roots ({0}); install ca-certificates, or use --roots mozilla or a file")]
    NoPlatform(String),
    /// The file has none.
    #[error("{file} has no PEM certificate that can be a root")]
    NoneIn {
        /// Which file.
        file: String,
    },
    /// Not PEM.
    #[error("{file} is not PEM certificates: {why}")]
    NotPem {
        /// Which file.
        file: String,
        /// The parser's words.
        why: String,
    },
}

impl Roots {
    /// Those of this machine, as rustls' platform verifier takes them on Linux.
    ///
    /// # Errors
    /// [`RootsError::NoPlatform`]
    pub fn platform() -> Result<Self, RootsError> {
        let loaded = rustls_native_certs::load_native_certs();
        let anchors = anchors(&loaded.certs);
        if anchors.is_empty() {
            let why = loaded.errors.first().map_or_else(|| "nothing found".to_owned(), ToString::to_string);
            return Err(RootsError::NoPlatform(why));
        }
        Ok(Self { anchors, source: "platform".into() })
    }

    /// Mozilla's, as of the build of this program.
    pub fn mozilla() -> Self {
        Self { anchors: webpki_roots::TLS_SERVER_ROOTS.to_vec(), source: "mozilla".into() }
    }

    /// Those of a PEM file, which is called `file` in what is said of it.
    ///
    /// # Errors
    /// [`RootsError::NotPem`], [`RootsError::NoneIn`]
    pub fn from_pem(pem: &[u8], file: &str) -> Result<Self, RootsError> {
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let certificates =
            certificates.map_err(|error| RootsError::NotPem { file: file.into(), why: error.to_string() })?;
        let anchors = anchors(&certificates);
        if anchors.is_empty() {
            return Err(RootsError::NoneIn { file: file.into() });
        }
        Ok(Self { anchors, source: file.into() })
    }

    /// `platform`, `mozilla`, or the file.
    pub fn source(&self) -> &str {
        &self.source
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

fn anchors(certificates: &[CertificateDer<'_>]) -> Vec<TrustAnchor<'static>> {
    let anchor = |certificate| webpki::anchor_from_trusted_cert(certificate).ok().map(|anchor| anchor.to_owned());
    certificates.iter().filter_map(anchor).collect()
}
