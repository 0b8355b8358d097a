//! Snapshots of a stream: its batches with dead events dropped, in parts, under a signed manifest.

use serde::{Deserialize, Serialize};

use crate::batch::{Batch, BatchError, MAX_BATCH};
use crate::chain::{Chain, ChainError, Pin};
use crate::event::Event;
use crate::id::{Cursor, Hash, LogId, PublicKey, StreamKind};
use crate::key::{Domain, Signature, SigningKey};
use crate::time::Timestamp;

/// What the writer of a snapshot signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// The log.
    pub log: LogId,
    /// The stream.
    pub stream: StreamKind,
    /// The epoch at the cursor.
    pub epoch: u64,
    /// The next batch follows this.
    pub cursor: Cursor,
    /// When it was made.
    pub time: Timestamp,
    /// A manager admitted at the cursor.
    pub writer: PublicKey,
    /// The SHA-256 of each part, in order.
    pub parts: Vec<Hash>,
}

/// Why a snapshot is not adopted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// The manifest is none, or of a newer program.
    #[error("the snapshot's manifest is unreadable: {0}")]
    BadManifest(String),
    /// Signed by nobody who may.
    #[error("the snapshot's manifest is not signed by an admitted writer")]
    BadSignature,
    /// A part is missing or altered.
    #[error("part {number} of the snapshot is missing or altered")]
    BadPart {
        /// Counted from 1.
        number: usize,
    },
    /// Older than what the reader has.
    #[error(
        "the snapshot ends at epoch {epoch} batch {seq}, below this reader's own epoch {own_epoch} batch {own_seq}"
    )]
    Older {
        /// The snapshot's.
        epoch: u64,
        /// The snapshot's.
        seq: u64,
        /// The reader's.
        own_epoch: u64,
        /// The reader's.
        own_seq: u64,
    },
    /// A batch in it is refused.
    #[error("the snapshot is refused: {0}")]
    Refused(#[from] ChainError),
    /// A batch in it cannot be read.
    #[error("the snapshot is refused: {0}")]
    Unreadable(#[from] BatchError),
}

impl Manifest {
    /// Two lines: JSON and signature.
    pub fn sign(&self, writer: &SigningKey) -> String {
        let body = serde_json::to_string(self).unwrap_or_default();
        let signature = writer.sign(Domain::Snapshot, body.as_bytes());
        format!("{body}\n{signature}\n")
    }

    /// Reads and checks the signature by the named writer; whether that one is admitted is [`adopt`]'s to say.
    ///
    /// # Errors
    /// [`SnapshotError::BadManifest`], [`SnapshotError::BadSignature`].
    pub fn parse(text: &str) -> Result<Self, SnapshotError> {
        let mut lines = text.lines();
        let body = lines.next().unwrap_or_default();
        let manifest: Self = serde_json::from_str(body).map_err(|e| SnapshotError::BadManifest(e.to_string()))?;
        if manifest.format != 1 {
            return Err(SnapshotError::BadManifest(format!("format {}: upgrade this program", manifest.format)));
        }
        let signature = lines.next().and_then(Signature::parse).ok_or(SnapshotError::BadSignature)?;
        if !signature.verifies(&manifest.writer, Domain::Snapshot, body.as_bytes()) {
            return Err(SnapshotError::BadSignature);
        }
        Ok(manifest)
    }
}

/// Collects kept batches into parts of at most [`MAX_BATCH`] bytes.
#[derive(Debug, Default)]
pub struct PartWriter {
    parts: Vec<Vec<u8>>,
}

impl PartWriter {
    /// Adds a batch, if anything of it is kept.
    pub fn push(&mut self, batch: &Batch, keep: impl FnMut(usize) -> bool) {
        let kept = batch.keeping(keep);
        if kept.event_lines().is_ok_and(|lines| lines.iter().all(|line| line.text == crate::event::DROPPED)) {
            return;
        }
        let bytes = kept.bytes();
        match self.parts.last_mut() {
            Some(part) if part.len() + 1 + bytes.len() <= MAX_BATCH => {
                part.push(b'\n');
                part.extend_from_slice(bytes);
            }
            _ => self.parts.push(bytes.to_vec()),
        }
    }

    /// The parts, in order.
    pub fn finish(self) -> Vec<Vec<u8>> {
        self.parts
    }
}

/// The batches of one part: no line of a batch is empty, so an empty line parts them.
///
/// # Errors
/// [`BatchError`].
pub fn batches_of(part: &[u8]) -> Result<Vec<Batch>, BatchError> {
    let text = std::str::from_utf8(part).map_err(|_| BatchError::Malformed("a part is not UTF-8".into()))?;
    let body = text.strip_suffix('\n').ok_or_else(|| BatchError::Malformed("a part is cut off".into()))?;
    body.split("\n\n").map(|one| Batch::parse(format!("{one}\n").into_bytes())).collect()
}

/// Verifies a whole snapshot and hands each kept batch with its events to `each`. The chain that comes back goes on at
/// the manifest's cursor.
///
/// # Errors
/// [`SnapshotError`]: nothing of it may be used then.
pub fn adopt(
    manifest: &Manifest,
    parts: &[Vec<u8>],
    pins: Vec<Pin>,
    own: (u64, Cursor),
    mut each: impl FnMut(&Batch, &[Event]),
) -> Result<Chain, SnapshotError> {
    let (own_epoch, own_cursor) = own;
    if (manifest.epoch, manifest.cursor.seq) < (own_epoch, own_cursor.seq) {
        return Err(SnapshotError::Older {
            epoch: manifest.epoch,
            seq: manifest.cursor.seq,
            own_epoch,
            own_seq: own_cursor.seq,
        });
    }
    let mut chain = Chain::new(manifest.stream, pins);
    for (index, named) in manifest.parts.iter().enumerate() {
        let part = parts.get(index).filter(|part| Hash::of(part) == *named);
        let part = part.ok_or(SnapshotError::BadPart { number: index + 1 })?;
        for batch in batches_of(part)? {
            let events = chain.accept_kept(&batch)?;
            each(&batch, &events);
        }
    }
    chain.check_anchored()?;
    let admitted = chain.writers().any(|w| w.key == manifest.writer);
    if !admitted || chain.log() != Some(manifest.log) || chain.epoch() != manifest.epoch {
        return Err(SnapshotError::BadSignature);
    }
    if chain.cursor().seq > manifest.cursor.seq {
        return Err(SnapshotError::BadManifest("it has batches past its own cursor".into()));
    }
    chain.settle_at(manifest.cursor);
    Ok(chain)
}
