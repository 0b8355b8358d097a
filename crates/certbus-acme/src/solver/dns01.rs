//! DNS-01 (RFC 8555 section 8.4): which record, at which name, seen by whom. How a provider changes a zone is in
//! [`crate::dns`].

use certbus_core::name::DnsName;

use crate::ca::PlannedChallenge;
use crate::dns::api::Api;
use crate::dns::exec::ExecHook;
use crate::dns::httpreq::HttpReq;
use crate::dns::lookup;
use crate::dns::propagation::Propagation;
use crate::dns::rfc2136::Rfc2136;
use crate::solver::SolverError;
use crate::solver::ledger::Places;

/// A provider, and how it is seen that its change arrived.
#[derive(Debug)]
pub struct Dns01 {
    provider: Dns01Provider,
    propagation: Propagation,
    zones: Places<()>,
}

/// What is done to a record.
#[derive(Clone, Copy)]
enum Change {
    Add,
    Remove,
}

/// Who changes the zone.
#[derive(Debug)]
pub enum Dns01Provider {
    /// A DNS server, by dynamic update.
    Rfc2136(Rfc2136),
    /// A provider's API.
    Api(Box<Api>),
    /// The user's own HTTP service.
    HttpReq(Box<HttpReq>),
    /// The user's program.
    Exec(ExecHook),
}

impl Dns01 {
    /// By `provider`, seen as `propagation` says.
    pub fn new(provider: Dns01Provider, propagation: Propagation) -> Self {
        Self { provider, propagation, zones: Places::default() }
    }

    pub(crate) async fn set_up(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        self.change(planned, Change::Add).await
    }

    pub(crate) async fn take_down(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        self.change(planned, Change::Remove).await
    }

    pub(crate) async fn wait_until_visible(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        let name = self.record_name(planned).await?;
        let updated = match &self.provider {
            Dns01Provider::Rfc2136(server) => Some(server.address().await?),
            Dns01Provider::Api(_) | Dns01Provider::HttpReq(_) | Dns01Provider::Exec(_) => None,
        };
        self.propagation.wait(&name, &planned.dns_value, updated).await
    }

    /// What would stop a challenge for `name`, without changing anything: that its zone is not found, that the provider does
    /// not let us in, that a nameserver does not answer. Returns what was found out.
    ///
    /// # Errors
    /// [`SolverError`] naming the provider, the zone or the server.
    pub async fn look(&self, name: &DnsName) -> Result<Vec<String>, SolverError> {
        let name = self.canonical(name).await?;
        let mut found = Vec::new();
        let updated = match &self.provider {
            Dns01Provider::Rfc2136(server) => {
                let (address, zone) = (server.address().await?, server.zone_of(&name).await?);
                found.push(format!("the DNS server {address} has the zone {zone} for {name}"));
                Some(address)
            }
            Dns01Provider::Api(api) => {
                let zone = self.zone_of(api, &name).await?;
                api.look(&zone, &name).await?;
                found.push(format!("{} has the zone {zone} for {name}", api.word()));
                None
            }
            Dns01Provider::HttpReq(_) | Dns01Provider::Exec(_) => None,
        };
        found.extend(self.propagation.look(&name, updated).await?);
        Ok(found)
    }

    /// One change of a zone at a time, where it is known which; else one at a time.
    async fn change(&self, planned: &PlannedChallenge, change: Change) -> Result<(), SolverError> {
        let (name, value) = (self.record_name(planned).await?, &planned.dns_value);
        let zone = match &self.provider {
            Dns01Provider::Rfc2136(server) => server.zone_of(&name).await?,
            Dns01Provider::Api(api) => self.zone_of(api, &name).await?,
            Dns01Provider::HttpReq(_) | Dns01Provider::Exec(_) => String::new(),
        };
        let _alone = self.zones.lock(&zone).await;
        match (&self.provider, change) {
            (Dns01Provider::Rfc2136(server), Change::Add) => server.add(&zone, &name, value).await,
            (Dns01Provider::Rfc2136(server), Change::Remove) => server.remove(&zone, &name, value).await,
            (Dns01Provider::Api(api), Change::Add) => api.add(&zone, &name, value).await,
            (Dns01Provider::Api(api), Change::Remove) => api.remove(&zone, &name, value).await,
            (Dns01Provider::HttpReq(service), Change::Add) => service.present(planned, &name).await,
            (Dns01Provider::HttpReq(service), Change::Remove) => service.clean_up(planned, &name).await,
            (Dns01Provider::Exec(hook), Change::Add) => hook.present(&name, value).await,
            (Dns01Provider::Exec(hook), Change::Remove) => hook.clean_up(&name, value).await,
        }
    }

    async fn zone_of(&self, api: &Api, name: &str) -> Result<String, SolverError> {
        if let Some(zone) = api.zone() {
            return Ok(zone.to_owned());
        }
        let mut outcome = Err(SolverError::Settings {
            what: format!("no resolver is known to find the zone of {name} with; write dns01.resolver or dns01.zone"),
        });
        for resolver in self.propagation.resolvers() {
            outcome = lookup::zone_of(resolver, name).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }

    /// The name the record stands at: where a CNAME at `_acme-challenge` leads, as the CA will follow it.
    async fn record_name(&self, planned: &PlannedChallenge) -> Result<String, SolverError> {
        self.canonical(&planned.name).await
    }

    async fn canonical(&self, name: &DnsName) -> Result<String, SolverError> {
        let name = format!("_acme-challenge.{}.", name.base());
        let own = match &self.provider {
            Dns01Provider::Rfc2136(server) => Some(server.address().await?),
            Dns01Provider::Api(_) | Dns01Provider::HttpReq(_) | Dns01Provider::Exec(_) => None,
        };
        lookup::canonical(name, own, &self.propagation.resolvers()).await
    }
}
