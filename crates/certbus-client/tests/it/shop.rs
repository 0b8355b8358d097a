//! A log in memory with a manager at work, and clients beside it.

use std::sync::Arc;
use std::time::Duration;

use certbus_bus::EventLog;
use certbus_bus::memory::MemoryLog;
use certbus_client::{Client, ClientError, DiskError};
use certbus_core::batch::Batch;
use certbus_core::event::{CertificateObtained, CertificateOffered, CertificateRemoved, Event, Reason};
use certbus_core::id::{CertificateId, Fingerprint, StreamKind};
use certbus_core::identity::{Identity, Role};
use certbus_core::name::DnsName;
use certbus_core::seal::{Purpose, SealedKey, seal};
use certbus_core::testing::{World, identity};
use certbus_core::time::Timestamp;
use certbus_core::x509::ParsedChain;

/// A log with a manager at work.
pub(crate) struct Shop {
    pub(crate) world: World,
    pub(crate) log: Arc<MemoryLog>,
    pub(crate) folder: tempfile::TempDir,
}

/// What is wrong with a certificate.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Flaw {
    None,
    OtherKey,
    OtherNames,
    Garbage,
}

impl Shop {
    pub(crate) async fn new() -> Self {
        let (mut world, first) = World::new(StreamKind::Certs);
        // Real certificates are made today.
        world.now = now();
        let log = Arc::new(MemoryLog::default());
        log.append(first.expected(), first).await.unwrap();
        Self { world, log, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn node(&self) -> Identity {
        Identity { pin: Some(self.world.pins()[0]), ..identity(Role::Node, "nodes", 3) }
    }

    pub(crate) fn client(&self) -> Arc<Client> {
        self.client_as(|| self.node())
    }

    /// A client that was dropped may still be writing on another thread, and holds the folder until it has.
    pub(crate) fn client_as(&self, identity: impl Fn() -> Identity) -> Arc<Client> {
        for _ in 0..200 {
            match Client::open(identity(), vec![], self.folder.path()) {
                Err(ClientError::Disk(DiskError::InUse { .. })) => std::thread::sleep(Duration::from_millis(10)),
                opened => return opened.unwrap(),
            }
        }
        panic!("the folder is still in use");
    }

    pub(crate) async fn append(&mut self, events: Vec<Event>) -> Batch {
        let batch = self.world.append(events);
        self.log.append(batch.expected(), batch.clone()).await.unwrap();
        batch
    }

    pub(crate) fn make(&self, id: u8, names: &[&str], days: (i64, i64), flaw: Flaw) -> CertificateObtained {
        let certificate = CertificateId::from_bytes([id; 8]);
        let key = rcgen::KeyPair::generate().unwrap();
        let in_leaf = if flaw == Flaw::OtherNames { &["other.example.com"][..] } else { names };
        let mut params =
            rcgen::CertificateParams::new(in_leaf.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        let day = |days: i64| {
            let seconds = now().seconds() + days * 86400;
            rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.unsigned_abs())
        };
        params.not_before = day(days.0);
        params.not_after = day(days.1);
        let chain = params.self_signed(&key).unwrap().pem();
        let parsed = ParsedChain::parse(&chain).unwrap();
        let sealed = if flaw == Flaw::OtherKey { rcgen::KeyPair::generate().unwrap() } else { key };
        let ring = self.world.chain.current_ring().unwrap();
        let purpose = Purpose::CertificateKey { tenant: "default", ring: ring.id, certificate, spki: parsed.spki };
        CertificateObtained {
            certificate,
            version: parsed.fingerprint,
            reason: Reason::New,
            names: names.iter().map(|n| DnsName::parse(n).unwrap()).collect(),
            not_before: parsed.not_before,
            not_after: parsed.not_after,
            chain: if flaw == Flaw::Garbage { chain.replace("MII", "AAA") } else { chain },
            spki: parsed.spki,
            key: SealedKey { ring: ring.id, sealed: seal(&ring.public, purpose, sealed.serialized_der()).unwrap() },
        }
    }

    /// Obtains and offers; returns the fingerprint.
    pub(crate) async fn issue(&mut self, id: u8, names: &[&str], days: (i64, i64), flaw: Flaw) -> Fingerprint {
        let obtained = self.make(id, names, days, flaw);
        let (certificate, version) = (obtained.certificate, obtained.version);
        let offered = CertificateOffered { certificate, version, to: None };
        self.append(vec![Event::CertificateObtained(Arc::new(obtained)), Event::CertificateOffered(offered)]).await;
        version
    }

    pub(crate) async fn good(&mut self, id: u8, names: &[&str]) -> Fingerprint {
        self.issue(id, names, (-1, 89), Flaw::None).await
    }

    pub(crate) async fn remove(&mut self, id: u8) {
        let certificate = CertificateId::from_bytes([id; 8]);
        self.append(vec![Event::CertificateRemoved(CertificateRemoved { certificate })]).await;
    }

    /// Follows until the log's head is reached.
    pub(crate) async fn settle(&self, client: &Arc<Client>) {
        settle_at(client, &self.log, self.world.chain.cursor().seq).await;
    }
}

pub(crate) async fn settle_at(client: &Arc<Client>, log: &Arc<MemoryLog>, seq: u64) {
    let mut changes = client.changes();
    let task = tokio::spawn(client.clone().follow(log.clone(), log.clone()));
    let reached = changes.wait_for(|cursor| cursor.seq >= seq);
    tokio::time::timeout(Duration::from_secs(10), reached).await.expect("reached in 10 s").unwrap();
    task.abort();
    let _ = task.await;
}

pub(crate) fn now() -> Timestamp {
    Timestamp::default().plus(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap())
}

/// Which version a handshake for `host` is answered with.
pub(crate) fn answer(client: &Arc<Client>, host: &str) -> Option<Fingerprint> {
    let key = client.resolver().certified_key(host, now())?;
    Some(Fingerprint::of(key.end_entity_cert().unwrap()))
}
