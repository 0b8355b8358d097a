//! The catalog: what is known after folding the `certs` stream. Kept small: chains and keys stay where they are stored.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event::{CertificateObtained, CertificateOffered, Event, Reason};
use crate::id::{CertificateId, Fingerprint, Hash, RingId};
use crate::name::NameSet;
use crate::time::Timestamp;

/// Where an event stands in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The batch.
    pub seq: u64,
    /// The event, counted from 0.
    pub index: u32,
}

/// One issued certificate of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// SHA-256 of the leaf.
    pub fingerprint: Fingerprint,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    pub spki: Hash,
    /// The ring its key is sealed to.
    pub ring: RingId,
    /// The names it covers.
    pub names: NameSet,
    /// Validity.
    pub not_before: Timestamp,
    /// Validity.
    pub not_after: Timestamp,
    /// Why it was obtained.
    pub reason: Reason,
    /// Where its `CertificateObtained` stands: later is newer.
    pub place: Place,
}

/// To whom a version was last offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Where the event stands.
    pub place: Place,
    /// Recipients by name; None: all.
    pub to: Option<Box<[String]>>,
}

/// A version and its offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The version.
    pub version: Arc<Version>,
    /// None: obtained, not offered yet.
    pub offer: Option<Offer>,
}

/// A managed certificate: the versions that are still of use, oldest first.
pub type Timeline = Vec<Known>;

/// What is known of all managed certificates.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    timelines: HashMap<CertificateId, Timeline>,
    revoked: HashMap<Fingerprint, (u8, Place)>,
}

impl Version {
    /// From the event at `place`.
    pub fn new(event: &CertificateObtained, place: Place) -> Self {
        Self {
            certificate: event.certificate,
            fingerprint: event.version,
            spki: event.spki,
            ring: event.key.ring,
            names: NameSet::new(&event.names),
            not_before: event.not_before,
            not_after: event.not_after,
            reason: event.reason,
            place,
        }
    }

    /// Whether `now` lies in its validity.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

impl Catalog {
    /// An empty one with room for `count` managed certificates.
    pub fn with_capacity(count: usize) -> Self {
        Self { timelines: HashMap::with_capacity(count), revoked: HashMap::new() }
    }

    /// Applies one event; says which managed certificate it changed.
    pub fn apply(&mut self, place: Place, event: &Event) -> Option<CertificateId> {
        match event {
            Event::CertificateObtained(obtained) => {
                self.insert(Known { version: Arc::new(Version::new(obtained, place)), offer: None });
                Some(obtained.certificate)
            }
            Event::CertificateOffered(offered) => self.offer(offered, place).then_some(offered.certificate),
            Event::CertificateRemoved(removed) => {
                self.timelines.remove(&removed.certificate).map(|_| removed.certificate)
            }
            Event::CertificateRevoked(revoked) => {
                self.revoked.insert(revoked.version, (revoked.reason, place));
                Some(revoked.certificate)
            }
            _ => None,
        }
    }

    /// Adds a version, as a stored catalog does.
    pub fn insert(&mut self, known: Known) {
        self.timelines.entry(known.version.certificate).or_insert_with(|| Vec::with_capacity(1)).push(known);
    }

    fn offer(&mut self, offered: &CertificateOffered, place: Place) -> bool {
        let Some(timeline) = self.timelines.get_mut(&offered.certificate) else {
            return false;
        };
        let Some(known) = timeline.iter_mut().find(|k| k.version.fingerprint == offered.version) else {
            return false;
        };
        known.offer = Some(Offer { place, to: offered.to.as_ref().map(|to| to.clone().into()) });
        if offered.to.is_none() {
            // Nobody is to serve what was offered before this, nor wait for what was obtained before this.
            let (offered, obtained) = (place, known.version.place);
            timeline.retain(|k| match &k.offer {
                Some(offer) => offer.place >= offered,
                None => k.version.place > obtained,
            });
        }
        true
    }

    /// The versions of a managed certificate that are of use.
    pub fn timeline(&self, id: CertificateId) -> Option<&Timeline> {
        self.timelines.get(&id)
    }

    /// All managed certificates, in no order.
    pub fn timelines(&self) -> impl Iterator<Item = (CertificateId, &Timeline)> {
        self.timelines.iter().map(|(id, timeline)| (*id, timeline))
    }

    /// How many managed certificates there are.
    pub fn len(&self) -> usize {
        self.timelines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.timelines.is_empty()
    }

    /// What `recipient` is to serve: the version last offered to it. None for the newest offered to anyone.
    pub fn current(&self, id: CertificateId, recipient: Option<&str>) -> Option<&Arc<Version>> {
        current(self.timelines.get(&id)?, recipient)
    }

    /// The newest version obtained, offered or not.
    pub fn newest(&self, id: CertificateId) -> Option<&Arc<Version>> {
        self.timelines.get(&id)?.last().map(|known| &known.version)
    }

    /// Whether a version was revoked, and why (RFC 5280 section 5.3.1).
    pub fn revocation(&self, version: Fingerprint) -> Option<u8> {
        self.revoked.get(&version).map(|(reason, _)| *reason)
    }

    /// Whether the event at `place` still says something: what a snapshot keeps.
    pub fn is_live(&self, place: Place, event: &Event) -> bool {
        let known = |id, version| {
            let timeline = self.timelines.get(&id)?;
            timeline.iter().find(|k| k.version.fingerprint == version)
        };
        match event {
            Event::Statement(_) | Event::Unknown(_) => true,
            Event::CertificateObtained(e) => known(e.certificate, e.version).is_some(),
            Event::CertificateOffered(e) => {
                known(e.certificate, e.version).and_then(|k| k.offer.as_ref()).is_some_and(|offer| offer.place == place)
            }
            Event::CertificateRevoked(e) => self.timelines.contains_key(&e.certificate),
            _ => false,
        }
    }
}

/// The version of `timeline` that `recipient` is to serve.
pub fn current<'a>(timeline: &'a Timeline, recipient: Option<&str>) -> Option<&'a Arc<Version>> {
    let mine = |offer: &Offer| match (&offer.to, recipient) {
        (None, _) | (Some(_), None) => true,
        (Some(names), Some(me)) => names.iter().any(|name| name == me),
    };
    timeline
        .iter()
        .filter_map(|known| known.offer.as_ref().filter(|offer| mine(offer)).map(|offer| (offer.place, &known.version)))
        .max_by_key(|(place, _)| *place)
        .map(|(_, version)| version)
}

/// Which of several versions answers for a name: the newest that is valid, or, if none is, the newest (invariant 5).
pub fn best<'a>(candidates: impl Iterator<Item = &'a Version> + Clone, now: Timestamp) -> Option<&'a Version> {
    candidates
        .clone()
        .filter(|version| version.is_valid(now))
        .max_by_key(|version| version.place)
        .or_else(|| candidates.max_by_key(|version| version.place))
}
