//! When a version is renewed, and what is due: pure decisions over the catalog, the work and `now` (invariant 6).

use std::time::Duration;

use crate::catalog::{Catalog, Version};
use crate::chain::Chain;
use crate::event::{CertificateRequested, Reason, RenewalWindowChanged};
use crate::id::{CertificateId, Fingerprint};
use crate::time::Timestamp;
use crate::work::Work;

/// The first retry after a failure comes this much later; each further failure doubles it.
pub const FIRST_RETRY: Duration = Duration::from_secs(60);

/// No retry waits longer.
pub const LAST_RETRY: Duration = Duration::from_secs(12 * 3600);

/// The part of their life over which renewals are spread.
pub const SPREAD: f64 = 0.02;

/// A managed certificate that needs issuing now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub request: CertificateRequested,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Timestamp,
    /// Which attempt this is, since the version before.
    pub attempt: u32,
    /// Not before this, after a failure.
    pub not_before: Option<Timestamp>,
    /// The newest version when this was decided: if there is a newer one, somebody else has done it.
    pub newest: Option<Fingerprint>,
    /// The open order that is to be ended, if that is why: if it is ended, somebody else has done it.
    pub order: Option<String>,
}

/// When `version` is to be renewed: at a moment of the CA's window that depends on the version alone (so that all
/// managers agree and a fleet spreads, RFC 9773 section 4.2), else at two thirds of its life, or up to [`SPREAD`] before:
/// what was issued at one time is not all renewed at one time.
pub fn renewal_point(version: &Version, window: Option<&RenewalWindowChanged>) -> Timestamp {
    let draw = version.fingerprint.as_bytes().first_chunk::<8>().map_or(0, |first| u64::from_le_bytes(*first));
    if let Some(window) = window.filter(|window| window.version == version.fingerprint) {
        let width = window.end.since(window.start).as_millis() as u64;
        return window.start.plus(Duration::from_millis(if width == 0 { 0 } else { draw % width }));
    }
    let life = version.not_after.since(version.not_before);
    let drawn = f64::from((draw >> 32) as u32) / f64::from(u32::MAX);
    version.not_before.plus(life * 2 / 3).minus(life.mul_f64(SPREAD * drawn))
}

/// Why `request` must be issued at `now`, if it must.
pub fn due(
    catalog: &Catalog,
    work: &Work,
    chain: &Chain,
    request: &CertificateRequested,
    now: Timestamp,
) -> Option<Due> {
    let newest = catalog.newest(request.certificate);
    let (reason, since) = match (newest, work.open_order(request.certificate)) {
        // Whatever it was placed for, an order that was left open is to be ended (invariant 2).
        (_, Some(open)) => (open.reason, now),
        (None, None) => (Reason::New, now),
        (Some(version), None) => {
            let point = renewal_point(version, work.window(request.certificate));
            if chain.is_compromised(version.ring) || catalog.revocation(version.fingerprint).is_some() {
                (Reason::Replacement, now)
            } else if point <= now {
                (Reason::Renewal, point)
            } else {
                return None;
            }
        }
    };
    Some(as_due(catalog, work, request, reason, since))
}

/// What a person asks for: due at `now`, whatever the clock says.
pub fn on_demand(catalog: &Catalog, work: &Work, chain: &Chain, request: &CertificateRequested, now: Timestamp) -> Due {
    let reason = if catalog.newest(request.certificate).is_none() { Reason::New } else { Reason::Renewal };
    due(catalog, work, chain, request, now).unwrap_or_else(|| as_due(catalog, work, request, reason, now))
}

fn as_due(catalog: &Catalog, work: &Work, request: &CertificateRequested, reason: Reason, since: Timestamp) -> Due {
    let failure = work.failure(request.certificate);
    Due {
        request: request.clone(),
        reason,
        since,
        attempt: failure.map_or(1, |f| f.attempt + 1),
        not_before: failure.map(|f| f.retry_at),
        newest: catalog.newest(request.certificate).map(|version| version.fingerprint),
        order: work.open_order(request.certificate).map(|open| open.order.clone()),
    }
}

/// From when on a version is overdue: past its planned renewal by a tenth of the life that was left then.
pub fn overdue_from(version: &Version, window: Option<&RenewalWindowChanged>) -> Timestamp {
    let point = renewal_point(version, window);
    point.plus(version.not_after.since(point) / 10)
}

/// Whether a version is overdue.
pub fn is_overdue(version: &Version, window: Option<&RenewalWindowChanged>, now: Timestamp) -> bool {
    now > overdue_from(version, window)
}

/// Whether the CA asks for a replacement at once: its window for the newest version has passed although two thirds of life
/// have not. An incident at the CA, most likely.
pub fn is_asked_for(catalog: &Catalog, work: &Work, id: CertificateId, now: Timestamp) -> bool {
    let Some(version) = catalog.newest(id) else { return false };
    let window = work.window(id).filter(|window| window.version == version.fingerprint);
    window.is_some_and(|window| window.end < now) && now < renewal_point(version, None)
}

/// Everything that is due at `now`, the longest due first.
pub fn all_due(catalog: &Catalog, work: &Work, chain: &Chain, now: Timestamp) -> Vec<Due> {
    let mut found: Vec<Due> =
        work.requests().into_iter().filter_map(|request| due(catalog, work, chain, request, now)).collect();
    found.sort_by_key(|due| due.since);
    found
}

/// How long to wait after failed attempt number `attempt` (1, 2, 3 …).
pub fn retry_delay(attempt: u32) -> Duration {
    FIRST_RETRY.saturating_mul(1 << attempt.saturating_sub(1).min(16)).min(LAST_RETRY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Place;
    use crate::id::{Hash, RingId};
    use crate::name::NameSet;

    fn version(days: u64) -> Version {
        let start = Timestamp::parse("2026-01-01").unwrap();
        Version {
            certificate: CertificateId::from_bytes([1; 8]),
            fingerprint: Hash::of(b"leaf"),
            spki: Hash::of(b"spki"),
            ring: RingId::from_bytes([1; 8]),
            names: NameSet::from_stored("a.example.com"),
            not_before: start,
            not_after: start.plus(Duration::from_secs(days * 86400)),
            reason: Reason::New,
            place: Place { seq: 2, index: 0 },
        }
    }

    #[test]
    fn invariant_6_a_renewal_is_a_fraction_of_life_whatever_the_life() {
        for days in [6, 47, 90, 398] {
            let version = version(days);
            let point = renewal_point(&version, None);
            let lived = point.since(version.not_before).as_secs_f64() / (days as f64 * 86400.0);
            assert!((2.0 / 3.0 - SPREAD - 1e-6..=2.0 / 3.0).contains(&lived), "{days} days: {lived}");
        }
    }

    #[test]
    fn invariant_6_the_cas_window_comes_before_the_fraction_and_only_for_its_own_version() {
        let version = version(90);
        let start = Timestamp::parse("2026-01-10").unwrap();
        let mut window = RenewalWindowChanged {
            certificate: version.certificate,
            version: version.fingerprint,
            start,
            end: start.plus(Duration::from_secs(86400)),
            explanation: None,
        };
        let point = renewal_point(&version, Some(&window));
        assert!(point >= window.start && point < window.end);
        assert_eq!(point, renewal_point(&version, Some(&window)), "every manager finds the same moment");
        window.version = Hash::of(b"another");
        assert_eq!(renewal_point(&version, Some(&window)), renewal_point(&version, None));
    }

    #[test]
    fn retries_double_up_to_a_ceiling() {
        assert_eq!(retry_delay(1), FIRST_RETRY);
        assert_eq!(retry_delay(2), FIRST_RETRY * 2);
        assert_eq!(retry_delay(40), LAST_RETRY);
    }
}
