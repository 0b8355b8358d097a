//! TLS for tests, as bytes: a real server in memory, and messages written by hand.

use std::sync::Arc;

use certbus_core::name::DnsName;
use certbus_scan::offer::{Hello, Keys, Version};
use certbus_scan::quick::QuickLook;
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, ServerConnection};

/// rustls as a server, in memory.
#[derive(Clone)]
pub(crate) struct TlsServer(Arc<ServerConfig>);

impl TlsServer {
    pub(crate) fn new(versions: &[Version]) -> Self {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let known = [(Version::Tls12, &rustls::version::TLS12), (Version::Tls13, &rustls::version::TLS13)];
        let versions: Vec<_> =
            known.iter().filter(|(one, _)| versions.contains(one)).map(|(_, known)| *known).collect();
        let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&versions).unwrap();
        let mut config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        config.send_tls13_tickets = 0;
        Self(Arc::new(config))
    }

    /// One that presents a certificate and signs with a key that is not the certificate's.
    pub(crate) fn with_another_key(version: Version) -> Self {
        #[derive(Debug)]
        struct Stolen(Arc<CertifiedKey>);
        impl ResolvesServerCert for Stolen {
            fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
                Some(self.0.clone())
            }
        }
        let made = || rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made().signing_key.serialize_der()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let stolen = CertifiedKey::new(vec![made().cert.der().clone()], key);
        let mut config = (*Self::new(&[version]).0).clone();
        config.cert_resolver = Arc::new(Stolen(Arc::new(stolen)));
        Self(Arc::new(config))
    }

    /// The same, with records of this size.
    pub(crate) fn fragmenting(&self, size: usize) -> Self {
        let mut config = (*self.0).clone();
        config.max_fragment_size = Some(size);
        Self(Arc::new(config))
    }

    /// A connection of its own, for who speaks with it to the end.
    pub(crate) fn connection(&self) -> ServerConnection {
        ServerConnection::new(self.0.clone()).unwrap()
    }

    /// All it sends to a ClientHello.
    pub(crate) fn flight(&self, hello: &[u8]) -> Vec<u8> {
        let mut connection = ServerConnection::new(self.0.clone()).unwrap();
        connection.read_tls(&mut &*hello).unwrap();
        let _ = connection.process_new_packets();
        let mut flight = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut flight).unwrap();
        }
        flight
    }
}

pub(crate) const RANDOM: [u8; 64] = [7; 64];

pub(crate) fn only(version: Version) -> Hello {
    Hello { lowest: version, highest: version, keys: Keys::Any }
}

pub(crate) fn quick(version: Version, signed: bool) -> (QuickLook, Vec<u8>) {
    let mut out = Vec::new();
    let name = DnsName::parse("a.test").unwrap();
    (QuickLook::start(only(version), Some(&name), signed, RANDOM, &mut out), out)
}

pub(crate) fn client_hello(version: Version) -> Vec<u8> {
    quick(version, false).1
}

pub(crate) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, 3, 3, (content.len() >> 8) as u8, content.len() as u8][..], content].concat()
}

pub(crate) fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind], &length24(body)[..], body].concat()
}

fn length24(bytes: &[u8]) -> [u8; 3] {
    [(bytes.len() >> 16) as u8, (bytes.len() >> 8) as u8, bytes.len() as u8]
}

pub(crate) fn server_hello(version: u16, suite: u16, extensions: &[u8]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    body.extend([9; 32]);
    body.push(0);
    body.extend(suite.to_be_bytes());
    body.push(0);
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    record(22, &message(2, &body))
}

/// A flight of TLS 1.2 with these certificates, split over as many records as it takes.
pub(crate) fn old_flight(certificates: &[Vec<u8>]) -> Vec<u8> {
    let list: Vec<u8> = certificates.iter().flat_map(|one| [&length24(one)[..], one].concat()).collect();
    let certificate = message(11, &[&length24(&list)[..], &list].concat());
    let mut flight = server_hello(0x0303, 0xc02f, &[]);
    for part in certificate.chunks(16_000) {
        flight.extend(record(22, part));
    }
    flight
}

/// Something of the outermost shape of a certificate.
pub(crate) fn der_of(length: usize) -> Vec<u8> {
    let inner = length - 8;
    let mut der = vec![0x30, 0x82, ((length - 4) >> 8) as u8, (length - 4) as u8];
    der.extend([0x30, 0x82, (inner >> 8) as u8, inner as u8]);
    der.extend(vec![0; inner]);
    der
}
