//! The full way: a handshake by rustls with an offer like a browser's, up to the certificate, its signature, or its end.
//! Fed bytes, it never touches a socket. It trusts and refuses nobody: the verdict is made elsewhere.

use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use certbus_core::name::DnsName;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme, SupportedProtocolVersion};

use crate::failure::{Failure, Part, Phase};
use crate::found::{CipherSuite, Found, Proof};
use crate::offer::{Hello, Keys, Offer, Version, is_elliptic, signature_algorithm_name};
use crate::quick::looks_like;

/// One full handshake with one server, over one connection.
pub struct FullLook {
    connection: Box<ClientConnection>,
    captured: Arc<Capture>,
    wanted: Proof,
    /// Bytes read so far: what rustls may hold of them.
    total: usize,
}

/// Takes what the server shows, and stops the handshake where enough is seen.
#[derive(Debug)]
struct Capture {
    wanted: Proof,
    keys: Keys,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    chain: Vec<CertificateDer<'static>>,
    signed: bool,
}

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(crypto::aws_lc_rs::default_provider()));

/// What browsers offer to a web server (RFC 7301).
const ALPN: [&str; 2] = ["h2", "http/1.1"];

impl FullLook {
    /// Begins a handshake, and appends the bytes to send to `out`. With `http` the protocols of the web are offered.
    ///
    /// # Errors
    /// [`Failure::Incompatible`] where rustls speaks none of the versions.
    pub fn start(
        hello: &Hello,
        server_name: Option<&DnsName>,
        address: IpAddr,
        http: bool,
        wanted: Proof,
        out: &mut Vec<u8>,
    ) -> Result<Self, Failure> {
        let incompatible = |error: Error| Failure::Incompatible { why: error.to_string().into() };
        let versions = versions(hello);
        if versions.is_empty() {
            return Err(Failure::Incompatible { why: "only TLS 1.2 and 1.3 can be finished here".into() });
        }
        let captured = Arc::new(Capture { wanted, keys: hello.keys, seen: Mutex::default() });
        let config = ClientConfig::builder_with_provider(PROVIDER.clone()).with_protocol_versions(&versions);
        let mut config = config
            .map_err(incompatible)?
            .dangerous()
            .with_custom_certificate_verifier(captured.clone())
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        if http {
            config.alpn_protocols = ALPN.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        }
        let name = server_name.and_then(|name| ServerName::try_from(name.as_str().to_owned()).ok());
        let name = name.unwrap_or_else(|| ServerName::from(address));
        let connection = ClientConnection::new(Arc::new(config), name).map_err(incompatible)?;
        let mut look = Self { connection: Box::new(connection), captured, wanted, total: 0 };
        look.write(out);
        Ok(look)
    }

    /// What an observation says of such a handshake.
    pub fn described(hello: &Hello, http: bool) -> Offer {
        let schemes = schemes(hello.keys).into_iter().map(|scheme| signature_algorithm_name(scheme.into()));
        let alpn = if http { ALPN.iter().map(|protocol| (*protocol).to_owned()).collect() } else { Vec::new() };
        let versions = hello.versions().filter(|version| *version >= Version::Tls12).collect();
        Offer { versions, signature_algorithms: schemes.collect(), alpn }
    }

    /// Takes what the server sent, and appends what it is to be sent to `out`. None: more is needed.
    ///
    /// # Errors
    /// Why the server shows no certificate.
    pub fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Option<Found>, Failure> {
        if self.total == 0 && !matches!(input.first(), Some(20..=23) | None) {
            return Err(looks_like(input));
        }
        self.total += input.len();
        let mut rest = input;
        // What comes after the handshake is not read, and after a close_notify nothing is taken.
        while !rest.is_empty() && self.connection.is_handshaking() {
            match self.connection.read_tls(&mut rest) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => return self.failed(Failure::malformed(Part::Record, error.to_string())),
            }
            if let Err(error) = self.connection.process_new_packets() {
                return self.stopped(error);
            }
        }
        self.write(out);
        if self.connection.is_handshaking() {
            return Ok(None);
        }
        Ok(self.found(Proof::Finished, None))
    }

    /// A certificate that was read although the handshake then failed.
    pub fn presented(&mut self, shortfall: &str) -> Option<Found> {
        let proof = if self.captured.seen().signed { Proof::Signed } else { Proof::Presented };
        self.found(proof, (proof < self.wanted).then(|| shortfall.to_owned()))
    }

    /// Bytes of memory held for what is incomplete, at most.
    pub fn held(&self) -> usize {
        self.total
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        while self.connection.wants_write() {
            // Writing to memory does not fail.
            if self.connection.write_tls(out).is_err() {
                break;
            }
        }
    }

    /// rustls stopped: because enough was seen, or because something is wrong.
    fn stopped(&mut self, error: Error) -> Result<Option<Found>, Failure> {
        let proof = if self.captured.seen().signed { Proof::Signed } else { Proof::Presented };
        if proof >= self.wanted
            && let Some(found) = self.found(proof, None)
        {
            return Ok(Some(found));
        }
        self.failed(failure(error))
    }

    fn failed(&mut self, failure: Failure) -> Result<Option<Found>, Failure> {
        match self.presented(&format!("the handshake was not finished: {failure}")) {
            Some(found) => Ok(Some(found)),
            None => Err(failure),
        }
    }

    fn found(&self, proof: Proof, shortfall: Option<String>) -> Option<Found> {
        let chain = std::mem::take(&mut self.captured.seen().chain);
        let version = self.connection.protocol_version().and_then(|version| Version::from_number(version.into()))?;
        let suite = self.connection.negotiated_cipher_suite()?.suite();
        (!chain.is_empty()).then(|| Found { chain, version, cipher_suite: CipherSuite(suite.into()), proof, shortfall })
    }
}

impl Capture {
    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signature(&self, verified: Result<HandshakeSignatureValid, Error>) -> Result<HandshakeSignatureValid, Error> {
        let valid = verified?;
        self.seen().signed = true;
        if self.wanted < Proof::Finished { Err(Error::General("enough was seen".into())) } else { Ok(valid) }
    }
}

impl ServerCertVerifier for Capture {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _stapled: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(leaf).chain(others).map(|certificate| certificate.clone().into_owned());
        self.seen().chain = chain.collect();
        match self.wanted {
            Proof::Presented => Err(Error::General("enough was seen".into())),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        self.signature(crypto::verify_tls12_signature(message, leaf, signed, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &PROVIDER.signature_verification_algorithms;
        self.signature(crypto::verify_tls13_signature(message, leaf, signed, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes(self.keys)
    }
}

fn versions(hello: &Hello) -> Vec<&'static SupportedProtocolVersion> {
    let known = [(Version::Tls13, &rustls::version::TLS13), (Version::Tls12, &rustls::version::TLS12)];
    known.into_iter().filter(|(version, _)| hello.has(*version)).map(|(_, known)| known).collect()
}

fn schemes(keys: Keys) -> Vec<SignatureScheme> {
    let all = PROVIDER.signature_verification_algorithms.supported_schemes();
    let wanted = |scheme: &SignatureScheme| match keys {
        Keys::Any => true,
        Keys::Ecdsa => is_elliptic(u16::from(*scheme)),
        Keys::Rsa => !is_elliptic(u16::from(*scheme)),
    };
    all.into_iter().filter(wanted).collect()
}

fn failure(error: Error) -> Failure {
    match error {
        Error::AlertReceived(alert) if u8::from(alert) == 0 => Failure::Closed { phase: Phase::Handshake },
        Error::AlertReceived(alert) => Failure::alert(alert.into()),
        Error::PeerIncompatible(why) => Failure::Incompatible { why: format!("{why:?}").into() },
        Error::NoCertificatesPresented => Failure::malformed(Part::Certificate, "it has no certificate"),
        Error::InvalidMessage(
            rustls::InvalidMessage::MessageTooLarge | rustls::InvalidMessage::HandshakePayloadTooLarge,
        ) => Failure::too_large("a handshake message of more than 65,535 bytes"),
        Error::InvalidMessage(why) => Failure::malformed(Part::Handshake, format!("{why:?}")),
        Error::DecryptError => Failure::malformed(Part::Record, "a record that does not decrypt"),
        Error::InvalidCertificate(why) => Failure::malformed(Part::Certificate, why.to_string()),
        error => Failure::malformed(Part::Handshake, error.to_string()),
    }
}
