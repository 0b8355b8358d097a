//! From a name to the version that answers for it: one hash look-up for the exact name, one for its wildcard.
//! An index never changes; the next one takes its place whole.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use certbus_core::catalog::Version;
use certbus_core::time::Timestamp;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use rustls::sign::CertifiedKey;
use std::hash::{BuildHasher, Hasher};

use crate::disk::Location;

/// A version that may be served here. `repr(C)`: what every answer reads comes first, in one line of memory.
#[derive(Debug)]
#[repr(C)]
pub struct Live {
    /// A copy: an answer reads it without going on to the version.
    not_before: Timestamp,
    not_after: Timestamp,
    /// A copy too: a look-up by this name touches no other memory.
    first: Short,
    pub(crate) opened: OnceLock<Arc<CertifiedKey>>,
    pub(crate) version: Arc<Version>,
    pub(crate) location: Location,
}

impl Live {
    pub(crate) fn new(version: Arc<Version>, location: Location) -> Self {
        let (not_before, not_after) = (version.not_before, version.not_after);
        let first = Short::new(version.names.iter().next().map(key).unwrap_or_default());
        Self { not_before, not_after, first, opened: OnceLock::new(), version, location }
    }

    /// What is known of it.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The end of its validity.
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    #[inline]
    fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now <= self.not_after
    }
}

/// A name that stands where it is used; an empty one if it is too long for that.
#[derive(Debug)]
struct Short {
    len: u8,
    name: [u8; 31],
}

impl Short {
    fn new(name: &str) -> Self {
        let mut short = Self { len: 0, name: [0; 31] };
        if let (Some(space), Ok(len)) = (short.name.get_mut(..name.len()), u8::try_from(name.len())) {
            space.copy_from_slice(name.as_bytes());
            short.len = len;
        }
        short
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        self.name.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// A name in the table: where it is spelt, and who answers if only one does. 16 bytes: how many lines of memory a
/// look-up touches decides how long it takes.
#[derive(Debug)]
struct Slot {
    /// In the names, or [`FIRST`].
    start: u32,
    len: u8,
    only: Option<Arc<Live>>,
}

/// The name is the first of the one that answers, and spelt there.
const FIRST: u32 = u32::MAX;

/// The names of many versions, packed: built at start and when enough has changed.
#[derive(Debug, Default)]
pub(crate) struct Base {
    hasher: RandomState,
    table: HashTable<Slot>,
    names: Vec<u8>,
    /// Who answers for the names that several do, by where the name is spelt.
    several: HashMap<u32, Vec<Arc<Live>>, RandomState>,
    versions: usize,
}

/// The whole of what is served at one moment.
#[derive(Debug, Default)]
pub struct Index {
    base: Arc<Base>,
    /// Names whose answer is another than the base's; nobody answers where the list is empty.
    changed: HashMap<Box<str>, Vec<Arc<Live>>, RandomState>,
}

impl Base {
    pub(crate) fn build(live: impl Iterator<Item = Arc<Live>>) -> Self {
        let mut base = Self { table: HashTable::with_capacity(live.size_hint().1.unwrap_or(0)), ..Self::default() };
        for one in live {
            base.versions += 1;
            for name in one.version.names.iter() {
                base.insert(key(name).as_bytes(), &one);
            }
        }
        base
    }

    fn insert(&mut self, name: &[u8], one: &Arc<Live>) {
        let Self { hasher, table, names, several, .. } = self;
        let (Ok(start), Ok(len)) = (u32::try_from(names.len()), u8::try_from(name.len())) else {
            return;
        };
        let hash = hash(hasher, name);
        let is_first = one.first.as_bytes() == name;
        let entry = table.entry(hash, |slot| spelt(names, slot) == name, |slot| self::hash(hasher, spelt(names, slot)));
        match entry {
            Entry::Occupied(mut slot) => {
                let slot = slot.get_mut();
                if slot.start == FIRST {
                    slot.start = start;
                    names.extend_from_slice(name);
                }
                let group = several.entry(slot.start).or_default();
                group.extend(slot.only.take());
                group.push(one.clone());
            }
            Entry::Vacant(slot) => {
                slot.insert(Slot { start: if is_first { FIRST } else { start }, len, only: Some(one.clone()) });
                if !is_first {
                    names.extend_from_slice(name);
                }
            }
        }
    }

    #[inline]
    fn slot(&self, name: &[u8]) -> Option<&Slot> {
        self.table.find(hash(&self.hasher, name), |slot| spelt(&self.names, slot) == name)
    }

    fn find(&self, name: &[u8]) -> Option<&[Arc<Live>]> {
        let slot = self.slot(name)?;
        match &slot.only {
            Some(one) => Some(std::slice::from_ref(one)),
            None => self.several.get(&slot.start).map(Vec::as_slice),
        }
    }
}

/// The hash of a name's bytes and nothing else: a slice's own `Hash` would put its length before them.
#[inline]
fn hash(hasher: &RandomState, name: &[u8]) -> u64 {
    let mut state = hasher.build_hasher();
    state.write(name);
    state.finish()
}

#[inline]
fn spelt<'a>(names: &'a [u8], slot: &'a Slot) -> &'a [u8] {
    if let Slot { start: FIRST, only: Some(one), .. } = slot {
        return one.first.as_bytes();
    }
    let start = slot.start as usize;
    names.get(start..start + usize::from(slot.len)).unwrap_or_default()
}

/// As names stand in the table: a wildcard without its star, so that `*.example.com` is found by what `www.example.com`
/// ends with. No exact name begins with a dot.
fn key(name: &str) -> &str {
    name.strip_prefix('*').unwrap_or(name)
}

/// The newest valid one of those who cover a name, and the newest of all.
fn best(all: &[Arc<Live>], now: Timestamp) -> (Option<&Arc<Live>>, Option<&Arc<Live>>) {
    if let [one] = all {
        return (one.is_valid(now).then_some(one), Some(one));
    }
    let newest = |valid: bool| {
        let candidates = all.iter().filter(|l| !valid || l.is_valid(now));
        candidates.max_by_key(|l| l.version.place)
    };
    (newest(true), newest(false))
}

impl Index {
    pub(crate) fn new(base: Base) -> Self {
        Self { base: Arc::new(base), changed: HashMap::default() }
    }

    /// An index of versions whose keys are nowhere: to measure or try look-ups without a log.
    pub fn unopened(versions: Vec<Arc<Version>>) -> Self {
        let live = versions.into_iter().map(|version| Arc::new(Live::new(version, Location::Memory("".into()))));
        Self::new(Base::build(live))
    }

    /// The same with other answers for some names.
    pub(crate) fn with(&self, answers: Vec<(Box<str>, Vec<Arc<Live>>)>) -> Self {
        let mut changed = self.changed.clone();
        changed.extend(answers.into_iter().map(|(name, who)| (key(&name).into(), who)));
        Self { base: self.base.clone(), changed }
    }

    /// How many names differ from the packed part: when to pack anew.
    pub(crate) fn changed(&self) -> usize {
        self.changed.len()
    }

    /// How many versions the packed part holds.
    pub(crate) fn packed(&self) -> usize {
        self.base.versions
    }

    /// Everyone who answers for exactly this name.
    pub(crate) fn exactly(&self, name: &str) -> Vec<Arc<Live>> {
        self.find(key(name)).unwrap_or_default().to_vec()
    }

    fn find(&self, name: &str) -> Option<&[Arc<Live>]> {
        match self.changed.get(name) {
            Some(list) => (!list.is_empty()).then_some(list),
            None => self.base.find(name.as_bytes()),
        }
    }

    /// Who answers a handshake for `host` at `now`: the newest valid version with exactly this name, else with its
    /// wildcard (RFC 6125 section 6.4.3), else the newest of either although it has expired (invariant 5).
    #[inline]
    pub fn answer(&self, host: &str, now: Timestamp) -> Option<&Arc<Live>> {
        // Nearly always: nothing changed since the names were packed, one version has exactly this name, and it is valid.
        if self.changed.is_empty()
            && let Some(Slot { only: Some(one), .. }) = self.base.slot(host.as_bytes())
            && one.is_valid(now)
            && !host.starts_with('.')
        {
            return Some(one);
        }
        self.answer_otherwise(host, now)
    }

    #[cold]
    #[inline(never)]
    fn answer_otherwise(&self, host: &str, now: Timestamp) -> Option<&Arc<Live>> {
        // What wildcards are kept under begins with a dot, and no host does.
        if host.starts_with('.') {
            return None;
        }
        // Hosts nearly always come in lower case: looked up as they are, looked at only if that finds nothing.
        let (valid, newest) = self.find(host).map_or((None, None), |exact| best(exact, now));
        if valid.is_some() {
            return valid;
        }
        if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            let mut space = [0_u8; 254];
            let name = space.get_mut(..host.len())?;
            name.copy_from_slice(host.as_bytes());
            name.make_ascii_lowercase();
            return self.answer(std::str::from_utf8(name).ok()?, now);
        }
        let below = host.find('.').and_then(|dot| host.get(dot..));
        let (wild, wild_newest) = below.and_then(|name| self.find(name)).map_or((None, None), |wild| best(wild, now));
        wild.or(newest).or(wild_newest)
    }
}
