//! What a client knows and serves, and how a page of batches changes it: checked, written to disk, then adopted.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use certbus_bus::follow::FollowError;
use certbus_bus::log::{EventLog, LogError, SnapshotStore};
use certbus_bus::{compact, follow};
use certbus_core::batch::Batch;
use certbus_core::catalog::{Catalog, Known, Place};
use certbus_core::chain::{Chain, Pin};
use certbus_core::event::Event;
use certbus_core::id::{CertificateId, StreamKind};

use crate::adopt::Opener;
use crate::disk::{Disk, DiskError, Entry, Location};
use crate::index::{Base, Index, Live};

/// A tail longer than this is folded into the snapshot, or one longer than an eighth of the snapshot.
const TAIL_MAX: u64 = 1 << 20;

/// Everything but the index, owned by the one who follows the log.
#[derive(Debug)]
pub(crate) struct State {
    /// Read from the snapshot, not in `catalog`, `places` and `served` yet ([`State::sort`]): to answer handshakes none of
    /// them is needed, and a start is not to wait for them.
    unsorted: Vec<Entry>,
    disk: Disk,
    opener: Arc<Opener>,
    pub(crate) chain: Chain,
    catalog: Catalog,
    /// Where the event of each version in the catalog is.
    places: HashMap<Place, Location>,
    served: HashMap<CertificateId, Arc<Live>>,
    /// Versions that failed invariant 5, and why: what is served instead is older.
    pub(crate) refused: HashMap<CertificateId, String>,
    snapshot_bytes: u64,
    /// Why the disk does not have everything, if so.
    pub(crate) unwritten: Option<String>,
}

impl State {
    /// Reads what is on disk, without a log. Nothing is opened and no key is touched: that was done on adoption.
    pub(crate) fn load(folder: &Path, opener: Arc<Opener>, pins: Vec<Pin>) -> Result<(Self, Index), DiskError> {
        let mut disk = Disk::open(folder)?;
        let loaded = disk.load()?;
        let chain = Chain::new(StreamKind::Certs, pins.clone());
        let mut state = Self::beside(folder, opener, chain)?;
        if let Some(loaded) = loaded.filter(|l| pins.iter().any(|pin| Some(pin.log) == l.chain.log())) {
            state.chain = loaded.chain;
            state.chain.repin(pins.clone());
            state.snapshot_bytes = loaded.bytes;
            state.unsorted = loaded.entries;
        }
        state.opener.learn(&state.chain);
        let live = state.unsorted.iter().filter_map(|entry| entry.live.clone());
        let mut index = Index::new(Base::build(live));
        for (batch, offset) in disk.load_tail()? {
            if batch.cursor().seq <= state.chain.cursor().seq {
                continue;
            }
            let located = |file_offset: usize, line: &str| match disk.tail() {
                Some(file) => Location::File {
                    file: file.clone(),
                    offset: offset + file_offset as u64,
                    len: u32::try_from(line.len()).unwrap_or(0),
                },
                None => Location::Memory(line.into()),
            };
            let Ok(events) = state.chain.accept(&batch) else {
                tracing::warn!(
                    seq = batch.cursor().seq,
                    "the tail on disk does not follow the snapshot; read again from the log"
                );
                disk.cut_tail(offset);
                break;
            };
            state.sort();
            let touched = state.fold(&batch, &events, &located);
            index = state.adopt(&index, touched);
        }
        state.disk = disk;
        if state.chain.check_anchored().is_err() {
            index = Index::default();
        }
        Ok((state, index))
    }

    /// An empty state on the same folder, with the place of `chain`: what [`State::reload`] starts from.
    pub(crate) fn beside(folder: &Path, opener: Arc<Opener>, chain: Chain) -> Result<Self, DiskError> {
        Ok(Self {
            unsorted: Vec::new(),
            disk: Disk::open(folder)?,
            opener,
            chain,
            catalog: Catalog::default(),
            places: HashMap::new(),
            served: HashMap::new(),
            refused: HashMap::new(),
            snapshot_bytes: 0,
            unwritten: None,
        })
    }

    /// Puts what the snapshot had where a change looks for it.
    fn sort(&mut self) {
        let unsorted = std::mem::take(&mut self.unsorted);
        if unsorted.is_empty() {
            return;
        }
        self.catalog = Catalog::with_capacity(unsorted.len());
        self.places.reserve(unsorted.len());
        self.served.reserve(unsorted.len());
        for entry in unsorted {
            if let Some(live) = entry.live {
                self.served.insert(entry.version.certificate, live);
            }
            if entry.listed {
                self.places.insert(entry.version.place, entry.location);
                self.catalog.insert(Known { version: entry.version, offer: entry.offer });
            }
        }
    }

    /// Takes over what `other` serves, so that a refused version does not take it away; but not what is damaged.
    pub(crate) fn inherit(&mut self, other: &mut Self, damaged: &HashSet<CertificateId>) {
        other.sort();
        self.served.clone_from(&other.served);
        self.served.retain(|id, _| !damaged.contains(id));
    }

    /// The folder it keeps.
    pub(crate) fn folder(&self) -> std::path::PathBuf {
        self.disk.folder().to_owned()
    }

    /// Takes the batches of a page in; the index that comes back answers with them. If one is refused, those before it
    /// are taken, and the refusal comes back too.
    pub(crate) fn apply(&mut self, batches: &[Batch], index: &Index) -> (Index, Result<(), FollowError>) {
        self.sort();
        let was_anchored = self.chain.check_anchored().is_ok();
        let mut accepted = Vec::new();
        let mut outcome = Ok(());
        for batch in batches {
            match self.chain.accept(batch) {
                Ok(events) => accepted.push((batch, events)),
                Err(error) => {
                    outcome = Err(FollowError::Chain(error));
                    break;
                }
            }
        }
        let plain: Vec<&Batch> = accepted.iter().map(|(batch, _)| *batch).collect();
        let offsets = match self.disk.append(&plain) {
            Ok(offsets) => Some(offsets),
            Err(error) => {
                self.unwritten = Some(error.to_string());
                None
            }
        };
        let mut touched = HashSet::new();
        for (at, (batch, events)) in accepted.iter().enumerate() {
            let offset = offsets.as_ref().and_then(|o| o.get(at)).copied();
            let tail = self.disk.tail().cloned();
            let located = |in_batch: usize, line: &str| match (&tail, offset) {
                (Some(file), Some(offset)) => Location::File {
                    file: file.clone(),
                    offset: offset + in_batch as u64,
                    len: u32::try_from(line.len()).unwrap_or(0),
                },
                _ => Location::Memory(line.into()),
            };
            touched.extend(self.fold(batch, events, &located));
        }
        let index = self.adopt(index, touched);
        // Nothing is served from a history that no pinned authority has vouched for.
        match self.chain.check_anchored() {
            Err(error) => (Index::default(), outcome.and(Err(FollowError::Chain(error)))),
            Ok(()) if was_anchored => (index, outcome),
            Ok(()) => (self.index(), outcome),
        }
    }

    /// An index of everything that is served.
    fn index(&self) -> Index {
        Index::new(Base::build(self.served.values().cloned()))
    }

    fn fold(
        &mut self,
        batch: &Batch,
        events: &[Event],
        located: &dyn Fn(usize, &str) -> Location,
    ) -> HashSet<CertificateId> {
        let mut touched = HashSet::new();
        let lines = batch.event_lines().unwrap_or_default();
        for ((place, event), line) in compact::places(batch, events).zip(lines) {
            match event {
                Event::CertificateObtained(_) => {
                    self.places.insert(place, located(line.offset, line.text));
                }
                // A recipient may be given a ring later than what is sealed to it.
                Event::Statement(_) => {
                    self.opener.learn(&self.chain);
                    touched.extend(self.refused.keys().copied());
                }
                _ => {}
            }
            touched.extend(self.catalog.apply(place, event));
        }
        touched
    }

    /// Brings what is served in line with the catalog for some managed certificates.
    fn adopt(&mut self, index: &Index, touched: HashSet<CertificateId>) -> Index {
        let mut names: HashSet<Box<str>> = HashSet::new();
        let mut came: Vec<Arc<Live>> = Vec::new();
        let mut gone: HashSet<CertificateId> = HashSet::new();
        for id in touched {
            let wanted = self.catalog.current(id, Some(self.opener.name())).cloned();
            let before = self.served.get(&id).cloned();
            if wanted.as_ref().map(|v| v.fingerprint) == before.as_ref().map(|l| l.version.fingerprint) {
                self.refused.remove(&id);
                continue;
            }
            let after = match wanted {
                None if self.catalog.timeline(id).is_some() => continue,
                None => None,
                Some(version) => {
                    let location = self.places.get(&version.place).cloned();
                    let live = location.ok_or_else(|| "its record is not here".to_owned()).and_then(|location| {
                        let line = location.read().map_err(|e| format!("its record cannot be read: {e}"))?;
                        let key = self.opener.adopt(&version, &line).map_err(|e| e.to_string())?;
                        let live = Live::new(version.clone(), location);
                        if self.opener.keeps {
                            let _ = live.opened.set(key);
                        }
                        Ok(Arc::new(live))
                    });
                    match live {
                        Ok(live) => Some(live),
                        Err(why) => {
                            tracing::error!(certificate = %id, version = %version.fingerprint, names = %version.names,
                                "version refused, the one before is still served: {why}");
                            self.refused.insert(id, why);
                            continue;
                        }
                    }
                }
            };
            self.refused.remove(&id);
            for live in before.iter().chain(&after) {
                names.extend(live.version.names.iter().map(Box::from));
            }
            gone.insert(id);
            match after {
                Some(live) => {
                    self.served.insert(id, live.clone());
                    came.push(live);
                }
                None => {
                    self.served.remove(&id);
                }
            }
        }
        if index.changed() + names.len() > index.packed() / 8 + 256 {
            return self.index();
        }
        let answers = names.into_iter().map(|name| {
            let mut who = index.exactly(&name);
            who.retain(|live| !gone.contains(&live.version.certificate));
            who.extend(came.iter().filter(|live| live.version.names.iter().any(|n| *n == *name)).cloned());
            (name, who)
        });
        index.with(answers.collect())
    }

    /// Reads the stream anew after its place was lost, and takes it if it may ([`follow::reload`]).
    pub(crate) async fn reload(
        &mut self,
        log: &dyn EventLog,
        snapshots: &dyn SnapshotStore,
        lost: &LogError,
    ) -> Result<Index, FollowError> {
        let spool =
            self.disk.spool().map_err(|e| LogError::Unavailable { place: log.place(), cause: e.to_string() })?;
        let spool = std::sync::Mutex::new(spool);
        let (mut catalog, mut places) = (Catalog::default(), HashMap::new());
        let chain = follow::reload(log, snapshots, &self.chain, lost, |batch, events| {
            let lines = batch.event_lines().unwrap_or_default();
            for ((place, event), line) in compact::places(batch, events).zip(lines) {
                if let Event::CertificateObtained(_) = event {
                    let mut spool = spool.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    places.insert(place, spool.push(line.text));
                }
                catalog.apply(place, event);
            }
        })
        .await?;
        self.chain = chain;
        self.opener.learn(&self.chain);
        let touched = catalog.timelines().map(|(id, _)| id).chain(self.served.keys().copied()).collect();
        (self.catalog, self.places) = (catalog, places);
        let index = self.adopt(&self.index(), touched);
        Ok(self.write(&index))
    }

    /// Whether enough has changed to write a snapshot.
    pub(crate) fn wants_write(&self) -> bool {
        self.unwritten.is_some() || self.disk.tail_bytes > TAIL_MAX.max(self.snapshot_bytes / 8)
    }

    /// Whether anything at all is in the tail.
    pub(crate) fn has_tail(&self) -> bool {
        self.disk.tail_bytes > 0
    }

    /// Writes a snapshot; the index that comes back reads from it. If the disk refuses, everything stays as it was.
    pub(crate) fn write(&mut self, index: &Index) -> Index {
        self.sort();
        let places = &self.places;
        let listed = self.catalog.timelines().flat_map(|(_, timeline)| timeline).filter_map(|known| {
            let location = places.get(&known.version.place)?.clone();
            let live = self.served.get(&known.version.certificate);
            let live = live.filter(|live| live.version.fingerprint == known.version.fingerprint);
            Some(Entry {
                version: known.version.clone(),
                offer: known.offer.clone(),
                listed: true,
                live: live.cloned(),
                location,
            })
        });
        let mut entries: Vec<Entry> = listed.collect();
        let kept: HashSet<_> = entries.iter().filter(|e| e.live.is_some()).map(|e| e.version.certificate).collect();
        for (id, live) in self.served.iter().filter(|(id, _)| !kept.contains(id)) {
            tracing::debug!(certificate = %id, "kept although the log does not list it any more");
            let (version, location) = (live.version.clone(), live.location.clone());
            entries.push(Entry { version, offer: None, listed: false, live: Some(live.clone()), location });
        }
        match self.disk.write(&self.chain, &entries) {
            Err(error) => {
                tracing::error!("the snapshot cannot be written, what is served is not affected: {error}");
                self.unwritten = Some(error.to_string());
                index.with(Vec::new())
            }
            Ok((locations, bytes)) => {
                self.unwritten = None;
                self.snapshot_bytes = bytes;
                self.places.clear();
                for (entry, location) in entries.iter().zip(locations) {
                    if entry.listed {
                        self.places.insert(entry.version.place, location.clone());
                    }
                    if let Some(before) = &entry.live {
                        let live = Live::new(entry.version.clone(), location);
                        if let Some(key) = before.opened.get() {
                            let _ = live.opened.set(key.clone());
                        }
                        self.served.insert(entry.version.certificate, Arc::new(live));
                    }
                }
                self.index()
            }
        }
    }

    /// What was found damaged on disk at the start.
    pub(crate) fn damaged(&self) -> Option<String> {
        self.disk.damaged.clone()
    }

    /// What is served here: one version of each managed certificate.
    pub(crate) fn all_served(&mut self) -> Vec<Arc<Live>> {
        self.sort();
        self.served.values().cloned().collect()
    }

    /// How many managed certificates are served here.
    pub(crate) fn served(&mut self) -> usize {
        self.sort();
        self.served.len()
    }
}
