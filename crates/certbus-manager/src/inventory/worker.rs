//! Makes the polls of one site that were asked for. Killed in the middle of one, its task is another's.

use std::time::Duration;

use certbus_store::tasks::{Leased, TaskQueue};
use certbus_store::{Store, StoreError};
use tokio::task::JoinSet;

use crate::clock;
use crate::inventory::poller::Poller;
use crate::inventory::scheduler::{PollTask, lane};

/// Tasks under way at a time: slow servers in one hold the others up no longer.
const AT_ONCE: usize = 4;

/// How long a task is this worker's without its word.
pub const LEASE: Duration = Duration::from_secs(60);

/// How long it waits when there is nothing to do.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Tasks under way when it is told to stop are given this long.
const ENDING: Duration = Duration::from_secs(10);

/// Works for one site.
#[derive(Clone)]
pub struct Worker {
    store: Store,
    poller: Poller,
    lane: String,
}

impl Worker {
    /// For `site`.
    pub fn new(store: Store, site: &str) -> Self {
        Self { store, poller: Poller::new(site), lane: lane(site) }
    }

    /// Until `stop`.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let mut flights: JoinSet<()> = JoinSet::new();
        let mut said = None;
        loop {
            let room = AT_ONCE - flights.len().min(AT_ONCE);
            let taken = if room == 0 { Ok(Vec::new()) } else { self.take(room).await };
            let outcome = taken.as_ref().err().map(ToString::to_string);
            if let Some(error) = outcome.as_ref().filter(|error| said.as_ref() != Some(*error)) {
                tracing::error!("no polls are made: {error}");
            }
            said = outcome;
            for task in taken.unwrap_or_default() {
                let worker = self.clone();
                flights.spawn(async move {
                    worker.work(task).await;
                });
            }
            tokio::select! {
                () = &mut stop => break,
                Some(_) = flights.join_next() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        let landing = async { while flights.join_next().await.is_some() {} };
        if tokio::time::timeout(ENDING, landing).await.is_err() {
            tracing::warn!("stopped with polls under way: the next worker makes them again");
        }
    }

    /// Everything that waits, to its end. Returns how many endpoints were polled.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn work_off(&self) -> Result<usize, StoreError> {
        let mut done = 0;
        loop {
            let tasks = self.take(AT_ONCE).await?;
            if tasks.is_empty() {
                return Ok(done);
            }
            done +=
                futures::future::join_all(tasks.into_iter().map(|task| self.work(task))).await.iter().sum::<usize>();
        }
    }

    async fn take(&self, many: usize) -> Result<Vec<Leased>, StoreError> {
        self.store.lease(&self.lane, many, clock::now(), LEASE).await
    }

    /// One task, with its lease kept as long as it takes. Returns how many endpoints were polled.
    async fn work(&self, task: Leased) -> usize {
        let polled = self.poll(&task);
        let kept = async {
            loop {
                tokio::time::sleep(LEASE / 3).await;
                match self.store.extend(&task, clock::now(), LEASE).await {
                    Ok(false) => return,
                    Ok(true) => {}
                    Err(error) => tracing::warn!(task = task.id, "its lease is not kept: {error}"),
                }
            }
        };
        let outcome = tokio::select! {
            outcome = polled => outcome,
            () = kept => {
                tracing::warn!(task = task.id, "another worker has it now");
                return 0;
            }
        };
        let told = match &outcome {
            Ok(_) => self.store.done(&task).await,
            Err(why) => {
                tracing::warn!(task = task.id, attempt = task.attempt, "polls failed: {why}");
                self.store.failed(&task, why, clock::now()).await
            }
        };
        if let Err(error) = told {
            tracing::warn!(task = task.id, "how it ended could not be noted, so it is done again: {error}");
        }
        outcome.unwrap_or_default()
    }

    async fn poll(&self, task: &Leased) -> Result<usize, String> {
        let body: PollTask =
            serde_json::from_str(&task.body).map_err(|error| format!("the task is not one of polls: {error}"))?;
        let endpoints = self.store.to_poll(&body.endpoints).await.map_err(|error| error.to_string())?;
        let active: Vec<_> = endpoints.into_iter().filter(|(_, endpoint)| endpoint.active).collect();
        let polls = self.poller.poll(&active, clock::now()).await?;
        self.store.record(&polls, clock::now()).await.map_err(|error| error.to_string())?;
        Ok(polls.len())
    }
}
