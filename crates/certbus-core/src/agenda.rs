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

/// However due it seems, nothing is issued more often by itself: a clock that is wrong by months, or a CA whose windows are
/// always in the past, must not become an endless loop of orders. So many in so long, or in so many lives of the version if
/// that is less: short lives are renewed as often as they need.
const OFTEN: [(u32, Duration, f64); 2] = [(2, Duration::from_secs(3600), 0.5), (5, Duration::from_secs(86400), 3.0)];

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

/// Decides for the manager `me`. `cas_of` says which CAs a request goes to, in order, with their limits.
pub fn agenda(
    catalog: &Catalog,
    work: &Work,
    chain: &Chain,
    me: &str,
    cas_of: impl Fn(&CertificateRequested) -> Vec<(String, Limits)>,
    now: Timestamp,
) -> Agenda {
    let mut agenda = Agenda::default();
    let failing = failing_names(work, now);
    // A time further off than anybody waits is of a clock that is wrong.
    let ahead = |until: &Timestamp| *until > now && *until <= now.plus(LONGEST_WAIT);
    let mut budgets: HashMap<String, Budget> = HashMap::new();
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
            if let Some((until, why)) = too_often(catalog, work, &due, now) {
                wait(due, until, why);
                continue;
            }
            let cas = cas_of(&due.request);
            if let Some((until, ca)) = limited(catalog, work, &due, cas.iter().map(|(ca, _)| ca.as_str()), now) {
                let ca = ca.to_owned();
                wait(due, until, Why::Limited(ca));
                continue;
            }
            if let Some((ca, limits)) = cas.into_iter().next() {
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

fn too_often(catalog: &Catalog, work: &Work, due: &Due, now: Timestamp) -> Option<(Timestamp, Why)> {
    let version = catalog.newest(due.request.certificate).filter(|_| due.reason == Reason::Renewal)?;
    let life = version.not_after.since(version.not_before);
    let issued: Vec<Timestamp> = work.issued(due.request.certificate).collect();
    let waits = OFTEN.iter().filter_map(|(count, per, lives)| {
        let per = (*per).min(life.mul_f64(*lives));
        let until = issued.get(*count as usize - 1)?.plus(per);
        // Whatever the reason, it is not waited until the end.
        let middle = now.plus(version.not_after.since(now) / 2);
        let until = if version.not_after > now { until.min(middle) } else { until };
        (until > now && until <= now.plus(per)).then_some((until, Why::TooOften(*count, per)))
    });
    waits.max_by_key(|(until, _)| *until)
}

/// Until when none of `cas` takes an order for `due`, and the first that does then. Renewals in a CA's own window are exempt.
pub fn limited<'a>(
    catalog: &Catalog,
    work: &Work,
    due: &Due,
    cas: impl Iterator<Item = &'a str>,
    now: Timestamp,
) -> Option<(Timestamp, &'a str)> {
    if exemption(catalog, work, due, now) == Exempt::Everything {
        return None;
    }
    let waits: Option<Vec<(Timestamp, &str)>> = cas.map(|ca| Some((work.limited(ca, now)?, ca))).collect();
    waits?.into_iter().min()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Place;
    use crate::event::{Event, OrderEnded, OrderPlaced};
    use crate::id::StreamKind;
    use crate::testing::World;
    use std::sync::Arc;

    const MINUTE: u64 = 60;
    const DAY: u64 = 86400;

    /// Whether a certificate that lives for `life` seconds and was issued at these times (seconds) waits at `now`.
    fn waits(life: u64, issued: &[u64], now: u64) -> Option<u64> {
        let (world, _) = World::new(StreamKind::Certs);
        let start = world.now;
        let at = |seconds: u64| start.plus(Duration::from_secs(seconds));
        let Event::CertificateObtained(made) = world.certificate(1, 1, &["shop.example"])[0].clone() else { panic!() };
        let (mut catalog, mut work) = (Catalog::default(), Work::default());
        for (number, seconds) in issued.iter().enumerate() {
            let place = Place { seq: number as u64 + 2, index: 0 };
            let version = Hash::of(&[number as u8]);
            let mut obtained = (*made).clone();
            (obtained.version, obtained.not_before) = (version, at(*seconds));
            obtained.not_after = at(seconds + life);
            let certificate = obtained.certificate;
            let order = number.to_string();
            let placed = OrderPlaced {
                certificate,
                attempt: 1,
                reason: Reason::Renewal,
                ca: "ca".into(),
                account: String::new(),
                order: order.clone(),
                names: obtained.names.clone(),
                csr: String::new(),
                spki: obtained.spki,
                key: obtained.key.clone(),
                challenges: vec![],
            };
            catalog.apply(place, &Event::CertificateObtained(Arc::new(obtained)));
            work.apply(place, at(*seconds), &Event::OrderPlaced(Arc::new(placed)));
            let ended = OrderEnded { certificate, order, version: Some(version) };
            work.apply(place, at(*seconds), &Event::OrderEnded(ended));
        }
        let request = CertificateRequested {
            certificate: made.certificate,
            names: made.names.clone(),
            challenge: crate::spec::Challenge::Dns01,
            key_type: crate::spec::KeyType::P256,
            ca: None,
            profile: None,
        };
        let due = Due {
            request,
            reason: Reason::Renewal,
            since: start,
            attempt: 1,
            not_before: None,
            newest: None,
            order: None,
        };
        too_often(&catalog, &work, &due, at(now)).map(|(until, _)| until.since(start).as_secs())
    }

    #[test]
    fn what_is_due_again_at_once_waits_and_short_lives_are_renewed_as_often_as_they_need() {
        assert_eq!(waits(90 * DAY, &[0], 1), None, "an incident right after the first is acted on");
        assert_eq!(waits(90 * DAY, &[0, MINUTE], 2 * MINUTE), Some(60 * MINUTE));
        assert_eq!(waits(90 * DAY, &[0, MINUTE], 61 * MINUTE), None);
        let five = [0, 61 * MINUTE, 122 * MINUTE, 183 * MINUTE, 244 * MINUTE];
        assert_eq!(waits(90 * DAY, &five, 5 * 61 * MINUTE), Some(DAY));
        // Renewed at two thirds of 75 seconds, and of 7 hours, for ever.
        for life in [75, 7 * 60 * MINUTE] {
            let issued: Vec<u64> = (0..20).map(|n| n * life * 2 / 3).collect();
            assert_eq!(waits(life, &issued, 20 * life * 2 / 3), None, "{life}");
        }
        // Even so nothing is let expire: half of what is left is waited for at most.
        assert_eq!(waits(1000, &[0, 100], 200), Some(500));
        assert_eq!(waits(1000, &[900, 900], 1000), Some(1400));
    }
}
