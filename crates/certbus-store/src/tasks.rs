//! Work that is done once it is asked for, by whoever has time: the seam that embedded and outside queues share. A task is
//! done at least once, so what it does is idempotent.

mod sql;

use std::time::Duration;

use certbus_core::time::Timestamp;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// A task is given up after so many attempts, and kept for a person to look at.
pub const ATTEMPTS: u32 = 6;

/// The first retry comes this much later, each further twice as much later as the one before.
pub const FIRST_RETRY: Duration = Duration::from_secs(10);

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTask {
    /// Who does it: `poll/SITE`, `alert` …
    pub lane: String,
    /// While a task with this key waits or is under way no other is taken.
    pub key: Option<String>,
    /// What to do: JSON that the lane understands.
    pub body: String,
}

/// A task that is this worker's to do until its lease ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leased {
    /// Its number.
    pub id: i64,
    /// Which of its leases this is.
    pub lease: i64,
    /// Which attempt this is: 1, 2 …
    pub attempt: u32,
    /// What to do.
    pub body: String,
}

/// A task as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Its number.
    pub id: i64,
    /// Who does it.
    pub lane: String,
    /// What to do.
    pub body: String,
    /// How often it was begun.
    pub attempts: u32,
    /// What becomes of it.
    pub state: TaskState,
    /// Not before; while it is under way, until when it is left to its worker.
    pub ready_at: Timestamp,
    /// Why the last attempt failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Since when it is here.
    pub added_at: Timestamp,
}

/// What becomes of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// It was given up.
    #[serde(rename = "dead")]
    Dead,
    /// A worker is at it.
    #[serde(rename = "under way")]
    UnderWay,
    /// It waits for one.
    #[serde(rename = "waiting")]
    Waiting,
}

/// The place of a task in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether it was given up.
    pub dead: bool,
    /// Its number.
    pub id: i64,
}

impl TaskState {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::UnderWay => "under way",
            Self::Waiting => "waiting",
        }
    }
}

/// A queue of tasks. Every method is safe to call again after an error.
///
/// A worker that is killed leaves its lease to end; then the task is another's. One that is slower than its lease finds that
/// out: [`TaskQueue::done`], [`TaskQueue::failed`] and [`TaskQueue::extend`] say false, and change nothing.
pub trait TaskQueue: Send + Sync {
    /// Adds tasks, all or none; those whose key is taken are left out. Returns how many were added.
    fn add<'a>(&'a self, tasks: &'a [NewTask], now: Timestamp) -> BoxFuture<'a, Result<usize, StoreError>>;

    /// Takes up to `many` tasks of a lane that are ready, the longest ready first, for as long as `lease`.
    fn lease<'a>(
        &'a self,
        lane: &'a str,
        many: usize,
        now: Timestamp,
        lease: Duration,
    ) -> BoxFuture<'a, Result<Vec<Leased>, StoreError>>;

    /// How many tasks of a lane wait for a worker, about.
    fn waiting<'a>(&'a self, lane: &'a str) -> BoxFuture<'a, Result<usize, StoreError>>;

    /// Makes a lease last until `lease` after `now`. False: it had ended, and the task is another's.
    fn extend<'a>(
        &'a self,
        task: &'a Leased,
        now: Timestamp,
        lease: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// The task is done. False: its lease had ended.
    fn done<'a>(&'a self, task: &'a Leased) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// The attempt failed: the task is tried again later, or given up after [`ATTEMPTS`]. False: its lease had ended.
    fn failed<'a>(&'a self, task: &'a Leased, why: &'a str, now: Timestamp) -> BoxFuture<'a, Result<bool, StoreError>>;

    /// Tasks as a person sees them, the dead first, then by number; those that follow `after`.
    fn list<'a>(
        &'a self,
        now: Timestamp,
        after: Option<Place>,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Shown>, StoreError>>;

    /// Has a dead task tried anew, with all its attempts. False: there is no dead task of this number.
    fn revive<'a>(&'a self, id: i64, now: Timestamp) -> BoxFuture<'a, Result<bool, StoreError>>;
}

/// How long to wait after failed attempt number `attempt` (1, 2 …).
pub fn retry_after(attempt: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << attempt.saturating_sub(1).min(10))
}
