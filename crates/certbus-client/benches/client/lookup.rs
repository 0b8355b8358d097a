//! From a name to the version that answers, at 1,000,000 names with a certificate each (the worst case for a cache),
//! against a bare map get. Both sides look the same names up in the same random order and touch the expiry of what
//! they find.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use certbus_client::Index;
use certbus_core::catalog::{Place, Version};
use certbus_core::event::Reason;
use certbus_core::id::{CertificateId, Hash, RingId};
use certbus_core::name::{DnsName, NameSet};
use certbus_core::time::Timestamp;

use crate::world::{host, now};
use crate::{goal, median};

const NAMES: usize = 1_000_000;
const ROUNDS: usize = 7;

/// What a bare map's user would keep behind the name.
struct Kept {
    not_after: Timestamp,
    _rest: [u64; 12],
}

fn version(number: usize, name: &str) -> Arc<Version> {
    let place = Place { seq: number as u64, index: 0 };
    Arc::new(Version {
        certificate: CertificateId::from_bytes((number as u64).to_be_bytes()),
        fingerprint: Hash::of(name.as_bytes()),
        spki: Hash::ZERO,
        ring: RingId::from_bytes([1; 8]),
        names: NameSet::new(&[DnsName::parse(name).unwrap()]),
        not_before: Timestamp::from_seconds(0),
        not_after: Timestamp::from_seconds(1 << 40),
        reason: Reason::New,
        place,
    })
}

fn shuffled<T>(mut values: Vec<T>) -> Vec<T> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for at in (1..values.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        values.swap(at, (state % (at as u64 + 1)) as usize);
    }
    values
}

/// The hosts back to back, in the order in which they are asked for: reading them costs both sides the same and little.
struct Asked {
    text: String,
    ends: Vec<usize>,
}

impl Asked {
    fn new(hosts: &[String]) -> Self {
        let mut asked = Self { text: String::new(), ends: vec![0] };
        for host in hosts {
            asked.text += host;
            asked.ends.push(asked.text.len());
        }
        asked
    }

    /// Nanoseconds for each. `WAIT`: the next is not begun before the answer is there, as between handshakes; else the
    /// processor runs ahead into the next ones, and it is the rate of a loop that does nothing else.
    fn each<const WAIT: bool>(&self, mut ask: impl FnMut(&str) -> Timestamp) -> f64 {
        let (begun, mut before) = (Instant::now(), 0);
        for pair in self.ends.windows(2) {
            let answer = black_box(ask(&self.text[pair[0] + before..pair[1]]));
            if WAIT {
                before = usize::from(answer.millis() < 0);
            }
        }
        begun.elapsed().as_nanos() as f64 / (self.ends.len() - 1) as f64
    }
}

type Std<S> = std::collections::HashMap<Box<str>, Arc<Kept>, S>;
type Brown = hashbrown::HashMap<Box<str>, Arc<Kept>, foldhash::fast::RandomState>;

fn filled<M: FromIterator<(Box<str>, Arc<Kept>)>>(hosts: &[String]) -> M {
    let kept = |host: &String| {
        let not_after = Timestamp::from_seconds(1 << 40);
        let _rest = [0; 12];
        (host.as_str().into(), Arc::new(Kept { not_after, _rest }))
    };
    hosts.iter().map(kept).collect()
}

pub(crate) fn run() {
    let hosts: Vec<String> = (0..NAMES).map(host).collect();
    let versions = |prefix: &str| {
        let versions = hosts.iter().enumerate();
        Index::unopened(versions.map(|(number, host)| version(number, &format!("{prefix}{host}"))).collect())
    };
    let (index, wild) = (versions(""), versions("*."));
    let (std, brown, sip) = (filled(&hosts), filled(&hosts), filled(&hosts));
    let hosts = shuffled(hosts);
    let asked = |change: &dyn Fn(&str) -> String| Asked::new(&hosts.iter().map(|h| change(h)).collect::<Vec<_>>());
    let sides = Sides {
        exact: asked(&str::to_owned),
        mixed: asked(&|host| host.replace('h', "H").replace("ex", "EX")),
        below: asked(&|host| format!("www.{host}")),
        index,
        wild,
        std,
        brown,
        sip,
    };
    println!("SNI lookup at {NAMES} names, random order, median of {ROUNDS} interleaved rounds");
    println!(" each look-up waits for the one before, as a handshake does:");
    show(|| sides.round::<true>());
    println!(" a loop that does nothing else, the processor running ahead into the next look-ups:");
    show(|| sides.round::<false>());
}

struct Sides {
    exact: Asked,
    mixed: Asked,
    below: Asked,
    index: Index,
    wild: Index,
    std: Std<foldhash::fast::RandomState>,
    brown: Brown,
    sip: Std<std::hash::RandomState>,
}

impl Sides {
    /// Each side once.
    fn round<const WAIT: bool>(&self) -> [f64; 6] {
        let now = now();
        [
            self.exact.each::<WAIT>(|host| self.std.get(host).unwrap().not_after),
            self.exact.each::<WAIT>(|host| self.brown.get(host).unwrap().not_after),
            self.exact.each::<WAIT>(|host| self.sip.get(host).unwrap().not_after),
            self.exact.each::<WAIT>(|host| self.index.answer(host, now).unwrap().not_after()),
            self.mixed.each::<WAIT>(|host| self.index.answer(host, now).unwrap().not_after()),
            self.below.each::<WAIT>(|host| self.wild.answer(host, now).unwrap().not_after()),
        ]
    }
}

fn show(round: impl Fn() -> [f64; 6]) {
    // The first round warms.
    round();
    let rounds: Vec<[f64; 6]> = (0..ROUNDS).map(|_| round()).collect();
    let ratio = |side: usize| median(rounds.iter().map(|round| round[side] / round[0]).collect());
    for (side, what) in [
        "bare std HashMap<Box<str>, Arc<_>>, foldhash (the reference)",
        "bare hashbrown HashMap, foldhash",
        "bare std HashMap, its own hasher",
        "CertBus, exact name",
        "CertBus, exact name in mixed case",
        "CertBus, wildcard",
    ]
    .iter()
    .enumerate()
    {
        let time = median(rounds.iter().map(|round| round[side]).collect());
        println!("  {what}: {time:.0} ns, {:.2} of the reference", ratio(side));
    }
    goal("exact name against a bare get", ratio(3), "", ratio(3) <= 1.2, "≤ 1.2");
}
