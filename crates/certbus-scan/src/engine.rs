//! The engine: as many probes in flight as the system allows, on one thread, in bounded memory. Here is what it takes and
//! gives; how it drives the probes is in `engine/drive.rs`.

mod connection;
mod deadlines;
mod descriptors;
mod drive;
mod feed;
mod randoms;
mod turnstile;

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use certbus_core::name::DnsName;
use certbus_core::time::Timestamp;

use crate::conversation::Way;
use crate::failure::Failure;
use crate::found::Proof;
use crate::observation::Observation;
use crate::offer::Hello;
use crate::starttls::Starttls;
use crate::ways::{Learnt, Method};
use connection::Job;
pub use descriptors::most_in_flight;
use drive::Engine;
pub use feed::{Feed, Targets, feed};

/// One probe to make.
#[derive(Clone, Debug)]
pub struct Target {
    /// What was asked for: a name, or an address. Observations carry it.
    pub host: Arc<str>,
    /// The node.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// The name in the ClientHello.
    pub server_name: Option<DnsName>,
    /// What is spoken before TLS.
    pub starttls: Option<Starttls>,
    /// What may be offered.
    pub hello: Hello,
    /// Why the host may have other nodes, that nobody knows. Observations carry it.
    pub unanswered: Option<Arc<str>>,
}

/// How probes are made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Which ways may be gone.
    pub method: Method,
    /// How much is to be proved.
    pub proof: Proof,
    /// The deadline of each phase.
    pub timeouts: Timeouts,
    /// How much at a time.
    pub limits: Limits,
}

/// The deadline of each phase, from its begin.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the TCP connection.
    pub connect: Duration,
    /// For the dialogue before TLS.
    pub starttls: Duration,
    /// From the ClientHello to the proof.
    pub handshake: Duration,
}

/// How much is done at a time.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Probes in flight. [`most_in_flight`] says what the system allows.
    pub in_flight: usize,
    /// Connections begun in a second. None: as fast as it goes.
    pub rate: Option<u32>,
    /// Probes in flight to one address. None: no limit.
    pub per_host: Option<usize>,
    /// Probes in flight to one network (/24 of IPv4, /48 of IPv6). None: no limit.
    pub per_network: Option<usize>,
}

/// What a scan came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Probes that saw a certificate.
    pub found: u64,
    /// Probes that saw none.
    pub failed: u64,
    /// Probes that a cancellation ended.
    pub unfinished: u64,
    /// The most that were in flight at a time.
    pub peak: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            method: Method::Auto,
            proof: Proof::Presented,
            timeouts: Timeouts::all(Duration::from_secs(5)),
            limits: Limits { in_flight: 1000, rate: None, per_host: Some(16), per_network: Some(256) },
        }
    }
}

impl Timeouts {
    /// The same for each phase.
    pub const fn all(each: Duration) -> Self {
        Self { connect: each, starttls: each, handshake: each }
    }
}

/// Probes one node. Blocks until it has answered, or not in time.
pub fn probe(target: Target, options: &Options) -> Observation {
    let fallback = Job::new(target.clone(), Way::Clear)
        .observation(Err(Failure::Local { why: "the probe was not begun".into() }), Arc::new(target.hello.described()));
    let mut seen = None;
    let ended = feed(1).and_then(|(feed, targets)| {
        feed.send(target);
        drop(feed);
        scan(targets, options, &mut Learnt::default(), &AtomicBool::new(false), |found| seen = Some(found))
    });
    match (seen, ended) {
        (Some(seen), _) => seen,
        (None, Err(error)) => Observation { result: Err(Failure::Local { why: error.to_string() }), ..fallback },
        (None, Ok(_)) => fallback,
    }
}

/// Probes every target that comes, until no more can come, and gives each result to `sink` as it arrives. While `sink`
/// does not return, time stands still for the deadlines: a slow reader slows the scan and fails no probe.
///
/// `cancel` ends the scan within a tenth of a second; what is in flight is dropped.
///
/// # Errors
/// Only if the system's event queue fails. What befalls a probe is in its observation.
pub fn scan(
    targets: Targets,
    options: &Options,
    learnt: &mut Learnt,
    cancel: &AtomicBool,
    sink: impl FnMut(Observation),
) -> io::Result<Summary> {
    Engine::new(targets, options, learnt, sink).run(cancel)
}

/// The machine's clock, as observations say it.
fn timestamp() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
