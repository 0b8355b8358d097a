//! DNS-01 (RFC 8555 section 8.4): which record, at which name, seen by whom. How a provider changes a zone is in
//! [`crate::dns`].

use crate::ca::PlannedChallenge;
use crate::dns::exec::ExecHook;
use crate::dns::lookup;
use crate::dns::propagation::Propagation;
use crate::dns::rfc2136::Rfc2136;
use crate::solver::SolverError;
use crate::solver::ledger::Ledger;

/// A provider, and how it is seen that its change arrived.
#[derive(Debug)]
pub struct Dns01 {
    provider: Dns01Provider,
    propagation: Propagation,
    needs: Ledger,
}

/// Who changes the zone.
#[derive(Debug)]
pub enum Dns01Provider {
    /// A DNS server, by dynamic update.
    Rfc2136(Rfc2136),
    /// The user's program.
    Exec(ExecHook),
}

impl Dns01 {
    /// By `provider`, seen as `propagation` says.
    pub fn new(provider: Dns01Provider, propagation: Propagation) -> Self {
        Self { provider, propagation, needs: Ledger::default() }
    }

    pub(crate) async fn present(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        let name = self.record_name(planned).await?;
        match &self.provider {
            Dns01Provider::Rfc2136(server) => {
                let zone = server.zone_of(&name).await?;
                let mut needs = self.needs.lock(&zone).await;
                needs.add(&name, &planned.dns_value);
                server.add(&zone, &name, &planned.dns_value).await
            }
            Dns01Provider::Exec(hook) => {
                let mut needs = self.needs.lock("").await;
                needs.add(&name, &planned.dns_value);
                hook.present(&name, &planned.dns_value).await
            }
        }
    }

    pub(crate) async fn wait_until_visible(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        let name = self.record_name(planned).await?;
        let updated = match &self.provider {
            Dns01Provider::Rfc2136(server) => Some(server.address().await?),
            Dns01Provider::Exec(_) => None,
        };
        self.propagation.wait(&name, &planned.dns_value, updated).await
    }

    pub(crate) async fn remove(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        let name = self.record_name(planned).await?;
        match &self.provider {
            Dns01Provider::Rfc2136(server) => {
                let zone = server.zone_of(&name).await?;
                let mut needs = self.needs.lock(&zone).await;
                match needs.drop_one(&name, &planned.dns_value) {
                    true => server.remove(&zone, &name, &planned.dns_value).await,
                    false => Ok(()),
                }
            }
            Dns01Provider::Exec(hook) => {
                let mut needs = self.needs.lock("").await;
                match needs.drop_one(&name, &planned.dns_value) {
                    true => hook.clean_up(&name, &planned.dns_value).await,
                    false => Ok(()),
                }
            }
        }
    }

    /// The name the record stands at: where a CNAME at `_acme-challenge` leads, as the CA will follow it.
    async fn record_name(&self, planned: &PlannedChallenge) -> Result<String, SolverError> {
        let name = format!("_acme-challenge.{}.", planned.name.base());
        let own = match &self.provider {
            Dns01Provider::Rfc2136(server) => Some(server.address().await?),
            Dns01Provider::Exec(_) => None,
        };
        lookup::canonical(name, own, &self.propagation.resolvers()).await
    }
}
