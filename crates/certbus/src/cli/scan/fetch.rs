//! What certificates name and a verdict may want: intermediates and revocation lists, fetched over HTTP where it was asked
//! for, each address once. It asks nobody else, and sends nothing but the request.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use certbus_core::time::Timestamp;
use certbus_scan::observation::Observation;
use certbus_scan::roots::Roots;
use certbus_scan::verdict::{self, Extras, Problem, Verdict, links};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

pub(super) struct Fetcher {
    aia: bool,
    revocation: bool,
    /// Made when it is first wanted: it reads the platform's roots.
    client: OnceCell<reqwest::Client>,
    /// What was fetched, or could not be.
    known: HashMap<String, Option<Vec<u8>>>,
}

const WITHIN: Duration = Duration::from_secs(10);
/// Lists of large CAs have some tens of megabytes.
const LARGEST: usize = 64 * 1024 * 1024;
/// And all that is kept of them.
const KEPT: usize = 2 * LARGEST;
/// A certificate names one list or two; more are not asked for.
const LISTS: usize = 4;
/// Longer chains of missing links are none.
const LINKS: usize = 4;

impl Fetcher {
    pub(super) fn new(aia: bool, revocation: bool) -> Self {
        Self { aia, revocation, client: OnceCell::new(), known: HashMap::new() }
    }

    /// The verdict, with what it wants and may have.
    pub(super) async fn judge(&mut self, seen: &Observation, roots: &Roots, now: Timestamp) -> Option<Verdict> {
        let mut extras = Extras::default();
        let mut verdict = verdict::of(seen, roots, &extras, now)?;
        let chain = seen.result.as_ref().ok().map(|found| &found.chain)?;
        if self.aia && verdict.problems.iter().any(|one| matches!(one, Problem::MissingIntermediate { .. })) {
            let mut last = chain.last().cloned();
            for _ in 0..LINKS {
                let Some(url) = last.as_ref().and_then(|last| links(last).issuers.into_iter().next()) else { break };
                last = self.get(&url).await.and_then(certificate);
                extras.intermediates.extend(last.clone());
            }
            verdict = verdict::of(seen, roots, &extras, now)?;
        }
        if self.revocation {
            for url in chain.first().map(links).unwrap_or_default().crls.into_iter().take(LISTS) {
                extras.crls.extend(self.get(&url).await.map(CertificateRevocationListDer::from));
            }
            verdict = verdict::of(seen, roots, &extras, now)?;
            if extras.crls.is_empty() {
                let why = "it names no list that could be fetched".to_owned();
                verdict.revocation = Some(verdict::Revocation::Unknown { why });
            }
        }
        Some(verdict)
    }

    async fn get(&mut self, url: &str) -> Option<Vec<u8>> {
        if let Some(known) = self.known.get(url) {
            return known.clone();
        }
        let fetched = self.fetch(url).await;
        if let Err(error) = &fetched {
            tracing::warn!("{url}: {error:#}");
        }
        let fetched = fetched.ok();
        let kept: usize = self.known.values().flatten().map(Vec::len).sum();
        if kept + fetched.as_ref().map_or(0, Vec::len) > KEPT {
            self.known.clear();
        }
        self.known.insert(url.to_owned(), fetched.clone());
        fetched
    }

    async fn fetch(&self, url: &str) -> Result<Vec<u8>> {
        if self.client.get().is_none() {
            let client = reqwest::Client::builder()
                .timeout(WITHIN)
                // Who names an address is not let lead to another one.
                .redirect(reqwest::redirect::Policy::none())
                .user_agent("certbus-scan")
                .build()?;
            self.client.get_or_init(|| client);
        }
        let client = self.client.get().context("no HTTP client")?;
        let mut answer = client.get(url).send().await?.error_for_status()?;
        anyhow::ensure!(answer.status().is_success(), "HTTP {}", answer.status());
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await? {
            body.extend_from_slice(&part);
            anyhow::ensure!(body.len() <= LARGEST, "more than 64 MB");
        }
        Ok(body)
    }
}

/// DER, as RFC 5280 wants it, or PEM, as some serve it.
fn certificate(body: Vec<u8>) -> Option<CertificateDer<'static>> {
    if body.starts_with(b"-----") {
        CertificateDer::from_pem_slice(&body).ok()
    } else {
        Some(CertificateDer::from(body))
    }
}
