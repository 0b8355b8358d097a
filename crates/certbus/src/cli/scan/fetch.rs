//! What certificates name and a verdict may want: intermediates and revocation lists, fetched where it was asked for, each
//! address once, many at a time. It asks nobody else, and sends nothing but the request.

mod http;
mod reach;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use certbus_scan::failure::Failure;
use certbus_scan::observation::Observation;
use certbus_scan::resolve::Resolver;
use certbus_scan::roots::Roots;
use certbus_scan::verdict::{self, Extras, Problem, Revocation, Verdict, certificates, issuer, links, unlinked};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout, timeout_at};

use super::{now, until_cancelled};
use reach::Reach;

/// What is fetched, and how.
pub(super) struct Fetcher {
    pub(super) aia: bool,
    pub(super) revocation: bool,
    /// Whether any address may be asked.
    pub(super) private: bool,
    pub(super) resolver: Result<Resolver, Failure>,
    pub(super) cancel: Arc<AtomicBool>,
    pub(super) known: Known,
}

/// What was fetched or is being fetched, by address, for whom, and how large it may be: what was too large for one purpose is
/// not for another.
#[derive(Default)]
pub(super) struct Known {
    answers: Mutex<HashMap<(String, Reach, usize), Answer>>,
    /// Bytes in all bodies that anybody holds.
    held: Arc<AtomicUsize>,
}

type Answer = Arc<OnceCell<Result<Arc<Body>, String>>>;

struct Body {
    bytes: Vec<u8>,
    held: Arc<AtomicUsize>,
}

/// For one address, and for all that one certificate wants.
const WITHIN: Duration = Duration::from_secs(10);
const WITHIN_ALL: Duration = Duration::from_secs(20);
/// Lists of large CAs have some tens of megabytes.
const LARGEST_LIST: usize = 64 * 1024 * 1024;
const LARGEST_BUNDLE: usize = 256 * 1024;
/// All that is held of them at a time.
const MOST_HELD: usize = 2 * LARGEST_LIST;
/// A certificate names one list or two, and its issuer once or twice; more are not asked for.
const LISTS: usize = 4;
const ISSUERS: usize = 2;
/// Longer chains of missing links are none.
const LINKS: usize = 4;

impl Fetcher {
    /// Whether this verdict may become another by what can be fetched.
    pub(super) fn is_wanted(&self, verdict: &Verdict) -> bool {
        self.revocation || (self.aia && lacks_a_link(verdict))
    }

    /// The verdict, with what it wants and may have.
    pub(super) async fn judge(&self, seen: &Observation, verdict: Verdict, roots: &Roots) -> Verdict {
        let chain = seen.result.as_ref().map_or(&[][..], |found| &found.chain);
        let (until, reach) = (Instant::now() + WITHIN_ALL, seen.address.map_or(Reach::Public, Reach::of));
        let judged = |extras: &Extras<'_>| verdict::of(seen, roots, extras, now());
        let mut extras = Extras::default();
        if self.aia && lacks_a_link(&verdict) {
            let mut below = unlinked(chain).cloned();
            for _ in 0..LINKS {
                let Some(link) = below else { break };
                let found = self.issuers(&link, reach, until, &mut extras.unfetched).await;
                below = issuer(&link, &found).cloned();
                extras.intermediates.extend(found);
                if judged(&extras).is_some_and(|verdict| is_mended(&verdict)) {
                    break;
                }
            }
        }
        let mut lists = Vec::new();
        let named = chain.first().map(links).unwrap_or_default().crls;
        if self.revocation {
            for url in named.iter().take(LISTS) {
                match self.get(url, LARGEST_LIST, reach, until).await {
                    Ok(list) => lists.push(list),
                    Err(why) => extras.unfetched.push(why),
                }
            }
            extras.crls = lists.iter().map(|list| CertificateRevocationListDer::from(&list.bytes[..])).collect();
        }
        let mut verdict = judged(&extras).unwrap_or(verdict);
        if self.revocation && lists.is_empty() {
            let why = if named.is_empty() { "the certificate names no list" } else { "no list could be fetched" };
            verdict.revocation = Some(Revocation::Unknown { why: why.to_owned() });
        }
        verdict
    }

    /// What stands where a certificate says its issuer's is.
    async fn issuers(
        &self,
        of: &CertificateDer<'_>,
        reach: Reach,
        until: Instant,
        unfetched: &mut Vec<String>,
    ) -> Vec<CertificateDer<'static>> {
        for url in links(of).issuers.iter().take(ISSUERS) {
            match self.get(url, LARGEST_BUNDLE, reach, until).await.map(|body| certificates(&body.bytes)) {
                Ok(found) if found.is_empty() => unfetched.push(format!("{url}: no certificate is there")),
                Ok(found) => return found,
                Err(why) => unfetched.push(why),
            }
        }
        Vec::new()
    }

    /// What stands at an address; who asks for the same waits for the same answer.
    async fn get(&self, url: &str, largest: usize, reach: Reach, until: Instant) -> Result<Arc<Body>, String> {
        let answer = self.known.answer(url, reach, largest);
        let fetched = answer.get_or_init(async || {
            let fetched = timeout(WITHIN, self.fetch(url, largest, reach)).await;
            fetched.map_err(|_| format!("no answer within {WITHIN:?}"))?.map_err(|error| format!("{error:#}"))
        });
        let why = match until_cancelled(&self.cancel, timeout_at(until, fetched)).await {
            Some(Ok(Ok(body))) => return Ok(body.clone()),
            Some(Ok(Err(why))) => why.clone(),
            Some(Err(_)) => format!("no answer within {WITHIN_ALL:?}"),
            None => "interrupted".to_owned(),
        };
        Err(format!("{url}: {why}"))
    }

    async fn fetch(&self, url: &str, largest: usize, reach: Reach) -> Result<Arc<Body>> {
        let mut body = Body { bytes: Vec::new(), held: self.known.held.clone() };
        let refuse = |address: IpAddr| {
            let its = Reach::of(address);
            let admitted = reach.admits(address) || (self.private && its != Reach::Nowhere);
            (!admitted).then(|| format!("{address} is {}, and the node's is not; see --fetch-private", its.told()))
        };
        let take = |part: &[u8]| {
            body.held.fetch_add(part.len(), Ordering::Relaxed);
            body.bytes.extend_from_slice(part);
            ensure!(body.bytes.len() <= largest, "more than {largest} bytes");
            if self.known.held.load(Ordering::Relaxed) > MOST_HELD {
                self.known.forget();
            }
            ensure!(self.known.held.load(Ordering::Relaxed) <= MOST_HELD, "too much is fetched at the same time");
            Ok(())
        };
        http::get(url, &self.resolver, refuse, take).await?;
        Ok(Arc::new(body))
    }
}

impl Known {
    fn answer(&self, url: &str, reach: Reach, largest: usize) -> Answer {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.entry((url.to_owned(), reach, largest)).or_default().clone()
    }

    /// Lets go of what nobody uses.
    fn forget(&self) {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

fn lacks_a_link(verdict: &Verdict) -> bool {
    let lacks = |one: &Problem| matches!(one, Problem::MissingIntermediate { .. } | Problem::UntrustedRoot { .. });
    verdict.problems.iter().any(lacks)
}

fn is_mended(verdict: &Verdict) -> bool {
    verdict.problems.iter().any(|one| matches!(one, Problem::MissingIntermediate { mends: Some(true), .. }))
}
