//! When each CA may be asked again for the renewal window of a version (RFC 9773 section 4.3): a note of this machine,
//! which may be lost. What the CAs said is on `work`.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use certbus_core::event::CertificateRequested;
use certbus_core::id::{Fingerprint, Hash};
use certbus_core::time::Timestamp;
use futures::StreamExt;

use crate::clock;
use crate::issuing::Issuers;
use crate::manager::{ManageError, Manager};

/// How many are asked for at once.
const AT_ONCE: usize = 32;

/// Asked again after this long where a CA did not answer.
const AFTER_FAILURE: std::time::Duration = std::time::Duration::from_secs(3600);

/// The times of the next questions, kept in a file between runs.
#[derive(Debug)]
pub struct Windows {
    file: PathBuf,
    next: BTreeMap<Hash, Timestamp>,
}

impl Windows {
    /// Reads the file. One that is not there or cannot be read only means that all are asked again.
    pub fn load(file: PathBuf) -> Self {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        Self { file, next: serde_json::from_str(&text).unwrap_or_default() }
    }

    fn is_due(&self, version: &Fingerprint, now: Timestamp) -> bool {
        self.next.get(version).is_none_or(|next| *next <= now)
    }

    fn save(&self) {
        let text = serde_json::to_string(&self.next).unwrap_or_default();
        if let Err(error) = std::fs::write(&self.file, text) {
            tracing::warn!("{}: {error}; renewal windows are asked for again at the next start", self.file.display());
        }
    }
}

impl Manager {
    /// Asks the CAs for the renewal windows of the versions whose time it is. A CA that does not answer spoils nothing.
    ///
    /// # Errors
    /// [`ManageError::Follow`].
    pub async fn refresh_windows(&self, issuers: &Issuers, windows: &mut Windows) -> Result<(), ManageError> {
        let now = clock::now();
        let wanted: Vec<(CertificateRequested, Fingerprint)> = {
            let view = self.view().await?;
            let newest = |request: &CertificateRequested| view.catalog.newest(request.certificate);
            let all: HashMap<Fingerprint, &CertificateRequested> = view
                .work
                .requests()
                .into_iter()
                .filter_map(|request| Some((newest(request)?.fingerprint, request)))
                .collect();
            windows.next.retain(|known, _| all.contains_key(known));
            let due = all.into_iter().filter(|(version, _)| windows.is_due(version, now));
            due.map(|(version, request)| (request.clone(), version)).collect()
        };
        if wanted.is_empty() {
            return Ok(());
        }
        let asked = futures::stream::iter(wanted)
            .map(|(request, version)| async move { (version, self.refresh_window(&request, issuers).await) });
        let mut asked = std::pin::pin!(asked.buffer_unordered(AT_ONCE));
        while let Some((version, wait)) = asked.next().await {
            windows.next.insert(version, now.plus(wait?.unwrap_or(AFTER_FAILURE)));
        }
        windows.save();
        Ok(())
    }
}
