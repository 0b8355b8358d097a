//! The client as an embedder sees it: open the folder, serve at once, follow the log in the background.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use certbus_bus::follow::FollowError;
use certbus_bus::log::{EventLog, LogError, SnapshotStore};
use certbus_core::chain::Pin;
use certbus_core::id::Cursor;
use certbus_core::identity::Identity;
use certbus_core::time::Timestamp;
use futures::StreamExt;

use crate::adopt::{AdoptError, Material, Opener, provider};
use crate::disk::{Disk, DiskError};
use crate::index::{Index, Live};
use crate::resolver::Resolver;
use crate::state::State;

/// A log whose newest batch is older than this is silent: no manager has written `Alive` for four times its pace.
pub const LOG_SILENT_AFTER: Duration = Duration::from_secs(48 * 3600);

/// How long a refused log is left alone before it is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// How often one who follows to the head looks whether it is there.
const LOOK_WHILE_FOLLOWING: Duration = Duration::from_millis(10);

/// The tail is folded into the snapshot after this long without news.
const QUIET: Duration = Duration::from_secs(60);

/// Why a client cannot start. A log that is down is no reason.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Neither the identity file nor the settings say which log to trust.
    #[error(
        "the identity `{0}` trusts no log yet: paste the settings line that `certbus recipient add` printed, there is no \
         trust on first use"
    )]
    NotPinned(String),
    /// The folder cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// How the log is doing, as this client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogHealth {
    /// Not read yet since the start.
    NotReadYet,
    /// Followed to its head.
    Following,
    /// Followed, but nobody has written for [`LOG_SILENT_AFTER`].
    Silent {
        /// The time of the newest batch.
        since: Timestamp,
    },
    /// Reads fail.
    Unreachable {
        /// The engine's words.
        cause: String,
    },
    /// The next batch is refused; what was adopted before is served.
    Refused {
        /// Why.
        cause: String,
        /// Whether a newer program would read on.
        upgrade: bool,
    },
}

impl LogHealth {
    /// A log that is followed, and whose newest batch is of `last`, is silent if that is long ago. One that has started to
    /// speak again is followed.
    fn judged(self, last: Timestamp, now: Timestamp) -> Self {
        match self {
            Self::Following | Self::Silent { .. } if last.plus(LOG_SILENT_AFTER) < now => Self::Silent { since: last },
            Self::Silent { .. } => Self::Following,
            other => other,
        }
    }

    /// Whether somebody should look at it.
    pub fn is_trouble(&self) -> bool {
        matches!(self, Self::Silent { .. } | Self::Unreachable { .. } | Self::Refused { .. })
    }
}

impl fmt::Display for LogHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReadYet => f.write_str("log not read yet"),
            Self::Following => f.write_str("following the log"),
            Self::Silent { since } => write!(
                f,
                "log silent: its newest batch is of {since}, and a manager at work writes twice a day; see whether one runs"
            ),
            Self::Unreachable { cause } | Self::Refused { cause, .. } => f.write_str(cause),
        }
    }
}

/// What a client knows of itself.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it is in the stream.
    pub cursor: Cursor,
    /// How many managed certificates it serves.
    pub certificates: usize,
    /// How the log is doing.
    pub log: LogHealth,
    /// Versions that failed invariant 5: certificate id and reason.
    pub refused: Vec<(String, String)>,
    /// Why the snapshot on disk is not up to date, if it is not.
    pub unwritten: Option<String>,
    /// What was found damaged on disk at the start, and was set aside.
    pub damaged: Option<String>,
}

/// A running client. Clones of the `Arc` share it.
#[derive(Debug)]
pub struct Client {
    index: Arc<ArcSwap<Index>>,
    opener: Arc<Opener>,
    state: Mutex<State>,
    health: Mutex<LogHealth>,
    changed: tokio::sync::watch::Sender<Cursor>,
    /// Keeps other processes out of the folder.
    _lock: std::fs::File,
}

impl Client {
    /// Reads the folder; serves from here on what it holds. `pins` comes from the local settings and counts beside the
    /// identity file's own.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open(identity: Identity, pins: Vec<Pin>, folder: &Path) -> Result<Arc<Self>, ClientError> {
        Self::start(identity, pins, folder, true)
    }

    /// As [`Client::open`], for one who writes files rather than answers handshakes: a key that was opened is not kept
    /// in memory.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn open_for_files(identity: Identity, pins: Vec<Pin>, folder: &Path) -> Result<Arc<Self>, ClientError> {
        Self::start(identity, pins, folder, false)
    }

    fn start(identity: Identity, pins: Vec<Pin>, folder: &Path, keeps: bool) -> Result<Arc<Self>, ClientError> {
        let pins: Vec<Pin> = identity.pin.into_iter().chain(pins).collect();
        if pins.is_empty() {
            return Err(ClientError::NotPinned(identity.name));
        }
        // AWS-LC gathers entropy for tens of milliseconds before its first random number: meanwhile the folder is read.
        std::thread::spawn(|| provider().secure_random.fill(&mut [0]));
        let lock = Disk::lock(folder)?;
        let opener = Arc::new(Opener::new(identity, keeps));
        let (state, index) = State::load(folder, opener.clone(), pins)?;
        let changed = tokio::sync::watch::Sender::new(state.chain.cursor());
        Ok(Arc::new(Self {
            index: Arc::new(ArcSwap::from_pointee(index)),
            opener,
            state: Mutex::new(state),
            health: Mutex::new(LogHealth::NotReadYet),
            changed,
            _lock: lock,
        }))
    }

    /// For `rustls::ServerConfig::with_cert_resolver`.
    pub fn resolver(&self) -> Arc<Resolver> {
        Arc::new(Resolver { index: self.index.clone(), opener: self.opener.clone() })
    }

    /// What is served at this moment.
    pub fn index(&self) -> arc_swap::Guard<Arc<Index>> {
        self.index.load()
    }

    /// What is served at this moment, one version of each managed certificate: the newest that was offered to this
    /// recipient and adopted (invariant 5). In no order.
    pub fn served(&self) -> Vec<Arc<Live>> {
        self.state().all_served()
    }

    /// Chain and private key of a served version, read from disk, checked and opened anew: for the files of a load
    /// balancer. A record that turns out to be damaged is read from the log again.
    ///
    /// # Errors
    /// [`AdoptError`].
    pub fn material(&self, live: &Live) -> Result<Material, AdoptError> {
        let line = live.location.read().map_err(|e| AdoptError::Unreadable(e.to_string()));
        let opened = line.and_then(|line| self.opener.material(&live.version, &line));
        if opened.is_err() {
            self.opener.report_damage(live.version.certificate);
        }
        opened
    }

    /// Told of each place that was reached.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<Cursor> {
        self.changed.subscribe()
    }

    /// What the client knows of itself.
    pub fn status(&self) -> Status {
        let mut state = self.state();
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let log = health.judged(state.chain.last_time(), now());
        Status {
            cursor: state.chain.cursor(),
            certificates: state.served(),
            log,
            refused: state.refused.iter().map(|(id, why)| (id.to_string(), why.clone())).collect(),
            unwritten: state.unwritten.clone(),
            damaged: state.damaged().or_else(|| self.opener.damaged()),
        }
    }

    /// Follows the log for as long as it is polled. Whatever the log does, what was adopted is served.
    pub async fn follow(self: Arc<Self>, log: Arc<dyn EventLog>, snapshots: Arc<dyn SnapshotStore>) {
        loop {
            let start = self.state().chain.cursor();
            let mut watch = log.watch(start);
            if log.read(start, 1).await.is_ok_and(|page| page.batches.is_empty()) {
                self.report(LogHealth::Following);
            }
            loop {
                let page = tokio::select! {
                    page = watch.next() => page,
                    () = tokio::time::sleep(QUIET) => {
                        self.tidy(true).await;
                        self.listen();
                        continue;
                    }
                    // A watch says nothing while nothing is written: whether the log is back has to be asked.
                    () = tokio::time::sleep(LOOK_AGAIN), if self.is_unreachable() => {
                        let cursor = self.state().chain.cursor();
                        if log.read(cursor, 1).await.is_ok_and(|page| page.batches.is_empty()) {
                            self.report(LogHealth::Following);
                        }
                        continue;
                    }
                    // A record on disk turned out to be damaged: everything is read again, as after a trimmed place.
                    () = self.opener.damage_found() => Some(Err(LogError::Trimmed { first: 0 })),
                };
                let Some(page) = page else { break };
                let outcome = match page {
                    Ok(page) => self.clone().take(page.batches).await,
                    Err(lost @ (LogError::NotHere { .. } | LogError::Trimmed { .. })) => {
                        let outcome = self.reload(&*log, &*snapshots, &lost).await;
                        if outcome.is_ok() {
                            self.report(LogHealth::Following);
                            break;
                        }
                        outcome
                    }
                    Err(other) => Err(other.into()),
                };
                match outcome {
                    Ok(()) => self.report(LogHealth::Following),
                    Err(FollowError::Log(error @ LogError::Unavailable { .. })) => {
                        self.report(LogHealth::Unreachable { cause: error.to_string() });
                    }
                    Err(error) => {
                        let upgrade = error.wants_upgrade();
                        self.report(LogHealth::Refused { cause: error.to_string(), upgrade });
                        tokio::time::sleep(LOOK_AGAIN).await;
                        break;
                    }
                }
            }
        }
    }

    /// Follows to the head that the log has now, and returns how the log is doing: for a program that runs once and ends.
    pub async fn follow_to_head(
        self: Arc<Self>,
        log: Arc<dyn EventLog>,
        snapshots: Arc<dyn SnapshotStore>,
    ) -> LogHealth {
        let following = self.clone().follow(log.clone(), snapshots);
        let mut following = std::pin::pin!(following);
        loop {
            let cursor = self.state().chain.cursor();
            if log.read(cursor, 1).await.is_ok_and(|page| page.batches.is_empty()) {
                self.report(LogHealth::Following);
                return self.status().log;
            }
            tokio::select! {
                () = &mut following => {}
                () = tokio::time::sleep(LOOK_WHILE_FOLLOWING) => {}
            }
            match self.status().log {
                LogHealth::NotReadYet | LogHealth::Following | LogHealth::Silent { .. } => {}
                failed @ (LogHealth::Unreachable { .. } | LogHealth::Refused { .. }) => return failed,
            }
        }
    }

    /// Folds what came since the last snapshot into a new one now, as a quiet minute does: before an orderly stop, so that
    /// the next start has less to read. Waits for the disk.
    ///
    /// # Errors
    /// Why the disk refused, in words; what is served is not affected.
    pub fn write_snapshot(&self) -> Result<(), String> {
        let mut state = self.state();
        if state.has_tail() || state.unwritten.is_some() {
            let index = state.write(&self.index.load());
            self.index.store(Arc::new(index));
        }
        state.unwritten.clone().map_or(Ok(()), Err)
    }

    async fn take(self: Arc<Self>, batches: Vec<certbus_core::batch::Batch>) -> Result<(), FollowError> {
        let this = self.clone();
        // Checking signatures and opening keys is work for a thread, not for the executor.
        let taken = tokio::task::spawn_blocking(move || {
            let mut state = this.state();
            let (index, outcome) = state.apply(&batches, &this.index.load());
            this.index.store(Arc::new(index));
            let cursor = state.chain.cursor();
            drop(state);
            this.changed.send_replace(cursor);
            outcome
        });
        let outcome = taken.await.unwrap_or_else(|stopped| {
            let (place, cause) = ("this client".to_owned(), format!("a page could not be taken: {stopped}"));
            Err(LogError::Unavailable { place, cause }.into())
        });
        self.tidy(false).await;
        outcome
    }

    async fn reload(
        &self,
        log: &dyn EventLog,
        snapshots: &dyn SnapshotStore,
        lost: &LogError,
    ) -> Result<(), FollowError> {
        // The lock is not held across the log's answers: a copy of what is needed goes, and the result comes back whole.
        let fresh = {
            let own = self.state().chain.clone();
            let folder = self.state().folder();
            let mut state = State::beside(&folder, self.opener.clone(), own)
                .map_err(|e| LogError::Unavailable { place: folder.display().to_string(), cause: e.to_string() })?;
            state.inherit(&mut self.state(), &self.opener.take_damaged());
            let index = state.reload(log, snapshots, lost).await?;
            (state, index)
        };
        let cursor = fresh.0.chain.cursor();
        *self.state() = fresh.0;
        self.index.store(Arc::new(fresh.1));
        self.changed.send_replace(cursor);
        Ok(())
    }

    /// Folds the tail into the snapshot when it has grown, or, in a quiet moment, when there is one.
    async fn tidy(self: &Arc<Self>, quiet: bool) {
        let this = self.clone();
        let _ = tokio::task::spawn_blocking(move || {
            let mut state = this.state();
            if state.wants_write() || (quiet && state.has_tail()) {
                let index = state.write(&this.index.load());
                this.index.store(Arc::new(index));
            }
        })
        .await;
    }

    fn is_unreachable(&self) -> bool {
        matches!(*self.health.lock().unwrap_or_else(PoisonError::into_inner), LogHealth::Unreachable { .. })
    }

    /// Who opens the log for this client says that it cannot be opened.
    pub fn not_opened(&self, cause: String) {
        self.report(LogHealth::Unreachable { cause });
    }

    /// Says once that a log which is read has become silent.
    fn listen(&self) {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if matches!(health, LogHealth::Following | LogHealth::Silent { .. }) {
            self.report(LogHealth::Following);
        }
    }

    fn report(&self, health: LogHealth) {
        let health = health.judged(self.state().chain.last_time(), now());
        let mut current = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != health {
            match &health {
                LogHealth::Unreachable { .. } => tracing::warn!("{health}; serving on from the snapshot"),
                LogHealth::Silent { .. } => tracing::warn!("{health}"),
                LogHealth::Refused { upgrade: true, .. } => tracing::error!("upgrade needed: {health}; serving on"),
                LogHealth::Refused { .. } => tracing::error!("{health}; serving on from the snapshot"),
                LogHealth::NotReadYet | LogHealth::Following => tracing::info!("{health}"),
            }
            *current = health;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Timestamp {
    Timestamp::default().plus(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
