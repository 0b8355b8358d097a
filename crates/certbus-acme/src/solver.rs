//! Showing control of a name: what is set up, seen, and removed again, for each kind of challenge (RFC 8555 section
//! 8). It knows no order: only responses, and how many in this process need each.

pub mod bucket;
pub mod dns01;
mod error;
pub mod http01;
pub(crate) mod ledger;
pub mod rehearsal;

use certbus_core::name::DnsName;
use certbus_core::spec::Challenge;
use futures::future::{BoxFuture, try_join_all};

use crate::ca::PlannedChallenge;
use crate::solver::dns01::Dns01;
use crate::solver::http01::Http01;

pub use crate::solver::error::SolverError;

/// The ways of this process to meet challenges. One value per process: it counts who needs what.
#[derive(Debug, Default)]
pub struct Solvers {
    /// For HTTP-01.
    pub http01: Option<Http01>,
    /// For DNS-01.
    pub dns01: Option<Dns01>,
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

impl ChallengeHost for Solvers {
    fn present<'a>(&'a self, planned: &'a PlannedChallenge) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(Self::present(self, planned))
    }

    fn wait_until_visible<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(Self::wait_until_visible(self, planned))
    }

    fn clean_up<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(Self::clean_up(self, planned))
    }
}

impl Solvers {
    /// Whether other processes may set responses up in the same place: all do but a listener of our own.
    pub fn is_shared(&self, planned: &PlannedChallenge) -> bool {
        planned.challenge == Challenge::Dns01 || !matches!(self.http01, Some(Http01::Listen(_)))
    }

    /// Sets one response up.
    ///
    /// # Errors
    /// [`SolverError`] naming server, address, file or program.
    pub async fn present(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        match planned.challenge {
            Challenge::Http01 => self.http01()?.present(planned).await,
            Challenge::Dns01 => self.dns01()?.present(planned).await,
        }
    }

    /// Waits until the CA can see the responses.
    ///
    /// # Errors
    /// [`SolverError::NotPropagated`] naming the server that does not serve one.
    pub async fn wait_until_visible(&self, planned: &[PlannedChallenge]) -> Result<(), SolverError> {
        let by_dns = planned.iter().filter(|plan| plan.challenge == Challenge::Dns01);
        try_join_all(by_dns.map(async |plan| self.dns01()?.wait_until_visible(plan).await)).await?;
        Ok(())
    }

    /// Removes responses, except those that another order of this process needs. Removing what is not there is fine.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    pub async fn clean_up(&self, planned: &[PlannedChallenge]) -> Result<(), SolverError> {
        let mut outcome = Ok(());
        for plan in planned {
            let removed = match plan.challenge {
                Challenge::Http01 => match self.http01() {
                    Ok(solver) => solver.remove(plan).await,
                    Err(error) => Err(error),
                },
                Challenge::Dns01 => match self.dns01() {
                    Ok(solver) => solver.remove(plan).await,
                    Err(error) => Err(error),
                },
            };
            outcome = outcome.and(removed);
        }
        outcome
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

#[cfg(test)]
mod tests {
    use certbus_core::name::DnsName;

    use super::*;
    use crate::solver::bucket::{Bucket, BucketPlace};

    #[test]
    fn all_places_but_a_listener_of_our_own_are_shared_with_other_managers() {
        let planned = |challenge| PlannedChallenge {
            name: DnsName::parse("shop.example").unwrap(),
            challenge,
            token: "token".into(),
            key_authorization: String::new(),
            dns_value: String::new(),
        };
        let place = BucketPlace { bucket: "shop".into(), region: None, prefix: None, endpoint: None, keys: None };
        for (http01, shared) in [
            (Http01::Bucket(Box::new(Bucket::new(place).unwrap())), true),
            (Http01::webroot("/srv"), true),
            (Http01::listen(([127, 0, 0, 1], 80).into()), false),
        ] {
            let solvers = Solvers { http01: Some(http01), dns01: None };
            assert_eq!(solvers.is_shared(&planned(Challenge::Http01)), shared, "{solvers:?}");
            assert!(solvers.is_shared(&planned(Challenge::Dns01)));
        }
    }
}
