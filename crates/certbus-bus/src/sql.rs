//! What the engines on SQL databases share: rows that become batches and places, and why a read failed.

use certbus_core::batch::Batch;
use certbus_core::id::{Cursor, Hash};

use crate::log::LogError;

/// Why a read failed: still in the library's words, so that one whose connection was cut can be told and tried again.
#[cfg(any(feature = "postgres", feature = "mariadb"))]
pub(crate) enum Failed {
    Sql(sqlx::Error),
    Log(LogError),
}

#[cfg(any(feature = "postgres", feature = "mariadb"))]
impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

#[cfg(any(feature = "postgres", feature = "mariadb"))]
impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

/// A batch's number, as databases have numbers.
pub(crate) fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// A stored hash; None: it is none.
pub(crate) fn to_hash(bytes: &[u8]) -> Option<Hash> {
    bytes.try_into().ok().map(Hash::from_bytes)
}

/// The place after the last row, by its number and hash.
pub(crate) fn head(last: Option<(i64, Vec<u8>)>) -> Cursor {
    last.map_or(Cursor::START, |(seq, hash)| Cursor {
        seq: seq.unsigned_abs(),
        hash: to_hash(&hash).unwrap_or(Hash::ZERO),
    })
}

/// The batch that a row is; `place` says where, for people, if it is none.
pub(crate) fn batch(place: impl FnOnce() -> String, seq: i64, body: Vec<u8>) -> Result<Batch, LogError> {
    let seq = seq.unsigned_abs();
    Batch::parse(body).map_err(|source| LogError::Corrupt { place: place(), seq, source })
}

/// What the oldest row says of the place before it, which is not kept: its own number, and the hash that it follows.
pub(crate) fn oldest(seq: i64, body: Vec<u8>) -> (u64, Hash) {
    let previous = Batch::parse(body).map_or(Hash::ZERO, |batch| batch.envelope().previous);
    (seq.unsigned_abs(), previous)
}

/// Rows as batches, as long as they are such.
#[cfg(any(feature = "postgres", feature = "mariadb"))]
pub(crate) fn page(
    place: impl Fn() -> String,
    rows: impl IntoIterator<Item = (i64, Vec<u8>)>,
) -> Result<crate::log::Page, LogError> {
    let mut page = crate::log::Page::default();
    for (seq, body) in rows {
        match batch(&place, seq, body) {
            Ok(batch) => page.batches.push(batch),
            Err(error) if page.batches.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(page)
}
