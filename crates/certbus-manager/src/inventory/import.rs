//! Stores what lines of a file say: the endpoints, and what a scan saw of them. Done twice, it changes nothing.

use std::collections::BTreeMap;

use certbus_core::time::Timestamp;
use certbus_store::audit::Actor;
use certbus_store::endpoints::{Put, Wanted};
use certbus_store::observations::Poll;
use certbus_store::{Store, StoreError};
use serde::{Deserialize, Serialize};

use super::files::Line;
use super::poller::seen;

/// What became of lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Endpoints that are new.
    pub added: u64,
    /// Those that were there otherwise.
    pub edited: u64,
    /// Those that were there.
    pub same: u64,
    /// Results of scans that say nothing new.
    pub passed_over: u64,
}

impl Tally {
    /// All endpoints.
    pub fn endpoints(&self) -> u64 {
        self.added + self.edited + self.same
    }

    /// With another one.
    pub fn plus(self, other: Self) -> Self {
        Self {
            added: self.added + other.added,
            edited: self.edited + other.edited,
            same: self.same + other.same,
            passed_over: self.passed_over + other.passed_over,
        }
    }
}

/// Stores lines that were read at `site`: all, or none.
///
/// # Errors
/// [`StoreError`].
pub async fn store(
    store: &Store,
    site: &str,
    lines: Vec<Line>,
    actor: &Actor,
    now: Timestamp,
) -> Result<Tally, StoreError> {
    let (wanted, seen_there): (Vec<Wanted>, Vec<_>) = lines.into_iter().map(|line| (line.wanted, line.seen)).unzip();
    let put = store.put_endpoints(&wanted, actor, now).await?;
    let mut tally = Tally::default();
    let mut polls: BTreeMap<(i64, i64), Poll> = BTreeMap::new();
    for (put, observation) in put.iter().zip(seen_there) {
        let (count, id) = match put {
            Put::Added(id) => (&mut tally.added, id),
            Put::Edited(id) => (&mut tally.edited, id),
            Put::Same(id) => (&mut tally.same, id),
        };
        *count += 1;
        let Some(observation) = observation else { continue };
        if let Some(address) = observation.address {
            // What a scan left out it did not see gone.
            let at = observation.at;
            let empty = || Poll { endpoint: *id, site: site.to_owned(), at, looks: Vec::new(), whole: false };
            polls.entry((*id, at.millis())).or_insert_with(empty).looks.push(seen(address, &observation));
        }
    }
    let polls: Vec<Poll> = polls.into_values().collect();
    tally.passed_over = store.record(&polls, now).await?.passed_over as u64;
    Ok(tally)
}
