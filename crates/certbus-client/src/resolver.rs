//! The rustls side: who answers a handshake. It never waits for a log, and opens a key at most once.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use certbus_core::time::Timestamp;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::adopt::Opener;
use crate::index::{Index, Live};

/// Answers by server name, from what the client serves at that moment.
#[derive(Debug)]
pub struct Resolver {
    pub(crate) index: Arc<ArcSwap<Index>>,
    pub(crate) opener: Arc<Opener>,
}

impl Resolver {
    /// The chain and key for `host`; None if no served version covers it. After a start the first call for a version
    /// reads and opens its key (about 0.1 ms); an embedder with `LazyConfigAcceptor` makes it before `resolve`.
    pub fn certified_key(&self, host: &str, now: Timestamp) -> Option<Arc<CertifiedKey>> {
        let index = self.index.load();
        let live = index.answer(host, now)?;
        match live.opened.get() {
            Some(key) => Some(key.clone()),
            None => self.open(live),
        }
    }

    fn open(&self, live: &Arc<Live>) -> Option<Arc<CertifiedKey>> {
        let opened = live.location.read().map_err(|e| e.to_string());
        let opened = opened.and_then(|line| self.opener.adopt(&live.version, &line).map_err(|e| e.to_string()));
        match opened {
            Ok(key) => Some(live.opened.get_or_init(|| key).clone()),
            Err(why) => {
                let version = &live.version;
                if self.opener.report_damage(version.certificate) {
                    tracing::error!(certificate = %version.certificate, version = %version.fingerprint,
                        names = %version.names, "cannot serve: {why}; it is read from the log again");
                }
                None
            }
        }
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.certified_key(hello.server_name()?, Timestamp::default().plus(now))
    }
}
