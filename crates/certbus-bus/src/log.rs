//! The two ports: a stream of batches, and the snapshots that stand for its beginning.

use std::fmt::Debug;
use std::time::Duration;

use certbus_core::batch::{Batch, BatchError, MAX_BATCH};
use certbus_core::id::{Cursor, Hash};
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// A watch reads at least this often, whatever its engine's wake-up says.
pub const READ_AT_LEAST: Duration = Duration::from_secs(30);

/// A page holds at most this many bytes of batches, unless a single one is larger.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// One stream on one engine.
///
/// Sequence numbers are 1, 2, 3 … without gaps; a [`Cursor`] is a number and the hash of that batch's envelope, equal on
/// every engine. An engine stores each batch as one record, so a batch is there as a whole or not at all, and it never
/// changes bytes.
pub trait EventLog: Debug + Send + Sync {
    /// The batches after `after`, oldest first, at most `limit` and about [`PAGE_BYTES`]; an empty page at the head.
    /// Never stale: it sees every append that returned before it began.
    ///
    /// # Errors
    /// [`LogError::Trimmed`] if batches after `after` are no longer kept; [`LogError::NotHere`] if `after` is not a
    /// place of this stream (ahead of its head, or another hash: the log was restored or rewritten);
    /// [`LogError::Corrupt`] if the very next record is no batch (records before a corrupt one are returned first).
    fn read(&self, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Page, LogError>>;

    /// Appends `batch` if, and only if, `expected` is the head: not behind it, not ahead of it. Durable when it
    /// returns. Of several writers with the same `expected` exactly one succeeds. A stream that has no batch takes any as its
    /// first, with `expected` [`Cursor::START`]: how the rest of a trimmed log is copied.
    ///
    /// # Errors
    /// [`AppendError::Conflict`]; [`AppendError::TooLarge`]; [`AppendError::Unknown`] if the connection broke after
    /// the batch was sent: it may or may not be stored, and reading on finds its batch id or not.
    fn append(&self, expected: Cursor, batch: Batch) -> BoxFuture<'_, Result<Cursor, AppendError>>;

    /// Pages after `after`, without end: pushed as the engine says, resumed after a lost connection, and read at least
    /// every [`READ_AT_LEAST`]. Never an empty page. An error is yielded and the watch goes on from the same place, so
    /// that one who waits sees both the outage and its end.
    fn watch(&self, after: Cursor) -> BoxStream<'static, Result<Page, LogError>>;

    /// Forgets the batches up to and including `through`, but never the last one: a snapshot stands for them.
    ///
    /// # Errors
    /// [`LogError::NotHere`], [`LogError::Unavailable`].
    fn trim(&self, through: Cursor) -> BoxFuture<'_, Result<(), LogError>>;

    /// Removes every record after `after`, if that place is there: how `stream verify --cut` cuts off an invalid tail.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    fn cut(&self, after: Cursor) -> BoxFuture<'_, Result<(), LogError>>;

    /// The oldest batch that is kept; None if there is none.
    ///
    /// # Errors
    /// [`LogError::Corrupt`], [`LogError::Unavailable`].
    fn oldest(&self) -> BoxFuture<'_, Result<Option<Batch>, LogError>>;

    /// Where the stream lives, for people: no secret in it.
    fn place(&self) -> String;
}

/// Snapshots of one stream: parts named by their hash, and one manifest that names the parts.
pub trait SnapshotStore: Debug + Send + Sync {
    /// Stores a part under its hash. Storing it again is harmless.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    fn put_part(&self, bytes: Vec<u8>) -> BoxFuture<'_, Result<Hash, LogError>>;

    /// A part; None if there is none.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    fn part(&self, hash: Hash) -> BoxFuture<'_, Result<Option<Vec<u8>>, LogError>>;

    /// The manifest's text; None before the first.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    fn manifest(&self) -> BoxFuture<'_, Result<Option<String>, LogError>>;

    /// Replaces the manifest if it is still `expected` (compare-and-set on the text), and forgets parts outside
    /// `parts`. False: another was put meanwhile, nothing was changed.
    ///
    /// # Errors
    /// [`LogError::Unavailable`].
    fn put_manifest(
        &self,
        expected: Option<String>,
        text: String,
        parts: Vec<Hash>,
    ) -> BoxFuture<'_, Result<bool, LogError>>;
}

/// Some batches in a row.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Oldest first.
    pub batches: Vec<Batch>,
}

/// Why a stream could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The batches after the cursor are no longer kept.
    #[error("batches before {first} are trimmed; a snapshot stands for them")]
    Trimmed {
        /// The oldest batch that is kept.
        first: u64,
    },
    /// The cursor is not a place of this stream.
    #[error("{place} ends at batch {head} and does not have the place {cursor}: it is an older or another copy")]
    NotHere {
        /// Where the stream lives.
        place: String,
        /// What was asked for.
        cursor: Cursor,
        /// The last batch's number.
        head: u64,
    },
    /// A record is no batch.
    #[error("record {seq} of {place} cannot be read: {source}")]
    Corrupt {
        /// Where the stream lives.
        place: String,
        /// The record.
        seq: u64,
        /// What is wrong with it.
        source: BatchError,
    },
    /// The engine did not answer, or refused.
    #[error("log unreachable: {place}: {cause}")]
    Unavailable {
        /// Where the stream lives.
        place: String,
        /// The engine's words, and what to do.
        cause: String,
    },
}

/// Why a batch was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// Somebody else was first: read on and decide again.
    #[error("the log has moved on to batch {}", head.seq)]
    Conflict {
        /// Where the stream ends now.
        head: Cursor,
    },
    /// More than [`MAX_BATCH`].
    #[error("a batch of {size} bytes is over the limit of {MAX_BATCH}: split it")]
    TooLarge {
        /// Its size.
        size: usize,
    },
    /// Sent, but not answered.
    #[error("the outcome of the append is not known: {cause}")]
    Unknown {
        /// What broke.
        cause: String,
    },
    /// Not sent.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What every engine stores as one record.
pub(crate) fn check_size(batch: &Batch) -> Result<(), AppendError> {
    match batch.bytes().len() {
        0..=MAX_BATCH => Ok(()),
        size => Err(AppendError::TooLarge { size }),
    }
}

/// What every engine checks before it appends, if it knows its head.
pub(crate) fn check_append(expected: Cursor, head: Cursor, batch: &Batch) -> Result<(), AppendError> {
    check_size(batch)?;
    if expected != head || !is_for(expected, batch) {
        return Err(AppendError::Conflict { head });
    }
    Ok(())
}

/// Whether a batch may be stored at this place: it was written for it, or is the first of a copy.
pub(crate) fn is_for(expected: Cursor, batch: &Batch) -> bool {
    expected == Cursor::START || batch.expected() == expected
}

/// What every engine checks before it reads: `first` is the oldest kept batch's number and the hash it names as its
/// predecessor's; `found` is the hash stored at `after`, if that batch is kept; `head` is the last number, 0 if none.
pub(crate) fn check_read(
    place: &str,
    after: Cursor,
    first: Option<(u64, Hash)>,
    found: Option<Hash>,
    head: u64,
) -> Result<(), LogError> {
    let not_here = || LogError::NotHere { place: place.to_owned(), cursor: after, head };
    let here = match (first, found) {
        (_, Some(hash)) => hash == after.hash,
        (None, None) => after == Cursor::START,
        (Some((first, previous)), None) if after.seq + 1 == first => previous == after.hash,
        (Some((first, _)), None) if after.seq < first => return Err(LogError::Trimmed { first }),
        _ => false,
    };
    if here { Ok(()) } else { Err(not_here()) }
}
