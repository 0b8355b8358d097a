//! Who may sign for a name, as its CAA records say (RFC 8659, RFC 8657): asked before an order, since a CA that is not
//! named there refuses it after everything was set up. It decides nothing for the CA: what nobody answers is let pass.

mod record;

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use certbus_core::name::DnsName;
use certbus_core::spec::Challenge;
use futures::StreamExt;
use futures::future::BoxFuture;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::sync::Semaphore;

use crate::account::AcmeCa;
use crate::dns::lookup;
use crate::dns::propagation::Propagation;
use crate::error::IssueError;

pub use crate::caa::record::{Asking, CaaRecord, obstacle};

/// All lookups of one order together.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Many orders at once have parents in common: what was answered is good for this long.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Lookups under way at a time, of all orders: a resolver that is asked a thousand things at once drops some.
const AT_ONCE: usize = 32;

/// Lookups of CAA records. One value per process: it remembers for a minute.
#[derive(Debug)]
pub struct Caa {
    resolver: Option<SocketAddr>,
    seen: Mutex<HashMap<String, (Instant, Answer)>>,
    under_way: Semaphore,
}

impl Default for Caa {
    fn default() -> Self {
        Self::new(None)
    }
}

/// The records at a name itself; None where nobody could tell.
type Answer = Option<Vec<CaaRecord>>;

impl Caa {
    /// Asks `resolver`, or the system's where None.
    pub fn new(resolver: Option<SocketAddr>) -> Self {
        Self { resolver, seen: Mutex::default(), under_way: Semaphore::new(AT_ONCE) }
    }

    /// Whether `ca` may sign for `names`. Returns the names about which nobody answered. A CA whose directory names no
    /// identity (RFC 8555 section 7.1.1) is let pass.
    ///
    /// # Errors
    /// [`IssueError::ForbiddenByCaa`].
    pub async fn check(&self, ca: &AcmeCa, names: &[DnsName], challenge: Challenge) -> Result<Vec<String>, IssueError> {
        let identities = &ca.directory().caa_identities;
        if identities.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.find(names).await;
        let mut unanswered = BTreeSet::new();
        for name in names {
            for at in climb(name.base()) {
                let records = match found.get(at) {
                    Some(Some(records)) if records.is_empty() => continue,
                    Some(Some(records)) => records,
                    _ => {
                        unanswered.insert(at.to_owned());
                        break;
                    }
                };
                let asking = Asking { identities, account: ca.account_url(), challenge, wildcard: name.is_wildcard() };
                if let Some(why) = obstacle(records, &asking) {
                    return Err(IssueError::ForbiddenByCaa {
                        name: name.clone(),
                        owner: at.to_owned(),
                        ca: identities.join(" or "),
                        why,
                    });
                }
                break;
            }
        }
        Ok(unanswered.into_iter().collect())
    }

    fn remembered(&self, name: &str) -> Option<Answer> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(name).filter(|(at, _)| at.elapsed() < REMEMBERED).map(|(_, answer)| answer.clone())
    }

    async fn named(&self, name: String, resolvers: &[SocketAddr]) -> (String, Answer) {
        // It is never closed.
        let _turn = self.under_way.acquire().await;
        // Another order, that waited before, may have asked for a parent of both.
        if let Some(known) = self.remembered(&name) {
            return (name, known);
        }
        let answer = at(&name, resolvers).await;
        (name, answer)
    }

    /// The records at every name that the climb may come to.
    async fn find(&self, names: &[DnsName]) -> HashMap<String, Answer> {
        let mut found = HashMap::new();
        let all: BTreeSet<&str> = names.iter().flat_map(|name| climb(name.base())).collect();
        let mut missing = Vec::new();
        for name in all {
            match self.remembered(name) {
                Some(answer) => drop(found.insert(name.to_owned(), answer)),
                None => missing.push(name.to_owned()),
            }
        }
        let resolvers = Propagation { resolver: self.resolver, ..Propagation::default() }.resolvers();
        let lookups: Vec<BoxFuture<'_, (String, Answer)>> =
            missing.into_iter().map(|name| Box::pin(self.named(name, &resolvers)) as BoxFuture<'_, _>).collect();
        let mut lookups = futures::stream::iter(lookups).buffer_unordered(AT_ONCE);
        let collecting = async {
            while let Some((name, answer)) = lookups.next().await {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
                seen.insert(name.clone(), (Instant::now(), answer.clone()));
                found.insert(name, answer);
            }
        };
        // What is not there by then is not known.
        let _ = tokio::time::timeout(ANSWER_WITHIN, collecting).await;
        found
    }
}

async fn at(name: &str, resolvers: &[SocketAddr]) -> Answer {
    for resolver in resolvers {
        let Ok(answer) = lookup::ask(*resolver, &format!("{name}."), RecordType::CAA).await else { continue };
        if !matches!(answer.metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain) {
            continue;
        }
        let records = answer.answers.iter().filter_map(|record| match &record.data {
            RData::CAA(caa) => Some(CaaRecord {
                critical: caa.issuer_critical,
                tag: caa.tag.to_ascii_lowercase(),
                value: String::from_utf8_lossy(&caa.value).into_owned(),
            }),
            _ => None,
        });
        return Some(records.collect());
    }
    None
}

/// The name and its parents (RFC 8659 section 3), without the root.
fn climb(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, parent)| parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_climb_ends_below_the_root() {
        assert_eq!(climb("www.shop.example").collect::<Vec<_>>(), ["www.shop.example", "shop.example", "example"]);
    }
}
