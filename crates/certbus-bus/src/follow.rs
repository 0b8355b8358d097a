//! Reading with checks: every batch goes through a [`Chain`] before anyone sees its events.

use certbus_core::batch::{Batch, BatchError};
use certbus_core::chain::{Chain, ChainError};
use certbus_core::event::Event;
use certbus_core::id::Cursor;
use certbus_core::snapshot::SnapshotError;

use crate::compact;
use crate::log::{EventLog, LogError, SnapshotStore};

/// How many batches are asked for at once.
pub const PAGE: usize = 1000;

/// Why a reader could not go on. It keeps what it has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The engine.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The next batch is refused.
    #[error("log refused: {0}")]
    Chain(#[from] ChainError),
    /// The snapshot is refused.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// The engine holds an older copy, and the authority has not said that it was restored.
    #[error(
        "the log (epoch {epoch}, batch {}) is not the one this reader has seen up to epoch {own_epoch}, batch {}: an older \
         or another copy was put in its place; restore the newest copy, or let the authority state the restore",
        head.seq, own.seq
    )]
    OlderCopy {
        /// Where the copy ends.
        head: Cursor,
        /// Its epoch.
        epoch: u64,
        /// Where this reader is.
        own: Cursor,
        /// Its epoch.
        own_epoch: u64,
    },
}

impl FollowError {
    /// Whether a newer program would read on.
    pub fn wants_upgrade(&self) -> bool {
        if let Self::Log(LogError::Corrupt { source: BatchError::NewerFormat(_), .. }) = self {
            return true;
        }
        matches!(self, Self::Chain(error) | Self::Snapshot(SnapshotError::Refused(error)) if error.wants_upgrade())
    }
}

/// Checks one batch, and gives what it says.
///
/// # Errors
/// [`FollowError::Chain`] if it is refused.
pub fn accept(chain: &mut Chain, batch: &Batch) -> Result<Vec<Event>, FollowError> {
    let events = chain.accept(batch)?;
    for event in &events {
        if let Event::Unknown(unknown) = event {
            tracing::warn!(seq = batch.cursor().seq, kind = unknown.kind, "event of a newer program passed over");
        }
    }
    Ok(events)
}

/// Reads on to the head.
///
/// # Errors
/// [`FollowError`]; what was read before it was handed out, and the chain stands there.
pub async fn catch_up(
    log: &dyn EventLog,
    chain: &mut Chain,
    mut each: impl FnMut(&Batch, &[Event]),
) -> Result<(), FollowError> {
    loop {
        let page = log.read(chain.cursor(), PAGE).await?;
        if page.batches.is_empty() {
            return Ok(());
        }
        for batch in &page.batches {
            let events = accept(chain, batch)?;
            each(batch, &events);
        }
    }
}

/// Reads a stream from nothing: from its snapshot if it has one that holds, else from its first batch.
/// The chain that comes back is at the head and anchored.
///
/// # Errors
/// [`FollowError`]: nothing that was handed out may be used then.
pub async fn load(
    log: &dyn EventLog,
    snapshots: &dyn SnapshotStore,
    start: Chain,
    mut each: impl FnMut(&Batch, &[Event]),
) -> Result<Chain, FollowError> {
    let mut chain = start.clone();
    let refused = match from_snapshot(snapshots, &start).await {
        Ok(None) => None,
        Ok(Some((adopted, kept))) => {
            kept.iter().for_each(|(batch, events)| each(batch, events));
            chain = adopted;
            None
        }
        Err(error @ FollowError::Snapshot(_)) => Some(error),
        Err(error) => return Err(error),
    };
    match (catch_up(log, &mut chain, each).await, refused) {
        // A snapshot that does not hold is no loss while the batches it stands for are still there.
        (Err(FollowError::Log(LogError::Trimmed { .. })), Some(refused)) => return Err(refused),
        (Ok(()), Some(refused)) => tracing::warn!("{refused}; the whole log was read instead"),
        (result, _) => result?,
    }
    if chain.cursor() != Cursor::START {
        chain.check_anchored()?;
    }
    Ok(chain)
}

/// What a snapshot kept: batches, some events left out, with what they say.
pub type Kept = Vec<(Batch, Vec<Event>)>;

/// The snapshot, verified to its end before anyone sees a batch of it. None if there is none.
///
/// # Errors
/// [`FollowError::Snapshot`] if it does not hold.
pub async fn from_snapshot(snapshots: &dyn SnapshotStore, start: &Chain) -> Result<Option<(Chain, Kept)>, FollowError> {
    let Some((manifest, parts)) = compact::fetch(snapshots).await? else {
        return Ok(None);
    };
    if manifest.stream != start.stream() {
        return Err(SnapshotError::BadManifest(format!("it is one of {}", manifest.stream)).into());
    }
    let mut kept = Vec::new();
    let pins = start.pins().to_vec();
    let chain = certbus_core::snapshot::adopt(&manifest, &parts, pins, (0, Cursor::START), |batch, events| {
        kept.push((batch.clone(), events.to_vec()));
    })?;
    Ok(Some((chain, kept)))
}

/// What to do when the log does not have this reader's place any more (`lost`: [`LogError::NotHere`] or
/// [`LogError::Trimmed`]): read it anew, and take it if the authority or a signed snapshot vouches that it goes on.
///
/// After `Trimmed` that is a snapshot at or past this reader's place. After `NotHere` only a `LogRestored` that this
/// reader has not heard will do: any other copy is a history that parted from the one it knows.
///
/// # Errors
/// [`FollowError::OlderCopy`].
pub async fn reload(
    log: &dyn EventLog,
    snapshots: &dyn SnapshotStore,
    own: &Chain,
    lost: &LogError,
    each: impl FnMut(&Batch, &[Event]),
) -> Result<Chain, FollowError> {
    let fresh = load(log, snapshots, Chain::new(own.stream(), own.pins().to_vec()), each).await?;
    let trimmed = matches!(lost, LogError::Trimmed { .. });
    let goes_on = trimmed && fresh.epoch() == own.epoch() && fresh.cursor().seq >= own.cursor().seq;
    if fresh.epoch() > own.epoch() || goes_on {
        return Ok(fresh);
    }
    Err(FollowError::OlderCopy {
        head: fresh.cursor(),
        epoch: fresh.epoch(),
        own: own.cursor(),
        own_epoch: own.epoch(),
    })
}
