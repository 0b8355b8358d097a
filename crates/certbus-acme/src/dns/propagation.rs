//! Waiting until a zone's authoritative servers all serve a TXT record: a CA asks whichever it likes. It asks them
//! directly, since a resolver would remember that there was none.

use std::net::SocketAddr;
use std::time::Duration;

use futures::future::try_join_all;
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use hickory_resolver::system_conf::read_system_conf;
use tokio::time::Instant;

use crate::dns::lookup;
use crate::solver::SolverError;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Who is asked, and for how long.
#[derive(Debug, Clone)]
pub struct Propagation {
    /// The resolver that finds the zone's nameservers; the system's where None.
    pub resolver: Option<SocketAddr>,
    /// The zone's authoritative servers, where they are not those that its NS records name (split or hidden DNS).
    pub authoritative: Vec<SocketAddr>,
    /// How long all of them together are given.
    pub timeout: Duration,
}

impl Default for Propagation {
    fn default() -> Self {
        Self { resolver: None, authoritative: Vec::new(), timeout: Duration::from_secs(120) }
    }
}

impl Propagation {
    /// Waits until every server serves `value` at `name`. `updated` is the server that took the change: it is asked
    /// too, and alone where the nameservers cannot be found.
    pub(crate) async fn wait(&self, name: &str, value: &str, updated: Option<SocketAddr>) -> Result<(), SolverError> {
        let servers = self.servers(name, updated).await?;
        let deadline = Instant::now() + self.timeout;
        try_join_all(servers.into_iter().map(|server| self.wait_for(server, name, value, deadline))).await?;
        Ok(())
    }

    /// Whether every server that would be waited for answers about `name`. Returns what was found out.
    pub(crate) async fn look(&self, name: &str, updated: Option<SocketAddr>) -> Result<Vec<String>, SolverError> {
        let servers = self.servers(name, updated).await?;
        let asked = servers.iter().map(async |server| {
            let answer = lookup::ask(*server, name, RecordType::TXT).await?;
            if matches!(answer.metadata.response_code, ResponseCode::Refused | ResponseCode::ServFail) {
                let (server, name, answer) = (server.to_string(), name.to_owned(), lookup::code(&answer));
                return Err(SolverError::NoZone { server, name, answer });
            }
            Ok(format!("the nameserver {server} answers about {name}"))
        });
        try_join_all(asked).await
    }

    async fn servers(&self, name: &str, updated: Option<SocketAddr>) -> Result<Vec<SocketAddr>, SolverError> {
        let mut servers = match (self.authoritative.as_slice(), updated) {
            ([], None) => self.nameservers(name).await?,
            ([], Some(_)) => self.nameservers(name).await.unwrap_or_default(),
            (given, _) => given.to_vec(),
        };
        servers.extend(updated.filter(|server| !servers.contains(server)));
        Ok(servers)
    }

    pub(crate) fn resolvers(&self) -> Vec<SocketAddr> {
        match self.resolver {
            Some(resolver) => vec![resolver],
            None => system_resolvers(),
        }
    }

    async fn wait_for(
        &self,
        server: SocketAddr,
        name: &str,
        value: &str,
        deadline: Instant,
    ) -> Result<(), SolverError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let saw = match lookup::ask(server, name, RecordType::TXT).await {
                Ok(answer) => {
                    let texts = lookup::texts(&answer);
                    if texts.iter().any(|text| text == value) {
                        return Ok(());
                    }
                    if texts.is_empty() { lookup::code(&answer) } else { format!("{texts:?}") }
                }
                Err(error) => error.to_string(),
            };
            if Instant::now() + pause > deadline {
                let (server, name) = (server.to_string(), name.to_owned());
                return Err(SolverError::NotPropagated { server, name, saw, waited: self.timeout });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The addresses that the zone's NS records lead to: IPv4, and IPv6 for servers that have nothing else.
    async fn nameservers(&self, name: &str) -> Result<Vec<SocketAddr>, SolverError> {
        let mut outcome = Err(SolverError::Settings {
            what: "no resolver is known to find the zone's nameservers with; name one, or name the nameservers".into(),
        });
        for resolver in self.resolvers() {
            outcome = nameservers_by(resolver, name).await;
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

async fn nameservers_by(resolver: SocketAddr, name: &str) -> Result<Vec<SocketAddr>, SolverError> {
    let zone = lookup::zone_of(resolver, name).await?;
    let answer = lookup::ask(resolver, &zone, RecordType::NS).await?;
    let mut servers = Vec::new();
    for server in lookup::nameservers(&answer) {
        let mut addresses = lookup::addresses(&lookup::ask(resolver, &server, RecordType::A).await?);
        if addresses.is_empty() {
            addresses = lookup::addresses(&lookup::ask(resolver, &server, RecordType::AAAA).await?);
        }
        servers.extend(addresses.into_iter().map(|address| SocketAddr::new(address, 53)));
    }
    match servers.is_empty() {
        true => Err(SolverError::NoZone {
            server: resolver.to_string(),
            name: name.to_owned(),
            answer: lookup::code(&answer),
        }),
        false => Ok(servers),
    }
}

fn system_resolvers() -> Vec<SocketAddr> {
    match read_system_conf() {
        Ok((config, _)) => config.name_servers().iter().map(|server| SocketAddr::new(server.ip, 53)).collect(),
        Err(_) => Vec::new(),
    }
}
