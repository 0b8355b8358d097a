//! Limits: so many probes in flight to one host and one network, so many connections begun in a second. Targets that must
//! wait do so here, a bounded number of them.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::Target;

/// Of more targets that must wait, none is asked for.
const MOST_WAITING: usize = 4096;

pub(super) struct Turnstile {
    hosts: Gates,
    networks: Gates,
    /// Targets that waited and may try again.
    called: VecDeque<Target>,
    waiting: usize,
}

/// One limit, for every address that it counts.
struct Gates {
    limit: Option<usize>,
    gates: HashMap<IpAddr, Gate>,
}

#[derive(Default)]
struct Gate {
    inside: usize,
    waiting: VecDeque<Target>,
}

impl Turnstile {
    pub(super) fn new(per_host: Option<usize>, per_network: Option<usize>) -> Self {
        let gates = |limit| Gates { limit, gates: HashMap::new() };
        Self { hosts: gates(per_host), networks: gates(per_network), called: VecDeque::new(), waiting: 0 }
    }

    /// Lets a target in, or keeps it until another leaves.
    pub(super) fn enter(&mut self, target: Target) -> Option<Target> {
        let (host, network) = (target.address, network(target.address));
        for (gates, address) in [(&mut self.hosts, host), (&mut self.networks, network)] {
            if let Some(gate) = gates.closed(address) {
                gate.waiting.push_back(target);
                self.waiting += 1;
                return None;
            }
        }
        self.hosts.enter(host);
        self.networks.enter(network);
        Some(target)
    }

    /// A probe of this address ended: one that waits at each gate is called.
    pub(super) fn leave(&mut self, address: IpAddr) {
        for (gates, address) in [(&mut self.hosts, address), (&mut self.networks, network(address))] {
            if let Some(target) = gates.leave(address) {
                self.called.push_back(target);
                self.waiting -= 1;
            }
        }
    }

    /// The next that may try again.
    pub(super) fn called(&mut self) -> Option<Target> {
        self.called.pop_front()
    }

    pub(super) fn is_full(&self) -> bool {
        self.waiting >= MOST_WAITING
    }

    pub(super) fn is_waited_at(&self) -> bool {
        self.waiting > 0 || !self.called.is_empty()
    }
}

impl Gates {
    fn closed(&mut self, address: IpAddr) -> Option<&mut Gate> {
        let limit = self.limit?;
        self.gates.get_mut(&address).filter(|gate| gate.inside >= limit)
    }

    fn enter(&mut self, address: IpAddr) {
        if self.limit.is_some() {
            self.gates.entry(address).or_default().inside += 1;
        }
    }

    fn leave(&mut self, address: IpAddr) -> Option<Target> {
        let gate = self.gates.get_mut(&address)?;
        gate.inside = gate.inside.saturating_sub(1);
        let called = gate.waiting.pop_front();
        if gate.inside == 0 && gate.waiting.is_empty() {
            self.gates.remove(&address);
        }
        called
    }
}

/// The network of an address: its first 24 bits, or 48 of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 80 << 80).into(),
    }
}

/// A number of connections in a second, evenly: after a pause no more than a tenth of a second is made up for.
pub(super) struct Pace {
    every: Duration,
    next: Option<Instant>,
}

impl Pace {
    pub(super) fn new(rate: Option<u32>) -> Self {
        let every = rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1));
        Self { every, next: None }
    }

    /// How long to wait for the next.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        self.next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now))
    }

    /// One was begun.
    pub(super) fn step(&mut self, now: Instant) {
        if !self.every.is_zero() {
            let earliest = now.checked_sub(Duration::from_millis(100)).unwrap_or(now);
            self.next = Some(self.next.map_or(now, |next| next.max(earliest)) + self.every);
        }
    }
}
