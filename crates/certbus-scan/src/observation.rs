//! An observation: one probe of one node, and what it found. Its JSON is documented in docs/SCAN.md and has a version.

use std::net::IpAddr;
use std::sync::Arc;

use certbus_core::id::{Fingerprint, Hash};
use certbus_core::name::DnsName;
use certbus_core::time::Timestamp;
use data_encoding::BASE64;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::failure::Failure;
use crate::found::{CipherSuite, Found, Proof};
use crate::offer::{Hello, Offer, Version};
use crate::starttls::Starttls;

/// The version of the JSON. Fields may be added to a version; nothing in it changes its meaning.
pub const SCHEMA: u32 = 1;

/// One probe of one node.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// When the probe began.
    pub at: Timestamp,
    /// What was asked for: a name, or an address.
    pub host: Arc<str>,
    /// The node. None if the name has none.
    pub address: Option<IpAddr>,
    /// Which of A and AAAA nobody answered for the name, and why: nodes may be missing.
    pub unanswered: Option<Arc<str>>,
    /// The node's port.
    pub port: u16,
    /// The name in the ClientHello.
    pub server_name: Option<DnsName>,
    /// What was spoken before TLS.
    pub starttls: Option<Starttls>,
    /// How the last connection went about it.
    pub method: Look,
    /// What the last connection offered.
    pub offer: Arc<Offer>,
    /// How many connections it took.
    pub connections: u8,
    /// How long it took.
    pub timings: Timings,
    /// The certificate, or why there is none.
    pub result: Result<Found, Failure>,
}

/// How a certificate was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// By hand, up to the certificate or its signature.
    Quick,
    /// A handshake by rustls.
    Full,
}

/// How long the phases of the last connection took, and all of it, in milliseconds. None: it was not begun or not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timings {
    /// The TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<f64>,
    /// The dialogue before TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starttls: Option<f64>,
    /// From the ClientHello to the certificate or its proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<f64>,
    /// From the begin of the first connection to the end of the last.
    pub total: f64,
}

impl Observation {
    /// Of a name that has no node: nothing was connected to.
    pub fn unresolved(at: Timestamp, name: &DnsName, port: u16, hello: &Hello, failure: Failure) -> Self {
        Self {
            at,
            host: name.as_str().into(),
            address: None,
            unanswered: None,
            port,
            server_name: None,
            starttls: None,
            method: Look::Quick,
            offer: Arc::new(hello.described()),
            connections: 0,
            timings: Timings::default(),
            result: Err(failure),
        }
    }

    /// The SHA-256 of the leaf.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.result.as_ref().ok().and_then(|found| found.chain.first()).map(|leaf| Hash::of(leaf))
    }
}

/// The JSON: flat, and nothing in it that is not there.
#[derive(Serialize, Deserialize)]
struct Line {
    schema: u32,
    at: Timestamp,
    host: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unanswered: Option<Arc<str>>,
    port: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sni: Option<DnsName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    starttls: Option<Starttls>,
    method: Look,
    offer: Arc<Offer>,
    connections: u8,
    timings_ms: Timings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    found: Option<FoundLine>,
}

#[derive(Serialize, Deserialize)]
struct FoundLine {
    proof: Proof,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shortfall: Option<String>,
    version: Version,
    cipher_suite: CipherSuite,
    fingerprint: Fingerprint,
    /// Base64 of each certificate's DER, as served.
    chain: Vec<String>,
}

impl Serialize for Observation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let found = self.result.as_ref().ok().map(|found| FoundLine {
            proof: found.proof,
            shortfall: found.shortfall.clone(),
            version: found.version,
            cipher_suite: found.cipher_suite,
            fingerprint: self.fingerprint().unwrap_or(Hash::ZERO),
            chain: found.chain.iter().map(|certificate| BASE64.encode(certificate)).collect(),
        });
        let line = Line {
            schema: SCHEMA,
            at: self.at,
            host: self.host.clone(),
            address: self.address,
            unanswered: self.unanswered.clone(),
            port: self.port,
            sni: self.server_name.clone(),
            starttls: self.starttls,
            method: self.method,
            offer: self.offer.clone(),
            connections: self.connections,
            timings_ms: self.timings,
            failure: self.result.as_ref().err().cloned(),
            found,
        };
        line.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Observation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let line = Line::deserialize(deserializer)?;
        if line.schema != SCHEMA {
            return Err(Error::custom(format!("schema {} is not known here; {SCHEMA} is", line.schema)));
        }
        let result = match (line.found, line.failure) {
            (Some(found), None) => Ok(found.read().map_err(Error::custom)?),
            (None, Some(failure)) => Err(failure),
            _ => return Err(Error::custom("a line has either a `chain` or a `failure`")),
        };
        Ok(Self {
            at: line.at,
            host: line.host,
            address: line.address,
            unanswered: line.unanswered,
            port: line.port,
            server_name: line.sni,
            starttls: line.starttls,
            method: line.method,
            offer: line.offer,
            connections: line.connections,
            timings: line.timings_ms,
            result,
        })
    }
}

impl FoundLine {
    fn read(self) -> Result<Found, String> {
        let der = |text: &String| BASE64.decode(text.as_bytes()).map(CertificateDer::from);
        let chain = self.chain.iter().map(der).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| format!("the `chain` is not base64: {error}"))?;
        match chain.first() {
            Some(leaf) if Hash::of(leaf) == self.fingerprint => {}
            _ => return Err("the `fingerprint` is not the SHA-256 of the first certificate of the `chain`".into()),
        }
        let Self { proof, shortfall, version, cipher_suite, .. } = self;
        Ok(Found { chain, version, cipher_suite, proof, shortfall })
    }
}
