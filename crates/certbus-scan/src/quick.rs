//! The quick look: a ClientHello written by hand, and the server's answer read up to its certificate, or to the signature
//! that proves its key. In the clear up to TLS 1.2; in TLS 1.3 with a key share whose private half everybody knows. Fed
//! bytes, it never touches a socket. It finishes no handshake and sends no secret.

mod certificate;
mod client_hello;
mod records;
mod server_hello;
mod signed;
mod tls13;

use aws_lc_rs::digest::Context;
use certbus_core::name::DnsName;
use rustls::pki_types::CertificateDer;

use crate::failure::{Failure, Part};
use crate::found::{CipherSuite, Found, Proof};
use crate::offer::{Hello, Version};
pub(crate) use client_hello::Random;
pub(crate) use records::looks_like;
use records::{Receive, Records};
use server_hello::{Answer, ServerHello};
use signed::Shortfall;
use tls13::{Opener, Suite};

/// One quick look at one server, over one connection.
pub struct QuickLook {
    records: Records,
    reading: Reading,
}

struct Reading {
    hello: Hello,
    /// Whether the signature is waited for.
    signed: bool,
    random: Random,
    /// The ClientHello message, for the transcript of TLS 1.3.
    client_hello: Box<[u8]>,
    /// Boxed: most probes in flight have had no answer yet.
    chosen: Option<Box<Chosen>>,
    found: Option<Found>,
}

struct Chosen {
    server: ServerHello,
    opener: Option<Opener>,
    /// Of TLS 1.3, where a signature is waited for.
    transcript: Option<Context>,
    chain: Vec<CertificateDer<'static>>,
}

impl QuickLook {
    /// Begins a look, and appends the bytes to send to `out`. `random` must be fresh. With `signed` the server's signature
    /// is read and verified too.
    pub fn start(
        hello: Hello,
        server_name: Option<&DnsName>,
        signed: bool,
        random: [u8; 64],
        out: &mut Vec<u8>,
    ) -> Self {
        let begin = out.len();
        client_hello::write(out, &hello, server_name, &random);
        // The transcript is of messages, without the record's header.
        let message = out.get(begin + 5..).filter(|_| hello.highest == Version::Tls13).unwrap_or_default();
        let reading = Reading { hello, signed, random, client_hello: message.into(), chosen: None, found: None };
        Self { records: Records::default(), reading }
    }

    /// Takes what the server sent, and decrypts it in place. None: more is needed.
    ///
    /// # Errors
    /// Why the server shows no certificate, or none that can be read.
    pub fn read(&mut self, input: &mut [u8]) -> Result<Option<Found>, Failure> {
        self.records.read(input, &mut self.reading)?;
        Ok(self.reading.found.take())
    }

    /// A certificate that was read although its proof then failed.
    pub fn presented(&mut self, shortfall: &str) -> Option<Found> {
        let chosen = self.reading.chosen.as_deref_mut().filter(|chosen| !chosen.chain.is_empty())?;
        Some(chosen.found(Proof::Presented, Some(shortfall.to_owned())))
    }

    /// Bytes of memory held for what is incomplete.
    pub fn held(&self) -> usize {
        self.records.held()
            + self.reading.chosen.as_ref().map_or(0, |chosen| chosen.chain.iter().map(|c| c.len()).sum())
    }
}

impl Receive for Reading {
    fn open(&mut self, header: [u8; 5], record: &mut [u8]) -> Result<(u8, usize), Failure> {
        let opener = self.chosen.as_deref_mut().and_then(|chosen| chosen.opener.as_mut());
        let opener = opener.ok_or_else(|| Failure::malformed(Part::Record, "an encrypted record before its time"))?;
        opener.open(header, record).ok_or_else(|| Failure::malformed(Part::Record, "a record that does not decrypt"))
    }

    fn is_sealed(&self) -> bool {
        self.chosen.as_deref().is_some_and(|chosen| chosen.opener.is_some())
    }

    fn message(&mut self, message: &[u8]) -> Result<bool, Failure> {
        let (kind, body) = (message.first().copied(), message.get(4..).unwrap_or_default());
        let Some(chosen) = self.chosen.as_deref_mut() else {
            return match kind {
                Some(SERVER_HELLO) => self.server_hello(message, body),
                // A HelloRequest means nothing to who has just said hello (RFC 5246 section 7.4.1.1).
                Some(0) => Ok(false),
                _ => Err(out_of_order(kind)),
            };
        };
        if chosen.server.version == Version::Tls13 && chosen.opener.is_none() {
            return Err(out_of_order(kind));
        }
        let outcome = match kind {
            Some(CERTIFICATE) if chosen.chain.is_empty() => {
                chosen.chain = certificate::read(body, chosen.server.version)?;
                (!self.signed).then_some((Proof::Presented, None))
            }
            Some(SERVER_KEY_EXCHANGE) if chosen.has_chain_before(Version::Tls13) => {
                Some(proved(chosen.server_key_exchange(body, &self.random)?))
            }
            Some(SERVER_HELLO_DONE) if chosen.has_chain_before(Version::Tls13) => {
                Some(proved(Err(SIGNS_NOTHING.into())))
            }
            Some(CERTIFICATE_VERIFY) if chosen.transcript.is_some() && !chosen.chain.is_empty() => {
                Some(proved(chosen.certificate_verify(body)?))
            }
            Some(ENCRYPTED_EXTENSIONS | CERTIFICATE_REQUEST | CERTIFICATE_STATUS) => None,
            _ => return Err(out_of_order(kind)),
        };
        if let Some(transcript) = &mut chosen.transcript {
            transcript.update(message);
        }
        self.found = outcome.map(|(proof, shortfall)| chosen.found(proof, shortfall));
        Ok(self.found.is_some())
    }
}

impl Reading {
    fn server_hello(&mut self, message: &[u8], body: &[u8]) -> Result<bool, Failure> {
        let server = match server_hello::read(body, &self.hello, &self.random)? {
            Answer::Chosen(server) => server,
            Answer::Retry => {
                let why = "the server asks for a key share of another group than P-256 (HelloRetryRequest)";
                return Err(Failure::Incompatible { why: why.into() });
            }
        };
        let mut chosen = Chosen { server, opener: None, transcript: None, chain: Vec::new() };
        if let (Some(secret), Some(suite)) = (chosen.server.secret, Suite::find(chosen.server.suite)) {
            let mut transcript = suite.transcript();
            transcript.update(&std::mem::take(&mut self.client_hello));
            transcript.update(message);
            chosen.opener = suite.opener(&secret, transcript.clone().finish().as_ref());
            chosen.transcript = self.signed.then_some(transcript);
        }
        self.chosen = Some(Box::new(chosen));
        Ok(false)
    }
}

impl Chosen {
    fn has_chain_before(&self, version: Version) -> bool {
        self.server.version < version && !self.chain.is_empty()
    }

    fn server_key_exchange(&self, body: &[u8], random: &Random) -> Result<Result<(), Shortfall>, Failure> {
        if self.server.version < Version::Tls12 {
            return Ok(Err("signatures of TLS 1.0 and 1.1 (MD5 and SHA-1) are not checked here".into()));
        }
        let client = random.first_chunk::<32>().map_or(&[][..], |random| random);
        signed::server_key_exchange(body, self.server.suite, [client, &self.server.random], self.leaf())
    }

    fn certificate_verify(&self, body: &[u8]) -> Result<Result<(), Shortfall>, Failure> {
        let transcript = self.transcript.as_ref().map(|transcript| transcript.clone().finish());
        signed::certificate_verify(body, transcript.as_ref().map_or(&[], |hash| hash.as_ref()), self.leaf())
    }

    fn leaf(&self) -> &[u8] {
        self.chain.first().map_or(&[], |leaf| leaf)
    }

    fn found(&mut self, proof: Proof, shortfall: Option<Shortfall>) -> Found {
        let (version, cipher_suite) = (self.server.version, CipherSuite(self.server.suite));
        Found { chain: std::mem::take(&mut self.chain), version, cipher_suite, proof, shortfall }
    }
}

const SERVER_HELLO: u8 = 2;
const ENCRYPTED_EXTENSIONS: u8 = 8;
const CERTIFICATE: u8 = 11;
const SERVER_KEY_EXCHANGE: u8 = 12;
const CERTIFICATE_REQUEST: u8 = 13;
const SERVER_HELLO_DONE: u8 = 14;
const CERTIFICATE_VERIFY: u8 = 15;
const CERTIFICATE_STATUS: u8 = 22;

const SIGNS_NOTHING: &str = "RSA key exchange: the server signs nothing, only a finished handshake proves its key";

fn proved(signature: Result<(), Shortfall>) -> (Proof, Option<Shortfall>) {
    match signature {
        Ok(()) => (Proof::Signed, None),
        Err(shortfall) => (Proof::Presented, Some(shortfall)),
    }
}

fn out_of_order(kind: Option<u8>) -> Failure {
    let kind = kind.unwrap_or_default();
    Failure::malformed(Part::Handshake, format!("a handshake message of type {kind} where none may come"))
}
