//! One probe in flight: its socket, its conversation, and what is known of it so far. It decides nothing.

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use certbus_core::time::Timestamp;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use slab::Slab;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Target, timestamp};
use crate::conversation::{Conversation, Way};
use crate::failure::{Failure, Phase};
use crate::found::{Found, Proof};
use crate::observation::{Look, Observation, Timings};
use crate::offer::Offer;

/// A connection that is open or opening.
pub(super) struct Probe {
    pub(super) stream: TcpStream,
    pub(super) token: Token,
    /// The deadline that counts.
    pub(super) turn: u32,
    /// None until it is connected.
    pub(super) conversation: Option<Conversation>,
    pub(super) unsent: Vec<u8>,
    /// What its conversation holds, as it was counted last.
    pub(super) held: usize,
    pub(super) job: Job,
}

/// What a probe is about, over all its connections.
pub(super) struct Job {
    pub(super) target: Target,
    pub(super) way: Way,
    /// Ways that failed before this one.
    pub(super) tried: Vec<Way>,
    /// Of the failures before this one, that which says most.
    failed: Option<Box<(Way, Failure)>>,
    at: Timestamp,
    began: Instant,
    phase_began: Instant,
    timings: Timings,
}

impl Probe {
    pub(super) fn new(stream: TcpStream, token: Token, turn: u32, job: Job) -> Self {
        let (conversation, unsent) = (None, Vec::new());
        Self { stream, token, turn, conversation, unsent, held: 0, job }
    }

    pub(super) fn phase(&self) -> Phase {
        self.conversation.as_ref().map_or(Phase::Connect, Conversation::phase)
    }
}

impl Job {
    pub(super) fn new(target: Target, way: Way) -> Self {
        let now = Instant::now();
        let (tried, timings) = (Vec::new(), Timings::default());
        Self { target, way, tried, failed: None, at: timestamp(), began: now, phase_began: now, timings }
    }

    pub(super) fn server(&self) -> SocketAddr {
        SocketAddr::new(self.target.address, self.target.port)
    }

    pub(super) fn look(&self) -> Look {
        match self.way {
            Way::Clear | Way::Combined => Look::Quick,
            Way::Full => Look::Full,
        }
    }

    pub(super) fn connecting(&mut self, now: Instant) {
        if self.tried.is_empty() {
            self.began = now;
        }
        self.phase_began = now;
        self.timings = Timings::default();
    }

    pub(super) fn connected(&mut self, now: Instant) {
        self.timings.connect = Some(millis(now, self.phase_began));
    }

    pub(super) fn phase_begins(&mut self, now: Instant) {
        self.phase_began = now;
    }

    pub(super) fn starttls_done(&mut self, now: Instant) {
        self.timings.starttls = Some(millis(now, self.phase_began));
        self.phase_began = now;
    }

    pub(super) fn phase_ends(&mut self, now: Instant, phase: Option<Phase>) {
        if phase == Some(Phase::Handshake) {
            self.timings.handshake = Some(millis(now, self.phase_began));
        }
        self.timings.total = millis(now, self.began);
    }

    pub(super) fn tried_with_this(&self) -> Vec<Way> {
        self.tried.iter().copied().chain([self.way]).collect()
    }

    /// After `failure` the job goes another way.
    pub(super) fn goes(&mut self, way: Way, failure: Failure) {
        let failure = self.telling(failure);
        self.failed = Some(Box::new((self.way, failure)));
        self.tried.push(std::mem::replace(&mut self.way, way));
    }

    /// Of all failures the one that says most: the last, but not that a way does not fit, and not what a hello without
    /// TLS 1.3 met.
    pub(super) fn telling(&mut self, last: Failure) -> Failure {
        let says_less = self.way == Way::Clear || matches!(last, Failure::Incompatible { .. });
        match self.failed.take() {
            Some(failed) if failed.0 != Way::Clear && says_less => failed.1,
            _ => last,
        }
    }

    /// Says why less is proved than was wanted, where the handshake that would have proved it failed before.
    pub(super) fn with_shortfall(&self, mut found: Found, wanted: Proof) -> Found {
        if found.proof < wanted {
            let failed = self.failed.as_ref().map(|failed| format!("the full handshake failed: {}", failed.1));
            found.shortfall = failed.filter(|_| self.tried.contains(&Way::Full)).or(found.shortfall);
        }
        found
    }

    pub(super) fn observation(self, result: Result<Found, Failure>, offer: Arc<Offer>) -> Observation {
        Observation {
            at: self.at,
            method: self.look(),
            address: Some(self.target.address),
            unanswered: self.target.unanswered,
            port: self.target.port,
            host: self.target.host,
            server_name: self.target.server_name,
            starttls: self.target.starttls,
            offer,
            connections: u8::try_from(self.tried.len() + 1).unwrap_or(u8::MAX),
            timings: self.timings,
            result,
        }
    }
}

/// Opens a connection without waiting for it, to be closed by a reset: a scan must leave no ports in TIME-WAIT behind.
pub(super) fn open(job: &Job, registry: &Registry, key: usize) -> io::Result<(TcpStream, Token)> {
    let server = job.server();
    let socket = Socket::new(Domain::for_address(server), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_linger(Some(Duration::ZERO))?;
    match socket.connect(&server.into()) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock && error.raw_os_error() != Some(EINPROGRESS) => {
            return Err(error);
        }
        _ => {}
    }
    let mut stream = TcpStream::from_std(StdStream::from(socket));
    // The number keeps an event of a connection that is gone from the next one in its place.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let token = Token((number as usize) << 32 | key);
    registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
    Ok((stream, token))
}

/// The place of a connection that is still there.
pub(super) fn key(token: Token, probes: &Slab<Probe>) -> Option<usize> {
    let key = token.0 & 0xffff_ffff;
    probes.get(key).is_some_and(|probe| probe.token == token).then_some(key)
}

/// The system has no socket, port or memory to give just now.
pub(super) fn is_crowded(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | EADDRNOTAVAIL | ENOBUFS))
}

/// What a failed call on a socket means.
pub(super) fn failure(error: &io::Error, phase: Phase) -> Failure {
    use io::ErrorKind;
    match error.kind() {
        _ if is_crowded(error) => Failure::Local { why: error.to_string() },
        ErrorKind::ConnectionRefused => Failure::Refused,
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => Failure::Reset { phase },
        ErrorKind::TimedOut => Failure::Timeout { phase },
        _ => Failure::Unreachable { why: error.to_string() },
    }
}

// The same numbers on every Linux architecture this is built for.
const ENOMEM: i32 = 12;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const EADDRNOTAVAIL: i32 = 99;
const ENOBUFS: i32 = 105;
const EINPROGRESS: i32 = 115;

/// To a microsecond.
fn millis(now: Instant, since: Instant) -> f64 {
    now.saturating_duration_since(since).as_micros() as f64 / 1000.0
}
