//! What is to be issued now, and what has to wait for what: a pure decision over the catalog, the work, the CAs' limits
//! and `now`.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use crate::budget::{Budget, Exempt, Limits, Scarce};
use crate::catalog::Catalog;
use crate::chain::Chain;
use crate::event::{CertificateRequested, Reason};
use crate::id::{CertificateId, Hash, PublicKey};
use crate::name::{DnsName, NameSet};
use crate::plan::{self, Due};
use crate::time::{Span, Timestamp};
use crate::work::{LONGEST_WAIT, Work};

/// However due it seems, nothing is renewed more often by itself: a clock that is wrong by months, or a CA whose windows
/// are always in the past, must not become an endless loop of orders.
const OFTEN: [(u32, Duration); 2] = [(2, Duration::from_secs(3600)), (5, Duration::from_secs(86400))];

/// All that is due.
#[derive(Debug, Default)]
pub struct Agenda {
    /// To be issued now, the longest due first.
    pub ready: Vec<Due>,
    /// To be issued later.
    pub waiting: Vec<Waiting>,
}

/// Something that is due and has to wait.
#[derive(Debug)]
pub struct Waiting {
    /// What.
    pub due: Due,
    /// Until when.
    pub until: Timestamp,
    /// For what.
    pub why: Why,
}

/// What something waits for.
#[derive(Debug, PartialEq, Eq)]
pub enum Why {
    /// Its own last attempt failed.
    Failed,
    /// Another certificate failed for a name that this one has too.
    NameFailed(DnsName),
    /// Another manager is at it.
    Claimed(String),
    /// The CA would refuse it.
    Scarce(Scarce),
    /// The CA has said that it takes no orders of this account.
    Limited(String),
    /// It was renewed so many times in so long already, and is due again.
    TooOften(u32, Duration),
}

/// Decides for the manager `me`. `ca_of` says which CA a request goes to, and that CA's limits if it has any.
pub fn agenda(
    catalog: &Catalog,
    work: &Work,
    chain: &Chain,
    me: &str,
    ca_of: impl Fn(&CertificateRequested) -> Option<(String, Limits)>,
    now: Timestamp,
) -> Agenda {
    let mut agenda = Agenda::default();
    let failing = failing_names(work, now);
    // A time further off than anybody waits is of a clock that is wrong.
    let ahead = |until: &Timestamp| *until > now && *until <= now.plus(LONGEST_WAIT);
    let mut budgets: HashMap<String, Budget> = HashMap::new();
    let mut past = None;
    for due in plan::all_due(catalog, work, chain, now) {
        let id = due.request.certificate;
        let mut wait = |due, until, why| agenda.waiting.push(Waiting { due, until, why });
        if let Some(claim) = work.claim(id, now).filter(|claim| claim.by != me) {
            wait(due, claim.until, Why::Claimed(claim.by.clone()));
            continue;
        }
        if let Some(until) = due.not_before.filter(ahead) {
            wait(due, until, Why::Failed);
            continue;
        }
        // What is ordered already is ended: it costs no new order.
        if work.open_order(id).is_none() {
            let failed = due.request.names.iter().find_map(|name| Some((name, *failing.get(name)?)));
            if let Some((name, until)) = failed.filter(|_| due.attempt == 1) {
                let name = name.clone();
                wait(due, until, Why::NameFailed(name));
                continue;
            }
            let often = || too_often(past.get_or_insert_with(|| by_names(work)), &due, now);
            if let Some((until, why)) = (due.reason == Reason::Renewal).then(often).flatten() {
                wait(due, until, why);
                continue;
            }
            if let Some((ca, limits)) = ca_of(&due.request) {
                if let Some(until) = work.limited(&ca).filter(ahead) {
                    wait(due, until, Why::Limited(ca));
                    continue;
                }
                let past = || work.ordered().iter().filter(|ordered| ordered.ca == ca);
                let (names, exempt) = (NameSet::new(&due.request.names), exemption(catalog, work, &due, now));
                let budget = budgets.entry(ca.clone()).or_insert_with(|| Budget::new(limits, past()));
                if let Some((until, scarce)) = budget.wait(&names, exempt, now) {
                    wait(due, until, Why::Scarce(scarce));
                    continue;
                }
                budget.spend(&names, exempt, now);
            }
        }
        agenda.ready.push(due);
    }
    agenda
}

/// When the orders of the last days were placed, the newest first.
fn by_names(work: &Work) -> HashMap<&NameSet, Vec<Timestamp>> {
    let mut past: HashMap<&NameSet, Vec<Timestamp>> = HashMap::new();
    for ordered in work.ordered().iter().rev() {
        past.entry(&ordered.names).or_default().push(ordered.at);
    }
    past
}

fn too_often(past: &HashMap<&NameSet, Vec<Timestamp>>, due: &Due, now: Timestamp) -> Option<(Timestamp, Why)> {
    let past = past.get(&NameSet::new(&due.request.names))?;
    let waits = OFTEN.iter().filter_map(|(count, per)| {
        let until = past.get(*count as usize - 1)?.plus(*per);
        (until > now).then_some((until, Why::TooOften(*count, *per)))
    });
    waits.max_by_key(|(until, _)| *until)
}

/// Which of several managers begins with a certificate: each finds the same, and each has about as many (rendezvous
/// hashing). The others leave it for a while, so that managers share the work rather than race for it.
pub fn first_choice(chain: &Chain, id: CertificateId) -> Option<PublicKey> {
    let draw = |key: &PublicKey| Hash::of(format!("{key} {id}").as_bytes());
    chain.writers().map(|writer| writer.key).max_by_key(draw)
}

/// What an order for `due` does not count against: a renewal in the CA's own window counts against nothing, any other
/// renewal against its names alone.
pub fn exemption(catalog: &Catalog, work: &Work, due: &Due, now: Timestamp) -> Exempt {
    let id = due.request.certificate;
    match (catalog.newest(id), work.window(id)) {
        (Some(version), Some(window)) if window.version == version.fingerprint && window.start <= now => {
            Exempt::Everything
        }
        (Some(_), _) => Exempt::AllButNames,
        (None, _) => Exempt::Nothing,
    }
}

/// Names whose control could not be shown, and until when they are left alone: CAs count failures by name, not by
/// certificate.
fn failing_names(work: &Work, now: Timestamp) -> HashMap<DnsName, Timestamp> {
    let mut failing: HashMap<DnsName, Timestamp> = HashMap::new();
    for failure in work.failures().filter(|failure| failure.retry_at > now) {
        if let Some(name) = &failure.name {
            let until = failing.entry(name.clone()).or_insert(failure.retry_at);
            *until = (*until).max(failure.retry_at);
        }
    }
    failing
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => f.write_str("its last attempt failed"),
            Self::NameFailed(name) => write!(f, "another certificate failed for {name}"),
            Self::Claimed(by) => write!(f, "it is being issued by `{by}`"),
            Self::Scarce(scarce) => scarce.fmt(f),
            Self::Limited(ca) => write!(f, "{ca} takes no orders of this account before (rateLimited)"),
            Self::TooOften(count, per) => write!(
                f,
                "it was ordered {count} times in {} and is due again; look at the clock of this machine and at the CA's window",
                Span::new(*per)
            ),
        }
    }
}
