//! Appending with a certain answer: when the connection breaks after a batch was sent, the log itself says who won.

use certbus_core::batch::{Batch, Draft};
use certbus_core::id::Cursor;
use certbus_core::key::SigningKey;

use crate::log::{AppendError, EventLog};

/// How often an append of unknown outcome is looked up and sent again.
const TRIES: u32 = 5;

/// Signs `draft` as the batch after `expected` and appends it. [`AppendError::Unknown`] comes back only if the engine
/// cannot be reached for longer than a few tries.
///
/// # Errors
/// [`AppendError::Conflict`]: read on to the head, decide again, and append with that place.
pub async fn append(
    log: &dyn EventLog,
    expected: Cursor,
    draft: Draft,
    writer: &SigningKey,
) -> Result<Batch, AppendError> {
    append_batch(log, expected, Batch::sign(draft, expected, writer)).await
}

/// As [`append`], for a batch that is signed already.
///
/// # Errors
/// As [`append`].
pub async fn append_batch(log: &dyn EventLog, expected: Cursor, batch: Batch) -> Result<Batch, AppendError> {
    let mut outcome = log.append(expected, batch.clone()).await;
    for pause in 0..TRIES {
        let Err(AppendError::Unknown { .. }) = outcome else {
            break;
        };
        tokio::time::sleep(std::time::Duration::from_millis(100 << pause)).await;
        // Whoever is at our number has won it. If nobody is, the same batch is sent again: it can be stored only once.
        outcome = match log.read(expected, 1).await {
            Ok(page) => match page.batches.first() {
                Some(stored) if stored.envelope().id == batch.envelope().id => Ok(stored.cursor()),
                Some(other) => Err(AppendError::Conflict { head: other.cursor() }),
                None => log.append(expected, batch.clone()).await,
            },
            Err(_) => outcome,
        };
    }
    outcome.map(|_| batch)
}
