//! Invariant 5: a version is adopted only if its chain and key parse, match, and cover its names.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use certbus_core::catalog::Version;
use certbus_core::chain::Chain;
use certbus_core::event::{CertificateObtained, Event};
use certbus_core::id::{CertificateId, RingId};
use certbus_core::identity::Identity;
use certbus_core::seal::{OpeningKey, Purpose, SealError, open};
use certbus_core::x509::{ChainPemError, ParsedChain};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;
use zeroize::Zeroizing;

/// Why a version is not served. The one before is, until this is mended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AdoptError {
    /// The stored event cannot be read back.
    #[error("its record cannot be read: {0}")]
    Unreadable(String),
    /// The key does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The chain does not hold.
    #[error(transparent)]
    Chain(#[from] ChainPemError),
    /// Chain and key do not belong together, or the key is of a kind that cannot serve.
    #[error("its key cannot serve it: {0}")]
    Key(rustls::Error),
    /// The record is another version's.
    #[error("its record is another version's")]
    OtherVersion,
}

/// Chain and private key of one version, opened for the files of a load balancer. Drop it when they are written.
pub struct Material {
    /// Leaf first, PEM, as the CA sent it.
    pub chain: String,
    /// The private key, PKCS#8 DER.
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

/// Opens private keys: holds the identity, and the private halves of the rings it was given.
#[derive(Debug)]
pub(crate) struct Opener {
    identity: Identity,
    /// Whether keys stay in memory once opened: for who answers handshakes.
    pub(crate) keeps: bool,
    tenant: RwLock<String>,
    rings: RwLock<HashMap<RingId, Arc<OpeningKey>>>,
    /// Served here, verified when adopted, and not readable any more.
    damaged: Mutex<HashSet<CertificateId>>,
    found: Notify,
}

impl Opener {
    pub(crate) fn new(identity: Identity, keeps: bool) -> Self {
        Self {
            identity,
            keeps,
            tenant: RwLock::default(),
            rings: RwLock::default(),
            damaged: Mutex::default(),
            found: Notify::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.identity.name
    }

    /// Tells whoever follows the log that a record on disk does not open any more. True the first time.
    pub(crate) fn report_damage(&self, id: CertificateId) -> bool {
        let first = self.damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        if first {
            self.found.notify_one();
        }
        first
    }

    /// Returns when damage was reported.
    pub(crate) async fn damage_found(&self) {
        self.found.notified().await;
    }

    /// What was reported, once.
    pub(crate) fn take_damaged(&self) -> HashSet<CertificateId> {
        std::mem::take(&mut *self.damaged.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is reported and not mended, in words.
    pub(crate) fn damaged(&self) -> Option<String> {
        let damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        let ids: Vec<String> = damaged.iter().map(ToString::to_string).collect();
        (!ids.is_empty()).then(|| format!("the records of {} on disk are altered", ids.join(", ")))
    }

    /// Takes over every ring of `chain` that this identity opens.
    pub(crate) fn learn(&self, chain: &Chain) {
        chain.tenant().clone_into(&mut self.tenant.write().unwrap_or_else(PoisonError::into_inner));
        let mut rings = self.rings.write().unwrap_or_else(PoisonError::into_inner);
        for ring in chain.rings() {
            if let std::collections::hash_map::Entry::Vacant(slot) = rings.entry(ring.id)
                && let Ok(key) = chain.open_ring(ring.id, &self.identity.open)
            {
                slot.insert(Arc::new(key));
            }
        }
    }

    /// Checks and opens a version from its event's stored line.
    pub(crate) fn adopt(&self, version: &Version, line: &str) -> Result<Arc<CertifiedKey>, AdoptError> {
        self.open(version, &*obtained(line)?).map(|(key, _)| key)
    }

    /// As [`Opener::adopt`], but what comes back is to be written to files.
    pub(crate) fn material(&self, version: &Version, line: &str) -> Result<Material, AdoptError> {
        let obtained = obtained(line)?;
        let (_, key) = self.open(version, &obtained)?;
        Ok(Material { chain: obtained.chain.clone(), key })
    }

    fn open(
        &self,
        version: &Version,
        obtained: &CertificateObtained,
    ) -> Result<(Arc<CertifiedKey>, Zeroizing<Vec<u8>>), AdoptError> {
        let chain = ParsedChain::parse(&obtained.chain)?;
        if chain.fingerprint != version.fingerprint || obtained.certificate != version.certificate {
            return Err(AdoptError::OtherVersion);
        }
        chain.check(version.spki, &version.names)?;
        let ring = self.rings.read().unwrap_or_else(PoisonError::into_inner).get(&version.ring).cloned();
        let ring = ring.ok_or_else(|| SealError::DoesNotOpen { what: format!("ring {}", version.ring) })?;
        let tenant = self.tenant.read().unwrap_or_else(PoisonError::into_inner).clone();
        let purpose = Purpose::CertificateKey {
            tenant: &tenant,
            ring: version.ring,
            certificate: version.certificate,
            spki: version.spki,
        };
        let der = open(&ring, purpose, &obtained.key.sealed)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(der.as_slice())).clone_key();
        let key = provider().key_provider.load_private_key(key).map_err(AdoptError::Key)?;
        let certified = CertifiedKey::new(chain.certificates, key);
        certified.keys_match().map_err(AdoptError::Key)?;
        Ok((Arc::new(certified), der))
    }
}

fn obtained(line: &str) -> Result<Arc<CertificateObtained>, AdoptError> {
    match Event::decode(line).map_err(|e| AdoptError::Unreadable(e.to_string()))? {
        Event::CertificateObtained(obtained) => Ok(obtained),
        _ => Err(AdoptError::Unreadable("it is another kind of event".into())),
    }
}

/// The process's cryptography, or ours.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
}
