//! Why a reader refuses a batch, in words a person can act on.

use crate::batch::BatchError;
use crate::id::{Cursor, PublicKey};
use crate::statement::StatementError;

/// Why a batch is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Replayed, reordered, or with others missing in between.
    #[error("batch {got} does not follow {after}: it was replayed, reordered, or batches between are missing")]
    OutOfOrder {
        /// Where the reader is.
        after: Cursor,
        /// The batch's sequence number.
        got: u64,
    },
    /// The hash that the batch names as its predecessor's is another.
    #[error("batch {seq} names another predecessor than the one read: the log was rewritten or is another copy")]
    BrokenHash {
        /// The batch.
        seq: u64,
    },
    /// A batch of another log or stream.
    #[error("batch {seq} belongs to {found}, not to {wanted}")]
    Elsewhere {
        /// The batch.
        seq: u64,
        /// What it says.
        found: String,
        /// What is read.
        wanted: String,
    },
    /// The signature does not hold.
    #[error("batch {seq} has a forged or damaged signature")]
    BadSignature {
        /// The batch.
        seq: u64,
    },
    /// Signed by a key that was never admitted.
    #[error("batch {seq} is by {writer}, which was never admitted as a writer")]
    ForeignWriter {
        /// The batch.
        seq: u64,
        /// The key.
        writer: PublicKey,
    },
    /// Signed by a key after its retirement.
    #[error("batch {seq} is by the writer `{name}`, which was retired at batch {retired}")]
    RetiredWriter {
        /// The batch.
        seq: u64,
        /// Its name.
        name: String,
        /// The batch that retired it.
        retired: u64,
    },
    /// A statement that does not follow, or is not the authority's.
    #[error("statement {number} in batch {seq} is refused: {why}")]
    BadStatement {
        /// The batch.
        seq: u64,
        /// The statement.
        number: u64,
        /// Why.
        why: String,
    },
    /// The log begins with another log id or authority than the pinned one.
    #[error("the log is not the pinned one: {0}")]
    NotPinned(String),
    /// An event was taken out of a live stream. Only snapshots leave events out, under a signed manifest.
    #[error("batch {seq} lacks an event that was signed: somebody took it out")]
    EventTakenOut {
        /// The batch.
        seq: u64,
    },
    /// A critical event of a newer program.
    #[error("batch {seq} has a critical event `{kind}` (format {format}) that this program does not know: upgrade it")]
    UnknownCritical {
        /// The batch.
        seq: u64,
        /// The event's kind.
        kind: String,
        /// The event's format.
        format: u32,
    },
    /// A statement of a newer program.
    #[error("batch {seq} has {source}")]
    UnknownStatement {
        /// The batch.
        seq: u64,
        /// The kind.
        source: StatementError,
    },
    /// Not a batch.
    #[error("batch after {after} cannot be read: {source}")]
    Unreadable {
        /// Where the reader is.
        after: Cursor,
        /// What is wrong.
        source: BatchError,
    },
}

impl ChainError {
    /// Whether a newer program would read on: nothing is wrong with the log.
    pub fn wants_upgrade(&self) -> bool {
        matches!(
            self,
            Self::UnknownCritical { .. }
                | Self::UnknownStatement { .. }
                | Self::Unreadable { source: BatchError::NewerFormat(_) | BatchError::NewerWord(_), .. }
        )
    }
}
