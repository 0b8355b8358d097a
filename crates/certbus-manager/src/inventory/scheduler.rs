//! Asks for the polls that are due. One process at a time has the role; if two had it, polls would be made twice and change
//! nothing. Its cost grows with what is due.

use std::time::Duration;

use certbus_core::id::Hash;
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

/// Tasks of a site that may wait at a time.
const DEEPEST: usize = 16;

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

/// Asks for what is due at `now`. Returns how many polls that are.
///
/// Where no worker takes them, no more are asked for: what is due stays due.
///
/// # Errors
/// [`StoreError`]. Polls are asked for before it is noted that they are, so none is lost; asked for twice, a poll changes
/// nothing.
pub async fn ask_for_due(store: &Store, queue: &dyn TaskQueue, now: Timestamp) -> Result<usize, StoreError> {
    let mut asked = 0;
    for site in store.sites().await? {
        let lane = lane(&site);
        let room = DEEPEST.saturating_sub(queue.waiting(&lane).await?);
        let due = store.due_polls(&site, now, room * A_TASK).await?;
        for some in due.chunks(A_TASK) {
            queue.add(&[task(&lane, some)], now).await?;
            store.polled(some).await?;
            asked += some.len();
        }
    }
    Ok(asked)
}

fn task(lane: &str, due: &[DuePoll]) -> NewTask {
    let endpoints: Vec<i64> = due.iter().map(|one| one.endpoint).collect();
    let moments =
        due.iter().map(|one| format!("{} {}", one.endpoint, one.since.millis())).collect::<Vec<_>>().join(" ");
    // The same polls are asked for once: who was killed between asking and noting it asks again.
    let key = Some(Hash::of(format!("{lane} {moments}").as_bytes()).to_string());
    NewTask { lane: lane.to_owned(), key, body: serde_json::to_string(&PollTask { endpoints }).unwrap_or_default() }
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
