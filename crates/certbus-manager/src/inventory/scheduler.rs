//! Asks for the polls that are due. One process at a time has the role; if two had it, polls would be made twice and change
//! nothing. Its cost grows with what is due.

use std::collections::BTreeMap;
use std::time::Duration;

use certbus_core::time::Timestamp;
use certbus_store::schedule::DuePoll;
use certbus_store::tasks::{NewTask, TaskQueue};
use certbus_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::clock;

/// How often it looks what is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it keeps the role without saying so again.
const ROLE_LASTS: Duration = Duration::from_secs(15);

/// Endpoints of one task.
pub const A_TASK: usize = 256;

/// What is read at a time.
const AT_ONCE: i64 = 4096;

/// A task of the lane `poll/SITE`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollTask {
    /// The endpoints to poll.
    pub endpoints: Vec<i64>,
}

/// The lane of a site's polls.
pub fn lane(site: &str) -> String {
    format!("poll/{site}")
}

/// Asks for everything that is due at `now`. Returns how many polls that are.
///
/// # Errors
/// [`StoreError`]. Polls are asked for before it is noted that they are, so none is lost; asked for twice, a poll changes
/// nothing.
pub async fn ask_for_due(store: &Store, queue: &dyn TaskQueue, now: Timestamp) -> Result<usize, StoreError> {
    let mut asked = 0;
    loop {
        let due = store.due_polls(now, AT_ONCE).await?;
        if due.is_empty() {
            return Ok(asked);
        }
        queue.add(&tasks(&due), now).await?;
        store.polled(&due).await?;
        asked += due.len();
    }
}

fn tasks(due: &[DuePoll]) -> Vec<NewTask> {
    let mut sites: BTreeMap<&str, Vec<&DuePoll>> = BTreeMap::new();
    for one in due {
        sites.entry(&one.site).or_default().push(one);
    }
    let task = |site: &str, some: &[&DuePoll]| {
        let endpoints: Vec<i64> = some.iter().map(|one| one.endpoint).collect();
        let first = some.first().map_or(0, |one| one.since.millis());
        // The same polls are asked for once: who was killed between asking and noting it asks again.
        let key = format!("{site} {first} {}", endpoints.iter().map(i64::to_string).collect::<Vec<_>>().join(" "));
        let body = serde_json::to_string(&PollTask { endpoints }).unwrap_or_default();
        NewTask { lane: lane(site), key: Some(certbus_core::id::Hash::of(key.as_bytes()).to_string()), body }
    };
    sites.iter().flat_map(|(site, due)| due.chunks(A_TASK).map(move |some| task(site, some))).collect()
}

/// Again and again, as long as it has the role, until `stop`.
pub async fn run(store: Store, name: String, stop: impl Future<Output = ()>) {
    let mut stop = std::pin::pin!(stop);
    let mut said = None;
    loop {
        let now = clock::now();
        let round = async {
            match store.take_role("scheduler", &name, now, now.plus(ROLE_LASTS)).await? {
                true => ask_for_due(&store, &store, now).await,
                false => Ok(0),
            }
        };
        let outcome = round.await.map_err(|error| error.to_string()).err();
        if let Some(error) = outcome.as_ref().filter(|error| said.as_ref() != Some(*error)) {
            tracing::error!("no polls are asked for: {error}");
        }
        said = outcome;
        tokio::select! {
            () = &mut stop => break,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
    // The next one need not wait for the role to end.
    let _ = store.leave_role("scheduler", &name).await;
}
