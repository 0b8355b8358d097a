//! What certificates name and a verdict may want: intermediates and revocation lists, fetched where it was asked for. It asks
//! nobody else, and sends nothing but the request.

mod http;
mod known;
mod reach;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use certbus_scan::failure::Failure;
use certbus_scan::observation::Observation;
use certbus_scan::resolve::Resolver;
use certbus_scan::roots::Roots;
use certbus_scan::verdict::{self, Extras, Problem, Revocation, Verdict, links, signers, unlinked};
use rustls::pki_types::CertificateDer;
use tokio::time::{Instant, timeout_at};

use super::{now, until_cancelled};
pub(super) use http::MOST_CONNECTIONS;
use known::Known;
use reach::Reach;

/// What is fetched, and how.
pub(super) struct Fetcher {
    pub(super) aia: bool,
    pub(super) revocation: bool,
    cancel: Arc<AtomicBool>,
    known: Known,
}

/// Whose certificate it is that leads somewhere, and for how long it may.
#[derive(Clone, Copy)]
struct Led {
    reach: Reach,
    until: Instant,
}

/// For all that one certificate wants.
const WITHIN_ALL: Duration = Duration::from_secs(20);
/// A certificate names one list or two, and its issuer once or twice; more are not asked for.
const LISTS: usize = 4;
const ISSUERS: usize = 2;
/// Longer chains of missing links are none, and few CAs have more certificates for one key.
const LINKS: usize = 4;
const BRANCHES: usize = 2;

impl Fetcher {
    pub(super) fn new(
        aia: bool,
        revocation: bool,
        private: bool,
        resolver: Result<Resolver, Failure>,
        cancel: Arc<AtomicBool>,
    ) -> Self {
        Self { aia, revocation, cancel, known: Known::new(resolver, private) }
    }

    /// Whether this verdict may become another by what can be fetched.
    pub(super) fn is_wanted(&self, verdict: &Verdict) -> bool {
        self.revocation || (self.aia && lacks_a_link(verdict))
    }

    /// The verdict, with what it wants and may have.
    pub(super) async fn judge(&self, seen: &Observation, mut verdict: Verdict, roots: &Roots) -> Verdict {
        let chain = seen.result.as_ref().map_or(&[][..], |found| &found.chain);
        let reach = seen.address.map_or(Reach::Public, Reach::of);
        let led = Led { reach, until: Instant::now() + WITHIN_ALL };
        let judged = |extras: &Extras<'_>| verdict::of(seen, roots, extras, now());
        let mut extras = Extras::default();
        if self.aia && lacks_a_link(&verdict) {
            self.climb(chain, led, &mut extras, |extras| judged(extras).is_some_and(|verdict| is_mended(&verdict)))
                .await;
            verdict = judged(&extras).unwrap_or(verdict);
        }
        if self.revocation {
            let named = chain.first().map(links).unwrap_or_default().crls;
            let why = if named.is_empty() { "the certificate names no list" } else { "no list could be fetched" };
            verdict.revocation = Some(Revocation::Unknown { why: why.to_owned() });
            // One at a time, until one says something: a certificate that names many has no more room than another.
            for url in named.iter().take(LISTS) {
                match self.get(url, led, self.known.list(url, reach)).await {
                    Err(why) => extras.unfetched.push(why),
                    Ok(list) => {
                        let with_list = Extras { crls: vec![&list], ..extras.clone() };
                        let judging = self.known.at_length(list.takes(), || judged(&with_list));
                        verdict = until_cancelled(&self.cancel, judging).await.flatten().unwrap_or(verdict);
                    }
                }
                if !matches!(verdict.revocation, Some(Revocation::Unknown { .. })) {
                    break;
                }
            }
            verdict.unfetched = extras.unfetched;
        }
        verdict
    }

    /// Fetches from link to link what signed the one below, until the chain is mended.
    async fn climb(
        &self,
        chain: &[CertificateDer<'static>],
        led: Led,
        extras: &mut Extras<'_>,
        mended: impl Fn(&Extras<'_>) -> bool,
    ) {
        let mut below: Vec<_> = unlinked(chain).cloned().into_iter().collect();
        for _ in 0..LINKS {
            for link in &below {
                self.issuers(link, led, extras).await;
            }
            let above = signers(&below, &extras.intermediates).into_iter().filter(|one| !below.contains(one));
            below = above.take(BRANCHES).cloned().collect();
            if below.is_empty() || mended(extras) {
                break;
            }
        }
    }

    /// Fetches what stands where a certificate says its issuer's is.
    async fn issuers(&self, of: &CertificateDer<'_>, led: Led, extras: &mut Extras<'_>) {
        for url in links(of).issuers.iter().take(ISSUERS) {
            match self.get(url, led, self.known.issuers(url, led.reach)).await {
                Err(why) if extras.unfetched.contains(&why) => {}
                Err(why) => extras.unfetched.push(why),
                Ok(found) => {
                    for one in found.iter() {
                        if !extras.intermediates.contains(one) {
                            extras.intermediates.push(one.clone());
                        }
                    }
                }
            }
        }
    }

    /// What comes from an address before the certificate's time is over, or in words why it does not.
    async fn get<T>(&self, url: &str, led: Led, coming: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let why = match until_cancelled(&self.cancel, timeout_at(led.until, coming)).await {
            Some(Ok(Ok(come))) => return Ok(come),
            Some(Ok(Err(why))) => why,
            Some(Err(_)) => format!("no answer within {WITHIN_ALL:?}"),
            None => "interrupted".to_owned(),
        };
        Err(format!("{url}: {why}"))
    }
}

fn lacks_a_link(verdict: &Verdict) -> bool {
    let lacks = |one: &Problem| matches!(one, Problem::MissingIntermediate { .. } | Problem::UntrustedRoot { .. });
    verdict.problems.iter().any(lacks)
}

fn is_mended(verdict: &Verdict) -> bool {
    verdict.problems.iter().any(|one| matches!(one, Problem::MissingIntermediate { mends: Some(true), .. }))
}
