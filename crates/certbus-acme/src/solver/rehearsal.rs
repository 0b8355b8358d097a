//! HTTP-01 without a CA: a response is set up, and fetched as a CA would fetch it. It tells what is in the way, and leaves
//! nothing behind.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use certbus_core::name::DnsName;
use certbus_core::spec::Challenge;
use hickory_resolver::proto::rr::RecordType;
use reqwest::redirect::Policy;

use crate::ca::PlannedChallenge;
use crate::dns::lookup;
use crate::dns::propagation::Propagation;
use crate::error::innermost;
use crate::http::text_of;
use crate::solver::http01::{FOLDER, Http01};
use crate::solver::{SolverError, Solvers};

/// Where CAs ask (RFC 8555 section 8.3).
const PORT: u16 = 80;
const CONNECTED_WITHIN: Duration = Duration::from_secs(5);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
const LARGEST_ANSWER: usize = 1 << 16;

/// How a rehearsal went.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rehearsed {
    /// What went well.
    pub good: Vec<String>,
    /// What may go wrong.
    pub doubtful: Vec<String>,
    /// What a CA would fail at.
    pub bad: Vec<String>,
}

impl Solvers {
    /// Sets up a response for `name` under `token`, fetches it at every address of the name, and removes it.
    ///
    /// # Errors
    /// [`SolverError`] if it cannot be set up.
    pub async fn rehearse_http01(
        &self,
        name: &DnsName,
        token: &str,
        resolver: Option<SocketAddr>,
    ) -> Result<Rehearsed, SolverError> {
        let planned = PlannedChallenge {
            name: name.clone(),
            challenge: Challenge::Http01,
            token: token.to_owned(),
            key_authorization: format!("{token}.rehearsal"),
            dns_value: String::new(),
        };
        let mut rehearsed = Rehearsed::default();
        let addresses = addresses(name, resolver).await;
        if addresses.is_empty() {
            rehearsed
                .bad
                .push(format!("{name} has no address in DNS; let it lead to where its challenges are answered"));
        }
        let fetched = match self.set_up(&planned).await {
            Ok(()) => Ok(self.fetch_everywhere(&planned, &addresses, rehearsed).await),
            Err(error) => Err(error),
        };
        let removed = self.take_down(&planned).await;
        let rehearsed = fetched?;
        removed.map(|()| rehearsed)
    }

    async fn fetch_everywhere(&self, planned: &PlannedChallenge, addresses: &[IpAddr], mut so: Rehearsed) -> Rehearsed {
        let own = match &self.http01 {
            Some(Http01::Listen(listener)) => Some(listener.port()).filter(|port| *port != PORT),
            _ => None,
        };
        let (name, mut failed) = (&planned.name, Vec::new());
        for address in addresses {
            let at = |port: u16| SocketAddr::new(*address, port);
            match (fetch(planned, at(PORT)).await, own) {
                (Ok(()), _) => so.good.push(format!("{name} answers a token at {}", at(PORT))),
                (Err(Fetch::Unreached(why)), Some(port)) if fetch(planned, at(port)).await.is_ok() => {
                    so.doubtful.push(format!(
                        "{name} answers a token at {}, and not at port {PORT}, where public CAs ask ({why}); pass port \
                         {PORT} on to it, or listen there",
                        at(port)
                    ));
                }
                (Err(Fetch::Unreached(why) | Fetch::Other(why)), _) => {
                    failed.push(format!("{name} at {}: {why}", at(PORT)))
                }
            }
        }
        // A CA takes another address when one cannot be reached, and this machine may have no way to some of them.
        let some = !so.good.is_empty() || !so.doubtful.is_empty();
        if some {
            so.doubtful.extend(failed)
        } else {
            so.bad.extend(failed)
        }
        so
    }
}

enum Fetch {
    /// No connection.
    Unreached(String),
    /// Another answer.
    Other(String),
}

/// As a CA does it: redirects are followed, certificates on the way are not looked at.
async fn fetch(planned: &PlannedChallenge, at: SocketAddr) -> Result<(), Fetch> {
    let name = planned.name.as_str();
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(Policy::limited(10))
        .tls_danger_accept_invalid_certs(true)
        .connect_timeout(CONNECTED_WITHIN)
        .timeout(ANSWER_WITHIN)
        .resolve(name, at)
        .build()
        .map_err(|error| Fetch::Other(error.to_string()))?;
    let url = match at.port() {
        PORT => format!("http://{name}/{FOLDER}/{}", planned.token),
        port => format!("http://{name}:{port}/{FOLDER}/{}", planned.token),
    };
    let answer = client.get(&url).send().await.map_err(|error| {
        let why = innermost(&error);
        if error.is_connect() { Fetch::Unreached(why) } else { Fetch::Other(why) }
    })?;
    let (status, last) = (answer.status(), answer.url().clone());
    if !status.is_success() {
        return Err(Fetch::Other(format!(
            "{last} answers HTTP {}, not the token; see what serves it",
            status.as_u16()
        )));
    }
    let text = text_of(answer, LARGEST_ANSWER).await.map_err(|error| Fetch::Other(innermost(&error)))?;
    match text.trim_end() == planned.key_authorization {
        true => Ok(()),
        false => Err(Fetch::Other(format!("{last} answers something else than the token; see what serves it"))),
    }
}

/// The addresses of a name, as the first resolver that answers says them.
async fn addresses(name: &DnsName, resolver: Option<SocketAddr>) -> Vec<IpAddr> {
    let name = format!("{}.", name.base());
    for resolver in (Propagation { resolver, ..Propagation::default() }).resolvers() {
        let asked = [RecordType::A, RecordType::AAAA].map(|kind| lookup::ask(resolver, &name, kind));
        let found: Vec<_> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        if !found.is_empty() {
            return found.iter().flat_map(lookup::addresses).collect();
        }
    }
    Vec::new()
}
