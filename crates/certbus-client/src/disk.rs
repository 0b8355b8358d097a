//! What is kept on disk: a packed snapshot, replaced by rename, and a tail of the batches since, appended to.
//!
//! `certs.snapshot`: a title line; a header line (JSON: the chain, lengths, the index's SHA-256); the index, one packed
//! entry a version; the data, one event line a version. A start reads the index only. `certs.tail`: batches, as a part of
//! a log's snapshot has them. Private keys in both are sealed (invariant 1).

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certbus_core::batch::Batch;
use certbus_core::catalog::{Offer, Place, Version};
use certbus_core::chain::Chain;
use certbus_core::event::Reason;
use certbus_core::id::{CertificateId, Hash, RingId};
use certbus_core::name::NameSet;
use certbus_core::snapshot::batches_of;
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::index::Live;

/// No packed entry is shorter, in bytes.
const ENTRY_AT_LEAST: usize = 128;
const TITLE: &str = "certbus client snapshot 1\n";
const SNAPSHOT: &str = "certs.snapshot";
const PREVIOUS: &str = "certs.snapshot.previous";
const TAIL: &str = "certs.tail";

/// Where an event's line is.
#[derive(Clone, Debug)]
pub(crate) enum Location {
    File {
        file: Arc<File>,
        offset: u64,
        len: u32,
    },
    /// Not on disk, because the disk refused it.
    Memory(Arc<str>),
}

impl Location {
    pub(crate) fn read(&self) -> io::Result<String> {
        match self {
            Self::Memory(line) => Ok(line.to_string()),
            Self::File { file, offset, len } => {
                let mut bytes = vec![0; *len as usize];
                file.read_exact_at(&mut bytes, *offset)?;
                String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8"))
            }
        }
    }
}

/// One version, as kept.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) version: Arc<Version>,
    pub(crate) offer: Option<Offer>,
    /// Whether the stream still counts on it; false for one that is served only because its successor is refused.
    pub(crate) listed: bool,
    /// If it is served here.
    pub(crate) live: Option<Arc<Live>>,
    pub(crate) location: Location,
}

/// Why the folder's content cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Its words.
        source: io::Error,
    },
    /// Two clients that write one folder would tear each other's files.
    #[error("{path}: another process serves from this folder; give each server a folder of its own (`--state DIR`)")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Cut off, altered, or of a newer program.
    #[error("{path}: {why}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    chain: Chain,
    entries: usize,
    index_bytes: u64,
    index_sha256: Hash,
    data_bytes: u64,
}

/// A snapshot, read back.
pub(crate) struct Loaded {
    pub(crate) chain: Chain,
    pub(crate) entries: Vec<Entry>,
    pub(crate) bytes: u64,
}

/// The folder of one client.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: PathBuf,
    tail: Option<Arc<File>>,
    pub(crate) tail_bytes: u64,
    /// What was found damaged at the start.
    pub(crate) damaged: Option<String>,
}

impl Disk {
    /// Opens the folder; makes it (0700) if it is missing.
    pub(crate) fn open(folder: &Path) -> Result<Self, DiskError> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(|source| DiskError::Io { path: folder.to_owned(), source })?;
        Ok(Self { folder: folder.to_owned(), tail: None, tail_bytes: 0, damaged: None })
    }

    /// Holds the folder against other processes for as long as the file that comes back is open.
    pub(crate) fn lock(folder: &Path) -> Result<File, DiskError> {
        let folder = Self::open(folder)?.folder;
        let path = folder.join("lock");
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = made.map_err(|source| DiskError::Io { path: path.clone(), source })?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(DiskError::InUse { path: folder }),
            Err(std::fs::TryLockError::Error(source)) => Err(DiskError::Io { path, source }),
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The snapshot; the one before it if the newest is damaged; None if there is none that holds. A damaged one is set
    /// aside and named: what it had comes back from the log.
    pub(crate) fn load(&mut self) -> Result<Option<Loaded>, DiskError> {
        for name in [SNAPSHOT, PREVIOUS] {
            match self.load_file(name) {
                Err(damaged @ DiskError::Damaged { .. }) => {
                    tracing::error!("{damaged}; set aside as {name}.damaged, its content is read from the log again");
                    self.damaged.get_or_insert(damaged.to_string());
                    let _ = std::fs::rename(self.folder.join(name), self.folder.join(format!("{name}.damaged")));
                }
                Ok(None) => {}
                other => return other,
            }
        }
        Ok(None)
    }

    fn load_file(&self, name: &str) -> Result<Option<Loaded>, DiskError> {
        let path = self.folder.join(name);
        let io = |source| DiskError::Io { path: path.clone(), source };
        let damaged = |why: &str| DiskError::Damaged { path: path.clone(), why: why.to_owned() };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let size = file.metadata().map_err(io)?.len();
        let mut head = io::BufReader::with_capacity(1 << 16, &mut file);
        let (mut title, mut line) = (String::new(), String::new());
        io::BufRead::read_line(&mut head, &mut title).map_err(|_| damaged("it is not a client snapshot"))?;
        if title != TITLE {
            return Err(damaged("it is not a client snapshot of this format; a newer program may have written it"));
        }
        io::BufRead::read_line(&mut head, &mut line).map_err(|_| damaged("its header is damaged"))?;
        let header: Header = serde_json::from_str(&line).map_err(|_| damaged("its header is damaged or cut off"))?;
        let start = (title.len() + line.len()) as u64;
        if size != start + header.index_bytes + header.data_bytes {
            return Err(damaged("it is cut off"));
        }
        let mut index = Vec::with_capacity(usize::try_from(header.index_bytes).unwrap_or(0));
        file.seek(SeekFrom::Start(start)).map_err(io)?;
        (&mut file).take(header.index_bytes).read_to_end(&mut index).map_err(io)?;
        let (file, mut offset) = (Arc::new(file), start + header.index_bytes);
        // Unpacked while another thread sums it up: a start waits for the longer of the two.
        let (sum, entries) = std::thread::scope(|scope| {
            let sum = scope.spawn(|| Hash::of(&index));
            let mut rest = Packed(&index);
            let mut entries = Vec::with_capacity(header.entries.min(index.len() / ENTRY_AT_LEAST));
            entries.extend((0..header.entries).map_while(|_| rest.entry(&file, &mut offset)));
            (sum.join().ok(), entries)
        });
        if sum != Some(header.index_sha256) {
            return Err(damaged("its index is altered"));
        }
        if entries.len() != header.entries {
            return Err(damaged("its index is malformed"));
        }
        Ok(Some(Loaded { chain: header.chain, entries, bytes: size }))
    }

    /// The batches appended since the snapshot, with where each begins. A half-written last one is left out.
    pub(crate) fn load_tail(&mut self) -> Result<Vec<(Batch, u64)>, DiskError> {
        let path = self.folder.join(TAIL);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(DiskError::Io { path, source }),
        };
        let whole = bytes.windows(2).rposition(|pair| pair == b"\n\n").map_or(0, |at| at + 2);
        let mut batches = Vec::new();
        let mut offset = 0_u64;
        let mut whole = whole as u64;
        for part in bytes.get(..whole as usize).unwrap_or_default().split_inclusive_pairs() {
            match batches_of(part) {
                Ok(found) => batches.extend(found.into_iter().map(|batch| (batch, offset))),
                Err(why) => {
                    self.damaged.get_or_insert(format!("{}: {why}", path.display()));
                    whole = offset;
                    break;
                }
            }
            offset += part.len() as u64 + 1;
        }
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&path);
        let file = file.map_err(|source| DiskError::Io { path: path.clone(), source })?;
        file.set_len(whole).map_err(|source| DiskError::Io { path, source })?;
        self.tail = Some(Arc::new(file));
        self.tail_bytes = whole;
        Ok(batches)
    }

    /// Cuts the tail off where it does not follow the snapshot.
    pub(crate) fn cut_tail(&mut self, at: u64) {
        if self.tail.as_ref().is_some_and(|tail| tail.set_len(at).is_ok()) {
            self.tail_bytes = at;
        }
    }

    /// A nameless file for lines that come in bulk and have no place yet.
    pub(crate) fn spool(&self) -> Result<Spool, DiskError> {
        let path = self.folder.join("certs.incoming");
        let io = |source| DiskError::Io { path: path.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path);
        let file = Arc::new(file.map_err(io)?);
        std::fs::remove_file(&path).map_err(io)?;
        Ok(Spool { file, bytes: 0 })
    }

    /// The file that the tail is in.
    pub(crate) fn tail(&self) -> Option<&Arc<File>> {
        self.tail.as_ref()
    }

    /// Appends batches, durably. Says where each begins.
    pub(crate) fn append(&mut self, batches: &[&Batch]) -> io::Result<Vec<u64>> {
        let Some(tail) = &self.tail else {
            return Err(io::Error::other("the tail is not open"));
        };
        let (mut text, mut places) = (Vec::new(), Vec::new());
        for batch in batches {
            places.push(self.tail_bytes + text.len() as u64);
            text.extend_from_slice(batch.bytes());
            text.push(b'\n');
        }
        let written = (&**tail).write_all(&text).and_then(|()| tail.sync_data());
        if let Err(error) = written {
            let _ = tail.set_len(self.tail_bytes);
            return Err(error);
        }
        self.tail_bytes += text.len() as u64;
        Ok(places)
    }

    /// Writes a snapshot of everything, keeps the one before, and starts an empty tail. Says where each entry is now.
    pub(crate) fn write(&mut self, chain: &Chain, entries: &[Entry]) -> Result<(Vec<Location>, u64), DiskError> {
        let new = self.folder.join(format!("{SNAPSHOT}.new"));
        let result = self.write_new(&new, chain, entries);
        if result.is_err() {
            let _ = std::fs::remove_file(&new);
        }
        let (file, start, lengths, size) = result.map_err(|source| DiskError::Io { path: new.clone(), source })?;
        let path = self.folder.join(SNAPSHOT);
        let io = |source| DiskError::Io { path: path.clone(), source };
        // A second name for the old one, then the new one in its place: at no moment is there none.
        let _ = std::fs::remove_file(self.folder.join(PREVIOUS));
        match std::fs::hard_link(&path, self.folder.join(PREVIOUS)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
            _ => {}
        }
        std::fs::rename(&new, &path).map_err(io)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(io)?;
        // A tail that stays because of a crash here repeats what the snapshot has: its batches are passed over by number.
        let tail = self.folder.join(TAIL);
        let _ = std::fs::remove_file(&tail);
        let fresh = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&tail);
        self.tail = Some(Arc::new(fresh.map_err(|source| DiskError::Io { path: tail, source })?));
        self.tail_bytes = 0;
        let file = Arc::new(file);
        let mut offset = start;
        let places = lengths.into_iter().map(|len| {
            let location = Location::File { file: file.clone(), offset, len };
            offset += u64::from(len);
            location
        });
        Ok((places.collect(), size))
    }

    fn write_new(&self, new: &Path, chain: &Chain, entries: &[Entry]) -> io::Result<(File, u64, Vec<u32>, u64)> {
        let mut lines = Vec::with_capacity(entries.len());
        let mut index = Vec::with_capacity(entries.len() * 200);
        for entry in entries {
            // Lines are read twice rather than held: a hundred thousand of them are large.
            let len = match &entry.location {
                Location::File { len, .. } => *len,
                Location::Memory(line) => u32::try_from(line.len()).map_err(io::Error::other)?,
            };
            pack(&mut index, entry, len);
            lines.push(len);
        }
        let header = Header {
            chain: chain.clone(),
            entries: entries.len(),
            index_bytes: index.len() as u64,
            index_sha256: Hash::of(&index),
            data_bytes: lines.iter().map(|len| u64::from(*len)).sum(),
        };
        let header = serde_json::to_string(&header).map_err(io::Error::other)? + "\n";
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(new)?;
        let mut out = BufWriter::with_capacity(1 << 18, &file);
        out.write_all(TITLE.as_bytes())?;
        out.write_all(header.as_bytes())?;
        out.write_all(&index)?;
        for entry in entries {
            out.write_all(entry.location.read()?.as_bytes())?;
        }
        out.flush()?;
        drop(out);
        file.sync_all()?;
        let size = file.metadata()?.len();
        let start = (TITLE.len() + header.len() + index.len()) as u64;
        Ok((file, start, lines, size))
    }
}

/// Lines in a nameless file: gone when the last one who may read them is.
pub(crate) struct Spool {
    file: Arc<File>,
    bytes: u64,
}

impl Spool {
    /// Keeps a line; in memory if the disk refuses it.
    pub(crate) fn push(&mut self, line: &str) -> Location {
        let (Ok(len), Ok(())) = (u32::try_from(line.len()), self.file.write_all_at(line.as_bytes(), self.bytes)) else {
            return Location::Memory(line.into());
        };
        let location = Location::File { file: self.file.clone(), offset: self.bytes, len };
        self.bytes += u64::from(len);
        location
    }
}

fn pack(out: &mut Vec<u8>, entry: &Entry, len: u32) {
    let version = &entry.version;
    out.extend_from_slice(version.certificate.as_bytes());
    out.extend_from_slice(version.fingerprint.as_bytes());
    out.extend_from_slice(version.spki.as_bytes());
    out.extend_from_slice(version.ring.as_bytes());
    out.extend_from_slice(&version.not_before.millis().to_le_bytes());
    out.extend_from_slice(&version.not_after.millis().to_le_bytes());
    pack_place(out, version.place);
    let reason = match version.reason {
        Reason::New => 0_u8,
        Reason::Renewal => 1,
        Reason::Replacement => 2,
    };
    let offer = entry.offer.as_ref();
    let to = offer.and_then(|offer| offer.to.as_ref());
    let flags = u8::from(entry.listed)
        | u8::from(entry.live.is_some()) << 1
        | u8::from(offer.is_some()) << 2
        | u8::from(to.is_some()) << 3
        | reason << 4;
    out.push(flags);
    out.extend_from_slice(&len.to_le_bytes());
    pack_text(out, version.names.as_str());
    if let Some(offer) = offer {
        pack_place(out, offer.place);
    }
    if let Some(to) = to {
        pack_text(out, &to.join("\n"));
    }
}

fn pack_place(out: &mut Vec<u8>, place: Place) {
    out.extend_from_slice(&place.seq.to_le_bytes());
    out.extend_from_slice(&place.index.to_le_bytes());
}

fn pack_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// What is left of a packed index. Every read is checked: a malformed index gives None, never a panic.
struct Packed<'a>(&'a [u8]);

impl<'a> Packed<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn text(&mut self) -> Option<&'a str> {
        let len = u32::from_le_bytes(self.take()?) as usize;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    fn place(&mut self) -> Option<Place> {
        Some(Place { seq: u64::from_le_bytes(self.take()?), index: u32::from_le_bytes(self.take()?) })
    }

    fn time(&mut self) -> Option<Timestamp> {
        Some(Timestamp::from_millis(i64::from_le_bytes(self.take()?)))
    }

    fn entry(&mut self, file: &Arc<File>, offset: &mut u64) -> Option<Entry> {
        let certificate = CertificateId::from_bytes(self.take()?);
        let fingerprint = Hash::from_bytes(self.take()?);
        let spki = Hash::from_bytes(self.take()?);
        let ring = RingId::from_bytes(self.take()?);
        let (not_before, not_after, place) = (self.time()?, self.time()?, self.place()?);
        let [flags] = self.take()?;
        let len = u32::from_le_bytes(self.take()?);
        let names = NameSet::from_stored(self.text()?);
        let reason = match flags >> 4 {
            0 => Reason::New,
            1 => Reason::Renewal,
            _ => Reason::Replacement,
        };
        let mut offer = None;
        if flags & 4 != 0 {
            let place = self.place()?;
            let to = if flags & 8 != 0 { Some(self.text()?.split('\n').map(str::to_owned).collect()) } else { None };
            offer = Some(Offer { place, to });
        }
        let location = Location::File { file: file.clone(), offset: *offset, len };
        *offset += u64::from(len);
        let version = Version { certificate, fingerprint, spki, ring, names, not_before, not_after, reason, place };
        let version = Arc::new(version);
        let live = || Arc::new(Live::new(version.clone(), location.clone()));
        let live = (flags & 2 != 0).then(live);
        Some(Entry { version, offer, listed: flags & 1 != 0, live, location })
    }
}

trait SplitPairs {
    fn split_inclusive_pairs(&self) -> Vec<&[u8]>;
}

impl SplitPairs for [u8] {
    /// The parts before each empty line, each with its own line break.
    fn split_inclusive_pairs(&self) -> Vec<&[u8]> {
        let (mut parts, mut start) = (Vec::new(), 0);
        for at in 1..self.len() {
            if self.get(at - 1) == Some(&b'\n') && self.get(at) == Some(&b'\n') {
                parts.extend(self.get(start..at));
                start = at + 1;
            }
        }
        parts
    }
}
