//! The one appender of a process: decisions about different certificates that arrive while a batch is being written go
//! together into the next. It decides nothing itself, and never puts two decisions about one certificate into one batch.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certbus_bus::log::AppendError;
use certbus_core::batch::MAX_BATCH;
use certbus_core::event::Event;
use certbus_core::id::{CertificateId, StreamKind};
use tokio::sync::{mpsc, oneshot};

use crate::clock;
use crate::manager::{CONFLICTS, ManageError, Writer};
use crate::tenant::View;

/// Room for the envelope of a full batch: its head, and a hash for each event.
pub(crate) const EVENTS_OF_A_BATCH: usize = MAX_BATCH - 16 * 1024;

/// What the envelope holds for each event.
const HASH: usize = 72;

type Decide = Box<dyn FnMut(&View) -> Result<Vec<Event>, ManageError> + Send>;

/// What a decision reads and speaks about: two about the same are never in one batch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// One managed certificate.
    Certificate(CertificateId),
    /// One place of challenges.
    Record(String),
}

/// A decision that waits for its turn.
struct Entry {
    kind: StreamKind,
    scope: Scope,
    decide: Decide,
    /// How often somebody else was first.
    conflicts: u32,
    done: oneshot::Sender<Result<(), ManageError>>,
}

/// Hands decisions to the task that appends. The task ends with the last of these.
#[derive(Clone, Debug)]
pub(crate) struct Appender(mpsc::UnboundedSender<Entry>);

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry").field("kind", &self.kind).field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Appender {
    pub(crate) fn start(writer: Arc<Writer>) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(run(writer, receiver));
        Self(sender)
    }

    /// As [`crate::Manager::record_about`].
    pub(crate) async fn record<T: Send + 'static>(
        &self,
        kind: StreamKind,
        scope: Scope,
        mut decide: impl FnMut(&View) -> Result<(Vec<Event>, T), ManageError> + Send + 'static,
    ) -> Result<T, ManageError> {
        const STOPPED: ManageError = ManageError::Stopped("appending");
        let kept = Arc::new(Mutex::new(None));
        let value = kept.clone();
        let decide = Box::new(move |view: &View| {
            let (events, found) = decide(view)?;
            *value.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
            Ok(events)
        });
        let (done, outcome) = oneshot::channel();
        let entry = Entry { kind, scope, decide, conflicts: 0, done };
        self.0.send(entry).map_err(|_| STOPPED)?;
        outcome.await.map_err(|_| STOPPED)??;
        kept.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or(STOPPED)
    }
}

async fn run(writer: Arc<Writer>, mut queue: mpsc::UnboundedReceiver<Entry>) {
    let mut waiting = VecDeque::new();
    loop {
        if waiting.is_empty() {
            match queue.recv().await {
                Some(entry) => waiting.push_back(entry),
                None => return,
            }
        }
        while let Ok(entry) = queue.try_recv() {
            waiting.push_back(entry);
        }
        append_some(&writer, &mut waiting).await;
    }
}

/// Takes as many of those who wait as fit into one batch of the first one's stream, and appends it.
async fn append_some(writer: &Writer, waiting: &mut VecDeque<Entry>) {
    let Some(kind) = waiting.front().map(|entry| entry.kind) else {
        return;
    };
    let mut view = match writer.view().await {
        Ok(view) => view,
        Err(ManageError::Follow(error)) => return answer(waiting.drain(..), || ManageError::Follow(error.clone())),
        Err(_) => return answer(waiting.drain(..), || ManageError::Stopped("reading the log")),
    };
    let (mut chosen, mut events, mut later) = (Vec::new(), Vec::new(), VecDeque::new());
    let (mut about, mut size) = (HashSet::new(), 0);
    while let Some(mut entry) = waiting.pop_front() {
        // Whoever decides about a certificate sees what the one before him wrote.
        if entry.kind != kind || !about.insert(entry.scope.clone()) || size > EVENTS_OF_A_BATCH {
            later.push_back(entry);
            continue;
        }
        match (entry.decide)(&view) {
            Err(error) => drop(entry.done.send(Err(error))),
            Ok(said) if said.is_empty() => drop(entry.done.send(Ok(()))),
            Ok(said) => {
                let more: usize = said.iter().map(size_of).sum();
                if size > 0 && size + more > EVENTS_OF_A_BATCH {
                    size = EVENTS_OF_A_BATCH + 1;
                    later.push_back(entry);
                    continue;
                }
                size += more;
                events.extend(said);
                chosen.push(entry);
            }
        }
    }
    *waiting = later;
    if chosen.is_empty() {
        return;
    }
    match writer.append(&mut view, kind, events).await {
        Ok(()) => chosen.into_iter().for_each(|entry| drop(entry.done.send(Ok(())))),
        Err(ManageError::Append(AppendError::Conflict { .. })) => {
            drop(view);
            for mut entry in chosen.into_iter().rev() {
                entry.conflicts += 1;
                if entry.conflicts > CONFLICTS {
                    drop(entry.done.send(Err(ManageError::Busy)));
                } else {
                    waiting.push_front(entry);
                }
            }
            step_back().await;
        }
        Err(ManageError::Append(error)) => answer(chosen.into_iter(), || ManageError::Append(error.clone())),
        Err(ManageError::Follow(error)) => answer(chosen.into_iter(), || ManageError::Follow(error.clone())),
        Err(ManageError::NotAdmitted(name)) => answer(chosen.into_iter(), || ManageError::NotAdmitted(name.clone())),
        Err(_) => answer(chosen.into_iter(), || ManageError::Stopped("appending")),
    }
}

/// What an event takes of a batch.
pub(crate) fn size_of(event: &Event) -> usize {
    event.encode().len() + HASH
}

fn answer(entries: impl Iterator<Item = Entry>, error: impl Fn() -> ManageError) {
    for entry in entries {
        let _ = entry.done.send(Err(error()));
    }
}

/// Whoever lost steps back a little, each for a time of his own.
pub(crate) async fn step_back() {
    let [draw] = clock::random::<1>();
    tokio::time::sleep(Duration::from_millis(u64::from(draw % 20))).await;
}
