//! What is known after folding the `work` stream: what is wanted, which orders are open, what failed, and the settings.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::budget::{Exempt, MEMORY, Ordered};
use crate::catalog::{Catalog, Place};
use crate::event::{
    AccountLimited, CertificateRequested, ConfigUpdated, Event, IssuanceClaimed, IssuanceFailed, OrderPlaced, Reason,
    RecordClaimed, RenewalWindowChanged,
};
use crate::id::CertificateId;
use crate::name::NameSet;
use crate::time::Timestamp;

/// No claim is made for longer, clocks that differ a little included.
pub const LONGEST_CLAIM: Duration = Duration::from_secs(600);

/// However long a CA asks to wait, it is asked again after this.
pub const LONGEST_WAIT: Duration = Duration::from_secs(7 * 86400);

/// How many of the times at which a certificate was issued are known.
const ISSUED: usize = 5;

/// The events of an order that snapshots keep, though it may be ended.
#[derive(Clone, Debug)]
struct Remembered {
    placed: Place,
    ended: Option<Place>,
}

/// The work of a tenant.
#[derive(Clone, Debug, Default)]
pub struct Work {
    requested: HashMap<CertificateId, (Place, CertificateRequested)>,
    claims: HashMap<CertificateId, (Place, IssuanceClaimed)>,
    /// Open orders; more than one of a certificate only if a writer broke the rules.
    orders: HashMap<CertificateId, Vec<(Place, Arc<OrderPlaced>)>>,
    failures: HashMap<CertificateId, (Place, IssuanceFailed)>,
    windows: HashMap<CertificateId, (Place, RenewalWindowChanged)>,
    config: Option<(Place, ConfigUpdated)>,
    /// Orders of the last days, and the events that say so: a snapshot keeps them, or limits would be forgotten with it.
    ordered: VecDeque<Ordered>,
    remembered: HashMap<(CertificateId, String), Remembered>,
    /// When the versions of a certificate were obtained, the newest last.
    issued: HashMap<CertificateId, VecDeque<Timestamp>>,
    limited: HashMap<String, (Place, AccountLimited)>,
    /// Open orders that need their challenges no more, by URL.
    unneeded: HashMap<String, Place>,
    records: HashMap<String, (Place, RecordClaimed)>,
}

impl Work {
    /// Applies one event of a batch that was written at `time`.
    pub fn apply(&mut self, place: Place, time: Timestamp, event: &Event) {
        match event {
            Event::CertificateRequested(e) => {
                self.requested.insert(e.certificate, (place, e.clone()));
            }
            Event::IssuanceClaimed(e) => {
                self.claims.insert(e.certificate, (place, e.clone()));
            }
            Event::OrderPlaced(e) => {
                self.remember(place, time, e);
                self.orders.entry(e.certificate).or_default().push((place, e.clone()));
            }
            Event::ChallengesChanged(e) if e.needed => drop(self.unneeded.remove(&e.order)),
            Event::ChallengesChanged(e) => drop(self.unneeded.insert(e.order.clone(), place)),
            Event::RecordClaimed(e) if e.until <= time => drop(self.records.remove(&e.record)),
            Event::RecordClaimed(e) => drop(self.records.insert(e.record.clone(), (place, e.clone()))),
            Event::OrderEnded(e) => {
                self.unneeded.remove(&e.order);
                if let Some(remembered) = self.remembered.get_mut(&(e.certificate, e.order.clone())) {
                    remembered.ended = Some(place);
                    if e.version.is_some() {
                        let issued = self.issued.entry(e.certificate).or_default();
                        issued.push_back(time);
                        if issued.len() > ISSUED {
                            issued.pop_front();
                        }
                    }
                }
                if let Some(open) = self.orders.get_mut(&e.certificate) {
                    open.retain(|(_, placed)| placed.order != e.order);
                    if open.is_empty() {
                        self.orders.remove(&e.certificate);
                    }
                }
                if e.version.is_some() {
                    self.failures.remove(&e.certificate);
                    self.claims.remove(&e.certificate);
                }
            }
            Event::RenewalWindowChanged(e) => {
                self.windows.insert(e.certificate, (place, e.clone()));
            }
            Event::IssuanceFailed(e) => {
                self.failures.insert(e.certificate, (place, e.clone()));
                self.claims.remove(&e.certificate);
            }
            Event::AccountLimited(e) => drop(self.limited.insert(e.ca.clone(), (place, e.clone()))),
            Event::ConfigUpdated(e) => self.config = Some((place, e.clone())),
            // A removal is said on both streams: here it ends what was wanted.
            Event::CertificateRemoved(e) => {
                self.requested.remove(&e.certificate);
                self.failures.remove(&e.certificate);
                self.windows.remove(&e.certificate);
                self.claims.remove(&e.certificate);
                // One that was open is of no account any more: a snapshot would open it again.
                for (_, open) in self.orders.remove(&e.certificate).unwrap_or_default() {
                    self.remembered.remove(&(e.certificate, open.order.clone()));
                }
                self.issued.remove(&e.certificate);
            }
            _ => {}
        }
    }

    fn remember(&mut self, place: Place, at: Timestamp, placed: &OrderPlaced) {
        let in_window = self.window(placed.certificate).is_some_and(|window| window.start <= at);
        let exempt = match placed.reason {
            Reason::New => Exempt::Nothing,
            _ if in_window => Exempt::Everything,
            _ => Exempt::AllButNames,
        };
        while let Some(first) = self.ordered.front().filter(|first| first.at < at.minus(MEMORY)) {
            self.remembered.remove(&(first.certificate, first.order.clone()));
            self.ordered.pop_front();
        }
        let (ca, order, names) = (placed.ca.clone(), placed.order.clone(), NameSet::new(&placed.names));
        let certificate = placed.certificate;
        self.remembered.insert((certificate, order.clone()), Remembered { placed: place, ended: None });
        self.ordered.push_back(Ordered { at, ca, certificate, order, names, exempt });
    }

    /// Orders of the last days, as far back as CAs count ([`MEMORY`]).
    pub fn ordered(&self) -> &VecDeque<Ordered> {
        &self.ordered
    }

    /// The last failures of all certificates that have one since their last success.
    pub fn failures(&self) -> impl Iterator<Item = &IssuanceFailed> {
        self.failures.values().map(|(_, failure)| failure)
    }

    /// What is wanted of a managed certificate.
    pub fn request(&self, id: CertificateId) -> Option<&CertificateRequested> {
        self.requested.get(&id).map(|(_, request)| request)
    }

    /// Everything that is wanted, oldest first.
    pub fn requests(&self) -> Vec<&CertificateRequested> {
        let mut all: Vec<_> = self.requested.values().collect();
        all.sort_by_key(|(place, _)| *place);
        all.into_iter().map(|(_, request)| request).collect()
    }

    /// The managed certificate that was requested for exactly these names.
    pub fn requested_for(&self, names: &NameSet) -> Option<&CertificateRequested> {
        self.requested.values().map(|(_, request)| request).find(|request| NameSet::new(&request.names) == *names)
    }

    /// The claim on a managed certificate that stands at `now`. One that reaches further than claims are made for is of a
    /// clock that is wrong, and holds nobody up.
    pub fn claim(&self, id: CertificateId, now: Timestamp) -> Option<&IssuanceClaimed> {
        self.claims.get(&id).map(|(_, claim)| claim).filter(|claim| stands(claim.until, now))
    }

    /// The open orders whose challenges may be looked at any time.
    pub fn orders_that_need_challenges(&self) -> impl Iterator<Item = &Arc<OrderPlaced>> {
        let open = self.orders.values().flatten().map(|(_, order)| order);
        open.filter(|order| !self.unneeded.contains_key(&order.order))
    }

    /// Whether an order of a managed certificate is open and needs its challenges.
    pub fn needs_challenges(&self, id: CertificateId, order: &str) -> bool {
        !self.unneeded.contains_key(order)
            && self.orders.get(&id).is_some_and(|open| open.iter().any(|(_, placed)| placed.order == order))
    }

    /// Until when, after `now`, a CA takes no orders of its account. A time further off than anybody waits is of a clock that
    /// is wrong.
    pub fn limited(&self, ca: &str, now: Timestamp) -> Option<Timestamp> {
        let until = self.limited.get(ca).map(|(_, limited)| limited.until);
        until.filter(|until| *until > now && *until <= now.plus(LONGEST_WAIT))
    }

    /// When versions of a certificate were obtained, as far as the last few and the last days go; the newest first.
    pub fn issued(&self, id: CertificateId) -> impl Iterator<Item = Timestamp> {
        self.issued.get(&id).into_iter().flatten().rev().copied()
    }

    /// Who changes a record at `now`, as [`Work::claim`].
    pub fn record_claim(&self, record: &str, now: Timestamp) -> Option<&RecordClaimed> {
        self.records.get(record).map(|(_, claim)| claim).filter(|claim| stands(claim.until, now))
    }

    /// The order of a managed certificate that nobody has ended, the oldest if there are several.
    pub fn open_order(&self, id: CertificateId) -> Option<&Arc<OrderPlaced>> {
        self.orders.get(&id)?.first().map(|(_, order)| order)
    }

    /// The last failure since the last success.
    pub fn failure(&self, id: CertificateId) -> Option<&IssuanceFailed> {
        self.failures.get(&id).map(|(_, failure)| failure)
    }

    /// The CA's renewal window.
    pub fn window(&self, id: CertificateId) -> Option<&RenewalWindowChanged> {
        self.windows.get(&id).map(|(_, window)| window)
    }

    /// The issuing settings, sealed.
    pub fn config(&self) -> Option<&ConfigUpdated> {
        self.config.as_ref().map(|(_, config)| config)
    }

    /// Rings that open orders use: with those of live certificates, what a new recipient is given.
    pub fn rings<'a>(&'a self, catalog: &'a Catalog) -> Vec<crate::id::RingId> {
        let live = catalog.timelines().flat_map(|(_, timeline)| timeline).map(|known| known.version.ring);
        let mut rings: Vec<_> = live.chain(self.orders.values().flatten().map(|(_, order)| order.key.ring)).collect();
        rings.sort_unstable();
        rings.dedup();
        rings
    }

    fn remembered(
        &self,
        id: CertificateId,
        order: &str,
        which: impl Fn(&Remembered) -> Option<Place>,
    ) -> Option<Place> {
        self.remembered.get(&(id, order.to_owned())).and_then(which)
    }

    /// Whether the event at `place` still says something: what a snapshot keeps.
    pub fn is_live(&self, place: Place, event: &Event) -> bool {
        fn at<T>(entry: Option<&(Place, T)>, place: Place) -> bool {
            entry.is_some_and(|(found, _)| *found == place)
        }
        match event {
            Event::Statement(_) | Event::Unknown(_) => true,
            Event::CertificateRequested(e) => at(self.requested.get(&e.certificate), place),
            Event::IssuanceClaimed(e) => at(self.claims.get(&e.certificate), place),
            Event::OrderPlaced(e) if self.remembered(e.certificate, &e.order, |r| Some(r.placed)) == Some(place) => {
                true
            }
            Event::OrderEnded(e) => self.remembered(e.certificate, &e.order, |r| r.ended) == Some(place),
            Event::AccountLimited(e) => at(self.limited.get(&e.ca), place),
            Event::OrderPlaced(e) => {
                self.orders.get(&e.certificate).is_some_and(|open| open.iter().any(|(found, _)| *found == place))
            }
            Event::ChallengesChanged(e) => self.unneeded.get(&e.order) == Some(&place),
            Event::RecordClaimed(e) => at(self.records.get(&e.record), place),
            Event::IssuanceFailed(e) => at(self.failures.get(&e.certificate), place),
            Event::RenewalWindowChanged(e) => at(self.windows.get(&e.certificate), place),
            Event::ConfigUpdated(_) => at(self.config.as_ref(), place),
            _ => false,
        }
    }
}

fn stands(until: Timestamp, now: Timestamp) -> bool {
    until > now && until <= now.plus(LONGEST_CLAIM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::OrderEnded;
    use crate::id::{Hash, RingId};
    use crate::seal::{OpeningKey, Purpose, SealedKey, seal};

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_seconds(1_800_000_000).plus(Duration::from_secs(seconds))
    }

    fn id(number: u8) -> CertificateId {
        CertificateId::from_bytes([number; 8])
    }

    fn placed(number: u8) -> Event {
        let (ring, spki) = (RingId::from_bytes([1; 8]), Hash::of(b"spki"));
        let purpose = Purpose::CertificateKey { tenant: "default", ring, certificate: id(number), spki };
        let sealed = seal(&OpeningKey::from_secret(&[1; 32]).unwrap().public(), purpose, b"key").unwrap();
        Event::OrderPlaced(Arc::new(OrderPlaced {
            certificate: id(number),
            attempt: 1,
            reason: Reason::New,
            ca: "ca".into(),
            account: "account".into(),
            order: format!("order {number}"),
            names: vec![crate::name::DnsName::parse("shop.example").unwrap()],
            csr: String::new(),
            spki,
            key: SealedKey { ring, sealed },
            challenges: vec![],
        }))
    }

    fn ended(number: u8) -> Event {
        Event::OrderEnded(OrderEnded { certificate: id(number), order: format!("order {number}"), version: None })
    }

    #[test]
    fn a_snapshot_keeps_what_cas_count_for_seven_days_and_it_folds_to_the_same_without_open_orders() {
        const DAY: u64 = 86400;
        let story = [(0, placed(1)), (0, ended(1)), (5 * DAY, placed(2)), (5 * DAY, ended(2)), (8 * DAY, placed(3))];
        let place = |seq: usize| Place { seq: seq as u64 + 1, index: 0 };
        let mut work = Work::default();
        for (seq, (time, event)) in story.iter().enumerate() {
            work.apply(place(seq), at(*time), event);
        }
        let live: Vec<usize> = (0..story.len()).filter(|seq| work.is_live(place(*seq), &story[*seq].1)).collect();
        assert_eq!(live, [2, 3, 4], "the first is older than anybody counts");
        let mut again = Work::default();
        live.iter().for_each(|seq| again.apply(place(*seq), at(story[*seq].0), &story[*seq].1));
        assert_eq!(again.ordered(), work.ordered());
        assert!(again.open_order(id(2)).is_none() && again.open_order(id(3)).is_some());
    }

    #[test]
    fn a_claim_of_a_clock_that_is_far_ahead_holds_nobody_up() {
        let mut work = Work::default();
        let mut claim = |until| {
            let claimed = IssuanceClaimed { certificate: id(1), attempt: 1, by: "ahead".into(), until };
            work.apply(Place { seq: 1, index: 0 }, at(0), &Event::IssuanceClaimed(claimed));
            work.claim(id(1), at(0)).is_some()
        };
        assert!(claim(at(60)));
        assert!(!claim(at(0)));
        assert!(!claim(at(365 * 86400)));
    }
}
