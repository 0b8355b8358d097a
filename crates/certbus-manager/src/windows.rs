//! When each CA may be asked again for the renewal window of a version (RFC 9773 section 4.3): a note of this machine,
//! which may be lost. What the CAs said is on `work`.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use certbus_acme::Ca;
use certbus_core::event::{CertificateRequested, Event, RenewalWindowChanged};
use certbus_core::id::{Fingerprint, Hash, StreamKind};
use certbus_core::time::Timestamp;
use futures::StreamExt;

use crate::clock;
use crate::issuers::Issuers;
use crate::manager::{ManageError, Manager};

/// How many are asked for at once.
const AT_ONCE: usize = 32;

/// A CA that offers no renewal windows is asked again after this: it may learn to.
const NO_WINDOWS: Duration = Duration::from_secs(86400);

/// A CA that answers slowly must not keep what is due waiting.
const WITHIN: Duration = Duration::from_secs(60);

/// Asked again after this long where a CA did not answer.
const AFTER_FAILURE: Duration = Duration::from_secs(3600);

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
        let all = async {
            while let Some((version, wait)) = asked.next().await {
                windows.next.insert(version, now.plus(wait?.unwrap_or(AFTER_FAILURE)));
            }
            Ok(())
        };
        let outcome = tokio::time::timeout(WITHIN, all).await;
        windows.save();
        outcome.unwrap_or_else(|_| {
            tracing::warn!("renewal windows: a CA answers slowly, the rest is asked for at the next look");
            Ok(())
        })
    }

    /// Asks for the renewal window of the newest version, wherever it may have been issued. How long until it may be asked
    /// for again; None if there is no version.
    async fn refresh_window(
        &self,
        request: &CertificateRequested,
        issuers: &Issuers,
    ) -> Result<Option<Duration>, ManageError> {
        let chain = {
            let view = self.view().await?;
            let Some(version) = view.catalog.newest(request.certificate).cloned() else {
                return Ok(None);
            };
            self.tenant().obtained(&view, &version).await?.map(|o| (o.chain.clone(), version.fingerprint))
        };
        let Some((chain, version)) = chain else {
            return Ok(None);
        };
        // A fallback may have issued it: the first that knows the certificate answers.
        let mut wait: Option<Duration> = None;
        for name in issuers.settings().ca_names(request.ca.as_deref())? {
            let asked = match issuers.ca(&name).await {
                Ok(ca) => self.read_window(request, &ca, &chain, version).await,
                Err(error) => {
                    tracing::warn!(certificate = %request.certificate, "renewal window not read: {error}");
                    None
                }
            };
            let asked = asked.unwrap_or(AFTER_FAILURE);
            wait = Some(wait.map_or(asked, |wait| wait.min(asked)));
            if self.view().await?.work.window(request.certificate).is_some_and(|window| window.version == version) {
                // The one that has issued it has the word.
                break;
            }
        }
        Ok(wait)
    }

    /// Reads the CA's renewal window and keeps it if it is news. A CA that does not answer here spoils nothing.
    pub(crate) async fn read_window(
        &self,
        request: &CertificateRequested,
        ca: &Ca,
        chain_pem: &str,
        version: Hash,
    ) -> Option<Duration> {
        let id = request.certificate;
        let window = match ca.renewal_window(chain_pem).await {
            Ok(Some(window)) => window,
            Ok(None) => return Some(NO_WINDOWS),
            Err(error) => {
                tracing::warn!(certificate = %id, "renewal window not read, two thirds of life are taken: {error}");
                return None;
            }
        };
        let (start, end) = (window.start, window.end);
        let found = RenewalWindowChanged { certificate: id, version, start, end, explanation: window.explanation_url };
        let kept = self.record_for(StreamKind::Work, id, move |view| {
            let news = view.work.window(id) != Some(&found);
            Ok((if news { vec![Event::RenewalWindowChanged(found.clone())] } else { Vec::new() }, ()))
        });
        if let Err(error) = kept.await {
            tracing::warn!(certificate = %id, "renewal window not kept: {error}");
        }
        Some(window.retry_after)
    }
}
