//! A shop for the measurements: a CA, a log with a manager, many certificates, a client's folder that is kept between
//! runs, and handshakes in memory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certbus_bus::EventLog;
use certbus_bus::memory::MemoryLog;
use certbus_client::Client;
use certbus_core::batch::Batch;
use certbus_core::chain::Pin;
use certbus_core::event::{CertificateObtained, CertificateOffered, Event, Reason};
use certbus_core::id::{CertificateId, LogId, StreamKind};
use certbus_core::identity::{Identity, Role};
use certbus_core::name::DnsName;
use certbus_core::seal::{Purpose, SealedKey, seal};
use certbus_core::testing::{World, identity};
use certbus_core::time::Timestamp;
use certbus_core::x509::ParsedChain;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

/// Goes up when what the kept folders hold is another.
const LAYOUT: u32 = 1;

/// A CA, one leaf key (P-256) for all, and the manager's side of a stream.
pub(crate) struct Shop {
    pub(crate) world: World,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pub(crate) ca: String,
    key: rcgen::KeyPair,
}

pub(crate) fn now() -> Timestamp {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::default().plus(now)
}

pub(crate) fn host(number: usize) -> String {
    format!("host-{number}.shop-{}.example.com", number % 977)
}

/// The client's identity: the same in each run, so that a kept folder can be opened again.
pub(crate) fn node() -> Identity {
    // As `World` founds it.
    let pin =
        Pin { log: LogId::from_bytes([9; 16]), authority: identity(Role::Owner, "owner", 1).sign.unwrap().public() };
    Identity { pin: Some(pin), ..identity(Role::Node, "nodes", 3) }
}

impl Shop {
    /// With the first batch of its stream.
    pub(crate) fn new() -> (Self, Batch) {
        let (mut world, first) = World::new(StreamKind::Certs);
        world.now = now().minus(Duration::from_secs(86_400));
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "Bench CA");
        let ca = params.self_signed(&ca_key).unwrap().pem();
        let shop =
            Self { world, issuer: rcgen::Issuer::new(params, ca_key), ca, key: rcgen::KeyPair::generate().unwrap() };
        (shop, first)
    }

    /// Obtains and offers a version of the managed certificate `number` for its host name: leaf and CA in the chain.
    pub(crate) fn issue(&self, number: usize, reason: Reason) -> [Event; 2] {
        let name = host(number);
        let mut params = rcgen::CertificateParams::new(vec![name.clone()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2049, 1, 1);
        let chain = params.signed_by(&self.key, &self.issuer).unwrap().pem() + &self.ca;
        let parsed = ParsedChain::parse(&chain).unwrap();
        // Spread over the id's bytes, as random ones are.
        let id = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
        let certificate = CertificateId::from_bytes(id);
        let ring = self.world.chain.current_ring().unwrap();
        let purpose = Purpose::CertificateKey { tenant: "default", ring: ring.id, certificate, spki: parsed.spki };
        let sealed =
            SealedKey { ring: ring.id, sealed: seal(&ring.public, purpose, self.key.serialized_der()).unwrap() };
        let (version, to) = (parsed.fingerprint, None);
        let obtained = CertificateObtained {
            certificate,
            version,
            reason,
            names: vec![DnsName::parse(&name).unwrap()],
            not_before: parsed.not_before,
            not_after: parsed.not_after,
            chain,
            spki: parsed.spki,
            key: sealed,
        };
        [
            Event::CertificateObtained(Arc::new(obtained)),
            Event::CertificateOffered(CertificateOffered { certificate, version, to }),
        ]
    }
}

/// Where data is kept between runs.
pub(crate) fn cache() -> PathBuf {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    let base = var("CERTBUS_CACHE").or_else(|| Some(var("XDG_CACHE_HOME")?.join("certbus-ci")));
    let base = base.unwrap_or_else(|| var("HOME").unwrap().join(".cache/certbus-ci"));
    base.join("bench")
}

/// The folder of a client that has adopted `count` certificates and written its snapshot; made if it is not kept.
/// Beside it is the CA's certificate.
pub(crate) fn folder(count: usize) -> PathBuf {
    let folder = cache().join(format!("client-{LAYOUT}-{count}"));
    if folder.join("ca.pem").exists() {
        return folder;
    }
    eprintln!("making {count} certificates, once …");
    let _ = std::fs::remove_dir_all(&folder);
    let (mut shop, first) = Shop::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let log = Arc::new(MemoryLog::default());
        log.append(first.expected(), first).await.unwrap();
        let numbers: Vec<usize> = (0..count).collect();
        for some in numbers.chunks(64) {
            let events = some.iter().flat_map(|number| shop.issue(*number, Reason::New)).collect();
            let batch = shop.world.append(events);
            log.append(batch.expected(), batch).await.unwrap();
        }
        let client = Client::open(node(), vec![], &folder).unwrap();
        let mut changes = client.changes();
        let following = tokio::spawn(client.clone().follow(log.clone(), log));
        let head = shop.world.chain.cursor();
        changes.wait_for(|cursor| *cursor == head).await.unwrap();
        following.abort();
        let _ = following.await;
        client.write_snapshot().unwrap();
    });
    std::fs::write(folder.join("ca.pem"), shop.ca).unwrap();
    folder
}

/// The TLS client: TLS 1.3, P-256, no resumption, trusting the CA only.
pub(crate) fn trusting(ca: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = rustls::crypto::CryptoProvider {
        kx_groups: vec![rustls::crypto::aws_lc_rs::kx_group::SECP256R1],
        ..rustls::crypto::aws_lc_rs::default_provider()
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

/// The TLS server around a resolver: TLS 1.3 only, no tickets.
pub(crate) fn serving(resolver: Arc<dyn rustls::server::ResolvesServerCert>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_protocol_versions(&[&rustls::version::TLS13])
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// A whole handshake in memory, verified by the client; returns the time that the server's side took.
pub(crate) fn shake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, host: &str) -> Duration {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(client.clone(), name).unwrap();
    let (mut there, mut back) = (Vec::with_capacity(4096), Vec::with_capacity(4096));
    client.write_tls(&mut there).unwrap();
    let begun = std::time::Instant::now();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let mut spent = begun.elapsed();
    while client.is_handshaking() || server.is_handshaking() {
        let begun = std::time::Instant::now();
        let mut arrived = there.as_slice();
        while !arrived.is_empty() {
            server.read_tls(&mut arrived).unwrap();
        }
        server.process_new_packets().unwrap();
        while server.wants_write() {
            server.write_tls(&mut back).unwrap();
        }
        spent += begun.elapsed();
        there.clear();
        let mut arrived = back.as_slice();
        while !arrived.is_empty() {
            client.read_tls(&mut arrived).unwrap();
            client.process_new_packets().unwrap();
        }
        back.clear();
        while client.wants_write() {
            client.write_tls(&mut there).unwrap();
        }
    }
    spent
}
