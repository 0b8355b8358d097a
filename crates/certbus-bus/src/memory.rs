//! The engine for tests and for a single process that keeps nothing: a list behind a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use certbus_core::batch::Batch;
use certbus_core::id::{Cursor, Hash};
use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{BoxStream, StreamExt};
use tokio::sync::watch;

use crate::log::{
    AppendError, EventLog, LogError, PAGE_BYTES, Page, READ_AT_LEAST, SnapshotStore, check_append, check_read,
};

/// A stream and its snapshots in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct MemoryLog {
    inner: Arc<Mutex<Inner>>,
    moved: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inner {
    batches: Vec<Batch>,
    parts: HashMap<Hash, Vec<u8>>,
    manifest: Option<String>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self { inner: Arc::default(), moved: watch::Sender::new(0) }
    }
}

impl MemoryLog {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_now(&self, after: Cursor, limit: usize) -> Result<Page, LogError> {
        let inner = self.lock();
        let first = inner.batches.first().map(|b| (b.cursor().seq, b.envelope().previous));
        let found = inner.batches.iter().find(|b| b.cursor().seq == after.seq).map(|b| b.cursor().hash);
        check_read(&self.place(), after, first, found, inner.head().seq)?;
        let mut page = Page::default();
        let mut size = 0;
        for batch in inner.batches.iter().filter(|b| b.cursor().seq > after.seq).take(limit) {
            size += batch.bytes().len();
            if size > PAGE_BYTES && !page.batches.is_empty() {
                break;
            }
            page.batches.push(batch.clone());
        }
        Ok(page)
    }
}

impl Inner {
    fn head(&self) -> Cursor {
        self.batches.last().map_or(Cursor::START, Batch::cursor)
    }
}

impl EventLog for MemoryLog {
    fn read(&self, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Page, LogError>> {
        ready(self.read_now(after, limit)).boxed()
    }

    fn append(&self, expected: Cursor, batch: Batch) -> BoxFuture<'_, Result<Cursor, AppendError>> {
        let result = {
            let mut inner = self.lock();
            check_append(expected, inner.head(), &batch).map(|()| {
                let cursor = batch.cursor();
                inner.batches.push(batch);
                cursor
            })
        };
        if let Ok(cursor) = result {
            self.moved.send_replace(cursor.seq);
        }
        ready(result).boxed()
    }

    fn watch(&self, after: Cursor) -> BoxStream<'static, Result<Page, LogError>> {
        let log = self.clone();
        let mut moved = self.moved.subscribe();
        async_stream::stream! {
            let mut after = after;
            loop {
                moved.mark_unchanged();
                match log.read_now(after, usize::MAX) {
                    Ok(page) => {
                        if let Some(last) = page.batches.last() {
                            after = last.cursor();
                            yield Ok(page);
                            continue;
                        }
                    }
                    Err(error) => yield Err(error),
                }
                let _ = tokio::time::timeout(READ_AT_LEAST, moved.changed()).await;
            }
        }
        .boxed()
    }

    fn trim(&self, through: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        let mut inner = self.lock();
        let head = inner.head().seq;
        inner.batches.retain(|b| b.cursor().seq > through.seq || b.cursor().seq == head);
        ready(Ok(())).boxed()
    }

    fn cut(&self, after: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        let mut inner = self.lock();
        if after == Cursor::START || inner.batches.iter().any(|b| b.cursor() == after) {
            inner.batches.retain(|b| b.cursor().seq <= after.seq);
        }
        drop(inner);
        ready(Ok(())).boxed()
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Option<Batch>, LogError>> {
        ready(Ok(self.lock().batches.first().cloned())).boxed()
    }

    fn place(&self) -> String {
        "memory".into()
    }
}

impl SnapshotStore for MemoryLog {
    fn put_part(&self, bytes: Vec<u8>) -> BoxFuture<'_, Result<Hash, LogError>> {
        let hash = Hash::of(&bytes);
        self.lock().parts.insert(hash, bytes);
        ready(Ok(hash)).boxed()
    }

    fn part(&self, hash: Hash) -> BoxFuture<'_, Result<Option<Vec<u8>>, LogError>> {
        ready(Ok(self.lock().parts.get(&hash).cloned())).boxed()
    }

    fn manifest(&self) -> BoxFuture<'_, Result<Option<String>, LogError>> {
        ready(Ok(self.lock().manifest.clone())).boxed()
    }

    fn put_manifest(
        &self,
        expected: Option<String>,
        text: String,
        parts: Vec<Hash>,
    ) -> BoxFuture<'_, Result<bool, LogError>> {
        let mut inner = self.lock();
        let won = inner.manifest == expected;
        if won {
            inner.manifest = Some(text);
            inner.parts.retain(|hash, _| parts.contains(hash));
        }
        ready(Ok(won)).boxed()
    }
}
