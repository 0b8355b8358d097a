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
        if let Some(known) = who_won(log, expected, &batch).await {
            outcome = known;
            break;
        }
        match log.append(expected, batch.clone()).await {
            // It may be the first one, which was on its way, that is there by now.
            Err(AppendError::Conflict { .. }) => {
                if let Some(known) = who_won(log, expected, &batch).await {
                    outcome = known;
                }
            }
            // This one was not sent; what became of the first is as unknown as before.
            Err(AppendError::Log(_)) => {}
            other => outcome = other,
        }
    }
    outcome.map(|_| batch)
}

/// Who has the number of `batch`; None: nobody, as far as is known.
async fn who_won(log: &dyn EventLog, expected: Cursor, batch: &Batch) -> Option<Result<Cursor, AppendError>> {
    let page = log.read(expected, 1).await.ok()?;
    let stored = page.batches.first()?;
    Some(match stored.envelope().id == batch.envelope().id {
        true => Ok(stored.cursor()),
        false => Err(AppendError::Conflict { head: stored.cursor() }),
    })
}
