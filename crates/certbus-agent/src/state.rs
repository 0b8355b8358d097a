//! `agent.json`: what is deployed at each target, and how the last tries went. Written whole by rename; for people, for
//! monitoring, and so that a start need not open every key to see that nothing changed. It holds hashes, no keys.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use certbus_core::id::{CertificateId, Fingerprint, Hash};
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::swap::write_durably;

/// The wait after the first failure; doubled with each.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// No wait is longer.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StateFile {
    /// By name.
    pub targets: BTreeMap<String, TargetState>,
    /// What is wrong with the log, such as `log silent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// What is known of one target.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TargetState {
    /// When it was last in line with what is served.
    pub last_success: Option<Timestamp>,
    /// The last failure; it may be mended since.
    pub last_failure: Option<Failure>,
    /// How many tries failed since the last success.
    pub failures: u32,
    /// When it is tried again; none if nothing is to be mended.
    pub next_try: Option<Timestamp>,
    /// Whether the load balancer has still to be told of files that lie in their places.
    pub reload_owed: bool,
    /// What lies in the files. Shared, so that a round of ten thousand certificates reads it without a copy.
    pub deployed: Arc<HashMap<CertificateId, Deployed>>,
}

/// What a round found out or changed, to be kept in the state.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What lies in the files now, where that was not known.
    pub(crate) deployed: Vec<(CertificateId, Deployed)>,
    /// What is not served any more.
    pub(crate) gone: Vec<CertificateId>,
    /// Whether the load balancer has still to be told.
    pub(crate) reload_owed: bool,
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When.
    pub at: Timestamp,
    /// Each cause.
    pub causes: Vec<String>,
}

/// What lies in the files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployed {
    /// The version.
    pub version: Fingerprint,
    /// The SHA-256 of each file, in the order of the layout.
    pub files: Box<[Hash]>,
}

impl StateFile {
    /// Reads it. One that is missing is empty; so is one that cannot be read, which is said: it is made anew from the
    /// files.
    pub fn load(path: &Path) -> Self {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(e) => {
                tracing::warn!("{}: {e}; made anew", path.display());
                return Self::default();
            }
        };
        serde_json::from_slice(&text).unwrap_or_else(|e| {
            tracing::warn!("{}: {e}; made anew", path.display());
            Self::default()
        })
    }

    /// Writes it, whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        write_durably(path, |file| Ok(serde_json::to_writer(file, self)?))
    }
}

impl TargetState {
    /// Keeps what a round found. Says whether that is news.
    pub(crate) fn take_in(&mut self, found: Found) -> bool {
        let news = !found.deployed.is_empty() || !found.gone.is_empty() || self.reload_owed != found.reload_owed;
        if news {
            let deployed = Arc::make_mut(&mut self.deployed);
            found.gone.iter().for_each(|id| drop(deployed.remove(id)));
            deployed.extend(found.deployed);
            self.reload_owed = found.reload_owed;
        }
        news
    }

    /// Everything is as it should be.
    pub(crate) fn succeeded(&mut self, now: Timestamp) {
        (self.last_success, self.failures, self.next_try) = (Some(now), 0, None);
    }

    /// Something is not.
    pub(crate) fn failed(&mut self, now: Timestamp, causes: Vec<String>) {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(16)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.next_try = Some(now.plus(wait));
        self.last_failure = Some(Failure { at: now, causes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_five_seconds_to_ten_minutes_and_begin_anew_after_a_success() {
        let (mut state, now) = (TargetState::default(), Timestamp::from_seconds(1_000_000));
        let wait = |state: &mut TargetState| {
            state.failed(now, vec!["x".into()]);
            state.next_try.unwrap().since(now).as_secs()
        };
        let waits: Vec<u64> = (0..9).map(|_| wait(&mut state)).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600]);
        state.succeeded(now);
        assert_eq!((state.next_try, wait(&mut state)), (None, 5));
    }
}
