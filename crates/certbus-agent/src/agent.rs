//! The agent: a task for each target that waits for news, lets them settle, and has a round made; failures are tried again
//! with growing waits. What it knows is in `agent.json`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use certbus_client::{Client, LogHealth};
use certbus_core::crash::{self, Step};
use certbus_core::time::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::deploy::{self, Round, Work};
use crate::notify::Notifier;
use crate::plan::Taken;
use crate::state::{StateFile, TargetState};
use crate::target::Target;

/// News are acted on when none came for this long …
const QUIET: Duration = Duration::from_millis(100);

/// … but after this long in any case.
const SETTLED: Duration = Duration::from_millis(500);

/// Every file is compared this often, so that what others did to one is mended.
const COMPARE_ALL: Duration = Duration::from_secs(3600);

/// How the log is doing is looked at this often.
const LISTEN: Duration = Duration::from_secs(5);

/// The file in the agent's folder.
const STATE: &str = "agent.json";

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nothing to do.
    #[error("the settings name no target; write a [[target]] with `kind` = \"files\", \"nginx\" or \"haproxy\"")]
    NoTarget,
    /// A thread of its own ended early.
    #[error("a round of target `{0}` could not be ended; look at the log lines before")]
    Stopped(String),
}

/// Keeps the files of load balancers in line with what a client serves.
#[derive(Debug)]
pub struct Agent {
    client: Arc<Client>,
    folder: PathBuf,
    targets: Vec<Target>,
    state: Mutex<StateFile>,
    /// Which target writes which file.
    taken: Arc<Mutex<Taken>>,
}

impl Agent {
    /// With the state that `folder` holds. The folder is the client's own, which keeps other processes out of it.
    ///
    /// # Errors
    /// [`AgentError::NoTarget`].
    pub fn open(client: Arc<Client>, targets: Vec<Target>, folder: &Path) -> Result<Arc<Self>, AgentError> {
        if targets.is_empty() {
            return Err(AgentError::NoTarget);
        }
        let mut state = Self::state_file(folder);
        state.targets.retain(|name, _| targets.iter().any(|target| target.name == *name));
        Ok(Arc::new(Self {
            client,
            folder: folder.to_owned(),
            targets,
            state: Mutex::new(state),
            taken: Arc::default(),
        }))
    }

    /// What an agent with this folder last wrote down.
    pub fn state_file(folder: &Path) -> StateFile {
        StateFile::load(&folder.join(STATE))
    }

    /// One round for each target, every file compared.
    ///
    /// # Errors
    /// [`AgentError::Stopped`]. What went wrong at a target is in its round.
    pub async fn once(self: &Arc<Self>) -> Result<Vec<Round>, AgentError> {
        let running: Vec<_> = (0..self.targets.len())
            .map(|number| {
                let this = self.clone();
                tokio::spawn(async move { this.round(number, true).await })
            })
            .collect();
        self.keep_log();
        let mut rounds = Vec::new();
        for (task, target) in running.into_iter().zip(&self.targets) {
            rounds.push(task.await.unwrap_or_else(|_| Err(AgentError::Stopped(target.name.clone())))?);
        }
        Ok(rounds)
    }

    /// Works until `stop` says so; rounds that are under way are ended first. `told` hears of each round that did or
    /// failed something.
    ///
    /// # Errors
    /// [`AgentError::Stopped`].
    pub async fn run(
        self: &Arc<Self>,
        stop: impl Future<Output = ()>,
        told: impl Fn(&Round) + Clone + Send + Sync + 'static,
    ) -> Result<(), AgentError> {
        let notifier = Arc::new(Notifier::from_environment());
        let (stopping, stopped) = watch::channel(false);
        let first = Arc::new(AtomicUsize::new(self.targets.len()));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..self.targets.len() {
            let (this, stopped, told) = (self.clone(), stopped.clone(), told.clone());
            let (notifier, first) = (notifier.clone(), first.clone());
            tasks.spawn(async move {
                let told = |this: &Self, round: &Round| {
                    told(round);
                    notifier.say(&format!("STATUS={}", this.summary()));
                };
                this.follow(number, stopped, told, || {
                    if first.fetch_sub(1, Ordering::AcqRel) == 1 {
                        notifier.say("READY=1");
                    }
                })
                .await
            });
        }
        let mut alive = std::pin::pin!(async { tokio::join!(notifier.keep_alive(), self.listen(&notifier)) });
        let ended_early = tokio::select! {
            () = stop => None,
            _ = &mut alive => None,
            ended = tasks.join_next() => ended,
        };
        notifier.say("STOPPING=1");
        let _ = stopping.send(true);
        let mut outcome = ended_early.map_or(Ok(()), |ended| ended.unwrap_or(Err(AgentError::Stopped(String::new()))));
        while let Some(ended) = tasks.join_next().await {
            outcome = outcome.and(ended.unwrap_or(Err(AgentError::Stopped(String::new()))));
        }
        outcome
    }

    /// Keeps in `agent.json` how the log is doing.
    async fn listen(&self, notifier: &Notifier) {
        loop {
            if self.keep_log() {
                notifier.say(&format!("STATUS={}", self.summary()));
            }
            tokio::time::sleep(LISTEN).await;
        }
    }

    /// Says whether that is news.
    fn keep_log(&self) -> bool {
        let log = Some(self.client.status().log).filter(LogHealth::is_trouble).map(|log| log.to_string());
        let mut state = self.state();
        let news = state.log != log;
        if news {
            state.log = log;
            self.save(&state);
        }
        news
    }

    /// One target, for as long as nobody says stop.
    async fn follow(
        &self,
        number: usize,
        mut stopped: watch::Receiver<bool>,
        told: impl Fn(&Self, &Round),
        ready: impl FnOnce(),
    ) -> Result<(), AgentError> {
        let mut changes = self.client.changes();
        let mut ready = Some(ready);
        let mut all = true;
        let mut compare = Instant::now();
        loop {
            changes.mark_unchanged();
            if all {
                compare = Instant::now() + COMPARE_ALL;
            }
            let round = self.round(number, all).await?;
            for failure in &round.failures {
                tracing::error!(target = %round.target, "{failure}; tried again in {} s", self.retry(number).unwrap_or_default().as_secs());
            }
            if round.written > 0 || !round.failures.is_empty() || ready.is_some() {
                told(self, &round);
            }
            if let Some(ready) = ready.take() {
                ready();
            }
            let retry = self.retry(number);
            let next = retry.map_or(compare, |wait| compare.min(Instant::now() + wait));
            all = tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    settle(&mut changes).await;
                    // What failed may be any file.
                    retry.is_some() || Instant::now() >= compare
                }
                () = tokio::time::sleep_until(next) => true,
                _ = stopped.changed() => return Ok(()),
            };
            if *stopped.borrow() {
                return Ok(());
            }
        }
    }

    async fn round(&self, number: usize, all: bool) -> Result<Round, AgentError> {
        let Some(target) = self.targets.get(number).cloned() else { return Err(AgentError::Stopped(String::new())) };
        let name = target.name.clone();
        let known = self.state().targets.get(&name).cloned().unwrap_or_default();
        let (client, journal) = (self.client.clone(), self.folder.join(format!("deploying-{name}.json")));
        let taken = self.taken.clone();
        let worked = tokio::task::spawn_blocking(move || {
            let work = Work { client: &client, number, target: &target, state: &known, all, taken: &taken };
            deploy::round(&work, &journal)
        });
        let worked = worked.await;
        let (round, found) = worked.map_err(|_| AgentError::Stopped(name.clone()))?;
        crash::at(Step::Deploying);
        let mut state = self.state();
        let own = state.targets.entry(name).or_default();
        let news = own.take_in(found);
        if round.failures.is_empty() {
            if own.next_try.is_some() {
                tracing::info!(target = %round.target, "what failed is mended");
            }
            if !news && own.last_success.is_some() && own.next_try.is_none() {
                return Ok(round);
            }
            own.succeeded(now());
        } else {
            own.failed(now(), round.failures.iter().map(ToString::to_string).collect());
        }
        self.save(&state);
        Ok(round)
    }

    fn save(&self, state: &StateFile) {
        let path = self.folder.join(STATE);
        if let Err(error) = state.save(&path) {
            tracing::error!("{} cannot be written, it tells what was before: {error}", path.display());
        }
    }

    /// How long until the next try, if something failed.
    fn retry(&self, number: usize) -> Option<Duration> {
        let state = self.state();
        let own = self.targets.get(number).and_then(|target| state.targets.get(&target.name));
        own.and_then(|own| own.next_try).map(|next| next.since(now()))
    }

    fn summary(&self) -> String {
        let (state, served) = (self.state(), self.client.status().certificates);
        let failing = |(name, target): (&String, &TargetState)| target.next_try.map(|_| name.clone());
        let failing: Vec<String> = state.targets.iter().filter_map(failing).collect();
        let failing = if failing.is_empty() { String::new() } else { format!(", failing: {}", failing.join(", ")) };
        let log = state.log.as_ref().map(|log| format!(", {log}")).unwrap_or_default();
        format!("{served} certificates, {} targets{failing}{log}", self.targets.len())
    }

    fn state(&self) -> MutexGuard<'_, StateFile> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns when no news came for a while, so that many changes are one round.
async fn settle(changes: &mut watch::Receiver<certbus_core::id::Cursor>) {
    let settled = Instant::now() + SETTLED;
    while Instant::now() < settled {
        let until = (Instant::now() + QUIET).min(settled);
        if !matches!(tokio::time::timeout_at(until, changes.changed()).await, Ok(Ok(()))) {
            return;
        }
    }
}

fn now() -> Timestamp {
    Timestamp::default().plus(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
