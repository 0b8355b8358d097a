//! Showing control of a name: what is set up, seen, and removed again, for each kind of challenge (RFC 8555 section
//! 8). It knows no order: only responses, and how many in this process need each.

pub mod bucket;
pub mod dns01;
mod error;
pub mod http01;
mod ledger;
pub mod rehearsal;

use certbus_core::name::DnsName;
use certbus_core::spec::Challenge;
use futures::future::{BoxFuture, try_join_all};

use crate::ca::PlannedChallenge;
use crate::solver::dns01::Dns01;
use crate::solver::http01::Http01;
use crate::solver::ledger::{Needs, Places};

pub use crate::solver::error::SolverError;

/// The ways of this process to meet challenges. One value per process: it counts who needs what.
#[derive(Debug, Default)]
pub struct Solvers {
    http01: Option<Http01>,
    dns01: Option<Dns01>,
    needs: Places<Needs>,
}

/// Who sets challenges up for an order: the solvers of this process, or one who shares their places with others.
pub trait ChallengeHost: Send + Sync {
    /// Sets one response up.
    ///
    /// # Errors
    /// [`SolverError`] naming server, address, file or program.
    fn present<'a>(&'a self, planned: &'a PlannedChallenge) -> BoxFuture<'a, Result<(), SolverError>>;

    /// Waits until the CA can see the responses.
    ///
    /// # Errors
    /// [`SolverError::NotPropagated`] naming the server that does not serve one.
    fn wait_until_visible<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>>;

    /// Removes responses, except those that another order needs. Removing what is not there is fine.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    fn clean_up<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>>;
}

/// Counted: a response that another order of this process needs stays.
impl ChallengeHost for Solvers {
    fn present<'a>(&'a self, planned: &'a PlannedChallenge) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move {
            let mut needs = self.needs.lock(place(planned)).await;
            needs.add(planned);
            self.set_up(planned).await
        })
    }

    fn wait_until_visible<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>> {
        let by_dns = planned.iter().filter(|plan| plan.challenge == Challenge::Dns01);
        let seen = try_join_all(by_dns.map(async |plan| self.dns01()?.wait_until_visible(plan).await));
        Box::pin(async { seen.await.map(|_| ()) })
    }

    fn clean_up<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(async move {
            let mut outcome = Ok(());
            for plan in planned {
                let mut needs = self.needs.lock(place(plan)).await;
                if needs.drop_one(plan) {
                    outcome = outcome.and(self.take_down(plan).await);
                }
            }
            outcome
        })
    }
}

impl Solvers {
    /// By these; a kind that is absent is refused when it is asked for.
    pub fn new(http01: Option<Http01>, dns01: Option<Dns01>) -> Self {
        Self { http01, dns01, needs: Places::default() }
    }

    /// Whether other processes may set responses up in the same place: all do but a listener of our own.
    pub fn is_shared(&self, planned: &PlannedChallenge) -> bool {
        planned.challenge == Challenge::Dns01 || !matches!(self.http01, Some(Http01::Listen(_)))
    }

    /// Sets one response up, for a caller who knows himself who else needs it. All others: [`ChallengeHost::present`].
    ///
    /// # Errors
    /// [`SolverError`] naming server, address, file or program.
    pub async fn set_up(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        match planned.challenge {
            Challenge::Http01 => self.http01()?.set_up(planned).await,
            Challenge::Dns01 => self.dns01()?.set_up(planned).await,
        }
    }

    /// Removes one response, whoever else needs it. Removing what is not there is fine.
    ///
    /// # Errors
    /// [`SolverError`] naming server, address, file or program.
    pub async fn take_down(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        match planned.challenge {
            Challenge::Http01 => self.http01()?.take_down(planned).await,
            Challenge::Dns01 => self.dns01()?.take_down(planned).await,
        }
    }

    /// What would stop DNS-01 for `name`, without changing anything. Returns what was found to be right.
    ///
    /// # Errors
    /// [`SolverError`] naming the provider, the zone or the server.
    pub async fn look_dns01(&self, name: &DnsName) -> Result<Vec<String>, SolverError> {
        self.dns01()?.look(name).await
    }

    fn http01(&self) -> Result<&Http01, SolverError> {
        self.http01.as_ref().ok_or(SolverError::NoSolver { challenge: Challenge::Http01 })
    }

    fn dns01(&self) -> Result<&Dns01, SolverError> {
        self.dns01.as_ref().ok_or(SolverError::NoSolver { challenge: Challenge::Dns01 })
    }
}

/// What two orders of this process must not change at once.
fn place(planned: &PlannedChallenge) -> &str {
    match planned.challenge {
        Challenge::Http01 => "",
        Challenge::Dns01 => planned.name.base(),
    }
}

#[cfg(test)]
mod tests {
    use certbus_core::name::DnsName;

    use super::*;
    use crate::solver::bucket::{Bucket, BucketPlace};

    fn planned(challenge: Challenge) -> PlannedChallenge {
        PlannedChallenge {
            name: DnsName::parse("shop.example").unwrap(),
            challenge,
            token: "token".into(),
            key_authorization: "token.thumbprint".into(),
            dns_value: String::new(),
        }
    }

    #[tokio::test]
    async fn a_response_that_two_orders_need_is_removed_after_the_second() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".well-known/acme-challenge/token");
        let solvers = Solvers::new(Some(Http01::webroot(folder.path())), None);
        let response = planned(Challenge::Http01);
        solvers.present(&response).await.unwrap();
        solvers.present(&response).await.unwrap();
        solvers.clean_up(std::slice::from_ref(&response)).await.unwrap();
        assert!(file.exists(), "the other order needs it");
        solvers.clean_up(std::slice::from_ref(&response)).await.unwrap();
        assert!(!file.exists());
        // What a process that ended has left behind.
        solvers.set_up(&response).await.unwrap();
        solvers.clean_up(std::slice::from_ref(&response)).await.unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn all_places_but_a_listener_of_our_own_are_shared_with_other_managers() {
        let place = BucketPlace { bucket: "shop".into(), region: None, prefix: None, endpoint: None, keys: None };
        for (http01, shared) in [
            (Http01::Bucket(Box::new(Bucket::new(place).unwrap())), true),
            (Http01::webroot("/srv"), true),
            (Http01::listen(([127, 0, 0, 1], 80).into()), false),
        ] {
            let solvers = Solvers::new(Some(http01), None);
            assert_eq!(solvers.is_shared(&planned(Challenge::Http01)), shared, "{solvers:?}");
            assert!(solvers.is_shared(&planned(Challenge::Dns01)));
        }
    }
}
