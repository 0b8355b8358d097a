//! What is known after folding the `work` stream: what is wanted, which orders are open, what failed, and the settings.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::budget::{Exempt, MEMORY, Ordered};
use crate::catalog::{Catalog, Place};
use crate::event::{
    CertificateRequested, ConfigUpdated, Event, IssuanceClaimed, IssuanceFailed, OrderPlaced, Reason, RecordClaimed,
    RenewalWindowChanged,
};
use crate::id::CertificateId;
use crate::name::NameSet;
use crate::time::Timestamp;

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
    ordered: VecDeque<Ordered>,
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
                self.remember(time, e);
                self.orders.entry(e.certificate).or_default().push((place, e.clone()));
            }
            Event::ChallengesChanged(e) if e.needed => drop(self.unneeded.remove(&e.order)),
            Event::ChallengesChanged(e) => drop(self.unneeded.insert(e.order.clone(), place)),
            Event::RecordClaimed(e) if e.until <= time => drop(self.records.remove(&e.record)),
            Event::RecordClaimed(e) => drop(self.records.insert(e.record.clone(), (place, e.clone()))),
            Event::OrderEnded(e) => {
                self.unneeded.remove(&e.order);
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
            Event::ConfigUpdated(e) => self.config = Some((place, e.clone())),
            // A removal is said on both streams: here it ends what was wanted.
            Event::CertificateRemoved(e) => {
                self.requested.remove(&e.certificate);
                self.failures.remove(&e.certificate);
                self.windows.remove(&e.certificate);
                self.claims.remove(&e.certificate);
                self.orders.remove(&e.certificate);
            }
            _ => {}
        }
    }

    fn remember(&mut self, at: Timestamp, placed: &OrderPlaced) {
        let in_window = self.window(placed.certificate).is_some_and(|window| window.start <= at);
        let exempt = match placed.reason {
            Reason::New => Exempt::Nothing,
            _ if in_window => Exempt::Everything,
            _ => Exempt::AllButNames,
        };
        while self.ordered.front().is_some_and(|first| first.at < at.minus(MEMORY)) {
            self.ordered.pop_front();
        }
        let (ca, names) = (placed.ca.clone(), NameSet::new(&placed.names));
        self.ordered.push_back(Ordered { at, ca, names, exempt });
    }

    /// Orders of the last days, as far back as CAs count ([`MEMORY`]) and as this fold has seen: a snapshot has none that
    /// are ended.
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

    /// The last claim on a managed certificate.
    pub fn claim(&self, id: CertificateId) -> Option<&IssuanceClaimed> {
        self.claims.get(&id).map(|(_, claim)| claim)
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

    /// Who changes a record at the moment.
    pub fn record_claim(&self, record: &str) -> Option<&RecordClaimed> {
        self.records.get(record).map(|(_, claim)| claim)
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

    /// Whether the event at `place` still says something: what a snapshot keeps.
    pub fn is_live(&self, place: Place, event: &Event) -> bool {
        fn at<T>(entry: Option<&(Place, T)>, place: Place) -> bool {
            entry.is_some_and(|(found, _)| *found == place)
        }
        match event {
            Event::Statement(_) | Event::Unknown(_) => true,
            Event::CertificateRequested(e) => at(self.requested.get(&e.certificate), place),
            Event::IssuanceClaimed(e) => at(self.claims.get(&e.certificate), place),
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
