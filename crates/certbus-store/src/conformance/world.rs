//! What the suites are told with: a time that is passed in, certificates, endpoints and looks.

use std::any::Any;
use std::time::Duration;

use certbus_core::endpoint::{Endpoint, Written};
use certbus_core::id::{CertificateId, Hash};
use certbus_core::time::Timestamp;

use crate::audit::Actor;
use crate::observations::{Failed, Look, Poll, Recorded};
use crate::schedule::DuePoll;
use crate::shown::{Counts, Stay};
use crate::{Listed, Query, State, Store};

/// An empty inventory.
pub struct Engine {
    pub store: Store,
    /// Dropped last: a folder, a server.
    pub keep: Box<dyn Any + Send + Sync>,
}

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const DAYS: Duration = Duration::from_secs(86_400);

/// So many minutes after noon.
pub(super) fn at(minutes: u64) -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").unwrap().plus(MINUTE * u32::try_from(minutes).unwrap())
}

pub(super) fn person() -> Actor {
    Actor { name: "ada".into(), source: "cli".into() }
}

/// A certificate for `names` (separated by spaces) by `issuer`, from `start` on for `life`. It parses, and nobody trusts it.
pub fn certificate(names: &str, issuer: &str, start: Timestamp, life: Duration) -> Vec<u8> {
    let time = |at: Timestamp| {
        let text: String = at.to_string().chars().filter(char::is_ascii_digit).take(14).collect();
        tlv(0x18, format!("{text}Z").as_bytes())
    };
    let name = |value: &str| {
        let attribute = [tlv(6, &[0x55, 4, 3]), tlv(12, value.as_bytes())].concat();
        tlv(0x30, &tlv(0x31, &tlv(0x30, &attribute)))
    };
    let algorithm = tlv(0x30, &tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2]));
    let curve =
        [tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), tlv(6, &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7])].concat();
    let mut point = vec![0, 4];
    point.extend(Hash::of(names.as_bytes()).as_bytes());
    point.extend(Hash::of(&start.millis().to_be_bytes()).as_bytes());
    let sans: Vec<u8> = names.split(' ').flat_map(|name| tlv(0x82, name.as_bytes())).collect();
    let extension = [tlv(6, &[0x55, 0x1d, 0x11]), tlv(4, &tlv(0x30, &sans))].concat();
    let serial = Hash::of(format!("{names} {issuer} {start}").as_bytes());
    let tbs = [
        tlv(0xa0, &tlv(2, &[2])),
        tlv(2, &[&[1], &serial.as_bytes()[..15]].concat()),
        algorithm.clone(),
        name(issuer),
        tlv(0x30, &[time(start), time(start.plus(life))].concat()),
        name(names.split(' ').next().unwrap()),
        tlv(0x30, &[tlv(0x30, &curve), tlv(3, &point)].concat()),
        tlv(0xa3, &tlv(0x30, &tlv(0x30, &extension))),
    ]
    .concat();
    tlv(0x30, &[tlv(0x30, &tbs), algorithm, tlv(3, &[0, 0x30, 0])].concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=127 => out.push(length as u8),
        128..=255 => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend(content);
    out
}

pub(super) fn endpoint(host: &str) -> Endpoint {
    Endpoint::parse(&Written { host: Some(host.into()), ..Written::default() }).unwrap()
}

pub(super) fn managed(number: u8) -> CertificateId {
    CertificateId::from_bytes([number; 8])
}

/// A look at a node that served a chain of one.
pub(super) fn served(address: &str, leaf: &[u8]) -> Look {
    Look { address: Some(address.parse().unwrap()), method: "quick".into(), outcome: Ok(vec![leaf.to_vec()]) }
}

pub(super) fn failed(address: &str, kind: &str) -> Look {
    let outcome = Err(Failed { kind: kind.into(), why: format!("{kind}, in words") });
    Look { address: address.parse().ok(), method: "quick".into(), outcome }
}

impl Engine {
    pub(super) async fn add(&self, host: &str) -> i64 {
        self.store.add_endpoints(&[endpoint(host)], &person(), at(0)).await.unwrap()[0]
    }

    pub(super) async fn poll(&self, endpoint: i64, minutes: u64, looks: &[Look]) -> Recorded {
        self.poll_from("default", endpoint, minutes, looks).await
    }

    pub(super) async fn poll_from(&self, site: &str, endpoint: i64, minutes: u64, looks: &[Look]) -> Recorded {
        let poll = Poll { endpoint, site: site.into(), at: at(minutes), looks: looks.to_vec(), whole: true };
        let recorded = self.store.record(&[poll], at(minutes)).await.unwrap();
        self.holds().await;
        recorded
    }

    /// What is kept is what is counted.
    pub(super) async fn holds(&self) -> Counts {
        let counts = self.store.counts().await.unwrap();
        assert_eq!(counts, self.store.counted().await.unwrap());
        counts
    }

    pub(super) async fn stays(&self, endpoint: i64) -> Vec<Stay> {
        self.store.timeline(endpoint, 1000).await.unwrap()
    }

    /// The names of what a query lists, page by page.
    pub(super) async fn names(&self, query: Query, minutes: u64) -> Vec<String> {
        let mut names = Vec::new();
        let mut query = Query { limit: query.limit.max(2), ..query };
        loop {
            let page = self.store.endpoints(&query, at(minutes)).await.unwrap();
            names.extend(page.rows.into_iter().map(|row| row.stored.endpoint.name));
            match page.next {
                None => return names,
                next => query.after = next,
            }
        }
    }

    pub(super) async fn row(&self, id: i64, minutes: u64) -> Listed {
        let query = Query { id: Some(id), limit: 1, ..Query::default() };
        self.store.endpoints(&query, at(minutes)).await.unwrap().rows.pop().unwrap()
    }

    /// What is due from every site.
    pub(super) async fn due(&self, minutes: u64) -> Vec<DuePoll> {
        let mut due = Vec::new();
        for site in self.store.sites().await.unwrap() {
            due.extend(self.store.due_polls(&site, at(minutes), 100).await.unwrap());
        }
        due
    }

    pub(super) async fn in_state(&self, state: State, minutes: u64) -> Vec<String> {
        self.names(Query { state: Some(state), ..Query::default() }, minutes).await
    }

    pub(super) async fn found(&self, words: &str) -> Vec<String> {
        let mut names = self.names(Query { search: words.into(), ..Query::default() }, 0).await;
        names.sort();
        names
    }

    pub(super) async fn changes(&self, endpoint: i64) -> Vec<String> {
        let changes = self.store.changes(Some(endpoint), None, 1000).await.unwrap();
        changes.into_iter().rev().map(|change| format!("{} {}", change.address, change.kind)).collect()
    }
}
