//! Challenges in places that other managers use too: a record is changed by one at a time, claimed on `work`, and is
//! removed only when no open order needs it (invariant 3). The log alone says who needs what: a count of this process
//! would not know of the others.

use std::sync::Arc;
use std::time::Duration;

use certbus_acme::{ChallengeHost, PlannedChallenge, SolverError, Solvers};
use certbus_core::event::{ChallengesChanged, Event, OrderPlaced, RecordClaimed};
use certbus_core::id::StreamKind;
use certbus_core::spec::Challenge;
use certbus_core::time::Timestamp;
use certbus_core::work::Work;
use futures::future::BoxFuture;

use crate::appender::Scope;
use crate::clock;
use crate::manager::{ManageError, Manager};
use crate::tenant::View;

/// How long one change of a record may take; who is slower may meet another, and the CA's check or its own says so.
const CLAIM: Duration = Duration::from_secs(90);

/// How often it is looked whether another is done.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The challenges of one order.
pub(crate) struct OrderChallenges<'a> {
    pub(crate) manager: &'a Manager,
    pub(crate) solvers: &'a Solvers,
    pub(crate) placed: &'a Arc<OrderPlaced>,
}

/// What a claim is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    SetUp,
    Remove,
}

/// What became of it.
enum Claim {
    Mine(RecordClaimed),
    /// Another open order needs what was to be removed.
    Needed,
    Until(Timestamp),
}

impl OrderChallenges<'_> {
    async fn set_up(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        if !self.solvers.is_shared(planned) {
            return self.solvers.present(planned).await;
        }
        let claim = self.claim(planned, Change::SetUp).await?;
        let outcome = self.solvers.set_up(planned).await;
        self.give_back(claim).await;
        outcome
    }

    async fn remove(&self, planned: &[PlannedChallenge]) -> Result<(), SolverError> {
        if planned.iter().any(|one| self.solvers.is_shared(one)) {
            self.need_no_more().await?;
        }
        let mut outcome = Ok(());
        for one in planned {
            if !self.solvers.is_shared(one) {
                outcome = outcome.and(self.solvers.clean_up(std::slice::from_ref(one)).await);
                continue;
            }
            let removed = match self.claim(one, Change::Remove).await {
                Ok(None) => Ok(()),
                Ok(claim) => {
                    let removed = self.solvers.take_down(one).await;
                    self.give_back(claim).await;
                    removed
                }
                Err(error) => Err(error),
            };
            outcome = outcome.and(removed);
        }
        outcome
    }

    /// Says that this order needs its challenges no more. Until it is ended, whoever goes on with it cleans up too.
    async fn need_no_more(&self) -> Result<(), SolverError> {
        let (certificate, order) = (self.placed.certificate, self.placed.order.clone());
        let said = self.manager.record_for(StreamKind::Work, certificate, move |view| {
            let changed = ChallengesChanged { certificate, order: order.clone(), needed: false };
            let needed = view.work.needs_challenges(certificate, &order);
            Ok((if needed { vec![Event::ChallengesChanged(changed)] } else { Vec::new() }, ()))
        });
        said.await.map_err(|error| unclaimed("the challenges of an order", &error))
    }

    /// Waits until the place is nobody's, and makes it this order's. None if it is to be left as it is.
    async fn claim(&self, planned: &PlannedChallenge, change: Change) -> Result<Option<RecordClaimed>, SolverError> {
        let place = place(planned);
        loop {
            let (certificate, order) = (self.placed.certificate, self.placed.order.clone());
            let (record, planned) = (place.clone(), planned.clone());
            let decide = move |view: &View| {
                let now = clock::now();
                // A claim of this very order was left by a process that is gone: whoever goes on with the order has it.
                let theirs = view.work.record_claim(&record, now).filter(|claim| claim.by != order);
                if let Some(claim) = theirs {
                    return Ok((Vec::new(), Claim::Until(claim.until)));
                }
                if change == Change::Remove && is_needed(&view.work, &order, &planned) {
                    return Ok((Vec::new(), Claim::Needed));
                }
                let claim = RecordClaimed { record: record.clone(), by: order.clone(), until: now.plus(CLAIM) };
                let mut events = vec![Event::RecordClaimed(claim.clone())];
                if change == Change::SetUp && !view.work.needs_challenges(certificate, &order) {
                    let changed = ChallengesChanged { certificate, order: order.clone(), needed: true };
                    events.push(Event::ChallengesChanged(changed));
                }
                Ok((events, Claim::Mine(claim)))
            };
            let claimed = self.manager.record_about(StreamKind::Work, Scope::Record(place.clone()), decide).await;
            match claimed.map_err(|error| unclaimed(&place, &error))? {
                Claim::Mine(claim) => return Ok(Some(claim)),
                Claim::Needed => return Ok(None),
                Claim::Until(until) => {
                    tracing::debug!(record = place, %until, "another changes it");
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    /// A claim that cannot be given back ends by itself.
    async fn give_back(&self, claim: Option<RecordClaimed>) {
        let Some(claim) = claim else { return };
        let scope = Scope::Record(claim.record.clone());
        let back = RecordClaimed { until: Timestamp::default(), ..claim };
        let given = self.manager.record_about(StreamKind::Work, scope, move |view| {
            let mine = view.work.record_claim(&back.record, clock::now()).is_some_and(|claim| claim.by == back.by);
            Ok((if mine { vec![Event::RecordClaimed(back.clone())] } else { Vec::new() }, ()))
        });
        if let Err(error) = given.await {
            tracing::warn!("a claimed record is free again only in {} s: {error}", CLAIM.as_secs());
        }
    }
}

impl ChallengeHost for OrderChallenges<'_> {
    fn present<'a>(&'a self, planned: &'a PlannedChallenge) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.set_up(planned))
    }

    fn wait_until_visible<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.solvers.wait_until_visible(planned))
    }

    fn clean_up<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.remove(planned))
    }
}

/// What an order has planned, as it stands on `work`.
pub(crate) fn planned(placed: &OrderPlaced) -> Vec<PlannedChallenge> {
    placed.challenges.iter().filter_map(|value| serde_json::from_value(value.clone()).ok()).collect()
}

/// Whether an open order other than `order` needs the same response.
fn is_needed(work: &Work, order: &str, response: &PlannedChallenge) -> bool {
    let others = work.orders_that_need_challenges().filter(|open| open.order != order);
    // Only these are read closer: hundreds may be open.
    let others = others.filter(|open| open.names.iter().any(|name| name.base() == response.name.base()));
    others.flat_map(|open| planned(open)).any(|other| other == *response)
}

fn place(planned: &PlannedChallenge) -> String {
    match planned.challenge {
        Challenge::Dns01 => format!("dns-01:_acme-challenge.{}", planned.name.base()),
        Challenge::Http01 => format!("http-01:{}", planned.token),
    }
}

fn unclaimed(record: &str, error: &ManageError) -> SolverError {
    SolverError::Claim { record: record.to_owned(), why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use certbus_core::catalog::Place;
    use certbus_core::event::{OrderEnded, Reason};
    use certbus_core::id::{CertificateId, Hash, RingId};
    use certbus_core::name::DnsName;
    use certbus_core::seal::{OpeningKey, Purpose, SealedKey, seal};

    use super::*;

    fn response(value: &str) -> PlannedChallenge {
        PlannedChallenge {
            name: DnsName::parse("shop.example").unwrap(),
            challenge: Challenge::Dns01,
            token: "token".into(),
            key_authorization: String::new(),
            dns_value: value.into(),
        }
    }

    fn placed(certificate: u8, order: &str, names: &[&str], response: &PlannedChallenge) -> Event {
        let ring = RingId::from_bytes([1; 8]);
        let (id, spki) = (CertificateId::from_bytes([certificate; 8]), Hash::of(b"spki"));
        let purpose = Purpose::CertificateKey { tenant: "default", ring, certificate: id, spki };
        let sealed = seal(&OpeningKey::from_secret(&[1; 32]).unwrap().public(), purpose, b"key").unwrap();
        Event::OrderPlaced(Arc::new(OrderPlaced {
            certificate: id,
            attempt: 1,
            reason: Reason::New,
            ca: "ca".into(),
            account: "account".into(),
            order: order.into(),
            names: names.iter().map(|name| DnsName::parse(name).unwrap()).collect(),
            csr: String::new(),
            spki,
            key: SealedKey { ring, sealed },
            challenges: vec![serde_json::to_value(response).unwrap()],
        }))
    }

    #[test]
    fn invariant_3_a_response_is_needed_while_another_open_order_has_it_and_wants_it() {
        let shared = response("value");
        let mut work = Work::default();
        let mut seq = 0;
        let mut say = |work: &mut Work, event| {
            seq += 1;
            work.apply(Place { seq, index: 0 }, Timestamp::default(), &event);
        };
        say(&mut work, placed(1, "first", &["shop.example"], &shared));
        assert!(!is_needed(&work, "first", &shared), "its own need does not count");
        // The CA gave both the same authorization; the other orders a wildcard besides.
        say(&mut work, placed(2, "second", &["*.shop.example"], &shared));
        assert!(is_needed(&work, "first", &shared));
        assert!(!is_needed(&work, "first", &response("another value")));
        let certificate = CertificateId::from_bytes([2; 8]);
        let changed = |needed| ChallengesChanged { certificate, order: "second".into(), needed };
        say(&mut work, Event::ChallengesChanged(changed(false)));
        assert!(!is_needed(&work, "first", &shared), "it has said that it needs nothing");
        say(&mut work, Event::ChallengesChanged(changed(true)));
        assert!(is_needed(&work, "first", &shared));
        let ended = OrderEnded { certificate, order: "second".into(), version: None };
        say(&mut work, Event::OrderEnded(ended));
        assert!(!is_needed(&work, "first", &shared));
    }
}
